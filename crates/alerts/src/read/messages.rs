//! Messages about alerts, and each try to deliver them; tests, and redelivery.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sqlx::{PgConnection, PgExecutor, PgPool, QueryBuilder};
use strum::{EnumString, IntoStaticStr};
use thiserror::Error;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{NOTIFY, UnknownWord};
use crate::Scope;
use crate::settings::Channel;

/// Most tries that are shown at once, the latest.
const DELIVERIES_MAX: i64 = 1000;
/// Tests and redeliveries of one scope in a minute: they must be no way to flood a mailbox.
pub const BY_HAND_PER_MINUTE_MAX: i64 = 10;
/// Serializes the count of one scope's messages against [`BY_HAND_PER_MINUTE_MAX`].
const BY_HAND_LOCK: &str = "SELECT pg_advisory_xact_lock(hashtextextended('sluice alert by hand ' || $1, 0))";
/// Messages requested by hand: those that wait for their try, and those that were tried.
const BY_HAND: &str = "SELECT (SELECT count(*) FROM alert_message WHERE scope = $1 AND by_hand IS NOT NULL) \
    + (SELECT count(*) FROM alert_delivery AS d JOIN alert_message AS m USING (message_id) \
        WHERE m.scope = $1 AND d.by_hand IS NOT NULL AND d.started_at > now() - interval '1 minute')";

/// The columns of [`Message`].
macro_rules! columns {
    () => {
        "message_id, alert_id, kind, scope, channel_id, channel_kind, alert_type, alert_level, state, attempts, \
         created_at, next_try_at, give_up_at, ended_at, held_by, digest_id, by_hand"
    };
}

const SELECT: &str = concat!("SELECT ", columns!(), " FROM alert_message WHERE true");
const DELIVERIES: &str = "SELECT delivery_id, message_id, attempt, started_at, took_ms, outcome, status, response, error, \
    next_try_at, by_hand FROM alert_delivery WHERE message_id = ANY ($1) ORDER BY started_at DESC, delivery_id DESC LIMIT $2";
const TEST: &str = concat!(
    "INSERT INTO alert_message (message_id, kind, scope, channel_id, channel_kind, alert_type, alert_level, body, state, \
     give_up_at, by_hand) VALUES ($1, 'test', $2, $3, $4, 'test', 'warning', $5::jsonb, 'pending', \
     now() + make_interval(secs => $6), $7) RETURNING ",
    columns!()
);
/// A sent message goes to all recipients again, one that was given up to those that did not take it.
const REDELIVER: &str = concat!(
    "UPDATE alert_message SET state = 'pending', next_try_at = now(), give_up_at = now() + make_interval(secs => $2), \
     told = CASE state WHEN 'sent' THEN '{}' ELSE told END, attempts_before = attempts, ended_at = NULL, held_by = NULL, \
     digest_id = NULL, by_hand = $3 WHERE message_id = $1 AND state IN ('sent', 'dead') RETURNING ",
    columns!()
);

/// How far a message has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema, EnumString, IntoStaticStr)]
#[strum(const_into_str, serialize_all = "lowercase")]
#[serde(rename_all = "lowercase")]
#[schema(as = AlertMessageState)]
pub enum State {
    /// It is to be sent.
    Pending,
    /// It waits for a digest.
    Held,
    /// Its receiver has it.
    Sent,
    /// Its time was over, or its receiver wants no more.
    Dead,
}

impl TryFrom<String> for State {
    type Error = UnknownWord;

    fn try_from(text: String) -> Result<Self, UnknownWord> {
        text.parse().map_err(|_| UnknownWord(text))
    }
}

