//! The text of the script: its sources, in which names in capitals stand for constants of the Rust code.

use std::borrow::Cow;
use std::collections::HashMap;

use quota::{
    AmountMinor, AttemptId, Code, CounterName, LAG_MS_MAX, LimitKind, NOW_MS_MAX, OPERATIONS_MAX, OperationId,
    OperationKind, OrderState, Period, PostingKind, ReleaseRight, ThresholdLevels, ThresholdPolicy, Weight,
};

use crate::packed::layout::{self, len, place};
use crate::packed::{flags, op};

/// The decision rule as Redis runs it, before [`complete`].
pub const SCRIPT: &str = concat!(
    include_str!("lua/call.lua"),
    include_str!("lua/rules.lua"),
    include_str!("lua/merchant.lua"),
    include_str!("lua/state.lua"),
    include_str!("lua/charge.lua"),
    include_str!("lua/rights.lua"),
    include_str!("lua/operations.lua"),
    include_str!("lua/outcome.lua"),
    include_str!("lua/commands.lua"),
);

/// The script with every constant's value in place of its name.
pub(crate) fn complete(source: &str) -> String {
    let constants: HashMap<_, _> = constants().into_iter().collect();
    let mut complete = String::with_capacity(source.len());
    for line in source.lines() {
        for part in parts(line) {
            complete.push_str(constants.get(part).map_or(part, String::as_str));
        }
        complete.push('\n');
    }
    complete
}

/// The parts of a line of Lua: names, strings and what lies between them. Comments are left out.
fn parts(line: &str) -> impl Iterator<Item = &str> {
    let mut rest = line;
    std::iter::from_fn(move || {
        let first = rest.chars().next().filter(|_| !rest.starts_with("--"))?;
        let is_name = |character: char| character.is_ascii_alphanumeric() || character == '_';
        let len = if first == '\'' {
            rest.get(1..).and_then(|text| text.find('\'')).map_or(rest.len(), |end| end + 2)
        } else if is_name(first) {
            rest.find(|character| !is_name(character)).unwrap_or(rest.len())
        } else {
            first.len_utf8()
        };
        let (part, after) = rest.split_at_checked(len)?;
        rest = after;
        Some(part)
    })
}

