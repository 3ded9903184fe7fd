//! Which backend runs the model: each that this build and this box have is measured with the bundle's golden vectors, in a
//! process of its own; of those that are right the fastest is taken, and what was measured is remembered. Not the
//! measuring: that is [`crate::measure`].

use crate::logging;
use crate::measure::CONFIG;
use crate::model::{Choice, Use};
use anyhow::{Context, bail};
use remembered::{Remembered, remember};
use roentgen::bundle::Bundle;
use roentgen::classifier::loaded::Loaded;
use roentgen::classifier::native::NativeClassifier;
use roentgen::config::{Backend, Config};
use roentgen::process::{self, Bounds, Program};
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf, absolute};
use std::process::Stdio;
use std::time::{Duration, Instant};

mod remembered;

pub(crate) use remembered::{FILE, Key};

/// How long measuring one backend may take: one that needs longer to load is none for this box.
const PATIENCE: Duration = Duration::from_secs(90);

/// The pause between two looks at a process that measures.
const LOOK: Duration = Duration::from_millis(10);

/// A backend that takes so many times as long as the best one is not timed again.
const HOPELESS: f64 = 2.0;

/// Those whose times differ by less than this are equally fast: the order of [`Backend::ALL`] decides.
const EQUAL: f64 = 1.1;

/// What was measured before, and whether it is to be measured now.
#[derive(Clone)]
pub(crate) enum Memory {
    /// Nothing was: the engine is taken, and tract where that refuses the network.
    None,
    /// What stands in this file; nothing is measured.
    Recall(PathBuf),
    /// The same; what is not in it is measured and put there.
    Keep(PathBuf),
}

/// One backend on this box.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Measured {
    pub(crate) backend: Backend,
    /// What reports call it.
    pub(crate) name: String,
    pub(crate) kernel: String,
    pub(crate) threads: usize,
    /// From the golden outputs, in quantization steps.
    pub(crate) largest_difference: u8,
    pub(crate) runs: usize,
    pub(crate) median_ms: f64,
    /// The least: whatever else the box does makes a run slower and never faster, so that this is compared.
    pub(crate) min_ms: f64,
    /// From the opened bundle to a backend that can run.
    pub(crate) load_ms: f64,
    /// Of the process that measured; of an accelerator without the process that has it.
    pub(crate) peak_rss_mb: f64,
}

/// A line of the table: a backend, and what was measured or why it was not.
pub(crate) type Line = (Backend, Result<Measured, String>);

/// Loads one backend, and no other in its place. Not the accelerator.
pub(crate) fn load(bundle: &Bundle, backend: Backend, config: &Config, cache: Option<&Path>) -> anyhow::Result<Loaded> {
    Ok(match backend {
        Backend::Native => Loaded::Native(Box::new(NativeClassifier::load(bundle, &config.engine, cache)?)),
        #[cfg(feature = "onnx")]
        Backend::Onnx => Loaded::Onnx(Box::new(roentgen::classifier::onnx::OnnxClassifier::load(bundle)?)),
        #[cfg(feature = "tflite")]
        Backend::Tflite => {
            let threads = config.engine.thread_count();
            Loaded::Tflite(Box::new(roentgen::classifier::tflite::TfliteClassifier::load(bundle, threads)?))
        }
        _ => bail!("this backend is not in this build: write {}", Backend::built()),
    })
}

/// The fastest that is right, as far as that is known.
pub(crate) fn fastest(bundle: &Bundle, choice: &Choice<'_>, beat: &mut dyn FnMut()) -> anyhow::Result<Loaded> {
    let lines = known(bundle, choice, choice.accelerator == Use::Now, beat);
    let accelerator = match choice.accelerator {
        Use::Never => false,
        // One that another has is not measured: where it was not before either, it goes on as it did until now.
        Use::Later if !lines.iter().any(|(backend, _)| *backend == Backend::Edgetpu) => {
            has_model(bundle, choice.config)
        }
        Use::Now | Use::Later => best(&lines).is_some_and(|best| best.backend == Backend::Edgetpu),
    };
    if accelerator { accelerate(bundle, choice, &lines, beat) } else { processor(bundle, choice, &lines) }
}

/// The accelerator, and beside it the fastest that runs on the processor.
pub(crate) fn accelerated(bundle: &Bundle, choice: &Choice<'_>, beat: &mut dyn FnMut()) -> anyhow::Result<Loaded> {
    let lines = known(bundle, choice, false, beat);
    if choice.accelerator != Use::Never {
        accelerate(bundle, choice, &lines, beat)
    } else {
        processor(bundle, choice, &lines)
    }
}

