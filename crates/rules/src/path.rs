//! Path templates, and which readings of a request's path match one. They keep a payment from bypassing its rule by another
//! spelling of its path.

use std::sync::Arc;

mod readings;
#[cfg(test)]
mod tests;

pub(super) use readings::Readings;
use readings::is_script;

/// Endings that a template itself may have, and that routers read as a format: `/v1/payments.json` is `/v1/payments`. After a
/// template without one every ending is read as a format.
const FORMATS: [&str; 11] = ["json", "jsonp", "js", "xml", "html", "htm", "txt", "csv", "yaml", "do", "action"];

/// The values of a template's `{name}` segments, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Captures(Vec<(Arc<str>, String)>);

impl Captures {
    /// The decoded segment, or `None` for a name that the template does not have.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(own, _)| quota::is_same(own.as_bytes(), name.as_bytes())).map(|(_, value)| value.as_str())
    }
}

/// A path with captures, as in `/v1/merchants/{merchant}/payments`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Template {
    segments: Vec<Segment>,
    /// Whether a dot in a captured last segment belongs to the value, however routers read it.
    keeps_dots: bool,
    /// Whether the last segment is a literal with an ending, or an index: then another spelling of the path needs no dot.
    has_ending: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Literal(String),
    Capture(Arc<str>),
}

/// How a path matches a template.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Match {
    No,
    Yes(Captures),
    /// Its readings disagree: one gateway matches it to this template, another does not or reads other captures.
    Ambiguous,
    /// It is another path that some routers map to this template: with a format at its end, or a front controller before it.
    /// A rule for that path takes precedence.
    Spelling,
}

impl Template {
    pub(super) fn parse(text: &str, segments_max: usize, keeps_dots: bool) -> Result<Self, String> {
        let rest = text.strip_prefix('/').ok_or("must start with '/'")?;
        let segments: Vec<Segment> =
            if rest.is_empty() { Vec::new() } else { rest.split('/').map(segment).collect::<Result<_, _>>()? };
        if segments.len() > segments_max {
            return Err(format!("has {} segments, at most {segments_max} are taken", segments.len()));
        }
        let has_ending =
            matches!(segments.last(), Some(Segment::Literal(last)) if last.contains('.') || is_index(last));
        let template = Self { segments, keeps_dots, has_ending };
        let names: Vec<&str> = template.names().collect();
        match names.iter().enumerate().find(|(at, name)| names.iter().take(*at).any(|other| other == *name)) {
            Some((_, name)) => Err(format!("captures {{{name}}} twice")),
            None => Ok(template),
        }
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.segments.iter().filter_map(|segment| match segment {
            Segment::Capture(name) => Some(&**name),
            Segment::Literal(_) => None,
        })
    }

    /// A path that matches, with `x` for each capture.
    pub(super) fn example(&self) -> String {
        let texts = self.segments.iter().map(|segment| match segment {
            Segment::Literal(text) => text.as_str(),
            Segment::Capture(_) => "x",
        });
        format!("/{}", texts.collect::<Vec<_>>().join("/"))
    }

    pub(super) fn matches(&self, readings: &Readings<'_>) -> Match {
        let Readings { plain, unresolved, lenient, instead, malformed, is_usual } = readings;
        if *is_usual && !self.has_ending {
            return self.captures(plain).map_or(Match::No, Match::Yes);
        }
        let found = self.captures(plain);
        let other = unresolved.as_ref().and_then(|segments| self.captures(segments));
        let loosest = lenient.as_ref().map_or_else(|| found.clone(), |segments| self.captures(segments));
        match found {
            Some(found) => {
                let agree = other.is_none_or(|other| other == found) && loosest.as_ref() == Some(&found);
                if agree && !malformed && (self.keeps_dots || !self.ends_in_a_dotted(&found)) {
                    Match::Yes(found)
                } else {
                    Match::Ambiguous
                }
            }
            None if other.is_some() || loosest.is_some() => Match::Ambiguous,
            None => {
                let mut lists = lenient.iter().chain(instead);
                let is_spelled = self.is_spelled(plain) || lists.any(|segments| self.is_spelled(segments));
                if is_spelled { Match::Spelling } else { Match::No }
            }
        }
    }

    fn captures(&self, segments: &[impl AsRef<str>]) -> Option<Captures> {
        let given = || self.segments.iter().zip(segments);
        let is_same = |(own, given): (&Segment, &_)| match own {
            Segment::Literal(literal) => is_literal(literal, AsRef::as_ref(given)),
            Segment::Capture(_) => true,
        };
        if segments.len() != self.segments.len() || !given().all(is_same) {
            return None;
        }
        let captured = given().filter_map(|(own, given)| match own {
            Segment::Literal(_) => None,
            Segment::Capture(name) => Some((Arc::clone(name), given.as_ref().to_owned())),
        });
        Some(Captures(captured.collect()))
    }