/// The names of the script's constants, and their values as Lua has them.
fn constants() -> Vec<(Cow<'static, str>, String)> {
    let number = |name: &'static str, value: u64| (Cow::Borrowed(name), value.to_string());
    let text = |name: &'static str, value: &str| (Cow::Borrowed(name), format!("'{value}'"));
    let byte = |name: &'static str, value: u8| (Cow::Borrowed(name), format!("'\\{value}'"));
    let mut constants = vec![
        number("ACCOUNT_FORMAT", layout::ACCOUNT_FORMAT.into()),
        number("FULL_FORMAT", layout::FULL_FORMAT.into()),
        number("CREDIT_FORMAT", layout::CREDIT_FORMAT.into()),
        number("FULL_CREDIT_FORMAT", layout::FULL_CREDIT_FORMAT.into()),
        number("ORDER_FORMAT", layout::ORDER_FORMAT.into()),
        number("PREVIOUS_FORMAT", layout::PREVIOUS_FORMAT.into()),
        number("RECORD_FORMAT", layout::RECORD_FORMAT.into()),
        number("PREVIOUS_RECORD_FORMAT", layout::PREVIOUS_RECORD_FORMAT.into()),
        number("MERCHANT_FORMAT", layout::MERCHANT_FORMAT.into()),
        number("RIGHT_FORMAT", layout::RIGHT_FORMAT.into()),
        number("AMOUNT_MAX", AmountMinor::MAX.get()),
        number("U32_MAX", u32::MAX.into()),
        number("NOW_MS_MAX", NOW_MS_MAX.unsigned_abs()),
        number("LAG_MS_MAX", LAG_MS_MAX),
        number("BROUGHT_BACK_EPOCH", quota::BROUGHT_BACK_EPOCH.into()),
        number("BROUGHT_BACK_EPOCHS", quota::BROUGHT_BACK_EPOCHS),
        number("REPORTED_WITHIN_MS", ReleaseRight::REPORTED_WITHIN_MS),
        number("WEIGHT_WHOLE_BP", Weight::WHOLE_BP.into()),
        number("EPOCHS", u64::from(u8::MAX) + 1),
        number("ID_LEN", ID_LEN as u64),
        number("ATTEMPTS_LEN_MAX", (ID_LEN * quota::ATTEMPTS_MAX) as u64),
        number("OPERATIONS_LEN_MAX", (len(layout::OPERATION) * OPERATIONS_MAX) as u64),
        number("REPORTED_LEN_MAX", (len(layout::OPERATION) * quota::REPORTED_OPERATIONS_MAX) as u64),
        number("REPORTED", op::REPORTED.into()),
        number("ANY_REPLAYS", op::ANY_REPLAYS.into()),
        number("OF_CHARGE", op::OF_CHARGE.into()),
        number("MADE", op::MADE.into()),
        number("NOT_MADE", op::NOT_MADE.into()),
        number("ADD", op::ADD.into()),
        number("SUBTRACT", op::SUBTRACT.into()),
        number("LEVELS", ThresholdPolicy::LIMITS.len() as u64),
        number("LEVEL_BASE", 1 << ThresholdLevels::BITS),
        number("BILLING_CYCLE", layout::BILLING_CYCLE.into()),
        number("REVERSAL", PostingKind::Reversal.number().into()),
        number("TRANSFER_OUT", PostingKind::TransferOut.number().into()),
        number("RECOVERY", PostingKind::Recovery.number().into()),
        number("OPENING", PostingKind::Opening.number().into()),
        byte("FAILED", op::FAILED),
        byte("REFUSED", op::REFUSED),
        byte("NOT_BEGUN", op::NOT_BEGUN),
        (Cow::Borrowed("USED_BY_PLACE"), ThresholdPolicy::LIMITS.map(|limit| used(limit.kind())).join(", ")),
    ];
    constants.extend(LAYOUTS.iter().map(|(name, layout)| text(name, layout)));
    let lengths = LAYOUTS.iter().map(|(name, layout)| (Cow::Owned(format!("{name}_LEN")), len(layout).to_string()));
    constants.extend(lengths);
    constants.extend(PLACES.iter().map(|(name, place)| number(name, *place as u64)));
    let named = |name: String, value: u8| (Cow::Owned(name), value.to_string());
    constants.extend(flags::ALL.iter().map(|(name, flag)| named(format!("{name}_FLAG"), *flag)));
    constants.extend(Period::ALL.iter().flat_map(|period| {
        let name = period.as_str().to_ascii_uppercase();
        [named(format!("RESET_{name}"), op::reset_of(*period)), named(name, period.number())]
    }));
    let counter = |counter: &CounterName| counter.as_str().to_ascii_uppercase();
    constants.extend(CounterName::ALL.iter().map(|name| named(format!("{}_COUNTER", counter(name)), name.number())));
    constants.extend((0..).zip(ThresholdPolicy::LIMITS).map(|(place, limit)| {
        let name = limit.code().as_str();
        named(format!("{name}_PLACE"), place)
    }));
    constants.extend(op::ALL.iter().map(|(name, value)| number(name, (*value).into())));
    constants.extend(Code::ALL.iter().map(|code| number(code.as_str(), code.number().into())));
    constants.extend(STATES.iter().map(|(name, state)| number(name, state.number().into())));
    constants.extend(KINDS.iter().map(|(name, kind)| number(name, kind.number().into())));
    constants
}

/// Length of the id of an attempt, an operation or a decision.
const ID_LEN: usize = size_of::<AttemptId>();
const _: () = assert!(ID_LEN == size_of::<OperationId>());

