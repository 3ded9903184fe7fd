//! Changes to a radiograph that should not change its reading, those that take away what a reader reads, and those after
//! which it must not be judged. They work on
//! the 224 × 224 grey levels that the network sees, so that a strength means the same for every source. Not training's
//! random augmentation: each is fixed, so that figures repeat.

use crate::augment::{bilinear, blur, resample};
use crate::random::SplitMix;
use anyhow::{Context, Result};
use image::codecs::jpeg::JpegEncoder;
use image::{ExtendedColorType, ImageFormat};
use roentgen::preprocess::{SIZE, preprocess};
use roentgen::radiograph::{Pixels, Radiograph};

const N: usize = SIZE as usize;

/// The side of the inner square that hides the lungs, or that is all that is left, as a share of the image's: the square
/// is 64 % of the area.
const INNER: f32 = 0.8;

/// The side of a masked corner, as a share of the image's.
const CORNER: f32 = 0.18;

/// One change.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Perturbation {
    /// Gaussian blur; σ in pixels.
    Blur(f32),
    /// Gaussian noise; σ in grey levels of 255.
    Noise(f32),
    /// Down to this side in pixels, and back.
    Rescale(usize),
    /// JPEG at this quality, 1..=100.
    Jpeg(u8),
    /// This share cut off each edge, the rest enlarged.
    Crop(f32),
    /// All four corners covered by the image's mean grey, where side markers and texts stand.
    MarkersMasked,
    /// Turned by degrees, clockwise; edges repeated.
    Rotate(f32),
    /// Grey levels to this power.
    Gamma(f32),
    /// The same levels in 12 bits with random lowest bits, as a detector delivers them.
    TwelveBits,
    /// Lungs hidden: the inner square is the image's mean grey.
    BorderAlone,
    /// The reverse: everything but the inner square is the image's mean grey.
    CentreAlone,
    /// A thumbnail of this side, enlarged.
    Thumbnail(usize),
    /// Turned by half.
    UpsideDown,
    /// Black and white exchanged.
    Inverted,
}

/// What should not matter.
pub(crate) const ROBUSTNESS: [Perturbation; 18] = [
    Perturbation::Blur(1.0),
    Perturbation::Blur(2.0),
    Perturbation::Noise(8.0),
    Perturbation::Noise(16.0),
    Perturbation::Rescale(128),
    Perturbation::Rescale(64),
    Perturbation::Jpeg(60),
    Perturbation::Jpeg(30),
    Perturbation::Crop(0.05),
    Perturbation::Crop(0.10),
    Perturbation::MarkersMasked,
    Perturbation::Rotate(-10.0),
    Perturbation::Rotate(-5.0),
    Perturbation::Rotate(5.0),
    Perturbation::Rotate(10.0),
    Perturbation::Gamma(0.7),
    Perturbation::Gamma(1.4),
    Perturbation::TwelveBits,
];

/// What should matter: a model that gets these right does not read the lungs.
pub(crate) const SHORTCUTS: [Perturbation; 3] =
    [Perturbation::BorderAlone, Perturbation::CentreAlone, Perturbation::Thumbnail(16)];

/// What makes a radiograph one that must not be judged.
pub(crate) const NOT_TO_BE_JUDGED: [Perturbation; 2] = [Perturbation::UpsideDown, Perturbation::Inverted];

impl Perturbation {
    /// A short name for programs.
    pub(crate) fn id(self) -> String {
        match self {
            Self::Blur(sigma) => format!("blur_{sigma}"),
            Self::Noise(sigma) => format!("noise_{sigma}"),
            Self::Rescale(side) => format!("rescale_{side}"),
            Self::Jpeg(quality) => format!("jpeg_{quality}"),
            Self::Crop(share) => format!("crop_{:.0}", share * 100.0),
            Self::MarkersMasked => "markers_masked".into(),
            Self::Rotate(degrees) => format!("rotate_{degrees}"),
            Self::Gamma(gamma) => format!("gamma_{gamma}"),
            Self::TwelveBits => "twelve_bits".into(),
            Self::BorderAlone => "border_alone".into(),
            Self::CentreAlone => "centre_alone".into(),
            Self::Thumbnail(side) => format!("thumbnail_{side}"),
            Self::UpsideDown => "upside_down".into(),
            Self::Inverted => "inverted".into(),
        }
    }

