//! The usage log as a CSV file (RFC 4180), of any length in little memory: rows are read page by page while the client
//! takes them, and no transaction or connection is held in between.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use quota::ActorId;
use sqlx::PgPool;
use thiserror::Error;
use tokio::time::{Instant, timeout};
use tracing::warn;

use super::place;
use crate::admin::page::TimeId;
use crate::admin::problem::{Answer, Kind, Problem};
use crate::store::usage_log::UsageFilter;
use sluice_journal::usage_log::UsageLog;

/// Exports that one caller may have in progress: a slow one blocks only its caller's next ones.
const EXPORTS_OF_CALLER_MAX: usize = 4;
/// Exports of all callers, each with its rows in memory.
const EXPORTS_MAX: usize = 256;
/// Rows that one export has in memory.
const ROWS_MAX: i64 = 500;
/// Timeout of the database for them.
const ROWS_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a whole export may take, however slowly its client reads.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(900);
/// `Retry-After` if too many are in progress.
const RETRY_SECS: u64 = 10;

/// The exports in progress: how many each caller has.
#[derive(Clone, Debug, Default)]
pub struct Exports(Arc<Mutex<HashMap<ActorId, usize>>>);

/// One of them, until it is dropped.
#[derive(Debug)]
struct UnderWay {
    exports: Exports,
    caller: ActorId,
}

/// Why an export is aborted. Its client sees an incomplete body.
#[derive(Debug, Error)]
enum Broken {
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    #[error("the database gave no rows within {ROWS_TIMEOUT:?}")]
    Hangs,
    #[error("it took longer than {EXPORT_TIMEOUT:?}")]
    TooSlow,
    #[error(transparent)]
    Csv(#[from] csv::Error),
    #[error("its end could not be written: {0}")]
    End(String),
}

/// An export between two pages.
struct Export {
    pool: PgPool,
    filter: UsageFilter,
    /// Ends when the export does.
    _under_way: UnderWay,
    until: Instant,
    next: Next,
}

enum Next {
    /// Rows that are read and not yet sent, with the file's first line where they are the first.
    Ready(Vec<UsageLog>, bool),
    After(TimeId),
    End,
}

impl Exports {
    /// The answer, whose body is made while it is sent. The first rows are read here, so that an unavailable database is a problem
    /// of its own.
    pub(super) async fn start(
        &self,
        caller: &ActorId,
        pool: &PgPool,
        filter: UsageFilter,
        after: Option<TimeId>,
    ) -> Answer<Response> {
        let under_way = self.begin(caller)?;
        let rows = filter.rows(pool, after, ROWS_MAX).await?;
        let until = Instant::now() + EXPORT_TIMEOUT;
        let export = Export { pool: pool.clone(), filter, _under_way: under_way, until, next: Next::Ready(rows, true) };
        let headers = [
            (header::CONTENT_TYPE, "text/csv; charset=utf-8; header=present"),
            (header::CONTENT_DISPOSITION, "attachment; filename=\"usage-log.csv\""),
        ];
        Ok((headers, Body::from_stream(stream::try_unfold(export, Export::step))).into_response())
    }

    fn begin(&self, caller: &ActorId) -> Answer<UnderWay> {
        let mut callers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let own = callers.get(caller).copied().unwrap_or_default();
        if own >= EXPORTS_OF_CALLER_MAX {
            let detail =
                format!("the caller may have {EXPORTS_OF_CALLER_MAX} exports under way: read them, or end them");
            return Err(Problem::new(Kind::RateLimited).detail(detail).retry_after(RETRY_SECS));
        }
        if callers.values().sum::<usize>() >= EXPORTS_MAX {
            return Err(Problem::new(Kind::Busy).detail("too many exports are under way").retry_after(RETRY_SECS));
        }
        callers.insert(caller.clone(), own + 1);
        Ok(UnderWay { exports: self.clone(), caller: caller.clone() })
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut callers = self.exports.0.lock().unwrap_or_else(PoisonError::into_inner);
        match callers.get_mut(&self.caller) {
            Some(own) if *own > 1 => *own -= 1,
            Some(_) | None => drop(callers.remove(&self.caller)),
        }
    }
}

impl Export {
    /// The next piece of the file.
    async fn step(mut self) -> Result<Option<(Bytes, Self)>, Broken> {
        match self.advance().await {
            Ok(piece) => Ok(piece.map(|piece| (piece, self))),
            Err(error) => {
                warn!(%error, "usage log export aborted");
                Err(error)
            }
        }
    }

    async fn advance(&mut self) -> Result<Option<Bytes>, Broken> {
        let (rows, first) = match std::mem::replace(&mut self.next, Next::End) {
            Next::Ready(rows, first) => (rows, first),
            Next::After(place) => (self.read(place).await?, false),
            Next::End => return Ok(None),
        };
        if let (Some(last), true) = (rows.last(), i64::try_from(rows.len()).is_ok_and(|count| count == ROWS_MAX)) {
            self.next = Next::After(place(last));
        }
        write(&rows, first).map(Some)
    }

    async fn read(&self, after: TimeId) -> Result<Vec<UsageLog>, Broken> {
        if Instant::now() >= self.until {
            return Err(Broken::TooSlow);
        }
        let rows = self.filter.rows(&self.pool, Some(after), ROWS_MAX);
        Ok(timeout(ROWS_TIMEOUT, rows).await.map_err(|_| Broken::Hangs)??)
    }
}

fn write(rows: &[UsageLog], first: bool) -> Result<Bytes, Broken> {
    let mut file = csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(Vec::new());
    if first {
        file.write_byte_record(&UsageLog::names())?;
    }
    for row in rows {
        file.write_byte_record(&row.cells())?;
    }
    file.into_inner().map(Bytes::from).map_err(|error| Broken::End(error.to_string()))
}
