//! Makes a command of what was asked: with the policy in force, its windows of now, and a decision id.

use quota::{
    Action, AmountMinor, Charge, Command, Dry, HoldTerms, Mark, OperationId, Policy, Refund, Resolution, Settle,
    Subject,
};

use super::ACTOR;
use super::ask::{Ask, OutcomeOf, What};
use sluice_decision::operations::capture_id;
use sluice_kit::clock;
use sluice_kit::telemetry::spans;
use sluice_settings::LiveSettings;
use sluice_store::Notes;
use sluice_store::refusal;

/// The command that decides an ask under a policy, where there is one.
pub(super) fn command(ask: Ask, policy: Option<&Policy>, now_ms: i64, live: &LiveSettings) -> (Command, Notes) {
    let decision_id = clock::decision_id();
    let action = action(&ask, policy);
    let notes = Notes {
        actor: ACTOR.to_owned(),
        mode: ask.mode.as_str(),
        policy_version: policy.map(|policy| policy.version.to_string()).unwrap_or_default(),
        trace: spans::of_decision(ask.trace, decision_id),
        reason: ask.reason.clone(),
        refusal: refusal::by_policy(&action, policy),
        ..Notes::default()
    };
    let command = Command {
        action,
        merchant: ask.merchant,
        currency: ask.currency,
        order_no: ask.order_no,
        attempt: ask.attempt,
        dry: ask.dry,
        decision_id,
        now_ms,
        // Without a policy there is no calendar: the windows stay as they are stored.
        windows: policy.map(|policy| policy.windows_at(now_ms)).unwrap_or_default(),
        order_ttl_secs: bounded(live.order_ttl_secs),
        backlog_max: bounded(live.backlog_events_max),
        watch: policy.and_then(|policy| policy.watch.clone()),
        history: None,
        payment_no: ask.payment_no,
        operation_no: ask.operation_no,
        channel: ask.channel,
    };
    (command, notes)
}

fn action(ask: &Ask, policy: Option<&Policy>) -> Action {
    match ask.what {
        What::Consume(amount) => Action::Consume(charge(ask, amount, policy)),
        What::Hold(amount) => {
            let terms = policy.map_or(HoldTerms::DEFAULT, |policy| policy.hold);
            Action::Hold(charge(ask, amount, policy), terms)
        }
        What::Settle { amount, last } => {
            let over_capture_percent = policy.map_or(0, |policy| policy.over_capture_percent);
            // A capture that is tried before the gateway is asked keeps to the policy's bound; one that it has made is told.
            let reported = ask.dry == Dry::No;
            Action::Settle(Settle { amount, id: operation_id(ask), last, over_capture_percent, reported })
        }
        What::Refund { amount, reserve } => Action::Refund(Refund::under(policy, amount, operation_id(ask), reserve)),
        What::Unknown { of, amount, .. } => {
            let subject = match of {
                OutcomeOf::Charge => Subject::Charge,
                OutcomeOf::Capture => Subject::Capture(operation_id(ask)),
                OutcomeOf::Refund => Subject::Refund(operation_id(ask)),
                OutcomeOf::Void => Subject::Void,
            };
            Action::MarkUnknown(Mark { subject, amount })
        }
        What::Made => Action::Resolve(Resolution::Made),
        What::VoidAttempt => Action::VoidAttempt,
        What::Void => Action::Void,
    }
}

fn charge(ask: &Ask, amount: AmountMinor, policy: Option<&Policy>) -> Charge {
    let mut charge = Charge::under(policy, amount, ask.currency, ask.channel.as_ref());
    charge.replays_max = ask.replays_max;
    if let Some(pace) = charge.pace.as_mut().filter(|_| ask.is_native()) {
        // Envoy's own filter cannot hold a request back: a charge that would have to wait is refused until its turn.
        pace.delay_ms_max = 0;
    }
    charge
}

