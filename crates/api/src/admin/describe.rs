//! Adds to the document what the API's types do not describe: the forms of identifiers, by the names of fields and parameters, and
//! each operation of a batch as one object.

mod examples;

use std::collections::BTreeMap;

use quota::{Channel, MerchantId, OrderNo};
use utoipa::openapi::path::{Operation, Parameter, ParameterIn};
use utoipa::openapi::schema::{AdditionalProperties, AllOf, Object, Type};
use utoipa::openapi::{OpenApi as Document, Ref, RefOr, Required, Response, Schema};

/// Visible ASCII characters.
const VISIBLE: &str = "^[!-~]+$";
/// The same without `:`.
const VISIBLE_NO_COLON: &str = "^[!-9;-~]+$";
/// Three capital letters, of which ISO 4217 knows some.
const CURRENCY: &str = "^[A-Z]{3}$";

/// Completes the document.
pub(super) fn refine(mut document: Document) -> Document {
    if let Some(components) = &mut document.components {
        let named = components.schemas.clone();
        let merged = |item: &RefOr<Schema>| match item {
            RefOr::T(Schema::AllOf(parts)) => merge(parts, |reference| named.get(name_of(reference)?).and_then(object)),
            RefOr::T(_) | RefOr::Ref(_) => None,
        };
        for schema in components.schemas.values_mut() {
            match schema {
                RefOr::T(Schema::OneOf(choice)) => {
                    for item in &mut choice.items {
                        if let Some(whole) = merged(item) {
                            *item = RefOr::T(Schema::Object(whole));
                        }
                    }
                }
                RefOr::T(_) | RefOr::Ref(_) => {}
            }
        }
        components.schemas.values_mut().for_each(bound_fields);
    }
    let schemas = document.components.as_ref().map(|components| components.schemas.clone()).unwrap_or_default();
    for path in document.paths.paths.values_mut() {
        let operations = [&mut path.get, &mut path.post, &mut path.put, &mut path.patch, &mut path.delete];
        operations.into_iter().flatten().for_each(|operation| complete(operation, &schemas));
    }
    document
}

/// Every schema of the document by its name.
type Schemas = BTreeMap<String, RefOr<Schema>>;

fn complete(operation: &mut Operation, schemas: &Schemas) {
    if let Some(parameters) = &mut operation.parameters {
        drop_path_parameters(parameters);
        parameters.iter_mut().for_each(|parameter| {
            if let Some(schema) = &mut parameter.schema {
                bound(&parameter.name, schema);
            }
        });
    }
    if let Some(body) = &mut operation.request_body {
        // A body without required fields is optional.
        let needed =
            body.content.values().any(|content| content.schema.as_ref().is_none_or(|it| is_needed(it, schemas)));
        body.required = Some(if needed { Required::True } else { Required::False });
        let example = operation.operation_id.as_deref().and_then(examples::of);
        body.content.values_mut().for_each(|content| content.example.clone_from(&example));
    }
    for (status, response) in &mut operation.responses.responses {
        if let RefOr::T(response) = response
            && response.description.is_empty()
        {
            response.description = success(status, response, schemas);
        }
    }
}

/// The description of a success: that of its body's type.
fn success(status: &str, response: &Response, schemas: &Schemas) -> String {
    let bodies = response.content.values().filter_map(|content| match &content.schema {
        Some(RefOr::Ref(reference)) => schemas.get(name_of(reference)?).and_then(object)?.description,
        Some(RefOr::T(_)) | None => None,
    });
    let body = bodies.filter_map(|text| text.split("\n\n").next().map(|text| text.replace('\n', " "))).next();
    let done = match status {
        "201" => "It was made.",
        "202" => "It is taken on, and done in the background.",
        "204" => "Done; the answer has no body.",
        "207" => "Some of the operations were refused; each has its own answer.",
        _ => "Done.",
    };
    body.map_or_else(|| done.to_owned(), |body| if status == "200" { body } else { format!("{done} {body}") })
}

fn is_needed(schema: &RefOr<Schema>, schemas: &Schemas) -> bool {
    match schema {
        RefOr::Ref(reference) => {
            name_of(reference).and_then(|name| schemas.get(name)).is_none_or(|it| is_needed(it, schemas))
        }
        RefOr::T(Schema::Object(object)) => !object.required.is_empty(),
        RefOr::T(_) => true,
    }
}

/// Removes query parameters that the path has already; lists of other paths take them.
fn drop_path_parameters(parameters: &mut Vec<Parameter>) {
    let is_in_path = |parameter: &Parameter| parameter.parameter_in == ParameterIn::Path;
    let named: Vec<String> =
        parameters.iter().filter(|parameter| is_in_path(parameter)).map(|parameter| parameter.name.clone()).collect();
    parameters.retain(|parameter| is_in_path(parameter) || !named.contains(&parameter.name));
}

/// A body that refuses unknown fields cannot be described as all of two schemas: each would refuse the other's fields.
fn merge(parts: &AllOf, find: impl Fn(&Ref) -> Option<Object>) -> Option<Object> {
    let [RefOr::Ref(reference), RefOr::T(Schema::Object(tag))] = parts.items.as_slice() else { return None };
    let mut whole = find(reference).filter(refuses_unknown)?;
    whole.properties.extend(tag.properties.clone());
    whole.required.extend(tag.required.iter().cloned());
    Some(whole)
}

fn name_of(reference: &Ref) -> Option<&str> {
    reference.ref_location.rsplit('/').next()
}

