//! Who is let in, how often and with how much; and what else the port answers.

use std::time::Duration;

use proto::quota_v1::batch_operation::Operation;
use proto::quota_v1::{
    CreditStatsRequest, GetAccountRequest, GetSelfRequest, InitializeRequest, ListAccountsRequest, ListRightsRequest,
};
use serde_json::json;
use testkit::client::{Call, Protocol, send_once};
use testkit::{Failure, Result};
use tonic::codegen::tokio_stream;
use tonic::transport::Endpoint;
use tonic::{Code, Request};
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_types::StatusExt as _;

use crate::bench::{
    self, ask, channel, check, client_on, consume, consume_request, credit_client_on, done, merchant_client_on, usd,
};
use crate::refusals::reason;

#[tokio::test]
async fn only_known_callers_are_let_in_and_only_to_what_is_theirs() -> Result<()> {
    let api = bench::start(&[])?;
    let channel = channel(&api).await?;
    let expired = api.caller(json!({"sub": "ana", "role": "admin", "exp": 1_600_000_000}))?;
    let roleless = api.caller(json!({"sub": "ana", "role": "guest"}))?;
    let (operator, shop) = (api.operator()?, api.merchant("shop")?);
    // The answer to a token that is not there, or is no good, does not depend on what is asked for.
    let table = [
        (None, Code::Unauthenticated, "UNAUTHENTICATED"),
        (Some("nonsense"), Code::Unauthenticated, "INVALID_TOKEN"),
        (Some("slc_nonsense"), Code::Unauthenticated, "INVALID_TOKEN"),
        (Some(expired.token()), Code::Unauthenticated, "INVALID_TOKEN"),
        (Some(roleless.token()), Code::PermissionDenied, "FORBIDDEN"),
    ];
    for (token, code, expected) in table {
        let mut client = client_on(channel.clone(), token)?;
        for operation in [check("shop", 500), consume("shop", "A", 500), consume("shop", "A", -1)] {
            let status = ask(&mut client, operation).await.expect_err(expected);
            assert_eq!((status.code(), reason(&status).as_str()), (code, expected), "{token:?}: {status:?}");
        }
        let asked = ListAccountsRequest { merchant_id: "shop".to_owned() };
        assert_eq!(client.list_accounts(asked).await.expect_err(expected).code(), code);
        assert_eq!(client.list_rights(ListRightsRequest::default()).await.expect_err(expected).code(), code);
        let status = credit_client_on(channel.clone(), token)?.credit_stats(CreditStatsRequest {}).await;
        let status = status.expect_err(expected);
        assert_eq!((status.code(), reason(&status).as_str()), (code, expected), "{token:?}: {status:?}");
        let status = merchant_client_on(channel.clone(), token)?.get_self(GetSelfRequest {}).await;
        let status = status.expect_err(expected);
        assert_eq!((status.code(), reason(&status).as_str()), (code, expected), "{token:?}: {status:?}");
    }

    let mut client = client_on(channel.clone(), Some(operator.token()))?;
    done(&mut client, consume("shop", "A", 500)).await?;
    done(&mut client, consume("other", "A", 500)).await?;
    let mut client = client_on(channel, Some(shop.token()))?;
    let account = |merchant: &str| GetAccountRequest { merchant_id: merchant.to_owned(), currency: usd() };
    let list = |merchant: &str| ListAccountsRequest { merchant_id: merchant.to_owned() };
    assert!(ask(&mut client, check("shop", 500)).await.is_ok());
    assert_eq!(client.get_account(account("shop")).await?.into_inner().merchant_id, "shop");
    assert_eq!(client.list_accounts(list("shop")).await?.into_inner().accounts.len(), 1);
    assert!(client.list_rights(ListRightsRequest::default()).await?.into_inner().items.is_empty());
    let rights = ListRightsRequest { merchant_id: Some("other".to_owned()), ..ListRightsRequest::default() };
    let initialize = InitializeRequest { merchant_id: "shop".to_owned(), currency: usd() };
    for denied in [
        ask(&mut client, check("other", 500)).await.err(),
        ask(&mut client, consume("shop", "B", 500)).await.err(),
        ask(&mut client, Operation::Initialize(initialize)).await.err(),
        client.get_account(account("other")).await.err(),
        client.list_accounts(list("other")).await.err(),
        client.list_rights(rights).await.err(),
        // The same whether there is such a merchant or not.
        client.get_account(account("unknown")).await.err(),
    ] {
        let status = denied.ok_or_else(|| Failure::new("it was allowed"))?;
        assert_eq!((status.code(), reason(&status).as_str()), (Code::PermissionDenied, "FORBIDDEN"), "{status:?}");
    }
    Ok(())
}

