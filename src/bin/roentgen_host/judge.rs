//! Runs a bundle's int8 network over many images, on all cores, by the path that the box uses. Not the figures (see
//! `evaluation`).

use crate::dataset::Sample;
use crate::progress::Progress;
use anyhow::{Result, anyhow, ensure};
use roentgen::bundle::Bundle;
use roentgen::classifier::Classifier;
use roentgen::classifier::onnx::OnnxClassifier;
use roentgen::tensor::Tensor;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// What came of a set of images.
pub(crate) struct Int8 {
    /// The images that could be read, in the order given.
    pub(crate) samples: Vec<Sample>,
    /// Their class logits.
    pub(crate) logits: Vec<[f32; 4]>,
    /// The others, each with the reason.
    pub(crate) refused: Vec<String>,
}

/// One worker's images, by their place in the list: the logits, or why the image cannot be read.
type Part = Vec<(usize, Result<[f32; 4], String>)>;

/// Classifies every image. A file that is no radiograph is set aside; a classifier that fails ends it all.
pub(crate) fn int8(bundle: &Bundle, samples: &[Sample]) -> Result<Int8> {
    let workers = thread::available_parallelism().map_or(1, usize::from).min(samples.len().max(1));
    let next = AtomicUsize::new(0);
    let progress = Progress::start("int8", samples.len());
    let work = || -> Result<Part> {
        let mut classifier = OnnxClassifier::load(bundle)?;
        let mut part = Part::new();
        while let Some((index, sample)) = take(&next, samples) {
            part.push((index, judge(&mut classifier, sample)?));
            progress.advance(1);
        }
        Ok(part)
    };
    let parts: Vec<Result<Part>> = thread::scope(|scope| {
        let handles: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        let joined = handles.into_iter().map(|handle| handle.join().unwrap_or_else(|_| Err(anyhow!("a worker died"))));
        joined.collect()
    });
    progress.finish();
    let mut all: Part = parts.into_iter().collect::<Result<Vec<_>>>()?.into_iter().flatten().collect();
    all.sort_by_key(|(index, _)| *index);
    let mut out = Int8 { samples: Vec::new(), logits: Vec::new(), refused: Vec::new() };
    for ((_, result), sample) in all.into_iter().zip(samples) {
        match result {
            Ok(logits) => {
                out.samples.push(sample.clone());
                out.logits.push(logits);
            }
            Err(reason) => out.refused.push(reason),
        }
    }
    ensure!(!out.samples.is_empty(), "no image could be judged{}", first_reason(&out.refused));
    Ok(out)
}

fn first_reason(refused: &[String]) -> String {
    refused.first().map_or_else(String::new, |reason| format!("; the first: {reason}"))
}

/// The next sample that no worker has taken.
fn take<'a>(next: &AtomicUsize, samples: &'a [Sample]) -> Option<(usize, &'a Sample)> {
    let index = next.fetch_add(1, Ordering::Relaxed);
    samples.get(index).map(|sample| (index, sample))
}

/// One image's logits; the inner error is about the image, the outer one about the classifier.
fn judge(classifier: &mut OnnxClassifier, sample: &Sample) -> Result<Result<[f32; 4], String>> {
    let input = match sample.input() {
        Ok(input) => input,
        Err(error) => return Ok(Err(format!("{error:#}"))),
    };
    let size = roentgen::network::vgg::INPUT_SIZE;
    let tensor = Tensor::new([1, size, size, 1], input).ok_or_else(|| anyhow!("preprocessing gave another size"))?;
    Ok(Ok(classifier.classify(&tensor)?.logits))
}
