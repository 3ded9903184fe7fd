//! One suite over all kernels that this processor runs: each equals the [reference](super::reference) bit for bit, at every
//! size, channel count, zero_point and extreme. Under qemu with another processor it tests that one's kernels.

use super::first::{self, FirstRow};
use super::plane::Plane;
use super::winograd::{FlyMultiply, InputTiles, Multiply, OutputTiles, Winograd};
use super::{Aligned, BLOCK, Epilogue, Kernels, available, direct, reference};
use crate::quant::{QuantParams, Requantize};
use crate::tensor::Tensor;
use proptest::prelude::*;

/// How the bytes of a case are drawn.
#[derive(Debug, Clone, Copy)]
enum Bytes {
    /// Any, with many extremes.
    Mixed,
    /// Only the greatest magnitudes.
    Greatest,
    /// The extremes in turn.
    Alternating,
}

/// A convolution that the property tests draw.
#[derive(Debug, Clone)]
struct Case {
    rows: usize,
    columns: usize,
    in_channels: usize,
    out_channels: usize,
    kernel: usize,
    x_zero_point: u8,
    y_zero_point: u8,
    /// Of the multipliers.
    exponent: i32,
    bytes: Bytes,
    /// The greatest magnitude of weights.
    weight: i8,
    seed: u64,
}

struct Layer {
    image: Tensor<u8>,
    weights: Vec<i8>,
    bias: Vec<i32>,
    requantize: Vec<Requantize>,
}

impl Case {
    fn layer(&self) -> Layer {
        let mut state = self.seed | 1;
        let (mut index, bytes) = (0usize, self.bytes);
        let mut next = move || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            index += 1;
            match (bytes, state >> 61) {
                (Bytes::Greatest, _) => 255,
                (Bytes::Alternating, _) => {
                    if index.is_multiple_of(2) {
                        255
                    } else {
                        0
                    }
                }
                (Bytes::Mixed, 0) => 0,
                (Bytes::Mixed, 1) => 255,
                (Bytes::Mixed, _) => (state >> 40) as u8,
            }
        };
        let Self { rows, columns, in_channels, out_channels, kernel, .. } = *self;
        let image = (0..rows * columns * in_channels).map(|_| next()).collect();
        let weight = i32::from(self.weight);
        let weights = (0..out_channels * kernel * kernel * in_channels)
            .map(|_| (i32::from(next()) * (2 * weight + 1) / 256 - weight) as i8);
        let weights = weights.collect();
        let y = QuantParams { scale: 1.0, zero_point: self.y_zero_point };
        Layer {
            image: Tensor::new([1, rows, columns, in_channels], image).expect("the shape fits"),
            weights,
            bias: (0..out_channels).map(|_| (i32::from(next()) - 128) * 997).collect(),
            requantize: (0..out_channels)
                .map(|o| Requantize::new(1.0 + o as f32 * 0.037, (self.exponent as f32).exp2(), y).expect("usable"))
                .collect(),
        }
    }

    /// What the reference makes of it, NHWC.
    fn expected(&self, layer: &Layer) -> Tensor<u8> {
        let Layer { image, weights, bias, requantize } = layer;
        let (kernel, x_zero_point) = (self.kernel, self.x_zero_point);
        reference::conv(image, reference::Convolution { kernel, weights, bias, x_zero_point, requantize })
            .expect("the lengths agree")
    }

    fn input(&self) -> Plane {
        Plane { rows: self.rows, columns: self.columns, channels: self.in_channels }
    }

    fn output(&self, pool: bool) -> Plane {
        let halve = |extent: usize| if pool { extent / 2 } else { extent };
        Plane { rows: halve(self.rows), columns: halve(self.columns), channels: self.out_channels }
    }

    /// The input plane with its border; the slack and the channels beyond are filled with rubbish.
    fn packed_input(&self, layer: &Layer) -> Aligned {
        let plane = self.input();
        let mut input = Aligned::zeroed(plane.bytes());
        input.as_u8_mut().fill(0xa5);
        plane.fill_border(input.as_u8_mut(), self.x_zero_point);
        plane.pack(layer.image.data(), input.as_u8_mut());
        input
    }

    /// The weights, filters and epilogue of every block of output channels.
    fn blocks<'a>(&'a self, layer: &'a Layer) -> impl Iterator<Item = (&'a [i8], Vec<i8>, Epilogue)> {
        let taps = self.kernel * self.kernel;
        let filter = taps * self.in_channels;
        (0..self.out_channels.div_ceil(BLOCK)).map(move |block| {
            let range = block * BLOCK..((block + 1) * BLOCK).min(self.out_channels);
            let weights = &layer.weights[range.start * filter..range.end * filter];
            let epilogue =
                Epilogue::new(&layer.bias[range.clone()], weights, &layer.requantize[range], self.x_zero_point);
            (weights, direct::pack_filters(weights, self.in_channels, taps), epilogue)
        })
    }
}

