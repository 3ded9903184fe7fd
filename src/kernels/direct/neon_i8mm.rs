//! Direct convolution with NEON's matrix products (USMMLA, ARMv8.6 with `i8mm`): two pixels × two output channels, eight
//! products of an unsigned and a signed byte added to each.
//!
//! ```text
//!            16 output channels, in pairs           weights, packed: half a block of output channels (16), block of
//!          ┌──┬──┬──┬──┬──┬──┬──┬──┐                input channels, kernel row, kernel column (0, 2, 1), eight channels of
//! 4 pixels │22│22│22│22│22│22│22│22│                the block, output channel, those eight
//! in pairs ├──┼──┼──┼──┼──┼──┼──┼──┤
//!          │22│22│22│22│22│22│22│22│ i32: 16 registers
//!          └──┴──┴──┴──┴──┴──┴──┴──┘
//! ```
//!
//! The instruction wants eight channels of two pixels in a register: LD4 of 64-bit elements brings all 32 channels of two
//! neighbours into four registers in just that way. Eight hold those of four pixels, eight the weights of a step. The second
//! kernel column comes last since the others share a pair of pixels.
#![allow(unsafe_code)] // Instructions that intrinsics do not have yet.

use super::{Direct, Row};
use crate::kernels::BLOCK;
use crate::kernels::neon::{Requantizer, Window, store_u8x16};
use core::arch::aarch64::*;
use core::arch::asm;

/// Four pixels × 16 channels.
pub(crate) const DIRECT: Direct = Direct {
    name: "usmmla 4×16",
    packed_bytes: |blocks, taps| blocks * BLOCK * taps * BLOCK,
    pack,
    // SAFETY: `available` hands it out after the detection of NEON and its matrix products only.
    row: |task| unsafe { row(task) },
};

/// Output channels done at a time.
const HALF: usize = BLOCK / 2;
/// Pixels of the wider register tile.
const WIDEST: usize = 4;
/// The order of kernel columns.
const COLUMNS: [usize; 3] = [0, 2, 1];

fn pack(filters: &[i8], taps: usize, packed: &mut [i8]) {
    let kernel = if taps == 9 { 3 } else { 1 };
    let blocks = filters.len() / (BLOCK * taps * BLOCK);
    // A step: eight input channels of 16 output channels.
    for (index, step) in packed.chunks_exact_mut(8 * HALF).enumerate() {
        let (index, eight) = (index / 4, index % 4);
        let (index, kx) = (index / kernel, COLUMNS[index % kernel]);
        let (index, ky) = (index / kernel, index % kernel);
        let (half, block) = (index / blocks, index % blocks);
        for (at, w) in step.iter_mut().enumerate() {
            let c = block * BLOCK + eight * 8 + at % 8;
            *w = filters[(c * taps + ky * kernel + kx) * BLOCK + half * HALF + at / 8];
        }
    }
}

#[target_feature(enable = "neon,i8mm")]
fn row(task: Row<'_>) {
    let Row { input, plane, row, kernel, weights, epilogue, output } = task;
    let (blocks, columns) = (plane.blocks(), output.len() / BLOCK);
    let window = Window::of(plane, kernel);
    // All that the tiles read: up to the last block's last row, whose last tile may reach three pixels beyond the columns.
    let begin = plane.window(0, row, kernel);
    let end = plane.window(blocks - 1, row + kernel - 1, kernel) + (columns + 3 + kernel - 1) * BLOCK;
    let input = &input[begin..end];
    let weights = &weights[..blocks * BLOCK * kernel * kernel * BLOCK];
    for (half, weights) in weights.chunks_exact(weights.len() / 2).enumerate() {
        let requantizer = Requantizer::<4>::new(epilogue, half * HALF);
        for (index, pixels) in output.chunks_mut(WIDEST * BLOCK).enumerate() {
            let x = input[index * WIDEST * BLOCK..].as_ptr();
            let tile = match (kernel, pixels.len() / BLOCK) {
                (3, 3..) => three_4,
                (3, _) => three_2,
                (_, 3..) => one_4,
                (_, _) => one_2,
            };
            // SAFETY: `input` ends where the last tile's window in the last block does, and a half has all weights of 16
            // output channels.
            unsafe { tile(x, weights.as_ptr(), &window, &requantizer, half * HALF, pixels) };
        }
    }
}

