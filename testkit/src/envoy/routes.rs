//! Switching one route of a route file.

use serde_yaml_ng::Value;

use crate::failure::{Context, Failure, Result};

/// What a route does with payments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteState {
    Enforce,
    Shadow,
    /// The filter runs and sees by the route's metadata that it has nothing to do.
    Off,
    /// The filter is not run.
    Removed,
}

/// The route file with one route switched. Comments are lost in the copy.
///
/// # Errors
/// When the text is not a route file or has no such route.
pub fn with_route(routes: &str, name: &str, state: RouteState) -> Result<String> {
    let mut document: Value = serde_yaml_ng::from_str(routes).context("the route file")?;
    let route = find(&mut document, name).ok_or_else(|| Failure::new(format!("no route is named {name}")))?;
    route.remove("metadata");
    route.remove("typed_per_filter_config");
    let change = match state {
        RouteState::Enforce => "{}",
        RouteState::Shadow => "metadata: {filter_metadata: {sluice: {mode: shadow}}}",
        RouteState::Off => "metadata: {filter_metadata: {sluice: {mode: 'off'}}}",
        RouteState::Removed => {
            "typed_per_filter_config:
               sluice: {'@type': type.googleapis.com/envoy.config.route.v3.FilterConfig, disabled: true}
               sluice.strip: {'@type': type.googleapis.com/envoy.config.route.v3.FilterConfig, config: {}}"
        }
    };
    let change: serde_yaml_ng::Mapping = serde_yaml_ng::from_str(change)?;
    route.extend(change);
    super::config::quoted(&document)
}

fn find<'a>(document: &'a mut Value, name: &str) -> Option<&'a mut serde_yaml_ng::Mapping> {
    let hosts = document.get_mut("resources")?.get_mut(0)?.get_mut("virtual_hosts")?.as_sequence_mut()?;
    let routes = hosts.iter_mut().filter_map(|host| host.get_mut("routes")?.as_sequence_mut()).flatten();
    let mut named = routes.filter(|route| route.get("name").and_then(Value::as_str) == Some(name));
    named.next()?.as_mapping_mut()
}
