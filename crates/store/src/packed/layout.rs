//! The layouts of packed values, for Rust and for the script. A layout is a format of Lua's `struct` library; what its fields
//! mean is stated at the head of `lua/call.lua`.

/// The version of accounts and orders. Values of the previous version are read, and written anew in this one.
///
/// No version of an account may be one of a record: both begin an event's record.
pub(crate) const FORMAT: u8 = 6;
/// The version before, in which windows had no week.
pub(crate) const PREVIOUS_FORMAT: u8 = 4;
/// The version of full records, which contain an account of [`FORMAT`].
pub(crate) const RECORD_FORMAT: u8 = 7;
/// The version of full records which contain an account of [`PREVIOUS_FORMAT`].
pub(crate) const PREVIOUS_RECORD_FORMAT: u8 = 5;
/// The limits that had thresholds in the previous format.
pub(crate) const PREVIOUS_LIMITS: usize = 7;
/// The version of merchants.
pub(crate) const MERCHANT_FORMAT: u8 = 1;

/// The first argument of a call.
pub(crate) const CALL: &str = "<BI2I2I2I2I2d";
/// The part that all commands have, up to the account's head and the order of a plain charge.
pub(crate) const COMMAND: &str = "<BI2I2I2I2I2I4ddddddddddc24c65";
/// What follows it: the beginning of the windows, the order's lifetime, flags, refusal, replays, and the history's length.
pub(crate) const REST: &str = "<dI4BBBI2";
/// The maxima of the windows' limits.
pub(crate) const MAXIMA: &str = "<dddddddd";
/// The windows in an account's head.
pub(crate) const WINDOWS: &str = "<xI4I4";
/// Currency, decision and attempt in the order of a plain charge.
pub(crate) const NAMES: &str = "<xxxxxxxxxxxxxxxc3xxxxxxxxxxxxc16xxxc16";
pub(crate) const ACCOUNT: &str = "<BI4I4BBBBBdI2dddddddddddddddd";
/// An account as a plain charge sees it: its head, usage and number of changes, and the rest.
pub(crate) const HEADED: &str = "<c24dddddddddc56";
pub(crate) const MERCHANT: &str = "<BBdd";
/// An order without its attempts and its tail.
pub(crate) const ORDER: &str = "<BI4I4BBBBBBc3dI4c16BBB";
pub(crate) const TAIL: &str = "<I4Bdd";
pub(crate) const OPERATION: &str = "<Bc16c16dI4I4BBBBc16";
/// A full record up to its account.
pub(crate) const RECORD: &str = "<BBBBI4ddddd";
/// The usage before, in a record.
pub(crate) const BEFORE: &str = "<ddddddddddddd";
/// What was accepted at first, in a record.
pub(crate) const FIRST: &str = "<dc3";
pub(crate) const CLOSED: &str = "<BI4Bddd";
pub(crate) const CROSSING: &str = "<dI2dI2";
/// A threshold policy without its percentages.
pub(crate) const THRESHOLD_POLICY: &str = "<I2dddddddddB";

pub(crate) const PREVIOUS_ACCOUNT: &str = "<BI4BBBBI4I2ddddddddddddd";
pub(crate) const PREVIOUS_ORDER: &str = "<BI4BBBBBc3dI4c16BBB";
pub(crate) const PREVIOUS_OPERATION: &str = "<Bc16c16dI4BBBc16";
pub(crate) const PREVIOUS_BEFORE: &str = "<dddddddddd";
pub(crate) const PREVIOUS_CROSSING: &str = "<I4I2I4I2";

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
            (ACCOUNT, 152),
            (ORDER, 49),
            (OPERATION, 69),
            (TAIL, 21),
            (RECORD, 48),
            (MERCHANT, 18),
            (COMMAND, 184),
            (PREVIOUS_ACCOUNT, 119),
            (PREVIOUS_ORDER, 44),
            (PREVIOUS_OPERATION, 64),
            ("<xxc3", 5),
        ];
        for (layout, length) in table {
            assert_eq!(len(layout), length, "{layout}");
        }
        // Parts that are parts of the same value.
        assert_eq!([place(ORDER, 0), place(ORDER, 7), place(OPERATION, 2)], [1, 14, 18]);
        assert_eq!(len(HEADED), len(ACCOUNT));
        assert_eq!(len(NAMES), len(ORDER) + 16);
        assert!(COMMAND.ends_with(&format!("c24c{}", len(NAMES))));
    }
}
