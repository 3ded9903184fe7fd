//! Times the kernels on VGG16's layers, in one thread, with random weights: what the planner's constants come from. Not the
//! engine: no threads, no plan, no network.
//!
//! `cargo run --release --example layers [KERNEL]` prints, for every layer: milliseconds of direct convolution (with the best
//! strip of rows) and its share of the ceiling; of Winograd, with U stored: the whole, its stages (input, multiply, output),
//! the multiplication's share of the ceiling, and the best number of rows of tiles at a time; then the whole with U made on the
//! fly, that is once for each such number of rows. At last the sums over the
//! network of whichever is faster.
//!
//! Before each run the caches are emptied and the input read once, since that is how a layer finds them: its weights have
//! been pushed out by those of the other layers, its input has just been written.

use roentgen_alone::kernels::direct::{self, Row};
use roentgen_alone::kernels::first::{self, FirstRow};
use roentgen_alone::kernels::plane::Plane;
use roentgen_alone::kernels::winograd::{FlyMultiply, InputTiles, Multiply, OutputTiles, Winograd};
use roentgen_alone::kernels::{Aligned, BLOCK, Epilogue, Kernels, available, named};
use roentgen_alone::network::vgg::{INPUT_SIZE, Step, TRUNK};
use roentgen_alone::quant::{QuantParams, Requantize};
use std::hint::black_box;
use std::time::{Duration, Instant};

/// What is read to empty the caches.
const OTHER_BYTES: usize = 64 << 20;

/// One convolution with its data.
struct Layer {
    input: Plane,
    image: Aligned,
    /// Larger than the caches.
    other: Aligned,
    /// One of each block of output channels.
    filters: Vec<Vec<i8>>,
    epilogues: Vec<Epilogue>,
    /// Whether a 2 × 2 max pooling follows.
    pool: bool,
}

/// Time of Winograd's stages.
#[derive(Clone, Copy, Default)]
struct Stages {
    input: Duration,
    multiply: Duration,
    output: Duration,
}

impl Stages {
    fn sum(&self) -> Duration {
        self.input + self.multiply + self.output
    }
}

fn main() {
    let name = std::env::args().nth(1);
    let kernels = match &name {
        Some(name) => named(name),
        None => available().next(),
    };
    let Some(kernels) = kernels else {
        let names: Vec<&str> = available().map(|kernels| kernels.name).collect();
        eprintln!("no such kernel on this processor; there are: {}", names.join(" "));
        std::process::exit(1);
    };
    let (direct, winograd) = (rate(kernels.ceiling.direct), rate(kernels.ceiling.winograd));
    println!("{}: {}, ceiling {direct:.0} GMAC/s, of i16 {winograd:.0} GMAC/s", kernels.name, kernels.direct.name);
    println!(
        "layer          GMAC  direct  share strip |  winograd =  input  multiply  output   share rows | on the fly  rows"
    );
    let mut state = 1;
    let (mut size, mut sum_direct, mut sum_best) = (INPUT_SIZE, 0.0, 0.0);
    for (index, step) in TRUNK.iter().enumerate() {
        match *step {
            Step::Conv(name, in_channels, out_channels) => {
                let pool = TRUNK.get(index + 1) == Some(&Step::MaxPool2);
                let layer = Layer::random(size, in_channels, out_channels, pool, &mut state);
                let (direct, best) = if in_channels == 1 {
                    let time = ms(first_layer(kernels, &layer));
                    println!("{name:13} {:.3} {time:7.3}  ({})", layer.gmac(), kernels.first.name);
                    (time, time)
                } else {
                    line(kernels, name, &layer, direct, winograd)
                };
                sum_direct += direct;
                sum_best += best;
            }
            Step::MaxPool2 => size /= 2,
        }
    }
    println!(
        "sum: direct {sum_direct:.2} ms, the faster of the two per layer {sum_best:.2} ms (poolings of direct not counted)"
    );
}

