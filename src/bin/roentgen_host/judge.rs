//! Runs a bundle's int8 network over many images, on all cores, by the path that the box uses. Not the figures (see
//! `evaluation`).

use crate::dataset::Sample;
use crate::metrics::best;
use crate::progress::Progress;
use anyhow::{Result, anyhow, ensure};
use roentgen::assess::{Assessor, Config, Seen};
use roentgen::bundle::Bundle;
use roentgen::classifier::loaded::Loaded;
use roentgen::classifier::{Classifier, LoadError, native};
use roentgen::preprocess::preprocess;
use roentgen::radiograph::Radiograph;
use roentgen::report::{Decision, Finding, Label};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// What a box with this bundle says about one image.
#[derive(Debug, Clone)]
pub(crate) struct Verdict {
    /// Class logits.
    pub(crate) logits: [f32; 4],
    /// The pooled last feature map.
    pub(crate) features: Vec<f32>,
    /// Calibrated probabilities.
    pub(crate) findings: [Finding; 4],
    /// The label, or why none.
    pub(crate) decision: Decision,
}

impl Verdict {
    /// The calibrated probabilities, in the order of [`Label::ALL`].
    pub(crate) fn probabilities(&self) -> [f64; 4] {
        self.findings.map(|finding| f64::from(finding.probability))
    }

    /// The most probable label (the first of equals), whether or not the box would report it.
    pub(crate) fn said(&self) -> Label {
        best(&self.findings.map(|finding| finding.probability))
    }
}

/// What came of a set of samples.
pub(crate) struct Int8 {
    /// The images that could be read, in the order given.
    pub(crate) samples: Vec<Sample>,
    /// What was said of each.
    pub(crate) verdicts: Vec<Verdict>,
    /// The others, each with the reason.
    pub(crate) refused: Vec<String>,
    /// Which backend ran the network.
    pub(crate) backend: String,
}

/// What a box would take, on one core: the cores are shared out by images, of which there are many, and none waits for
/// another then.
fn load(bundle: &Bundle) -> Result<Loaded, LoadError> {
    let engine = native::Config { threads: 1, ..native::Config::default() };
    Loaded::fastest(bundle, &engine, None)
}

/// Judges every sample. A file that is no radiograph is set aside; a classifier that fails ends it all.
pub(crate) fn int8(bundle: &Bundle, samples: &[Sample]) -> Result<Int8> {
    let all = radiographs(bundle, samples.len(), "int8", |index| samples[index].radiograph())?;
    let mut out =
        Int8 { samples: Vec::new(), verdicts: Vec::new(), refused: Vec::new(), backend: load(bundle)?.name().into() };
    for (result, sample) in all.into_iter().zip(samples) {
        match result {
            Ok(verdict) => {
                out.samples.push(sample.clone());
                out.verdicts.push(verdict);
            }
            Err(error) => out.refused.push(format!("{error:#}")),
        }
    }
    ensure!(!out.samples.is_empty(), "no image could be judged{}", first_reason(&out.refused));
    Ok(out)
}

fn first_reason(refused: &[String]) -> String {
    refused.first().map_or_else(String::new, |reason| format!("; the first: {reason}"))
}

/// Judges `count` radiographs that `open` makes, by their number; `what` is shown beside the progress. In the same order:
/// the verdict, or why there is no radiograph.
pub(crate) fn radiographs<E: Send>(
    bundle: &Bundle,
    count: usize,
    what: &str,
    open: impl Fn(usize) -> Result<Radiograph, E> + Sync,
) -> Result<Vec<Result<Verdict, E>>> {
    let workers = thread::available_parallelism().map_or(1, usize::from).min(count.max(1));
    let next = AtomicUsize::new(0);
    let progress = Progress::start(what, count);
    let assessor = Assessor::new(bundle, "host", Config::default())?;
    let work = || -> Result<Vec<(usize, Result<Verdict, E>)>> {
        let mut classifier = load(bundle)?;
        let mut part = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= count {
                return Ok(part);
            }
            let verdict = match open(index) {
                Ok(radiograph) => Ok(judge(&mut classifier, &assessor, &radiograph)?),
                Err(error) => Err(error),
            };
            part.push((index, verdict));
            progress.advance(1);
        }
    };
    let parts: Vec<Result<Vec<_>>> = thread::scope(|scope| {
        let handles: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        let joined = handles.into_iter().map(|handle| handle.join().unwrap_or_else(|_| Err(anyhow!("a worker died"))));
        joined.collect()
    });
    progress.finish();
    let mut all: Vec<_> = parts.into_iter().collect::<Result<Vec<_>>>()?.into_iter().flatten().collect();
    all.sort_by_key(|(index, _)| *index);
    Ok(all.into_iter().map(|(_, verdict)| verdict).collect())
}

/// What the box would say, step by step as in [`roentgen::pipeline::judge`].
fn judge(classifier: &mut Loaded, assessor: &Assessor, radiograph: &Radiograph) -> Result<Verdict> {
    let image = preprocess(radiograph);
    let evidence = classifier.classify(&image)?;
    let (findings, decision) = assessor.decide(&Seen { radiograph, image: &image, evidence: &evidence });
    Ok(Verdict { logits: evidence.logits, features: evidence.features, findings, decision })
}
