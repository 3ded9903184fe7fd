//! Illumination: how bright the light box is behind each part of the film, from a picture of it empty or else from what is
//! seen of it around the film. Not the film's own contrast.
//!
//! Levels are divided by it: cameras store about the 2.2th root of the light, and the quotient of two roots is the root of
//! the quotient, so that nothing need be known about the camera.

use super::find::{Found, Surround};
use super::grey::{Grey, Plane, Point, quantile};
use super::rectify::Perspective;
use image::{ImageBuffer, ImageFormat, ImageReader, Luma};
use std::io::Cursor;

/// The longer side of a reference picture as it is kept.
const SIDE: usize = 320;
/// Terms of a surface of second order.
const TERMS: usize = 6;
/// Most bytes that a kept reference picture can have.
pub(super) const MAX_BYTES: u64 = 4 << 20;
/// A light box is at least so bright, of 1, or it is off or somewhere else.
const LEAST_LIGHT: f32 = 0.15;
/// Nothing of a light box is darker than its brightest part by more than this factor.
const MOST_UNEVEN: f32 = 4.0;
/// Of 1600 places in the picture so many at least must be light box.
const LEAST_LIT: usize = 500;
/// Where levels (their logarithms) lie so near a smooth surface there is nothing but light.
const EVEN: f64 = 0.1;

/// How bright the light box is, place by place.
#[derive(Debug, Clone, PartialEq)]
pub enum Light {
    /// As the picture of the empty box says.
    Reference(Plane),
    /// As a surface says that fits what is seen of it: coefficients of the logarithm, for places −1..1.
    Surface([f64; TERMS]),
    /// The same everywhere: nothing is known.
    Even,
}

impl Light {
    /// From a frame of the empty light box; refused, in words, where it is none.
    pub fn of_empty(frame: &Grey) -> Result<Self, String> {
        if super::find::find(frame).is_some_and(|found| found.surround == Surround::Lit) {
            return Err("something lies on the light box: take everything off, and try again".into());
        }
        let plane = frame.reduced(frame.factor_for(SIDE)).averaged(3);
        let high = plane.quantile(0.99);
        if high < LEAST_LIGHT {
            return Err("the picture is dark: switch the light box on, and try again".into());
        }
        // The room around the light box does no harm: no film lies there.
        let places = (0..40).flat_map(|row| (0..40).map(move |column| (column, row)));
        let place = |(column, row): (u32, u32)| {
            let share = |at: u32, length: usize| (f64::from(at) + 0.5) / 40.0 * length as f64;
            Point::new(share(column, frame.width()), share(row, frame.height()))
        };
        let lit: Vec<Point> = places.map(place).filter(|&point| frame.at(point) * MOST_UNEVEN > high).collect();
        if lit.len() < LEAST_LIT {
            return Err(
                "the light box is only a small part of the picture: move the camera closer, and try again".into()
            );
        }
        if evenness(frame, &lit, EVEN) < 0.85 {
            return Err(
                "something lies on the light box or is reflected in it: see `roentgend camera preview`, and try \
                        again"
                    .into(),
            );
        }
        Ok(Self::Reference(plane))
    }

    /// From what is seen of the light box around the film.
    pub fn around(frame: &Grey, found: &Found) -> Self {
        if found.surround == Surround::Dark {
            return Self::Even;
        }
        surface(frame, found).map_or(Self::Even, Self::Surface)
    }

    /// As a smooth surface says that goes through most of these places.
    pub(super) fn through(frame: &Grey, places: &[Point]) -> Option<Self> {
        let size = (frame.width() as f64, frame.height() as f64);
        robust(samples(frame, places), size).map(Self::Surface)
    }

