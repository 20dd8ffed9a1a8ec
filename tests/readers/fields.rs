//! The fields of a payment: what Sluice read of them, and what the accessors of a reader find.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use quota::{AmountMinor, Unit};
use serde_json::{Value, json};
use sluice_rules::{Found, Head, Request, Unreadable};
use testkit::Result;

use crate::generate::Input;
use crate::reader::Reader;

/// Admitted requests of a run must be at least this part of it, so that not only refusals are tried.
const ADMITTED_PERCENT_MIN: usize = 20;
/// Values that the accessors under test must have found between them, each.
const FOUND_MIN: usize = 500;

/// A request, and what Sluice made of it.
pub(crate) struct Case {
    /// What a failure names: the seed, and the input's number in it.
    from: (u64, usize),
    shown: String,
    question: Value,
    /// `None` where it was refused.
    read: Option<Request>,
}

/// A request's head as the proxy would have it.
struct Sent<'a> {
    path: Vec<u8>,
    content_type: Option<&'a str>,
}

impl Head for Sent<'_> {
    fn method(&self) -> Cow<'_, str> {
        Cow::Borrowed("POST")
    }

    fn headers(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.content_type.map(|kind| (&b"content-type"[..], kind.as_bytes())).into_iter()
    }

    fn path(&self) -> &[u8] {
        &self.path
    }

    fn metadata(&self, _: &[String]) -> std::result::Result<Option<Cow<'_, [u8]>>, Unreadable> {
        Ok(None)
    }
}

impl Case {
    pub(crate) fn new(input: Input<'_>, from: (u64, usize)) -> Self {
        let path = [input.layout.path.as_bytes(), b"?", &input.query].concat();
        // What follows a fragment's sign is not sent to the gateway.
        let query = input.query.split(|byte| *byte == b'#').next().unwrap_or_default();
        let Found::Rule(rule, captures) = input.layout.document.rules.find(&("POST", input.layout.path)) else {
            panic!("no rule for {}", input.layout.path)
        };
        let head = Sent { path, content_type: input.content_type };
        let read = rule.read_head(&head, &captures).and_then(|mut draft| draft.finish(rule, &input.body));
        let question = json!({
            "content_type": input.content_type, "query": STANDARD.encode(query), "body": STANDARD.encode(&input.body),
            "wanted": input.layout.wanted,
        });
        let shown = format!(
            "?{} {:?}\n{}",
            String::from_utf8_lossy(query),
            input.content_type,
            String::from_utf8_lossy(&input.body)
        );
        Self { from, shown, question, read: read.ok() }
    }

    /// Whether a text is what Sluice charged.
    fn is_same(&self, field: &str, text: &str) -> bool {
        let Some(read) = &self.read else { return false };
        match field {
            "merchant" => read.merchant.as_str() == text,
            "amount" => AmountMinor::parse(text, Unit::Minor, read.currency, true).ok() == read.amount,
            "currency" => read.currency.code() == text,
            _ => read.order_no.as_ref().is_some_and(|order_no| order_no.as_str() == text),
        }
    }
}

/// Asks a reader for every admitted case. Each of the `accessors` must find something in the run, and
/// one of them what was charged, in each case.
pub(crate) fn all_alike(reader: &mut Reader, cases: &[Case], accessors: &[&str]) -> Result<()> {
    let admitted: Vec<&Case> = cases.iter().filter(|case| case.read.is_some()).collect();
    assert!(admitted.len() * 100 >= cases.len() * ADMITTED_PERCENT_MIN, "{} of {}", admitted.len(), cases.len());
    // The same request asked again says nothing new.
    let mut asked = HashSet::new();
    let distinct: Vec<&Case> =
        admitted.iter().copied().filter(|case| asked.insert(case.question.to_string())).collect();
    let questions: Vec<Value> = distinct.iter().map(|case| case.question.clone()).collect();
    let answers = reader.ask("fields", &questions)?;
    let mut found: BTreeMap<String, usize> = BTreeMap::new();
    for (case, answer) in distinct.iter().zip(&answers) {
        compare(case, answer, accessors, &mut found);
    }
    let (cases, admitted, distinct) = (cases.len(), admitted.len(), distinct.len());
    eprintln!("{cases} inputs, {admitted} admitted, {distinct} of them distinct; values found: {found:?}");
    for accessor in accessors {
        assert!(
            found.get(*accessor).is_some_and(|values| *values >= FOUND_MIN),
            "{accessor} found too little: {found:?}"
        );
    }
    Ok(())
}

fn compare(case: &Case, answer: &Value, accessors: &[&str], found: &mut BTreeMap<String, usize>) {
    let mut is_found = false;
    for (accessor, fields) in answer.as_object().unwrap() {
        for (field, values) in fields.as_object().unwrap() {
            for value in values.as_array().unwrap() {
                let text = value.as_str().unwrap_or_default();
                let (seed, number) = case.from;
                assert!(
                    case.is_same(field, text),
                    "seed {seed}, input {number}: {accessor} reads {field} as {text:?}, Sluice read {:?}\n{}",
                    case.read,
                    case.shown
                );
                *found.entry(accessor.clone()).or_default() += 1;
                is_found |= field == "amount" && accessors.contains(&accessor.as_str());
            }
        }
    }
    let (seed, number) = case.from;
    assert!(
        is_found,
        "seed {seed}, input {number}: no accessor finds what Sluice read as {:?}\n{}\n{answer}",
        case.read, case.shown
    );
}
