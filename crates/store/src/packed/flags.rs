//! Flags in packed values, for Rust and for the script, where each has `_FLAG` behind its name.

/// Declares the flags, and the list of them for the script.
macro_rules! flags {
    ($($(#[$doc:meta])* $name:ident = $value:literal;)+) => {
        $($(#[$doc])* pub(crate) const $name: u8 = $value;)+

        /// Every flag with its value.
        pub(crate) const ALL: [(&str, u8); [$($value),+].len()] = [$((stringify!($name), $name)),+];
    };
}

flags! {
    /// Of a call: all of its commands, or none where one is refused.
    CALL_ALL_OR_NONE = 1;
    /// Values of the previous format keep it. The script takes it for the highest flag.
    CALL_ROLLING_UPGRADE = 2;

    /// Of a command: it changes nothing.
    COMMAND_DRY = 1;
    /// Refusals of a dry run are journalled.
    COMMAND_JOURNALED = 2;
    /// A pace follows.
    COMMAND_PACED = 4;
    /// The last capture, a reserved refund, or the end of a right that is not its holder's.
    COMMAND_LAST_OR_RESERVED = 8;
    /// A charge on a credit line is refused where none follows.
    COMMAND_REFUSE_UNKNOWN_CREDIT = 16;
    /// A weight follows. The script takes it for the highest flag.
    COMMAND_WEIGHED = 32;

    /// Of an account: it is suspended.
    ACCOUNT_SUSPENDED = 1;
    /// Something is pending.
    ACCOUNT_PENDING = 2;

    /// Of a merchant: it is suspended as a whole.
    MERCHANT_SUSPENDED = 1;

    /// Of an order: more live attempts arrived than are stored.
    ORDER_PINNED = 1;
    ORDER_HAS_TAIL = 2;
    /// An operation has given back quota.
    ORDER_GIVEN_BACK = 4;
    /// The charge's outcome is unknown.
    ORDER_UNKNOWN = 8;
    /// The gateway is known to have the charge.
    ORDER_MADE = 16;
    /// An operation's outcome is or was unknown.
    ORDER_DOUBTED = 32;
    /// It is on the credit line.
    ORDER_ON_CREDIT = 64;
    /// It has a weight. The script takes it for the highest flag.
    ORDER_WEIGHED = 128;

    /// Of a record: the command is a repetition.
    RECORD_REPLAY = 1;
    /// Usage changed.
    RECORD_CHANGED = 2;
    /// The caller gets another decision.
    RECORD_OTHER_DECISION = 4;
    RECORD_MERCHANT_SUSPENDED = 8;
    /// It conflicts with what was accepted at first.
    RECORD_CONFLICTS = 16;
    /// An outcome of the order was unknown before.
    RECORD_WAS_UNKNOWN = 32;
    /// What counts is not the amount.
    RECORD_WEIGHED = 64;
}