fn unpacked(plane: Plane, bytes: &[u8]) -> Vec<u8> {
    let mut nhwc = Vec::new();
    plane.unpack(bytes, &mut nhwc);
    nhwc
}

fn run_direct(kernels: &Kernels, case: &Case) -> Vec<u8> {
    let layer = case.layer();
    let (input, plane, out) = (case.packed_input(&layer), case.input(), case.output(false));
    let taps = case.kernel * case.kernel;
    let mut output = vec![0u8; out.bytes()];
    for (block, (_, filters, epilogue)) in case.blocks(&layer).enumerate() {
        let bytes = (kernels.direct.packed_bytes)(plane.blocks(), taps);
        let mut packed = Aligned::zeroed(bytes);
        (kernels.direct.pack)(&filters, taps, &mut packed.as_i8_mut()[..bytes]);
        for row in 0..case.rows {
            let at = out.pixel(block, row);
            (kernels.direct.row)(direct::Row {
                input: input.as_u8(),
                plane,
                row,
                kernel: case.kernel,
                weights: &packed.as_i8()[..bytes],
                epilogue: &epilogue,
                output: &mut output[at..at + case.columns * BLOCK],
            });
        }
    }
    unpacked(out, &output)
}

fn run_first(kernels: &Kernels, case: &Case) -> Vec<u8> {
    let layer = case.layer();
    let stride = case.columns + 2;
    let mut image = vec![case.x_zero_point; (case.rows + 2) * stride];
    for (row, pixels) in layer.image.data().chunks_exact(case.columns).enumerate() {
        image[(row + 1) * stride + 1..][..case.columns].copy_from_slice(pixels);
    }
    image.extend([0x5a; first::SLACK]);
    let out = case.output(false);
    let mut output = vec![0u8; out.bytes()];
    for (block, (weights, _, epilogue)) in case.blocks(&layer).enumerate() {
        let mut packed = Aligned::zeroed(first::PACKED_BYTES);
        first::pack(weights, packed.as_i8_mut());
        for row in 0..case.rows {
            let at = out.pixel(block, row);
            let output = &mut output[at..at + case.columns * BLOCK];
            let (weights, epilogue) = (packed.as_i8(), &epilogue);
            (kernels.first.row)(FirstRow { image: &image, row, weights, epilogue, output });
        }
    }
    unpacked(out, &output)
}

/// Runs the stages over rows of tiles `step` at a time; `None` where the weights do not meet the kernel's condition.
fn run_winograd(winograd: &Winograd, case: &Case, pool: bool, fly: bool, step: usize) -> Option<Vec<u8>> {
    let layer = case.layer();
    let filter = 9 * case.in_channels;
    if !layer.weights.chunks_exact(filter).all(|weights| winograd.is_exact_for(weights)) {
        return None;
    }
    let (input, plane, out) = (case.packed_input(&layer), case.input(), case.output(pool));
    let (tile_rows, tile_columns) = winograd.tiles(case.rows, case.columns);
    let points = winograd.points();
    let mut output = vec![0u8; out.bytes()];
    for from in (0..tile_rows).step_by(step) {
        let rows = from..(from + step).min(tile_rows);
        let tiles = rows.len() * tile_columns;
        let per_block = points * tiles * BLOCK;
        let mut v = Aligned::zeroed(2 * per_block * plane.blocks());
        for (block, v) in v.as_i16_mut().chunks_exact_mut(per_block).take(plane.blocks()).enumerate() {
            (winograd.input)(InputTiles { input: input.as_u8(), plane, block, tile_rows: rows.clone(), v });
        }
        for (block, (_, filters, epilogue)) in case.blocks(&layer).enumerate() {
            let count = winograd.weight_count(plane.blocks());
            let mut u = Aligned::zeroed(2 * count);
            (winograd.weights)(&filters, &mut u.as_i16_mut()[..count]);
            // A row of tiles at a time, so that ranges within V are tried.
            for (index, tile_row) in rows.clone().enumerate() {
                let range = index * tile_columns..(index + 1) * tile_columns;
                let mut m = Aligned::zeroed(4 * points * tile_columns * BLOCK);
                let m = &mut m.as_i32_mut()[..points * tile_columns * BLOCK];
                let (v, blocks) = (&v.as_i16()[..per_block * plane.blocks()], plane.blocks());
                if fly {
                    let mut scratch = Aligned::zeroed(2 * winograd.scratch_count(blocks));
                    let scratch = scratch.as_i16_mut();
                    let filters = &filters;
                    winograd.multiply_filters(FlyMultiply { v, blocks, tiles, range, filters, scratch, m });
                } else {
                    (winograd.multiply)(Multiply { v, blocks, tiles, range, u: &u.as_i16()[..count], m });
                }
                let row = tile_row * winograd.tile;
                let at = out.pixel(block, if pool { row / 2 } else { row });
                (winograd.output)(OutputTiles {
                    m,
                    rows: (case.rows - row).min(winograd.tile),
                    columns: case.columns,
                    epilogue: &epilogue,
                    pool,
                    output: &mut output[at..],
                    row_bytes: out.row_bytes(),
                });
            }
        }
    }
    Some(unpacked(out, &output))
}