#[cfg(feature = "edgetpu")]
fn accelerate(bundle: &Bundle, choice: &Choice<'_>, lines: &[Line], beat: &mut dyn FnMut()) -> anyhow::Result<Loaded> {
    use roentgen::classifier::edgetpu::Guarded;
    let (cpu, settings) = (processor(bundle, choice, lines)?, settings(bundle, choice.config));
    let guarded = match choice.accelerator {
        Use::Later => Guarded::later(settings, cpu),
        _ => Guarded::start(settings, cpu, beat),
    };
    Ok(Loaded::Guarded(Box::new(guarded)))
}

#[cfg(not(feature = "edgetpu"))]
fn accelerate(bundle: &Bundle, choice: &Choice<'_>, lines: &[Line], _: &mut dyn FnMut()) -> anyhow::Result<Loaded> {
    processor(bundle, choice, lines)
}

/// What an accelerator is started with.
#[cfg(feature = "edgetpu")]
pub(crate) fn settings(bundle: &Bundle, config: &Config) -> roentgen::classifier::edgetpu::Settings {
    roentgen::classifier::edgetpu::Settings {
        program: Program::this(["accelerator-worker"]),
        bundle: bundle.clone().into(),
        config: config.accelerator.clone(),
        threads: config.engine.thread_count(),
    }
}

/// The fastest on the processor, as far as that is known; else the engine, and tract where that refuses the network.
fn processor(bundle: &Bundle, choice: &Choice<'_>, lines: &[Line]) -> anyhow::Result<Loaded> {
    let (config, cache) = (choice.config, choice.cache.as_deref());
    let on_processor = lines.iter().filter(|(backend, _)| *backend != Backend::Edgetpu).cloned();
    match best(&on_processor.collect::<Vec<_>>()).map(|best| best.backend) {
        None | Some(Backend::Native) => Ok(Loaded::fastest(bundle, &config.engine, cache)?),
        Some(backend) => load(bundle, backend, config, cache).or_else(|error| {
            log::warn!("backend {}: {}; taking another", backend.name(), logging::chain(&error));
            Ok(Loaded::fastest(bundle, &config.engine, cache)?)
        }),
    }
}

/// The one that is taken: the fastest, and of those that are as fast the first by [`Backend::ALL`].
pub(crate) fn best(lines: &[Line]) -> Option<&Measured> {
    let right = || lines.iter().filter_map(|(_, measured)| measured.as_ref().ok());
    let least = right().map(|one| one.min_ms).min_by(f64::total_cmp)?;
    let place = |one: &Measured| Backend::ALL.iter().position(|backend| *backend == one.backend);
    right().filter(|one| one.min_ms <= least * EQUAL).min_by_key(|one| place(one))
}

/// The table as far as it is known, or is measured now: the accelerator only `with_accelerator`.
fn known(bundle: &Bundle, choice: &Choice<'_>, with_accelerator: bool, beat: &mut dyn FnMut()) -> Vec<Line> {
    let (path, measures) = match &choice.memory {
        Memory::None => return Vec::new(),
        Memory::Recall(path) => (path, false),
        Memory::Keep(path) => (path, true),
    };
    let key = Key::of(bundle, choice.config);
    let before = Remembered::read(path).of(&key);
    if !measures {
        return before.into_iter().map(|one| (one.backend, Ok(one))).collect();
    }
    let mut candidates = candidates(bundle, choice.config);
    let is_known = before.iter().any(|one| one.backend == Backend::Edgetpu);
    candidates.retain(|backend| with_accelerator || is_known || *backend != Backend::Edgetpu);
    let lines = measured(bundle, choice.config, &candidates, choice.cache.as_deref(), &before, beat);
    let fresh = lines.iter().any(|(_, line)| line.as_ref().is_ok_and(|one| !before.contains(one)));
    if fresh {
        let mut all: Vec<_> = lines.iter().filter_map(|(_, line)| line.clone().ok()).collect();
        all.extend(before.into_iter().filter(|one| !candidates.contains(&one.backend)));
        remember(path, &key, bundle, all);
    }
    let (manifest, told) = (bundle.manifest(), lines.iter().map(told).collect::<Vec<_>>().join(", "));
    let source = if fresh { "measured" } else { "measured before" };
    log::info!("backends for {} {} ({source}): {told}", manifest.name, manifest.version);
    lines
}

/// The backends that may be there: those of this build; the accelerator only where its libraries and model are.
fn candidates(bundle: &Bundle, config: &Config) -> Vec<Backend> {
    let accelerator = config.accelerator.find().is_ok() && has_model(bundle, config);
    let is_there = |backend: &Backend| *backend != Backend::Edgetpu || accelerator;
    Backend::ALL.into_iter().filter(|backend| backend.is_built()).filter(is_there).collect()
}

/// Whether the bundle has what the accelerator runs.
fn has_model(bundle: &Bundle, config: &Config) -> bool {
    bundle.manifest().files.contains_key(config.accelerator.model())
}

