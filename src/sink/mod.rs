//! Where reports go: the trait of all doors out of the box.

pub mod mqtt;

use crate::report::Report;

/// Delivers reports.
pub trait Sink {
    /// Publishes one report; returns once the receiver acknowledged it. It waits for a while, not for ever, so that the
    /// caller can see that it should stop; publishing the same report again afterwards goes on waiting for it.
    fn publish(&mut self, report: &Report) -> Result<(), SinkError>;
}

/// A report could not be delivered now; it stays in the outbox.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SinkError(pub String);
