//! The reference ledger: the decision rule over plain maps, with the event log that the journal is made from.

use std::collections::{HashMap, VecDeque};

use crate::{Account, Command, Currency, MerchantId, Order, OrderNo, Outcome, Record, Reply, decide};

/// The shard that a merchant's keys and events live in: `xxh3(merchant) mod shards`.
#[must_use]
pub fn shard_of(merchant: &MerchantId, shards: u16) -> u16 {
    let hash = xxhash_rust::xxh3::xxh3_64(merchant.as_str().as_bytes());
    u16::try_from(hash % u64::from(shards.max(1))).unwrap_or_default()
}

/// One journalled decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The event's number within its shard, from 1 without gaps.
    pub seq: u64,
    pub command: Command,
    pub record: Record,
}

#[derive(Debug, Default)]
struct Shard {
    last_seq: u64,
    waiting: VecDeque<Event>,
}

/// Every account, order and event of a deployment, in memory.
#[derive(Debug)]
pub struct Ledger {
    accounts: HashMap<(MerchantId, Currency), Account>,
    orders: HashMap<(MerchantId, OrderNo), Order>,
    shards: Vec<Shard>,
}

impl Ledger {
    /// An empty ledger of at least one shard.
    #[must_use]
    pub fn new(shards: u16) -> Self {
        let shards = (0..shards.max(1)).map(|_| Shard::default()).collect();
        Self { accounts: HashMap::new(), orders: HashMap::new(), shards }
    }

    /// Decides and applies one command.
    pub fn apply(&mut self, command: &Command) -> Reply {
        let account_key = (command.merchant.clone(), command.currency);
        let order_key = (command.merchant.clone(), command.order_no.clone());
        let shards = u16::try_from(self.shards.len()).unwrap_or(u16::MAX);
        let shard = self.shards.get_mut(usize::from(shard_of(&command.merchant, shards)));
        let backlog = shard.as_ref().map_or(0, |shard| shard.waiting.len() as u64);
        let outcome = decide(self.accounts.get(&account_key), self.orders.get(&order_key), backlog, command);
        if let Some(account) = outcome.account {
            self.accounts.insert(account_key, account);
        }
        if let Some(order) = outcome.order {
            self.orders.insert(order_key, order);
        }
        let event_seq = shard.filter(|_| outcome.journal).map(|shard| {
            shard.last_seq += 1;
            shard.waiting.push_back(Event { seq: shard.last_seq, command: command.clone(), record: outcome.record });
            shard.last_seq
        });
        let Outcome { record, decision_id, .. } = outcome;
        Reply { record, decision_id, event_id: command.decision_id, event_seq }
    }

    /// The account's state, where it was ever charged.
    #[must_use]
    pub fn account(&self, merchant: &MerchantId, currency: Currency) -> Option<&Account> {
        self.accounts.get(&(merchant.clone(), currency))
    }

    /// The order's state; one that has expired still shows until it is charged anew.
    #[must_use]
    pub fn order(&self, merchant: &MerchantId, order_no: &OrderNo) -> Option<&Order> {
        self.orders.get(&(merchant.clone(), order_no.clone()))
    }

    /// Takes the events of all shards that wait for the journal, oldest first within a shard.
    pub fn drain(&mut self) -> Vec<Event> {
        self.shards.iter_mut().flat_map(|shard| shard.waiting.drain(..)).collect()
    }
}
