//! Whether something lies on the light box, of whatever shape: it keeps light from a part of what should shine. Not what it
//! is, and not where its edges are: see [`super::find`].

use super::flatten::{Light, evenness};
use super::grey::{Grey, Plane, Point, quantile};

/// The longer side of the picture that is looked at.
const SMALL: usize = 200;
/// Cells, along and down, whose means are looked at.
const CELLS: (usize, usize) = (40, 30);
/// A light box is at least so bright, of 1, or it is off.
const LEAST_LIGHT: f32 = 0.15;
/// What shines is at least so bright, of the brightest.
const LIT: f32 = 0.6;
/// So much of the picture shines at least, or it shows no light box.
const LEAST_LIT: f64 = 0.2;
/// Where levels (their logarithms) lie so near a smooth surface there is nothing but light, ...
const EVEN: f64 = 0.1;
/// ... and so much of what shines is that, or it is no light box.
const LEAST_EVEN: f64 = 0.7;
/// Light that something lies in is weaker than this share of what should be there.
const SHADED: f32 = 0.75;
/// So much of the picture is covered at least, in one piece: less is no film that could be read.
const LEAST_COVERED: f64 = 0.04;

/// Whether something lies on the light box. Without a reference picture only what has light on several sides is seen.
pub(super) fn is_covered(frame: &Grey, reference: Option<&Light>) -> bool {
    let cells = frame.reduced(frame.factor_for(SMALL)).cells(CELLS.0, CELLS.1);
    if cells.quantile(0.98) < LEAST_LIGHT {
        return false;
    }
    let grid = Grid { frame, cells };
    let shaded = match reference {
        Some(reference) => grid.darker_than(reference),
        None => grid.dark_within_light(),
    };
    shaded.is_some_and(|shaded| grid.largest(&shaded).len() as f64 >= LEAST_COVERED * grid.count() as f64)
}

/// A frame and its cells.
struct Grid<'a> {
    frame: &'a Grey,
    cells: Plane,
}

impl Grid<'_> {
    fn count(&self) -> usize {
        self.cells.levels.len()
    }

    /// Where in the frame a cell's middle lies.
    fn place(&self, cell: usize) -> Point {
        let (column, row) = (cell % self.cells.width, cell / self.cells.width);
        let share = |at: usize, cells: usize, length: usize| (at as f64 + 0.5) / cells as f64 * length as f64;
        Point::new(
            share(column, self.cells.width, self.frame.width()),
            share(row, self.cells.height, self.frame.height()),
        )
    }

    /// The cells that are darker than a reference picture says; `None` where that shows no light box.
    fn darker_than(&self, reference: &Light) -> Option<Vec<bool>> {
        let expected: Vec<f32> = (0..self.count()).map(|cell| reference.at(self.frame, self.place(cell))).collect();
        let brightest = quantile(&mut expected.clone(), 0.98);
        let ratios: Vec<Option<f32>> = (self.cells.levels.iter().zip(&expected))
            .map(|(level, expected)| (*expected > LIT * brightest).then_some(level / expected))
            .collect();
        let mut lit: Vec<f32> = ratios.iter().flatten().copied().collect();
        if (lit.len() as f64) < LEAST_LIT * self.count() as f64 {
            return None;
        }
        // The camera may expose otherwise now.
        let gain = quantile(&mut lit, 0.95);
        Some(ratios.into_iter().map(|ratio| ratio.is_some_and(|ratio| ratio < SHADED * gain)).collect())
    }

    /// The cells that are dark within an area that shines; `None` where none shines.
    fn dark_within_light(&self) -> Option<Vec<bool>> {
        let brightest = self.cells.quantile(0.98);
        let lit: Vec<bool> = self.cells.levels.iter().map(|level| *level > LIT * brightest).collect();
        // Windows and lamps in the room are not the light box.
        let lit = self.largest(&lit);
        if (lit.len() as f64) < LEAST_LIT * self.count() as f64 {
            return None;
        }
        let places: Vec<Point> = lit.iter().map(|&cell| self.place(cell)).collect();
        if evenness(self.frame, &places, EVEN) < LEAST_EVEN {
            return None;
        }
        let light = Light::through(self.frame, &places)?;
        let hull = hull(&places);
        let is_shaded = |cell: usize| {
            let place = self.place(cell);
            is_within(&hull, place) && self.cells.levels[cell] < SHADED * light.at(self.frame, place)
        };
        Some((0..self.count()).map(is_shaded).collect())
    }

    /// The greatest piece of these cells that hangs together by sides.
    fn largest(&self, marked: &[bool]) -> Vec<usize> {
        let mut left = marked.to_vec();
        let mut best = Vec::new();
        for start in 0..left.len() {
            let (mut piece, mut next) = (Vec::new(), vec![start]);
            while let Some(cell) = next.pop() {
                if !std::mem::replace(&mut left[cell], false) {
                    continue;
                }
                piece.push(cell);
                let column = cell % self.cells.width;
                next.extend((column > 0).then(|| cell - 1));
                next.extend((column + 1 < self.cells.width).then_some(cell + 1));
                next.extend(cell.checked_sub(self.cells.width));
                next.extend(Some(cell + self.cells.width).filter(|&below| below < left.len()));
            }
            if piece.len() > best.len() {
                best = piece;
            }
        }
        best
    }
}

