//! The server's top-level modules have an order: no two of them need each other, neither directly nor through others.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use e2e::dirs;

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
