use super::*;
use crate::WindowIds;

fn merchant(id: &str) -> MerchantId {
    MerchantId::parse(id).unwrap()
}

fn currency(code: &str) -> Currency {
    Currency::parse(code).unwrap()
}

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
    let book = PolicyBook::from_yaml(DOCUMENT).unwrap();
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
        let policy = book.effective(&merchant(id), currency(code)).unwrap();
        let got = (
            policy.single_min.get(),
            policy.single_max.get(),
            policy.limits.day.amount.get(),
            policy.limits.month.count.get(),
        );
        assert_eq!(got, (single_min, single_max, daily, monthly_count), "{id} {code}");
        assert!(policy.version.starts_with("7#"), "{}", policy.version);
    }
    let special = book.effective(&merchant("special"), currency("USD")).unwrap();
    // 2026-11-21T21:30Z is 05:30 of the 22nd in Shanghai, before the cut-off at 6.
    let ids = special.calendar.windows_at(1_795_296_600_000);
    assert_eq!(ids, WindowIds { day: 20261121, month: 202611, year: 2026 });
}

#[test]
fn a_document_without_default_leaves_strangers_without_policy() {
    let book = PolicyBook::from_yaml("{version: a, merchants: {m: {daily_count: 1}}}").unwrap();
    assert!(book.effective(&merchant("m"), currency("USD")).is_some());
    assert!(book.effective(&merchant("other"), currency("USD")).is_none());
}

#[test]
fn an_edit_without_a_new_version_shows() {
    let version = |text| PolicyBook::from_yaml(text).unwrap().version().to_string();
    assert_ne!(version("{version: a, default: {daily_count: 1}}"), version("{version: a, default: {daily_count: 2}}"));
}

#[test]
fn a_bad_document_is_refused_whole_and_names_its_field() {
    let table = [
        ("{version: a}", "enforces nothing"),
        ("{version: a, default: {timezone: UTC}}", "enforces nothing"),
        ("{version: a, default: {daily_amount: unlimited}}", "enforces nothing"),
        ("{version: '', default: {daily_count: 1}}", "`version`"),
        ("{default: {daily_count: 1}}", "missing field `version`"),
        ("{version: a, defaults: {}}", "unknown field `defaults`"),
        ("{version: a, default: {daily_amout: 1}}", "unknown field `daily_amout`"),
        ("{version: a, default: {currencies: {USD: {timezone: UTC}}}}", "unknown field `timezone`"),
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
    ];
    for (text, expected) in table {
        let error = PolicyBook::from_yaml(text).unwrap_err().to_string();
        assert!(error.contains(expected), "{text}\n  gave: {error}");
    }
}

#[test]
fn what_needs_no_counter_is_refused_in_order() {
    let text =
        "{version: a, default: {single_min: 10, single_max: 20, allowed_channels: [card], allowed_currencies: [USD]}}";
    let book = PolicyBook::from_yaml(text).unwrap();
    let policy = book.effective(&merchant("m"), currency("USD")).unwrap();
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
