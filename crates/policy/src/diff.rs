//! The differences between two books for each merchant, as text lines for review before a change is applied.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use chrono::DateTime;

use super::book::{Entry, PolicyBook, Timeline};
use quota::{AmountMinor, Breach, LimitName, OnExpiry, Policy};

/// The differences, one line for each field of each policy that changes; none where both books decide alike. A merchant with
/// only a tier is covered by the tier's lines.
#[must_use]
pub fn policy_diff(old: &PolicyBook, new: &PolicyBook) -> Vec<String> {
    let mut lines = Vec::new();
    compare("default", Some(&old.default), Some(&new.default), &mut lines);
    let tiers = old.tiers.keys().chain(new.tiers.keys()).map(|name| (name, ())).collect::<BTreeMap<_, ()>>();
    for name in tiers.into_keys() {
        compare(&format!("tier {name}"), old.tiers.get(name), new.tiers.get(name), &mut lines);
    }
    let merchants = old.merchants.keys().chain(new.merchants.keys()).map(|id| (id, ())).collect::<BTreeMap<_, ()>>();
    for id in merchants.into_keys() {
        let (before, after) = (old.merchants.get(id), new.merchants.get(id));
        if let (Some(before), Some(after)) = (before, after)
            && tier_of(old, before).is_some_and(|tier| tier_of(new, after) == Some(tier))
        {
            continue;
        }
        // An unnamed merchant has the default.
        let (before, after) = (before.unwrap_or(&old.default), after.unwrap_or(&new.default));
        if Arc::ptr_eq(before, &old.default) && Arc::ptr_eq(after, &new.default) {
            continue;
        }
        compare(&format!("merchant {id}"), Some(before), Some(after), &mut lines);
    }
    lines
}

fn tier_of<'a>(book: &'a PolicyBook, timeline: &Arc<Timeline>) -> Option<&'a str> {
    let found = book.tiers.iter().find(|(_, tier)| Arc::ptr_eq(tier, timeline));
    found.map(|(name, _)| name.as_str())
}

fn compare(scope: &str, old: Option<&Arc<Timeline>>, new: Option<&Arc<Timeline>>, lines: &mut Vec<String>) {
    let timelines = old.into_iter().chain(new);
    let moments: BTreeMap<i64, ()> =
        timelines.flat_map(|timeline| timeline.entries.iter()).map(|(from_ms, _)| (*from_ms, ())).collect();
    let nothing = Entry::default();
    let mut previous: Vec<String> = Vec::new();
    for at_ms in moments.into_keys() {
        let before = old.and_then(|timeline| timeline.at(at_ms)).unwrap_or(&nothing);
        let after = new.and_then(|timeline| timeline.at(at_ms)).unwrap_or(&nothing);
        let changes = entries(before, after);
        // The changes of the period before still apply.
        if changes == previous {
            continue;
        }
        let from = if at_ms == i64::MIN { String::new() } else { format!(" from {}", moment(at_ms)) };
        if changes.is_empty() {
            lines.push(format!("{scope}{from}: as before"));
        }
        lines.extend(changes.iter().map(|change| format!("{scope}{from}{change}")));
        previous = changes;
    }
}

fn entries(before: &Entry, after: &Entry) -> Vec<String> {
    let (before, after) = (slots(before), slots(after));
    let all: BTreeMap<_, ()> = before.keys().chain(after.keys()).map(|slot| (*slot, ())).collect();
    let mut changes = Vec::new();
    for slot @ (channel, currency) in all.into_keys() {
        let mut slot_text = String::new();
        for (name, value) in [("channel", channel), ("currency", currency)] {
            if !value.is_empty() {
                // Writing to a string cannot fail.
                let _ = write!(slot_text, ", {name} {value}");
            }
        }
        // A slot that one side lacks is decided by the next wider slot of that side.
        let of = |slots: &Slots<'_>| {
            let wider = [slot, (channel, ""), ("", currency), ("", "")];
            wider.into_iter().find_map(|slot| slots.get(&slot).map(|policy| fields(policy)))
        };
        match (of(&before), of(&after)) {
            (Some(old), Some(new)) => {
                let pairs = old.into_iter().zip(new).filter(|((_, old), (_, new))| old != new);
                changes.extend(pairs.map(|((name, old), (_, new))| format!("{slot_text}: {name} {old} -> {new}")));
            }
            (None, Some(new)) => {
                let open = fields(&Policy::unlimited(Arc::from("")));
                let set = new.into_iter().zip(open).filter(|((_, new), (_, open))| new != open);
                let set: Vec<String> = set.map(|((name, new), _)| format!("{name} {new}")).collect();
                changes.push(format!("{slot_text}: gets a policy, {}", set.join(", ")));
            }
            (Some(_), None) => changes.push(format!("{slot_text}: loses its policy, payments will be refused")),
            (None, None) => {}
        }
    }
    changes
}

