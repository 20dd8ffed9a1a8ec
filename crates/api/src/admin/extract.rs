//! Extractors whose rejections are problems that name the field at fault: JSON bodies, queries, path parameters.

mod nul;
mod words;

use axum::extract::path::ErrorKind;
use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequest, FromRequestParts, Path as AxumPath, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::problem::{Answer, Kind, Problem};

/// Longest query that is read, in bytes.
const QUERY_BYTES_MAX: usize = 8 * 1024;

/// A JSON body, in and out. Types that come in deny unknown fields, so that a misspelt one is not ignored.
#[derive(Clone, Copy, Debug)]
pub struct Json<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Answer<Self> {
        let media = is_json(request.headers());
        let body = Bytes::from_request(request, state).await.map_err(|_| {
            Problem::new(Kind::BadRequest).detail("the body broke off; send as many bytes as content-length says")
        })?;
        // An empty body equals an empty object, whatever its media type: without required fields that is enough.
        if body.trim_ascii().is_empty() {
            return from_json(b"{}").map(Self);
        }
        if !media {
            let detail = "send the body with content-type: application/json";
            return Err(Problem::new(Kind::UnsupportedMediaType).detail(detail));
        }
        from_json(&body).map(Self)
    }
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        axum::Json(self.0).into_response()
    }
}

/// Whether the body is declared as JSON, or not declared at all.
fn is_json(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(header::CONTENT_TYPE) else { return true };
    let value = value.to_str().unwrap_or_default();
    let media = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    media == "application/json" || (media.starts_with("application/") && media.ends_with("+json"))
}

fn from_json<T: DeserializeOwned>(body: &[u8]) -> Answer<T> {
    nul::refuse(body)?;
    let mut text = serde_json::Deserializer::from_slice(body);
    let value = serde_path_to_error::deserialize(&mut text).map_err(|error| {
        let path = error.path().to_string();
        located(&path, &error.into_inner().to_string())
    })?;
    text.end().map_err(|error| Problem::new(Kind::BadRequest).detail(words::sentence(&error.to_string())))?;
    Ok(value)
}

/// The query, with the same rules as for a body.
#[derive(Clone, Copy, Debug)]
pub struct Query<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Answer<Self> {
        from_query(parts.uri.query().unwrap_or_default()).map(Self)
    }
}

fn from_query<T: DeserializeOwned>(query: &str) -> Answer<T> {
    if query.len() > QUERY_BYTES_MAX {
        return Err(Problem::new(Kind::BadRequest).detail(format!("the query has more than {QUERY_BYTES_MAX} bytes")));
    }
    if let Some((name, _)) = form_urlencoded::parse(query.as_bytes()).find(|(_, value)| value.contains('\0')) {
        return Err(Problem::field(name, nul::DETAIL));
    }
    let fields = serde_urlencoded::Deserializer::new(form_urlencoded::parse(query.as_bytes()));
    serde_path_to_error::deserialize(fields).map_err(|error| {
        let path = error.path().to_string();
        located(&path, &error.into_inner().to_string())
    })
}

/// Names the field at fault. A field that is missing or comes twice is in the detail only: its path is its parent's.
fn located(path: &str, message: &str) -> Problem {
    let quoted = ["missing field `", "duplicate field `"].into_iter().find_map(|start| message.strip_prefix(start));
    let name = quoted.and_then(|rest| rest.split('`').next()).map(str::to_owned);
    let detail = words::sentence(message);
    // A question mark means an incomplete field, a dot the whole document.
    let path = path.strip_suffix('?').map_or(path, |parent| parent.strip_suffix('.').unwrap_or(parent));
    match (path, name) {
        ("" | ".", None) => Problem::new(Kind::BadRequest).detail(detail),
        ("" | ".", Some(name)) => Problem::field(name, detail),
        (path, Some(name)) if path != name => Problem::field(format!("{path}.{name}"), detail),
        (path, _) => Problem::field(path, detail),
    }
}

/// The path's parameters.
#[derive(Clone, Copy, Debug)]
pub struct Path<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Answer<Self> {
        match AxumPath::from_request_parts(parts, state).await {
            Ok(AxumPath(value)) => Ok(Self(value)),
            Err(PathRejection::FailedToDeserializePathParams(error)) => Err(bad_path(error.into_kind())),
            Err(rejection) => Err(Problem::internal("path parameters", &rejection)),
        }
    }
}

fn bad_path(kind: ErrorKind) -> Problem {
    let detail = words::sentence(&kind.to_string());
    match kind {
        ErrorKind::InvalidUtf8InPathParam { key } => Problem::field(key, "must be UTF-8"),
        ErrorKind::ParseErrorAtKey { key, .. } | ErrorKind::DeserializeError { key, .. } => Problem::field(key, detail),
        _ => Problem::new(Kind::BadRequest).detail(format!("the path {detail}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Outer {
        #[expect(dead_code, reason = "only read from text")]
        inner: Vec<Inner>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        #[expect(dead_code, reason = "only read from text")]
        amount: u64,
    }

    #[test]
    fn bad_bodies_name_their_field() {
        let table = [
            (r#"{"inner":[{"amount":1},{"amount":"2"}]}"#, Some("inner[1].amount"), "must be a whole number"),
            (r#"{"inner":[{"amount":-1}]}"#, Some("inner[0].amount"), "must be a whole number"),
            (r#"{"inner":[{"amount":1,"x":1}]}"#, Some("inner[0].x"), "unknown field `x`"),
            (r#"{"inner":[{"amount":1,"amount":1}]}"#, Some("inner[0].amount"), "duplicate field"),
            (r#"{"inner":[{}]}"#, Some("inner[0].amount"), "missing field `amount`"),
            ("{}", Some("inner"), "missing field `inner`"),
            (r#"{"inner":[]} {}"#, None, "more after the JSON"),
            (r#"{"inner":[]"#, None, "ends too early"),
            ("{", None, "ends too early"),
            (r#"{"inner":[{"#, Some("inner[0]"), "ends too early"),
            ("", None, "ends too early"),
        ];
        for (body, field, detail) in table {
            let problem = serde_json::to_value(from_json::<Outer>(body.as_bytes()).unwrap_err()).unwrap();
            assert_eq!(problem.get("field").and_then(|field| field.as_str()), field, "{body}: {problem}");
            assert!(problem["detail"].as_str().unwrap().contains(detail), "{body}: {problem}");
        }
        assert!(from_json::<Outer>(br#"{"inner":[{"amount":1}]}"#).is_ok());
    }

    #[test]
    fn bad_queries_name_their_parameter() {
        let table = [
            ("amount=x", Some("amount")),
            ("amount=1&x=1", Some("x")),
            ("amount=1&amount=2", Some("amount")),
            ("", Some("amount")),
        ];
        for (query, field) in table {
            let problem = serde_json::to_value(from_query::<Inner>(query).unwrap_err()).unwrap();
            assert_eq!(problem.get("field").and_then(|field| field.as_str()), field, "{query}: {problem}");
        }
        assert!(from_query::<Inner>("amount=1").is_ok());
        assert!(from_query::<Inner>(&format!("amount=1{}", "0".repeat(QUERY_BYTES_MAX))).is_err());
    }
}
