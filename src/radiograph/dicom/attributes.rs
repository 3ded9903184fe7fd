//! The attributes of the Image Pixel module (PS3.3 C.7.6.3), read and checked. Not the pixels.

use super::{damaged, unsupported};
use crate::radiograph::{Refusal, RefusalCode};
use dicom_core::Tag;
use dicom_dictionary_std::tags;
use dicom_object::InMemDicomObject;

/// How the samples of the image stand in its pixel data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ImageAttributes {
    pub(super) rows: u16,
    pub(super) columns: u16,
    /// 1 or 3.
    pub(super) samples_per_pixel: u8,
    /// 8 or 16.
    pub(super) bits_allocated: u16,
    /// 1..=`bits_allocated`.
    pub(super) bits_stored: u16,
    /// `bits_stored - 1`..`bits_allocated`.
    pub(super) high_bit: u16,
    pub(super) signed: bool,
    /// Whether the components stand in planes, one after the other.
    pub(super) planar: bool,
    pub(super) photometric: Photometric,
}

/// The photometric interpretations that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Photometric {
    /// The lowest value is white.
    Monochrome1,
    /// The lowest value is black.
    Monochrome2,
    /// Colour, as red, green, blue.
    Rgb,
    /// Colour, as luma and chroma in full range, not subsampled where uncompressed.
    YbrFull,
    /// The same, subsampled: read where a JPEG decoder resolves it.
    YbrFull422,
}

impl ImageAttributes {
    /// Reads them; refuses what is no single-frame image or of a kind that is not read.
    pub(super) fn read(object: &InMemDicomObject) -> Result<Self, Refusal> {
        if object.get(tags::PIXEL_DATA).is_none() {
            return Err(Refusal::new(
                RefusalCode::NoImage,
                "This DICOM file holds no image (it may be a report or a list). Send the radiograph itself.",
            ));
        }
        match integer(object, tags::NUMBER_OF_FRAMES) {
            None | Some(1) => {}
            Some(2..) => {
                return Err(Refusal::new(
                    RefusalCode::MultiFrame,
                    "This DICOM file holds several frames (a film loop). Send a single radiograph.",
                ));
            }
            Some(_) => return Err(damaged()),
        }
        let number = |tag| integer(object, tag).and_then(|value| u16::try_from(value).ok());
        let required = |tag| number(tag).ok_or_else(damaged);
        let (rows, columns) = (required(tags::ROWS)?, required(tags::COLUMNS)?);
        let bits_allocated = required(tags::BITS_ALLOCATED)?;
        let bits_stored = number(tags::BITS_STORED).unwrap_or(bits_allocated);
        let high_bit = number(tags::HIGH_BIT).unwrap_or(bits_stored.saturating_sub(1));
        if rows == 0 || columns == 0 {
            return Err(damaged());
        }
        if !matches!(bits_allocated, 8 | 16) {
            return Err(unsupported("This DICOM image has neither 8 nor 16 bits a pixel. Export it with 16."));
        }
        if bits_stored == 0 || bits_stored > bits_allocated || high_bit < bits_stored - 1 || high_bit >= bits_allocated
        {
            return Err(damaged());
        }
        let samples_per_pixel = number(tags::SAMPLES_PER_PIXEL).unwrap_or(1);
        let photometric = text(object, tags::PHOTOMETRIC_INTERPRETATION);
        let (photometric, samples) = match photometric.as_deref() {
            Some("MONOCHROME1") => (Photometric::Monochrome1, 1),
            Some("MONOCHROME2") => (Photometric::Monochrome2, 1),
            // JPEG 2000 decoders undo their own colour transforms.
            Some("RGB" | "YBR_RCT" | "YBR_ICT") => (Photometric::Rgb, 3),
            Some("YBR_FULL") => (Photometric::YbrFull, 3),
            Some("YBR_FULL_422") => (Photometric::YbrFull422, 3),
            None => return Err(damaged()),
            Some(_) => return Err(unsupported("This DICOM image is in a colour model that the box cannot read.")),
        };
        if samples != samples_per_pixel {
            return Err(damaged());
        }
        if samples == 3 && (bits_allocated, bits_stored) != (8, 8) {
            return Err(unsupported("This DICOM image is in colour with more than 8 bits. Send the grey radiograph."));
        }
        Ok(Self {
            rows,
            columns,
            samples_per_pixel: if samples == 3 { 3 } else { 1 },
            bits_allocated,
            bits_stored,
            high_bit,
            signed: number(tags::PIXEL_REPRESENTATION) == Some(1),
            planar: number(tags::PLANAR_CONFIGURATION) == Some(1),
            photometric,
        })
    }

    /// The value that a word of `bits_stored` bits stands for.
    pub(super) fn value(&self, word: u16) -> i32 {
        let word = i32::from(word);
        if self.signed && word >> (self.bits_stored - 1) != 0 { word - (1 << self.bits_stored) } else { word }
    }

    /// The largest word of `bits_stored` bits.
    pub(super) fn mask(&self) -> u16 {
        u16::MAX >> (16 - self.bits_stored)
    }
}

/// A text value without its padding; `None` where it is absent, empty or no text.
pub(super) fn text(object: &InMemDicomObject, tag: Tag) -> Option<String> {
    let text = object.get(tag)?.to_str().ok()?;
    // Of several values the first.
    let first = text.split('\\').next().unwrap_or_default().trim_matches([' ', '\0']);
    (!first.is_empty()).then(|| first.to_string())
}

/// An integer value, in whichever way it is written; `None` where it is absent or no integer.
pub(super) fn integer(object: &InMemDicomObject, tag: Tag) -> Option<i64> {
    object.get(tag)?.to_int().ok()
}

/// A real value, the first of several; `None` where it is absent or not finite.
pub(super) fn real(object: &InMemDicomObject, tag: Tag) -> Option<f64> {
    object.get(tag)?.to_float64().ok().filter(|value| value.is_finite())
}
