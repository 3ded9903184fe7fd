//! Under which patient, study and instance a result is filed: elements of the radiograph's own file, carried from there into
//! the objects that go back to the PACS, byte for byte, and to nowhere else.
//!
//! This is the one thing in the program that holds a patient's name. It is sealed: nothing reads a value out of it, it
//! has no `Debug` of its content, and all that can be done with it is to write it into an [`Object`]. It is made only
//! where results are sent, in the process that decodes; the daemon takes it from there as bytes, checks their form and
//! does not interpret them: a crafted value can do no more harm than in the file it came from, which lies in the PACS too.

use super::object::Object;
use super::stream::{DataSet, Start};
use crate::radiograph::file::read_open;
use crate::radiograph::{Limits, guard};
use dicom_core::{Tag, VR};
use dicom_dictionary_std::tags;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;

/// Bytes of a value at most: a name has three groups of 64 characters, of up to four bytes and some escapes.
const MAX_VALUE: usize = 1024;

/// Bytes of all that is carried, as it travels.
pub(crate) const MAX_BYTES: usize = ELEMENTS.len() * (6 + MAX_VALUE);

/// Where an element belongs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    /// The patient, the study and the character set: written into every object, empty where the standard wants them so
    /// and the file has none.
    Always,
    /// The same, but left out where the file has none.
    Known,
    /// What is said of the original itself; its UIDs are written where it is referred to.
    Original,
    /// How the original was compressed: that of a picture made from it too.
    Picture,
}

use Part::{Always, Known, Original, Picture};

/// All that is carried, in ascending order. Texts only, which are the same bytes in every transfer syntax.
const ELEMENTS: [(Tag, VR, Part); 24] = [
    (tags::SPECIFIC_CHARACTER_SET, VR::CS, Known),
    (tags::SOP_CLASS_UID, VR::UI, Original),
    (tags::SOP_INSTANCE_UID, VR::UI, Original),
    (tags::STUDY_DATE, VR::DA, Always),
    (tags::STUDY_TIME, VR::TM, Always),
    (tags::ACCESSION_NUMBER, VR::SH, Always),
    (tags::REFERRING_PHYSICIAN_NAME, VR::PN, Always),
    (tags::STUDY_DESCRIPTION, VR::LO, Known),
    (tags::PATIENT_NAME, VR::PN, Always),
    (tags::PATIENT_ID, VR::LO, Always),
    (tags::ISSUER_OF_PATIENT_ID, VR::LO, Known),
    (tags::PATIENT_BIRTH_DATE, VR::DA, Always),
    (tags::PATIENT_SEX, VR::CS, Always),
    (tags::PATIENT_AGE, VR::AS, Known),
    (tags::PATIENT_SIZE, VR::DS, Known),
    (tags::PATIENT_WEIGHT, VR::DS, Known),
    (tags::PATIENT_IDENTITY_REMOVED, VR::CS, Known),
    (tags::DEIDENTIFICATION_METHOD, VR::LO, Known),
    (tags::STUDY_INSTANCE_UID, VR::UI, Always),
    (tags::SERIES_INSTANCE_UID, VR::UI, Original),
    (tags::STUDY_ID, VR::SH, Always),
    (tags::LOSSY_IMAGE_COMPRESSION, VR::CS, Picture),
    (tags::LOSSY_IMAGE_COMPRESSION_RATIO, VR::DS, Picture),
    (tags::LOSSY_IMAGE_COMPRESSION_METHOD, VR::CS, Picture),
];

/// The UIDs without which nothing can be filed.
const NEEDED: [Tag; 4] =
    [tags::SOP_CLASS_UID, tags::SOP_INSTANCE_UID, tags::STUDY_INSTANCE_UID, tags::SERIES_INSTANCE_UID];

/// What a result is filed under; see the module.
#[derive(PartialEq, Eq)]
pub struct Filing {
    values: BTreeMap<Tag, Vec<u8>>,
}