    /// How bright it is behind a place of a frame of this size; 1 where nothing is known.
    pub fn at(&self, frame: &Grey, point: Point) -> f32 {
        let (width, height) = (frame.width() as f64, frame.height() as f64);
        match self {
            Self::Reference(plane) => {
                let place = Point::new(point.x / width * plane.width as f64, point.y / height * plane.height as f64);
                plane.at(place).max(0.02)
            }
            Self::Surface(surface) => {
                let terms = terms(point.x / width * 2.0 - 1.0, point.y / height * 2.0 - 1.0);
                let logarithm: f64 = terms.iter().zip(surface).map(|(term, coefficient)| term * coefficient).sum();
                logarithm.clamp(-4.0, 1.0).exp() as f32
            }
            Self::Even => 1.0,
        }
    }

    /// By how much brighter than the reference picture says the light box is around the film; 1 where that is not seen.
    pub fn gain(&self, frame: &Grey, found: &Found) -> f32 {
        if !matches!(self, Self::Reference(_)) {
            return 1.0;
        }
        let Some(places) = around(frame, found) else { return 1.0 };
        let mut ratios: Vec<f32> = places.into_iter().map(|point| frame.at(point) / self.at(frame, point)).collect();
        // Hands and the room are darker.
        quantile(&mut ratios, 0.6).clamp(0.2, 5.0)
    }

    /// A reference picture as PNG; `None` for what is none.
    pub fn to_png(&self) -> Option<Vec<u8>> {
        let Self::Reference(plane) = self else { return None };
        let levels = plane.levels.iter().map(|level| (level.clamp(0.0, 1.0) * 65535.0).round() as u16).collect();
        let (width, height) = (u32::try_from(plane.width).ok()?, u32::try_from(plane.height).ok()?);
        let image: ImageBuffer<Luma<u16>, Vec<u16>> = ImageBuffer::from_raw(width, height, levels)?;
        let mut png = Cursor::new(Vec::new());
        image.write_to(&mut png, ImageFormat::Png).ok()?;
        Some(png.into_inner())
    }

    /// The reference picture of a PNG that [`Self::to_png`] has made.
    pub fn from_png(png: &[u8]) -> Option<Self> {
        let mut reader = ImageReader::with_format(Cursor::new(png), ImageFormat::Png);
        let mut limits = image::Limits::default();
        (limits.max_image_width, limits.max_image_height) = (Some(SIDE as u32), Some(SIDE as u32));
        reader.limits(limits);
        let image = reader.decode().ok()?.into_luma16();
        let (width, height) = (image.width() as usize, image.height() as usize);
        let levels: Vec<f32> = image.into_raw().into_iter().map(|level| f32::from(level) / 65535.0).collect();
        (!levels.is_empty()).then_some(Self::Reference(Plane { width, height, levels }))
    }
}

fn terms(x: f64, y: f64) -> [f64; TERMS] {
    [1.0, x, y, x * x, x * y, y * y]
}

/// Places around the film that are in view: rings, each a part of its side further out.
fn around(frame: &Grey, found: &Found) -> Option<Vec<Point>> {
    let perspective = Perspective::onto(&found.corners)?;
    let (width, height) = (frame.width() as f64, frame.height() as f64);
    let is_seen = |point: &Point| (0.0..width).contains(&point.x) && (0.0..height).contains(&point.y);
    let rings = [0.03, 0.05, 0.08, 0.11, 0.15, 0.2];
    let ring = |out: f64| {
        (0..48).flat_map(move |place| {
            let along = -out + (1.0 + 2.0 * out) * f64::from(place) / 47.0;
            [(along, -out), (along, 1.0 + out), (-out, along), (1.0 + out, along)]
        })
    };
    Some(rings.into_iter().flat_map(ring).map(|(u, v)| perspective.at(u, v)).filter(is_seen).collect())
}

