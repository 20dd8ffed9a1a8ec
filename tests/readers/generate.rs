//! Requests, generated from a seed: a payment as its rule has it, and then changes that some framework reads in another way.

use crate::rules::{FIELDS, Layout};
use crate::spell;
use testkit::random::Random;

/// Parameters that mean nothing to a payment.
const HARMLESS: &[&str] = &[
    "note=x",
    "x=1",
    "utm_source=a%20b",
    "tags[]=1&tags[]=2",
    "x[y][z]=1",
    "flag",
    "note=%zz",
    "a.b=1",
    "x=1;y=2",
    "amounts=3",
];
const FORM: &str = "application/x-www-form-urlencoded";
const MEDIA: &[Option<&str>] = &[
    Some("application/json"),
    Some("application/json; charset=utf-8"),
    Some("application/vnd.api+json"),
    Some(FORM),
    Some("application/x-www-form-urlencoded; charset=UTF-8"),
    Some("application/x-www-form-urlencoded; charset=utf-16"),
    Some("text/plain"),
    Some("multipart/form-data; boundary=x"),
    Some("Application/JSON"),
    Some("application/json, text/plain"),
    Some(""),
    None,
];

/// One request.
pub(crate) struct Input<'a> {
    pub(crate) layout: &'a Layout,
    pub(crate) content_type: Option<&'static str>,
    pub(crate) query: Vec<u8>,
    pub(crate) body: Vec<u8>,
}

/// Makes requests.
pub(crate) struct Generator(Random);

