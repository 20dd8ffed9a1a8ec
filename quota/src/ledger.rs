//! The reference ledger: the decision rule over plain maps, with the event log that the journal is made from.

use std::collections::{HashMap, VecDeque};

use thiserror::Error;

use crate::{
    Account, ClosedCycle, ClosedWindow, Code, Command, Crossing, Currency, Merchant, MerchantId, Order, OrderNo,
    OrderState, Origins, Outcome, PostingKind, Record, Reply, Right, RightAfter, RightId, Stored, decide,
};

/// The shard that a merchant's keys and events live in: `xxh3(merchant) mod shards`.
#[must_use]
pub fn shard_of(merchant: &MerchantId, shards: u16) -> u16 {
    let hash = xxhash_rust::xxh3::xxh3_64(merchant.as_str().as_bytes());
    u16::try_from(hash % u64::from(shards.max(1))).unwrap_or_default()
}

/// Not decided: the command's windows have not begun by the store's time. Nothing was changed or journaled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the command's windows have not begun by the store's time")]
pub struct NotBegun;

/// One journaled decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The event's number within its shard, from 1 without gaps.
    pub seq: u64,
    pub command: Command,
    pub record: Record,
    /// Windows that the command closed.
    pub closed: Vec<ClosedWindow>,
    /// The billing cycle that it closed.
    pub closed_cycle: Option<ClosedCycle>,
    /// Thresholds that usage crossed by it.
    pub crossing: Option<Crossing>,
    /// The windows of a report's right, where they are not the account's any more.
    pub counted_in: Option<Origins>,
}

#[derive(Clone, Debug, Default)]
struct Shard {
    last_seq: u64,
    waiting: VecDeque<Event>,
}

/// Every account, order, merchant and event of a deployment, in memory.
#[derive(Clone, Debug)]
pub struct Ledger {
    accounts: HashMap<(MerchantId, Currency), Account>,
    /// Orders, and postings, whose numbers are apart for each kind.
    orders: HashMap<(MerchantId, Option<PostingKind>, OrderNo), Order>,
    rights: HashMap<(MerchantId, Currency, RightId), Right>,
    merchants: HashMap<MerchantId, Merchant>,
    shards: Vec<Shard>,
}

impl Ledger {
    /// An empty ledger of at least one shard.
    #[must_use]
    pub fn new(shards: u16) -> Self {
        let shards = (0..shards.max(1)).map(|_| Shard::default()).collect();
        let (accounts, orders, rights, merchants) = Default::default();
        Self { accounts, orders, rights, merchants, shards }
    }

    /// Decides and applies one command, where its own time is the store's.
    pub fn apply(&mut self, command: &Command) -> Reply {
        let outcome = self.decide(command, own_time(command));
        self.keep(command, outcome)
    }

    /// Decides and applies one command at `store_ms` by the store's own clock, milliseconds since the epoch.
    ///
    /// # Errors
    /// [`NotBegun`].
    pub fn apply_at(&mut self, command: &Command, store_ms: i64) -> Result<Reply, NotBegun> {
        if !command.has_begun(store_ms) {
            return Err(NotBegun);
        }
        let outcome = self.decide(command, store_ms);
        Ok(self.keep(command, outcome))
    }

    /// Decides and applies commands of one merchant in their order: all of them, or none where one is refused. The refused one
    /// then has its code and is journaled; the others have [`Code::BatchRefused`]. The store's time is that of each command.
    pub fn apply_all_or_none(&mut self, commands: &[Command]) -> Vec<Reply> {
        // So no command arrives before its windows.
        self.all_or_none(commands, own_time).unwrap_or_default()
    }

    /// The same at `store_ms` by the store's own clock.
    ///
    /// # Errors
    /// [`NotBegun`] where a command's windows have not begun, and no earlier command was refused.
    pub fn apply_all_or_none_at(&mut self, commands: &[Command], store_ms: i64) -> Result<Vec<Reply>, NotBegun> {
        self.all_or_none(commands, |_| store_ms)
    }

    fn all_or_none(
        &mut self,
        commands: &[Command],
        store_ms: impl Fn(&Command) -> i64,
    ) -> Result<Vec<Reply>, NotBegun> {
        let mut trial = self.clone();
        let mut replies = Vec::with_capacity(commands.len());
        for (index, command) in commands.iter().enumerate() {
            if !command.has_begun(store_ms(command)) {
                return Err(NotBegun);
            }
            let outcome = trial.decide(command, store_ms(command));
            if outcome.record.code.http_status() != 200 {
                let refused = self.refuse(command, outcome);
                return Ok(Self::refuse_others(commands, index, &refused));
            }
            replies.push(trial.keep(command, outcome));
        }
        *self = trial;
        Ok(replies)
    }

    /// The account's state, if it was ever changed.
    #[must_use]
    pub fn account(&self, merchant: &MerchantId, currency: Currency) -> Option<&Account> {
        self.accounts.get(&(merchant.clone(), currency))
    }

