use quota::{AttemptId, Calendar, Effect, MerchantId};

use super::*;

fn command(number: u8) -> Command {
    let now_ms = 1_795_296_600_000;
    Command {
        merchant: MerchantId::parse("m-1").unwrap(),
        currency: Currency::parse("USD").unwrap(),
        order_no: None,
        attempt: AttemptId([number; 16]),
        action: Action::Suspend,
        effect: Effect::Commit,
        decision_id: [number; 16],
        now_ms,
        windows: Calendar::UTC.windows_at(now_ms),
        order_ttl_secs: 60,
        backlog_max: 1_000,
        threshold_policy: None,
        credit: None,
        history: None,
        payment_no: None,
        operation_no: None,
        channel: None,
    }
}

/// A record of a command that changed nothing, on an unknown account.
fn record(flags: u8) -> Vec<u8> {
    let mut bytes = vec![12, Code::Applied.number(), flags, 0];
    bytes.extend_from_slice(&[0; 44]);
    bytes.push(8);
    bytes.extend_from_slice(&[0; 95]);
    bytes
}

fn read(parts: &[&[u8]], commands: u8) -> Result<Vec<Result<Reply, StoreError>>, StoreError> {
    let (commands, audit): (Vec<_>, _) = ((0..commands).map(command).collect(), AuditContext::default());
    let batch: Vec<_> = commands.iter().map(|command| (command, &audit)).collect();
    replies(&Value::BulkString(parts.join(&b'\n')), &batch, &StoreClock::default())
}

#[test]
fn each_command_has_its_reply() {
    let replayed = [record(5), vec![b'\n'; 16]].concat();
    let parts = [&record(0)[..], b"0-7", b"\0WRONGTYPE of a key", b"", b"\x01", b"", &replayed, b""];
    let results = read(&parts, 4).unwrap();
    let [Ok(first), Err(StoreError::Corrupt(why)), Ok(refused), Ok(again)] = results.as_slice() else {
        panic!("{results:?}");
    };
    assert_eq!((first.record.code, first.event_seq, first.decision_id), (Code::Applied, Some(7), [0; 16]));
    assert_eq!(why, "WRONGTYPE of a key");
    assert_eq!((refused.record.code, refused.event_seq, refused.decision_id), (Code::BatchRefused, None, [2; 16]));
    // Bytes of a record may be anything, line feeds too.
    assert_eq!((again.record.replay, again.decision_id, again.event_id), (true, [b'\n'; 16], [3; 16]));
}

/// The end of a record is known whatever it contains.
#[test]
fn a_record_that_says_what_none_says_is_its_own_commands_error() {
    let with = |at: usize, byte: u8, flags: u8| {
        let mut record = record(flags);
        record[at] = byte;
        record
    };
    let half = with(48 + 24 + 7, 0x3f, 0);
    let replayed = [with(1, 99, 7), vec![b'\n'; 104 + 16]].concat();
    let plain = vec![6; 152];
    for foreign in [with(1, 99, 0), with(3, 9, 0), half, replayed, plain] {
        let results = read(&[&record(0), b"0-1", &foreign, b"0-2", &record(0), b"0-3"], 3).unwrap();
        let [Ok(_), Err(StoreError::Corrupt(_)), Ok(third)] = results.as_slice() else { panic!("{results:?}") };
        assert_eq!(third.event_seq, Some(3), "{foreign:?}");
    }
}

#[test]
fn what_is_no_reply_is_refused() {
    let long = [record(0), vec![0]].concat();
    let (short, whole) = (&record(0)[..143], &record(0)[..]);
    let foreign: [(&[&[u8]], u8); 8] = [
        (&[whole, b"0-1"], 2),
        (&[whole, b"0-1", whole, b""], 1),
        (&[&long, b""], 1),
        (&[short, b""], 1),
        (&[&[5; 169], b""], 1),
        (&[b"", b""], 1),
        (&[whole, b"1-1"], 1),
        (&[b"\x01x", b""], 1),
    ];
    for (parts, commands) in foreign {
        assert!(matches!(read(parts, commands), Err(StoreError::Corrupt(_))), "{parts:?}");
    }
    assert!(matches!(replies(&Value::Nil, &[], &StoreClock::default()), Err(StoreError::Corrupt(_))));
}

#[test]
fn events_are_numbered() {
    assert_eq!(event_seq(b""), Ok(None));
    assert_eq!(event_seq(b"0-18446744073709551615"), Ok(Some(u64::MAX)));
    for foreign in [&b"1-1"[..], b"0-", b"0-x", b"0-18446744073709551616", b"\xff"] {
        assert!(matches!(event_seq(foreign), Err(StoreError::Corrupt(_))), "{foreign:?}");
    }
}

#[test]
fn what_redis_refuses_is_told_from_what_is_not_ours() {
    for why in ["SLUICE account has another format", "WRONGTYPE Operation against a key", "ERR The ID is too small"] {
        assert_eq!(failed(why), StoreError::Corrupt(why.to_owned()));
    }
    for why in ["OOM command not allowed", "MISCONF Errors writing to the AOF file", "READONLY You can't write", ""] {
        assert_eq!(failed(why), StoreError::Unavailable(why.to_owned()));
    }
}
