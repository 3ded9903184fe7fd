//! Which kernel each layer gets, and how its work is shared out.

use super::{Options, Shape, Tiling, Work};
use serde::{Deserialize, Serialize};

/// How much memory the whole program may take for the sake of speed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Memory {
    /// About 40 MB for VGG16.
    Small,
    /// About 75 MB.
    #[default]
    Balanced,
    /// About 150 MB.
    Fast,
}

/// Which families of kernels may be chosen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Family {
    /// Whatever is fastest.
    #[default]
    Any,
    /// Direct convolution only.
    Direct,
}

/// Rows of a strip such that all threads get about as much: some strips a thread, none with a single row less than need be.
pub(super) fn even_strip(rows: usize, groups: usize, threads: usize) -> usize {
    if threads == 1 {
        return rows.max(1);
    }
    // Four tasks a thread: what is left over at the end is a small part of the whole.
    let strips = (4 * threads).div_ceil(groups.max(1)).clamp(1, rows.max(1));
    rows.div_ceil(strips).max(1)
}

/// The work of each convolution.
pub(super) fn choose(shapes: &[Shape<'_>], options: &Options) -> Vec<Work> {
    shapes.iter().enumerate().map(|(index, shape)| one(index, shape, options)).collect()
}

fn one(index: usize, shape: &Shape<'_>, options: &Options) -> Work {
    let strip = even_strip(shape.output.rows, shape.output.blocks(), options.threads);
    if index == 0 && shape.kernel == 3 {
        return Work::First { strip };
    }
    match shape.winograd.filter(|_| options.family == Family::Any && shape.input.rows >= 28) {
        Some(winograd) => {
            let (rows, _) = winograd.tiles(shape.input.rows, shape.input.columns);
            let stored = shape.input.channels < 256 || shape.output.channels <= 256;
            let round = (shape.input.rows < 56).then_some(1);
            let strip = if round.is_some() { rows } else { 1 };
            Work::Winograd(Tiling { winograd, stored, strip, step: strip, round })
        }
        None => Work::Direct { strip },
    }
}
