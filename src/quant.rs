//! Affine quantization: scale, zero_point and requantization, derived. Not the convolutions themselves (see
//! [`crate::kernels::reference`]) and not the choice of ranges (that is `roentgen-host quantize`).
//!
//! # Real numbers as integers
//!
//! After Jacob et al. 2017 (arXiv:1712.05877) and gemmlowp's `doc/quantization.md`, whose words are used here. A real
//! number `r` is held as an integer `q`:
//!
//! ```text
//! r = scale × (q − zero_point)
//! ```
//!
//! `scale` is the real size of one step; `zero_point` is the integer that stands for 0.0 exactly, so that the border a
//! convolution is padded with costs no error. Activations are u8 with one `scale` and `zero_point` a tensor. Weights are
//! i8, symmetric (`zero_point` 0), with one `scale` an output channel.
//!
//! # A convolution in integers
//!
//! An output channel's real value is the bias plus a sum of products of activations `x` and weights `w`. Put the
//! quantized forms in and take the scales, which are constant in one output channel, out of the sum:
//!
//! ```text
//! y = b + Σ x·w
//! y_scale × (q_y − y_zero_point) = x_scale × w_scale × (q_b + Σ (q_x − x_zero_point) × q_w)
//! ```
//!
//! The bias is held as an i32 in units of `x_scale × w_scale`, so that the bracket, the accumulator `acc`, is an integer
//! (i32). Solve for `q_y`:
//!
//! ```text
//! q_y = y_zero_point + multiplier × acc        multiplier = (x_scale × w_scale) / y_scale
//! ```
//!
//! To *requantize* is to compute that and to saturate to u8. With `y_zero_point` 0 the lower saturation is a ReLU.
//!
//! # How exactly it is rounded
//!
//! Where gemmlowp multiplies in fixed point, this project computes what ONNX Runtime computes for `QLinearConv`:
//! the multiplier is an f32, evaluated as (x_scale × w_scale) / y_scale with a rounding after each operation; `acc` is
//! converted to f32 (rounded to nearest, ties to even, once it is beyond 2²⁴); their product is an f32; it is rounded to
//! an integer, ties to even; only then is `zero_point` added and the sum saturated. Every step is one IEEE 754 operation,
//! so that every backend on every processor gives the same integer. ONNX Runtime is the witness in
//! `tests/onnx_witness.rs`.
//!
//! # Portable scales
//!
//! The order of the three operations in the multiplier is a convention, and runtimes that optimise graphs break it:
//! tract 0.23 multiplies by `1 / y_scale`. The multiplier then differs in its last bit in about one channel of four;
//! after VGG16's thirteen layers (random weights) one feature in nine had moved, by up to two steps.
//! [`portable_weight_scale`] moves a weight scale by the few units in the last place (some 10⁻⁷ of it) after which every
//! order gives the same f32, so that one file gives the same integers in both. Bundles are written with such scales.

use serde::{Deserialize, Serialize};

/// Scale and zero point of a tensor of u8.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct QuantParams {
    /// Real size of one quantization step.
    pub scale: f32,
    /// The integer that stands for 0.0.
    pub zero_point: u8,
}

impl QuantParams {
    /// The integer nearest to `real`, ties to even, saturated. NaN gives `zero_point`.
    pub fn quantize(&self, real: f32) -> u8 {
        let steps = (real / self.scale).round_ties_even();
        // `as` saturates and takes NaN to 0; a sum of an i32's clamp to ±512 and a u8 cannot overflow.
        let steps = (steps as i32).clamp(-512, 512);
        (steps + i32::from(self.zero_point)).clamp(0, 255) as u8
    }

    /// The real number that `q` stands for.
    pub fn dequantize(&self, q: u8) -> f32 {
        (i32::from(q) - i32::from(self.zero_point)) as f32 * self.scale
    }
}

/// From the accumulator of one output channel to its u8.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Requantize {
    /// Real size of one step of the accumulator, in steps of the output. Finite and above 0.
    multiplier: f32,
    /// The output's zero point.
    zero_point: u8,
}

