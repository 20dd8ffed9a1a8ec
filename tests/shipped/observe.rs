//! What operators watch: Prometheus' rules and the dashboard are well-formed, and ask for nothing that is not exported.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use promql_parser::label::{MatchOp, Matcher};
use promql_parser::parser::{self, Expr};
use promql_parser::util::{ExprVisitor, parse_duration, walk_expr};
use quota::Code;
use serde_json::json;
use serde_yaml_ng::Value;
use testkit::api::{self, Caller};
use testkit::client::{Call, Payment, Protocol, send_once};
use testkit::stack::{Stack, StackOptions};
use testkit::{Failure, Result, ensure_eq, wait};

use crate::{list, read, text, yaml};

const RULES: &str = "deploy/prometheus/rules.yml";
const RUNBOOK: &str = "docs/runbook.md";
const DASHBOARD: &str = "deploy/grafana/sluice.json";
/// Prometheus' own.
const OWN: [&str; 1] = ["up"];
/// Exported by the filter's native host alone; the end-to-end tests of panics find it there.
const NATIVE_HOST: [&str; 1] = ["sluice_panicked"];
/// Labels that Prometheus adds to every series.
const ADDED: [&str; 2] = ["job", "instance"];
/// What Grafana puts a duration in the place of.
const INTERVAL: &str = "$__rate_interval";
const EXPORTED_WITHIN: Duration = Duration::from_secs(30);
/// A merchant that one payment brings near its limit.
const POLICIES: &str =
    "version: watched\ndefault: {timezone: UTC, daily_amount: 5000000}\nmerchants:\n  near: {daily_amount: 1000}\n";

/// What an expression asks for: metrics, each with its conditions.
#[derive(Default)]
struct Selectors(Vec<(String, Vec<Matcher>)>);

impl ExprVisitor for Selectors {
    type Error = String;

    fn pre_visit(&mut self, expr: &Expr) -> std::result::Result<bool, String> {
        let selector = match expr {
            Expr::VectorSelector(selector) => selector,
            Expr::MatrixSelector(selector) => &selector.vs,
            _ => return Ok(true),
        };
        let name = selector.name.clone().ok_or("a selector without a name")?;
        self.0.push((name, selector.matchers.matchers.clone()));
        Ok(true)
    }
}

fn selectors(expr: &str) -> Vec<(String, Vec<Matcher>)> {
    let parsed = parser::parse(&expr.replace(INTERVAL, "5m")).unwrap_or_else(|error| panic!("{expr}: {error}"));
    let mut found = Selectors::default();
    walk_expr(&mut found, &parsed).unwrap_or_else(|error| panic!("{expr}: {error}"));
    assert!(!found.0.is_empty(), "{expr} asks for nothing");
    found.0
}

/// Every rule with its name.
fn rules() -> Vec<(String, Value)> {
    let document = yaml(RULES);
    let groups = list(&document["groups"]);
    let rules = groups.iter().flat_map(|group| list(&group["rules"]).to_vec());
    rules.map(|rule| (text(&rule["alert"]), rule)).collect()
}

/// Every expression of the dashboard with its panel's title.
fn panels() -> Vec<(String, String)> {
    let document: serde_json::Value =
        serde_json::from_str(&read(DASHBOARD)).unwrap_or_else(|error| panic!("{DASHBOARD}: {error}"));
    let text =
        |value: &serde_json::Value| value.as_str().map(str::to_owned).unwrap_or_else(|| panic!("no text: {value}"));
    let of_panel = |panel: &serde_json::Value| -> Vec<(String, String)> {
        let targets = panel["targets"].as_array().cloned().unwrap_or_default();
        targets.iter().map(|target| (text(&panel["title"]), text(&target["expr"]))).collect()
    };
    document["panels"].as_array().expect("panels").iter().flat_map(of_panel).collect()
}