type Slots<'a> = BTreeMap<(&'a str, &'a str), &'a Policy>;

fn slots(entry: &Entry) -> Slots<'_> {
    let base = entry.base.iter().map(|policy| (("", ""), policy.as_ref()));
    let variants = entry.variants.iter().map(|(slot, policy)| ((&*slot.channel, slot.currency), policy.as_ref()));
    base.chain(variants).collect()
}

/// Every field with its name in the document.
fn fields(policy: &Policy) -> Vec<(&'static str, String)> {
    // Destructured, so that a new field cannot be omitted.
    let Policy {
        version: _,
        calendar,
        // Always true: a book's calendars are its merchants' own.
        calendar_known: _,
        single_min,
        single_max,
        limits,
        weight,
        breach,
        hold,
        over_capture_percent,
        on_unknown_credit,
        trust,
        threshold_policy,
        merchant_unknown,
        allowed_channels,
        allowed_currencies,
    } = policy;
    let names = |set: &Option<std::collections::BTreeSet<String>>| match set {
        Some(names) => format!("[{}]", names.iter().map(String::as_str).collect::<Vec<_>>().join(", ")),
        None => "all".to_owned(),
    };
    let breach = match breach {
        Breach::Reject => "reject".to_owned(),
        Breach::Throttle(t) => format!(
            "throttle {}/min burst {} delay {} ms ceiling {} %",
            t.per_minute, t.burst, t.delay_ms_max, t.ceiling_percent
        ),
    };
    let trust = trust.map_or_else(
        || "off".to_owned(),
        |t| format!("above {} % share {} % ttl {} ms", t.above_percent, t.share_percent, t.ttl_ms),
    );
    let on_expiry = match hold.on_expiry {
        OnExpiry::Void => "void",
        OnExpiry::Settle => "settle",
    };
    let set = |name: LimitName| (name.as_str(), limit(AmountMinor::new(name.max(limits)).unwrap_or(AmountMinor::MAX)));
    let mut fields = vec![
        ("charges", if *merchant_unknown { "refused, the merchant is unknown" } else { "allowed" }.to_owned()),
        ("calendar", format!("{calendar:?}")),
        ("allowed_channels", names(allowed_channels)),
        ("allowed_currencies", names(allowed_currencies)),
        ("single_min", single_min.to_string()),
        ("single_max", limit(*single_max)),
        ("weight_bp", weight.bp().to_string()),
        ("units_per_payment", weight.units_per_payment().to_string()),
        ("breach", breach),
        ("hold.lifetime_secs", hold.lifetime_secs.to_string()),
        ("hold.on_expiry", on_expiry.to_owned()),
        ("over_capture_percent", over_capture_percent.to_string()),
        ("on_unknown_credit", on_unknown_credit.as_str().to_owned()),
        ("trust", trust),
        (
            "thresholds",
            threshold_policy.as_ref().map_or_else(String::new, |policy| format!("{:?}", policy.thresholds())),
        ),
    ];
    fields.extend(LimitName::ALL.map(set));
    fields
}

fn limit(max: AmountMinor) -> String {
    if max == AmountMinor::MAX { "unlimited".to_owned() } else { max.to_string() }
}

fn moment(at_ms: i64) -> String {
    DateTime::from_timestamp_millis(at_ms).map_or_else(|| at_ms.to_string(), |at| at.to_rfc3339())
}
