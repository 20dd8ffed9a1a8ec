//! The checks, each a function of one route or of the routes that payments take.

use std::fmt;

use quota::Mode;
use serde_yaml_ng::Value;
use sluice_rules::{Found, Rule};

use super::super::yaml::{at, items, members};
use super::setup::{Host, Setup};

/// The one key that the filter reads in a route's metadata.
const MODE: &str = "mode";
/// The one key that the server reads in a native route's context extensions.
const NATIVE_MODE: &str = "sluice.mode";

/// A configuration that will not work as it is meant, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub is_error: bool,
    place: String,
    text: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.is_error { "error" } else { "warning" };
        write!(f, "{kind}: {}: {}", self.place, self.text)
    }
}

/// Findings with their places.
struct Findings(Vec<Finding>);

impl Findings {
    fn error(&mut self, place: &str, text: impl Into<String>) {
        self.0.push(Finding { is_error: true, place: place.to_owned(), text: text.into() });
    }

    fn warning(&mut self, place: &str, text: impl Into<String>) {
        self.0.push(Finding { is_error: false, place: place.to_owned(), text: text.into() });
    }
}

/// Checks every route.
pub(super) fn check(setup: &Setup) -> Vec<Finding> {
    let mut findings = Findings(Vec::new());
    for host in &setup.hosts {
        let place = format!("virtual host {:?}", host.name);
        filters(setup, &host.config, &place, &mut findings);
        for route in &host.routes {
            let place = format!("{place}, route {}", name_of(route));
            metadata(route, &place, &mut findings);
            filters(setup, route, &place, &mut findings);
            native(setup, route, &place, &mut findings);
        }
        payments(setup, host, &place, &mut findings);
    }
    findings.0
}

/// A route as a person finds it in the file.
fn name_of(route: &Value) -> String {
    match (route.get("name").and_then(Value::as_str), matched(route)) {
        (Some(name), _) => format!("{name:?}"),
        (None, Some((kind, path))) => format!("without a name ({kind}: {path})"),
        (None, None) => "without a name".to_owned(),
    }
}

/// How a route matches paths: the member's name, and the path.
fn matched(route: &Value) -> Option<(&str, &str)> {
    let kinds = ["path", "prefix", "path_separated_prefix"];
    members(route.get("match")).find_map(|(kind, path)| Some((kind, path.as_str()?)).filter(|_| kinds.contains(&kind)))
}

fn metadata(route: &Value, place: &str, findings: &mut Findings) {
    let spaces = at(route, &["metadata", "filter_metadata"]);
    for (space, values) in members(spaces) {
        if space != "sluice" {
            if is_like(space, "sluice") {
                findings.error(
                    place,
                    format!("metadata.filter_metadata has {space:?}, which the filter does not read: write sluice"),
                );
            }
            continue;
        }
        for (key, _) in members(Some(values)).filter(|(key, _)| *key != MODE) {
            findings.error(place, format!("metadata.filter_metadata.sluice has the unknown key {key:?}: write {MODE}"));
        }
        match values.get(MODE) {
            None => {}
            Some(Value::String(word)) if Mode::parse(word).is_some() => {}
            Some(Value::Bool(false)) => {
                findings.error(
                    place,
                    "metadata.filter_metadata.sluice.mode is false, as YAML reads a bare off: write \"off\" in quotes",
                );
            }
            Some(other) => findings.error(place, unknown_mode("metadata.filter_metadata.sluice.mode", other)),
        }
    }
}

fn unknown_mode(what: &str, word: &Value) -> String {
    let word = word.as_str().map_or_else(|| "no text".to_owned(), |word| format!("{word:?}"));
    format!("{what} is {word}, so the route is enforced: write enforce, shadow or \"off\"")
}

/// Names of filters that no listener has: Envoy accepts them, and nothing happens.
fn filters(setup: &Setup, config: &Value, place: &str, findings: &mut Findings) {
    for (name, _) in members(config.get("typed_per_filter_config")) {
        let known = if setup.filters.is_empty() {
            // Without a listener only near misses of our own names are found.
            ![setup.sluice(), setup.native(), "sluice.strip"].iter().any(|own| *own != name && is_like(name, own))
        } else {
            setup.filters.iter().any(|own| own == name)
        };
        if !known {
            let names = if setup.filters.is_empty() {
                format!("{}, sluice.strip, {}", setup.sluice(), setup.native())
            } else {
                setup.filters.join(", ")
            };
            findings.error(
                place,
                format!("typed_per_filter_config names {name:?}, which is no filter of a listener: there are {names}"),
            );
        }
    }
}

/// Whether the route uses Envoy's own filter.
fn is_native(setup: &Setup, route: &Value) -> bool {
    let own = at(route, &["typed_per_filter_config", setup.native()]);
    own.is_some_and(|own| own.get("disabled").and_then(Value::as_bool) != Some(true))
}

