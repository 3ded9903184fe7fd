//! The packed weights of a plan: one aligned run of bytes with nothing in it but numbers, so that it can also be a file that
//! is read into memory. Where each step's part lies stands in the [`Plan`].
//!
//! # Layout
//!
//! Step after step, as the plan orders them ([`Slot`](super::plan::Slot)); in a step first the weights of each block of 32
//! output channels, each from a multiple of 64 bytes on, then their epilogues:
//!
//! ```text
//! weights of a block   first layer   as `kernels::first::pack` packs them
//!                      direct        as the kernel's `pack` does
//!                      Winograd, U stored        as the kernel's `weights` does, i16 of this processor's byte order
//!                      Winograd, U on the fly    the filters, as `kernels::direct::pack_filters` does
//! epilogue of a block  320 bytes: 32 × i32 bias, 32 × f32 multiplier, zero_point, 63 zeros; little endian
//! ```
//!
//! [`VERSION`] changes with this layout. The order within a block also depends on the kernels' version: whoever keeps the
//! bytes must key them by the program as well as by [`Plan`] and network.

use super::int8::Conv;
use super::plan::{EPILOGUE_BYTES, Plan, Step, Work};
use crate::kernels::{Aligned, BLOCK, Epilogue, aligned, direct, first};
use crate::quant::Requantize;
use std::borrow::Borrow;

/// The version of the layout above.
pub const VERSION: u32 = 1;

/// The packed weights.
pub struct Weights {
    bytes: Aligned,
}

impl Weights {
    /// Packs the weights of a network's convolutions, in order and the head last, for a plan that was made of its outline.
    /// One of them is held at a time; what fails to come fails this.
    pub fn pack<C: Borrow<Conv>, E>(plan: &Plan, convolutions: impl Iterator<Item = Result<C, E>>) -> Result<Self, E> {
        let mut bytes = Aligned::zeroed(plan.weight_bytes);
        let steps = plan.steps.iter().filter(|step| !matches!(step.work, Work::Pool { .. }));
        for (step, conv) in steps.zip(convolutions) {
            let conv = conv?;
            let conv = conv.borrow();
            let filter = conv.kernel * conv.kernel * conv.in_channels;
            for (block, filters) in conv.weights.chunks((filter * BLOCK).max(1)).enumerate() {
                pack_block(&mut bytes, plan, step, conv, block, filters);
            }
        }
        Ok(Self { bytes })
    }

    /// Weights that were packed before, for the same plan.
    pub fn packed_before(bytes: Aligned) -> Self {
        Self { bytes }
    }

    /// All bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.as_u8()
    }

    /// One block's weights as bytes.
    pub fn i8(&self, step: &Step, block: usize) -> &[i8] {
        let at = step.weights.offset + block * step.weights.stride;
        aligned::as_i8(&self.as_bytes()[at..at + step.weights.bytes])
    }

    /// One block's weights as 16-bit numbers.
    pub fn i16(&self, step: &Step, block: usize) -> &[i16] {
        let at = step.weights.offset + block * step.weights.stride;
        aligned::as_i16(&self.as_bytes()[at..at + step.weights.bytes])
    }

    /// The epilogues of a step's blocks.
    pub fn epilogues(&self, step: &Step) -> Vec<Epilogue> {
        if matches!(step.work, Work::Pool { .. }) {
            return Vec::new();
        }
        let bytes = &self.as_bytes()[step.epilogues..][..step.output.blocks() * EPILOGUE_BYTES];
        bytes.chunks_exact(EPILOGUE_BYTES).map(read_epilogue).collect()
    }
}

/// Packs one block of output channels.
fn pack_block(bytes: &mut Aligned, plan: &Plan, step: &Step, conv: &Conv, block: usize, weights: &[i8]) {
    let taps = conv.kernel * conv.kernel;
    let at = step.weights.offset + block * step.weights.stride;
    let range = at..at + step.weights.bytes;
    let filters = || direct::pack_filters(weights, conv.in_channels, taps);
    match step.work {
        Work::First { .. } => first::pack(weights, &mut bytes.as_i8_mut()[range]),
        Work::Direct { .. } => {
            (plan.options.kernels.direct.pack)(&filters(), taps, &mut bytes.as_i8_mut()[range]);
        }
        Work::Winograd(tiling) if tiling.stored => {
            let u = &mut bytes.as_i16_mut()[range.start / 2..range.end / 2];
            (tiling.winograd.weights)(&filters(), u);
        }
        Work::Winograd(_) => bytes.as_i8_mut()[range].copy_from_slice(&filters()),
        Work::Pool { .. } => {}
    }
    let channels = block * BLOCK..((block + 1) * BLOCK).min(conv.out_channels);
    // `Network::check`, without which there is no plan, has seen that all multipliers are usable.
    let requantize: Vec<Requantize> = conv.weight_scales[channels.clone()]
        .iter()
        .filter_map(|&w_scale| Requantize::new(conv.input.scale, w_scale, conv.output))
        .collect();
    let epilogue = Epilogue::new(&conv.bias[channels], weights, &requantize, conv.input.zero_point);
    let at = step.epilogues + block * EPILOGUE_BYTES;
    write_epilogue(&epilogue, &mut bytes.as_u8_mut()[at..at + EPILOGUE_BYTES]);
}

fn write_epilogue(epilogue: &Epilogue, bytes: &mut [u8]) {
    let biases = epilogue.bias.iter().map(|bias| bias.to_le_bytes());
    let multipliers = epilogue.multiplier.iter().map(|multiplier| multiplier.to_le_bytes());
    for (bytes, number) in bytes.chunks_exact_mut(4).zip(biases.chain(multipliers)) {
        bytes.copy_from_slice(&number);
    }
    bytes[8 * BLOCK] = epilogue.zero_point;
}

fn read_epilogue(bytes: &[u8]) -> Epilogue {
    let (words, _) = bytes.as_chunks::<4>();
    Epilogue {
        bias: std::array::from_fn(|o| i32::from_le_bytes(words[o])),
        multiplier: std::array::from_fn(|o| f32::from_le_bytes(words[BLOCK + o])),
        zero_point: bytes[8 * BLOCK],
    }
}
