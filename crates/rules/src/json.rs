//! Reads chosen scalars out of a JSON body in one pass: no tree, no copy of the body, numbers as their text.
//!
//! Everything that another JSON reader could read differently on the path to a wanted value is refused: a repeated key, a
//! key that folds onto a wanted one ([`Name`]), a second document. So is a member that must be absent.

mod scan;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::name::{Firsts, Name};

/// The pointers that a rule reads, as a tree. Each distinct pointer is a leaf with a slot.
#[derive(Clone, Debug, Default)]
pub(super) struct Wanted {
    root: Node,
    pointers: Vec<String>,
}

#[derive(Clone, Debug, Default)]
struct Node {
    children: Vec<Child>,
    /// How the names of the children begin.
    firsts: Firsts,
    leaf: Option<Leaf>,
}

/// How a value is treated.
#[derive(Clone, Debug)]
enum Leaf {
    /// It is read, into this slot.
    Read(usize),
    /// It must be absent, for this reason.
    Refused(String),
}

#[derive(Clone, Debug)]
struct Child {
    name: Name,
    index: Option<usize>,
    node: Node,
}

/// A value at a wanted pointer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Scalar<'a> {
    /// A string.
    Text(Cow<'a, str>),
    /// A number's own text.
    Number(&'a str),
    Null,
    /// `true` or `false`, as its text.
    Bool(&'static str),
    /// An object or an array.
    Other,
}

impl Scalar<'_> {
    /// A copy of a string or a number, as text.
    pub(super) fn kept(&self) -> Option<Scalar<'static>> {
        match self {
            Self::Text(text) => Some(Scalar::Text(Cow::Owned(text.clone().into_owned()))),
            Self::Number(text) => Some(Scalar::Text(Cow::Owned((*text).to_owned()))),
            Self::Null | Self::Bool(_) | Self::Other => None,
        }
    }
}

impl Wanted {
    /// Adds a pointer (RFC 6901) and returns its slot.
    pub(super) fn add(&mut self, pointer: &str, tokens_max: usize) -> Result<usize, String> {
        if let Some(slot) = self.pointers.iter().position(|own| own == pointer) {
            return Ok(slot);
        }
        let slot = self.pointers.len();
        insert(&mut self.root, &tokens(pointer, tokens_max)?, Leaf::Read(slot))?;
        self.pointers.push(pointer.to_owned());
        Ok(slot)
    }

    /// Whether any pointer is read.
    pub(super) fn is_read(&self) -> bool {
        !self.pointers.is_empty()
    }

    /// Adds a pointer that must be absent.
    pub(super) fn refuse(&mut self, pointer: &str, tokens_max: usize, reason: String) -> Result<(), String> {
        insert(&mut self.root, &tokens(pointer, tokens_max)?, Leaf::Refused(reason))
    }

    /// Adds a key that the body's own object must not have, unless the key is listed already.
    pub(super) fn refuse_key(&mut self, name: Name, reason: impl FnOnce() -> String) {
        if self.root.children.iter().all(|own| !own.name.folds_as(&name)) {
            let node = Node { leaf: Some(Leaf::Refused(reason())), ..Node::default() };
            self.root.push(Child { name, index: None, node });
        }
    }

    /// Reads the wanted values of a body, by slot; `None` where the body lacks the member.
    ///
    /// # Errors
    /// A sentence that is safe to show: it contains pointers of the configuration and positions, nothing of the body.
    pub(super) fn read<'a>(&self, body: &'a [u8]) -> Result<Vec<Option<Scalar<'a>>>, String> {
        if body.is_empty() {
            return Err("the body is empty".to_owned());
        }
        scan::read(&self.root, self.pointers.len(), body).map_or_else(|| self.read_any(body), Ok)
    }

    /// Reads the wanted values of a body of any kind, or says what is wrong with it.
    fn read_any<'a>(&self, body: &'a [u8]) -> Result<Vec<Option<Scalar<'a>>>, String> {
        let text = std::str::from_utf8(body).map_err(|_| "the body is not UTF-8".to_owned())?;
        if text.starts_with('\u{feff}') {
            return Err("the body starts with a byte order mark".to_owned());
        }
        let mut found = Findings { values: vec![None; self.pointers.len()], problem: None };
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let walk = Walk { node: &self.root, at: None, found: &mut found };
        match walk.deserialize(&mut deserializer).and_then(|()| deserializer.end()) {
            Ok(()) => Ok(found.values),
            Err(error) => Err(found.problem.unwrap_or_else(|| {
                format!("the body is not one JSON document (line {}, column {})", error.line(), error.column())
            })),
        }
    }
}

