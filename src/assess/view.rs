//! What the gates look at: the network's input without its plain borders, reduced to a few hundred numbers that say how
//! light and edges are laid out and not how the film was exposed. Not a judgement: see [`super::quality`] and
//! [`super::gates`].
//!
//! 1. Rows and columns of one grey level at the edges (collimation, a scanned page's margin) are cut off.
//! 2. The rest is averaged to 64 × 64 cells and every cell replaced by its rank among them: a monotone change of the grey
//!    scale (exposure, window, gamma) changes nothing, turning the scale round does.
//! 3. `pixels`: the ranks averaged to 24 × 24. `gradients`: a histogram of oriented gradients (Dalal and Triggs 2005) of
//!    the ranks, 8 × 8 cells of 8 directions over the full circle, so that dark on bright differs from bright on dark;
//!    its square root, the whole being of length 1 (Arandjelović and Zisserman 2012).
//!
//! Only + − × ÷ and √ in f64, in a fixed order: the same image gives the same numbers on every processor.

use crate::tensor::Tensor;

/// Rows and columns of the ranked view.
const SIDE: usize = 64;
/// Rows and columns of `pixels`.
const COARSE: usize = 24;
/// Rows and columns of cells of the histogram.
const CELLS: usize = 8;
/// Directions of the histogram, 45° apart, the first to the right, the next to the lower right.
const DIRECTIONS: usize = 8;

/// How many numbers [`View::pixels`] has.
pub const PIXELS: usize = COARSE * COARSE;
/// How many numbers [`View::gradients`] has.
pub const GRADIENTS: usize = CELLS * CELLS * DIRECTIONS;

/// A row or column is plain whose grey levels, the outermost twentieths left out, differ by less than this share of what
/// those of the whole image do.
const PLAIN: f64 = 0.05;
/// Averages of grey levels count as equal within one step of this many a level: rounding must make no ranks.
const STEPS: f64 = 16.0;

/// An image as the gates see it.
#[derive(Debug, Clone, PartialEq)]
pub struct View {
    /// Ranks of 24 × 24 regions, row by row, −0.5 (darkest) to 0.5.
    pub pixels: Vec<f64>,
    /// Oriented gradients, 8 × 8 cells × 8 directions, direction fastest; of length 1, or 0 for a flat image.
    pub gradients: Vec<f64>,
    /// Difference of the 95th and the 5th percentile of the grey levels inside the borders, 0..=255.
    pub contrast: u8,
    /// Share of the grey levels inside the borders that are black (at most 2), 0..=1.
    pub black: f64,
    /// Share of them that are white (at least 253), 0..=1.
    pub white: f64,
    /// Share of the ranks' variance that is finer than the 24 × 24 regions: 0 for a smooth image, near 1 for noise.
    pub fine: f64,
}

impl View {
    /// The view of the network's input, 1 × rows × columns × 1.
    pub fn of(image: &Tensor<u8>) -> Self {
        let [_, rows, columns, _] = image.shape();
        Self::new(image.data(), rows, columns)
    }

    /// The view of `rows` × `columns` grey levels. Where `levels` are fewer than that, or none, it is that of a black image.
    pub fn new(levels: &[u8], rows: usize, columns: usize) -> Self {
        if rows == 0 || columns == 0 || rows.checked_mul(columns).is_none_or(|count| levels.len() < count) {
            return Self::new(&[0], 1, 1);
        }
        let inside = inside(levels, rows, columns);
        let kept: Vec<u8> = (inside.top..inside.bottom)
            .flat_map(|row| levels[row * columns..][inside.left..inside.right].iter().copied())
            .collect();
        let size = (inside.bottom - inside.top, inside.right - inside.left);
        let real: Vec<f64> = kept.iter().map(|&level| f64::from(level)).collect();
        let cells: Vec<f64> = averaged(&real, size, SIDE).into_iter().map(|level| (level * STEPS).round()).collect();
        let ranks = ranks(&cells);
        let pixels = averaged(&ranks, (SIDE, SIDE), COARSE);
        let (fine, coarse) = (variance(&ranks), variance(&pixels));
        let share =
            |of: &dyn Fn(u8) -> bool| kept.iter().filter(|&&level| of(level)).count() as f64 / kept.len() as f64;
        let (black, white) = (share(&|level| level <= 2), share(&|level| level >= 253));
        Self {
            gradients: gradients(&ranks),
            contrast: spread(kept.into_iter()),
            black,
            white,
            fine: if fine > 0.0 { 1.0 - coarse / fine } else { 0.0 },
            pixels,
        }
    }
}

/// What is left of an image without its borders; `bottom` and `right` are the first that are not in it.
struct Inside {
    top: usize,
    bottom: usize,
    left: usize,
    right: usize,
}

