//! What is no payment, or stands on a shadow or an open route, passes as it would without Sluice; and bytes that only some readers
//! take for a payment's own are refused where the route enforces. Written as bytes on a connection, over the shipped configuration.

use testkit::Result;
use testkit::books::{books_agree, day, seen_by};
use testkit::client::Payment;
use testkit::policies::SINGLE_MAX;
use testkit::stack::Stack;

use crate::raw::Connection;
use crate::suite::Suite;

pub(crate) fn add(suite: &mut Suite) {
    suite.shared("passing::f5_http_1_0_is_served", http_1_0);
    suite.shared("passing::f5_what_is_no_payment_passes", what_is_no_payment);
    suite.shared("passing::f5_a_name_that_becomes_a_source_is_refused_where_it_matters", underscores);
    suite.shared("passing::f5_a_long_body_that_is_no_payment_passes_natively", long_bodies);
    suite.shared("passing::f3_bytes_are_read_alike_on_both_ways", bytes_are_read_alike);
}

/// A request as bytes; `lines` are header lines, each with its end.
fn request(start: &str, lines: &[u8], body: &str) -> Vec<u8> {
    let length = format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len());
    [start.as_bytes(), b"\r\n", length.as_bytes(), lines, b"\r\n", body.as_bytes()].concat()
}

/// The status of the answer to a request on a connection of its own, and the answer.
async fn status_of(stack: &Stack, request: &[u8]) -> Result<(u16, String)> {
    let mut connection = Connection::open(stack.envoy.address()).await?;
    connection.write_bytes(request).await?;
    let answer = connection.read_answer().await?;
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default();
    Ok((status, answer))
}

/// F5: nginx speaks HTTP/1.0 to its upstreams unless it is configured otherwise.
async fn http_1_0(stack: &Stack) -> Result<()> {
    let over = SINGLE_MAX + 1;
    for (number, (path, cents, host, expected)) in [
        ("/v1/payments", 6_000, "host: payments\r\n", 200),
        ("/v1/payments", 6_000, "", 200),
        ("/v1/payments", over, "host: payments\r\n", 403),
        ("/v1/payments", over, "connection: keep-alive\r\n", 403),
        ("/native/v1/payments", 6_000, "", 200),
        ("/native/v1/payments", over, "", 403),
        ("/v1/shadow/payments", over, "", 200),
        ("/v1/open/payments", over, "", 200),
        ("/v1/statements", over, "", 200),
    ]
    .into_iter()
    .enumerate()
    {
        let merchant = format!("http10n{number}");
        let body = Payment::new(&merchant, &format!("{merchant}-1"), cents).body();
        let sent = request(&format!("POST {path} HTTP/1.0"), host.as_bytes(), &body);
        let (status, answer) = status_of(stack, &sent).await?;
        ensure_eq!(status, expected, "{path} {host:?}: {answer}");
        ensure_eq!(seen_by(stack, &merchant).len(), usize::from(expected == 200), "{path}");
        books_agree(stack, &merchant).await?;
    }
    // A length that HTTP/1.0 does not have carries nothing past its decision.
    let merchant = "http10chunked";
    let hidden = Payment::new(merchant, &format!("{merchant}-1"), over).body();
    let chunked = format!(
        "POST /v1/statements HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nPOST /v1/payments HTTP/1.0\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{hidden}",
        hidden.len()
    );
    let (_, answer) = status_of(stack, chunked.as_bytes()).await?;
    ensure!(seen_by(stack, merchant).is_empty(), "{answer}");
    Ok(())
}

/// F5: header names with underscores, and paths with escaped slashes that are no rule's.
async fn what_is_no_payment(stack: &Stack) -> Result<()> {
    for (number, path) in ["/v1/statements", "/v1/projects/a%2Fb/files", "/native/v1/a%2fb"].into_iter().enumerate() {
        let merchant = format!("nopayment{number}");
        let body = Payment::new(&merchant, &format!("{merchant}-1"), SINGLE_MAX + 1).body();
        let sent = request(&format!("POST {path} HTTP/1.1"), b"host: x\r\napi_key: k\r\nx_merchant_id: m\r\n", &body);
        let (status, answer) = status_of(stack, &sent).await?;
        ensure_eq!(status, 200, "{path}: {answer}");
        let seen = seen_by(stack, &merchant);
        ensure_eq!(seen.len(), 1, "{path}");
        ensure_eq!(seen[0].path, path);
        ensure!(seen[0].headers.contains_key("api_key") && seen[0].headers.contains_key("x_merchant_id"), "{seen:?}");
    }
    Ok(())
}