#[test]
fn rules_and_dashboard_can_be_read() {
    let mut names = BTreeSet::new();
    for (name, rule) in rules() {
        let keys: BTreeSet<String> = rule.as_mapping().expect("a rule").keys().map(text).collect();
        let known = ["alert", "annotations", "expr", "for", "labels"];
        assert!(keys.iter().all(|key| known.contains(&key.as_str())), "{name}: {keys:?}");
        assert!(matches!(text(&rule["labels"]["severity"]).as_str(), "warning" | "critical"), "{name}");
        assert!(text(&rule["annotations"]["summary"]).ends_with('.'), "{name}");
        if let Some(time) = rule.get("for") {
            parse_duration(&text(time)).unwrap_or_else(|error| panic!("{name}: {error}"));
        }
        selectors(&text(&rule["expr"]));
        assert!(names.insert(name.clone()), "{name} is there twice");
    }
    assert!(names.len() > 20, "{names:?}");
    let panels = panels();
    assert!(panels.len() > 40, "{} expressions", panels.len());
    panels.iter().for_each(|(_, expr)| drop(selectors(expr)));
}

/// The rules choose among decisions by code: their expressions must name those that are meant.
#[test]
fn rules_name_the_codes_that_they_mean() {
    let meant = |status: u16, code: Code| code.http_status() == status;
    for (rule, is_meant) in [
        ("SluiceTooMany429", &(|code| meant(429, code)) as &dyn Fn(Code) -> bool),
        // Codes of checks and charges; what did not succeed is refused.
        ("SluiceRefusals", &|code| !matches!(code, Code::Admitted | Code::Applied)),
    ] {
        let (_, rule) = rules().into_iter().find(|(name, _)| name == rule).expect(rule);
        let asked = selectors(&text(&rule["expr"]));
        let (_, matchers) = asked.iter().find(|(name, _)| name == "quota_operations_total").expect("of decisions");
        let condition = matchers.iter().find(|matcher| matcher.name == "code").expect("a condition on the code");
        for code in Code::ALL {
            let takes = match &condition.op {
                MatchOp::Equal => condition.value == code.as_str(),
                MatchOp::NotEqual => condition.value != code.as_str(),
                MatchOp::Re(regex) => regex.is_match(code.as_str()),
                MatchOp::NotRe(regex) => !regex.is_match(code.as_str()),
            };
            assert_eq!(takes, is_meant(code), "{}", code.as_str());
        }
    }
}

/// The same of days past due, as docs/credit.md has them.
#[test]
fn rules_name_the_days_that_they_mean() {
    let credit = read("docs/credit.md");
    let row = credit.lines().find(|line| line.contains("`sluice_credit_past_due`")).expect("the metric's row");
    let days: Vec<&str> = row.split('`').filter(|word| word.contains("_to_") || word.starts_with("over_")).collect();
    assert_eq!(days, ["1_to_30", "31_to_60", "61_to_90", "over_90"]);
    for (rule, meant) in [("SluiceCreditPastDue", &days[1..]), ("SluiceCreditInDefault", &days[3..])] {
        let (_, rule) = rules().into_iter().find(|(name, _)| name == rule).expect(rule);
        let asked = selectors(&text(&rule["expr"]));
        let (_, matchers) =
            asked.iter().find(|(name, _)| name == "sluice_credit_past_due").expect("of what is past due");
        let takes = |days: &&&str| {
            matchers.iter().filter(|matcher| matcher.name == "days").all(|condition| match &condition.op {
                MatchOp::Equal => condition.value == **days,
                MatchOp::NotEqual => condition.value != **days,
                MatchOp::Re(regex) => regex.is_match(days),
                MatchOp::NotRe(regex) => !regex.is_match(days),
            })
        };
        let taken: Vec<&str> = days.iter().filter(takes).copied().collect();
        assert_eq!(taken, meant);
    }
}

/// Each rule leads to its section of the runbook, which says what it means, where to look and what to do; no section is without a rule.
#[test]
fn every_rule_has_its_section_of_the_runbook() {
    let runbook = read(RUNBOOK);
    let mut sections: BTreeMap<&str, &str> =
        runbook.split("\n## ").skip(1).filter_map(|section| section.split_once('\n')).collect();
    for (name, rule) in rules() {
        let url = text(&rule["annotations"]["runbook_url"]);
        assert_eq!(url, format!("{RUNBOOK}#{}", name.to_ascii_lowercase()), "{name}");
        let section = sections.remove(name.as_str()).unwrap_or_else(|| panic!("{RUNBOOK} has no section {name}"));
        for part in ["- **Means:** ", "- **Look:** ", "- **Do:** "] {
            let said = section.lines().find_map(|line| line.strip_prefix(part));
            assert!(said.is_some_and(|said| said.len() > 10 && said.ends_with('.')), "{name}: {part}{said:?}");
        }
    }
    assert!(sections.is_empty(), "sections without a rule: {:?}", sections.keys());
}

