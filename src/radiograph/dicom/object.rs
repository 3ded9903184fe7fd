//! DICOM objects as they are written: explicit VRs, little endian, as a Part 10 file. Reads nothing, and shows nothing of
//! what was put in but the bytes of the whole.
//!
//! Sequences and items are of undefined length, so that whoever wants another transfer syntax can rewrite the stream
//! element by element.

use dicom_core::{Tag, VR};
use dicom_dictionary_std::{tags, uids};
use std::collections::BTreeMap;

/// This program, among all implementations of DICOM: a UUID of its own under 2.25.
const IMPLEMENTATION_CLASS: &str = "2.25.206339527391158734086401894274518716225";
const IMPLEMENTATION_VERSION: &str = concat!("ROENTGEN_", env!("CARGO_PKG_VERSION_MAJOR"));

const ITEM: Tag = Tag(0xfffe, 0xe000);
const ITEM_END: Tag = Tag(0xfffe, 0xe00d);
const SEQUENCE_END: Tag = Tag(0xfffe, 0xe0dd);
const UNDEFINED: u32 = u32::MAX;

enum Value {
    Bytes(Vec<u8>),
    Items(Vec<Object>),
}

/// A data set that is being put together. There is no `Debug`: it may hold a patient's name.
#[derive(Default)]
pub struct Object {
    elements: BTreeMap<Tag, (VR, Value)>,
}

impl Object {
    /// Puts in a text of our own: ASCII, which every character set has, without what the VR forbids and no longer than
    /// it allows.
    pub fn text(self, tag: Tag, vr: VR, text: &str) -> Self {
        self.texts(tag, vr, &[text])
    }

    /// Puts in several such values.
    pub fn texts(self, tag: Tag, vr: VR, texts: &[&str]) -> Self {
        let values: Vec<String> = texts.iter().map(|text| plain(vr, text)).collect();
        self.bytes(tag, vr, values.join("\\").as_bytes())
    }

    /// Puts in an unsigned number of 16 bits.
    pub fn number(self, tag: Tag, number: u16) -> Self {
        self.bytes(tag, VR::US, &number.to_le_bytes())
    }

    /// Puts in a number of 64 bits.
    pub fn double(self, tag: Tag, number: f64) -> Self {
        self.bytes(tag, VR::FD, &number.to_le_bytes())
    }

    /// Puts in a value as it stands, but for its padding to an even length.
    pub fn bytes(mut self, tag: Tag, vr: VR, value: &[u8]) -> Self {
        let mut value = value.to_vec();
        if value.len() % 2 == 1 {
            value.push(if matches!(vr, VR::UI | VR::OB) { 0 } else { b' ' });
        }
        self.elements.insert(tag, (vr, Value::Bytes(value)));
        self
    }

    /// Puts in a sequence; without items it is an empty one.
    pub fn items(mut self, tag: Tag, items: Vec<Object>) -> Self {
        self.elements.insert(tag, (VR::SQ, Value::Items(items)));
        self
    }

    /// Puts in the elements of another one; of those that stand in both its own win.
    pub fn and(mut self, other: Object) -> Self {
        for (tag, element) in other.elements {
            self.elements.entry(tag).or_insert(element);
        }
        self
    }

    /// The file: preamble, file meta information, and this as the data set, which says by itself what it is.
    pub fn file(&self, sop_class: &str, instance: &str) -> Vec<u8> {
        let meta = Object::default()
            .bytes(tags::FILE_META_INFORMATION_VERSION, VR::OB, &[0, 1])
            .text(tags::MEDIA_STORAGE_SOP_CLASS_UID, VR::UI, sop_class)
            .text(tags::MEDIA_STORAGE_SOP_INSTANCE_UID, VR::UI, instance)
            .text(tags::TRANSFER_SYNTAX_UID, VR::UI, uids::EXPLICIT_VR_LITTLE_ENDIAN)
            .text(tags::IMPLEMENTATION_CLASS_UID, VR::UI, IMPLEMENTATION_CLASS)
            .text(tags::IMPLEMENTATION_VERSION_NAME, VR::SH, IMPLEMENTATION_VERSION);
        let mut elements = Vec::new();
        meta.write(&mut elements);
        let mut file = vec![0; 128];
        file.extend(b"DICM");
        let length = elements.len() as u32;
        header(&mut file, tags::FILE_META_INFORMATION_GROUP_LENGTH, VR::UL, 4);
        file.extend(length.to_le_bytes());
        file.extend(elements);
        self.write(&mut file);
        file
    }

    fn write(&self, out: &mut Vec<u8>) {
        for (&tag, (vr, value)) in &self.elements {
            match value {
                Value::Bytes(bytes) => {
                    header(out, tag, *vr, bytes.len() as u32);
                    out.extend(bytes);
                }
                Value::Items(items) if items.is_empty() => header(out, tag, VR::SQ, 0),
                Value::Items(items) => {
                    header(out, tag, VR::SQ, UNDEFINED);
                    for item in items {
                        delimiter(out, ITEM, UNDEFINED);
                        item.write(out);
                        delimiter(out, ITEM_END, 0);
                    }
                    delimiter(out, SEQUENCE_END, 0);
                }
            }
        }
    }
}

