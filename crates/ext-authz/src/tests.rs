//! The answers to both kinds of caller if the store gives no answer.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use envoy_types::pb::envoy::service::auth::v3::check_response::HttpResponse;
use futures_util::FutureExt;
use prost::Message;
use proto::batch::batch_authorization_server::BatchAuthorization;
use proto::batch::{ALONE, BatchCheckRequest, BatchCheckResult, ENTRIES_MAX};
use proto::{envoy, extension, header};
use quota::{Command, Currency, MerchantId, Reply};
use sluice_policy::PolicyBook;
use tokio::sync::Notify;

use super::*;
use sluice_kit::health::Health;
use sluice_kit::metrics::Metrics;
use sluice_lines::CreditLines;
use sluice_policy_source::Policies;
use sluice_policy_source::zones::Zones;
use sluice_settings::{Live, Settings};
use sluice_store::{AuditContext, Call, MemoryStore, StoreError};

/// A store that is unavailable, in one way or another.
#[derive(Debug)]
enum Away {
    Refuses,
    Hangs,
}

impl Store for Away {
    fn timeout(&self) -> Duration {
        Duration::from_millis(10)
    }

    async fn apply(&self, _: &Command, _: &AuditContext) -> Result<Reply, StoreError> {
        match self {
            Self::Refuses => Err(StoreError::Unavailable("10.0.0.7 refused the connection".into())),
            Self::Hangs => std::future::pending().await,
        }
    }

    async fn apply_each(&self, batch: &[Call]) -> Vec<Result<Reply, StoreError>> {
        let mut results = Vec::new();
        for call in batch {
            results.push(self.apply(&call.0, &call.1).await);
        }
        results
    }

    async fn apply_all(&self, _: &[Call]) -> Result<Vec<Reply>, StoreError> {
        Err(StoreError::Unavailable("not used in this test".into()))
    }
}

const RULES: &str = r#"{"rules": [{"name": "p", "match": {"methods": ["POST"], "path": "/p"}, "unit": "minor", "extract":
    {"merchant": [{"header": "m"}], "amount": [{"header": "a"}], "currency": [{"header": "c"}], "order_no": [{"header": "o"}]}}]}"#;

fn service<S: Store>(store: Arc<S>) -> CheckService<S> {
    service_with(store, "")
}

/// With more members of the policy.
fn service_with<S: Store>(store: Arc<S>, more: &str) -> CheckService<S> {
    let metrics = Arc::new(Metrics::new());
    let health = Arc::new(Health::new(Arc::clone(&metrics)));
    let document = format!("version: v1\ndefault: {{timezone: UTC, daily_amount: 5000{more}}}\n");
    let book = PolicyBook::from_yaml(&document, &Zones::compiled_in()).unwrap();
    let env = [("SLUICE_POLICY_FILE", "p"), ("SLUICE_CHECK_TIMEOUT_MS", "20"), ("SLUICE_REDIS_TIMEOUT_MS", "10")];
    let env = env.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
    let live = Live::fixed(&Settings::load(env, None).unwrap());
    let rules = Document::from_json(RULES.as_bytes()).unwrap();
    let policies = Arc::new(Policies::new(book, health));
    CheckService::new(Decider::new(store, policies, CreditLines::none(), live, &metrics), Some(rules))
}

fn from_filter(action: &str, mode: &str) -> CheckRequest {
    let extensions = [
        (extension::ACTION, action),
        (extension::MERCHANT, "m"),
        (extension::AMOUNT_MINOR, "100"),
        (extension::CURRENCY, "USD"),
        (extension::ORDER_NO, "o"),
        (extension::ATTEMPT, "00000000000000000000000000000001"),
        (extension::MODE, mode),
    ];
    let context_extensions = extensions.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    CheckRequest { attributes: Some(AttributeContext { context_extensions, ..AttributeContext::default() }) }
}

/// A store that charges; its first answer is lost, or comes when it is released.
#[derive(Debug)]
struct AnswerLost {
    ledger: MemoryStore,
    calls: AtomicUsize,
    late: Option<Notify>,
}

