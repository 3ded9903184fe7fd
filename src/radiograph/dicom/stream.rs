//! The element stream of a DICOM file before any parser sees it: where the data set begins, in which transfer syntax, and
//! whether its elements and nesting stay within the limits. Not the values (dicom-rs reads those).
//!
//! A parser that recurses into sequences and allocates what lengths claim must not meet a stranger's file unchecked:
//! this walk does neither. It also picks out the few elements that a radiograph needs, and only they are parsed: a name
//! or an odd private element elsewhere in the file never gets that far.

use super::super::{Limits, Refusal};
use super::syntax::{DEFLATED, EXPLICIT, IMPLICIT, SYNTAXES, Syntax};
use super::{damaged, unsupported};
use dicom_core::dictionary::DataDictionary;
use dicom_core::{Tag, VR};
use dicom_dictionary_std::{StandardDataDictionary, tags};
use std::borrow::Cow;
use std::io::{self, Read};
use std::ops::Range;

/// The elements that are handed to the parser, in ascending order. No element that can hold a name is among them.
const KEPT: [Tag; 29] = [
    tags::SOP_CLASS_UID,
    tags::SOP_INSTANCE_UID,
    tags::MODALITY,
    tags::PRESENTATION_INTENT_TYPE,
    tags::ANATOMIC_REGION_SEQUENCE,
    tags::BODY_PART_EXAMINED,
    tags::VIEW_POSITION,
    tags::STUDY_INSTANCE_UID,
    tags::SERIES_INSTANCE_UID,
    tags::SAMPLES_PER_PIXEL,
    tags::PHOTOMETRIC_INTERPRETATION,
    tags::PLANAR_CONFIGURATION,
    tags::NUMBER_OF_FRAMES,
    tags::ROWS,
    tags::COLUMNS,
    tags::BITS_ALLOCATED,
    tags::BITS_STORED,
    tags::HIGH_BIT,
    tags::PIXEL_REPRESENTATION,
    tags::PIXEL_PADDING_VALUE,
    tags::PIXEL_PADDING_RANGE_LIMIT,
    tags::WINDOW_CENTER,
    tags::WINDOW_WIDTH,
    tags::RESCALE_INTERCEPT,
    tags::RESCALE_SLOPE,
    tags::VOILUT_FUNCTION,
    tags::MODALITY_LUT_SEQUENCE,
    tags::VOILUT_SEQUENCE,
    tags::PIXEL_DATA,
];

/// Where a DICOM file's first element stands and whether that is one of the file meta information.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Start {
    /// File meta information begins at this offset.
    Meta(usize),
    /// A bare data set with explicit VRs, from the first byte.
    Explicit,
    /// A bare data set with implicit VRs, from the first byte.
    Implicit,
}

impl Start {
    /// Recognises DICOM: the preamble and its `DICM`; the same without the 128 bytes; or a bare data set.
    pub(in super::super) fn sniff(bytes: &[u8]) -> Option<Self> {
        if bytes.get(128..132) == Some(b"DICM") {
            return Some(Self::Meta(132));
        }
        if bytes.starts_with(b"DICM") {
            return Some(Self::Meta(4));
        }
        match *bytes.first_chunk::<8>()? {
            [2, 0, 0, 0, b'U', b'L', 4, 0] => Some(Self::Meta(0)),
            // Group 0008 in its first elements: length to end, character set, image type, SOP class.
            [8, 0, 0 | 1 | 5 | 8 | 0x16, 0, a, b, _, _] if a.is_ascii_uppercase() && b.is_ascii_uppercase() => {
                Some(Self::Explicit)
            }
            [8, 0, 0 | 1 | 5 | 8 | 0x16, 0, length, 0, 0, 0] if length % 2 == 0 => Some(Self::Implicit),
            _ => None,
        }
    }
}

/// Which elements a walk picks out.
struct Kept<'a> {
    tags: &'a [Tag],
    /// Whether they go to a parser, so that every one must be plain: see [`Header::is_plain`].
    plain: bool,
}

