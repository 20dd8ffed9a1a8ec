//! The rules under which requests are generated: one for each way to lay out a payment.

use serde_json::{Value, json};
use sluice_rules::Document;

/// The fields that are compared, with a value of each.
pub(crate) const FIELDS: [(&str, &str); 4] =
    [("merchant", "m1"), ("amount", "1050"), ("currency", "USD"), ("order_no", "A1")];

/// A rule, and under which names a gateway would look for its fields.
pub(crate) struct Layout {
    pub(crate) document: Document,
    pub(crate) path: &'static str,
    /// Whether query, form and JSON have fields of their own, and the names of the fields in them.
    pub(crate) query: Option<[&'static str; 4]>,
    pub(crate) form: Option<[&'static str; 4]>,
    pub(crate) json: Option<[&'static str; 4]>,
    /// Field by field, what readers look for: names in `query` and `form`, and in `either` of them merged; `json` pointers.
    pub(crate) wanted: Value,
}

const FLAT: [&str; 4] = ["merchant_id", "amount", "currency", "order_no"];
const NESTED: [&str; 4] = ["/shop/id", "/payment/amount", "/payment/currency", "/order/no"];
const BRACKETS: [&str; 4] = ["shop[id]", "payment[amount]", "payment[currency]", "order[no]"];
const SHORT: [&str; 4] = ["m", "a", "c", "o"];

/// Every layout.
pub(crate) fn all() -> Vec<Layout> {
    vec![
        layout("/pay", None, None, Some(FLAT)),
        layout("/pay", None, None, Some(NESTED)),
        layout("/pay", None, Some(FLAT), None),
        layout("/pay", None, Some(BRACKETS), None),
        layout("/pay", Some(FLAT), None, None),
        layout("/pay", Some(SHORT), None, None),
        layout("/pay", Some(BRACKETS), None, None),
        layout("/pay", None, Some(SHORT), Some(FLAT)),
        layout("/pay", Some(FLAT), Some(FLAT), Some(FLAT)),
        layout("/pay", Some(SHORT), None, Some(FLAT)),
    ]
}

fn layout(
    path: &'static str,
    query: Option<[&'static str; 4]>,
    form: Option<[&'static str; 4]>,
    json: Option<[&'static str; 4]>,
) -> Layout {
    let (mut extract, mut wanted) = (json!({}), json!({}));
    for (at, (field, _)) in FIELDS.iter().enumerate() {
        let pointer = |name: &str| if name.starts_with('/') { name.to_owned() } else { format!("/{name}") };
        let tokens = |name: &str| pointer(name).split('/').skip(1).map(str::to_owned).collect::<Vec<_>>();
        let of = |names: Option<[&'static str; 4]>| names.map(|names| names[at]);
        let sources = [
            of(query).map(|name| json!({"query": name})),
            of(form).map(|name| json!({"form": name})),
            of(json).map(|name| json!({"json": pointer(name)})),
        ];
        extract[field] = sources.into_iter().flatten().collect();
        // A gateway looks for a field by each name that it has anywhere, and by the usual ones.
        let usual: &[&str] = if *field == "merchant" { &["merchant", "merchant_id"] } else { &[field] };
        let mut names: Vec<String> = usual.iter().map(|name| (*name).to_owned()).collect();
        for name in [of(query), of(form), of(json)].into_iter().flatten() {
            let tokens = tokens(name);
            names.extend([name.trim_start_matches('/').to_owned(), tokens.join("."), tokens[tokens.len() - 1].clone()]);
        }
        // In the body that a field is read from, the rule says under which name.
        let own = |name: Option<&str>| name.map(|name| vec![name.to_owned()]);
        let pointers = match of(json) {
            Some(name) => vec![tokens(name)],
            None => names.iter().map(|name| vec![name.clone()]).collect(),
        };
        // Of a map that has query and body in one, only the rule's own names say anything where a body has the field.
        let listed: Vec<String> = [of(query), of(form)].into_iter().flatten().map(str::to_owned).collect();
        let either = if form.is_some() || json.is_some() { listed } else { names.clone() };
        let form = own(of(form)).unwrap_or_else(|| names.clone());
        wanted[field] = json!({"query": names, "form": form, "json": pointers, "either": either});
    }
    let rule = json!({
        "name": "payments", "match": {"methods": ["POST"], "path": path}, "unit": "minor", "extract": extract,
    });
    let document = Document::from_json(json!({"rules": [rule]}).to_string().as_bytes()).unwrap();
    Layout { document, path, query, form, json, wanted }
}
