//! The end of a run: what the clients, the decision server, the gateway and the proxy's access log say of each order is
//! compared.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::time::Duration;
use testkit::{ensure, ensure_eq};

use serde::Deserialize;
use sluice_rules::VoidOn;

use super::ledger::{Ended, Given, Ledger, Page, Tally};
use super::order::{AtGateway, Decision, Order, Route};
use super::orders::Orders;
use testkit::dirs::RunDir;
use testkit::envoy::Envoy;
use testkit::process::Service;
use testkit::wait;
use testkit::{Context, Failure, Result};

/// Voids are tried again with growing pauses.
const SETTLED_WITHIN: Duration = Duration::from_secs(90);

/// Envoy writes its log out every 20 ms in tests.
const WRITTEN_WITHIN: Duration = Duration::from_secs(10);
/// What Envoy logs of a VM that has trapped, and of itself.
const TRAPPED: [&str; 3] = ["Function: proxy_on", "Proxy-Wasm plugin in-VM backtrace", "[critical]"];

/// Whether a void or a capture of an attempt was to be sent to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    Must,
    /// And once: nothing on the way could have failed.
    Once,
    MustNot,
    /// It is sound either way: the order of events decides, and no part of the run sees it.
    May,
}

/// How strictly a run is judged.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rigour {
    /// No question may have gone without its answer for want of time.
    pub patient: bool,
    /// What was to be sent was sent once.
    pub once: bool,
}

impl Due {
    const fn sharpened(self, once: bool) -> Self {
        match self {
            Self::Must if once => Self::Once,
            Self::Must | Self::Once | Self::MustNot | Self::May => self,
        }
    }

    const fn is_met(self, count: u32) -> bool {
        match self {
            Self::Must => count > 0,
            Self::Once => count == 1,
            Self::MustNot => count == 0,
            Self::May => true,
        }
    }
}

/// Waits until the server has received all that it must receive, and compares.
pub(super) async fn judge(orders: Orders, ledger: &Ledger, log: &Path, rigour: Rigour) -> Result<Tally> {
    // A run with oddities has failed, and may wait in vain. What is still open after the waiting is named below.
    if ledger.all_strange().is_empty() {
        let waited = wait::until_async("every void and capture at the server", SETTLED_WITHIN, || async {
            Ok((!is_open(orders, ledger, log)?).then_some(()))
        });
        drop(waited.await);
    }
    let log = written(log, orders, ledger).await?;
    let mut strange = ledger.all_strange();
    let mut tally = Tally { batches: ledger.batches(), ..Tally::default() };
    for (number, page) in (0..).zip(ledger.pages()) {
        let order = orders.order(number);
        let lines = log.get(&number).cloned().unwrap_or_default();
        if let Err(failure) = page_is_sound(&order, &page, &lines, rigour) {
            strange.push(format!("{order}: {failure}: {page:?} {lines:?}"));
        }
        count(&mut tally, &page);
    }
    ensure!(strange.is_empty(), "{} oddities, the first:\n{}", strange.len(), first(&strange));
    Ok(tally)
}

/// Whether something must still come to the server.
fn is_open(orders: Orders, ledger: &Ledger, log: &Path) -> Result<bool> {
    let is_due = |due: Due, count: u32| due == Due::Must && count == 0;
    let mut open: Vec<(u64, Page)> = (0..).zip(ledger.pages()).collect();
    open.retain(|(number, page)| {
        let order = orders.order(*number);
        is_due(void_due(&order, page, false), page.voids) || is_due(settle_due(&order, page), page.settles)
    });
    if open.is_empty() {
        return Ok(false);
    }
    // The log is large, and says of a few that nothing is to be expected.
    let log = outcomes(log, &orders)?;
    Ok(open.iter().any(|(number, page)| {
        let unknown = log.get(number).is_some_and(Lines::is_unknown);
        let order = orders.order(*number);
        is_due(void_due(&order, page, unknown), page.voids) || is_due(settle_due(&order, page), page.settles)
    }))
}

