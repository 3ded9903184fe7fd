//! Promise: no file, however broken, makes the box panic, and none makes it take more than its limits: every one ends as a
//! radiograph or as a refusal with its code, and bombs as `LimitExceeded`.

mod common;

use common::dicom::*;
use common::{Random, key, open, shared, shared_files};
use image::{DynamicImage, ImageBuffer, ImageFormat};
use roentgen::radiograph::{Limits, Pixels, Radiograph, Refusal, RefusalCode, dicom, open_bytes, phantom};
use std::fs;
use std::io::Cursor;

/// One small file of each format and codec, with its name.
fn corpus() -> Vec<(String, Vec<u8>)> {
    let image = DynamicImage::ImageLuma8(ImageBuffer::from_raw(64, 64, phantom::phantom(1, 64)).unwrap());
    let mut files = Vec::new();
    for (name, image, format) in [
        ("grey.png", image.clone(), ImageFormat::Png),
        ("colour.png", DynamicImage::ImageRgba8(image.to_rgba8()), ImageFormat::Png),
        ("deep.png", DynamicImage::ImageLuma16(image.to_luma16()), ImageFormat::Png),
        ("grey.jpg", image.clone(), ImageFormat::Jpeg),
        ("colour.jpg", DynamicImage::ImageRgb8(image.to_rgb8()), ImageFormat::Jpeg),
    ] {
        let mut bytes = Cursor::new(Vec::new());
        image.write_to(&mut bytes, format).unwrap();
        files.push((name.to_string(), bytes.into_inner()));
    }
    let words: Vec<u16> = phantom::phantom(2, 48).into_iter().map(|level| u16::from(level) * 16).collect();
    let lut =
        Dataset::default().words((0x0028, 0x3002), "US", &[4, 0, 12]).words((0x0028, 0x3006), "US", &[0, 9, 99, 999]);
    let dataset = chest(48, 48, 16, 12)
        .text(SLOPE, "DS", "1.5")
        .text(INTERCEPT, "DS", "-10")
        .words(PADDING, "US", &[0])
        .items((0x0028, 0x3010), vec![lut]);
    for syntax in [EXPLICIT, IMPLICIT, BIG_ENDIAN, DEFLATED] {
        files.push((format!("{syntax}.dcm"), dataset.clone().words(PIXELS, "OW", &words).file(syntax)));
    }
    files.push(("rle.dcm".into(), dataset.clone().fragments(&[&rle(&words, 2)]).file(RLE)));
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/codecs");
    for (name, uid, bits) in [
        ("lossless-12-p6.jpg", "1.2.840.10008.1.2.4.57", 12),
        ("dct-8.jpg", "1.2.840.10008.1.2.4.50", 8),
        ("dct-12.jpg", "1.2.840.10008.1.2.4.51", 12),
        ("lossless-16.jls", "1.2.840.10008.1.2.4.80", 16),
        ("near-3-8.jls", "1.2.840.10008.1.2.4.81", 8),
        ("lossless-12.j2k", "1.2.840.10008.1.2.4.90", 12),
    ] {
        let stream = fs::read(folder.join(name)).unwrap();
        let dataset = chest(45, 52, if bits == 8 { 8 } else { 16 }, bits).fragments(&[&stream]);
        files.push((format!("{name}.dcm"), dataset.file(uid)));
    }
    files
}

/// A result must keep what every radiograph promises.
fn sound(name: &str, result: &Result<Radiograph, Refusal>, limits: &Limits) {
    match result {
        Ok(radiograph) => {
            let pixels = u64::from(radiograph.width) * u64::from(radiograph.height);
            let length = match &radiograph.pixels {
                Pixels::Grey8(levels) => levels.len(),
                Pixels::Grey16(levels) => levels.len(),
            };
            assert_eq!(length as u64, pixels, "{name}");
            assert!((1..=limits.max_pixels).contains(&pixels), "{name}");
        }
        Err(refusal) => {
            assert!(refusal.message.ends_with('.') && refusal.message.len() > 20, "{name}: {refusal}");
            assert!(!refusal.message.contains("Doe"), "{name}: {refusal}");
        }
    }
}

#[test]
fn whole_files_open() {
    for (name, bytes) in corpus() {
        open(&bytes).unwrap_or_else(|refusal| panic!("{name}: {refusal}"));
    }
}

#[test]
fn truncation_at_every_percent_is_refused() {
    for (name, bytes) in corpus() {
        for percent in 0..100 {
            let result = open(&bytes[..bytes.len() * percent / 100]);
            sound(&name, &result, &Limits::default());
            assert!(result.is_err(), "{name} cut to {percent} %");
        }
    }
}

