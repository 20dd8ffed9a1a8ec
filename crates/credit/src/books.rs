//! The books of one credit line: what is held, unbilled, billed and prepaid, and which money settled which obligation. They are a
//! function of the events. The order of events within one day does not matter, where each of them is accepted: what was allocated
//! on that day is allocated again with each of them.

use std::collections::BTreeMap;

use jiff::civil::Date;
use quota::OperationNo;

use crate::{AMOUNT_MAX, Allocation, BookAccount, BooksError, Change, Event, Obligation, Posting, Source, Statement};

/// The most that the amounts of all events may come to, so that no sum of them overflows.
const TURNOVER_MAX: i64 = i64::MAX / 4;

/// What a source brought, and how much of it obligations have taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Funds {
    amount: i64,
    value_on: Date,
    is_reversed: bool,
    applied: i64,
}

impl Funds {
    const fn new(amount: i64, value_on: Date) -> Self {
        Self { amount, value_on, is_reversed: false, applied: 0 }
    }

    const fn left(&self) -> i64 {
        if self.is_reversed { 0 } else { self.amount.saturating_sub(self.applied) }
    }
}

/// The order in which kinds of sources take obligations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Turn {
    Money,
    WriteOff,
    Recovery,
}

impl Turn {
    const fn of(source: &Source) -> Self {
        match source {
            Source::Credit { .. } | Source::Repayment(_) | Source::Transfer(_) => Self::Money,
            Source::WriteOff { .. } => Self::WriteOff,
            Source::Recovery(_) => Self::Recovery,
        }
    }
}

/// The books of one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Books {
    held: i64,
    unbilled: i64,
    /// In the order of allocation: oldest due first.
    obligations: Vec<Obligation>,
    funds: BTreeMap<Source, Funds>,
    transfers_out: BTreeMap<OperationNo, i64>,
    payments: i64,
    cash: i64,
    transfers: i64,
    brought_forward: i64,
    /// Less what is recovered.
    written_off: i64,
    turnover: i64,
    as_of: Date,
}

impl Default for Books {
    fn default() -> Self {
        Self {
            held: 0,
            unbilled: 0,
            obligations: Vec::new(),
            funds: BTreeMap::new(),
            transfers_out: BTreeMap::new(),
            payments: 0,
            cash: 0,
            transfers: 0,
            brought_forward: 0,
            written_off: 0,
            turnover: 0,
            as_of: Date::MIN,
        }
    }
}

