//! What becomes of an admitted payment's charge by what becomes of the payment at the gateway: made, failed, or
//! unknown.

use std::time::Duration;

use testkit::books::{books_agree, journal, settles_at};
use testkit::client::{Payment, Protocol};
use testkit::gateway::Gateway;
use testkit::stack::Stack;
use testkit::{Context, Result, wait};

use crate::logs::{lines_of, outcome};
use crate::suite::{Suite, patient};

/// How a payment ends at the gateway, and what follows.
struct Row {
    behaviour: &'static str,
    /// `None` where the client gets no whole answer.
    status: Option<u16>,
    kept: bool,
    outcome: &'static str,
    /// Why the journal says it was voided.
    reason: Option<&'static str>,
}

const fn kept(behaviour: &'static str, status: Option<u16>, outcome: &'static str) -> Row {
    Row { behaviour, status, kept: true, outcome, reason: None }
}

const fn voided(behaviour: &'static str, status: u16, reason: &'static str) -> Row {
    Row { behaviour, status: Some(status), kept: false, outcome: "voided", reason: Some(reason) }
}

const ROWS: &[Row] = &[
    kept("slow-20", Some(200), "kept"),
    kept("status-201", Some(201), "kept"),
    // Answers by which a gateway refuses a payment.
    voided("fail-400", 400, "upstream_4xx"),
    voided("fail-401", 401, "upstream_4xx"),
    voided("fail-402", 402, "upstream_4xx"),
    voided("fail-403", 403, "upstream_4xx"),
    voided("fail-404", 404, "upstream_4xx"),
    voided("fail-405", 405, "upstream_4xx"),
    voided("fail-410", 410, "upstream_4xx"),
    voided("fail-413", 413, "upstream_4xx"),
    voided("fail-415", 415, "upstream_4xx"),
    voided("status-422", 422, "upstream_4xx"),
    voided("fail-429", 429, "upstream_4xx"),
    // Answers that may come after the payment was made; a client can provoke some of them.
    kept("status-302", Some(302), "unknown"),
    kept("status-307", Some(307), "unknown"),
    kept("status-406", Some(406), "unknown"),
    kept("status-408", Some(408), "unknown"),
    kept("conflict-409", Some(409), "unknown"),
    kept("status-412", Some(412), "unknown"),
    kept("status-425", Some(425), "unknown"),
    kept("fail-500", Some(500), "unknown"),
    kept("status-502", Some(502), "unknown"),
    kept("status-503", Some(503), "unknown"),
    kept("status-504", Some(504), "unknown"),
    // The connection breaks before the answer: the gateway may have made the payment.
    kept("reset", Some(503), "unknown"),
    // It breaks in the middle of the answer, whose status was 200.
    kept("reset-after-headers", None, "unknown"),
];

pub(crate) fn add(suite: &mut Suite) {
    for protocol in Protocol::BOTH {
        suite.shared(format!("gateway::the_charge_follows_the_payment::{protocol:?}"), async move |stack: &Stack| {
            for (number, row) in ROWS.iter().enumerate() {
                let merchant = format!("gateway-{protocol:?}-{number}");
                try_row(stack, protocol, &merchant, row).await.context(format!("{merchant}, {}", row.behaviour))?;
            }
            Ok(())
        });
        suite.shared(format!("gateway::hangs_past_the_routes_timeout::{protocol:?}"), async move |stack: &Stack| {
            let row = kept("hang", Some(504), "unknown");
            try_row(stack, protocol, &format!("gateway-{protocol:?}-hang"), &row).await
        });
        suite.shared(format!("gateway::the_client_leaves_while_it_works::{protocol:?}"), async move |stack: &Stack| {
            the_client_leaves_while_it_works(stack, protocol).await
        });
    }
    suite.owned("gateway::is_down", patient(), is_down);
}

