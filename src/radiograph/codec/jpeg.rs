//! The segments of a JPEG codestream (ITU-T T.81): what kind it is and how large its picture claims to be; and the choice
//! of a decoder for grey ones. Not the decoders.

use super::{CodecError, Extent, jpeg_dct, jpeg_lossless};

/// What a codestream's frame header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The frame's marker: `SOFn`, the low nibble being n.
    pub sof: u8,
    /// Bits a sample, 2..=16.
    pub precision: u8,
    /// Lines of the picture.
    pub rows: u16,
    /// Samples a line.
    pub columns: u16,
    /// Components: 1 is grey.
    pub components: u8,
    /// Where the first scan's header begins: the offset of its `SOS` marker.
    pub scan: usize,
}

impl Header {
    /// Reads the segments up to the first scan.
    pub fn read(stream: &[u8]) -> Result<Self, CodecError> {
        if !stream.starts_with(&[0xff, 0xd8]) {
            return Err(CodecError::Damaged("no SOI marker"));
        }
        let mut frame = None;
        let mut segments = Segments { stream, position: 2 };
        while let Some(segment) = segments.next()? {
            match segment.marker {
                // SOF0..SOF15 without DHT, JPG and DAC.
                0xc0..=0xcf if !matches!(segment.marker, 0xc4 | 0xc8 | 0xcc) => {
                    let &[precision, r1, r0, c1, c0, components, ..] = segment.payload else {
                        return Err(CodecError::Damaged("short frame header"));
                    };
                    let (rows, columns) = (u16::from_be_bytes([r1, r0]), u16::from_be_bytes([c1, c0]));
                    if frame.is_some() || rows == 0 || columns == 0 || components == 0 || !(2..=16).contains(&precision)
                    {
                        return Err(CodecError::Damaged("impossible frame header"));
                    }
                    frame = Some((segment.marker, precision, rows, columns, components));
                }
                0xda => {
                    let Some((sof, precision, rows, columns, components)) = frame else {
                        return Err(CodecError::Damaged("scan before the frame header"));
                    };
                    return Ok(Self { sof, precision, rows, columns, components, scan: segment.start });
                }
                _ => {}
            }
        }
        Err(CodecError::Damaged("no scan"))
    }

    /// Checks that the stream goes on to an `EOI` marker after its first scan began.
    pub fn require_end(&self, stream: &[u8]) -> Result<(), CodecError> {
        // In entropy-coded data FF is followed by 00 or a restart marker, so that FF D9 there is the end.
        let data = stream.get(self.scan..).unwrap_or_default();
        match data.windows(2).any(|pair| pair == [0xff, 0xd9]) {
            true => Ok(()),
            false => Err(CodecError::Damaged("no EOI marker")),
        }
    }

    /// Checks the frame's size against the one that somebody else claimed.
    pub fn require_extent(&self, extent: Extent) -> Result<(), CodecError> {
        match *self {
            Self { rows, columns, components, .. } if (Extent { rows, columns, components }) == extent => Ok(()),
            _ => Err(CodecError::Damaged("the codestream has another size than the tags say")),
        }
    }

    /// The process in the words of T.81.
    pub fn process(&self) -> &'static str {
        match self.sof {
            0xc0 => "baseline",
            0xc1 => "extended sequential",
            0xc2 => "progressive",
            0xc3 => "lossless",
            _ => "hierarchical or arithmetic",
        }
    }

    /// Whether the `image` crate's decoder takes it: Huffman-coded DCT processes with 8 bits.
    pub fn decodable_by_image_crate(&self) -> bool {
        matches!(self.sof, 0xc0..=0xc2) && self.precision == 8
    }
}

/// Decodes a grey picture of a sequential DCT or the lossless process, with the codestream's precision.
pub fn decode_grey(stream: &[u8], extent: Extent) -> Result<Vec<u16>, CodecError> {
    match Header::read(stream)?.sof {
        0xc0 | 0xc1 => jpeg_dct::decode(stream, extent),
        0xc3 => jpeg_lossless::decode(stream, extent),
        _ => Err(CodecError::Unsupported("JPEG progressive, hierarchical or arithmetic")),
    }
}

/// One marker segment.
pub(super) struct Segment<'a> {
    /// The second byte of its marker.
    pub(super) marker: u8,
    /// The offset of its marker.
    pub(super) start: usize,
    /// What follows its length field.
    pub(super) payload: &'a [u8],
}

/// Steps over marker segments.
pub(super) struct Segments<'a> {
    pub(super) stream: &'a [u8],
    pub(super) position: usize,
}

impl<'a> Segments<'a> {
    /// The next segment, or `None` at the end of the image or of the bytes.
    pub(super) fn next(&mut self) -> Result<Option<Segment<'a>>, CodecError> {
        loop {
            let Some(&[fill, marker]) = self.stream.get(self.position..self.position + 2) else { return Ok(None) };
            if fill != 0xff {
                return Err(CodecError::Damaged("no marker where one must stand"));
            }
            match marker {
                // A fill byte.
                0xff => self.position += 1,
                0xd9 => return Ok(None),
                // TEM and restart markers have no payload.
                0x01 | 0xd0..=0xd8 => self.position += 2,
                _ => {
                    let start = self.position;
                    let Some(&[high, low]) = self.stream.get(start + 2..start + 4) else {
                        return Err(CodecError::Damaged("segment without length"));
                    };
                    let end = start + 2 + usize::from(u16::from_be_bytes([high, low]));
                    let Some(payload) = self.stream.get(start + 4..end) else {
                        return Err(CodecError::Damaged("segment beyond the end"));
                    };
                    self.position = end;
                    return Ok(Some(Segment { marker, start, payload }));
                }
            }
        }
    }
}
