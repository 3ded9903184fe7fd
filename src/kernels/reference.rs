//! The definition of every integer operation, as plain loops. Every kernel equals it bit for bit; nothing here is fast,
//! though the innermost loop is laid out so that the compiler can vectorise it. Not the order of layers: that is
//! [`crate::network::int8`].

use crate::quant::Requantize;
use crate::tensor::Tensor;

/// One quantized convolution: stride 1, square kernel of odd size, padded with `x_zero_point` so that rows and columns
/// stay the same.
#[derive(Debug, Clone, Copy)]
pub struct Convolution<'a> {
    /// Rows and columns of the kernel; odd.
    pub kernel: usize,
    /// i8 weights in the order output channel, kernel row, kernel column, input channel.
    pub weights: &'a [i8],
    /// One bias per output channel, in units of the accumulator.
    pub bias: &'a [i32],
    /// The input's zero point, which is also what the border is filled with.
    pub x_zero_point: u8,
    /// One per output channel.
    pub requantize: &'a [Requantize],
}

/// Convolves `input` (NHWC). For every output channel `o` and every pixel:
///
/// ```text
/// acc = bias[o] + Σ over kernel row, kernel column, input channel of (x − x_zero_point) × w[o]      in i32
/// y   = requantize[o](acc)
/// ```
///
/// Sums wrap around at 32 bits; [`crate::network::int8::Network::check`] refuses networks in which they could. `None`
/// when the lengths disagree with one another.
pub fn conv(input: &Tensor<u8>, convolution: Convolution<'_>) -> Option<Tensor<u8>> {
    let Convolution { kernel, weights, bias, x_zero_point, requantize } = convolution;
    let [batch, rows, columns, in_channels] = input.shape();
    let out_channels = bias.len();
    let taps = kernel.checked_mul(kernel)?.checked_mul(in_channels)?;
    if kernel % 2 == 0 || in_channels == 0 || requantize.len() != out_channels {
        return None;
    }
    if taps.checked_mul(out_channels)? != weights.len() {
        return None;
    }

    // The differences x − x_zero_point and the weights as i16: neither needs more, and a product of two i16 is what
    // vector units multiply. The border stands for x_zero_point, so its difference is 0.
    let border = kernel / 2;
    let padded_columns = columns + 2 * border;
    let weights: Vec<i16> = weights.iter().map(|&w| i16::from(w)).collect();
    let mut output = Vec::with_capacity(batch * rows * columns * out_channels);
    let image_len = rows * columns * in_channels;
    for n in 0..batch {
        let mut padded = vec![0i16; (rows + 2 * border) * padded_columns * in_channels];
        for y in 0..rows {
            let from = n * image_len + y * columns * in_channels;
            let to = ((y + border) * padded_columns + border) * in_channels;
            let source = &input.data()[from..from + columns * in_channels];
            for (target, &x) in padded[to..].iter_mut().zip(source) {
                *target = i16::from(x) - i16::from(x_zero_point);
            }
        }
        let run = kernel * in_channels; // one kernel row reads one contiguous run of the padded image
        for y in 0..rows {
            let mut output_row = vec![0u8; columns * out_channels];
            for o in 0..out_channels {
                let w = &weights[o * taps..(o + 1) * taps];
                for x in 0..columns {
                    let mut acc = bias[o];
                    for ky in 0..kernel {
                        let start = ((y + ky) * padded_columns + x) * in_channels;
                        acc = acc.wrapping_add(dot(&padded[start..start + run], &w[ky * run..(ky + 1) * run]));
                    }
                    output_row[x * out_channels + o] = requantize[o].apply(acc);
                }
            }
            output.extend_from_slice(&output_row);
        }
    }
    Tensor::new([batch, rows, columns, out_channels], output)
}

/// Σ x·w in i32, wrapping.
fn dot(x: &[i16], w: &[i16]) -> i32 {
    x.iter().zip(w).fold(0i32, |sum, (&x, &w)| sum.wrapping_add(i32::from(x) * i32::from(w)))
}

/// The maximum over 2 × 2 cells, stride 2 (NHWC). An odd last row or column is dropped. Scale and zero point stay.
pub fn max_pool_2(input: &Tensor<u8>) -> Tensor<u8> {
    let [batch, rows, columns, channels] = input.shape();
    let (out_rows, out_columns) = (rows / 2, columns / 2);
    let mut output = Vec::with_capacity(batch * out_rows * out_columns * channels);
    let at = |n: usize, y: usize, x: usize, c: usize| input.data()[((n * rows + y) * columns + x) * channels + c];
    for n in 0..batch {
        for y in 0..out_rows {
            for x in 0..out_columns {
                for c in 0..channels {
                    let top = at(n, 2 * y, 2 * x, c).max(at(n, 2 * y, 2 * x + 1, c));
                    let bottom = at(n, 2 * y + 1, 2 * x, c).max(at(n, 2 * y + 1, 2 * x + 1, c));
                    output.push(top.max(bottom));
                }
            }
        }
    }
    Tensor::new([batch, out_rows, out_columns, channels], output).unwrap_or_else(|| Tensor::filled([0; 4], 0))
}

