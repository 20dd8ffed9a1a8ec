//! Every way of writing a payment that the filter must read, refuse or see through, on both protocols. What cannot be read is
//! refused by the proxy, is never seen by the gateway and changes nothing.

use bytes::Bytes;
use proto::header;
use testkit::books::{books_agree, day, seen_by};
use testkit::client::{Call, Part, Payment, Protocol};
use testkit::policies::SINGLE_MAX;
use testkit::stack::Stack;
use testkit::{Context, Failure, Result};

use crate::names::NAMES;
use crate::suite::Suite;

/// Most of a body that the shipped rules read, in bytes.
const BODY_BYTES_MAX: usize = 65_536;
/// The route of the wasm filter, and what stands before it on the route of Envoy's own.
const ENFORCED: &str = "/v1/payments";
const NATIVE: &str = "/native";
/// The JSON media type.
const JSON: &str = "application/json";

/// A payment of 60.00 by merchant and order, written in some way, and what must come of it.
pub(crate) struct Row {
    what: &'static str,
    call: fn(&str, &str) -> Call,
    status: u16,
    /// Empty where the proxy itself, and not Sluice, refuses.
    code: &'static str,
    /// Part of the problem's detail.
    detail: &'static str,
}

pub(crate) const fn admitted(what: &'static str, call: fn(&str, &str) -> Call) -> Row {
    Row { what, call, status: 200, code: "ADMITTED", detail: "" }
}

pub(crate) const fn refused(
    what: &'static str,
    call: fn(&str, &str) -> Call,
    status: u16,
    code: &'static str,
    detail: &'static str,
) -> Row {
    Row { what, call, status, code, detail }
}

fn post() -> Call {
    Call::new("POST", "/v1/payments").header("content-type", JSON)
}

/// A payment with the amount as it stands in the body.
fn amount(merchant: &str, order: &str, text: &str) -> Call {
    Payment::new(merchant, order, 0).amount_text(text).call()
}

fn body(merchant: &str, order: &str) -> String {
    Payment::new(merchant, order, 6_000).body()
}

/// A body with another member in front of the payment's own.
pub(crate) fn with_member(merchant: &str, order: &str, member: &str) -> Call {
    post().part(Part::Data(body(merchant, order).replacen('{', &format!("{{{member},"), 1).into()))
}

/// Pieces of a body, each in a frame or chunk of its own.
fn in_pieces(mut call: Call, body: &str, size: usize) -> Call {
    for piece in body.as_bytes().chunks(size) {
        call = call.part(Part::Data(Bytes::copy_from_slice(piece)));
    }
    call
}

