//! Grey images as the camera's code passes them along: a whole frame ([`Grey`]), and small ones to reckon with ([`Plane`]).
//! No files and no formats.
//!
//! Coordinates are continuous: pixel (column, row) covers the unit square that begins there, so its centre lies at
//! (column + 0.5, row + 0.5), and an image of 640 columns reaches from 0 to 640.

/// A point in an image.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Point {
    /// To the right.
    pub x: f64,
    /// Downwards.
    pub y: f64,
}

impl Point {
    /// The point at these coordinates.
    pub const fn new(x: f64, y: f64) -> Self {
        Self { x, y }
    }

    /// How far it is to another.
    pub fn distance(self, other: Self) -> f64 {
        (self.x - other.x).hypot(self.y - other.y)
    }

    /// The point at `share` of the way to another.
    pub fn towards(self, other: Self, share: f64) -> Self {
        Self { x: self.x + (other.x - self.x) * share, y: self.y + (other.y - self.y) * share }
    }

    /// Both coordinates times `factor`.
    pub fn scaled(self, factor: f64) -> Self {
        Self { x: self.x * factor, y: self.y * factor }
    }
}

/// A frame: one level of 16 bits a pixel, 0 black.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grey {
    width: usize,
    height: usize,
    levels: Vec<u16>,
}

impl Grey {
    /// From levels row by row; `None` where they do not fill it, or it is empty.
    pub fn new(width: usize, height: usize, levels: Vec<u16>) -> Option<Self> {
        let is_full = width > 0 && height > 0 && width.checked_mul(height) == Some(levels.len());
        is_full.then_some(Self { width, height, levels })
    }

    /// Columns.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Rows.
    pub fn height(&self) -> usize {
        self.height
    }

    /// Row by row.
    pub fn levels(&self) -> &[u16] {
        &self.levels
    }

    /// The level at a point, 0..=1, interpolated between the four pixels around it; beyond the edge that of the edge.
    pub fn at(&self, point: Point) -> f32 {
        sample(self.width, self.height, point, |index| f32::from(self.levels[index])) / 65535.0
    }

    /// The image made smaller by a whole factor, each pixel the mean of those it stands for; what does not fill a pixel at
    /// the right and at the bottom is left out.
    pub fn reduced(&self, factor: usize) -> Plane {
        let factor = factor.clamp(1, self.width.min(self.height));
        let (width, height) = (self.width / factor, self.height / factor);
        let mut sums = vec![0u64; width];
        let mut levels = Vec::with_capacity(width * height);
        let scale = 1.0 / (65535.0 * (factor * factor) as f32);
        for row in 0..height {
            sums.fill(0);
            for inner in 0..factor {
                let line = &self.levels[(row * factor + inner) * self.width..][..width * factor];
                for (sum, cell) in sums.iter_mut().zip(line.chunks_exact(factor)) {
                    *sum += cell.iter().map(|&level| u64::from(level)).sum::<u64>();
                }
            }
            levels.extend(sums.iter().map(|&sum| sum as f32 * scale));
        }
        Plane { width, height, levels }
    }

    /// The whole factor by which it must be reduced so that neither side exceeds `side`.
    pub fn factor_for(&self, side: usize) -> usize {
        self.width.max(self.height).div_ceil(side.max(1)).max(1)
    }
}

/// An image to reckon with; levels are mostly 0..=1.
#[derive(Debug, Clone, PartialEq)]
pub struct Plane {
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Row by row.
    pub levels: Vec<f32>,
}

impl Plane {
    /// The level of a pixel; beyond the edge that of the edge.
    pub fn pixel(&self, column: isize, row: isize) -> f32 {
        let column = column.clamp(0, self.width as isize - 1) as usize;
        let row = row.clamp(0, self.height as isize - 1) as usize;
        self.levels[row * self.width + column]
    }

    /// The level at a point, interpolated; beyond the edge that of the edge.
    pub fn at(&self, point: Point) -> f32 {
        sample(self.width, self.height, point, |index| self.levels[index])
    }

    /// The mean over `columns` × `rows` equal cells, pixels going to the cell of their centre; at most one cell a pixel.
    pub fn cells(&self, columns: usize, rows: usize) -> Plane {
        let (columns, rows) = (columns.clamp(1, self.width), rows.clamp(1, self.height));
        let mut sums = vec![(0.0f64, 0u32); columns * rows];
        for (row, line) in self.levels.chunks_exact(self.width).enumerate() {
            for (column, &level) in line.iter().enumerate() {
                let cell = (row * rows / self.height) * columns + column * columns / self.width;
                sums[cell].0 += f64::from(level);
                sums[cell].1 += 1;
            }
        }
        let levels = sums.into_iter().map(|(sum, count)| (sum / f64::from(count.max(1))) as f32).collect();
        Plane { width: columns, height: rows, levels }
    }