impl Filing {
    /// Picks it out of a DICOM file's bytes; `None` where there is no such file, or where it does not say which study,
    /// series and instance it is.
    pub fn of(bytes: &[u8], limits: &Limits) -> Option<Self> {
        let start = Start::sniff(bytes)?;
        let wanted = ELEMENTS.map(|(tag, ..)| tag);
        let picked = guard(|| {
            let data_set = DataSet::pick(bytes, start, limits, &wanted).ok()?;
            let is_sound = |tag: Tag, length: usize| match tag {
                // The one value of a fixed length that senders get wrong, and one that nobody needs.
                tags::PATIENT_AGE => length == 4,
                _ => (1..=MAX_VALUE).contains(&length),
            };
            let values =
                data_set.values().map(|(tag, value)| (tag, if NEEDED.contains(&tag) { bare(value) } else { value }));
            let values = values.filter(|(tag, value)| is_sound(*tag, value.len()));
            Some(values.map(|(tag, value)| (tag, value.to_vec())).collect())
        });
        Self::checked(picked.ok()??)
    }

    /// The same of an open file, from its beginning.
    pub fn of_file(file: &File, limits: &Limits) -> Option<Self> {
        Self::of(&read_open(file, limits).ok()?, limits)
    }

    fn checked(values: BTreeMap<Tag, Vec<u8>>) -> Option<Self> {
        let is_there = |tag: &Tag| values.get(tag).is_some_and(|value| is_uid(value));
        NEEDED.iter().all(is_there).then_some(Self { values })
    }

    /// What tells this instance from all others, for whoever has it, mixed with a text: a hash, in hexadecimal.
    pub(crate) fn digest(&self, text: &str) -> String {
        let instance = self.values.get(&tags::SOP_INSTANCE_UID).map(Vec::as_slice).unwrap_or_default();
        let digest = Sha256::new().chain_update(text).chain_update("\n").chain_update(instance).finalize();
        crate::radiograph::hex(&digest)
    }

    /// As it travels from the process that decodes to the daemon, and nowhere else.
    pub(crate) fn sealed(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (tag, value) in &self.values {
            bytes.extend(tag.group().to_le_bytes());
            bytes.extend(tag.element().to_le_bytes());
            // At most MAX_VALUE.
            bytes.extend((value.len() as u16).to_le_bytes());
            bytes.extend(value);
        }
        bytes
    }

    /// What was sealed; `None` where it was not by [`Self::sealed`].
    pub(crate) fn unsealed(mut bytes: &[u8]) -> Option<Self> {
        let mut values = BTreeMap::new();
        while !bytes.is_empty() {
            let (&[group, group_high, element, element_high, length, length_high], rest) = bytes.split_first_chunk()?;
            let word = |low, high| u16::from_le_bytes([low, high]);
            let tag = Tag(word(group, group_high), word(element, element_high));
            let (value, rest) = rest.split_at_checked(word(length, length_high).into())?;
            let is_known = ELEMENTS.iter().any(|(known, ..)| *known == tag);
            let is_next = values.last_key_value().is_none_or(|(last, _)| *last < tag);
            if !is_known || !is_next || value.is_empty() || value.len() > MAX_VALUE {
                return None;
            }
            values.insert(tag, value.to_vec());
            bytes = rest;
        }
        Self::checked(values)
    }

    /// An object of the same patient and study, with nothing else in it yet.
    pub fn object(&self) -> Object {
        self.parts(&[Always, Known])
    }

    /// What a picture that is made from the original says of how that was compressed.
    pub fn compression(&self) -> Object {
        self.parts(&[Picture])
    }

    /// An item that refers to the original: its SOP class and instance.
    pub fn reference(&self) -> Object {
        let object = self.uid(Object::default(), tags::REFERENCED_SOP_CLASS_UID, tags::SOP_CLASS_UID);
        self.uid(object, tags::REFERENCED_SOP_INSTANCE_UID, tags::SOP_INSTANCE_UID)
    }

    /// An item of Current Requested Procedure Evidence Sequence: where in its study the original stands.
    pub fn evidence(&self) -> Object {
        let series = Object::default().items(tags::REFERENCED_SOP_SEQUENCE, vec![self.reference()]);
        let series = self.uid(series, tags::SERIES_INSTANCE_UID, tags::SERIES_INSTANCE_UID);
        let study = Object::default().items(tags::REFERENCED_SERIES_SEQUENCE, vec![series]);
        self.uid(study, tags::STUDY_INSTANCE_UID, tags::STUDY_INSTANCE_UID)
    }

