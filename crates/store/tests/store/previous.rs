//! A server of the release before credit lines, as far as the store sees it: its script (`formats/decide-6.lua`) and its packing
//! of commands, kept as they were.

use quota::{
    Action, AmountMinor, Change, Charge, Code, Command, Effect, Limits, NOW_MS_MAX, OnExpiry, OperationId,
    OperationKind, Order, OrderState, Origins, Reply, Reset, Resolution, Settle, Subject, ThresholdPolicy, shard_of,
};
use redis::Script;
use sluice_store::{keys, packed};

use crate::support::{SHARDS, connect};

const SCRIPT: &str = include_str!("formats/decide-6.lua");
const FORMAT: u8 = 6;

/// A connection of such a server.
pub(crate) struct Previous {
    connection: redis::aio::MultiplexedConnection,
    script: Script,
}

impl Previous {
    pub(crate) async fn open(url: &str, database: usize) -> Self {
        Self { connection: connect(url, database).await, script: Script::new(SCRIPT) }
    }

    /// Decides one command; `None` where its windows have not begun.
    pub(crate) async fn apply(&mut self, command: &Command, store_ms: i64) -> Result<Option<Reply>, String> {
        let shard = shard_of(&command.merchant, SHARDS);
        let mut call = self.script.prepare_invoke();
        call.key(keys::order(shard, &command.merchant, command.order_no.as_ref()));
        let has_account = !command.action.is_of_merchant();
        if has_account {
            call.key(keys::account(shard, &command.merchant, command.currency));
        }
        call.key(keys::merchant(shard, &command.merchant)).key(keys::stream(shard)).key(keys::expiry(shard));
        let policy = command.threshold_policy.as_deref();
        let mut head = Packed(vec![0]);
        let counts = [1, u16::from(has_account), 1, 1, u16::from(policy.is_some())];
        counts.into_iter().for_each(|count| head.u16(count));
        head.number(store_ms.max(0).unsigned_abs());
        call.arg(head.0).arg(command.order_ttl_secs).arg(pack(command)).arg("context");
        if let Some(policy) = policy {
            call.arg(pack_policy(policy));
        }
        let reply: Vec<u8> = call.invoke_async(&mut self.connection).await.map_err(|error| error.to_string())?;
        read(command, &reply)
    }
}

fn read(command: &Command, reply: &[u8]) -> Result<Option<Reply>, String> {
    if reply.first() == Some(&2) {
        return Ok(None);
    }
    let mut rest = reply;
    let record = packed::take_record(&mut rest).map_err(|error| format!("{error}: {}", reply.escape_ascii()))?;
    let amount = command.action.amount().map_or(0, AmountMinor::get);
    let (record, decision_id) = packed::record_and_decision(record, amount).map_err(|error| error.to_string())?;
    let event = rest.strip_prefix(b"\n").ok_or("no line feed behind the record")?;
    let event_seq = event.strip_prefix(b"0-").map(|seq| str::from_utf8(seq).unwrap().parse().unwrap());
    let decision_id = decision_id.unwrap_or(command.decision_id);
    Ok(Some(Reply { record, decision_id, event_id: command.decision_id, event_seq }))
}

fn pack(command: &Command) -> Vec<u8> {
    let plain = packed::is_plain(command, command.order_ttl_secs);
    let history = command.history.as_deref().map(pack_order).unwrap_or_default();
    let mut out = Packed(vec![if plain { 0 } else { op(&command.action) }]);
    let account = u16::from(!command.action.is_of_merchant()) * 2;
    let merchant = if account == 0 { 2 } else { 3 };
    let indexes = [account, 1, merchant, 1, u16::from(command.threshold_policy.is_some())];
    indexes.into_iter().for_each(|index| out.u16(index));
    out.u32(command.backlog_max);
    out.optional(command.action.amount().map(AmountMinor::get));
    if plain {
        out.quiet_maxima(command)
    } else {
        out.maxima(&command.action)
    }
    out.number(command.time_ms());
    out.expected(command);
    out.number(command.windows.since_ms.clamp(0, NOW_MS_MAX).unsigned_abs());
    out.u32(command.order_ttl_secs);
    let refusal = command.action.charge().and_then(|charge| charge.refusal).map_or(0, Code::number);
    let replays_max = command.action.charge().and_then(|charge| charge.replays_max).unwrap_or(255);
    out.0.extend_from_slice(&[flags(command), refusal, replays_max]);
    out.u16(u16::try_from(history.len()).unwrap());
    if plain {
        out.maxima(&command.action)
    } else {
        out.action(command)
    }
    out.0.extend_from_slice(&history);
    out.0
}

