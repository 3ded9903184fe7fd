//! Promise: each codec gives the samples that independent encoders (libjpeg-turbo, CharLS, OpenJPEG) put in, and refuses
//! codestreams that are cut off, broken or of another size than the caller expects. `data/codecs/make.py` made the files.

use roentgen::radiograph::codec::{CodecError, Extent, jpeg, jpeg_ls, jpeg2000};
use std::fs;
use std::path::{Path, PathBuf};

const EXTENT: Extent = Extent { rows: 45, columns: 52, components: 1 };

/// The picture that was encoded: slopes, flat fields and noise, in tiles of 8 × 8.
fn picture(bits: u32) -> Vec<u16> {
    let value = |x: i64, y: i64| {
        let slope = (x * x + 3 * y * y + x * y) * (1 << bits) / 16384;
        let noise = ((x * 73) ^ (y * 151)) % 7;
        let value = match (x / 8 + y / 8) % 3 {
            0 => 1 << (bits - 1),
            1 => slope + noise,
            _ => slope,
        };
        (value % (1 << bits)) as u16
    };
    (0..45).flat_map(|y| (0..52).map(move |x| value(x, y))).collect()
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/codecs")
}

fn read(name: &str) -> Vec<u8> {
    fs::read(folder().join(name)).unwrap()
}

/// Decodes by the file's ending.
fn decode(name: &str, stream: &[u8], extent: Extent) -> Result<Vec<u16>, CodecError> {
    match name.rsplit('.').next() {
        Some("jpg") => jpeg::decode_grey(stream, extent),
        Some("jls") => jpeg_ls::decode(stream, extent),
        _ => jpeg2000::decode(stream, extent),
    }
}

/// The largest distance of two pictures.
fn distance(a: &[u16], b: &[u16]) -> u16 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(&a, &b)| a.abs_diff(b)).max().unwrap()
}

#[test]
fn lossless_codestreams_give_back_exactly_what_was_put_in() {
    let mut names: Vec<(String, u32)> = (1..=7).map(|p| (format!("lossless-12-p{p}.jpg"), 12)).collect();
    names.extend([8, 10, 16].map(|bits| (format!("lossless-{bits}-p1.jpg"), bits)));
    names.extend([8, 16].map(|bits| (format!("lossless-{bits}.jls"), bits)));
    names.extend([8, 10, 12, 16].map(|bits| (format!("lossless-{bits}.j2k"), bits)));
    for (name, bits) in names {
        let samples = decode(&name, &read(&name), EXTENT).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(distance(&samples, &picture(bits)), 0, "{name}");
    }
}

#[test]
fn near_lossless_jpeg_ls_stays_within_its_bound() {
    for bits in [8, 16] {
        let name = format!("near-3-{bits}.jls");
        let samples = decode(&name, &read(&name), EXTENT).unwrap_or_else(|error| panic!("{name}: {error}"));
        let far = distance(&samples, &picture(bits));
        assert!((1..=3).contains(&far), "{name}: {far}");
    }
}

#[test]
fn dct_codestreams_of_8_and_12_bits_come_close() {
    // The tiles' edges and the wrapped slopes ring: the mean is what a wrong coefficient or table would spoil.
    for (name, bits, most) in [("dct-8.jpg", 8, 1.5), ("dct-8-restarts.jpg", 8, 1.5), ("dct-12.jpg", 12, 12.0)] {
        let samples = decode(name, &read(name), EXTENT).unwrap_or_else(|error| panic!("{name}: {error}"));
        let sum: u64 = samples.iter().zip(picture(bits)).map(|(&a, b)| u64::from(a.abs_diff(b))).sum();
        let mean = sum as f64 / samples.len() as f64;
        assert!(mean < most, "{name}: {mean}");
    }
}

#[test]
fn signed_jpeg_2000_samples_come_out_in_twos_complement() {
    let samples = jpeg2000::decode(&read("signed-16.j2k"), EXTENT).unwrap();
    let expected: Vec<u16> = picture(12).into_iter().map(|value| value.wrapping_sub(2048)).collect();
    assert_eq!(distance(&samples, &expected), 0);
}

#[test]
fn a_codestream_of_another_size_than_expected_is_refused() {
    for entry in fs::read_dir(folder()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name.ends_with(".py") {
            continue;
        }
        let stream = read(&name);
        for extent in [
            Extent { rows: 44, ..EXTENT },
            Extent { columns: 53, ..EXTENT },
            Extent { components: 3, ..EXTENT },
            Extent { rows: 65535, columns: 65535, components: 1 },
        ] {
            assert!(decode(&name, &stream, extent).is_err(), "{name} as {extent:?}");
        }
    }
}

#[test]
fn a_truncated_codestream_is_refused_or_whole() {
    for entry in fs::read_dir(folder()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name.ends_with(".py") {
            continue;
        }
        let stream = read(&name);
        // JPEG 2000 is made to be cut; what is cut short of its last quarter must not pass all the same.
        for length in 0..stream.len() * 3 / 4 {
            assert!(decode(&name, &stream[..length], EXTENT).is_err(), "{name} cut to {length} of {}", stream.len());
        }
    }
}
