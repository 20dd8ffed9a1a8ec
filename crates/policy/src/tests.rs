use super::*;
use crate::zone::Bundled;
use quota::{
    AmountMinor, Breach, Channel, Code, Currency, HoldTerms, LimitName, Limits, MerchantId, OnExpiry, Period, Policy,
    ThresholdPolicy, Thresholds, Throttle, Trust, Weight, WindowIds, WindowLimits,
};

/// A policy that sets one limit.
fn limit(limit: LimitName, max: u64) -> PolicyFields {
    let max = AmountMinor::new(max).unwrap();
    PolicyFields { limits: [(limit, max)].into(), ..PolicyFields::default() }
}

fn merchant(id: &str) -> MerchantId {
    MerchantId::parse(id).unwrap()
}

fn currency(code: &str) -> Currency {
    Currency::parse(code).unwrap()
}

/// 2026-11-21T21:30Z.
const NOW_MS: i64 = 1_795_296_600_000;

const DOCUMENT: &str = r#"
version: "7"
default:
  single_min: 100
  single_max: 1000
  daily_amount: 5000
  currencies:
    JPY: {daily_amount: 70}
tiers:
  gold: {daily_amount: 9000, timezone: Asia/Shanghai, allowed_channels: [card]}
merchants:
  plain: {}
  golden: {tier: gold}
  special: {tier: gold, daily_amount: unlimited, monthly_count: 3, cutoff_hour: 6, currencies: {JPY: {single_min: 1, single_max: 60}}}
"#;

#[test]
fn each_level_lies_over_the_one_it_inherits() {
    let book = PolicyBook::from_yaml(DOCUMENT, &Bundled).unwrap();
    let unlimited = AmountMinor::MAX.get();
    let table = [
        // merchant, currency, single_min, single_max, daily amount, monthly count
        ("unknown", "USD", 100, 1000, 5000, unlimited),
        ("unknown", "JPY", 100, 1000, 70, unlimited),
        ("plain", "USD", 100, 1000, 5000, unlimited),
        ("golden", "USD", 100, 1000, 9000, unlimited),
        ("golden", "JPY", 100, 1000, 70, unlimited),
        ("special", "USD", 100, 1000, unlimited, 3),
        ("special", "JPY", 1, 60, 70, 3),
    ];
    for (id, code, single_min, single_max, daily, monthly_count) in table {
        let policy = book.effective(&merchant(id), currency(code), None, NOW_MS).unwrap();
        let got = (
            policy.single_min.get(),
            policy.single_max.get(),
            policy.limits.windows.day.amount.get(),
            policy.limits.windows.month.count.get(),
        );
        assert_eq!(got, (single_min, single_max, daily, monthly_count), "{id} {code}");
        assert!(policy.version.starts_with("7#"), "{}", policy.version);
    }
    let special = book.effective(&merchant("special"), currency("USD"), None, NOW_MS).unwrap();
    // 2026-11-21T21:30Z is 05:30 of the 22nd in Shanghai, before the cut-off at 6.
    let ids = special.calendar.windows_at(1_795_296_600_000);
    assert_eq!((ids.ids.day, ids.ids.month, ids.ids.year), (20261121, 202611, 2026));
}

/// Q-5: a policy without the account's calendar leaves its windows as they are stored.
#[test]
fn q5_a_policy_without_the_accounts_calendar_moves_no_window() {
    let mut policy = Policy::unlimited("stand-in".into());
    let ids = policy.windows_at(NOW_MS);
    assert_eq!((ids.ids.day, ids.ids.month, ids.ids.year), (20261121, 202611, 2026));
    policy.calendar_known = false;
    assert_eq!(policy.windows_at(NOW_MS), WindowIds::default());
}

#[test]
fn a_document_without_default_leaves_strangers_without_policy() {
    let book = PolicyBook::from_yaml("{version: a, merchants: {m: {daily_count: 1}}}", &Bundled).unwrap();
    assert!(book.effective(&merchant("m"), currency("USD"), None, NOW_MS).is_some());
    assert!(book.effective(&merchant("other"), currency("USD"), None, NOW_MS).is_none());
}

#[test]
fn an_edit_without_a_new_version_shows() {
    let version = |text| PolicyBook::from_yaml(text, &Bundled).unwrap().version().to_string();
    assert_ne!(version("{version: a, default: {daily_count: 1}}"), version("{version: a, default: {daily_count: 2}}"));
}

