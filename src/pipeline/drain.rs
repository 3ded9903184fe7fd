//! The other half of the line: publishes what is in the outbox, in order, and marks it sent on the acknowledgement. Judges
//! nothing.

use super::lock;
use crate::outbox::{Outbox, OutboxError};
use crate::sink::Sink;
use crate::status::Status;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::thread;
use std::time::{Duration, Instant};

/// How long a stop goes on publishing what is queued while the broker acknowledges it.
const GRACE: Duration = Duration::from_secs(5);

/// The pause after a report could not be published; the sink has waited for its own patience before.
const RETRY: Duration = Duration::from_millis(200);

/// Publishes what is queued, oldest first, until the other end of `news` hangs up.
pub(super) fn drain(
    sink: &mut (dyn Sink + Send),
    outbox: &Mutex<Outbox>,
    status: &Status,
    news: &Receiver<()>,
) -> Result<(), OutboxError> {
    let mut stop_at = None;
    let mut trouble = None;
    loop {
        let hung_up = loop {
            match news.try_recv() {
                Ok(()) => {}
                Err(TryRecvError::Empty) => break false,
                Err(TryRecvError::Disconnected) => break true,
            }
        };
        if hung_up && Instant::now() >= *stop_at.get_or_insert_with(|| Instant::now() + GRACE) {
            return Ok(());
        }
        let Some(report) = lock(outbox).next_unsent()? else {
            match news.recv_timeout(Duration::from_secs(60)) {
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
                Ok(()) | Err(RecvTimeoutError::Timeout) => continue,
            }
        };
        match sink.publish(&report) {
            Ok(()) => {
                lock(outbox).mark_sent(report.sequence)?;
                status.published(1);
                if trouble.take().is_some() {
                    log::info!("report {} is delivered again", report.sequence);
                }
            }
            Err(error) => {
                let error = error.to_string();
                // Once per kind of trouble: the broker may be away for a week.
                if trouble.as_ref() != Some(&error) {
                    log::warn!("report {} waits: {error}", report.sequence);
                    trouble = Some(error);
                }
                if hung_up {
                    return Ok(());
                }
                thread::sleep(RETRY);
            }
        }
    }
}
