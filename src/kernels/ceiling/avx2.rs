//! The ceiling of AVX2 without VNNI: `vpmaddwd` and `vpaddd`, two products of i16 a lane, for the direct kernel and for
//! Winograd's multiplication alike.
#![allow(unsafe_code)] // The loop is written in assembly, so that nothing is optimised away or spilled.

use super::Ceiling;
use std::arch::asm;

/// Both multiply in i16.
pub(crate) const CEILING: Ceiling = Ceiling { direct: products, winograd: products };

/// 12 sums, as in the kernels.
fn products(iterations: u64) -> u64 {
    if iterations == 0 {
        return 0;
    }
    // SAFETY: registers only, all named as clobbered; AVX2 is there, since only `available()` hands this out.
    unsafe {
        asm!(
            "2:",
            "vpmaddwd ymm14, ymm12, ymm13", "vpaddd ymm0, ymm0, ymm14",
            "vpmaddwd ymm15, ymm12, ymm13", "vpaddd ymm1, ymm1, ymm15",
            "vpmaddwd ymm14, ymm12, ymm13", "vpaddd ymm2, ymm2, ymm14",
            "vpmaddwd ymm15, ymm12, ymm13", "vpaddd ymm3, ymm3, ymm15",
            "vpmaddwd ymm14, ymm12, ymm13", "vpaddd ymm4, ymm4, ymm14",
            "vpmaddwd ymm15, ymm12, ymm13", "vpaddd ymm5, ymm5, ymm15",
            "vpmaddwd ymm14, ymm12, ymm13", "vpaddd ymm6, ymm6, ymm14",
            "vpmaddwd ymm15, ymm12, ymm13", "vpaddd ymm7, ymm7, ymm15",
            "vpmaddwd ymm14, ymm12, ymm13", "vpaddd ymm8, ymm8, ymm14",
            "vpmaddwd ymm15, ymm12, ymm13", "vpaddd ymm9, ymm9, ymm15",
            "vpmaddwd ymm14, ymm12, ymm13", "vpaddd ymm10, ymm10, ymm14",
            "vpmaddwd ymm15, ymm12, ymm13", "vpaddd ymm11, ymm11, ymm15",
            "dec {left}",
            "jnz 2b",
            // Upper halves that are left in use slow down whatever comes next.
            "vzeroupper",
            left = inout(reg) iterations => _,
            out("ymm0") _, out("ymm1") _, out("ymm2") _, out("ymm3") _, out("ymm4") _, out("ymm5") _,
            out("ymm6") _, out("ymm7") _, out("ymm8") _, out("ymm9") _, out("ymm10") _, out("ymm11") _,
            out("ymm12") _, out("ymm13") _, out("ymm14") _, out("ymm15") _,
            options(nomem, nostack),
        );
    }
    iterations * 12 * 16
}
