//! The messages of `quota.v1.CreditService` and `quota.v1.MerchantService` have the members of REST, as docs/openapi.json and the
//! descriptors say.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorSet};
use serde_json::{Map, Value};
use testkit::{Context, Result, dirs};

/// What REST alone has: the form of a list, and the header that is metadata in gRPC.
const REST_ONLY: [&str; 2] = ["format", "Idempotency-Key"];
/// What gRPC alone has: null in a change of REST.
const GRPC_ONLY: &str = "remove";

/// Members that REST has among those of what contains them.
const FLATTENED: &str = "counters";
/// Requests that have the body of REST as one of their members: its query has the others.
const BODIES: [(&str, &str); 1] = [("set_merchant_settings", "settings")];

/// An operation of REST that gRPC has as well.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    /// The service that has it.
    pub service: &'static str,
    pub method: String,
    /// After `/api/v1`.
    pub path: String,
    pub operation: Value,
}

/// The document of REST.
pub(crate) fn document() -> Result<Value> {
    let text = std::fs::read(dirs::workspace().join("docs/openapi.json"))?;
    serde_json::from_slice(&text).context("docs/openapi.json")
}

/// The operations of the services, by their id.
pub(crate) fn routes(document: &Value) -> BTreeMap<String, Route> {
    let mut routes = BTreeMap::new();
    for (path, methods) in document["paths"].as_object().into_iter().flatten() {
        let path = path.strip_prefix("/api/v1").unwrap_or(path);
        for (method, operation) in methods.as_object().into_iter().flatten() {
            if let (Some(service), Some(id)) = (service(path, operation), operation["operationId"].as_str()) {
                let (method, path) = (method.to_ascii_uppercase(), path.to_owned());
                routes.insert(id.to_owned(), Route { service, method, path, operation: operation.clone() });
            }
        }
    }
    routes
}

/// The service that has an operation.
fn service(path: &str, operation: &Value) -> Option<&'static str> {
    match operation["tags"][0].as_str()? {
        "credit" => Some("CreditService"),
        "self" | "access tokens" => Some("MerchantService"),
        "alert settings" if path.starts_with("/merchants/") => Some("MerchantService"),
        _ => None,
    }
}

/// The member of a request that is the body of REST, where one is.
pub(crate) fn body_of(operation: &str) -> Option<&'static str> {
    BODIES.iter().find(|(id, _)| *id == operation).map(|(_, member)| *member)
}

/// `list_credit_lines` as `ListCreditLines`.
fn method_name(operation_id: &str) -> String {
    operation_id.split('_').map(|word| word[..1].to_ascii_uppercase() + &word[1..]).collect()
}

/// Where the two differ.
struct Comparison<'a> {
    document: &'a Value,
    messages: BTreeMap<String, &'a DescriptorProto>,
    differences: Vec<String>,
    compared: BTreeSet<(String, String)>,
}

/// A member of REST: its schema, and whether it may be absent or null.
type Members = BTreeMap<String, (Value, bool)>;

impl<'a> Comparison<'a> {
    fn resolved(&self, schema: &Value) -> Value {
        if let Some(name) = schema["$ref"].as_str().and_then(|path| path.rsplit('/').next()) {
            return self.resolved(&self.document["components"]["schemas"][name]);
        }
        let choices: Vec<&Value> =
            schema["oneOf"].as_array().into_iter().flatten().filter(|choice| choice["type"] != "null").collect();
        match choices[..] {
            [only] => self.resolved(only),
            _ => schema.clone(),
        }
    }

    /// The members of an object; those of its parts, or of all that it may be.
    fn members_of(&self, schema: &Value) -> Members {
        let schema = self.resolved(schema);
        let required: BTreeSet<&str> =
            schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let mut members = Members::new();
        for (name, member) in schema["properties"].as_object().into_iter().flatten() {
            let is_null = |value: &Value| value == "null";
            let nullable = member["type"].as_array().is_some_and(|types| types.iter().any(is_null));
            let absent = nullable || !required.contains(name.as_str());
            members.insert(name.clone(), (member.clone(), absent));
        }
        for part in schema["allOf"].as_array().into_iter().flatten() {
            members.extend(self.members_of(part));
        }
        let choices: Vec<Members> =
            schema["oneOf"].as_array().into_iter().flatten().map(|choice| self.members_of(choice)).collect();
        for (name, (own, _)) in choices.iter().flatten() {
            let is_in_each = choices.iter().all(|choice| choice.get(name).is_some_and(|(_, absent)| !absent));
            members.insert(name.clone(), (own.clone(), !is_in_each));
        }
        members
    }

    fn compare(&mut self, place: &str, message: &str, members: &Members) {
        let Some(descriptor) = self.messages.get(message).copied() else {
            self.differences.push(format!("{place}: there is no message {message}"));
            return;
        };
        let fields: BTreeMap<String, &FieldDescriptorProto> = self
            .fields(descriptor)
            .into_iter()
            .map(|field| (field.name().trim_end_matches("_json").to_owned(), field))
            .collect();
        for name in fields.keys().filter(|name| !members.contains_key(*name) && *name != GRPC_ONLY) {
            self.differences.push(format!("{place}: only {message} has {name}"));
        }
        for (name, (schema, absent)) in members.iter().filter(|(name, _)| !REST_ONLY.contains(&name.as_str())) {
            let place = format!("{place}.{name}");
            let Some(field) = fields.get(name) else {
                self.differences.push(format!("{place}: is missing in {message}"));
                continue;
            };
            let is_single_value = field.label() == Label::Optional && field.r#type() != Type::Message;
            let is_false = schema["type"] == "boolean" && schema["default"] != true;
            let has_default = is_false || field.oneof_index.is_some();
            if *absent && is_single_value && !has_default {
                self.differences.push(format!("{place}: may be absent, and is not optional in {message}"));
            }
            self.compare_value(&place, schema, field);
        }
    }

