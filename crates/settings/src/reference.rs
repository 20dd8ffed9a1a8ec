//! The settings as people read them: `docs/settings.md` and the end of `--help`.

use super::CONFIG_FILE_ENV;
use super::table::{SPECS, Spec};

const INTRODUCTION: &str = "\
# Settings

This file is generated: `authz-server settings` prints it, and a test compares the two.

Each setting has a default, is overridden by the YAML file that `--config` or `SLUICE_CONFIG_FILE` names (flat, one key per
setting), and that by the environment. A `SLUICE_*` variable or file key that is not in this table is refused, and so are
empty values, values outside their range, and `DATABASE_URL` or `REDIS_URL` beside the settings that say the same in parts.

Settings marked *live* may change while the server runs, with `ENABLE_CONFIG_CLIENT=true`: from a configuration service, or
from the database. See [Changes while the server runs](#changes-while-the-server-runs).

| Variable | File key | Default | Range | Live | Meaning |
|---|---|---|---|---|---|
";

const CHANGES: &str = "
## Changes while the server runs

With `ENABLE_CONFIG_CLIENT=true` one more layer lies over the environment, for the live settings only:

- With `CONFIG_SERVICE_URL`, a GET of that address every `SLUICE_CONFIG_REFRESH_SECS` seconds. It answers 200 with a flat JSON
  object of file keys, as in `{\"redis_timeout_ms\": 100, \"log\": \"info\"}`; a setting that it leaves out has its value from the
  environment, the file or the default.
- Without it, the table `runtime_setting`. The admin API changes it, `runtime_setting_audit` has who changed what, when and
  why, and every server takes the change over at once (`LISTEN`), and reads the table every `SLUICE_CONFIG_REFRESH_SECS`
  seconds besides.

A change holds as a whole or not at all: an unknown name, a setting that is not live, a value outside its range or deadlines
that do not nest are refused with the name, and everything stays as it was. Where the service or the database is away or gives
something that is refused, the last good values stay; `sluice_settings_failures_total` counts it, `sluice_settings_current` is 0
until it is mended, and the log says what to mend. A server that starts while it is away uses its file and environment.
Secrets are neither shown nor changed there.
";

/// The Markdown text of `docs/settings.md`.
#[must_use]
pub fn reference() -> String {
    let mut text = INTRODUCTION.to_owned();
    text.push_str(&format!("| `{CONFIG_FILE_ENV}` | – | none | – | – | The YAML file with settings. |\n"));
    for spec in SPECS {
        text.push_str(&format!(
            "| `{}` | `{}` | {} | {} | {} | {}{} |\n",
            spec.env,
            spec.key,
            default(spec, "`"),
            range(spec).unwrap_or_else(|| "–".to_owned()),
            if spec.live { "live" } else { "–" },
            sentence(spec),
            if spec.secret { " Never printed." } else { "" },
        ));
    }
    text.push_str(CHANGES);
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