/// The script's name for the usage that counts against a limit.
const fn used(limit: LimitKind) -> &'static str {
    match limit {
        LimitKind::Count(Period::Day) => "dc",
        LimitKind::Count(Period::Week) => "wc",
        LimitKind::Count(Period::Month) => "mc",
        LimitKind::Count(Period::Year) => "yc",
        LimitKind::Amount(Period::Day) => "da",
        LimitKind::Amount(Period::Week) => "wa",
        LimitKind::Amount(Period::Month) => "ma",
        LimitKind::Amount(Period::Year) => "ya",
        LimitKind::Pending => "pending",
        LimitKind::Refunded(Period::Day) => "dr",
        LimitKind::Refunded(Period::Week) => "wr",
        LimitKind::Refunded(Period::Month) => "mr",
        LimitKind::Refunded(Period::Year) => "yr",
    }
}

/// Places of fields that the script takes out of a value without reading all of it.
const PLACES: [(&str, usize); 12] = [
    ("PLAIN_ORDER_AT", place(layout::COMMAND, 19)),
    ("SINCE_AT", len(layout::COMMAND) + place(layout::REST, 1)),
    ("REST_FLAGS_AT", place(layout::REST, 3)),
    ("MERCHANT_FLAGS_AT", place(layout::MERCHANT, 1)),
    ("ORDER_STATE_AT", place(layout::ORDER, 7)),
    ("WINDOWS_AT", place(layout::RIGHT, 1)),
    ("RIGHT_LEFT_AT", place(layout::RIGHT, 11)),
    ("RIGHT_UNTIL_AT", place(layout::RIGHT, 13)),
    ("RIGHT_ORPHANED_AT", place(layout::RIGHT, 14)),
    ("OPERATION_ID_AT", place(layout::OPERATION, 1)),
    ("OPERATION_ATTEMPT_AT", place(layout::OPERATION, 2)),
    ("OPERATION_AMOUNT_AT", place(layout::OPERATION, 3)),
];

/// The layouts; the script has the length of each, too, as in `USAGE_LEN`.
const LAYOUTS: [(&str, &str); 31] = [
    ("CALL", layout::CALL),
    ("COMMAND", layout::COMMAND),
    ("REST", layout::REST),
    ("MAXIMA", layout::MAXIMA),
    ("WINDOWS", layout::WINDOWS),
    ("NAMES", layout::NAMES),
    ("CREDIT_TERMS", layout::CREDIT_TERMS),
    ("PLAIN_TERMS", layout::PLAIN_TERMS),
    ("WEIGHT", layout::WEIGHT),
    ("WEIGHED", layout::WEIGHED),
    ("GRANT_TERMS", layout::GRANT_TERMS),
    ("RIGHT", layout::RIGHT),
    ("COUNTED", layout::COUNTED),
    ("RIGHT_OF_REPORT", layout::RIGHT_OF_REPORT),
    ("USAGE", layout::USAGE),
    ("SELDOM", layout::SELDOM),
    ("CREDIT", layout::CREDIT),
    ("HEADED", layout::HEADED),
    ("HEADED_CREDIT", layout::HEADED_CREDIT),
    ("MERCHANT", layout::MERCHANT),
    ("ORDER", layout::ORDER),
    ("ORDER_CYCLE", layout::ORDER_CYCLE),
    ("TAIL", layout::TAIL),
    ("OPERATION", layout::OPERATION),
    ("RECORD", layout::RECORD),
    ("BEFORE", layout::BEFORE),
    ("CREDIT_BEFORE", layout::CREDIT_BEFORE),
    ("FIRST", layout::FIRST),
    ("CLOSED", layout::CLOSED),
    ("CROSSING", layout::CROSSING),
    ("THRESHOLD_POLICY", layout::THRESHOLD_POLICY),
];

/// States of an order. `VOIDED` and `HOLD` are a code and an operation.
const STATES: [(&str, OrderState); 5] = [
    ("OPEN", OrderState::Open),
    ("CHARGED", OrderState::Charged),
    ("HELD", OrderState::Held),
    ("SETTLED", OrderState::Settled),
    ("STATE_VOIDED", OrderState::Voided),
];

