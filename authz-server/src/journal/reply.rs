//! Redis's replies about streams, read into entries (RESP2 shapes). Pure.

use redis::Value;

/// One entry of a shard's stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub shard: u16,
    /// The entry's id; `0-<seq>` for the server's own.
    pub id: String,
    /// Names and values in turn. `None` where the entry was deleted while it was pending.
    pub fields: Option<Vec<Vec<u8>>>,
}

/// Where a shard's stream and its consumer group stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    pub shard: u16,
    /// Every sequence number up to this one was delivered and acknowledged: it must be in Postgres.
    pub acknowledged: u64,
    /// The last number that the stream gave out.
    pub generated: u64,
}

/// A reply of another shape than the command has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Malformed(pub &'static str);

/// `XREADGROUP`: nil, or `[[key, entries]…]`; `shard_of` finds a key's shard.
pub(super) fn streams(reply: Value, shard_of: impl Fn(&[u8]) -> Option<u16>) -> Result<Vec<Entry>, Malformed> {
    let mut found = Vec::new();
    for stream in list(reply, "streams")? {
        let [key, rows] = fixed(stream, "stream")?;
        let shard = shard_of(&bytes(key, "stream key")?).ok_or(Malformed("a stream that was not asked for"))?;
        entries(shard, rows, &mut found)?;
    }
    Ok(found)
}

/// `XAUTOCLAIM`: `[cursor, entries, deleted ids]`; appends the entries and gives the cursor.
pub(super) fn claimed(shard: u16, reply: Value, found: &mut Vec<Entry>) -> Result<String, Malformed> {
    let mut parts = list(reply, "claim")?.into_iter();
    let cursor = text(parts.next().unwrap_or_default(), "claim cursor")?;
    entries(shard, parts.next().unwrap_or_default(), found)?;
    Ok(cursor)
}

/// `XINFO GROUPS`: the last id delivered to `group`; `None` where there is no such group.
pub(super) fn last_delivered(reply: Value, group: &str) -> Result<Option<u64>, Malformed> {
    for info in list(reply, "groups")? {
        let info = list(info, "group")?;
        if member(&info, "name") == Some(&Value::BulkString(group.into())) {
            let id = member(&info, "last-delivered-id").cloned().unwrap_or_default();
            return Ok(sequence(&text(id, "last delivered id")?));
        }
    }
    Ok(None)
}

/// `XPENDING` (summary): the smallest pending sequence number, where anything is pending.
pub(super) fn first_pending(reply: Value) -> Result<Option<u64>, Malformed> {
    match list(reply, "pending")?.into_iter().nth(1) {
        None | Some(Value::Nil) => Ok(None),
        Some(id) => Ok(sequence(&text(id, "pending id")?)),
    }
}

/// `XINFO STREAM`: the last sequence number that was given out; `None` where the last id is not the server's.
pub(super) fn last_generated(reply: Value) -> Result<Option<u64>, Malformed> {
    let info = list(reply, "stream info")?;
    let id = member(&info, "last-generated-id").cloned().unwrap_or_default();
    Ok(sequence(&text(id, "last generated id")?))
}

/// The sequence number of an id of the server's form, `0-<seq>`.
pub(super) fn sequence(id: &str) -> Option<u64> {
    id.strip_prefix("0-")?.parse().ok()
}

fn entries(shard: u16, rows: Value, found: &mut Vec<Entry>) -> Result<(), Malformed> {
    for row in list(rows, "entries")? {
        let [id, fields] = fixed(row, "entry")?;
        let id = text(id, "entry id")?;
        let fields = match fields {
            Value::Nil => None,
            fields => Some(list(fields, "fields")?.into_iter().map(|v| bytes(v, "field")).collect::<Result<_, _>>()?),
        };
        found.push(Entry { shard, id, fields });
    }
    Ok(())
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

fn text(value: Value, what: &'static str) -> Result<String, Malformed> {
    String::from_utf8(bytes(value, what)?).map_err(|_| Malformed(what))
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
        let live = array([bulk("0-7"), array([bulk("c"), Value::BulkString(vec![0, 255])])]);
        let deleted = array([bulk("0-8"), Value::Nil]);
        let reply = array([array([bulk("s3"), array([live, deleted])])]);
        let entries = streams(reply.clone(), |key| (key == b"s3").then_some(3)).unwrap();
        assert_eq!(
            entries,
            [
                Entry { shard: 3, id: "0-7".into(), fields: Some(vec![b"c".to_vec(), vec![0, 255]]) },
                Entry { shard: 3, id: "0-8".into(), fields: None },
            ]
        );
        assert!(streams(reply, |_| None).is_err());
        assert_eq!(streams(Value::Nil, |_| None), Ok(Vec::new()));
        assert!(streams(Value::Okay, |_| None).is_err());
        assert!(streams(array([array([bulk("s3")])]), |_| Some(3)).is_err());
    }

    #[test]
    fn positions_are_read() {
        let group = |name, id| array([bulk("name"), bulk(name), bulk("last-delivered-id"), bulk(id)]);
        let groups = array([group("other", "0-9"), group("journal", "0-5")]);
        assert_eq!(last_delivered(groups.clone(), "journal"), Ok(Some(5)));
        assert_eq!(last_delivered(groups, "absent"), Ok(None));
        let pending = array([Value::Int(2), bulk("0-3"), bulk("0-4"), array([])]);
        assert_eq!(first_pending(pending), Ok(Some(3)));
        assert_eq!(first_pending(array([Value::Int(0), Value::Nil, Value::Nil, Value::Nil])), Ok(None));
        assert_eq!(last_generated(array([bulk("last-generated-id"), bulk("0-11")])), Ok(Some(11)));
        assert_eq!(last_generated(array([bulk("last-generated-id"), bulk("7-1")])), Ok(None));
        assert_eq!(sequence("1-11"), None);
    }
}
