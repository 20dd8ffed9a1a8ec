//! Calls over both ways in, REST and gRPC, whose answers and refusals are compared.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use testkit::api::{Api, Caller};
use testkit::client::Call;
use testkit::{Failure, Result};
use tonic::transport::Channel;
use tonic::{Request, Status};
use tonic_types::StatusExt as _;

use crate::bench::{self, credit_client_on, merchant_client_on};
use crate::members::{self, Route};
use crate::refusals::reason;

/// The merchants of the two ways in: what changes something is done over one of them to each.
pub(crate) const MERCHANTS: [&str; 2] = ["by-rest", "by-grpc"];
/// The merchant in the table.
pub(crate) const MERCHANT: &str = "MERCHANT";
/// Members of the account's last answer that had them, in the table.
const REMEMBERED: [(&str, &str); 3] =
    [("/grade_id", "GRADE_ID"), ("/next_cursor", "NEXT_CURSOR"), ("/access_token/id", "TOKEN_ID")];
/// What differs between two accounts. A limit in force does while the server reads again what a posting has changed of its line; what is
/// read over both ways is compared with it.
const VOLATILE: [&str; 31] = [
    "limit",
    "available",
    "at",
    "requested_at",
    "reserve_decision",
    "credit_decision",
    "object_id",
    "alert_id",
    "line_id",
    "created_at",
    "updated_at",
    "approved_at",
    "activated_at",
    "recorded_at",
    "decision_id",
    "grade_id",
    "pause_id",
    "dispute_id",
    "scorecard_id",
    "history_id",
    "next_cursor",
    "id",
    "token",
    "message_id",
    "expires_at",
    "next_try_at",
    "give_up_at",
    "event_id",
    "raised_at",
    "replaces",
    "revoked_at",
];
/// Of an answer that goes by the time of the call, what differs between two of them.
const TIMES: [&str; 2] = ["at", "exhausted_at"];
/// What the server's sweep of credit lines changes by itself: the run of a scorecard that is due comes with the next one.
const SWEPT: [&str; 1] = ["next_run"];

/// Who calls.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Who {
    /// Drafts and posts.
    Oleg,
    /// Approves.
    Ana,
    /// The merchant of the line.
    Shop,
    Other,
}

