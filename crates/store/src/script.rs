//! The text of the script: its sources, in which names in capitals stand for constants of the Rust code.

use std::borrow::Cow;

use quota::{
    AmountMinor, Code, CounterName, LAG_MS_MAX, NOW_MS_MAX, OPERATIONS_MAX, OperationKind, OrderState, Period,
    ThresholdPolicy,
};

use crate::packed::layout::{self, len};
use crate::packed::op;

/// The decision rule as Redis runs it, before [`complete`].
pub const SCRIPT: &str = concat!(
    include_str!("lua/call.lua"),
    include_str!("lua/rules.lua"),
    include_str!("lua/merchant.lua"),
    include_str!("lua/state.lua"),
    include_str!("lua/charge.lua"),
    include_str!("lua/operations.lua"),
    include_str!("lua/outcome.lua"),
    include_str!("lua/commands.lua"),
);

/// The script with every constant's value in place of its name.
pub(crate) fn complete(source: &str) -> String {
    let constants = constants();
    let mut complete = String::with_capacity(source.len());
    for line in source.lines() {
        for part in parts(line) {
            let constant = constants.iter().find(|(name, _)| *name == part);
            complete.push_str(constant.map_or(part, |(_, value)| value));
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
    let mut constants = vec![
        number("FORMAT", layout::FORMAT.into()),
        number("PREVIOUS_FORMAT", layout::PREVIOUS_FORMAT.into()),
        number("RECORD_FORMAT", layout::RECORD_FORMAT.into()),
        number("PREVIOUS_RECORD_FORMAT", layout::PREVIOUS_RECORD_FORMAT.into()),
        number("MERCHANT_FORMAT", layout::MERCHANT_FORMAT.into()),
        number("AMOUNT_MAX", AmountMinor::MAX.get()),
        number("U32_MAX", u32::MAX.into()),
        number("NOW_MS_MAX", NOW_MS_MAX.unsigned_abs()),
        number("LAG_MS_MAX", LAG_MS_MAX),
        number("ATTEMPTS_LEN_MAX", 16 * quota::ATTEMPTS_MAX as u64),
        number("OPERATIONS_LEN_MAX", (len(layout::OPERATION) * OPERATIONS_MAX) as u64),
        number("REPORTED_LEN_MAX", (len(layout::OPERATION) * quota::REPORTED_OPERATIONS_MAX) as u64),
        number("REPORTED", op::REPORTED.into()),
        number("ANY_REPLAYS", op::ANY_REPLAYS.into()),
        number("LEVELS", ThresholdPolicy::LIMITS.len() as u64),
        number("FIRST_WEEKLY_COUNTER", CounterName::Amount(Period::Week).number().into()),
        text("FAILED", r"\0"),
        text("REFUSED", r"\1"),
        text("NOT_BEGUN", r"\2"),
    ];
    constants.extend(LAYOUTS.iter().map(|(name, layout)| text(name, layout)));
    let lengths = LAYOUTS.iter().map(|(name, layout)| (Cow::Owned(format!("{name}_LEN")), len(layout).to_string()));
    constants.extend(lengths);
    constants.extend(op::ALL.iter().map(|(name, value)| number(name, (*value).into())));
    constants.extend(Code::ALL.iter().map(|code| number(code.as_str(), code.number().into())));
    constants.extend(STATES.iter().map(|(name, state)| number(name, state.number().into())));
    constants.extend(KINDS.iter().map(|(name, kind)| number(name, kind.number().into())));
    constants
}

/// The layouts; the script has the length of each, too, as in `ACCOUNT_LEN`.
const LAYOUTS: [(&str, &str); 23] = [
    ("CALL", layout::CALL),
    ("COMMAND", layout::COMMAND),
    ("REST", layout::REST),
    ("MAXIMA", layout::MAXIMA),
    ("WINDOWS", layout::WINDOWS),
    ("NAMES", layout::NAMES),
    ("ACCOUNT", layout::ACCOUNT),
    ("HEADED", layout::HEADED),
    ("MERCHANT", layout::MERCHANT),
    ("ORDER", layout::ORDER),
    ("TAIL", layout::TAIL),
    ("OPERATION", layout::OPERATION),
    ("RECORD", layout::RECORD),
    ("BEFORE", layout::BEFORE),
    ("FIRST", layout::FIRST),
    ("CLOSED", layout::CLOSED),
    ("CROSSING", layout::CROSSING),
    ("THRESHOLD_POLICY", layout::THRESHOLD_POLICY),
    ("PREVIOUS_ACCOUNT", layout::PREVIOUS_ACCOUNT),
    ("PREVIOUS_ORDER", layout::PREVIOUS_ORDER),
    ("PREVIOUS_OPERATION", layout::PREVIOUS_OPERATION),
    ("PREVIOUS_BEFORE", layout::PREVIOUS_BEFORE),
    ("PREVIOUS_CROSSING", layout::PREVIOUS_CROSSING),
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

    #[test]
    fn strings_and_comments_are_left_alone() {
        let text = "if op == EXPIRE then call('EXPIRE', KEYS[1]) end -- EXPIRE, the operation\n";
        assert_eq!(complete(text), "if op == 8 then call('EXPIRE', KEYS[1]) end \n");
        assert_eq!(complete("local left = a .. '--' .. FIRST_LEN\n"), "local left = a .. '--' .. 11\n");
    }
}