impl AnswerLost {
    fn new(late: bool) -> Arc<Self> {
        let late = late.then(Notify::new);
        Arc::new(Self { ledger: MemoryStore::new(1), calls: AtomicUsize::new(0), late })
    }

    /// The day's amount of the one account.
    fn used(&self) -> u64 {
        let (merchant, currency) = (MerchantId::parse("m").unwrap(), Currency::parse("USD").unwrap());
        self.ledger.ledger().account(&merchant, currency).unwrap().windows.day.amount
    }
}

impl Store for AnswerLost {
    fn timeout(&self) -> Duration {
        Duration::from_millis(10)
    }

    async fn apply(&self, command: &Command, audit: &AuditContext) -> Result<Reply, StoreError> {
        let first = self.calls.fetch_add(1, Ordering::SeqCst) == 0;
        let reply = self.ledger.apply(command, audit).await;
        match &self.late {
            Some(late) if first => late.notified().await,
            None if first => return Err(StoreError::Timeout { after_ms: 1 }),
            _ => {}
        }
        reply
    }

    async fn apply_each(&self, batch: &[Call]) -> Vec<Result<Reply, StoreError>> {
        let mut results = Vec::new();
        for call in batch {
            results.push(self.apply(&call.0, &call.1).await);
        }
        results
    }

    async fn apply_all(&self, batch: &[Call]) -> Result<Vec<Reply>, StoreError> {
        self.ledger.apply_all(batch).await
    }
}

fn from_native() -> CheckRequest {
    use envoy_types::pb::envoy::service::auth::v3::attribute_context;
    let headers = [("m", "m"), ("a", "100"), ("c", "USD"), ("o", "o")];
    let http = attribute_context::HttpRequest {
        method: "POST".into(),
        path: "/p".into(),
        headers: HashMap::from(headers.map(|(key, value)| (key.to_owned(), value.to_owned()))),
        ..attribute_context::HttpRequest::default()
    };
    let request = attribute_context::Request { http: Some(http), ..attribute_context::Request::default() };
    CheckRequest { attributes: Some(AttributeContext { request: Some(request), ..AttributeContext::default() }) }
}

#[tokio::test]
async fn the_proxy_filter_is_told_that_the_store_gave_no_answer() {
    for (action, mode) in [("consume", "enforce"), ("consume", "shadow"), ("void", "enforce"), ("void", "shadow")] {
        for store in [Away::Refuses, Away::Hangs] {
            let what = format!("{action} {mode} {store:?}");
            let reply =
                service(Arc::new(store)).check(Request::new(from_filter(action, mode))).await.unwrap().into_inner();
            let Some(HttpResponse::DeniedResponse(denied)) = reply.http_response else { panic!("{what}: not denied") };
            assert_ne!(reply.status.unwrap().code, 0, "{what}");
            assert_eq!(denied.status.unwrap().code, 503, "{what}");
            let code = denied.headers.iter().filter_map(|option| option.header.as_ref());
            let code: Vec<_> = code.filter(|pair| pair.key == header::CODE).map(|pair| pair.value.as_str()).collect();
            assert_eq!(code, ["STORE_UNAVAILABLE"], "{what}");
            assert!(!denied.body.contains("10.0.0.7"), "{what}: {}", denied.body);
        }
    }
}

#[tokio::test]
async fn envoys_own_filter_gets_a_failed_call() {
    for store in [Away::Refuses, Away::Hangs] {
        let what = format!("{store:?}");
        let status = service(Arc::new(store)).check(Request::new(from_native())).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::Unavailable, "{what}");
        assert!(status.message().starts_with("STORE_UNAVAILABLE: "), "{what}: {}", status.message());
    }
}

fn in_shadow(mut request: CheckRequest) -> CheckRequest {
    let extensions = &mut request.attributes.as_mut().unwrap().context_extensions;
    extensions.insert(extension::MODE.to_owned(), Mode::Shadow.as_str().to_owned());
    request
}

