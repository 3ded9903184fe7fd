//! Times every way to do each layer of VGG16 within the whole network, with random weights, on so many threads: what the
//! planner's rules come from. Not a benchmark: the figures are of this machine, and of one layer at a time.
//!
//! `cargo run --release --example tune [KERNEL [THREADS [BEST]]]` prints the planner's own choice and its time, then for every
//! layer the fastest ways, best first, and the sum of the best. With BEST 0 the former only.

use roentgen_alone::kernels::{available, named};
use roentgen_alone::network::engine::Engine;
use roentgen_alone::network::int8::{Conv, Layer, Network};
use roentgen_alone::network::outline::Outline;
use roentgen_alone::network::plan::{Memory, Options, Plan, Shape, Tiling, Work};
use roentgen_alone::network::vgg::{FEATURES, INPUT_SIZE, Step, TRUNK};
use roentgen_alone::network::weights::Weights;
use roentgen_alone::quant::QuantParams;
use std::convert::Infallible;
use std::time::{Duration, Instant};

/// Inferences of each plan that are timed.
const RUNS: usize = 9;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let kernels =
        arguments.first().filter(|name| *name != "auto").map_or_else(|| available().next(), |name| named(name));
    let Some(kernels) = kernels else {
        eprintln!(
            "no such kernel on this processor: {:?}",
            available().map(|kernels| kernels.name).collect::<Vec<_>>()
        );
        std::process::exit(1);
    };
    let number = |index: usize, default| arguments.get(index).and_then(|text| text.parse().ok()).unwrap_or(default);
    let (threads, best) = (number(1, 1), number(2, 4));
    let network = vgg16();
    let options = Options::new(kernels, threads);
    let outline = Outline::of(&network).expect("a sound network");
    let image: Vec<u8> = (0..INPUT_SIZE * INPUT_SIZE).map(|i| (i * 7 % 251) as u8).collect();

    let mut planned: Vec<(Memory, Engine, Vec<Duration>)> = Vec::new();
    for memory in [Memory::Small, Memory::Balanced, Memory::Fast] {
        let plan = Plan::new(&outline, Options { memory, ..options }).expect("a plan");
        println!("{plan}");
        let weights = pack(&plan, &network);
        planned.push((memory, Engine::with(plan, weights, false).expect("an engine"), Vec::new()));
    }
    for turn in 0..90 {
        // In turn, some at a time, so that a disturbance is everybody's.
        let (_, engine, times) = &mut planned[turn / 10 % 3];
        let start = Instant::now();
        engine.infer(&image).expect("an image");
        times.push(start.elapsed());
    }
    for (memory, _, times) in &mut planned {
        times.sort();
        let milliseconds = |index: usize| times[index].as_secs_f64() * 1e3;
        println!(
            "{memory:?}: least {:.2} ms, quarter {:.2} ms, median {:.2} ms",
            milliseconds(0),
            milliseconds(7),
            milliseconds(15)
        );
    }
    drop(planned);
    if best == 0 {
        return;
    }

    let mut ways: Vec<Vec<(Work, Duration)>> = Vec::new();
    let mut names = Vec::new();
    for turn in 0.. {
        let mut any = false;
        let plan = Plan::with(&outline, options, |index, shape| {
            let all = candidates(index, shape, threads);
            any |= turn < all.len();
            all[turn % all.len()]
        });
        let plan = plan.expect("a plan");
        if !any {
            break;
        }
        let weights = pack(&plan, &network);
        let mut engine = Engine::with(plan, weights, false).expect("an engine");
        let mut times: Vec<Vec<Duration>> = vec![Vec::new(); engine.plan().steps.len()];
        for _ in 0..RUNS {
            let (mut index, mut last) = (0, Instant::now());
            engine
                .infer_and_show(&image, &mut |_, _| {
                    let now = Instant::now();
                    times[index].push(now - last);
                    (index, last) = (index + 1, now);
                })
                .expect("an image");
        }
        ways.resize(times.len(), Vec::new());
        names = engine.plan().steps.iter().map(|step| step.name.clone()).collect();
        for ((step, times), ways) in engine.plan().steps.iter().zip(&mut times).zip(&mut ways) {
            times.sort();
            ways.push((step.work, times[RUNS / 2]));
        }
    }
    let mut sum = Duration::ZERO;
    println!("{}, {threads} threads", kernels.name);
    for (name, ways) in names.iter().zip(&mut ways) {
        ways.sort_by_key(|(_, time)| *time);
        sum += ways[0].1;
        let kinds: [fn(&Work) -> bool; 3] = [
            |work| !matches!(work, Work::Winograd(_)),
            |work| matches!(work, Work::Winograd(tiling) if tiling.stored),
            |work| matches!(work, Work::Winograd(tiling) if !tiling.stored),
        ];
        for kind in kinds {
            let mut shown = Vec::new();
            for (work, time) in ways.iter().filter(|(work, _)| kind(work)) {
                let text = work.to_string();
                if shown.len() < best && !shown.contains(&text) {
                    println!("{name:<14} {:>7.3} ms  {text}", time.as_secs_f64() * 1e3);
                    shown.push(text);
                }
            }
        }
    }
    println!("sum of the best {:.2} ms", sum.as_secs_f64() * 1e3);
}