impl Books {
    /// The books after events in the order of the journal.
    ///
    /// # Errors
    /// [`BooksError`] of the first event that cannot be applied.
    pub fn replay<'a>(events: impl IntoIterator<Item = &'a Event>) -> Result<Self, BooksError> {
        let mut books = Self::default();
        for event in events {
            books.apply(event)?;
        }
        Ok(books)
    }

    /// Applies one event and returns its postings, which sum to zero. A repetition has none.
    ///
    /// # Errors
    /// [`BooksError`] where the event contradicts the books, which then stay as they were.
    pub fn apply(&mut self, event: &Event) -> Result<Vec<Posting>, BooksError> {
        if let Change::Usage { held, unbilled } = event.change {
            return self.apply_usage(event.on, held, unbilled);
        }
        let before = self.balances();
        let today = event.on.max(self.as_of);
        if self.record(today, &event.change)? {
            self.as_of = today;
            self.allocate(today);
        }
        Ok(difference(before, self.balances()))
    }

    fn apply_usage(&mut self, on: Date, held: i64, unbilled: i64) -> Result<Vec<Posting>, BooksError> {
        for change in [held, unbilled] {
            amount(change.checked_abs().unwrap_or(i64::MAX))?;
        }
        self.turn_over(held.saturating_abs().saturating_add(unbilled.saturating_abs()))?;
        self.as_of = self.as_of.max(on);
        self.held += held;
        self.unbilled += unbilled;
        self.payments -= held + unbilled;
        let postings = [
            (BookAccount::Held, held),
            (BookAccount::Unbilled, unbilled),
            (BookAccount::Payments, held.saturating_add(unbilled).saturating_neg()),
        ];
        Ok(postings.into_iter().filter_map(posting).collect())
    }

    /// Records the facts of an event; `false` for a repetition.
    fn record(&mut self, today: Date, change: &Change) -> Result<bool, BooksError> {
        match change {
            // `apply` has handled it.
            Change::Usage { .. } => Ok(false),
            Change::CycleClosed(statement) => {
                let is_new = self.bill(statement)?;
                self.unbilled -= if is_new { statement.amount } else { 0 };
                Ok(is_new)
            }
            Change::BroughtForward(statement) => {
                let is_new = self.bill(statement)?;
                self.brought_forward -= if is_new { statement.amount } else { 0 };
                Ok(is_new)
            }
            Change::Repaid { repayment_no, amount, received_on } => {
                self.receive(Source::Repayment(repayment_no.clone()), *amount, *received_on)
            }
            Change::RepaymentReversed { repayment_no } => self.reverse(repayment_no),
            Change::Credited { cycle, amount } => {
                self.add(Source::Credit { cycle: *cycle, on: today }, *amount, today)?;
                self.payments += amount;
                Ok(true)
            }
            Change::WrittenOff { amount } => {
                self.add(Source::WriteOff { on: today }, *amount, today)?;
                self.written_off += amount;
                Ok(true)
            }
            Change::Recovered { recovery_no, amount, received_on } => {
                self.receive(Source::Recovery(recovery_no.clone()), *amount, *received_on)
            }
            Change::TransferIn { transfer_no, amount } => {
                self.receive(Source::Transfer(transfer_no.clone()), *amount, today)
            }
            Change::TransferOut { transfer_no, amount } => self.transfer_out(transfer_no, *amount),
        }
    }

    /// A cycle has one statement: the second time it is a repetition.
    fn bill(&mut self, statement: &Statement) -> Result<bool, BooksError> {
        if let Some(known) = self.obligations.iter().find(|known| known.statement.cycle == statement.cycle) {
            let is_same = known.statement == *statement;
            return if is_same { Ok(false) } else { Err(BooksError::CycleConflict(statement.cycle)) };
        }
        amount(statement.amount)?;
        amount(statement.minimum)?;
        self.turn_over(statement.amount)?;
        self.obligations.push(Obligation::new(*statement));
        self.obligations.sort_by_key(|obligation| (obligation.statement.due_on, obligation.statement.cycle));
        Ok(true)
    }

    /// Money with a number of its own: the second time it is a repetition.
    fn receive(&mut self, source: Source, received: i64, value_on: Date) -> Result<bool, BooksError> {
        if let Some(known) = self.funds.get(&source) {
            return match source {
                Source::Repayment(_) if (known.amount, known.value_on) == (received, value_on) => Ok(false),
                Source::Recovery(_) if (known.amount, known.value_on) == (received, value_on) => Ok(false),
                Source::Transfer(_) if known.amount == received => Ok(false),
                Source::Repayment(no) => Err(BooksError::RepaymentConflict(no)),
                Source::Recovery(no) => Err(BooksError::RecoveryConflict(no)),
                Source::Transfer(no) => Err(BooksError::TransferConflict(no)),
                // These have no number, and are added up.
                Source::Credit { .. } | Source::WriteOff { .. } => Ok(false),
            };
        }
        amount(received)?;
        if source.is_recovery() && received > self.written_off {
            return Err(BooksError::RecoveryTooLarge { amount: received, written_off: self.written_off });
        }
        self.turn_over(received)?;
        match source {
            Source::Repayment(_) => self.cash += received,
            Source::Recovery(_) => {
                self.cash += received;
                self.written_off -= received;
            }
            Source::Transfer(_) => self.transfers += received,
            Source::Credit { .. } | Source::WriteOff { .. } => {}
        }
        self.funds.insert(source, Funds::new(received, value_on));
        Ok(true)
    }

    /// Adds to what one day credits a cycle, or writes off.
    fn add(&mut self, source: Source, added: i64, on: Date) -> Result<bool, BooksError> {
        amount(added)?;
        self.turn_over(added)?;
        self.funds.entry(source).or_insert(Funds::new(0, on)).amount += added;
        Ok(true)
    }

    fn reverse(&mut self, repayment_no: &OperationNo) -> Result<bool, BooksError> {
        let source = Source::Repayment(repayment_no.clone());
        let unknown = || BooksError::RepaymentUnknown(repayment_no.clone());
        let funds = self.funds.get_mut(&source).ok_or_else(unknown)?;
        if funds.is_reversed {
            return Ok(false);
        }
        funds.is_reversed = true;
        self.cash -= funds.amount;
        self.release(|allocation| allocation.source == source);
        Ok(true)
    }

    fn transfer_out(&mut self, transfer_no: &OperationNo, sent: i64) -> Result<bool, BooksError> {
        if let Some(known) = self.transfers_out.get(transfer_no) {
            let is_same = *known == sent;
            return if is_same { Ok(false) } else { Err(BooksError::TransferConflict(transfer_no.clone())) };
        }
        amount(sent)?;
        self.turn_over(sent)?;
        self.transfers_out.insert(transfer_no.clone(), sent);
        self.unbilled += sent;
        self.transfers -= sent;
        Ok(true)
    }

    fn turn_over(&mut self, amount: i64) -> Result<(), BooksError> {
        let turnover = self.turnover.checked_add(amount).filter(|sum| *sum <= TURNOVER_MAX);
        self.turnover = turnover.ok_or(BooksError::TooLarge)?;
        Ok(())
    }

    /// Allocates what is left of each source: a credit of the day first to its own obligation, then all money, the earliest
    /// first, to the obligations, the oldest due first, then what is written off, and last what is recovered of that.
    fn allocate(&mut self, today: Date) {
        self.release(|allocation| allocation.allocated_on == today);
        let mut waiting: Vec<(Turn, Date, Source)> = Vec::new();
        for (source, funds) in self.funds.iter().filter(|(_, funds)| funds.left() > 0) {
            waiting.push((Turn::of(source), funds.value_on, source.clone()));
        }
        waiting.sort();
        for (_, _, source) in &waiting {
            if let Source::Credit { cycle, on } = source
                && *on == today
            {
                self.allocate_from(source, today, |statement| statement.cycle == *cycle);
            }
        }
        waiting.iter().for_each(|(_, _, source)| self.allocate_from(source, today, |_| true));
    }

    fn allocate_from(&mut self, source: &Source, today: Date, to: impl Fn(&Statement) -> bool) {
        let Some(funds) = self.funds.get_mut(source) else { return };
        for obligation in self.obligations.iter_mut().filter(|obligation| to(&obligation.statement)) {
            let room = if source.is_recovery() { obligation.written_off() } else { obligation.open() };
            let amount = funds.left().min(room);
            funds.applied += amount;
            let source = source.clone();
            obligation.allocate(Allocation { source, value_on: funds.value_on, allocated_on: today, amount });
        }
    }

    /// Takes back the allocations for which this holds.
    fn release(&mut self, of: impl Fn(&Allocation) -> bool) {
        for obligation in &mut self.obligations {
            for allocation in obligation.allocations().iter().filter(|allocation| of(allocation)) {
                if let Some(funds) = self.funds.get_mut(&allocation.source) {
                    funds.applied -= allocation.amount;
                }
            }
            obligation.release(&of);
        }
    }
}