/// A data set whose structure was found sound and within the limits.
pub(super) struct DataSet<'a> {
    pub(super) syntax: Syntax,
    /// Its bytes, inflated where they were deflated.
    bytes: Cow<'a, [u8]>,
    /// Where the elements stand that are to be parsed.
    kept: Vec<Range<usize>>,
}

impl<'a> DataSet<'a> {
    /// Finds the data set, inflates it where needed, and walks over all its elements.
    pub(super) fn find(bytes: &'a [u8], start: Start, limits: &Limits) -> Result<Self, Refusal> {
        Self::keeping(bytes, start, limits, &Kept { tags: &KEPT, plain: true })
    }

    /// The same for other elements, of which nothing is parsed: see [`DataSet::values`].
    pub(super) fn pick(bytes: &'a [u8], start: Start, limits: &Limits, tags: &[Tag]) -> Result<Self, Refusal> {
        Self::keeping(bytes, start, limits, &Kept { tags, plain: false })
    }

    fn keeping(bytes: &'a [u8], start: Start, limits: &Limits, wanted: &Kept<'_>) -> Result<Self, Refusal> {
        let (syntax, offset) = match start {
            Start::Explicit => (EXPLICIT, 0),
            Start::Implicit => (IMPLICIT, 0),
            Start::Meta(offset) => read_meta(bytes, offset)?,
        };
        let rest = &bytes[offset..];
        let bytes = if syntax == DEFLATED { Cow::Owned(inflate(rest, limits)?) } else { Cow::Borrowed(rest) };
        let walk = Walk { bytes: &bytes, position: 0, big_endian: syntax.big_endian };
        let kept = walk.check(syntax.explicit, limits, wanted)?;
        Ok(Self { syntax, bytes, kept })
    }

    /// Whether it was inflated, and is an explicit one now.
    pub(super) fn inflated(&self) -> bool {
        matches!(self.bytes, Cow::Owned(_))
    }

    /// The values of the picked elements as they stand; of those that are no sequences.
    pub(super) fn values(&self) -> impl Iterator<Item = (Tag, &[u8])> {
        let Syntax { explicit, big_endian, .. } = self.syntax;
        self.kept.iter().filter_map(move |range| {
            let mut walk = Walk { bytes: &self.bytes, position: range.start, big_endian };
            let header = walk.header(explicit).ok()?;
            let is_plain = header.length.is_some() && header.vr != Some(VR::SQ);
            Some((header.tag, self.bytes.get(walk.position..range.end)?)).filter(|_| is_plain)
        })
    }

    /// Reads the elements that are to be parsed, one after the other.
    pub(super) fn reader(&self) -> impl Read + '_ {
        Parts { bytes: &self.bytes, rest: self.kept.clone().into_iter(), part: 0..0 }
    }
}

/// Reads several ranges of bytes as one stream.
struct Parts<'a> {
    bytes: &'a [u8],
    rest: std::vec::IntoIter<Range<usize>>,
    part: Range<usize>,
}

impl Read for Parts<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.part.is_empty() {
            let Some(next) = self.rest.next() else { return Ok(0) };
            self.part = next;
        }
        // The walk made the ranges from positions within the bytes.
        let part = self.bytes.get(self.part.clone()).unwrap_or_default();
        let count = part.len().min(buffer.len());
        buffer[..count].copy_from_slice(&part[..count]);
        self.part.start += count;
        Ok(count)
    }
}

/// Reads the file meta information: the transfer syntax and where the data set begins.
fn read_meta(bytes: &[u8], offset: usize) -> Result<(Syntax, usize), Refusal> {
    let mut walk = Walk { bytes, position: offset, big_endian: false };
    let mut uid = None;
    while bytes.get(walk.position..walk.position + 2) == Some(&[2, 0]) {
        let header = walk.header(true)?;
        let length = header.length.ok_or_else(damaged)?;
        let value = walk.value(length)?;
        if header.tag == Tag(0x0002, 0x0010) {
            uid = std::str::from_utf8(value).ok().map(|uid| uid.trim_end_matches(['\0', ' ']));
        }
    }
    let uid = uid.ok_or_else(damaged)?;
    let syntax = SYNTAXES.iter().find(|syntax| syntax.uid == uid).ok_or_else(|| {
        unsupported("This DICOM file is compressed in a way that the box cannot read. Send it uncompressed.")
    })?;
    Ok((*syntax, walk.position))
}