fn object(schema: &RefOr<Schema>) -> Option<Object> {
    match schema {
        RefOr::T(Schema::Object(object)) => Some(object.clone()),
        RefOr::T(_) | RefOr::Ref(_) => None,
    }
}

fn refuses_unknown(object: &Object) -> bool {
    matches!(object.additional_properties.as_deref(), Some(AdditionalProperties::FreeForm(false)))
}

/// Bounds the fields of request bodies: those that refuse unknown fields.
fn bound_fields(schema: &mut RefOr<Schema>) {
    match schema {
        RefOr::T(Schema::Object(body)) if refuses_unknown(body) => {
            body.properties.iter_mut().for_each(|(name, field)| bound(name, field));
        }
        RefOr::T(Schema::OneOf(choice)) => choice.items.iter_mut().for_each(bound_fields),
        RefOr::T(_) | RefOr::Ref(_) => {}
    }
}

/// The one table of forms.
fn bound(name: &str, schema: &mut RefOr<Schema>) {
    let RefOr::T(Schema::Object(field)) = schema else { return };
    if field.schema_type != Type::String.into() && field.schema_type != [Type::String, Type::Null].into_iter().collect()
    {
        return;
    }
    let (pattern, len_max) = match name {
        "merchant_id" => (VISIBLE_NO_COLON, Some(MerchantId::LEN_MAX)),
        "order_no" | "payment_no" | "refund_no" | "capture_no" => (VISIBLE, Some(OrderNo::LEN_MAX)),
        "channel" => (VISIBLE, Some(Channel::LEN_MAX)),
        "currency" => (CURRENCY, None),
        _ => return,
    };
    let example = match name {
        "merchant_id" => "merchant-001",
        "order_no" => "ORDER-001",
        "payment_no" => "PAYMENT-001",
        "refund_no" => "REFUND-001",
        "capture_no" => "CAPTURE-001",
        "channel" => "card",
        _ => "USD",
    };
    field.example.get_or_insert_with(|| example.into());
    field.pattern = Some(pattern.to_owned());
    field.max_length = len_max;
    field.min_length = len_max.map(|_| 1);
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    fn document() -> Value {
        serde_json::from_str(&crate::admin::openapi::document()).unwrap()
    }

    #[test]
    fn operations_of_a_batch_are_one_object_each() {
        let document = document();
        let operations = document["components"]["schemas"]["BatchOperation"]["oneOf"].as_array().unwrap();
        let paths = document["paths"].as_object().unwrap();
        let posts = paths.iter().filter(|(path, it)| path.starts_with("/api/v1/quotas/") && it.get("post").is_some());
        assert_eq!(operations.len() + 1, posts.count(), "a batch takes every operation, except a batch");
        for operation in operations {
            assert_eq!(operation["additionalProperties"], false, "{operation}");
            assert_eq!(operation["properties"]["action"]["enum"].as_array().unwrap().len(), 1, "{operation}");
            assert!(operation["required"].as_array().unwrap().contains(&json!("merchant_id")), "{operation}");
        }
    }

    #[test]
    fn identifiers_have_their_form_wherever_callers_send_them() {
        let document = document();
        let body = &document["components"]["schemas"]["ChargeRequest"]["properties"];
        assert_eq!(body["merchant_id"]["pattern"], super::VISIBLE_NO_COLON);
        assert_eq!(body["channel"]["maxLength"], 32);
        let path = &document["paths"]["/api/v1/quotas/merchant/{merchant_id}"]["get"]["parameters"][0];
        assert_eq!(
            (&path["schema"]["pattern"], &path["schema"]["maxLength"]),
            (&json!(super::VISIBLE_NO_COLON), &json!(64))
        );
    }

    #[test]
    fn every_success_is_described_and_every_body_has_an_example() {
        let document = document();
        let paths = document["paths"].as_object().unwrap().values();
        for operation in paths.flat_map(|path| path.as_object().unwrap().values()) {
            let name = &operation["operationId"];
            for (status, response) in operation["responses"].as_object().unwrap() {
                assert!(response["description"].as_str().is_some_and(|text| text.len() > 4), "{name} {status}");
            }
            if let Some(body) = operation.get("requestBody") {
                let example = &body["content"]["application/json"]["example"];
                assert!(example.is_object(), "{name} has no example: write one into describe/examples.rs");
            }
        }
        let channel = &document["components"]["schemas"]["ChargeRequest"]["properties"]["channel"];
        assert_eq!((&channel["example"], &channel["pattern"]), (&json!("card"), &json!(super::VISIBLE)));
    }

    #[test]
    fn what_the_path_names_is_not_asked_for_again() {
        let document = document();
        for (path, name) in [("merchant/{merchant_id}", "merchant_id"), ("order/{order_no}", "order_no")] {
            let parameters = &document["paths"][format!("/api/v1/usage-logs/{path}")]["get"]["parameters"];
            let named = parameters.as_array().unwrap().iter().filter(|parameter| parameter["name"] == name).count();
            assert_eq!(named, 1, "{parameters}");
        }
    }

    #[test]
    fn every_operation_has_a_name_of_its_own() {
        let document = document();
        let paths = document["paths"].as_object().unwrap().values();
        let operations = paths.flat_map(|path| path.as_object().unwrap().values());
        let mut names: Vec<&str> = operations.map(|operation| operation["operationId"].as_str().unwrap()).collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all, "{names:?}");
    }
}
