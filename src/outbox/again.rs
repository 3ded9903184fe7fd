//! Reports that were struck off since no packet holds them, and that one would hold by now: queued once more. What was
//! struck off for another reason stays so.

use super::{Outbox, OutboxError, last_sequence, retention, schema};
use crate::report::{Message, Report};
use rusqlite::TransactionBehavior;
use schema::Stored;

impl Outbox {
    /// Queues struck-off reports again that `fits` finds deliverable, and says how many. Reports leave in the order of
    /// their sequences, so that each gets a new one, the next; its id, and all else in it, stays as it was.
    pub fn requeue(&mut self, fits: &mut dyn FnMut(&Message) -> bool) -> Result<u64, OutboxError> {
        let mut requeued = 0;
        let mut after = 0;
        loop {
            let next = self.struck_after(after);
            let Some(found) = next.map_err(|error| self.failed("cannot look for undelivered reports", error))? else {
                return Ok(requeued);
            };
            let stored = match found {
                Ok(stored) => stored,
                Err(damaged) => {
                    after = damaged;
                    continue;
                }
            };
            after = stored.sequence;
            let Stored { sequence, report_id, json, .. } = &stored;
            let message = Message { sequence: *sequence, report_id: report_id.clone(), json: json.clone() };
            if fits(&message)
                && let Ok(report) = message.report()
            {
                self.queue_again(&stored, report)?;
                requeued += 1;
            }
        }
    }

    /// The first report after this sequence that is struck off and still there; its sequence alone where it is damaged.
    fn struck_after(&self, sequence: u64) -> rusqlite::Result<Option<Result<Stored, u64>>> {
        let mut statement = self.connection.prepare(&format!(
            "SELECT {} FROM reports WHERE sequence = \
             (SELECT min(sequence) FROM undeliverable JOIN reports USING (sequence) WHERE sequence > ?1)",
            schema::COLUMNS
        ))?;
        let mut rows = statement.query([sequence])?;
        rows.next()?.map(Stored::read).transpose()
    }

    fn queue_again(&mut self, stored: &Stored, report: Report) -> Result<(), OutboxError> {
        let mut json = Ok(());
        let queued = (|| {
            self.connection.pragma_update(None, "synchronous", "FULL")?;
            let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let sequence = last_sequence(&transaction)? + 1;
            let text = match serde_json::to_string(&Report { sequence, ..report }) {
                Ok(text) => text,
                Err(error) => {
                    json = Err(error);
                    return Ok(());
                }
            };
            retention::remove(&transaction, stored.sequence, stored.sequence)?;
            transaction.execute("DELETE FROM undeliverable WHERE sequence = ?1", [stored.sequence])?;
            Stored { sequence, json: text, ..stored.clone() }.insert(&transaction)?;
            transaction.commit()
        })();
        json.map_err(|error| OutboxError::Json { path: self.path.clone(), error })?;
        queued.map_err(|error| self.failed("cannot queue a report again", error))?;
        self.waiting.set(None);
        Ok(())
    }
}