/// Measures each that was not measured before, one after the other. The engine comes first, so that others need not be
/// timed for long where they are slower by far.
pub(crate) fn measured(
    bundle: &Bundle,
    config: &Config,
    candidates: &[Backend],
    cache: Option<&Path>,
    before: &[Measured],
    beat: &mut dyn FnMut(),
) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    for &backend in candidates {
        let known = before.iter().find(|one| one.backend == backend).cloned();
        let slower = best(&lines).map(|best| best.min_ms * HOPELESS);
        let line = known.map_or_else(
            || measure(bundle, config, backend, cache, slower, beat).map_err(|error| logging::chain(&error)),
            Ok,
        );
        lines.push((backend, line));
    }
    lines
}

/// Has a process measure one backend.
fn measure(
    bundle: &Bundle,
    config: &Config,
    backend: Backend,
    cache: Option<&Path>,
    slower: Option<f64>,
    beat: &mut dyn FnMut(),
) -> anyhow::Result<Measured> {
    // It runs in another folder.
    let whole = |path: &Path| absolute(path).with_context(|| format!("cannot resolve {}", path.display()));
    let mut arguments: Vec<OsString> = vec!["measure".into(), "--backend".into(), backend.name().into()];
    arguments.extend(["--bundle".into(), whole(bundle.dir())?.into()]);
    if let Some(cache) = cache {
        arguments.extend(["--cache".into(), whole(cache)?.into()]);
    }
    if let Some(slower) = slower {
        arguments.extend(["--slower".into(), slower.to_string().into()]);
    }
    let text = toml::to_string(config).context("cannot write down the configuration")?;
    let program = Program::this(arguments).with_variable(CONFIG, text);
    let child = program.start(Stdio::null(), Stdio::piped(), Bounds::NONE);
    let mut child = child.context("cannot start the process that measures")?;
    let (start, mut told) = (Instant::now(), Instant::now());
    let status = loop {
        match child.ended().context("cannot see whether the process that measures has ended")? {
            Some(status) => break status,
            None if start.elapsed() < PATIENCE => std::thread::sleep(LOOK),
            None => bail!("it took longer than {} s", PATIENCE.as_secs()),
        }
        if told.elapsed() > Duration::from_secs(1) {
            told = Instant::now();
            beat();
        }
    };
    // A line, which has had room in the pipe.
    let mut said = String::new();
    if let Some(output) = child.output() {
        output.take(1 << 16).read_to_string(&mut said).context("cannot read what was measured")?;
    }
    let said: serde_json::Value = serde_json::from_str(&said)
        .with_context(|| format!("the process that measures ended with {}", process::described(Some(status))))?;
    match said["failed"].as_str() {
        Some(reason) => bail!("{reason}"),
        None => serde_json::from_value(said).context("the process that measures answers nonsense"),
    }
}

/// A line of the table in words.
fn told((backend, line): &Line) -> String {
    match line {
        Ok(Measured { name, kernel, min_ms, .. }) => format!("{name} {min_ms:.1} ms ({kernel})"),
        Err(reason) => format!("{} not: {reason}", backend.name()),
    }
}

/// What is known of the backends for a bundle, in words; for `roentgend doctor`.
pub(crate) fn recalled(bundle: &Bundle, config: &Config) -> Option<String> {
    let before = Remembered::read(&config.state_dir.join(FILE)).of(&Key::of(bundle, config));
    let lines: Vec<Line> = before.into_iter().map(|one| (one.backend, Ok(one))).collect();
    let best = best(&lines)?;
    Some(format!("{}; auto takes {}", lines.iter().map(told).collect::<Vec<_>>().join(", "), best.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(backend: Backend, min_ms: f64) -> Line {
        let name = backend.name().to_owned();
        let kernel = String::new();
        let (threads, largest_difference, runs, load_ms, peak_rss_mb) = (1, 0, 1, 1.0, 1.0);
        let median_ms = min_ms * 1.5;
        let measured = Measured {
            backend,
            name,
            kernel,
            threads,
            largest_difference,
            runs,
            median_ms,
            min_ms,
            load_ms,
            peak_rss_mb,
        };
        (backend, Ok(measured))
    }

    #[test]
    fn the_fastest_is_taken_and_of_equals_the_engine() {
        let backend = |lines: &[Line]| best(lines).map(|best| best.backend);
        assert_eq!(backend(&[]), None);
        assert_eq!(backend(&[(Backend::Native, Err("too large".into()))]), None);
        let (native, tract) = (line(Backend::Native, 10.0), line(Backend::Onnx, 300.0));
        assert_eq!(backend(&[tract.clone(), native.clone()]), Some(Backend::Native));
        assert_eq!(backend(&[native.clone(), line(Backend::Edgetpu, 5.0)]), Some(Backend::Edgetpu));
        assert_eq!(backend(&[line(Backend::Edgetpu, 9.5), line(Backend::Tflite, 9.2), native]), Some(Backend::Native));
        assert_eq!(backend(&[(Backend::Native, Err("too large".into())), tract]), Some(Backend::Onnx));
    }
}
