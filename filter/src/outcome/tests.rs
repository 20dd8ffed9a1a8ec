use super::*;
use crate::machine::tests::plugin;

fn void_on(rule: &str) -> VoidOn {
    plugin(rule).rules.rules()[0].void_on.clone()
}

const GATEWAY: Ending = Ending { status: None, flags: 0, tries: Some(1) };

fn status(status: u16) -> Ending {
    Ending { status: Some(status), ..GATEWAY }
}

/// The whole of the default: answers by which a gateway refuses a payment void the charge, a success keeps it, and what a
/// client can provoke after the payment was made (406, 408, 5xx, …) is unknown.
#[test]
fn x2_each_status_is_made_refused_or_unknown() {
    let void_on = void_on("{}");
    let refusals = [400, 401, 402, 403, 404, 405, 410, 413, 415, 422, 429];
    for number in 100..=599 {
        let expected = match number {
            200..=299 => Fate::Keep,
            number if refusals.contains(&number) => Fate::Void(Reason::Upstream4xx),
            number => Fate::Unknown(Doubt::Status(number)),
        };
        assert_eq!(judge(&void_on, status(number), GatewayOutcome::Absent), expected, "{number}");
    }
    for number in [0, 99, 600, 999] {
        assert!(matches!(judge(&void_on, status(number), GatewayOutcome::Absent), Fate::Unknown(_)), "{number}");
    }
}