/// One step of a tile: eight input channels. For each pair of pixels its register and those of its sums.
macro_rules! step {
    ([$(($x:literal $a:literal $b:literal $c:literal $d:literal $e:literal $f:literal $g:literal $h:literal))*]) => {
        concat!(
            "ld1 {{v8.16b, v9.16b, v10.16b, v11.16b}}, [{w}], #64\n",
            "ld1 {{v12.16b, v13.16b, v14.16b, v15.16b}}, [{w}], #64\n",
            $(
                "usmmla ", $a, ".4s, ", $x, ".16b, v8.16b\n", "usmmla ", $b, ".4s, ", $x, ".16b, v9.16b\n",
                "usmmla ", $c, ".4s, ", $x, ".16b, v10.16b\n", "usmmla ", $d, ".4s, ", $x, ".16b, v11.16b\n",
                "usmmla ", $e, ".4s, ", $x, ".16b, v12.16b\n", "usmmla ", $f, ".4s, ", $x, ".16b, v13.16b\n",
                "usmmla ", $g, ".4s, ", $x, ".16b, v14.16b\n", "usmmla ", $h, ".4s, ", $x, ".16b, v15.16b\n",
            )*
        )
    };
}

/// One kernel column of a tile, 32 input channels: the registers of each pair of pixels, in which their channels lie by
/// eights, and those of its sums.
macro_rules! column {
    ([$(($i:literal $j:literal $k:literal $l:literal))*] [$(($p:literal $($s:literal)*))*]) => {
        concat!(step!([$(($i $($s)*))*]), step!([$(($j $($s)*))*]), step!([$(($k $($s)*))*]), step!([$(($l $($s)*))*]))
    };
}

/// Loads all channels of two pixels, by eights.
macro_rules! load {
    ($a:literal $b:literal $c:literal $d:literal $from:literal) => {
        concat!("ld4 {{", $a, ".2d, ", $b, ".2d, ", $c, ".2d, ", $d, ".2d}}, ", $from, "\n")
    };
}

/// A kernel row of four windows: its column 0 multiplies pixels 0 to 3, column 2 pixels 2 to 5, of which it has the first
/// pair already, and column 1 pixels 1 to 4.
macro_rules! three_columns_4 {
    ($sums:tt) => {
        concat!(
            load!("v0" "v1" "v2" "v3" "[{x}], #64"),
            load!("v4" "v5" "v6" "v7" "[{x}], #64"),
            column!([("v0" "v1" "v2" "v3") ("v4" "v5" "v6" "v7")] $sums),
            load!("v0" "v1" "v2" "v3" "[{x}]"),
            "sub {y}, {x}, #96\n",
            column!([("v4" "v5" "v6" "v7") ("v0" "v1" "v2" "v3")] $sums),
            load!("v0" "v1" "v2" "v3" "[{y}], #64"),
            load!("v4" "v5" "v6" "v7" "[{y}]"),
            column!([("v0" "v1" "v2" "v3") ("v4" "v5" "v6" "v7")] $sums),
        )
    };
}

/// The same of two windows.
macro_rules! three_columns_2 {
    ($sums:tt) => {
        concat!(
            load!("v0" "v1" "v2" "v3" "[{x}], #64"),
            load!("v4" "v5" "v6" "v7" "[{x}]"),
            "sub {y}, {x}, #32\n",
            column!([("v0" "v1" "v2" "v3")] $sums),
            column!([("v4" "v5" "v6" "v7")] $sums),
            load!("v0" "v1" "v2" "v3" "[{y}]"),
            column!([("v0" "v1" "v2" "v3")] $sums),
        )
    };
}

/// Four pixels of a 1 × 1 kernel.
macro_rules! one_column_4 {
    ($sums:tt) => {
        concat!(
            load!("v0" "v1" "v2" "v3" "[{x}], #64"),
            load!("v4" "v5" "v6" "v7" "[{x}], #64"),
            column!([("v0" "v1" "v2" "v3") ("v4" "v5" "v6" "v7")] $sums),
        )
    };
}

/// Two pixels of a 1 × 1 kernel.
macro_rules! one_column_2 {
    ($sums:tt) => {
        concat!(load!("v0" "v1" "v2" "v3" "[{x}], #64"), column!([("v0" "v1" "v2" "v3")] $sums))
    };
}

