//! The messages about bad JSON, queries and paths, in a caller's terms: what came, and what is expected. The one place where a
//! library's message becomes ours; an unknown message is replaced by a general one.

/// How a time is written.
const TIME: &str = "must be a time, as in 2026-11-29T08:00:00Z (a + is written %2B in a query)";
/// How an id is written.
const UUID: &str = "must be a UUID, as in 0190b0a4-5b5e-7cc3-98c8-2f4c1d7e9a10";
/// If nothing more is known.
const UNREADABLE: &str = "cannot be read";

/// Messages of types that read themselves from text, by a part of them.
const OF_TEXTS: [(&str, &str); 14] = [
    ("UUID parsing failed", UUID),
    ("premature end of input", TIME),
    ("input contains invalid characters", TIME),
    ("input is out of range", TIME),
    ("input is not enough for unique date and time", TIME),
    ("trailing input", TIME),
    ("invalid digit found in string", "must be a whole number"),
    ("cannot parse integer from empty string", "must be a whole number"),
    ("invalid float literal", "must be a number"),
    ("number too large to fit in target type", "is too large"),
    ("number too small to fit in target type", "is too small"),
    ("provided string was not `true` or `false`", "must be true or false"),
    ("data did not match any variant", "has none of the forms that it may have"),
    ("number out of range", "is too large"),
];

/// Messages about invalid JSON. The position follows them.
const OF_SYNTAX: [(&str, &str); 12] = [
    ("EOF while parsing", "the JSON ends too early"),
    ("trailing characters", "there is more after the JSON"),
    ("trailing comma", "the JSON has a comma too many"),
    ("expected `", "the JSON has another sign where a comma, a colon, a bracket or a word is due"),
    ("expected value", "the JSON lacks a value"),
    ("expected ident", "the JSON has a word that is none of true, false and null"),
    ("key must be a string", "a name in the JSON must be in quotes"),
    ("control character", "a text in the JSON has a control character: escape it"),
    ("invalid escape", "a text in the JSON has an escape that JSON does not know"),
    ("invalid unicode code point", "a text in the JSON is no Unicode"),
    ("invalid number", "the JSON has a number that JSON does not know"),
    ("recursion limit exceeded", "the JSON is nested too deep"),
];

