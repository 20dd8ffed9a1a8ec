//! `rules`: checks rules documents before Envoy or the server takes them over.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use quota::Mode;
use serde_yaml_ng::Value;
use sluice_rules::Document;

use super::yaml::{self, FileError};
use super::{CliError, Outcome, print};

#[derive(Debug, Subcommand)]
pub(super) enum RulesCommand {
    /// Check the rules of a JSON file, or those in Envoy's configuration, as the filter and the server do at their start.
    ///
    /// Prints how many rules there are and what they do; or the rule and the field that is wrong, and exits with 1.
    #[command(
        after_long_help = "Examples:\n  authz-server rules validate rules.json\n  authz-server rules validate envoy.yaml"
    )]
    Validate {
        /// A rules document (JSON), or a configuration of Envoy (YAML) with the filter in it.
        file: PathBuf,
    },
}

pub(super) fn execute(command: &RulesCommand) -> Result<Outcome, CliError> {
    let RulesCommand::Validate { file } = command;
    for document in load(file)? {
        let rules = document.rules.rules();
        let count = |mode| rules.iter().filter(|rule| rule.mode == mode).count();
        print(&format!(
            "{} is valid\nrules     {}\nenforced  {}\nshadow    {}\noff       {}\n",
            file.display(),
            rules.len(),
            count(Mode::Enforce),
            count(Mode::Shadow),
            count(Mode::Off)
        ))?;
    }
    Ok(Outcome::Done)
}

/// Every rules document of a file: the file itself, or what its wasm filters are configured with.
fn load(file: &Path) -> Result<Vec<Document>, FileError> {
    let text = yaml::read(file)?;
    if text.trim_start().starts_with('{') && !text.contains("\"static_resources\"") {
        return Ok(vec![parse(file, &text)?]);
    }
    let documents = configured(&yaml::parse(file, &text)?);
    if documents.is_empty() {
        return Err(FileError::new(file, "holds no rules: neither a rules document nor a wasm filter with rules"));
    }
    documents.iter().map(|text| parse(file, text)).collect()
}

/// Reads a rules document.
pub(super) fn parse(file: &Path, text: &str) -> Result<Document, FileError> {
    Document::from_json(text.as_bytes()).map_err(|error| FileError::new(file, error))
}

/// The configurations of wasm filters that look like rules.
fn configured(envoy: &Value) -> Vec<String> {
    let mut found = Vec::new();
    yaml::walk(envoy, &mut |node| {
        let of_wasm = yaml::type_of(node).is_some_and(|kind| kind.ends_with(".wasm.v3.Wasm"));
        found.extend(plugin(node).filter(|_| of_wasm).map(str::to_owned));
    });
    found
}

/// The configuration of a wasm filter.
pub(super) fn plugin(filter: &Value) -> Option<&str> {
    filter.get("config")?.get("configuration")?.get("value")?.as_str()
}
