//! RLE, the PackBits variant of PS3.5 annex G: one segment for each byte of a sample, the most significant first.

use super::{CodecError, Extent};

/// Decodes one frame to samples of one or two bytes, components interleaved.
pub fn decode(stream: &[u8], extent: Extent, bytes_per_sample: usize) -> Result<Vec<u16>, CodecError> {
    let (header, _) = stream.split_first_chunk::<64>().ok_or(CodecError::Damaged("short RLE header"))?;
    let mut words =
        header.chunks_exact(4).map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]) as usize);
    let segments = words.next().unwrap_or(0);
    let offsets: Vec<usize> = words.take(segments).collect();
    let components = usize::from(extent.components);
    if segments != components * bytes_per_sample || offsets.len() != segments {
        return Err(CodecError::Damaged("another number of RLE segments than bytes in a sample"));
    }
    let mut samples = vec![0u16; extent.samples()];
    for (index, &start) in offsets.iter().enumerate() {
        let end = offsets.get(index + 1).copied().unwrap_or(stream.len());
        let segment = stream.get(start..end).filter(|_| start >= 64).ok_or(CodecError::Damaged("RLE offset"))?;
        let (component, byte) = (index / bytes_per_sample, index % bytes_per_sample);
        let shift = 8 * (bytes_per_sample - 1 - byte);
        unpack(segment, samples.iter_mut().skip(component).step_by(components), shift)?;
    }
    Ok(samples)
}

/// Unpacks one segment into the bits above `shift` of the given samples.
fn unpack<'a>(
    segment: &[u8],
    mut samples: impl ExactSizeIterator<Item = &'a mut u16>,
    shift: usize,
) -> Result<(), CodecError> {
    let mut bytes = segment.iter().copied();
    let ends = CodecError::Damaged("RLE segment ends early");
    while samples.len() > 0 {
        let control = bytes.next().ok_or(ends)?;
        match control {
            0..=127 => {
                for _ in 0..=control {
                    let byte = bytes.next().ok_or(ends)?;
                    // A run may not go beyond the picture.
                    let sample = samples.next().ok_or(CodecError::Damaged("RLE segment too long"))?;
                    *sample |= u16::from(byte) << shift;
                }
            }
            128 => {}
            129..=255 => {
                let byte = bytes.next().ok_or(ends)?;
                for _ in 0..257 - usize::from(control) {
                    let sample = samples.next().ok_or(CodecError::Damaged("RLE segment too long"))?;
                    *sample |= u16::from(byte) << shift;
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_standards_kinds_of_runs_unpack() {
        let mut stream = vec![0; 64];
        stream[0] = 1;
        stream[4] = 64;
        // Two literal bytes, nothing, three times 9.
        stream.extend([1, 7, 8, 128, 254, 9]);
        let extent = Extent { rows: 1, columns: 5, components: 1 };
        assert_eq!(decode(&stream, extent, 1), Ok(vec![7, 8, 9, 9, 9]));
        assert!(decode(&stream[..68], extent, 1).is_err());
        assert!(decode(&stream, Extent { columns: 4, ..extent }, 1).is_err());
        assert!(decode(&stream, extent, 2).is_err());
    }
}
