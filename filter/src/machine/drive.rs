//! Performs a step's effects, and reports failures to the stream.

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
    let mut effects = first.effects.into_iter();
    while let Some(effect) = effects.next() {
        let failure = on_failure(&effect);
        if perform(effect).is_ok() {
            continue;
        }
        let Some(event) = failure.map(Failure::event) else {
            continue;
        };
        let step = stream.step(event);
        action = step.action;
        // The other planned effects are dropped, but counts and follow-ups stay.
        let kept =
            |effect: &Effect<'_>| matches!(effect, Effect::FollowUp(_) | Effect::Count(_) | Effect::ObserveCheck(_));
        let rest = effects.filter(kept);
        effects = step.effects.into_iter().chain(rest).collect::<Vec<_>>().into_iter();
    }
    action
}

/// What a stream learns of an effect that was not performed.
#[derive(Clone, Copy)]
enum Failure {
    NotSent,
    NotDelayed,
    Host,
    Trailers,
}

impl Failure {
    const fn event<'a>(self) -> Event<'a> {
        match self {
            Self::NotSent => Event::NotSent(NotSentReason::AtOnce),
            Self::NotDelayed => Event::NotDelayed,
            Self::Host => Event::HostFailed,
            Self::Trailers => Event::TrailersFailed,
        }
    }
}

const fn on_failure(effect: &Effect<'_>) -> Option<Failure> {
    match effect {
        Effect::Check { .. } => Some(Failure::NotSent),
        Effect::Delay { .. } => Some(Failure::NotDelayed),
        Effect::StripHeader(_) | Effect::Resume | Effect::Respond { .. } => Some(Failure::Host),
        Effect::StripTrailer(_) => Some(Failure::Trailers),
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
