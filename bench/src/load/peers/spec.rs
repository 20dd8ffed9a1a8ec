//! How a peer is started, as environment variables say it:
//!
//! - `SLUICE_PEER_<NAME>`: the command line, run by `sh`. In it `{port}` is where the peer has to listen on loopback,
//!   `{redis_url}` and `{redis_address}` a Redis of its own, `{limit}` how many payments the race's merchant has room for, and
//!   `{config}` the file of the next variable but one.
//! - `SLUICE_PEER_<NAME>_KIND`: `rls` (behind Envoy's ratelimit filter) or `ext_authz`.
//! - `SLUICE_PEER_<NAME>_CONFIG`: a file for `{config}`. The same names in braces are put into its text.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use serde::Serialize;

use super::super::merchants::RACE_ROOM;
use testkit::dirs::RunDir;
use testkit::ports::loopback;
use testkit::{Context, Failure, Result};

const PREFIX: &str = "SLUICE_PEER_";
const KIND: &str = "_KIND";
const CONFIG: &str = "_CONFIG";

/// The filter that asks a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// `envoy.service.ratelimit.v3`, asked by `envoy.filters.http.ratelimit`.
    Rls,
    /// `envoy.service.auth.v3`, asked by `envoy.filters.http.ext_authz`.
    ExtAuthz,
}

/// A limiter to measure beside Sluice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// In lower case, with dashes.
    pub name: String,
    pub kind: Kind,
    pub command: String,
    pub config: Option<PathBuf>,
}

/// Where the peer and its Redis are.
pub(super) struct Places {
    pub port: u16,
    pub redis_port: u16,
}

impl Peer {
    /// All peers that the variables name, by name.
    ///
    /// # Errors
    /// Names the variable that is missing or cannot be read.
    pub fn from_variables(variables: impl Iterator<Item = (String, String)>) -> Result<Vec<Self>> {
        let given: BTreeMap<String, String> =
            variables.filter_map(|(name, value)| Some((name.strip_prefix(PREFIX)?.to_owned(), value))).collect();
        let is_part = |name: &str, suffix: &str| name.strip_suffix(suffix).is_some_and(|peer| given.contains_key(peer));
        if let Some(name) = given.keys().find(|name| name.ends_with(KIND) && !is_part(name, KIND)) {
            let peer = name.trim_end_matches(KIND);
            return Err(Failure::new(format!(
                "{PREFIX}{name} is set, and {PREFIX}{peer} with the command line is not"
            )));
        }
        let peers = given.iter().filter(|(name, _)| !is_part(name, KIND) && !is_part(name, CONFIG));
        peers.map(|(name, command)| Self::named(name, command, &given)).collect()
    }

    fn named(name: &str, command: &str, given: &BTreeMap<String, String>) -> Result<Self> {
        let variable = format!("{PREFIX}{name}{KIND}");
        let kind = match given.get(&format!("{name}{KIND}")).map(String::as_str) {
            Some("rls") => Kind::Rls,
            Some("ext_authz") => Kind::ExtAuthz,
            Some(other) => return Err(Failure::new(format!("{variable}={other}: it is rls or ext_authz"))),
            None => return Err(Failure::new(format!("{variable} is missing: set it to rls or ext_authz"))),
        };
        let config = given.get(&format!("{name}{CONFIG}")).map(PathBuf::from);
        if !command.contains("{port}") {
            return Err(Failure::new(format!("{PREFIX}{name} does not say where {{port}} goes")));
        }
        if command.contains("{config}") && config.is_none() {
            return Err(Failure::new(format!("{PREFIX}{name} has {{config}}: set {PREFIX}{name}{CONFIG}")));
        }
        let name = name.to_ascii_lowercase().replace('_', "-");
        Ok(Self { name, kind, command: command.to_owned(), config })
    }

    /// The command line with everything put in; the configuration is written to the run folder.
    pub(super) fn command_line(&self, places: &Places, dir: &RunDir) -> Result<String> {
        let mut line = filled(&self.command, places);
        if let Some(config) = &self.config {
            let text = fs::read_to_string(config).context(config.display())?;
            let file = dir.join(config.file_name().unwrap_or("config".as_ref()));
            fs::write(&file, filled(&text, places))?;
            line = line.replace("{config}", &file.display().to_string());
        }
        Ok(line)
    }
}

fn filled(text: &str, places: &Places) -> String {
    let redis = loopback(places.redis_port).to_string();
    text.replace("{port}", &places.port.to_string())
        .replace("{redis_url}", &format!("redis://{redis}"))
        .replace("{redis_address}", &redis)
        .replace("{limit}", &RACE_ROOM.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peers(variables: &[(&str, &str)]) -> Result<Vec<Peer>> {
        Peer::from_variables(variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
    }

    #[test]
    fn peers_are_read_from_variables() {
        let found = peers(&[
            ("PATH", "/bin"),
            ("SLUICE_PEER_MY_RLS", "rls -p {port} -c {config}"),
            ("SLUICE_PEER_MY_RLS_KIND", "rls"),
            ("SLUICE_PEER_MY_RLS_CONFIG", "limits.yaml"),
            ("SLUICE_PEER_OTHER", "other {port} {redis_url}"),
            ("SLUICE_PEER_OTHER_KIND", "ext_authz"),
        ]);
        let summary = found.unwrap().into_iter().map(|peer| (peer.name, peer.kind)).collect::<Vec<_>>();
        assert_eq!(summary, [("my-rls".to_owned(), Kind::Rls), ("other".to_owned(), Kind::ExtAuthz)]);
        assert_eq!(peers(&[("PATH", "/bin")]).unwrap(), []);
    }

    #[test]
    fn a_mistake_names_its_variable() {
        for (variables, named) in [
            (vec![("SLUICE_PEER_A", "a {port}")], "SLUICE_PEER_A_KIND is missing"),
            (vec![("SLUICE_PEER_A", "a {port}"), ("SLUICE_PEER_A_KIND", "grpc")], "SLUICE_PEER_A_KIND=grpc"),
            (vec![("SLUICE_PEER_A", "a"), ("SLUICE_PEER_A_KIND", "rls")], "{port}"),
            (vec![("SLUICE_PEER_A", "a {port} {config}"), ("SLUICE_PEER_A_KIND", "rls")], "SLUICE_PEER_A_CONFIG"),
            (vec![("SLUICE_PEER_A_KIND", "rls")], "SLUICE_PEER_A with the command line"),
        ] {
            let failure = peers(&variables).unwrap_err().to_string();
            assert!(failure.contains(named), "{variables:?}: {failure}");
        }
    }

    #[test]
    fn names_in_braces_are_filled_in() {
        let places = Places { port: 4711, redis_port: 4712 };
        let text = filled("a -p {port} -r {redis_url} {redis_address} -l {limit}", &places);
        assert_eq!(text, "a -p 4711 -r redis://127.0.0.1:4712 127.0.0.1:4712 -l 300");
    }
}
