//! What was counted since the start of the process.

use crate::radiograph::RefusalCode;
use crate::report::{Decision, Label, ReasonCode};
use std::collections::HashMap;

/// Counts since the start.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Counts {
    /// Reports with a label, by label.
    pub reported: HashMap<Label, u64>,
    /// Abstentions.
    pub abstained: u64,
    /// The reasons of abstentions; one abstention may have several.
    pub reasons: HashMap<ReasonCode, u64>,
    /// Refused files, by code.
    pub rejected: HashMap<RefusalCode, u64>,
    /// Images that had been judged before by the same model.
    pub repeated: u64,
    /// Reports that the broker acknowledged.
    pub published: u64,
    /// Reports that were dropped unsent, for the bounds of the outbox.
    pub dropped: u64,
    /// Reports that can never be sent.
    pub undeliverable: u64,
    /// How often the process that decodes images was started anew.
    pub decoder_restarts: u64,
    /// How often the configuration was read again and taken.
    pub reloads: u64,
}

impl Counts {
    /// One report more.
    pub(super) fn judged(&mut self, decision: &Decision) {
        match decision {
            Decision::Reported { label } => *self.reported.entry(*label).or_default() += 1,
            Decision::Abstained { reasons } => {
                self.abstained += 1;
                for reason in reasons {
                    *self.reasons.entry(reason.code).or_default() += 1;
                }
            }
        }
    }
}
