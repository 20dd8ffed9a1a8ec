//! The load rig: the same payments through Envoy alone, through a filter that only parses, through Envoy's own ext_authz
//! with a server that always allows, and through the whole of Sluice, with and without rights, in turn within one run; how cost
//! grows along several axes; and the same for other limiters. After every run answers, limits, counters and journal are compared.

mod allow;
mod answer;
mod books;
mod client;
mod comparison;
mod counts;
mod figures;
mod gateway;
mod journal;
mod lines;
mod machine;
mod merchants;
mod peers;
mod plan;
mod poll;
mod race;
mod report;
mod rig;
mod slices;
mod stored;
mod studies;
mod targets;
mod template;
mod variant;

use std::path::PathBuf;
use std::time::Duration;

pub use allow::serve_always_allow;
pub use books::Verdict;
pub use comparison::{CloserLook, Comparison};
pub use counts::Counts;
pub use figures::{Figures, Sample, Spread};
pub use gateway::serve_gateway;
pub use journal::{Drained, JournalCpu, JournalOptions, JournalReport, Steady, measure_journal};
pub use machine::Machine;
pub use peers::{Counting, Kind, Peer, PeerFigures, serve_ext_authz, serve_rls};
pub use race::Race;
pub use report::Report;
pub use slices::Slices;
pub use stored::Memory;
pub use studies::{Axis, Point, Study};
pub use targets::Target;
pub use variant::Variant;

use rig::Rig;
use testkit::Result;

/// What to run and for how long.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// The comparison that the targets are judged by.
    pub targets: bool,
    /// A closer look at some variants only.
    pub closer: Option<Closer>,
    /// How cost grows along these axes.
    pub studies: Vec<Axis>,
    /// Other limiters beside Sluice.
    pub peers: Vec<Peer>,
    /// What the journal costs apart from payments.
    pub journal: Option<JournalOptions>,
    /// Exact counts of a payment, where valgrind is there.
    pub counts: bool,
    /// Rounds of each measurement. A round measures every variant once.
    pub rounds: usize,
    /// Length of one measurement.
    pub duration: Duration,
    /// Connections, each with one request at a time.
    pub connections: usize,
    /// Merchants that payments are spread over where a study says nothing else.
    pub merchants: u32,
    /// The most merchants of the study of growth.
    pub merchants_max: u32,
    /// The most connections of their study.
    pub connections_max: u16,
    /// The optimised server, as in every figure worth reading.
    pub release: bool,
    /// This program: it is started again as the rig's own servers.
    pub program: PathBuf,
}

/// Some variants under one load, round by round: for a profiler, or to compare two builds.
#[derive(Clone, Debug, Default)]
pub struct Closer {
    pub variants: Vec<Variant>,
    /// Payments that begin each second; at full load without it.
    pub per_second: Option<f64>,
}

/// Runs everything and reports what it measured; progress goes to standard error.
///
/// # Errors
/// When a part does not start or an answer does not come. Wrong answers are no error here: see [`Report::is_clean`].
pub fn run(options: &LoadOptions) -> Result<Report> {
    let mut report = Report::begin(options)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // First what can fail for want of a program: the rest takes a long time.
    if options.counts {
        report.counts = runtime.block_on(counts::count(options))?;
    }
    if options.targets || options.closer.is_some() || !options.studies.is_empty() || !options.peers.is_empty() {
        runtime.block_on(payments(options, &mut report))?;
    }
    report.journal = options.journal.as_ref().map(measure_journal).transpose()?;
    Ok(report)
}

async fn payments(options: &LoadOptions, report: &mut Report) -> Result<()> {
    let mut rig = Rig::start(options).await?;
    peers::try_start(&rig, &options.peers)?;
    if options.targets {
        report.comparison = Some(comparison::run(&mut rig).await?);
    }
    if let Some(closer) = &options.closer {
        report.closer_look = Some(comparison::look_closer(&mut rig, closer).await?);
    }
    for axis in report::studies_of(options) {
        report.studies.push(studies::run(&mut rig, axis).await?);
    }
    if !options.peers.is_empty() {
        report.peers = peers::run(&mut rig, &options.peers).await?;
    }
    report.races = race::run_all(&mut rig).await?;
    report.memory = stored::memory(&mut rig).await?;
    report.verdict = Some(books::compare(&rig).await?);
    Ok(())
}
