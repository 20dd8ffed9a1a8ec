//! `policy validate` and `policy diff`.

use testkit::Result;
use testkit::dirs::{self, RunDir};

use crate::bench::{file, run};

const OLD: &str = "
version: old
default: {timezone: UTC, daily_amount: 5000}
tiers:
  basic: {daily_amount: 9000}
merchants:
  shop: {tier: basic}
";

#[test]
fn a_policy_file_is_valid_or_its_field_is_named() -> Result<()> {
    let dir = RunDir::new("cli-policy")?;
    let shipped = dirs::workspace().join("deploy/policies.yaml").display().to_string();
    assert!(run(&[], &["policy", "validate", &shipped])?.succeeded().contains(" is valid\n"));
    let said = run(&[], &["policy", "validate", &file(&dir, "old.yaml", OLD)?])?.succeeded();
    let lines: Vec<Vec<&str>> = said.lines().skip(1).map(|line| line.split_whitespace().collect()).collect();
    assert!(lines[0][1].starts_with("old#"), "{said}");
    assert_eq!(lines[1..3], [["tiers", "1"], ["merchants", "1"]], "{said}");
    assert_eq!(lines[3][..2], ["zone", "data"], "{said}");

    let table = [
        (OLD.replace("5000", "-5"), "default.daily_amount`: a whole number from 0"),
        (OLD.replace("daily_amount: 5000", "single_max: 5, single_min: 6"), "default.single_min"),
        (OLD.replace("UTC", "Nowhere/Land"), "default.timezone"),
        (OLD.replace("tier: basic", "tier: gold"), "merchants.shop.tier"),
        (OLD.replace("daily_amount: 9000", "dayly_amount: 9000"), "dayly_amount"),
        ("version: a\n".to_owned(), "enforces nothing"),
        (format!("\u{feff}{OLD}"), "starts with a byte order mark: save it without"),
        (OLD.replace("  basic", "\tbasic"), "line 5 is indented by a tab: indent by blanks"),
        (format!("{OLD}tiers: {{}}\n"), "duplicate field `tiers`"),
        (OLD.replace("  shop: {tier: basic}", "  shop: {tier: basic}\n  shop: {}"), "duplicate entry `shop`"),
        (String::new(), "version"),
    ];
    for (row, (text, field)) in table.into_iter().enumerate() {
        let path = file(&dir, &format!("{row}.yaml"), &text)?;
        let ran = run(&[], &["policy", "validate", &path])?;
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""), "row {row}: {ran:?}");
        assert!(ran.stderr.contains(field) && ran.stderr.contains(&path), "row {row}: {ran:?}");
    }
    // Of lines that end as on Windows nothing is said; of other encodings it is.
    run(&[], &["policy", "validate", &file(&dir, "crlf.yaml", &OLD.replace('\n', "\r\n"))?])?.succeeded();
    let wide: Vec<u8> = OLD.encode_utf16().flat_map(u16::to_le_bytes).collect();
    std::fs::write(dir.join("wide.yaml"), [&[0xFF, 0xFE], wide.as_slice()].concat())?;
    let ran = run(&[], &["policy", "validate", &dir.join("wide.yaml").display().to_string()])?;
    assert!(ran.code == Some(1) && ran.stderr.contains("wide.yaml is UTF-16 or UTF-32: save it as UTF-8"), "{ran:?}");
    let ran = run(&[], &["policy", "validate", "/nowhere/policies.yaml"])?;
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("/nowhere/policies.yaml cannot be read"), "{ran:?}");
    Ok(())
}

#[test]
fn what_changes_for_whom_is_said() -> Result<()> {
    let dir = RunDir::new("cli-policy")?;
    let old = file(&dir, "old.yaml", OLD)?;
    let new = file(&dir, "new.yaml", &OLD.replace("old", "new").replace("9000", "7000"))?;
    let bad = file(&dir, "bad.yaml", "version: [")?;
    let said = run(&[], &["policy", "diff", &old, &new])?.succeeded();
    assert_eq!(said, "tier basic: daily_amount 9000 -> 7000\n");
    assert_eq!(run(&[], &["policy", "diff", "--exit-code", &old, &new])?.code, Some(3));
    let said = run(&[], &["policy", "diff", "--exit-code", &old, &old])?.succeeded();
    assert_eq!(said, "no policy changes\n");
    for files in [[&old, &bad], [&bad, &old]] {
        let ran = run(&[], &["policy", "diff", files[0], files[1]])?;
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""), "{ran:?}");
        assert!(ran.stderr.contains("bad.yaml"), "{ran:?}");
    }
    Ok(())
}
