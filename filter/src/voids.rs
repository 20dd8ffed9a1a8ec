//! Voids that could not be sent or were not answered wait here for the next tick. Bounded in number, tries and time.

use std::collections::VecDeque;

use quota::Code;

use crate::wire::Reply;

/// Most voids that wait in one worker. A void is some 400 bytes.
pub const WAITING_MAX: usize = 4096;
/// Most voids sent in one tick, so that a server that comes back is not met by all of them at once.
pub const SENT_PER_TICK_MAX: usize = 64;
/// How often the proxy calls the tick, in milliseconds.
pub const TICK_MS: u32 = 250;
/// Most tries of one void. With the backoff below the last one comes after some 16 minutes.
pub const TRIES_MAX: u32 = 24;
/// Longest pause between two tries, in ticks: one minute.
pub const BACKOFF_TICKS_MAX: u64 = 240;
/// How long an answer to a void is waited for, in milliseconds. No payment waits for it.
pub const VOID_TIMEOUT_MS: u32 = 2_000;

/// One attempt to take back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Void {
    /// The cluster that decided the attempt.
    pub cluster: String,
    /// The encoded question.
    pub message: Vec<u8>,
    /// Names the attempt in logs: a lost void is found again by it.
    pub label: String,
    /// How often it was sent.
    pub tries: u32,
}

/// Voids on their way to another try.
#[derive(Debug, Default)]
pub struct Voids {
    now_ticks: u64,
    waiting: VecDeque<(u64, Void)>,
}

impl Voids {
    /// Takes a void whose try failed. `Err` gives one back that is lost: tried too often, or the queue is full.
    ///
    /// # Errors
    /// The void that will not be tried again.
    pub fn retry(&mut self, void: Void) -> Result<(), Void> {
        if void.tries >= TRIES_MAX || self.waiting.len() >= WAITING_MAX {
            return Err(void);
        }
        let due = self.now_ticks.saturating_add(backoff_ticks(void.tries));
        self.waiting.push_back((due, void));
        Ok(())
    }

    /// One tick has passed: hands out the voids that are due, each counted as one more try.
    pub fn tick(&mut self) -> Vec<Void> {
        self.now_ticks = self.now_ticks.saturating_add(1);
        let now = self.now_ticks;
        let mut due = Vec::new();
        let mut later = VecDeque::with_capacity(self.waiting.len());
        for (at, void) in self.waiting.drain(..) {
            if at <= now && due.len() < SENT_PER_TICK_MAX {
                due.push(Void { tries: void.tries.saturating_add(1), ..void });
            } else {
                later.push_back((at, void));
            }
        }
        self.waiting = later;
        due
    }

    /// How many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

/// What an answer says of its void.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// It is done.
    Yes,
    /// It has to be sent again.
    No,
    /// The server will not take it however often it is sent.
    Never,
}

/// Reads the answer to a void: only a void's own decision says that it was heard.
#[must_use]
pub fn heard(reply: &Reply) -> Heard {
    match reply {
        Reply::Pass { code: Code::Voided | Code::AttemptReleased | Code::Tombstoned, .. } => Heard::Yes,
        Reply::Refuse { status: 400, .. } => Heard::Never,
        Reply::Pass { .. } | Reply::Refuse { .. } | Reply::None(_) => Heard::No,
    }
}

/// 1, 2, 4, … ticks after the first, second, third try.
fn backoff_ticks(tries: u32) -> u64 {
    1_u64.checked_shl(tries.saturating_sub(1)).map_or(BACKOFF_TICKS_MAX, |ticks| ticks.clamp(1, BACKOFF_TICKS_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::NoAnswer;

    fn void(tries: u32) -> Void {
        Void { cluster: "c".into(), message: vec![1], label: "l".into(), tries }
    }

    #[test]
    fn only_a_voids_own_decision_says_that_it_was_heard() {
        let pass = |code| Reply::Pass { code, headers: Vec::new() };
        let refuse = |status| Reply::Refuse { code: None, status, headers: Vec::new(), body: Vec::new() };
        for code in Code::ALL {
            let done = matches!(code, Code::Voided | Code::AttemptReleased | Code::Tombstoned);
            assert_eq!(heard(&pass(code)), if done { Heard::Yes } else { Heard::No }, "{code:?}");
        }
        for (status, expected) in [(400, Heard::Never), (403, Heard::No), (429, Heard::No), (503, Heard::No)] {
            assert_eq!(heard(&refuse(status)), expected, "{status}");
        }
        assert_eq!(heard(&Reply::None(NoAnswer::unavailable("away"))), Heard::No);
    }

    #[test]
    fn the_pause_doubles_up_to_a_minute() {
        let pauses: Vec<u64> = [0, 1, 2, 3, 8, 9, 63, 64, 65, u32::MAX].into_iter().map(backoff_ticks).collect();
        assert_eq!(pauses, [1, 1, 2, 4, 128, 240, 240, 240, 240, 240]);
    }

    #[test]
    fn a_void_is_tried_a_bounded_number_of_times() {
        let mut voids = Voids::default();
        let mut waiting = void(1);
        let mut ticks = 0_u64;
        loop {
            let tries = waiting.tries;
            if let Err(lost) = voids.retry(waiting) {
                assert_eq!(lost.tries, TRIES_MAX);
                break;
            }
            waiting = loop {
                ticks += 1;
                if let Some(due) = voids.tick().pop() {
                    break due;
                }
            };
            assert_eq!(waiting.tries, tries + 1);
        }
        assert_eq!(ticks * u64::from(TICK_MS) / 60_000, 16);
    }

    #[test]
    fn the_queue_and_the_tick_are_bounded() {
        let mut voids = Voids::default();
        for _ in 0..WAITING_MAX {
            voids.retry(void(1)).unwrap();
        }
        assert!(voids.retry(void(1)).is_err());
        assert_eq!(voids.tick().len(), SENT_PER_TICK_MAX);
        assert_eq!(voids.len(), WAITING_MAX - SENT_PER_TICK_MAX);
    }
}