/// The access log, once it has a line of every order whose client stayed, or long after.
async fn written(log: &Path, orders: Orders, ledger: &Ledger) -> Result<HashMap<u64, Lines>> {
    let whole = wait::until_async("a line for every order", WRITTEN_WITHIN, || async {
        let lines = outcomes(log, &orders)?;
        let missing = (0..).zip(ledger.pages()).any(|(number, page)| {
            let stayed = page.ended.is_some_and(|ended| ended != Ended::Left);
            stayed && !lines.contains_key(&number)
        });
        Ok((!missing).then_some(lines))
    });
    // What is missing then is named by its order.
    whole.await.or_else(|_| outcomes(log, &orders))
}

fn first(strange: &[String]) -> String {
    strange.get(..strange.len().min(8)).unwrap_or_default().join("\n")
}

fn count(tally: &mut Tally, page: &Page) {
    tally.requests += 1;
    tally.voided += u64::from(page.voids > 0);
    tally.unasked += u64::from(page.given == Given::Unasked);
    tally.voided_unasked += u64::from(page.given == Given::Unasked && page.voids > 0);
    // Envoy closes a connection whose answer broke off only after a second (`delayed_close_timeout`).
    if !matches!(page.ended, Some(Ended::Left | Ended::BrokeOff)) {
        tally.longest = tally.longest.max(page.took);
    }
    match &page.ended {
        Some(Ended::Passed { .. } | Ended::BrokeOff) => tally.passed += 1,
        Some(Ended::Refused) => tally.refused += 1,
        Some(Ended::Unanswered(_)) => {
            tally.unanswered += 1;
            tally.longest_unanswered = tally.longest_unanswered.max(page.took);
        }
        Some(Ended::Left) => tally.left += 1,
        None => {}
    }
}

fn page_is_sound(order: &Order, page: &Page, lines: &Lines, rigour: Rigour) -> Result<()> {
    let Some(ended) = &page.ended else {
        return Err(Failure::new("it was lost"));
    };
    let expected_at_gateway: &[u32] = match ended {
        Ended::Passed { .. } | Ended::BrokeOff => &[1],
        Ended::Refused | Ended::Unanswered(_) => &[0],
        Ended::Left => &[0, 1],
    };
    ensure!(expected_at_gateway.contains(&page.at_gateway), "the gateway has it {} times", page.at_gateway);
    // Nothing goes on that was not decided, but where the rule or the route says so.
    let may_go_on = page.given == Given::Admission || order.route.goes_on();
    ensure!(may_go_on || page.at_gateway == 0, "it reached the gateway without being admitted");
    ensure!(page.given == Given::Refusal || *ended != Ended::Refused, "the server did not refuse it");
    let meant = matches!(order.decision, Decision::Unusable(_));
    let for_want_of_time = matches!(ended, Ended::Unanswered(_)) && !meant;
    ensure!(!rigour.patient || !for_want_of_time, "it was given no answer");
    // A client that leaves early may leave no line at all.
    let expected = if *ended == Ended::Left { 0..=1 } else { 1..=1 };
    ensure!(expected.contains(&lines.outcomes.len()), "the access log has it {} times", lines.outcomes.len());
    let voids = void_due(order, page, lines.is_unknown()).sharpened(rigour.once);
    let settles = settle_due(order, page).sharpened(rigour.once);
    ensure!(voids.is_met(page.voids), "voids: {voids:?}");
    ensure!(settles.is_met(page.settles), "captures: {settles:?}");
    Ok(())
}

/// Whether a charge may stand at the server, as far as the filter knows.
fn is_charged(page: &Page) -> bool {
    match (&page.ended, page.given) {
        (_, Given::Unasked) => false,
        // The answer was not received.
        (Some(Ended::Passed { decided: false, .. }), _) => true,
        (_, Given::Admission | Given::Nothing) => true,
        (_, Given::Refusal) => false,
    }
}