/// Inflates a deflated data set, at most to the limit.
fn inflate(bytes: &[u8], limits: &Limits) -> Result<Vec<u8>, Refusal> {
    let mut inflated = Vec::new();
    let bound = limits.max_decoded_bytes.saturating_add(1);
    flate2::read::DeflateDecoder::new(bytes).take(bound).read_to_end(&mut inflated).map_err(|_| damaged())?;
    if inflated.len() as u64 > limits.max_decoded_bytes {
        return Err(Refusal::limit("max_decoded_bytes", "memory"));
    }
    Ok(inflated)
}

/// An element's header.
struct Header {
    tag: Tag,
    /// `None` where items and delimiters have none.
    vr: Option<VR>,
    /// `None` for the undefined length.
    length: Option<u32>,
}

impl Header {
    /// Whether every parser reads the same bytes as its value: a length that its VR allows, and an undefined one only
    /// where the VR says how it ends.
    fn is_plain(&self) -> bool {
        let Some(vr) = self.vr else { return true };
        let unit = match vr {
            VR::AT | VR::FL | VR::OF | VR::OL | VR::SL | VR::UL => 4,
            VR::FD | VR::OD | VR::OV | VR::SV | VR::UV => 8,
            _ => 2,
        };
        match self.length {
            Some(length) => length % unit == 0,
            None => vr == VR::SQ || (self.tag == tags::PIXEL_DATA && matches!(vr, VR::OB | VR::OW)),
        }
    }
}

/// What the walk is inside of.
struct Level {
    /// Where it ends, where its length is defined.
    end: Option<usize>,
    /// A sequence holds items, an item holds elements.
    sequence: bool,
    /// Whether elements in it have explicit VRs: those in sequences of VR UN have not (PS3.5 6.2.2 note 2).
    explicit: bool,
}

struct Walk<'a> {
    bytes: &'a [u8],
    position: usize,
    big_endian: bool,
}

const ITEM: Tag = Tag(0xfffe, 0xe000);
const ITEM_END: Tag = Tag(0xfffe, 0xe00d);
const SEQUENCE_END: Tag = Tag(0xfffe, 0xe0dd);

impl<'a> Walk<'a> {
    /// Walks to the end of the bytes; refuses what is too much, too deep or broken. Returns where the wanted elements
    /// stand.
    fn check(mut self, explicit: bool, limits: &Limits, wanted: &Kept<'_>) -> Result<Vec<Range<usize>>, Refusal> {
        let mut levels: Vec<Level> = Vec::new();
        let mut kept = Vec::new();
        // Where the kept element begins that the walk is inside of.
        let mut keeping: Option<usize> = None;
        let mut elements = 0u64;
        loop {
            while levels.last().is_some_and(|level| level.end.is_some_and(|end| self.position >= end)) {
                levels.pop();
            }
            if levels.is_empty() {
                kept.extend(keeping.take().map(|start| start..self.position));
            }
            if self.position >= self.bytes.len() {
                // Sequences of undefined length must have been closed.
                return if levels.is_empty() { Ok(kept) } else { Err(damaged()) };
            }
            elements += 1;
            if elements > limits.max_elements {
                return Err(Refusal::limit("max_elements", "DICOM elements"));
            }
            let (in_sequence, explicit) =
                levels.last().map_or((false, explicit), |level| (level.sequence, level.explicit));
            let start = self.position;
            let header = self.header(explicit)?;
            if levels.is_empty() && wanted.tags.contains(&header.tag) {
                keeping = Some(start);
            }
            if keeping.is_some() && wanted.plain && !header.is_plain() {
                return Err(damaged());
            }
            let end = |length: u32| self.position + length as usize;
            match (header.tag, in_sequence, header.length) {
                (ITEM, true, length) => {
                    levels.push(Level { end: length.map(end), sequence: false, explicit });
                }
                (ITEM_END, false, _) | (SEQUENCE_END, true, _) if !levels.is_empty() => {
                    levels.pop();
                }
                (ITEM | ITEM_END | SEQUENCE_END, _, _) | (_, true, _) => return Err(damaged()),
                (_, false, length) => match (header.vr, length) {
                    // Encapsulated pixel data: items that are bytes, not elements.
                    (Some(VR::OB | VR::OW), None) if header.tag == tags::PIXEL_DATA => {
                        elements += self.fragments(limits.max_elements - elements)?
                    }
                    (Some(VR::SQ), length) | (_, length @ None) => {
                        let explicit = explicit && header.vr == Some(VR::SQ);
                        levels.push(Level { end: length.map(end), sequence: true, explicit });
                        let depth = levels.iter().filter(|level| level.sequence).count();
                        if depth as u64 > u64::from(limits.max_nesting) {
                            return Err(Refusal::limit("max_nesting", "nested DICOM sequences"));
                        }
                    }
                    (_, Some(length)) => {
                        self.value(length)?;
                    }
                },
            }
        }
    }

