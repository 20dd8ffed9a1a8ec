//! The credit lines that a server knows: which accounts have one, and what each comes to on a day.
//!
//! Which accounts have a line is read when the server starts. The books of a line are read before the first payment of its account,
//! and again after each notification. Without Postgres the last ones count, with the day of the payment.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use jiff::civil::Date;
use quota::{Currency, MerchantId};
use sluice_credit::{Bands, Books};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use crate::day::day_of;
use crate::{CreditDay, LineKey, LineRecord};

/// How long the first payment of an account waits for its line: less than a check may take, so that the decision itself still
/// fits in.
const FIRST_READING_MAX: Duration = Duration::from_millis(100);

/// What a server knows of an account's credit line.
#[derive(Clone, Debug)]
pub enum Credit {
    /// The account has none.
    NoLine,
    /// The line on the day of the command.
    Line(Arc<CreditDay>),
    /// There is a line, and it was never read.
    Unread,
    /// Whether there is a line was never read.
    Unknown,
}

/// Every credit line that is or was in force.
#[derive(Debug)]
pub struct CreditLines {
    lines: RwLock<Option<Lines>>,
    bands: RwLock<Arc<Bands>>,
    queue: mpsc::UnboundedSender<LineKey>,
    /// Postgres was read last time: a first payment may wait for it.
    reached: AtomicBool,
    /// When Postgres could be read last, milliseconds since the epoch, while it cannot.
    last_read_ms: AtomicI64,
}

/// The lines of each merchant, by currency.
type Lines = HashMap<MerchantId, Vec<(Currency, Arc<Cell>)>>;

impl CreditLines {
    /// Starts without knowledge. The other end of the queue names the lines to be read.
    #[must_use]
    pub fn new() -> (Arc<Self>, mpsc::UnboundedReceiver<LineKey>) {
        let (queue, requests) = mpsc::unbounded_channel();
        let lines = Self {
            lines: RwLock::default(),
            bands: RwLock::default(),
            queue,
            reached: AtomicBool::new(false),
            last_read_ms: AtomicI64::new(0),
        };
        (Arc::new(lines), requests)
    }

    /// No account has a line, and none will have: for a store without a database.
    #[must_use]
    pub fn none() -> Arc<Self> {
        let (lines, _) = Self::new();
        lines.set_keys(&[]);
        lines
    }

    /// The line of an account on a day (`YYYYMMDD`). It waits only for the first reading of a line, and then no longer than
    /// [`FIRST_READING_MAX`].
    pub async fn on(&self, merchant: &MerchantId, currency: Currency, day: u32) -> Credit {
        let cell = match self.cell(merchant, currency) {
            Ok(cell) => cell,
            Err(known) => return known,
        };
        if cell.is_new() {
            self.request(&cell, merchant, currency);
            if self.reached.load(Ordering::Relaxed) {
                cell.wait().await;
            }
        }
        self.of(&cell, day)
    }

    /// The same by what is known now: nothing is read, and nothing waits.
    #[must_use]
    pub fn peek(&self, merchant: &MerchantId, currency: Currency, day: u32) -> Credit {
        match self.cell(merchant, currency) {
            Ok(cell) => self.of(&cell, day),
            Err(known) => known,
        }
    }

    /// When Postgres was last read, milliseconds since the epoch, where it cannot be read now.
    #[must_use]
    pub fn outdated_since_ms(&self) -> Option<i64> {
        let last = self.last_read_ms.load(Ordering::Relaxed);
        (!self.reached.load(Ordering::Relaxed) && last > 0).then_some(last)
    }

