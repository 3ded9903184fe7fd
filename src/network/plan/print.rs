//! A plan as a table.

use super::{Plan, Scratch, Step, Work};
use std::fmt;

impl Work {
    /// The kernel's name.
    pub fn kernel(&self, plan: &Plan) -> &'static str {
        match self {
            Self::First { .. } => plan.options.kernels.first.name,
            Self::Direct { .. } => plan.options.kernels.direct.name,
            Self::Winograd(tiling) => tiling.winograd.name,
            Self::Pool { .. } => "maximum",
        }
    }
}

impl fmt::Display for Work {
    /// How the work is shared out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::First { strip } | Self::Direct { strip } | Self::Pool { strip } => {
                write!(f, "strips of {strip} rows")
            }
            Self::Winograd(tiling) => {
                let stored = if tiling.stored { "stored" } else { "on the fly" };
                let (strip, step) = (tiling.strip, tiling.step());
                match tiling.round {
                    Some(round) => write!(f, "rounds of {round} × {strip}/{step} rows of tiles, U {stored}"),
                    None => write!(f, "strips of {strip}/{step} rows of tiles, U {stored}"),
                }
            }
        }
    }
}

impl Step {
    /// Bytes of its packed weights and epilogues.
    pub fn weight_bytes(&self) -> usize {
        if self.weights.stride == 0 {
            return 0;
        }
        self.output.blocks() * (self.weights.stride + super::EPILOGUE_BYTES)
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for step in &self.steps {
            let (input, output) = (step.input, step.output);
            let planes = format!("{0}²×{1} → {2}²×{3}", input.rows, input.channels, output.rows, output.channels);
            let (kernel, pool) = (step.work.kernel(self), if step.pool { ", pooled" } else { "" });
            let (kilobytes, gmac) = (step.weight_bytes() / 1000, step.macs as f64 / 1e9);
            writeln!(
                f,
                "{:<14} {planes:<22} {kernel:<24} {kilobytes:>6} kB {gmac:>6.3} GMAC  {}{pool}",
                step.name, step.work
            )?;
        }
        let Scratch { shared_v, v, m, u, rows } = self.scratch;
        let planes = self.arena_bytes[0] + self.arena_bytes[1] + self.image_bytes;
        let scratch = shared_v + self.options.threads * (v + m + u + rows);
        let megabytes = |bytes: usize| bytes as f64 / 1e6;
        write!(
            f,
            "weights {:.1} MB, planes {:.1} MB, working memory {:.1} MB, {:.2} GMAC, {} threads",
            megabytes(self.weight_bytes),
            megabytes(planes),
            megabytes(scratch),
            self.macs() as f64 / 1e9,
            self.options.threads
        )
    }
}
