//! Winograd convolution with AVX2 without VNNI: transforms of 16 channels at a time in i16 ([`transform`]), products and sums
//! by `vpmaddwd` and `vpaddd` ([`multiply`]), and the way back with 8 channels at a time in i32 ([`output`]).
//!
//! U is made to be read in order: point, half of the output channels (2), block of input channels, pair of input channels
//! (16), output channel of the half (16), channel of the pair (2).
#![allow(unsafe_code)] // The entries: functions that only a processor with AVX2 may run.

mod multiply;
mod output;
mod transform;

use super::Winograd;

/// F(4 × 4, 3 × 3).
pub(crate) const F4: Winograd = Winograd {
    name: "F(4×4,3×3) vpmaddwd",
    tile: 4,
    // SAFETY: AVX2 is there, since only `available()` hands this out.
    weights: |filters, u| unsafe { transform::weights4(filters, u) },
    // SAFETY: as for the weights.
    input: |tiles| unsafe { transform::input4(tiles) },
    // SAFETY: as for the weights.
    multiply: |task| unsafe { multiply::multiply(36, task) },
    // SAFETY: as for the weights.
    output: |tiles| unsafe { output::output4(tiles) },
};

/// F(2 × 2, 3 × 3).
pub(crate) const F2: Winograd = Winograd {
    name: "F(2×2,3×3) vpmaddwd",
    tile: 2,
    // SAFETY: AVX2 is there, since only `available()` hands this out.
    weights: |filters, u| unsafe { transform::weights2(filters, u) },
    // SAFETY: as for the weights.
    input: |tiles| unsafe { transform::input2(tiles) },
    // SAFETY: as for the weights.
    multiply: |task| unsafe { multiply::multiply(16, task) },
    // SAFETY: as for the weights.
    output: |tiles| unsafe { output::output2(tiles) },
};