/// Kinds of an order's operations.
const KINDS: [(&str, OperationKind); 4] = [
    ("CAPTURE", OperationKind::Capture),
    ("RESERVATION", OperationKind::Reservation),
    ("REFUNDED", OperationKind::Refund),
    ("RELEASED", OperationKind::Release),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_name_in_capitals_has_one_value() {
        let constants = constants();
        let names: BTreeSet<&str> = constants.iter().map(|(name, _)| &**name).collect();
        assert_eq!(names.len(), constants.len(), "a name is given twice");
        let complete = complete(SCRIPT);
        let is_constant = |part: &str| {
            part.len() > 2 && part.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
        };
        let left: BTreeSet<&str> =
            complete.lines().flat_map(parts).filter(|part| is_constant(part) && part.parse::<u64>().is_err()).collect();
        assert_eq!(left, BTreeSet::from(["ARGV", "KEYS"]));
    }

    /// Numbers that units and rounding have: percentages, milliseconds, a day's id.
    const UNITS: [&str; 5] = ["99", "100", "999", "1000", "10000"];
    /// Places in ARGV and in lists of ids, what Redis replies, a number of charges, and a half.
    const COUNTED: [&str; 5] =
        ["unpack(ARGV, 3,", "at % ID_LEN ~= 1", "call('EXISTS'", "settled == 0 and 1 or 0", "(free - free % 2) / 2"];

    /// The numbers of a line that stand for something which has a name: above 2, compared, of a bit, chosen by a condition, first
    /// in a packed value, the place of a level or of a field.
    fn bare_numbers(line: &str) -> Vec<&str> {
        if COUNTED.iter().any(|counted| line.contains(counted)) {
            return Vec::new();
        }
        let parts: Vec<&str> = parts(line).filter(|part| !part.trim().is_empty()).collect();
        let part = |at: Option<usize>| at.and_then(|at| parts.get(at).copied()).unwrap_or_default();
        let is_bare = |at: usize| {
            let Ok(number) = parts[at].parse::<u64>() else { return false };
            let before = |count| part(at.checked_sub(count));
            let (before, after) = ([before(4), before(3), before(2), before(1)], part(Some(at + 1)));
            match before {
                [.., "%" | "^"] => !UNITS.contains(&parts[at]),
                [.., "=" | "~" | "<" | ">", "="] | [.., "<" | ">"] => number > 0,
                [.., "and"] => number > 0 && after == "or",
                ["encode", "(", _, ","] => true,
                [.., "ARGV" | "time", "["] => false,
                [.., "["] => after == "]",
                [.., ","] if line.contains("without_level(") => true,
                _ => number > 2 && !UNITS.contains(&parts[at]),
            }
        };
        (0..parts.len()).filter(|at| is_bare(*at)).map(|at| parts[at]).collect()
    }

    #[test]
    fn numbers_with_a_meaning_have_a_name() {
        for line in SCRIPT.lines() {
            assert_eq!(bare_numbers(line), Vec::<&str>::new(), "{line}");
        }
        let table: [(&str, &[&str]); 9] = [
            ("local dry = flags % 2 == 1", &["2", "1"]),
            ("old = byte(packed, at) < 8", &["8"]),
            ("marks = without_level(without_level(marks, 0), 3)", &["0", "3"]),
            ("closed = encode(CLOSED, 0, sd, de, 0, dc, dr)", &["0"]),
            ("flags = (replay and 1 or 0) + (changed and 2 or 0)", &["1", "2"]),
            ("local list = sub(watch, 1, 58)", &["58"]),
            ("local used = { [0] = da, ma }", &["0"]),
            ("local one = 16 ^ place", &["16"]),
            ("if windows % (2 * RESET_DAY) == RESET_DAY and ARGV[2] > 0 then", &[]),
        ];
        for (line, numbers) in table {
            assert_eq!(bare_numbers(line), numbers, "{line}");
        }
    }

    #[test]
    fn strings_and_comments_are_left_alone() {
        let text = "if op == EXPIRE then call('EXPIRE', KEYS[1]) end -- EXPIRE, the operation\n";
        assert_eq!(complete(text), "if op == 8 then call('EXPIRE', KEYS[1]) end \n");
        assert_eq!(complete("local left = a .. '--' .. FIRST_LEN\n"), "local left = a .. '--' .. 11\n");
    }
}
