//! `credit repay`: records a repayment or a recovery, as the API does.

use clap::Args;
use jiff::civil::Date;
use quota::{ActorId, AmountMinor, OrderNo, Posting, PostingKind};
use sluice_decision::decider::Decision;
use sluice_decision::operations::{Actor, PostingAnswer, Request};
use sluice_lines::id_of;
use sluice_store::{REMARKS_BYTES_MAX, refusal};

use super::{Account, CliError, CreditError, Outcome, Session, actor, amount, day, posting_no, table};

#[derive(Debug, Args)]
pub(in crate::cli) struct Repayment {
    #[command(flatten)]
    account: Account,
    /// The idempotency key: the same number with the same amount is recorded once.
    #[arg(value_parser = posting_no)]
    repayment_no: OrderNo,
    /// Minor units, more than 0.
    #[arg(value_parser = amount)]
    amount: AmountMinor,
    /// The business day on which the money was received; today where none is given.
    #[arg(long, value_parser = day, value_name = "YYYY-MM-DD")]
    received_on: Option<Date>,
    /// It is money for what was written off: it pays that claim, and makes no room, because the write-off has done so.
    #[arg(long)]
    recovery: bool,
    /// A note for the usage log.
    #[arg(long, value_parser = remarks, value_name = "TEXT")]
    remarks: Option<String>,
    /// In whose name; kept in the usage log.
    #[arg(long = "as", default_value = "admin:cli", value_parser = actor, value_name = "NAME")]
    actor: ActorId,
    /// Print JSON, for programs.
    #[arg(long)]
    json: bool,
}

impl Repayment {
    pub(super) const fn account(&self) -> &Account {
        &self.account
    }

    const fn kind(&self) -> PostingKind {
        if self.recovery { PostingKind::Recovery } else { PostingKind::Repayment }
    }
}

fn remarks(text: &str) -> Result<String, String> {
    if text.len() > REMARKS_BYTES_MAX || text.contains('\0') {
        return Err(format!("must have at most {REMARKS_BYTES_MAX} bytes, and no NUL character"));
    }
    Ok(text.to_owned())
}

pub(super) async fn repay(session: &Session, repayment: &Repayment) -> Result<Outcome, CliError> {
    let record = session.record().await?;
    if record.line().is_none() {
        return Err(CreditError::NoLine.into());
    }
    if repayment.recovery {
        let minor = repayment.amount.get().cast_signed();
        record.check_recovery(repayment.repayment_no.as_str(), minor).map_err(CreditError::Amount)?;
    }
    let actor = Actor { id: repayment.actor.clone(), operator_type: "admin" };
    let done = session.operations.execute(&actor, request(session, repayment)?).await?;
    if done.is_refused() {
        return Err(refused(&done).into());
    }
    let answer = PostingAnswer::of(&done);
    session.answer(Some(&answer), repayment.json, "", |answer| text(session, answer))
}

fn request(session: &Session, repayment: &Repayment) -> Result<Request, CreditError> {
    let (merchant, currency) = session.key.clone();
    let posting = Posting { kind: repayment.kind(), amount: repayment.amount };
    let mut request = Request::posting(merchant, currency, repayment.repayment_no.clone(), posting);
    let today = session.today;
    let given = repayment.received_on.unwrap_or(today);
    if given > today {
        return Err(CreditError::Future { given, today });
    }
    request.value_day = Some(id_of(given));
    request.remarks = repayment.remarks.clone().unwrap_or_default();
    Ok(request)
}

pub(super) fn refused(done: &Decision) -> CreditError {
    let code = done.reply.record.code;
    let sentence = done.refusal.as_ref().and_then(|own| refusal::sentence(own, done.command().currency.code()));
    CreditError::Refused { code: code.as_str(), sentence: sentence.unwrap_or_else(|| code.title().to_owned()) }
}

fn text(session: &Session, answer: &PostingAnswer) -> String {
    let kind = answer.kind;
    let recorded = if answer.replay { "recorded before: nothing has changed" } else { "recorded" };
    let unknown = || "unknown".to_owned();
    let exposure = answer.credit.map(|credit| credit.exposure.to_string());
    let available = answer.credit.and_then(|credit| credit.available).map(|available| available.to_string());
    table(&[
        ("account", session.account()),
        (kind, format!("{} of {}, {recorded}", answer.number, answer.amount)),
        ("exposure", exposure.unwrap_or_else(unknown)),
        ("available", available.unwrap_or_else(unknown)),
        ("decision", answer.decision_id.to_string()),
    ])
}
