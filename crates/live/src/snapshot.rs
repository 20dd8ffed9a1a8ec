//! Which transactions had ended at a moment, in Postgres's text form: `xmin:xmax:xip,xip`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Most transactions in progress that a snapshot names.
const UNDER_WAY_MAX: usize = 256;

/// Transactions below `xmin` had ended, those from `xmax` on had not begun, and between them those listed were in progress.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Snapshot {
    xmin: i64,
    xmax: i64,
    under_way: Vec<i64>,
}

impl Snapshot {
    /// The first transaction that may be new after it.
    #[must_use]
    pub const fn xmin(&self) -> i64 {
        self.xmin
    }

    /// From here on every transaction is.
    #[must_use]
    pub const fn xmax(&self) -> i64 {
        self.xmax
    }

    /// Transactions that had begun and not ended, rising.
    #[must_use]
    pub fn under_way(&self) -> &[i64] {
        &self.under_way
    }

    /// Whether the transaction had ended.
    #[must_use]
    pub fn sees(&self, txid: i64) -> bool {
        txid < self.xmax && self.under_way.binary_search(&txid).is_err()
    }
}

impl FromStr for Snapshot {
    type Err = &'static str;

    /// Accepts what Postgres's own parser accepts, and nothing else. One that names very many transactions is read as an older one,
    /// in which the last of them had not begun: their rows come later.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const NO_SNAPSHOT: &str = "is no snapshot";
        let mut parts = text.split(':');
        let (Some(xmin), Some(xmax), Some(list), None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(NO_SNAPSHOT);
        };
        let (xmin, xmax) = (number(xmin).ok_or(NO_SNAPSHOT)?, number(xmax).ok_or(NO_SNAPSHOT)?);
        let under_way: Option<Vec<i64>> =
            if list.is_empty() { Some(Vec::new()) } else { list.split(',').map(number).collect() };
        let mut under_way = under_way.ok_or(NO_SNAPSHOT)?;
        let rises = under_way.windows(2).all(|pair| matches!(pair, [before, after] if before < after));
        let fits = under_way.iter().all(|txid| (xmin..xmax).contains(txid));
        if xmin < 1 || xmax < xmin || !rises || !fits {
            return Err(NO_SNAPSHOT);
        }
        let xmax = under_way.get(UNDER_WAY_MAX).copied().unwrap_or(xmax);
        under_way.truncate(UNDER_WAY_MAX);
        Ok(Self { xmin, xmax, under_way })
    }
}

/// Digits alone: `parse` would accept a sign.
fn number(text: &str) -> Option<i64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:", self.xmin, self.xmax)?;
        for (place, txid) in self.under_way.iter().enumerate() {
            let comma = if place == 0 { "" } else { "," };
            write!(f, "{comma}{txid}")?;
        }
        Ok(())
    }
}

impl TryFrom<String> for Snapshot {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Snapshot> for String {
    fn from(snapshot: Snapshot) -> Self {
        snapshot.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_over_is_seen() {
        let snapshot: Snapshot = "795:799:795,797".parse().unwrap();
        let seen = |txid: &i64| snapshot.sees(*txid);
        assert_eq!((793..802).filter(seen).collect::<Vec<_>>(), [793, 794, 796, 798]);
    }

    #[test]
    fn one_of_very_many_transactions_sees_less() {
        let list: Vec<String> = (1000..1400).map(|txid| txid.to_string()).collect();
        let snapshot: Snapshot = format!("1000:1402:{}", list.join(",")).parse().unwrap();
        assert_eq!((snapshot.xmin(), snapshot.xmax(), snapshot.under_way().len()), (1000, 1256, UNDER_WAY_MAX));
        assert!(snapshot.sees(999) && (1000..1500).all(|txid| !snapshot.sees(txid)));
    }

    #[test]
    fn snapshots_are_read_back_and_anything_else_is_refused() {
        for text in ["1:1:", "795:799:797", "795:799:795,798", "10:9223372036854775807:10"] {
            assert_eq!(text.parse::<Snapshot>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "1:1",
            "1:1::",
            "0:1:",
            "2:1:",
            "1:3:3",
            "2:3:1",
            "1:9:3,2",
            "1:9:3,3",
            "1:9:3,",
            "+1:2:",
            "-1:2:",
            "a:2:",
            ":2:",
            "1:9223372036854775808:",
        ] {
            assert!(text.parse::<Snapshot>().is_err(), "{text}");
        }
    }
}
