//! Notices of dunning that were sent.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use jiff::civil::Date;
use serde::{Deserialize, Serialize};
use sluice_credit::{CycleId, Notice, NoticeKey, NoticeKind, Recipient};
use sqlx::PgConnection;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::LineKey;

const INSERT: &str = "INSERT INTO credit_notice (merchant_id, currency, cycle, step, on_day, due_on, amount, kind, template, \
        recipients, channels, sent_at, alert_id) \
    VALUES ($1, $2, $3, $4, $5::date, $6::date, $7, $8, $9, $10, $11, $12, $13) ON CONFLICT DO NOTHING";

/// A notice that was sent, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NoticeRow {
    /// The cycle of the statement: its first day, YYYYMMDD.
    pub cycle: u32,
    /// The step of the ladder: its day past due; 0 or less is before or on the due date.
    pub step: i16,
    /// The business day on which the step was reached.
    #[schema(value_type = String, format = Date)]
    pub on_day: Date,
    #[schema(value_type = String, format = Date)]
    pub due_on: Date,
    /// What was unpaid of the minimum, minor units.
    pub amount: i64,
    pub kind: NoticeKind,
    /// The id of the text.
    pub template: String,
    pub recipients: BTreeSet<Recipient>,
    /// The alert channels that the step names, by id or kind.
    pub channels: BTreeSet<String>,
    pub sent_at: DateTime<Utc>,
    /// The alert that carries it.
    pub alert_id: Uuid,
}

impl NoticeRow {
    /// A notice that an alert carries.
    #[must_use]
    pub fn new(notice: &Notice, sent_at: DateTime<Utc>, alert_id: Uuid) -> Self {
        let Notice { key, on, due_on, amount, step, .. } = notice;
        Self {
            cycle: key.obligation.0,
            step: key.step,
            on_day: *on,
            due_on: *due_on,
            amount: *amount,
            kind: step.kind,
            template: step.template.clone(),
            recipients: step.recipients.clone(),
            channels: step.channels.clone(),
            sent_at,
            alert_id,
        }
    }

    /// What makes it the same notice.
    #[must_use]
    pub const fn key(&self) -> NoticeKey {
        NoticeKey { obligation: CycleId(self.cycle), step: self.step }
    }

    /// Stores it; false where it was sent already.
    ///
    /// # Errors
    /// [`sqlx::Error`] where Postgres gives no answer.
    pub async fn insert(
        &self,
        connection: &mut PgConnection,
        (merchant, currency): &LineKey,
    ) -> Result<bool, sqlx::Error> {
        let recipients: Vec<&str> = self.recipients.iter().map(|recipient| recipient.as_str()).collect();
        let channels: Vec<&str> = self.channels.iter().map(String::as_str).collect();
        let query = sqlx::query(INSERT).bind(merchant.as_str()).bind(currency.code());
        let query = query.bind(i32::try_from(self.cycle).unwrap_or_default()).bind(self.step);
        let query = query.bind(self.on_day.to_string()).bind(self.due_on.to_string()).bind(self.amount);
        let query = query.bind(self.kind.as_str()).bind(&self.template).bind(recipients).bind(channels);
        let inserted = query.bind(self.sent_at).bind(self.alert_id).execute(connection).await?;
        Ok(inserted.rows_affected() > 0)
    }
}
