//! Redis's replies about streams, read into entries (RESP2 shapes). Pure.

use std::fmt;
use std::str::FromStr;

use redis::Value;

/// An entry's id, in the order of entries. The server's own have no first part: `0-<sequence number>`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct StreamId {
    pub first: u64,
    pub second: u64,
}

impl StreamId {
    /// The id of a shard's event by its number.
    #[must_use]
    pub const fn of(sequence: u64) -> Self {
        Self { first: 0, second: sequence }
    }

    /// The event's number; `None` for an id that is not the server's.
    #[must_use]
    pub const fn sequence(self) -> Option<u64> {
        if self.first == 0 { Some(self.second) } else { None }
    }

    /// The smallest id that is larger.
    #[must_use]
    pub const fn next(self) -> Self {
        match self.second.checked_add(1) {
            Some(second) => Self { first: self.first, second },
            None => Self { first: self.first.saturating_add(1), second: 0 },
        }
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.second)
    }
}

impl FromStr for StreamId {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let parts = text.split_once('-').and_then(|(first, second)| Some((first.parse().ok()?, second.parse().ok()?)));
        parts.map(|(first, second)| Self { first, second }).ok_or(Malformed("entry id"))
    }
}

/// One entry of a shard's stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub shard: u16,
    pub id: StreamId,
    /// Names and values in turn.
    pub fields: Vec<Vec<u8>>,
}

/// The position of a shard's stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    pub shard: u16,
    /// Every sequence number up to this one was removed from the stream: it must be in Postgres.
    pub removed: u64,
    /// The last number that the stream assigned.
    pub generated: u64,
}

/// A reply of another shape than the command has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed(pub(super) &'static str);

/// `XREAD`: nil, or `[[key, entries]…]`; `shard_of` finds a key's shard.
pub(super) fn streams(reply: Value, shard_of: impl Fn(&[u8]) -> Option<u16>) -> Result<Vec<Entry>, Malformed> {
    let mut found = Vec::new();
    for stream in list(reply, "streams")? {
        let [key, rows] = fixed(stream, "stream")?;
        let shard = shard_of(&bytes(key, "stream key")?).ok_or(Malformed("a stream that was not requested"))?;
        for row in list(rows, "entries")? {
            found.push(entry(shard, row)?);
        }
    }
    Ok(found)
}

/// `XINFO STREAM`: the stream's position; `None` where an id is not the server's.
pub(super) fn position(shard: u16, reply: Value) -> Result<Option<Position>, Malformed> {
    let info = list(reply, "stream info")?;
    let field = |name| member(&info, name).cloned().unwrap_or_default();
    let Some(generated) = id(field("last-generated-id"))?.sequence() else { return Ok(None) };
    let removed = match field("first-entry") {
        Value::Nil => Some(generated),
        first => entry(shard, first)?.id.sequence().map(|first| first.saturating_sub(1)),
    };
    Ok(removed.map(|removed| Position { shard, removed, generated }))
}

fn entry(shard: u16, row: Value) -> Result<Entry, Malformed> {
    let [name, fields] = fixed(row, "entry")?;
    let fields = list(fields, "fields")?.into_iter().map(|value| bytes(value, "field"));
    Ok(Entry { shard, id: id(name)?, fields: fields.collect::<Result<_, _>>()? })
}

fn id(value: Value) -> Result<StreamId, Malformed> {
    let bytes = bytes(value, "entry id")?;
    str::from_utf8(&bytes).map_err(|_| Malformed("entry id"))?.parse()
}

fn member<'a>(flat: &'a [Value], name: &str) -> Option<&'a Value> {
    flat.chunks_exact(2).find_map(|pair| match pair {
        [Value::BulkString(key), value] if key == name.as_bytes() => Some(value),
        _ => None,
    })
}

fn list(value: Value, what: &'static str) -> Result<Vec<Value>, Malformed> {
    match value {
        Value::Nil => Ok(Vec::new()),
        Value::Array(values) => Ok(values),
        _ => Err(Malformed(what)),
    }
}

fn fixed<const N: usize>(value: Value, what: &'static str) -> Result<[Value; N], Malformed> {
    list(value, what)?.try_into().map_err(|_| Malformed(what))
}

fn bytes(value: Value, what: &'static str) -> Result<Vec<u8>, Malformed> {
    match value {
        Value::BulkString(bytes) => Ok(bytes),
        Value::SimpleString(text) => Ok(text.into_bytes()),
        _ => Err(Malformed(what)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.into())
    }

    fn array<const N: usize>(values: [Value; N]) -> Value {
        Value::Array(values.into())
    }

    #[test]
    fn replies_are_read_and_others_refused() {
        let one = array([bulk("0-7"), array([bulk("c"), Value::BulkString(vec![0, 255])])]);
        let reply = array([array([bulk("s3"), array([one])])]);
        let entries = streams(reply.clone(), |key| (key == b"s3").then_some(3)).unwrap();
        assert_eq!(entries, [Entry { shard: 3, id: StreamId::of(7), fields: vec![b"c".to_vec(), vec![0, 255]] }]);
        assert!(streams(reply, |_| None).is_err());
        assert_eq!(streams(Value::Nil, |_| None), Ok(Vec::new()));
        assert!(streams(Value::Okay, |_| None).is_err());
        assert!(streams(array([array([bulk("s3")])]), |_| Some(3)).is_err());
    }

    #[test]
    fn positions_are_read() {
        let info = |last, first| array([bulk("last-generated-id"), bulk(last), bulk("first-entry"), first]);
        let first = |id| array([bulk(id), array([])]);
        for (reply, expected) in [
            (info("0-11", Value::Nil), Some((11, 11))),
            (info("0-11", first("0-5")), Some((4, 11))),
            (info("0-0", Value::Nil), Some((0, 0))),
            (info("7-1", Value::Nil), None),
            (info("7-2", first("7-1")), None),
        ] {
            let position = position(2, reply.clone()).unwrap();
            assert_eq!(position.map(|position| (position.removed, position.generated)), expected, "{reply:?}");
        }
        assert!(position(2, info("x", Value::Nil)).is_err());
    }

    #[test]
    fn ids_are_read_ordered_and_written() {
        for text in ["0-1", "7-0", "18446744073709551615-18446744073709551615"] {
            assert_eq!(text.parse::<StreamId>().unwrap().to_string(), text);
        }
        for text in ["", "7", "-", "0-", "0-x", "0--1", "1-2-3"] {
            assert!(text.parse::<StreamId>().is_err(), "{text}");
        }
        assert!(StreamId::of(u64::MAX) < StreamId { first: 1, second: 0 });
        assert_eq!(StreamId::of(4).next(), StreamId::of(5));
        assert_eq!(StreamId::of(u64::MAX).next(), StreamId { first: 1, second: 0 });
        assert_eq!((StreamId::of(3).sequence(), StreamId { first: 7, second: 3 }.sequence()), (Some(3), None));
    }
}
