//! Waiting for many sockets on one thread, with a clock that is finer than a millisecond: payments at a fixed rate must begin
//! when they are due.

use std::num::NonZeroU64;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;

use testkit::Result;

/// Most sockets that one system call reports.
const EVENTS_MAX: usize = 256;
/// The kernel may wake this thread so much late, in nanoseconds; its default is fifty times as much.
const TIMER_SLACK_NS: u64 = 1_000;

/// What a socket is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Interest {
    Read,
    ReadAndWrite,
}

impl Interest {
    fn flags(self) -> EventFlags {
        match self {
            Self::Read => EventFlags::IN,
            Self::ReadAndWrite => EventFlags::IN | EventFlags::OUT,
        }
    }
}

/// Sockets by number.
pub(super) struct Poll {
    epoll: OwnedFd,
    events: Vec<Event>,
}

impl Poll {
    /// # Errors
    /// Those of the system call.
    pub(super) fn new() -> Result<Self> {
        Ok(Self { epoll: epoll::create(CreateFlags::CLOEXEC)?, events: Vec::with_capacity(EVENTS_MAX) })
    }

    /// Lets this thread's waits end when they are due.
    ///
    /// # Errors
    /// Those of the system call.
    pub(super) fn wake_in_time() -> Result<()> {
        Ok(rustix::thread::set_current_timer_slack(NonZeroU64::new(TIMER_SLACK_NS))?)
    }

    /// # Errors
    /// Those of the system call.
    pub(super) fn add(&self, socket: impl AsFd, number: usize, interest: Interest) -> Result<()> {
        Ok(epoll::add(&self.epoll, socket, EventData::new_u64(number as u64), interest.flags())?)
    }

    /// # Errors
    /// Those of the system call.
    pub(super) fn change(&self, socket: impl AsFd, number: usize, interest: Interest) -> Result<()> {
        Ok(epoll::modify(&self.epoll, socket, EventData::new_u64(number as u64), interest.flags())?)
    }

    /// # Errors
    /// Those of the system call.
    pub(super) fn remove(&self, socket: impl AsFd) -> Result<()> {
        Ok(epoll::delete(&self.epoll, socket)?)
    }

    /// Waits until a socket is ready or the time is over, and puts the numbers of the ready ones into `ready`.
    ///
    /// # Errors
    /// Those of the system call.
    pub(super) fn wait(&mut self, within: Option<Duration>, ready: &mut Vec<usize>) -> Result<()> {
        let within = within.map(Timespec::try_from).transpose()?;
        ready.clear();
        self.events.clear();
        match epoll::wait(&self.epoll, spare_capacity(&mut self.events), within.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        ready.extend(self.events.iter().map(|event| event.data.u64() as usize));
        Ok(())
    }
}
