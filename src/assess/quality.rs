//! Fixed limits of image quality: what no chest radiograph that was worth taking exceeds. Not fitted, and not about
//! anatomy: see [`super::gates`].
//!
//! Each limit lies beyond the most extreme of the 4501 radiographs of the train and val splits (COVID-19 Radiography
//! Database and NIH ChestX-ray8), whose extremes are given with it: a radiograph of another hospital is not to fail here.
//! The test split has no part in them: when the limits were first set it had been among the images looked at, and none
//! changed when it was left out.

use super::gates::reason;
use super::view::View;
use crate::radiograph::Radiograph;
use crate::report::{Reason, ReasonCode};

/// Pixels of the shorter side; train and val have 224 and 256.
const MIN_SIDE: u32 = 180;
/// Longer side by shorter side. A film of 35 × 43 cm has 1.23.
const MAX_ASPECT: f32 = 2.0;
/// Grey levels (of 255) from the 5th to the 95th percentile. The flattest of train and val has 47.
const MIN_CONTRAST: f32 = 30.0;
/// Share of black pixels inside the borders; at most 0.33 in train and val.
const MAX_BLACK: f32 = 0.6;
/// Share of white pixels inside the borders; at most 0.24 in train and val.
const MAX_WHITE: f32 = 0.5;
/// Share of the variance in detail finer than a 24th of the image; at most 0.26 in train and val.
const MAX_FINE: f32 = 0.3;

/// DICOM View Positions (PS3.3 C.8.11.4) of lateral projections.
const LATERAL: [&str; 3] = ["LL", "RL", "LATERAL"];

/// Everything that is wrong with the image's quality.
pub fn reasons(radiograph: &Radiograph, view: &View) -> Vec<Reason> {
    let (width, height) = (radiograph.width, radiograph.height);
    let (shorter, longer) = (width.min(height), width.max(height));
    let aspect = f64::from(longer) / f64::from(shorter.max(1));
    let contrast = f64::from(view.contrast);
    let mut reasons = Vec::new();
    let mut check = |failed: bool, code: ReasonCode, value: f64, limit: f32, message: String| {
        if failed {
            reasons.push(reason(code, message, value, limit));
        }
    };
    check(
        shorter < MIN_SIDE,
        ReasonCode::TooSmall,
        f64::from(shorter),
        MIN_SIDE as f32,
        format!(
            "The image has {width} × {height} pixels; {MIN_SIDE} a side are needed. Send the original, not a preview."
        ),
    );
    check(
        aspect > f64::from(MAX_ASPECT),
        ReasonCode::Elongated,
        aspect,
        MAX_ASPECT,
        format!("The image of {width} × {height} pixels is too long for a chest radiograph. Check that it is one."),
    );
    check(
        contrast < f64::from(MIN_CONTRAST),
        ReasonCode::LowContrast,
        contrast,
        MIN_CONTRAST,
        "The image is blank or almost so. Check exposure and export, and send it again.".into(),
    );
    check(
        view.black > f64::from(MAX_BLACK),
        ReasonCode::UnderExposed,
        view.black,
        MAX_BLACK,
        format!("{:.0} % of the image is black. Check window and exposure, and send it again.", view.black * 100.0),
    );
    check(
        view.white > f64::from(MAX_WHITE),
        ReasonCode::OverExposed,
        view.white,
        MAX_WHITE,
        format!("{:.0} % of the image is white. Check window and exposure, and send it again.", view.white * 100.0),
    );
    // What is blank has no detail to speak of: its noise is not a second finding.
    check(
        contrast >= f64::from(MIN_CONTRAST) && view.fine > f64::from(MAX_FINE),
        ReasonCode::Noise,
        view.fine,
        MAX_FINE,
        "Noise, text or a fine pattern covers the image. Check that it is a radiograph.".into(),
    );
    reasons
}

/// The reason not to judge a radiograph that its DICOM tags call lateral.
pub(super) fn lateral(radiograph: &Radiograph) -> Option<Reason> {
    let view = radiograph.origin.view.as_deref()?;
    LATERAL.iter().any(|lateral| view.eq_ignore_ascii_case(lateral)).then(|| {
        let message = format!("This is a lateral view (View Position {view}); only frontal ones (PA, AP) are judged.");
        reason(ReasonCode::LateralView, message, 1.0, 0.0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::preprocess::preprocess;
    use crate::radiograph::{Pixels, phantom};

    /// The codes for an image of `width` × `height` whose grey levels `level` gives by column and row.
    fn codes(width: u32, height: u32, level: impl Fn(u32, u32) -> u8) -> Vec<ReasonCode> {
        let levels = (0..height).flat_map(|y| (0..width).map(move |x| (x, y))).map(|(x, y)| level(x, y)).collect();
        let radiograph = Radiograph { width, height, pixels: Pixels::Grey8(levels), ..phantom::radiograph(1, 8) };
        let reasons = reasons(&radiograph, &View::of(&preprocess(&radiograph)));
        assert!(reasons.iter().all(|reason| reason.message.len() > 30 && reason.value.is_finite()));
        reasons.iter().map(|reason| reason.code).collect()
    }

    /// A smooth picture of good contrast.
    fn smooth(x: u32, y: u32) -> u8 {
        (20 + (x * 3 / 8 + y / 2) % 200) as u8
    }

    #[test]
    fn each_limit_has_its_code() {
        assert_eq!(codes(300, 320, smooth), []);
        assert_eq!(codes(170, 200, smooth), [ReasonCode::TooSmall]);
        assert_eq!(codes(820, 400, |x, y| smooth(x / 3, y)), [ReasonCode::Elongated]);
        assert_eq!(codes(256, 256, |_, _| 77), [ReasonCode::LowContrast]);
        assert_eq!(codes(256, 256, |x, _| 77 + (x / 16) as u8), [ReasonCode::LowContrast]);
        let band = |x: u32, y: u32| (x + y) % 256 < 80;
        assert_eq!(codes(256, 256, |x, y| if band(x, y) { smooth(x, y) } else { 0 }), [ReasonCode::UnderExposed]);
        assert_eq!(codes(256, 256, |x, y| if band(x, y) { smooth(x, y) } else { 255 }), [ReasonCode::OverExposed]);
        let hash =
            |x: u32, y: u32| (x.wrapping_mul(0x9e37_79b9) ^ y.wrapping_mul(0x85eb_ca6b)).wrapping_mul(0xc2b2_ae35);
        assert_eq!(codes(224, 224, |x, y| (hash(x, y) >> 24) as u8), [ReasonCode::Noise]);
    }

    #[test]
    fn only_lateral_views_are_called_so() {
        let called = |view: Option<&str>| {
            let mut radiograph = phantom::radiograph(1, 8);
            radiograph.origin.view = view.map(str::to_owned);
            lateral(&radiograph).map(|reason| reason.code)
        };
        for view in ["LL", "RL", "LATERAL", "ll"] {
            assert_eq!(called(Some(view)), Some(ReasonCode::LateralView), "{view}");
        }
        for view in [None, Some("PA"), Some("AP"), Some("LLO")] {
            assert_eq!(called(view), None, "{view:?}");
        }
    }
}
