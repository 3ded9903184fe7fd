//! Where reports go: the trait of all doors out of the box.

pub mod dicom_sr;
pub mod home_assistant;
pub mod mqtt;
mod tls;

use crate::report::{Message, Report};

/// Delivers reports.
pub trait Sink {
    /// Publishes one report; returns once the receiver acknowledged it. It waits for a while, not for ever, so that the
    /// caller can see that it should stop; publishing the same report again afterwards goes on waiting for it.
    fn publish(&mut self, report: &Report) -> Result<(), SinkError>;

    /// Whether it could deliver a report by now that it once called undeliverable: a limit may have been raised. Asked once
    /// when it begins its work. A sink without limits that change says no.
    fn fits(&self, _message: &Message) -> bool {
        false
    }

    /// Publishes many in their order, and says how many of the first were acknowledged and why not the next one. A sink
    /// that has several on the way at a time keeps their order, and like [`Sink::publish`] it goes on waiting for those
    /// that it is asked for again.
    fn publish_all(&mut self, messages: &[Message]) -> (usize, Result<(), SinkError>) {
        for (acknowledged, message) in messages.iter().enumerate() {
            let report =
                message.report().map_err(|error| SinkError::Undeliverable(format!("it is no report: {error}")));
            if let Err(error) = report.and_then(|report| self.publish(&report)) {
                return (acknowledged, Err(error));
            }
        }
        (messages.len(), Ok(()))
    }
}

/// A report could not be delivered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SinkError {
    /// Not now; it stays in the outbox.
    #[error("{0}")]
    Waiting(String),
    /// Never by this sink as it is, whatever the receiver does: the line must not stand still for it.
    #[error("{0}")]
    Undeliverable(String),
}