/// To which side of the way from `a` to `b` a point lies, times a length.
fn turn(a: Point, b: Point, point: Point) -> f64 {
    (b.x - a.x) * (point.y - a.y) - (b.y - a.y) * (point.x - a.x)
}

/// The corners of the least convex shape around these points, in order.
fn hull(points: &[Point]) -> Vec<Point> {
    let mut sorted = points.to_vec();
    sorted.sort_by(|a, b| a.x.total_cmp(&b.x).then(a.y.total_cmp(&b.y)));
    let half = |points: &mut dyn Iterator<Item = Point>| {
        let mut half: Vec<Point> = Vec::new();
        for point in points {
            while let [.., a, b] = half[..]
                && turn(a, b, point) <= 0.0
            {
                half.pop();
            }
            half.push(point);
        }
        half.pop();
        half
    };
    let mut all = half(&mut sorted.iter().copied());
    all.extend(half(&mut sorted.iter().rev().copied()));
    all
}

/// Whether a point lies within such a shape, and not on its rim.
fn is_within(hull: &[Point], point: Point) -> bool {
    hull.len() > 2 && (0..hull.len()).all(|index| turn(hull[index], hull[(index + 1) % hull.len()], point) > 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A light box in a dark room, brighter in its middle, with something on it as `over` says: the share of light it lets
    /// through.
    fn frame(over: impl Fn(f64, f64) -> f64) -> Grey {
        let levels = (0..320 * 240).map(|index| {
            let (x, y) = ((f64::from(index % 320) + 0.5) / 320.0, (f64::from(index / 320) + 0.5) / 240.0);
            let is_box = (0.1..0.9).contains(&x) && (0.1..0.85).contains(&y);
            let light = 0.85 * (1.0 - 0.4 * ((x - 0.5).powi(2) + (y - 0.5).powi(2)));
            let level = if is_box { light * over(x, y) } else { 0.05 };
            (level * 65535.0) as u16
        });
        Grey::new(320, 240, levels.collect()).unwrap()
    }

    fn clear(_: f64, _: f64) -> f64 {
        1.0
    }

    /// Half of the light in a shape with round corners.
    fn round(x: f64, y: f64) -> f64 {
        if ((x - 0.4) / 0.2).powi(2) + ((y - 0.5) / 0.2).powi(2) < 1.0 { 0.5 } else { 1.0 }
    }

    #[test]
    fn what_lies_on_the_light_box_is_seen_whatever_its_shape() {
        let reference = Light::of_empty(&frame(clear)).unwrap();
        let coin = |x: f64, y: f64| if (x - 0.4).hypot(y - 0.5) < 0.04 { 0.0 } else { 1.0 };
        let brighter = |x: f64, y: f64| 1.1 * round(x, y);
        // All but the left of it, as far as the box reaches: without a reference picture that is a smaller box.
        let wide = |x: f64, _: f64| if x > 0.4 { 0.3 + 0.2 * x } else { 1.0 };
        for (over, alone, known) in [
            (&clear as &dyn Fn(f64, f64) -> f64, false, false),
            (&round, true, true),
            (&coin, false, false),
            (&brighter, true, true),
            (&wide, false, true),
            (&|_, _| 0.1, false, false),
        ] {
            let seen = frame(over);
            assert_eq!((is_covered(&seen, None), is_covered(&seen, Some(&reference))), (alone, known));
        }
    }

    #[test]
    fn what_is_no_light_box_is_not_covered() {
        let none = |level: &dyn Fn(usize, usize) -> u16| {
            let levels = (0..64 * 48).map(|index| level(index % 64, index / 64)).collect();
            assert!(!is_covered(&Grey::new(64, 48, levels).unwrap(), None));
        };
        none(&|_, _| 0);
        none(&|_, _| 65535);
        none(&|x, y| ((x / 4 + y / 4) % 2 * 65535) as u16);
        none(&|x, _| (x * 1000) as u16);
        none(&|x, y| if (20..24).contains(&x) && (20..24).contains(&y) { 60000 } else { 2000 });
        assert!(!is_covered(&Grey::new(1, 1, vec![65535]).unwrap(), None));
    }
}
