//! The grayscale pipeline of PS3.3 and PS3.4 N.2: stored values → Modality LUT (or rescale) → VOI LUT (or window) →
//! inversion of MONOCHROME1. Not colour.
//!
//! Where the standard leaves a choice:
//! - Several windows or VOI LUTs are alternatives: the first is taken. Where both kinds are there, the LUT: a
//!   manufacturer who writes one made it for this image.
//! - No VOI at all: the values between their 0.5th and 99.5th percentile are spread over the display range, whatever
//!   their depth.
//! - A window of impossible width counts as absent.
//! - Padding (Pixel Padding Value, with Range Limit) is left out of the percentiles and shown black, after the inversion.
//! - The inversion follows Photometric Interpretation alone; Presentation LUT Shape must agree with it in these objects.
//!
//! Every stored value of 16 bits or fewer goes through the pipeline once, into a table; pixels only look it up. All of it
//! but the exponential of `SIGMOID` is arithmetic that IEEE 754 defines to the last bit.

use super::attributes::{ImageAttributes, Photometric, integer, real, text};
use super::damaged;
use super::voi::{Function, Lut, Window};
use crate::radiograph::{Pixels, Refusal};
use dicom_core::{PrimitiveValue, Tag};
use dicom_dictionary_std::tags;
use dicom_object::InMemDicomObject;
use std::ops::RangeInclusive;

/// The share of the pixels below, and likewise above, the display range where no VOI is given.
const TAIL: f64 = 0.005;

/// The pipeline of one image.
pub(super) struct Grayscale {
    attributes: ImageAttributes,
    modality: Modality,
    voi: Voi,
    padding: Option<RangeInclusive<i32>>,
}

enum Modality {
    Identity,
    Rescale { slope: f64, intercept: f64 },
    Lut(Lut),
}

enum Voi {
    None,
    Window(Window),
    Lut(Lut),
}

impl Grayscale {
    /// Reads the pipeline from the tags.
    pub(super) fn read(object: &InMemDicomObject, attributes: &ImageAttributes) -> Result<Self, Refusal> {
        let modality = read_modality(object, attributes)?;
        // The VOI's input is signed when the modality's output can be negative.
        let signed = match &modality {
            Modality::Identity => attributes.signed,
            Modality::Rescale { slope, intercept } => attributes.signed || *slope < 0.0 || *intercept < 0.0,
            Modality::Lut(_) => false,
        };
        let function = text(object, tags::VOILUT_FUNCTION);
        let window = real(object, tags::WINDOW_CENTER).zip(real(object, tags::WINDOW_WIDTH));
        let window =
            window.and_then(|(center, width)| Window::new(center, width, Function::from_code(function.as_deref())));
        let voi = match (read_lut(object, tags::VOILUT_SEQUENCE, signed)?, window) {
            (Some(lut), _) => Voi::Lut(lut),
            (None, Some(window)) => Voi::Window(window),
            (None, None) => Voi::None,
        };
        Ok(Self { attributes: *attributes, modality, voi, padding: read_padding(object, attributes) })
    }

    /// Maps stored words to display sense and says what was done.
    pub(super) fn apply(&self, words: Vec<u16>, applied: &mut Vec<String>) -> Pixels {
        let inverted = self.attributes.photometric == Photometric::Monochrome1;
        match &self.modality {
            Modality::Identity => {}
            Modality::Rescale { slope, intercept } => {
                applied.push(format!("rescale slope {slope} intercept {intercept}"))
            }
            Modality::Lut(lut) => applied.push(format!("modality LUT of {} entries", lut.entries.len())),
        }
        let voi: Box<dyn Fn(f64) -> f64> = match &self.voi {
            Voi::Window(window) => {
                let Window { center, width, function } = *window;
                applied.push(format!("window center {center} width {width} {}", function.code()));
                Box::new(move |value| window.apply(value))
            }
            Voi::Lut(lut) => {
                applied.push(format!("VOI LUT of {} entries, {} bits", lut.entries.len(), lut.bits));
                Box::new(move |value| lut.apply(value))
            }
            Voi::None => {
                let (low, high) = self.percentiles(&words);
                applied.push(format!("no VOI: percentiles {low} to {high}"));
                let span = high - low;
                Box::new(move |value| if span > 0.0 { ((value - low) / span).clamp(0.0, 1.0) } else { 0.0 })
            }
        };
        let level = |word: u16| {
            if self.is_padding(word) {
                return 0.0;
            }
            let level = voi(self.modality_value(word));
            if inverted { 1.0 - level } else { level }
        };
        if inverted {
            applied.push("MONOCHROME1 inverted".into());
        }
        if self.padding.is_some() {
            applied.push("pixel padding black".into());
        }
        let table: Vec<u16> = (0..=self.attributes.mask()).map(|word| (level(word) * 65535.0).round() as u16).collect();
        let mut words = words;
        // Words are masked to Bits Stored, so that each has its entry.
        words.iter_mut().for_each(|word| *word = table.get(usize::from(*word)).copied().unwrap_or(0));
        Pixels::Grey16(words)
    }

