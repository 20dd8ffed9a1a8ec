//! Whether an answer is that of its own request: every text in it follows from the order's number.

use proto::{Problem, header};
use quota::Code;
use testkit::ensure;

use super::client::Exchanged;
use super::ledger::Ended;
use super::order::{AtGateway, Decision, DecisionHeaders, Order, Route, Unusable};
use testkit::{Context, Failure, Result};

/// How a request ended, and the decision's id where its order's number does not say it.
pub(super) type Judged = (Ended, Option<String>);

/// Every answer that an order can have, by what it looks like.
pub(super) fn judge(order: &Order, answer: Exchanged) -> Result<Judged> {
    let Exchanged { status, headers, body } = answer;
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let body = match body {
        Ok(body) => String::from_utf8_lossy(&body).into_owned(),
        Err(_) if order.at_gateway == AtGateway::ResetsAfterHead && status == 200 => {
            return Ok((Ended::BrokeOff, None));
        }
        Err(error) => return Err(Failure::new(format!("the answer {status} broke off: {error}"))),
    };
    is_of(order, &body)?;
    let code = text(header::CODE);
    if code == Code::AuthzUnavailable.as_str() || code == Code::StoreUnavailable.as_str() {
        ensure!(status == 503 && body.contains(&code), "answered {status} {code}: {body}");
        ensure!(!order.route.goes_on(), "it was refused without a decision ({code})");
        return Ok((Ended::Unanswered(code), None));
    }
    if !code.is_empty() && order.real {
        return refused_really(order, status, &code, &text(header::DECISION_ID), &body);
    }
    if !code.is_empty() {
        let Decision::Refused(own) = order.decision else {
            return Err(Failure::new(format!("refused with {code}: {body}")));
        };
        ensure!(order.route != Route::Shadow, "refused on a shadow route with {code}");
        let (id, expected) = (text(header::DECISION_ID), order.problem(own).to_json());
        let is_own = status == own.http_status() && code == own.as_str() && id == order.decision_id();
        ensure!(is_own && body == expected, "refused with {status} {code} {id}: {body}");
        return Ok((Ended::Refused, None));
    }
    passed(order, status, &body)
}

/// A refusal by policies: its id is in the journal.
fn refused_really(order: &Order, status: u16, code: &str, id: &str, body: &str) -> Result<Judged> {
    let problem: Problem = serde_json::from_str(body).context(body)?;
    let own = match order.decision {
        Decision::Refused(own) => problem.code == own,
        Decision::Contested => problem.code == Code::DailyCount,
        Decision::Admitted | Decision::Replayed | Decision::Delayed(_) | Decision::Unusable(_) => false,
    };
    let alike = code == problem.code.as_str() && status == problem.status && status == problem.code.http_status();
    ensure!(own && alike && order.route != Route::Shadow, "refused with {status} {code}: {body}");
    ensure!(problem.decision_id.as_deref() == Some(id), "the decision is {id}, and {body}");
    Ok((Ended::Refused, Some(id.to_owned())))
}

/// The gateway's answer, or the proxy's own where the gateway gave none.
fn passed(order: &Order, status: u16, body: &str) -> Result<Judged> {
    let Some(own) = order.at_gateway.status() else {
        ensure!(status == 503, "answered {status}: {body}");
        // The proxy's own answer says nothing of the decision.
        return Ok((Ended::Passed { status, decided: true }, None));
    };
    let id = if order.real { Some(decision_id(body)?) } else { None };
    let received = possible_headers(order, id.as_deref()).into_iter().find(|sent| order.gateway_body(sent) == body);
    let received =
        received.filter(|_| status == own).ok_or_else(|| Failure::new(format!("answered {status}: {body}")))?;
    Ok((Ended::Passed { status, decided: received.decision_id.is_some() }, id))
}

/// The decision's id that the gateway received.
fn decision_id(body: &str) -> Result<String> {
    let echoed: serde_json::Value = serde_json::from_str(body).context(body)?;
    let id = echoed["decision_id"].as_str().filter(|id| !id.is_empty());
    id.map(str::to_owned).ok_or_else(|| Failure::new(format!("the gateway received no decision: {body}")))
}

/// All headers that the gateway may have received: those of the decision, and where the payment goes on without one,
/// those of that.
fn possible_headers(order: &Order, id: Option<&str>) -> Vec<DecisionHeaders> {
    let of = |code: Code, replay| DecisionHeaders {
        code: Some(code.as_str().to_owned()),
        decision_id: Some(id.map_or_else(|| order.decision_id(), str::to_owned)),
        replay,
    };
    let shadow = order.route == Route::Shadow;
    let decided = match order.decision {
        Decision::Admitted | Decision::Delayed(_) => vec![of(Code::Admitted, false)],
        Decision::Replayed => vec![of(Code::Admitted, true)],
        Decision::Refused(code) if shadow => vec![of(code, false)],
        Decision::Contested if shadow => vec![of(Code::Admitted, false), of(Code::DailyCount, false)],
        Decision::Contested => vec![of(Code::Admitted, false)],
        Decision::Refused(_) | Decision::Unusable(_) => Vec::new(),
    };
    let code = match order.decision {
        Decision::Unusable(Unusable::Store) => Code::StoreUnavailable,
        _ => Code::AuthzUnavailable,
    };
    let undecided = [Code::AuthzUnavailable, code]
        .map(|code| DecisionHeaders { code: Some(code.as_str().to_owned()), ..DecisionHeaders::default() });
    decided.into_iter().chain(undecided.into_iter().filter(|_| order.route.goes_on())).collect()
}

/// Fails where a text names another order.
pub(super) fn is_of(order: &Order, text: &str) -> Result<()> {
    let name = order.name();
    let prefix = name.split('-').next().unwrap_or_default();
    for (at, _) in text.match_indices(prefix) {
        let rest = text.get(at..).unwrap_or_default();
        let end = rest.find(|letter: char| letter != '-' && !letter.is_ascii_alphanumeric()).unwrap_or(rest.len());
        let named = rest.get(..end).unwrap_or_default();
        ensure!(named == name, "MISDELIVERED: an answer for {named}: {text}");
    }
    Ok(())
}