/// What one channel is to be sent.
#[derive(Clone, Debug, Serialize, ToSchema, sqlx::FromRow)]
#[schema(as = AlertMessage)]
pub struct Message {
    /// A webhook's `webhook-id`.
    pub message_id: Uuid,
    /// Absent for digests and tests.
    pub alert_id: Option<Uuid>,
    /// `raised`, `resolved`, `digest` or `test`.
    pub kind: String,
    /// Whose settings name the channel: `operators`, or `merchant:` and the id.
    pub scope: String,
    pub channel_id: String,
    pub channel_kind: String,
    pub alert_type: String,
    pub alert_level: String,
    #[sqlx(try_from = "String")]
    pub state: State,
    /// How often it was tried.
    pub attempts: i32,
    pub created_at: DateTime<Utc>,
    /// When it is tried next; of one that is held, when its digest is due.
    pub next_try_at: DateTime<Utc>,
    /// When it is tried no more.
    pub give_up_at: DateTime<Utc>,
    /// When it was sent, or given up.
    pub ended_at: Option<DateTime<Utc>>,
    /// What held it back: `limit`, or `route` for a route whose delivery is a digest.
    pub held_by: Option<String>,
    /// The digest that it was summed up in.
    pub digest_id: Option<Uuid>,
    /// Who asked for the next try.
    pub by_hand: Option<String>,
}

/// One try to deliver a message.
#[derive(Clone, Debug, Serialize, ToSchema, sqlx::FromRow)]
#[schema(as = AlertDelivery)]
pub struct Delivery {
    pub delivery_id: Uuid,
    pub message_id: Uuid,
    /// The number of the try, from 1.
    pub attempt: i32,
    pub started_at: DateTime<Utc>,
    pub took_ms: i64,
    /// `sent` or `failed`.
    pub outcome: String,
    /// What was answered: of HTTP, or of SMTP.
    pub status: Option<i32>,
    /// The beginning of the answer.
    pub response: Option<String>,
    /// Why there was no answer, or why it does not count.
    pub error: Option<String>,
    pub next_try_at: Option<DateTime<Utc>>,
    /// Who asked for this try.
    pub by_hand: Option<String>,
}

/// A message and the tries to deliver it.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = AlertMessageDetail)]
pub struct Detail {
    #[serde(flatten)]
    pub message: Message,
    /// The latest first; 1000 at most of all messages of an answer.
    pub deliveries: Vec<Delivery>,
}

/// Which messages; `None` matches all.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    pub scope: Option<Scope>,
    pub state: Option<State>,
    pub channel_id: Option<String>,
    pub alert_id: Option<Uuid>,
    pub message_id: Option<Uuid>,
}

/// At most `limit` messages, the newest first, from a cursor on.
///
/// # Errors
/// Those of Postgres.
pub async fn list(
    executor: impl PgExecutor<'_>,
    filter: &Filter,
    after: Option<(DateTime<Utc>, Uuid)>,
    limit: i64,
) -> Result<Vec<Message>, sqlx::Error> {
    let mut sql = QueryBuilder::new(SELECT);
    if let Some(scope) = &filter.scope {
        sql.push(" AND scope = ").push_bind(scope.text());
    }
    if let Some(state) = filter.state {
        // Part of the statement, not a bound value: only then is the index of dead messages used.
        sql.push(" AND state = '").push(state.into_str()).push("'");
    }
    if let Some(channel) = &filter.channel_id {
        sql.push(" AND channel_id = ").push_bind(channel);
    }
    if let Some(alert) = filter.alert_id {
        sql.push(" AND alert_id = ").push_bind(alert);
    }
    if let Some(message) = filter.message_id {
        sql.push(" AND message_id = ").push_bind(message);
    }
    if let Some((at, id)) = after {
        sql.push(" AND (created_at, message_id) < (").push_bind(at).push(", ").push_bind(id).push(")");
    }
    sql.push(" ORDER BY created_at DESC, message_id DESC LIMIT ").push_bind(limit);
    sql.build_query_as().fetch_all(executor).await
}

