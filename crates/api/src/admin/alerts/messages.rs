//! `/alerts/messages`: the messages sent on each channel, and sending them again.

use axum::extract::State;
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::place;
use crate::admin::execute::parse_merchant;
use crate::admin::openapi::{BodyProblems, NotFound, Problems};
use crate::admin::page::{self, Page, TimeId};
use crate::admin::problem::{Answer, Kind, Problem};
use crate::admin::{Admin, Caller, Json, Path, Permission, Query};
use sluice_alerts::read::messages::{self, Detail, Filter, Message, SendError, State as MessageState};
use sluice_alerts::{Scope, settings};

/// Most messages of one alert: two on each channel of two settings.
const OF_ALERT_MAX: i64 = 100;
/// `Retry-After` for too many redeliveries by hand.
const BY_HAND_RETRY_SECS: u64 = 60;

pub(super) fn routes() -> OpenApiRouter<Admin> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(get)).routes(routes!(redeliver))
}

/// The problem that an error is to its caller.
pub(super) fn send_problem(error: SendError) -> Problem {
    match error {
        SendError::NotFound => Problem::new(Kind::NotFound),
        SendError::Waiting(_) => Problem::new(Kind::Conflict).detail(error.to_string()),
        SendError::TooMany => Problem::new(Kind::RateLimited).detail(error.to_string()).retry_after(BY_HAND_RETRY_SECS),
        SendError::Database(error) => error.into(),
    }
}

/// Which messages to list, the newest first.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct MessageQuery {
    /// `dead` are those that were given up.
    #[param(inline)]
    state: Option<MessageState>,
    /// Those of the merchant's own channels.
    merchant_id: Option<String>,
    channel_id: Option<String>,
    alert_id: Option<Uuid>,
    /// Where to go on: `next_cursor` of the page before.
    cursor: Option<String>,
    /// Most items to answer with.
    #[param(minimum = 1)]
    limit: Option<u64>,
}

/// Messages that were sent, or are to be; a merchant sees those of its own channels.
#[utoipa::path(get, path = "/alerts/messages", tag = "alerts", operation_id = "list_alert_messages",
    params(MessageQuery), responses((status = OK, body = Page<Message>), Problems))]
async fn list(
    State(admin): State<Admin>,
    caller: Caller,
    Query(query): Query<MessageQuery>,
) -> Answer<Json<Page<Message>>> {
    caller.require(Permission::AlertsRead)?;
    let merchant = caller.narrow(query.merchant_id.as_deref().map(parse_merchant).transpose()?)?;
    let limit = page::limit(query.limit, admin.live.current().admin_page_max)?;
    let after = place(query.cursor.as_deref())?;
    let filter = Filter {
        scope: merchant.map(Scope::Merchant),
        state: query.state,
        channel_id: query.channel_id,
        alert_id: query.alert_id,
        message_id: None,
    };
    let rows = messages::list(&admin.pool, &filter, after, limit.saturating_add(1)).await?;
    Ok(Json(Page::from_rows(rows, limit, |last| TimeId(last.created_at, last.message_id))))
}

/// A message with each try to deliver it.
#[utoipa::path(get, path = "/alerts/messages/{message_id}", tag = "alerts", operation_id = "get_alert_message",
    params(("message_id" = Uuid, Path)), responses((status = OK, body = Detail), Problems, NotFound))]
async fn get(State(admin): State<Admin>, caller: Caller, Path(message_id): Path<Uuid>) -> Answer<Json<Detail>> {
    caller.require(Permission::AlertsRead)?;
    let detail = messages::details(&admin.pool, &by_id(&caller, message_id), 1).await?.pop();
    Ok(Json(detail.ok_or_else(|| Problem::new(Kind::NotFound))?))
}

/// Send a message again that was sent or given up: at once, with the same id, and for as long as a new one is tried.
///
/// Of each settings' redeliveries and tests together ten a minute are taken.
#[utoipa::path(post, path = "/alerts/messages/{message_id}/redeliver", tag = "alerts",
    operation_id = "redeliver_alert_message", params(("message_id" = Uuid, Path)),
    responses((status = ACCEPTED, body = Message), Problems, BodyProblems, NotFound))]
async fn redeliver(
    State(admin): State<Admin>,
    caller: Caller,
    Path(message_id): Path<Uuid>,
) -> Answer<(axum::http::StatusCode, Json<Message>)> {
    caller.require(Permission::AlertsConfigure)?;
    let message = one(&admin, &caller, message_id).await?;
    let scope = Scope::parse(&message.scope).ok_or_else(|| Problem::new(Kind::NotFound))?;
    if settings::load(&admin.pool, &scope).await?.settings.channel(&message.channel_id).is_none() {
        let detail = format!("the settings of {} have no channel {} any more", message.scope, message.channel_id);
        return Err(Problem::new(Kind::Conflict).detail(detail));
    }
    let give_up_secs = admin.live.current().alert_give_up_secs;
    let sent = messages::redeliver(&admin.pool, &message, caller.subject.as_str(), give_up_secs)
        .await
        .map_err(send_problem)?;
    Ok((axum::http::StatusCode::ACCEPTED, Json(sent)))
}

/// The messages about an alert that the caller may see.
pub(super) async fn of_alert(admin: &Admin, caller: &Caller, alert: Uuid) -> Answer<Vec<Detail>> {
    let scope = caller.merchant.clone().map(Scope::Merchant);
    let filter = Filter { scope, alert_id: Some(alert), ..Filter::default() };
    Ok(messages::details(&admin.pool, &filter, OF_ALERT_MAX).await?)
}

/// A message, if the caller may see it.
async fn one(admin: &Admin, caller: &Caller, id: Uuid) -> Answer<Message> {
    let found = messages::list(&admin.pool, &by_id(caller, id), None, 1).await?.pop();
    found.ok_or_else(|| Problem::new(Kind::NotFound))
}

/// The message with the id, where it is one of the caller's.
fn by_id(caller: &Caller, id: Uuid) -> Filter {
    let scope = caller.merchant.clone().map(Scope::Merchant);
    Filter { scope, message_id: Some(id), ..Filter::default() }
}
