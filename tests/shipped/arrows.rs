//! Which crates may need which: the table of ARCHITECTURE.md, held against `cargo metadata`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use testkit::dirs;

use crate::read;

/// Each crate with the crates of the workspace that it needs, each a crate of an earlier row. Suites are free to need any.
const ARROWS: [(&str, &[&str]); 24] = [
    ("quota", &[]),
    ("proto", &["quota"]),
    ("sluice-policy", &["quota"]),
    ("sluice-rules", &["quota"]),
    ("sluice-credit", &["quota"]),
    ("filter", &["proto", "quota", "sluice-rules"]),
    ("filter-native", &["filter", "proto", "quota", "sluice-rules"]),
    ("sluice-kit", &["quota"]),
    ("sluice-settings", &["quota", "sluice-kit"]),
    ("sluice-store", &["proto", "quota", "sluice-kit", "sluice-settings"]),
    ("sluice-policy-source", &["quota", "sluice-kit", "sluice-policy", "sluice-settings"]),
    ("sluice-journal", &["proto", "quota", "sluice-kit", "sluice-settings", "sluice-store"]),
    ("sluice-lines", &["quota", "sluice-credit", "sluice-journal", "sluice-kit"]),
    ("sluice-alerts", &["quota", "sluice-journal", "sluice-kit", "sluice-settings", "sluice-store"]),
    (
        "sluice-decision",
        &[
            "proto",
            "quota",
            "sluice-journal",
            "sluice-kit",
            "sluice-lines",
            "sluice-policy-source",
            "sluice-settings",
            "sluice-store",
        ],
    ),
    (
        "sluice-ext-authz",
        &[
            "proto",
            "quota",
            "sluice-decision",
            "sluice-kit",
            "sluice-policy-source",
            "sluice-rules",
            "sluice-settings",
            "sluice-store",
        ],
    ),
    ("sluice-auth", &["proto", "quota", "sluice-kit", "sluice-settings", "sluice-store"]),
    (
        "sluice-live",
        &[
            "quota",
            "sluice-alerts",
            "sluice-journal",
            "sluice-kit",
            "sluice-lines",
            "sluice-policy-source",
            "sluice-settings",
            "sluice-store",
        ],
    ),
    (
        "sluice-api",
        &[
            "proto",
            "quota",
            "sluice-alerts",
            "sluice-auth",
            "sluice-credit",
            "sluice-decision",
            "sluice-journal",
            "sluice-kit",
            "sluice-lines",
            "sluice-live",
            "sluice-policy-source",
            "sluice-settings",
            "sluice-store",
        ],
    ),
    (
        "sluice-jobs",
        &[
            "quota",
            "sluice-alerts",
            "sluice-credit",
            "sluice-decision",
            "sluice-journal",
            "sluice-kit",
            "sluice-lines",
            "sluice-policy-source",
            "sluice-settings",
            "sluice-store",
        ],
    ),
    (
        "authz-server",
        &[
            "proto",
            "quota",
            "sluice-alerts",
            "sluice-api",
            "sluice-auth",
            "sluice-decision",
            "sluice-ext-authz",
            "sluice-jobs",
            "sluice-journal",
            "sluice-kit",
            "sluice-lines",
            "sluice-live",
            "sluice-policy",
            "sluice-policy-source",
            "sluice-rules",
            "sluice-settings",
            "sluice-store",
        ],
    ),
    ("testkit", &["proto", "quota", "sluice-kit", "sluice-store"]),
    ("bench", &["proto", "quota", "sluice-journal", "sluice-kit", "sluice-rules", "sluice-store", "testkit"]),
    ("demo", &["authz-server", "testkit"]),
];

/// Libraries that few crates may use, and which these are.
const LIBRARIES: [(&str, &[&str]); 6] = [
    ("axum", &["sluice-api", "sluice-auth"]),
    ("h2", &["filter-native"]),
    ("prometheus-client", &["sluice-kit"]),
    ("redis", &["sluice-store", "sluice-journal", "sluice-alerts", "testkit", "bench"]),
    (
        "sqlx",
        &[
            "sluice-kit",
            "sluice-settings",
            "sluice-policy-source",
            "sluice-journal",
            "sluice-lines",
            "sluice-alerts",
            "sluice-auth",
            "sluice-live",
            "sluice-api",
            "testkit",
            "bench",
            "demo",
        ],
    ),
    ("wasmtime", &[]),
];

/// What each package needs to be built, without what its suites need beside it.
fn needs() -> BTreeMap<String, BTreeSet<String>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let arguments = ["metadata", "--no-deps", "--locked", "--offline", "--format-version", "1"];
    let output = Command::new(cargo).args(arguments).current_dir(dirs::workspace()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let name = |of: &Value| of["name"].as_str().unwrap().to_owned();
    let packages = metadata["packages"].as_array().unwrap().iter();
    let needed = |package: &Value| {
        let all = package["dependencies"].as_array().unwrap().iter();
        all.filter(|dependency| dependency["kind"] != "dev").map(name).collect()
    };
    packages.map(|package| (name(package), needed(package))).collect()
}

#[test]
fn crates_need_only_what_the_table_allows() {
    let needs = needs();
    let own: BTreeSet<&str> = needs.keys().map(String::as_str).collect();
    let rows: BTreeSet<&str> = ARROWS.iter().map(|(package, _)| *package).chain(["e2e"]).collect();
    assert_eq!(own, rows, "a crate has no row, or a row no crate");
    for (package, allowed) in ARROWS {
        let needed: BTreeSet<&str> =
            needs[package].iter().map(String::as_str).filter(|name| own.contains(name)).collect();
        assert_eq!(needed, allowed.iter().copied().collect(), "{package}");
    }
}

#[test]
fn a_crate_stands_above_what_it_needs() {
    let place = |package: &str| ARROWS.iter().position(|(name, _)| *name == package);
    for (package, allowed) in ARROWS {
        assert!(allowed.iter().all(|needed| place(needed) < place(package)), "{package} needs one of a later row");
    }
}

#[test]
fn libraries_are_used_where_they_belong() {
    let needs = needs();
    for (library, allowed) in LIBRARIES {
        let users: BTreeSet<&str> =
            needs.iter().filter(|(_, needed)| needed.contains(library)).map(|(package, _)| package.as_str()).collect();
        assert_eq!(users, allowed.iter().copied().collect(), "users of {library}");
    }
}

/// Handlers call functions of `store`, which has the API's SQL.
#[test]
fn handlers_of_the_api_have_no_sql() {
    fn check(path: &Path) -> usize {
        if path.is_dir() {
            return std::fs::read_dir(path).unwrap().map(|entry| check(&entry.unwrap().path())).sum();
        }
        let text = std::fs::read_to_string(path).unwrap();
        let found = ["sqlx::query", "QueryBuilder", "FromRow"].into_iter().find(|name| text.contains(name));
        assert_eq!(found, None, "{}", path.display());
        1
    }
    assert!(check(&dirs::workspace().join("crates/api/src/admin")) > 30);
}

/// ARCHITECTURE.md draws the same: a row for each crate.
#[test]
fn the_code_map_has_every_crate() {
    let map = read("ARCHITECTURE.md");
    for (package, _) in ARROWS {
        assert!(map.contains(&format!("| `{package}` |")), "ARCHITECTURE.md has no row for {package}");
    }
}
