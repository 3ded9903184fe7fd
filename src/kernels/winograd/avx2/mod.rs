//! Winograd convolution with AVX2 without VNNI: transforms of [inputs](input) and [weights] in i16, 16 channels at a time,
//! products and sums by `vpmaddwd` and `vpaddd` ([`multiply`]), and the way back with 8 channels at a time in i32 ([`output`]).
//!
//! ```text
//!   one of the 36 points:           16 output channels: two registers of 8 sums
//!                                  ┌──────────────────┬──────────────────┐
//!            a pair of i16 (two    │ U: pairs of 8    │ U: pairs of 8    │ loaded once a pair of input channels
//!            input channels),      └──────────────────┴──────────────────┘
//!            broadcast    ┌─────┐  ┌──────────────────┬──────────────────┐
//!   6 tiles of outputs    │ v v │→ │ sums             │ sums             │ 12 registers of sums, 2 of U, 1 of a
//!                         │ v v │→ │                  │                  │ broadcast pair, 1 of products: all 16
//!                         └─────┘  └──────────────────┴──────────────────┘
//! ```
//!
//! It is the register tile of the [direct kernel](crate::kernels::direct), tiles in the place of pixels. Half of the output
//! channels of one point are done for all tiles before the next half, so that their 1 KB of U a block of input channels is
//! in the nearest cache for every group of 6 tiles but the first. The orders of U and M stand in `weights.rs` and
//! `multiply.rs`.
#![allow(unsafe_code)] // The entries: functions that only a processor with AVX2 may run.

mod input;
pub(crate) mod multiply;
mod output;
mod weights;

use super::{Fly, FlyMultiply, Multiply, Winograd};
use crate::kernels::avx2::dot;

/// F(4 × 4, 3 × 3).
pub(crate) const F4: Winograd = Winograd {
    name: "F(4×4,3×3) vpmaddwd 6×16",
    tile: 4,
    // SAFETY: AVX2 is there, since only `available()` hands this out.
    weights: |filters, u| unsafe { weights::weights4(filters, u) },
    // SAFETY: as for the weights.
    input: |tiles| unsafe { input::input4(tiles) },
    // SAFETY: as for the weights.
    multiply: |task| unsafe { multiply4(task) },
    fly: Some(Fly {
        scratch_count: multiply::scratch4,
        // SAFETY: as for the weights.
        multiply: |task| unsafe { fly4(task) },
    }),
    // SAFETY: as for the weights.
    output: |tiles| unsafe { output::output4(tiles) },
};

/// F(2 × 2, 3 × 3): for layers that fail F(4 × 4)'s condition.
pub(crate) const F2: Winograd = Winograd {
    name: "F(2×2,3×3) vpmaddwd 6×16",
    tile: 2,
    // SAFETY: AVX2 is there, since only `available()` hands this out.
    weights: |filters, u| unsafe { weights::weights2(filters, u) },
    // SAFETY: as for the weights.
    input: |tiles| unsafe { input::input2(tiles) },
    // SAFETY: as for the weights.
    multiply: |task| unsafe { multiply2(task) },
    fly: Some(Fly {
        scratch_count: multiply::scratch2,
        // SAFETY: as for the weights.
        multiply: |task| unsafe { fly2(task) },
    }),
    // SAFETY: as for the weights.
    output: |tiles| unsafe { output::output2(tiles) },
};

#[target_feature(enable = "avx2")]
fn multiply4(task: Multiply<'_>) {
    multiply::multiply(36, task, |sums, x, w| dot(sums, x, w));
}

#[target_feature(enable = "avx2")]
fn fly4(task: FlyMultiply<'_>) {
    multiply::multiply_filters4(task, |sums, x, w| dot(sums, x, w));
}

#[target_feature(enable = "avx2")]
fn multiply2(task: Multiply<'_>) {
    multiply::multiply(16, task, |sums, x, w| dot(sums, x, w));
}

#[target_feature(enable = "avx2")]
fn fly2(task: FlyMultiply<'_>) {
    multiply::multiply_filters2(task, |sums, x, w| dot(sums, x, w));
}