    /// The bands of grades: those of the scorecard in force, as it was read last; of the standard one before that.
    #[must_use]
    pub fn bands(&self) -> Arc<Bands> {
        Arc::clone(&self.bands.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn cell(&self, merchant: &MerchantId, currency: Currency) -> Result<Arc<Cell>, Credit> {
        let lines = self.lines.read().unwrap_or_else(PoisonError::into_inner);
        let Some(lines) = lines.as_ref() else { return Err(Credit::Unknown) };
        let own = lines.get(merchant).and_then(|own| own.iter().find(|(other, _)| *other == currency));
        own.map(|(_, cell)| Arc::clone(cell)).ok_or(Credit::NoLine)
    }

    fn of(&self, cell: &Cell, day: u32) -> Credit {
        let Some(known) = cell.known.borrow().clone() else { return Credit::Unread };
        let Some(date) = day_of(day) else { return Credit::Unread };
        known.on(self.bands(), date).map_or(Credit::Unread, Credit::Line)
    }

    fn request(&self, cell: &Cell, merchant: &MerchantId, currency: Currency) {
        if !cell.requested.swap(true, Ordering::Relaxed) {
            // Without a reader nothing is ever read, and the line stays unread.
            let _ = self.queue.send((merchant.clone(), currency));
        }
    }
}

/// What the follower sets.
impl CreditLines {
    /// Sets which accounts have a line. What is known of those that stay is kept.
    pub(crate) fn set_keys(&self, keys: &[LineKey]) {
        let mut lines = Lines::new();
        for (merchant, currency) in keys {
            let cell = self.cell(merchant, *currency).unwrap_or_default();
            lines.entry(merchant.clone()).or_default().push((*currency, cell));
        }
        // Payments read meanwhile: only the exchange is under the lock.
        *self.lines.write().unwrap_or_else(PoisonError::into_inner) = Some(lines);
    }

    /// Sets the bands of grades. Days that were computed with others are computed again.
    pub(crate) fn set_bands(&self, bands: Bands) {
        let mut present = self.bands.write().unwrap_or_else(PoisonError::into_inner);
        if **present != bands {
            *present = Arc::new(bands);
        }
    }

    /// The lines that were read, or are to be.
    pub(crate) fn wanted(&self) -> Vec<LineKey> {
        let lines = self.lines.read().unwrap_or_else(PoisonError::into_inner);
        let mut keys = Vec::new();
        for (merchant, own) in lines.iter().flatten() {
            let wanted = own.iter().filter(|(_, cell)| cell.requested.load(Ordering::Relaxed));
            keys.extend(wanted.map(|(currency, _)| (merchant.clone(), *currency)));
        }
        keys
    }

    /// Lines that could not be read: the next payment of each asks again.
    pub(crate) fn give_up(&self, keys: &[LineKey]) {
        for (merchant, currency) in keys {
            if let Ok(cell) = self.cell(merchant, *currency)
                && cell.is_new()
            {
                cell.requested.store(false, Ordering::Relaxed);
            }
        }
    }

    /// Whether the line was read, or is to be.
    pub(crate) fn is_wanted(&self, (merchant, currency): &LineKey) -> bool {
        self.cell(merchant, *currency).is_ok_and(|cell| cell.requested.load(Ordering::Relaxed))
    }

    /// Whether the account is known to have a line.
    pub(crate) fn has(&self, (merchant, currency): &LineKey) -> bool {
        self.cell(merchant, *currency).is_ok()
    }

    /// Number of lines, and of those that were read.
    pub(crate) fn counts(&self) -> [usize; 2] {
        let lines = self.lines.read().unwrap_or_else(PoisonError::into_inner);
        let cells = || lines.iter().flatten().flat_map(|(_, own)| own);
        [cells().count(), cells().filter(|(_, cell)| !cell.is_new()).count()]
    }

    pub(crate) fn set_line(&self, (merchant, currency): &LineKey, record: LineRecord) {
        if let Ok(cell) = self.cell(merchant, *currency) {
            let (books, left_out) = record.books();
            for (entry, why) in left_out {
                tracing::error!(
                    %merchant, %currency, entry_id = entry.entry_id, error = %why,
                    "an entry of a credit line is left out of its books"
                );
            }
            cell.known.send_replace(Some(Arc::new(Known { record, books, day: Mutex::default() })));
        }
    }

    /// Records whether Postgres could be read. Returns whether that is news.
    pub(crate) fn set_reached(&self, reached: bool, now_ms: i64) -> bool {
        if reached {
            self.last_read_ms.store(now_ms, Ordering::Relaxed);
        }
        self.reached.swap(reached, Ordering::Relaxed) != reached
    }
}

/// One line.
#[derive(Debug)]
struct Cell {
    known: watch::Sender<Option<Arc<Known>>>,
    requested: AtomicBool,
}

impl Default for Cell {
    fn default() -> Self {
        Self { known: watch::Sender::new(None), requested: AtomicBool::new(false) }
    }
}

impl Cell {
    fn is_new(&self) -> bool {
        self.known.borrow().is_none()
    }

    async fn wait(&self) {
        let mut known = self.known.subscribe();
        // Where no answer comes, in time or at all, the line stays unread.
        let _ = timeout(FIRST_READING_MAX, known.wait_for(Option::is_some)).await;
    }
}

/// A line as it was read last.
#[derive(Debug)]
struct Known {
    record: LineRecord,
    books: Books,
    /// The day that was asked for last, with the bands that it was computed with: the standing of a long life takes milliseconds.
    day: Mutex<Option<(Arc<Bands>, Arc<CreditDay>)>>,
}

impl Known {
    fn on(&self, bands: Arc<Bands>, date: Date) -> Option<Arc<CreditDay>> {
        let mut last = self.day.lock().unwrap_or_else(PoisonError::into_inner);
        match last.as_ref().filter(|(with, day)| day.date == date && Arc::ptr_eq(with, &bands)) {
            Some((_, day)) => Some(Arc::clone(day)),
            None => {
                let computed = Arc::new(self.record.on(&self.books, &bands, date)?);
                *last = Some((bands, Arc::clone(&computed)));
                Some(computed)
            }
        }
    }
}
