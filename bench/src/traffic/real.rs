//! The same orders decided by the real server with Redis and Postgres: what the clients saw, what the gateway saw, the
//! counters and the journal are one.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use testkit::{ensure, ensure_eq};

use super::client::Clients;
use super::gateway::EchoGateway;
use super::judge::{self, Rigour, Watch};
use super::ledger::{Given, Ledger, Tally};
use super::order::merchant;
use super::orders::{CONTESTED, MERCHANTS, Mix, Orders, contested_max};
use super::rig::{PATIENCE_MS, RigOptions, plugin};
use super::scenarios::{LANES, Scale};
use testkit::books::{Entry, books_agree, journal_is_whole, voids_done};
use testkit::build;
use testkit::dirs::RunDir;
use testkit::envoy::{Envoy, EnvoyConfig};
use testkit::stack::{Stack, StackOptions};
use testkit::wait;
use testkit::{Context, Failure, Result};

/// The server's own deadlines, below the filter's.
const SERVER_ENV: [(&str, u32); 2] =
    [("SLUICE_REDIS_TIMEOUT_MS", PATIENCE_MS / 4), ("SLUICE_CHECK_TIMEOUT_MS", PATIENCE_MS / 2)];

/// Envoy merges its histograms every few seconds.
const SHOWN_WITHIN: Duration = Duration::from_secs(15);

pub(super) async fn run(scale: Scale) -> Result<Tally> {
    let orders = Orders { seed: scale.seed, mix: Mix::REAL, real: true };
    let plugin = plugin(&RigOptions::patient(scale.seed, Mix::REAL, scale.orders), None)?;
    let env = SERVER_ENV.map(|(name, millis)| (name.to_owned(), millis.to_string()));
    let mut stack = Stack::start(&StackOptions {
        release: scale.release,
        policies: Some(Orders::policy_document(scale.orders)),
        plugin: Some(plugin.clone()),
        server_env: env.into(),
        ..StackOptions::default()
    })?;
    let ledger = Arc::new(Ledger::new(scale.orders));
    let gateway = EchoGateway::start(orders, Arc::clone(&ledger))?;
    // In the place of the stack's own: its gateway answers by the order's number.
    let dir = RunDir::new("traffic")?;
    let mut config = EnvoyConfig::shipped(&build::filter_wasm()?)?.with_workers(2);
    config.set_cluster("gateway", gateway.address)?;
    config.set_cluster("sluice_authz", stack.server.grpc_address())?;
    config.set_plugin(&plugin)?;
    stack.envoy = Envoy::start_in(Arc::clone(&dir), config)?;
    let run = async {
        let mut watch = Watch::begin(&mut stack.envoy, &dir);
        let clients = Clients::new(stack.envoy.address(), orders, Arc::clone(&ledger));
        clients.send(LANES, scale.orders, async { Ok(()) }).await?;
        fill(&stack, orders, &ledger, scale.orders).await?;
        questions_went_together(&stack.envoy, scale.orders)?;
        let rigour = Rigour { patient: true, once: true };
        let tally = judge::judge(orders, &ledger, &dir.join("access.log"), rigour).await?;
        watch.is_well(&mut stack.envoy)?;
        Ok(tally)
    };
    run.await.inspect_err(|_| {
        dir.keep();
        stack.dir().keep();
    })
}

/// Fewer calls than questions: what is tried here are batches.
fn questions_went_together(envoy: &Envoy, orders: u64) -> Result<()> {
    wait::until("the figures of batches", SHOWN_WITHIN, || {
        let (questions, calls) = (envoy.metric("sluice_batch_checks_sum")?, envoy.metric("sluice_batch_checks_count")?);
        Ok((calls > 0.5 && questions >= orders as f64 / 2.0 && questions > 1.5 * calls).then_some(()))
    })
}

/// Enters what the journal has of each order, after comparing it with the counters.
async fn fill(stack: &Stack, orders: Orders, ledger: &Ledger, count: u64) -> Result<()> {
    voids_done(stack).await?;
    let mut consumed: HashMap<u64, i128> = HashMap::new();
    for number in 0..MERCHANTS {
        let merchant = merchant(number);
        for entry in books_agree(stack, &merchant).await.context(&merchant)? {
            let number = orders.number_of(&entry.order_no);
            let number = number.ok_or_else(|| Failure::new(format!("no client ordered {entry:?}")))?;
            let entered = ledger.with(number, |page| enter(page, &entry)).unwrap_or(Ok(()));
            entered.context(orders.order(number))?;
            *consumed.entry(number).or_default() += entry.day_change().1;
            let over = number % MERCHANTS == CONTESTED && entry.day_count_after() > contested_max(count);
            ensure!(!over, "above the limit: {entry:?}");
        }
    }
    for (number, page) in (0..).zip(ledger.pages()) {
        let expected = i128::from(page.given == Given::Admission && page.voids == 0);
        let is = consumed.get(&number).copied().unwrap_or_default();
        ensure_eq!(is, expected, "payments counted of {}: {page:?}", orders.order(number));
    }
    journal_is_whole(stack).await
}

fn enter(page: &mut super::ledger::Page, entry: &Entry) -> Result<()> {
    match entry.action.as_str() {
        "consume" | "hold" => {
            ensure!(page.given == Given::Unasked, "decided twice: {entry:?}");
            page.given = if entry.code == "ADMITTED" { Given::Admission } else { Given::Refusal };
            let sent = page.decision_id.as_ref();
            ensure!(sent.is_none_or(|id| *id == entry.event_id), "MISDELIVERED: sent {sent:?}, decided {entry:?}");
        }
        "void" => page.voids += 1,
        "settle" => page.settles += 1,
        "unknown" => ensure!(page.given == Given::Admission, "nothing was charged: {entry:?}"),
        _ => return Err(Failure::new(format!("no client asked for {entry:?}"))),
    }
    Ok(())
}