/// The names of metrics in the text form, each with the names of its labels.
fn exported(text: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut metrics: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, rest) = line.split_at(line.find(['{', ' ']).unwrap_or(line.len()));
        let labels = metrics.entry(name.to_owned()).or_default();
        // A label's name stands before each =" that no value contains.
        let before = rest.split("=\"").map(|part| part.rsplit(['{', ',']).next().unwrap_or_default());
        labels.extend(before.filter(|name| !name.contains(['"', '}', ' '])).map(str::to_owned));
    }
    metrics
}

/// What rules and dashboard ask for and these metrics lack.
fn lacking(metrics: &BTreeMap<String, BTreeSet<String>>) -> BTreeSet<String> {
    let rules = rules().into_iter().map(|(_, rule)| text(&rule["expr"]));
    let asked = rules.chain(panels().into_iter().map(|(_, expr)| expr)).flat_map(|expr| selectors(&expr));
    let mut lacking = BTreeSet::new();
    let elsewhere = |name: &str| OWN.contains(&name) || NATIVE_HOST.contains(&name);
    for (name, matchers) in asked.filter(|(name, _)| !elsewhere(name)) {
        match metrics.get(&name) {
            None => drop(lacking.insert(name)),
            Some(labels) => {
                let added = |matcher: &&Matcher| !ADDED.contains(&matcher.name.as_str());
                let unknown = matchers.iter().filter(added).filter(|matcher| !labels.contains(&matcher.name));
                lacking.extend(unknown.map(|matcher| format!("{name}{{{}}}", matcher.name)));
            }
        }
    }
    lacking
}

/// What Prometheus asks.
struct Scrape {
    address: SocketAddr,
    path: String,
}

impl Scrape {
    fn of(&self) -> Result<BTreeMap<String, BTreeSet<String>>> {
        let (status, text) = wait::http_get(self.address, &self.path)?;
        ensure_eq!(status, 200, "{} {}", self.address, self.path);
        Ok(exported(&text))
    }
}

/// The targets of the shipped configuration, by the ports that the other shipped files have for them, where the stack has them.
fn scrapes(stack: &Stack) -> Vec<Scrape> {
    let compose = yaml("docker-compose.yml");
    let probe_port = text(&compose["services"]["authz-server"]["environment"]["SLUICE_PROBE_PORT"]);
    let listeners = yaml("envoy/envoy.yaml")["static_resources"]["listeners"].clone();
    let listener = |port: &str| {
        let socket = |listener: &Value| listener["address"]["socket_address"].clone();
        let is_it = |listener: &&Value| {
            socket(listener)["port_value"].as_u64().map(|own| own.to_string()).as_deref() == Some(port)
        };
        let found =
            list(&listeners).iter().find(is_it).unwrap_or_else(|| panic!("envoy.yaml listens on no port {port}"));
        // Prometheus comes from another machine.
        assert_eq!(text(&socket(found)["address"]), "0.0.0.0");
        text(&found["name"])
    };
    let scrape = |job: &Value| {
        let target = text(&job["static_configs"][0]["targets"][0]);
        let path = job.get("metrics_path").map_or_else(|| "/metrics".to_owned(), text);
        let address = match target.split_once(':') {
            Some(("authz-server", port)) if port == probe_port => stack.server.probe_address(),
            Some(("envoy", port)) if listener(port) == "stats" => stack.envoy.stats_address(),
            _ => panic!("nothing listens on {target}"),
        };
        Scrape { address, path }
    };
    list(&yaml("deploy/prometheus/prometheus.yml")["scrape_configs"]).iter().map(scrape).collect()
}

