//! How much memory decoding a file may take, found before it is decoded. Not its meaning: see [`super::read`].
//!
//! A message of two bytes can decode to a hundred in memory. Raw tensor data decodes to as many bytes as it has; so
//! what is not raw tensor data must be small.

use super::pieces::Pieces;
use super::read::OnnxError;
use bytes::Buf;
use prost::DecodeError;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

/// Most bytes of a file besides raw tensor data: an int8 VGG16 has about ten thousand.
pub(super) const MAX_STRUCTURE: usize = 1 << 20;

/// Field numbers on the way to raw tensor data: `ModelProto.graph`, `GraphProto.initializer`, `TensorProto.raw_data`.
const RAW_DATA: [u32; 3] = [7, 5, 9];

/// Refuses a file that has more than [`MAX_STRUCTURE`] bytes besides raw tensor data.
pub(super) fn check(mut file: Pieces) -> Result<(), OnnxError> {
    let length = file.remaining();
    let raw = sum_of_payloads(&mut file, &RAW_DATA)?;
    match length - raw {
        structure if structure > MAX_STRUCTURE => Err(OnnxError::TooMuchStructure { found: structure }),
        _ => Ok(()),
    }
}

/// The lengths of all payloads at the end of `path`, added up: at most what is left of `bytes`, of which they are parts.
/// Reads all of it.
fn sum_of_payloads(mut bytes: &mut dyn Buf, path: &[u32]) -> Result<usize, DecodeError> {
    let [wanted, deeper @ ..] = path else {
        let length = bytes.remaining();
        bytes.advance(length);
        return Ok(length);
    };
    let mut sum = 0;
    while bytes.has_remaining() {
        let (tag, wire_type) = decode_key(&mut bytes)?;
        if tag != *wanted || wire_type != WireType::LengthDelimited {
            skip_field(wire_type, tag, &mut bytes, DecodeContext::default())?;
            continue;
        }
        let length = usize::try_from(decode_varint(&mut bytes)?).unwrap_or(usize::MAX);
        // A payload that runs past the end is the decoder's to refuse.
        let length = length.min(bytes.remaining());
        let mut payload = (&mut *bytes).take(length);
        sum += sum_of_payloads(&mut payload, deeper)?;
    }
    Ok(sum)
}
