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
        Self { text: text.to_owned(), folded, is_map: false }
    }

    /// The name of a map with wanted members. Only the map itself is read as this name, not another member.
    pub(super) fn map(text: &str) -> Self {
        Self { is_map: true, ..Self::new(text) }
    }

    /// The name as in the configuration.
    pub(super) fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether both names fold onto one.
    pub(super) fn folds_as(&self, other: &Self) -> bool {
        self.folded == other.folded
    }

    /// Whether some framework reads `name` as this one, or as a part of it: `amount[x]` makes `amount` a map. Stops at the first
    /// character that differs, and allocates nothing.
    pub(super) fn is_read_from(&self, name: &str) -> bool {
        let (rest, is_marked) = front(name);
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
