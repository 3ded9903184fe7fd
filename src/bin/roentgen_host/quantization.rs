//! The whole of a quantization: equalisation, ranges, rounding, biases, integers, and the record of what it cost. Not the
//! bundle around it (see `pack`).

use crate::dataset::{Sample, thin};
use crate::equalise::{self, Equalise};
use crate::round::Rounding;
use crate::sqnr::{Record, measure};
use crate::weights::{FloatConv, FloatModel};
use crate::{calibrate, correct, quantize};
use anyhow::Result;
use roentgen::network::int8::Network;
use roentgen::report::Label;

/// How many of the calibration images teach the rounding and correct the biases. Few are enough for a mean over all
/// pixels, and the activations of all of them are held in memory: 26 MB an image.
const CORRECTION: usize = 32;

/// How many of the calibration images show what range each channel has.
const EQUALISATION: usize = 128;

/// On how many other training images the noise is measured.
const MEASURED: usize = 16;

/// What comes of it.
pub(crate) struct Quantized {
    /// The network, with portable scales.
    pub(crate) network: Network,
    /// What it cost.
    pub(crate) record: Record,
}

/// Quantizes a trained model. `train` are its training images, of which about `images` choose the ranges.
pub(crate) fn run(
    model: &FloatModel,
    head: &FloatConv,
    train: &[Sample],
    images: usize,
    (equal, rounding): (Equalise, Rounding),
) -> Result<Quantized> {
    let per_class = |images: usize| images.div_ceil(Label::ALL.len());
    let inputs = |samples: &[Sample]| samples.iter().map(Sample::input).collect::<Result<Vec<_>>>();
    let calibration = thin(train, per_class(images));
    let (equalised, gains) = match equal {
        Equalise::On => {
            let channels = equalise::observe(model, &thin(&calibration, per_class(EQUALISATION)))?;
            equalise::equalise(model, head, &channels)?
        }
        Equalise::Off => (model.clone(), Vec::new()),
    };
    let (trained, model) = (model, &equalised);
    let ranges = calibrate::ranges(model, head, &calibration)?;
    let few = inputs(&thin(&calibration, per_class(CORRECTION)))?;
    let (trunk, last) = correct::correct(model, head, &ranges, &few, rounding)?;
    let network = quantize::quantize(model, &trunk, &last, &ranges).with_portable_scales();
    let slower = equalise::slower(trained, &network);
    if !gains.is_empty() {
        let named = if slower.is_empty() { "none".to_owned() } else { slower.join(", ") };
        println!("layers that a box computes more slowly for having been equalised: {named}");
    }

    let unused: Vec<Sample> = train.iter().filter(|sample| !calibration.contains(sample)).cloned().collect();
    // A very small set is used up by the calibration.
    let measured = thin(if unused.is_empty() { &calibration } else { &unused }, per_class(MEASURED));
    let layers = measure(model, head, &network, &inputs(&measured)?)?;
    let name = match rounding {
        Rounding::Nearest => "nearest",
        Rounding::Learned => "learned",
    };
    let images = (calibration.len(), few.len(), measured.len());
    let record = Record::new(name.to_owned(), images, (gains, layers));
    Ok(Quantized { network, record })
}