#[test]
fn x2_a_rule_may_still_void_other_statuses() {
    let void_on = void_on(r#"{"void_on": {"statuses": ["4xx", "503"], "except": [409]}}"#);
    for (number, expected) in [
        (406, Fate::Void(Reason::Upstream4xx)),
        (499, Fate::Void(Reason::Upstream4xx)),
        (409, Fate::Unknown(Doubt::Status(409))),
        (503, Fate::Void(Reason::Upstream5xx)),
        (500, Fate::Unknown(Doubt::Status(500))),
        (200, Fate::Keep),
        (302, Fate::Unknown(Doubt::Status(302))),
    ] {
        assert_eq!(judge(&void_on, status(number), GatewayOutcome::Absent), expected, "{number}");
    }
}

#[test]
fn flags_come_before_the_status() {
    use Fate::{Keep, Unknown, Void};
    let void_on = void_on("{}");
    let table: &[(Option<u16>, u64, Option<u64>, Fate)] = &[
        (Some(504), 0x4, Some(1), Unknown(Doubt::Flag("UT"))),
        (Some(503), 0x20, Some(1), Void(Reason::UpstreamUnreached)),
        (Some(503), 0x60, Some(1), Unknown(Doubt::Flag("UC"))),
        (Some(503), 0x2, Some(0), Void(Reason::UpstreamUnreached)),
        (Some(404), 0x100, Some(0), Void(Reason::UpstreamUnreached)),
        // The three cases that were observed: client gone, reset before headers, reset after them.
        (None, 16_384, Some(1), Unknown(Doubt::Flag("DC"))),
        (Some(503), 64, Some(1), Unknown(Doubt::Flag("UC"))),
        (Some(200), 8_388_608, Some(1), Unknown(Doubt::Flag("UPE"))),
        (Some(422), UNKNOWN, Some(1), Unknown(Doubt::FlagsUnreadable)),
        (None, 0, Some(1), Unknown(Doubt::NoStatus)),
        (Some(0), 0, Some(1), Unknown(Doubt::NoStatus)),
        (Some(200), 0, None, Keep),
    ];
    for (status, flags, tries, expected) in table {
        let ending = Ending { status: *status, flags: *flags, tries: *tries };
        assert_eq!(judge(&void_on, ending, GatewayOutcome::Absent), *expected, "{ending:?}");
    }
    assert_eq!(UNREACHED & UNKNOWN, 0);
    assert_eq!(DOWNSTREAM & !UNKNOWN, 0);
}

/// The last answer does not cover an earlier try, unless it is that the payment was made.
#[test]
fn f7_a_refusal_after_another_try_is_unknown() {
    let void_on = void_on("{}");
    for (tries, doubt) in [
        (Some(0), None),
        (Some(1), None),
        (Some(2), Some(Doubt::Retried)),
        (Some(9), Some(Doubt::Retried)),
        (None, Some(Doubt::TriesUnknown)),
    ] {
        let expected = |reason| doubt.map_or(Fate::Void(reason), Fate::Unknown);
        let judged = |ending: Ending, outcome| judge(&void_on, Ending { tries, ..ending }, outcome);
        assert_eq!(judged(status(422), GatewayOutcome::Absent), expected(Reason::Upstream4xx), "{tries:?}");
        assert_eq!(judged(status(200), GatewayOutcome::NotMade), expected(Reason::UpstreamNotMade), "{tries:?}");
        let unreached = Ending { flags: 0x20, ..status(503) };
        assert_eq!(judged(unreached, GatewayOutcome::Absent), expected(Reason::UpstreamUnreached), "{tries:?}");
        assert_eq!(judged(status(200), GatewayOutcome::Absent), Fate::Keep, "{tries:?}");
        assert_eq!(judged(status(422), GatewayOutcome::Made), Fate::Keep, "{tries:?}");
    }
}

#[test]
fn x2_the_gateways_own_word_outranks_its_status() {
    let void_on = void_on("{}");
    for number in [200, 302, 406, 422, 500] {
        let judged = |outcome| judge(&void_on, status(number), outcome);
        assert_eq!(judged(GatewayOutcome::Made), Fate::Keep, "{number}");
        assert_eq!(judged(GatewayOutcome::NotMade), Fate::Void(Reason::UpstreamNotMade), "{number}");
        assert_eq!(judged(GatewayOutcome::Unknown), Fate::Unknown(Doubt::GatewayUnknown), "{number}");
        assert_eq!(judged(GatewayOutcome::Unreadable), Fate::Unknown(Doubt::OutcomeUnreadable), "{number}");
        // An incomplete answer is not trusted.
        let reset = Ending { flags: 1 << 23, ..status(number) };
        assert_eq!(judge(&void_on, reset, GatewayOutcome::Made), Fate::Unknown(Doubt::Flag("UPE")), "{number}");
    }
}

#[test]
fn the_outcome_header_has_three_words() {
    let table: [(&[&str], GatewayOutcome); 10] = [
        (&[], GatewayOutcome::Absent),
        (&["made"], GatewayOutcome::Made),
        (&["made", "made"], GatewayOutcome::Made),
        (&["not_made"], GatewayOutcome::NotMade),
        (&["unknown"], GatewayOutcome::Unknown),
        (&["Made"], GatewayOutcome::Unreadable),
        (&["made, not_made"], GatewayOutcome::Unreadable),
        (&["made", "not_made"], GatewayOutcome::Unreadable),
        (&[""], GatewayOutcome::Unreadable),
        (&["captured"], GatewayOutcome::Unreadable),
    ];
    for (values, expected) in table {
        let bytes = Ok(values.iter().map(|value| value.as_bytes().to_vec()).collect());
        assert_eq!(GatewayOutcome::read(&bytes), expected, "{values:?}");
    }
    assert_eq!(GatewayOutcome::read(&Err(Unreadable)), GatewayOutcome::Unreadable);
}

#[test]
fn what_goes_wrong_on_the_clients_side_alone_leaves_the_gateways_word() {
    let sound = |flags| Ending { flags, ..Ending::default() }.is_sound_upstream();
    for bit in 0..u64::BITS {
        let flags = 1 << bit;
        let harmless = flags & (UNKNOWN | UNREACHED) == 0;
        let downstream = [14, 16, 18, 19, 22, 28].contains(&bit);
        assert_eq!(sound(flags), harmless || downstream, "{bit}");
        assert_eq!(sound(flags | DOWNSTREAM), harmless || downstream, "{bit}");
    }
    assert!(!sound(UNKNOWN), "flags that could not be read");
    for (status, success) in
        [(None, false), (Some(199), false), (Some(200), true), (Some(299), true), (Some(300), false)]
    {
        assert_eq!(Ending { status, ..Ending::default() }.is_success(), success, "{status:?}");
    }
}
