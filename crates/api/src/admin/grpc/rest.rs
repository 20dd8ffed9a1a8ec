//! A message as a request of REST, and an answer of REST as a message. Both have the same members, by name.

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Method, Request};
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use serde_path_to_error::Track;
use tonic::codegen::Service as _;
use tonic::metadata::MetadataMap;
use tonic::{Extensions, Response};

use super::routed::Route;
use super::{GrpcResult, status};
use crate::admin::audit::Client;
use crate::admin::{API, Answer, Caller, Kind, Problem, idempotency};

type Members = Map<String, Value>;

/// The request of a message: of its members, the path takes those that it names, and query or body the others.
///
/// # Errors
/// A problem with the member that REST cannot be given.
pub(super) fn request(
    route: Route,
    message: &impl Serialize,
    metadata: &HeaderMap,
    extensions: &Extensions,
) -> Answer<Request<Body>> {
    let Route { method, path, body } = route;
    let mut members = members(message)?;
    remove(&mut members)?;
    let mut uri = uri(path, &mut members)?;
    let malformed = |error: &dyn std::fmt::Display| Problem::new(Kind::BadRequest).detail(error.to_string());
    let body = match body {
        Some(name) => Some(members.remove(name).ok_or_else(|| must_be_set(name))?),
        None if method == Method::GET || method == Method::DELETE => None,
        None => Some(Value::Object(std::mem::take(&mut members))),
    };
    if !members.is_empty() {
        let query = serde_urlencoded::to_string(&members).map_err(|error| malformed(&error))?;
        uri = format!("{uri}?{query}");
    }
    let body = body.map(|body| serde_json::to_vec(&body)).transpose().map_err(|error| malformed(&error))?;
    let body = Body::from(body.unwrap_or_default());
    let request = Request::builder().method(method).uri(uri).body(body);
    let mut request = request.map_err(|error| malformed(&error))?;
    for key in metadata.get_all(idempotency::KEY) {
        request.headers_mut().append(idempotency::KEY, key.clone());
    }
    // Not all of them: the others are about the call's own path.
    let own = request.extensions_mut();
    extensions.get::<Caller>().map(|caller| own.insert(caller.clone()));
    extensions.get::<Client>().map(|client| own.insert(*client));
    Ok(request)
}

/// The answer of REST to a request, as a message.
///
/// # Errors
/// The status of a refusal.
pub(super) async fn answer<A: DeserializeOwned>(mut operations: Router, request: Request<Body>) -> GrpcResult<A> {
    let Ok(response) = operations.call(request).await;
    let (parts, body) = response.into_parts();
    let unreadable = |error: &dyn std::fmt::Display| status::of(&Problem::internal("an answer of rest", error));
    let body = to_bytes(body, usize::MAX).await.map_err(|error| unreadable(&error))?;
    if !parts.status.is_success() {
        return Err(status::of_answer(&parts.headers, &body));
    }
    // What has nothing to say is a message without members.
    let body = if body.is_empty() { Bytes::from_static(b"{}") } else { body };
    let message = serde_json::from_slice(&body).map_err(|error| unreadable(&error))?;
    let replayed = parts.headers.into_iter().filter(|(name, _)| name.as_ref() == Some(&idempotency::REPLAYED));
    let replayed = replayed.filter_map(|(name, value)| Some((name?, value))).collect();
    Ok(Response::from_parts(MetadataMap::from_headers(replayed), message, Extensions::default()))
}

fn members(message: &impl Serialize) -> Answer<Members> {
    let mut track = Track::new();
    let value = message.serialize(serde_path_to_error::Serializer::new(serde_json::value::Serializer, &mut track));
    match value {
        Ok(Value::Object(members)) => Ok(members),
        Ok(_) => Ok(Members::new()),
        // Nothing else in a message can fail.
        Err(error) => Err(Problem::field(track.path().to_string(), format!("its field that ends in _json {error}"))),
    }
}

/// Most members that one change removes, and how deep they may be: `terms.cycle.monthly`.
const REMOVED_MAX: usize = 32;
const DEPTH_MAX: usize = 4;