    /// What was done, for people.
    pub(crate) fn title(self) -> String {
        match self {
            Self::Blur(sigma) => format!("Blur, σ {sigma} px"),
            Self::Noise(sigma) => format!("Noise, σ {sigma} of 255"),
            Self::Rescale(side) => format!("Rescaled to {side} px and back"),
            Self::Jpeg(quality) => format!("JPEG, quality {quality}"),
            Self::Crop(share) => format!("Border cropped by {:.0} %", share * 100.0),
            Self::MarkersMasked => "Corner markers masked".into(),
            Self::Rotate(degrees) => format!("Rotated by {}°", signed(degrees)),
            Self::Gamma(gamma) => format!("Gamma {gamma}"),
            Self::TwelveBits => "12 bits instead of 8".into(),
            Self::BorderAlone => "Border alone, lungs hidden".into(),
            Self::CentreAlone => "Lungs alone, border hidden".into(),
            Self::Thumbnail(side) => format!("Thumbnail of {side} × {side} px"),
            Self::UpsideDown => "Radiographs turned upside down".into(),
            Self::Inverted => "Radiographs with black and white exchanged".into(),
        }
    }

    /// The changed radiograph, 224 × 224. `seed` names the noise, where there is any.
    pub(crate) fn apply(self, original: &Radiograph, seed: u64) -> Result<Radiograph> {
        let grey = preprocess(original).into_data();
        let mut x: Vec<f32> = grey.iter().map(|&level| f32::from(level)).collect();
        let mean = x.iter().sum::<f32>() / x.len() as f32;
        let mut random = SplitMix::new(seed);
        let mut twelve = None;
        match self {
            Self::Blur(sigma) => blur(&mut x, sigma),
            Self::Noise(sigma) => x.iter_mut().for_each(|level| *level += sigma * random.normal()),
            Self::Rescale(side) | Self::Thumbnail(side) => x = resample(&x, side),
            Self::Jpeg(quality) => x = jpeg(&grey, quality)?,
            Self::Crop(share) => x = warp(&x, 0.0, 1.0 - 2.0 * share),
            Self::MarkersMasked => paint(&mut x, mean, |row, column| corner(row) && corner(column)),
            Self::Rotate(degrees) => x = warp(&x, degrees, 1.0),
            Self::Gamma(gamma) => x.iter_mut().for_each(|level| *level = 255.0 * (*level / 255.0).powf(gamma)),
            Self::TwelveBits => twelve = Some(twelve_bits(&grey, &mut random)),
            Self::BorderAlone => paint(&mut x, mean, |row, column| inner(row) && inner(column)),
            Self::CentreAlone => paint(&mut x, mean, |row, column| !(inner(row) && inner(column))),
            Self::UpsideDown => x.reverse(),
            Self::Inverted => x.iter_mut().for_each(|level| *level = 255.0 - *level),
        }
        let rounded = || Pixels::Grey8(x.iter().map(|level| level.round().clamp(0.0, 255.0) as u8).collect());
        let pixels = twelve.unwrap_or_else(rounded);
        Ok(Radiograph { width: SIZE, height: SIZE, pixels, ..original.clone() })
    }
}

/// With its sign, and a true minus.
fn signed(degrees: f32) -> String {
    if degrees < 0.0 { format!("−{}", -degrees) } else { format!("+{degrees}") }
}

/// Whether a row or column lies in the inner square.
fn inner(index: usize) -> bool {
    let margin = ((1.0 - INNER) / 2.0 * N as f32).round() as usize;
    (margin..N - margin).contains(&index)
}

/// Whether a row or column lies near enough to an end to belong to a corner.
fn corner(index: usize) -> bool {
    let side = (CORNER * N as f32).round() as usize;
    index < side || index >= N - side
}

fn paint(x: &mut [f32], grey: f32, place: impl Fn(usize, usize) -> bool) {
    for (index, level) in x.iter_mut().enumerate() {
        if place(index / N, index % N) {
            *level = grey;
        }
    }
}

/// Turned about the centre, clockwise, and the middle `part` of each side enlarged to all of it.
fn warp(x: &[f32], degrees: f32, part: f32) -> Vec<f32> {
    let (sin, cos) = (-degrees).to_radians().sin_cos();
    let (centre, last) = ((N as f32 - 1.0) / 2.0, N as f32 - 1.0);
    let at = |index: usize| {
        let (u, v) = ((index % N) as f32 - centre, (index / N) as f32 - centre);
        let (s, t) = (part * (cos * u - sin * v) + centre, part * (sin * u + cos * v) + centre);
        bilinear(x, N, s.clamp(0.0, last), t.clamp(0.0, last))
    };
    (0..N * N).map(at).collect()
}

