//! One log line for each decision, with the same fields for any caller.

use std::collections::BTreeSet;
use std::sync::Mutex;

use quota::{AmountMinor, AttemptId, Currency, MerchantId, Mode};
use sluice_kit::health::Health;
use sluice_policy::PolicyBook;
use sluice_policy_source::zones::Zones;
use sluice_settings::Settings;
use sluice_store::MemoryStore;
use tracing::field::{Field, Visit};
use tracing::span;

use super::*;
use crate::request::Operation;

/// A subscriber that keeps the events' fields, which are recorded with their names.
#[derive(Clone, Debug, Default)]
struct Events(Arc<Mutex<Vec<(String, Vec<(String, String)>)>>>);

#[derive(Default)]
struct Fields(Vec<(String, String)>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.0.push((field.name().to_owned(), format!("{value:?}")));
    }
}

impl tracing::Subscriber for Events {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        self.0.lock().unwrap().push((event.metadata().target().to_owned(), fields.0));
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

fn decider() -> Decider<MemoryStore> {
    let metrics = Arc::new(Metrics::new());
    let health = Arc::new(Health::new(Arc::clone(&metrics)));
    let text = "version: v1\ndefault: {timezone: UTC, daily_amount: 100}\n";
    let book = PolicyBook::from_yaml(text, &Zones::compiled_in()).unwrap();
    let env = [("SLUICE_POLICY_FILE".to_owned(), "p".to_owned())];
    let live = Live::fixed(&Settings::load(env.into_iter(), None).unwrap());
    let policies = Arc::new(Policies::new(book, health));
    Decider::new(Arc::new(MemoryStore::new(4)), policies, CreditLines::none(), live, &metrics)
}

/// The lines of a charge above its limit, of one that fits, of its void and of a roll, for one caller.
async fn lines(source: Source) -> Vec<Vec<(String, String)>> {
    let (decider, events) = (decider(), Events::default());
    let guard = tracing::subscriber::set_default(events.clone());
    for (order, operation) in [
        ("above", Operation::Consume(AmountMinor::new(101).unwrap())),
        ("fits", Operation::Consume(AmountMinor::new(100).unwrap())),
        ("fits", Operation::VoidAttempt),
        // Nothing is to be rolled.
        ("", Operation::Roll),
    ] {
        let (merchant, currency) = (MerchantId::parse("m").unwrap(), Currency::parse("USD").unwrap());
        let now_ms = decider.store().now_ms();
        let in_force = decider.in_force(&merchant, currency, None, now_ms).await;
        let request = Request {
            order_no: OrderNo::parse(order).ok(),
            ..Request::new(merchant, currency, AttemptId([1; 16]), operation)
        };
        let (actor, mode) = ("operator".into(), Mode::Enforce);
        let caller = Caller { source, actor, operator_type: "", mode, trace: None };
        decider.decide(decider.prepare(request, caller, in_force, now_ms), Instant::now()).await.unwrap();
    }
    drop(guard);
    let events = events.0.lock().unwrap();
    events.iter().filter(|(target, _)| target == DECISION).map(|(_, fields)| fields.clone()).collect()
}

#[tokio::test]
async fn every_caller_gets_the_same_line() {
    let mut all = BTreeSet::new();
    for source in [Source::Proxy, Source::Api, Source::Job] {
        let lines = lines(source).await;
        let value =
            |line: usize, name: &str| lines[line].iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str());
        // A job's command that is done already leaves no event, and no line.
        assert_eq!(lines.len(), if source == Source::Job { 3 } else { 4 }, "{lines:?}");
        let caller = format!("{:?}", source.into_str());
        for (line, code, action, binding) in [
            (0, "\"DAILY_AMOUNT\"", "\"consume\"", Some("\"daily_amount\"")),
            (1, "\"ADMITTED\"", "\"consume\"", None),
            (2, "\"VOIDED\"", "\"void\"", None),
        ] {
            let found = ["code", "action", "binding", "caller"].map(|name| value(line, name));
            assert_eq!(found, [Some(code), Some(action), binding, Some(&*caller)], "{lines:?}");
        }
        assert!(lines.iter().all(|line| line.iter().any(|(name, value)| name == "message" && value == "decision")));
        all.extend(lines.into_iter().flatten().map(|(name, _)| name));
    }
    // docs/operations.md has each field. Absent ones are not recorded; some need what no charge here has.
    let guide = include_str!("../../../../docs/operations.md");
    let section = guide.split("## Decisions in the log").nth(1).unwrap().split("\n## ").next().unwrap();
    let documented: BTreeSet<&str> = section
        .lines()
        .filter(|line| line.starts_with("| `"))
        .flat_map(|line| line.split(" | ").next().unwrap_or_default().split('`').skip(1).step_by(2))
        .collect();
    let absent: BTreeSet<&str> = ["operation_no", "refusal", "reason", "trace_id"].into();
    let written: BTreeSet<&str> = all.iter().map(String::as_str).filter(|name| *name != "message").collect();
    assert_eq!(written.union(&absent).copied().collect::<BTreeSet<_>>(), documented);
}
