//! Winograd convolution with AVX2 without VNNI: transforms of 16 channels at a time in i16 ([`transform`]), products and sums
//! by `vpmaddwd` and `vpaddd` ([`multiply`]), and the way back with 8 channels at a time in i32 ([`output`]).
//!
//! U lies as: block of input channels, point, half of the output channels (2), pair of input channels (16), output channel
//! of the half (16), channel of the pair (2). With the block outermost, making U writes 72 KB (for m = 4) at a time, close
//! together; with the point outermost it writes to places a power of two apart, which share a cache's few ways.
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
    fly: None,
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
    fly: None,
    // SAFETY: as for the weights.
    output: |tiles| unsafe { output::output2(tiles) },
};
