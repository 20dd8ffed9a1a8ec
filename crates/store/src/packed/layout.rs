//! The layouts of packed values, for Rust and for the script. A layout is a format of Lua's `struct` library; what its fields
//! mean is stated at the head of `lua/call.lua`.

/// The versions of accounts say which parts they have: this one only [`USAGE`].
///
/// No version of an account may be one of a record: both begin an event's record.
pub(crate) const ACCOUNT_FORMAT: u8 = 8;
/// With [`SELDOM`].
pub(crate) const FULL_FORMAT: u8 = 9;
/// With [`CREDIT`]. Versions with a credit line are the highest.
pub(crate) const CREDIT_FORMAT: u8 = 10;
/// With [`CREDIT`] and [`SELDOM`], in this order; version 11 had them in the other one, and was in no release.
pub(crate) const FULL_CREDIT_FORMAT: u8 = 13;
/// The version of accounts before, as [`FULL_FORMAT`]. It is read, and written anew.
pub(crate) const PREVIOUS_FORMAT: u8 = 6;
/// The version of full records, which contain an account of a present version.
pub(crate) const RECORD_FORMAT: u8 = 12;
/// The version of full records which contain an account of [`PREVIOUS_FORMAT`].
pub(crate) const PREVIOUS_RECORD_FORMAT: u8 = 7;
/// The version of orders.
pub(crate) const ORDER_FORMAT: u8 = 6;
/// The version of merchants.
pub(crate) const MERCHANT_FORMAT: u8 = 1;
/// The version of rights.
pub(crate) const RIGHT_FORMAT: u8 = 1;

/// The first argument of a call.
pub(crate) const CALL: &str = "<BI2I2I2I2I2d";
/// The part that all commands have, up to the account's head and the order of a plain charge.
pub(crate) const COMMAND: &str = "<BI2I2I2I2I2I2I4ddddddddddc23c65";
/// What follows it: the billing cycle, the beginning of the windows, the order's lifetime, flags, refusal, replays, and the
/// history's length. With the billing cycle, the order of a plain charge is one on a credit line.
pub(crate) const REST: &str = "<I4dI4BBBI2";
/// The maxima of the windows' limits.
pub(crate) const MAXIMA: &str = "<dddddddd";
/// The credit line of a command, behind [`REST`].
pub(crate) const CREDIT_TERMS: &str = "<dd";
/// [`REST`] and [`CREDIT_TERMS`] as a plain charge sees them: the billing cycle and the limit.
pub(crate) const PLAIN_TERMS: &str = "<I4xxxxxxxxxxxxxxxxxd";
/// The weight of a charge, behind [`CREDIT_TERMS`], and of an order, behind [`ORDER_CYCLE`].
pub(crate) const WEIGHT: &str = "<I4d";
/// What a holder asks for, and what bounds it besides the limits, behind [`CREDIT_TERMS`].
pub(crate) const GRANT_TERMS: &str = "<ddBBddI4d";
/// The windows in an account's head.
pub(crate) const WINDOWS: &str = "<I4I4";
/// Currency, decision and attempt in the order of a plain charge.
pub(crate) const NAMES: &str = "<xxxxxxxxxxxxxxxc3xxxxxxxxxxxxc16xxxc16";
/// The part that every account has.
pub(crate) const USAGE: &str = "<BI4I4BBBBBdI2ddddddddd";
/// The part of an account that is seldom anything but zero: refunds, what is pending, its pace and its suspension.
pub(crate) const SELDOM: &str = "<ddddddd";
/// The part of an account with a credit line, between the other two.
pub(crate) const CREDIT: &str = "<I4dd";
/// [`USAGE`] as a plain charge sees it: the version, the head, usage and number of changes.
pub(crate) const HEADED: &str = "<Bc23ddddddddd";
/// [`HEADED`] and [`CREDIT`].
pub(crate) const HEADED_CREDIT: &str = "<Bc23dddddddddI4dd";
pub(crate) const MERCHANT: &str = "<BBdd";
/// An order without its attempts and its tail.
pub(crate) const ORDER: &str = "<BI4I4BBBBBBc3dI4c16BBB";
/// The billing cycle of an order on a credit line, between its attempts and its tail.
pub(crate) const ORDER_CYCLE: &str = "<I4";
/// A right: the windows that it was counted in, its weight, what it was granted and has left, its end.
pub(crate) const RIGHT: &str = "<BI4I4BBBBI4ddddddBc16";
/// The windows of a right, as an event has them.
pub(crate) const COUNTED: &str = "<I4I4BBBB";
/// [`RIGHT`] as a report or its end sees it: the windows, its weight, and what is left.
pub(crate) const RIGHT_OF_REPORT: &str = "<xI4I4BBBBI4dxxxxxxxxxxxxxxxxdd";
pub(crate) const TAIL: &str = "<I4Bdd";
pub(crate) const OPERATION: &str = "<Bc16c16dI4I4BBBBc16";
/// A full record up to its account.
pub(crate) const RECORD: &str = "<BBBBI4ddddd";
/// The usage before, in a record.
pub(crate) const BEFORE: &str = "<ddddddddddddd";
/// The same of a credit line.
pub(crate) const CREDIT_BEFORE: &str = "<dd";
/// What was accepted at first, in a record.
pub(crate) const FIRST: &str = "<dc3";
/// The weight in a record, and the figure that counts.
pub(crate) const WEIGHED: &str = "<I4dd";
pub(crate) const CLOSED: &str = "<BI4Bddd";
pub(crate) const CROSSING: &str = "<dI2dI2";
/// A threshold policy without its percentages.
pub(crate) const THRESHOLD_POLICY: &str = "<I2dddddddddB";

