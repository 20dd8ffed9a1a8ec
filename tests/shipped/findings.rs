//! `docs/field-findings.md`: no number is missing, and each names tests and documents that exist.

use std::collections::BTreeSet;

use crate::{assert_tests_exist, read};

const FINDINGS: &str = "docs/field-findings.md";
/// Every number that the table has.
#[rustfmt::skip]
const NUMBERS: [&str; 26] = [
    "X1", "X2", "X3", "X4", "X5", "X6", "X7", "X8", "X9", "X10", "X11",
    "F1", "F2", "F3", "F4", "F5", "F6", "F7", "F8", "F9", "F10", "F11",
    "B1", "B6", "B7", "S2",
];

#[test]
fn every_finding_names_tests_and_documents_that_exist() {
    let document = read(FINDINGS);
    let rows: Vec<Vec<&str>> = document
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| # "))
        .map(|line| line.trim_matches('|').split(" | ").map(str::trim).collect())
        .collect();
    let numbers: Vec<&str> = rows.iter().filter_map(|row| row.first().copied()).collect();
    assert_eq!(numbers.iter().collect::<BTreeSet<_>>(), NUMBERS.iter().collect::<BTreeSet<_>>());
    assert_eq!(numbers.len(), NUMBERS.len(), "each number once: {numbers:?}");
    for row in rows {
        let [number, input, answer, documents, tests] = row[..] else { panic!("five cells: {row:?}") };
        assert!(!input.is_empty() && !answer.is_empty(), "{number}");
        let links: Vec<&str> = documents.split("](").skip(1).filter_map(|rest| rest.split(')').next()).collect();
        assert!(!links.is_empty(), "{number} names no document");
        for link in links {
            let (file, section) = link.split_once('#').unwrap_or((link, ""));
            let text = read(&format!("docs/{file}"));
            let slug = |line: &str| {
                let words = line.trim_start_matches('#').trim().to_lowercase();
                let kept = words.chars().filter(|letter| letter.is_alphanumeric() || matches!(letter, ' ' | '-' | '_'));
                kept.collect::<String>().replace(' ', "-")
            };
            let found = section.is_empty() || text.lines().any(|line| line.starts_with('#') && slug(line) == section);
            assert!(found, "{number}: {file} has no section {section}");
        }
        // The number stands in the name of one test at least.
        let prefix = format!("{}_", number.to_ascii_lowercase());
        assert!(tests.contains(&format!("`{prefix}")) || tests.contains(&format!("_{prefix}")), "{number}: {tests}");
        assert_tests_exist(tests);
    }
}