/// Prints a layer's line; milliseconds of direct and of the faster one.
fn line(kernels: &Kernels, name: &str, layer: &Layer, ceiling: f64, ceiling_i16: f64) -> (f64, f64) {
    let rows = layer.input.rows;
    let strips = [2, 4, 7, 14, 28, 56].into_iter().filter(|&strip| strip <= rows);
    let (direct, strip) = strips
        .map(|strip| (ms(run_direct(kernels, layer, strip)), strip))
        .min_by(|a, b| a.0.total_cmp(&b.0))
        .unwrap_or_default();
    let gmac = layer.gmac();
    print!("{name:13} {gmac:.3} {direct:7.3}  {:4.0}%  {strip:4} |", 100.0 * gmac / direct * 1000.0 / ceiling);
    let mut best = direct;
    for winograd in kernels.winograd {
        let (tile_rows, tile_columns) = winograd.tiles(rows, layer.input.columns);
        let at_once: Vec<usize> = [1, 2, 3, 4, 7, 14].into_iter().filter(|&count| count <= tile_rows).collect();
        let fastest = |fly: bool| {
            let runs = at_once.iter().map(|&count| (run_winograd(winograd, layer, count, fly), count));
            runs.min_by_key(|(stages, _)| stages.sum()).unwrap_or_default()
        };
        let ((stages, count), (fly, fly_count)) = (fastest(false), fastest(true));
        let products = (tile_rows * tile_columns * winograd.points()) as f64 * layer.channel_pairs();
        let share = products / stages.multiply.as_secs_f64() / 1e9 / ceiling_i16;
        let whole = ms(stages.sum());
        print!(
            " {whole:8.3} = {:6.3} {:9.3} {:7.3}   {:4.0}%  {count:3} | {:10.3}   {fly_count:3}  {}",
            ms(stages.input),
            ms(stages.multiply),
            ms(stages.output),
            100.0 * share,
            ms(fly.sum()),
            winograd.name
        );
        best = best.min(ms(fly.sum()));
        best = best.min(whole);
    }
    println!();
    (direct, best)
}