#[test]
fn a_bad_document_is_refused_whole_and_names_its_field() {
    let table = [
        ("{version: a}", "enforces nothing"),
        ("{version: a, default: {timezone: UTC}}", "enforces nothing"),
        ("{version: a, default: {daily_amount: unlimited}}", "enforces nothing"),
        ("{version: '', default: {daily_count: 1}}", "`version`"),
        ("{version: a, unknown_merchants: default}", "enforces nothing"),
        ("{version: a, unknown_merchants: maybe, default: {daily_count: 1}}", "`unknown_merchants`"),
        ("{version: a, default: {daily_count: 1, unknown_merchants: refuse}}", "unknown field `unknown_merchants`"),
        ("{default: {daily_count: 1}}", "missing field `version`"),
        ("{version: a, defaults: {}}", "unknown field `defaults`"),
        ("{version: a, default: {daily_amout: 1}}", "unknown field `daily_amout`"),
        ("{version: a, default: {currencies: {USD: {timezone: UTC}}}}", "unknown field `timezone`"),
        ("{version: a, default: {daily_amount: -1}}", "`default.daily_amount`"),
        ("{version: a, tiers: {t: {currencies: {USD: {daily_count: x}}}}}", "`tiers.t.currencies.USD.daily_count`"),
        ("{version: a, merchants: {m: [{cutoff_hour: 1}, {cutoff_hour: -1}]}}", "`merchants.m[1].cutoff_hour`"),
        ("{version: a, overrides: [{merchant: 7}]}", "`overrides[0]`: missing field `from` at line 1"),
        ("{version: a, default: {daily_amount: -1}}", "0 to 9007199254740991"),
        ("{version: a, default: {daily_amount: 9007199254740992}}", "0 to 9007199254740991"),
        ("{version: a, default: {daily_amount: 1.5}}", "0 to 9007199254740991"),
        ("{version: a, default: {daily_amount: none}}", "0 to 9007199254740991"),
        ("{version: a, default: {daily_count: 1, timezone: Mars/Base}}", "`default.timezone`"),
        ("{version: a, default: {daily_count: 1, cutoff_hour: 24}}", "`default.cutoff_hour`"),
        ("{version: a, default: {single_min: 5, single_max: 4}}", "`default.single_min`"),
        ("{version: a, default: {tier: b, daily_count: 1}}", "`default.tier`"),
        ("{version: a, merchants: {m: {tier: nope}}}", "`merchants.m.tier`"),
        ("{version: a, merchants: {'m:1': {daily_count: 1}}}", "`merchants.m:1`"),
        ("{version: a, default: {allowed_currencies: [usd]}}", "`default.allowed_currencies`"),
        ("{version: a, default: {allowed_channels: ['']}}", "`default.allowed_channels`"),
        ("{version: a, tiers: {t: {currencies: {XX: {}}}}}", "`tiers.t.currencies`"),
        (
            "{version: a, merchants: {m: {currencies: {USD: {single_min: 2, single_max: 1}}}}}",
            "`merchants.m.currencies.USD.single_min`",
        ),
        ("{version: a, merchants: {m: {daily_count: 1}, m: {daily_count: 2}}}", "duplicate entry `m`"),
        ("{version: a, default: {daily_count: 1}, default: {daily_count: 2}}", "duplicate"),
        ("{version: a, default: [{daily_count: 1}, {daily_amount: -1}]}", "0 to 9007199254740991"),
        ("{version: a, default: [{daily_count: 1}, {timezone: X}]}", "`default[1].timezone`"),
        ("{version: a, default: {daily_count: 1, over_capture_percent: 101}}", "`default.over_capture_percent`"),
        ("{version: a, default: {daily_amount: 1, pending_amount: 2, weight_bp: 0}}", "enforce"),
        ("{version: a, default: {daily_amount: 1, units_per_payment: 0}}", "enforce"),
        ("{version: a, default: {daily_amount: 1, weight_bp: 1000001}}", "`default.weight_bp`"),
        ("{version: a, default: {daily_amount: 1, weight_bp: -1}}", "`default.weight_bp`"),
        (
            "{version: a, default: {daily_amount: 1, channels: {card: {weight_bp: 1, units_per_payment: 1}}}}",
            "`default.channels.card.units_per_payment`: cannot be given together with weight_bp",
        ),
        ("{version: a, default: {daily_count: 1, hold: {lifetime_secs: 0}}}", "`default.hold.lifetime_secs`"),
        ("{version: a, default: {daily_count: 1, hold: {on_expiry: keep}}}", "keep"),
        ("{version: a, default: {daily_count: 1, breach: slow}}", "`reject`, or `throttle`"),
        ("{version: a, default: {daily_count: 1, breach: {throttle: {per_minute: 1}}}}", "`reject`, or `throttle`"),
        (
            "{version: a, default: {breach: {throttle: {per_minute: 0, burst: 1, delay_ms_max: 0, ceiling_percent: 100}}}}",
            "`default.breach.throttle.per_minute`",
        ),
        (
            "{version: a, default: {breach: {throttle: {per_minute: 1, burst: 1, delay_ms_max: 0, ceiling_percent: 99}}}}",
            "`default.breach.throttle.ceiling_percent`",
        ),
        ("{version: a, default: {daily_count: 1, trust: yes}}", "`default.trust`: `off`, or above_percent"),
        ("{version: a, default: {daily_count: 1, trust: false}}", "`default.trust`: `off`, or above_percent"),
        ("{version: a, tiers: {t: {trust: {above_percent: 20, share_percent: 5}}}}", "`tiers.t.trust`: `off`, or"),
        (
            "{version: a, default: {trust: {above_percent: 20, share_percent: 5, ttl_ms: 2000, report_ms: 10}}}",
            "`default.trust`: `off`, or above_percent",
        ),
        (
            "{version: a, default: {trust: {above_percent: 100, share_percent: 5, ttl_ms: 2000}}}",
            "`default.trust.above_percent`: 100 is not 0 to 99",
        ),
        (
            "{version: a, tiers: {t: {trust: {above_percent: 0, share_percent: 0, ttl_ms: 2000}}}}",
            "`tiers.t.trust.share_percent`: 0 is not 1 to 50",
        ),
        (
            "{version: a, merchants: {m: {trust: {above_percent: 0, share_percent: 51, ttl_ms: 2000}}}}",
            "`merchants.m.trust.share_percent`: 51 is not 1 to 50",
        ),
        (
            "{version: a, default: {trust: {above_percent: 0, share_percent: 1, ttl_ms: 99}}}",
            "`default.trust.ttl_ms`: 99 is not 100 to 60000",
        ),
        (
            "{version: a, default: {trust: {above_percent: 0, share_percent: 1, ttl_ms: 60001}}}",
            "`default.trust.ttl_ms`: 60001 is not 100 to 60000",
        ),
        // No byte has them: the message has the ranges.
        ("{version: a, default: {trust: {above_percent: 256, share_percent: 1, ttl_ms: 100}}}", "(0 to 99)"),
        ("{version: a, default: {trust: {above_percent: 0, share_percent: -1, ttl_ms: 100}}}", "(1 to 50)"),
        ("{version: a, default: {trust: {above_percent: 0, share_percent: 1, ttl_ms: -1}}}", "(100 to 60000)"),
        ("{version: a, default: {channels: {card: {trust: off}}}}", "unknown field `trust`"),
        ("{version: a, default: {currencies: {USD: {trust: off}}}}", "unknown field `trust`"),
        (
            "{version: a, overrides: [{merchant: m, channel: card, from: 2026-01-01, until: 2026-01-02, approved_by: a, reason: b, trust: off}]}",
            "`overrides[0].trust`: cannot differ by channel",
        ),
        ("{version: a, default: {channels: {card: {timezone: UTC}}}}", "unknown field `timezone`"),
        ("{version: a, default: {channels: {'': {daily_count: 1}}}}", "`default.channels`"),
        ("{version: a, default: {channels: {card: {currencies: {XX: {}}}}}}", "`default.channels.card.currencies`"),
        ("{version: a, default: {daily_count: 1, level: 1}}", "`default.level`"),
        ("{version: a, tiers: {t: {daily_count: 1, level: 6}}}", "`tiers.t.level`"),
        ("{version: a, default: {daily_count: 1, effective_from: soon}}", "`default.effective_from`"),
        (
            "{version: a, default: {daily_count: 1, effective_from: 2026-01-02, effective_until: 2026-01-02}}",
            "`default.effective_until`",
        ),
        (
            "{version: a, overrides: [{merchant: m, from: 2026-01-01, until: 2026-01-01, approved_by: a, reason: b}]}",
            "`overrides[0].until`",
        ),
        (
            "{version: a, overrides: [{merchant: m, from: 2026-01-01, until: 2026-01-02, approved_by: ' ', reason: b}]}",
            "`overrides[0].approved_by`",
        ),
        (
            "{version: a, overrides: [{merchant: 'm:', from: 2026-01-01, until: 2026-01-02, approved_by: a, reason: b}]}",
            "`overrides[0].merchant`",
        ),
        (
            "{version: a, overrides: [{merchant: m, from: 2026-01-01, approved_by: a, reason: b}]}",
            "missing field `until`",
        ),
        (
            "{version: a, default: {single_min: 9}, merchants: {m: [{single_max: 10}, {single_max: 8, effective_from: 2030-01-01}]}}",
            "`merchants.m[1].single_min`",
        ),
    ];
    for (text, expected) in table {
        let error = PolicyBook::from_yaml(text, &Bundled).unwrap_err().to_string();
        assert!(error.contains(expected), "{text}\n  gave: {error}");
    }
}