fn pack(plan: &Plan, network: &Network) -> Weights {
    let packed = Weights::pack(plan, network.convolutions().map(Ok::<_, Infallible>));
    packed.unwrap_or_else(|never| match never {})
}

/// The ways to do a layer that are worth a try.
fn candidates(index: usize, shape: &Shape<'_>, threads: usize) -> Vec<Work> {
    let rows = shape.output.rows;
    let strips = [1, 2, 3, 4, 5, 7, 8, 14, 16, 28, 56, 112, 224];
    let strips: Vec<usize> = strips.into_iter().filter(|&strip| strip <= rows).collect();
    if index == 0 {
        return strips.into_iter().map(|strip| Work::First { strip }).collect();
    }
    let mut all: Vec<Work> = strips.into_iter().map(|strip| Work::Direct { strip }).collect();
    let Some(winograd) = shape.winograd else { return all };
    let (tile_rows, _) = winograd.tiles(shape.input.rows, shape.input.columns);
    let mut push = |stored, strip: usize, step: usize, round: Option<usize>| {
        all.push(Work::Winograd(Tiling { winograd, stored, strip, step, round }));
    };
    for strip in [1, 2, 3, 4, 5, 7, 14].into_iter().filter(|&strip| strip <= tile_rows) {
        for step in [1, 2, 4, 7, 14].into_iter().filter(|&step| step <= strip) {
            push(true, strip, step, None);
            if threads == 1 && tile_rows <= 14 && strip == tile_rows {
                push(false, strip, step, None);
            }
        }
    }
    if tile_rows <= 28 {
        for strip in [1, 2, 3, 4, 7, 14].into_iter().filter(|&strip| strip <= tile_rows) {
            for round in [1, 2, 4, 7, 14].into_iter().filter(|&round| round * strip < tile_rows + strip) {
                push(true, strip, strip, Some(round));
                if round * strip >= tile_rows {
                    push(false, strip, strip, Some(round));
                }
            }
        }
    }
    all
}

/// VGG16 with pseudorandom weights that Winograd can do exactly.
fn vgg16() -> Network {
    let params = QuantParams { scale: 1.0, zero_point: 0 };
    let mut state = 1u64;
    let mut conv = |name: &str, in_channels: usize, out_channels: usize, kernel: usize| {
        let taps = kernel * kernel * in_channels;
        let weight = |_| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 57) as i8 - 64
        };
        Conv {
            name: name.into(),
            in_channels,
            out_channels,
            kernel,
            weights: (0..out_channels * taps).map(weight).collect(),
            weight_scales: vec![0.03 / (taps as f32).sqrt(); out_channels],
            bias: vec![1000; out_channels],
            input: params,
            output: params,
        }
    };
    let trunk = TRUNK.iter().map(|step| match *step {
        Step::MaxPool2 => Layer::MaxPool2,
        Step::Conv(name, in_channels, out_channels) => Layer::Conv(conv(name, in_channels, out_channels, 3)),
    });
    let trunk = trunk.collect();
    Network { input_size: INPUT_SIZE, trunk, head: conv("head", FEATURES, 4, 1) }
}
