//! `roentgend bench`: how long one inference takes, how long the first result takes, how much memory it costs. Measures
//! the backend alone: decoding and preprocessing are not in the times of a run.

use crate::model;
use anyhow::Context;
use roentgen::bundle;
use roentgen::classifier::Classifier;
use roentgen::classifier::onnx::OnnxClassifier;
use roentgen::config::Backend;
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
    /// What runs the model: auto or onnx.
    #[arg(long, value_name = "NAME", default_value = "auto")]
    backend: Backend,
    /// Threads of the backend; the result says how many it really used.
    #[arg(long, value_name = "N", default_value_t = OnnxClassifier::THREADS)]
    threads: usize,
    /// How many inferences to time, after the first one.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    runs: u32,
    /// One line of JSON: backend, kernel, threads, runs, median_ms, min_ms, cold_start_ms, peak_rss_mb (10^6 bytes).
    #[arg(long)]
    json: bool,
}

/// Measures and prints. The cold start runs from the program's first line (`started`) to the first result: reading and
/// checking the bundle, preparing the backend, preprocessing one phantom and running it.
pub(crate) fn run(arguments: &Arguments, started: Instant) -> anyhow::Result<ExitCode> {
    let threads = OnnxClassifier::THREADS;
    if arguments.threads != threads {
        log::warn!("backend onnx runs in {threads} thread; --threads {} changes nothing", arguments.threads);
    }
    let (_, mut classifier) = model::load(arguments.bundle.as_deref(), &bundle::Config::default(), arguments.backend)?;
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
    let name = classifier.name();
    if arguments.json {
        let line = json!({
            "backend": name,
            "kernel": "tract",
            "threads": threads,
            "runs": arguments.runs,
            "median_ms": milliseconds(median),
            "min_ms": milliseconds(least),
            "cold_start_ms": milliseconds(cold_start),
            "peak_rss_mb": (peak_rss_mb * 10.0).round() / 10.0,
        });
        say!("{line}");
    } else {
        say!("backend {name}, kernel tract, {threads} thread, {} runs", arguments.runs);
        say!("inference    median {:.1} ms, least {:.1} ms", milliseconds(median), milliseconds(least));
        say!("cold start   {:.1} ms to the first result", milliseconds(cold_start));
        say!("peak memory  {peak_rss_mb:.1} MB");
    }
    Ok(ExitCode::SUCCESS)
}

/// The middle of sorted times (at least one); of an even number the mean of the middle two.
fn median(sorted: &[Duration]) -> Duration {
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2 }
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1000.0
}

/// The largest resident set so far: VmHWM, which the kernel gives in units of 1024 bytes.
fn peak_rss_bytes() -> anyhow::Result<u64> {
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
