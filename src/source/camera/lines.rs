//! Straight edges in a picture: a Hough transform whose votes know from which side the light comes. Not which of them
//! enclose a film: see [`super::find`].

use super::grey::{Plane, Point};
use std::f64::consts::TAU;

/// Directions of edges; 1.5° apart.
const ANGLES: usize = 240;
/// An edge votes for so many directions on either side of its own: 6°.
const SPREAD: usize = 4;
/// Most lines that are kept.
const MOST: usize = 48;
/// An edge is at least this share of the picture's contrast a pixel, and beyond this counts no more than others.
const FAINT: f32 = 0.02;
const STRONG: f32 = 0.12;

/// A straight edge: all points whose product with the direction (cos angle, sin angle) is `offset`. It is brighter on the
/// side that the direction points to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Line {
    /// Where it is brighter, in radians from the right, clockwise as seen.
    pub(super) angle: f64,
    /// How far it is from the origin in that direction.
    pub(super) offset: f64,
}

impl Line {
    /// Where it meets another; `None` where they are parallel or nearly so.
    pub(super) fn meets(&self, other: &Line) -> Option<Point> {
        let ((sin, cos), (other_sin, other_cos)) = (self.angle.sin_cos(), other.angle.sin_cos());
        let determinant = cos * other_sin - sin * other_cos;
        (determinant.abs() > 0.1).then(|| Point {
            x: (self.offset * other_sin - other.offset * sin) / determinant,
            y: (other.offset * cos - self.offset * other_cos) / determinant,
        })
    }

    /// Whether a point lies on its darker side.
    pub(super) fn is_before(&self, point: Point) -> bool {
        point.x * self.angle.cos() + point.y * self.angle.sin() < self.offset
    }

    /// By how much it is turned against another, 0..2π.
    pub(super) fn turned_from(&self, other: &Line) -> f64 {
        (self.angle - other.angle).rem_euclid(TAU)
    }
}

/// The difference of the 98th and the 2nd percentile: what is black and white in this picture.
pub(super) fn contrast(plane: &Plane) -> f32 {
    plane.quantile(0.98) - plane.quantile(0.02)
}

/// The most marked straight edges, the longest and clearest first.
pub(super) fn lines(plane: &Plane) -> Vec<Line> {
    let (width, height) = (plane.width, plane.height);
    let contrast = contrast(plane);
    if width < 16 || height < 16 || contrast <= 0.0 {
        return Vec::new();
    }
    let gradients = Gradients::of(&plane.smoothed());
    let faint = (FAINT * contrast).max(2.5 * gradients.median());
    let diagonal = (width as f64).hypot(height as f64).ceil();
    let offsets = 2 * diagonal as usize + 3;
    let mut votes = vec![0.0f32; ANGLES * offsets];
    let directions: Vec<(f64, f64)> = (0..ANGLES).map(|angle| (angle as f64 / ANGLES as f64 * TAU).sin_cos()).collect();
    for row in 1..height - 1 {
        for column in 1..width - 1 {
            let (x, y) = gradients.at(column, row);
            let strength = x.hypot(y);
            if strength < faint || !gradients.is_ridge(column, row) {
                continue;
            }
            let weight = (strength / (STRONG * contrast)).min(1.0);
            let own = f64::from(y).atan2(f64::from(x)).rem_euclid(TAU) / TAU * ANGLES as f64;
            for turn in 0..=2 * SPREAD {
                let angle = (own.round() as usize + ANGLES + turn - SPREAD) % ANGLES;
                let (sin, cos) = directions[angle];
                let offset = (column as f64 + 0.5) * cos + (row as f64 + 0.5) * sin + diagonal + 1.0;
                votes[angle * offsets + (offset.round() as usize).min(offsets - 1)] += weight;
            }
        }
    }
    peaks(&votes, offsets, diagonal, 0.08 * width.min(height) as f32)
}

