//! Radiographs full of a patient who does not exist, and the search for that patient in what the box says. Not a test.
//!
//! Every planted value holds one of a few marks that occur nowhere else: a word in texts, a run of digits in numbers and
//! UIDs, a date in dates. To search for the marks finds every planted value, and a part of one too.

#![allow(dead_code, reason = "every test file uses its own part of this")]

use crate::common::Random;
use crate::common::dicom::{Dataset, PIXELS, chest};
use dicom_core::dictionary::{DataDictionary, DataDictionaryEntry, VirtualVr};
use dicom_core::{Tag, VR};
use dicom_dictionary_std::StandardDataDictionary;
use std::fmt::Write;
use std::path::Path;

/// In every planted text, and in the names of files and folders.
pub(crate) const WORD: &str = "ZQXWJKVB";
/// In every planted number and UID.
pub(crate) const DIGITS: &str = "77310577";
/// Every planted date.
pub(crate) const DATE: &str = "18770321";

/// The elements that the box reads: planting there makes another variant of the file, not the one that is judged.
const READ: [(u16, u16); 16] = [
    (0x0008, 0x0016),
    (0x0008, 0x0060),
    (0x0008, 0x0068),
    (0x0008, 0x2218),
    (0x0018, 0x0015),
    (0x0018, 0x5101),
    (0x0028, 0x0004),
    (0x0028, 0x0008),
    (0x0028, 0x1050),
    (0x0028, 0x1051),
    (0x0028, 0x1052),
    (0x0028, 0x1053),
    (0x0028, 0x1056),
    (0x0028, 0x3000),
    (0x0028, 0x3010),
    (0x7fe0, 0x0010),
];

/// A value of that VR with a mark in it; `None` where the VR is too short for one or no text.
fn value(vr: VR, number: usize) -> Option<(&'static str, String)> {
    Some(match vr {
        VR::AE => ("AE", format!("{WORD}{number}")),
        VR::CS => ("CS", format!("{WORD}_{number}")),
        VR::DA => ("DA", DATE.into()),
        VR::DS => ("DS", format!("{DIGITS}.{number}")),
        VR::DT => ("DT", format!("{DATE}104500.{number}")),
        VR::IS => ("IS", DIGITS.into()),
        VR::LO => ("LO", format!("{WORD} No. {number}, Long Lane 4")),
        VR::LT => ("LT", format!("Patient {WORD} {number} called +49 {DIGITS}")),
        VR::PN => ("PN", format!("{WORD}{number}^Anna^{DIGITS}=={WORD}")),
        VR::SH => ("SH", format!("{WORD}{number}")),
        VR::ST => ("ST", format!("{WORD} {number}\r\n12345 {WORD}town")),
        VR::UC => ("UC", format!("{WORD} unlimited {number}")),
        VR::UI => ("UI", format!("1.2.826.0.1.{DIGITS}.{number}")),
        VR::UR => ("UR", format!("https://{WORD}.example/{number}?id={DIGITS}")),
        VR::UT => ("UT", format!("{WORD} text {number}, born {DATE}")),
        _ => return None,
    })
}

/// Every element of the standard's dictionary in the groups of images.
fn dictionary() -> impl Iterator<Item = (Tag, VR)> {
    let groups = (0x0008..=0x00a0).chain(0x0400..=0x0400).chain(0x2000..=0x2200).chain(0x3002..=0x3010);
    let groups = groups.chain([0x4000, 0x4008, 0x4010, 0x4ffe, 0x5000, 0x5200, 0x5400, 0x5600, 0x6000]);
    let tags =
        groups.filter(|group| group % 2 == 0).flat_map(|group| (0..=0xffff).map(move |element| Tag(group, element)));
    tags.filter_map(|tag| match StandardDataDictionary.by_tag(tag)?.vr() {
        VirtualVr::Exact(vr) => Some((tag, vr)),
        _ => None,
    })
}

/// How much was planted: textual elements, and sequences with such in them.
#[derive(Default)]
pub(crate) struct Planted {
    pub(crate) elements: usize,
    pub(crate) sequences: usize,
}

