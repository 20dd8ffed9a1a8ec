//! Numbers in packed commands, for Rust and for the script.

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
}

/// In place of a capture's bound: the money has moved.
pub(crate) const REPORTED: u8 = 255;
/// In place of the replays that a rule lets through: any number.
pub(crate) const ANY_REPLAYS: u8 = 255;
