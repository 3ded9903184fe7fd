//! From a DICOM object's pixel data to stored values, through the codec of its transfer syntax. Not their meaning.

use super::attributes::{ImageAttributes, Photometric};
use super::syntax::{Coding, Syntax};
use super::{StoredImage, damaged, unsupported};
use crate::radiograph::codec::{CodecError, Extent, jpeg, jpeg_ls, jpeg2000, rle};
use crate::radiograph::{Limits, Refusal, raster};
use dicom_core::{PrimitiveValue, value::Value};
use dicom_dictionary_std::tags;
use dicom_object::InMemDicomObject;
use std::borrow::Cow;

/// The stored values of a grey image.
pub(super) fn stored(
    object: &InMemDicomObject,
    syntax: Syntax,
    attributes: &ImageAttributes,
    limits: &Limits,
) -> Result<StoredImage, Refusal> {
    if attributes.samples_per_pixel != 1 {
        return Err(unsupported("This DICOM image is in colour. Send the grey radiograph."));
    }
    let mut words = samples(object, syntax, attributes, limits)?;
    let mask = attributes.mask();
    match syntax.coding {
        // Here a sample is a whole cell, in which the value stands below High Bit.
        Coding::Native | Coding::Rle => {
            let shift = attributes.high_bit + 1 - attributes.bits_stored;
            words.iter_mut().for_each(|word| *word = *word >> shift & mask);
        }
        // A codestream's sample is the value. Lossy codecs overshoot: that must not wrap around from white to black.
        _ if !attributes.signed => words.iter_mut().for_each(|word| *word = (*word).min(mask)),
        _ => words.iter_mut().for_each(|word| *word &= mask),
    }
    Ok(StoredImage {
        width: attributes.columns.into(),
        height: attributes.rows.into(),
        bits_stored: attributes.bits_stored,
        signed: attributes.signed,
        words,
    })
}

/// The grey levels of a colour image whose channels agree; refused as no radiograph where they do not.
pub(super) fn colour(
    object: &InMemDicomObject,
    syntax: Syntax,
    attributes: &ImageAttributes,
    limits: &Limits,
) -> Result<Vec<u8>, Refusal> {
    if syntax.coding == Coding::Jpeg {
        let stream = encapsulated(object)?;
        let header = jpeg::Header::read(&stream).map_err(refuse)?;
        header.require_extent(extent(attributes)).map_err(refuse)?;
        return match raster::open_jpeg(&stream, limits)?.pixels {
            crate::radiograph::Pixels::Grey8(levels) => Ok(levels),
            crate::radiograph::Pixels::Grey16(_) => Err(damaged()),
        };
    }
    let mut samples = samples(object, syntax, attributes, limits)?;
    if syntax.coding == Coding::Native && attributes.planar {
        let (plane, copy) = (samples.len() / 3, samples.clone());
        for (index, sample) in samples.iter_mut().enumerate() {
            *sample = copy[index % 3 * plane + index / 3];
        }
    }
    match attributes.photometric {
        Photometric::YbrFull422 => {
            return Err(unsupported("This DICOM image is in subsampled colour. Send the grey one."));
        }
        Photometric::YbrFull => samples.chunks_exact_mut(3).for_each(|pixel| pixel.copy_from_slice(&rgb(pixel))),
        _ => {}
    }
    let levels = raster::grey_of_colour(&samples, 3, 255)?;
    // Luma of three bytes is a byte.
    Ok(levels.into_iter().map(|level| level as u8).collect())
}

/// YBR_FULL to RGB (PS3.3 C.7.6.3.1.2), in thousandths.
fn rgb(pixel: &[u16]) -> [u16; 3] {
    let [y, b, r] = [pixel[0], pixel[1], pixel[2]].map(i32::from);
    let (b, r) = (b - 128, r - 128);
    [1402 * r, -344 * b - 714 * r, 1772 * b].map(|sum| (y + (sum + 500).div_euclid(1000)).clamp(0, 255) as u16)
}

fn extent(attributes: &ImageAttributes) -> Extent {
    Extent { rows: attributes.rows, columns: attributes.columns, components: attributes.samples_per_pixel }
}

/// All samples of the one frame, interleaved as they are coded.
fn samples(
    object: &InMemDicomObject,
    syntax: Syntax,
    attributes: &ImageAttributes,
    limits: &Limits,
) -> Result<Vec<u16>, Refusal> {
    let extent = extent(attributes);
    // Samples are held in two bytes, whatever they are stored in; the JPEG 2000 decoder needs four more.
    let bytes = if syntax.coding == Coding::Jpeg2000 { 6 } else { 2 };
    limits.check_image(extent.columns.into(), extent.rows.into(), bytes * u64::from(extent.components))?;
    let bytes_per_sample = usize::from(attributes.bits_allocated / 8);
    if syntax.coding == Coding::Native {
        return native(object, syntax, extent.samples(), bytes_per_sample);
    }
    let stream = encapsulated(object)?;
    match syntax.coding {
        Coding::Rle => rle::decode(&stream, extent, bytes_per_sample),
        Coding::JpegLs => jpeg_ls::decode(&stream, extent),
        Coding::Jpeg2000 => jpeg2000::decode(&stream, extent),
        Coding::Jpeg | Coding::Native => jpeg::decode_grey(&stream, extent),
    }
    .map_err(refuse)
}

/// Uncompressed samples.
fn native(
    object: &InMemDicomObject,
    syntax: Syntax,
    count: usize,
    bytes_per_sample: usize,
) -> Result<Vec<u16>, Refusal> {
    let value = object.get(tags::PIXEL_DATA).and_then(|element| element.value().primitive()).ok_or_else(damaged)?;
    let mut samples: Vec<u16> = match (value, bytes_per_sample) {
        (PrimitiveValue::U16(words), 2) => words.iter().take(count).copied().collect(),
        // Bytes in words of 16 bits: the first one is the low byte, in either byte order.
        (PrimitiveValue::U16(words), _) => {
            words.iter().flat_map(|word| word.to_le_bytes().map(u16::from)).take(count).collect()
        }
        (PrimitiveValue::U8(bytes), 1) => bytes.iter().take(count).map(|&byte| u16::from(byte)).collect(),
        (PrimitiveValue::U8(bytes), _) => {
            let word = if syntax.big_endian { u16::from_be_bytes } else { u16::from_le_bytes };
            bytes.chunks_exact(2).take(count).map(|pair| word([pair[0], pair[1]])).collect()
        }
        _ => return Err(damaged()),
    };
    // Too few bytes: the file was cut off, or the tags are wrong.
    if samples.len() < count {
        return Err(damaged());
    }
    samples.truncate(count);
    Ok(samples)
}

/// The codestream of the one frame: all fragments together.
fn encapsulated(object: &InMemDicomObject) -> Result<Cow<'_, [u8]>, Refusal> {
    match object.get(tags::PIXEL_DATA).map(|element| element.value()) {
        Some(Value::PixelSequence(sequence)) => match sequence.fragments() {
            [] => Err(damaged()),
            [one] => Ok(Cow::Borrowed(one)),
            several => Ok(Cow::Owned(several.concat())),
        },
        _ => Err(damaged()),
    }
}

fn refuse(error: CodecError) -> Refusal {
    match error {
        CodecError::Damaged(_) => damaged(),
        CodecError::Unsupported(_) => {
            unsupported("This DICOM image is compressed in a way that the box cannot read. Send it uncompressed.")
        }
    }
}
