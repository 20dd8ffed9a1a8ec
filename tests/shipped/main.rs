//! The shipped files agree with each other and with the code: Envoy's configuration, the rules, compose, Dockerfile, what
//! operators watch.

#![expect(
    clippy::panic,
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "helpers of tests, outside of the test functions"
)]

mod arrows;
mod findings;
mod observe;
mod words;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use filter::delays::DELAY_MS_MAX;
use quota::Throttle;
use serde_yaml_ng::Value;
use sluice_rules::{Document, Found};
use testkit::dirs::workspace;
use testkit::envoy::{EnvoyConfig, Host, RouteState, with_route};

fn read(path: &str) -> String {
    fs::read_to_string(workspace().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn yaml(path: &str) -> Value {
    serde_yaml_ng::from_str(&read(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("not a text: {value:?}")).to_owned()
}

fn list(value: &Value) -> &[Value] {
    value.as_sequence().unwrap_or_else(|| panic!("not a list: {value:?}"))
}

/// Host and port of a cluster's only endpoint.
fn endpoint(envoy: &Value, cluster: &str) -> (String, u64) {
    let clusters = list(&envoy["static_resources"]["clusters"]);
    let cluster = clusters.iter().find(|entry| entry["name"].as_str() == Some(cluster)).expect(cluster);
    let address =
        &cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"]["socket_address"];
    (text(&address["address"]), address["port_value"].as_u64().expect("a port"))
}

#[test]
fn the_filter_and_the_server_read_the_same_valid_rules() {
    let mut config = EnvoyConfig::shipped(Path::new("filter.wasm")).unwrap();
    let rules: serde_json::Value = serde_json::from_str(&read("envoy/rules.json")).unwrap();
    assert_eq!(
        config.plugin().unwrap(),
        rules,
        "envoy/envoy.yaml's plugin configuration differs from envoy/rules.json"
    );
    let document = Document::from_json(read("envoy/rules.json").as_bytes()).unwrap();
    let cluster = document.cluster.expect("the filter needs a cluster");
    endpoint(&yaml("envoy/envoy.yaml"), &cluster);
}

/// The native host's configuration is the wasm host's but for the filter, the access log's place of its decision, and metric names.
#[test]
fn the_native_configuration_differs_in_the_filter_only() {
    let mut own = EnvoyConfig::of(Host::Native, Path::new("filter.so")).unwrap();
    let mut wasm = EnvoyConfig::shipped(Path::new("filter.wasm")).unwrap();
    let mut document = own.plugin().unwrap();
    let servers = document.as_object_mut().unwrap().remove("servers").unwrap();
    let (host, port) = endpoint(&yaml("envoy/envoy.yaml"), "sluice_authz");
    assert_eq!(servers, serde_json::json!([format!("http://{host}:{port}")]));
    let mut rules = wasm.plugin().unwrap();
    rules.as_object_mut().unwrap().remove("cluster");
    assert_eq!(document, rules, "envoy/envoy-native.yaml's rules differ from envoy/envoy.yaml's");
    let filter = wasm.http_filter("sluice").unwrap().clone();
    *own.http_filter("sluice").unwrap() = filter;
    let wasm = wasm.bootstrap().clone();
    let own = own.bootstrap();
    own.as_mapping_mut().unwrap().remove("layered_runtime").expect("names of metrics");
    let log = "listeners.0.filter_chains.0.filters.0.typed_config.access_log.0.typed_config.log_format.json_format";
    let log = |config: &Value| {
        let start = &config["static_resources"];
        log.split('.').fold(start.clone(), |value, step| match step.parse::<usize>() {
            Ok(at) => value[at].clone(),
            Err(_) => value[step].clone(),
        })
    };
    let (shown, expected) = (text(&log(own)["sluice"]), text(&log(&wasm)["sluice"]));
    assert_eq!(shown, "%DYNAMIC_METADATA(envoy.filters.http.ext_authz)%");
    assert!(expected.ends_with(": metadata.filter_metadata['envoy.filters.http.ext_authz'])%"), "{expected}");
    let as_text = |config: &Value| serde_json::to_string(config).unwrap();
    assert_eq!(as_text(own).replace(&shown, &expected), as_text(&wasm));
}

/// Seconds of one of the connection manager's timeouts.
fn timeout_secs(envoy: &Value, name: &str) -> u64 {
    let filters = &envoy["static_resources"]["listeners"][0]["filter_chains"][0]["filters"];
    let text = text(&filters[0]["typed_config"][name]);
    text.strip_suffix('s').and_then(|secs| secs.parse().ok()).unwrap_or_else(|| panic!("{name}: {text}"))
}

/// Envoy's timers go on while the filter holds a payment back: what was charged for one would be given back, and the payment lost.
#[test]
fn the_longest_delay_fits_into_envoys_timeouts() {
    const BODY_SECS: u64 = 10;
    let document = Document::from_json(read("envoy/rules.json").as_bytes()).unwrap();
    let check_ms = document.rules.rules().iter().map(|rule| rule.timeout_ms).max().expect("a rule");
    const { assert!(Throttle::DELAY_MS_MAX <= DELAY_MS_MAX, "the filter holds back for as long as a policy may ask") };
    let held_secs = u64::from(DELAY_MS_MAX + check_ms).div_ceil(1000);
    let envoy = yaml("envoy/envoy.yaml");
    assert!(timeout_secs(&envoy, "stream_idle_timeout") > held_secs);
    assert!(timeout_secs(&envoy, "request_timeout") >= held_secs + BODY_SECS);
}

#[test]
fn every_payment_route_has_a_rule_and_ends_in_a_known_cluster() {
    let document = Document::from_json(read("envoy/rules.json").as_bytes()).unwrap();
    let envoy = yaml("envoy/envoy.yaml");
    let routes = yaml("envoy/routes.yaml");
    let routes = list(&routes["resources"][0]["virtual_hosts"][0]["routes"]);
    for route in routes {
        endpoint(&envoy, &text(&route["route"]["cluster"]));
        if let Some(path) = route["match"]["path"].as_str() {
            assert!(matches!(document.rules.find(&("POST", path)), Found::Rule(..)), "no rule matches {path}");
        }
    }
    let last = routes.last().expect("a route");
    assert_eq!(last["match"]["prefix"].as_str(), Some("/"), "the last route must catch every other path");
    assert!(last.get("typed_per_filter_config").is_none(), "the last route must go through the filter");
}

#[test]
fn a_route_is_switched_by_name() {
    let shipped = read("envoy/routes.yaml");
    for (state, mark) in [
        (RouteState::Shadow, r#""mode": "shadow""#),
        (RouteState::Off, r#""mode": "off""#),
        (RouteState::Removed, r#""disabled": true"#),
        (RouteState::Enforce, ""),
    ] {
        let switched = with_route(&shipped, "payments", state).unwrap();
        let routes: Value = serde_yaml_ng::from_str(&switched).unwrap();
        let route = &routes["resources"][0]["virtual_hosts"][0]["routes"][0];
        assert_eq!(route["name"].as_str(), Some("payments"));
        assert!(switched.contains(mark), "{state:?}: {switched}");
    }
    assert!(with_route(&shipped, "nonsense", RouteState::Off).is_err());
}

#[test]
fn compose_names_what_exists() {
    let compose = yaml("docker-compose.yml");
    let dockerfile = read("Dockerfile");
    let stages: BTreeSet<&str> = dockerfile.lines().filter_map(|line| line.split(" AS ").nth(1)).collect();
    let services = compose["services"].as_mapping().expect("services");
    for (name, service) in services {
        if let Some(target) = service["build"]["target"].as_str() {
            assert!(stages.contains(target), "{name:?}: the Dockerfile has no stage {target}");
        }
        let mounts = service.get("volumes").map(list).unwrap_or_default();
        for source in mounts.iter().map(text).filter_map(|mount| mount.split(':').next().map(str::to_owned)) {
            let exists = if source.starts_with('.') {
                workspace().join(&source).is_dir()
            } else {
                compose["volumes"].as_mapping().expect("volumes").contains_key(source.as_str())
            };
            assert!(exists, "{name:?} mounts {source}, which does not exist");
        }
    }
}

#[test]
fn compose_gives_envoy_and_server_the_addresses_and_files_they_ask_for() {
    let compose = yaml("docker-compose.yml");
    let services = &compose["services"];
    let envoy = yaml("envoy/envoy.yaml");
    let server = &services["authz-server"]["environment"];
    let (host, port) = endpoint(&envoy, "sluice_authz");
    assert_eq!((host.as_str(), port.to_string()), ("authz-server", text(&server["GRPC_PORT"])));
    let (host, port) = endpoint(&envoy, "gateway");
    assert!(services.get(&host).is_some(), "compose has no service {host}");
    assert!(read("Dockerfile").contains(&format!("0.0.0.0:{port}")), "the sample gateway listens elsewhere");
    let listener = envoy["static_resources"]["listeners"][0]["address"]["socket_address"]["port_value"].as_u64();
    let ports = list(&services["envoy"]["ports"]);
    assert_eq!(ports.len(), 1, "payments only: {ports:?}");
    let published = text(&ports[0]);
    assert_eq!(published.split(':').nth(1).map(str::to_owned), listener.map(|port| port.to_string()));
    for (variable, mounted, folder) in
        [("SLUICE_RULES_FILE", "/etc/envoy/", "envoy"), ("SLUICE_POLICY_FILE", "/etc/sluice/", "deploy")]
    {
        let path = text(&server[variable]);
        let name = path.strip_prefix(mounted).unwrap_or_else(|| panic!("{variable} is outside {mounted}"));
        assert!(workspace().join(folder).join(name).is_file(), "{variable}: {folder}/{name} is missing");
    }
    assert!(read("Dockerfile").contains("/opt/sluice/filter.wasm"));
    assert!(read("envoy/envoy.yaml").contains("/opt/sluice/filter.wasm"));
}

/// X9: compose ships no secret, and the port that takes charges without a token stays inside of its network.
#[test]
fn x9_compose_ships_no_secret_and_publishes_no_open_port() {
    let compose = yaml("docker-compose.yml");
    let server = &compose["services"]["authz-server"];
    assert!(text(&server["environment"]["JWT_SECRET"]).starts_with("${JWT_SECRET:?"));
    assert_eq!(text(&server["environment"]["SLUICE_GRPC_BIND"]), "0.0.0.0");
    let port = text(&server["environment"]["GRPC_PORT"]);
    for published in list(&server["ports"]).iter().map(text) {
        assert!(published.starts_with("127.0.0.1:") && !published.ends_with(&port), "{published}");
    }
    assert!(
        read(".gitignore").lines().chain(read(".dockerignore").lines()).filter(|line| *line == ".env").count() == 2
    );
}

/// X9: no secret that stands beside `JWT_SECRET` in a file of this repository is one that the server takes.
#[test]
fn x9_no_secret_of_this_repository_signs_tokens() {
    let mut folders = vec![workspace().to_path_buf()];
    let mut looked_at = 0;
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap().flatten() {
            let (path, name) = (entry.path(), entry.file_name());
            if path.is_dir() {
                folders.extend((name != "target" && name != ".git").then_some(path));
                continue;
            }
            let Ok(content) = fs::read_to_string(&path) else { continue };
            for secret in content
                .lines()
                .filter(|line| line.contains("JWT_SECRET"))
                .flat_map(|line| line.split('"').skip(1).step_by(2))
            {
                if secret.len() < 32 || secret.contains("JWT_SECRET") {
                    continue;
                }
                let env = [("SLUICE_POLICY_FILE", "/p.yaml"), ("JWT_SECRET", secret)];
                let env = env.map(|(name, value)| (name.to_owned(), value.to_owned()));
                let taken = sluice_settings::Settings::load(env.into_iter(), None).is_ok();
                assert!(!taken, "{}: {secret}", path.display());
                looked_at += 1;
            }
        }
    }
    assert!(looked_at > 0, "nothing was looked at");
}

/// docs/promises.md has a section for each promise, with a row for each test.
#[test]
fn the_tests_of_the_promises_exist() {
    let document = read("docs/promises.md");
    for number in 1..=10 {
        let heading = format!("\n## Q-{number} ");
        let section = document.split(&heading).nth(1).and_then(|rest| rest.split("\n## ").next()).unwrap_or_default();
        assert!(section.lines().any(|line| line.starts_with("| `")), "Q-{number} has no test");
    }
    document.lines().filter(|line| line.starts_with("| `")).for_each(assert_tests_exist);
}

/// Checks that the tests exist which a row names: a file and names in it, all in backticks.
fn assert_tests_exist(row: &str) {
    let mut file = None;
    let mut named = 0;
    for word in row.split('`').skip(1).step_by(2) {
        if word.ends_with(".rs") {
            file = Some((word, read(word)));
        } else if let Some((path, source)) = file.as_ref().filter(|_| word.contains('_')) {
            // Written as a function, or as the name of a test that a suite adds, perhaps once for each protocol.
            let spellings = [format!("fn {word}("), format!("::{word}\""), format!("::{word}::")];
            let found = spellings.iter().any(|spelling| source.contains(spelling));
            assert!(found, "{path} has no {word}");
            named += 1;
        }
    }
    assert!(named > 0, "no test is named in: {row}");
}
