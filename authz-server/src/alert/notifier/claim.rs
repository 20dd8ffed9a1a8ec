//! Which messages are tried next. Whoever takes one counts the try and puts its next one off, so that nobody takes it besides;
//! where the server dies during a try, the message is due again after that.

use std::collections::HashMap;

use tokio::task::JoinError;
use tracing::error;
use uuid::Uuid;

use super::{TRIES_PER_CHANNEL_MAX, Tools};

/// One of each channel, so that none waits for another. The end of an alert is not told before its beginning.
const CLAIM: &str = "WITH due AS (SELECT message_id, next_try_at, \
        row_number() OVER (PARTITION BY scope, channel_id ORDER BY next_try_at, message_id) AS place \
        FROM alert_message AS own WHERE state = 'pending' AND next_try_at <= now() \
        AND NOT (scope || ' ' || channel_id) = ANY($1) \
        AND NOT (kind = 'resolved' AND by_hand IS NULL AND EXISTS (SELECT 1 FROM alert_message AS first \
            WHERE first.alert_id = own.alert_id AND first.kind = 'raised' AND first.scope = own.scope \
            AND first.channel_id = own.channel_id AND first.state = 'pending'))), \
    chosen AS (SELECT message_id AS id FROM due WHERE place = 1 ORDER BY next_try_at LIMIT $2) \
    UPDATE alert_message SET attempts = attempts + 1, next_try_at = now() + make_interval(secs => $3) \
    FROM chosen WHERE message_id = id AND state = 'pending' \
    RETURNING message_id, kind, scope, channel_id, channel_kind, body::text, attempts, by_hand, \
        (SELECT first.next_try_at FROM alert_message AS first WHERE first.alert_id = alert_message.alert_id \
            AND first.kind = 'raised' AND alert_message.kind = 'resolved' AND first.scope = alert_message.scope \
            AND first.channel_id = alert_message.channel_id AND first.state = 'held' AND first.digest_id IS NULL) \
            AS behind";

/// A message that is tried now.
#[derive(Clone, Debug, sqlx::FromRow)]
pub(super) struct Message {
    pub message_id: Uuid,
    pub kind: String,
    pub scope: String,
    pub channel_id: String,
    pub channel_kind: String,
    pub body: String,
    /// The number of this try.
    pub attempts: i32,
    pub by_hand: Option<String>,
    /// Its alert's beginning is held back until then.
    pub behind: Option<chrono::DateTime<chrono::Utc>>,
}

/// A channel of somebody's.
pub(super) type Place = (String, String);

/// How many tries of each channel are under way.
#[derive(Debug, Default)]
pub(super) struct Busy(HashMap<Place, usize>);

impl Message {
    pub(super) fn place(&self) -> Place {
        (self.scope.clone(), self.channel_id.clone())
    }
}

impl Busy {
    pub(super) fn add(&mut self, place: &Place) {
        *self.0.entry(place.clone()).or_default() += 1;
    }

    pub(super) fn end(&mut self, ended: Result<Place, JoinError>) {
        match ended {
            Ok(place) => {
                let left = self.0.remove(&place).unwrap_or_default().saturating_sub(1);
                if left > 0 {
                    self.0.insert(place, left);
                }
            }
            // Its channel keeps one place less until the next turn.
            Err(error) => error!(%error, "a try to tell of an alert broke off"),
        }
    }

    fn full(&self) -> Vec<String> {
        let full = self.0.iter().filter(|(_, count)| **count >= TRIES_PER_CHANNEL_MAX);
        full.map(|((scope, channel), _)| format!("{scope} {channel}")).collect()
    }
}

/// Takes what is due, `places` at most and one of each channel.
pub(super) async fn due(tools: &Tools, busy: &Busy, places: usize) -> Result<Vec<Message>, sqlx::Error> {
    // Longer than a try takes with all that it asks for besides.
    let away_secs = tools.live.current().alert_timeout().as_secs_f64() * 2.0;
    sqlx::query_as(CLAIM)
        .bind(busy.full())
        .bind(i64::try_from(places).unwrap_or(i64::MAX))
        .bind(away_secs)
        .fetch_all(&tools.pool)
        .await
}
