//! The texts: `docs/cli.md`, `--help` and what `openapi` prints.

use serde_json::Value;
use testkit::Result;
use testkit::dirs;

use crate::bench::run;

#[test]
fn the_reference_is_up_to_date() -> Result<()> {
    let shipped = std::fs::read_to_string(dirs::workspace().join("docs/cli.md"))?;
    let printed = run(&[], &["commands"])?.succeeded();
    assert!(shipped == printed, "docs/cli.md is out of date: run `authz-server commands > docs/cli.md`");
    Ok(())
}

#[test]
fn every_command_helps_with_an_example() -> Result<()> {
    let commands: [&[&str]; 24] = [
        &[],
        &["serve"],
        &["policy"],
        &["policy", "validate"],
        &["policy", "diff"],
        &["rules"],
        &["rules", "validate"],
        &["routes"],
        &["routes", "check"],
        &["inspect"],
        &["inspect", "account"],
        &["inspect", "merchant"],
        &["inspect", "order"],
        &["outcomes"],
        &["outcomes", "list"],
        &["outcomes", "resolve"],
        &["credit"],
        &["credit", "show"],
        &["credit", "statement"],
        &["credit", "repay"],
        &["credit", "simulate"],
        &["token"],
        &["openapi"],
        &["commands"],
    ];
    for command in commands {
        let help = run(&[], &[command, &["--help"]].concat())?.succeeded();
        assert!(help.contains("Usage: authz-server") && help.contains("Example"), "{command:?}\n{help}");
        assert!(help.contains(&format!("\n  authz-server {}", command.join(" "))) || command == ["serve"], "{help}");
    }
    Ok(())
}

#[test]
fn the_document_is_printed_and_nonsense_refused() -> Result<()> {
    let document: Value = serde_json::from_str(&run(&[], &["openapi"])?.succeeded())?;
    assert!(document["paths"].get("/api/v1/quotas/consume").is_some(), "{document}");
    for arguments in [&["polices"][..], &["policy"], &["inspect", "merchants", "a"], &["openapi", "--yaml"]] {
        let ran = run(&[], arguments)?;
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(2), ""), "{arguments:?}: {ran:?}");
        assert!(ran.stderr.contains("Usage: authz-server"), "{arguments:?}: {ran:?}");
    }
    Ok(())
}
