//! Winograd F(4 × 4, 3 × 3) with AVX-512 VNNI: `vpdpwssd` adds two products of i16 to each of 16 sums.
//!
//! The multiplication is, for each of the 36 points, a product of matrices: tiles × channels × 32 output channels. Its
//! register tile is that of the [direct kernel](crate::kernels::direct): 14 tiles (in the place of pixels) × 32 channels, two
//! input channels a step. U of one point, which every group of 14 tiles reads again, is 64 bytes an input channel and stays
//! in the first cache; V is streamed. U: point, input block, pair of channels (16), output channel (32), channel of the pair.
//! M: tile, point, output channel.
//!
//! A block of a channel's numbers is one register of i16, so the transforms of inputs and of weights work on whole registers.
//! U's pairs are made by unpacking, which works on the four quarters of a register: it leaves, of 32 output channels, the even
//! groups of four in one register and the odd ones in the other. That order stays, through M, until the bytes are packed.
//!
//! Of the [matrices](super::F4), the last row of G is multiplied by 3 and the last column of Aᵀ divided by it, 24 to 8: so that a
//! shift does where two more operations were, and there are more outputs than filters. Each point's product of the two
//! stays what it was, so y still comes out multiplied by 576, and `F4.inverse` and the shift by 6 are the page's.
#![allow(unsafe_code)] // The entries from the table, loads and stores.

mod input;
mod multiply;
mod output;
mod weights;

use super::{Fly, Winograd};
use crate::kernels::BLOCK;
use std::arch::x86_64::*;

pub(crate) use multiply::dpwssd;

/// 14 tiles × 32 channels.
pub(crate) const F4: Winograd = Winograd {
    name: "F(4×4,3×3) vpdpwssd 14×32",
    tile: 4,
    // SAFETY: the table hands these kernels out only where the processor has the instructions.
    weights: |filters, u| unsafe { weights::weights(filters, u) },
    // SAFETY: as above.
    input: |tiles| unsafe { input::input(tiles) },
    // SAFETY: as above.
    multiply: |task| unsafe { multiply::multiply(task) },
    fly: Some(Fly {
        scratch_count: |blocks| 6 * blocks * U_BLOCK,
        // SAFETY: as above.
        multiply: |task| unsafe { multiply::multiply_filters(task) },
    }),
    // SAFETY: as above.
    output: |tiles| unsafe { output::output(tiles) },
};

/// Points of a transformed tile.
const POINTS: usize = 36;

/// Numbers of U of one point and one input block.
const U_BLOCK: usize = BLOCK * BLOCK;

/// Lines of the cache that those are.
const U_LINES: usize = U_BLOCK / BLOCK;

/// Numbers of U of a step: two input channels × 32 output channels.
const STEP: usize = 2 * BLOCK;

/// 32 numbers of i16 or 16 of i32 from the front of a slice.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn load<T>(from: &[T]) -> __m512i {
    let from = &from[..64 / size_of::<T>()];
    // SAFETY: the slice holds 64 bytes.
    unsafe { _mm512_loadu_si512(from.as_ptr().cast()) }
}

/// Stores 64 bytes at the front of a slice.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn store<T>(to: &mut [T], value: __m512i) {
    let to = &mut to[..64 / size_of::<T>()];
    // SAFETY: the slice holds 64 bytes, and T is an integer here, which may have any bits.
    unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), value) }
}