#[test]
fn what_needs_no_counter_is_refused_in_order() {
    let text =
        "{version: a, default: {single_min: 10, single_max: 20, allowed_channels: [card], allowed_currencies: [USD]}}";
    let book = PolicyBook::from_yaml(text, &Bundled).unwrap();
    let policy = book.effective(&merchant("m"), currency("USD"), None, NOW_MS).unwrap();
    let card = Channel::parse("card").unwrap();
    let wire = Channel::parse("wire").unwrap();
    let table = [
        (10, "USD", Some(&card), None),
        (20, "USD", Some(&card), None),
        (9, "USD", Some(&card), Some(Code::BelowSingleMin)),
        (21, "USD", Some(&card), Some(Code::AboveSingleMax)),
        (21, "EUR", Some(&card), Some(Code::CurrencyNotAllowed)),
        (21, "EUR", Some(&wire), Some(Code::ChannelNotAllowed)),
        (10, "USD", None, Some(Code::ChannelNotAllowed)),
    ];
    for (amount, code, channel, expected) in table {
        let amount = AmountMinor::new(amount).unwrap();
        assert_eq!(policy.refuses(amount, currency(code), channel), expected, "{amount} {code} {channel:?}");
    }
}

/// A document with everything that decides which policy applies.
const LAYERED: &str = "
version: '8'
default:
  - daily_amount: 100
    channels:
      card: {daily_amount: 90, currencies: {JPY: {daily_amount: 80}}}
    currencies:
      JPY: {daily_amount: 70}
  - {daily_amount: 101, effective_from: 2027-01-01, effective_until: 2027-02-01}
  - {daily_amount: 102, priority: 5, effective_from: 2027-01-10T00:00:00+08:00, effective_until: 2027-01-20}