/// A charge whose answer never reached Envoy's native filter is voided; the proxy filter voids its own, and in shadow the payment
/// is made.
#[tokio::test]
async fn a_charge_that_nobody_heard_of_is_taken_back() {
    for late in [false, true] {
        let table = [
            ("native", from_native(), false, 0),
            ("native in shadow", in_shadow(from_native()), true, 100),
            ("the proxy filter", from_filter("consume", "enforce"), true, 100),
        ];
        for (who, request, answered, used) in table {
            // A late answer finds no caller in shadow either: the check has failed by then.
            let (answered, used) = if late && who == "native in shadow" { (false, 0) } else { (answered, used) };
            let store = AnswerLost::new(late);
            let service = service(Arc::clone(&store));
            let answer = service.check(Request::new(request)).await;
            assert_eq!(answer.is_ok(), answered, "{who}, late {late}");
            store.late.iter().for_each(Notify::notify_one);
            service.tasks().close();
            service.tasks().wait().await;
            assert_eq!(store.used(), used, "{who}, late {late}");
            let charged = store.ledger.ledger().drain().first().map(|event| event.record.code);
            assert_eq!(charged, Some(Code::Admitted), "{who}, late {late}");
        }
    }
}

/// B1: Envoy's own filter checks a second time if the first answer was late, and may reach the same server. The void of the first
/// try, before or after the second one is answered, leaves the charge of the second: its payment is made.
#[tokio::test]
async fn b1_a_late_first_try_does_not_take_back_the_second() {
    for taken_back_before in [false, true] {
        let store = AnswerLost::new(true);
        let service = service(Arc::clone(&store));
        let take_back = async || {
            store.late.iter().for_each(Notify::notify_one);
            service.tasks().close();
            service.tasks().wait().await;
        };
        service.check(Request::new(from_native())).await.unwrap_err();
        if taken_back_before {
            take_back().await;
        }
        let second = service.check(Request::new(from_native())).await.unwrap().into_inner();
        assert_eq!(second.status.unwrap().code, 0, "taken back before: {taken_back_before}");
        take_back().await;
        assert_eq!(store.used(), 100, "taken back before: {taken_back_before}");
    }
}

/// A store that decides nothing until it is released.
#[derive(Debug)]
struct Held {
    ledger: MemoryStore,
    go: Notify,
}

impl Store for Held {
    fn timeout(&self) -> Duration {
        Duration::from_millis(10)
    }

    async fn apply(&self, command: &Command, audit: &AuditContext) -> Result<Reply, StoreError> {
        self.go.notified().await;
        self.ledger.apply(command, audit).await
    }

    async fn apply_each(&self, batch: &[Call]) -> Vec<Result<Reply, StoreError>> {
        self.go.notified().await;
        self.ledger.apply_each(batch).await
    }

    async fn apply_all(&self, batch: &[Call]) -> Result<Vec<Reply>, StoreError> {
        self.ledger.apply_all(batch).await
    }
}

/// A call is dropped when its stream is reset.
#[tokio::test]
async fn a_decision_under_way_survives_its_call() {
    for several in [false, true] {
        let store = Arc::new(Held { ledger: MemoryStore::new(1), go: Notify::new() });
        let service = service(Arc::clone(&store));
        let mut call = match several {
            false => service.check(Request::new(from_filter("consume", "enforce"))).map(drop).boxed(),
            true => check_batch(&service, vec![check(&[])]).map(drop).boxed(),
        };
        assert!(call.as_mut().now_or_never().is_none(), "several {several}: answered without the store");
        // The store has been called by then.
        tokio::task::yield_now().await;
        drop(call);
        store.go.notify_one();
        service.tasks().close();
        service.tasks().wait().await;
        let charged = store.ledger.ledger().drain().first().map(|event| event.record.code);
        assert_eq!(charged, Some(Code::Admitted), "several {several}");
    }
}