/// Through a JPEG file and back.
fn jpeg(grey: &[u8], quality: u8) -> Result<Vec<f32>> {
    let mut file = Vec::new();
    JpegEncoder::new_with_quality(&mut file, quality)
        .encode(grey, SIZE, SIZE, ExtendedColorType::L8)
        .context("cannot compress an image as JPEG")?;
    let image = image::load_from_memory_with_format(&file, ImageFormat::Jpeg).context("cannot read back a JPEG")?;
    Ok(image.into_luma8().into_raw().into_iter().map(f32::from).collect())
}

/// 8 bits as the upper ones of 12, spread over the 16 of a display.
fn twelve_bits(grey: &[u8], random: &mut SplitMix) -> Pixels {
    let level = |&level: &u8| {
        let twelve = u32::from(level) * 16 + random.below(16) as u32;
        (twelve * 65_535 / 4095) as u16
    };
    Pixels::Grey16(grey.iter().map(level).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use roentgen::radiograph::phantom;
    use std::collections::BTreeSet;

    fn levels(radiograph: &Radiograph) -> Vec<u8> {
        preprocess(radiograph).into_data()
    }

    fn changed(perturbation: Perturbation) -> (Vec<u8>, Vec<u8>) {
        let original = phantom::radiograph(3, 256);
        (levels(&original), levels(&perturbation.apply(&original, 1).unwrap()))
    }

    fn mean_change(perturbation: Perturbation) -> f64 {
        let (before, after) = changed(perturbation);
        before.iter().zip(&after).map(|(a, b)| f64::from(a.abs_diff(*b))).sum::<f64>() / before.len() as f64
    }

    #[test]
    fn each_has_its_own_name_and_changes_the_image_and_repeats() {
        let all: Vec<Perturbation> = ROBUSTNESS.into_iter().chain(SHORTCUTS).chain(NOT_TO_BE_JUDGED).collect();
        let names: BTreeSet<String> = all.iter().flat_map(|p| [p.id(), p.title()]).collect();
        assert_eq!(names.len(), 2 * all.len());
        for perturbation in all {
            assert!(mean_change(perturbation) > 0.0, "{perturbation:?}");
            assert_eq!(changed(perturbation), changed(perturbation), "{perturbation:?}");
        }
    }

    #[test]
    fn stronger_changes_more() {
        use Perturbation::{Blur, Crop, Jpeg, Noise, Rescale, Rotate};
        for (weak, strong) in [
            (Blur(1.0), Blur(2.0)),
            (Noise(8.0), Noise(16.0)),
            (Rescale(128), Rescale(64)),
            (Jpeg(60), Jpeg(30)),
            (Crop(0.05), Crop(0.10)),
            (Rotate(5.0), Rotate(10.0)),
            (Rotate(-5.0), Rotate(-10.0)),
        ] {
            assert!(mean_change(weak) < mean_change(strong), "{weak:?} {strong:?}");
        }
        assert!(mean_change(Perturbation::TwelveBits) < 1.0, "a bit depth is no change of the picture");
    }

    #[test]
    fn masks_hide_what_they_say_and_nothing_else() {
        let (before, border) = changed(Perturbation::BorderAlone);
        let (_, centre) = changed(Perturbation::CentreAlone);
        let hidden = |after: &[u8], at: usize| after[at] == after[N / 2 * N + N / 2];
        let mut inside = 0;
        for at in 0..N * N {
            if inner(at / N) && inner(at % N) {
                inside += 1;
                assert!(hidden(&border, at));
                assert_eq!(centre[at], before[at]);
            } else {
                assert_eq!(border[at], before[at]);
                assert_eq!(centre[at], centre[0]);
            }
        }
        assert!((inside as f64 / (N * N) as f64 - 0.64).abs() < 0.01, "the square is 64 % of the area");
        let (_, corners) = changed(Perturbation::MarkersMasked);
        assert_eq!((corners[0], corners[N / 2]), (corners[N * N - 1], before[N / 2]));
    }

    #[test]
    fn upside_down_and_inverted_are_what_they_say() {
        let (before, turned) = changed(Perturbation::UpsideDown);
        let (_, inverted) = changed(Perturbation::Inverted);
        assert!((0..N * N).all(|at| turned[at] == before[N * N - 1 - at] && inverted[at] == 255 - before[at]));
    }

    #[test]
    fn a_positive_angle_turns_clockwise() {
        let mut x = vec![0.0; N * N];
        // A spot above the centre moves to the right.
        x[30 * N + N / 2] = 255.0;
        let turned = warp(&x, 10.0, 1.0);
        let column = |x: &[f32]| x.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).unwrap().0 % N;
        assert!(column(&turned) > N / 2 + 5);
    }
}