/// An operation, who calls it, and its parameters and members as REST has them.
pub(crate) type Row = (&'static str, Who, Value);
/// An answer, or a refusal's code, field and detail.
pub(crate) type Outcome = std::result::Result<Value, Value>;

/// Calls an operation by its method of the client that has it.
macro_rules! call {
    ($operation:ident, $members:ident; $($client:ident: $($name:ident)+;)+) => {
        match $operation {
            $($(stringify!($name) => {
                let message = Request::new(serde_json::from_value($members)?);
                $client.$name(message).await.map(|answer| serde_json::to_value(answer.into_inner()))
            })+)+
            other => return Err(Failure::new(format!("{other} is not called here: add it"))),
        }
    };
}

pub(crate) struct Both<'a> {
    pub(crate) api: &'a Api,
    channel: Channel,
    routes: BTreeMap<String, Route>,
    called: BTreeSet<String>,
    /// What each merchant's answers had last of [`REMEMBERED`].
    remembered: [BTreeMap<&'static str, Value>; 2],
}

impl<'a> Both<'a> {
    pub(crate) async fn new(api: &'a Api) -> Result<Self> {
        let (channel, routes) = (bench::channel(api).await?, members::routes(&members::document()?));
        Ok(Self { api, channel, routes, called: BTreeSet::new(), remembered: [BTreeMap::new(), BTreeMap::new()] })
    }

    /// The operations of a service that were not called.
    pub(crate) fn left_out(&self, service: &str) -> Vec<&str> {
        let own = self.routes.iter().filter(|(_, route)| route.service == service);
        own.map(|(operation, _)| operation.as_str()).filter(|operation| !self.called.contains(*operation)).collect()
    }

    fn caller(&self, who: Who, merchant: &str) -> Result<Caller> {
        match who {
            Who::Oleg => self.api.operator(),
            Who::Ana => self.api.admin(),
            Who::Shop => self.api.merchant(merchant),
            Who::Other => self.api.merchant("other"),
        }
    }

    fn route(&self, operation: &str) -> Result<&Route> {
        self.routes.get(operation).ok_or_else(|| Failure::new(format!("docs/openapi.json has no {operation}")))
    }

    async fn rest(&self, caller: &Caller, operation: &str, members: Value) -> Result<Outcome> {
        let route = self.route(operation)?;
        let mut members = members.as_object().cloned().unwrap_or_default();
        let mut path = route.path.clone();
        for parameter in route.operation["parameters"].as_array().into_iter().flatten() {
            let name = parameter["name"].as_str().unwrap_or_default();
            let place = format!("{{{name}}}");
            if path.contains(&place) {
                path = path.replace(&place, &plain(&members.remove(name).unwrap_or_default()));
            }
        }
        let body = members::body_of(operation).map(|member| members.remove(member).unwrap_or_default());
        let body = match route.method.as_str() {
            "GET" | "DELETE" => None,
            _ => Some(body.unwrap_or_else(|| Value::Object(std::mem::take(&mut members)))),
        };
        if !members.is_empty() {
            let query: Vec<String> = members.iter().map(|(name, value)| format!("{name}={}", plain(value))).collect();
            path = format!("{path}?{}", query.join("&"));
        }
        let call = body.map_or_else(|| Call::new("GET", &path), |body| Call::post_json(&path, body.to_string()));
        let call = Call { method: route.method.clone(), ..call };
        let answer = caller.send(call).await?;
        let mut body = if answer.status == 204 { json!({}) } else { answer.json() };
        if answer.status >= 300 {
            let detail = body["detail"].as_str().unwrap_or_default();
            return Ok(Err(json!({"code": body["code"], "field": body["field"], "detail": detail})));
        }
        without_null(&mut body);
        Ok(Ok(body))
    }

    async fn grpc(&self, caller: &Caller, operation: &str, mut members: Value) -> Result<Outcome> {
        let mut removed = Vec::new();
        nulls(&members["line"], "", &mut removed);
        if !removed.is_empty() {
            members["remove"] = json!(removed);
            without_null(&mut members);
        }
        let mut credit = credit_client_on(self.channel.clone(), Some(caller.token()))?;
        let mut merchants = merchant_client_on(self.channel.clone(), Some(caller.token()))?;
        let answer = call!(operation, members;
            credit: list_credit_lines create_credit_line get_credit_line update_credit_line approve_credit_line
            activate_credit_line close_credit_line credit_line_history list_statements get_statement credit_statements
            repay list_repayments reverse_repayment write_off pause list_pauses get_grade request_grade approve_grade
            record_dispute list_disputes list_scorecards get_scorecard put_scorecard activate_scorecard retire_scorecard
            scorecard_results scorecard_history get_dunning take_over_obligations transfer list_transfers get_transfer
            credit_ageing credit_stats;
            merchants: get_self create_access_token list_access_tokens revoke_access_token rotate_access_token
            get_merchant_settings set_merchant_settings test_merchant_settings;);
        Ok(match answer {
            Ok(message) => {
                let mut message = message?;
                without_null(&mut message);
                Ok(message)
            }
            Err(status) => Err(refusal(&status)),
        })
    }

    /// Calls an operation in the place of a merchant: what only reads over both ways, and what changes something over its own.
    async fn outcome(&mut self, (operation, who, members): &Row, place: usize) -> Result<Outcome> {
        self.called.insert((*operation).to_owned());
        let caller = self.caller(*who, MERCHANTS[place])?;
        let members = placed(members, MERCHANTS[place], &self.remembered[place]);
        let outcome = if self.route(operation)?.method == "GET" {
            let mut rest = self.rest(&caller, operation, members.clone()).await?;
            let mut grpc = self.grpc(&caller, operation, members.clone()).await?;
            if let (Ok(rest), Ok(grpc)) = (&mut rest, &mut grpc) {
                as_in_rest(grpc, rest);
                if *operation == "get_self" {
                    [rest, grpc].into_iter().for_each(|answer| mask(answer, &TIMES));
                }
            }
            assert_eq!(without_swept(&grpc), without_swept(&rest), "{operation} by {who:?} of {members}");
            rest
        } else if place == 0 {
            self.rest(&caller, operation, members).await?
        } else {
            self.grpc(&caller, operation, members).await?
        };
        for (member, name) in REMEMBERED {
            let value = outcome.as_ref().ok().and_then(|answer| answer.pointer(member));
            self.remembered[place].extend(value.map(|value| (name, value.clone())));
        }
        Ok(outcome)
    }

    /// Calls all of them for one merchant and then for the other, and compares: of what is one for all lines, as the challenger,
    /// each has it in turn.
    pub(crate) async fn in_turn(&mut self, rows: &[Row]) -> Result<Vec<Outcome>> {
        let mut outcomes = [Vec::new(), Vec::new()];
        for (place, own) in outcomes.iter_mut().enumerate() {
            for row in rows {
                own.push(self.outcome(row, place).await?);
            }
        }
        let [first, mut second] = outcomes;
        for ((row, first), second) in rows.iter().zip(&first).zip(&mut second) {
            if let (Ok(first), Ok(second)) = (first, &mut *second) {
                as_in_rest(second, first);
            }
            assert_eq!(comparable(second), comparable(first), "{row:?}");
        }
        Ok(first)
    }

    /// Calls an operation over both, and compares.
    pub(crate) async fn same(&mut self, row: Row) -> Result<Outcome> {
        Ok(self.in_turn(&[row]).await?.remove(0))
    }

    /// Those that succeed.
    pub(crate) async fn done(&mut self, rows: Vec<Row>) -> Result<()> {
        for row in rows {
            let what = format!("{row:?}");
            let outcome = self.same(row).await?;
            assert!(outcome.is_ok(), "{what}: {outcome:?}");
        }
        Ok(())
    }

    /// Those that are refused, with this code and field.
    pub(crate) async fn refused(&mut self, rows: Vec<(Row, &str, Option<&str>)>) -> Result<()> {
        for (row, code, field) in rows {
            let what = format!("{row:?}");
            let Err(refusal) = self.same(row).await? else {
                return Err(Failure::new(format!("{what} was not refused")));
            };
            assert_eq!((refusal["code"].as_str(), refusal["field"].as_str()), (Some(code), field), "{what}: {refusal}");
        }
        Ok(())
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

pub(crate) fn refusal(status: &Status) -> Value {
    let violation = status.get_details_bad_request().and_then(|mut request| request.field_violations.pop());
    let field = violation.map(|own| own.field);
    let detail = match &field {
        Some(field) => status.message().split_once(&format!(" {field}: ")).map(|(_, detail)| detail),
        None => status.message().split_once(". ").map(|(_, detail)| detail),
    };
    json!({"code": reason(status), "field": field, "detail": detail.unwrap_or_default()})
}

/// Members that are null are absent in a message.
pub(crate) fn without_null(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|_, value| !value.is_null());
            members.values_mut().for_each(without_null);
        }
        Value::Array(items) => items.iter_mut().for_each(without_null),
        _ => {}
    }
}