    fn uid(&self, object: Object, to: Tag, from: Tag) -> Object {
        // All needed ones are there: it was checked.
        object.bytes(to, VR::UI, self.values.get(&from).map(Vec::as_slice).unwrap_or_default())
    }

    fn parts(&self, parts: &[Part]) -> Object {
        let wanted = ELEMENTS.iter().filter(|(.., part)| parts.contains(part));
        wanted.fold(Object::default(), |object, (tag, vr, part)| match self.values.get(tag) {
            Some(value) => object.bytes(*tag, *vr, value),
            None if *tag == tags::DEIDENTIFICATION_METHOD && self.says_removed() => {
                object.text(*tag, *vr, "See the original")
            }
            None if *part == Always => object.bytes(*tag, *vr, &[]),
            None => object,
        })
    }

    /// Whether the patient's identity was removed from the original. It then has to say how, which it may in a sequence.
    fn says_removed(&self) -> bool {
        self.values.get(&tags::PATIENT_IDENTITY_REMOVED).is_some_and(|value| value.starts_with(b"YES"))
    }
}

/// A UID without its padding: a NUL by the standard, but spaces are seen too. It is padded anew where it is written.
fn bare(uid: &[u8]) -> &[u8] {
    let end = uid.iter().rposition(|byte| !matches!(byte, 0 | b' ')).map_or(0, |last| last + 1);
    &uid[..end]
}

/// Whether something is filed under this UID: numbers with dots between them. Zeros in front of a number, which the standard
/// forbids, are let pass: they stand in the original, which the PACS has taken.
fn is_uid(uid: &[u8]) -> bool {
    let is_number = |part: &[u8]| !part.is_empty() && part.iter().all(u8::is_ascii_digit);
    uid.len() <= 64 && uid.contains(&b'.') && uid.split(|byte| *byte == b'.').all(is_number)
}