/// A library's message as ours.
pub(super) fn sentence(message: &str) -> String {
    let (message, place) = match message.rsplit_once(" at line ") {
        Some((message, place)) => (message, format!(" (line {})", place.replace(" column ", ", column "))),
        None => (message, String::new()),
    };
    if let Some(known) = of_field(message).or_else(|| of_value(message)) {
        return known;
    }
    let find =
        |table: &[(&str, &'static str)]| table.iter().find(|(part, _)| message.contains(part)).map(|(_, it)| *it);
    match (find(&OF_TEXTS), find(&OF_SYNTAX)) {
        (Some(known), _) => known.to_owned(),
        (None, Some(known)) => format!("{known}{place}"),
        (None, None) => UNREADABLE.to_owned(),
    }
}

/// The message about a field or word by its name.
fn of_field(message: &str) -> Option<String> {
    if let Some(rest) = message.strip_prefix("missing field `") {
        return Some(format!("missing field `{}`: it is required", rest.strip_suffix('`')?));
    }
    if let Some(rest) = message.strip_prefix("duplicate field `") {
        return Some(format!("duplicate field `{}`: it must come once", rest.strip_suffix('`')?));
    }
    for (begin, what) in [("unknown field `", "field"), ("unknown variant `", "word")] {
        let Some(rest) = message.strip_prefix(begin) else { continue };
        let (name, known) = rest.split_once("`, ").unwrap_or((rest.trim_end_matches('`'), ""));
        let known =
            known.replace("expected one of ", "").replace("expected ", "").replace("there are no fields", "none");
        let known = if known.is_empty() { "none".to_owned() } else { known.replace('`', "") };
        return Some(format!("unknown {what} `{name}`; known are: {known}"));
    }
    None
}

/// The message about a value of another kind, or outside of its range.
fn of_value(message: &str) -> Option<String> {
    let rest =
        ["invalid type: ", "invalid value: ", "invalid length "].into_iter().find_map(|it| message.strip_prefix(it))?;
    let (found, expected) = rest.rsplit_once(", expected ")?;
    Some(format!("must be {}, not {}", wanted(expected), came(found)))
}

/// The kind of a value that came. Texts and numbers are the caller's own, and short ones are shown.
fn came(found: &str) -> String {
    const SHOWN_MAX: usize = 80;
    let kinds = [
        ("string ", "the text "),
        ("integer ", "the number "),
        ("floating point ", "the number "),
        ("boolean ", ""),
        ("character ", "the text "),
    ];
    let shown = |value: &str| if value.len() > SHOWN_MAX { String::new() } else { value.replace('`', "") };
    for (begin, name) in kinds {
        if let Some(value) = found.strip_prefix(begin) {
            return format!("{name}{}", shown(value)).trim_end().to_owned();
        }
    }
    match found {
        "null" | "unit value" | "Option value" => "null".to_owned(),
        "sequence" => "a list".to_owned(),
        "map" | "struct variant" | "newtype struct" => "an object".to_owned(),
        _ if found.bytes().all(|byte| byte.is_ascii_digit()) => format!("a list of {found}"),
        _ => "what came".to_owned(),
    }
}

/// The kind of the expected value.
fn wanted(expected: &str) -> &'static str {
    match expected {
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number",
        "u8" => "a whole number from 0 to 255",
        "u16" => "a whole number from 0 to 65535",
        "u32" => "a whole number from 0 to 4294967295",
        "u64" | "usize" => "a whole number, 0 or more",
        "f32" | "f64" => "a number",
        "a boolean" => "true or false",
        "a string" | "a borrowed string" | "string" => "a text",
        "a sequence" => "a list",
        "a formatted UUID string" | "UUID" => "a UUID",
        "an RFC 3339 formatted date and time string" | "a formatted date and time string or a unix timestamp" => {
            "a time, as in 2026-11-29T08:00:00Z"
        }
        _ if expected.contains("identifier") || expected.contains("enum") && !expected.contains("tagged") => {
            "one of its known words"
        }
        _ if expected.contains("a sequence") || expected.contains("tuple") => "a list",
        _ => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_messages_are_told_in_words_that_callers_know() {
        for (message, expected) in [
            (
                "invalid type: string \"2\", expected i64 at line 1 column 9",
                "must be a whole number, not the text \"2\"",
            ),
            ("invalid type: string \"2\", expected u64", "must be a whole number, 0 or more, not the text \"2\""),
            (
                "invalid value: integer `-1`, expected u32",
                "must be a whole number from 0 to 4294967295, not the number -1",
            ),
            ("invalid type: floating point `1.5`, expected i64", "must be a whole number, not the number 1.5"),
            ("invalid type: null, expected a string", "must be a text, not null"),
            ("invalid type: boolean `true`, expected a string", "must be a text, not true"),
            ("invalid type: map, expected a sequence", "must be a list, not an object"),
            ("invalid type: string \"x\", expected struct NewToken", "must be an object, not the text \"x\""),
            (
                "invalid type: sequence, expected internally tagged enum OperationRequest",
                "must be an object, not a list",
            ),
            ("invalid length 1, expected struct NewToken with 5 elements", "must be an object, not a list of 1"),
            ("missing field `amount` at line 1 column 2", "missing field `amount`: it is required"),
            ("duplicate field `amount`", "duplicate field `amount`: it must come once"),
            ("unknown field `x`, expected `amount`", "unknown field `x`; known are: amount"),
            ("unknown field `x`, there are no fields", "unknown field `x`; known are: none"),
            (
                "unknown variant `root`, expected one of `admin`, `operator`",
                "unknown word `root`; known are: admin, operator",
            ),
            ("UUID parsing failed: invalid length: expected 32", UUID),
            ("premature end of input at line 1 column 5", TIME),
            ("invalid digit found in string", "must be a whole number"),
            ("data did not match any variant of untagged enum Words", "has none of the forms that it may have"),
            ("EOF while parsing a value at line 1 column 0", "the JSON ends too early (line 1, column 0)"),
            ("trailing characters at line 1 column 14", "there is more after the JSON (line 1, column 14)"),
            (
                "expected `,` or `}` at line 1 column 14",
                "the JSON has another sign where a comma, a colon, a bracket or a word is due (line 1, column 14)",
            ),
            ("Some(Whatever { of: it })", UNREADABLE),
        ] {
            assert_eq!(sentence(message), expected, "{message}");
        }
    }
}
