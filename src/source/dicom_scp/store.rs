//! One instance on its way into the spool: the file meta information, which is ours, then the data set as it comes. It has
//! its name there, and the sender its success, only when all of it is on the disk.

use super::command::{Command, Status};
use super::peek::{self, ENOUGH};
use crate::source::spool::{Draft, Spool, SpoolError};
use dicom_object::FileMetaTableBuilder;
use std::time::{Duration, Instant};

/// What the box calls itself: in associations, and in the meta information of files. Not to be changed: the file's bytes
/// would, and with them the report's identity when the instance is sent again.
pub(super) const IMPLEMENTATION_CLASS: &str = "2.25.256580694265088852844569266283272548781";
pub(super) const IMPLEMENTATION_VERSION: &str = "ROENTGEN";

/// What stands before the file meta information.
const PREAMBLE: usize = 128;

/// An instance that is being received.
pub(super) struct Incoming {
    command: Command,
    transfer_syntax: &'static str,
    /// When it must be there.
    deadline: Instant,
    fate: Fate,
    /// Bytes of the file, and how many it may have.
    bytes: u64,
    most: u64,
}

enum Fate {
    /// It is being written.
    Writing {
        draft: Draft,
        /// The first bytes of the data set, until it has named itself.
        start: Vec<u8>,
        is_known: bool,
    },
    /// It is refused; what comes of it is read and thrown away, since a sender listens only when it has sent all.
    Refused(Status),
}

impl Incoming {
    /// Begins an instance: where it cannot be taken that is known before anything is written.
    pub(super) fn begin(
        command: Command,
        transfer_syntax: &'static str,
        spool: &Spool,
        most: u64,
        time: Duration,
    ) -> Self {
        let (fate, bytes) = if command.sop_instance.is_empty() {
            (Fate::Refused(Status::NOT_UNDERSTOOD), 0)
        } else {
            match begin(&command, transfer_syntax, spool) {
                Ok((draft, bytes)) => (Fate::Writing { draft, start: Vec::new(), is_known: false }, bytes),
                Err(status) => (Fate::Refused(status), 0),
            }
        };
        Self { command, transfer_syntax, deadline: Instant::now() + time, fate, bytes, most }
    }

    /// An instance, or the data set of another request, that is refused from the start.
    pub(super) fn refused(command: Command, status: Status, most: u64, time: Duration) -> Self {
        let (deadline, fate) = (Instant::now() + time, Fate::Refused(status));
        Self { command, transfer_syntax: "", deadline, fate, bytes: 0, most }
    }

    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Takes the next piece. False when it is so large that even throwing it away is no use.
    pub(super) fn take(&mut self, piece: &[u8]) -> bool {
        self.bytes = self.bytes.saturating_add(piece.len() as u64);
        if self.bytes > self.most {
            self.refuse(Status::TOO_LARGE);
        }
        if let Err(status) = self.write(piece) {
            self.refuse(status);
        }
        self.bytes <= self.most.saturating_mul(2)
    }

    fn write(&mut self, piece: &[u8]) -> Result<(), Status> {
        let Fate::Writing { draft, start, is_known } = &mut self.fate else { return Ok(()) };
        draft.append(piece).map_err(|error| status(&error))?;
        if !*is_known {
            start.extend(&piece[..piece.len().min(ENOUGH - start.len())]);
            if start.len() == ENOUGH {
                check(&self.command, start, self.transfer_syntax)?;
                (*start, *is_known) = (Vec::new(), true);
            }
        }
        Ok(())
    }

    fn refuse(&mut self, status: Status) {
        // The first reason stands. What was written is removed.
        if matches!(self.fate, Fate::Writing { .. }) {
            self.fate = Fate::Refused(status);
        }
    }

    /// All of it is here: it is made durable under a name of ours. The command, and how it ended.
    pub(super) fn finish(self) -> (Command, Status) {
        let status = match self.fate {
            Fate::Refused(status) => status,
            Fate::Writing { draft, start, is_known } => {
                let checked = if is_known { Ok(()) } else { check(&self.command, &start, self.transfer_syntax) };
                match checked.and_then(|()| commit(draft)) {
                    Ok(()) => Status::SUCCESS,
                    Err(status) => status,
                }
            }
        };
        (self.command, status)
    }
}

/// Writes what stands before the data set; how many bytes that are.
fn begin(command: &Command, transfer_syntax: &str, spool: &Spool) -> Result<(Draft, u64), Status> {
    let mut draft = spool.draft().map_err(|error| status(&error))?;
    let meta = FileMetaTableBuilder::new()
        .media_storage_sop_class_uid(&*command.sop_class)
        .media_storage_sop_instance_uid(&*command.sop_instance)
        .transfer_syntax(transfer_syntax)
        .implementation_class_uid(IMPLEMENTATION_CLASS)
        .implementation_version_name(IMPLEMENTATION_VERSION)
        .build()
        .map_err(|_| Status::NOT_UNDERSTOOD)?;
    let mut head = vec![0; PREAMBLE];
    head.extend(b"DICM");
    meta.write(&mut head).map_err(|_| Status::NOT_UNDERSTOOD)?;
    draft.append(&head).map_err(|error| status(&error))?;
    Ok((draft, head.len() as u64))
}

/// Whether the data set is of the instance that the command names.
fn check(command: &Command, start: &[u8], transfer_syntax: &str) -> Result<(), Status> {
    match peek::identity(start, transfer_syntax) {
        None => Err(Status::NOT_UNDERSTOOD),
        Some((class, instance)) if class == command.sop_class && instance == command.sop_instance => Ok(()),
        Some(_) => Err(Status::MISMATCH),
    }
}

/// Names the file. The name says nothing of the instance, whose UID is the sender's to choose.
fn commit(draft: Draft) -> Result<(), Status> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|_| Status::FAILED)?;
    let name: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    draft.commit(&format!("{name}.dcm")).map_err(|error| status(&error))
}

fn status(error: &SpoolError) -> Status {
    if error.is_want_of_room() {
        return Status::NO_ROOM;
    }
    log::error!("an instance from the DICOM network cannot be written: {error}");
    Status::FAILED
}
