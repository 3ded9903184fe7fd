//! Direct convolution with NEON's dot products (SDOT, ARMv8.2 with `dotprod`): four products of bytes added to each i32.
//!
//! ```text
//!            16 output channels                     weights, packed: half a block of output channels (16), block of
//!          ┌────┬────┬────┬────┐                    input channels, kernel row, half of the block's input channels,
//!          │    │    │    │    │                    kernel column, four of their channels, output channel, those four
//! 5 pixels │ 4  │ 4  │ 4  │ 4  │ i32: 20 registers
//!          │    │    │    │    │                    then, for each output channel, 128·Σw as i32
//!          └────┴────┴────┴────┘
//! ```
//!
//! Seven registers hold 16 channels of the seven pixels under five windows of a kernel row, so that its three columns are
//! summed without another load of activations; four hold the weights of a step. With the constant they are 32. (Six pixels
//! would leave two for weights, and more loads a product.)
//!
//! SDOT multiplies signed bytes: activations x are made x − 128 by flipping their upper bit, seven registers for 240
//! instructions, and `Σ x·w = Σ (x − 128)·w + 128·Σw`, whose second term is packed behind the weights.
#![allow(unsafe_code)] // Loads and instructions that intrinsics do not have yet.

use super::{Direct, Row};
use crate::kernels::BLOCK;
use crate::kernels::neon::{Requantizer, Window, even_ranges, load_i32x4_from_bytes, store_u8x16};
use core::arch::aarch64::*;
use core::arch::asm;

/// Five pixels × 16 channels.
pub(crate) const DIRECT: Direct = Direct {
    name: "sdot 5×16",
    packed_bytes: |blocks, taps| blocks * BLOCK * taps * BLOCK + CORRECTIONS,
    pack,
    // SAFETY: `available` hands it out after the detection of NEON and its dot products only.
    row: |task| unsafe { row(task) },
};

/// Output channels done at a time, and input channels of a register of bytes.
const HALF: usize = BLOCK / 2;
/// Pixels of the widest register tile.
const WIDEST: usize = 5;
/// Pixels of the narrowest one, of which fewer are stored where a row has fewer.
const NARROWEST: usize = 3;
/// Bytes of the corrections behind the weights.
const CORRECTIONS: usize = BLOCK * size_of::<i32>();

fn pack(filters: &[i8], taps: usize, packed: &mut [i8]) {
    let kernel = if taps == 9 { 3 } else { 1 };
    let blocks = filters.len() / (BLOCK * taps * BLOCK);
    let (weights, corrections) = packed.split_at_mut(filters.len());
    // A step: four input channels of 16 output channels.
    for (index, step) in weights.chunks_exact_mut(4 * HALF).enumerate() {
        let (index, four) = (index / 4, index % 4);
        let (index, kx) = (index / kernel, index % kernel);
        let (index, channels) = (index / 2, index % 2);
        let (index, ky) = (index / kernel, index % kernel);
        let (half, block) = (index / blocks, index % blocks);
        for (at, w) in step.iter_mut().enumerate() {
            let c = block * BLOCK + channels * HALF + four * 4 + at % 4;
            *w = filters[(c * taps + ky * kernel + kx) * BLOCK + half * HALF + at / 4];
        }
    }
    for (o, correction) in corrections.chunks_exact_mut(size_of::<i32>()).enumerate().take(BLOCK) {
        let sum = filters.iter().skip(o).step_by(BLOCK).fold(0i32, |sum, &w| sum.wrapping_add(i32::from(w)));
        for (byte, value) in correction.iter_mut().zip(sum.wrapping_mul(128).to_ne_bytes()) {
            *byte = value as i8;
        }
    }
}

