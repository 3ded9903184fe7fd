//! What follows the sum of products: bias and requantization of a block of 32 output channels. The equations stand in
//! [`crate::quant`]; the vector forms that the kernels of an instruction set share are files of their own.

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512vnni;

use super::BLOCK;
use crate::quant::Requantize;

/// Bias and requantization of one block of output channels. Channels that only fill up the block have bias 0 and
/// multiplier 0, so that they come out as the zero_point.
#[derive(Debug, Clone, PartialEq)]
#[repr(C, align(64))]
pub struct Epilogue {
    /// Added to the sum of raw products `x·w`: the layer's bias less `x_zero_point·Σw`, wrapping.
    pub bias: [i32; BLOCK],
    /// The multiplier of every channel, finite, at least 0.
    pub multiplier: [f32; BLOCK],
    /// The output's zero_point.
    pub zero_point: u8,
}

impl Epilogue {
    /// Of the channels (up to 32) that `bias`, `weights` (taps × input channels of each, one after another) and
    /// `requantize` describe; all three have the same number of channels.
    pub fn new(bias: &[i32], weights: &[i8], requantize: &[Requantize], x_zero_point: u8) -> Self {
        let mut epilogue = Self {
            bias: [0; BLOCK],
            multiplier: [0.0; BLOCK],
            zero_point: requantize.first().map_or(0, |r| r.zero_point()),
        };
        let taps = weights.len() / bias.len().max(1);
        let channels = bias.iter().zip(requantize).zip(weights.chunks(taps.max(1)));
        for (o, ((&bias, requantize), weights)) in channels.enumerate().take(BLOCK) {
            let sum = weights.iter().fold(0i32, |sum, &w| sum.wrapping_add(i32::from(w)));
            epilogue.bias[o] = bias.wrapping_sub(sum.wrapping_mul(i32::from(x_zero_point)));
            epilogue.multiplier[o] = requantize.multiplier();
        }
        epilogue
    }

    /// The byte of channel `o` of this block whose products add up to `sum`: what [`Requantize::apply`] says.
    pub fn apply(&self, o: usize, sum: i32) -> u8 {
        let zero_point = f32::from(self.zero_point);
        let steps = (sum.wrapping_add(self.bias[o]) as f32 * self.multiplier[o]).round_ties_even();
        (steps.clamp(-zero_point, 255.0 - zero_point) + zero_point) as u8
    }
}

/// Sums and epilogues with all the extremes: bias that wraps around, products beyond 32 bits, multipliers of 0.
#[cfg(all(test, target_arch = "x86_64"))]
pub(super) fn extremes() -> impl proptest::strategy::Strategy<Value = ([i32; BLOCK], Epilogue)> {
    use proptest::prelude::*;
    let sums = prop::array::uniform32(any::<i32>());
    (sums, any::<bool>(), any::<i32>(), -40i32..100, any::<bool>(), any::<u8>()).prop_map(
        |(sums, small, bias, exponent, nothing, zero_point)| {
            let sums = sums.map(|sum| if small { sum >> 12 } else { sum });
            let multiplier = |o: usize| (exponent as f32).exp2() * (1.0 + o as f32 * 0.031);
            let multiplier = std::array::from_fn(|o| if nothing && o % 3 == 0 { 0.0 } else { multiplier(o) });
            let bias = std::array::from_fn(|o| if o % 4 == 1 { 0 } else { bias });
            (sums, Epilogue { bias, multiplier, zero_point })
        },
    )
}
