//! Promise: a PNG or JPEG is known by its bytes, comes out with its own grey levels, and is refused, with a true reason,
//! when its colours disagree, its file is cut off, or it is no ordinary file.

mod common;

use common::{key, open, shared_files};
use image::{DynamicImage, ImageBuffer, ImageFormat};
use roentgen::radiograph::{self, Limits, OriginKind, Pixels, RefusalCode, phantom};
use sha2::{Digest, Sha256};
use std::fs;
use std::io::Cursor;

fn encode(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

fn grey8(width: u32, height: u32) -> Vec<u8> {
    (0..width * height).map(|i| (i * 37 % 256) as u8).collect()
}

fn grey16(width: u32, height: u32) -> Vec<u16> {
    (0..width * height).map(|i| (i * 7919 % 65536) as u16).collect()
}

/// An image of `width` × 5 pixels from its interleaved samples.
macro_rules! image {
    ($variant:ident, $width:expr, $samples:expr) => {
        DynamicImage::$variant(ImageBuffer::from_raw($width, 5, $samples).unwrap())
    };
}

#[test]
fn grey_png_of_8_and_16_bits_keeps_its_levels() {
    let radiograph = open(&encode(&image!(ImageLuma8, 9, grey8(9, 5)), ImageFormat::Png)).unwrap();
    assert_eq!((radiograph.width, radiograph.height), (9, 5));
    assert_eq!(radiograph.pixels, Pixels::Grey8(grey8(9, 5)));
    let radiograph = open(&encode(&image!(ImageLuma16, 9, grey16(9, 5)), ImageFormat::Png)).unwrap();
    assert_eq!(radiograph.pixels, Pixels::Grey16(grey16(9, 5)));
}

#[test]
fn colour_png_whose_channels_agree_is_its_grey_picture() {
    let grey = grey8(9, 5);
    let triple = |level: &u8| [*level; 3];
    let rgb: Vec<u8> = grey.iter().flat_map(triple).collect();
    let rgba: Vec<u8> = grey.iter().flat_map(|&level| [level, level, level, 255]).collect();
    let deep: Vec<u16> = grey16(9, 5).iter().flat_map(|&level| [level; 3]).collect();
    assert_eq!(
        open(&encode(&image!(ImageRgb8, 9, rgb), ImageFormat::Png)).unwrap().pixels,
        Pixels::Grey8(grey.clone())
    );
    assert_eq!(open(&encode(&image!(ImageRgba8, 9, rgba), ImageFormat::Png)).unwrap().pixels, Pixels::Grey8(grey));
    let sixteen = open(&encode(&image!(ImageRgb16, 9, deep), ImageFormat::Png)).unwrap();
    assert_eq!(sixteen.pixels, Pixels::Grey16(grey16(9, 5)));
}

#[test]
fn what_is_transparent_is_black() {
    let samples: Vec<u8> = (0..45).flat_map(|i| [200, if i % 3 == 0 { 0 } else { 255 }]).collect();
    let expected = (0..45).map(|i| if i % 3 == 0 { 0 } else { 200 }).collect();
    let radiograph = open(&encode(&image!(ImageLumaA8, 9, samples), ImageFormat::Png)).unwrap();
    assert_eq!(radiograph.pixels, Pixels::Grey8(expected));
}

#[test]
fn a_tinge_within_the_tolerance_is_grey_and_beyond_it_colour() {
    let tinged = |by: u8| {
        let samples: Vec<u8> = (0..45).flat_map(|i| [i + 100, i + 100, i + 100 + by]).collect();
        open(&encode(&image!(ImageRgb8, 9, samples), ImageFormat::Png))
    };
    assert!(tinged(12).is_ok());
    assert_eq!(tinged(13).unwrap_err().code, RefusalCode::NotARadiograph);
}

#[test]
fn a_jpeg_is_close_to_what_was_encoded_in_grey_and_in_colour() {
    let levels = phantom::phantom(3, 96);
    let grey = DynamicImage::ImageLuma8(ImageBuffer::from_raw(96, 96, levels.clone()).unwrap());
    for image in [grey.clone(), DynamicImage::ImageRgb8(grey.to_rgb8())] {
        let radiograph = open(&encode(&image, ImageFormat::Jpeg)).unwrap();
        let Pixels::Grey8(decoded) = &radiograph.pixels else { panic!("8 bits") };
        let sum: u64 = decoded.iter().zip(&levels).map(|(&a, &b)| u64::from(a.abs_diff(b))).sum();
        assert!(sum < 4 * levels.len() as u64, "mean distance {}", sum as f64 / levels.len() as f64);
        assert_eq!(radiograph.origin.kind, OriginKind::Raster);
    }
}

#[test]
fn lossless_and_12_bit_jpeg_files_open_with_16_bits() {
    for name in ["lossless-16-p1.jpg", "dct-12.jpg"] {
        let bytes = fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/codecs/").to_string() + name).unwrap();
        let radiograph = open(&bytes).unwrap();
        let Pixels::Grey16(levels) = radiograph.pixels else { panic!("{name}: 16 bits") };
        assert!(levels.iter().any(|&level| level > 40000), "{name}: the range is spread");
    }
}

#[test]
fn the_origin_is_the_hash_of_the_bytes_and_nothing_else() {
    let png = encode(&image!(ImageLuma8, 9, grey8(9, 5)), ImageFormat::Png);
    let origin = open(&png).unwrap().origin;
    let hash: String = Sha256::digest(&png).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(origin.content_sha256, hash);
    assert_eq!((origin.study, origin.series, origin.instance, origin.modality, origin.view), Default::default());
}

#[test]
fn truncated_files_are_refused_as_damaged() {
    let image = DynamicImage::ImageLuma8(ImageBuffer::from_raw(96, 96, phantom::phantom(3, 96)).unwrap());
    for format in [ImageFormat::Png, ImageFormat::Jpeg] {
        let bytes = encode(&image, format);
        for percent in 1..99 {
            let cut = &bytes[..(bytes.len() * percent / 100).max(8)];
            let refusal = open(cut).expect_err(&format!("{format:?} cut to {percent} %"));
            assert_eq!(refusal.code, RefusalCode::Damaged, "{format:?} cut to {percent} %");
        }
    }
}

#[test]
fn other_formats_are_named_as_unknown() {
    assert_eq!(open(b"").unwrap_err().code, RefusalCode::Damaged);
    for bytes in [&b"GIF89a"[..], b"II*\0", b"BM", b"%PDF-1.7", b"RIFF0000WEBP", &[0; 200]] {
        assert_eq!(open(bytes).unwrap_err().code, RefusalCode::UnknownFormat);
    }
}

#[test]
fn only_regular_files_of_limited_size_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let limits = Limits { max_file_bytes: 1000, ..Limits::default() };
    let code = |path: &std::path::Path| radiograph::open(path, &limits, &key()).unwrap_err().code;
    assert_eq!(code(folder.path()), RefusalCode::Unreadable);
    assert_eq!(code(&folder.path().join("absent")), RefusalCode::Unreadable);
    assert_eq!(code("/dev/zero".as_ref()), RefusalCode::Unreadable);
    let fifo = folder.path().join("fifo");
    // With nobody writing, a careless open would wait for ever.
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    assert_eq!(code(&fifo), RefusalCode::Unreadable);
    let large = folder.path().join("large");
    fs::File::create(&large).unwrap().set_len(1001).unwrap();
    assert_eq!(code(&large), RefusalCode::LimitExceeded);
    let good = folder.path().join("any name at all.txt");
    fs::write(&good, encode(&image!(ImageLuma8, 9, grey8(9, 5)), ImageFormat::Png)).unwrap();
    assert!(radiograph::open(&good, &limits, &key()).is_ok());
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(&good, &link).unwrap();
    assert!(radiograph::open(&link, &limits, &key()).is_ok());
}

#[test]
fn real_radiographs_open_and_colour_photographs_do_not() {
    for class in ["covid", "lung_opacity", "normal", "viral_pneumonia"] {
        for path in shared_files(&format!("radiographs/test/{class}"), ".png").iter().step_by(10) {
            assert!(open(&fs::read(path).unwrap()).is_ok(), "{}", path.display());
        }
    }
    for path in shared_files("negatives/natural_skimage", "") {
        let colour = ["astronaut", "chelsea", "coffee", "motorcycle", "rocket", "logo"];
        if colour.iter().any(|name| path.to_string_lossy().contains(name)) {
            let refusal = open(&fs::read(&path).unwrap()).expect_err(&path.to_string_lossy());
            assert_eq!(refusal.code, RefusalCode::NotARadiograph, "{}", path.display());
        }
    }
}
