//! The account's credit line in a command.

use quota::{Action, AmountMinor, Channel, Charge, Code, CreditTerms, OnUnknownCredit, Policy, PostingKind};
use sluice_lines::{Credit, CreditDay, id_of};
use sluice_store::CreditContext;

/// The part of the line that the store decides by. A line that takes no charges, or is past due, gives nothing away, but what it was
/// paid beyond what it owes.
pub(crate) fn terms(action: &Action, credit: &Credit) -> Option<CreditTerms> {
    let Credit::Line(day) = credit else { return None };
    let terms = day.command_terms();
    let gives_away = action.posting() == Some(PostingKind::TransferOut);
    let keeps = day.refuses(None) == Some(Code::CreditFrozen) || day.is_past_due();
    let limit = if gives_away && keeps { AmountMinor::ZERO } else { terms.limit };
    Some(CreditTerms { limit, ..terms })
}

/// Sets why the line refuses a charge whatever its amount: before the policy's own reasons, but for those that say that there is
/// no policy.
pub(crate) fn refuse(charge: &mut Charge, credit: &Credit, policy: Option<&Policy>, channel: Option<&Channel>) {
    let Some(policy) = policy else { return };
    let denies = policy.on_unknown_credit == OnUnknownCredit::Deny;
    let refusal = match credit {
        Credit::Line(day) => day.refuses(channel),
        Credit::Unread => denies.then_some(Code::CreditUnknown),
        // The store knows whether the account is on a line, also on one that was opened since Postgres was read.
        Credit::NoLine | Credit::Unknown => {
            charge.refuse_unknown_credit = denies;
            None
        }
    };
    if !charge.refusal.is_some_and(|code| matches!(code, Code::PolicyMissing | Code::MerchantUnknown)) {
        charge.refusal = refusal.or(charge.refusal);
    }
}

/// What the journal and a refusal's answer say of the line.
pub(crate) fn context(credit: &Credit, outdated_since_ms: Option<i64>) -> Option<CreditContext> {
    let Credit::Line(day) = credit else { return None };
    let CreditDay { limit, standing, overdue, .. } = &**day;
    let amount = |minor: i64| minor.max(0).unsigned_abs();
    Some(CreditContext {
        limit: amount(limit.limit),
        stage: standing.stage.as_str().into(),
        days_past_due: u32::try_from(standing.days_past_due).unwrap_or_default(),
        oldest_due_day: overdue.oldest_due_on.map(id_of),
        amount_to_cure: amount(overdue.amount_to_cure),
        read_at_ms: outdated_since_ms,
        thresholds: day.thresholds(),
    })
}