/// A check of the proxy filter with these extensions beside, or instead of, the usual ones.
fn check(extensions: &[(&str, &str)]) -> envoy::CheckRequest {
    let mut own = from_filter("consume", "enforce").attributes.unwrap().context_extensions;
    own.extend(extensions.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
    envoy::CheckRequest { attributes: Some(envoy::AttributeContext { context_extensions: own }) }
}

/// The code of a result, and the HTTP status of a refusal.
fn code_of(result: &BatchCheckResult) -> (String, Option<i32>) {
    assert_eq!(result.grpc_status, 0, "{result:?}");
    let response = result.response.as_ref().unwrap();
    let (headers, status) = match response.http_response.as_ref().unwrap() {
        envoy::check_response::HttpResponse::OkResponse(ok) => (&ok.headers, None),
        envoy::check_response::HttpResponse::DeniedResponse(denied) => {
            (&denied.headers, denied.status.map(|own| own.code))
        }
    };
    assert_eq!(response.status.as_ref().unwrap().code == 0, status.is_none(), "{result:?}");
    let code = headers.iter().filter_map(|option| option.header.as_ref()).find(|pair| pair.key == header::CODE);
    (code.unwrap().value.clone(), status)
}

async fn check_batch<S: Store>(service: &CheckService<S>, checks: Vec<envoy::CheckRequest>) -> Vec<BatchCheckResult> {
    let checks = checks.into_iter().map(Into::into).collect();
    service.batch_check(Request::new(BatchCheckRequest { checks })).await.unwrap().into_inner().results
}

/// One that breaks the contract costs the others of its call nothing; of a key that comes twice the last value counts.
#[tokio::test]
async fn a_check_that_is_no_text_is_refused_by_itself() {
    use proto::batched::{self, Extension};
    let usual = || batched::CheckRequest::from(check(&[(extension::ORDER_NO, "o-1")]));
    let with = |key: &'static [u8], value: &'static [u8]| {
        let mut check = usual();
        let extension = Extension { key: key.into(), value: value.into() };
        check.attributes.as_mut().unwrap().context_extensions.push(extension);
        check
    };
    let mut crowded = usual();
    let other = Extension { key: "sluice.other".into(), value: "x".into() };
    crowded.attributes.as_mut().unwrap().context_extensions.extend(std::iter::repeat_n(other, 32));
    let checks = vec![
        usual(),
        with(extension::REASON.as_bytes(), b"\xff"),
        with(b"\xff", b"text"),
        with(extension::MERCHANT.as_bytes(), b"not a merchant"),
        crowded,
        usual(),
    ];
    let service = service(Arc::new(MemoryStore::new(1)));
    let results = service.batch_check(Request::new(BatchCheckRequest { checks })).await.unwrap().into_inner().results;
    let codes: Vec<_> = results.iter().map(|result| code_of(result).0).collect();
    assert_eq!(codes, ["ADMITTED", "BAD_REQUEST", "BAD_REQUEST", "BAD_REQUEST", "BAD_REQUEST", "ADMITTED"]);
}

#[tokio::test]
async fn each_check_of_a_call_is_answered_by_itself_and_in_its_place() {
    let table: &[(&[(&str, &str)], &str, Option<i32>)] = &[
        (&[(extension::ORDER_NO, "o-1"), (extension::AMOUNT_MINOR, "3000")], "ADMITTED", None),
        (&[(extension::MERCHANT, "not a merchant")], "BAD_REQUEST", Some(400)),
        // The same order with another amount, in the same call.
        (&[(extension::ORDER_NO, "o-1"), (extension::AMOUNT_MINOR, "1")], "IDEMPOTENCY_CONFLICT", Some(409)),
        (&[(extension::ORDER_NO, "o-2"), (extension::AMOUNT_MINOR, "2001")], "DAILY_AMOUNT", Some(429)),
        (
            &[(extension::ORDER_NO, "o-2"), (extension::AMOUNT_MINOR, "2001"), (extension::MODE, "shadow")],
            "DAILY_AMOUNT",
            None,
        ),
        (&[(extension::ACTION, "void"), (extension::ORDER_NO, "o-1")], "VOIDED", None),
        (&[(extension::ORDER_NO, "o-3"), (extension::AMOUNT_MINOR, "5000")], "ADMITTED", None),
        (&[(extension::MODE, "sideways")], "BAD_REQUEST", Some(400)),
    ];
    let checks = || table.iter().map(|(extensions, ..)| check(extensions)).collect::<Vec<_>>();
    let results = check_batch(&service(Arc::new(MemoryStore::new(1))), checks()).await;
    let results: Vec<_> = results.iter().map(code_of).collect();
    let expected: Vec<_> = table.iter().map(|(_, code, status)| ((*code).to_owned(), *status)).collect();
    assert_eq!(results, expected);

    // One by one they get the same answers, byte for byte.
    let alone = service(Arc::new(MemoryStore::new(1)));
    for (extensions, code, status) in table {
        let context_extensions = check(extensions).attributes.unwrap().context_extensions;
        let attributes = Some(AttributeContext { context_extensions, ..AttributeContext::default() });
        let response = alone.check(Request::new(CheckRequest { attributes })).await.unwrap().into_inner();
        let response = envoy::CheckResponse::decode(response.encode_to_vec().as_slice()).unwrap();
        assert_eq!(
            code_of(&BatchCheckResult { grpc_status: 0, response: Some(response) }),
            ((*code).to_owned(), *status)
        );
    }
    // An empty request is refused, not passed.
    let nothing = check_batch(&alone, vec![envoy::CheckRequest { attributes: None }]).await;
    assert_eq!(code_of(&nothing[0]), ("BAD_REQUEST".to_owned(), Some(400)));
    assert!(check_batch(&alone, Vec::new()).await.is_empty());
    let many = BatchCheckRequest { checks: vec![check(&[]).into(); ENTRIES_MAX + 1] };
    assert_eq!(alone.batch_check(Request::new(many)).await.unwrap_err().code(), tonic::Code::InvalidArgument);
}

const TRUST: &str = ", single_max: 400, trust: {above_percent: 20, share_percent: 10, ttl_ms: 2000}";
const RIGHT_ID: &str = "000000000000000000000000000000aa";

/// What an answer says about the right that was asked for.
fn right_of(result: &BatchCheckResult) -> Option<proto::right::Answer> {
    use envoy::check_response::HttpResponse;
    let headers = match result.response.as_ref()?.http_response.as_ref()? {
        HttpResponse::OkResponse(ok) => &ok.headers,
        HttpResponse::DeniedResponse(denied) => &denied.headers,
    };
    let mut headers = headers.iter().filter_map(|option| option.header.as_ref());
    headers.find(|own| own.key == header::RIGHT).map(|own| proto::right::Answer::parse(&own.value).unwrap())
}

/// A right is asked for with a check, used up by reports and ended; what it has left counts as used meanwhile.
#[tokio::test]
async fn a_right_is_granted_reported_and_ended() {
    let asks = [(extension::ATTEMPT, RIGHT_ID), (extension::RIGHT_WANTED, "3 450"), (extension::AMOUNT_MINOR, "100")];
    let used = |store: &MemoryStore| {
        let (merchant, currency) = (MerchantId::parse("m").unwrap(), Currency::parse("USD").unwrap());
        let day = store.ledger().account(&merchant, currency).unwrap().windows.day;
        (day.amount, day.count)
    };
    let store = Arc::new(MemoryStore::new(1));
    let service = service_with(Arc::clone(&store), TRUST);
    let report = |order: &'static str, amount: &'static str, attempt: &'static str| {
        let action = (extension::ACTION, extension::ACTION_REPORT);
        let order = [(extension::ORDER_NO, order), (extension::AMOUNT_MINOR, amount), (extension::ATTEMPT, attempt)];
        check(&[&[action, (extension::RIGHT, RIGHT_ID)], &order[..]].concat())
    };
    let results = check_batch(&service, vec![check(&asks), check(&[(extension::ORDER_NO, "o-2")])]).await;
    let Some(proto::right::Answer::Granted(grant)) = right_of(&results[0]) else { panic!("{results:?}") };
    assert_eq!((grant.granted, grant.single_max.get()), (quota::Share { amount: 450, count: 3 }, 400));
    assert!((1..=2_000).contains(&grant.ttl_ms), "{grant:?}");
    assert_eq!(right_of(&results[1]), None);
    assert_eq!(used(&store), (100 + 100 + 450, 1 + 1 + 3));
    let reports = vec![
        report("o-3", "300", "03"),
        report("o-3", "300", "03"),
        // Another request for the same order, and one with another amount.
        report("o-3", "300", "04"),
        report("o-3", "301", "05"),
        report("o-4", "100", "06"),
    ];
    let codes: Vec<_> = check_batch(&service, reports).await.iter().map(code_of).map(|(code, _)| code).collect();
    assert_eq!(codes, ["ADMITTED", "ADMITTED", "ADMITTED", "IDEMPOTENCY_CONFLICT", "ADMITTED"]);
    assert_eq!(used(&store), (650, 5), "no counter moves");
    let ends = [(extension::ACTION, extension::ACTION_RELEASE_RIGHT), (extension::RIGHT, RIGHT_ID)];
    for _ in 0..2 {
        assert_eq!(code_of(&check_batch(&service, vec![check(&ends)]).await[0]).0, "APPLIED");
        assert_eq!(used(&store), (600, 4), "what was admitted");
    }
    // Its payments went on: a report is charged after the end too.
    check_batch(&service, vec![report("o-5", "50", "07")]).await;
    assert_eq!(used(&store), (650, 5));
}

