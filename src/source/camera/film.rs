//! From a frame to the radiograph that lies there: found, straightened, evenly lit, or why not. And what tells one film from
//! another. Not the judgement of it: see `assess`.

use super::cover::is_covered;
use super::find::{Found, Surround, find};
use super::flatten::Light;
use super::grey::{Grey, Plane, Point, quantile};
use super::rectify::straightened;
use image::{ImageBuffer, ImageFormat, Luma};
use serde::{Deserialize, Serialize};
use std::io::Cursor;

/// Pixels that the shorter side of a film must have in the frame: what the network reads.
pub const LEAST_SIDE: f64 = 224.0;
/// The longest that an edge may be, of the film's shorter side: blur of two pixels of what the network reads.
const MOST_BLUR: f64 = 0.025;
/// The share of a film that may be as bright as the light box itself.
const MOST_GLARE: f64 = 0.03;
/// The same of a radiograph on a screen, which may hold white.
const MOST_WHITE: f64 = 0.15;
/// The shares of the darkest and the brightest levels that are lost when contrast is spread: specks, and at the bright end a
/// finger or a reflection, which must not squeeze the film's own contrast. On drawn scenes 0.002 at the bright end cost 3
/// labels in 100.
const CLIPPED: (f64, f64) = (0.002, 0.01);

/// A radiograph that a camera saw.
#[derive(Debug, Clone, PartialEq)]
pub struct Film {
    /// The radiograph, straight and evenly lit; black to white.
    pub picture: Grey,
    /// Where it lay.
    pub found: Found,
    /// What tells it from others.
    pub print: Print,
}

/// Why a frame gives no radiograph.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum NoFilm {
    /// There is none, or not all of it is in view.
    #[error(
        "no film is seen: lay it on the light box so that all four edges are in view with light around them (see \
         `roentgend camera preview`)"
    )]
    Nothing,
    /// Something lies there, and it has not four edges in view.
    #[error(
        "something lies on the light box in which no film with four edges is seen: lay one film at a time so that there is \
         light all around it, and take away what covers its edges (see `roentgend camera preview`)"
    )]
    Unclear,
    /// It is too far away.
    #[error("the film has only {0:.0} pixels from side to side, and {LEAST_SIDE} are needed: move the camera closer")]
    TooSmall(f64),
    /// It is out of focus, or shakes.
    #[error("the film is blurred: focus the camera, and see that it stands firm")]
    Blurred,
    /// Something shines in it.
    #[error("light shines on {0:.0} % of the film: shade it from lamps and windows, or lower the exposure")]
    Glare(f64),
}

/// Makes a radiograph of a frame. Without a reference picture the light is told from what is seen around the film.
pub fn develop(frame: &Grey, reference: Option<&Light>) -> Result<Film, NoFilm> {
    let found = find(frame).ok_or_else(|| match is_covered(frame, reference) {
        true => NoFilm::Unclear,
        false => NoFilm::Nothing,
    })?;
    develop_at(frame, reference, found)
}

/// The same where it is known where the film lies.
pub fn develop_at(frame: &Grey, reference: Option<&Light>, found: Found) -> Result<Film, NoFilm> {
    let (width, height) = found.size();
    let side = width.min(height);
    if side < LEAST_SIDE {
        return Err(NoFilm::TooSmall(side));
    }
    if found.edge > MOST_BLUR * side {
        return Err(NoFilm::Blurred);
    }
    let estimated;
    // A screen has its own light, and so hides the light box's.
    let light = match reference.filter(|_| found.surround == Surround::Lit) {
        Some(reference) => reference,
        None => {
            estimated = Light::around(frame, &found);
            &estimated
        }
    };
    let rim = found.edge.max(1.0) + 1.0;
    // A camera exposes longer when a dark film covers most of the light.
    let gain = light.gain(frame, &found);
    let passed = |frame: &Grey, point: Point| frame.at(point) / (light.at(frame, point) * gain);
    let (width, height, levels) = straightened(frame, &found.corners, rim, passed).ok_or(NoFilm::Nothing)?;
    let glare = glare(frame, &found, &levels, light);
    let most = if found.surround == Surround::Lit { MOST_GLARE } else { MOST_WHITE };
    if glare > most {
        return Err(NoFilm::Glare(100.0 * glare));
    }
    let picture = spread(width, height, &levels).ok_or(NoFilm::Nothing)?;
    let print = Print::of(&picture);
    Ok(Film { picture, found, print })
}

/// The share of a film that is as bright as nothing but a lamp can be: no film is as clear as no film.
fn glare(frame: &Grey, found: &Found, levels: &[f32], light: &Light) -> f64 {
    let white = match (found.surround, light) {
        (Surround::Dark, _) | (_, Light::Even) => frame.reduced(2).quantile(0.999).max(0.9) * 0.99,
        _ => 0.99,
    };
    levels.iter().filter(|&&level| level >= white).count() as f64 / levels.len().max(1) as f64
}

/// Spreads levels over all that there are. What is lost at the ends is a speck and a reflection.
fn spread(width: usize, height: usize, levels: &[f32]) -> Option<Grey> {
    let mut sorted = levels.to_vec();
    let (low, high) = (quantile(&mut sorted, CLIPPED.0), quantile(&mut sorted, 1.0 - CLIPPED.1));
    let scale = 65535.0 / (high - low).max(1e-4);
    let levels = levels.iter().map(|level| ((level - low) * scale).clamp(0.0, 65535.0).round() as u16).collect();
    Grey::new(width, height, levels)
}

