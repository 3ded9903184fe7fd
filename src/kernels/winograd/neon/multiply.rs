//! The multiplication of Winograd's points in NEON: for each of 36 points a product of matrices, tiles × input channels by
//! input channels × output channels, in i16 with sums in i32 that wrap around. Not the transforms.
//!
//! ```text
//!                U: 16 output channels          registers: 24 of sums (6 tiles × 16 channels), 6 of V (four input
//!               ┌────┬────┬────┬────┐           channels of each tile), 2 of U (four output channels of one input
//!  V: 6 tiles   │ 4  │ 4  │ 4  │ 4  │           channel), which alternate: while six SMLAL by lane use one, the other
//!               └────┴────┴────┴────┘           is loaded
//! ```
//!
//! The loop is assembly since 32 registers are just enough: a compiler spills. All loads are of 64 bits, though 128 would be
//! fewer instructions (1.07 a multiplication instead of 1.23): an in-order core (cortex-a53, a55) issues a load of 64 bits
//! beside a multiplication, but none of 128; on the others the multiplications alone, one a cycle, are what takes time.

use super::super::Multiply;
use super::{HALF, POINTS};
use crate::kernels::BLOCK;
use crate::kernels::neon::even_ranges;
use core::arch::asm;

/// Tiles of the widest register tile.
const WIDEST: usize = 6;

/// Products of one input channel, lane `$lane` of V (`$v`, a register a tile), with the four output channels in register `$u`.
/// `$load`, which fills the other register of U, comes after the first.
macro_rules! group {
    ($u:literal $lane:literal [$($load:literal)*] [$acc:literal $($accs:literal)*] [$v:literal $($vs:literal)*]) => {
        concat!(
            "smlal v", $acc, ".4s, v", $u, ".4h, v", $v, ".h[", $lane, "]\n",
            $($load,)* "\n",
            $("smlal v", $accs, ".4s, v", $u, ".4h, v", $vs, ".h[", $lane, "]\n",)*
        )
    };
}

/// As `group`, and each register of V is loaded anew with the next four input channels after its use.
macro_rules! last_group {
    ($k:literal [$($acc:literal)*] [$($v:literal)*]) => {
        concat!(
            "ldr d6, [{u}, #(", $k, "*32+128)]\n",
            $("smlal v", $acc, ".4s, v7.4h, v", $v, ".h[3]\n", "ldr d", $v, ", [{v}, #(", $v, "*64+", $k, "*2+8)]\n",)*
        )
    };
}

/// Products of three of four input channels from channel `$k`, and of the fourth but for its last four output channels.
macro_rules! most_of_four {
    ($k:literal $a:tt $b:tt $c:tt $d:tt $v:tt) => {
        concat!(
            group!(6 0 ["ldr d7, [{u}, #(" $k "*32+8)]"] $a $v),
            group!(7 0 ["ldr d6, [{u}, #(" $k "*32+16)]"] $b $v),
            group!(6 0 ["ldr d7, [{u}, #(" $k "*32+24)]"] $c $v),
            group!(7 0 ["ldr d6, [{u}, #(" $k "*32+32)]"] $d $v),
            group!(6 1 ["ldr d7, [{u}, #(" $k "*32+40)]"] $a $v),
            group!(7 1 ["ldr d6, [{u}, #(" $k "*32+48)]"] $b $v),
            group!(6 1 ["ldr d7, [{u}, #(" $k "*32+56)]"] $c $v),
            group!(7 1 ["ldr d6, [{u}, #(" $k "*32+64)]"] $d $v),
            group!(6 2 ["ldr d7, [{u}, #(" $k "*32+72)]"] $a $v),
            group!(7 2 ["ldr d6, [{u}, #(" $k "*32+80)]"] $b $v),
            group!(6 2 ["ldr d7, [{u}, #(" $k "*32+88)]"] $c $v),
            group!(7 2 ["ldr d6, [{u}, #(" $k "*32+96)]"] $d $v),
            group!(6 3 ["ldr d7, [{u}, #(" $k "*32+104)]"] $a $v),
            group!(7 3 ["ldr d6, [{u}, #(" $k "*32+112)]"] $b $v),
            group!(6 3 ["ldr d7, [{u}, #(" $k "*32+120)]"] $c $v),
        )
    };
}

/// All products of four input channels, of which others follow.
macro_rules! four {
    ($k:literal $a:tt $b:tt $c:tt $d:tt $v:tt) => {
        concat!(most_of_four!($k $a $b $c $d $v), last_group!($k $d $v))
    };
}

