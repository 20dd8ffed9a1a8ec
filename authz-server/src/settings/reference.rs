//! The settings as people read them: `docs/settings.md` and the end of `--help`.

use super::CONFIG_FILE_ENV;
use super::table::{SPECS, Spec};

const INTRODUCTION: &str = "\
# Settings

This file is generated: `authz-server settings` prints it, and a test compares the two.

Each setting has a default, is overridden by the YAML file that `--config` or `SLUICE_CONFIG_FILE` names (flat, one key per
setting), and that by the environment. A `SLUICE_*` variable or file key that is not in this table is refused, and so are
empty values, values outside their range, and `DATABASE_URL` or `REDIS_URL` beside the settings that say the same in parts.

| Variable | File key | Default | Range | Meaning |
|---|---|---|---|---|
";

/// The Markdown text of `docs/settings.md`.
#[must_use]
pub fn reference() -> String {
    let mut text = INTRODUCTION.to_owned();
    text.push_str(&format!("| `{CONFIG_FILE_ENV}` | – | none | – | The YAML file with settings. |\n"));
    for spec in SPECS {
        text.push_str(&format!(
            "| `{}` | `{}` | {} | {} | {}{} |\n",
            spec.env,
            spec.key,
            default(spec, "`"),
            range(spec).unwrap_or_else(|| "–".to_owned()),
            sentence(spec),
            if spec.secret { " Never printed." } else { "" },
        ));
    }
    text
}

/// The list that `--help` ends with.
#[must_use]
pub fn help() -> String {
    let mut text = format!("Settings (environment):\n  {CONFIG_FILE_ENV}\n      The YAML file with settings.\n");
    for spec in SPECS {
        let range = range(spec).map(|range| format!(", {range}")).unwrap_or_default();
        text.push_str(&format!("  {} [{}{range}]\n      {}\n", spec.env, default(spec, ""), sentence(spec)));
    }
    text
}

fn sentence(spec: &Spec) -> String {
    spec.doc.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn default(spec: &Spec, quote: &str) -> String {
    match spec.default {
        Some("") => "empty".to_owned(),
        Some(default) => format!("{quote}{default}{quote}"),
        None if spec.optional => "none".to_owned(),
        None => "required".to_owned(),
    }
}

fn range(spec: &Spec) -> Option<String> {
    spec.range.map(|(min, max)| format!("{min} to {max}"))
}
