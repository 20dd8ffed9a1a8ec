//! What operators watch: Prometheus' rules and the dashboard are well-formed, and ask for nothing that is not exported.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use e2e::client::{Payment, Protocol};
use e2e::stack::{Stack, StackOptions};
use e2e::{Failure, Result, wait};
use promql_parser::label::{MatchOp, Matcher};
use promql_parser::parser::{self, Expr};
use promql_parser::util::{ExprVisitor, parse_duration, walk_expr};
use quota::Code;
use serde_yaml_ng::Value;

use crate::{list, read, text, yaml};

const RULES: &str = "deploy/prometheus/rules.yml";
const DASHBOARD: &str = "deploy/grafana/sluice.json";
/// Prometheus' own.
const OWN: [&str; 1] = ["up"];
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
    for (name, matchers) in asked.filter(|(name, _)| !OWN.contains(&name.as_str())) {
        match metrics.get(&name) {
            None => drop(lacking.insert(name)),
            Some(labels) => {
                let unknown = matchers.iter().filter(|matcher| !labels.contains(&matcher.name));
                lacking.extend(unknown.map(|matcher| format!("{name}{{{}}}", matcher.name)));
            }
        }
    }
    lacking
}

#[tokio::test]
async fn every_metric_they_name_is_exported() -> Result<()> {
    let mut options = StackOptions { policies: Some(POLICIES.to_owned()), ..StackOptions::default() };
    options.server_env.insert("SLUICE_USAGE_RATE_SECS".to_owned(), "1".to_owned());
    let stack = Stack::start(&options)?;
    for (order, amount) in [("1", 900), ("2", 200)] {
        stack.send(Protocol::Http1, Payment::new("near", order, amount).call()).await?;
    }
    // A request to the API is a figure, too.
    let path = format!("{}/stream", e2e::api::ROOT);
    stack.server.get(&path)?;
    let mut missing = BTreeSet::new();
    let all = wait::until("every metric that rules and dashboard name", EXPORTED_WITHIN, || {
        let mut metrics = exported(&stack.server.get("/metrics")?.1);
        for (name, labels) in exported(&stack.envoy.admin("/stats/prometheus")?) {
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
