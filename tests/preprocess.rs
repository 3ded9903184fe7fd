//! Promise: preprocessing gives the same grey levels for the same anatomy whatever the file's size and depth, and the same
//! bytes on every processor.

mod common;

use common::dicom::{CENTER, EXPLICIT, PHOTOMETRIC, PIXELS, WIDTH, chest};
use common::{levels, shared_files};
use roentgen::preprocess::preprocess;
use roentgen::radiograph::{Pixels, Radiograph, encode_png, phantom};
use sha2::{Digest, Sha256};

/// Mean distance in grey levels of two preprocessed radiographs.
fn distance(a: &Radiograph, b: &Radiograph) -> f64 {
    let (a, b) = (preprocess(a), preprocess(b));
    let sum: u64 = a.data().iter().zip(b.data()).map(|(&a, &b)| u64::from(a.abs_diff(b))).sum();
    sum as f64 / a.data().len() as f64
}

/// Catmull-Rom interpolation at a fraction between the middle two of four samples.
fn cubic([a, b, c, d]: [f64; 4], t: f64) -> f64 {
    b + 0.5 * t * (c - a + t * (2.0 * a - 5.0 * b + 4.0 * c - d + t * (3.0 * (b - c) + d - a)))
}

/// The radiograph as a smooth picture of `size` × `size` pixels with 16 bits.
fn upscale(radiograph: &Radiograph, size: u32) -> Radiograph {
    let source = levels(radiograph);
    let (width, height) = (radiograph.width as i64, radiograph.height as i64);
    let at = |length: i64, index: u32| {
        let position = (f64::from(index) + 0.5) * length as f64 / f64::from(size) - 0.5;
        (position.floor() as i64, position - position.floor())
    };
    let sample = |row: i64, column: i64| {
        f64::from(source[(row.clamp(0, height - 1) * width + column.clamp(0, width - 1)) as usize])
    };
    // Columns first, then rows.
    let mut wide = vec![0.0; (height * i64::from(size)) as usize];
    for row in 0..height {
        for column in 0..size {
            let (left, t) = at(width, column);
            wide[(row * i64::from(size)) as usize + column as usize] =
                cubic(std::array::from_fn(|i| sample(row, left - 1 + i as i64)), t);
        }
    }
    let mut pixels = Vec::with_capacity(size as usize * size as usize);
    for row in 0..size {
        let (top, t) = at(height, row);
        for column in 0..size as usize {
            let value = cubic(
                std::array::from_fn(|i| {
                    wide[((top - 1 + i as i64).clamp(0, height - 1) * i64::from(size)) as usize + column]
                }),
                t,
            );
            pixels.push(value.round().clamp(0.0, 65535.0) as u16);
        }
    }
    Radiograph { width: size, height: size, pixels: Pixels::Grey16(pixels), ..radiograph.clone() }
}

/// A DICOM file of 14 of 16 bits that shows the radiograph through a window.
fn dicom_of(radiograph: &Radiograph, photometric: &str) -> Vec<u8> {
    let inverted = photometric == "MONOCHROME1";
    let word = |level: u16| if inverted { 16383 - (level >> 2) } else { level >> 2 };
    let words: Vec<u16> = levels(radiograph).into_iter().map(word).collect();
    chest(radiograph.height as u16, radiograph.width as u16, 16, 14)
        .text(PHOTOMETRIC, "CS", photometric)
        .text(CENTER, "DS", "8192")
        .text(WIDTH, "DS", "16384")
        .words(PIXELS, "OW", &words)
        .file(EXPLICIT)
}

#[test]
fn the_same_bytes_come_out_on_every_processor() {
    let mut hash = Sha256::new();
    for (seed, size) in [(1, 256), (2, 224), (3, 997), (4, 100)] {
        hash.update(preprocess(&phantom::radiograph(seed, size)).data());
        hash.update(preprocess(&upscale(&phantom::radiograph(seed, 64), size)).data());
    }
    let digest: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(
        digest, "71f6e62768f81315e65f95b432478d7aea353ff8aeb10c1da24a537c1b46b056",
        "a change here changes report ids: it is a new preprocessing version"
    );
}