/// A body of so many bytes.
fn padded(merchant: &str, order: &str, size: usize) -> String {
    let body = body(merchant, order);
    let padding = size - body.len() - r#""note":"","#.len();
    body.replacen('{', &format!(r#"{{"note":"{}","#, "x".repeat(padding)), 1)
}

fn spelled(path: &str, merchant: &str, order: &str) -> Call {
    Payment::new(merchant, order, SINGLE_MAX + 1).path(path).call()
}

pub(crate) fn form(merchant: &str, body: &str) -> Call {
    let path = format!("/v1/merchants/{merchant}/payments");
    let call = Call::new("POST", &path).header("content-type", "application/x-www-form-urlencoded");
    call.part(Part::Data(body.to_owned().into()))
}

const AMOUNTS: &[Row] = &[
    admitted("a number in a text", |m, o| amount(m, o, "\"6000\"")),
    refused("not a number", |m, o| amount(m, o, "\"12.5x\""), 400, "BAD_AMOUNT", "amount"),
    refused("nothing", |m, o| amount(m, o, "\"\""), 400, "BAD_AMOUNT", "amount"),
    refused("spaces", |m, o| amount(m, o, "\" 6000\""), 400, "BAD_AMOUNT", "amount"),
    refused("negative", |m, o| amount(m, o, "-6000"), 400, "BAD_AMOUNT", "amount"),
    refused("a sign", |m, o| amount(m, o, "\"+6000\""), 400, "BAD_AMOUNT", "amount"),
    refused("zero", |m, o| amount(m, o, "0"), 400, "BAD_AMOUNT", "amount"),
    refused("minus zero", |m, o| amount(m, o, "-0"), 400, "BAD_AMOUNT", "amount"),
    refused("half a cent", |m, o| amount(m, o, "6000.5"), 400, "BAD_AMOUNT", "amount"),
    refused("over 2^53 - 1", |m, o| amount(m, o, "9007199254740992"), 400, "BAD_AMOUNT", "amount"),
    refused("over 2^64", |m, o| amount(m, o, "18446744073709552616"), 400, "BAD_AMOUNT", "amount"),
    refused("no number of JSON", |m, o| amount(m, o, "0x1770"), 400, "BAD_REQUEST", ""),
    refused("null", |m, o| amount(m, o, "null"), 400, "BAD_AMOUNT", "amount"),
    refused("true", |m, o| amount(m, o, "true"), 400, "BAD_AMOUNT", "amount"),
    refused("a list", |m, o| amount(m, o, "[6000]"), 400, "BAD_AMOUNT", "amount"),
    refused("an object", |m, o| amount(m, o, "{}"), 400, "BAD_AMOUNT", "amount"),
];

const BODIES: &[Row] = &[
    admitted("byte by byte", |m, o| in_pieces(post(), &body(m, o), 1)),
    admitted("in two pieces with a pause", |m, o| {
        let body = body(m, o);
        let (first, second) = body.split_at(body.len() / 2);
        let pause = Part::Pause(std::time::Duration::from_millis(30));
        post().part(Part::Data(first.to_owned().into())).part(pause).part(Part::Data(second.to_owned().into()))
    }),
    admitted("with trailers", |m, o| in_pieces(post(), &body(m, o), 40).trailer("x-checksum", "1")),
    refused(
        "over the single maximum, with trailers",
        |m, o| in_pieces(post(), &Payment::new(m, o, SINGLE_MAX + 1).body(), 40).trailer("x-checksum", "1"),
        403,
        "ABOVE_SINGLE_MAX",
        "",
    ),
    refused("trailers and nothing else", |_, _| post().trailer("x-checksum", "1"), 400, "BAD_REQUEST", ""),
    refused("empty", |_, _| post(), 400, "BAD_REQUEST", ""),
    refused("not JSON", |_, _| post().part(Part::Data("order=1".into())), 400, "BAD_REQUEST", ""),
    refused(
        "cut off",
        |m, o| post().part(Part::Data(body(m, o).trim_end_matches('}').to_owned().into())),
        400,
        "BAD_REQUEST",
        "",
    ),
    refused("two documents", |m, o| in_pieces(post(), &body(m, o).repeat(2), 50), 400, "BAD_REQUEST", ""),
    refused(
        "a byte order mark",
        |m, o| in_pieces(post(), &format!("\u{feff}{}", body(m, o)), 50),
        400,
        "BAD_REQUEST",
        "",
    ),
    refused("amount twice", |m, o| with_member(m, o, r#""amount":100"#), 400, "BAD_REQUEST", "amount"),
    refused("amount in another case too", |m, o| with_member(m, o, r#""Amount":100"#), 400, "BAD_REQUEST", "amount"),
    refused("an escaped amount too", |m, o| with_member(m, o, r#""\u0061mount":100"#), 400, "BAD_REQUEST", "amount"),
    refused(
        "another merchant in the header",
        |m, o| Payment::new(m, o, 6_000).call().header("x-merchant-id", "another"),
        400,
        "BAD_REQUEST",
        "merchant",
    ),
    refused(
        "no such currency",
        |m, o| Payment::new(m, o, 6_000).currency("USX").call(),
        400,
        "BAD_REQUEST",
        "currency",
    ),
    admitted("all that is read of it", |m, o| post().part(Part::Data(padded(m, o, BODY_BYTES_MAX).into()))),
    refused(
        "one byte more, its length declared",
        |m, o| post().part(Part::Data(padded(m, o, BODY_BYTES_MAX + 1).into())),
        413,
        "BODY_TOO_LARGE",
        "",
    ),
    refused(
        "one byte more, its length unknown",
        |m, o| in_pieces(post(), &padded(m, o, BODY_BYTES_MAX + 1), 8_192),
        413,
        "BODY_TOO_LARGE",
        "",
    ),
    refused(
        "one byte more, with trailers",
        |m, o| in_pieces(post(), &padded(m, o, BODY_BYTES_MAX + 1), 8_192).trailer("x-checksum", "1"),
        413,
        "BODY_TOO_LARGE",
        "",
    ),
    refused(
        "compressed",
        |m, o| Payment::new(m, o, 6_000).call().header("content-encoding", "gzip"),
        415,
        "UNSUPPORTED_CONTENT",
        "",
    ),
    refused(
        "compressed, and said to be plain as well",
        |m, o| {
            let call = Payment::new(m, o, 6_000).call().header("content-encoding", "identity");
            call.header("content-encoding", "br")
        },
        415,
        "UNSUPPORTED_CONTENT",
        "",
    ),
    admitted("said to be plain", |m, o| Payment::new(m, o, 6_000).call().header("content-encoding", "identity")),
    refused(
        "of another type",
        |m, o| {
            Call::new("POST", "/v1/payments").header("content-type", "text/plain").part(Part::Data(body(m, o).into()))
        },
        415,
        "UNSUPPORTED_CONTENT",
        "",
    ),
    refused(
        "of no type",
        |m, o| Call::new("POST", "/v1/payments").part(Part::Data(body(m, o).into())),
        415,
        "UNSUPPORTED_CONTENT",
        "",
    ),
    admitted("a form in major units", |m, o| form(m, &format!("amount=60.00&currency=USD&order_no={o}"))),
    refused(
        "a form with half a cent",
        |m, o| form(m, &format!("amount=60.005&currency=USD&order_no={o}")),
        400,
        "BAD_AMOUNT",
        "amount",
    ),
    refused(
        "a form with two amounts",
        |m, o| form(m, &format!("amount=1.00&currency=USD&order_no={o}&amount=60.00")),
        400,
        "BAD_REQUEST",
        "amount",
    ),
];

/// X3: spellings of the payment path that a gateway may take for the path itself. All carry a payment over the single maximum.
const SPELLINGS: &[&str] = &[
    "/v1/payments",
    "/v1/payments?",
    "/v1/payments?fast=1",
    "/v1/payments/",
    "//v1/payments",
    "/v1//payments",
    "/./v1/payments",
    "/v1/x/../payments",
    "/v1/%70ayments",
    "/%76%31/payments",
    "/v1/payments%2f",
    "/v1%2fpayments",
    "/v1%5cpayments",
    "/v1/%2e/payments",
    // X3: formats, front controllers, and what servers cut off.
    "/v1/payments.json",
    "/v1/payments%2ejson",
    "/v1/payments.anything/",
    "/v1/payments/index.php",
    "/index.php/v1/payments",
    "/cgi-bin/gateway/v1/payments",
    "/index.php?r=v1/payments",
    "/v1/payments.",
    "/v1/payments%20",
    "/v1/payments%0a",
    "/v1/payments;a=b",
    "/v1;a=b/payments",
    "/v1/%2570ayments",
    "/v1/%c1%b0ayments",
    "/v1/%ef%bd%90ayments",
    "/V1/PAYMENTS",
];

pub(crate) fn add(suite: &mut Suite) {
    for protocol in Protocol::BOTH {
        for (name, rows) in [("amounts", AMOUNTS), ("bodies", BODIES), ("names", NAMES)] {
            suite.shared(format!("requests::{name}::{protocol:?}"), async move |stack: &Stack| {
                for (number, row) in rows.iter().enumerate() {
                    let merchant = format!("{name}-{protocol:?}-{number}");
                    try_row(stack, protocol, &merchant, row, "").await.context(format!("{merchant}, {}", row.what))?;
                }
                Ok(())
            });
            // The same rows through Envoy's own ext_authz. There is no native rule for forms.
            suite.shared(format!("requests::{name}_natively::{protocol:?}"), async move |stack: &Stack| {
                let json = |row: &&Row| (row.call)("m", "o").path.starts_with(ENFORCED);
                for (number, row) in rows.iter().filter(json).enumerate() {
                    let merchant = format!("{name}-native-{protocol:?}-{number}");
                    try_row(stack, protocol, &merchant, row, NATIVE)
                        .await
                        .context(format!("{merchant}, {}", row.what))?;
                }
                Ok(())
            });
        }
        suite.shared(format!("requests::no_spelling_slips_past::{protocol:?}"), async move |stack: &Stack| {
            no_spelling_slips_past(stack, protocol).await
        });
        suite.shared(format!("requests::no_method_slips_past::{protocol:?}"), async move |stack: &Stack| {
            no_method_slips_past(stack, protocol).await
        });
        suite.shared(format!("requests::x3_no_override_slips_past::{protocol:?}"), async move |stack: &Stack| {
            no_override_slips_past(stack, protocol).await
        });
        suite.shared(format!("requests::forged_headers_are_stripped::{protocol:?}"), async move |stack: &Stack| {
            forged_headers_are_stripped(stack, protocol).await
        });
    }
}

async fn try_row(stack: &Stack, protocol: Protocol, merchant: &str, row: &Row, prefix: &str) -> Result<()> {
    let order = format!("{merchant}-1");
    let mut call = (row.call)(merchant, &order);
    call.path.insert_str(0, prefix);
    let answer = stack.send(protocol, call).await?;
    let problem = answer.json();
    ensure_eq!(answer.status, row.status, "{problem}");
    let seen = seen_by(stack, merchant);
    if row.status == 200 {
        let [request] = seen.as_slice() else { return Err(Failure::new(format!("the gateway saw {seen:?}"))) };
        let code = request.headers.get(header::CODE).and_then(|code| code.to_str().ok());
        ensure_eq!(code, Some(row.code), "the code at the gateway");
        ensure_eq!(day(stack, merchant).await?, (6_000, 1));
    } else {
        ensure!(seen.is_empty(), "the gateway saw {seen:?}");
        if prefix == NATIVE && row.status == 413 {
            // Envoy itself refuses what it will not hand over.
            return Ok(());
        }
        ensure_eq!(answer.code(), row.code, "{problem}");
        let detail = problem.get("detail").and_then(|detail| detail.as_str()).unwrap_or_default();
        ensure!(detail.contains(row.detail), "the detail does not say {:?}: {problem}", row.detail);
        ensure_eq!(day(stack, merchant).await?, (0, 0));
    }
    books_agree(stack, merchant).await.map(drop)
}

/// A payment over the single maximum reaches the gateway under no spelling of its path.
async fn no_spelling_slips_past(stack: &Stack, protocol: Protocol) -> Result<()> {
    let mut decided = 0;
    let natively = SPELLINGS.iter().map(|path| path.replacen('/', "/native/", 1));
    let spellings: Vec<String> = SPELLINGS.iter().map(|path| (*path).to_owned()).chain(natively).collect();
    for (number, path) in spellings.iter().enumerate() {
        let merchant = format!("spelling-{protocol:?}-{number}");
        let order = format!("{merchant}-1");
        let answer = stack.send(protocol, spelled(path, &merchant, &order)).await.context(path)?;
        let seen = seen_by(stack, &merchant);
        ensure!(seen.is_empty(), "{path}: the gateway saw {seen:?}");
        let refused = matches!((answer.status, answer.code().as_str()), (403, "ABOVE_SINGLE_MAX") | (400, _));
        ensure!(refused, "{path}: {} {}", answer.status, answer.json());
        decided += usize::from(answer.status == 403);
    }
    ensure!(decided >= 16, "only {decided} spellings were decided");
    Ok(())
}

/// X3: a header or a parameter by which a framework takes another method for the request's own is refused, on both ways.
async fn no_override_slips_past(stack: &Stack, protocol: Protocol) -> Result<()> {
    type Change = fn(Call) -> Call;
    let changes: [(&str, Change); 4] = [
        ("a header", |call| call.header("x-http-method-override", "POST")),
        ("another header", |call| call.header("X_Method_Override", "post")),
        ("the query", |mut call| {
            call.path.push_str("?_method=POST");
            call
        }),
        ("a payment as something else", |call| Call { method: "POST".into(), ..call.header("x-http-method", "GET") }),
    ];
    for (number, (what, change)) in changes.into_iter().enumerate() {
        for path in [ENFORCED, "/native/v1/payments"] {
            let merchant = format!("override-{protocol:?}-{number}{}", path.len());
            let call = Payment::new(&merchant, &format!("{merchant}-1"), 6_000).path(path).call();
            let call = change(Call { method: "PUT".into(), ..call });
            let answer = stack.send(protocol, call).await.context(what)?;
            ensure_eq!((answer.status, answer.code().as_str()), (400, "BAD_REQUEST"), "{what}: {path}");
            ensure!(seen_by(stack, &merchant).is_empty(), "{what}: the gateway saw it");
        }
    }
    Ok(())
}

/// A gateway may take another spelling of a method for the method itself.
async fn no_method_slips_past(stack: &Stack, protocol: Protocol) -> Result<()> {
    for method in ["post", "Post", "pOST"] {
        let merchant = format!("method-{protocol:?}-{method}");
        let mut call = Payment::new(&merchant, &format!("{merchant}-1"), SINGLE_MAX + 1).call();
        method.clone_into(&mut call.method);
        let answer = stack.send(protocol, call).await.context(method)?;
        let refused = matches!((answer.status, answer.code().as_str()), (403, "ABOVE_SINGLE_MAX") | (400, _));
        ensure!(refused, "{method}: {} {}", answer.status, answer.json());
        ensure!(seen_by(stack, &merchant).is_empty(), "{method}: the gateway saw it");
    }
    Ok(())
}

/// Whatever the route does, no header that only Sluice may set comes from a client.
async fn forged_headers_are_stripped(stack: &Stack, protocol: Protocol) -> Result<()> {
    const FORGED: &str = "forged";
    let routes = ["/v1/payments", "/v1/shadow/payments", "/v1/open/payments", "/native/v1/payments", "/v1/statements"];
    for (number, path) in routes.into_iter().enumerate() {
        let merchant = format!("forged-{protocol:?}-{number}");
        let payment = Payment::new(&merchant, &format!("{merchant}-1"), 6_000).path(path).call();
        // Some gateways read an underscore as a hyphen.
        let names = [
            "x-sluice-code",
            "X-Sluice-Decision-Id",
            "x-sluice-replay",
            "x-sluice-of-tomorrow",
            "x_sluice_code",
            "X_Sluice-Replay",
            "x.sluice.code",
        ];
        let answer = stack.send(protocol, names.iter().fold(payment, |call, name| call.header(name, FORGED))).await?;
        ensure_eq!(answer.status, 200, "{path}: {}", answer.json());
        let seen = seen_by(stack, &merchant);
        let [request] = seen.as_slice() else { return Err(Failure::new(format!("{path}: {seen:?}"))) };
        let forged = request.headers.values().filter(|value| *value == FORGED).count();
        ensure_eq!(forged, 0, "{path}: {:?}", request.headers);
        let decided = ["/v1/payments", "/v1/shadow/payments", "/native/v1/payments"].contains(&path);
        ensure_eq!(request.headers.contains_key(header::CODE), decided, "{path}");
    }
    Ok(())
}