/// A last capture without a number is the order's only one, as it is for the API: a sale that is tried again is told again, and
/// counts once. One that others follow is known by its attempt.
fn operation_id(ask: &Ask) -> OperationId {
    match (&ask.operation_no, ask.what) {
        (Some(number), _) => OperationId::of(number.as_str()),
        (None, What::Settle { last: true, .. } | What::Unknown { of: OutcomeOf::Capture, last: true, .. }) => {
            capture_id(None)
        }
        (None, _) => OperationId::of(&ask.attempt.to_string()),
    }
}

/// The word of a command in metrics: a dry run is none of the operation that it tries.
pub(super) const fn label(command: &Command) -> &'static str {
    match command.dry {
        Dry::No => command.action.as_str(),
        Dry::Silent | Dry::Noted => "check",
    }
}

/// The settings' own bounds are far below.
fn bounded(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use quota::{AttemptId, Currency, MerchantId, Mode, OperationNo, OrderNo};
    use sluice_policy::PolicyBook;
    use sluice_rules::{Document, Rule};

    use super::*;

    /// Any rule.
    fn rule() -> Arc<Rule> {
        let text = r#"{"rules": [{"name": "p", "match": {"methods": ["POST"], "path": "/p"}, "unit": "minor", "extract":
            {"merchant": [{"header": "m"}], "amount": [{"header": "a"}], "currency": [{"header": "c"}], "order_no": [{"header": "o"}]}}]}"#;
        Arc::clone(&Document::from_json(text.as_bytes()).unwrap().rules.rules()[0])
    }

    fn ask(what: What, number: Option<&str>, is_native: bool) -> Ask {
        Ask {
            merchant: MerchantId::parse("m").unwrap(),
            currency: Currency::parse("USD").unwrap(),
            order_no: OrderNo::parse("o").ok(),
            attempt: AttemptId([7; 16]),
            what,
            dry: Dry::No,
            operation_no: number.map(|number| OperationNo::parse(number).unwrap()),
            payment_no: None,
            channel: None,
            mode: Mode::Enforce,
            trace: None,
            reason: String::new(),
            replays_max: None,
            rule: is_native.then(rule),
        }
    }

    #[test]
    fn the_policys_terms_are_in_the_command() {
        let text = "version: v1\ndefault: {timezone: UTC, daily_amount: 5000, refund_daily_amount: 70, \
            breach: {throttle: {per_minute: 60, burst: 1, delay_ms_max: 2000, ceiling_percent: 150}}}\n";
        let book = PolicyBook::from_yaml(text, &sluice_policy_source::zones::Zones::compiled_in()).unwrap();
        let amount = AmountMinor::new(5).unwrap();
        let made = |what, number, is_native| {
            let ask = ask(what, number, is_native);
            let policy = book.effective(&ask.merchant, ask.currency, None, 0).unwrap();
            action(&ask, Some(policy))
        };
        let delay_ms_max = |action| match action {
            Action::Consume(charge) | Action::Hold(charge, _) => charge.pace.unwrap().delay_ms_max,
            other => panic!("{other:?}"),
        };
        for what in [What::Consume(amount), What::Hold(amount)] {
            assert_eq!(delay_ms_max(made(what, None, false)), 2000);
            assert_eq!(delay_ms_max(made(what, None, true)), 0, "Envoy's own filter holds nothing back");
        }
        let Action::Refund(refund) = made(What::Refund { amount: None, reserve: true }, Some("r"), false) else {
            panic!("no refund")
        };
        assert_eq!((refund.daily_max.get(), refund.reserve, refund.id), (70, true, OperationId::of("r")));
        let settle = |number| match made(What::Settle { amount: None, last: false }, number, false) {
            Action::Settle(settle) => settle,
            other => panic!("{other:?}"),
        };
        assert_eq!((settle(Some("c")).id, settle(Some("c")).last), (OperationId::of("c"), false));
        // Without a number a capture is its attempt's, or the order's only one.
        assert_eq!(settle(None).id, OperationId::of(&AttemptId([7; 16]).to_string()));
        let Action::Settle(only) = made(What::Settle { amount: None, last: true }, None, false) else {
            panic!("no capture")
        };
        assert_eq!((only.id, only.last), (capture_id(None), true));
    }
}
