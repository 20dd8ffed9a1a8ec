//! Where a stream stands: every server reads it, none keeps it.
//!
//! Rows of the usage log become visible when their transaction ends, in batches, from whichever server's journal reads; neither
//! their times nor their numbers rise with it. So a place is a snapshot of Postgres: what was visible in it has been told. What
//! became visible between it and a later one is told in a fixed order, and a place within is the last row told.
//!
//! A place names the database, because another one counts its transactions anew, and one that was restored or taken over by its
//! replica may give numbers again. And it names what the stream tells of: another stream has not told the same on the way.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use uuid::Uuid;

use super::Snapshot;

/// Longest text of a place, in bytes: a snapshot names each transaction that was under way.
const LEN_MAX: usize = 16 * 1024;
/// How long a place can be gone on from: 30 days in seconds. Rows are looked for among those of somewhat longer ago.
pub(super) const AGE_MAX_SECS: i64 = 30 * 86_400;
/// Of two servers' clocks, in seconds.
const CLOCKS_DIFFER_MAX_SECS: i64 = 300;

/// Why a text is no place to go on from. Each says what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PlaceError {
    #[error("is no id of this stream; give back the last id as it came, or leave it out to begin with what comes next")]
    Unreadable,
    #[error("is older than 30 days; read the usage log and the alerts from then on, and begin without an id")]
    TooOld,
    #[error("is of another database; read the usage log and the alerts, and begin without an id")]
    OtherDatabase,
}

/// A place in the stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Whose transactions are counted: the cluster's identifier and its timeline.
    pub(super) database: String,
    /// What the stream tells of ([`super::Filter::mark`]).
    pub(super) filter: u64,
    /// What was visible in it has been told.
    pub(super) told: Snapshot,
    /// When that was taken, in seconds since the epoch.
    pub(super) taken_secs: i64,
    /// On the way to a later one.
    pub(super) way: Option<Way>,
}

/// What lies between two snapshots, and how much of it is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Way {
    pub to: Snapshot,
    pub taken_secs: i64,
    pub after: After,
}

/// The last row that was told: first come the alerts, then the decisions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum After {
    #[serde(rename = "a")]
    Alert(AlertKey),
    #[serde(rename = "d")]
    Decision(DecisionKey),
}

/// Orders changes of alerts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct AlertKey(pub i64, pub i64);

/// Orders decisions: transaction, shard, number, id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct DecisionKey(pub i64, pub i32, pub i64, pub Uuid);

impl AlertKey {
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

impl Place {
    /// The text that the client gives back as `Last-Event-ID`.
    #[must_use]
    pub fn encode(&self) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(serde_json::to_vec(&Text(1, self.clone())).unwrap_or_default())
    }

    /// Reads it back.
    ///
    /// # Errors
    /// [`PlaceError`] for what is none, or too old.
    pub fn decode(text: &str, now_ms: i64) -> Result<Self, PlaceError> {
        let bytes = if text.len() > LEN_MAX { None } else { BASE64_URL_SAFE_NO_PAD.decode(text).ok() };
        let read = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let now_secs = now_ms.div_euclid(1000);
        let Some(Text(1, place)) = read.filter(|Text(_, place)| place.is_possible(now_secs)) else {
            return Err(PlaceError::Unreadable);
        };
        let age_secs = now_secs.saturating_sub(place.taken_secs);
        if age_secs > AGE_MAX_SECS { Err(PlaceError::TooOld) } else { Ok(place) }
    }

    /// A way leads forward, and not into the future.
    fn is_possible(&self, now_secs: i64) -> bool {
        let leads_on = |way: &Way| {
            let is_later = self.told.xmin() <= way.to.xmin() && self.told.xmax() <= way.to.xmax();
            is_later && self.taken_secs <= way.taken_secs
        };
        let last_secs = self.way.as_ref().map_or(self.taken_secs, |way| way.taken_secs);
        self.way.as_ref().is_none_or(leads_on) && last_secs <= now_secs.saturating_add(CLOCKS_DIFFER_MAX_SECS)
    }

    /// The last transaction that it knows of, and one more.
    pub(super) fn xmax(&self) -> i64 {
        self.way.as_ref().map_or(self.told.xmax(), |way| way.to.xmax())
    }
}

/// With the number of its form.
#[derive(Serialize, Deserialize)]
struct Text(u8, Place);

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: i64 = 1_795_139_200_000;

    fn place(told: &str, way: Option<(&str, After)>) -> Place {
        let way = way.map(|(to, after)| Way { to: to.parse().unwrap(), taken_secs: NOW_MS / 1000, after });
        let database = "7710736753319067267/00000001".to_owned();
        Place { database, filter: u64::MAX, told: told.parse().unwrap(), taken_secs: NOW_MS / 1000, way }
    }

    #[test]
    fn places_are_read_back() {
        let decision = After::Decision(DecisionKey(800, 7, 12, Uuid::from_u128(5)));
        for place in [
            place("795:799:797", None),
            place("795:799:797", Some(("800:801:", After::Alert(AlertKey(797, 3))))),
            place("795:799:797", Some(("799:803:799,801", decision))),
        ] {
            let text = place.encode();
            assert_eq!(Place::decode(&text, NOW_MS), Ok(place.clone()));
            assert!(text.len() < 384, "{text}");
            assert_eq!(Place::decode(&text, NOW_MS + AGE_MAX_SECS * 1000), Ok(place.clone()));
            assert_eq!(Place::decode(&text, NOW_MS + (AGE_MAX_SECS + 1) * 1000), Err(PlaceError::TooOld));
            assert_eq!(Place::decode(&text, NOW_MS - 301_000), Err(PlaceError::Unreadable));
        }
    }

    #[test]
    fn the_longest_place_is_read_back() {
        let (low, high) = (i64::MAX - 2000, i64::MAX);
        let list: Vec<String> = (low..low + 1000).map(|txid| txid.to_string()).collect();
        let snapshot = format!("{low}:{high}:{}", list.join(","));
        let place = place(&snapshot, Some((&snapshot, After::Decision(DecisionKey(high, 7, high, Uuid::max())))));
        let text = place.encode();
        assert_eq!(Place::decode(&text, NOW_MS), Ok(place), "{} bytes", text.len());
    }

    #[test]
    fn anything_else_is_refused() {
        let good = place("795:799:797", None).encode();
        let back = place("795:799:797", Some(("700:701:", After::Alert(AlertKey::before(0))))).encode();
        let later_form = BASE64_URL_SAFE_NO_PAD.encode(serde_json::to_vec(&Text(2, place("1:1:", None))).unwrap());
        for text in
            ["", "7", "!", "bnVsbA", &good[1..], &format!("{good}="), &"A".repeat(LEN_MAX + 1), &back, &later_form]
        {
            assert_eq!(Place::decode(text, NOW_MS), Err(PlaceError::Unreadable), "{text}");
        }
    }
}