fn void_due(order: &Order, page: &Page, unknown: bool) -> Due {
    let Some(ended) = &page.ended else { return Due::May };
    match ended {
        // The filter may have asked without the question arriving.
        _ if page.given == Given::Unasked => Due::May,
        Ended::Unanswered(_) => Due::Must,
        Ended::Refused | Ended::BrokeOff => Due::MustNot,
        Ended::Passed { .. } if !is_charged(page) => Due::MustNot,
        // Broken off by the gateway: whether it was made is unknown.
        Ended::Passed { .. } if order.at_gateway.status().is_none() => Due::MustNot,
        Ended::Passed { status, .. } if VoidOn::REFUSALS.contains(status) => Due::Must,
        Ended::Passed { .. } => Due::MustNot,
        Ended::Left if page.made => Due::MustNot,
        Ended::Left if page.at_gateway > 0 || unknown || !is_charged(page) => Due::May,
        Ended::Left => Due::Must,
    }
}

fn settle_due(order: &Order, page: &Page) -> Due {
    let sold = order.route == Route::Sale && is_charged(page);
    // Its answer begins like that of a payment that was made; where the client leaves first, no one sees it break off.
    let began_well = page.made || (page.at_gateway > 0 && order.at_gateway == AtGateway::ResetsAfterHead);
    match page.ended {
        Some(Ended::Passed { status: 200..=299, .. }) if sold => Due::Must,
        Some(Ended::Left) if sold && began_well => Due::May,
        _ => Due::MustNot,
    }
}

/// Looks after the proxy of a run.
#[derive(Debug)]
pub(super) struct Watch {
    pid: u32,
    log: PathBuf,
}

impl Watch {
    pub(super) fn begin(envoy: &mut Envoy, dir: &RunDir) -> Self {
        Self { pid: envoy.pid(), log: dir.join("envoy.log") }
    }

    /// It is the process that was started, none of its VMs has trapped, and nothing in it was lost.
    pub(super) fn is_well(&mut self, envoy: &mut Envoy) -> Result<()> {
        envoy.process().check_running()?;
        ensure_eq!(envoy.pid(), self.pid, "Envoy's process");
        for name in ["sluice_host_failed", "sluice_void_lost", "sluice_confirm_lost"] {
            let is = envoy.metric(name)?;
            ensure!(is.abs() < 0.5, "{name} is {is}");
        }
        let log = std::fs::read_to_string(&self.log).context("envoy.log")?;
        let crash = log.lines().find(|line| TRAPPED.iter().any(|word| line.contains(word)));
        ensure!(crash.is_none(), "Envoy's log: {crash:?}");
        Ok(())
    }
}

/// An order's lines in the access log, each as its outcome.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Lines {
    outcomes: Vec<String>,
}

impl Lines {
    fn is_unknown(&self) -> bool {
        self.outcomes.iter().any(|outcome| outcome == "unknown")
    }
}

#[derive(Deserialize)]
struct Line {
    sluice: Option<Shown>,
}

#[derive(Deserialize)]
struct Shown {
    order: Option<String>,
    #[serde(default)]
    outcome: String,
}

/// The access log by order; what was never decided has no order in it.
fn outcomes(log: &Path, orders: &Orders) -> Result<HashMap<u64, Lines>> {
    let mut found: HashMap<u64, Lines> = HashMap::new();
    for line in BufReader::new(File::open(log)?).lines() {
        // The last line may be half written.
        let Ok(Line { sluice: Some(shown) }) = serde_json::from_str(&line?) else { continue };
        if let Some(number) = shown.order.and_then(|name| orders.number_of(&name)) {
            found.entry(number).or_default().outcomes.push(shown.outcome);
        }
    }
    Ok(found)
}
