//! The messages of `quota.v1.CreditService` have the members of REST, as docs/openapi.json and the descriptors say.

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

/// An operation of REST on credit lines.
#[derive(Clone, Debug)]
pub(crate) struct Route {
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

/// The operations on credit lines, by their id.
pub(crate) fn routes(document: &Value) -> BTreeMap<String, Route> {
    let mut routes = BTreeMap::new();
    for (path, methods) in document["paths"].as_object().into_iter().flatten() {
        for (method, operation) in methods.as_object().into_iter().flatten() {
            let is_credit = operation["tags"].as_array().is_some_and(|tags| tags.iter().any(|tag| tag == "credit"));
            if let (true, Some(id)) = (is_credit, operation["operationId"].as_str()) {
                let path = path.strip_prefix("/api/v1").unwrap_or(path).to_owned();
                let route = Route { method: method.to_ascii_uppercase(), path, operation: operation.clone() };
                routes.insert(id.to_owned(), route);
            }
        }
    }
    routes
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

impl Comparison<'_> {
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
        for choice in schema["oneOf"].as_array().into_iter().flatten() {
            members.extend(self.members_of(choice).into_iter().map(|(name, (own, _))| (name, (own, true))));
        }
        members
    }

    fn compare(&mut self, place: &str, message: &str, members: &Members) {
        let Some(descriptor) = self.messages.get(message).copied() else {
            self.differences.push(format!("{place}: there is no message {message}"));
            return;
        };
        let fields: BTreeMap<String, &FieldDescriptorProto> =
            descriptor.field.iter().map(|field| (field.name().trim_end_matches("_json").to_owned(), field)).collect();
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
            let has_default = schema["type"] == "boolean" || field.oneof_index.is_some();
            if *absent && is_single_value && !has_default {
                self.differences.push(format!("{place}: may be absent, and is not optional in {message}"));
            }
            self.compare_value(&place, schema, field);
        }
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
        if schema["type"] != "array" {
            let members = self.members_of(&schema);
            if !members.is_empty() {
                self.compare(place, &message, &members);
            }
        } else if field.label() == Label::Repeated {
            let members = self.members_of(&schema["items"]);
            self.compare(place, &message, &members);
        } else {
            // A list that is a message of its own: its only field has the items.
            let inner = self.messages.get(&message).and_then(|list| list.field.first()).cloned();
            match inner {
                Some(inner) => self.compare_value(place, &schema, &inner),
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
fn credit_over_grpc_has_each_operation_and_member_of_rest() -> Result<()> {
    let document = document()?;
    let files = FileDescriptorSet::decode(proto::QUOTA_DESCRIPTOR_SET)?;
    let messages = files.file.iter().flat_map(|file| &file.message_type);
    let messages = messages.map(|message| (message.name().to_owned(), message)).collect();
    let services = files.file.iter().flat_map(|file| &file.service).filter(|own| own.name() == "CreditService");
    let methods: BTreeMap<String, _> =
        services.flat_map(|service| &service.method).map(|method| (method.name().to_owned(), method)).collect();
    let routes = routes(&document);
    let operations: BTreeSet<String> = routes.keys().map(|id| method_name(id)).collect();
    assert_eq!(methods.keys().cloned().collect::<BTreeSet<_>>(), operations);

    let mut comparison =
        Comparison { document: &document, messages, differences: Vec::new(), compared: BTreeSet::new() };
    let last = |name: &str| name.rsplit('.').next().unwrap_or_default().to_owned();
    for (id, Route { operation, .. }) in &routes {
        let method = methods[&method_name(id)];
        let mut request = comparison.members_of(&operation["requestBody"]["content"]["application/json"]["schema"]);
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            let name = parameter["name"].as_str().unwrap_or_default().to_owned();
            request.insert(name, (parameter["schema"].clone(), parameter["required"] != true));
        }
        comparison.compare(&format!("{id} request"), &last(method.input_type()), &request);
        let empty = Map::new();
        let responses = operation["responses"].as_object().unwrap_or(&empty);
        let answer = responses.iter().find(|(status, _)| status.starts_with('2')).map(|(_, answer)| answer);
        let schema = answer.map(|answer| answer["content"]["application/json"]["schema"].clone());
        let answer = comparison.members_of(&schema.unwrap_or_default());
        assert!(!answer.is_empty(), "{id} has no answer in the document");
        comparison.compare(&format!("{id} answer"), &last(method.output_type()), &answer);
    }
    assert!(comparison.differences.is_empty(), "{:#?}", comparison.differences);
    assert!(comparison.compared.len() > 20, "{:?}", comparison.compared);
    Ok(())
}
