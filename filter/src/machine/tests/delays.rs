//! An admitted payment that is delayed.

use super::*;
use crate::delays::DELAY_MS_MAX;
use crate::follow_up::Kind;

/// Passes these events to a fresh stream and returns every effect; the delay fails if `full`.
fn effects(delay_ms: &str, mode: ModeWord<'static>, full: bool, numbers: &[u8]) -> Vec<Effect<'static>> {
    let message = delayed_answer("ADMITTED", Some(delay_ms)).leak();
    let mut stream = Stream::new(Arc::new(plugin("{}")), 1);
    let mut seen = Vec::new();
    for number in numbers {
        let event = match event(*number, message) {
            Event::RequestHeaders { head, end } => Event::RequestHeaders { head: RequestHead { mode, ..head }, end },
            other => other,
        };
        drive(&mut stream, event, &mut |effect| {
            let failed = full && matches!(effect, Effect::Delay { .. });
            seen.push(effect);
            if failed { Err(Failed) } else { Ok(()) }
        });
    }
    seen
}

fn delays(effects: &[Effect<'_>]) -> Vec<u32> {
    let delay = |effect: &Effect<'_>| match effect {
        Effect::Delay { delay_ms } => Some(*delay_ms),
        _ => None,
    };
    effects.iter().filter_map(delay).collect()
}

fn resumes(effects: &[Effect<'_>]) -> usize {
    effects.iter().filter(|effect| **effect == Effect::Resume).count()
}

fn voids(effects: &[Effect<'_>]) -> usize {
    effects.iter().filter(|effect| matches!(effect, Effect::FollowUp(own) if own.kind == Kind::Void)).count()
}

#[test]
fn the_answer_says_how_long() {
    let shadow = || ModeWord::Word(b"shadow");
    let table = [
        ("1", ModeWord::Unset, vec![1], 0),
        ("0750", ModeWord::Unset, vec![750], 0),
        ("30000", ModeWord::Unset, vec![DELAY_MS_MAX], 0),
        ("30001", ModeWord::Unset, vec![DELAY_MS_MAX], 0),
        ("99999999999", ModeWord::Unset, vec![DELAY_MS_MAX], 0),
        ("0", ModeWord::Unset, vec![], 1),
        // On shadow routes no request waits.
        ("750", shadow(), vec![], 1),
    ];
    for (delay_ms, mode, expected, at_once) in table {
        let seen = effects(delay_ms, mode, false, &[0, 1, 4]);
        assert_eq!((delays(&seen), resumes(&seen)), (expected, at_once), "{delay_ms}: {seen:?}");
    }
    // An unreadable answer is no usable answer: the payment is refused and its charge voided.
    for delay_ms in ["", "-1", "1.5", "soon", " 1", "99999999999999999999999"] {
        let seen = effects(delay_ms, ModeWord::Unset, false, &[0, 1, 4]);
        let refused = seen.iter().any(|effect| matches!(effect, Effect::Respond { status: 503, .. }));
        assert!(refused && voids(&seen) == 1 && resumes(&seen) == 0, "{delay_ms}: {seen:?}");
    }
}

#[test]
fn it_goes_on_when_its_time_has_come_and_only_then() {
    // Body, trailers and further answers change nothing meanwhile; the delay ends once.
    let seen = effects("5", ModeWord::Unset, false, &[0, 1, 4, 1, 3, 4, 5]);
    assert_eq!((delays(&seen), resumes(&seen), voids(&seen)), (vec![5], 0, 0), "{seen:?}");
    let seen = effects("5", ModeWord::Unset, false, &[0, 1, 4, 11, 11]);
    assert_eq!((resumes(&seen), voids(&seen)), (1, 0), "{seen:?}");
    // The gateway's answer then decides as usual.
    let seen = effects("5", ModeWord::Unset, false, &[0, 1, 4, 11, 7, 8]);
    assert_eq!((resumes(&seen), voids(&seen)), (1, 1), "{seen:?}");
    // The end of another stream's delay does not resume this one.
    let seen = effects("5", ModeWord::Unset, false, &[0, 11, 1, 11, 12, 5, 11]);
    assert_eq!(resumes(&seen), 0, "{seen:?}");
}

#[test]
fn a_client_that_leaves_meanwhile_gets_its_quota_back() {
    let seen = effects("5", ModeWord::Unset, false, &[0, 1, 4, 8, 11]);
    assert_eq!((resumes(&seen), voids(&seen)), (0, 1), "{seen:?}");
    assert!(seen.contains(&Effect::Count(Stat::ClientGone)));
    let shown =
        seen.iter().rev().find_map(|effect| if let Effect::Show(object) = effect { Some(object) } else { None });
    let shown = crate::wire::structure::members(shown.unwrap());
    for (name, value) in [("delay_ms", "5"), ("outcome", "client_gone")] {
        assert!(shown.contains(&(name.to_owned(), value.to_owned())), "{shown:?}");
    }
}

#[test]
fn where_too_many_wait_the_payment_is_refused_and_its_charge_returned() {
    let seen = effects("5", ModeWord::Unset, true, &[0, 1, 4, 11, 8]);
    assert_eq!((resumes(&seen), voids(&seen)), (0, 1), "{seen:?}");
    let Some(Effect::Respond { headers, .. }) =
        seen.iter().find(|effect| matches!(effect, Effect::Respond { status: 429, .. }))
    else {
        panic!("{seen:?}")
    };
    for header in [("x-sluice-code", "THROTTLED"), ("retry-after", "1")] {
        assert!(headers.contains(&(header.0.into(), header.1)), "{headers:?}");
    }
    assert!(seen.contains(&Effect::Count(Stat::NotDelayed)));
}

#[test]
fn trailers_that_cannot_be_read_meanwhile_end_the_request() {
    let seen = effects("5", ModeWord::Unset, false, &[0, 1, 4, 10, 11]);
    assert_eq!((resumes(&seen), voids(&seen)), (0, 1), "{seen:?}");
    assert!(seen.iter().any(|effect| matches!(effect, Effect::Respond { status: 503, .. })), "{seen:?}");
}
