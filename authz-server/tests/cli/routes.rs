//! `rules validate` and `routes check` on the shipped files, and on slips.

use std::fs;

use testkit::Result;
use testkit::dirs::{self, RunDir};

use crate::bench::{file, run};

fn shipped(name: &str) -> String {
    dirs::workspace().join("envoy").join(name).display().to_string()
}

#[test]
fn rules_are_valid_or_the_field_is_named() -> Result<()> {
    let dir = RunDir::new("cli-rules")?;
    for name in ["rules.json", "envoy.yaml"] {
        let said = run(&[], &["rules", "validate", &shipped(name)])?.succeeded();
        assert!(said.contains(" is valid\nrules     11\nenforced  11\n"), "{said}");
    }
    let rules = fs::read_to_string(shipped("rules.json"))?;
    let table = [
        ("slip.json", rules.replacen("\"unit\"", "\"units\"", 1), "units"),
        ("path.json", rules.replacen("/v1/payments", "v1/payments", 1), "match.path: must start with '/'"),
        ("none.yaml", "static_resources: {}\n".to_owned(), "holds no rules"),
    ];
    for (name, text, part) in table {
        let path = file(&dir, name, &text)?;
        let ran = run(&[], &["rules", "validate", &path])?;
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""), "{name}: {ran:?}");
        assert!(ran.stderr.contains(part) && ran.stderr.contains(&path), "{name}: {ran:?}");
    }
    Ok(())
}

#[test]
fn routes_are_right_or_the_slip_is_named() -> Result<()> {
    let dir = RunDir::new("cli-routes")?;
    let (envoy, routes) = (shipped("envoy.yaml"), shipped("routes.yaml"));
    let said = run(&[], &["routes", "check", &envoy, &routes])?.succeeded();
    assert!(said.ends_with("checked with 11 rules: 1 findings\n"), "{said}");
    run(&[], &["routes", "check", &routes, "--rules", &shipped("rules.json")])?.succeeded();
    let slip = fs::read_to_string(&routes)?.replace("{mode: shadow}", "{mod: shadow}");
    let ran = run(&[], &["routes", "check", &envoy, &file(&dir, "routes.yaml", &slip)?])?;
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(
        ran.stdout.contains("route \"shadow-payments\": metadata.filter_metadata.sluice has the unknown key \"mod\""),
        "{ran:?}"
    );
    let ran = run(&[], &["routes", "check", &envoy.replace("envoy.yaml", "rules.json")])?;
    assert!(ran.code == Some(1) && ran.stderr.contains("holds no virtual host"), "{ran:?}");
    Ok(())
}