tiers:
  gold: {level: 4, daily_amount: 200, channels: {wire: {daily_amount: 210}}}
merchants:
  tiered: {tier: gold}
  own: {tier: gold, daily_amount: 300, channels: {card: {daily_amount: 310}}}
  passing: {daily_amount: 400, effective_until: 2026-12-01}
  moving: [{tier: gold, effective_from: 2027-03-01}]
  late: [{priority: 1, daily_amount: 500}, {priority: 1, daily_amount: 501, effective_from: 2027-01-01}]
  ranked: [{priority: 2, daily_amount: 600}, {priority: 1, daily_amount: 601, effective_from: 2027-01-01}]
overrides:
  - {merchant: own, from: 2026-12-24, until: 2026-12-27, approved_by: ann, reason: sale, daily_amount: 999}
  - {merchant: own, currency: EUR, from: 2026-12-25, until: 2026-12-28, approved_by: ann, reason: sale, daily_amount: 998}
  - {merchant: own, channel: card, from: 2026-12-26, until: 2026-12-29, approved_by: ann, reason: sale, daily_amount: 997}
  - {merchant: plain, from: 2026-12-24, until: 2026-12-27, approved_by: ann, reason: sale, daily_amount: 996}
";

#[test]
fn scope_channel_currency_priority_and_time_decide_which_policy_holds() {
    let book = PolicyBook::from_yaml(LAYERED, &Bundled).unwrap();
    let table = [
        // merchant, currency, channel, moment, daily amount
        ("unlisted", "USD", None, "2026-11-21", 100),
        ("unlisted", "USD", Some("wallet"), "2026-11-21", 100),
        ("unlisted", "JPY", None, "2026-11-21", 70),
        ("unlisted", "USD", Some("card"), "2026-11-21", 90),
        ("unlisted", "JPY", Some("card"), "2026-11-21", 80),
        ("unlisted", "JPY", Some("wallet"), "2026-11-21", 70),
        // Times: start inclusive, end exclusive; the later start wins among equal priorities.
        ("unlisted", "USD", None, "2026-12-31T23:59:59.999Z", 100),
        ("unlisted", "USD", None, "2027-01-01", 101),
        ("unlisted", "USD", None, "2027-01-09T15:59:59.999Z", 101),
        ("unlisted", "USD", None, "2027-01-09T16:00:00Z", 102),
        ("unlisted", "USD", None, "2027-01-19T23:59:59.999Z", 102),
        ("unlisted", "USD", None, "2027-01-20", 101),
        ("unlisted", "USD", None, "2027-02-01", 100),
        ("unlisted", "JPY", None, "2027-01-15", 70),
        ("late", "USD", None, "2026-12-31", 500),
        ("late", "USD", None, "2027-01-01", 501),
        ("ranked", "USD", None, "2027-01-01", 600),
        // Merchant before tier before default, and a channel before all of them.
        ("tiered", "USD", None, "2026-11-21", 200),
        ("tiered", "USD", Some("wire"), "2026-11-21", 210),
        ("tiered", "USD", Some("card"), "2026-11-21", 90),
        ("own", "USD", None, "2026-11-21", 300),
        ("own", "USD", Some("wire"), "2026-11-21", 210),
        ("own", "USD", Some("card"), "2026-11-21", 310),
        ("own", "JPY", Some("card"), "2026-11-21", 80),
        ("own", "JPY", Some("wire"), "2026-11-21", 210),
        ("passing", "USD", None, "2026-11-30T23:59:59.999Z", 400),
        ("passing", "USD", None, "2026-12-01", 100),
        ("moving", "USD", None, "2027-02-28", 100),
        ("moving", "USD", None, "2027-03-01", 200),
        // Overrides take precedence over everything for their time.
        ("own", "USD", None, "2026-12-23T23:59:59.999Z", 300),
        ("own", "USD", None, "2026-12-24", 999),
        ("own", "USD", Some("wire"), "2026-12-24", 999),
        ("own", "EUR", None, "2026-12-24", 999),
        ("own", "EUR", None, "2026-12-25", 998),
        ("own", "EUR", Some("card"), "2026-12-26", 997),
        ("own", "USD", Some("card"), "2026-12-25", 999),
        ("own", "USD", Some("card"), "2026-12-26", 997),
        ("own", "USD", None, "2026-12-26T23:59:59.999Z", 999),
        ("own", "USD", None, "2026-12-27", 300),
        ("own", "EUR", None, "2026-12-27", 998),
        ("own", "EUR", None, "2026-12-28", 300),
        ("own", "USD", Some("card"), "2026-12-29", 310),
        ("plain", "USD", None, "2026-12-24", 996),
        ("plain", "JPY", None, "2026-12-24", 996),
        ("plain", "JPY", None, "2026-12-27", 70),
    ];
    for (id, code, channel, moment, daily) in table {
        let at_ms = parse_moment(moment).unwrap();
        let channel = channel.map(|name| Channel::parse(name).unwrap());
        let policy = book.effective(&merchant(id), currency(code), channel.as_ref(), at_ms).unwrap();
        assert_eq!(policy.limits.windows.day.amount.get(), daily, "{id} {code} {channel:?} {moment}");
        let named = if daily > 900 { "override:" } else { "8#" };
        assert!(policy.version.starts_with(named), "{id} {moment}: {}", policy.version);
    }
}