#[test]
fn random_byte_flips_neither_panic_nor_exceed_the_limits() {
    let limits = Limits { max_pixels: 1 << 20, max_decoded_bytes: 8 << 20, ..Limits::default() };
    for (seed, (name, bytes)) in corpus().into_iter().enumerate() {
        let mut random = Random::new(seed as u64 + 1);
        for round in 0..400 {
            let mut broken = bytes.clone();
            for _ in 0..1 + round % 4 {
                // Half of the flips hit the headers, where they do the most.
                let reach = if round % 2 == 0 { bytes.len() } else { bytes.len().min(900) };
                broken[random.below(reach)] ^= 1 << random.below(8);
            }
            sound(&name, &open_bytes(&broken, &limits, &key()), &limits);
        }
    }
}

#[test]
fn blocks_overwritten_moved_and_doubled_neither_panic_nor_exceed_the_limits() {
    let limits = Limits { max_pixels: 1 << 20, max_decoded_bytes: 8 << 20, ..Limits::default() };
    for (seed, (name, bytes)) in corpus().into_iter().enumerate() {
        let mut random = Random::new(seed as u64 + 100);
        for round in 0..100 {
            let (from, to) = (random.below(bytes.len()), random.below(bytes.len()));
            let length = 1 + random.below(16).min(bytes.len() - from - 1);
            let block = bytes[from..from + length].to_vec();
            let mut broken = bytes.clone();
            match round % 3 {
                0 => broken[from..from + length].fill(0xff),
                1 => drop(broken.splice(to..to, block)),
                _ => drop(broken.drain(from..from + length)),
            }
            sound(&name, &open_bytes(&broken, &limits, &key()), &limits);
        }
    }
}

#[test]
fn real_compressed_files_survive_truncation_and_flips() {
    if shared("dicom").is_none() {
        return;
    }
    let mut random = Random::new(7);
    for path in ["dicom/chest", "dicom/other"].iter().flat_map(|folder| shared_files(folder, ".dcm")) {
        let bytes = fs::read(&path).unwrap();
        let name = path.display().to_string();
        // The checks of the tags are left out, so that the decoders see the extremity files too. Cuts end early, at the
        // walk; flips in the pixel data reach the decoders, which take a tenth of a second and more for such pictures.
        for percent in 0..100 {
            assert!(
                dicom::display(&bytes[..bytes.len() * percent / 100], &Limits::default()).is_err(),
                "{name} {percent} %"
            );
        }
        for round in 0..8 {
            let mut broken = bytes.clone();
            let reach = if round < 5 { 3000 } else { bytes.len() };
            broken[random.below(reach)] ^= 1 << random.below(8);
            let _ = dicom::display(&broken, &Limits::default());
        }
    }
}

/// The limit that a refusal names.
fn limit_of(bytes: &[u8]) -> String {
    let refusal = open(bytes).expect_err("a bomb");
    assert_eq!(refusal.code, RefusalCode::LimitExceeded, "{refusal}");
    refusal.message.split(['(', ')']).nth(1).unwrap().to_string()
}

/// A PNG header that claims a size, with a few bytes of data.
fn png_claiming(width: u32, height: u32) -> Vec<u8> {
    let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
    let mut chunk = |kind: &[u8; 4], data: &[u8]| {
        png.extend((data.len() as u32).to_be_bytes());
        let body = [&kind[..], data].concat();
        let mut crc = flate2::Crc::new();
        crc.update(&body);
        png.extend(&body);
        png.extend(crc.sum().to_be_bytes());
    };
    let header = [&width.to_be_bytes()[..], &height.to_be_bytes(), &[8, 0, 0, 0, 0]].concat();
    chunk(b"IHDR", &header);
    chunk(b"IDAT", &[0x78, 0x9c, 0x63, 0, 0, 0, 1, 0, 1]);
    chunk(b"IEND", &[]);
    png
}

