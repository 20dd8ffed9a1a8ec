//! Many operations in one call: each by itself, or all or none.

use proto::quota_v1::batch_result::Result as Outcome;
use proto::quota_v1::{BatchOperation, BatchRequest, GetAccountRequest};
use testkit::Result;
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::bench::{self, Client, batch, check, consume, hold, usd};
use crate::refusals::reason;

async fn daily_used(client: &mut Client, merchant: &str) -> Result<i64> {
    let asked = GetAccountRequest { merchant_id: merchant.to_owned(), currency: usd() };
    let account = client.get_account(asked).await?.into_inner();
    Ok(account.counters.unwrap_or_default().daily_used)
}

/// The code of each outcome.
fn codes(outcomes: &[Outcome]) -> Vec<&str> {
    outcomes.iter().map(code).collect()
}

fn code(outcome: &Outcome) -> &str {
    match outcome {
        Outcome::Operation(response) => response.code.as_str(),
        Outcome::Check(response) => response.code.as_str(),
        Outcome::Refusal(refusal) => refusal.reason.as_str(),
    }
}

#[tokio::test]
async fn each_by_itself_or_all_or_none() -> Result<()> {
    let api = bench::start(&[])?;
    let mut client = bench::client(&api, &api.operator()?).await?;
    let over = [consume("small", "A", 1000), consume("small", "B", 600), consume("small", "C", 500)];

    // All or none: the second does not fit, so that nothing is done.
    let outcomes = batch(&mut client, over.to_vec(), true).await?;
    assert_eq!(codes(&outcomes), ["BATCH_REFUSED", "DAILY_AMOUNT", "BATCH_REFUSED"]);
    let status = client.get_account(GetAccountRequest { merchant_id: "small".to_owned(), currency: usd() }).await;
    let used = status.map_or(0, |account| account.into_inner().counters.unwrap_or_default().daily_used);
    assert_eq!(used, 0);

    // Each by itself, in their order, beside another merchant's.
    let mixed = [&over[..], &[consume("shop", "A", 700), hold("shop", "B", 300), check("small", 100)]].concat();
    let outcomes = batch(&mut client, mixed, false).await?;
    assert_eq!(codes(&outcomes), ["ADMITTED", "DAILY_AMOUNT", "ADMITTED", "ADMITTED", "ADMITTED", "DAILY_AMOUNT"]);
    let Some(Outcome::Check(found)) = outcomes.last() else { panic!("{outcomes:?}") };
    assert!(!found.allowed && found.fits == Some(0), "{found:?}");
    assert_eq!((daily_used(&mut client, "small").await?, daily_used(&mut client, "shop").await?), (1500, 1000));

    // All of them, and again the same.
    let fits = vec![consume("shop", "C", 400), hold("shop", "D", 600)];
    let first = batch(&mut client, fits.clone(), true).await?;
    assert_eq!(codes(&first), ["ADMITTED", "ADMITTED"]);
    let again = batch(&mut client, fits, true).await?;
    for outcome in &again {
        let Outcome::Operation(response) = outcome else { panic!("{outcome:?}") };
        assert!(response.replay, "{response:?}");
    }
    assert_eq!(daily_used(&mut client, "shop").await?, 2000);
    Ok(())
}

#[tokio::test]
async fn a_batch_that_cannot_be_accepted_does_nothing() -> Result<()> {
    let api = bench::start(&[])?;
    let mut client = bench::client(&api, &api.operator()?).await?;
    let many = (0..1001).map(|number| consume("shop", &number.to_string(), 100)).collect();
    let table = [
        (Vec::new(), false, "operations"),
        (many, false, "operations"),
        (vec![consume("shop", "A", 100), consume("small", "A", 100)], true, "operations[1].merchant_id"),
    ];
    for (operations, atomic, field) in table {
        let status = batch(&mut client, operations, atomic).await.expect_err(field);
        assert_eq!((status.code(), reason(&status).as_str()), (Code::InvalidArgument, "BAD_REQUEST"));
        let violations = status.get_details_bad_request().expect("a BadRequest").field_violations;
        assert_eq!(violations.first().map(|violation| violation.field.as_str()), Some(field));
    }
    // An operation that this server does not know.
    let asked = BatchRequest { operations: vec![BatchOperation { operation: None }], atomic: false };
    let status = client.batch(asked).await.expect_err("no operation");
    assert!(status.message().contains("operations[0].operation"), "{status:?}");
    // One that may be asked for beside one that may not: nothing is done, and the call is refused.
    let mut merchant = bench::client(&api, &api.merchant("shop")?).await?;
    let asked = vec![check("shop", 100), consume("shop", "A", 100)];
    let status = batch(&mut merchant, asked, false).await.expect_err("a merchant may not consume");
    assert_eq!((status.code(), reason(&status).as_str()), (Code::PermissionDenied, "FORBIDDEN"));
    for merchant_id in ["shop", "small"] {
        let asked = GetAccountRequest { merchant_id: merchant_id.to_owned(), currency: usd() };
        assert_eq!(client.get_account(asked).await.expect_err(merchant_id).code(), Code::NotFound);
    }
    Ok(())
}
