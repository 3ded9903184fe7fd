//! Changed copies of training radiographs for the pixel gates: slightly moved ones, which must pass, and turned, inverted
//! and halved ones, which must not. Not the augmentation of training (`augment`), which hides what a picture's source is.

use crate::random::SplitMix;
use roentgen::assess::gates::Pose;
use roentgen::assess::view::View;

/// The view of an upright copy that was moved as another positioning or collimation would: up to 8° turned, 18 % smaller or
/// 20 % larger, 8 % longer, 7 % shifted. What comes from outside continues the edge.
pub(crate) fn moved(levels: &[u8], side: usize, random: &mut SplitMix) -> View {
    let (sin, cos) = random.uniform(-8.0, 8.0).to_radians().sin_cos();
    let (scale, aspect) = (random.uniform(0.82, 1.2), random.uniform(0.92, 1.08));
    let shift = 0.07 * side as f32;
    let (dx, dy) = (random.uniform(-shift, shift), random.uniform(-shift, shift));
    let (centre, last) = ((side as f32 - 1.0) / 2.0, side as f32 - 1.0);
    let at = |row: usize, column: usize| f32::from(levels[row * side + column]);
    let mut out = Vec::with_capacity(levels.len());
    for row in 0..side {
        for column in 0..side {
            let (u, v) = ((column as f32 - centre) * aspect / scale, (row as f32 - centre) / (scale * aspect));
            let x = (cos * u - sin * v + centre + dx).clamp(0.0, last);
            let y = (sin * u + cos * v + centre + dy).clamp(0.0, last);
            let (left, top) = (x as usize, y as usize);
            let (right, bottom) = ((left + 1).min(side - 1), (top + 1).min(side - 1));
            let (fx, fy) = (x - left as f32, y - top as f32);
            let upper = at(top, left) * (1.0 - fx) + at(top, right) * fx;
            let lower = at(bottom, left) * (1.0 - fx) + at(bottom, right) * fx;
            out.push((upper * (1.0 - fy) + lower * fy).round() as u8);
        }
    }
    View::new(&out, side, side)
}

/// The view of a copy in another pose, of which `variant` picks one where there are several: upside down by turning or by
/// mirroring, any of the four halves.
pub(crate) fn posed(levels: &[u8], side: usize, pose: Pose, variant: usize) -> View {
    let pick = |of: &dyn Fn(usize, usize) -> (usize, usize), rows: usize, columns: usize| {
        let cells = (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column)));
        let out: Vec<u8> = cells.map(|(row, column)| of(row, column)).map(|(r, c)| levels[r * side + c]).collect();
        View::new(&out, rows, columns)
    };
    let (last, half) = (side - 1, side / 2);
    match (pose, variant % 4) {
        (Pose::Upright, _) => View::new(levels, side, side),
        (Pose::UpsideDown, 0 | 2) => pick(&|row, column| (last - row, column), side, side),
        (Pose::UpsideDown, _) => pick(&|row, column| (last - row, last - column), side, side),
        (Pose::Inverted, _) => {
            let inverted: Vec<u8> = levels.iter().map(|level| 255 - level).collect();
            View::new(&inverted, side, side)
        }
        (Pose::TurnedLeft, _) => pick(&|row, column| (column, last - row), side, side),
        (Pose::TurnedRight, _) => pick(&|row, column| (last - column, row), side, side),
        (Pose::Part, 0) => pick(&|row, column| (row, column), side, half),
        (Pose::Part, 1) => pick(&|row, column| (row, half + column), side, half),
        (Pose::Part, 2) => pick(&|row, column| (row, column), half, side),
        (Pose::Part, _) => pick(&|row, column| (half + row, column), half, side),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 8 × 8, brighter to the right.
    fn ramp() -> Vec<u8> {
        (0..64).map(|i| 20 + 25 * (i % 8)).collect()
    }

    /// The direction in which most of the gradients point, 0 right, 2 down, 4 left, 6 up.
    fn direction(view: &View) -> usize {
        let sum = |d: usize| view.gradients.iter().skip(d).step_by(8).sum::<f64>();
        (0..8).max_by(|&a, &b| sum(a).total_cmp(&sum(b))).unwrap()
    }

    #[test]
    fn poses_are_what_their_names_say() {
        let of = |pose, variant| direction(&posed(&ramp(), 8, pose, variant));
        assert_eq!(of(Pose::Upright, 0), 0);
        assert_eq!((of(Pose::UpsideDown, 0), of(Pose::UpsideDown, 1)), (0, 4));
        assert_eq!(of(Pose::Inverted, 0), 4);
        // Turned to the left (anticlockwise) what was right is up.
        assert_eq!((of(Pose::TurnedLeft, 0), of(Pose::TurnedRight, 0)), (6, 2));
        // A half of a ramp is a ramp; the right half is the brighter.
        assert!((0..4).all(|variant| of(Pose::Part, variant) == 0));
    }

    #[test]
    fn a_moved_copy_differs_a_little() {
        let image = roentgen::radiograph::phantom::phantom(4, 224);
        let (still, moved) = (View::new(&image, 224, 224), moved(&image, 224, &mut SplitMix::new(3)));
        let far: f64 = still.pixels.iter().zip(&moved.pixels).map(|(a, b)| (a - b).abs()).sum::<f64>() / 576.0;
        assert!((0.005..0.15).contains(&far), "{far}");
    }
}
