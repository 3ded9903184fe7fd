//! Runs every kernel once on every layer of VGG16 and prints a line after each stage, so that a QEMU plugin
//! (`tests/bench/arm/count.c`) can count its instructions. The weights are random. Not a benchmark of time (that is
//! `layers`) and not the engine: no plan, no threads.
//!
//! `count [KERNELS]`, the best of this processor if none are named, prints `LAYER KERNEL STAGE`. Stages are `whole`, `pool`
//! (of a direct convolution), `input`, `multiply`, `output` (with pooling, where there is one) and `weights` (which belongs
//! to an inference only where U is not stored).

use roentgen_alone::kernels::direct::{self, Row};
use roentgen_alone::kernels::first::{self, FirstRow};
use roentgen_alone::kernels::plane::Plane;
use roentgen_alone::kernels::winograd::{InputTiles, Multiply, OutputTiles, Winograd};
use roentgen_alone::kernels::{Aligned, BLOCK, Epilogue, Kernels, available, named};
use roentgen_alone::network::vgg::{INPUT_SIZE, Step, TRUNK};
use roentgen_alone::quant::{QuantParams, Requantize};

/// Tiles that are multiplied at a time: a row of 4 × 4 tiles of the widest layer, whole rows of the others.
const AT_ONCE: usize = 56;

/// One convolution with its data.
struct Layer {
    name: &'static str,
    input: Plane,
    image: Aligned,
    /// Of each block of output channels: the first layer's weights as they are, others' packed to filters.
    filters: Vec<Vec<i8>>,
    epilogues: Vec<Epilogue>,
    /// Whether a 2 × 2 max pooling follows.
    pool: bool,
}

fn main() {
    let name = std::env::args().nth(1);
    let kernels = name.as_deref().map_or_else(|| available().next(), named);
    let Some(kernels) = kernels else {
        let names: Vec<&str> = available().map(|kernels| kernels.name).collect();
        eprintln!("no such kernels on this processor; there are: {}", names.join(" "));
        std::process::exit(1);
    };
    let mut size = INPUT_SIZE;
    for (index, step) in TRUNK.iter().enumerate() {
        match *step {
            Step::Conv(name, in_channels, out_channels) => {
                let pool = TRUNK.get(index + 1) == Some(&Step::MaxPool2);
                let layer = Layer::random(name, size, in_channels, out_channels, pool);
                if in_channels == 1 {
                    layer.run_first(kernels);
                } else {
                    layer.run_direct(kernels);
                    kernels.winograd.iter().for_each(|winograd| layer.run_winograd(winograd));
                }
            }
            Step::MaxPool2 => size /= 2,
        }
    }
}