    /// The merchant's own state, if it was ever suspended as a whole.
    #[must_use]
    pub fn merchant(&self, merchant: &MerchantId) -> Option<&Merchant> {
        self.merchants.get(merchant)
    }

    /// The order's state; an expired one is returned until it is charged anew.
    #[must_use]
    pub fn order(&self, merchant: &MerchantId, order_no: &OrderNo) -> Option<&Order> {
        self.numbered(merchant, None, order_no)
    }

    fn numbered(&self, merchant: &MerchantId, kind: Option<PostingKind>, number: &OrderNo) -> Option<&Order> {
        self.orders.get(&(merchant.clone(), kind, number.clone()))
    }

    /// A right that has not ended.
    #[must_use]
    pub fn right(&self, merchant: &MerchantId, currency: Currency, right: RightId) -> Option<&Right> {
        self.rights.get(&(merchant.clone(), currency, right))
    }

    /// All rights that have not ended, in no order.
    pub fn rights(&self) -> impl Iterator<Item = (&MerchantId, Currency, RightId, &Right)> {
        self.rights.iter().map(|((merchant, currency, id), right)| (merchant, *currency, *id, right))
    }

    /// Expired holds that are still open, in no order.
    pub fn due_holds(&self, now_secs: u32) -> impl Iterator<Item = (&MerchantId, &OrderNo, Currency)> {
        let due = move |order: &&Order| order.state == OrderState::Held && order.hold.until_secs <= now_secs;
        let orders = self.orders.iter().map(|((merchant, _, order_no), order)| (merchant, order_no, order));
        orders
            .filter(move |(.., order)| due(order))
            .map(|(merchant, order_no, order)| (merchant, order_no, order.currency))
    }

    /// Takes the pending events of all shards, oldest first within a shard.
    pub fn drain(&mut self) -> Vec<Event> {
        self.shards.iter_mut().flat_map(|shard| shard.waiting.drain(..)).collect()
    }

    fn shard(&self, merchant: &MerchantId) -> usize {
        usize::from(shard_of(merchant, u16::try_from(self.shards.len()).unwrap_or(u16::MAX)))
    }

    fn decide(&self, command: &Command, store_ms: i64) -> Outcome {
        let account = self.account(&command.merchant, command.currency);
        let order = command.order_no.as_ref();
        let order = order.and_then(|number| self.numbered(&command.merchant, command.action.posting(), number));
        let backlog = self.shards.get(self.shard(&command.merchant)).map_or(0, |shard| shard.waiting.len() as u64);
        let right = command.action.right().and_then(|right| self.right(&command.merchant, command.currency, right));
        decide(Stored { account, merchant: self.merchant(&command.merchant), order, right, backlog }, command, store_ms)
    }

    fn keep(&mut self, command: &Command, outcome: Outcome) -> Reply {
        let Outcome {
            record,
            decision_id,
            account,
            order,
            right,
            merchant,
            closed,
            closed_cycle,
            crossing,
            counted_in,
            journal,
        } = outcome;
        if let Some(merchant) = merchant {
            self.merchants.insert(command.merchant.clone(), merchant);
        }
        if let Some(account) = account {
            self.accounts.insert((command.merchant.clone(), command.currency), account);
        }
        if let Some((order, order_no)) = order.zip(command.order_no.clone()) {
            self.orders.insert((command.merchant.clone(), command.action.posting(), order_no), order);
        }
        if let Some((after, id)) = right.zip(command.action.right()) {
            let key = (command.merchant.clone(), command.currency, id);
            match after {
                RightAfter::Kept(right) => self.rights.insert(key, right),
                RightAfter::Ended => self.rights.remove(&key),
            };
        }
        let shard = self.shard(&command.merchant);
        let event_seq = self.shards.get_mut(shard).filter(|_| journal).map(|shard| {
            shard.last_seq += 1;
            let (seq, command) = (shard.last_seq, command.clone());
            shard.waiting.push_back(Event { seq, command, record, closed, closed_cycle, crossing, counted_in });
            shard.last_seq
        });
        Reply { record, decision_id, event_id: command.decision_id, event_seq }
    }

    /// The refused command of a batch, decided on the state after the commands before it.
    fn refuse(&mut self, command: &Command, outcome: Outcome) -> Reply {
        self.keep(
            command,
            Outcome {
                account: None,
                order: None,
                right: None,
                merchant: None,
                closed: Vec::new(),
                closed_cycle: None,
                crossing: None,
                counted_in: None,
                ..outcome
            },
        )
    }

    fn refuse_others(commands: &[Command], refused_at: usize, refused: &Reply) -> Vec<Reply> {
        let other = |command: &Command| Reply {
            record: Record::bare(Code::BatchRefused),
            decision_id: command.decision_id,
            event_id: command.decision_id,
            event_seq: None,
        };
        let reply = |(index, command)| if index == refused_at { refused.clone() } else { other(command) };
        commands.iter().enumerate().map(reply).collect()
    }
}

/// The time of a store whose clock shows the command's time.
fn own_time(command: &Command) -> i64 {
    command.now_ms.max(command.windows.since_ms)
}