/// Cuts plain rows and columns off the edges, at most a third from each side.
fn inside(levels: &[u8], rows: usize, columns: usize) -> Inside {
    let limit = PLAIN * f64::from(spread(levels[..rows * columns].iter().copied()));
    let row = |row: usize| f64::from(spread(levels[row * columns..][..columns].iter().copied())) < limit;
    let mut inside = Inside { top: 0, bottom: rows, left: 0, right: columns };
    while inside.top < rows / 3 && row(inside.top) {
        inside.top += 1;
    }
    while rows - inside.bottom < rows / 3 && row(inside.bottom - 1) {
        inside.bottom -= 1;
    }
    let (top, bottom) = (inside.top, inside.bottom);
    let column = |column: usize| f64::from(spread((top..bottom).map(|row| levels[row * columns + column]))) < limit;
    while inside.left < columns / 3 && column(inside.left) {
        inside.left += 1;
    }
    while columns - inside.right < columns / 3 && column(inside.right - 1) {
        inside.right -= 1;
    }
    inside
}

/// The difference of the grey levels with a twentieth of all above and below them; 0 for none.
fn spread(levels: impl Iterator<Item = u8>) -> u8 {
    let mut counts = [0usize; 256];
    levels.for_each(|level| counts[usize::from(level)] += 1);
    let count: usize = counts.iter().sum();
    // The level at place `rank` (from 0) of all in order.
    let level = |rank: usize| {
        let mut below = 0;
        (0..=255u8).find(|&level| {
            below += counts[usize::from(level)];
            below > rank
        })
    };
    match (level(count / 20), level(count.saturating_sub(1 + count / 20))) {
        (Some(low), Some(high)) => high.saturating_sub(low),
        _ => 0,
    }
}

/// The means over `side` × `side` equal regions of an image of (rows, columns), pixels divided where a boundary cuts them.
fn averaged(levels: &[f64], (rows, columns): (usize, usize), side: usize) -> Vec<f64> {
    let horizontally: Vec<f64> =
        levels.chunks_exact(columns).flat_map(|row| regions(row.iter().copied(), side)).collect();
    let mut out = vec![0.0; side * side];
    for column in 0..side {
        let means = regions(horizontally.iter().skip(column).step_by(side).copied().take(rows), side);
        means.into_iter().enumerate().for_each(|(row, mean)| out[row * side + column] = mean);
    }
    out
}

/// The means over `side` equal parts of a line of values.
fn regions(line: impl Iterator<Item = f64>, side: usize) -> Vec<f64> {
    // The integral up to every pixel's edge, straight lines between them: a part's mean is a difference of two points.
    let mut integral = vec![0.0];
    line.fold(0.0, |sum, value| {
        integral.push(sum + value);
        sum + value
    });
    let length = integral.len() - 1;
    let at = |place: f64| {
        let whole = (place as usize).min(length.saturating_sub(1));
        let (low, high) = (integral[whole], integral[(whole + 1).min(length)]);
        low + (high - low) * (place - whole as f64)
    };
    let step = length as f64 / side as f64;
    let edges: Vec<f64> = (0..=side).map(|edge| at(edge as f64 * length as f64 / side as f64)).collect();
    edges.windows(2).map(|pair| (pair[1] - pair[0]) / step).collect()
}

/// Every value's place among all, −0.5 for the least to 0.5 for the greatest; equal values share the mean of their places.
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let last = values.len().saturating_sub(1).max(1) as f64;
    let mut out = vec![0.0; values.len()];
    let mut first = 0;
    for group in order.chunk_by(|&a, &b| values[a] == values[b]) {
        let place = first as f64 + (group.len() - 1) as f64 / 2.0;
        group.iter().for_each(|&index| out[index] = place / last - 0.5);
        first += group.len();
    }
    out
}

fn variance(values: &[f64]) -> f64 {
    let count = values.len().max(1) as f64;
    let mean = values.iter().sum::<f64>() / count;
    values.iter().map(|value| (value - mean) * (value - mean)).sum::<f64>() / count
}

/// The oriented gradients of the 64 × 64 ranks. A gradient is divided between the two directions that enclose it, as the
/// sum of two vectors along them: no angle has to be computed.
fn gradients(ranks: &[f64]) -> Vec<f64> {
    let mut histogram = vec![0.0; GRADIENTS];
    let at = |row: usize, column: usize| ranks[row * SIDE + column];
    for row in 0..SIDE {
        for column in 0..SIDE {
            let inner = 1..SIDE - 1;
            let x = if inner.contains(&column) { at(row, column + 1) - at(row, column - 1) } else { 0.0 };
            let y = if inner.contains(&row) { at(row + 1, column) - at(row - 1, column) } else { 0.0 };
            let cell = (row * CELLS / SIDE * CELLS + column * CELLS / SIDE) * DIRECTIONS;
            let (straight, diagonal) = directions(x, y);
            let less = x.abs().min(y.abs());
            histogram[cell + straight] += x.abs().max(y.abs()) - less;
            histogram[cell + diagonal] += std::f64::consts::SQRT_2 * less;
        }
    }
    let sum: f64 = histogram.iter().sum();
    if sum > 0.0 {
        histogram.iter_mut().for_each(|value| *value = (*value / sum).sqrt());
    }
    histogram
}