fn header(out: &mut Vec<u8>, tag: Tag, vr: VR, length: u32) {
    tagged(out, tag);
    out.extend(vr.to_bytes());
    if is_long(vr) {
        out.extend([0, 0]);
        out.extend(length.to_le_bytes());
    } else {
        // Texts are cut to their VR's length above, and what is carried over is bounded likewise.
        out.extend((length as u16).to_le_bytes());
    }
}

fn delimiter(out: &mut Vec<u8>, tag: Tag, length: u32) {
    tagged(out, tag);
    out.extend(length.to_le_bytes());
}

fn tagged(out: &mut Vec<u8>, tag: Tag) {
    out.extend(tag.group().to_le_bytes());
    out.extend(tag.element().to_le_bytes());
}

/// Whether elements of this VR have a length of 32 bits.
fn is_long(vr: VR) -> bool {
    matches!(vr, VR::OB | VR::OW | VR::SQ | VR::UC | VR::UN | VR::UR | VR::UT)
}

/// The text as a value of this VR.
fn plain(vr: VR, text: &str) -> String {
    let (most, is_free) = match vr {
        VR::SH | VR::CS | VR::DS | VR::AE | VR::TM => (16, false),
        VR::DA => (8, false),
        VR::IS => (12, false),
        VR::LO | VR::UI => (64, false),
        VR::DT => (26, false),
        VR::ST => (1024, true),
        _ => (10_000, true),
    };
    let mut plain = ascii(text);
    if !is_free {
        // It separates values.
        plain = plain.replace('\\', "/");
    }
    plain.truncate(most);
    plain.trim_end().to_owned()
}

/// The text in ASCII: what our own messages have beyond it, spelled out.
fn ascii(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '≥' => plain.push_str(">="),
            '≤' => plain.push_str("<="),
            '×' => plain.push('x'),
            '–' | '—' | '−' => plain.push('-'),
            '…' => plain.push_str("..."),
            '‘' | '’' => plain.push('\''),
            '“' | '”' => plain.push('"'),
            '\u{a0}' | '\u{202f}' => plain.push(' '),
            letter if letter.is_control() => plain.push(' '),
            letter if letter.is_ascii() => plain.push(letter),
            _ => plain.push('?'),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;
    use dicom_object::from_reader;

    #[test]
    fn a_file_is_one_that_another_library_reads() {
        let inner = Object::default().text(tags::CODE_VALUE, VR::SH, "R-1").number(tags::ROWS, 7);
        let object = Object::default()
            .text(tags::SOP_CLASS_UID, VR::UI, uids::COMPREHENSIVE3_DSR_STORAGE)
            .text(
                tags::STUDY_DESCRIPTION,
                VR::LO,
                "at least 3 ≥ 2 \\ and – more than the sixty-four letters that there may be",
            )
            .items(tags::CONCEPT_NAME_CODE_SEQUENCE, vec![inner, Object::default()])
            .items(tags::PERFORMED_PROCEDURE_CODE_SEQUENCE, vec![])
            .double(tags::FLOATING_POINT_VALUE, 0.25)
            .bytes(tags::PIXEL_DATA, VR::OB, &[1, 2, 3]);
        let file = object.file(uids::COMPREHENSIVE3_DSR_STORAGE, "2.25.1");
        let read = from_reader(&file[..]).unwrap();
        assert_eq!(read.meta().media_storage_sop_instance_uid(), "2.25.1");
        let text = |tag| read.element(tag).unwrap().to_str().unwrap().into_owned();
        let described = text(tags::STUDY_DESCRIPTION);
        assert!(described.starts_with("at least 3 >= 2 / and - more") && described.len() == 64, "{described}");
        let items = read.element(tags::CONCEPT_NAME_CODE_SEQUENCE).unwrap().items().unwrap();
        assert_eq!((items.len(), items[0].element(tags::ROWS).unwrap().to_int::<u16>().unwrap()), (2, 7));
        assert_eq!(read.element(tags::FLOATING_POINT_VALUE).unwrap().to_float64().unwrap(), 0.25);
        assert_eq!(read.element(tags::PIXEL_DATA).unwrap().to_bytes().unwrap()[..], [1, 2, 3, 0]);
    }

    #[test]
    fn of_two_the_first_keeps_its_own() {
        let of = |text| Object::default().text(tags::MODALITY, VR::CS, text);
        let both = of("SR").and(of("DX").text(tags::STUDY_ID, VR::SH, "7"));
        let file = both.file("1.2", "1.3");
        assert!(file.windows(2).any(|pair| pair == b"SR") && !file.windows(2).any(|pair| pair == b"DX"));
    }
}
