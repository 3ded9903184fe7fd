//! A bench of every kernel that this processor runs, on the shapes of VGG16's layers: `cargo bench --bench kernels [FILTER]`,
//! where names read `family/stage/kernels/layer`. Each is one call on data in the caches; whole layers, and how they are cut, are
//! timed by the example `layers`, whole networks by the program. Throughput is products a second, of direct convolution or of
//! Winograd's own.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use roentgen_alone::kernels::direct::{self, Row};
use roentgen_alone::kernels::first::{self, FirstRow};
use roentgen_alone::kernels::plane::Plane;
use roentgen_alone::kernels::winograd::{FlyMultiply, InputTiles, Multiply, OutputTiles, Winograd};
use roentgen_alone::kernels::{Aligned, BLOCK, Epilogue, Kernels, available};
use roentgen_alone::network::vgg::{INPUT_SIZE, Step, TRUNK};
use roentgen_alone::quant::{QuantParams, Requantize};
use std::hint::black_box;
use std::time::Duration;

/// VGG16's layers but the first, each shape once.
fn planes() -> Vec<(&'static str, Plane)> {
    let (mut size, mut planes) = (INPUT_SIZE, Vec::<(&str, Plane)>::new());
    for step in TRUNK {
        match step {
            Step::Conv(name, channels, _) => {
                let plane = Plane { rows: size, columns: size, channels };
                if channels > 1 && planes.iter().all(|(_, other)| *other != plane) {
                    planes.push((name, plane));
                }
            }
            Step::MaxPool2 => size /= 2,
        }
    }
    planes
}

fn random(count: usize) -> impl Iterator<Item = u8> {
    let mut state = 1u64;
    (0..count).map(move |_| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 40) as u8
    })
}

fn bytes(count: usize) -> Aligned {
    let mut aligned = Aligned::zeroed(count);
    aligned.as_u8_mut().iter_mut().zip(random(count)).for_each(|(byte, random)| *byte = random);
    aligned
}

fn weights(count: usize) -> Vec<i8> {
    random(count).map(|byte| byte as i8 / 8).collect()
}

fn epilogue(weights: &[i8]) -> Epilogue {
    let y = QuantParams { scale: 1.0, zero_point: 0 };
    Epilogue::new(&[1000; BLOCK], weights, &[Requantize::new(0.001, 0.01, y).expect("usable"); BLOCK], 0)
}

fn first(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("first/row");
    let image = bytes((INPUT_SIZE + 2) * (INPUT_SIZE + 2) + first::SLACK);
    let weights = weights(9 * BLOCK);
    let epilogue = epilogue(&weights);
    let mut packed = Aligned::zeroed(first::PACKED_BYTES);
    first::pack(&weights, packed.as_i8_mut());
    let mut output = vec![0; INPUT_SIZE * BLOCK];
    group.throughput(Throughput::Elements((INPUT_SIZE * 9 * BLOCK) as u64));
    for kernels in available() {
        group.bench_function(BenchmarkId::new(kernels.name, "block1_conv1"), |bencher| {
            bencher.iter(|| {
                let (image, weights, output) = (image.as_u8(), packed.as_i8(), &mut output[..]);
                (kernels.first.row)(FirstRow { image, row: 7, weights, epilogue: &epilogue, output });
            });
        });
    }
}

fn direct_rows(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("direct/row");
    for (name, plane) in planes() {
        let input = bytes(plane.bytes());
        let weights = weights(9 * plane.channels * BLOCK);
        let (filters, epilogue) = (direct::pack_filters(&weights, plane.channels, 9), epilogue(&weights));
        let mut output = vec![0; plane.columns * BLOCK];
        group.throughput(Throughput::Elements((plane.columns * 9 * plane.channels * BLOCK) as u64));
        for kernels in available() {
            let count = (kernels.direct.packed_bytes)(plane.blocks(), 9);
            let mut packed = Aligned::zeroed(count);
            (kernels.direct.pack)(&filters, 9, &mut packed.as_i8_mut()[..count]);
            group.bench_function(BenchmarkId::new(kernels.name, name), |bencher| {
                bencher.iter(|| {
                    (kernels.direct.row)(Row {
                        input: input.as_u8(),
                        plane,
                        row: 5,
                        kernel: 3,
                        weights: &packed.as_i8()[..count],
                        epilogue: &epilogue,
                        output: &mut output,
                    });
                });
            });
        }
    }
}

