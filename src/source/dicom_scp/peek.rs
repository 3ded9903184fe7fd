//! Which instance a data set says that it is: its first elements, as far as SOP Instance UID, and no further. The file as a
//! whole is read by the decoder, in a process of its own.

use super::command::uid;
use flate2::read::DeflateDecoder;
use std::io::Read;

/// Bytes within which a data set names itself: the elements before its UIDs have some hundreds.
pub(super) const ENOUGH: usize = 64 << 10;

const IMPLICIT: &str = "1.2.840.10008.1.2";
const BIG_ENDIAN: &str = "1.2.840.10008.1.2.2";
const DEFLATED: &str = "1.2.840.10008.1.2.1.99";

const SOP_CLASS_UID: (u16, u16) = (0x0008, 0x0016);
const SOP_INSTANCE_UID: (u16, u16) = (0x0008, 0x0018);

/// Group of items and delimiters, and their elements.
const ITEMS: u16 = 0xfffe;
const ITEM: u16 = 0xe000;
const SEQUENCE_END: u16 = 0xe0dd;

/// VRs whose length has four bytes, after two that are reserved.
const LONG: [&[u8; 2]; 13] =
    [b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"];

/// SOP Class UID and SOP Instance UID of a data set that begins so; `None` where it does not name both.
pub(super) fn identity(start: &[u8], transfer_syntax: &str) -> Option<(String, String)> {
    let mut inflated = Vec::new();
    let mut bytes = start;
    if transfer_syntax == DEFLATED {
        // What was inflated until the start ends, which is in the middle of the stream, is there all the same.
        let _ = DeflateDecoder::new(start).take(ENOUGH as u64).read_to_end(&mut inflated);
        bytes = &inflated;
    }
    let mut elements =
        Elements { bytes, is_implicit: transfer_syntax == IMPLICIT, is_big_endian: transfer_syntax == BIG_ENDIAN };
    let mut class = None;
    // How deep in sequences and items without a length.
    let mut depth = 0u32;
    loop {
        let (tag, length) = elements.header()?;
        match (tag, length) {
            ((ITEMS, ITEM), None) => depth += 1,
            ((ITEMS, ITEM), Some(length)) => drop(elements.value(length)?),
            // The end of an item or of a sequence.
            ((ITEMS, ..=SEQUENCE_END), _) => depth = depth.checked_sub(1)?,
            (_, None) => depth += 1,
            (SOP_CLASS_UID, Some(length)) if depth == 0 => class = Some(uid(elements.value(length)?)?),
            (SOP_INSTANCE_UID, Some(length)) if depth == 0 => return Some((class?, uid(elements.value(length)?)?)),
            // Elements stand in ascending order.
            (tag, _) if depth == 0 && tag > SOP_INSTANCE_UID => return None,
            (_, Some(length)) => drop(elements.value(length)?),
        }
    }
}

struct Elements<'a> {
    bytes: &'a [u8],
    is_implicit: bool,
    is_big_endian: bool,
}

impl<'a> Elements<'a> {
    /// The next element's tag, and its length where it has one.
    fn header(&mut self) -> Option<((u16, u16), Option<u32>)> {
        let tag = (self.short()?, self.short()?);
        let length = if self.is_implicit || tag.0 == ITEMS {
            self.long()?
        } else {
            let vr = <&[u8; 2]>::try_from(self.value(2)?).ok()?;
            if LONG.contains(&vr) {
                self.value(2)?;
                self.long()?
            } else {
                u32::from(self.short()?)
            }
        };
        Some((tag, (length != u32::MAX).then_some(length)))
    }

    fn value(&mut self, length: u32) -> Option<&'a [u8]> {
        let (value, rest) = self.bytes.split_at_checked(usize::try_from(length).ok()?)?;
        self.bytes = rest;
        Some(value)
    }

    fn short(&mut self) -> Option<u16> {
        let bytes = self.value(2)?.try_into().ok()?;
        Some(if self.is_big_endian { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) })
    }

    fn long(&mut self) -> Option<u32> {
        let bytes = self.value(4)?.try_into().ok()?;
        Some(if self.is_big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compression, write::DeflateEncoder};
    use std::io::Write;

    const EXPLICIT: &str = "1.2.840.10008.1.2.1";

    /// An element with explicit VR, little endian.
    fn element(tag: (u16, u16), vr: &[u8; 2], value: &[u8]) -> Vec<u8> {
        let head = [tag.0.to_le_bytes(), tag.1.to_le_bytes(), *vr].concat();
        [head, (value.len() as u16).to_le_bytes().to_vec(), value.to_vec()].concat()
    }

    /// As modalities write it, with a sequence before the UIDs that has an item without a length.
    fn explicit() -> Vec<u8> {
        let mut bytes = element((8, 5), b"CS", b"ISO_IR 100");
        bytes.extend([8, 0, 6, 0, b'S', b'Q', 0, 0, 255, 255, 255, 255]);
        bytes.extend([0xfe, 0xff, 0, 0xe0, 255, 255, 255, 255]);
        bytes.extend(element(SOP_INSTANCE_UID, b"UI", b"9.9.9\0"));
        bytes.extend([0xfe, 0xff, 0x0d, 0xe0, 0, 0, 0, 0, 0xfe, 0xff, 0xdd, 0xe0, 0, 0, 0, 0]);
        bytes.extend(element((8, 8), b"CS", b"ORIGINAL\\PRIMARY"));
        bytes.extend(element(SOP_CLASS_UID, b"UI", b"1.2.3\0"));
        bytes.extend(element(SOP_INSTANCE_UID, b"UI", b"4.5.6\0"));
        bytes
    }

    fn known() -> Option<(String, String)> {
        Some(("1.2.3".into(), "4.5.6".into()))
    }

    #[test]
    fn a_data_set_names_itself_in_each_syntax() {
        let bytes = explicit();
        assert_eq!(identity(&bytes, EXPLICIT), known());
        assert_eq!(identity(&bytes, "1.2.840.10008.1.2.4.70"), known());
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(&bytes).unwrap();
        assert_eq!(identity(&encoder.finish().unwrap(), DEFLATED), known());
        let implicit = [&[8, 0, 0x16, 0, 6, 0, 0, 0][..], b"1.2.3\0", &[8, 0, 0x18, 0, 5, 0, 0, 0], b"4.5.6"].concat();
        assert_eq!(identity(&implicit, IMPLICIT), known());
        let big = [&[0, 8, 0, 0x16, b'U', b'I', 0, 6][..], b"1.2.3\0", &[0, 8, 0, 0x18, b'U', b'I', 0, 5], b"4.5.6"];
        assert_eq!(identity(&big.concat(), BIG_ENDIAN), known());
    }

    #[test]
    fn one_that_does_not_is_told_from_one_that_does() {
        let bytes = explicit();
        for length in 0..bytes.len() {
            assert_eq!(identity(&bytes[..length], EXPLICIT), None, "{length}");
        }
        let other = [element(SOP_CLASS_UID, b"UI", b"1.2.3\0"), element((8, 0x20), b"DA", b"20260101")].concat();
        assert_eq!(identity(&other, EXPLICIT), None);
        let no_uid = [element(SOP_CLASS_UID, b"UI", b"1.2.3\0"), element(SOP_INSTANCE_UID, b"UI", b"../etc")].concat();
        assert_eq!(identity(&no_uid, EXPLICIT), None);
        assert_eq!(identity(&[0xfe, 0xff, 0xdd, 0xe0, 0, 0, 0, 0], EXPLICIT), None);
    }
}