    /// Smoothed by the weights 1, 2, 1 along rows and columns.
    pub fn smoothed(&self) -> Plane {
        let along = |column: isize, row: isize, dx: isize, dy: isize, of: &Plane| {
            (of.pixel(column - dx, row - dy) + 2.0 * of.pixel(column, row) + of.pixel(column + dx, row + dy)) / 4.0
        };
        let pass = |of: &Plane, dx: isize, dy: isize| {
            let mut levels = Vec::with_capacity(of.levels.len());
            for row in 0..of.height as isize {
                levels.extend((0..of.width as isize).map(|column| along(column, row, dx, dy, of)));
            }
            Plane { levels, ..*of }
        };
        pass(&pass(self, 1, 0), 0, 1)
    }

    /// The means over squares of `2 · reach + 1` pixels around each pixel, as far as they lie inside.
    pub fn averaged(&self, reach: usize) -> Plane {
        let once = |of: &Plane| {
            // The means along rows, turned, so that the second pass goes along columns.
            let mut turned = vec![0.0; of.levels.len()];
            let mut sums = vec![0.0f64; of.width + 1];
            for (row, line) in of.levels.chunks_exact(of.width).enumerate() {
                for (column, &level) in line.iter().enumerate() {
                    sums[column + 1] = sums[column] + f64::from(level);
                }
                for column in 0..of.width {
                    let (from, to) = (column.saturating_sub(reach), (column + reach + 1).min(of.width));
                    turned[column * of.height + row] = ((sums[to] - sums[from]) / (to - from) as f64) as f32;
                }
            }
            Plane { width: of.height, height: of.width, levels: turned }
        };
        once(&once(self))
    }

    /// The level below which `share` (0..=1) of the pixels lie.
    pub fn quantile(&self, share: f64) -> f32 {
        quantile(&mut self.levels.clone(), share)
    }
}

/// The value below which `share` (0..=1) of these lie; 0 for none. Changes their order.
pub fn quantile(values: &mut [f32], share: f64) -> f32 {
    if values.is_empty() {
        return 0.0;
    }
    let place = ((values.len() - 1) as f64 * share.clamp(0.0, 1.0)).round() as usize;
    *values.select_nth_unstable_by(place, f32::total_cmp).1
}

fn sample(width: usize, height: usize, point: Point, level: impl Fn(usize) -> f32) -> f32 {
    let place = |at: f64, length: usize| {
        // `clamp` lets NaN through, which the cast makes 0.
        let at = (at - 0.5).clamp(0.0, (length - 1) as f64);
        let whole = (at as usize).min(length.saturating_sub(2));
        (whole, (at - whole as f64) as f32)
    };
    let ((column, right), (row, down)) = (place(point.x, width), place(point.y, height));
    let next = usize::from(width > 1);
    let line = |row: usize| {
        let first = row * width + column;
        let (a, b) = (level(first), level(first + next));
        a + (b - a) * right
    };
    let (top, bottom) = (line(row), line((row + 1).min(height - 1)));
    let level = top + (bottom - top) * down;
    if level.is_nan() { 0.0 } else { level }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ramp(width: usize, height: usize) -> Grey {
        let levels = (0..height).flat_map(|row| (0..width).map(move |column| (column * 100 + row * 7) as u16));
        Grey::new(width, height, levels.collect()).unwrap()
    }

    #[test]
    fn a_ramp_is_interpolated_exactly_and_held_beyond_its_edge() {
        let image = ramp(20, 10);
        for (x, y) in [(0.5, 0.5), (3.25, 4.75), (19.5, 9.5)] {
            let expected = ((x - 0.5) * 100.0 + (y - 0.5) * 7.0) / 65535.0;
            assert!((f64::from(image.at(Point::new(x, y))) - expected).abs() < 1e-6, "{x} {y}");
        }
        assert_eq!(image.at(Point::new(-5.0, -5.0)), image.at(Point::new(0.5, 0.5)));
        assert_eq!(image.at(Point::new(500.0, 500.0)), image.at(Point::new(19.5, 9.5)));
        assert!(image.at(Point::new(f64::NAN, 1.0)).is_finite());
        assert_eq!(Grey::new(1, 1, vec![65535]).unwrap().at(Point::new(0.5, 0.5)), 1.0);
    }

    #[test]
    fn means_keep_the_mean() {
        let image = ramp(24, 12);
        let mean = |levels: &[f32]| levels.iter().sum::<f32>() / levels.len() as f32;
        let whole = mean(&image.reduced(1).levels);
        for factor in [2, 3, 4] {
            assert!((mean(&image.reduced(factor).levels) - whole).abs() < 1e-4);
        }
        assert!((mean(&image.reduced(1).cells(6, 4).levels) - whole).abs() < 1e-4);
        assert_eq!(image.reduced(100).levels.len(), 2, "no more than it has rows");
        let flat = Plane { width: 9, height: 5, levels: vec![0.25; 45] };
        for level in flat.averaged(3).levels.iter().chain(&flat.smoothed().levels) {
            assert!((level - 0.25).abs() < 1e-6);
        }
    }

    #[test]
    fn what_does_not_fill_an_image_is_none() {
        assert!(Grey::new(2, 2, vec![0; 3]).is_none());
        assert!(Grey::new(0, 2, vec![]).is_none());
        assert!(Grey::new(usize::MAX, 2, vec![]).is_none());
        assert_eq!(quantile(&mut [], 0.5), 0.0);
        assert_eq!(quantile(&mut [3.0, 1.0, 2.0], 0.5), 2.0);
    }
}
