//! The API's own description: OpenAPI 3.1, made from the routes and types of the code.

use std::collections::BTreeMap;

use utoipa::openapi::content::ContentBuilder;
use utoipa::openapi::path::{ParameterBuilder, ParameterIn};
use utoipa::openapi::response::ResponseBuilder;
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{OpenApi as Document, RefOr, Required, Response};
use utoipa::{IntoResponses, Modify, OpenApi, ToSchema};

use super::idempotency;
use super::problem::{Kind, Problem};

/// The name of the security scheme in the document.
const BEARER: &str = "bearer";

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Sluice admin API",
        description = "Operations on payment quotas, limit policies, usage logs, settings and access tokens. Errors are \
            problem details (RFC 9457) with a stable `code`. Every POST may carry an `Idempotency-Key`.",
    ),
    components(schemas(Problem)),
    modifiers(&Bearer),
    security(("bearer" = [])),
)]
struct Base;

struct Bearer;

impl Modify for Bearer {
    fn modify(&self, document: &mut Document) {
        let scheme = Http::builder()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("A signed token (JWT) with sub, exp and role, or an access token made by this API."))
            .build();
        document.components.get_or_insert_default().add_security_scheme(BEARER, SecurityScheme::Http(scheme));
    }
}

/// The document without paths; each part of the API adds its own.
pub(super) fn base() -> Document {
    Base::openapi()
}

/// Adds the header that every POST takes. A middleware reads it, not the operations, so it is described here as well.
pub(super) fn with_idempotency_key(mut document: Document) -> Document {
    let schema = ObjectBuilder::new()
        .schema_type(Type::String)
        .min_length(Some(1))
        .max_length(Some(idempotency::KEY_LEN_MAX))
        .pattern(Some("^[!-~]+$"));
    let key = ParameterBuilder::new()
        .name("Idempotency-Key")
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some(
            "Sent again with the same key within a day, the same request gets the same answer and is not done twice. Answers \
            that ask for another try (429, 5xx, and a batch with such items) are not kept: the next try is done anew. Except \
            where an `adjust` or a `reset` without `expected_version` may have been done: that answer is kept, or 409 with \
            OUTCOME_UNKNOWN says that there is none. Read the account then, and ask with `expected_version` and a new key.",
        ))
        .schema(Some(schema))
        .build();
    for post in document.paths.paths.values_mut().filter_map(|path| path.post.as_mut()) {
        post.parameters.get_or_insert_default().push(key.clone());
    }
    document
}

/// The whole document as text, as `/openapi.json` answers it.
#[must_use]
pub fn document() -> String {
    let mut text = super::document().to_pretty_json().unwrap_or_default();
    text.push('\n');
    text
}

/// The problems that any operation may answer with; an operation names it beside its own answers:
/// `responses((status = OK, body = Account), Problems)`.
#[derive(Clone, Copy, Debug)]
pub struct Problems;

impl IntoResponses for Problems {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        describe(&[
            Kind::BadRequest,
            Kind::Unauthenticated,
            Kind::Forbidden,
            Kind::RateLimited,
            Kind::Internal,
            Kind::DatabaseUnavailable,
        ])
    }
}

/// The problems of an operation with a body and an Idempotency-Key, beside [`Problems`].
#[derive(Clone, Copy, Debug)]
pub struct BodyProblems;

impl IntoResponses for BodyProblems {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        describe(&[
            Kind::RequestTimeout,
            Kind::Conflict,
            Kind::BodyTooLarge,
            Kind::UnsupportedMediaType,
            Kind::IdempotencyMismatch,
        ])
    }
}

/// The problem of an operation on one resource, beside [`Problems`].
#[derive(Clone, Copy, Debug)]
pub struct NotFound;

impl IntoResponses for NotFound {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        describe(&[Kind::NotFound])
    }
}

/// The refusals by quota, beside [`Problems`]: the statuses that the proxy answers with.
#[derive(Clone, Copy, Debug)]
pub struct Refusals;

impl IntoResponses for Refusals {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let answer = |(status, description): (&str, &str)| (status.to_owned(), problem(description));
        [
            ("403", "The policy, or the order, does not allow it; or the caller may not do this."),
            ("409", "The order, the account or the batch is in another state."),
            ("429", "A limit is used up; `Retry-After` says when time lifts it. Or the caller sends too many requests."),
            ("503", "The store gave no answer: ask again with the same numbers, or where the detail says so, with a version."),
        ]
        .map(answer)
        .into()
    }
}

fn problem(description: &str) -> RefOr<Response> {
    let schema = utoipa::openapi::Ref::from_schema_name(Problem::name());
    let content = ContentBuilder::new().schema(Some(schema)).build();
    ResponseBuilder::new().description(description).content(proto::PROBLEM_CONTENT_TYPE, content).build().into()
}

fn describe(kinds: &[Kind]) -> BTreeMap<String, RefOr<Response>> {
    let answer = |kind: &Kind| {
        let schema = utoipa::openapi::Ref::from_schema_name(Problem::name());
        let content = ContentBuilder::new().schema(Some(schema)).build();
        let response = ResponseBuilder::new().description(kind.title()).content(proto::PROBLEM_CONTENT_TYPE, content);
        (kind.status().as_str().to_owned(), response.build().into())
    };
    kinds.iter().map(answer).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_asks_for_a_token_and_names_its_problems() {
        let document: serde_json::Value = serde_json::from_str(&document()).unwrap();
        assert_eq!(document["components"]["securitySchemes"][BEARER]["scheme"], "bearer");
        assert_eq!(document["security"][0][BEARER], serde_json::json!([]));
        let paths = document["paths"].as_object().unwrap();
        assert!(!paths.is_empty());
        for (path, operations) in paths {
            assert!(path.starts_with("/api/v1/"), "{path}");
            for (method, operation) in operations.as_object().unwrap() {
                for status in ["400", "401", "403", "429", "503"] {
                    let body =
                        &operation["responses"][status]["content"][proto::PROBLEM_CONTENT_TYPE]["schema"]["$ref"];
                    assert_eq!(body, "#/components/schemas/Problem", "{method} {path} {status}");
                }
                assert!(operation["operationId"].is_string(), "{method} {path}");
                let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
                let keyed = parameters.iter().any(|parameter| parameter["name"] == "Idempotency-Key");
                assert_eq!(keyed, method == "post", "{method} {path}");
            }
        }
    }
}