/// F5: `x_merchant_id` and `X-Merchant-Id` are one variable for CGI, WSGI and PHP.
async fn underscores(stack: &Stack) -> Result<()> {
    for (number, (path, line, expected)) in [
        ("/v1/payments", "api_key: k\r\n", 200),
        ("/native/v1/payments", "api_key: k\r\n", 200),
        ("/v1/payments", "x_merchant_id: other\r\n", 400),
        ("/v1/payments", "X_Merchant-ID: other\r\n", 400),
        ("/v1/payments", "content_type: text/plain\r\n", 415),
        ("/native/v1/payments", "x_merchant_id: other\r\n", 400),
        ("/v1/shadow/payments", "x_merchant_id: other\r\n", 200),
        ("/v1/open/payments", "x_merchant_id: other\r\n", 200),
    ]
    .into_iter()
    .enumerate()
    {
        let merchant = format!("underscore{number}");
        let body = Payment::new(&merchant, &format!("{merchant}-1"), 6_000).body();
        let lines = format!("host: x\r\n{line}");
        let (status, answer) =
            status_of(stack, &request(&format!("POST {path} HTTP/1.1"), lines.as_bytes(), &body)).await?;
        ensure_eq!(status, expected, "{path} {line}: {answer}");
        ensure_eq!(seen_by(stack, &merchant).len(), usize::from(expected == 200), "{path} {line}");
    }
    Ok(())
}

/// F5: Envoy's own filter is asked about every request of its route, and reads the beginning of a long body only.
async fn long_bodies(stack: &Stack) -> Result<()> {
    let padding = "x".repeat(200_000);
    for (merchant, path, expected) in
        [("longother", "/native/v1/files", 200), ("longpayment", "/native/v1/payments", 413)]
    {
        let body = Payment::new(merchant, &format!("{merchant}-1"), 6_000).body();
        let body = body.replacen('{', &format!("{{\"note\":\"{padding}\","), 1);
        let sent = request(&format!("POST {path} HTTP/1.1"), b"host: x\r\n", &body);
        let (status, answer) = status_of(stack, &sent).await?;
        ensure_eq!(status, expected, "{path}: {answer}");
        ensure_eq!(seen_by(stack, merchant).len(), usize::from(expected == 200), "{path}");
    }
    Ok(())
}

/// F3: Envoy puts `!` in the place of bytes that are not UTF-8, and joins repeated headers, unless it sends them raw.
async fn bytes_are_read_alike(stack: &Stack) -> Result<()> {
    for (way, path) in [("f3wasm", "/v1/payments"), ("f3native", "/native/v1/payments")] {
        let id =
            |lines: &str, last: &[u8]| [b"host: x\r\n", lines.as_bytes(), b"x-merchant-id: ", last, b"\r\n"].concat();
        let bad = format!("{way}bad-");
        let table: [(&str, Vec<u8>, u16); 6] = [
            ("a!", id("", b"a!"), 200),
            ("a!", id("", b"a\xf1"), 400),
            ("b,c", id("", b"b,c"), 200),
            ("d", id("x-merchant-id: d\r\n", b"d"), 200),
            ("e", id("x-merchant-id: f\r\n", b"e"), 400),
            ("b,c", id("x-merchant-id: b\r\n", b"c"), 400),
        ];
        for (number, (merchant, lines, expected)) in table.into_iter().enumerate() {
            let order = if expected == 200 { format!("{way}good-{number}") } else { format!("{bad}{number}") };
            let body = Payment::new(merchant, &order, 1_000).body();
            let (status, answer) = status_of(stack, &request(&format!("POST {path} HTTP/1.1"), &lines, &body)).await?;
            ensure_eq!(status, expected, "{path} {}: {answer}", String::from_utf8_lossy(&lines));
        }
        ensure!(seen_by(stack, bad.trim_end_matches('-')).is_empty(), "{path}: the gateway saw what is refused");
    }
    ensure_eq!(day(stack, "a!").await?, (2_000, 2));
    Ok(())
}
