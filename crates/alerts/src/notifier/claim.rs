//! Claims the messages that are tried next. A claim counts the try and puts the next one off, so that no other server tries the
//! message; if the server dies during a try, the message is due again after that.

use std::collections::HashMap;

use tokio::task::{Id, JoinError};
use tracing::error;
use uuid::Uuid;

use super::{TRIES_PER_CHANNEL_MAX, TRIES_PER_MERCHANT_MAX, Tools};
use crate::Scope;

/// Due messages of one channel that are considered.
const LOOKED_AT_MAX: i64 = 1_000;
/// A claim's time beside the try itself: waits for a connection and for statements, before and after it.
const STATEMENTS_SECS: f64 = 15.0;

/// One message of each scope, so that none waits for another: the one of its channels that is due longest. Channels are visited by
/// the index, so a backlog of one costs the others nothing. The end of an alert is not sent before its beginning, nor before the
/// digest that has it; OFFSET keeps the planner from reading all messages that wait for that. A message that was claimed meanwhile
/// is left alone.
const CLAIM: &str = "WITH RECURSIVE channels AS (\
        (SELECT scope, channel_id FROM alert_message WHERE state = 'pending' ORDER BY scope, channel_id LIMIT 1) \
        UNION ALL SELECT next.scope, next.channel_id FROM channels AS last CROSS JOIN LATERAL (\
            SELECT scope, channel_id FROM alert_message \
            WHERE state = 'pending' AND (scope, channel_id) > (last.scope, last.channel_id) \
            ORDER BY scope, channel_id LIMIT 1) AS next), \
    due AS (SELECT DISTINCT ON (scope) own.id, own.next_try_at FROM channels CROSS JOIN LATERAL (\
            SELECT message_id AS id, next_try_at FROM (\
                SELECT message_id, next_try_at, kind, by_hand, alert_id FROM alert_message WHERE state = 'pending' \
                AND alert_message.scope = channels.scope AND alert_message.channel_id = channels.channel_id \
                AND next_try_at <= now() ORDER BY next_try_at, message_id LIMIT $4) AS own \
            WHERE NOT (kind = 'resolved' AND by_hand IS NULL AND EXISTS (SELECT 1 FROM alert_message AS first \
                WHERE first.alert_id = own.alert_id AND first.kind = 'raised' AND first.scope = channels.scope \
                AND first.channel_id = channels.channel_id \
                AND (first.state = 'pending' OR first.state = 'held' AND first.digest_id IS NOT NULL) OFFSET 0)) \
            ORDER BY next_try_at, message_id LIMIT 1) AS own \
        WHERE scope <> ALL($1) AND scope || ' ' || channel_id <> ALL($2) ORDER BY scope, own.next_try_at), \
    chosen AS (SELECT id FROM due ORDER BY next_try_at LIMIT $3) \
    UPDATE alert_message SET attempts = attempts + 1, next_try_at = now() + make_interval(secs => $5) \
    FROM chosen WHERE message_id = id AND state = 'pending' AND next_try_at <= now() \
    RETURNING message_id, kind, scope, channel_id, channel_kind, body::text, told AS delivered_to, attempts, \
        attempts - attempts_before AS round, by_hand, \
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
    /// Recipients that have it already.
    pub delivered_to: Vec<String>,
    /// The number of this try.
    pub attempts: i32,
    /// The same since the message was last redelivered by hand.
    pub round: i32,
    pub by_hand: Option<String>,
    /// The message of its alert's beginning is held back until then.
    pub behind: Option<chrono::DateTime<chrono::Utc>>,
}

/// Scope and id of a channel.
pub(super) type ChannelKey = (String, String);

/// The channels whose tries are under way, by the tasks that try.
#[derive(Debug, Default)]
pub(super) struct Busy(HashMap<Id, ChannelKey>);

impl Message {
    pub(super) fn channel(&self) -> ChannelKey {
        (self.scope.clone(), self.channel_id.clone())
    }
}

impl Busy {
    pub(super) fn add(&mut self, task: Id, channel: ChannelKey) {
        self.0.insert(task, channel);
    }

    pub(super) fn end(&mut self, ended: Result<(Id, ()), JoinError>) {
        let task = match ended {
            Ok((task, ())) => task,
            Err(error) => {
                error!(%error, "alert delivery task failed");
                error.id()
            }
        };
        self.0.remove(&task);
    }

    /// The scopes and the channels that have as many tries under way as they may.
    fn full(&self) -> (Vec<String>, Vec<String>) {
        let (mut scopes, mut channels) = (HashMap::<&str, usize>::new(), HashMap::<String, usize>::new());
        for (scope, channel) in self.0.values() {
            *scopes.entry(scope).or_default() += 1;
            *channels.entry(format!("{scope} {channel}")).or_default() += 1;
        }
        let is_full = |scope: &str, tries: usize| {
            tries >= TRIES_PER_MERCHANT_MAX && Scope::parse(scope) != Some(Scope::Operators)
        };
        let scopes = scopes.into_iter().filter(|(scope, tries)| is_full(scope, *tries));
        let channels = channels.into_iter().filter(|(_, tries)| *tries >= TRIES_PER_CHANNEL_MAX);
        (scopes.map(|(scope, _)| scope.to_owned()).collect(), channels.map(|(channel, _)| channel).collect())
    }
}

/// Claims due messages, `slots` at most and one of each scope.
pub(super) async fn due(tools: &Tools, busy: &Busy, slots: usize) -> Result<Vec<Message>, sqlx::Error> {
    let (scopes, channels) = busy.full();
    let timeout_secs = tools.live.current().alert_timeout().as_secs_f64();
    sqlx::query_as(CLAIM)
        .bind(scopes)
        .bind(channels)
        .bind(i64::try_from(slots).unwrap_or(i64::MAX))
        .bind(LOOKED_AT_MAX)
        .bind(timeout_secs * 2.0 + STATEMENTS_SECS)
        .fetch_all(&tools.pool)
        .await
}

#[cfg(test)]
mod tests {
    use tokio::task::JoinSet;

    use super::*;

    #[tokio::test]
    async fn a_try_that_breaks_off_frees_its_place() {
        let (mut tries, mut busy) = (JoinSet::new(), Busy::default());
        for _ in 0..TRIES_PER_CHANNEL_MAX {
            let task = tries.spawn(async { panic!("on purpose") });
            busy.add(task.id(), ("operators".to_owned(), "hook".to_owned()));
        }
        assert_eq!(busy.full(), (Vec::new(), vec!["operators hook".to_owned()]));
        while let Some(ended) = tries.join_next_with_id().await {
            busy.end(ended);
        }
        assert_eq!(busy.full(), (Vec::new(), Vec::new()));
    }

    #[tokio::test]
    async fn a_merchant_has_a_share_of_the_tries() {
        let (mut tries, mut busy) = (JoinSet::<()>::new(), Busy::default());
        for scope in ["operators", "merchant:M-1", "merchant:M-2"] {
            let share = TRIES_PER_MERCHANT_MAX - usize::from(scope == "merchant:M-2");
            for number in 0..share {
                let task = tries.spawn(std::future::pending());
                busy.add(task.id(), (scope.to_owned(), number.to_string()));
            }
        }
        assert_eq!(busy.full(), (vec!["merchant:M-1".to_owned()], Vec::new()));
    }
}