fn pack_policy(policy: &ThresholdPolicy) -> Vec<u8> {
    let mut out = Packed(Vec::new());
    out.u16(policy.thresholds().list());
    policy.maxima().iter().for_each(|max| out.number(max.get()));
    let percents = policy.thresholds().percents();
    out.0.push(u8::try_from(percents.len()).unwrap());
    percents.iter().for_each(|percent| out.u16(*percent));
    out.0
}

fn pack_order(order: &Order) -> Vec<u8> {
    let mut out = Packed(vec![FORMAT]);
    out.charged_in(&order.charged_in);
    let flags = [
        (order.pinned, 1),
        (true, 2),
        (order.given_back, 4),
        (order.unknown, 8),
        (order.made, 16),
        (order.doubted, 32),
    ];
    let flags = flags.into_iter().filter_map(|(is_set, flag)| is_set.then_some(flag)).sum();
    out.0.extend_from_slice(&[order.state.number(), flags]);
    out.0.extend_from_slice(order.currency.code().as_bytes());
    out.number(order.amount.get());
    out.u32(order.expires_at_secs);
    out.0.extend_from_slice(&order.decision_id);
    let counts = [order.live.len(), order.voided.len(), order.operations.len()];
    out.0.extend(counts.map(|count| u8::try_from(count).unwrap()));
    order.live.iter().chain(&order.voided).for_each(|attempt| out.0.extend_from_slice(&attempt.0));
    out.u32(order.hold.until_secs);
    out.0.push(u8::from(order.hold.on_expiry == OnExpiry::Settle));
    out.number(order.settled);
    out.number(order.refunded);
    for operation in &order.operations {
        out.0.push(operation.kind.number());
        out.0.extend_from_slice(&operation.id.0);
        out.0.extend_from_slice(&operation.attempt.0);
        out.number(operation.amount.get());
        out.charged_in(&operation.counted);
        out.0.extend_from_slice(&operation.decision_id);
    }
    out.0
}

const fn op(action: &Action) -> u8 {
    match action {
        Action::Consume(_) => 1,
        Action::Hold(..) => 2,
        Action::VoidAttempt => 3,
        Action::Void => 4,
        Action::Settle(_) => 5,
        Action::Refund(_) => 6,
        Action::Release(_) => 7,
        Action::Expire => 8,
        Action::Adjust(_) => 9,
        Action::Reset(_) => 10,
        Action::Suspend => 11,
        Action::Resume => 12,
        Action::Initialize => 13,
        Action::Roll => 14,
        Action::MarkUnknown(_) => 15,
        Action::Resolve(_) => 16,
        Action::SuspendMerchant => 17,
        Action::ResumeMerchant => 18,
        Action::ExtendHold { .. } => 19,
        Action::Post(_) => panic!("it had no credit lines"),
        Action::Grant(_) | Action::Report(_) | Action::ReleaseRight(_) | Action::OrphanRight(_) => {
            panic!("it had no rights")
        }
    }
}

fn flags(command: &Command) -> u8 {
    let effect = match command.effect {
        Effect::Commit => 0,
        Effect::DryRun => 1,
        Effect::DryRunJournaled => 3,
    };
    let is_paced = command.action.charge().is_some_and(|charge| charge.pace.is_some());
    let last_or_reserved = match &command.action {
        Action::Settle(settle) => settle.last,
        Action::Refund(refund) | Action::Release(refund) => refund.reserve,
        _ => false,
    };
    effect + if is_paced { 4 } else { 0 } + if last_or_reserved { 8 } else { 0 }
}

/// Fields one after the other, little endian.
struct Packed(Vec<u8>);

impl Packed {
    fn u16(&mut self, number: u16) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    fn u32(&mut self, number: u32) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    fn number(&mut self, number: u64) {
        self.0.extend_from_slice(&(number as f64).to_le_bytes());
    }

