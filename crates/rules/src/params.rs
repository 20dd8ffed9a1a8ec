//! Parameters: the fields of a query or of an `application/x-www-form-urlencoded` body, which share their syntax.
//!
//! One pass finds the listed ones and refuses what some gateway would read differently: a repetition, a name that folds onto a
//! listed one or onto one that must be absent, a `;` that is a separator for some, an invalid escape.

use std::borrow::Cow;

use super::name::Name;

/// Most parameters of a query, and of a form: together as many as PHP, Tomcat, Django and qs accept. Some of them silently drop
/// the rest.
pub const PARAMETERS_MAX: usize = 500;

/// The names that a rule lists or refuses in one place. Listed ones are read, by slot.
#[derive(Clone, Debug, Default)]
pub(super) struct Parameters {
    listed: Vec<Entry>,
    refused: Vec<Entry>,
}

#[derive(Clone, Debug)]
struct Entry {
    name: Name,
    /// The field and its source for a listed name, the full reason for a refused one.
    label: String,
}

/// How the rule treats a parameter's name.
enum Meaning<'a> {
    Listed(usize, &'a Entry),
    Folded(&'a Entry),
    Refused(&'a Entry),
    Other,
}

impl Parameters {
    /// Adds a name that is read and returns its slot. `label` names the field and the source in refusals.
    pub(super) fn list(&mut self, name: &str, label: impl FnOnce() -> String) -> usize {
        if let Some(slot) = self.listed.iter().position(|own| own.name.as_str() == name) {
            return slot;
        }
        self.listed.push(Entry { name: Name::new(name), label: label() });
        self.listed.len() - 1
    }

    /// Adds a name that must be absent, unless it is added already. A name that folds onto a listed one is refused anyway.
    pub(super) fn refuse(&mut self, name: Name, reason: impl FnOnce() -> String) {
        if self.listed.iter().chain(&self.refused).all(|own| !own.name.folds_as(&name)) {
            self.refused.push(Entry { name, label: reason() });
        }
    }

    /// Whether any name is read.
    pub(super) fn is_read(&self) -> bool {
        !self.listed.is_empty()
    }

    /// Whether a name is read.
    pub(super) fn lists(&self, name: &str) -> bool {
        self.listed.iter().any(|own| own.name.as_str() == name)
    }

    /// Reads the listed parameters, by slot; `None` where there is none.
    ///
    /// # Errors
    /// A sentence that is safe to show: it contains fields and sources of the configuration, nothing of the request.
    pub(super) fn read(&self, encoded: &[u8]) -> Result<Vec<Option<String>>, String> {
        if encoded.is_empty() {
            return Ok(vec![None; self.listed.len()]);
        }
        // Werkzeug, for example, reads an empty form where a single byte is not UTF-8.
        if std::str::from_utf8(encoded).is_err() {
            return Err("the parameters are not UTF-8; write other bytes as percent escapes".to_owned());
        }
        let mut values = vec![None; self.listed.len()];
        let pieces = encoded.split(|byte| *byte == b'&').filter(|piece| !piece.is_empty());
        for (at, piece) in pieces.enumerate() {
            if at == PARAMETERS_MAX {
                return Err(format!("there are more than {PARAMETERS_MAX} parameters"));
            }
            if piece.contains(&b';') {
                self.check_parts(piece)?;
                continue;
            }
            let (name, value) = split(piece);
            match self.meaning(&decoded_name(name)?) {
                Meaning::Other => {}
                Meaning::Refused(entry) => return Err(entry.label.clone()),
                Meaning::Folded(entry) => return Err(folded(entry)),
                Meaning::Listed(slot, entry) => {
                    let text = decoded_value(value).map_err(|problem| format!("{} {problem}", entry.label))?;
                    if values.get_mut(slot).and_then(|own| own.replace(text)).is_some() {
                        return Err(format!("{} is given more than once", entry.label));
                    }
                }
            }
        }
        Ok(values)
    }

    /// Some gateways read `;` as `&`: neither the whole nor a part of such a piece may be a listed or refused parameter.
    fn check_parts(&self, piece: &[u8]) -> Result<(), String> {
        for part in piece.split(|byte| *byte == b';') {
            match self.meaning(&decoded_name(split(part).0)?) {
                Meaning::Other => {}
                Meaning::Refused(entry) => return Err(entry.label.clone()),
                Meaning::Folded(entry) | Meaning::Listed(_, entry) => {
                    return Err(format!(
                        "{} stands beside a ';', which some gateways take for '&'; write %3B",
                        entry.label
                    ));
                }
            }
        }
        Ok(())
    }

    fn meaning(&self, name: &str) -> Meaning<'_> {
        if let Some((slot, entry)) = self.listed.iter().enumerate().find(|(_, own)| own.name.as_str() == name) {
            return Meaning::Listed(slot, entry);
        }
        let is_read = |entries: &&Entry| entries.name.is_read_from(name);
        match (self.listed.iter().find(is_read), self.refused.iter().find(is_read)) {
            (Some(entry), _) => Meaning::Folded(entry),
            (None, Some(entry)) => Meaning::Refused(entry),
            (None, None) => Meaning::Other,
        }
    }
}

/// Every parameter, decoded, without any check. Only for uses where the value alone decides nothing.
pub(super) fn pairs(encoded: &[u8]) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
    let pieces = encoded.split(|byte| *byte == b'&').filter(|piece| !piece.is_empty());
    pieces.map(|piece| {
        let (name, value) = split(piece);
        (decoded(name), decoded(value))
    })
}

fn folded(entry: &Entry) -> String {
    format!("{}: another parameter has a name that some gateways read as this one", entry.label)
}

fn split(piece: &[u8]) -> (&[u8], &[u8]) {
    let at = piece.iter().position(|byte| *byte == b'=');
    at.map_or((piece, &[]), |at| (piece.get(..at).unwrap_or_default(), piece.get(at + 1..).unwrap_or_default()))
}

fn decoded_name(name: &[u8]) -> Result<Cow<'_, str>, String> {
    if has_broken_escape(name) {
        return Err("a parameter's name has a '%' without two hexadecimal digits".to_owned());
    }
    Ok(decoded(name))
}

fn decoded_value(value: &[u8]) -> Result<String, &'static str> {
    if has_broken_escape(value) {
        return Err("has a '%' without two hexadecimal digits; write %25 for a percent sign");
    }
    // qs looks for the name's end behind a bracket first.
    let brackets = [&b"]="[..], b"%5D=", b"%5d="];
    if brackets.iter().any(|bracket| value.windows(bracket.len()).any(|part| part == *bracket)) {
        return Err("has a ']' before a '=', where some gateways end the name; write %3D for '='");
    }
    Ok(decoded(value).into_owned())
}

/// Percent escapes decoded, `+` as a blank, and bytes that are not UTF-8 replaced. Borrowed where nothing is to be done.
pub(super) fn decoded(encoded: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(encoded) {
        Ok(text) if !encoded.iter().any(|byte| matches!(byte, b'%' | b'+')) => Cow::Borrowed(text),
        _ => {
            let blanks: Vec<u8> = encoded.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
            Cow::Owned(percent_encoding::percent_decode(&blanks).decode_utf8_lossy().into_owned())
        }
    }
}

fn has_broken_escape(encoded: &[u8]) -> bool {
    let is_broken =
        |rest: &[u8]| !matches!(rest, [high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit());
    let escapes = encoded.iter().enumerate().filter(|(_, byte)| **byte == b'%');
    escapes.into_iter().any(|(at, _)| is_broken(encoded.get(at + 1..).unwrap_or_default()))
}
