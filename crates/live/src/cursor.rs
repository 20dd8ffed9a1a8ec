//! The position of a stream: every server reads it, none stores it.
//!
//! Rows of the usage log become visible when their transaction ends, in batches, from whichever server's journal reads; neither
//! their times nor their numbers rise with it. So a cursor is a snapshot of Postgres: what was visible in it has been sent. What
//! became visible between it and a later one is sent in a fixed order, and a cursor within is the last row sent.
//!
//! A cursor names the database, because another one counts its transactions anew, and one that was restored or taken over by its
//! replica may reuse numbers. And it names the stream's filter: a stream with another filter has not sent the same rows.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use uuid::Uuid;

use super::Snapshot;

/// Longest text of a cursor, in bytes: a snapshot names each transaction that was in progress.
const LEN_MAX: usize = 16 * 1024;
/// How long a cursor can be resumed from: 30 days in seconds. Rows of somewhat longer ago are read.
pub(super) const AGE_MAX_SECS: i64 = 30 * 86_400;
/// Largest difference of two servers' clocks, in seconds.
const CLOCKS_DIFFER_MAX_SECS: i64 = 300;

/// Why a text is no cursor to resume from. Each says what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CursorError {
    #[error("is no id of this stream; give back the last id as it came, or leave it out to begin with what comes next")]
    Unreadable,
    #[error("is older than 30 days; read the usage log and the alerts from then on, and begin without an id")]
    TooOld,
    #[error("is of another database; read the usage log and the alerts, and begin without an id")]
    OtherDatabase,
}

/// A position in the stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// Whose transactions are counted: the cluster's identifier and its timeline.
    pub(super) database: String,
    /// The stream's filter ([`super::Filter::mark`]).
    pub(super) filter: u64,
    /// What was visible in it has been sent.
    #[serde(rename = "told")]
    pub(super) sent: Snapshot,
    /// When the snapshot was taken, in seconds since the epoch.
    pub(super) taken_secs: i64,
    /// Between this snapshot and a later one.
    #[serde(rename = "way")]
    pub(super) catch_up: Option<CatchUp>,
}

/// The rows between two snapshots, and how many of them are sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct CatchUp {
    pub to: Snapshot,
    pub taken_secs: i64,
    pub after: After,
}

/// The last row that was sent: first come the alerts, then changes of credit lines, then the decisions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum After {
    #[serde(rename = "a")]
    Alert(ChangeKey),
    #[serde(rename = "c")]
    CreditLine(ChangeKey),
    #[serde(rename = "d")]
    Decision(DecisionKey),
}

/// Orders changes of alerts, and those of credit lines: transaction, number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ChangeKey(pub i64, pub i64);

/// Orders decisions: transaction, shard, number, id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct DecisionKey(pub i64, pub i32, pub i64, pub Uuid);

impl ChangeKey {
    /// Before all of the transaction and of later ones.
    pub(super) const fn before(txid: i64) -> Self {
        Self(txid, 0)
    }
}

impl DecisionKey {
    /// Before all of the transaction and of later ones.
    pub(super) const fn before(txid: i64) -> Self {
        Self(txid, -1, 0, Uuid::nil())
    }
}

