//! The decision: the most probable label, or every reason not to say it. Not the measuring of the reasons: see
//! [`super::quality`] and [`super::gates`].

use super::Seen;
use super::gates::Gates;
use super::quality;
use super::view::View;
use crate::bundle::Thresholds;
use crate::report::{Decision, Finding, Reason, ReasonCode};

/// Everything that speaks against judging what was seen, but for the probabilities, worst first. Without gates only what
/// the DICOM tags say.
pub(super) fn objections(seen: &Seen, gates: Option<&Gates>, temperature: f32) -> Vec<Reason> {
    let mut reasons = Vec::new();
    if let Some(gates) = gates {
        let view = View::of(seen.image);
        reasons.extend(quality::reasons(seen.radiograph, &view));
        let evidence = seen.evidence;
        reasons.extend(gates.reasons(&gates.measure(&view, &evidence.features, &evidence.logits, temperature)));
    }
    reasons.extend(quality::lateral(seen.radiograph));
    // The codes are declared worst first.
    reasons.sort_by_key(|reason| reason.code);
    reasons
}

/// Reports the most probable label (the first of equals), or abstains for the objections, and where it is not probable
/// enough.
pub(super) fn decide(findings: &[Finding; 4], thresholds: &Thresholds, mut reasons: Vec<Reason>) -> Decision {
    let [first, rest @ ..] = findings;
    let best =
        rest.iter().fold(first, |best, finding| if finding.probability > best.probability { finding } else { best });
    let (value, limit) = (best.probability, thresholds.min_probability);
    if value < limit {
        let message = format!(
            "The most probable label, {}, has a probability of {:.0} %; {:.0} % is the least that is reported.",
            best.label.title(),
            value * 100.0,
            limit * 100.0
        );
        reasons.push(Reason { code: ReasonCode::LowConfidence, message, value, limit });
    }
    if reasons.is_empty() { Decision::Reported { label: best.label } } else { Decision::Abstained { reasons } }
}
