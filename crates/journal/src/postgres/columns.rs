//! The columns of `usage_log`.

use std::sync::LazyLock;

use chrono::{DateTime, Utc};
use sluice_kit::database::row::{Json, Statement, insert, table_row};
use sqlx::AssertSqlSafe;
use uuid::Uuid;

/// The statement that stores those rows that are not there yet, and gives their ids.
pub(super) fn insert_usage<'q>(rows: impl Iterator<Item = &'q Row> + Clone) -> Statement<'q> {
    static INSERT: LazyLock<String> =
        LazyLock::new(|| format!("{} ON CONFLICT DO NOTHING RETURNING event_id", insert("usage_log", Row::COLUMNS)));
    Row::bind(sqlx::query(AssertSqlSafe(INSERT.as_str())), rows)
}

table_row! {
    copied
    /// One event as `usage_log` stores it; the migrations document the columns.
    pub struct Row {
        event_id: Uuid => "uuid";
        at: DateTime<Utc> => "timestamptz";
        shard: i32 => "int4";
        seq: i64 => "int8";
        action_type: String => "text";
        code: &'static str => "text";
        success: bool => "bool";
        failure_reason: Option<&'static str> => "text";
        replay: bool => "bool";
        mode: String => "text";
        merchant_id: String => "text";
        currency: Option<String> => "text";
        amount: i64 => "int8";
        order_no: Option<String> => "text";
        payment_no: Option<String> => "text";
        channel: Option<String> => "text";
        attempt: Option<Uuid> => "uuid";
        reason: Option<String> => "text";
        operator_id: String => "text";
        operator_type: &'static str => "text";
        policy_version: Option<String> => "text";
        trace_id: Option<String> => "text";
        daily_window: i32 => "int4";
        daily_used_before: i64 => "int8";
        daily_used_after: i64 => "int8";
        daily_count_before: i64 => "int8";
        daily_count_after: i64 => "int8";
        monthly_window: i32 => "int4";
        monthly_used_before: i64 => "int8";
        monthly_used_after: i64 => "int8";
        monthly_count_before: i64 => "int8";
        monthly_count_after: i64 => "int8";
        yearly_window: i32 => "int4";
        yearly_used_before: i64 => "int8";
        yearly_used_after: i64 => "int8";
        yearly_count_before: i64 => "int8";
        yearly_count_after: i64 => "int8";
        account_version: i64 => "int8";
        operation_id: Option<Uuid> => "uuid";
        capture_no: Option<String> => "text";
        refund_no: Option<String> => "text";
        daily_epoch: i16 => "int2";
        monthly_epoch: i16 => "int2";
        yearly_epoch: i16 => "int2";
        daily_refunded_before: i64 => "int8";
        daily_refunded_after: i64 => "int8";
        monthly_refunded_before: i64 => "int8";
        monthly_refunded_after: i64 => "int8";
        yearly_refunded_before: i64 => "int8";
        yearly_refunded_after: i64 => "int8";
        pending_before: i64 => "int8";
        pending_after: i64 => "int8";
        order_state: Option<&'static str> => "text";
        order_amount: Option<i64> => "int8";
        order_settled: Option<i64> => "int8";
        order_refunded: Option<i64> => "int8";
        order_ttl_secs: Option<i64> => "int8";
        hold_until: Option<DateTime<Utc>> => "timestamptz";
        hold_on_expiry: Option<String> => "text";
        wait_ms: i64 => "int8";
        suspended_at: Option<DateTime<Utc>> => "timestamptz";
        counter: Option<String> => "text";
        change: Option<String> => "text";
        expected_version: Option<i64> => "int8";
        remarks: Option<String> => "text";
        /// Sent as text, which Postgres reads.
        metadata: Option<Json> => "text[]::jsonb";
        failure_details: Option<Json> => "text[]::jsonb";
        weekly_window: i32 => "int4";
        weekly_epoch: i16 => "int2";
        weekly_used_before: i64 => "int8";
        weekly_used_after: i64 => "int8";
        weekly_count_before: i64 => "int8";
        weekly_count_after: i64 => "int8";
        weekly_refunded_before: i64 => "int8";
        weekly_refunded_after: i64 => "int8";
        posting_no: Option<String> => "text";
        credit_cycle: Option<i32> => "int4";
        exposure_before: Option<i64> => "int8";
        exposure_after: Option<i64> => "int8";
        unbilled_before: Option<i64> => "int8";
        unbilled_after: Option<i64> => "int8";
        counted_amount: Option<i64> => "int8";
        weight_bp: Option<i32> => "int4";
        units_per_payment: Option<i64> => "int8";
        right_id: Option<Uuid> => "uuid";
        counted_in: Option<String> => "text";
    }
}