/// A tile: its pairs of pixels, what it does for a row of the kernel, which moves `x` on by all its pixels, and its sums.
macro_rules! tile {
    ($name:ident $pairs:literal $columns:ident [$(($p:literal $a:tt $b:tt $c:tt $d:tt $e:tt
        $f:tt $g:tt $h:tt))*]) => {
        /// # Safety
        ///
        /// `x` points to the first pixel of the first window in the first block of a plane that `window` describes, in which
        /// all windows can be read; `w` to the packed weights of 16 output channels.
        #[target_feature(enable = "neon,i8mm")]
        unsafe fn $name(x: *const u8, w: *const i8, window: &Window, requantizer: &Requantizer<4>, channel: usize,
            pixels: &mut [u8]) {
            let mut sums = [twice(requantizer.bias); $pairs];
            // SAFETY: it reads what the caller says, and every register is declared.
            unsafe {
                asm!(
                    concat!(
                        "2:\n",
                        "mov {row}, {rows}\n",
                        "3:\n",
                        $columns!([$(($p $a $b $c $d $e $f $g $h))*]),
                        "add {x}, {x}, {to_next_row}\n",
                        "subs {row}, {row}, #1\n",
                        "b.ne 3b\n",
                        "add {x}, {x}, {to_next_block}\n",
                        "subs {blocks}, {blocks}, #1\n",
                        "b.ne 2b\n",
                        "/* {y}, which a 1 × 1 kernel has no use for */\n",
                    ),
                    x = inout(reg) x => _, y = out(reg) _, w = inout(reg) w => _,
                    blocks = inout(reg) window.blocks => _, row = out(reg) _, rows = in(reg) window.rows,
                    to_next_row = in(reg) window.row_bytes.wrapping_sub(2 * $pairs * BLOCK),
                    to_next_block = in(reg) window.to_next_block,
                    $(
                        inout($a) sums[$p][0], inout($b) sums[$p][1], inout($c) sums[$p][2], inout($d) sums[$p][3],
                        inout($e) sums[$p][4], inout($f) sums[$p][5], inout($g) sums[$p][6], inout($h) sums[$p][7],
                    )*
                    out("v0") _, out("v1") _, out("v2") _, out("v3") _, out("v4") _, out("v5") _, out("v6") _, out("v7") _,
                    out("v8") _, out("v9") _, out("v10") _, out("v11") _, out("v12") _, out("v13") _, out("v14") _,
                    out("v15") _,
                    options(nostack, readonly)
                );
            }
            for (pair, sums) in pixels.chunks_mut(2 * BLOCK).zip(sums) {
                for (pixel, sums) in pair.chunks_exact_mut(BLOCK).zip(parted(sums)) {
                    store_u8x16(pixel, channel, requantizer.bytes(sums));
                }
            }
        }
    };
}

tile!(three_4 2 three_columns_4 [(0 "v16" "v17" "v18" "v19" "v20" "v21" "v22" "v23")
    (1 "v24" "v25" "v26" "v27" "v28" "v29" "v30" "v31")]);
tile!(three_2 1 three_columns_2 [(0 "v16" "v17" "v18" "v19" "v20" "v21" "v22" "v23")]);
tile!(one_4 2 one_column_4 [(0 "v16" "v17" "v18" "v19" "v20" "v21" "v22" "v23")
    (1 "v24" "v25" "v26" "v27" "v28" "v29" "v30" "v31")]);
tile!(one_2 1 one_column_2 [(0 "v16" "v17" "v18" "v19" "v20" "v21" "v22" "v23")]);

/// Sixteen channels by pairs, each pair twice: once for each of two pixels.
#[target_feature(enable = "neon")]
#[inline]
fn twice(channels: [int32x4_t; 4]) -> [int32x4_t; 8] {
    std::array::from_fn(|pair| {
        let four = vreinterpretq_s64_s32(channels[pair / 2]);
        vreinterpretq_s32_s64(if pair % 2 == 0 { vzip1q_s64(four, four) } else { vzip2q_s64(four, four) })
    })
}

/// The sixteen channels of each of two pixels, from pairs of channels of both.
#[target_feature(enable = "neon")]
#[inline]
fn parted(sums: [int32x4_t; 8]) -> [[int32x4_t; 4]; 2] {
    let pair = |i: usize| (vreinterpretq_s64_s32(sums[2 * i]), vreinterpretq_s64_s32(sums[2 * i + 1]));
    let first = |i| vreinterpretq_s32_s64(vzip1q_s64(pair(i).0, pair(i).1));
    let second = |i| vreinterpretq_s32_s64(vzip2q_s64(pair(i).0, pair(i).1));
    [std::array::from_fn(first), std::array::from_fn(second)]
}
