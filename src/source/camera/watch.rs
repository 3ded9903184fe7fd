//! Whether what the camera sees stands still: nothing moves, and the focus has settled, over a window of time. Not what it
//! is.

use super::grey::{Grey, Plane, quantile};
use std::time::{Duration, Instant};

/// The longer side of the picture that is looked at.
const SMALL: usize = 200;
/// Cells, along and down, whose means are compared.
const CELLS: (usize, usize) = (40, 30);
/// By how much, of full white, a cell must change to have moved.
const CHANGE: f32 = 0.035;
/// How many cells may change: flicker, a clock in a corner.
const FEW: usize = 5;
/// By which factor detail may change: more, and the camera is still focusing.
const FOCUS: f64 = 1.3;
/// A window has at least so many looks.
const LOOKS: u32 = 4;

/// What a look has shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scene {
    /// Something moves, or did a moment ago.
    Moving,
    /// Nothing has moved for as long as is asked.
    Still,
}

/// Compares looks.
#[derive(Debug)]
pub struct Watch {
    still_for: Duration,
    /// What the window began with.
    first: Option<Look>,
    /// How many looks the window has.
    looks: u32,
    /// The least and the greatest detail in it.
    detail: (f64, f64),
}

#[derive(Debug)]
struct Look {
    at: Instant,
    cells: Plane,
}

impl Watch {
    /// Nothing counts as still that has not been so for this long.
    pub fn new(still_for: Duration) -> Self {
        Self { still_for, first: None, looks: 0, detail: (0.0, 0.0) }
    }

    /// Forgets what was seen: there was a gap.
    pub fn forget(&mut self) {
        self.first = None;
    }

    /// Looks at a frame.
    pub fn look(&mut self, frame: &Grey, at: Instant) -> Scene {
        let small = frame.reduced(frame.factor_for(SMALL)).smoothed();
        let (cells, detail) = (small.cells(CELLS.0, CELLS.1), detail(&small));
        if let Some(first) = &self.first {
            let (least, most) = (self.detail.0.min(detail), self.detail.1.max(detail));
            if !has_changed(&first.cells, &cells) && most <= FOCUS * least + 1e-7 {
                self.detail = (least, most);
                self.looks += 1;
                let since = at.saturating_duration_since(first.at);
                return if since >= self.still_for && self.looks >= LOOKS { Scene::Still } else { Scene::Moving };
            }
        }
        self.first = Some(Look { at, cells });
        (self.looks, self.detail) = (1, (detail, detail));
        Scene::Moving
    }
}

/// Whether more than a few cells differ, exposure aside.
fn has_changed(before: &Plane, now: &Plane) -> bool {
    if before.levels.len() != now.levels.len() {
        return true;
    }
    let ratios = before.levels.iter().zip(&now.levels).map(|(before, now)| (before + 0.01) / (now + 0.01));
    // Another exposure changes all alike, to a part; a lamp that was switched off is a change.
    let gain = quantile(&mut ratios.collect::<Vec<f32>>(), 0.5).clamp(0.9, 1.1);
    let changed = before.levels.iter().zip(&now.levels).filter(|(before, now)| (*before - *now * gain).abs() > CHANGE);
    changed.count() > FEW
}

/// The mean square of what neighbours differ by.
fn detail(plane: &Plane) -> f64 {
    let differences = plane.levels.chunks_exact(plane.width).flat_map(|line| line.windows(2));
    differences.map(|pair| f64::from(pair[1] - pair[0]).powi(2)).sum::<f64>() / plane.levels.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame with a dark square whose left edge is at `at`, as bright as `light` says, out of focus by `blur` pixels,
    /// with noise of its own.
    fn frame(at: f64, light: f64, blur: f64, seed: u32) -> Grey {
        let mut state = seed;
        let levels = (0..320 * 240).map(|index| {
            let (x, y) = (f64::from(index % 320), f64::from(index / 320));
            let edge = |from: f64, to: f64, value: f64| {
                ((value - from) / blur + 0.5).clamp(0.0, 1.0) * ((to - value) / blur + 0.5).clamp(0.0, 1.0)
            };
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let noise = f64::from(state >> 16) / 65536.0 - 0.5;
            let level = light * (0.85 - 0.7 * edge(at, at + 120.0, x) * edge(60.0, 190.0, y)) + 0.04 * noise;
            (level.clamp(0.0, 1.0) * 65535.0) as u16
        });
        Grey::new(320, 240, levels.collect()).unwrap()
    }

    /// What each of these frames shows, a quarter of a second apart.
    fn scenes(frames: impl IntoIterator<Item = Grey>) -> Vec<Scene> {
        let mut watch = Watch::new(Duration::from_millis(1000));
        let start = Instant::now();
        let frames = frames.into_iter().enumerate();
        frames.map(|(number, frame)| watch.look(&frame, start + Duration::from_millis(250) * number as u32)).collect()
    }

    #[test]
    fn still_is_what_has_not_moved_for_a_second_noise_and_exposure_aside() {
        let quiet = scenes((0..8).map(|seed| frame(90.0, 1.0 - 0.005 * f64::from(seed), 2.0, seed)));
        assert_eq!(quiet[..4], [Scene::Moving; 4]);
        assert_eq!(quiet[4..], [Scene::Still; 4]);
    }

    #[test]
    fn what_moves_even_slowly_is_not_still() {
        for speed in [1.0, 3.0, 20.0] {
            let moving = scenes((0..8).map(|seed| frame(60.0 + speed * f64::from(seed), 1.0, 2.0, seed)));
            assert_eq!(moving, [Scene::Moving; 8], "{speed} pixels a look");
        }
        // One that comes to rest is still a second later.
        let resting = scenes((0..10).map(|seed| frame(60.0 + 10.0 * f64::from(seed.min(3)), 1.0, 2.0, seed)));
        assert_eq!(resting[..7], [Scene::Moving; 7]);
        assert_eq!(resting[7..], [Scene::Still; 3]);
    }

    #[test]
    fn a_lens_that_looks_for_its_focus_is_not_still() {
        let focusing = scenes((0..8).map(|seed| frame(90.0, 1.0, 12.0 / f64::from(seed + 1), seed)));
        assert!(focusing[..6].iter().all(|scene| *scene == Scene::Moving), "{focusing:?}");
    }

    #[test]
    fn a_gap_begins_anew() {
        let mut watch = Watch::new(Duration::ZERO);
        let at = Instant::now();
        for _ in 0..3 {
            assert_eq!(watch.look(&frame(90.0, 1.0, 2.0, 1), at), Scene::Moving);
        }
        assert_eq!(watch.look(&frame(90.0, 1.0, 2.0, 1), at), Scene::Still);
        watch.forget();
        assert_eq!(watch.look(&frame(90.0, 1.0, 2.0, 1), at), Scene::Moving);
    }
}