impl Layer {
    fn random(name: &'static str, size: usize, in_channels: usize, out_channels: usize, pool: bool) -> Self {
        let mut state = 1u64;
        let mut next = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 40) as u8
        };
        let input = Plane { rows: size, columns: size, channels: in_channels };
        // Of the first layer only the bytes of a bordered image are read.
        let mut image = Aligned::zeroed(input.bytes());
        image.as_u8_mut().iter_mut().for_each(|byte| *byte = next());
        let y = QuantParams { scale: 1.0, zero_point: 0 };
        let requantize = vec![Requantize::new(0.001, 0.01, y).expect("usable"); BLOCK];
        let (mut filters, mut epilogues) = (Vec::new(), Vec::new());
        for _ in 0..out_channels / BLOCK {
            // Small enough for Winograd's condition.
            let weights: Vec<i8> = (0..BLOCK * 9 * in_channels).map(|_| next() as i8 / 8).collect();
            epilogues.push(Epilogue::new(&[1000; BLOCK], &weights, &requantize, 0));
            filters.push(if in_channels == 1 { weights } else { direct::pack_filters(&weights, in_channels, 9) });
        }
        Self { name, input, image, filters, epilogues, pool }
    }

    /// Says that a stage has ended: one line, one system call, one lap of the counter.
    fn lap(&self, kernel: &str, stage: &str) {
        println!("{}\t{kernel}\t{stage}", self.name);
    }

    fn output(&self, pool: bool) -> Plane {
        let divisor = if pool { 2 } else { 1 };
        let (rows, columns) = (self.input.rows / divisor, self.input.columns / divisor);
        Plane { rows, columns, channels: self.filters.len() * BLOCK }
    }

    fn run_first(&self, kernels: &Kernels) {
        let out = self.output(false);
        let mut output = Aligned::zeroed(out.bytes());
        self.lap("", "prepared");
        for (block, filters) in self.filters.iter().enumerate() {
            let mut packed = Aligned::zeroed(first::PACKED_BYTES);
            first::pack(filters, packed.as_i8_mut());
            for row in 0..out.rows {
                let at = out.pixel(block, row);
                (kernels.first.row)(FirstRow {
                    image: self.image.as_u8(),
                    row,
                    weights: packed.as_i8(),
                    epilogue: &self.epilogues[block],
                    output: &mut output.as_u8_mut()[at..at + out.columns * BLOCK],
                });
            }
        }
        self.lap(kernels.first.name, "whole");
    }

    fn run_direct(&self, kernels: &Kernels) {
        let (plane, out, pooled) = (self.input, self.output(false), self.output(true));
        let bytes = (kernels.direct.packed_bytes)(plane.blocks(), 9);
        let stride = bytes.next_multiple_of(64);
        let mut packed = Aligned::zeroed(stride * self.filters.len());
        for (block, filters) in self.filters.iter().enumerate() {
            (kernels.direct.pack)(filters, 9, &mut packed.as_i8_mut()[block * stride..][..bytes]);
        }
        let mut output = Aligned::zeroed(out.bytes());
        let mut small = Aligned::zeroed(pooled.bytes());
        self.lap("", "prepared");
        for (block, epilogue) in self.epilogues.iter().enumerate() {
            for row in 0..out.rows {
                let at = out.pixel(block, row);
                (kernels.direct.row)(Row {
                    input: self.image.as_u8(),
                    plane,
                    row,
                    kernel: 3,
                    weights: &packed.as_i8()[block * stride..][..bytes],
                    epilogue,
                    output: &mut output.as_u8_mut()[at..at + out.columns * BLOCK],
                });
            }
        }
        self.lap(kernels.direct.name, "whole");
        if self.pool {
            for block in 0..out.blocks() {
                for row in 0..pooled.rows {
                    let [top, bottom] = [0, 1].map(|below| {
                        let at = out.pixel(block, 2 * row + below);
                        &output.as_u8()[at..at + out.columns * BLOCK]
                    });
                    let at = pooled.pixel(block, row);
                    direct::pool_rows(top, bottom, &mut small.as_u8_mut()[at..at + pooled.columns * BLOCK]);
                }
            }
            self.lap(kernels.direct.name, "pool");
        }
    }

    fn run_winograd(&self, winograd: &Winograd) {
        let (plane, out) = (self.input, self.output(self.pool));
        let (tile_rows, columns) = winograd.tiles(plane.rows, plane.columns);
        let (points, tiles) = (winograd.points(), tile_rows * columns);
        let count = winograd.weight_count(plane.blocks());
        let mut u = Aligned::zeroed(2 * count * self.filters.len());
        let per_block = points * tiles * BLOCK;
        let at_once = (AT_ONCE / columns).max(1);
        let mut v = Aligned::zeroed(2 * per_block * plane.blocks());
        let mut m = Aligned::zeroed(4 * points * at_once * columns * BLOCK);
        let mut output = Aligned::zeroed(out.bytes());
        self.lap("", "prepared");
        for (filters, u) in self.filters.iter().zip(u.as_i16_mut().chunks_exact_mut(count)) {
            (winograd.weights)(filters, u);
        }
        self.lap(winograd.name, "weights");
        for (block, v) in v.as_i16_mut().chunks_exact_mut(per_block).take(plane.blocks()).enumerate() {
            (winograd.input)(InputTiles { input: self.image.as_u8(), plane, block, tile_rows: 0..tile_rows, v });
        }
        self.lap(winograd.name, "input");
        // One block's M after another in the same memory: the output stage is counted with what the last one left, which
        // takes as many instructions as any other.
        let (v, u) = (&v.as_i16()[..per_block * plane.blocks()], u.as_i16());
        let m = m.as_i32_mut();
        for block in 0..self.filters.len() {
            let u = &u[block * count..][..count];
            for row in (0..tile_rows).step_by(at_once) {
                let range = row * columns..(row + at_once).min(tile_rows) * columns;
                let m = &mut m[..points * range.len() * BLOCK];
                (winograd.multiply)(Multiply { v, blocks: plane.blocks(), tiles, range, u, m });
            }
        }
        self.lap(winograd.name, "multiply");
        for (block, epilogue) in self.epilogues.iter().enumerate() {
            for tile_row in 0..tile_rows {
                let row = tile_row * winograd.tile;
                (winograd.output)(OutputTiles {
                    m: &m[..points * columns * BLOCK],
                    rows: (plane.rows - row).min(winograd.tile),
                    columns: plane.columns,
                    epilogue,
                    pool: self.pool,
                    output: &mut output.as_u8_mut()[out.pixel(block, if self.pool { row / 2 } else { row })..],
                    row_bytes: out.row_bytes(),
                });
            }
        }
        self.lap(winograd.name, "output");
    }
}