/// In place of a period, in a closed window: a billing cycle.
pub(crate) const BILLING_CYCLE: u8 = 4;

/// The length of a layout in bytes.
pub(crate) const fn len(layout: &str) -> usize {
    len_of_first(usize::MAX, layout)
}

/// The place of a field in a value, from 1 as in Lua, for a layout without padding. Fields are counted from 0.
pub(crate) const fn place(layout: &str, field: usize) -> usize {
    len_of_first(field, layout) + 1
}

/// The length of the first fields of a layout.
#[expect(clippy::indexing_slicing, reason = "the index is below the length")]
const fn len_of_first(fields: usize, layout: &str) -> usize {
    let bytes = layout.as_bytes();
    let (mut at, mut length, mut found) = (0, 0, 0);
    while at < bytes.len() && found < fields {
        let code = bytes[at];
        at += 1;
        let mut number = 0;
        while at < bytes.len() && bytes[at].is_ascii_digit() {
            number = 10 * number + (bytes[at] - b'0') as usize;
            at += 1;
        }
        length += match code {
            b'B' | b'x' => 1,
            b'd' => 8,
            b'I' | b'c' => number,
            _ => 0,
        };
        found += matches!(code, b'B' | b'd' | b'I' | b'c') as usize;
    }
    length
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_have_lengths() {
        let table = [
            (ORDER, 49),
            (OPERATION, 69),
            (TAIL, 21),
            (RECORD, 48),
            (MERCHANT, 18),
            (COMMAND, 185),
            (USAGE, 96),
            (CREDIT, 20),
            ("<xxc3", 5),
        ];
        for (layout, length) in table {
            assert_eq!(len(layout), length, "{layout}");
        }
        // Parts that are parts of the same value.
        assert_eq!([place(ORDER, 0), place(ORDER, 7), place(OPERATION, 2)], [1, 14, 18]);
        assert_eq!(len(HEADED), len(USAGE));
        assert_eq!(len(HEADED_CREDIT), len(USAGE) + len(CREDIT));
        assert_eq!(len(PLAIN_TERMS), len(REST) + 8);
        assert_eq!(len(RIGHT_OF_REPORT), place(RIGHT, 13) - 1);
        assert_eq!(len(NAMES), len(ORDER) + 16);
        assert!(COMMAND.ends_with(&format!("c23c{}", len(NAMES))));
    }
}
