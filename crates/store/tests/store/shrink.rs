//! Makes a failing sequence as short as it still fails (delta debugging, Zeller and Hildebrandt 2002).

use crate::sequence::{Sequence, Step};

/// A database that no running sequence uses.
const DATABASE: usize = 15;

/// Steps that fail, and how.
type Failing = (Vec<Step>, String);

/// Plays steps from the start on an empty store.
pub(crate) struct Shrinker {
    url: String,
    script: String,
}

impl Shrinker {
    pub(crate) fn new(url: String, script: &str) -> Self {
        Self { url, script: script.to_owned() }
    }

    /// Leaves away what the failure does not need, first whole calls, then commands of calls; `None` where nothing fails.
    pub(crate) async fn shrink(&self, steps: Vec<Step>) -> Option<Failing> {
        let failing = self.fails(steps).await?;
        let (steps, wrong) = self.fewer_calls(failing).await;
        let mut failing = (steps, wrong);
        for place in 0..failing.0.len() {
            while let Some(shorter) = self.without_one_command(&failing.0, place).await {
                failing = shorter;
            }
        }
        Some(failing)
    }

    async fn fails(&self, steps: Vec<Step>) -> Option<Failing> {
        let mut sequence = Sequence::begin(&self.url, DATABASE, &self.script).await;
        for step in &steps {
            if let Err(wrong) = sequence.repeat(step).await {
                return Some((steps, wrong));
            }
        }
        let wrong = sequence.end().await.err()?;
        Some((steps, wrong))
    }

    /// Steps of which none can be left away any more: halves first, then ever smaller parts.
    async fn fewer_calls(&self, mut failing: Failing) -> Failing {
        let mut part = failing.0.len().div_ceil(2);
        loop {
            let (mut at, mut shortened) = (0, false);
            while at < failing.0.len() {
                let mut shorter = failing.0.clone();
                shorter.drain(at..(at + part).min(failing.0.len()));
                match self.fails(shorter).await {
                    Some(still) => (failing, shortened) = (still, true),
                    None => at += part,
                }
            }
            if part <= 1 && !shortened {
                return failing;
            }
            part = part.div_ceil(2);
        }
    }

    /// The steps with one command less in the call at `place`.
    async fn without_one_command(&self, steps: &[Step], place: usize) -> Option<Failing> {
        let commands = steps[place].commands.len();
        for left_away in (0..commands).filter(|_| commands > 1) {
            let mut shorter = steps.to_vec();
            shorter[place].commands.remove(left_away);
            if let Some(failing) = self.fails(shorter).await {
                return Some(failing);
            }
        }
        None
    }
}
