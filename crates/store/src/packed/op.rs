//! Numbers in packed commands and replies, for Rust and for the script.

use quota::Period;

/// Declares the operations, and the list of them for the script.
macro_rules! operations {
    ($($(#[$doc:meta])* $name:ident = $number:literal;)+) => {
        $($(#[$doc])* pub(crate) const $name: u8 = $number;)+

        /// Every operation with its number.
        pub(crate) const ALL: [(&str, u8); [$($number),+].len()] = [$((stringify!($name), $name)),+];
    };
}

operations! {
    /// A consume without anything out of the ordinary.
    PLAIN = 0;
    CONSUME = 1;
    HOLD = 2;
    VOID_ATTEMPT = 3;
    VOID = 4;
    SETTLE = 5;
    REFUND = 6;
    RELEASE = 7;
    EXPIRE = 8;
    ADJUST = 9;
    RESET = 10;
    SUSPEND = 11;
    RESUME = 12;
    INITIALIZE = 13;
    ROLL = 14;
    UNKNOWN = 15;
    RESOLVE = 16;
    SUSPEND_MERCHANT = 17;
    RESUME_MERCHANT = 18;
    EXTEND_HOLD = 19;
    /// As `PLAIN`, with a credit line.
    PLAIN_CREDIT = 20;
    POST = 21;
    /// Of rights: these are the highest.
    GRANT = 22;
    REPORT = 23;
    RELEASE_RIGHT = 24;
    ORPHAN_RIGHT = 25;
}

/// The bit of a window in a reset.
pub(crate) const fn reset_of(period: Period) -> u8 {
    1 << period.number()
}

/// What a correction does with a counter.
pub(crate) const ADD: u8 = 1;
pub(crate) const SUBTRACT: u8 = 2;
pub(crate) const SET: u8 = 3;

/// In place of an operation's kind, where a mark concerns the charge.
pub(crate) const OF_CHARGE: u8 = 0;
/// How an unknown outcome is resolved: the gateway has made the payment, or not.
pub(crate) const MADE: u8 = 1;
pub(crate) const NOT_MADE: u8 = 0;

/// First byte of a reply, in place of a record, where a command could not be decided.
pub(crate) const FAILED: u8 = 0;
/// The same where another command of an all-or-none batch was refused.
pub(crate) const REFUSED: u8 = 1;
/// The same, followed by the store's time, where the command's windows have not begun by that time.
pub(crate) const NOT_BEGUN: u8 = 2;

/// In place of a capture's bound: the money has moved.
pub(crate) const REPORTED: u8 = 255;
/// In place of the replays that a rule lets through: any number.
pub(crate) const ANY_REPLAYS: u8 = 255;