#[tokio::test]
async fn a_right_is_refused_where_the_policy_or_the_account_has_none() {
    let asks = [(extension::ATTEMPT, RIGHT_ID), (extension::RIGHT_WANTED, "3 450")];
    let used_up = ", daily_count: 1, trust: {above_percent: 0, share_percent: 10, ttl_ms: 2000}";
    for policy in ["", used_up] {
        let service = service_with(Arc::new(MemoryStore::new(1)), policy);
        let result = check_batch(&service, vec![check(&asks)]).await;
        assert_eq!(right_of(&result[0]), Some(proto::right::Answer::Refused), "{policy}");
    }
}

#[tokio::test]
async fn a_call_whose_store_is_away_answers_every_check() {
    for store in [Away::Refuses, Away::Hangs] {
        let what = format!("{store:?}");
        let mut checks = vec![check(&[]); 3];
        checks.push(check(&[(extension::MODE, "shadow")]));
        let results = check_batch(&service(Arc::new(store)), checks).await;
        let results: Vec<_> = results.iter().map(code_of).collect();
        assert_eq!(results, vec![("STORE_UNAVAILABLE".to_owned(), Some(503)); 4], "{what}");
    }
}

/// A store that would have to read every order's history.
#[derive(Debug)]
struct Forgetful(MemoryStore);