fn channels() -> impl Strategy<Value = usize> {
    prop_oneof![Just(1usize), Just(3), Just(4), Just(31), Just(32), Just(33), Just(64), Just(96), 1usize..80]
}

fn bytes() -> impl Strategy<Value = Bytes> {
    prop_oneof![4 => Just(Bytes::Mixed), 1 => Just(Bytes::Greatest), 1 => Just(Bytes::Alternating)]
}

prop_compose! {
    fn case()(rows in 1usize..10, columns in 1usize..34, in_channels in channels(), out_channels in channels(),
        three in any::<bool>(), x_zero_point in any::<u8>(), y_zero_point in any::<u8>(), exponent in -20i32..0,
        bytes in bytes(), weight in prop_oneof![Just(127i8), 1i8..127], seed in any::<u64>()) -> Case {
        let kernel = if three { 3 } else { 1 };
        Case { rows, columns, in_channels, out_channels, kernel, x_zero_point, y_zero_point, exponent, bytes, weight, seed }
    }
}

proptest! {
    #[test]
    fn direct_kernels_equal_the_reference(case in case()) {
        let expected = case.expected(&case.layer());
        for kernels in available() {
            prop_assert_eq!(run_direct(kernels, &case), expected.data(), "{}", kernels.name);
        }
    }

    #[test]
    fn first_layer_kernels_equal_the_reference(case in case()) {
        let case = Case { in_channels: 1, kernel: 3, ..case };
        let expected = case.expected(&case.layer());
        for kernels in available() {
            prop_assert_eq!(run_first(kernels, &case), expected.data(), "{}", kernels.name);
        }
    }

    #[test]
    fn winograd_kernels_equal_the_reference(case in case(), pool in any::<bool>(), fly in any::<bool>(),
        step in 1usize..4) {
        let case = Case { kernel: 3, ..case };
        let whole = case.expected(&case.layer());
        let expected = if pool { reference::max_pool_2(&whole) } else { whole };
        for kernels in available() {
            for winograd in kernels.winograd {
                let output = run_winograd(winograd, &case, pool, fly, step);
                prop_assert!(output.is_some(), "so few channels always meet the condition");
                prop_assert_eq!(output.as_deref(), Some(expected.data()), "{}", winograd.name);
            }
        }
    }
}

/// The greatest sums that VGG16's deepest layers can see, and weights beyond the condition.
#[test]
fn winograd_is_exact_up_to_its_condition_and_refuses_beyond() {
    let case = |in_channels, weight| Case {
        rows: 5,
        columns: 6,
        in_channels,
        out_channels: 33,
        kernel: 3,
        x_zero_point: 0,
        y_zero_point: 128,
        exponent: -18,
        bytes: Bytes::Greatest,
        weight,
        seed: 1,
    };
    for kernels in available() {
        for winograd in kernels.winograd {
            // 512 · 9 · 28 · 255 = 0.98 · 2²⁵; at 29 it is more than 2²⁵. All weights and all inputs the same.
            let within = case(512, 28);
            let expected = within.expected(&within.layer());
            let output = run_winograd(winograd, &within, false, false, 1);
            assert_eq!(output.as_deref(), Some(expected.data()), "{}", winograd.name);
            assert_eq!(run_winograd(winograd, &case(512, 29), false, false, 1).is_some(), winograd.tile == 2);
        }
    }
}

#[test]
fn the_kernels_that_were_tested_are_named() {
    let names: Vec<&str> = available().map(|kernels| kernels.name).collect();
    println!("kernels on this processor: {}", names.join(" "));
    assert_eq!(names.last(), Some(&"portable"));
}
