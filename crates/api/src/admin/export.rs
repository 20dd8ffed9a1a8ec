//! Lists that are pages of JSON or one CSV file (RFC 4180), of any length in little memory: rows are read page by page while the
//! client takes them, and no transaction or connection is held in between.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use csv::ByteRecord;
use futures_util::stream;
use quota::ActorId;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::time::{Instant, timeout};
use tracing::warn;
use utoipa::ToSchema;

use super::page::{self, Cursor, Page};
use super::problem::{Answer, Kind, Problem};
use super::{Admin, Caller, Json};

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
pub(super) struct Exports(Arc<Mutex<HashMap<ActorId, usize>>>);

/// One of them, until it is dropped.
#[derive(Debug)]
struct UnderWay {
    exports: Exports,
    caller: ActorId,
}

/// Why an export is aborted. Its client sees an incomplete body.
#[derive(Debug, Error)]
enum Broken {
    #[error("the rows could not be read: {0}")]
    Unread(&'static str),
    #[error("the database gave no rows within {ROWS_TIMEOUT:?}")]
    Hangs,
    #[error("it took longer than {EXPORT_TIMEOUT:?}")]
    TooSlow,
    #[error(transparent)]
    Csv(#[from] csv::Error),
    #[error("its end could not be written: {0}")]
    End(String),
}

/// Rows of a list in a fixed order.
pub(super) trait Rows: Send + Sync + 'static {
    type Row: Serialize + Send + Sync;
    /// A row's position in the order.
    type Place: Cursor + Send + Sync;
    /// The name of the file, without its ending.
    const FILE: &'static str;

    /// At most `limit` rows, from the given position on. Fewer are the last ones.
    fn read(&self, after: Option<Self::Place>, limit: i64) -> impl Future<Output = Answer<Vec<Self::Row>>> + Send;
    fn place(row: &Self::Row) -> Self::Place;
    fn columns() -> ByteRecord;
    fn cells(row: &Self::Row) -> ByteRecord;
}

/// The form of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Format {
    /// One page.
    Json,
    /// Everything that matches, as a file.
    Csv,
}

/// How a list is requested.
#[derive(Clone, Copy, Debug)]
pub(super) struct ListRequest<'a> {
    pub format: Option<Format>,
    pub cursor: Option<&'a str>,
    pub limit: Option<u64>,
    pub headers: &'a HeaderMap,
}

impl ListRequest<'_> {
    /// The requested form.
    ///
    /// # Errors
    /// A problem with the field `limit`, which an export does not have.
    pub(super) fn format(&self) -> Answer<Format> {
        let format = self.format.unwrap_or_else(|| accepted(self.headers));
        if format == Format::Csv && self.limit.is_some() {
            return Err(Problem::field("limit", "an export has no pages"));
        }
        Ok(format)
    }

    /// Rows as a page, or as a file with all of them.
    pub(super) async fn answer<R: Rows>(&self, admin: &Admin, caller: &Caller, rows: R) -> Answer<Response> {
        let format = self.format()?;
        let after = self.cursor.map(R::Place::decode).transpose()?;
        if format == Format::Csv {
            return admin.exports.start(&caller.subject, rows, after).await;
        }
        let limit = page::limit(self.limit, admin.live.current().admin_page_max)?;
        let found = rows.read(after, limit.saturating_add(1)).await?;
        Ok(Json(Page::from_rows(found, limit, R::place)).into_response())
    }
}

fn accepted(headers: &HeaderMap) -> Format {
    let accepts =
        |value: &str| value.split(',').any(|media| media.split(';').next().unwrap_or_default().trim() == "text/csv");
    let csv = headers.get_all(header::ACCEPT).iter().any(|value| value.to_str().is_ok_and(accepts));
    if csv { Format::Csv } else { Format::Json }
}

/// An export between two pages.
struct Export<R: Rows> {
    rows: R,
    /// Ends when the export does.
    _under_way: UnderWay,
    until: Instant,
    next: Next<R>,
}

enum Next<R: Rows> {
    /// Rows that are read and not yet sent, with the file's first line where they are the first.
    Ready(Vec<R::Row>, bool),
    After(R::Place),
    End,
}

impl Exports {
    /// The answer, whose body is made while it is sent. The first rows are read here, so that an unavailable database is a problem
    /// of its own.
    async fn start<R: Rows>(&self, caller: &ActorId, rows: R, after: Option<R::Place>) -> Answer<Response> {
        let under_way = self.begin(caller)?;
        let first = rows.read(after, ROWS_MAX).await?;
        let until = Instant::now() + EXPORT_TIMEOUT;
        let export = Export { rows, _under_way: under_way, until, next: Next::Ready(first, true) };
        let headers = [
            (header::CONTENT_TYPE, "text/csv; charset=utf-8; header=present".to_owned()),
            (header::CONTENT_DISPOSITION, format!("attachment; filename=\"{}.csv\"", R::FILE)),
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

impl<R: Rows> Export<R> {
    /// The next piece of the file.
    async fn step(mut self) -> Result<Option<(Bytes, Self)>, Broken> {
        match self.advance().await {
            Ok(piece) => Ok(piece.map(|piece| (piece, self))),
            Err(error) => {
                warn!(file = R::FILE, %error, "export aborted");
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
            self.next = Next::After(R::place(last));
        }
        write::<R>(&rows, first).map(Some)
    }

    async fn read(&self, after: R::Place) -> Result<Vec<R::Row>, Broken> {
        if Instant::now() >= self.until {
            return Err(Broken::TooSlow);
        }
        let rows = timeout(ROWS_TIMEOUT, self.rows.read(Some(after), ROWS_MAX)).await.map_err(|_| Broken::Hangs)?;
        rows.map_err(|problem| Broken::Unread(problem.code()))
    }
}

fn write<R: Rows>(rows: &[R::Row], first: bool) -> Result<Bytes, Broken> {
    let mut file = csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(Vec::new());
    if first {
        file.write_byte_record(&R::columns())?;
    }
    for row in rows {
        file.write_byte_record(&R::cells(row))?;
    }
    file.into_inner().map(Bytes::from).map_err(|error| Broken::End(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    #[test]
    fn csv_is_sent_to_callers_that_accept_it() {
        for (accept, format) in [
            ("text/csv", Format::Csv),
            ("application/json, text/csv;q=0.5", Format::Csv),
            ("text/csvx", Format::Json),
            ("*/*", Format::Json),
            ("", Format::Json),
        ] {
            let headers = HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(accept))]);
            assert_eq!(accepted(&headers), format, "{accept}");
        }
    }
}