#[test]
fn a_policy_without_time_left_leaves_nothing() {
    let text =
        "{version: a, merchants: {m: {daily_count: 1, effective_from: 2027-01-01, effective_until: 2027-01-02}}}";
    let book = PolicyBook::from_yaml(text, &Bundled).unwrap();
    let at = |moment| book.effective(&merchant("m"), currency("USD"), None, parse_moment(moment).unwrap()).is_some();
    assert_eq!(["2026-12-31", "2027-01-01", "2027-01-02"].map(at), [false, true, false]);
}

#[test]
fn what_is_new_in_a_policy_is_read_and_inherited() {
    let text = "
version: a
default: {hold: {lifetime_secs: 60, on_expiry: settle}, over_capture_percent: 15, pending_amount: 5, refund_daily_amount: 6}
merchants:
  m:
    hold: {lifetime_secs: 70}
    refund_monthly_amount: 7
    breach: {throttle: {per_minute: 60, burst: 2, delay_ms_max: 500, ceiling_percent: 120}}
    channels: {card: {breach: reject, pending_amount: unlimited}}
";
    let book = PolicyBook::from_yaml(text, &Bundled).unwrap();
    let policy = book.effective(&merchant("m"), currency("USD"), None, NOW_MS).unwrap();
    assert_eq!(policy.hold, HoldTerms { lifetime_secs: 70, on_expiry: OnExpiry::Settle });
    let limits = [policy.limits.pending, policy.limits.windows.day.refunded, policy.limits.windows.month.refunded];
    assert_eq!((limits.map(AmountMinor::get), policy.over_capture_percent), ([5, 6, 7], 15));
    let throttle = Throttle { per_minute: 60, burst: 2, delay_ms_max: 500, ceiling_percent: 120 };
    assert_eq!(policy.breach, Breach::Throttle(throttle));
    let card = Channel::parse("card").unwrap();
    let policy = book.effective(&merchant("m"), currency("USD"), Some(&card), NOW_MS).unwrap();
    assert_eq!((policy.breach, policy.limits.pending), (Breach::Reject, AmountMinor::MAX));
}

/// A weight takes the place of the one that is inherited, whichever of the two kinds it is.
#[test]
fn weights_differ_by_channel_and_currency() {
    let text = "
version: a
default:
  daily_amount: 100
  weight_bp: 5000
  channels: {card: {units_per_payment: 7}, wallet: {weight_bp: 0}, transfer: {daily_amount: 50}}
  currencies: {JPY: {units_per_payment: 900}}
merchants: {m: {channels: {card: {weight_bp: 12500}}}, n: {units_per_payment: 3}}
overrides: [{merchant: n, weight_bp: 10000, from: 2026-01-01, until: 2099-01-01, approved_by: a, reason: b}]
";
    let book = PolicyBook::from_yaml(text, &Bundled).unwrap();
    let price = |units| Weight::price(AmountMinor::new(units).unwrap());
    let share = |bp| Weight::share(bp).unwrap();
    let table = [
        ("other", "USD", None, share(5_000)),
        ("other", "USD", Some("card"), price(7)),
        ("other", "USD", Some("wallet"), share(0)),
        ("other", "USD", Some("transfer"), share(5_000)),
        ("other", "JPY", None, price(900)),
        ("other", "JPY", Some("transfer"), price(900)),
        ("other", "JPY", Some("card"), price(7)),
        ("m", "USD", Some("card"), share(12_500)),
        ("n", "USD", None, Weight::AMOUNT),
    ];
    for (id, code, channel, weight) in table {
        let channel = channel.map(|name| Channel::parse(name).unwrap());
        let policy = book.effective(&merchant(id), currency(code), channel.as_ref(), NOW_MS).unwrap();
        assert_eq!(policy.weight, weight, "{id} {code} {channel:?}");
    }
}