/// Where a message says in `remove` which members of its `line` are to be removed, REST has null in their place.
fn remove(members: &mut Members) -> Answer<()> {
    let Some(Value::Array(paths)) = members.remove("remove") else { return Ok(()) };
    if paths.len() > REMOVED_MAX {
        return Err(Problem::field("remove", format!("must name at most {REMOVED_MAX} members")));
    }
    let refused = |path: &str| Problem::field("remove", format!("names {path}, which cannot be removed, or is set"));
    for path in paths.iter().filter_map(Value::as_str) {
        if path.split('.').nth(DEPTH_MAX).is_some() {
            return Err(Problem::field(
                "remove",
                format!("names a member inside of {DEPTH_MAX} others: there is none"),
            ));
        }
        let mut place = members.entry("line").or_insert(Value::Null);
        for name in path.split('.') {
            if place.is_null() {
                *place = Value::Object(Members::new());
            }
            let inner = place.as_object_mut().ok_or_else(|| refused(path))?;
            place = inner.entry(name).or_insert(Value::Null);
        }
        if !place.is_null() {
            return Err(refused(path));
        }
    }
    Ok(())
}

/// The path with its parameters, which are taken from the members.
fn uri(path: &str, members: &mut Members) -> Answer<String> {
    let mut uri = API.to_owned();
    for segment in path.split('/').skip(1) {
        uri.push('/');
        match segment.strip_prefix('{').and_then(|name| name.strip_suffix('}')) {
            Some(name) => uri.push_str(&parameter(name, members)?),
            None => uri.push_str(segment),
        }
    }
    Ok(uri)
}

fn parameter(name: &str, members: &mut Members) -> Answer<String> {
    let text = match members.remove(name) {
        Some(Value::String(text)) => text,
        other => other.unwrap_or_default().to_string(),
    };
    if text.is_empty() {
        return Err(must_be_set(name));
    }
    // A form writes a blank as a plus, which a path takes for itself.
    Ok(form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>().replace('+', "%20"))
}

fn must_be_set(name: &str) -> Problem {
    Problem::field(name.to_owned(), "must be set")
}

#[cfg(test)]
mod tests {
    use proto::quota_v1 as pb;
    use serde_json::json;

    use super::*;

    fn sent(method: Method, path: &'static str, message: &impl Serialize) -> Result<String, Value> {
        let route = Route { method, path, body: None };
        let request = request(route, message, &HeaderMap::new(), &Extensions::default());
        request.map(|request| request.uri().to_string()).map_err(|problem| serde_json::to_value(problem).unwrap())
    }

    #[test]
    fn the_path_takes_what_it_names_and_the_query_the_rest() {
        const PATH: &str = "/credit-lines/{merchant_id}/{currency}/statements";
        for (merchant_id, limit, expected) in [
            ("shop", None, Ok("/api/v1/credit-lines/shop/USD/statements")),
            ("shop", Some(7), Ok("/api/v1/credit-lines/shop/USD/statements?limit=7")),
            ("a/b +?#ü", None, Ok("/api/v1/credit-lines/a%2Fb%20%2B%3F%23%C3%BC/USD/statements")),
            ("..", None, Ok("/api/v1/credit-lines/../USD/statements")),
            ("", None, Err("merchant_id")),
        ] {
            let (merchant_id, currency) = (merchant_id.to_owned(), "USD".to_owned());
            let message = pb::ListStatementsRequest { merchant_id, currency, limit, cursor: None };
            let uri = sent(Method::GET, PATH, &message).map_err(|problem| problem["field"].clone());
            assert_eq!(uri, expected.map(str::to_owned).map_err(Value::from), "{message:?}");
        }
    }