/// A list that is empty is in every message, and in REST where it may not be absent; a whole number may be one with a point.
fn as_in_rest(message: &mut Value, rest: &Value) {
    match (message, rest) {
        (Value::Object(members), Value::Object(own)) => {
            members.retain(|name, value| *value != json!([]) || own.contains_key(name));
            members.iter_mut().for_each(|(name, value)| as_in_rest(value, &rest[name.as_str()]));
        }
        (Value::Array(items), Value::Array(own)) => {
            items.iter_mut().zip(own).for_each(|(item, own)| as_in_rest(item, own));
        }
        (Value::Number(number), Value::Number(own)) if number.is_f64() && number.as_f64() == own.as_f64() => {
            *number = own.clone();
        }
        _ => {}
    }
}

/// The paths of what is null.
fn nulls(value: &Value, path: &str, found: &mut Vec<String>) {
    for (name, value) in value.as_object().into_iter().flatten() {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        if value.is_null() { found.push(path) } else { nulls(value, &path, found) }
    }
}

fn placed(members: &Value, merchant: &str, remembered: &BTreeMap<&str, Value>) -> Value {
    let text = members.to_string().replace(MERCHANT, merchant);
    let text =
        remembered.iter().fold(text, |text, (name, value)| text.replace(&format!("\"{name}\""), &value.to_string()));
    serde_json::from_str(&text).unwrap_or_default()
}

/// Without what a sweep of the server may have changed since the call before.
fn without_swept(outcome: &Outcome) -> Outcome {
    let plain = |value: &Value| {
        let mut value = value.clone();
        mask(&mut value, &SWEPT);
        value
    };
    outcome.as_ref().map(plain).map_err(plain)
}

/// An outcome without what differs between two accounts.
fn comparable(outcome: &Outcome) -> Outcome {
    let plain = |value: &Value| {
        let mut value = value.clone();
        mask(&mut value, &VOLATILE);
        mask(&mut value, &SWEPT);
        let text = MERCHANTS.iter().fold(value.to_string(), |text, merchant| text.replace(merchant, MERCHANT));
        serde_json::from_str(&text).unwrap_or_default()
    };
    outcome.as_ref().map(plain).map_err(plain)
}

fn mask(value: &mut Value, names: &[&str]) {
    match value {
        Value::Object(members) => members.iter_mut().for_each(|(name, value)| {
            if names.contains(&name.as_str()) { *value = json!("…") } else { mask(value, names) }
        }),
        Value::Array(items) => items.iter_mut().for_each(|item| mask(item, names)),
        _ => {}
    }
}
