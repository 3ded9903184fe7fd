//! The files that the clinic drops: radiographs, each another one, and what is none. Says of each what must become of it.

use crate::common::dicom::{CENTER, EXPLICIT, IMPLICIT, PIXELS, RLE, WIDTH, chest, rle};
use crate::common::{Random, shared_files};
use crate::support::png;
use image::{ImageFormat, RgbImage};
use roentgen::radiograph::phantom;
use std::fs;
use std::io::Cursor;

/// What must become of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// A report, and the file in `done/`.
    Reported,
    /// The file in `rejected/` with a reason of this code beside it.
    Rejected(&'static str),
}

/// A file's ending, its bytes and its fate.
#[derive(Clone)]
pub(super) struct Image {
    pub(super) ending: &'static str,
    pub(super) bytes: Vec<u8>,
    pub(super) fate: Fate,
}

fn good(ending: &'static str, bytes: Vec<u8>) -> Image {
    Image { ending, bytes, fate: Fate::Reported }
}

fn bad(ending: &'static str, bytes: Vec<u8>, code: &'static str) -> Image {
    Image { ending, bytes, fate: Fate::Rejected(code) }
}

/// A DICOM file with a phantom in it.
fn dicom(seed: u64, syntax: &str) -> Vec<u8> {
    let size = 64;
    let words: Vec<u16> = phantom::phantom(seed, size).into_iter().map(|level| u16::from(level) * 16).collect();
    let dataset = chest(size as u16, size as u16, 16, 12).text(CENTER, "DS", "2048").text(WIDTH, "DS", "4096");
    match syntax {
        RLE => dataset.fragments(&[&rle(&words, 2)]).file(RLE),
        _ => dataset.words(PIXELS, "OW", &words).file(syntax),
    }
}

/// A photograph's colours, as no radiograph has them.
fn colours(seed: u64) -> Vec<u8> {
    let picture = RgbImage::from_fn(64, 64, |x, y| image::Rgb([(x * 4) as u8, (y * 4) as u8, (seed % 251) as u8]));
    let mut bytes = Vec::new();
    picture.write_to(&mut Cursor::new(&mut bytes), ImageFormat::Png).expect("an encoder");
    bytes
}

/// Draws files: no end of them.
pub(super) struct Images {
    random: Random,
    /// The phantom's seed of the next one.
    next: u64,
    /// Real DICOM radiographs, where there are any.
    real: Vec<Vec<u8>>,
    /// Some of the good ones that were drawn, to be dropped again.
    earlier: Vec<Image>,
}

impl Images {
    pub(super) fn new(mut random: Random) -> Self {
        let real = shared_files("dicom/chest", ".dcm").iter().map(|path| fs::read(path).expect("readable")).collect();
        // Far from one another, so that the phantoms of two runs are not the same.
        let next = random.next() >> 20;
        Self { random, next, real, earlier: Vec::new() }
    }

    /// The next file. One in five is broken, one in twenty was there before.
    pub(super) fn draw(&mut self) -> Image {
        self.next += 1;
        let seed = self.next;
        let image = match self.random.below(100) {
            0..60 => good("png", png(seed)),
            60..66 => good("dcm", dicom(seed, EXPLICIT)),
            66..70 => good("dcm", dicom(seed, IMPLICIT)),
            70..73 => good("dcm", dicom(seed, RLE)),
            // Real ones are few, so most come more than once.
            73..75 if !self.real.is_empty() => good("dcm", self.real[self.random.below(self.real.len())].clone()),
            75..80 if !self.earlier.is_empty() => self.earlier[self.random.below(self.earlier.len())].clone(),
            80..85 => bad("png", self.cut(png(seed)), "damaged"),
            85..88 => bad("dcm", self.cut(dicom(seed, EXPLICIT)), "damaged"),
            88..92 => bad("png", format!("Dear colleague, {seed}").into_bytes(), "unknown_format"),
            92..94 => bad("png", Vec::new(), "damaged"),
            94..97 => bad("jpg", [b"GIF89a".as_slice(), &seed.to_le_bytes(), &[7; 300]].concat(), "unknown_format"),
            97..100 => bad("png", colours(seed), "not_a_radiograph"),
            _ => good("png", png(seed)),
        };
        if image.fate == Fate::Reported && self.earlier.len() < 64 {
            self.earlier.push(image.clone());
        }
        image
    }

    /// What came of a file whose copying was broken off somewhere in its third quarter, inside the pixels.
    fn cut(&mut self, mut bytes: Vec<u8>) -> Vec<u8> {
        bytes.truncate(bytes.len() / 2 + self.random.below(bytes.len() / 4));
        bytes
    }
}