/// The straight (even) and the diagonal (odd) direction that a gradient lies between.
fn directions(x: f64, y: f64) -> (usize, usize) {
    let straight = match (x.abs() >= y.abs(), x >= 0.0, y >= 0.0) {
        (true, true, _) => 0,
        (true, false, _) => 4,
        (false, _, true) => 2,
        (false, _, false) => 6,
    };
    let diagonal = match (x >= 0.0, y >= 0.0) {
        (true, true) => 1,
        (false, true) => 3,
        (false, false) => 5,
        (true, false) => 7,
    };
    (straight, diagonal)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::radiograph::phantom::phantom;
    use proptest::prelude::*;

    #[test]
    fn exposure_changes_nothing_and_inversion_turns_the_ranks_round() {
        let image = phantom(3, 224);
        let view = View::new(&image, 224, 224);
        let darker: Vec<u8> = image.iter().map(|level| level / 2).collect();
        let darker = View::new(&darker, 224, 224);
        let far = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        // Halving rounds, so that ranks move a little.
        assert!(far(&view.pixels, &darker.pixels) < 0.02, "{}", far(&view.pixels, &darker.pixels));
        let inverted: Vec<u8> = image.iter().map(|level| 255 - level).collect();
        let inverted = View::new(&inverted, 224, 224);
        let negative: Vec<f64> = view.pixels.iter().map(|value| -value).collect();
        assert!(far(&inverted.pixels, &negative) < 1e-9);
        // Directions turn by half a circle.
        let turned: Vec<f64> =
            (0..GRADIENTS).map(|i| view.gradients[i / DIRECTIONS * DIRECTIONS + (i + 4) % DIRECTIONS]).collect();
        assert!(far(&inverted.gradients, &turned) < 1e-9);
    }

    #[test]
    fn plain_borders_are_not_seen() {
        let image = phantom(5, 160);
        let mut framed = vec![255u8; 224 * 224];
        for row in 0..160 {
            framed[(row + 20) * 224 + 40..][..160].copy_from_slice(&image[row * 160..][..160]);
        }
        let (framed, image) = (View::new(&framed, 224, 224), View::new(&image, 160, 160));
        // The frame is part of the whole whose contrast says what is plain: a row more or less may go.
        let far: f64 = framed.pixels.iter().zip(&image.pixels).map(|(a, b)| (a - b).abs()).sum();
        assert!(far < 0.01 * PIXELS as f64, "{far}");
        assert!(framed.white < 0.1, "{}", framed.white);
    }

    #[test]
    fn noise_is_fine_and_a_ramp_is_not() {
        let ramp: Vec<u8> = (0..224 * 224).map(|i| (i % 224) as u8).collect();
        let ramp = View::new(&ramp, 224, 224);
        assert!(ramp.fine < 0.01, "{}", ramp.fine);
        // Brighter to the right, everywhere.
        for cell in ramp.gradients.chunks_exact(DIRECTIONS) {
            assert!(cell[0] > 0.1 && cell[1..].iter().all(|&other| other < 1e-6), "{cell:?}");
        }
        let mut state = 1u32;
        let mut noise = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        let noise: Vec<u8> = (0..224 * 224).map(|_| noise()).collect();
        assert!(View::new(&noise, 224, 224).fine > 0.7);
        let flat = View::new(&[90; 50 * 70], 50, 70);
        assert_eq!((flat.contrast, flat.fine), (0, 0.0));
        assert!(flat.gradients.iter().chain(&flat.pixels).all(|&value| value == 0.0));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn every_image_has_a_finite_view(rows in 0usize..80, columns in 0usize..80, short in 0usize..3,
            seed in prop::collection::vec(any::<u8>(), 1..60)) {
            let count = (rows * columns).saturating_sub(short);
            let levels: Vec<u8> = seed.iter().cycle().take(count).copied().collect();
            let view = View::new(&levels, rows, columns);
            prop_assert_eq!((view.pixels.len(), view.gradients.len()), (PIXELS, GRADIENTS));
            prop_assert!(view.pixels.iter().all(|value| (-0.5..=0.5).contains(value)));
            let length: f64 = view.gradients.iter().map(|value| value * value).sum();
            prop_assert!(length < 1e-12 || (length - 1.0).abs() < 1e-9, "{}", length);
            let shares = [view.black, view.white, view.fine];
            prop_assert!(shares.iter().all(|share| (-1e-9..=1.0).contains(share)), "{:?}", shares);
        }

        #[test]
        fn means_over_regions_keep_the_mean(line in prop::collection::vec(0.0f64..255.0, 1..300), side in 1usize..70) {
            let means = regions(line.iter().copied(), side);
            let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
            prop_assert_eq!(means.len(), side);
            prop_assert!((mean(&means) - mean(&line)).abs() < 1e-9);
        }
    }
}