async fn try_row(stack: &Stack, protocol: Protocol, merchant: &str, row: &Row) -> Result<()> {
    let order = format!("{merchant}-1");
    let payment = Payment::new(merchant, &order, 6_000).gateway(row.behaviour);
    let answer = stack.send(protocol, payment.call()).await;
    match (&answer, row.status) {
        (Ok(answer), Some(status)) => ensure_eq!(answer.status, status, "{}", answer.json()),
        (Err(_), None) => {}
        other => return Err(testkit::Failure::new(format!("{other:?}"))),
    }
    ensure_eq!(stack.gateway.seen_order(&order).len(), 1, "requests at the gateway");
    settles_at(stack, merchant, if row.kept { (6_000, 1) } else { (0, 0) }).await?;
    ensure_eq!(outcome(&stack.envoy, &order)?, row.outcome);
    if row.outcome == "unknown" {
        // It is reported after the answer.
        let reported = wait::until_async("the report", Duration::from_secs(60), || async {
            Ok((journal(stack, merchant).await?.len() == 2).then_some(()))
        });
        reported.await?;
    }
    let entries = books_agree(stack, merchant).await?;
    let rows: Vec<_> = entries.iter().map(|entry| (&*entry.action, entry.reason.as_deref())).collect();
    let (what, why) = rows.split_first().ok_or_else(|| testkit::Failure::new("no row"))?;
    ensure_eq!(*what, ("consume", None));
    match (row.outcome, why) {
        ("kept", []) => Ok(()),
        ("voided", [("void", reason)]) if *reason == row.reason => Ok(()),
        ("unknown", [("unknown", Some(_))]) => Ok(()),
        (_, other) => Err(testkit::Failure::new(format!("{other:?}"))),
    }
}

/// The gateway works on the payment when its client goes: the outcome is unknown, so the charge stays, and the client's
/// retry is admitted as the same payment.
async fn the_client_leaves_while_it_works(stack: &Stack, protocol: Protocol) -> Result<()> {
    let merchant = format!("leaver-{protocol:?}");
    let order = format!("{merchant}-1");
    let slow = Payment::new(&merchant, &order, 6_000).gateway("slow-3000");
    let address = stack.envoy.address();
    let sending = tokio::spawn(testkit::client::send_once(address, protocol, slow.call()));
    let seen = wait::until_async("the payment at the gateway", Duration::from_secs(5), || async {
        Ok((!stack.gateway.seen_order(&order).is_empty()).then_some(()))
    });
    seen.await?;
    sending.abort();
    ensure_eq!(outcome(&stack.envoy, &order)?, "unknown");
    let answer = stack.send(protocol, Payment::new(&merchant, &order, 6_000).call()).await?;
    ensure_eq!(answer.status, 200, "{}", answer.json());
    let lines = lines_of(&stack.envoy, &order, 2)?;
    ensure_eq!(lines[1]["sluice"]["replay"], true);
    settles_at(stack, &merchant, (6_000, 1)).await?;
    books_agree(stack, &merchant).await.map(drop)
}

/// Nothing listens where the gateway should be: the payment never reached it, so its charge is returned.
async fn is_down(stack: &mut Stack) -> Result<()> {
    stack.gateway = Gateway::start()?;
    for protocol in Protocol::BOTH {
        let merchant = format!("down-{protocol:?}");
        let order = format!("{merchant}-1");
        let answer = stack.send(protocol, Payment::new(&merchant, &order, 6_000).call()).await?;
        ensure_eq!(answer.status, 503, "{}", answer.json());
        ensure_eq!(answer.code(), "", "it is not Sluice that refuses");
        settles_at(stack, &merchant, (0, 0)).await?;
        ensure_eq!(outcome(&stack.envoy, &order)?, "voided");
        let entries = books_agree(stack, &merchant).await?;
        let reasons: Vec<_> = entries.iter().map(|entry| entry.reason.as_deref()).collect();
        ensure_eq!(reasons, [None, Some("upstream_unreached")]);
    }
    Ok(())
}
