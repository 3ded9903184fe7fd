//! `roentgend bench`: how long one inference takes, how long the first result takes, how much memory it costs. Measures
//! the backend alone: decoding and preprocessing are not in the times of a run.

mod all;
mod plan;

use crate::model::{self, Choice};
use anyhow::{Context, bail};
use roentgen::classifier::Classifier;
use roentgen::classifier::loaded::Loaded;
use roentgen::classifier::native;
use roentgen::config::{Backend, Config};
use roentgen::network::plan::Memory;
use roentgen::preprocess::preprocess;
use roentgen::radiograph::phantom;
use serde_json::json;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Arguments of `bench`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The model bundle, signed or not; where absent, the one of this checkout or system if Roentgen's own key signed it.
    #[arg(long, value_name = "DIR")]
    bundle: Option<PathBuf>,
    /// What runs the model: auto, native, onnx, tflite or edgetpu, as far as this build has them.
    #[arg(long, value_name = "NAME", default_value = "auto")]
    backend: Backend,
    /// Threads of the backend, 0 for one a processor; the result says how many it really used.
    #[arg(long, value_name = "N", default_value_t = 0)]
    threads: usize,
    /// Measures every backend of this build in a process of its own, with the golden vectors, and prints the table by which
    /// backend = "auto" chooses. --json: one line, {"bundle", "backends": [{"backend", "median_ms", …} or {"backend",
    /// "failed"}], "chosen"}.
    #[arg(long, conflicts_with_all = ["backend", "direct_only", "cache", "runs", "plan"])]
    all: bool,
    /// Take [accelerator] and [bundles] from this configuration of the daemon.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Of the native backend: whose kernels, `auto` or the name of an instruction set.
    #[arg(long, value_name = "NAME", default_value = "auto")]
    kernel: String,
    /// Of the native backend: small, balanced or fast.
    #[arg(long, value_name = "HOW", default_value = "balanced", value_parser = memory)]
    memory: Memory,
    /// Of the native backend: keep each thread but the first to one processor.
    #[arg(long)]
    pin: bool,
    /// Of the native backend: keep packed weights in this folder, and take those that an earlier run kept there.
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
    /// Of the native backend: no Winograd convolution.
    #[arg(long)]
    direct_only: bool,
    /// How many inferences to time, after the first one.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    runs: u32,
    /// Of the native backend: a line for each layer, with kernel, tiles, time, and share of what the processor could do.
    #[arg(long, conflicts_with = "json")]
    plan: bool,
    /// One line of JSON: backend, kernel, threads, runs, median_ms, min_ms, cold_start_ms, peak_rss_mb (10^6 bytes).
    #[arg(long)]
    json: bool,
}

/// Measures and prints. The cold start runs from the program's first line (`started`) to the first result: reading and
/// checking the bundle, preparing the backend, preprocessing one phantom and running it.
pub(crate) fn run(arguments: &Arguments, started: Instant) -> anyhow::Result<ExitCode> {
    let engine = native::Config {
        memory: arguments.memory,
        threads: arguments.threads,
        pin: arguments.pin,
        kernel: arguments.kernel.clone(),
        direct_only: arguments.direct_only,
        cache: true,
    };
    let mut config = arguments.config.as_deref().map_or_else(|| Ok(Config::default()), Config::load)?;
    (config.backend, config.engine) = (arguments.backend, engine);
    if arguments.all {
        return all::run(arguments, &config);
    }
    let choice = Choice { cache: arguments.cache.clone(), ..Choice::plain(&config) };
    let (_, mut classifier) = model::load(arguments.bundle.as_deref(), &config.bundles, choice)?;
    if let Some(fallback) = classifier.running().and_then(|running| running.fallback) {
        bail!("backend {} does not work here: {}", fallback.wanted, fallback.reason);
    }
    let threads = classifier.threads();
    if arguments.threads != 0 && arguments.threads != threads {
        log::warn!("backend {} runs in {threads} thread: --threads changes nothing", classifier.name());
    }
    let image = preprocess(&phantom::radiograph(1, 256));
    classifier.classify(&image)?;
    let cold_start = started.elapsed();
    let mut times = Vec::new();
    for _ in 0..arguments.runs {
        let run = Instant::now();
        classifier.classify(&image)?;
        times.push(run.elapsed());
    }
    times.sort();
    let (median, least) = (median(&times), times[0]);
    let peak_rss_mb = peak_rss_bytes()? as f64 / 1e6;
    let (name, kernel) = (classifier.name().to_owned(), classifier.kernel());
    if arguments.json {
        let line = json!({
            "backend": name,
            "kernel": kernel,
            "threads": threads,
            "runs": arguments.runs,
            "median_ms": milliseconds(median),
            "min_ms": milliseconds(least),
            "cold_start_ms": milliseconds(cold_start),
            "peak_rss_mb": (peak_rss_mb * 10.0).round() / 10.0,
        });
        say!("{line}");
    } else {
        say!("backend {name}, kernel {kernel}, threads {threads}, {} runs", arguments.runs);
        say!("inference    median {:.1} ms, least {:.1} ms", milliseconds(median), milliseconds(least));
        say!("cold start   {:.1} ms to the first result", milliseconds(cold_start));
        say!("peak memory  {peak_rss_mb:.1} MB");
    }
    if arguments.plan {
        match &mut classifier {
            Loaded::Native(native) => plan::print(native.engine(), image.data(), arguments.runs)?,
            #[allow(unreachable_patterns, reason = "not every build has others")]
            _ => log::warn!("backend {name} has no plan to show"),
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The memory budget that a word stands for.
fn memory(word: &str) -> Result<Memory, String> {
    match word {
        "small" => Ok(Memory::Small),
        "balanced" => Ok(Memory::Balanced),
        "fast" => Ok(Memory::Fast),
        _ => Err("write small, balanced or fast".into()),
    }
}

/// The middle of sorted times (at least one); of an even number the mean of the middle two.
pub(crate) fn median(sorted: &[Duration]) -> Duration {
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2 }
}

pub(crate) fn milliseconds(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1000.0
}

/// The largest resident set so far: VmHWM, which the kernel gives in units of 1024 bytes.
pub(crate) fn peak_rss_bytes() -> anyhow::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status").context("cannot read /proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM in /proc/self/status")?;
    let kibibytes: u64 = line.trim().trim_end_matches("kB").trim().parse().context("VmHWM is no number")?;
    Ok(kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_or_the_mean_of_the_middle_two() {
        let ms = Duration::from_millis;
        assert_eq!(median(&[ms(5)]), ms(5));
        assert_eq!(median(&[ms(1), ms(2), ms(9)]), ms(2));
        assert_eq!(median(&[ms(1), ms(2), ms(4), ms(9)]), ms(3));
    }
}