    fn modality_value(&self, word: u16) -> f64 {
        let value = f64::from(self.attributes.value(word));
        match &self.modality {
            Modality::Identity => value,
            Modality::Rescale { slope, intercept } => value * slope + intercept,
            Modality::Lut(lut) => f64::from(lut.entry(value)),
        }
    }

    fn is_padding(&self, word: u16) -> bool {
        self.padding.as_ref().is_some_and(|padding| padding.contains(&self.attributes.value(word)))
    }

    /// The values below which [`TAIL`] and 1 − [`TAIL`] of the pixels lie, padding left out. Where hardly any pixel
    /// differs from the rest, the extremes.
    fn percentiles(&self, words: &[u16]) -> (f64, f64) {
        let mut counts = vec![0u64; usize::from(self.attributes.mask()) + 1];
        for &word in words {
            if let Some(count) = counts.get_mut(usize::from(word)) {
                *count += 1;
            }
        }
        let mut values: Vec<(f64, u64)> = (0..=self.attributes.mask())
            .zip(counts)
            .filter(|&(word, count)| count > 0 && !self.is_padding(word))
            .map(|(word, count)| (self.modality_value(word), count))
            .collect();
        values.sort_by(|a, b| a.0.total_cmp(&b.0));
        let total: u64 = values.iter().map(|&(_, count)| count).sum();
        let quantile = |share: f64| {
            let rank = (share * total as f64) as u64;
            let mut seen = 0;
            values.iter().find(|&&(_, count)| {
                seen += count;
                seen > rank
            })
        };
        let (Some(first), Some(last)) = (values.first(), values.last()) else { return (0.0, 0.0) };
        let (low, high) = (quantile(TAIL).unwrap_or(first).0, quantile(1.0 - TAIL).unwrap_or(last).0);
        if low < high { (low, high) } else { (first.0, last.0) }
    }
}

/// Modality LUT Sequence, or Rescale Slope and Intercept.
fn read_modality(object: &InMemDicomObject, attributes: &ImageAttributes) -> Result<Modality, Refusal> {
    if let Some(lut) = read_lut(object, tags::MODALITY_LUT_SEQUENCE, attributes.signed)? {
        return Ok(Modality::Lut(lut));
    }
    let slope = real(object, tags::RESCALE_SLOPE).unwrap_or(1.0);
    let intercept = real(object, tags::RESCALE_INTERCEPT).unwrap_or(0.0);
    if slope == 0.0 {
        // Every pixel would be the same: the file contradicts itself.
        return Err(damaged());
    }
    Ok(if (slope, intercept) == (1.0, 0.0) { Modality::Identity } else { Modality::Rescale { slope, intercept } })
}

/// The first table of a sequence of lookup tables; `None` where there is none.
fn read_lut(object: &InMemDicomObject, sequence: Tag, signed: bool) -> Result<Option<Lut>, Refusal> {
    let Some(item) = object.get(sequence).and_then(|element| element.items()?.first()) else { return Ok(None) };
    // Both may be written as US or SS: only their 16 bits count.
    let words = |tag| {
        let values: Vec<i32> = item.get(tag)?.to_multi_int().ok()?;
        Some(values.into_iter().map(|value| value as u16).collect::<Vec<u16>>())
    };
    let descriptor: [u16; 3] =
        words(tags::LUT_DESCRIPTOR).and_then(|words| words.try_into().ok()).ok_or_else(damaged)?;
    let count = if descriptor[0] == 0 { 65536 } else { usize::from(descriptor[0]) };
    let data = item.get(tags::LUT_DATA).and_then(|element| element.value().primitive()).ok_or_else(damaged)?;
    let entries: Vec<u16> = match data {
        PrimitiveValue::U8(bytes) if bytes.len() >= 2 * count => {
            bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect()
        }
        PrimitiveValue::U8(bytes) => bytes.iter().map(|&byte| u16::from(byte)).collect(),
        // Entries of 8 bits may be packed two to a word, the first in the low byte.
        PrimitiveValue::U16(words) if words.len() < count && descriptor[2] <= 8 => {
            words.iter().flat_map(|word| word.to_le_bytes().map(u16::from)).collect()
        }
        _ => words(tags::LUT_DATA).ok_or_else(damaged)?,
    };
    Lut::new(descriptor, signed, entries).map(Some).ok_or_else(damaged)
}

/// The values that Pixel Padding Value and Pixel Padding Range Limit name (C.7.5.1.1.2).
fn read_padding(object: &InMemDicomObject, attributes: &ImageAttributes) -> Option<RangeInclusive<i32>> {
    // Written as US or SS, not always as Pixel Representation says: the bits count.
    let value = |tag| integer(object, tag).map(|value| attributes.value(value as u16 & attributes.mask()));
    let padding = value(tags::PIXEL_PADDING_VALUE)?;
    let limit = value(tags::PIXEL_PADDING_RANGE_LIMIT).unwrap_or(padding);
    Some(padding.min(limit)..=padding.max(limit))
}