/// The surface of second order that fits the logarithm of what is seen of the light box around the film.
fn surface(frame: &Grey, found: &Found) -> Option<[f64; TERMS]> {
    let (width, height) = (frame.width() as f64, frame.height() as f64);
    let mut samples = samples(frame, &around(frame, found)?);
    let mut levels: Vec<f32> = samples.iter().map(|(_, level)| *level as f32).collect();
    let lit = f64::from(quantile(&mut levels, 0.6));
    // What is much darker is the room, or a hand.
    samples.retain(|(_, level)| *level > lit - 0.5);
    // A light box that is seen on one side only says nothing about the others.
    let middle = Perspective::onto(&found.corners)?.at(0.5, 0.5);
    let sides = [
        samples.iter().any(|(point, _)| point.x < middle.x),
        samples.iter().any(|(point, _)| point.x > middle.x),
        samples.iter().any(|(point, _)| point.y < middle.y),
        samples.iter().any(|(point, _)| point.y > middle.y),
    ];
    if samples.len() < 60 || sides.contains(&false) {
        return None;
    }
    robust(samples, (width, height))
}

/// The share of these places whose level lies within `most` (of logarithms) of a smooth surface through most of them: near 1
/// for a light box without anything on it. 0 where there are too few.
pub(super) fn evenness(frame: &Grey, places: &[Point], most: f64) -> f64 {
    let size = (frame.width() as f64, frame.height() as f64);
    let samples = samples(frame, places);
    let Some(surface) = robust(samples.clone(), size) else { return 0.0 };
    let near = samples.iter().filter(|sample| off(&surface, sample, size) < most).count();
    near as f64 / samples.len().max(1) as f64
}

/// Places with the logarithm of their level.
fn samples(frame: &Grey, places: &[Point]) -> Vec<(Point, f64)> {
    places.iter().map(|&point| (point, f64::from(frame.at(point).max(1e-3)).ln())).collect()
}

/// How far a sample lies from a surface.
fn off(surface: &[f64; TERMS], (point, level): &(Point, f64), (width, height): (f64, f64)) -> f64 {
    let terms = terms(point.x / width * 2.0 - 1.0, point.y / height * 2.0 - 1.0);
    (terms.iter().zip(surface).map(|(term, coefficient)| term * coefficient).sum::<f64>() - level).abs()
}

/// The surface through most of these; those that lie far from it have no say.
fn robust(mut samples: Vec<(Point, f64)>, size: (f64, f64)) -> Option<[f64; TERMS]> {
    let mut surface = None;
    for _ in 0..4 {
        let now = fitted(&samples, size)?;
        surface = Some(now);
        let mut all: Vec<f32> = samples.iter().map(|sample| off(&now, sample, size) as f32).collect();
        let limit = 4.0 * f64::from(quantile(&mut all, 0.5)).max(0.005);
        let kept: Vec<(Point, f64)> =
            samples.iter().filter(|sample| off(&now, sample, size) < limit).copied().collect();
        if kept.len() < 60 {
            break;
        }
        samples = kept;
    }
    surface
}

/// The surface of least squares.
fn fitted(samples: &[(Point, f64)], (width, height): (f64, f64)) -> Option<[f64; TERMS]> {
    let mut matrix = [[0.0; TERMS + 1]; TERMS];
    for (point, level) in samples {
        let terms = terms(point.x / width * 2.0 - 1.0, point.y / height * 2.0 - 1.0);
        for row in 0..TERMS {
            for column in 0..TERMS {
                matrix[row][column] += terms[row] * terms[column];
            }
            matrix[row][TERMS] += terms[row] * level;
        }
    }
    // Where the samples do not settle a curve, it is none.
    for (row, line) in matrix.iter_mut().enumerate().skip(1) {
        line[row] += 1e-4 * samples.len() as f64;
    }
    solved(matrix)
}