#[test]
fn a_picture_of_the_networks_size_is_passed_through_untouched() {
    let radiograph = phantom::radiograph(5, 224);
    assert_eq!(preprocess(&radiograph).data(), phantom::phantom(5, 224));
    assert_eq!(preprocess(&radiograph).shape(), [1, 224, 224, 1]);
}

#[test]
fn eight_and_sixteen_bits_of_one_picture_give_the_same_bytes() {
    let eight = phantom::radiograph(6, 300);
    let sixteen = Radiograph { pixels: Pixels::Grey16(levels(&eight)), ..eight.clone() };
    assert_eq!(preprocess(&eight), preprocess(&sixteen));
}

#[test]
fn a_256_pixel_png_and_the_3000_pixel_dicom_made_from_it_give_the_same_grey_levels() {
    for (seed, photometric) in [(0, "MONOCHROME2"), (1, "MONOCHROME1"), (2, "MONOCHROME1")] {
        let small = common::open(&encode_png(&phantom::radiograph(seed, 256)).unwrap()).unwrap();
        let large = common::open(&dicom_of(&upscale(&small, 3000), photometric)).unwrap();
        assert_eq!((large.width, large.height), (3000, 3000));
        let far = distance(&small, &large);
        assert!(far <= 2.0, "phantom {seed}: {far} grey levels apart");
        println!("phantom {seed}: {far:.3} grey levels apart");
    }
}

#[test]
fn real_radiographs_and_the_3000_pixel_dicoms_made_from_them_give_the_same_grey_levels() {
    for class in ["covid", "lung_opacity", "normal", "viral_pneumonia"] {
        for path in shared_files(&format!("radiographs/test/{class}"), ".png").into_iter().step_by(60) {
            let small = common::open(&std::fs::read(&path).unwrap()).unwrap();
            let large = common::open(&dicom_of(&upscale(&small, 3000), "MONOCHROME1")).unwrap();
            let far = distance(&small, &large);
            assert!(far <= 2.0, "{}: {far} grey levels apart", path.display());
            println!("{class}: {far:.3} grey levels apart");
        }
    }
}

#[test]
fn nothing_of_a_wide_film_is_cut_off() {
    // White marks in the corners of a black 3000 × 2000 film must all arrive.
    let (width, height) = (3000usize, 2000usize);
    let mut pixels = vec![0u16; width * height];
    for (row, column) in [(0, 0), (0, width - 40), (height - 40, 0), (height - 40, width - 40)] {
        for line in row..row + 40 {
            pixels[line * width + column..line * width + column + 40].fill(65535);
        }
    }
    let film = Radiograph { width: 3000, height: 2000, pixels: Pixels::Grey16(pixels), ..phantom::radiograph(0, 1) };
    let result = preprocess(&film);
    for corner in [0, 223, 223 * 224, 224 * 224 - 1] {
        assert!(result.data()[corner] > 200, "corner {corner}: {}", result.data()[corner]);
    }
}

#[test]
fn every_size_gives_an_image_and_flat_stays_flat() {
    for (width, height) in [(1, 1), (1, 5000), (5000, 1), (223, 225), (17, 2)] {
        let pixels = Pixels::Grey8(vec![77; width as usize * height as usize]);
        let flat = Radiograph { width, height, pixels, ..phantom::radiograph(0, 1) };
        assert!(preprocess(&flat).data().iter().all(|&level| level == 77), "{width} × {height}");
    }
}

#[test]
fn phantoms_write_out_and_read_back_as_png() {
    let radiograph = phantom::radiograph(9, 200);
    let png = encode_png(&radiograph).unwrap();
    let back = common::open(&png).unwrap();
    assert_eq!(back.pixels, radiograph.pixels);
}
