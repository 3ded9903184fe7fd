//! Evidence map → strength of one label at every place of the picture. Not its colours.
//!
//! The strength of label k in a cell is the network's logit for k less the mean of its other three logits there: what
//! all four have in common is left out, since it changes no probability. The head is linear up to the global average,
//! so the mean of the strengths *is* the image's own lead: the map leaves nothing out and adds nothing. (A local
//! probability would do neither: single cells lead by ten and more, where it only says 0 or 1.)

use crate::report::Label;
use crate::tensor::Tensor;

/// Top of the scale at least, in logits: a map whose greatest lead is less stays pale. A lead of 4 is odds of 55 to
/// 1.
const LEAST_TOP: f64 = 4.0;

/// The strengths of one label, a value a cell.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Relief {
    rows: usize,
    columns: usize,
    cells: Vec<f64>,
}

impl Relief {
    /// The strengths of `label` in a map of 1 × h × w × 4 logits. A map of another shape (none that
    /// [`crate::classifier::Evidence::from_quantized`] gave) counts as one cell without evidence, as a logit that is
    /// no number does.
    pub(super) fn new(map: &Tensor<f32>, label: Label) -> Self {
        let [_, rows, columns, channels] = map.shape();
        let cells: Vec<f64> =
            map.data().as_chunks().0.iter().take(rows.saturating_mul(columns)).map(|cell| lead(cell, label)).collect();
        if channels != Label::ALL.len() || cells.is_empty() || cells.len() != rows * columns {
            return Self { rows: 1, columns: 1, cells: vec![0.0] };
        }
        Self { rows, columns, cells }
    }

    /// Rows and columns of the map.
    pub(super) fn size(&self) -> (usize, usize) {
        (self.rows, self.columns)
    }

    /// The mean over all cells: the lead of the whole image.
    pub(super) fn mean(&self) -> f64 {
        self.cells.iter().sum::<f64>() / self.cells.len() as f64
    }

    /// The strength at a place, `x` and `y` in 0..=1 from the left and from the top: bilinear between the middles of
    /// the cells, and level from the outermost middles to the edge.
    pub(super) fn at(&self, x: f64, y: f64) -> f64 {
        let (left, right, across) = between(x, self.columns);
        let (above, below, down) = between(y, self.rows);
        let cell = |row: usize, column: usize| self.cells[row * self.columns + column];
        let line = |row| cell(row, left) * (1.0 - across) + cell(row, right) * across;
        line(above) * (1.0 - down) + line(below) * down
    }

    /// The scale's ticks, from 0 to its top: at most six, steps of 1, 2 or 5 times a power of ten apart.
    pub(super) fn ticks(&self) -> Vec<f64> {
        let greatest = self.cells.iter().fold(LEAST_TOP, |a, &b| a.max(b));
        let mut step = 1.0;
        // 1, 2, 5, 10, 20, 50 …
        for factor in [2.0, 2.5, 2.0].into_iter().cycle() {
            if greatest <= 5.0 * step {
                break;
            }
            step *= factor;
        }
        let count = (greatest / step).ceil() as u32;
        (0..=count).map(|i| f64::from(i) * step).collect()
    }
}

/// How far the logit of `label` lies above the mean of the other three.
fn lead(logits: &[f32; 4], label: Label) -> f64 {
    let finite = |logit: f32| if logit.is_finite() { f64::from(logit) } else { 0.0 };
    let sum: f64 = logits.iter().map(|&logit| finite(logit)).sum();
    let own =
        Label::ALL.iter().zip(logits).find(|(other, _)| **other == label).map_or(0.0, |(_, &logit)| finite(logit));
    own - (sum - own) / 3.0
}

/// The two neighbouring cells of a place in 0..=1 along an axis of `count` cells, and how far it is on the way from
/// the first to the second. A cell's middle lies half a cell from its edges.
fn between(place: f64, count: usize) -> (usize, usize, f64) {
    let position = (place * count as f64 - 0.5).clamp(0.0, (count - 1) as f64);
    let first = position.floor() as usize;
    (first, (first + 1).min(count - 1), position - position.floor())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn map(rows: usize, columns: usize, logits: Vec<f32>) -> Tensor<f32> {
        Tensor::new([1, rows, columns, 4], logits).expect("rows × columns × 4")
    }

    #[test]
    fn a_cell_keeps_its_value_in_its_middle_and_the_way_between_two_is_straight() {
        let relief = Relief::new(&map(1, 2, vec![3.0, 0.0, 0.0, 0.0, 9.0, 0.0, 0.0, 0.0]), Label::Covid);
        assert_eq!([0.0, 0.25, 0.5, 0.75, 1.0].map(|x| relief.at(x, 0.5)), [3.0, 3.0, 6.0, 9.0, 9.0]);
        assert_eq!(relief.ticks(), [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
    }

    #[test]
    fn what_cannot_be_a_map_has_no_evidence() {
        for broken in [map(0, 7, Vec::new()), Tensor::filled([1, 2, 2, 3], 9.0), map(1, 1, vec![f32::NAN; 4])] {
            let relief = Relief::new(&broken, Label::Normal);
            assert_eq!((relief.at(0.3, 0.9), relief.mean(), relief.ticks().len()), (0.0, 0.0, 5), "{broken:?}");
        }
    }

    proptest! {
        #[test]
        fn the_mean_of_the_map_is_the_lead_of_the_mean_logits(
            logits in prop::collection::vec(-40.0f32..40.0, 3 * 5 * 4), label in prop::sample::select(&Label::ALL[..])
        ) {
            let means: [f32; 4] =
                std::array::from_fn(|k| logits.iter().skip(k).step_by(4).sum::<f32>() / 15.0);
            let relief = Relief::new(&map(3, 5, logits), label);
            prop_assert!((relief.mean() - lead(&means, label)).abs() < 1e-3);
        }

        #[test]
        fn the_scale_holds_every_value_and_wastes_less_than_half(greatest in 0.0f32..1e30) {
            let relief = Relief::new(&map(1, 1, vec![0.0, greatest, 0.0, 0.0]), Label::LungOpacity);
            let ticks = relief.ticks();
            let top = ticks[ticks.len() - 1];
            let needed = f64::from(greatest).max(LEAST_TOP);
            prop_assert!((3..=6).contains(&ticks.len()), "{ticks:?}");
            prop_assert!(top >= needed * (1.0 - 1e-12) && top < 2.0 * needed, "{ticks:?}");
        }

        #[test]
        fn no_place_lies_beyond_the_cells(
            x in 0.0f64..=1.0, y in 0.0f64..=1.0, own in prop::collection::vec(-9.0f32..9.0, 6)
        ) {
            let logits: Vec<f32> = own.iter().flat_map(|&value| [0.0, 0.0, 0.0, value]).collect();
            let relief = Relief::new(&map(2, 3, logits), Label::ViralPneumonia);
            let low = own.iter().copied().fold(f32::MAX, f32::min);
            let high = own.iter().copied().fold(f32::MIN, f32::max);
            let far = 1e-9;
            prop_assert!((f64::from(low) - far..=f64::from(high) + far).contains(&relief.at(x, y)));
        }
    }
}