fn native(setup: &Setup, route: &Value, place: &str, findings: &mut Findings) {
    if !is_native(setup, route) {
        return;
    }
    let settings = at(route, &["typed_per_filter_config", setup.native(), "check_settings", "context_extensions"]);
    for (key, value) in members(settings) {
        match value.as_str() {
            _ if key != NATIVE_MODE && (key.starts_with("sluice") || is_like(key, NATIVE_MODE)) => {
                findings.error(place, format!("context_extensions has the unknown key {key:?}: write {NATIVE_MODE}"));
            }
            Some(word) if key == NATIVE_MODE && Mode::parse(word).is_some() => {}
            _ if key == NATIVE_MODE => findings.error(place, unknown_mode("context_extensions sluice.mode", value)),
            _ => {}
        }
    }
    if let Some(filter) = &setup.ext_authz {
        let name = &filter.name;
        if !filter.encode_raw_headers {
            findings.error(
                place,
                format!("{name} sends headers in which bytes may be replaced: set encode_raw_headers: true on it"),
            );
        }
        if !filter.pack_as_bytes {
            findings.error(place, format!("{name} sends no body, or one in which bytes may be replaced: set with_request_body.pack_as_bytes: true on it"));
        }
        if filter.failure_mode_allow {
            findings.warning(
                place,
                format!(
                    "{name} has failure_mode_allow: without an answer of the server every payment passes uncounted"
                ),
            );
        }
    }
}

/// The first route of a host that takes a rule's path is the one that its payments take.
fn payments(setup: &Setup, host: &Host, place: &str, findings: &mut Findings) {
    let rules = setup.rules.iter().flat_map(|document| document.rules.rules());
    for rule in rules.filter(|rule| rule.mode != Mode::Off) {
        let Some(route) = host.routes.iter().find(|route| takes(setup, route, rule)) else { continue };
        let place = format!("{place}, route {}, rule {:?}", name_of(route), rule.name);
        let disabled = at(route, &["typed_per_filter_config", setup.sluice(), "disabled"]).and_then(Value::as_bool);
        if disabled == Some(true) && !is_native(setup, route) {
            findings.warning(
                &place,
                "its payments are not checked, because the filter is disabled: correct only where that is intended",
            );
        }
        if is_native(setup, route) && disabled != Some(true) {
            findings
                .warning(&place, format!("its payments are charged by both filters: disable {} here", setup.sluice()));
        }
        repeats(host, route, &place, findings);
    }
}

/// Policies of a route that send a payment to the gateway a second time.
fn repeats(host: &Host, route: &Value, place: &str, findings: &mut Findings) {
    let action = route.get("route");
    let own = |name: &str| action.and_then(|action| action.get(name));
    if own("retry_policy").or_else(|| host.config.get("retry_policy")).is_some() {
        findings.warning(
            place,
            "retry_policy: Envoy sends a payment again whose first try may have been made, and its outcome is unknown",
        );
    }
    if own("hedge_policy").or_else(|| host.config.get("hedge_policy")).is_some() {
        findings.warning(place, "hedge_policy: Envoy may send a payment twice");
    }
    if items(own("request_mirror_policies")).next().is_some() {
        findings.warning(place, "request_mirror_policies: another cluster gets the payment too");
    }
    if own("internal_redirect_policy").is_some() {
        findings.warning(
            place,
            "internal_redirect_policy: Envoy follows a redirect of the gateway with the payment, on another route",
        );
    }
}

/// Whether a route's match takes a rule's payments. Regular expressions are not looked into.
fn takes(setup: &Setup, route: &Value, rule: &Rule) -> bool {
    let example = rule.example();
    let below =
        |prefix: &str| example.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    match matched(route) {
        Some(("path", path)) => setup.rules.as_ref().is_some_and(|document| {
            let found = rule.methods().iter().map(|method| document.rules.find(&(method.as_str(), path)));
            found.into_iter().any(|found| matches!(found, Found::Rule(own, _) if own.name == rule.name))
        }),
        Some(("prefix", prefix)) => example.starts_with(prefix),
        Some(("path_separated_prefix", prefix)) => below(prefix.trim_end_matches('/')),
        Some(_) | None => false,
    }
}

/// Whether a word is another one with one or two typos: case, a letter too many, missing or exchanged.
fn is_like(word: &str, wanted: &str) -> bool {
    let (word, wanted) = (word.to_lowercase(), wanted.to_lowercase());
    let mut row: Vec<usize> = (0..=wanted.chars().count()).collect();
    for (at, letter) in word.chars().enumerate() {
        let mut before = at;
        let mut next = vec![at.saturating_add(1)];
        for (own, above) in wanted.chars().zip(row.iter().skip(1)) {
            let left = next.last().copied().unwrap_or_default();
            let changed = before.saturating_add(usize::from(own != letter));
            next.push(changed.min(left.saturating_add(1)).min(above.saturating_add(1)));
            before = *above;
        }
        row = next;
    }
    row.last().is_some_and(|typos| *typos <= 2)
}