    /// Goes over the fragments of encapsulated pixel data; how many there were.
    fn fragments(&mut self, most: u64) -> Result<u64, Refusal> {
        for count in 0..=most {
            let header = self.header(true)?;
            match (header.tag, header.length) {
                (ITEM, Some(length)) => self.value(length)?,
                (SEQUENCE_END, _) => return Ok(count),
                _ => return Err(damaged()),
            };
        }
        Err(Refusal::limit("max_elements", "DICOM elements"))
    }

    /// Reads one header and stands behind it.
    fn header(&mut self, explicit: bool) -> Result<Header, Refusal> {
        let tag = Tag(self.u16()?, self.u16()?);
        if tag.group() == 0xfffe {
            let length = self.u32()?;
            return Ok(Header { tag, vr: None, length: (length != u32::MAX).then_some(length) });
        }
        let (vr, length) = if explicit {
            let letters = [self.value(1)?[0], self.value(1)?[0]];
            // A VR of a later standard has the long form, as all new ones must.
            let vr = VR::from_binary(letters).unwrap_or(VR::UN);
            let length = match vr {
                VR::OB | VR::OD | VR::OF | VR::OL | VR::OV | VR::OW => self.long_length()?,
                VR::SQ | VR::SV | VR::UC | VR::UN | VR::UR | VR::UT | VR::UV => self.long_length()?,
                _ => u32::from(self.u16()?),
            };
            (vr, length)
        } else {
            // Only the dictionary knows which elements are sequences.
            let entry = StandardDataDictionary.by_tag(tag);
            let vr = entry.map_or(VR::UN, |entry| entry.vr.relaxed());
            (vr, self.u32()?)
        };
        Ok(Header { tag, vr: Some(vr), length: (length != u32::MAX).then_some(length) })
    }

    fn long_length(&mut self) -> Result<u32, Refusal> {
        self.value(2)?;
        self.u32()
    }

    /// Goes over `length` bytes, which must be there.
    fn value(&mut self, length: u32) -> Result<&'a [u8], Refusal> {
        let end = self.position.checked_add(length as usize).ok_or_else(damaged)?;
        let value = self.bytes.get(self.position..end).ok_or_else(damaged)?;
        self.position = end;
        Ok(value)
    }

    fn u16(&mut self) -> Result<u16, Refusal> {
        let bytes = self.value(2)?;
        let word = [bytes[0], bytes[1]];
        Ok(if self.big_endian { u16::from_be_bytes(word) } else { u16::from_le_bytes(word) })
    }

    fn u32(&mut self) -> Result<u32, Refusal> {
        let bytes = self.value(4)?;
        let word = [bytes[0], bytes[1], bytes[2], bytes[3]];
        Ok(if self.big_endian { u32::from_be_bytes(word) } else { u32::from_le_bytes(word) })
    }
}
