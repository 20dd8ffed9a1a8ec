use super::*;
use quota::{Channel, Currency, MerchantId};

fn account(channel: Option<&str>) -> Account {
    Account {
        merchant: MerchantId::parse("m-1").unwrap(),
        currency: Currency::parse("USD").unwrap(),
        channel: channel.map(|name| Channel::parse(name).unwrap()),
    }
}

fn read(body: &str, account: &Account) -> Result<Policy, AnswerError> {
    Answer::read(body.as_bytes())?.policy(account, body.as_bytes(), &crate::zones::Zones::compiled_in())
}

#[test]
fn answers_of_callers_form_are_taken() {
    let table = [
        (r#"{"daily_limit": 5000000, "single_max": 1000000}"#, (0, 1_000_000, 5_000_000)),
        (r#"{"daily_limit": 7, "single_trans_min": 2, "single_trans_max": 3, "merchant_id": "m-1"}"#, (2, 3, 7)),
        (
            r#"{"daily_limit": 7, "currency": "USD", "channel": "all", "status": "active", "id": {"x": 1}}"#,
            (0, u64::MAX, 7),
        ),
        (r#"{"daily_limit": 7, "channel": "all", "timezone": "Asia/Shanghai", "cutoff_hour": 6}"#, (0, u64::MAX, 7)),
        (r#"{"daily_limit": 7, "monthly_limit": null, "effective_date": "2020-01-01T00:00:00Z"}"#, (0, u64::MAX, 7)),
    ];
    for (body, (min, max, daily)) in table {
        let policy = read(body, &account(Some("card"))).unwrap_or_else(|error| panic!("{body}: {error}"));
        let max = max.min(quota::AmountMinor::MAX.get());
        let got = (policy.single_min.get(), policy.single_max.get(), policy.limits.windows.day.amount.get());
        assert_eq!(got, (min, max, daily), "{body}");
        assert!(policy.version.starts_with("service:"), "{}", policy.version);
    }
    let versions =
        [r#"{"daily_limit": 1}"#, r#"{"daily_limit": 2}"#].map(|body| read(body, &account(None)).unwrap().version);
    assert_ne!(versions[0], versions[1]);
}

/// A channel may count in number only. Where nothing counts on any channel, nothing is enforced.
#[test]
fn a_weight_of_nothing_is_for_channels() {
    for body in [r#"{"daily_limit": 100, "weight_bp": 0}"#, r#"{"daily_limit": 100, "units_per_payment": 0}"#] {
        assert_eq!(read(body, &account(Some("card"))).unwrap().weight.counts(5), 0, "{body}");
        assert!(matches!(read(body, &account(None)), Err(AnswerError::EnforcesNothing)), "{body}");
    }
    let counts = read(r#"{"daily_limit": 100, "units_per_payment": 25}"#, &account(None)).unwrap().weight.counts(5);
    assert_eq!(counts, 25);
}

#[test]
fn everything_else_is_refused() {
    let table = [
        ("", "cannot be read"),
        ("[]", "cannot be read"),
        ("<html>", "cannot be read"),
        (r#"{"daily_limit": -1}"#, "cannot be read"),
        (r#"{"daily_limit": 1.5}"#, "cannot be read"),
        (r#"{"daily_limit": "5"}"#, "cannot be read"),
        (r#"{"daily_limit": 5, "daily_limit": 6}"#, "cannot be read"),
        (r#"{"daily_limit": 9007199254740992}"#, "`daily_limit`"),
        (r#"{"single_min": 5, "single_max": 4}"#, "`single_trans_min`"),
        ("\u{feff}{\"daily_limit\": 5}", "starts with a byte order mark"),
        (r#"{"daily_limit": 5, "timezone": "Mars/Base"}"#, "`timezone`"),
        (r#"{"daily_limit": 5, "timezone": "UTC"}"#, "`timezone`"),
        (r#"{"daily_limit": 5, "channel": "card", "cutoff_hour": 0}"#, "`cutoff_hour`"),
        (r#"{"daily_limit": 5, "thresholds": [50]}"#, "`thresholds`"),
        (r#"{"daily_limit": 5, "trust": "off"}"#, "`trust`"),
        (r#"{"daily_limit": 5, "trust": "yes"}"#, "cannot be read"),
        (r#"{"daily_limit": 5, "channel": "all", "trust": "on", "trust_ttl_ms": 100}"#, "`trust`"),
        (r#"{"daily_limit": 5, "breach": "throttle"}"#, "`breach`"),
        (r#"{"daily_limit": 5, "merchant_id": "m-2"}"#, "`merchant_id` is 'm-2'"),
        (r#"{"daily_limit": 5, "currency": "EUR"}"#, "`currency` is 'EUR'"),
        (r#"{"daily_limit": 5, "channel": "wire"}"#, "`channel` is 'wire'"),
        (r#"{"daily_limit": 5, "status": "inactive"}"#, "not in force"),
        (r#"{"daily_limit": 5, "expiry_date": "2020-01-01T00:00:00Z"}"#, "not in force"),
        (r#"{"daily_limit": 5, "effective_date": "2999-01-01T00:00:00Z"}"#, "not in force"),
        (r#"{"merchant_id": "m-1"}"#, "names no limit"),
        ("{}", "names no limit"),
    ];
    for (body, expected) in table {
        let error = read(body, &account(Some("card"))).map(drop).unwrap_err().to_string();
        assert!(error.contains(expected), "{body} gave: {error}");
    }
}