/// The keys of a pointer.
pub(super) fn tokens(pointer: &str, tokens_max: usize) -> Result<Vec<String>, String> {
    let rest = pointer.strip_prefix('/').ok_or("must start with '/' (RFC 6901) and name a member")?;
    let tokens: Vec<String> = rest.split('/').map(unescape).collect::<Result<_, _>>()?;
    if tokens.len() > tokens_max {
        return Err(format!("has {} tokens, at most {tokens_max} are taken", tokens.len()));
    }
    Ok(tokens)
}

fn insert(node: &mut Node, tokens: &[String], leaf: Leaf) -> Result<(), String> {
    const NESTED: &str = "is inside another pointer of the rule, or holds one; a value cannot be both";
    if node.leaf.is_some() {
        return Err(NESTED.to_owned());
    }
    let Some((key, rest)) = tokens.split_first() else {
        if !node.children.is_empty() {
            return Err(NESTED.to_owned());
        }
        node.leaf = Some(leaf);
        return Ok(());
    };
    if let Some(child) = node.children.iter_mut().find(|child| child.name.as_str() == key) {
        return insert(&mut child.node, rest, leaf);
    }
    let mut child = Child { name: Name::new(key), index: array_index(key), node: Node::default() };
    insert(&mut child.node, rest, leaf)?;
    node.push(child);
    Ok(())
}

fn unescape(token: &str) -> Result<String, String> {
    let mut parts = token.split('~');
    let mut key = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (mark, rest) = match (part.strip_prefix('0'), part.strip_prefix('1')) {
            (Some(rest), _) => ('~', rest),
            (None, Some(rest)) => ('/', rest),
            (None, None) => return Err("has a '~' that is neither ~0 nor ~1 (RFC 6901)".to_owned()),
        };
        key.push(mark);
        key.push_str(rest);
    }
    if key.is_empty() { Err("has an empty token".to_owned()) } else { Ok(key) }
}

fn array_index(key: &str) -> Option<usize> {
    let canonical = key == "0" || !key.starts_with('0');
    if canonical && key.bytes().all(|byte| byte.is_ascii_digit()) { key.parse().ok() } else { None }
}

impl Node {
    fn push(&mut self, child: Child) {
        self.firsts.add(&child.name);
        self.children.push(child);
    }

    /// The child that a key of the body names.
    fn key(&self, key: &[u8]) -> Key {
        let mut key_of_all = Key::Other;
        if !self.firsts.may_begin(key) {
            return key_of_all;
        }
        for (at, child) in self.children.iter().enumerate() {
            if !child.name.may_begin(key) {
                continue;
            }
            if quota::is_same(child.name.as_str().as_bytes(), key) {
                return Key::Child(at);
            }
            let is_read = || std::str::from_utf8(key).is_ok_and(|key| child.name.is_read_from(key));
            if matches!(key_of_all, Key::Other) && child.name.may_be(key) && is_read() {
                key_of_all = Key::Folded(at);
            }
        }
        key_of_all
    }

    /// Whether something at or below it is read.
    fn is_read(&self) -> bool {
        match &self.leaf {
            Some(Leaf::Read(_)) => true,
            Some(Leaf::Refused(_)) => false,
            None => self.children.iter().any(|child| child.node.is_read()),
        }
    }
}

#[derive(Debug)]
struct Findings<'b> {
    values: Vec<Option<Scalar<'b>>>,
    problem: Option<String>,
}

/// Walks one value for the pointers of `node`. The stack is as deep as the longest pointer, whatever the body nests.
struct Walk<'a, 'f, 'b> {
    node: &'a Node,
    /// The key that led here, for messages; `None` at the root.
    at: Option<&'a str>,
    found: &'f mut Findings<'b>,
}

