//! Names under which a gateway may read another payment than Sluice: on the filter's route and on Envoy's own.

use testkit::client::{Call, Part, Payment};

use crate::requests::{Row, admitted, form, refused, with_member};

fn query(merchant: &str, order: &str, query: &str) -> Call {
    Payment::new(merchant, order, 6_000).path(&format!("/v1/payments?{query}")).call()
}

fn fields(merchant: &str, order: &str, before: &str) -> Call {
    form(merchant, &format!("{before}amount=60.00&currency=USD&order_no={order}"))
}

pub(crate) const NAMES: &[Row] = &[
    admitted("a query of other names", |m, o| query(m, o, "fast=1&amounts=2&x[amount]=3&utm=a;b&flag")),
    refused(
        "X1: an amount in the query",
        |m, o| query(m, o, "amount=99999.00"),
        400,
        "BAD_REQUEST",
        "amount (json /amount) must not be in the query",
    ),
    refused("X1: an order", |m, o| query(m, o, "order_no=B0"), 400, "BAD_REQUEST", "order_no (json /order_no)"),
    refused(
        "X1: a merchant",
        |m, o| query(m, o, "merchant_id=victim"),
        400,
        "BAD_REQUEST",
        "merchant (header x-merchant-id, json /merchant_id)",
    ),
    refused("X1, F4: an order with a dot", |m, o| query(m, o, "order.no=B0"), 400, "BAD_REQUEST", "order_no"),
    refused("X1, F4: an amount behind a ';'", |m, o| query(m, o, "x=1;amount=2"), 400, "BAD_REQUEST", "amount"),
    refused("X4: a key in capitals", |m, o| with_member(m, o, "\"AMOUNT\":1"), 400, "BAD_REQUEST", "\"amount\""),
    refused(
        "X4: a key with a blank",
        |m, o| with_member(m, o, "\" order_no\":\"B\""),
        400,
        "BAD_REQUEST",
        "\"order_no\"",
    ),
    refused("X4: a key with a bracket", |m, o| with_member(m, o, "\"amount[]\":1"), 400, "BAD_REQUEST", "\"amount\""),
    refused(
        "X7: what Rails' parameter wrapper would read",
        |m, o| with_member(m, o, r#""payment":{"amount":9999999}"#),
        400,
        "BAD_REQUEST",
        "json /payment, or a name that some gateways read as it, must be absent",
    ),
    refused(
        "X7: the same in the query",
        |m, o| query(m, o, "payment[amount]=1"),
        400,
        "BAD_REQUEST",
        "query payment, or a name",
    ),
    admitted("a form of other names", |m, o| fields(m, o, "note=1&tags[]=2&")),
    refused(
        "F4: a blank in front",
        |m, o| fields(m, o, "+amount=9999.00&"),
        400,
        "BAD_REQUEST",
        "amount (form amount)",
    ),
    refused("F4: a dot", |m, o| fields(m, o, "order.no=real-1&"), 400, "BAD_REQUEST", "order_no (form order_no)"),
    refused("F4: brackets", |m, o| fields(m, o, "amount%5B%5D=9999.00&"), 400, "BAD_REQUEST", "amount (form amount)"),
    refused(
        "X1: a merchant beside that of the path",
        |m, o| fields(m, o, "merchant_id=victim&"),
        400,
        "BAD_REQUEST",
        "merchant (path {merchant})",
    ),
    refused(
        "X1: a form whose query has the amount",
        |m, o| {
            let call = Call::new("POST", &format!("/v1/merchants/{m}/payments?amount=99999.00"));
            let call = call.header("content-type", "application/x-www-form-urlencoded");
            call.part(Part::Data(format!("amount=60.00&currency=USD&order_no={o}").into()))
        },
        400,
        "BAD_REQUEST",
        "amount (form amount) must not be in the query",
    ),
];