/// A picture as PNG, with 16 bits where there are more than 8.
pub fn encoded(picture: &Grey, is_deep: bool) -> Option<Vec<u8>> {
    let (width, height) = (u32::try_from(picture.width()).ok()?, u32::try_from(picture.height()).ok()?);
    let mut png = Cursor::new(Vec::new());
    if is_deep {
        let image: ImageBuffer<Luma<u16>, &[u16]> = ImageBuffer::from_raw(width, height, picture.levels())?;
        image.write_to(&mut png, ImageFormat::Png).ok()?;
    } else {
        let levels = picture.levels().iter().map(|&level| ((u32::from(level) + 128) / 257) as u8).collect();
        let image: ImageBuffer<Luma<u8>, Vec<u8>> = ImageBuffer::from_raw(width, height, levels)?;
        image.write_to(&mut png, ImageFormat::Png).ok()?;
    }
    Some(png.into_inner())
}

/// How much detail there is within these corners: to compare frames of one film, the sharpest of which has most.
pub fn sharpness(frame: &Grey, corners: &[Point; 4]) -> f64 {
    let bound = |least: bool, of: &dyn Fn(&Point) -> f64, most: usize| {
        let all = corners.iter().map(of);
        let at = if least { all.fold(f64::INFINITY, f64::min) } else { all.fold(0.0, f64::max) };
        (at.max(0.0) as usize).min(most)
    };
    let (left, right) = (bound(true, &|p| p.x, frame.width()), bound(false, &|p| p.x, frame.width()));
    let (top, bottom) = (bound(true, &|p| p.y, frame.height()), bound(false, &|p| p.y, frame.height()));
    let level = |row: usize, column: usize| f64::from(frame.levels()[row * frame.width() + column]) / 65535.0;
    let mut sum = 0.0;
    // Over two pixels: the noise of neighbours says nothing about focus.
    for row in (top..bottom.saturating_sub(2)).step_by(2) {
        for column in left..right.saturating_sub(2) {
            let here = level(row, column);
            sum += (level(row, column + 2) - here).powi(2) + (level(row + 2, column) - here).powi(2);
        }
    }
    sum / ((bottom - top).max(1) * (right - left).max(1)) as f64
}

/// Cells along either side of a print.
const CELLS: usize = 40;
/// How far around a cell its surround reaches.
const REACH: usize = 4;
/// How alike two prints of one film are at least, −1..=1. On 240 scenes as tests/camera_scenes.rs draws them those of one
/// film were 0.95 or more, those of two films (all pairs) 0.84 or less.
const ALIKE: f64 = 0.88;
/// The same of a quarter of them, where something may lie over the edge.
const PARTLY_ALIKE: f64 = 0.8;

/// What tells one film from another: where it is brighter or darker than around, on 40 × 40 cells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Print(Vec<i8>);

impl Print {
    /// Of a radiograph, straight and evenly lit.
    pub fn of(picture: &Grey) -> Self {
        Self::of_plane(&picture.reduced(1))
    }

    fn of_plane(picture: &Plane) -> Self {
        let cells = picture.cells(CELLS, CELLS);
        let around = cells.averaged(REACH);
        let detail: Vec<f32> = cells.levels.iter().zip(&around.levels).map(|(cell, around)| cell - around).collect();
        let mut strengths: Vec<f32> = detail.iter().map(|value| value.abs()).collect();
        let scale = 40.0 / quantile(&mut strengths, 0.75).max(1e-4);
        Self(detail.into_iter().map(|value| (value * scale).clamp(-127.0, 127.0) as i8).collect())
    }

    /// Whether it has as many cells as every print.
    pub(super) fn is_sound(&self) -> bool {
        self.0.len() == CELLS * CELLS
    }

    /// How alike they are: 1 the same, 0 nothing in common.
    pub fn likeness(&self, other: &Self) -> f64 {
        likeness(self.0.iter().zip(&other.0))
    }

    /// Whether both are of one film.
    pub fn is_of_same(&self, other: &Self) -> bool {
        self.likeness(other) >= ALIKE
    }

    /// Whether a quarter of one film at least is seen in the other, the rest being covered.
    pub fn is_partly(&self, other: &Self) -> bool {
        self.quarters_likeness(other) >= PARTLY_ALIKE
    }

    /// How alike that quarter is which is most so.
    pub fn quarters_likeness(&self, other: &Self) -> f64 {
        let half = CELLS / 2;
        let quarter = |from_row: usize, from_column: usize| {
            let at = move |print: &Self, index: usize| {
                let (row, column) = (from_row + index / half, from_column + index % half);
                print.0.get(row * CELLS + column).copied().unwrap_or(0)
            };
            let pairs: Vec<(i8, i8)> = (0..half * half).map(|index| (at(self, index), at(other, index))).collect();
            likeness(pairs.iter().map(|(a, b)| (a, b)))
        };
        [(0, 0), (0, half), (half, 0), (half, half)]
            .into_iter()
            .map(|(row, column)| quarter(row, column))
            .fold(-1.0, f64::max)
    }
}

fn likeness<'a>(pairs: impl Iterator<Item = (&'a i8, &'a i8)>) -> f64 {
    let (mut product, mut first, mut second) = (0.0, 0.0, 0.0);
    for (&a, &b) in pairs {
        let (a, b) = (f64::from(a), f64::from(b));
        product += a * b;
        first += a * a;
        second += b * b;
    }
    if first > 0.0 && second > 0.0 { product / (first * second).sqrt() } else { 0.0 }
}

/// The print of what is seen now where a film lay, evenly lit or not: its details count, not its light.
pub fn print_at(frame: &Grey, corners: &[Point; 4]) -> Option<Print> {
    let (width, height, levels) = straightened(frame, corners, 2.0, |frame, point| frame.at(point))?;
    Some(Print::of_plane(&Plane { width, height, levels }))
}
