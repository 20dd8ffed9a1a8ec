//! The rig's merchants and their limits, and the policy document that says so.

use std::fmt::Write;

use super::plan::{AMOUNT_MINOR, Expect, Payers};

/// Limits that no run reaches, so that every payment is decided and charged.
pub(super) const LOAD: Payers = Payers { prefix: "load-", count: 1_000 };
/// One merchant with a yearly count that a race reaches.
pub(super) const RACE: Payers = Payers { prefix: "race-", count: 1 };
/// The same for the variant without batches.
pub(super) const RACE_UNBATCHED: Payers = Payers { prefix: "race-unbatched-", count: 1 };
/// The same for the native host.
pub(super) const RACE_NATIVE_HOST: Payers = Payers { prefix: "race-native-host-", count: 1 };
/// The same for payments that are admitted from rights.
pub(super) const RACE_TRUSTED: Payers = Payers { prefix: "race-trusted-", count: 1 };
/// The same for the native host.
pub(super) const RACE_TRUSTED_NATIVE_HOST: Payers = Payers { prefix: "race-trusted-native-host-", count: 1 };
/// Merchants whose second payment exceeds their yearly amount.
pub(super) const DENIED: Payers = Payers { prefix: "deny-", count: 100 };
/// The account that all preloaded ones are copies of.
pub(super) const TEMPLATE: Payers = Payers { prefix: "template-", count: 1 };

/// Payments that a race's merchant has room for.
pub(super) const RACE_ROOM: u64 = 300;
/// A denied merchant's yearly amount is this and its own number: more than one payment, less than two.
const DENIED_BASE: u64 = 2 * AMOUNT_MINOR - DENIED.count as u64;
/// How the refusal of a denied merchant's second payment is recognised.
pub(super) const DENIED_ANSWER: Expect = Expect::Refused { code: "YEARLY_AMOUNT", limit_base: DENIED_BASE };

/// Merchants with the first of the limits and a credit line that no run uses up.
pub(super) const CREDIT: Payers = Payers { prefix: "credit-", count: 100 };

/// Few merchants that soon reach a threshold, and stay far below their limit.
pub(super) const WATCHED: Payers = Payers { prefix: "watched-", count: 4 };
/// Payments of one of them until then: 1 % of its yearly count.
pub(super) const WATCHED_FROM: u64 = 1_000;

/// Merchants with one to ten limits, none of which a run reaches.
pub(super) const LIMITS: [Payers; 10] = [
    limits("limits-01-"),
    limits("limits-02-"),
    limits("limits-03-"),
    limits("limits-04-"),
    limits("limits-05-"),
    limits("limits-06-"),
    limits("limits-07-"),
    limits("limits-08-"),
    limits("limits-09-"),
    limits("limits-10-"),
];
/// Each merchant has the first so many of these.
const LIMIT_FIELDS: [&str; 10] = [
    "daily_amount: 9000000000000000",
    "daily_count: 1000000000",
    "single_max: 100000000",
    "monthly_amount: 9000000000000000",
    "monthly_count: 1000000000",
    "yearly_amount: 9000000000000000",
    "yearly_count: 1000000000",
    "single_min: 1",
    "pending_amount: 9000000000000000",
    "refund_daily_amount: 9000000000000000",
];

const fn limits(prefix: &'static str) -> Payers {
    Payers { prefix, count: 100 }
}

/// By which rights are granted. Only variants whose rule is trusted ask for any.
const TRUST: &str = "{above_percent: 20, share_percent: 5, ttl_ms: 2000}";

/// The policy document.
pub(super) fn policies() -> String {
    let mut text = format!(
        "version: load\ndefault: {{single_max: 100000000, daily_amount: 9000000000000000, trust: {TRUST}}}\ntiers:\n"
    );
    for (count, payers) in (1..).zip(LIMITS) {
        let fields = LIMIT_FIELDS.get(..count).unwrap_or(&LIMIT_FIELDS).join(", ");
        // What the default limits and a tier does not would be inherited.
        let lifted = if count < 3 { ", single_max: unlimited" } else { "" };
        let _ = writeln!(text, "  {}: {{{fields}{lifted}}}", payers.prefix.trim_end_matches('-'));
    }
    text.push_str("merchants:\n");
    for race in [RACE, RACE_UNBATCHED, RACE_NATIVE_HOST, RACE_TRUSTED, RACE_TRUSTED_NATIVE_HOST] {
        let _ = writeln!(text, "  {}: {{yearly_count: {RACE_ROOM}}}", Payers::name(race.prefix, 0));
    }
    for number in 0..WATCHED.count as usize {
        let (name, max) = (Payers::name(WATCHED.prefix, number), WATCHED_FROM * 100);
        let _ = writeln!(text, "  {name}: {{yearly_count: {max}, thresholds: [1]}}");
    }
    for number in 0..DENIED.count as usize {
        let max = DENIED_BASE + number as u64;
        let _ = writeln!(text, "  {}: {{yearly_amount: {max}}}", Payers::name(DENIED.prefix, number));
    }
    for number in 0..CREDIT.count as usize {
        let _ = writeln!(text, "  {}: {{tier: limits-01}}", Payers::name(CREDIT.prefix, number));
    }
    for payers in LIMITS {
        let tier = payers.prefix.trim_end_matches('-');
        for number in 0..payers.count as usize {
            let _ = writeln!(text, "  {}: {{tier: {tier}}}", Payers::name(payers.prefix, number));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn the_policy_document_gives_each_merchant_its_limits() {
        let document: BTreeMap<String, serde_json::Value> = serde_yaml_ng::from_str(&policies()).unwrap();
        let tiers = document["tiers"].as_object().unwrap();
        let limited = |tier: &serde_json::Value| {
            tier.as_object().unwrap().values().filter(|limit| limit.as_str() != Some("unlimited")).count()
        };
        assert_eq!(tiers.values().map(limited).collect::<Vec<_>>(), (1..=10).collect::<Vec<_>>());
        assert_eq!(document["default"]["trust"]["ttl_ms"], 2_000);
        let denied = &document["merchants"]["deny-000099"]["yearly_amount"];
        assert_eq!(denied.as_u64().unwrap(), 2 * AMOUNT_MINOR - 1, "two payments exceed every denied merchant's limit");
    }
}
