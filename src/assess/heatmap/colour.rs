//! The colour map: strength 0..=1 → colour and opacity. Not the strengths themselves.
//!
//! `plasma` of matplotlib (Nathaniel J. Smith, Stéfan van der Walt and Eric Firing, 2015, dedicated to the public
//! domain under CC0; `_cm_listed.py`): lightness rises evenly, so that equal steps of evidence look equal, also in
//! grey print and to eyes that confuse red and green. Chosen before `inferno` and `viridis` because none of its
//! colours is near black or grey: what is coloured can be told from a radiograph's own levels.

/// Every eighth of the 256 published colours, and the last: the others lie within 3 levels of the straight line
/// between.
const PLASMA: [[u8; 3]; 33] = [
    [13, 8, 135],
    [34, 6, 144],
    [49, 5, 151],
    [63, 4, 156],
    [76, 2, 161],
    [89, 1, 165],
    [102, 0, 167],
    [114, 1, 168],
    [126, 3, 168],
    [138, 9, 165],
    [149, 17, 161],
    [160, 26, 156],
    [170, 35, 149],
    [179, 44, 142],
    [188, 53, 135],
    [196, 62, 127],
    [204, 71, 120],
    [211, 81, 113],
    [218, 90, 106],
    [224, 99, 99],
    [230, 108, 92],
    [235, 118, 85],
    [240, 128, 78],
    [245, 139, 71],
    [248, 149, 64],
    [251, 161, 57],
    [253, 172, 51],
    [254, 184, 44],
    [253, 197, 39],
    [252, 210, 37],
    [248, 223, 37],
    [244, 237, 39],
    [240, 249, 33],
];

/// Distance between two entries of [`PLASMA`] in steps of 1/255.
const STEP: f64 = 8.0;

/// The opacity of the greatest strength: anatomy shows through everywhere.
const GREATEST_ALPHA: f64 = 0.65;

/// The colour of a strength; what lies outside 0..=1 counts as its nearest end, what is no number as 0.
pub(super) fn colour(strength: f64) -> [u8; 3] {
    let position = bounded(strength) * 255.0;
    let index = ((position / STEP) as usize).min(PLASMA.len() - 2);
    let (from, to) = (PLASMA[index], PLASMA[index + 1]);
    // The last entry stands for 255, one step earlier than the others' distance would have it.
    let length = if index + 2 == PLASMA.len() { STEP - 1.0 } else { STEP };
    let part = (position - index as f64 * STEP) / length;
    std::array::from_fn(|i| mix(from[i], to[i], part))
}

/// How much of the colour lies over the radiograph, 0..=1: none at strength 0, then rising so
/// that weak evidence is seen.
pub(super) fn alpha(strength: f64) -> f64 {
    // The power 3/4 by square roots, which are the same to the last bit on every processor.
    let root = bounded(strength).sqrt();
    GREATEST_ALPHA * root * root.sqrt()
}

/// `part` of the way from one level to another.
pub(super) fn mix(from: u8, to: u8, part: f64) -> u8 {
    (f64::from(from) + (f64::from(to) - f64::from(from)) * part).round().clamp(0.0, 255.0) as u8
}

fn bounded(strength: f64) -> f64 {
    // Not `clamp`, which would keep what is no number.
    if strength > 0.0 { strength.min(1.0) } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ends_and_a_published_colour_between_are_plasmas() {
        assert_eq!(colour(0.0), [13, 8, 135]);
        assert_eq!(colour(1.0), [240, 249, 33]);
        // Entries of the published list that lie between ours.
        let published = [
            (5, [27, 6, 141]),
            (60, [120, 1, 168]),
            (107, [182, 48, 139]),
            (140, [214, 85, 109]),
            (203, [252, 165, 55]),
            (252, [241, 244, 38]),
        ];
        for (entry, published) in published {
            let found = colour(f64::from(entry) / 255.0);
            let far = found.iter().zip(published).map(|(&a, b)| a.abs_diff(b)).max();
            assert!(far <= Some(3), "entry {entry}: {found:?}, published {published:?}");
        }
        assert_eq!((colour(-3.0), colour(f64::NAN), colour(7.0)), (colour(0.0), colour(0.0), colour(1.0)));
    }

    #[test]
    fn lightness_and_opacity_rise_all_the_way() {
        let luma = |strength| {
            let [red, green, blue] = colour(strength).map(f64::from);
            0.2126 * red + 0.7152 * green + 0.0722 * blue
        };
        for step in 0..32 {
            let (low, high) = (f64::from(step) / 32.0, f64::from(step + 1) / 32.0);
            assert!(luma(low) < luma(high) + 0.5, "{low}: {} {}", luma(low), luma(high));
            assert!(alpha(low) < alpha(high));
        }
        assert_eq!(alpha(0.0), 0.0);
        assert!(alpha(1.0) <= 0.7, "anatomy must show through");
    }
}