impl Books {
    /// The amount of open holds.
    #[must_use]
    pub const fn held(&self) -> i64 {
        self.held
    }

    /// What the open cycle has used.
    #[must_use]
    pub const fn unbilled(&self) -> i64 {
        self.unbilled
    }

    /// Every obligation, oldest due first.
    #[must_use]
    pub fn obligations(&self) -> &[Obligation] {
        &self.obligations
    }

    /// What is billed, and neither paid nor written off.
    #[must_use]
    pub fn billed(&self) -> i64 {
        self.obligations.iter().map(Obligation::open).sum()
    }

    /// Money and write-offs that no obligation has taken yet.
    #[must_use]
    pub fn unapplied(&self) -> i64 {
        self.funds.iter().filter(|(source, _)| !source.is_recovery()).map(|(_, funds)| funds.left()).sum()
    }

    /// What is written off and not recovered, also where no obligation has taken it yet: the most that can be recovered.
    #[must_use]
    pub const fn recoverable(&self) -> i64 {
        self.written_off
    }

    /// Exposure as one signed number: held + unbilled + open obligations − unapplied.
    #[must_use]
    pub fn net(&self) -> i64 {
        self.held + self.unbilled + self.billed() - self.unapplied()
    }

    /// What the merchant owes or may come to owe.
    #[must_use]
    pub fn exposure(&self) -> i64 {
        self.net().max(0)
    }

    /// What the merchant has paid in advance.
    #[must_use]
    pub fn prepaid(&self) -> i64 {
        self.net().saturating_neg().max(0)
    }

    /// The balance of each account. They sum to zero.
    #[must_use]
    pub fn balances(&self) -> BTreeMap<BookAccount, i64> {
        let own = [
            (BookAccount::Held, self.held),
            (BookAccount::Unbilled, self.unbilled),
            (BookAccount::Unapplied, -self.unapplied()),
            (BookAccount::Payments, self.payments),
            (BookAccount::Cash, self.cash),
            (BookAccount::Transfers, self.transfers),
            (BookAccount::WriteOffs, self.written_off),
            (BookAccount::BroughtForward, self.brought_forward),
        ];
        let of_cycle = |own: &Obligation| (BookAccount::Obligation(own.statement.cycle), own.open());
        own.into_iter().chain(self.obligations.iter().map(of_cycle)).collect()
    }
}

fn amount(amount: i64) -> Result<(), BooksError> {
    if (0..=AMOUNT_MAX).contains(&amount) { Ok(()) } else { Err(BooksError::Amount(amount)) }
}

fn posting((account, amount): (BookAccount, i64)) -> Option<Posting> {
    (amount != 0).then_some(Posting { account, amount })
}

/// What changed, account by account.
fn difference(before: BTreeMap<BookAccount, i64>, after: BTreeMap<BookAccount, i64>) -> Vec<Posting> {
    let change = |(account, amount)| (account, amount - before.get(&account).copied().unwrap_or(0));
    after.into_iter().map(change).filter_map(posting).collect()
}