#[target_feature(enable = "neon,dotprod")]
fn row(task: Row<'_>) {
    let Row { input, plane, row, kernel, weights, epilogue, output } = task;
    let (blocks, columns) = (plane.blocks(), output.len() / BLOCK);
    let window = Window::of(plane, kernel);
    // All that the tiles read: up to the last block's last row, whose last tile may reach beyond the columns.
    let begin = plane.window(0, row, kernel);
    let end = plane.window(blocks - 1, row + kernel - 1, kernel) + (columns.max(NARROWEST) + kernel - 1) * BLOCK;
    let input = &input[begin..end];
    let (weights, corrections) = weights.split_at(blocks * BLOCK * kernel * kernel * BLOCK);
    for (half, weights) in weights.chunks_exact(weights.len() / 2).enumerate() {
        let requantizer = Requantizer::<4>::new(epilogue, half * HALF);
        let correction = |i: usize| load_i32x4_from_bytes(corrections, half * HALF + 4 * i);
        let bias = std::array::from_fn(|i| vaddq_s32(requantizer.bias[i], correction(i)));
        for columns in even_ranges(columns, WIDEST) {
            let x = input[columns.start * BLOCK..].as_ptr();
            let pixels = &mut output[columns.start * BLOCK..columns.end * BLOCK];
            let tile = match (kernel, columns.len()) {
                (3, 5) => three_5,
                (3, 4) => three_4,
                (3, _) => three_3,
                (_, 5) => one_5,
                (_, 4) => one_4,
                (_, _) => one_3,
            };
            // SAFETY: `input` ends where the last tile's window in the last block does, and a half has all weights of 16
            // output channels.
            unsafe { tile(x, weights.as_ptr(), &window, bias, &requantizer, half * HALF, pixels) };
        }
    }
}

/// One step of a tile: four input channels, lane `$lane` of the pixels `$x`, for each of which there is its index and the
/// registers of its sums.
macro_rules! step {
    ($lane:literal [$($x:literal)*] [$(($p:tt $a:literal $b:literal $c:literal $d:literal))*]) => {
        concat!(
            "ld1 {{v8.16b, v9.16b, v10.16b, v11.16b}}, [{w}], #64\n",
            $(
                "sdot ", $a, ".4s, v8.16b, ", $x, ".4b[", $lane, "]\n",
                "sdot ", $b, ".4s, v9.16b, ", $x, ".4b[", $lane, "]\n",
                "sdot ", $c, ".4s, v10.16b, ", $x, ".4b[", $lane, "]\n",
                "sdot ", $d, ".4s, v11.16b, ", $x, ".4b[", $lane, "]\n",
            )*
        )
    };
}

/// One kernel column of a tile: 16 input channels.
macro_rules! column {
    ($x:tt $sums:tt) => {
        concat!(step!(0 $x $sums), step!(1 $x $sums), step!(2 $x $sums), step!(3 $x $sums))
    };
}

/// Half the input channels of a block, from byte `$from` of a pixel: the pixels under the windows, then each kernel column.
macro_rules! channels {
    ($from:literal [$(($index:literal $pixel:literal))*] [$($x:tt)*] $sums:tt) => {
        concat!(
            $("ldr q", $index, ", [{x}, #(", $index, "*32+", $from, ")]\n",)*
            $("eor ", $pixel, ".16b, ", $pixel, ".16b, v7.16b\n",)*
            $(column!($x $sums),)*
        )
    };
}