#[test]
fn bombs_end_at_the_limit_they_break() {
    assert_eq!(limit_of(&png_claiming(60000, 60000)), "max_pixels");
    // A JPEG that claims 65500 × 65500.
    let mut jpeg = Cursor::new(Vec::new());
    let image = DynamicImage::ImageLuma8(ImageBuffer::from_raw(64, 64, phantom::phantom(1, 64)).unwrap());
    image.write_to(&mut jpeg, ImageFormat::Jpeg).unwrap();
    let mut jpeg = jpeg.into_inner();
    let frame = jpeg.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
    jpeg[frame + 5..frame + 9].copy_from_slice(&[0xff, 0xdc, 0xff, 0xdc]);
    assert_eq!(limit_of(&jpeg), "max_pixels");

    let huge = chest(65535, 65535, 16, 12);
    assert_eq!(limit_of(&huge.clone().words(PIXELS, "OW", &[1, 2, 3]).file(EXPLICIT)), "max_pixels");
    assert_eq!(limit_of(&huge.fragments(&[&[0xff, 0xd8, 0xff, 0xd9]]).file("1.2.840.10008.1.2.4.70")), "max_pixels");

    let mut nested = Dataset::default();
    for _ in 0..1000 {
        nested = Dataset::default().items((0x0008, 0x1140), vec![nested]);
    }
    let deep = chest(1, 1, 8, 8).bytes(PIXELS, "OB", &[0]).items((0x0008, 0x1140), vec![nested]);
    assert_eq!(limit_of(&deep.file(EXPLICIT)), "max_nesting");
    assert_eq!(limit_of(&deep.file(IMPLICIT)), "max_nesting");

    let million = vec![Dataset::default(); 1_000_000];
    let many = chest(1, 1, 8, 8).bytes(PIXELS, "OB", &[0]).items((0x0008, 0x1140), million);
    assert_eq!(limit_of(&many.file(EXPLICIT)), "max_elements");
    let empty: Vec<&[u8]> = vec![&[]; 1_000_000];
    assert_eq!(limit_of(&chest(1, 1, 8, 8).fragments(&empty).file(RLE)), "max_elements");

    let small = Limits { max_decoded_bytes: 1 << 20, ..Limits::default() };
    let zeros = chest(1, 1, 8, 8).bytes((0x0009, 0x1010), "OB", &vec![0; 2 << 20]).bytes(PIXELS, "OB", &[0]);
    let refusal = open_bytes(&zeros.file(DEFLATED), &small, &key()).unwrap_err();
    assert!(refusal.code == RefusalCode::LimitExceeded && refusal.message.contains("max_decoded_bytes"), "{refusal}");
    let refusal = open_bytes(&png_claiming(1100, 1000), &small, &key()).unwrap_err();
    assert!(refusal.message.contains("max_decoded_bytes"), "{refusal}");
    let refusal = open_bytes(&[0; 2000], &Limits { max_file_bytes: 1999, ..small }, &key()).unwrap_err();
    assert!(refusal.message.contains("max_file_bytes"), "{refusal}");
}

#[test]
fn deeper_than_the_limit_is_refused_and_at_the_limit_is_not() {
    let nested = |depth: usize| {
        let mut item = Dataset::default().text((0x0008, 0x0100), "SH", "X");
        for _ in 1..depth {
            item = Dataset::default().items((0x0008, 0x1140), vec![item]);
        }
        chest(1, 2, 8, 8).bytes(PIXELS, "OB", &[0, 9]).items((0x0008, 0x1140), vec![item]).file(EXPLICIT)
    };
    assert!(open(&nested(16)).is_ok());
    assert_eq!(open(&nested(17)).unwrap_err().code, RefusalCode::LimitExceeded);
}

#[test]
fn what_another_parser_would_read_differently_is_refused_or_left_out() {
    let good = chest(1, 2, 8, 8).bytes(PIXELS, "OB", &[0, 9]);
    // A private sequence of unknown VR and undefined length has implicit VRs inside (PS3.5 6.2.2): it is left out.
    let bare = good.bare(EXPLICIT);
    let at = bare.windows(4).position(|tag| tag == [0x10, 0, 0x10, 0]).unwrap();
    let private = [
        &[0x09, 0, 0x10, 0x10, b'U', b'N', 0, 0, 0xff, 0xff, 0xff, 0xff][..],
        &[0xfe, 0xff, 0x00, 0xe0, 0xff, 0xff, 0xff, 0xff],
        &[0x09, 0, 0x11, 0x10, 2, 0, 0, 0, 7, 7],
        &[0xfe, 0xff, 0x0d, 0xe0, 0, 0, 0, 0, 0xfe, 0xff, 0xdd, 0xe0, 0, 0, 0, 0],
    ]
    .concat();
    let with_private = [&bare[..at], &private, &bare[at..]].concat();
    assert_eq!(open(&with_private).unwrap().pixels, open(&bare).unwrap().pixels);

    // Pixel data whose tag was broken: a parser takes the fragments for elements and their bytes for lengths of gigabytes.
    let mut moved = chest(1, 2, 8, 8).fragments(&[&[0xff; 64]]).file(RLE);
    let at = moved.windows(4).position(|tag| tag == [0xe0, 0x7f, 0x10, 0]).unwrap();
    moved[at + 1] = 0x7e;
    assert!(open(&moved).is_err());
    // A needed element with a length that its VR does not have.
    let odd = good.bytes((0x0028, 0x0010), "US", &[]).file(EXPLICIT);
    assert_eq!(open(&odd).unwrap_err().code, RefusalCode::Damaged);
}
