//! The server's top-level modules have an order: no two of them need each other, neither directly nor through others.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use e2e::dirs;

/// The layers of ARCHITECTURE.md, the lowest first. A module needs none of a higher one.
const LAYERS: [&[&str]; 7] = [
    &["clock", "database", "health", "http", "metrics", "process", "secret", "telemetry", "zones"],
    &["settings"],
    &["journal", "policy", "refusal", "store"],
    &["alert"],
    &["decision", "operations", "outcomes"],
    &["admin", "check", "live", "sweep"],
    &["cli", "run"],
];

/// Which modules the files of each top-level module name.
fn imports() -> BTreeMap<String, BTreeSet<String>> {
    let root = dirs::workspace().join("authz-server/src");
    let mut imports = BTreeMap::new();
    for entry in std::fs::read_dir(&root).unwrap() {
        let path = entry.unwrap().path();
        let module = path.file_stem().unwrap().to_str().unwrap().to_owned();
        if module != "lib" && module != "main" {
            collect(&path, imports.entry(module).or_default());
        }
    }
    for (module, of) in &mut imports {
        of.remove(module);
    }
    imports
}

fn collect(path: &Path, into: &mut BTreeSet<String>) {
    if path.is_dir() {
        std::fs::read_dir(path).unwrap().for_each(|entry| collect(&entry.unwrap().path(), into));
    } else if path.extension().is_some_and(|extension| extension == "rs") {
        let text = std::fs::read_to_string(path).unwrap();
        let code = text.lines().map(|line| line.split("//").next().unwrap_or_default());
        for part in code.flat_map(|line| line.split("crate::").skip(1)) {
            let is_name = |sign: char| sign.is_ascii_lowercase() || sign == '_';
            into.insert(part.chars().take_while(|sign| is_name(*sign)).collect());
        }
    }
}

#[test]
fn no_module_of_the_server_needs_one_of_a_higher_layer() {
    let layer = |module: &str| LAYERS.iter().position(|layer| layer.contains(&module));
    for (module, of) in imports() {
        let own = layer(&module).unwrap_or_else(|| panic!("{module} is in no layer"));
        let higher: Vec<_> = of.iter().filter(|needed| layer(needed).is_some_and(|needed| needed > own)).collect();
        assert!(higher.is_empty(), "{module} needs {higher:?}, of a higher layer");
    }
}

#[test]
fn no_two_modules_of_the_server_need_each_other() {
    let mut imports = imports();
    assert!(imports["check"].contains("store") && imports["journal"].contains("store"), "{imports:#?}");
    // What needs nothing that is left is taken out, until only circles are left.
    loop {
        let left: BTreeSet<String> = imports.keys().cloned().collect();
        let before = left.len();
        imports.retain(|_, of| of.iter().any(|module| left.contains(module)));
        if imports.len() == before {
            break;
        }
    }
    assert!(imports.is_empty(), "modules that need each other, or modules in a circle: {imports:#?}");
}