impl Layer {
    fn random(size: usize, in_channels: usize, out_channels: usize, pool: bool, state: &mut u64) -> Self {
        let mut next = || {
            *state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (*state >> 40) as u8
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
        let other = Aligned::zeroed(OTHER_BYTES);
        Self { input, image, other, filters, epilogues, pool }
    }

    /// Empties the caches, then reads the input.
    fn find_caches(&self) {
        for bytes in [self.other.as_u8(), self.image.as_u8()] {
            black_box(bytes.iter().step_by(64).fold(0u8, |sum, &byte| sum.wrapping_add(byte)));
        }
    }

    /// Products of one channel in with one channel out.
    fn channel_pairs(&self) -> f64 {
        (self.input.channels * self.filters.len() * BLOCK) as f64
    }

    fn gmac(&self) -> f64 {
        (self.input.rows * self.input.columns * 9) as f64 * self.channel_pairs() / 1e9
    }

    fn output(&self, pool: bool) -> Plane {
        let divisor = if pool { 2 } else { 1 };
        let (rows, columns) = (self.input.rows / divisor, self.input.columns / divisor);
        Plane { rows, columns, channels: self.filters.len() * BLOCK }
    }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// The fastest by `key` of as many runs as fit some tenths of a second: whatever else the processor
/// does only makes a run slower.
fn fastest<T>(layer: &Layer, mut run: impl FnMut() -> T, key: impl Fn(&T) -> Duration) -> T {
    let start = Instant::now();
    let mut cold = || {
        layer.find_caches();
        run()
    };
    let first = cold();
    let runs = (0.1 / start.elapsed().as_secs_f64()).clamp(0.0, 40.0) as usize;
    (0..runs).map(|_| cold()).fold(first, |best, result| if key(&result) < key(&best) { result } else { best })
}

/// Runs once and says how long it took.
fn timed(run: impl FnOnce()) -> Duration {
    let start = Instant::now();
    run();
    start.elapsed()
}

/// GMAC/s of a ceiling's loop: the best of some, since anything else on the core makes it slower only.
fn rate(ceiling: fn(u64) -> u64) -> f64 {
    let mut best = 0f64;
    for _ in 0..20 {
        let start = Instant::now();
        let products = ceiling(1_000_000);
        best = best.max(products as f64 / start.elapsed().as_secs_f64() / 1e9);
    }
    best
}

fn first_layer(kernels: &Kernels, layer: &Layer) -> Duration {
    let out = layer.output(false);
    let mut packed: Vec<Aligned> = Vec::new();
    for filters in &layer.filters {
        let mut block = Aligned::zeroed(first::PACKED_BYTES);
        first::pack(filters, block.as_i8_mut());
        packed.push(block);
    }
    let mut output = Aligned::zeroed(out.bytes());
    let run = || {
        timed(|| {
            for row in 0..out.rows {
                for (block, epilogue) in layer.epilogues.iter().enumerate() {
                    let at = out.pixel(block, row);
                    (kernels.first.row)(FirstRow {
                        image: layer.image.as_u8(),
                        row,
                        weights: packed[block].as_i8(),
                        epilogue,
                        output: &mut output.as_u8_mut()[at..at + out.columns * BLOCK],
                    });
                }
            }
        })
    };
    fastest(layer, run, |time| *time)
}

fn run_direct(kernels: &Kernels, layer: &Layer, strip: usize) -> Duration {
    let (plane, out) = (layer.input, layer.output(false));
    let bytes = (kernels.direct.packed_bytes)(plane.blocks(), 9);
    let mut packed = Aligned::zeroed(bytes.next_multiple_of(64) * layer.filters.len());
    let at = |block: usize| block * bytes.next_multiple_of(64);
    for (block, filters) in layer.filters.iter().enumerate() {
        (kernels.direct.pack)(filters, 9, &mut packed.as_i8_mut()[at(block)..][..bytes]);
    }
    let mut output = Aligned::zeroed(out.bytes());
    let run = || {
        timed(|| {
            for from in (0..out.rows).step_by(strip) {
                for (block, epilogue) in layer.epilogues.iter().enumerate() {
                    for row in from..(from + strip).min(out.rows) {
                        let pixel = out.pixel(block, row);
                        (kernels.direct.row)(Row {
                            input: layer.image.as_u8(),
                            plane,
                            row,
                            kernel: 3,
                            weights: &packed.as_i8()[at(block)..][..bytes],
                            epilogue,
                            output: &mut output.as_u8_mut()[pixel..pixel + out.columns * BLOCK],
                        });
                    }
                }
            }
        })
    };
    fastest(layer, run, |time| *time)
}

fn run_winograd(winograd: &Winograd, layer: &Layer, tile_rows: usize, fly: bool) -> Stages {
    let (plane, out) = (layer.input, layer.output(layer.pool));
    let (all_rows, tile_columns) = winograd.tiles(plane.rows, plane.columns);
    let (points, blocks) = (winograd.points(), plane.blocks());
    let count = winograd.weight_count(blocks);
    let u_count = if fly { winograd.scratch_count(blocks) } else { count * layer.filters.len() };
    let mut u = Aligned::zeroed(2 * u_count);
    for (filters, u) in
        layer.filters.iter().zip(u.as_i16_mut().chunks_exact_mut(count)).take(if fly { 0 } else { usize::MAX })
    {
        (winograd.weights)(filters, u);
    }
    let most = points * tile_rows * tile_columns * BLOCK;
    let (mut v, mut m) = (Aligned::zeroed(2 * most * blocks), Aligned::zeroed(4 * most));
    let mut output = Aligned::zeroed(out.bytes());
    let run = || {
        let mut stages = Stages::default();
        for from in (0..all_rows).step_by(tile_rows) {
            let range = from..(from + tile_rows).min(all_rows);
            let tiles = range.len() * tile_columns;
            let per_block = points * tiles * BLOCK;
            stages.input += timed(|| {
                for (block, v) in v.as_i16_mut().chunks_exact_mut(per_block).enumerate().take(blocks) {
                    let (input, tile_rows) = (layer.image.as_u8(), range.clone());
                    (winograd.input)(InputTiles { input, plane, block, tile_rows, v });
                }
            });
            for (block, epilogue) in layer.epilogues.iter().enumerate() {
                let m = &mut m.as_i32_mut()[..per_block];
                let v = &v.as_i16()[..per_block * blocks];
                stages.multiply += timed(|| {
                    if fly {
                        let (filters, scratch) = (&layer.filters[block], u.as_i16_mut());
                        winograd.multiply_filters(FlyMultiply {
                            v,
                            blocks,
                            tiles,
                            range: 0..tiles,
                            filters,
                            scratch,
                            m,
                        });
                    } else {
                        let u = &u.as_i16()[block * count..][..count];
                        (winograd.multiply)(Multiply { v, blocks, tiles, range: 0..tiles, u, m });
                    }
                });
                let row = from * winograd.tile;
                let at = out.pixel(block, if layer.pool { row / 2 } else { row });
                stages.output += timed(|| {
                    (winograd.output)(OutputTiles {
                        m,
                        rows: (plane.rows - row).min(range.len() * winograd.tile),
                        columns: plane.columns,
                        epilogue,
                        pool: layer.pool,
                        output: &mut output.as_u8_mut()[at..],
                        row_bytes: out.row_bytes(),
                    });
                });
            }
        }
        stages
    };
    fastest(layer, run, Stages::sum)
}