/// Of Envoy's admin interface others reach the figures, and nothing that changes or shows more.
#[tokio::test]
async fn the_listener_of_figures_has_nothing_else() -> Result<()> {
    let stack = Stack::start(&StackOptions::default())?;
    let figures = "/stats/prometheus";
    let table = [
        ("GET", figures, 200),
        ("GET", "/stats/prometheus?usedonly", 200),
        ("POST", figures, 404),
        ("GET", "/", 404),
        ("GET", "/stats", 404),
        ("GET", "/config_dump", 404),
        ("POST", "/quitquitquit", 404),
        ("POST", "/stats/prometheus/../../quitquitquit", 404),
        ("GET", "/stats/prometheus/%2e%2e/%2e%2e/config_dump", 404),
        ("GET", "//stats/prometheus", 404),
    ];
    for (method, path, status) in table {
        let call = Call::new(method, path);
        let answer = send_once(stack.envoy.stats_address(), Protocol::Http1, call).await?;
        ensure_eq!(answer.status, status, "{method} {path}");
    }
    Ok(())
}

/// A rule whose figure cannot come so far would never fire.
#[test]
fn slow_checks_are_reported_before_they_are_given_up() {
    let (_, rule) = rules().into_iter().find(|(name, _)| name == "SluiceChecksSlow").expect("the rule");
    let expr = text(&rule["expr"]);
    let at_secs: f64 = expr.rsplit("> ").next().and_then(|text| text.trim().parse().ok()).expect("a bound");
    let settings = read("docs/settings.md");
    let row = settings.lines().find(|line| line.contains("`SLUICE_CHECK_TIMEOUT_MS`")).expect("the setting");
    let given_up_ms: f64 = row.split('`').nth(5).and_then(|text| text.parse().ok()).expect("its default");
    assert!(at_secs * 1000.0 < given_up_ms / 2.0, "{at_secs} s, {given_up_ms} ms");
}

/// A line whose sums the next sweep publishes.
async fn open_credit_line(stack: &Stack) -> Result<()> {
    let boss = api::sign(api::secret(), &json!({"sub": "boss", "role": "admin", "exp": api::EXPIRES_AT_SECS}))?;
    let (ana, boss) = (stack.caller(), Caller::new(stack.server.admin_address(), &boss));
    let line = json!({"line": {"merchant_id": "on-credit", "currency": "USD", "limit_base": 1_000}});
    let path = "/credit-lines/on-credit/USD";
    api::expect(&ana.post("/credit-lines", &line).await?, 201, &json!({}));
    for step in ["approve", "activate"] {
        api::expect(&boss.post(&format!("{path}/{step}"), &json!({})).await?, 200, &json!({}));
    }
    Ok(())
}

#[tokio::test]
async fn every_metric_they_name_is_exported() -> Result<()> {
    let mut options = StackOptions { policies: Some(POLICIES.to_owned()), ..StackOptions::default() };
    // Prometheus' token is the operators' to make; without one this setting shows merchants, too.
    let settings =
        [("SLUICE_USAGE_RATE_SECS", "1"), ("SLUICE_METRICS_MERCHANTS", "true"), ("SLUICE_WINDOW_SWEEP_SECS", "10")];
    for (name, value) in settings {
        options.server_env.insert(name.to_owned(), value.to_owned());
    }
    let stack = Stack::start(&options)?;
    for (order, amount) in [("1", 900), ("2", 200)] {
        stack.send(Protocol::Http1, Payment::new("near", order, amount).call()).await?;
    }
    open_credit_line(&stack).await?;
    // A request to the API is a figure, too.
    let path = format!("{}/stream", testkit::api::ROOT);
    stack.server.get(&path)?;
    let scrapes = scrapes(&stack);
    let mut missing = BTreeSet::new();
    let all = wait::until("every metric that rules and dashboard name", EXPORTED_WITHIN, || {
        let mut metrics = BTreeMap::<String, BTreeSet<String>>::new();
        for (name, labels) in scrapes.iter().map(Scrape::of).collect::<Result<Vec<_>>>()?.into_iter().flatten() {
            metrics.entry(name).or_default().extend(labels);
        }
        missing = lacking(&metrics);
        Ok(missing.is_empty().then_some(metrics))
    });
    let metrics = all.map_err(|failure| Failure::new(format!("{failure}; missing are {missing:?}")))?;
    for (name, labels) in [("quota_usage_rate", ["merchant_id", "currency"]), ("quota_alerts_total", ["type", "level"])]
    {
        assert!(labels.iter().all(|label| metrics[name].contains(*label)), "{name}: {:?}", metrics[name]);
    }
    Ok(())
}
