//! The ceilings of ARM's multiply instructions: each into 16 registers of sums in turn, more than any core's latency needs.
#![allow(unsafe_code)] // Instructions.

use super::Ceiling;
use core::arch::asm;

/// Both of plain NEON's kernels multiply i16 by SMLAL.
pub(crate) const NEON: Ceiling = Ceiling { direct: smlal, winograd: smlal };
/// Direct convolution by SDOT.
pub(crate) const DOT: Ceiling = Ceiling { direct: sdot, winograd: smlal };
/// Direct convolution by USMMLA.
pub(crate) const I8MM: Ceiling = Ceiling { direct: usmmla, winograd: smlal };

/// A loop of one multiply instruction, which adds up so many products, and the extension it belongs to.
macro_rules! ceiling {
    ($name:ident $products:literal $extension:literal $before:literal $after:literal) => {
        fn $name(iterations: u64) -> u64 {
            if iterations > 0 {
                // SAFETY: registers only; a ceiling is handed out after the detection of its instructions only.
                unsafe {
                    asm!(
                        $extension,
                        "2:",
                        concat!($before, "v16", $after), concat!($before, "v17", $after),
                        concat!($before, "v18", $after), concat!($before, "v19", $after),
                        concat!($before, "v20", $after), concat!($before, "v21", $after),
                        concat!($before, "v22", $after), concat!($before, "v23", $after),
                        concat!($before, "v24", $after), concat!($before, "v25", $after),
                        concat!($before, "v26", $after), concat!($before, "v27", $after),
                        concat!($before, "v28", $after), concat!($before, "v29", $after),
                        concat!($before, "v30", $after), concat!($before, "v31", $after),
                        "subs {left}, {left}, #1",
                        "b.ne 2b",
                        left = inout(reg) iterations => _,
                        out("v16") _, out("v17") _, out("v18") _, out("v19") _, out("v20") _, out("v21") _,
                        out("v22") _, out("v23") _, out("v24") _, out("v25") _, out("v26") _, out("v27") _,
                        out("v28") _, out("v29") _, out("v30") _, out("v31") _,
                        options(nomem, nostack)
                    );
                }
            }
            iterations * 16 * $products
        }
    };
}

ceiling!(smlal 4 "" "smlal " ".4s, v0.4h, v1.h[0]");
ceiling!(sdot 16 ".arch_extension dotprod" "sdot " ".4s, v0.16b, v1.4b[0]");
ceiling!(usmmla 32 ".arch_extension i8mm" "usmmla " ".4s, v0.16b, v1.16b");