#[tokio::test]
async fn callers_rates_and_messages_are_bounded_as_with_rest() -> Result<()> {
    let api = bench::start(&[("SLUICE_ADMIN_RATE_PER_MINUTE", "6"), ("SLUICE_ADMIN_BODY_BYTES_MAX", "2048")])?;
    let (operator, admin) = (api.operator()?, api.admin()?);
    let mut client = bench::client(&api, &operator).await?;
    let mut large = consume_request("shop", "A", 500);
    large.metadata_json = Some(json!({"note": "x".repeat(3000)}).to_string());
    let status = ask(&mut client, Operation::Consume(large)).await.expect_err("too large");
    assert_eq!((status.code(), reason(&status).as_str()), (Code::InvalidArgument, "BODY_TOO_LARGE"));
    let mut fits = consume_request("shop", "A", 500);
    fits.metadata_json = Some(json!({"note": "x".repeat(1900)}).to_string());
    done(&mut client, Operation::Consume(fits)).await?;
    // One bucket for both ways in.
    for _ in 0..4 {
        assert_eq!(operator.get("/quotas/merchant/shop").await?.status, 200);
    }
    assert_eq!(operator.get("/quotas/merchant/shop").await?.status, 429);
    let status = ask(&mut client, check("shop", 500)).await.expect_err("too often");
    assert_eq!((status.code(), reason(&status).as_str()), (Code::ResourceExhausted, "RATE_LIMITED"));
    let delay = status.get_details_retry_info().and_then(|info| info.retry_delay).unwrap_or_default();
    assert!(delay > Duration::ZERO && delay <= Duration::from_secs(10), "{delay:?}");
    let mut other = bench::client(&api, &admin).await?;
    assert!(ask(&mut other, check("shop", 500)).await.is_ok());
    Ok(())
}

#[tokio::test]
async fn the_port_speaks_both_versions_and_describes_itself() -> Result<()> {
    let api = bench::start(&[])?;
    let address = api.server.admin_address();
    for protocol in [Protocol::Http1, Protocol::Http2] {
        assert_eq!(send_once(address, protocol, Call::new("GET", "/health")).await?.status, 200);
        let method = "/quota.v1.QuotaService/Consume";
        let answer = send_once(address, protocol, Call::post_json(method, "{}")).await?;
        assert_eq!((answer.status, answer.json()["code"].as_str()), (415, Some("UNSUPPORTED_CONTENT")));
        let answer = send_once(address, protocol, Call::post_json("/quota.v1.Nothing/Consume", "{}")).await?;
        assert_eq!(answer.status, 404);
    }

    let operator = api.operator()?;
    let list = |token: Option<&str>| {
        let message_request = Some(MessageRequest::ListServices(String::new()));
        let asked = ServerReflectionRequest { host: String::new(), message_request };
        let mut request = Request::new(tokio_stream::once(asked));
        if let Some(token) = token {
            request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().expect("a header"));
        }
        request
    };
    let mut reflection = ServerReflectionClient::new(channel(&api).await?);
    let refused = reflection.server_reflection_info(list(None)).await.expect_err("no token");
    assert_eq!(refused.code(), Code::Unauthenticated);
    let answers = reflection.server_reflection_info(list(Some(operator.token()))).await?;
    let answer = answers.into_inner().message().await?.and_then(|answer| answer.message_response);
    let Some(MessageResponse::ListServicesResponse(services)) = answer else { panic!("{answer:?}") };
    let mut names: Vec<_> = services.service.into_iter().map(|service| service.name).collect();
    names.sort_unstable();
    let services = ["quota.v1.CreditService", "quota.v1.MerchantService", "quota.v1.QuotaService"];
    assert_eq!(names, [&["grpc.reflection.v1.ServerReflection"][..], &services].concat());

    // Payments have a port of their own, which has no authentication and does not know this service.
    let payments = Endpoint::from_shared(format!("http://{}", api.server.grpc_address()))?.connect().await?;
    let mut client = client_on(payments, Some(operator.token()))?;
    let status = ask(&mut client, consume("shop", "A", 500)).await.expect_err("another port");
    assert_eq!(status.code(), Code::Unimplemented);
    Ok(())
}
