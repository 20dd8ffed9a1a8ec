//! Spellings of names and values that some framework, somewhere, reads as another: percent-encoded for parameters, escaped for JSON.

use testkit::random::Random;

const BEFORE: &[&str] = &[
    "+",
    "%20",
    "%09",
    "%0a",
    "%0d%0a",
    "%00",
    "%ef%bb%bf",
    "\u{feff}",
    "[",
    "[[",
    "[]",
    "]",
    "?",
    ".",
    "_",
    "-",
    "%a0",
    "%c2%a0",
    "%ff",
    "x[",
    "$",
    "=",
    "%3d",
    "%26",
    "&",
    ";",
    "x;",
    "amp;",
];
const BEHIND: &[&str] = &[
    "+",
    "%20",
    "%00",
    "%00x",
    "[]",
    "[x]",
    "[0]",
    "]",
    "[",
    "%5B%5D",
    "%5b0%5d",
    ".",
    "_",
    "%0a",
    "[]x",
    "[x]y",
    "[][x]",
    "%",
    "%z",
    "s",
    "%ff",
    ".x",
    "[__proto__]",
    ";",
    "%3d",
    "%26",
];
const BETWEEN: &[&str] = &[".", "+", "%20", "[", "-", "", "%5B", "]", "__", "%5f", "%255f", "%u005f", "_%00"];
const VALUES: &[&str] = &[
    "2",
    "B7",
    "EUR",
    "m2",
    "",
    "A;B",
    "A%3BB",
    "A%zz",
    "A%",
    "A]=B",
    "A%5D=B",
    "A%5D%3DB",
    "a+b",
    "a%2Bb",
    "%00",
    "1%00",
    "%ff",
    "%20A1",
    "A1+",
    "%c3%a9",
    "1e3",
    "0x10",
    "1_0",
    "+7",
    "007",
    "usd",
    "A%26o%3D1",
    "=A",
    "A=B",
    "[1]",
    "true",
];

/// A name as a parameter writes it: mostly near to the one given.
pub(crate) fn parameter(random: &mut Random, name: &str) -> String {
    let mut name = name.to_owned();
    for _ in 0..=random.below(2) {
        name = match random.below(8) {
            0 | 1 => random.pick(BEFORE).to_owned() + &name,
            2 | 3 => name + random.pick(BEHIND),
            4 if name.contains('_') => name.replacen('_', random.pick(BETWEEN), 1),
            4 => name.replacen('[', random.pick(BETWEEN), 1),
            5 => case(random, &name),
            6 => escape(random, &name),
            _ => name,
        };
    }
    name
}

/// A name as a JSON key writes it.
pub(crate) fn key(random: &mut Random, name: &str) -> String {
    const BEFORE: &[&str] = &[" ", "\\t", "\\n", "\\u0000", "\\ufeff", "[", "?", ".", "_", "$", "\\u00a0", ""];
    const BEHIND: &[&str] = &[" ", "\\u0000", "\\u0000x", "[]", "[x]", "]", ".", "_", "s", "\\r\\n", ".x", ""];
    match random.below(6) {
        0 => random.pick(BEFORE).to_owned() + name,
        1 => name.to_owned() + random.pick(BEHIND),
        2 => case(random, name),
        3 => name.replacen('_', random.pick(&["", "-", ".", " "]), 1),
        4 => {
            let at = random.below(name.len() as u64) as usize;
            name.char_indices()
                .map(|(own, char)| if own == at { format!("\\u{:04x}", u32::from(char)) } else { char.to_string() })
                .collect()
        }
        _ => name.to_owned(),
    }
}

/// A value as a parameter writes it: often the field's own.
pub(crate) fn value(random: &mut Random, own: &str) -> String {
    if random.percent(50) { own.to_owned() } else { random.pick(VALUES).to_owned() }
}

/// A value as JSON writes it.
pub(crate) fn json(random: &mut Random, own: &str) -> String {
    const VALUES: &[&str] = &[
        "2",
        "1050",
        "\"1050\"",
        "1050.0",
        "\"B7\"",
        "null",
        "true",
        "[]",
        "[1050]",
        "{}",
        "{\"x\": 1}",
        "\"\"",
        "\"A\\u0000\"",
        "1e3",
        "-1",
        "\"\\ud800\"",
        "9007199254740993",
        "12345678901234567890",
        "\"usd\"",
        "\" A1\"",
        "1050.5",
        "007",
    ];
    if random.percent(50) { format!("\"{own}\"") } else { random.pick(VALUES).to_owned() }
}

fn case(random: &mut Random, name: &str) -> String {
    let turned = |char: char| {
        if char.is_ascii_lowercase() { char.to_ascii_uppercase() } else { char.to_ascii_lowercase() }
    };
    match random.below(3) {
        0 => name.to_ascii_uppercase(),
        1 => name
            .split('_')
            .enumerate()
            .map(|(at, word)| if at == 0 { word.to_owned() } else { capital(word) })
            .collect(),
        _ => name.chars().map(|char| if random.one_in(4) { turned(char) } else { char }).collect(),
    }
}

fn capital(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map(|first| first.to_ascii_uppercase().to_string() + chars.as_str()).unwrap_or_default()
}

/// One character escaped, once or twice.
fn escape(random: &mut Random, name: &str) -> String {
    let at = random.below(name.len().max(1) as u64) as usize;
    let twice = random.one_in(4);
    let escaped = |byte: u8| if twice { format!("%25{byte:02x}") } else { format!("%{byte:02X}") };
    name.bytes()
        .enumerate()
        .map(|(own, byte)| if own == at && byte.is_ascii() { escaped(byte) } else { char::from(byte).to_string() })
        .collect()
}