/// At most `limit` messages with the tries to deliver them, the newest first, all as they were at one moment.
///
/// # Errors
/// Those of Postgres.
pub async fn details(pool: &PgPool, filter: &Filter, limit: i64) -> Result<Vec<Detail>, sqlx::Error> {
    let mut transaction = pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    let messages = list(&mut *transaction, filter, None, limit).await?;
    let ids: Vec<Uuid> = messages.iter().map(|message| message.message_id).collect();
    let query = sqlx::query_as(DELIVERIES).bind(ids).bind(DELIVERIES_MAX);
    let deliveries: Vec<Delivery> = query.fetch_all(&mut *transaction).await?;
    transaction.commit().await?;
    let of = |message: Message| {
        let own = deliveries.iter().filter(|delivery| delivery.message_id == message.message_id);
        Detail { deliveries: own.cloned().collect(), message }
    };
    Ok(messages.into_iter().map(of).collect())
}

/// Why a message is not sent.
#[derive(Debug, Error)]
pub enum SendError {
    #[error("there is no such message")]
    NotFound,
    #[error("the message is {} and will be sent in turn", .0.into_str())]
    Waiting(State),
    #[error("{BY_HAND_PER_MINUTE_MAX} messages of these settings were sent by hand in a minute")]
    TooMany,
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

/// A test message to create, and who requests it.
#[derive(Clone, Copy, Debug)]
pub struct Test<'a> {
    pub id: Uuid,
    pub scope: &'a Scope,
    pub channel: &'a Channel,
    /// The payload, as JSON.
    pub body: &'a str,
    pub actor: &'a str,
    /// How long it is tried.
    pub give_up_secs: u64,
}

/// Creates a test message; the notifier sends it at once.
///
/// # Errors
/// [`SendError::TooMany`].
pub async fn test(pool: &PgPool, test: Test<'_>) -> Result<Message, SendError> {
    let scope = test.scope.text();
    let mut transaction = pool.begin().await?;
    if is_too_much(&mut transaction, &scope).await? {
        return Err(SendError::TooMany);
    }
    let message = sqlx::query_as(TEST)
        .bind(test.id)
        .bind(&scope)
        .bind(test.channel.id())
        .bind(test.channel.kind())
        .bind(test.body)
        .bind(secs(test.give_up_secs))
        .bind(test.actor)
        .fetch_one(&mut *transaction)
        .await?;
    sqlx::query(NOTIFY).bind("").execute(&mut *transaction).await?;
    transaction.commit().await?;
    Ok(message)
}

/// Whether the scope has reached its limit of messages by hand; valid until the transaction ends.
async fn is_too_much(connection: &mut PgConnection, scope: &str) -> Result<bool, sqlx::Error> {
    sqlx::query(BY_HAND_LOCK).bind(scope).execute(&mut *connection).await?;
    let requested: i64 = sqlx::query_scalar(BY_HAND).bind(scope).fetch_one(connection).await?;
    Ok(requested >= BY_HAND_PER_MINUTE_MAX)
}

/// Sends a message again that was sent or given up, under the same id.
///
/// # Errors
/// [`SendError::Waiting`] where it is to be sent anyway, [`SendError::TooMany`].
pub async fn redeliver(pool: &PgPool, message: &Message, actor: &str, give_up_secs: u64) -> Result<Message, SendError> {
    let id = message.message_id;
    let mut transaction = pool.begin().await?;
    let too_much = is_too_much(&mut transaction, &message.scope).await?;
    let query = sqlx::query_as(REDELIVER).bind(id).bind(secs(give_up_secs)).bind(actor);
    let Some(message) = query.fetch_optional(&mut *transaction).await? else {
        let present = list(pool, &Filter { message_id: Some(id), ..Filter::default() }, None, 1).await?;
        return Err(present.first().map_or(SendError::NotFound, |message| SendError::Waiting(message.state)));
    };
    if too_much {
        return Err(SendError::TooMany);
    }
    sqlx::query(NOTIFY).bind("").execute(&mut *transaction).await?;
    transaction.commit().await?;
    Ok(message)
}

/// Seconds as `make_interval` takes them.
fn secs(secs: u64) -> f64 {
    f64::from(u32::try_from(secs).unwrap_or(u32::MAX))
}
