//! The folding of a field's name: one for JSON keys, form fields and query parameters.
//!
//! Frameworks read more than one spelling as the same name: some without regard to case, some without the blanks around it,
//! some up to its first bracket. Frameworks disagree about a request with a wanted name and another spelling of it. The
//! folding is the union of what common frameworks do; the table of the test lists which one does what.

#[cfg(test)]
mod tests;

/// A name of the configuration, prepared for comparison with those of a request.
#[derive(Clone, Debug)]
pub(super) struct Name {
    text: String,
    folded: String,
    /// The first byte of the folded name.
    first: u8,
    /// Whether its members are separate names, which are not read as this one.
    is_map: bool,
}

impl Name {
    pub(super) fn new(text: &str) -> Self {
        let (rest, is_marked) = front(text);
        let mut folded = String::with_capacity(text.len());
        if is_marked {
            folded.push('_');
        }
        let kept = rest.chars().take_while(|char| *char != '\0').filter(|char| !is_separator(*char));
        kept.for_each(|char| fold(char, |char| folded.push(char)));
        let first = folded.bytes().next().unwrap_or_default();
        Self { text: text.to_owned(), folded, first, is_map: false }
    }

    /// The name of a map with wanted members. Only the map itself is read as this name, not another member.
    pub(super) fn map(text: &str) -> Self {
        Self { is_map: true, ..Self::new(text) }
    }

    /// The name as in the configuration.
    pub(super) fn as_str(&self) -> &str {
        &self.text
    }

    /// `false` if the first byte is a letter or digit that already says so.
    #[inline]
    pub(super) fn may_begin(&self, name: &[u8]) -> bool {
        let is_own = |first: &u8| first.to_ascii_lowercase() == self.first || !first.is_ascii_alphanumeric();
        name.first().is_none_or(is_own)
    }

    /// `false` if a letter or digit at the front already says that `name` is not this one, nor read as it.
    pub(super) fn may_be(&self, name: &[u8]) -> bool {
        let pairs = self.folded.bytes().zip(name);
        let mut pairs = pairs.take_while(|(_, other)| other.is_ascii_alphanumeric());
        pairs.all(|(own, other)| own == other.to_ascii_lowercase())
    }

    /// Whether both names fold onto one.
    pub(super) fn folds_as(&self, other: &Self) -> bool {
        self.folded == other.folded
    }

    /// Whether some framework reads `name` as this one, or as a part of it: `amount[x]` makes `amount` a map. Stops at the first
    /// character that differs, and allocates nothing.
    pub(super) fn is_read_from(&self, name: &str) -> bool {
        let (rest, is_marked) = match name.bytes().next() {
            Some(first) if first.is_ascii_alphanumeric() => {
                // Nothing comes before it, and it folds onto itself.
                if self.first != first.to_ascii_lowercase() {
                    return false;
                }
                (name, false)
            }
            Some(_) | None => front(name),
        };
        let mut wanted = self.folded.chars();
        if self.folded.is_empty() || (is_marked && wanted.next() != Some('_')) {
            return false;
        }
        for char in rest.chars().take_while(|char| *char != '\0') {
            if matches!(char, '[' | ']') && wanted.as_str().is_empty() {
                return !self.is_map;
            }
            let mut differs = false;
            if !is_separator(char) {
                fold(char, |char| differs |= wanted.next() != Some(char));
            }
            if differs {
                return false;
            }
        }
        wanted.as_str().is_empty()
    }
}

/// How a set of names begins: one bit for each byte. Most keys of a request begin like none of the wanted ones, and need no
/// comparison.
#[derive(Clone, Copy, Debug)]
pub(super) struct Firsts([u64; 4]);

impl Default for Firsts {
    /// No name, and so no letter or digit: those alone are never dropped from the front of a name, and fold onto one of them.
    fn default() -> Self {
        let mut firsts = Self([u64::MAX; 4]);
        (b'0'..=b'9').chain(b'a'..=b'z').chain(b'A'..=b'Z').for_each(|byte| firsts.set(byte, false));
        firsts
    }
}

impl Firsts {
    pub(super) fn add(&mut self, name: &Name) {
        self.set(name.first, true);
        self.set(name.first.to_ascii_uppercase(), true);
    }

    fn set(&mut self, byte: u8, is_set: bool) {
        if let Some(bits) = self.0.get_mut(usize::from(byte >> 6)) {
            let bit = 1_u64 << (byte & 63);
            *bits = if is_set { *bits | bit } else { *bits & !bit };
        }
    }

    /// `false` if none of the names is this one, or is read from it.
    pub(super) fn may_begin(&self, name: &[u8]) -> bool {
        let has = |byte: u8| self.0.get(usize::from(byte >> 6)).is_none_or(|bits| bits >> (byte & 63) & 1 != 0);
        name.first().copied().is_none_or(has)
    }
}

/// The name without dropped leading characters, and whether it begins with a separator: `_id` is not `id`, but `.id` is `_id`.
fn front(name: &str) -> (&str, bool) {
    let rest = name.trim_start_matches(|char| is_blank(char) || matches!(char, '[' | ']' | '?' | '\0'));
    (rest.trim_start_matches(is_separator), rest.starts_with(['_', '-', '.']))
}

/// Characters that are ignored between the letters and digits of a name, and separators that are treated as equal.
fn is_separator(char: char) -> bool {
    matches!(char, '_' | '-' | '.' | '[' | ']') || is_blank(char)
}

/// Blanks, control characters except NUL, the byte order mark, and the replacement character of an invalid byte.
fn is_blank(char: char) -> bool {
    let is_ascii_blank = char != '\0' && (char == ' ' || char.is_ascii_control());
    is_ascii_blank
        || (!char.is_ascii() && (char.is_whitespace() || char.is_control() || "\u{feff}\u{fffd}".contains(char)))
}

/// Case folding by which `ſ` is `s` and the Kelvin sign is `k`, as in decoders with case-insensitive keys, and `İ` and `ı`
/// are `i`, as in Java's comparison without case.
fn fold(char: char, mut push: impl FnMut(char)) {
    match char {
        _ if char.is_ascii() => push(char.to_ascii_lowercase()),
        'İ' => push('i'),
        _ => char.to_uppercase().flat_map(char::to_lowercase).for_each(push),
    }
}