impl fmt::Debug for Filing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Filing(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dicom_object::from_reader;

    /// A bare data set with explicit VRs, as a sender with its own character set and habits writes it.
    fn file() -> Vec<u8> {
        let element = |tag: (u16, u16), vr: &str, value: &[u8]| {
            let head = [tag.0.to_le_bytes(), tag.1.to_le_bytes()].concat();
            [&head[..], vr.as_bytes(), &(value.len() as u16).to_le_bytes()[..], value].concat()
        };
        [
            element((8, 5), "CS", b"ISO_IR 144"),
            element((8, 0x16), "UI", b"1.2.840.10008.5.1.4.1.1.1\0"),
            element((8, 0x18), "UI", b"1.2.3.4.5"),
            element((8, 0x1030), "LO", &[0xbe; 2000]),
            element((0x10, 0x10), "PN", b"\xb8\xd2\xd0\xdd\xde\xd2^\xb8"),
            element((0x10, 0x4000), "LT", b"a remark about the patient"),
            element((0x20, 0xd), "UI", b"1.2.3.4\0"),
            element((0x20, 0xe), "UI", b"1.2.3.4.6"),
        ]
        .concat()
    }

    fn filing(bytes: &[u8]) -> Option<Filing> {
        Filing::of(bytes, &Limits::default())
    }

    #[test]
    fn patient_and_study_are_carried_byte_for_byte_and_nothing_more() {
        let filing = filing(&file()).unwrap();
        let written = filing.object().file("1.2", "2.25.1");
        let read = from_reader(&written[..]).unwrap();
        let holds = |part: &[u8]| written.windows(part.len()).any(|window| window == part);
        assert!(holds(b"\xb8\xd2\xd0\xdd\xde\xd2^\xb8") && holds(b"ISO_IR 144") && holds(b"1.2.3.4\0"));
        assert!(!holds(b"remark") && !holds(&[0xbe; 8]), "too long, or nobody asked for it");
        assert!(
            read.element(tags::PATIENT_ID).unwrap().value().to_str().unwrap().is_empty(),
            "type 2: there, and empty"
        );
        assert!(read.element_opt(tags::PATIENT_AGE).unwrap().is_none());
        assert!(read.element_opt(tags::SOP_INSTANCE_UID).unwrap().is_none(), "the object is another instance");
        assert_eq!(format!("{filing:?}"), "Filing(hidden)");
    }

    #[test]
    fn without_its_uids_nothing_can_be_filed() {
        let empty = "\0\0\0\0\0\0\0\0\0";
        let bad = [
            "../../etc",
            "1.2.3 4.6",
            empty,
            "         ",
            ".........",
            ".2.3.4.56",
            "1.2..4.56",
            "1.2.3.45.",
            "123456789",
        ];
        for (from, to) in bad.into_iter().flat_map(|bad| [("1.2.3.4.5", bad), ("1.2.3.4.6", bad)]) {
            let file = file();
            let at = file.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
            let mut spoiled = file.clone();
            spoiled[at..at + from.len()].copy_from_slice(to.as_bytes());
            assert!(filing(&spoiled).is_none(), "{to:?}");
        }
        assert!(filing(b"no DICOM at all").is_none());
    }

    #[test]
    fn a_uid_is_the_same_however_it_is_padded() {
        let padded = |padding: &[u8; 2]| {
            let mut file = file();
            let at = file.windows(9).position(|window| window == b"1.2.3.4.5").unwrap();
            file[at + 7..at + 9].copy_from_slice(padding);
            filing(&file).unwrap()
        };
        let of = padded(b" \0");
        assert_eq!(of, padded(b"\0\0"));
        assert_eq!(of, padded(b"  "));
        assert_eq!((of.digest("a"), of.digest("a").len()), (padded(b"  ").digest("a"), 64));
        assert!(of.digest("a") != of.digest("b") && of.digest("a") != padded(b".5").digest("a"));
        let written = of.evidence().file("1.2", "1.2");
        let holds = |part: &[u8]| written.windows(part.len()).any(|window| window == part);
        assert!(holds(b"\x08\0\x55\x11UI\x08\x001.2.3.4\0"), "padded as the standard has it");
    }

    #[test]
    fn who_says_that_the_patient_was_removed_says_how() {
        let element = |tag: u16, vr: &str, value: &[u8]| {
            let head = [[0x12, 0], tag.to_le_bytes()].concat();
            [&head[..], vr.as_bytes(), &(value.len() as u16).to_le_bytes()[..], value].concat()
        };
        let (yes, method) = (element(0x62, "CS", b"YES "), element(0x63, "LO", b"By hand."));
        let at = file().windows(4).position(|window| window == [0x20, 0, 0xd, 0]).unwrap();
        let with = |more: &[u8]| {
            let written =
                filing(&[&file()[..at], more, &file()[at..]].concat()).unwrap().object().file("1.2", "2.25.1");
            let read = from_reader(&written[..]).unwrap();
            let method = read.element_opt(tags::DEIDENTIFICATION_METHOD).unwrap();
            method.map(|method| method.to_str().unwrap().into_owned())
        };
        assert_eq!(with(&[]), None);
        assert_eq!(with(&element(0x62, "CS", b"NO")), None);
        assert_eq!(with(&yes).as_deref(), Some("See the original"));
        assert_eq!(with(&[yes, method].concat()).as_deref(), Some("By hand."));
    }

    #[test]
    fn what_no_honest_decoder_seals_is_not_unsealed() {
        let sealed = filing(&file()).unwrap().sealed();
        assert_eq!(Filing::unsealed(&sealed), filing(&file()));
        assert!(sealed.len() < MAX_BYTES);
        let with = |bytes: &[u8]| Filing::unsealed(&[&sealed, bytes].concat());
        for bytes in
            [&b"x"[..], &[0x20, 0, 0x10, 0, 9, 0, 1], &[8, 0, 5, 0, 1, 0, 65], &[0xe0, 0x7f, 0x10, 0, 1, 0, 65]]
        {
            assert!(with(bytes).is_none(), "{bytes:?}");
        }
        assert!(with(&[0x20, 0, 0x10, 0, 1, 0, 65]).is_some());
        for end in 0..sealed.len() {
            assert!(Filing::unsealed(&sealed[..end]).is_none(), "{end}");
        }
    }
}