/// The greatest of the votes, each with its neighbourhood taken out.
fn peaks(votes: &[f32], offsets: usize, diagonal: f64, least: f32) -> Vec<Line> {
    // Edges are a pixel or two wide: a line has the votes of its neighbours too.
    let mut votes: Vec<f32> = (0..votes.len())
        .map(|index| {
            let side = |neighbour: Option<&f32>| neighbour.copied().unwrap_or(0.0);
            let before = index.checked_sub(1).and_then(|before| votes.get(before));
            votes[index] + 0.5 * (side(before) + side(votes.get(index + 1)))
        })
        .collect();
    let mut found = Vec::new();
    // Sorted once; what lies near a taken one is struck out.
    let mut order: Vec<usize> = (0..votes.len()).filter(|&index| votes[index] >= least).collect();
    order.sort_by(|&a, &b| votes[b].total_cmp(&votes[a]));
    for index in order {
        if found.len() >= MOST {
            break;
        }
        if votes[index] < least {
            continue;
        }
        let (angle, offset) = (index / offsets, index % offsets);
        let line = Line { angle: angle as f64 / ANGLES as f64 * TAU, offset: offset as f64 - diagonal - 1.0 };
        found.push(line);
        for turn in 0..=2 * SPREAD {
            let near = (angle + ANGLES + turn - SPREAD) % ANGLES;
            let from = offset.saturating_sub(5);
            let to = (offset + 6).min(offsets);
            votes[near * offsets + from..near * offsets + to].fill(0.0);
        }
    }
    found
}

/// Differences between neighbours, to the right and downwards.
struct Gradients {
    width: usize,
    both: Vec<(f32, f32)>,
}

impl Gradients {
    fn of(plane: &Plane) -> Self {
        let mut both = Vec::with_capacity(plane.levels.len());
        for row in 0..plane.height as isize {
            for column in 0..plane.width as isize {
                let x = plane.pixel(column + 1, row) - plane.pixel(column - 1, row);
                let y = plane.pixel(column, row + 1) - plane.pixel(column, row - 1);
                both.push((x / 2.0, y / 2.0));
            }
        }
        Self { width: plane.width, both }
    }

    fn at(&self, column: usize, row: usize) -> (f32, f32) {
        self.both[row * self.width + column]
    }

    /// Half of the pixels have a fainter one than this.
    fn median(&self) -> f32 {
        let mut strengths: Vec<f32> = self.both.iter().map(|(x, y)| x.hypot(*y)).collect();
        super::grey::quantile(&mut strengths, 0.5)
    }

    /// Whether the difference is as great here as at the neighbours across the edge. Not for the outermost pixels.
    fn is_ridge(&self, column: usize, row: usize) -> bool {
        let (x, y) = self.at(column, row);
        let step = |along: f32, other: f32| if along.abs() * 2.4 >= other.abs() { along.signum() as isize } else { 0 };
        let (dx, dy) = (step(x, y), step(y, x));
        let strength = |column: isize, row: isize| {
            let (x, y) = self.at(column as usize, row as usize);
            x * x + y * y
        };
        let (column, row) = (column as isize, row as isize);
        let own = strength(column, row);
        own >= strength(column + dx, row + dy) && own > strength(column - dx, row - dy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_edges_of_a_turned_square_are_found_with_their_bright_sides() {
        let turn = 0.2f64;
        let (sin, cos) = turn.sin_cos();
        let levels = (0..120 * 160).map(|index| {
            let (x, y) = ((index % 160) as f64 + 0.5 - 80.0, (index / 160) as f64 + 0.5 - 60.0);
            let (u, v) = (x * cos + y * sin, y * cos - x * sin);
            if u.abs() < 40.0 && v.abs() < 30.0 { 0.2 } else { 0.9 }
        });
        let plane = Plane { width: 160, height: 120, levels: levels.collect() };
        let found = lines(&plane);
        for side in 0..4 {
            let angle = turn + f64::from(side) * TAU / 4.0;
            let reach = if side % 2 == 0 { 40.0 } else { 30.0 };
            let offset = reach + 80.0 * angle.cos() + 60.0 * angle.sin();
            let near = |line: &&Line| {
                let turned = (line.angle - angle + TAU / 2.0).rem_euclid(TAU) - TAU / 2.0;
                turned.abs() < 0.04 && (line.offset - offset).abs() < 3.0
            };
            assert!(found.iter().take(6).any(|line| near(&line)), "side {side}: {found:?}");
        }
    }

    #[test]
    fn where_lines_meet_and_where_they_do_not() {
        let right = Line { angle: 0.0, offset: 10.0 };
        let down = Line { angle: TAU / 4.0, offset: 20.0 };
        let point = right.meets(&down).unwrap();
        assert!(point.distance(Point::new(10.0, 20.0)) < 1e-9);
        assert!(right.meets(&Line { angle: TAU / 2.0, offset: 5.0 }).is_none());
        assert!((down.turned_from(&right) - TAU / 4.0).abs() < 1e-9);
    }

    #[test]
    fn a_blank_picture_has_no_edges() {
        let blank = Plane { width: 64, height: 48, levels: vec![0.5; 64 * 48] };
        assert!(lines(&blank).is_empty());
        let tiny = Plane { width: 3, height: 3, levels: vec![0.0; 9] };
        assert!(lines(&tiny).is_empty());
    }
}