/// A judged chest radiograph of which every textual element holds a mark, those in sequences and private ones too.
pub(crate) fn data_set(planted: &mut Planted) -> Dataset {
    let inner = |number: usize| {
        Dataset::default()
            .text((0x0008, 0x0104), "LO", &format!("{WORD} meaning {number}"))
            .text((0x0010, 0x0010), "PN", &format!("{WORD}^{number}"))
            .text((0x0040, 0xa123), "PN", &format!("Dr. {WORD}"))
            .text((0x0040, 0xa124), "UI", &format!("1.2.826.0.1.{DIGITS}.{number}"))
            .text((0x0040, 0xa121), "DA", DATE)
    };
    let mut object = chest(200, 200, 8, 8);
    for (number, (tag, vr)) in dictionary().enumerate() {
        let tag = (tag.0, tag.1);
        if READ.contains(&tag) {
            continue;
        }
        if vr == VR::SQ {
            let deep = Dataset::default().items(tag, vec![inner(number).items(tag, vec![inner(number)])]);
            object = object.items(tag, vec![inner(number), deep]);
            planted.sequences += 1;
        } else if let Some((vr, text)) = value(vr, number) {
            object = object.text(tag, vr, &text);
            planted.elements += 1;
        }
    }
    let mut random = Random::new(planted.elements as u64);
    let pixels: Vec<u8> = (0..200 * 200).map(|at| (at / 200 + random.below(20)) as u8).collect();
    object
        .text((0x0009, 0x0010), "LO", &format!("{WORD} CREATOR"))
        .text((0x0009, 0x1001), "PN", &format!("{WORD}^Private"))
        .text((0x0009, 0x1002), "UN", &format!("{WORD} {DIGITS} {DATE}"))
        .text((0x6000, 0x1500), "LO", &format!("{WORD} overlay"))
        .text((0x6000, 0x0022), "LO", &format!("{WORD} overlay"))
        .bytes((0x6000, 0x3000), "OB", WORD.as_bytes())
        .bytes(PIXELS, "OB", &pixels)
        .bytes((0xfffc, 0xfffc), "OB", format!("{WORD} padding").as_bytes())
}

/// The file of a data set, with marks in its preamble and file meta information.
pub(crate) fn file(object: &Dataset, syntax: &str) -> Vec<u8> {
    let meta = Dataset::default()
        .bytes((2, 1), "OB", &[0, 1])
        .text((2, 3), "UI", &format!("1.2.826.0.1.{DIGITS}.3"))
        .text((2, 0x10), "UI", syntax)
        .text((2, 0x13), "SH", WORD)
        .text((2, 0x16), "AE", WORD)
        .text((2, 0x18), "AE", WORD)
        .text((2, 0x100), "UI", &format!("1.2.826.0.1.{DIGITS}.4"))
        .bytes((2, 0x102), "OB", WORD.as_bytes())
        .bare(crate::common::dicom::EXPLICIT);
    let mut file = format!("{WORD} {DIGITS} {DATE} ").into_bytes();
    file.resize(128, b' ');
    file.extend(b"DICM");
    file.extend([2, 0, 0, 0, b'U', b'L', 4, 0]);
    file.extend((meta.len() as u32).to_le_bytes());
    file.extend(meta);
    file.extend(object.bare(syntax));
    file
}

/// A PNG with marks in its text chunks.
pub(crate) fn png(image: Vec<u8>) -> Vec<u8> {
    let mut chunk = b"tEXt".to_vec();
    chunk.extend(format!("Author\0{WORD} {DIGITS} {DATE}").as_bytes());
    let mut crc = flate2::Crc::new();
    crc.update(&chunk);
    let mut text = (chunk.len() as u32 - 4).to_be_bytes().to_vec();
    text.extend(chunk);
    text.extend(crc.sum().to_be_bytes());
    // Behind the signature and the header.
    [&image[..33], &text, &image[33..]].concat()
}

/// A JPEG with marks in a comment and in an application segment.
pub(crate) fn jpeg(image: &[u8]) -> Vec<u8> {
    let mut file = image[..2].to_vec();
    for kind in [0xfe, 0xe1] {
        let text = format!("Exif\0\0{WORD} {DIGITS} {DATE}");
        file.extend([0xff, kind]);
        file.extend((text.len() as u16 + 2).to_be_bytes());
        file.extend(text.as_bytes());
    }
    file.extend(&image[2..]);
    file
}