/// The solution of linear equations: each row's coefficients, and what they must give.
fn solved(mut rows: [[f64; TERMS + 1]; TERMS]) -> Option<[f64; TERMS]> {
    for step in 0..TERMS {
        let pivot = (step..TERMS).max_by(|&a, &b| rows[a][step].abs().total_cmp(&rows[b][step].abs()))?;
        rows.swap(step, pivot);
        if rows[step][step].abs() < 1e-12 {
            return None;
        }
        let line = rows[step];
        for (_, other) in rows.iter_mut().enumerate().filter(|(index, _)| *index != step) {
            let factor = other[step] / line[step];
            other.iter_mut().zip(line).for_each(|(value, own)| *value -= factor * own);
        }
    }
    Some(std::array::from_fn(|row| rows[row][TERMS] / rows[row][row]))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A light box that is darker towards its corners.
    fn glow(x: f64, y: f64) -> f64 {
        0.85 * (1.0 - 0.25 * ((x - 0.45).powi(2) + (y - 0.6).powi(2)))
    }

    fn frame(level: impl Fn(f64, f64) -> f64) -> Grey {
        let levels = (0..200 * 150).map(|index| {
            let (x, y) = ((f64::from(index % 200) + 0.5) / 200.0, (f64::from(index / 200) + 0.5) / 150.0);
            (level(x, y).clamp(0.0, 1.0) * 65535.0) as u16
        });
        Grey::new(200, 150, levels.collect()).unwrap()
    }

    fn film() -> Found {
        let corners = [(60.0, 40.0), (140.0, 42.0), (138.0, 118.0), (58.0, 116.0)].map(|(x, y)| Point::new(x, y));
        Found { corners, surround: Surround::Lit, edge: 1.0 }
    }

    #[test]
    fn the_light_behind_the_film_is_told_from_what_is_around_it() {
        // A film of one level, a hand at the right, dark.
        let seen = frame(|x, y| {
            let light = glow(x, y);
            if (0.3..0.7).contains(&x) && (0.27..0.79).contains(&y) {
                0.3 * light
            } else if x > 0.85 && y > 0.5 {
                0.2
            } else {
                light
            }
        });
        let light = Light::around(&seen, &film());
        for (x, y) in [(0.32, 0.3), (0.5, 0.5), (0.68, 0.75), (0.35, 0.7)] {
            let level = f64::from(light.at(&seen, Point::new(x * 200.0, y * 150.0)));
            assert!((level / glow(x, y) - 1.0).abs() < 0.03, "{x} {y}: {level} and not {}", glow(x, y));
        }
        let dark = Found { surround: Surround::Dark, ..film() };
        assert_eq!(Light::around(&seen, &dark), Light::Even);
    }

    #[test]
    fn a_reference_picture_is_kept_and_read_again() {
        let empty = frame(glow);
        let light = Light::of_empty(&empty).unwrap();
        let again = Light::from_png(&light.to_png().unwrap()).unwrap();
        for (x, y) in [(0.1, 0.1), (0.5, 0.5), (0.9, 0.3)] {
            let level = f64::from(again.at(&empty, Point::new(x * 200.0, y * 150.0)));
            assert!((level / glow(x, y) - 1.0).abs() < 0.02, "{x} {y}: {level}");
        }
        assert_eq!(Light::from_png(b"no picture"), None);
        assert_eq!(Light::Even.to_png(), None);
    }

    #[test]
    fn what_is_no_empty_light_box_is_refused_with_what_to_do() {
        let error = |level: &dyn Fn(f64, f64) -> f64| Light::of_empty(&frame(level)).unwrap_err();
        assert!(error(&|_, _| 0.05).contains("switch the light box on"));
        assert!(error(&|x, _| if x < 0.8 { 0.05 } else { 0.9 }).contains("move the camera closer"));
        let stripes = |x: f64, _: f64| if (x * 10.0).fract() < 0.5 { 0.5 } else { 0.9 };
        assert!(error(&stripes).contains("something lies"));
        assert!(Light::of_empty(&frame(|x, y| if x < 0.1 { 0.05 } else { glow(x, y) })).is_ok());
        let film = |x: f64, y: f64| (0.3..0.7).contains(&x) && (0.27..0.79).contains(&y);
        assert!(error(&|x, y| if film(x, y) { 0.1 + 0.4 * x } else { 0.9 }).contains("take everything off"));
    }
}