/// A tile: the pixels under its windows, those that each kernel column multiplies, and the sums.
macro_rules! tile {
    ($name:ident $pixels:tt [$($x:tt)*] [$(($p:literal $a:tt $b:tt $c:tt $d:tt))*]) => {
        /// # Safety
        ///
        /// `x` points to the first pixel of the first window in the first block of a plane that `window` describes, in which
        /// all windows can be read; `w` to the packed weights of 16 output channels.
        #[target_feature(enable = "neon,dotprod")]
        unsafe fn $name(x: *const u8, w: *const i8, window: &Window, bias: [int32x4_t; 4],
            requantizer: &Requantizer<4>, channel: usize, pixels: &mut [u8]) {
            let mut sums = [bias; [$($p),*].len()];
            // SAFETY: it reads what the caller says, and every register is declared.
            unsafe {
                asm!(
                    concat!(
                        "movi v7.16b, #128\n",
                        "2:\n",
                        "mov {row}, {rows}\n",
                        "3:\n",
                        channels!("0" $pixels [$($x)*] [$(($p $a $b $c $d))*]),
                        channels!("16" $pixels [$($x)*] [$(($p $a $b $c $d))*]),
                        "add {x}, {x}, {row_bytes}\n",
                        "subs {row}, {row}, #1\n",
                        "b.ne 3b\n",
                        "add {x}, {x}, {to_next_block}\n",
                        "subs {blocks}, {blocks}, #1\n",
                        "b.ne 2b\n",
                    ),
                    x = inout(reg) x => _, w = inout(reg) w => _, blocks = inout(reg) window.blocks => _,
                    row = out(reg) _, rows = in(reg) window.rows, row_bytes = in(reg) window.row_bytes,
                    to_next_block = in(reg) window.to_next_block,
                    $(inout($a) sums[$p][0], inout($b) sums[$p][1], inout($c) sums[$p][2], inout($d) sums[$p][3],)*
                    out("v0") _, out("v1") _, out("v2") _, out("v3") _, out("v4") _, out("v5") _, out("v6") _, out("v7") _,
                    out("v8") _, out("v9") _, out("v10") _, out("v11") _,
                    options(nostack, readonly)
                );
            }
            for (pixel, sums) in pixels.chunks_exact_mut(BLOCK).zip(sums) {
                store_u8x16(pixel, channel, requantizer.bytes(sums));
            }
        }
    };
}

tile!(three_5 [(0 "v0") (1 "v1") (2 "v2") (3 "v3") (4 "v4") (5 "v5") (6 "v6")]
    [["v0" "v1" "v2" "v3" "v4"] ["v1" "v2" "v3" "v4" "v5"] ["v2" "v3" "v4" "v5" "v6"]]
    [(0 "v12" "v13" "v14" "v15") (1 "v16" "v17" "v18" "v19") (2 "v20" "v21" "v22" "v23") (3 "v24" "v25" "v26" "v27")
     (4 "v28" "v29" "v30" "v31")]);
tile!(three_4 [(0 "v0") (1 "v1") (2 "v2") (3 "v3") (4 "v4") (5 "v5")]
    [["v0" "v1" "v2" "v3"] ["v1" "v2" "v3" "v4"] ["v2" "v3" "v4" "v5"]]
    [(0 "v12" "v13" "v14" "v15") (1 "v16" "v17" "v18" "v19") (2 "v20" "v21" "v22" "v23") (3 "v24" "v25" "v26" "v27")]);
tile!(three_3 [(0 "v0") (1 "v1") (2 "v2") (3 "v3") (4 "v4")]
    [["v0" "v1" "v2"] ["v1" "v2" "v3"] ["v2" "v3" "v4"]]
    [(0 "v12" "v13" "v14" "v15") (1 "v16" "v17" "v18" "v19") (2 "v20" "v21" "v22" "v23")]);
tile!(one_5 [(0 "v0") (1 "v1") (2 "v2") (3 "v3") (4 "v4")] [["v0" "v1" "v2" "v3" "v4"]]
    [(0 "v12" "v13" "v14" "v15") (1 "v16" "v17" "v18" "v19") (2 "v20" "v21" "v22" "v23") (3 "v24" "v25" "v26" "v27")
     (4 "v28" "v29" "v30" "v31")]);
tile!(one_4 [(0 "v0") (1 "v1") (2 "v2") (3 "v3")] [["v0" "v1" "v2" "v3"]]
    [(0 "v12" "v13" "v14" "v15") (1 "v16" "v17" "v18" "v19") (2 "v20" "v21" "v22" "v23") (3 "v24" "v25" "v26" "v27")]);
tile!(one_3 [(0 "v0") (1 "v1") (2 "v2")] [["v0" "v1" "v2"]]
    [(0 "v12" "v13" "v14" "v15") (1 "v16" "v17" "v18" "v19") (2 "v20" "v21" "v22" "v23")]);