/// A name for a file or folder, as exports from other systems are called.
pub(crate) fn name(number: usize, suffix: &str) -> String {
    format!("{WORD}^Anna {DIGITS} {DATE} {number}{suffix}")
}

/// What is searched for, with a word for where it was found.
struct Needle {
    bytes: Vec<u8>,
    /// Whether letters count as the same in either case.
    folded: bool,
    what: String,
}

/// Looks for secrets, in every form in which a program may write them.
pub(crate) struct Search {
    needles: Vec<Needle>,
}

impl Search {
    /// For the planted patient.
    pub(crate) fn for_the_patient() -> Self {
        let dates = ["1877-03-21", "21.03.1877", "03/21/1877", "1877/03/21"];
        let mut search = Self { needles: Vec::new() };
        for text in [WORD, DIGITS, DATE].into_iter().chain(dates) {
            search.add(text, text.as_bytes());
        }
        search
    }

    /// For these bytes too, and for all that they are written as.
    pub(crate) fn add(&mut self, what: &str, bytes: &[u8]) {
        let hex = bytes.iter().fold(String::new(), |mut text, byte| {
            write!(text, "{byte:02x}").unwrap();
            text
        });
        let percent = bytes.iter().fold(String::new(), |mut text, byte| {
            write!(text, "%{byte:02x}").unwrap();
            text
        });
        let spaced: Vec<String> = bytes.iter().map(|byte| byte.to_string()).collect();
        let wide = |order: fn(u16) -> [u8; 2]| bytes.iter().flat_map(|&byte| order(byte.into())).collect::<Vec<u8>>();
        let mut add = |form: &str, bytes: Vec<u8>, folded| {
            let bytes = if folded { bytes.to_ascii_lowercase() } else { bytes };
            self.needles.push(Needle { bytes, folded, what: format!("{what} as {form}") });
        };
        add("it is", bytes.to_vec(), true);
        add("UTF-16LE", wide(u16::to_le_bytes), true);
        add("UTF-16BE", wide(u16::to_be_bytes), true);
        add("hexadecimal", hex.into_bytes(), true);
        add("percent-encoded", percent.into_bytes(), true);
        add("a list of numbers", spaced.join(",").into_bytes(), false);
        add("a list of numbers", spaced.join(", ").into_bytes(), false);
        add("backwards", bytes.iter().rev().copied().collect(), true);
        for shift in 0..3 {
            let text = base64(&[&vec![0; shift], bytes].concat());
            // Without the characters that neighbours have a share in.
            let text = &text[(shift * 8).div_ceil(6)..(shift + bytes.len()) * 8 / 6];
            add("base64", text.into(), false);
            add("base64url", text.replace('+', "-").replace('/', "_").into(), false);
        }
    }

    /// What is in there, in words; empty when nothing is.
    pub(crate) fn hits(&self, place: &str, bytes: &[u8]) -> Vec<String> {
        let folded = bytes.to_ascii_lowercase();
        let is_in = |needle: &Needle| {
            let hay = if needle.folded { &folded } else { bytes };
            hay.windows(needle.bytes.len()).any(|window| window[0] == needle.bytes[0] && window == needle.bytes)
        };
        self.needles.iter().filter(|needle| is_in(needle)).map(|needle| format!("{place}: {}", needle.what)).collect()
    }

    /// The same for all files below a folder, their names included; `but` says which names and files are let off.
    pub(crate) fn hits_below(&self, folder: &Path, but: &dyn Fn(&Path) -> bool) -> Vec<String> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if but(&path) {
                continue;
            }
            let shown = path.display().to_string();
            found.extend(self.hits("the name of a file", path.file_name().unwrap().as_encoded_bytes()));
            if path.is_dir() {
                found.extend(self.hits_below(&path, but));
            } else if path.is_file() {
                found.extend(self.hits(&shown, &std::fs::read(&path).unwrap()));
            }
        }
        found
    }
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let word = three.iter().chain([0, 0].iter()).take(3).fold(0u32, |word, &byte| word << 8 | u32::from(byte));
        for at in 0..=three.len() {
            text.push(char::from(LETTERS[(word >> (18 - 6 * at) & 63) as usize]));
        }
    }
    text
}
