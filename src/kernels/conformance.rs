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
    /// Only the greatest.
    Greatest,
    /// The greatest activations with the least weights.
    Least,
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
    /// The greatest magnitude of weights, up to 128: then they are all of −128..=127, which a file may hold though none
    /// that is quantized symmetrically does.
    weight: i32,
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
                (Bytes::Greatest | Bytes::Least, _) => 255,
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
        let weight = self.weight;
        let weights = (0..out_channels * kernel * kernel * in_channels).map(|_| match bytes {
            Bytes::Least => (-weight) as i8,
            _ => (i32::from(next()) * (2 * weight + 1) / 256 - weight) as i8,
        });
        let y = QuantParams { scale: 1.0, zero_point: self.y_zero_point };
        Layer {
            image: Tensor::new([1, rows, columns, in_channels], image).expect("the shape fits"),
            weights: weights.collect(),
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

/// How Winograd's stages are run.
#[derive(Debug, Clone, Copy)]
struct Stages {
    pool: bool,
    /// Whether U is made on the fly.
    fly: bool,
    /// Rows of tiles that are transformed at a time.
    step: usize,
    /// Rows of tiles, of those, that are multiplied at a time: where it is fewer, ranges within V are.
    range: usize,
}

/// `None` where the weights do not meet the kernel's condition.
fn run_winograd(winograd: &Winograd, case: &Case, stages: Stages) -> Option<Vec<u8>> {
    let Stages { pool, fly, step, range: range_rows } = stages;
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
            for first in (0..rows.len()).step_by(range_rows) {
                let last = (first + range_rows).min(rows.len());
                let range = first * tile_columns..last * tile_columns;
                let sums = points * range.len() * BLOCK;
                let mut m = Aligned::zeroed(4 * sums);
                let m = &mut m.as_i32_mut()[..sums];
                let (v, blocks) = (&v.as_i16()[..per_block * plane.blocks()], plane.blocks());
                if fly {
                    let mut scratch = Aligned::zeroed(2 * winograd.scratch_count(blocks));
                    let scratch = scratch.as_i16_mut();
                    let filters = &filters;
                    winograd.multiply_filters(FlyMultiply { v, blocks, tiles, range, filters, scratch, m });
                } else {
                    (winograd.multiply)(Multiply { v, blocks, tiles, range, u: &u.as_i16()[..count], m });
                }
                let row = (from + first) * winograd.tile;
                let at = out.pixel(block, if pool { row / 2 } else { row });
                (winograd.output)(OutputTiles {
                    m,
                    rows: (case.rows - row).min((last - first) * winograd.tile),
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
    let extremes = prop_oneof![Just(Bytes::Greatest), Just(Bytes::Least), Just(Bytes::Alternating)];
    prop_oneof![4 => Just(Bytes::Mixed), 2 => extremes]
}

/// Rows, columns and the two numbers of channels. Where one of these is large the others are small, for the tests' time.
fn shape() -> impl Strategy<Value = (usize, usize, usize, usize)> {
    prop_oneof![
        12 => (1usize..10, 1usize..34, channels(), channels()),
        1 => (1usize..10, 34usize..131, 1usize..34, 1usize..34),
        1 => (1usize..4, 1usize..8, Just(512), channels()),
        1 => (1usize..4, 1usize..8, channels(), Just(512)),
    ]
}

prop_compose! {
    fn case()((rows, columns, in_channels, out_channels) in shape(), three in any::<bool>(), x_zero_point in any::<u8>(),
        y_zero_point in any::<u8>(), exponent in -20i32..0, bytes in bytes(), weight in prop_oneof![Just(128), 1..128],
        seed in any::<u64>()) -> Case {
        let kernel = if three { 3 } else { 1 };
        Case { rows, columns, in_channels, out_channels, kernel, x_zero_point, y_zero_point, exponent, bytes, weight, seed }
    }
}

prop_compose! {
    fn stages()(pool in any::<bool>(), fly in any::<bool>(), step in 1usize..5, range in 1usize..5) -> Stages {
        Stages { pool, fly, step, range }
    }
}

fn check_direct(case: &Case) -> Result<(), TestCaseError> {
    let expected = case.expected(&case.layer());
    for kernels in available() {
        prop_assert_eq!(run_direct(kernels, case), expected.data(), "{}", kernels.direct.name);
    }
    Ok(())
}

/// As the first layer, whatever the case's kernel and input channels.
fn check_first(case: &Case) -> Result<(), TestCaseError> {
    let case = Case { in_channels: 1, kernel: 3, ..case.clone() };
    let expected = case.expected(&case.layer());
    for kernels in available() {
        prop_assert_eq!(run_first(kernels, &case), expected.data(), "{} {}", kernels.name, kernels.first.name);
    }
    Ok(())
}

/// With weights that meet the condition, whatever the case's.
fn check_winograd(case: &Case, stages: Stages) -> Result<(), TestCaseError> {
    // 96 · 9 · 128 · 255 and 512 · 9 · 28 · 255 are less than 2²⁵.
    let weight = if case.in_channels <= 96 { case.weight } else { case.weight.min(28) };
    let case = Case { kernel: 3, weight, ..case.clone() };
    let whole = case.expected(&case.layer());
    let expected = if stages.pool { reference::max_pool_2(&whole) } else { whole };
    for kernels in available() {
        for winograd in kernels.winograd {
            let output = run_winograd(winograd, &case, stages);
            prop_assert!(output.is_some(), "such weights always meet the condition");
            prop_assert_eq!(output.as_deref(), Some(expected.data()), "{}", winograd.name);
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn direct_kernels_equal_the_reference(case in case()) {
        check_direct(&case)?;
    }

    #[test]
    fn first_layer_kernels_equal_the_reference(case in case()) {
        check_first(&case)?;
    }

    #[test]
    fn winograd_kernels_equal_the_reference(case in case(), stages in stages()) {
        check_winograd(&case, stages)?;
    }
}

/// A case of one size, for what chance must not leave out.
fn fixed(rows: usize, columns: usize, in_channels: usize, out_channels: usize, bytes: Bytes) -> Case {
    let (kernel, x_zero_point, y_zero_point, seed) = (3, 77, 128, columns as u64);
    let (exponent, weight) = (-17, 128);
    Case { rows, columns, in_channels, out_channels, kernel, x_zero_point, y_zero_point, exponent, bytes, weight, seed }
}

/// Every size of register tile: pixels for direct kernels, tiles for Winograd's multiplication (here each is 4 columns wide,
/// or 2), which cut a row into groups of up to 14 of almost the same size.
#[test]
fn every_number_of_pixels_and_tiles_equals_the_reference() -> Result<(), TestCaseError> {
    for count in 1..31 {
        check_direct(&fixed(2, count, 5, 33, Bytes::Mixed))?;
        let stages = Stages { pool: false, fly: count % 2 == 0, step: 2, range: 2 };
        check_winograd(&fixed(3, 4 * count, 5, 32, Bytes::Mixed), stages)?;
    }
    Ok(())
}

/// Widths around those that the kernels of the first layer take at a time: 64 pixels of AVX2 are the most.
#[test]
fn first_layers_of_every_width_equal_the_reference() -> Result<(), TestCaseError> {
    for columns in (1..36).chain([63, 64, 65, 66, 127, 128, 129, 130]) {
        check_first(&fixed(3, columns, 1, 33, Bytes::Mixed))?;
    }
    Ok(())
}

/// The deepest layers' 512 channels, in and out, at the extremes too.
#[test]
#[cfg_attr(miri, ignore = "hours of it")]
fn kernels_of_512_channels_equal_the_reference() -> Result<(), TestCaseError> {
    for bytes in [Bytes::Mixed, Bytes::Greatest, Bytes::Least, Bytes::Alternating] {
        for case in [fixed(2, 5, 512, 33, bytes), fixed(2, 5, 33, 512, bytes)] {
            check_direct(&Case { exponent: -21, ..case.clone() })?;
            check_direct(&Case { exponent: -21, kernel: 1, ..case.clone() })?;
            check_winograd(&case, Stages { pool: false, fly: false, step: 1, range: 1 })?;
        }
    }
    Ok(())
}

/// The greatest sums that VGG16's deepest layers can see, and weights beyond the condition.
#[test]
#[cfg_attr(miri, ignore = "hours of it")]
fn winograd_is_exact_up_to_its_condition_and_refuses_beyond() {
    let case = |in_channels, weight, bytes| Case { x_zero_point: 0, weight, ..fixed(5, 6, in_channels, 33, bytes) };
    let stages = Stages { pool: false, fly: false, step: 1, range: 1 };
    for kernels in available() {
        for winograd in kernels.winograd {
            // 512 · 9 · 28 · 255 = 0.98 · 2²⁵; at 29 it is more than 2²⁵. All weights and all inputs the same.
            for bytes in [Bytes::Greatest, Bytes::Least] {
                let within = case(512, 28, bytes);
                let expected = within.expected(&within.layer());
                let output = run_winograd(winograd, &within, stages);
                assert_eq!(output.as_deref(), Some(expected.data()), "{}", winograd.name);
                let beyond = run_winograd(winograd, &case(512, 29, bytes), stages);
                assert_eq!(beyond.is_some(), winograd.tile == 2);
            }
        }
    }
}