    #[tokio::test]
    async fn a_body_that_is_one_member_leaves_the_query_to_the_others() {
        const PATH: &str = "/merchants/{merchant_id}/settings";
        let message = |settings| pb::SetMerchantSettingsRequest {
            merchant_id: "shop".to_owned(),
            settings,
            expected_revision: Some(7),
        };
        let sent = |settings| {
            let route = Route { method: Method::PUT, path: PATH, body: Some("settings") };
            request(route, &message(settings), &HeaderMap::new(), &Extensions::default())
        };
        let request = sent(Some(pb::AlertSettings::default())).unwrap();
        assert_eq!(request.uri(), "/api/v1/merchants/shop/settings?expected_revision=7");
        let body = to_bytes(request.into_body(), usize::MAX).await.unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body, json!({"channels": [], "routes": [], "thresholds": []}));
        let refused = serde_json::to_value(sent(None).map(|_| ()).unwrap_err()).unwrap();
        assert_eq!(refused["field"], "settings", "{refused}");
    }

    #[test]
    fn members_that_are_removed_are_null_and_those_that_are_not_set_are_absent() {
        let terms = pb::Terms { due_days: Some(30), ..pb::Terms::default() };
        let line = pb::CreditLineInput { limit_base: Some(5), terms: Some(terms), ..pb::CreditLineInput::default() };
        let of = |remove: &[&str]| {
            let remove = remove.iter().map(|&path| path.to_owned()).collect();
            let line = Some(line.clone());
            let mut members =
                members(&pb::UpdateCreditLineRequest { line, remove, ..pb::UpdateCreditLineRequest::default() })
                    .unwrap();
            super::remove(&mut members).map(|()| members["line"].clone()).map_err(|_| ())
        };
        let table = [
            (&[][..], Ok(json!({"limit_base": 5, "terms": {"due_days": 30}}))),
            (&["remarks"], Ok(json!({"limit_base": 5, "terms": {"due_days": 30}, "remarks": null}))),
            (
                &["terms.listed_channels", "terms.cycle.monthly"],
                Ok(json!({"limit_base": 5,
                    "terms": {"due_days": 30, "listed_channels": null, "cycle": {"monthly": null}}})),
            ),
            (&["limit_base"], Err(())),
            (&["terms.due_days"], Err(())),
            (&["limit_base.x"], Err(())),
            (&["terms.a.b.c.d"], Err(())),
            (&["a."], Ok(json!({"limit_base": 5, "terms": {"due_days": 30}, "a": {"": null}}))),
            (&["remarks"; REMOVED_MAX + 1], Err(())),
        ];
        for (remove, expected) in table {
            assert_eq!(of(remove), expected, "{remove:?}");
        }
    }

    #[test]
    fn text_of_free_form_has_to_be_json() {
        let with = |metadata: &str| pb::CreateCreditLineRequest {
            line: Some(pb::CreditLineInput {
                metadata_json: Some(metadata.to_owned()),
                ..pb::CreditLineInput::default()
            }),
            reason: None,
        };
        assert_eq!(Value::Object(members(&with(r#"{"a":[1]}"#)).unwrap()), json!({"line": {"metadata": {"a": [1]}}}));
        let refused = members(&with("{")).map_err(|problem| serde_json::to_value(problem).unwrap());
        let refused = refused.unwrap_err();
        assert_eq!(refused["field"], "line", "{refused}");
        assert!(
            refused["detail"].as_str().unwrap().starts_with("its field that ends in _json must be JSON: "),
            "{refused}"
        );
    }

    /// Tables that are empty differ from those that are not set, and of a choice one member is there.
    #[test]
    fn terms_are_those_of_rest() {
        let terms = sluice_credit::Terms {
            listed_channels: Some(std::iter::once("card".to_owned()).collect()),
            cycle: sluice_credit::CycleRule::EveryDays { days: 7 },
            transfer_max: Some(5),
            ..sluice_credit::Terms::default()
        };
        let rest = serde_json::to_value(&terms).unwrap();
        let message: pb::Terms = serde_json::from_value(rest.clone()).unwrap();
        assert_eq!(message.cycle.unwrap().rule, Some(pb::cycle_rule::Rule::EveryDays(pb::DaysCycle { days: 7 })));
        assert_eq!(message.stages.as_ref().map(|table| table.rows.len()), Some(6));
        assert_eq!(serde_json::to_value(&message).unwrap(), rest);
        let none = pb::Terms { dunning: Some(pb::DunningLadder::default()), ..pb::Terms::default() };
        assert_eq!(serde_json::to_value(&none).unwrap(), json!({"dunning": []}));
    }

    /// Bands that are empty differ from those that are not set, which are the standard ones.
    #[test]
    fn scorecards_are_those_of_rest() {
        let standard = sluice_credit::Scorecard::default();
        let message: pb::Scorecard = serde_json::from_value(serde_json::to_value(&standard).unwrap()).unwrap();
        assert_eq!(message.bands.as_ref().map(|table| table.bands.len()), Some(5));
        let back: sluice_credit::Scorecard = serde_json::from_value(serde_json::to_value(&message).unwrap()).unwrap();
        assert_eq!(back, standard);
        let unset = pb::Scorecard { bands: None, ..message };
        assert_eq!(serde_json::to_value(&unset).unwrap().get("bands"), None);
        let none = pb::Scorecard { bands: Some(pb::BandTable::default()), ..unset };
        assert_eq!(serde_json::to_value(&none).unwrap()["bands"], json!([]));
    }
}