/// The sum of `q − zero_point` over rows and columns, a channel (of the first image). Divided by rows × columns and
/// multiplied by the scale it is the global average; as an integer it is exact.
pub fn global_sums(input: &Tensor<u8>, zero_point: u8) -> Vec<i64> {
    let [_, rows, columns, channels] = input.shape();
    let mut sums = vec![0i64; channels];
    for cell in input.data().chunks_exact(channels.max(1)).take(rows * columns) {
        for (sum, &q) in sums.iter_mut().zip(cell) {
            *sum += i64::from(q) - i64::from(zero_point);
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quant::QuantParams;
    use proptest::prelude::*;

    /// The same sum as seven loops over coordinates, in i64, with the border read as the zero point.
    fn oracle(input: &Tensor<u8>, conv: Convolution<'_>) -> Vec<u8> {
        let [batch, rows, columns, in_channels] = input.shape();
        let at = |n: usize, y: i64, x: i64, c: usize| {
            let inside = (0..rows as i64).contains(&y) && (0..columns as i64).contains(&x);
            let index = || ((n * rows + y as usize) * columns + x as usize) * in_channels + c;
            i64::from(if inside { input.data()[index()] } else { conv.x_zero_point })
        };
        let reach = conv.kernel as i64 / 2;
        let mut output = Vec::new();
        for n in 0..batch {
            for y in 0..rows as i64 {
                for x in 0..columns as i64 {
                    for o in 0..conv.bias.len() {
                        let mut acc = i64::from(conv.bias[o]);
                        for ky in 0..conv.kernel {
                            for kx in 0..conv.kernel {
                                for c in 0..in_channels {
                                    let w = conv.weights[((o * conv.kernel + ky) * conv.kernel + kx) * in_channels + c];
                                    let q = at(n, y + ky as i64 - reach, x + kx as i64 - reach, c);
                                    acc += (q - i64::from(conv.x_zero_point)) * i64::from(w);
                                }
                            }
                        }
                        output.push(conv.requantize[o].apply(i32::try_from(acc).expect("small sums")));
                    }
                }
            }
        }
        output
    }

    fn bytes(seed: u64) -> impl FnMut() -> u8 {
        let mut state = seed | 1;
        move || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            match state >> 61 {
                0 => 0,
                1 => 255,
                _ => (state >> 40) as u8,
            }
        }
    }

    proptest! {
        #[test]
        fn the_convolution_equals_seven_loops(batch in 1usize..3, rows in 1usize..8, columns in 1usize..8,
            in_channels in 1usize..20, out_channels in 1usize..6, three in any::<bool>(), x_zero_point in any::<u8>(),
            y_zero_point in any::<u8>(), exponent in -14i32..0, seed in any::<u64>()) {
            let mut next = bytes(seed);
            let kernel = if three { 3 } else { 1 };
            let data = (0..batch * rows * columns * in_channels).map(|_| next()).collect();
            let input = Tensor::new([batch, rows, columns, in_channels], data).expect("the shape fits");
            let weights: Vec<i8> = (0..out_channels * kernel * kernel * in_channels).map(|_| next() as i8).collect();
            let bias: Vec<i32> = (0..out_channels).map(|_| (i32::from(next()) - 128) * 997).collect();
            let y = QuantParams { scale: 1.0, zero_point: y_zero_point };
            let requantize: Vec<Requantize> = (0..out_channels)
                .map(|o| Requantize::new(1.0 + o as f32 * 0.37, (exponent as f32).exp2(), y).expect("usable"))
                .collect();
            let convolution = Convolution { kernel, weights: &weights, bias: &bias, x_zero_point, requantize: &requantize };
            let output = conv(&input, convolution).expect("the lengths agree");
            prop_assert_eq!(output.data(), oracle(&input, convolution));
        }
    }

    #[test]
    fn a_border_of_the_zero_point_adds_nothing() {
        let one = Requantize::new(1.0, 1.0, QuantParams { scale: 1.0, zero_point: 5 }).expect("usable");
        let convolution = Convolution { kernel: 3, weights: &[1; 9], bias: &[0], x_zero_point: 77, requantize: &[one] };
        let output = conv(&Tensor::filled([1, 3, 3, 1], 77), convolution).expect("the lengths agree");
        assert_eq!(output.data(), [5; 9]);
    }

    #[test]
    fn lengths_that_disagree_are_refused() {
        let one = Requantize::new(1.0, 1.0, QuantParams { scale: 1.0, zero_point: 0 }).expect("usable");
        let input = Tensor::filled([1, 3, 3, 2], 1);
        let good = Convolution { kernel: 1, weights: &[1, 1], bias: &[0], x_zero_point: 0, requantize: &[one] };
        assert!(conv(&input, good).is_some());
        assert!(conv(&input, Convolution { weights: &[1], ..good }).is_none());
        assert!(conv(&input, Convolution { requantize: &[], ..good }).is_none());
        assert!(conv(&input, Convolution { kernel: 2, weights: &[1; 8], ..good }).is_none());
    }

    #[test]
    fn pooling_takes_the_greatest_of_four_and_drops_an_odd_edge() {
        let data: Vec<u8> = vec![1, 2, 9, 3, 4, 9, 0, 0, 0];
        let pooled = max_pool_2(&Tensor::new([1, 3, 3, 1], data).expect("3 × 3"));
        assert_eq!((pooled.shape(), pooled.data()), ([1, 1, 1, 1], &[4][..]));
    }

    #[test]
    fn global_sums_take_the_zero_point_off_every_cell() {
        let input = Tensor::new([1, 1, 2, 2], vec![10, 0, 20, 255]).expect("1 × 2 × 2");
        assert_eq!(global_sums(&input, 10), [10, 235]);
    }
}