/// Trust is off where nothing gives it; `off` takes the place of an inherited one, and channels have that of the account.
#[test]
fn trust_is_inherited_and_switched_off() {
    let text = "
version: a
default: {daily_amount: 100, channels: {card: {daily_amount: 50}}}
tiers: {gold: {trust: {above_percent: 20, share_percent: 5, ttl_ms: 2000}}, iron: {trust: off}}
merchants:
  golden: {tier: gold}
  wary: {tier: gold, trust: off}
  bold: {tier: gold, trust: {above_percent: 0, share_percent: 50, ttl_ms: 60000}}
  careful: {tier: gold, trust: {above_percent: 99, share_percent: 1, ttl_ms: 100}}
  iron: {tier: iron}
overrides:
  - {merchant: guest, trust: {above_percent: 1, share_percent: 2, ttl_ms: 300}, from: 2026-01-01, until: 2099-01-01, approved_by: a, reason: b}
  - {merchant: bold, currency: JPY, trust: off, from: 2026-01-01, until: 2099-01-01, approved_by: a, reason: b}
";
    let book = PolicyBook::from_yaml(text, &Bundled).unwrap();
    let trust = |above_percent, share_percent, ttl_ms| Some(Trust { above_percent, share_percent, ttl_ms });
    let table = [
        ("other", "USD", None),
        ("golden", "USD", trust(20, 5, 2_000)),
        ("wary", "USD", None),
        ("bold", "USD", trust(0, 50, 60_000)),
        ("bold", "JPY", None),
        ("careful", "USD", trust(99, 1, 100)),
        ("iron", "USD", None),
        ("guest", "USD", trust(1, 2, 300)),
    ];
    let card = Channel::parse("card").unwrap();
    for (id, code, expected) in table {
        for channel in [None, Some(&card)] {
            let policy = book.effective(&merchant(id), currency(code), channel, NOW_MS).unwrap();
            assert_eq!(policy.trust, expected, "{id} {code} {channel:?}");
        }
    }
    let without = text.replace("trust: {above_percent: 20, share_percent: 5, ttl_ms: 2000}", "trust: off");
    let diff = policy_diff(&PolicyBook::from_yaml(&without, &Bundled).unwrap(), &book);
    let changes = ["tier gold", "tier gold, channel card"]
        .map(|whose| format!("{whose}: trust off -> above 20 % share 5 % ttl 2000 ms"));
    assert_eq!(diff, changes);
}

/// Channels share the account's counters: reported usage does not depend on the channel of a payment.
#[test]
fn every_channel_has_the_accounts_watch() {
    let text = "
version: a
merchants:
  both: {daily_amount: 500, thresholds: [50], channels: {card: {daily_amount: 100}}, currencies: {JPY: {daily_amount: 70}}}
";
    let mut set = PolicySet::from_yaml(text).unwrap();
    for name in ["card", "wire"] {
        let rule = PolicyRule {
            path: String::new(),
            version: name.into(),
            channel: Some(Channel::parse(name).unwrap()),
            currency: None,
            priority: 0,
            span: Span::ALWAYS,
            fields: limit(LimitName::DailyAmount, 100),
        };
        set.add(&Scope::Merchant(merchant("by-channel")), rule).unwrap();
    }
    let book = set.compile(&Bundled).unwrap();
    let percents = |daily| ThresholdPolicy::new(&day(daily), Thresholds::new([50]).unwrap());
    let table = [
        ("both", "USD", None, Some(percents(500))),
        ("both", "USD", Some("card"), Some(percents(500))),
        ("both", "JPY", Some("card"), Some(percents(70))),
        ("by-channel", "USD", Some("card"), Some(ThresholdPolicy::NOTHING)),
        ("by-channel", "USD", Some("wire"), Some(ThresholdPolicy::NOTHING)),
        ("by-channel", "USD", None, None),
    ];
    for (id, code, channel, expected) in table {
        let channel = channel.map(|name| Channel::parse(name).unwrap());
        let policy = book.effective(&merchant(id), currency(code), channel.as_ref(), NOW_MS);
        let thresholds = policy.and_then(|policy| policy.threshold_policy.as_deref().copied());
        assert_eq!(thresholds, expected, "{id} {code} {channel:?}");
    }
}

fn day(amount: u64) -> Limits {
    let day = WindowLimits { amount: AmountMinor::new(amount).unwrap(), ..WindowLimits::UNLIMITED };
    Limits::UNLIMITED.with(Period::Day, day)
}

