//! What not judging is worth: accuracy against coverage, where the bundle stands on that curve and beside it, and why it
//! abstained. Not the decision, which is the box's own.

use super::intervals::{Interval, wilson};
use super::ranking::thinned;
use crate::judge::Verdict;
use crate::metrics::ratio;
use roentgen::report::{Decision, Label};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What the bundle does not judge, and what that does to the rest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Abstention {
    /// Images that the box reports a label for.
    pub(crate) reported: usize,
    /// Their share of all.
    pub(crate) coverage: f64,
    /// Wilson interval of it.
    pub(crate) coverage_ci95: Interval,
    /// Share of the reported ones that is right.
    pub(crate) reported_accuracy: f64,
    /// Wilson interval of it.
    pub(crate) reported_accuracy_ci95: Interval,
    /// Images that it abstains on.
    pub(crate) abstained: usize,
    /// Of these, how many it would have judged right.
    pub(crate) abstained_right: usize,
    /// How often each reason was given; an image may have several.
    pub(crate) reasons: BTreeMap<String, usize>,
    /// Coverage and accuracy if the least probable labels alone were left out, one threshold after the other.
    pub(crate) curve: Vec<[f64; 2]>,
}

impl Abstention {
    /// From what the box said of images whose labels are `truth`; `said` is its most probable label.
    pub(crate) fn new(verdicts: &[Verdict], truth: &[Label], said: &[Label]) -> Self {
        let right: Vec<bool> = truth.iter().zip(said).map(|(truth, said)| truth == said).collect();
        let (mut reported, mut reported_right, mut reasons) = (0, 0, BTreeMap::new());
        for (verdict, &right) in verdicts.iter().zip(&right) {
            match &verdict.decision {
                Decision::Reported { .. } => {
                    reported += 1;
                    reported_right += usize::from(right);
                }
                Decision::Abstained { reasons: given } => {
                    for reason in given {
                        *reasons.entry(code_name(reason.code)).or_default() += 1;
                    }
                }
            }
        }
        let all = truth.len();
        Self {
            reported,
            coverage: ratio(reported, all),
            coverage_ci95: wilson(reported, all),
            reported_accuracy: ratio(reported_right, reported),
            reported_accuracy_ci95: wilson(reported_right, reported),
            abstained: all - reported,
            abstained_right: right.iter().filter(|&&right| right).count() - reported_right,
            reasons,
            curve: thinned(curve(verdicts, &right)),
        }
    }
}

/// The name of a reason's or refusal's code, as it stands in reports.
pub(crate) fn code_name(code: impl Serialize) -> String {
    // Serialized, a code is its name.
    serde_json::to_value(code).unwrap_or_default().as_str().unwrap_or_default().to_owned()
}

/// Coverage and accuracy down to every distinct probability of the best label.
fn curve(verdicts: &[Verdict], right: &[bool]) -> Vec<[f64; 2]> {
    let best = |verdict: &Verdict| verdict.findings.iter().map(|finding| finding.probability).fold(0.0, f32::max);
    let mut falling: Vec<(f32, bool)> = verdicts.iter().map(best).zip(right.iter().copied()).collect();
    falling.sort_by(|a, b| b.0.total_cmp(&a.0));
    let (mut covered, mut hits) = (0, 0);
    falling
        .chunk_by(|a, b| a.0 == b.0)
        .map(|group| {
            covered += group.len();
            hits += group.iter().filter(|(_, right)| *right).count();
            [ratio(covered, falling.len()), ratio(hits, covered)]
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use roentgen::assess::findings;
    use roentgen::report::{Reason, ReasonCode};

    fn verdict(logit: f32, reported: bool) -> Verdict {
        let logits = [logit, 0.0, 0.0, 0.0];
        let reason = Reason { code: ReasonCode::LowConfidence, message: String::new(), value: 0.1, limit: 0.5 };
        let decision = match reported {
            true => Decision::Reported { label: Label::Covid },
            false => Decision::Abstained { reasons: vec![reason] },
        };
        Verdict { logits, features: Vec::new(), findings: findings(&logits, 1.0), decision }
    }

    #[test]
    fn the_curve_begins_with_the_surest_and_ends_with_all() {
        let verdicts = [verdict(0.5, false), verdict(9.0, true), verdict(2.0, true), verdict(2.0, true)];
        let truth = [Label::Covid, Label::Covid, Label::Normal, Label::Covid];
        let found = Abstention::new(&verdicts, &truth, &[Label::Covid; 4]);
        assert_eq!(found.curve, [[0.25, 1.0], [0.75, 2.0 / 3.0], [1.0, 0.75]]);
        assert_eq!((found.reported, found.coverage, found.reported_accuracy), (3, 0.75, 2.0 / 3.0));
        assert_eq!((found.abstained, found.abstained_right), (1, 1));
        assert_eq!(found.reasons, BTreeMap::from([("low_confidence".to_owned(), 1)]));
    }
}