impl Walk<'_, '_, '_> {
    fn stop<E: serde::de::Error>(&mut self, problem: String) -> E {
        let error = E::custom("refused");
        self.found.problem = Some(problem);
        error
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_, '_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(mut self, deserializer: D) -> Result<(), D::Error> {
        let slot = match &self.node.leaf {
            None => return deserializer.deserialize_any(self),
            Some(Leaf::Refused(reason)) => return Err(self.stop(reason.clone())),
            Some(Leaf::Read(slot)) => *slot,
        };
        let raw = <&'de RawValue as serde::Deserialize>::deserialize(deserializer)?;
        let scalar = scalar(raw.get()).ok_or_else(|| D::Error::custom("string"))?;
        if let Some(value) = self.found.values.get_mut(slot) {
            *value = Some(scalar);
        }
        Ok(())
    }
}

fn scalar(raw: &str) -> Option<Scalar<'_>> {
    match raw.as_bytes().first()? {
        b'"' => serde_json::from_str(raw).ok().map(|text| Scalar::Text(Cow::Owned(text))),
        b'-' | b'0'..=b'9' => Some(Scalar::Number(raw)),
        b'n' => Some(Scalar::Null),
        b't' => Some(Scalar::Bool("true")),
        b'f' => Some(Scalar::Bool("false")),
        _ => Some(Scalar::Other),
    }
}

impl<'de> Visitor<'de> for Walk<'_, '_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object or an array")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        let node = self.node;
        let mut seen = vec![false; node.children.len()];
        while let Some(key) = map.next_key_seed(KeyOf(node))? {
            match key {
                Key::Other => {
                    map.next_value::<IgnoredAny>()?;
                }
                Key::Folded(at) => {
                    let problem = node.children.get(at).map(Child::folded).unwrap_or_default();
                    return Err(self.stop(problem));
                }
                Key::Child(at) => {
                    let (Some(child), Some(seen)) = (node.children.get(at), seen.get_mut(at)) else {
                        continue;
                    };
                    if std::mem::replace(seen, true) {
                        return Err(self.stop(format!("the body has the key {:?} twice", child.name.as_str())));
                    }
                    map.next_value_seed(Walk { node: &child.node, at: Some(child.name.as_str()), found: self.found })?;
                }
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        for at in 0_usize.. {
            let child = self.node.children.iter().find(|child| child.index == Some(at));
            let more = match child {
                Some(child) => seq
                    .next_element_seed(Walk { node: &child.node, at: Some(child.name.as_str()), found: self.found })?
                    .is_some(),
                None => seq.next_element::<IgnoredAny>()?.is_some(),
            };
            if !more {
                break;
            }
        }
        Ok(())
    }

    // A scalar instead of an object or array: null means that the members are absent, any other scalar is refused, so that
    // the gateway never reads a value that was not read here.
    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        if self.at.is_some() { Ok(()) } else { self.refuse_scalar() }
    }

    fn visit_bool<E: serde::de::Error>(self, _: bool) -> Result<(), E> {
        self.refuse_scalar()
    }

    fn visit_i64<E: serde::de::Error>(self, _: i64) -> Result<(), E> {
        self.refuse_scalar()
    }

    fn visit_u64<E: serde::de::Error>(self, _: u64) -> Result<(), E> {
        self.refuse_scalar()
    }

    fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<(), E> {
        self.refuse_scalar()
    }

    fn visit_str<E: serde::de::Error>(self, _: &str) -> Result<(), E> {
        self.refuse_scalar()
    }
}

impl Child {
    /// The refusal of a key that folds onto this one.
    fn folded(&self) -> String {
        match &self.node.leaf {
            Some(Leaf::Refused(reason)) => reason.clone(),
            Some(Leaf::Read(_)) | None => {
                format!("the body has a key that some gateways read as {:?}", self.name.as_str())
            }
        }
    }
}

impl Walk<'_, '_, '_> {
    fn refuse_scalar<E: serde::de::Error>(mut self) -> Result<(), E> {
        if !self.node.is_read() {
            return Ok(());
        }
        let place = self.at.map_or_else(|| "the body".to_owned(), |key| format!("the body's {key:?}"));
        Err(self.stop(format!("{place} is not an object or an array")))
    }
}

/// The child of a node that a key names.
enum Key {
    Child(usize),
    Folded(usize),
    Other,
}

struct KeyOf<'a>(&'a Node);

impl<'de> DeserializeSeed<'de> for KeyOf<'_> {
    type Value = Key;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Key, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for KeyOf<'_> {
    type Value = Key;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: serde::de::Error>(self, key: &str) -> Result<Key, E> {
        Ok(self.0.key(key.as_bytes()))
    }
}
