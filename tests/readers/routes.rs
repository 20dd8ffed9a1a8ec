//! The paths of payments: what Sluice finds for a spelling, and which handler a router runs for it.

use serde_json::{Value, json};
use sluice_rules::{Document, Found};
use testkit::Result;

use crate::reader::Reader;
use testkit::random::Random;

/// The routes of the readers, by their number there.
const ROUTES: [&str; 2] = ["/v1/payments", "/v1/merchants/{m}/payments"];
/// Spellings of each seed.
const SPELLINGS: usize = 3_000;
/// A handler must have run for so many spellings at least, so that not only misses are tried.
const REACHED_MIN: usize = 100;

/// What is put somewhere into a path.
#[rustfmt::skip]
const PIECES: [&str; 40] = [
    "/", "//", "/.", "/./", "/..", "/x/..", "/../", ".json", ".xml", "%2ejson", ".", "..", ";x=1", ";", "\\", "%5c", "%2f", "%2F",
    "%252f", "%00", "%20", "%0a", "%09", "%0d", "%zz", "%", "%c0%af", "%ff", "%c2%a0", "%ef%bc%8f", "%u002f", "?", "#", "/index.php",
    "index.php/", "/v1", "%2e", "%2e%2e", "+", "(S(x))/",
];
const MERCHANTS: [&str; 10] = ["m1", "a.b", "m%2D1", "..", "%2e", "m%f1", "m;1", "a%2fb", "m%20", "M"];

/// A spelling of a route's path, with up to four changes.
fn spelling(random: &mut Random) -> String {
    let path = random.pick(&ROUTES).replace("{m}", random.pick(&MERCHANTS));
    let mut path: Vec<u8> = path.into_bytes();
    for _ in 0..random.below(5) {
        let at = random.below(path.len() as u64 + 1) as usize;
        match random.below(6) {
            0 | 1 => drop(path.splice(at..at, random.pick(&PIECES).bytes())),
            2 => path.extend(random.pick(&PIECES).bytes()),
            3 => drop(path.splice(0..0, random.pick(&PIECES).bytes())),
            4 if at < path.len() => {
                let escape = format!("%{:02x}", path[at]);
                drop(path.splice(at..=at, escape.bytes()));
            }
            _ if at < path.len() => path[at] = path[at].to_ascii_uppercase(),
            _ => {}
        }
    }
    // A request line has no blank and begins with a slash.
    let path = String::from_utf8(path).unwrap();
    if path.starts_with('/') { path } else { format!("/{path}") }
}

fn rules() -> Document {
    let rule = |(number, path): (usize, &str)| {
        json!({"name": number.to_string(), "match": {"methods": ["POST"], "path": path}, "unit": "minor", "extract": {
            "merchant": [{"header": "m"}], "amount": [{"header": "a"}], "currency": [{"header": "c"}], "order_no": [{"header": "o"}]}})
    };
    let rules: Vec<Value> = ROUTES.into_iter().enumerate().map(rule).collect();
    Document::from_json(json!({"rules": rules}).to_string().as_bytes()).unwrap()
}

/// No handler runs for a spelling that Sluice passes as no payment; and one that it decides is read with the same captures.
pub(crate) fn all_found(reader: &mut Reader, seeds: &[u64]) -> Result<()> {
    let rules = rules();
    let mut spellings = Vec::new();
    for seed in seeds {
        let mut random = Random::new(*seed);
        spellings.extend((0..SPELLINGS).map(|number| (*seed, number, spelling(&mut random))));
    }
    let questions: Vec<Value> = spellings.iter().map(|(_, _, path)| json!({"path": path})).collect();
    let answers = reader.ask("routes", &questions)?;
    let mut reached = 0;
    for ((seed, number, path), answer) in spellings.iter().zip(&answers) {
        let found = match rules.rules.find(&("POST", path.as_str())) {
            Found::None => json!(null),
            Found::Ambiguous(..) => continue,
            Found::Rule(rule, captures) => {
                json!([rule.name.parse::<u64>().unwrap(), captures.get("m").unwrap_or_default()])
            }
        };
        for (router, run) in answer.as_object().unwrap().iter().filter(|(_, run)| !run.is_null()) {
            assert_eq!(*run, found, "seed {seed}, spelling {number}: {router} on {path:?}");
            reached += 1;
        }
    }
    eprintln!("{} spellings, handlers that ran: {reached}", spellings.len());
    assert!(reached >= REACHED_MIN, "only {reached} handlers ran");
    Ok(())
}
