//! JPEG 2000 (ITU-T T.800), lossless and lossy. The decoder is the crate `dicom-toolkit-jpeg2000`: pure Rust that forbids
//! `unsafe`. (OpenJPEG and its translation to Rust were set aside: on broken files some took half a minute, and a
//! decoder without memory safety has no place behind an open drop folder.) Not HTJ2K.

use super::{CodecError, Extent};
use dicom_toolkit_jpeg2000::{DecodeSettings, Image};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Decodes to samples, components interleaved; negative samples in two's complement.
pub fn decode(stream: &[u8], extent: Extent) -> Result<Vec<u16>, CodecError> {
    let size = Size::read(codestream(stream)?)?;
    size.check(extent)?;
    // Third-party code must not take the daemon down with one broken file; nothing of ours is inside.
    let decoded = catch_unwind(AssertUnwindSafe(|| {
        let settings = DecodeSettings { resolve_palette_indices: false, strict: true, target_resolution: None };
        Image::new(codestream(stream)?, &settings)
            .and_then(|image| image.decode_native())
            .map_err(|_| CodecError::Damaged("JPEG 2000 data"))
    }));
    let bitmap = decoded.unwrap_or(Err(CodecError::Damaged("JPEG 2000 data")))?;
    let samples: Vec<u16> = match bitmap.bytes_per_sample {
        1 => bitmap.data.iter().map(|&byte| u16::from(byte)).collect(),
        _ => bitmap.data.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect(),
    };
    if samples.len() != extent.samples() {
        return Err(CodecError::Damaged("JPEG 2000 picture of another size"));
    }
    // The crate lifts signed samples by half their range, as it does unsigned ones, where the standard does not.
    let lift = if size.signed { 1u16 << (size.precision - 1) } else { 0 };
    Ok(samples.into_iter().map(|sample| sample.wrapping_sub(lift)).collect())
}

/// The codestream itself: some writers wrap it in a JP2 file, which DICOM forbids.
fn codestream(stream: &[u8]) -> Result<&[u8], CodecError> {
    const START: [u8; 4] = [0xff, 0x4f, 0xff, 0x51];
    if stream.starts_with(&START) {
        return Ok(stream);
    }
    if !stream.starts_with(b"\x00\x00\x00\x0cjP  ") {
        return Err(CodecError::Damaged("no JPEG 2000 codestream"));
    }
    let start = stream.windows(4).position(|window| window == START);
    start.map(|start| &stream[start..]).ok_or(CodecError::Damaged("no JPEG 2000 codestream"))
}

/// What the SIZ segment says (T.800 A.5.1).
struct Size {
    columns: u64,
    rows: u64,
    tiles: u64,
    components: u16,
    precision: u8,
    signed: bool,
    subsampled: bool,
    equal: bool,
}

impl Size {
    fn read(stream: &[u8]) -> Result<Self, CodecError> {
        let short = CodecError::Damaged("short SIZ segment");
        // SOC, SIZ, Lsiz, Rsiz, then eight words of 32 bits.
        let words = stream.get(8..40).ok_or(short)?;
        let word = |i: usize| {
            let bytes = &words[4 * i..4 * i + 4];
            u64::from(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
        };
        let [width, height, left, top, tile_width, tile_height] = std::array::from_fn(word);
        if width <= left || height <= top || tile_width == 0 || tile_height == 0 {
            return Err(CodecError::Damaged("impossible SIZ segment"));
        }
        let &[high, low] = stream.get(40..42).ok_or(short)? else { return Err(short) };
        let components = u16::from_be_bytes([high, low]);
        let each = stream.get(42..42 + 3 * usize::from(components)).ok_or(short)?;
        let first = *each.first().ok_or(short)?;
        Ok(Self {
            columns: width - left,
            rows: height - top,
            tiles: width.div_ceil(tile_width) * height.div_ceil(tile_height),
            components,
            precision: (first & 0x7f) + 1,
            signed: first & 0x80 != 0,
            subsampled: each.chunks_exact(3).any(|component| component[1..] != [1, 1]),
            equal: each.chunks_exact(3).all(|component| component[0] == first),
        })
    }

    fn check(&self, extent: Extent) -> Result<(), CodecError> {
        let claimed = (u64::from(extent.columns), u64::from(extent.rows), u16::from(extent.components));
        if (self.columns, self.rows, self.components) != claimed {
            return Err(CodecError::Damaged("the codestream has another size than the tags say"));
        }
        if self.subsampled || !self.equal || self.precision > 16 {
            return Err(CodecError::Unsupported("JPEG 2000 with subsampled, unequal or deep components"));
        }
        // Each tile costs memory of its own; real encoders make few.
        if self.tiles > 65535 {
            return Err(CodecError::Damaged("more JPEG 2000 tiles than there can be"));
        }
        Ok(())
    }
}
