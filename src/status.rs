//! What the box knows about itself: counts of what it did since it started. Not a log, and nothing about one image.

use crate::radiograph::RefusalCode;
use crate::report::{Decision, Label, ReasonCode, Report};
use crate::source::Intake;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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
    /// Why no image is taken at present; `None`: they are.
    pub closed: Option<String>,
}

/// A handle on the counts; clones share them.
#[derive(Debug, Clone, Default)]
pub struct Status(Arc<Mutex<Counts>>);

impl Status {
    /// A report became durable.
    pub fn judged(&self, report: &Report) {
        let mut counts = self.lock();
        match &report.decision {
            Decision::Reported { label } => *counts.reported.entry(*label).or_default() += 1,
            Decision::Abstained { reasons } => {
                counts.abstained += 1;
                for reason in reasons {
                    *counts.reasons.entry(reason.code).or_default() += 1;
                }
            }
        }
    }

    /// A file was refused and settled.
    pub fn rejected(&self, code: RefusalCode) {
        *self.lock().rejected.entry(code).or_default() += 1;
    }

    /// An image was settled that has its report already.
    pub fn repeated(&self) {
        self.lock().repeated += 1;
    }

    /// The broker acknowledged so many reports.
    pub fn published(&self, reports: u64) {
        self.lock().published += reports;
    }

    /// Whether images are taken at present.
    pub fn intake(&self, intake: Intake) {
        self.lock().closed = match intake {
            Intake::Open => None,
            Intake::Closed { reason } => Some(reason),
        };
    }

    /// The counts at this moment.
    pub fn counts(&self) -> Counts {
        self.lock().clone()
    }

    /// A poisoned lock is used on: every change to the counts is one step.
    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
