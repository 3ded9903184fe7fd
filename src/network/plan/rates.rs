//! What the kernels cost: a few numbers for each instruction set, from which the planner adds up what a layer takes. They are
//! good for comparing ways to do a layer, not for predicting times.

use super::Shape;
use crate::kernels::winograd::Winograd;
use crate::kernels::{BLOCK, Kernels};

/// Costs of one instruction set, in any unit that is the same for all of them. (Of the x86 ones: nanoseconds on a Zen 5 core,
/// from `tests/alone/examples/layers.rs`. Of the ARM ones: instructions, from `tests/alone/examples/count.rs`.)
#[derive(Debug, Clone, Copy)]
pub(super) struct Rates {
    /// A thousand products of a direct convolution.
    direct: f64,
    /// A thousand products of Winograd's multiplication.
    multiply: f64,
    /// Transforming one tile of one block of input channels, 4 × 4 outputs; a tile of 2 × 2 is taken for a third of it.
    input: f64,
    /// Transforming one tile of one block of output channels back.
    output: f64,
    /// Transforming the filters of one block of input channels and one of output channels.
    weights: f64,
    /// Reading a byte of U, which no cache holds from one inference to the next.
    reading: f64,
}

impl Rates {
    /// Those of some kernels; of unknown ones those of the portable.
    pub(super) fn of(kernels: &Kernels) -> Self {
        match kernels.name {
            "avx512vnni" => {
                Self { direct: 2.1, multiply: 4.4, input: 55.0, output: 60.0, weights: 1500.0, reading: 0.02 }
            }
            "avxvnni" => {
                Self { direct: 4.2, multiply: 8.8, input: 60.0, output: 100.0, weights: 2500.0, reading: 0.03 }
            }
            "avx2" => Self { direct: 9.8, multiply: 9.7, input: 90.0, output: 150.0, weights: 6000.0, reading: 0.05 },
            _ => {
                Self { direct: 400.0, multiply: 300.0, input: 9000.0, output: 9000.0, weights: 90_000.0, reading: 0.2 }
            }
        }
    }

    /// A direct convolution.
    pub(super) fn direct(&self, shape: &Shape<'_>) -> f64 {
        let pixels = shape.input.rows * shape.input.columns * shape.kernel * shape.kernel;
        pixels as f64 * pairs(shape) * (BLOCK * BLOCK) as f64 / 1e3 * self.direct
    }

    /// Winograd but for U.
    pub(super) fn tiles(&self, shape: &Shape<'_>, winograd: &Winograd) -> f64 {
        let (rows, columns) = winograd.tiles(shape.input.rows, shape.input.columns);
        let tiles = (rows * columns) as f64;
        let products = tiles * winograd.points() as f64 * pairs(shape) * (BLOCK * BLOCK) as f64;
        let of_four = if winograd.tile == 4 { 1.0 } else { 1.0 / 3.0 };
        let (blocks_in, blocks_out) = (shape.input.blocks() as f64, shape.output.blocks() as f64);
        products / 1e3 * self.multiply + of_four * tiles * (blocks_in * self.input + blocks_out * self.output)
    }

    /// Making the layer's U once.
    pub(super) fn weights(&self, shape: &Shape<'_>) -> f64 {
        pairs(shape) * self.weights
    }

    /// Reading so many bytes of U once.
    pub(super) fn reading(&self, bytes: usize) -> f64 {
        bytes as f64 * self.reading
    }
}

/// Pairs of a block of input and one of output channels.
fn pairs(shape: &Shape<'_>) -> f64 {
    (shape.input.blocks() * shape.output.blocks()) as f64
}