    /// The fields of a message, with those of the message that REST has not.
    fn fields(&self, descriptor: &'a DescriptorProto) -> Vec<&'a FieldDescriptorProto> {
        let inner = |field: &'a FieldDescriptorProto| {
            let message = field.type_name().rsplit('.').next().unwrap_or_default();
            let flattened = (field.name() == FLATTENED).then(|| self.messages.get(message).copied()).flatten();
            flattened.map_or_else(|| vec![field], |message: &'a DescriptorProto| message.field.iter().collect())
        };
        descriptor.field.iter().flat_map(inner).collect()
    }

    /// The same for what a member has inside of it.
    fn compare_value(&mut self, place: &str, schema: &Value, field: &FieldDescriptorProto) {
        let schema = self.resolved(schema);
        let message = field.type_name().rsplit('.').next().unwrap_or_default().to_owned();
        if field.r#type() != Type::Message
            || message == "Timestamp"
            || !schema["additionalProperties"].is_null_or_false()
        {
            return;
        }
        if !self.compared.insert((schema.to_string(), message.clone())) {
            return;
        }
        let is_list = |kind: &Value| kind == "array";
        let may_be_list = schema["type"].as_array().is_some_and(|kinds| kinds.iter().any(is_list));
        if !is_list(&schema["type"]) && !may_be_list {
            let members = self.members_of(&schema);
            if !members.is_empty() {
                self.compare(place, &message, &members);
            }
        } else if field.label() == Label::Repeated {
            let members = self.members_of(&schema["items"]);
            self.compare(place, &message, &members);
        } else {
            // A list that is a message of its own: its only field has the items.
            match self.messages.get(&message).and_then(|list| list.field.first()).cloned() {
                Some(items) => self.compare_value(place, &schema, &items),
                None => self.differences.push(format!("{place}: {message} is no list")),
            }
        }
    }
}

trait Schema {
    fn is_null_or_false(&self) -> bool;
}

impl Schema for Value {
    fn is_null_or_false(&self) -> bool {
        matches!(self, Self::Null | Self::Bool(false))
    }
}

#[test]
fn services_have_each_operation_and_member_of_rest() -> Result<()> {
    let document = document()?;
    let files = FileDescriptorSet::decode(proto::QUOTA_DESCRIPTOR_SET)?;
    let messages = files.file.iter().flat_map(|file| &file.message_type);
    let messages = messages.map(|message| (message.name().to_owned(), message)).collect();
    let mut methods = BTreeMap::new();
    for service in files.file.iter().flat_map(|file| &file.service).filter(|own| own.name() != "QuotaService") {
        let of = |method: &str| (service.name().to_owned(), method.to_owned());
        methods.extend(service.method.iter().map(|method| (of(method.name()), method)));
    }
    let routes = routes(&document);
    let key = |id: &str, route: &Route| (route.service.to_owned(), method_name(id));
    let operations: BTreeSet<_> = routes.iter().map(|(id, route)| key(id, route)).collect();
    assert_eq!(methods.keys().cloned().collect::<BTreeSet<_>>(), operations);

    let mut comparison =
        Comparison { document: &document, messages, differences: Vec::new(), compared: BTreeSet::new() };
    let last = |name: &str| name.rsplit('.').next().unwrap_or_default().to_owned();
    for (id, route) in &routes {
        let (method, operation) = (methods[&key(id, route)], &route.operation);
        let body = operation["requestBody"]["content"]["application/json"]["schema"].clone();
        let mut request = match body_of(id) {
            Some(member) => Members::from([(member.to_owned(), (body, false))]),
            None => comparison.members_of(&body),
        };
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            let name = parameter["name"].as_str().unwrap_or_default().to_owned();
            request.insert(name, (parameter["schema"].clone(), parameter["required"] != true));
        }
        comparison.compare(&format!("{id} request"), &last(method.input_type()), &request);
        let empty = Map::new();
        let responses = operation["responses"].as_object().unwrap_or(&empty);
        let answer = responses.iter().find(|(status, _)| status.starts_with('2'));
        let schema = answer.map(|(_, answer)| answer["content"]["application/json"]["schema"].clone());
        let members = comparison.members_of(&schema.unwrap_or_default());
        let has_body = answer.is_some_and(|(status, _)| status != "204");
        assert_eq!(members.is_empty(), !has_body, "{id} has no answer in the document");
        comparison.compare(&format!("{id} answer"), &last(method.output_type()), &members);
    }
    assert!(comparison.differences.is_empty(), "{:#?}", comparison.differences);
    assert!(comparison.compared.len() > 20, "{:?}", comparison.compared);
    Ok(())
}
