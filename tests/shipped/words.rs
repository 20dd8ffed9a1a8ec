//! The words that code, logs and documents are written in: those of docs/glossary.md, and none of a private language.

use std::path::Path;

use testkit::dirs;

/// Words that say less to a stranger than the field's own do, in lower case.
const BANNED: [&str; 12] = [
    "told",
    "tells",
    "hear",
    "hears",
    "heard",
    "unheard",
    "nobody",
    "whoever",
    "somebody",
    "watchman",
    "recallingstore",
    "parcel",
];

/// Where a word has to stay: the column of a table, the name of a member of stream ids that clients hold, an address, and the
/// account of a system.
const ALLOWED: [(&str, &str); 8] = [
    ("crates/alerts/src/notifier/claim.rs", "told"),
    ("crates/alerts/src/notifier/outcome.rs", "told"),
    ("crates/alerts/src/read/messages.rs", "told"),
    ("crates/live/src/cursor.rs", "told"),
    ("tests/api/stream.rs", "told"),
    ("tests/alerts/mail.rs", "told"),
    ("tests/alerts/mail.rs", "nobody"),
    ("testkit/src/postgres.rs", "nobody"),
];

/// What strangers read.
const READ: [&str; 13] = [
    "quota",
    "proto",
    "filter",
    "filter-native",
    "crates",
    "authz-server",
    "testkit",
    "bench",
    "demo",
    "tests",
    "README.md",
    "ARCHITECTURE.md",
    "docs",
];

fn lines(path: &Path, found: &mut Vec<(String, usize, String)>) {
    if path.is_dir() {
        let mut entries: Vec<_> = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
        entries.sort();
        // Migrations that were applied, values and scripts of former versions, and the figures of a run stay as they are.
        let is_read = |path: &&std::path::PathBuf| {
            !["migrations", "formats", "performance", "shipped/words.rs", "target"]
                .iter()
                .any(|name| path.ends_with(name))
        };
        return entries.iter().filter(is_read).for_each(|entry| lines(entry, found));
    }
    let is_text =
        path.extension().is_some_and(|kind| ["rs", "lua", "md", "proto", "json"].iter().any(|own| kind == *own));
    if is_text {
        let name = path.strip_prefix(dirs::workspace()).unwrap().display().to_string();
        let text = std::fs::read_to_string(path).unwrap();
        found.extend(text.lines().zip(1..).map(|(line, number)| (name.clone(), number, line.to_lowercase())));
    }
}

#[test]
fn strangers_read_words_of_their_field() {
    let mut all = Vec::new();
    READ.iter().for_each(|path| lines(&dirs::workspace().join(path), &mut all));
    assert!(all.len() > 10_000, "only {} lines were read", all.len());
    let banned = |line: &str| {
        line.split(|sign: char| !sign.is_alphanumeric() && sign != '_')
            .find_map(|word| BANNED.iter().find(|own| **own == word))
    };
    let found: Vec<String> = all
        .iter()
        .filter_map(|(file, number, line)| {
            let word = banned(line)?;
            let is_allowed = ALLOWED.iter().any(|(own, allowed)| own == file && allowed == word);
            (!is_allowed).then(|| format!("{file}:{number}: {word}"))
        })
        .collect();
    assert!(found.is_empty(), "words that docs/glossary.md has better ones for:\n{}", found.join("\n"));
}
