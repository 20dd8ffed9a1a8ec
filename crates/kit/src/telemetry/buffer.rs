//! Lines on their way to the thread that writes them.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Bytes that may wait: some seconds of decisions at full load.
const WAITING_BYTES_MAX: usize = 8 << 20;
/// How long the thread lets lines accumulate: it wakes, and writes, once for all of them.
const LINGER: Duration = Duration::from_millis(5);

/// The lines that wait.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    state: Mutex<State>,
    /// Something waits, or the end has come.
    filled: Condvar,
    /// All that waited is written.
    written: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: Vec<u8>,
    /// The thread is writing what it has taken.
    is_writing: bool,
    /// No lingering: a caller waits for the end.
    is_urgent: bool,
}

/// Starts the thread. It ends with the process.
pub(super) fn start(target: impl Write + Send + 'static) -> io::Result<Arc<Buffer>> {
    let buffer = Arc::new(Buffer::default());
    let own = Arc::clone(&buffer);
    std::thread::Builder::new().name("log".to_owned()).spawn(move || own.write_all(target))?;
    Ok(buffer)
}

impl Buffer {
    /// Takes a line; `false` where it does not fit.
    pub(super) fn put(&self, line: &[u8]) -> bool {
        let mut state = self.state();
        if state.waiting.len() + line.len() > WAITING_BYTES_MAX {
            return false;
        }
        let is_first = state.waiting.is_empty();
        state.waiting.extend_from_slice(line);
        drop(state);
        if is_first {
            self.filled.notify_one();
        }
        true
    }

    /// Waits until all lines are written; `false` where that takes longer than `limit`.
    pub(super) fn flush(&self, limit: Duration) -> bool {
        let end = Instant::now() + limit;
        let mut state = self.state();
        state.is_urgent = true;
        self.filled.notify_one();
        while state.is_writing || !state.waiting.is_empty() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = self.written.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// Writes for ever. A target that refuses, as a closed pipe, is tried again with the next lines: the process does not end
    /// for lack of a reader.
    fn write_all(&self, mut target: impl Write) {
        let mut taken = Vec::new();
        loop {
            self.take(&mut taken);
            let _ = target.write_all(&taken);
            let _ = target.flush();
            taken.clear();
            self.state().is_writing = false;
            self.written.notify_all();
        }
    }

    /// Waits for lines and takes them.
    fn take(&self, taken: &mut Vec<u8>) {
        let mut state = self.state();
        while state.waiting.is_empty() {
            state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if !state.is_urgent {
            let lingered = self.filled.wait_timeout_while(state, LINGER, |state| !state.is_urgent);
            state = lingered.unwrap_or_else(PoisonError::into_inner).0;
        }
        std::mem::swap(&mut state.waiting, taken);
        state.is_writing = true;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