impl Cursor {
    /// The text that the client sends back as `Last-Event-ID`.
    #[must_use]
    pub fn encode(&self) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(serde_json::to_vec(&Text(1, self.clone())).unwrap_or_default())
    }

    /// Reads it back.
    ///
    /// # Errors
    /// [`CursorError`] for an invalid text, or one that is too old.
    pub fn decode(text: &str, now_ms: i64) -> Result<Self, CursorError> {
        let bytes = if text.len() > LEN_MAX { None } else { BASE64_URL_SAFE_NO_PAD.decode(text).ok() };
        let read = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let now_secs = now_ms.div_euclid(1000);
        let Some(Text(1, cursor)) = read.filter(|Text(_, cursor)| cursor.is_possible(now_secs)) else {
            return Err(CursorError::Unreadable);
        };
        let age_secs = now_secs.saturating_sub(cursor.taken_secs);
        if age_secs > AGE_MAX_SECS { Err(CursorError::TooOld) } else { Ok(cursor) }
    }

    /// A catch-up leads forward, and not into the future.
    fn is_possible(&self, now_secs: i64) -> bool {
        let leads_on = |catch_up: &CatchUp| {
            let is_later = self.sent.xmin() <= catch_up.to.xmin() && self.sent.xmax() <= catch_up.to.xmax();
            is_later && self.taken_secs <= catch_up.taken_secs
        };
        let last_secs = self.catch_up.as_ref().map_or(self.taken_secs, |catch_up| catch_up.taken_secs);
        self.catch_up.as_ref().is_none_or(leads_on) && last_secs <= now_secs.saturating_add(CLOCKS_DIFFER_MAX_SECS)
    }

    /// The last transaction that it knows of, and one more.
    pub(super) fn xmax(&self) -> i64 {
        self.catch_up.as_ref().map_or(self.sent.xmax(), |catch_up| catch_up.to.xmax())
    }
}

/// With the version of its form.
#[derive(Serialize, Deserialize)]
struct Text(u8, Cursor);

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: i64 = 1_795_139_200_000;

    fn cursor(sent: &str, catch_up: Option<(&str, After)>) -> Cursor {
        let catch_up =
            catch_up.map(|(to, after)| CatchUp { to: to.parse().unwrap(), taken_secs: NOW_MS / 1000, after });
        let database = "7710736753319067267/00000001".to_owned();
        Cursor { database, filter: u64::MAX, sent: sent.parse().unwrap(), taken_secs: NOW_MS / 1000, catch_up }
    }

    #[test]
    fn places_are_read_back() {
        let decision = After::Decision(DecisionKey(800, 7, 12, Uuid::from_u128(5)));
        for cursor in [
            cursor("795:799:797", None),
            cursor("795:799:797", Some(("800:801:", After::Alert(ChangeKey(797, 3))))),
            cursor("795:799:797", Some(("800:801:", After::CreditLine(ChangeKey(797, 3))))),
            cursor("795:799:797", Some(("799:803:799,801", decision))),
        ] {
            let text = cursor.encode();
            assert_eq!(Cursor::decode(&text, NOW_MS), Ok(cursor.clone()));
            assert!(text.len() < 384, "{text}");
            assert_eq!(Cursor::decode(&text, NOW_MS + AGE_MAX_SECS * 1000), Ok(cursor.clone()));
            assert_eq!(Cursor::decode(&text, NOW_MS + (AGE_MAX_SECS + 1) * 1000), Err(CursorError::TooOld));
            assert_eq!(Cursor::decode(&text, NOW_MS - 301_000), Err(CursorError::Unreadable));
        }
    }

    #[test]
    fn the_longest_place_is_read_back() {
        let (low, high) = (i64::MAX - 2000, i64::MAX);
        let list: Vec<String> = (low..low + 1000).map(|txid| txid.to_string()).collect();
        let snapshot = format!("{low}:{high}:{}", list.join(","));
        let cursor = cursor(&snapshot, Some((&snapshot, After::Decision(DecisionKey(high, 7, high, Uuid::max())))));
        let text = cursor.encode();
        assert_eq!(Cursor::decode(&text, NOW_MS), Ok(cursor), "{} bytes", text.len());
    }

    #[test]
    fn anything_else_is_refused() {
        let good = cursor("795:799:797", None).encode();
        let back = cursor("795:799:797", Some(("700:701:", After::Alert(ChangeKey::before(0))))).encode();
        let later_form = BASE64_URL_SAFE_NO_PAD.encode(serde_json::to_vec(&Text(2, cursor("1:1:", None))).unwrap());
        for text in
            ["", "7", "!", "bnVsbA", &good[1..], &format!("{good}="), &"A".repeat(LEN_MAX + 1), &back, &later_form]
        {
            assert_eq!(Cursor::decode(text, NOW_MS), Err(CursorError::Unreadable), "{text}");
        }
    }
}