impl Store for Forgetful {
    fn timeout(&self) -> Duration {
        self.0.timeout()
    }

    async fn apply(&self, command: &Command, audit: &AuditContext) -> Result<Reply, StoreError> {
        self.0.apply(command, audit).await
    }

    async fn apply_each(&self, batch: &[Call]) -> Vec<Result<Reply, StoreError>> {
        self.0.apply_each(batch).await
    }

    async fn apply_known(&self, batch: &[Call]) -> Vec<Result<Reply, StoreError>> {
        let results = self.apply_each(batch).await.into_iter().zip(batch);
        let known = |(result, call): (_, &Call)| match call.0.action {
            quota::Action::Void => Err(StoreError::NeedsHistory),
            _ => result,
        };
        results.map(known).collect()
    }

    async fn apply_all(&self, batch: &[Call]) -> Result<Vec<Reply>, StoreError> {
        self.0.apply_all(batch).await
    }
}

#[tokio::test]
async fn a_check_that_would_hold_up_the_others_is_to_be_asked_alone() {
    let service = service(Arc::new(Forgetful(MemoryStore::new(1))));
    let checks = vec![
        check(&[(extension::ORDER_NO, "o-1")]),
        check(&[(extension::ORDER_NO, "o-2"), (extension::ACTION, "void_order")]),
        check(&[(extension::ORDER_NO, "o-3")]),
    ];
    let results = check_batch(&service, checks).await;
    assert_eq!(code_of(&results[0]).0, "ADMITTED");
    assert_eq!(results[1], BatchCheckResult { grpc_status: ALONE, response: None });
    assert_eq!(code_of(&results[2]).0, "ADMITTED");
}