    /// Whether the template ends in a capture that contains a dot: routers with format suffixes read only the part before it.
    fn ends_in_a_dotted(&self, captures: &Captures) -> bool {
        match self.segments.last() {
            Some(Segment::Capture(name)) => captures.get(name).is_some_and(|value| value.contains('.')),
            Some(Segment::Literal(_)) | None => false,
        }
    }

    /// Whether routers may map these segments to the template: as they are, without a directory's index at their end, after
    /// a front controller, or, where the template ends in a script, with the script's path argument after it.
    fn is_spelled(&self, segments: &[impl AsRef<str>]) -> bool {
        let without_index = segments.split_last().filter(|(last, _)| is_index(last.as_ref())).map(|(_, before)| before);
        let own_without_index = match self.segments.split_last() {
            Some((Segment::Literal(last), before)) if is_index(last) => Some(before),
            Some(_) | None => None,
        };
        let own = [Some(self.segments.as_slice()), own_without_index].into_iter().flatten();
        own.into_iter()
            .any(|own| [Some(segments), without_index].into_iter().flatten().any(|given| is_served(own, given)))
    }
}

/// Whether a segment is this literal in any case. Most have the case of the rule.
fn is_literal(literal: &str, given: &str) -> bool {
    quota::is_same(literal.as_bytes(), given.as_bytes()) || literal.eq_ignore_ascii_case(given)
}

/// Whether these segments are a template's own, after a front controller, or before a script's path argument.
fn is_served(own: &[Segment], segments: &[impl AsRef<str>]) -> bool {
    let (before, behind) = segments.split_at(segments.len().saturating_sub(own.len()));
    let script = segments.get(..own.len()).filter(|given| given.last().is_some_and(|last| is_script(last.as_ref())));
    (before.is_empty() || is_front_controller(before)) && is_loosely(own, behind)
        || script.is_some_and(|script| is_loosely(own, script))
}

fn is_loosely(own: &[Segment], segments: &[impl AsRef<str>]) -> bool {
    let last = own.len().saturating_sub(1);
    segments.len() == own.len()
        && own.iter().zip(segments).enumerate().all(|(at, (own, given))| match own {
            Segment::Literal(literal) if at == last => is_with_format(literal, given.as_ref()),
            Segment::Literal(literal) => literal.eq_ignore_ascii_case(given.as_ref()),
            Segment::Capture(_) => true,
        })
}

/// Whether the segments end in a script that receives the rest of the path: `/index.php`, `/cgi-bin/pay`.
fn is_front_controller(before: &[impl AsRef<str>]) -> bool {
    match before {
        [.., folder, _] if folder.as_ref().eq_ignore_ascii_case("cgi-bin") => true,
        [.., script] => is_script(script.as_ref()),
        [] => false,
    }
}

/// The file that a web server serves for its folder: `index`, `index.php`, `default.aspx`.
fn is_index(segment: &str) -> bool {
    let (stem, ending) = segment.split_once('.').unwrap_or((segment, ""));
    stem.eq_ignore_ascii_case("index") || stem.eq_ignore_ascii_case("default") && !ending.is_empty()
}

/// Whether a segment is a literal with or without a format suffix.
fn is_with_format(literal: &str, given: &str) -> bool {
    let extends = |stem: &str| {
        let (start, rest) = given.split_at_checked(stem.len()).unwrap_or((given, ""));
        start.eq_ignore_ascii_case(stem).then_some(rest)
    };
    let known =
        |ending: &str| FORMATS.iter().any(|own| own.eq_ignore_ascii_case(ending)) || is_script(&format!(".{ending}"));
    let stem = literal.rsplit_once('.').filter(|(_, ending)| known(ending)).map(|(stem, _)| stem);
    extends(literal).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        || stem.and_then(extends).is_some_and(|rest| rest.is_empty() || rest.strip_prefix('.').is_some_and(known))
}

fn segment(text: &str) -> Result<Segment, String> {
    if let Some(name) = text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
        let named = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        return if named {
            Ok(Segment::Capture(name.into()))
        } else {
            Err(format!("capture {text:?} must be named by letters, digits and '_'"))
        };
    }
    let plain = |byte: u8| byte.is_ascii_graphic() && !b"%;\\?#{}".contains(&byte);
    match text {
        "" => Err("has an empty segment; write it without a doubled or trailing '/'".to_owned()),
        "." | ".." => Err("must not hold '.' or '..'".to_owned()),
        _ if text.ends_with('.') => Err(format!("segment {text:?} must not end in '.', which some servers drop")),
        _ if text.bytes().all(plain) => Ok(Segment::Literal(text.to_owned())),
        _ => Err(format!("segment {text:?} must be visible ASCII without % ; \\ ? # {{ }}")),
    }
}