#[test]
fn a_later_source_wins_for_the_same_scope_and_inherits_from_the_earlier_one() {
    let mut set = PolicySet::from_yaml(
        "{version: a, default: {daily_count: 1, daily_amount: 5}, merchants: {m: {daily_count: 3}}}",
    )
    .unwrap();
    set.next_source("rows");
    let rule = |version: &str, fields| PolicyRule {
        path: String::new(),
        version: version.into(),
        channel: None,
        currency: None,
        priority: -1,
        span: Span::ALWAYS,
        fields,
    };
    let fields = |count| limit(LimitName::DailyCount, count);
    set.add(&Scope::Merchant(merchant("m")), rule("r1", fields(4))).unwrap();
    set.add(&Scope::Merchant(merchant("n")), rule("r2", fields(6))).unwrap();
    let book = set.compile(&Bundled).unwrap();
    let of = |id| {
        let policy = book.effective(&merchant(id), currency("USD"), None, NOW_MS).unwrap();
        (policy.limits.windows.day.count.get(), policy.limits.windows.day.amount.get())
    };
    assert_eq!((of("m"), of("n"), of("o")), ((4, 5), (6, 5), (1, 5)));
    assert!(book.version().ends_with("+rows"), "{}", book.version());
    // A field that the later source does not set stays.
    set.add(&Scope::Default, rule("r4", fields(2))).unwrap();
    let book = set.compile(&Bundled).unwrap();
    let policy = book.effective(&merchant("o"), currency("USD"), None, NOW_MS).unwrap();
    assert_eq!((policy.limits.windows.day.count.get(), policy.limits.windows.day.amount.get()), (2, 5));
    let bad = rule("r3", PolicyFields { cutoff_hour: Some(24), ..PolicyFields::default() });
    assert!(set.add(&Scope::Default, bad).unwrap_err().to_string().contains("`cutoff_hour`"));
}

/// X8: a merchant is known while it has a policy, a tier or an override in force.
#[test]
fn x8_unknown_merchants_are_refused_where_the_document_says_so() {
    let amount = AmountMinor::new(200).unwrap();
    let refusal = |book: &PolicyBook, id: &str, at_ms| {
        let policy = book.effective(&merchant(id), currency("USD"), None, at_ms)?;
        policy.refuses(amount, currency("USD"), None)
    };
    let document = |word: &str| {
        format!(
            "version: a
{word}
default: {{single_max: 1000}}
tiers: {{gold: {{daily_amount: 9000}}}}
merchants:
  m-small: {{}}
  golden: {{tier: gold}}
  in-yen: {{currencies: {{JPY: {{daily_amount: 70}}}}}}
  over: {{daily_amount: 5, effective_until: 2026-11-01}}
overrides: [{{merchant: guest, from: 2026-11-20, until: 2026-11-23, approved_by: a, reason: b, daily_count: 9}}]
"
        )
    };
    let refuse = PolicyBook::from_yaml(&document("unknown_merchants: refuse"), &Bundled).unwrap();
    let three_days_ms = 3 * 86_400_000;
    let unknown = Some(Code::MerchantUnknown);
    let table = [
        // merchant, at, refusal
        ("m-small", NOW_MS, None),
        ("M-small", NOW_MS, unknown),
        ("m-small.", NOW_MS, unknown),
        ("golden", NOW_MS, None),
        ("in-yen", NOW_MS, None),
        ("guest", NOW_MS, None),
        ("guest", NOW_MS + three_days_ms, unknown),
        ("over", 1_780_000_000_000, None),
        ("over", NOW_MS, unknown),
    ];
    for (id, at_ms, expected) in table {
        assert_eq!(refusal(&refuse, id, at_ms), expected, "{id} at {at_ms}");
        for word in ["", "unknown_merchants: default"] {
            assert_eq!(
                refusal(&PolicyBook::from_yaml(&document(word), &Bundled).unwrap(), id, at_ms),
                None,
                "{id} {word}"
            );
        }
    }
    // Before every other rule of the policy; and also without a default policy.
    let policy = refuse.effective(&merchant("unlisted"), currency("USD"), None, NOW_MS).unwrap();
    assert_eq!(policy.refuses(AmountMinor::MAX, currency("USD"), None), unknown);
    let alone = "{version: a, unknown_merchants: refuse, merchants: {m: {daily_count: 1}}}";
    let alone = PolicyBook::from_yaml(alone, &Bundled).unwrap();
    assert_eq!((refusal(&alone, "m", NOW_MS), refusal(&alone, "n", NOW_MS)), (None, unknown));
    let only = PolicyBook::from_yaml("{version: a, unknown_merchants: refuse}", &Bundled).unwrap();
    assert_eq!(refusal(&only, "n", NOW_MS), unknown);
}

