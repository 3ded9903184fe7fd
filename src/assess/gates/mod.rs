//! The fitted gates of a bundle: whether an image looks like the frontal chest radiographs that the model was trained on,
//! lies as they do, and makes the network feel and say what they do. Not the fitting (`roentgen-host`) and not the fixed
//! limits of image quality ([`super::quality`]).

mod file;
mod pose;
mod subspace;

pub use pose::{Pose, PoseClassifier};
pub use subspace::Subspace;

use super::view::View;
use crate::bundle::{Bundle, BundleError, GateLimits};
use crate::report::{Reason, ReasonCode};

/// Everything that was fitted, and the limits.
#[derive(Debug, Clone, PartialEq)]
pub struct Gates {
    /// The ranked pixels of training radiographs.
    pub pixels: Subspace,
    /// Their oriented gradients.
    pub gradients: Subspace,
    /// The [`direction`] of their pooled features, about one mean a class.
    pub features: Subspace,
    /// How a radiograph lies.
    pub pose: PoseClassifier,
    /// Where each gate closes.
    pub limits: GateLimits,
}

/// What the gates measure of one image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Measured {
    /// Probability that it is upright, 0..=1.
    pub upright: f64,
    /// The most probable other pose.
    pub pose: Pose,
    /// Distance of the pixels from those of training radiographs; theirs is 1 on average.
    pub pixels: f64,
    /// The same of the gradients.
    pub gradients: f64,
    /// The same of the features.
    pub features: f64,
    /// Energy of the logits: −T · ln Σ exp(logit / T) (Liu et al. 2020).
    pub energy: f64,
}

impl Gates {
    /// The gates of `bundle`; `None` where it has none. Fails where its file is not what the manifest says.
    pub fn load(bundle: &Bundle) -> Result<Option<Self>, BundleError> {
        let Some(limits) = &bundle.manifest().gates else { return Ok(None) };
        let bytes = bundle.read(&limits.file)?;
        let channels = bundle.manifest().outputs.features.channels;
        let gates = Self::decode(&bytes, limits.clone(), channels).map_err(|reason| BundleError::File {
            path: bundle.dir().join(&limits.file),
            reason: format!("not the gates of this model: {reason}. Make the bundle again with roentgen-host."),
        })?;
        Ok(Some(gates))
    }

    /// Measures an image: its view, and the pooled features and logits that the network gave for it; `temperature` is the
    /// calibration's.
    pub fn measure(&self, view: &View, features: &[f32], logits: &[f32; 4], temperature: f32) -> Measured {
        let (upright, pose) = self.pose.judge(&view.gradients);
        Measured {
            upright,
            pose,
            pixels: self.pixels.distance(&view.pixels),
            gradients: self.gradients.distance(&view.gradients),
            features: self.features.distance(&direction(features)),
            energy: energy(logits, f64::from(temperature)),
        }
    }

    /// The gates that are closed for what was measured; none for what looks like a chest radiograph.
    pub fn reasons(&self, measured: &Measured) -> Vec<Reason> {
        let limits = &self.limits;
        let mut reasons = Vec::new();
        // What is not a number is beyond every limit.
        let beyond = |value: f64, limit: f32| value.is_nan() || value > f64::from(limit);
        if measured.upright.is_nan() || measured.upright < f64::from(limits.min_upright) {
            let (code, message) = pose_reason(measured.pose);
            reasons.push(reason(code, message, measured.upright, limits.min_upright));
        }
        // One reason, of that part which is further beyond its limit.
        let looks = [(measured.pixels, limits.max_pixels), (measured.gradients, limits.max_gradients)];
        let excess = |(value, limit): (f64, f32)| value / f64::from(limit);
        let worse = if excess(looks[1]) > excess(looks[0]) { looks[1] } else { looks[0] };
        if looks.iter().any(|&(value, limit)| beyond(value, limit)) {
            let message = "This does not look like a frontal chest radiograph. Check that the right image was sent.";
            reasons.push(reason(ReasonCode::UnusualAppearance, message, worse.0, worse.1));
        }
        let felt = [(measured.features, limits.max_features), (measured.energy, limits.max_energy)];
        if let Some(&(value, limit)) = felt.iter().find(|&&(value, limit)| beyond(value, limit)) {
            let message = "The network has not learned from images like this one. A person must read it.";
            reasons.push(reason(ReasonCode::OutOfDistribution, message, value, limit));
        }
        reasons
    }
}

/// Pooled features as the distance takes them: the square root of each one's share of the sum, a vector of length 1 (as in
/// Hellinger's distance); 0 for what is negative. Which features fire tells more than how strongly. It was chosen on the
/// first model, with 0.5 % of val turned away, because it caught phantoms, which the features themselves let through, and
/// more of 38 pictures of other things (38 against 35): those pictures informed the design, so that the share of them
/// that a report names says less about pictures that nobody has looked at yet.
pub fn direction(features: &[f32]) -> Vec<f64> {
    let above = features.iter().map(|&value| if value > 0.0 { f64::from(value) } else { 0.0 });
    let sum: f64 = above.clone().sum();
    above.map(|value| if sum > 0.0 { (value / sum).sqrt() } else { 0.0 }).collect()
}

/// −T · ln Σ exp(logit / T): low for what the network knows.
pub fn energy(logits: &[f32; 4], temperature: f64) -> f64 {
    let scaled = logits.map(|logit| f64::from(logit) / temperature);
    let greatest = scaled.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    -temperature * (greatest + scaled.iter().map(|value| (value - greatest).exp()).sum::<f64>().ln())
}

fn pose_reason(pose: Pose) -> (ReasonCode, &'static str) {
    match pose {
        Pose::Inverted => (
            ReasonCode::Inverted,
            "Black and white look exchanged: air must be dark and bone bright. Send the radiograph again, not inverted.",
        ),
        Pose::UpsideDown | Pose::Upright => {
            (ReasonCode::UpsideDown, "The radiograph looks upside down. Turn it head up and send it again.")
        }
        Pose::TurnedLeft | Pose::TurnedRight => {
            (ReasonCode::Rotated, "The radiograph looks turned by a quarter. Turn it head up and send it again.")
        }
        Pose::Part => (
            ReasonCode::Cropped,
            "Only a part of the chest seems to be in the image. Send the whole radiograph, both lungs in full.",
        ),
    }
}

/// A reason with its figures, which JSON can hold only if they are finite.
pub(super) fn reason(code: ReasonCode, message: impl Into<String>, value: f64, limit: f32) -> Reason {
    let value = if value.is_nan() { f32::MAX } else { (value as f32).clamp(f32::MIN, f32::MAX) };
    Reason { code, message: message.into(), value, limit }
}

#[cfg(test)]
mod tests;
