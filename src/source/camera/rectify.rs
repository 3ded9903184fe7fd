//! Perspective: a film that a camera saw slantwise, as if it had looked straight at it. Not where the film is.

use super::grey::{Grey, Point};

/// The longest side of a picture that is made.
const MOST: usize = 2048;

/// A plane seen in perspective: from the unit square to any four-sided convex shape (Heckbert 1989, 2.2.3).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Perspective {
    x: [f64; 3],
    y: [f64; 3],
    depth: [f64; 2],
}

impl Perspective {
    /// The one that takes the unit square's corners to these, from the upper left clockwise; `None` where three of them lie
    /// in a line.
    pub fn onto(corners: &[Point; 4]) -> Option<Self> {
        let [a, b, c, d] = *corners;
        let (right, left) = ((b.x - c.x, b.y - c.y), (d.x - c.x, d.y - c.y));
        let sum = (a.x - b.x + c.x - d.x, a.y - b.y + c.y - d.y);
        let determinant = right.0 * left.1 - left.0 * right.1;
        if !determinant.is_normal() {
            return None;
        }
        let g = (sum.0 * left.1 - left.0 * sum.1) / determinant;
        let h = (right.0 * sum.1 - sum.0 * right.1) / determinant;
        Some(Self {
            x: [b.x - a.x + g * b.x, d.x - a.x + h * d.x, a.x],
            y: [b.y - a.y + g * b.y, d.y - a.y + h * d.y, a.y],
            depth: [g, h],
        })
    }

    /// Where a point of the unit square is seen.
    pub fn at(&self, u: f64, v: f64) -> Point {
        let depth = self.depth[0] * u + self.depth[1] * v + 1.0;
        let of = |row: &[f64; 3]| (row[0] * u + row[1] * v + row[2]) / depth;
        Point::new(of(&self.x), of(&self.y))
    }
}

/// What lies within the corners, seen straight on: levels 0..=1 row by row as `level` gives them for a place in the frame,
/// with columns and rows. `rim` pixels at each side are left out: there the surround shines in.
///
/// It has about as many pixels as the frame has there. Its proportions are those of the mean sides: those of the film itself
/// would need the camera's lens, and the network sees every picture as a square.
pub fn straightened(
    frame: &Grey,
    corners: &[Point; 4],
    rim: f64,
    level: impl Fn(&Grey, Point) -> f32,
) -> Option<(usize, usize, Vec<f32>)> {
    let perspective = Perspective::onto(corners)?;
    let [a, b, c, d] = *corners;
    let side = |first: f64, second: f64| ((first + second) / 2.0).round().clamp(1.0, MOST as f64) as usize;
    let (width, height) = (side(a.distance(b), d.distance(c)), side(a.distance(d), b.distance(c)));
    // Where four pixels of the frame become one, four are asked.
    let coarse = (a.distance(b).max(a.distance(d)) / MOST as f64).ceil().clamp(1.0, 8.0) as usize;
    let (rim_x, rim_y) = ((rim / width as f64).min(0.2), (rim / height as f64).min(0.2));
    let place = |index: usize, inner: usize, length: usize, rim: f64| {
        let share = (index as f64 + (inner as f64 + 0.5) / coarse as f64) / length as f64;
        rim + share * (1.0 - 2.0 * rim)
    };
    let mut levels = Vec::with_capacity(width * height);
    for row in 0..height {
        for column in 0..width {
            let mut sum = 0.0;
            for down in 0..coarse {
                for along in 0..coarse {
                    let (u, v) = (place(column, along, width, rim_x), place(row, down, height, rim_y));
                    sum += level(frame, perspective.at(u, v));
                }
            }
            levels.push(sum / (coarse * coarse) as f32);
        }
    }
    Some((width, height, levels))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: [Point; 4] =
        [Point::new(12.0, 8.0), Point::new(80.0, 15.0), Point::new(70.0, 66.0), Point::new(5.0, 52.0)];

    #[test]
    fn corners_go_to_corners_and_lines_stay_lines() {
        let perspective = Perspective::onto(&SHAPE).unwrap();
        for ((u, v), corner) in [(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)].into_iter().zip(SHAPE) {
            assert!(perspective.at(u, v).distance(corner) < 1e-9);
        }
        let (a, b, c) = (perspective.at(0.1, 0.2), perspective.at(0.5, 0.5), perspective.at(0.9, 0.8));
        let turn = (b.x - a.x) * (c.y - b.y) - (b.y - a.y) * (c.x - b.x);
        assert!(turn.abs() < 1e-9 * a.distance(c).powi(2));
        assert!(Perspective::onto(&[Point::new(1.0, 1.0); 4]).is_none());
    }

    #[test]
    fn a_ramp_seen_slantwise_comes_out_straight() {
        // Every pixel of the frame says which part of the film it shows.
        let perspective = Perspective::onto(&SHAPE).unwrap();
        let nearest = |x: f64, y: f64| {
            let (mut best, mut share) = (f64::INFINITY, 0.0);
            for u in 0..=200 {
                for v in 0..=20 {
                    let (u, v) = (f64::from(u) / 200.0, f64::from(v) / 20.0);
                    let far = perspective.at(u, v).distance(Point::new(x, y));
                    if far < best {
                        (best, share) = (far, u);
                    }
                }
            }
            share
        };
        let levels = (0..90 * 75).map(|index| {
            let (x, y) = ((index % 90) as f64 + 0.5, (index / 90) as f64 + 0.5);
            (nearest(x, y) * 60000.0) as u16
        });
        let frame = Grey::new(90, 75, levels.collect()).unwrap();
        let (width, height, levels) = straightened(&frame, &SHAPE, 2.0, |frame, point| frame.at(point)).unwrap();
        assert_eq!((width, height), (67, 48));
        for (index, level) in levels.iter().enumerate() {
            let column = (index % width) as f64 + 0.5;
            let share = 2.0 / 67.0 + column / 67.0 * (1.0 - 4.0 / 67.0);
            assert!((f64::from(*level) * 65535.0 / 60000.0 - share).abs() < 0.03, "{index}");
        }
    }
}
