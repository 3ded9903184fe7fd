//! `roentgend bench --plan`: the engine's plan layer by layer, with the time that each took and its share of what this
//! processor could do at best. Not the whole inference's time: that is measured without looking.

use super::{median, milliseconds};
use roentgen::network::engine::Engine;
use roentgen::network::plan::{Step, Work};
use std::time::{Duration, Instant};

/// How long a ceiling is measured, and how often: the best counts, since nothing but a disturbance makes it slower.
const MEASURED: Duration = Duration::from_millis(20);
const TURNS: usize = 5;

/// Times every step `runs` times and prints a line for each.
pub(super) fn print(engine: &mut Engine, image: &[u8], runs: u32) -> anyhow::Result<()> {
    let mut times: Vec<Vec<Duration>> = vec![Vec::new(); engine.plan().steps.len()];
    for _ in 0..runs {
        let (mut index, mut last) = (0, Instant::now());
        engine.infer_and_show(image, &mut |_, _| {
            let now = Instant::now();
            times[index].push(now - last);
            (index, last) = (index + 1, now);
        })?;
    }
    times.iter_mut().for_each(|times| times.sort());

    let plan = engine.plan();
    let ceiling = plan.options.kernels.ceiling;
    let (direct, winograd) = (rate(ceiling.direct), rate(ceiling.winograd));
    let threads = plan.options.threads;
    say!("\n{:<14}{:>12}{:>12}  {:<24}{:>9}{:>8}{:>8}{:>7}", "layer", "in", "out", "kernel", "kB", "GMAC", "ms", "%");
    let mut sum = Duration::ZERO;
    for (step, times) in plan.steps.iter().zip(&times) {
        let time = median(times);
        sum += time;
        // What the kernel multiplies is less than what the definition does, for Winograd.
        let (products, rate) = match step.work {
            Work::Winograd(tiling) => (products(step, tiling.winograd), winograd),
            Work::First { .. } | Work::Direct { .. } | Work::Pool { .. } => (step.macs as f64, direct),
        };
        let share = 100.0 * products / (rate * threads as f64 * time.as_secs_f64().max(1e-9));
        let plane = |plane: roentgen::kernels::plane::Plane| format!("{}² × {}", plane.rows, plane.channels);
        say!(
            "{:<14}{:>12}{:>12}  {:<24}{:>9.0}{:>8.3}{:>8.3}{:>7.1}  {}{}",
            step.name,
            plane(step.input),
            plane(step.output),
            step.work.kernel(plan),
            step.weight_bytes() as f64 / 1e3,
            step.macs as f64 / 1e9,
            milliseconds(time),
            share,
            step.work,
            if step.pool { ", pooled" } else { "" }
        );
    }
    say!(
        "sum of medians {:.2} ms; {:.1} MB of weights, {:.1} MB in all; %: of this processor's {threads} × {:.0} (direct) or \
         {:.0} (Winograd) products a nanosecond",
        milliseconds(sum),
        plan.weight_bytes as f64 / 1e6,
        plan.bytes() as f64 / 1e6,
        direct / 1e9,
        winograd / 1e9
    );
    Ok(())
}

/// Products of a Winograd step: tiles × points × channels × output channels, all in whole blocks and tiles.
fn products(step: &Step, winograd: &roentgen::kernels::winograd::Winograd) -> f64 {
    let (rows, columns) = winograd.tiles(step.input.rows, step.input.columns);
    (rows * columns * winograd.points()) as f64 * (step.input.blocks() * step.output.blocks()) as f64 * 1024.0
}

/// Products a second of a ceiling's loop on this core.
fn rate(ceiling: fn(u64) -> u64) -> f64 {
    let mut best = 0.0f64;
    for _ in 0..TURNS {
        let (start, mut products) = (Instant::now(), 0);
        while start.elapsed() < MEASURED {
            products += ceiling(10_000);
        }
        best = best.max(products as f64 / start.elapsed().as_secs_f64());
    }
    best
}