    fn optional(&mut self, number: Option<u64>) {
        let number = number.map_or(-1.0, |number| number as f64);
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    fn charged_in(&mut self, origins: &Origins) {
        self.u32(origins.day.id);
        self.u32(origins.week.id);
        origins.iter().for_each(|(_, origin)| self.0.push(origin.epoch));
    }

    fn maxima(&mut self, action: &Action) {
        match action.charge() {
            Some(charge) => self.windows(&charge.limits),
            None => self.0.extend_from_slice(&[0; 64]),
        }
    }

    fn quiet_maxima(&mut self, command: &Command) {
        let mut limits = command.action.charge().unwrap().limits;
        if let Some(policy) = &command.threshold_policy {
            for (limit, quiet) in ThresholdPolicy::LIMITS.into_iter().zip(policy.quiet_maxima()) {
                let max = limit.max_mut(&mut limits);
                *max = quiet.min(*max);
            }
        }
        self.windows(&limits);
    }

    fn windows(&mut self, limits: &Limits) {
        limits.windows.iter().for_each(|(_, window)| self.number(window.count.get()));
        limits.windows.iter().for_each(|(_, window)| self.number(window.amount.get()));
    }

    fn expected(&mut self, command: &Command) {
        let windows = command.windows.ids.map(|id| quota::Origin { id: *id, epoch: 0 });
        self.0.push(FORMAT);
        self.charged_in(&windows);
        self.0.extend_from_slice(&[0; 11]);
        self.0.push(FORMAT);
        self.charged_in(&windows);
        self.0.extend_from_slice(&[OrderState::Charged.number(), 0]);
        self.0.extend_from_slice(command.currency.code().as_bytes());
        self.number(command.action.amount().map_or(0, AmountMinor::get));
        let expires = command.time_ms() / 1000 + u64::from(command.order_ttl_secs);
        self.u32(u32::try_from(expires).unwrap_or(u32::MAX));
        self.0.extend_from_slice(&command.decision_id);
        self.0.extend_from_slice(&[1, 0, 0]);
        self.0.extend_from_slice(&command.attempt.0);
    }

    fn action(&mut self, command: &Command) {
        match &command.action {
            Action::Consume(charge) => self.pace(charge),
            Action::Hold(charge, terms) => {
                self.number(charge.limits.pending.get());
                self.u32(terms.lifetime_secs);
                self.0.push(u8::from(terms.on_expiry == OnExpiry::Settle));
                self.pace(charge);
            }
            Action::Settle(Settle { id, reported, over_capture_percent, .. }) => {
                self.0.extend_from_slice(&id.0);
                self.0.push(if *reported { 255 } else { *over_capture_percent });
            }
            Action::Refund(refund) | Action::Release(refund) => {
                self.0.extend_from_slice(&refund.id.0);
                self.number(refund.daily_max.get());
                self.number(refund.monthly_max.get());
            }
            Action::ExtendHold { until_secs } => self.u32(*until_secs),
            Action::MarkUnknown(mark) => {
                let none = OperationId([0; 16]);
                let (kind, id) = match mark.subject {
                    Subject::Charge => (0, none),
                    Subject::Capture(id) => (OperationKind::Capture.number(), id),
                    Subject::Refund(id) => (OperationKind::Refund.number(), id),
                    Subject::Void => (OperationKind::Release.number(), none),
                };
                self.0.push(kind);
                self.0.extend_from_slice(&id.0);
            }
            Action::Resolve(resolution) => {
                self.0.push(u8::from(*resolution == Resolution::Made));
                self.0.extend_from_slice(&[0; 16]);
            }
            Action::Adjust(adjust) => {
                let change = match adjust.change {
                    Change::Add(_) => 1,
                    Change::Subtract(_) => 2,
                    Change::Set(_) => 3,
                };
                self.0.extend_from_slice(&[adjust.counter.number(), change]);
                self.optional(adjust.expected_version);
            }
            Action::Reset(Reset { windows, expected_version }) => {
                let bits = windows.iter().filter(|(_, reset)| **reset).map(|(period, _)| 1 << period.number());
                self.0.push(bits.sum());
                self.number(command.windows.until_ms.clamp(0, NOW_MS_MAX).unsigned_abs());
                self.optional(*expected_version);
            }
            Action::VoidAttempt
            | Action::Void
            | Action::Expire
            | Action::Suspend
            | Action::Resume
            | Action::SuspendMerchant
            | Action::ResumeMerchant
            | Action::Post(_)
            | Action::Grant(_)
            | Action::Report(_)
            | Action::ReleaseRight(_)
            | Action::OrphanRight(_)
            | Action::Initialize
            | Action::Roll => {}
        }
    }

    fn pace(&mut self, charge: &Charge) {
        if let Some(pace) = &charge.pace {
            [u64::from(pace.interval_us), pace.tolerance_us, u64::from(pace.delay_ms_max)]
                .into_iter()
                .for_each(|us| self.number(us));
            self.windows(&pace.ceiling);
        }
    }
}