impl Requantize {
    /// For an input of scale `x_scale`, weights of scale `w_scale` and an output quantized as `y`. `None` unless the
    /// multiplier comes out finite and above 0.
    pub fn new(x_scale: f32, w_scale: f32, y: QuantParams) -> Option<Self> {
        // In this order and in f32, as ONNX Runtime does: another order may differ in the last bit, which some
        // accumulator turns into another integer.
        let multiplier = (x_scale * w_scale) / y.scale;
        let usable = [x_scale, w_scale, y.scale, multiplier].iter().all(|scale| scale.is_finite() && *scale > 0.0);
        usable.then_some(Self { multiplier, zero_point: y.zero_point })
    }

    /// The multiplier, finite and above 0.
    pub fn multiplier(&self) -> f32 {
        self.multiplier
    }

    /// The output's zero point.
    pub fn zero_point(&self) -> u8 {
        self.zero_point
    }

    /// `saturate(round_half_even(acc as f32 × multiplier) + zero_point)`.
    pub fn apply(&self, acc: i32) -> u8 {
        let zero_point = f32::from(self.zero_point);
        let steps = (acc as f32 * self.multiplier).round_ties_even();
        // Saturated before the zero point is added: the bounds are integers, so it is the same, and nothing overflows.
        (steps.clamp(-zero_point, 255.0 - zero_point) + zero_point) as u8
    }
}

/// How far, in units in the last place, a portable scale is searched: 2.4 · 10⁻⁴ of the scale at most.
const PORTABLE_REACH: u32 = 4096;

