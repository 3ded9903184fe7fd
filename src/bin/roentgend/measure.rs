//! `roentgend measure`: one backend on this box, for a process that wants to compare them: is it right on the bundle's golden
//! vectors, and how fast. A process of its own, so that memory is given back and a library that crashes hits nobody. Prints
//! one line of JSON. Not for people: `roentgend bench --all` is.

use crate::backends::{self, Measured};
use crate::bench::{median, milliseconds, peak_rss_bytes};
use crate::logging;
use anyhow::{Context, ensure};
use roentgen::bundle::{Bundle, Golden};
use roentgen::classifier::Classifier;
use roentgen::config::{Backend, Config};
use roentgen::process;
use roentgen::tensor::Tensor;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// The variable in which the configuration is, as TOML.
pub(crate) const CONFIG: &str = "ROENTGEN_MEASURE_CONFIG";

/// What the timed runs may take together, and how many there are at most and at least.
const BUDGET: Duration = Duration::from_millis(1500);
const MOST: usize = 15;
const LEAST: usize = 3;

/// Arguments of `measure`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[arg(long)]
    backend: Backend,
    #[arg(long)]
    bundle: PathBuf,
    /// Where packed weights are kept.
    #[arg(long)]
    cache: Option<PathBuf>,
    /// Milliseconds: one that is slower than this need not be timed twice.
    #[arg(long)]
    slower: Option<f64>,
}

/// Measures and prints.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    process::subordinate()?;
    let said = match measure(arguments) {
        Ok(measured) => serde_json::to_string(&measured)?,
        Err(error) => serde_json::json!({ "failed": logging::chain(&error) }).to_string(),
    };
    say!("{said}");
    Ok(ExitCode::SUCCESS)
}

fn measure(arguments: &Arguments) -> anyhow::Result<Measured> {
    let text = std::env::var(CONFIG).context("this is started by roentgend, not by hand")?;
    let config = Config::parse(&text, Path::new(CONFIG))?;
    // Whose bundle it is was asked by whoever wants to know.
    let bundle = Bundle::open(&arguments.bundle)?;
    let golden = bundle.golden()?;
    let backend = arguments.backend;
    #[cfg(feature = "edgetpu")]
    if backend == Backend::Edgetpu {
        return accelerator(&config, bundle, &golden, arguments.slower);
    }
    let start = Instant::now();
    let mut loaded = backends::load(&bundle, backend, &config, arguments.cache.as_deref())?;
    let load = start.elapsed();
    let tolerance = loaded.tolerance();
    let tested = bundle.self_test(tolerance, |image| loaded.run(image).map_err(|error| error.to_string()))?;
    let times = time(&golden, arguments.slower, &mut |image| Ok(loaded.run(image).map(drop)?))?;
    Ok(Measured {
        backend,
        name: loaded.name().to_owned(),
        kernel: loaded.kernel(),
        threads: loaded.threads(),
        largest_difference: tested.largest_difference,
        runs: times.len(),
        median_ms: milliseconds(median(&times)),
        min_ms: milliseconds(times[0]),
        load_ms: milliseconds(load),
        peak_rss_mb: megabytes()?,
    })
}

/// The same of an accelerator alone, without the processor beside it.
#[cfg(feature = "edgetpu")]
fn accelerator(config: &Config, bundle: Bundle, golden: &[Golden], slower: Option<f64>) -> anyhow::Result<Measured> {
    use roentgen::classifier::edgetpu::Accelerator;
    let start = Instant::now();
    let settings = backends::settings(&bundle, config);
    let mut accelerator = Accelerator::start(&settings)?;
    // It gives its golden vectors before it is ready.
    while !accelerator.poll(Instant::now() + Duration::from_secs(1))? {}
    let load = start.elapsed();
    let ready = accelerator.ready().cloned().context("an accelerator that is ready says what it is")?;
    let times = time(golden, slower, &mut |image| Ok(accelerator.run(image).map(drop)?))?;
    Ok(Measured {
        backend: Backend::Edgetpu,
        name: config.accelerator.name().to_owned(),
        kernel: ready.kernel,
        threads: settings.threads,
        largest_difference: ready.largest_difference,
        runs: times.len(),
        median_ms: milliseconds(median(&times)),
        min_ms: milliseconds(times[0]),
        load_ms: milliseconds(load),
        peak_rss_mb: megabytes()?,
    })
}

/// Sorted times of runs on golden images, at least one; they were run once before.
fn time(
    golden: &[Golden],
    slower: Option<f64>,
    run: &mut dyn FnMut(&Tensor<u8>) -> anyhow::Result<()>,
) -> anyhow::Result<Vec<Duration>> {
    ensure!(!golden.is_empty(), "the bundle has no golden vector");
    let (start, mut times) = (Instant::now(), Vec::new());
    for vector in golden.iter().cycle().take(MOST) {
        let begun = Instant::now();
        run(&vector.image)?;
        times.push(begun.elapsed());
        // Twice: the first may have met something else that the box does.
        let hopeless =
            slower.is_some_and(|limit| times.len() > 1 && times.iter().all(|&time| milliseconds(time) > limit));
        if hopeless || (times.len() >= LEAST && start.elapsed() > BUDGET) {
            break;
        }
    }
    times.sort();
    Ok(times)
}

fn megabytes() -> anyhow::Result<f64> {
    Ok((peak_rss_bytes()? as f64 / 1e5).round() / 10.0)
}
