//! The payments that are counted: new orders of a few merchants under limits that they do not reach.

use std::collections::HashMap;
use std::sync::Arc;

use proto::envoy::{AttributeContext, CheckRequest};
use proto::extension;
use quota::{
    Action, AmountMinor, AttemptId, Calendar, Charge, Command, Currency, Effect, Limits, MerchantId, OrderNo,
    PerPeriod, ThresholdPolicy, Thresholds, Weight, WindowIds, WindowLimits,
};
use sluice_kit::clock;
use sluice_kit::telemetry::Trace;
use sluice_store::{AuditContext, Call};
use testkit::{Failure, Result};

/// Payments that go together, about as many as under load.
pub const BATCH: usize = 11;
/// Merchants in turn: the payments of a batch are of different ones.
const MERCHANTS: usize = 16;
const AMOUNT_MINOR: u64 = 1_050;
const CURRENCY: &str = "USD";
/// Far away: no payment is refused, and no threshold reached.
const LIMIT_MINOR: u64 = 1_000_000_000_000;
const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
const POLICY_VERSION: &str = "2026-11-20";

/// Makes one payment after the other.
#[derive(Debug)]
pub struct Payments {
    made: usize,
    limits: Limits,
    threshold_policy: Arc<ThresholdPolicy>,
    /// Those of the start: none closes meanwhile.
    windows: WindowIds,
}

impl Payments {
    /// None made yet.
    #[must_use]
    pub fn new() -> Self {
        let limit = AmountMinor::new(LIMIT_MINOR).unwrap_or(AmountMinor::MAX);
        let limits = Limits {
            windows: PerPeriod::from_fn(|_| WindowLimits { amount: limit, ..WindowLimits::UNLIMITED }),
            ..Limits::UNLIMITED
        };
        let threshold_policy = Arc::new(ThresholdPolicy::new(&limits, Thresholds::DEFAULT));
        Self { made: 0, limits, threshold_policy, windows: Calendar::UTC.windows_at(clock::now_ms()) }
    }

    /// The policy document under which a server decides them.
    #[must_use]
    pub fn policies() -> String {
        let of = |period| format!("{period}_amount: {LIMIT_MINOR}");
        let limits = ["daily", "weekly", "monthly", "yearly"].map(of).join(", ");
        format!("version: {POLICY_VERSION:?}\ndefault: {{timezone: UTC, {limits}}}\n")
    }

    fn next(&mut self) -> (String, String, String) {
        let number = self.made;
        self.made += 1;
        (format!("m-{:02}", number % MERCHANTS), format!("o-{number:012}"), format!("{number:032x}"))
    }

    /// The next payment as the proxy filter sends it.
    #[must_use]
    pub fn check(&mut self) -> CheckRequest {
        let (merchant, order_no, attempt) = self.next();
        let amount = AMOUNT_MINOR.to_string();
        let extensions = [
            (extension::ACTION, extension::ACTION_CONSUME),
            (extension::MERCHANT, &merchant),
            (extension::AMOUNT_MINOR, &amount),
            (extension::CURRENCY, CURRENCY),
            (extension::ORDER_NO, &order_no),
            (extension::ATTEMPT, &attempt),
            (extension::MODE, "enforce"),
            (extension::TRACEPARENT, TRACEPARENT),
        ];
        let context_extensions: HashMap<_, _> =
            extensions.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        CheckRequest { attributes: Some(AttributeContext { context_extensions }) }
    }

    /// The next payment as the server gives it to the store.
    ///
    /// # Errors
    /// None that happens.
    pub fn command(&mut self) -> Result<Call> {
        let (merchant, order_no, attempt) = self.next();
        let charge = Charge {
            amount: AmountMinor::new(AMOUNT_MINOR).ok_or_else(|| Failure::new("no amount"))?,
            weight: Weight::AMOUNT,
            limits: self.limits,
            refusal: None,
            pace: None,
            replays_max: None,
            refuse_unknown_credit: false,
        };
        let command = Command {
            merchant: MerchantId::parse(&merchant)?,
            currency: Currency::parse(CURRENCY)?,
            order_no: Some(OrderNo::parse(&order_no)?),
            attempt: AttemptId::from_text(&attempt),
            action: Action::Consume(charge),
            effect: Effect::Commit,
            decision_id: clock::decision_id(),
            now_ms: clock::now_ms(),
            windows: self.windows,
            order_ttl_secs: 86_400,
            backlog_max: 1_000_000,
            threshold_policy: Some(Arc::clone(&self.threshold_policy)),
            credit: None,
            history: None,
            payment_no: None,
            operation_no: None,
            channel: None,
        };
        let audit = AuditContext {
            actor: "proxy".into(),
            mode: "enforce",
            policy_version: POLICY_VERSION.into(),
            trace: Trace::parse(TRACEPARENT),
            ..AuditContext::default()
        };
        Ok(Arc::new((command, audit)))
    }

    /// The next batch of [`Payments::command`].
    ///
    /// # Errors
    /// None that happens.
    pub fn commands(&mut self) -> Result<Vec<Call>> {
        (0..BATCH).map(|_| self.command()).collect()
    }
}

impl Default for Payments {
    fn default() -> Self {
        Self::new()
    }
}