/// X8: the latest source's setting for the default applies, and a merchant that any source names is known.
#[test]
fn x8_sources_say_together_who_is_known() {
    let of_default = |word| PolicyRule {
        path: "row".to_owned(),
        version: "row".into(),
        channel: None,
        currency: None,
        priority: 0,
        span: Span::ALWAYS,
        fields: PolicyFields { unknown_merchants: word, ..limit(LimitName::DailyCount, 9) },
    };
    let file = "{version: a, unknown_merchants: refuse, default: {daily_count: 5}, merchants: {filed: {}}}";
    for (word, unknown) in
        [(None, true), (Some(UnknownMerchants::Refuse), true), (Some(UnknownMerchants::Default), false)]
    {
        let mut set = PolicySet::from_yaml(file).unwrap();
        set.next_source("postgres");
        set.add(&Scope::Default, of_default(word)).unwrap();
        set.add(&Scope::Merchant(merchant("rowed")), PolicyRule { ..of_default(None) }).unwrap();
        let book = set.compile(&Bundled).unwrap();
        for (id, expected) in [("filed", false), ("rowed", false), ("unlisted", unknown)] {
            let policy = book.effective(&merchant(id), currency("USD"), None, NOW_MS).unwrap();
            assert_eq!(policy.merchant_unknown, expected, "{id} {word:?}");
        }
    }
    let mut set = PolicySet::new("a");
    let rule = of_default(Some(UnknownMerchants::Refuse));
    for (scope, currency) in [
        (Scope::Merchant(merchant("m")), None),
        (Scope::Tier("gold".to_owned()), None),
        (Scope::Default, Some(currency("USD"))),
    ] {
        let error = set.add(&scope, PolicyRule { currency, ..rule.clone() }).unwrap_err().to_string();
        assert!(error.contains("`row.unknown_merchants`"), "{error}");
    }
}

#[test]
fn x8_a_diff_names_who_is_refused_from_now_on() {
    let old = "{version: '1', default: {daily_count: 9}, merchants: {a: {daily_count: 9}, b: {daily_count: 9}}}";
    let new = "{version: '2', unknown_merchants: refuse, default: {daily_count: 9}, merchants: {a: {daily_count: 9}}}";
    let (old, new) = (PolicyBook::from_yaml(old, &Bundled).unwrap(), PolicyBook::from_yaml(new, &Bundled).unwrap());
    let expected = [
        "default: charges allowed -> refused, the merchant is unknown",
        "merchant b: charges allowed -> refused, the merchant is unknown",
    ];
    assert_eq!(policy_diff(&old, &new), expected);
}

#[test]
fn a_diff_says_what_changes_for_whom() {
    let old = "
version: '1'
default: {daily_amount: 100}
tiers: {gold: {daily_amount: 200}}
merchants: {a: {tier: gold}, b: {tier: gold}, c: {single_max: 5}, d: {daily_amount: 7}, e: {daily_amount: 100}}
";
    let new = "
version: '2'
default: {daily_amount: 100}
tiers: {gold: {daily_amount: 250}}
merchants:
  a: {tier: gold}
  b: {tier: gold, channels: {card: {daily_amount: 10}}}
  c: [{single_max: 5}, {single_max: 6, effective_from: 2027-01-01, effective_until: 2027-01-02}]
overrides: [{merchant: c, currency: JPY, from: 2027-03-01, until: 2027-04-01, approved_by: a, reason: b, daily_count: 1}]
";
    let (old, new) = (PolicyBook::from_yaml(old, &Bundled).unwrap(), PolicyBook::from_yaml(new, &Bundled).unwrap());
    let expected = [
        "tier gold: daily_amount 200 -> 250",
        "merchant b: daily_amount 200 -> 250",
        "merchant b, channel card: daily_amount 200 -> 10",
        "merchant c from 2027-01-01T00:00:00+00:00: single_max 5 -> 6",
        "merchant c from 2027-01-02T00:00:00+00:00: as before",
        "merchant c from 2027-03-01T00:00:00+00:00, currency JPY: daily_count unlimited -> 1",
        "merchant c from 2027-04-01T00:00:00+00:00: as before",
        "merchant d: daily_amount 7 -> 100",
    ];
    assert_eq!(policy_diff(&old, &new), expected);
    assert_eq!(policy_diff(&old, &old), Vec::<String>::new());
    let without = PolicyBook::from_yaml("{version: a, merchants: {m: {daily_count: 1}}}", &Bundled).unwrap();
    let diff = policy_diff(&old, &without);
    assert!(diff.contains(&"default: loses its policy, payments will be refused".to_owned()), "{diff:#?}");
}

#[test]
fn the_documents_that_people_start_from_are_valid() {
    let guide = include_str!("../../../docs/policies.md");
    let example = guide.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    for text in [example, include_str!("../../../deploy/policies.yaml")] {
        PolicyBook::from_yaml(text, &Bundled).unwrap();
    }
    let book = PolicyBook::from_yaml(example, &Bundled).unwrap();
    let at_ms = parse_moment("2026-11-27T12:00:00+08:00").unwrap();
    let policy = book.effective(&merchant("merchant-001"), currency("USD"), None, at_ms).unwrap();
    assert_eq!(policy.limits.windows.day.amount.get(), 20_000_000);
}
