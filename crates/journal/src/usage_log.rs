//! A row of the usage log as the API shows it: each column is named once, with its type, for JSON, CSV and SQL alike.

use std::borrow::Cow;

use chrono::{DateTime, SecondsFormat, Utc};
use csv::ByteRecord;
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;
use uuid::Uuid;

macro_rules! row {
    (
        $(#[$doc:meta])*
        $row:ident { $($(#[$note:meta])* $name:ident: $type:ty $(= $column:literal)?;)+ }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Serialize, ToSchema, sqlx::FromRow)]
        pub struct $row {
            $($(#[$note])* pub $name: $type,)+
        }

        impl $row {
            /// The columns in SQL, each under its name here.
            pub const COLUMNS: &str = concat!($(row!(@column $name $($column)?), ",",)+ "NULL AS nothing");

            /// The names, as the first line of a CSV file.
            pub fn names() -> ByteRecord {
                ByteRecord::from(vec![$(stringify!($name)),+])
            }

            /// The values, as a line of a CSV file.
            pub fn cells(&self) -> ByteRecord {
                let mut cells = ByteRecord::new();
                $(self.$name.push(&mut cells);)+
                cells
            }
        }
    };
    (@column $name:ident) => { stringify!($name) };
    (@column $name:ident $column:literal) => { concat!($column, " AS ", stringify!($name)) };
}

row! {
    /// One decision on quota. Amounts are in minor units of the currency; figures with `before` and `after` are the
    /// account's around the decision, equal where it changed nothing.
    UsageLog {
        /// The decision's id, which its answer carried.
        event_id: Uuid;
        /// When the server took the command, by its own clock.
        at: DateTime<Utc>;
        merchant_id: String;
        currency: Option<String>;
        payment_no: Option<String>;
        order_no: Option<String>;
        capture_no: Option<String>;
        refund_no: Option<String>;
        /// The number of a posting to the credit line, as of a repayment.
        posting_no: Option<String>;
        amount: Option<i64>;
        /// What the amount counts against the amount limits, consumed, captured or returned; null where it is the amount itself, and where nothing moves, as for a reserved refund.
        counted_amount: Option<i64>;
        /// With `counted_amount`: the share of the amount that counts, in basis points.
        weight_bp: Option<i32>;
        /// With `counted_amount`: what every payment counts instead of its amount.
        units_per_payment: Option<i64>;
        /// The right that was granted, that the payment was admitted from, or that ended; null elsewhere.
        right_id: Option<Uuid>;
        /// What was asked, as in `consume`, `refund`, `adjust`.
        action_type: String;
        success: bool;
        /// The answer's code, as in `ADMITTED` or `DAILY_AMOUNT`.
        code: String;
        /// The code where the command was refused.
        failure_reason: Option<String>;
        /// Details of the refusal beside its code, as the problem's `details`.
        #[schema(value_type = Option<Object>)]
        failure_details: Option<Metadata> = "failure_details::text";
        /// It repeated an earlier answer and changed no counter.
        replay: bool;
        /// `enforce`, or `shadow` where a refusal stops no payment.
        mode: String;
        channel: Option<String>;
        daily_before: i64 = "daily_used_before";
        daily_after: i64 = "daily_used_after";
        weekly_before: i64 = "weekly_used_before";
        weekly_after: i64 = "weekly_used_after";
        monthly_before: i64 = "monthly_used_before";
        monthly_after: i64 = "monthly_used_after";
        yearly_before: i64 = "yearly_used_before";
        yearly_after: i64 = "yearly_used_after";
        pending_before: i64;
        pending_after: i64;
        daily_refunded_before: i64;
        daily_refunded_after: i64;
        weekly_refunded_before: i64;
        weekly_refunded_after: i64;
        monthly_refunded_before: i64;
        monthly_refunded_after: i64;
        yearly_refunded_before: i64;
        yearly_refunded_after: i64;
        daily_count_before: i64;
        daily_count_after: i64;
        weekly_count_before: i64;
        weekly_count_after: i64;
        monthly_count_before: i64;
        monthly_count_after: i64;
        yearly_count_before: i64;
        yearly_count_after: i64;
        /// The day counted against, YYYYMMDD in the merchant's time zone.
        daily_window: i32;
        /// The first day of the week counted against, YYYYMMDD; 0 in rows of before weeks were counted.
        weekly_window: i32;
        monthly_window: i32;
        yearly_window: i32;
        /// The credit line's billing cycle: its first day, YYYYMMDD; null for an account without a line.
        credit_cycle: Option<i32>;
        /// What is held and owed on the credit line; below 0 where more was repaid than is owed.
        exposure_before: Option<i64>;
        exposure_after: Option<i64>;
        /// Charged in the billing cycle and not on a statement yet.
        unbilled_before: Option<i64>;
        unbilled_after: Option<i64>;
        /// Who asked, from the caller's identity.
        operator_id: String;
        /// `system`, `admin` or `api`.
        operator_type: String;
        /// Why, in the words of who asked, or the proxy's.
        reason: Option<String>;
        remarks: Option<String>;
        /// The caller's own data, as it came.
        #[schema(value_type = Option<Object>)]
        metadata: Option<Metadata> = "metadata::text";
        /// The limits in force.
        policy_version: Option<String>;
        /// Number of changes of the account so far.
        account_version: i64;
        /// What was corrected by hand, and how.
        counter: Option<String>;
        change: Option<String>;
        expected_version: Option<i64>;
        /// The order after the command.
        order_state: Option<String>;
        order_amount: Option<i64>;
        order_settled: Option<i64>;
        order_refunded: Option<i64>;
        hold_until: Option<DateTime<Utc>>;
        hold_on_expiry: Option<String>;
        /// How long the proxy held the payment back, in milliseconds.
        wait_ms: i64;
        /// Since when the account is suspended.
        suspended_at: Option<DateTime<Utc>>;
        /// The one request through the proxy.
        attempt: Option<Uuid>;
        trace_id: Option<String>;
        /// The shard that decided, and the place in its gap-free sequence.
        shard: i32;
        seq: i64;
        /// When the row reached the database.
        stored_at: DateTime<Utc>;
    }
}

impl UsageLog {
    /// The row as its merchant reads it: of a posting to its credit line, not who made it and with which words.
    #[must_use]
    pub fn for_merchant(self) -> Self {
        if self.posting_no.is_none() {
            return self;
        }
        Self { operator_id: "operators".to_owned(), reason: None, remarks: None, metadata: None, ..self }
    }
}

/// A JSON document, handed on as it is.
#[derive(Clone, Debug, Serialize, sqlx::Type)]
#[serde(transparent)]
#[sqlx(transparent)]
pub struct Metadata(#[serde(serialize_with = "raw")] String);

fn raw<S: serde::Serializer>(text: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serde_json::from_str::<&RawValue>(text).map_err(serde::ser::Error::custom)?.serialize(serializer)
}

/// The text of a CSV cell.
trait Cell {
    fn push(&self, cells: &mut ByteRecord);
}

/// A spreadsheet takes a text with such a start for a formula, whatever its width; a quote in front makes it text again.
/// Blanks, line ends and invisible characters may precede it: spreadsheets skip them.
const FORMULA: [char; 8] = ['=', '+', '-', '@', '\u{ff1d}', '\u{ff0b}', '\u{ff0d}', '\u{ff20}'];
/// The same of other minus signs.
const MINUS: [char; 2] = ['\u{2212}', '\u{fe63}'];

fn is_formula(text: &str) -> bool {
    let is_passed_over = |sign: char| {
        let unseen = matches!(sign, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
        sign.is_whitespace() || sign.is_control() || unseen
    };
    let begin = text.trim_start_matches(is_passed_over);
    // A control character that leads is none of a text, even where no formula follows.
    text.starts_with(char::is_control) || begin.starts_with(FORMULA) || begin.starts_with(MINUS)
}

/// A caller's text as a cell: a spreadsheet takes it for text, whatever it begins with.
#[must_use]
pub fn csv_text(text: &str) -> Cow<'_, str> {
    if is_formula(text) { format!("'{text}").into() } else { text.into() }
}

impl Cell for String {
    fn push(&self, cells: &mut ByteRecord) {
        cells.push_field(csv_text(self).as_bytes());
    }
}

impl Cell for Metadata {
    fn push(&self, cells: &mut ByteRecord) {
        self.0.push(cells);
    }
}

impl Cell for DateTime<Utc> {
    fn push(&self, cells: &mut ByteRecord) {
        cells.push_field(self.to_rfc3339_opts(SecondsFormat::AutoSi, true).as_bytes());
    }
}

macro_rules! plain {
    ($($type:ty),+) => {$(
        impl Cell for $type {
            fn push(&self, cells: &mut ByteRecord) {
                cells.push_field(self.to_string().as_bytes());
            }
        }
    )+};
}

// A negative number is a number in a spreadsheet, too.
plain!(i32, i64, bool, Uuid);

impl<T: Cell> Cell for Option<T> {
    fn push(&self, cells: &mut ByteRecord) {
        match self {
            Some(value) => value.push(cells),
            None => cells.push_field(b""),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(value: &impl Cell) -> String {
        let mut cells = ByteRecord::new();
        value.push(&mut cells);
        String::from_utf8(cells.get(0).unwrap().to_vec()).unwrap()
    }

    #[test]
    fn x11_what_a_spreadsheet_would_run_is_text() {
        for text in [
            "=1+1",
            "+1",
            "-1",
            "@SUM(A1)",
            "\t=1",
            "\r=1",
            // X11
            "\n=1",
            "\r\n=1",
            " =1",
            "  \t +1",
            "\u{a0}=1",
            "\u{3000}@SUM(A1)",
            "\u{feff}=1",
            "\u{200b}-1",
            "\u{ff1d}1+1",
            " \u{ff0b}1",
            "\u{ff0d}1",
            "\u{ff20}SUM(A1)",
            "\u{2212}1",
            "\ttext",
            "\ntext",
        ] {
            assert_eq!(cell(&text.to_owned()), format!("'{text}"), "{text:?}");
        }
        for text in ["", "a=1", "ORDER-1", " a", "a\n=1", "'=1", "{\"a\":1}", "\u{6771}\u{4eac}"] {
            assert_eq!(cell(&text.to_owned()), text);
        }
        assert_eq!(
            (cell(&-5_i64), cell(&None::<i64>), cell(&true)),
            ("-5".to_owned(), String::new(), "true".to_owned())
        );
    }

    #[test]
    fn metadata_is_a_document_within_the_document() {
        let metadata = Metadata(r#"{"amount": 9007199254740993}"#.to_owned());
        assert_eq!(serde_json::to_string(&metadata).unwrap(), r#"{"amount": 9007199254740993}"#);
    }
}
