//! Performs a step's effects, and reports failures to the stream.

use std::collections::VecDeque;

use super::{Action, Effect, Event, NotSentReason, Stream};

/// The proxy did not perform an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failed;

/// Passes one event to a stream and performs all effects. Terminates, since the last reaction to a failure is
/// [`Effect::Reset`], whose own failure changes nothing.
pub fn drive<'a>(
    stream: &mut Stream,
    event: Event<'a>,
    perform: &mut dyn FnMut(Effect<'a>) -> Result<(), Failed>,
) -> Action {
    let first = stream.step(event);
    let mut action = first.action;
    let mut effects = VecDeque::from(first.effects);
    while let Some(effect) = effects.pop_front() {
        let failure = on_failure(&effect);
        let (Err(Failed), Some(event)) = (perform(effect), failure) else {
            continue;
        };
        let step = stream.step(event);
        action = step.action;
        // The other planned effects are dropped, but counts and follow-ups stay.
        effects.retain(|effect| matches!(effect, Effect::FollowUp(_) | Effect::Count(_) | Effect::ObserveCheck(_)));
        for effect in step.effects.into_iter().rev() {
            effects.push_front(effect);
        }
    }
    action
}

fn on_failure<'a>(effect: &Effect<'a>) -> Option<Event<'a>> {
    match effect {
        Effect::Check { .. } => Some(Event::NotSent(NotSentReason::AtOnce)),
        Effect::Delay { .. } => Some(Event::NotDelayed),
        Effect::StripHeader(_) | Effect::Resume | Effect::Respond { .. } => Some(Event::HostFailed),
        Effect::StripTrailer(_) => Some(Event::TrailersFailed),
        Effect::SetHeader { .. }
        | Effect::Reset
        | Effect::FollowUp(_)
        | Effect::Show(_)
        | Effect::Count(_)
        | Effect::ObserveCheck(_)
        | Effect::Warn(_)
        | Effect::WarnMode => None,
    }
}
