//! The live stream of alerts, decisions and changes of credit lines as server-sent events (WHATWG HTML, section 9.2), read from Postgres.
//!
//! Every event has an id to resume from, on any server: the next event after it comes, none twice and none left out. A stream
//! reads on only when its client has taken what was read, so that a slow client blocks and fills nothing.

mod permits;
mod run;

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::sse::KeepAlive;
use axum::response::{IntoResponse, Response, Sse};
use quota::{Code, Currency, MerchantId};
use serde::Deserialize;
use sluice_kit::shutdown::{self, Shutdown, Stop};
use sqlx::PgPool;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::openapi::Problems;
use super::problem::{Answer, Problem};
use super::{Admin, Caller, Permission, Query};
use permits::StreamPermits;
use sluice_kit::clock;
use sluice_kit::database;
use sluice_live::{Cursor, Feed, Filter, Kind, Wake, Waker};

/// The header of a client's last id.
const LAST_EVENT_ID: &str = "last-event-id";
/// Makes nginx and similar proxies not buffer events.
const UNBUFFERED: (HeaderName, HeaderValue) =
    (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));

/// The streams of a server.
#[derive(Debug)]
pub(super) struct Streams {
    feed: Feed,
    permits: Arc<StreamPermits>,
    wake: Wake,
    waker: std::sync::Mutex<Option<Waker>>,
    /// Ends the streams.
    stop: Stop,
    stopping: Shutdown,
}

impl Streams {
    /// With connections of their own beside those of the pool.
    pub(super) fn new(pool: &PgPool) -> Self {
        let (waker, wake) = Wake::new();
        let (stop, stopping) = shutdown::channel();
        Self {
            feed: Feed::new(database::beside(pool, Feed::CONNECTIONS)),
            permits: Arc::default(),
            wake,
            waker: std::sync::Mutex::new(Some(waker)),
            stop,
            stopping,
        }
    }

    /// Wakes the streams for alerts until the stop, which ends them.
    pub(super) async fn run(&self, pool: PgPool, mut stopped: Shutdown) {
        let waker = self.waker.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        if let Some(waker) = waker {
            waker.run(pool, stopped.clone()).await;
        }
        stopped.requested().await;
        self.stop.request();
    }
}

pub(super) fn routes() -> OpenApiRouter<Admin> {
    OpenApiRouter::new().routes(routes!(live_stream))
}

/// What to stream.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct StreamQuery {
    /// `alerts`, `decisions` and `credit_lines`, with commas between them. Without it all that the caller may read.
    kinds: Option<String>,
    merchant_id: Option<String>,
    currency: Option<String>,
    /// Decisions with this code only, as in `DAILY_AMOUNT`.
    code: Option<String>,
}

/// Alerts, decisions and changes of credit lines as they happen, as `text/event-stream`, about a second after them.
///
/// Events are `alert` (`{"change": "raised" | "acknowledged" | "resolved", "changed_at": …, "alert": …}`, the alert as it is now),
/// `decision` (a row of the usage log), `credit_line` (`{"change": "line_activated" | "line_changed" | "line_closed" |
/// "statement_closed" | "stage_changed" | "grade_changed", "changed_at": …, "merchant_id": …, "currency": …}` with `line`,
/// `statement`, `stage` or `grade`) and at the end `ended` (`{"code": …, "detail": …}`, as when the token has run out). Each
/// has an id: sent back as `Last-Event-ID`, on any server and within 30 days, the stream goes on after it. A heartbeat is an id
/// without an event. How many streams a server and a caller may have is bounded.
#[utoipa::path(
    get, path = "/stream", tag = "stream", operation_id = "live_stream",
    params(
        StreamQuery,
        ("Last-Event-ID" = Option<String>, Header, description = "The last id that was received; without it the stream begins \
            with what comes next."),
    ),
    responses((status = OK, content_type = "text/event-stream", body = String), Problems),
)]
async fn live_stream(
    State(admin): State<Admin>,
    caller: Caller,
    headers: HeaderMap,
    Query(query): Query<StreamQuery>,
) -> Answer<Response> {
    let filter = query.filter(&caller)?;
    let cursor = last_cursor(&headers)?;
    let streams = &admin.streams;
    let permit = streams.permits.take(&caller, admin.live.current().streams_max, &admin.stream_metrics)?;
    let reader = match cursor {
        Some(cursor) => streams.feed.resume(filter, cursor).await?.map_err(|error| bad_id(&error))?,
        None => streams.feed.begin(filter).await?,
    };
    let (wake, stopping) = (streams.wake.clone(), streams.stopping.clone());
    let stream = run::Stream::new(&admin, caller, &headers, reader, permit).until(wake, stopping);
    let (name, value) = UNBUFFERED;
    // A stream that waits for its turn to read sends comments, too.
    let comments = KeepAlive::new().interval(run::patience(&admin));
    let mut response = Sse::new(stream).keep_alive(comments).into_response();
    response.headers_mut().insert(name, value);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    Ok(response)
}

/// The client's position, if it sends one.
fn last_cursor(headers: &HeaderMap) -> Answer<Option<Cursor>> {
    let mut values = headers.get_all(LAST_EVENT_ID).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Problem::field(LAST_EVENT_ID, "the header must come once"));
    }
    let text = value.to_str().unwrap_or_default();
    Cursor::decode(text, clock::now_ms()).map(Some).map_err(|error| bad_id(&error))
}

fn bad_id(error: &sluice_live::CursorError) -> Problem {
    Problem::field(LAST_EVENT_ID, error.to_string())
}

impl StreamQuery {
    /// Checks every condition, and narrows to what the caller may see.
    fn filter(&self, caller: &Caller) -> Answer<Filter> {
        let kinds =
            self.kinds.as_ref().map(|kinds| kinds.split(',').map(kind).collect::<Answer<Vec<_>>>()).transpose()?;
        let wanted = |kind: Kind| match &kinds {
            Some(kinds) if kinds.contains(&kind) => caller.require(permission(kind)).map(|()| true),
            Some(_) => Ok(false),
            None => Ok(caller.scopes.has(permission(kind))),
        };
        let (alerts, decisions) = (wanted(Kind::Alerts)?, wanted(Kind::Decisions)?);
        let credit_lines = wanted(Kind::CreditLines)?;
        if !alerts && !decisions && !credit_lines {
            caller.require(Permission::QuotasRead)?;
        }
        let field = |name: &'static str| move |error: String| Problem::field(name, error);
        let merchant = self.merchant_id.as_deref().map(MerchantId::parse).transpose();
        let merchant = merchant.map_err(|error| field("merchant_id")(error.to_string()))?;
        let currency = self.currency.as_deref().map(Currency::parse).transpose();
        let code = |text: &str| Code::parse(text).ok_or_else(|| Problem::field("code", "is no code of an answer"));
        Ok(Filter {
            alerts,
            decisions,
            credit_lines,
            own: caller.merchant.clone(),
            merchant: caller.narrow(merchant)?,
            currency: currency.map_err(|error| field("currency")(error.to_string()))?,
            code: self.code.as_deref().map(code).transpose()?,
        })
    }
}

fn kind(text: &str) -> Answer<Kind> {
    let detail =
        || Problem::field("kinds", "must be alerts, decisions or credit_lines, several with commas between them");
    text.parse().map_err(|_| detail())
}

/// What it takes to read events of a kind.
const fn permission(kind: Kind) -> Permission {
    match kind {
        Kind::Alerts => Permission::AlertsRead,
        Kind::Decisions => Permission::QuotasRead,
        Kind::CreditLines => Permission::CreditRead,
    }
}