impl Generator {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(Random::new(seed))
    }

    pub(crate) fn next<'a>(&mut self, layouts: &'a [Layout]) -> Input<'a> {
        let layout = &layouts[self.0.below(layouts.len() as u64) as usize];
        let changes = [0, 0, 1, 1, 1, 2][self.0.below(6) as usize];
        let in_query = layout.query.is_some() && (layout.form.is_none() && layout.json.is_none() || self.0.one_in(2));
        let mut query = self.parameters(layout.query.filter(|_| in_query));
        let (mut content_type, mut body) = self.body(layout);
        for _ in 0..changes {
            match self.0.below(5) {
                0 | 1 => query = self.changed(layout, &query),
                2 if content_type == Some(FORM) => body = self.changed(layout, &body),
                2 | 3 => body = self.changed_json(layout, content_type, body),
                _ if self.0.one_in(4) => content_type = self.0.pick(MEDIA),
                _ => body = self.changed(layout, &body),
            }
        }
        Input { layout, content_type, query: self.bytes(query), body: self.bytes(body) }
    }

    /// The fields as parameters, in any order, among others.
    fn parameters(&mut self, names: Option<[&str; 4]>) -> String {
        let mut pieces: Vec<String> = Vec::new();
        for (at, name) in names.into_iter().flatten().enumerate() {
            pieces.push(format!("{name}={}", FIELDS[at].1));
        }
        while self.0.one_in(3) {
            pieces.push(self.0.pick(HARMLESS).to_owned());
        }
        self.shuffled(pieces).join("&")
    }

    fn shuffled(&mut self, mut pieces: Vec<String>) -> Vec<String> {
        for at in 1..pieces.len() {
            pieces.swap(at, self.0.below(at as u64 + 1) as usize);
        }
        pieces
    }

    fn body(&mut self, layout: &Layout) -> (Option<&'static str>, String) {
        match (layout.form, layout.json) {
            (Some(names), None) => (Some(FORM), self.parameters(Some(names))),
            (Some(names), Some(_)) if self.0.one_in(2) => (Some(FORM), self.parameters(Some(names))),
            (_, Some(names)) => (Some("application/json"), self.json(names)),
            (None, None) => match self.0.below(3) {
                0 => (Some(FORM), self.parameters(None)),
                1 => (Some("application/json"), "{\"note\": \"x\"}".to_owned()),
                _ => (None, String::new()),
            },
        }
    }

    /// The fields as members; those of one object stand together.
    fn json(&mut self, names: [&str; 4]) -> String {
        let mut objects: Vec<(String, Vec<String>)> = Vec::new();
        for (name, (_, value)) in names.iter().zip(FIELDS) {
            let bare = name.trim_start_matches('/');
            let (object, key) = bare.split_once('/').unwrap_or(("", bare));
            let quoted = if value.parse::<u64>().is_ok() && self.0.one_in(2) {
                value.to_owned()
            } else {
                format!("\"{value}\"")
            };
            let member = format!("\"{key}\": {quoted}");
            match objects.iter_mut().find(|(own, _)| own == object) {
                Some((_, members)) => members.push(member),
                None => objects.push((object.to_owned(), vec![member])),
            }
        }
        let mut members = Vec::new();
        for (object, own) in objects {
            match object.as_str() {
                "" => members.extend(own),
                _ => members.push(format!("\"{object}\": {{{}}}", self.shuffled(own).join(", "))),
            }
        }
        if self.0.one_in(3) {
            members.push("\"note\": {\"amount\": 3, \"x\": [1]}".to_owned());
        }
        format!("{{{}}}", self.shuffled(members).join(", "))
    }

    /// A name of one of the rule's fields, as some part of a request would have it.
    fn name(&mut self, layout: &Layout) -> (String, &'static str) {
        let at = self.0.below(4) as usize;
        let (usual, value) = FIELDS[at];
        let named = [layout.query, layout.form, layout.json].into_iter().flatten().map(|names| names[at]);
        let mut names: Vec<String> = named
            .flat_map(|name| {
                let bare = name.trim_start_matches('/');
                let last = bare.rsplit('/').next().unwrap_or(bare).to_owned();
                let first = bare.split('/').next().unwrap_or(bare).to_owned();
                [bare.replace('/', "."), bare.replacen('/', "[", 1), last, first]
            })
            .collect();
        names.extend([usual.to_owned(), "merchant".to_owned()]);
        let picked = self.0.below(names.len() as u64) as usize;
        (names.swap_remove(picked), value)
    }

    /// Another parameter, in front or behind; a value that is changed; or very many parameters.
    fn changed(&mut self, layout: &Layout, parameters: &str) -> String {
        let (name, own) = self.name(layout);
        let (name, value) = (spell::parameter(&mut self.0, &name), spell::value(&mut self.0, own));
        let separator = self.0.pick(&["&", "&", "&", "&", ";", "&amp;", "&&", ";+", "\n"]);
        match self.0.below(40) {
            0 => format!("{}{parameters}", "x=1&".repeat(self.0.near(500) as usize)),
            1 => format!("{}{parameters}", "x&".repeat(1_100)),
            2..10 => parameters.replacen(&format!("={own}"), &format!("={value}"), 1),
            10..13 => parameters.replacen(own, &format!("{value}{separator}{name}={own}"), 1),
            13..16 => parameters.replacen("=", self.0.pick(&["==", "", "%3d", "]=", "[]=", "%5b%5d="]), 1),
            16..28 => format!("{name}={value}{separator}{parameters}"),
            _ => format!("{parameters}{separator}{name}={value}"),
        }
    }

    /// Another member, at the root or inside of an object; a value that is changed; a whole that is.
    fn changed_json(&mut self, layout: &Layout, content_type: Option<&str>, body: String) -> String {
        if !content_type.is_some_and(|media| media.contains("json")) {
            return self.changed(layout, &body);
        }
        let (name, own) = self.name(layout);
        let (key, value) = (spell::key(&mut self.0, &name), spell::json(&mut self.0, own));
        let member = format!("\"{key}\": {value}");
        match self.0.below(12) {
            0 => format!("\u{feff}{body}"),
            1 => format!("{body} {{{member}}}"),
            2 => format!("[{body}]"),
            3 | 4 => body.replacen(&format!("\"{own}\""), &value, 1),
            5 | 6 => {
                body.rfind('{').map_or(body.clone(), |at| format!("{}{{{member}, {}", &body[..at], &body[at + 1..]))
            }
            7 => format!("{{\"payment\": {{{member}}}, {}", body.trim_start_matches('{')),
            8 | 9 => format!("{{{member}, {}", body.trim_start_matches('{')),
            _ => format!("{}, {member}}}", body.strip_suffix('}').unwrap_or(&body)),
        }
    }

    /// The text's bytes, seldom with one that is changed.
    fn bytes(&mut self, text: String) -> Vec<u8> {
        let mut bytes = text.into_bytes();
        if self.0.one_in(40) && !bytes.is_empty() {
            let at = self.0.below(bytes.len() as u64) as usize;
            bytes[at] = self.0.pick(&[0xff, 0, b'%', b'&', b';', b'=', b'[', b'"', b' ', b'#', b'\\']);
        }
        bytes
    }
}
