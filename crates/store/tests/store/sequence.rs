//! One sequence of commands, given to the script and to the reference ledger: replies, accounts, orders, events and the
//! expiry of holds are compared.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{Debug, Display};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use prost::Message;
use proto::journal::EventContext;
use quota::{
    Action, Code, Command, Crossing, Effect, MerchantId, NOW_MS_MAX, OrderNo, OrderState, Origins, Record, Reply,
};
use redis::aio::MultiplexedConnection;
use sluice_store::{
    AuditContext, MemoryStore, OutstandingRight, RedisStore, Store, StoreError, StoreTime, keys, packed,
};

use crate::books::Books;
use crate::generate::Generator;
use crate::support::{SHARDS, connect, open_with_script};

/// Between so many commands the events are compared, and taken out of both as the journal does.
const EVENTS_COMPARED_EVERY: usize = 500;
/// After one of so many calls the account and the order of its last command are compared; at the end all are.
const STATE_COMPARED_EVERY: usize = 8;

/// Commands that are asked for in one call.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) commands: Vec<Command>,
    pub(crate) all_or_none: bool,
    /// What the store's clock shows, and the day that it falls into.
    pub(crate) store_ms: i64,
    pub(crate) store_day: u32,
}

/// What a command is answered; `None` where its windows have not begun.
type Answer = Option<Reply>;