/// The weight scale nearest to `w_scale` for which every order of evaluating (x_scale × w_scale) / y_scale, by division or
/// by multiplication with the reciprocal, gives the same multiplier. Nearly always a few units in the last place away;
/// `w_scale` itself where there is none within a four-thousandth.
pub fn portable_weight_scale(x_scale: f32, w_scale: f32, y_scale: f32) -> f32 {
    let reciprocal = 1.0 / y_scale;
    let portable = |w: &f32| {
        let multiplier = (x_scale * w) / y_scale;
        let others = [(x_scale * w) * reciprocal, (w * reciprocal) * x_scale, w * (x_scale * reciprocal)];
        others.iter().all(|other| *other == multiplier)
    };
    // Neighbours of a positive f32 are its neighbours as a bit pattern.
    let bits = w_scale.to_bits();
    let nearby = (0..=PORTABLE_REACH).flat_map(|step| [bits.saturating_add(step), bits.saturating_sub(step)]);
    nearby.map(f32::from_bits).find(portable).unwrap_or(w_scale)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// `value` rounded to the nearest f32, ties to even, by integer arithmetic alone: mantissa and power of two.
    fn round_to_f32(value: i128, exponent: i32) -> (i128, i32) {
        let bits = 128 - value.unsigned_abs().leading_zeros() as i32;
        let drop = bits - 24;
        if drop <= 0 {
            return (value, exponent);
        }
        (half_even(value, drop), exponent + drop)
    }

    /// `value / 2^shift` rounded to an integer, ties to even.
    fn half_even(value: i128, shift: i32) -> i128 {
        if shift <= 0 {
            return value << (-shift);
        }
        if shift > 120 {
            return 0;
        }
        let floor = value >> shift;
        let rest = value - (floor << shift);
        let half = 1i128 << (shift - 1);
        floor + i128::from(rest > half || (rest == half && floor % 2 != 0))
    }

    /// The same equation in integers, with none of the code under test and no floating-point arithmetic.
    fn oracle(acc: i32, multiplier: f32, zero_point: u8) -> u8 {
        let bits = multiplier.to_bits();
        let exponent = (bits >> 23 & 0xff) as i32;
        let fraction = i128::from(bits & 0x7f_ffff);
        let (mantissa, exponent) = if exponent == 0 { (fraction, -149) } else { (fraction | 1 << 23, exponent - 150) };
        let (a, a_exponent) = round_to_f32(i128::from(acc), 0);
        let (product, exponent) = round_to_f32(a * mantissa, a_exponent + exponent);
        let steps =
            if exponent >= 0 { product.saturating_mul(1 << exponent.min(40)) } else { half_even(product, -exponent) };
        (steps + i128::from(zero_point)).clamp(0, 255) as u8
    }

    proptest! {
        #[test]
        fn requantizing_equals_the_integer_oracle(acc in any::<i32>(), small in -100_000i32..100_000, exponent in -30i32..3,
            mantissa in 1.0f32..2.0, zero_point in any::<u8>()) {
            let w_scale = mantissa * (exponent as f32).exp2();
            let requantize = Requantize::new(1.0, w_scale, QuantParams { scale: 1.0, zero_point }).expect("usable scales");
            prop_assert_eq!(requantize.apply(acc), oracle(acc, w_scale, zero_point));
            prop_assert_eq!(requantize.apply(small), oracle(small, w_scale, zero_point));
        }

        #[test]
        fn the_multiplier_is_rounded_after_each_operation(x in 1e-6f32..1e3, w in 1e-6f32..1e3, y in 1e-6f32..1e3) {
            let requantize = Requantize::new(x, w, QuantParams { scale: y, zero_point: 0 }).expect("usable scales");
            let product = (f64::from(x) * f64::from(w)) as f32;
            prop_assert_eq!(requantize.multiplier(), (f64::from(product) / f64::from(y)) as f32);
        }

        #[test]
        fn portable_scales_are_near_and_give_one_multiplier(x in 1e-4f32..1e2, w in 1e-6f32..1.0, y in 1e-4f32..1e2) {
            let portable = portable_weight_scale(x, w, y);
            prop_assert!((portable / w - 1.0).abs() < 2.5e-4);
            // Where none is near the scale stays; anything else must keep the promise.
            prop_assert!(portable == w || (x * portable) / y == (x * portable) * (1.0 / y));
        }

        #[test]
        fn quantizing_what_was_dequantized_changes_nothing(q in any::<u8>(), scale in 1e-6f32..1e6, zero_point in any::<u8>()) {
            let params = QuantParams { scale, zero_point };
            prop_assert_eq!(params.quantize(params.dequantize(q)), q);
        }
    }

    #[test]
    fn ties_go_to_the_even_integer_before_the_zero_point_is_added() {
        let half = Requantize::new(0.5, 1.0, QuantParams { scale: 1.0, zero_point: 7 }).expect("usable scales");
        let steps: Vec<u8> = [-5, -3, -1, 1, 3, 5].iter().map(|&acc| half.apply(acc)).collect();
        assert_eq!(steps, [5, 5, 7, 7, 9, 9], "−2, −2, 0, 0, 2, 2 and the zero point 7");
    }

    #[test]
    fn the_extremes_of_the_accumulator_saturate() {
        for multiplier in [f32::MIN_POSITIVE, 1e-3, 1.0, 1e30, f32::MAX] {
            let requantize =
                Requantize::new(multiplier, 1.0, QuantParams { scale: 1.0, zero_point: 9 }).expect("usable");
            let (low, high) = (requantize.apply(i32::MIN), requantize.apply(i32::MAX));
            assert_eq!((low, high), if multiplier < 1e-9 { (9, 9) } else { (0, 255) });
        }
    }

    #[test]
    fn scales_that_stand_for_nothing_are_refused() {
        let y = QuantParams { scale: 1.0, zero_point: 0 };
        for (x, w) in [(0.0, 1.0), (-1.0, -1.0), (f32::NAN, 1.0), (f32::INFINITY, 1.0), (1e-38, 1e-38), (1e38, 1e38)] {
            assert_eq!(Requantize::new(x, w, y), None, "x_scale {x}, w_scale {w}");
        }
    }

    #[test]
    fn a_nan_quantizes_to_the_zero_point() {
        assert_eq!(QuantParams { scale: 0.1, zero_point: 3 }.quantize(f32::NAN), 3);
        assert_eq!(QuantParams { scale: 0.1, zero_point: 3 }.quantize(f32::INFINITY), 255);
        assert_eq!(QuantParams { scale: 0.1, zero_point: 3 }.quantize(f32::NEG_INFINITY), 0);
    }
}
