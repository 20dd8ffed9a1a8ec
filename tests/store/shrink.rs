//! Makes a failing sequence as short as it still fails (delta debugging, Zeller and Hildebrandt 2002).

use crate::sequence::{Sequence, Step};

/// A database that no running sequence uses.
const DATABASE: usize = 15;

/// The first mistake of a sequence that is played from the start on an empty store.
async fn failure(url: &str, script: &str, steps: &[Step]) -> Option<String> {
    let mut sequence = Sequence::begin(url, DATABASE, script).await;
    for step in steps {
        if let Err(wrong) = sequence.repeat(step).await {
            return Some(wrong);
        }
    }
    sequence.end().await.err()
}

/// Leaves away what the failure does not need: first whole calls, then commands of calls. Gives what is left and its failure.
pub(crate) async fn shrink(url: &str, script: &str, steps: Vec<Step>) -> Option<(Vec<Step>, String)> {
    let wrong = failure(url, script, &steps).await?;
    let fails = async |steps: &[Step]| failure(url, script, steps).await;
    let (steps, wrong) = reduced(steps, wrong, &fails).await;
    // Each command a part of its own: in one call with its neighbours only where that is needed.
    let whole = steps.len();
    let (mut steps, mut wrong) = (steps, wrong);
    for place in (0..whole).rev() {
        let mut commands = steps[place].commands.clone();
        while let Some(shorter) = without_one(&commands, &steps, place, &fails).await {
            commands = shorter.0;
            steps[place].commands.clone_from(&commands);
            wrong = shorter.1;
        }
    }
    Some((steps, wrong))
}

/// The commands of a step without one that the failure does not need.
async fn without_one(
    commands: &[quota::Command],
    steps: &[Step],
    place: usize,
    fails: &impl AsyncFn(&[Step]) -> Option<String>,
) -> Option<(Vec<quota::Command>, String)> {
    if commands.len() < 2 {
        return None;
    }
    for left_away in 0..commands.len() {
        let mut shorter = commands.to_vec();
        shorter.remove(left_away);
        let mut steps = steps.to_vec();
        steps[place].commands.clone_from(&shorter);
        if let Some(wrong) = fails(&steps).await {
            return Some((shorter, wrong));
        }
    }
    None
}

/// Steps of which none can be left away any more.
async fn reduced(
    mut steps: Vec<Step>,
    mut wrong: String,
    fails: &impl AsyncFn(&[Step]) -> Option<String>,
) -> (Vec<Step>, String) {
    let mut part = steps.len().div_ceil(2);
    loop {
        let mut at = 0;
        let mut shortened = false;
        while at < steps.len() {
            let mut shorter = steps.clone();
            shorter.drain(at..(at + part).min(steps.len()));
            match fails(&shorter).await {
                Some(still) => (steps, wrong, shortened) = (shorter, still, true),
                None => at += part,
            }
        }
        if part == 1 && !shortened {
            return (steps, wrong);
        }
        part = if part == 1 { 1 } else { part.div_ceil(2) };
    }
}