/// A kernel of so many tiles: the registers of the sums of four output channels of each, four times, and those of V.
macro_rules! kernel {
    ($name:ident [$($a:literal)*] [$($b:literal)*] [$($c:literal)*] [$($d:literal)*] [$($v:literal)*]) => {
        /// # Safety
        ///
        /// `v` points to V of the first tile and block of input channels; that of the next tile comes 32 numbers later,
        /// that of the next block `stride` bytes later. `u` points to `blocks` × 32 × 16 numbers, `m` to 32 of each tile,
        /// of which 16 are written. `blocks` is at least 1.
        unsafe fn $name(v: *const i16, u: *const i16, m: *mut i32, blocks: usize, stride: usize) {
            // SAFETY: all that is read and written lies where the caller says; every register is declared.
            unsafe {
                asm!(
                    concat!(
                        $("movi v", $a, ".4s, #0\n",)* $("movi v", $b, ".4s, #0\n",)*
                        $("movi v", $c, ".4s, #0\n",)* $("movi v", $d, ".4s, #0\n",)*
                        "2:\n",
                        "ldr d6, [{u}]\n",
                        $("ldr d", $v, ", [{v}, #(", $v, "*64)]\n",)*
                        four!("0" [$($a)*] [$($b)*] [$($c)*] [$($d)*] [$($v)*]),
                        four!("4" [$($a)*] [$($b)*] [$($c)*] [$($d)*] [$($v)*]),
                        four!("8" [$($a)*] [$($b)*] [$($c)*] [$($d)*] [$($v)*]),
                        four!("12" [$($a)*] [$($b)*] [$($c)*] [$($d)*] [$($v)*]),
                        four!("16" [$($a)*] [$($b)*] [$($c)*] [$($d)*] [$($v)*]),
                        four!("20" [$($a)*] [$($b)*] [$($c)*] [$($d)*] [$($v)*]),
                        four!("24" [$($a)*] [$($b)*] [$($c)*] [$($d)*] [$($v)*]),
                        most_of_four!("28" [$($a)*] [$($b)*] [$($c)*] [$($d)*] [$($v)*]),
                        group!(7 3 ["add {u}, {u}, #1024"] [$($d)*] [$($v)*]),
                        "add {v}, {v}, {stride}\n",
                        "subs {blocks}, {blocks}, #1\n",
                        "b.ne 2b\n",
                        $("stp q", $a, ", q", $b, ", [{m}, #(", $v, "*128)]\n",)*
                        $("stp q", $c, ", q", $d, ", [{m}, #(", $v, "*128+32)]\n",)*
                    ),
                    u = inout(reg) u => _, v = inout(reg) v => _, blocks = inout(reg) blocks => _,
                    m = in(reg) m, stride = in(reg) stride,
                    out("v0") _, out("v1") _, out("v2") _, out("v3") _, out("v4") _, out("v5") _, out("v6") _, out("v7") _,
                    out("v8") _, out("v9") _, out("v10") _, out("v11") _, out("v12") _, out("v13") _, out("v14") _,
                    out("v15") _, out("v16") _, out("v17") _, out("v18") _, out("v19") _, out("v20") _, out("v21") _,
                    out("v22") _, out("v23") _, out("v24") _, out("v25") _, out("v26") _, out("v27") _, out("v28") _,
                    out("v29") _, out("v30") _, out("v31") _,
                    options(nostack)
                );
            }
        }
    };
}

kernel!(tiles_1[8][14][20][26][0]);
kernel!(tiles_2 [8 9] [14 15] [20 21] [26 27] [0 1]);
kernel!(tiles_3 [8 9 10] [14 15 16] [20 21 22] [26 27 28] [0 1 2]);
kernel!(tiles_4 [8 9 10 11] [14 15 16 17] [20 21 22 23] [26 27 28 29] [0 1 2 3]);
kernel!(tiles_5 [8 9 10 11 12] [14 15 16 17 18] [20 21 22 23 24] [26 27 28 29 30] [0 1 2 3 4]);
kernel!(tiles_6 [8 9 10 11 12 13] [14 15 16 17 18 19] [20 21 22 23 24 25] [26 27 28 29 30 31] [0 1 2 3 4 5]);

/// Sums U ⊙ V over all input channels, up to six tiles × 16 output channels at a time.
pub(super) fn multiply(task: Multiply<'_>) {
    let Multiply { v, blocks, tiles, range, u, m } = task;
    let count = range.len();
    assert!(blocks > 0 && range.end <= tiles, "{range:?} of {tiles} tiles, {blocks} blocks");
    // What the pointers below stay within.
    let (v, u) = (&v[..blocks * POINTS * tiles * BLOCK], &u[..POINTS * blocks * BLOCK * BLOCK]);
    let m = &mut m[..POINTS * count * BLOCK];
    let stride = POINTS * tiles * BLOCK * size_of::<i16>();
    for point in 0..POINTS {
        for half in 0..2 {
            let u = u[(point * 2 + half) * blocks * BLOCK * HALF..].as_ptr();
            for part in even_ranges(count, WIDEST) {
                let v = v[(point * tiles + range.start + part.start) * BLOCK..].as_ptr();
                let m = m[(point * count + part.start) * BLOCK + half * HALF..].as_mut_ptr();
                // SAFETY: `part` is within `range`, so all of V, U and M that the kernel reaches lies in the slices, as cut
                // above.
                unsafe {
                    match part.len() {
                        1 => tiles_1(v, u, m, blocks, stride),
                        2 => tiles_2(v, u, m, blocks, stride),
                        3 => tiles_3(v, u, m, blocks, stride),
                        4 => tiles_4(v, u, m, blocks, stride),
                        5 => tiles_5(v, u, m, blocks, stride),
                        _ => tiles_6(v, u, m, blocks, stride),
                    }
                }
            }
        }
    }
}
