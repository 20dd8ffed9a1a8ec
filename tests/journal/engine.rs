//! Commands against the real store, as the server makes them.

use std::time::Duration;

use quota::{
    Account, Action, AmountMinor, AttemptId, Calendar, Charge, Code, Command, Currency, Effect, HoldTerms, Limits,
    MerchantId, OnExpiry, OperationId, Order, OrderNo, Refund, Reply, Settle, Weight, shard_of,
};
use sluice_kit::clock;
use sluice_settings::Secret;
use sluice_store::{AuditContext, RedisStore, RedisStoreConfig, Store, StoreTime, keys};
use testkit::{Failure, Result};

use crate::bench::{Bench, SHARDS};

/// How long orders are remembered in most tests.
pub(crate) const ORDER_TTL_SECS: u32 = 3600;
const STORE_TIMEOUT: Duration = Duration::from_secs(10);

/// A store and what is common to a test's commands.
pub(crate) struct Engine {
    pub(crate) store: RedisStore,
    pub(crate) order_ttl_secs: u32,
}

impl Engine {
    pub(crate) fn open(bench: &Bench) -> Result<Self> {
        let (url, timeout) = (Secret::new(bench.redis.url()), STORE_TIMEOUT);
        let store = RedisStore::open(&RedisStoreConfig { url, shards: SHARDS, timeout })?;
        let store = store.with_time(StoreTime::OfCommands);
        Ok(Self { store, order_ttl_secs: ORDER_TTL_SECS })
    }

    /// A command on an order, or on the account where there is none.
    pub(crate) fn command(&self, merchant: &str, order_no: &str, action: Action, now_ms: i64) -> Result<Command> {
        Ok(Command {
            merchant: MerchantId::parse(merchant)?,
            currency: if action.is_of_merchant() { Currency::NONE } else { usd()? },
            order_no: Some(order_no).filter(|text| !text.is_empty()).map(OrderNo::parse).transpose()?,
            attempt: AttemptId::from_text("first"),
            action,
            effect: Effect::Commit,
            decision_id: clock::decision_id(),
            now_ms,
            windows: Calendar::UTC.windows_at(now_ms),
            order_ttl_secs: self.order_ttl_secs,
            backlog_max: 1_000_000,
            threshold_policy: None,
            credit: None,
            history: None,
            payment_no: None,
            operation_no: None,
            channel: None,
        })
    }

    pub(crate) async fn apply(&self, command: &Command) -> Result<Reply> {
        Ok(self.store.apply(command, &audit("proxy", "")).await?)
    }

    pub(crate) async fn run(&self, merchant: &str, order_no: &str, action: Action, now_ms: i64) -> Result<Reply> {
        self.apply(&self.command(merchant, order_no, action, now_ms)?).await
    }

    /// [`Engine::run`] that must be granted.
    pub(crate) async fn grant(&self, merchant: &str, order_no: &str, action: Action, now_ms: i64) -> Result<Reply> {
        let reply = self.run(merchant, order_no, action, now_ms).await?;
        let code = reply.record.code;
        match code {
            Code::Admitted | Code::Applied | Code::Voided => Ok(reply),
            _ => Err(Failure::new(format!("{order_no}: {}", code.as_str()))),
        }
    }

    pub(crate) async fn order(&self, merchant: &str, order_no: &str) -> Result<Option<Order>> {
        Ok(self.store.order(&MerchantId::parse(merchant)?, &OrderNo::parse(order_no)?).await?)
    }

    pub(crate) async fn account(&self, merchant: &str) -> Result<Account> {
        let account = self.store.account(&MerchantId::parse(merchant)?, usd()?).await?;
        account.ok_or_else(|| Failure::new(format!("{merchant} has no account")))
    }

    /// What the order's own expiry does, without waiting for it.
    pub(crate) async fn forget(&self, bench: &Bench, merchant: &str, order_no: &str) -> Result<()> {
        let id = MerchantId::parse(merchant)?;
        let key = keys::order(shard_of(&id, SHARDS), &id, Some(&OrderNo::parse(order_no)?));
        Ok(redis::cmd("DEL").arg(key).query_async::<()>(&mut bench.connection().await?).await?)
    }
}

pub(crate) fn usd() -> Result<Currency> {
    Ok(Currency::parse("USD")?)
}

pub(crate) fn audit(actor: &str, reason: &str) -> AuditContext {
    AuditContext {
        actor: actor.to_owned().into(),
        mode: "enforce",
        reason: reason.to_owned(),
        ..AuditContext::default()
    }
}

fn amount(value: u64) -> AmountMinor {
    AmountMinor::new(value).unwrap_or(AmountMinor::MAX)
}

fn charge(value: u64) -> Charge {
    Charge {
        amount: amount(value),
        weight: Weight::AMOUNT,
        limits: Limits::UNLIMITED,
        refusal: None,
        pace: None,
        replays_max: None,
        refuse_unknown_credit: false,
    }
}

/// The same charge or hold, of which the limits count by a weight.
pub(crate) fn weighed(mut action: Action, weight: Weight) -> Action {
    if let Action::Consume(charge) | Action::Hold(charge, _) = &mut action {
        charge.weight = weight;
    }
    action
}

pub(crate) fn consume(value: u64) -> Action {
    Action::Consume(charge(value))
}

pub(crate) fn hold(value: u64, lifetime_secs: u32, on_expiry: OnExpiry) -> Action {
    Action::Hold(charge(value), HoldTerms { lifetime_secs, on_expiry })
}

/// A capture; `0` captures all that is held.
pub(crate) fn settle(value: u64, number: &str, last: bool) -> Action {
    let amount = Some(amount(value)).filter(|amount| amount.get() > 0);
    Action::Settle(Settle { amount, id: OperationId::of(number), last, over_capture_percent: 20, reported: false })
}

/// A refund; `0` refunds all that is left.
pub(crate) fn refund(value: u64, number: &str) -> Refund {
    Refund {
        amount: Some(amount(value)).filter(|amount| amount.get() > 0),
        id: OperationId::of(number),
        daily_max: AmountMinor::MAX,
        monthly_max: AmountMinor::MAX,
        reserve: false,
    }
}