/// A call's tiles: some rows of them, of one block of output channels.
struct Tiles {
    plane: Plane,
    rows: usize,
    columns: usize,
}

impl Tiles {
    /// As many rows of tiles as make some fifty tiles.
    fn of(winograd: &Winograd, plane: Plane) -> Self {
        let (rows, columns) = winograd.tiles(plane.rows, plane.columns);
        Self { plane, rows: (56 / columns).clamp(1, rows), columns }
    }

    fn count(&self) -> usize {
        self.rows * self.columns
    }

    fn products(&self, winograd: &Winograd) -> Throughput {
        Throughput::Elements((winograd.points() * self.count() * self.plane.channels * BLOCK) as u64)
    }
}

/// Benches one stage of every Winograd kernel on every layer.
fn stage(criterion: &mut Criterion, stage: &str, bench: impl Fn(&mut criterion::Bencher<'_>, &Winograd, &Tiles)) {
    let mut group = criterion.benchmark_group(format!("winograd/{stage}"));
    for (name, plane) in planes() {
        for Kernels { name: kernels, winograd, .. } in available() {
            for winograd in *winograd {
                let tiles = Tiles::of(winograd, plane);
                group.throughput(tiles.products(winograd));
                let id = BenchmarkId::new(format!("{kernels} F({m}×{m})", m = winograd.tile), name);
                group.bench_function(id, |bencher| bench(bencher, winograd, &tiles));
            }
        }
    }
}

fn winograd(criterion: &mut Criterion) {
    stage(criterion, "input", |bencher, winograd, tiles| {
        let (input, plane) = (bytes(tiles.plane.bytes()), tiles.plane);
        let mut v = Aligned::zeroed(2 * winograd.points() * tiles.count() * BLOCK);
        bencher.iter(|| {
            let (input, v) = (input.as_u8(), v.as_i16_mut());
            (winograd.input)(InputTiles { input, plane, block: 0, tile_rows: 0..tiles.rows, v });
        });
    });
    stage(criterion, "weights", |bencher, winograd, tiles| {
        let filters = weights(9 * tiles.plane.channels * BLOCK);
        let mut u = Aligned::zeroed(2 * winograd.weight_count(tiles.plane.blocks()));
        bencher.iter(|| (winograd.weights)(black_box(&filters), u.as_i16_mut()));
    });
    for fly in [false, true] {
        stage(criterion, if fly { "multiply_filters" } else { "multiply" }, |bencher, winograd, tiles| {
            let (blocks, count) = (tiles.plane.blocks(), tiles.count());
            let v = bytes(2 * winograd.points() * count * BLOCK * blocks);
            let filters = weights(9 * tiles.plane.channels * BLOCK);
            let mut u = Aligned::zeroed(2 * winograd.weight_count(blocks).max(winograd.scratch_count(blocks)));
            (winograd.weights)(&filters, u.as_i16_mut());
            let mut m = Aligned::zeroed(4 * winograd.points() * count * BLOCK);
            bencher.iter(|| {
                let (v, tiles, range, m) = (v.as_i16(), count, 0..count, m.as_i32_mut());
                if fly {
                    let (filters, scratch) = (black_box(&filters), u.as_i16_mut());
                    winograd.multiply_filters(FlyMultiply { v, blocks, tiles, range, filters, scratch, m });
                } else {
                    (winograd.multiply)(Multiply { v, blocks, tiles, range, u: u.as_i16(), m });
                }
            });
        });
    }
    for pool in [false, true] {
        stage(criterion, if pool { "output_pooled" } else { "output" }, |bencher, winograd, tiles| {
            let mut m = bytes(4 * winograd.points() * tiles.count() * BLOCK);
            let (epilogue, row_bytes) = (epilogue(&weights(9 * BLOCK)), tiles.plane.row_bytes());
            let (rows, columns) = ((tiles.rows * winograd.tile).min(tiles.plane.rows), tiles.plane.columns);
            let mut output = vec![0; (rows + 1) * row_bytes];
            bencher.iter(|| {
                let (m, output, epilogue) = (&*m.as_i32_mut(), &mut output[..], &epilogue);
                (winograd.output)(OutputTiles { m, rows, columns, epilogue, pool, output, row_bytes });
            });
        });
    }
}

criterion_group! {
    name = kernels;
    config = Criterion::default().warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_millis(800)).sample_size(20);
    targets = first, direct_rows, winograd
}
criterion_main!(kernels);