/// How often each code was answered, at first and as a replay.
pub(crate) type Seen = BTreeMap<(&'static str, bool), usize>;

/// A sequence on its way.
pub(crate) struct Sequence {
    store: RedisStore,
    /// To the store's database, for what is compared beside it.
    connection: MultiplexedConnection,
    /// What the store's clock shows.
    time: Arc<AtomicI64>,
    reference: MemoryStore,
    books: Books,
    calls: usize,
    since_events: usize,
    waiting: BTreeMap<u16, u64>,
    orders: BTreeSet<(MerchantId, OrderNo)>,
    /// Members of the expiry that are of no open hold any more, because their order was forgotten while it was open.
    forgotten: BTreeSet<(u16, String)>,
    pub(crate) seen: Seen,
}

/// Ends with the two sides where they differ.
pub(crate) fn agree<T: PartialEq + Debug>(got: &T, expected: &T, what: impl Display) -> Result<(), String> {
    if got == expected { Ok(()) } else { Err(format!("{what}\n  got      {got:?}\n  expected {expected:?}")) }
}

impl Sequence {
    /// An empty store, in a database of its own.
    pub(crate) async fn begin(url: &str, database: usize, script: &str) -> Self {
        let mut connection = connect(url, database).await;
        redis::cmd("FLUSHDB").exec_async(&mut connection).await.unwrap();
        let time = Arc::new(AtomicI64::new(0));
        Self {
            store: open_with_script(url, database, script).with_time(StoreTime::At(Arc::clone(&time))),
            connection,
            time,
            reference: MemoryStore::new(SHARDS),
            books: Books::default(),
            calls: 0,
            since_events: 0,
            waiting: BTreeMap::new(),
            orders: BTreeSet::new(),
            forgotten: BTreeSet::new(),
            seen: Seen::new(),
        }
    }

    /// Makes the next step and takes it; the step comes back with what was wrong, if anything was.
    pub(crate) async fn generate(&mut self, generator: &mut Generator) -> (Step, Result<(), String>) {
        let plan = generator.plan();
        let (store_ms, store_day) = (plan.store_ms, plan.store_day);
        let mut step = Step { commands: Vec::new(), all_or_none: plan.all_or_none, store_ms, store_day };
        let mut expected = Vec::new();
        for _ in 0..plan.size {
            let command = {
                let waiting = |merchant: &MerchantId| self.waiting.get(&shard_of(merchant)).copied().unwrap_or(0);
                generator.command(&plan, &self.reference.ledger(), waiting)
            };
            step.commands.push(command);
            if !plan.all_or_none {
                match self.expect(step.commands.last().unwrap(), &step) {
                    Ok(answer) => expected.push(answer),
                    Err(wrong) => return (step, Err(wrong)),
                }
            }
        }
        if plan.all_or_none {
            match self.expect_all_or_none(&step) {
                Ok(answers) => expected = answers,
                Err(wrong) => return (step, Err(wrong)),
            }
        }
        let result = self.ask(&step, &expected).await;
        (step, result)
    }

    /// Takes a step that was made before.
    pub(crate) async fn repeat(&mut self, step: &Step) -> Result<(), String> {
        let expected = if step.all_or_none {
            self.expect_all_or_none(step)?
        } else {
            step.commands.iter().map(|command| self.expect(command, step)).collect::<Result<_, _>>()?
        };
        self.ask(step, &expected).await
    }

    /// Number of commands so far.
    pub(crate) fn commands(&self) -> usize {
        self.seen.values().sum()
    }

    fn expect(&mut self, command: &Command, step: &Step) -> Result<Answer, String> {
        self.note_forgotten(command, step.store_ms);
        let before = Before::of(command, &self.reference);
        let reply = self.reference.ledger().apply_at(command, step.store_ms).ok();
        if let Some(reply) = &reply {
            self.note(command, reply);
            before.check(command, step, reply)?;
        }
        Ok(reply)
    }

    fn expect_all_or_none(&mut self, step: &Step) -> Result<Vec<Answer>, String> {
        let Step { commands, store_ms, .. } = step;
        commands.iter().for_each(|command| self.note_forgotten(command, *store_ms));
        let before: Vec<_> = commands.iter().map(|command| Before::of(command, &self.reference)).collect();
        let replies = self.reference.ledger().apply_all_or_none_at(commands, *store_ms);
        let Ok(replies) = replies else { return Ok(vec![None; commands.len()]) };
        commands.iter().zip(&replies).for_each(|(command, reply)| self.note(command, reply));
        for ((command, reply), before) in commands.iter().zip(&replies).zip(before) {
            before.check(command, step, reply)?;
        }
        Ok(replies.into_iter().map(Some).collect())
    }

    fn note(&mut self, command: &Command, reply: &Reply) {
        if reply.event_seq.is_some() {
            *self.waiting.entry(shard_of(&command.merchant)).or_default() += 1;
        }
        if let Some(order_no) = command.order_no.as_ref().filter(|_| command.action.posting().is_none()) {
            self.orders.insert((command.merchant.clone(), order_no.clone()));
        }
    }

    /// An open hold whose order is not known any more by the time of this command.
    fn note_forgotten(&mut self, command: &Command, store_ms: i64) {
        let Some(order_no) = command.order_no.as_ref().filter(|_| command.action.posting().is_none()) else { return };
        let ledger = self.reference.ledger();
        let Some(order) = ledger.order(&command.merchant, order_no) else { return };
        if order.state == OrderState::Held && u64::from(order.expires_at_secs) <= command.time_at(store_ms) / 1000 {
            let member = format!("{}:{}:{order_no}", command.merchant, order.currency);
            self.forgotten.insert((shard_of(&command.merchant), member));
        }
    }

    async fn ask(&mut self, step: &Step, expected: &[Answer]) -> Result<(), String> {
        let answers = self.answers(step).await?;
        agree(&answers.len(), &expected.len(), "replies")?;
        for ((got, expected), command) in answers.iter().zip(expected).zip(&step.commands) {
            let code = got.as_ref().map_or((NOT_BEGUN, false), |got| (got.record.code.as_str(), got.record.replay));
            *self.seen.entry(code).or_default() += 1;
            agree(got, expected, format_args!("{command:#?} at {}", step.store_ms))?;
        }
        self.calls += 1;
        self.since_events += step.commands.len();
        if self.calls.is_multiple_of(STATE_COMPARED_EVERY)
            && let Some(command) = step.commands.last()
        {
            self.compare_state(command).await?;
        }
        if self.since_events >= EVENTS_COMPARED_EVERY { self.compare_events().await } else { Ok(()) }
    }

    async fn answers(&self, step: &Step) -> Result<Vec<Answer>, String> {
        self.time.store(step.store_ms, Ordering::SeqCst);
        let answer = |result: Result<Reply, StoreError>| match result {
            Ok(reply) => Ok(Some(reply)),
            Err(StoreError::NotBegun) => Ok(None),
            Err(error) => Err(error.to_string()),
        };
        if let ([command], false) = (step.commands.as_slice(), step.all_or_none) {
            return Ok(vec![answer(self.store.apply(command, &AuditContext::default()).await)?]);
        }
        let batch: Vec<_> =
            step.commands.iter().map(|command| Arc::new((command.clone(), AuditContext::default()))).collect();
        if !step.all_or_none {
            return self.store.apply_each(&batch).await.into_iter().map(answer).collect();
        }
        match self.store.apply_all(&batch).await {
            Ok(replies) => Ok(replies.into_iter().map(Some).collect()),
            Err(StoreError::NotBegun) => Ok(vec![None; batch.len()]),
            Err(error) => Err(error.to_string()),
        }
    }

    async fn compare_state(&self, command: &Command) -> Result<(), String> {
        let Command { merchant, currency, order_no, .. } = command;
        let account = self.store.account(merchant, *currency).await.unwrap();
        agree(&account.as_ref(), &self.reference.ledger().account(merchant, *currency), format_args!("{command:#?}"))?;
        let state = self.store.merchant(merchant).await.map_err(|error| error.to_string())?;
        agree(&state.as_ref(), &self.reference.ledger().merchant(merchant), format_args!("{merchant}"))?;
        match order_no {
            Some(order_no) => self.compare_order(merchant, order_no).await,
            None => Ok(()),
        }
    }

    async fn compare_order(&self, merchant: &MerchantId, order_no: &OrderNo) -> Result<(), String> {
        let order = self.store.order(merchant, order_no).await.map_err(|error| error.to_string())?;
        agree(
            &order.as_ref(),
            &self.reference.ledger().order(merchant, order_no),
            format_args!("{merchant} {order_no}"),
        )
    }

    /// What is to be compared once, when the last step was taken.
    pub(crate) async fn end(&mut self) -> Result<(), String> {
        self.compare_events().await?;
        for (merchant, order_no) in &self.orders {
            self.compare_order(merchant, order_no).await?;
        }
        self.compare_expiry().await?;
        self.compare_rights().await?;
        self.sweep().await
    }

    /// the streams hold just the reference's events, in order, numbered without gaps.
    async fn compare_events(&mut self) -> Result<(), String> {
        self.since_events = 0;
        let events = self.reference.ledger().drain();
        for shard in 0..SHARDS {
            let expected = events.iter().filter(|event| shard_of(&event.command.merchant) == shard);
            let expected = expected.map(Entry::expected).collect::<Vec<_>>();
            agree(
                &read_events(&mut self.connection, shard).await?,
                &expected,
                format_args!("events of shard {shard}"),
            )?;
            redis::cmd("XTRIM")
                .arg(keys::stream(shard))
                .arg("MAXLEN")
                .arg(0)
                .exec_async(&mut self.connection)
                .await
                .unwrap();
        }
        self.waiting.clear();
        self.books.add(&events)?;
        self.books.check(&self.reference.ledger())
    }

    /// The expiry has just the open holds, each at the time of its end.
    async fn compare_expiry(&self) -> Result<(), String> {
        let mut expected = BTreeMap::new();
        {
            let ledger = self.reference.ledger();
            for (merchant, order_no, currency) in ledger.due_holds(u32::MAX) {
                let order = ledger.order(merchant, order_no).unwrap();
                let member = (shard_of(merchant), format!("{merchant}:{currency}:{order_no}"));
                expected.insert(member, u64::from(order.hold.until_secs));
            }
        }
        let mut got = self.expiry().await;
        got.retain(|member, _| expected.contains_key(member) || !self.forgotten.contains(member));
        expected.retain(|member, _| got.contains_key(member) || !self.forgotten.contains(member));
        agree(&got, &expected, "open holds")
    }

    /// The store has just the rights that have not ended, and lists each by its end.
    async fn compare_rights(&self) -> Result<(), String> {
        let (mut got, mut listed) = (Vec::new(), BTreeMap::new());
        for shard in 0..SHARDS {
            got.extend(self.store.rights(shard, 0..100_000).await.map_err(|error| error.to_string())?.rights);
            listed.extend(self.listed(shard, keys::rights(shard)).await);
        }
        let ledger = self.reference.ledger();
        let expected = ledger.rights().map(|(merchant, currency, id, right)| OutstandingRight {
            merchant: merchant.clone(),
            currency,
            id,
            right: *right,
        });
        let mut expected: Vec<_> = expected.collect();
        let order = |own: &OutstandingRight| (own.merchant.to_string(), own.currency.code(), own.id.0);
        got.sort_by_key(order);
        expected.sort_by_key(order);
        agree(&got, &expected, "rights")?;
        let ends = expected.iter().map(|own| {
            let OutstandingRight { merchant, currency, id, right } = own;
            let member = format!(":{merchant}:{currency}:{:032x}", u128::from_be_bytes(id.0));
            ((shard_of(merchant), member), right.until_ms)
        });
        agree(&listed, &ends.collect(), "ends of rights")
    }

    async fn expiry(&self) -> BTreeMap<(u16, String), u64> {
        let mut all = BTreeMap::new();
        for shard in 0..SHARDS {
            all.extend(self.listed(shard, keys::expiry(shard)).await);
        }
        all
    }

    /// What a sorted set has.
    async fn listed(&self, shard: u16, key: String) -> BTreeMap<(u16, String), u64> {
        let mut connection = self.connection.clone();
        let list = redis::cmd("ZRANGE").arg(key).arg(0).arg(-1).arg("WITHSCORES").to_owned();
        let members: Vec<(String, u64)> = list.query_async(&mut connection).await.unwrap();
        members.into_iter().map(|(member, until)| ((shard, member), until)).collect()
    }

    /// All holds are ended by their time: then none is open and none is listed.
    async fn sweep(&mut self) -> Result<(), String> {
        for shard in 0..SHARDS {
            for hold in self.store.due_holds(shard, u64::from(u32::MAX), 0..100_000).await.unwrap().holds {
                let command = expire(&hold);
                let (store_ms, store_day) = (command.now_ms, command.windows.ids.day);
                let step = Step { commands: vec![command], all_or_none: false, store_ms, store_day };
                self.repeat(&step).await?;
            }
        }
        agree(&self.expiry().await, &BTreeMap::new(), "holds after all were due")?;
        self.compare_events().await
    }
}

/// The command of a sweep that comes when the hold is over.
pub(crate) fn expire(hold: &sluice_store::DueHold) -> Command {
    let now_ms = i64::from(hold.until_secs) * 1000;
    Command {
        merchant: hold.merchant.clone(),
        currency: hold.currency,
        order_no: Some(hold.order_no.clone()),
        attempt: quota::AttemptId::from_text("sweep"),
        action: Action::Expire,
        effect: quota::Effect::Commit,
        decision_id: [0; 16],
        now_ms,
        windows: quota::Calendar::UTC.windows_at(now_ms),
        order_ttl_secs: 3_600,
        backlog_max: 1_000_000,
        threshold_policy: None,
        credit: None,
        history: None,
        payment_no: None,
        operation_no: None,
        channel: None,
    }
}

/// What stands in the place of a code where a command was not decided.
pub(crate) const NOT_BEGUN: &str = "not begun";

/// What the store's time allows, seen from what stood there before a command. It shares nothing with the rule.
struct Before {
    day: u32,
    /// Until when the order is to be remembered, seconds since the epoch, where it is known for anything.
    remembered_until: Option<i64>,
    hold_until: Option<i64>,
}

impl Before {
    fn of(command: &Command, reference: &MemoryStore) -> Self {
        let ledger = reference.ledger();
        let account = ledger.account(&command.merchant, command.currency);
        let order = command.order_no.as_ref().and_then(|order_no| ledger.order(&command.merchant, order_no));
        let known = order.filter(|order| order.state != OrderState::Open);
        let held = order.filter(|order| order.state == OrderState::Held);
        Self {
            day: account.map_or(0, |account| account.windows.day.id),
            remembered_until: known.map(|order| i64::from(order.expires_at_secs)),
            hold_until: held.map(|order| i64::from(order.hold.until_secs)),
        }
    }

    /// No window is opened, no hold ended and no order forgotten before its time, whatever the command's own clock shows.
    fn check(&self, command: &Command, step: &Step, reply: &Reply) -> Result<(), String> {
        let record = &reply.record;
        let store_secs = step.store_ms / 1000;
        let is_done = record.code.http_status() == 200 && !record.replay && command.effect == Effect::Commit;
        let wrong = |what| Err(format!("{what} before its time, {}: {command:#?}", step.store_ms));
        // Later times count as this one: every window has begun by then.
        let shows_windows = step.store_ms < NOW_MS_MAX && record.code != Code::BatchRefused;
        if shows_windows && record.windows.day.id > self.day.max(step.store_day) {
            return wrong("a window was opened");
        }
        if is_done && command.action == Action::Expire && self.hold_until.is_some_and(|until| until > store_secs) {
            return wrong("a hold was ended");
        }
        let charges = matches!(command.action, Action::Consume(_) | Action::Hold(..));
        if is_done && charges && self.remembered_until.is_some_and(|until| until > store_secs) && !step.all_or_none {
            return wrong("an order was forgotten");
        }
        let Action::Hold(_, terms) = command.action else { return Ok(()) };
        let ends = i64::from(record.order.hold_until_secs) - i64::from(terms.lifetime_secs);
        if is_done && record.order.hold_until_secs < u32::MAX && !(store_secs - 61..=store_secs).contains(&ends) {
            return wrong("a hold was given another end, or none");
        }
        Ok(())
    }
}

pub(crate) fn shard_of(merchant: &MerchantId) -> u16 {
    quota::shard_of(merchant, SHARDS)
}

/// An event as the stream has it.
#[derive(Debug, PartialEq)]
struct Entry {
    id: String,
    event_id: Vec<u8>,
    order_no: String,
    record: Record,
    closed: packed::Closed,
    crossing: Option<Crossing>,
    counted_in: Option<Origins>,
}

impl Entry {
    fn expected(event: &quota::Event) -> Self {
        let command = &event.command;
        Self {
            id: format!("0-{}", event.seq),
            event_id: command.decision_id.to_vec(),
            order_no: command.order_no.as_ref().map(ToString::to_string).unwrap_or_default(),
            record: event.record,
            closed: packed::Closed { windows: event.closed.clone(), cycle: event.closed_cycle },
            crossing: event.crossing.clone(),
            counted_in: event.counted_in,
        }
    }

    fn read(entry: &redis::streams::StreamId) -> Result<Self, String> {
        let context = EventContext::decode(entry.get::<Vec<u8>>("c").unwrap().as_slice()).unwrap();
        let closed = entry.get::<Vec<u8>>("w").map(|bytes| packed::closed(&bytes)).transpose();
        let crossing = entry.get::<Vec<u8>>("a").filter(|bytes| !bytes.is_empty());
        let record = entry.get::<Vec<u8>>("d").unwrap();
        let counted_in = entry.get::<Vec<u8>>("o").map(|bytes| packed::counted_in(&bytes)).transpose();
        let crossing = crossing.map(|bytes| packed::crossing(&bytes)).transpose();
        Ok(Self {
            id: entry.id.clone(),
            event_id: context.event_id,
            order_no: context.order_no,
            record: packed::record(&record, context.amount_minor).map_err(|error| error.to_string())?,
            closed: closed.map_err(|error| error.to_string())?.unwrap_or_default(),
            crossing: crossing.map_err(|error| error.to_string())?,
            counted_in: counted_in.map_err(|error| error.to_string())?,
        })
    }
}

async fn read_events(connection: &mut MultiplexedConnection, shard: u16) -> Result<Vec<Entry>, String> {
    let entries: redis::streams::StreamRangeReply =
        redis::cmd("XRANGE").arg(keys::stream(shard)).arg("-").arg("+").query_async(connection).await.unwrap();
    entries.ids.iter().map(Entry::read).collect()
}
