//! Promise: a DICOM file comes out in display sense as the standard's grayscale pipeline says, in every photometric
//! interpretation, depth, signedness and transfer syntax that is read; and what is no chest radiograph is refused with
//! a true reason.

mod common;

use common::dicom::*;
use common::{key, levels, open, shared_files};
use proptest::prelude::*;
use roentgen::radiograph::dicom::voi::{Function, Window};
use roentgen::radiograph::dicom::{display, stored_values};
use roentgen::radiograph::{Limits, OriginKind, Pixels, RefusalCode};
use std::fs;

const ROWS: u16 = 6;
const COLUMNS: u16 = 7;

/// Some values of `bits` bits: the extremes, a slope, a flat field.
fn values(bits: u16) -> Vec<u16> {
    let mask = u16::MAX >> (16 - bits);
    (0..ROWS * COLUMNS)
        .map(|i| match i {
            0 => 0,
            1 => mask,
            2..=12 => mask / 3,
            _ => (u32::from(i) * 1657 % (u32::from(mask) + 1)) as u16,
        })
        .collect()
}

/// The file with native pixel data of either depth.
fn native(dataset: Dataset, allocated: u16, words: &[u16], syntax: &str) -> Vec<u8> {
    let dataset = match allocated {
        8 => dataset.bytes(PIXELS, "OB", &words.iter().map(|&word| word as u8).collect::<Vec<_>>()),
        _ => dataset.words(PIXELS, "OW", words),
    };
    dataset.file(syntax)
}

/// The value that a word stands for.
fn value(word: u16, bits: u16, signed: bool) -> f64 {
    let word = i32::from(word);
    f64::from(if signed && word >= 1 << (bits - 1) { word - (1 << bits) } else { word })
}

/// A window as PS3.3 C.11.2.1.2.1 and C.11.2.1.3 write it, with the output range 0..=65535.
fn window(function: &str, c: f64, w: f64, x: f64) -> f64 {
    let (ymin, ymax) = (0.0, 65535.0);
    match function {
        "LINEAR" if x <= c - 0.5 - (w - 1.0) / 2.0 => ymin,
        "LINEAR" if x > c - 0.5 + (w - 1.0) / 2.0 => ymax,
        "LINEAR" => ((x - (c - 0.5)) / (w - 1.0) + 0.5) * (ymax - ymin) + ymin,
        "LINEAR_EXACT" if x <= c - w / 2.0 => ymin,
        "LINEAR_EXACT" if x > c + w / 2.0 => ymax,
        "LINEAR_EXACT" => ((x - c) / w + 0.5) * (ymax - ymin) + ymin,
        _ => (ymax - ymin) / (1.0 + (-4.0 * (x - c) / w).exp()) + ymin,
    }
}

#[test]
fn every_photometric_depth_signedness_and_native_syntax_gives_the_windowed_values() {
    for syntax in [EXPLICIT, IMPLICIT, BIG_ENDIAN, DEFLATED, RLE] {
        for (allocated, stored) in [(8, 8), (8, 6), (16, 8), (16, 10), (16, 12), (16, 15), (16, 16)] {
            for signed in [false, true] {
                for photometric in ["MONOCHROME1", "MONOCHROME2"] {
                    let words = values(stored);
                    let (center, width) = (value(1 << (stored - 2), stored, signed), f64::from(1u32 << (stored - 1)));
                    let dataset = chest(ROWS, COLUMNS, allocated, stored)
                        .text(PHOTOMETRIC, "CS", photometric)
                        .words(REPRESENTATION, "US", &[u16::from(signed)])
                        .text(CENTER, "DS", &center.to_string())
                        .text(WIDTH, "DS", &width.to_string());
                    let file = if syntax == RLE {
                        dataset.fragments(&[&rle(&words, usize::from(allocated / 8))]).file(syntax)
                    } else {
                        native(dataset, allocated, &words, syntax)
                    };
                    let case = format!("{syntax} {allocated}/{stored} signed {signed} {photometric}");
                    let radiograph = open(&file).unwrap_or_else(|refusal| panic!("{case}: {refusal}"));
                    assert_eq!((radiograph.width, radiograph.height), (7, 6), "{case}");
                    assert_eq!(radiograph.origin.kind, OriginKind::Dicom);
                    for (&word, level) in words.iter().zip(levels(&radiograph)) {
                        let expected = window("LINEAR", center, width, value(word, stored, signed));
                        let expected = if photometric == "MONOCHROME1" { 65535.0 - expected } else { expected };
                        assert!(
                            (f64::from(level) - expected).abs() <= 0.51,
                            "{case}: {word} gave {level}, not {expected}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn every_step_is_recorded_in_order_in_the_standards_words() {
    let dataset = chest(ROWS, COLUMNS, 16, 12)
        .text(PHOTOMETRIC, "CS", "MONOCHROME1")
        .text(SLOPE, "DS", "2")
        .text(INTERCEPT, "DS", "-1024")
        // Several windows: the first.
        .text(CENTER, "DS", "2048\\40")
        .text(WIDTH, "DS", "4096\\80")
        .words(PADDING, "US", &[0]);
    let radiograph = open(&native(dataset, 16, &values(12), EXPLICIT)).unwrap();
    assert_eq!(
        radiograph.applied,
        [
            "Explicit VR Little Endian",
            "rescale slope 2 intercept -1024",
            "window center 2048 width 4096 LINEAR",
            "MONOCHROME1 inverted",
            "pixel padding black",
        ]
    );
    for (&word, level) in values(12).iter().zip(levels(&radiograph)) {
        let windowed = window("LINEAR", 2048.0, 4096.0, f64::from(word) * 2.0 - 1024.0);
        let expected = if word == 0 { 0.0 } else { 65535.0 - windowed };
        assert!((f64::from(level) - expected).abs() <= 0.51, "{word}: {level}, not {expected}");
    }
}

#[test]
fn the_high_bit_says_where_the_value_stands_in_its_word() {
    // 10 bits below bit 13, rubbish around them.
    let shifted: Vec<u16> = values(10).iter().map(|&word| word << 4 | 0xc00a).collect();
    let dataset = chest(ROWS, COLUMNS, 16, 10).words((0x0028, 0x0102), "US", &[13]);
    let stored = stored_values(&native(dataset, 16, &shifted, EXPLICIT), &Limits::default()).unwrap();
    assert_eq!(stored.words, values(10));
}

#[test]
fn lookup_tables_of_modality_and_voi_are_applied_one_after_the_other() {
    // Modality: x → 100 + 3x for 0..=49; VOI: first value mapped 110, entries of 10 bits falling.
    let modality: Vec<u16> = (0..50).map(|x| 100 + 3 * x).collect();
    let voi: Vec<u16> = (0..64).map(|i| 1000 - 15 * i).collect();
    let lut = |descriptor: [u16; 3], data: &[u16]| {
        Dataset::default().words((0x0028, 0x3002), "US", &descriptor).words((0x0028, 0x3006), "US", data)
    };
    let words: Vec<u16> = (0..ROWS * COLUMNS).map(|i| i * 2).collect();
    let dataset = chest(ROWS, COLUMNS, 16, 12)
        .items((0x0028, 0x3000), vec![lut([50, 0, 16], &modality)])
        .items((0x0028, 0x3010), vec![lut([64, 110, 10], &voi), lut([1, 0, 8], &[7])])
        // The table is preferred to the window, the modality table to the rescale.
        .text(CENTER, "DS", "5")
        .text(WIDTH, "DS", "5")
        .text(SLOPE, "DS", "77");
    for syntax in [EXPLICIT, IMPLICIT, BIG_ENDIAN] {
        let radiograph = open(&native(dataset.clone(), 16, &words, syntax)).unwrap();
        assert_eq!(radiograph.applied[1..], ["modality LUT of 50 entries", "VOI LUT of 64 entries, 10 bits"]);
        for (&word, level) in words.iter().zip(levels(&radiograph)) {
            let modal = i32::from(modality[usize::from(word.min(49))]);
            let entry = voi[(modal - 110).clamp(0, 63) as usize];
            let expected = f64::from(entry) / 1023.0 * 65535.0;
            assert!((f64::from(level) - expected).abs() <= 0.51, "{syntax}: {word} gave {level}, not {expected}");
        }
    }
}

#[test]
fn without_a_voi_the_percentiles_are_spread_and_padding_does_not_count() {
    let (rows, columns) = (100u16, 100u16);
    // Values 1000..=1999 evenly, one pixel in ten padding at 4095, two wild ones.
    let mut words: Vec<u16> =
        (0..10000u32).map(|i| if i % 10 == 0 { 4095 } else { 1000 + (i * 7 % 1000) as u16 }).collect();
    (words[1], words[2]) = (0, 4000);
    let dataset = chest(rows, columns, 16, 12).words(PADDING, "US", &[4090]).words(PADDING_LIMIT, "US", &[4095]);
    let radiograph = open(&native(dataset, 16, &words, EXPLICIT)).unwrap();
    let levels = levels(&radiograph);
    assert_eq!((levels[0], levels[1], levels[2]), (0, 0, 65535), "padding, below, above");
    let middle = words.iter().position(|&word| word == 1501).map(|i| levels[i]).unwrap();
    assert!((32000..33500).contains(&middle), "the middle of the values lies in the middle: {middle}");
}

#[test]
fn an_8_bit_image_without_a_voi_is_spread_like_any_other() {
    // Values 100..=149 evenly, and one pixel in a thousand wild on either side: fewer than are cut off.
    let mut words: Vec<u16> = (0..10000u16).map(|i| 100 + i % 50).collect();
    words[1000..1010].fill(3);
    words[2000..2010].fill(251);
    for (photometric, inverted) in [("MONOCHROME2", false), ("MONOCHROME1", true)] {
        let dataset = chest(100, 100, 8, 8).text(PHOTOMETRIC, "CS", photometric);
        let radiograph = open(&native(dataset, 8, &words, EXPLICIT)).unwrap();
        for (&word, level) in words.iter().zip(levels(&radiograph)) {
            let share = (f64::from(word) - 100.0) / 49.0;
            let expected = (share.clamp(0.0, 1.0) * 65535.0).round() as u16;
            assert_eq!(level, if inverted { 65535 - expected } else { expected }, "{word} in {photometric}");
        }
    }
}

#[test]
fn grey_in_three_channels_is_taken_and_colour_is_not() {
    let grey: Vec<u8> = (0..42).flat_map(|i| [i * 5; 3]).collect();
    let planar: Vec<u8> = (0..126).map(|i| (i % 42) * 5).collect();
    let rgb = chest(ROWS, COLUMNS, 8, 8).words((0x0028, 0x0002), "US", &[3]).text(PHOTOMETRIC, "CS", "RGB");
    let expected = Pixels::Grey8((0..42).map(|i| i * 5).collect());
    assert_eq!(open(&rgb.clone().bytes(PIXELS, "OB", &grey).file(EXPLICIT)).unwrap().pixels, expected);
    let planes = rgb.clone().words((0x0028, 0x0006), "US", &[1]).bytes(PIXELS, "OB", &planar);
    assert_eq!(open(&planes.file(EXPLICIT)).unwrap().pixels, expected);
    let luma: Vec<u8> = (0..42).flat_map(|i| [i * 5, 128, 128]).collect();
    let ybr = rgb.clone().text(PHOTOMETRIC, "CS", "YBR_FULL").bytes(PIXELS, "OB", &luma);
    assert_eq!(open(&ybr.file(EXPLICIT)).unwrap().pixels, expected);
    let coloured: Vec<u8> = (0..126).map(|i| i * 2).map(|i| if i % 3 == 0 { 255 - i } else { i }).collect();
    let refusal = open(&rgb.bytes(PIXELS, "OB", &coloured).file(EXPLICIT)).unwrap_err();
    assert_eq!(refusal.code, RefusalCode::NotARadiograph);
}

#[test]
fn what_the_tags_say_is_no_chest_radiograph_is_refused_with_its_reason() {
    let good = chest(ROWS, COLUMNS, 8, 8).bytes(PIXELS, "OB", &[9; 42]);
    let body_part = (0x0018, 0x0015);
    let cases: [(&str, Dataset, RefusalCode); 16] = [
        ("a report", good.clone().without(PIXELS).text((8, 0x60), "CS", "SR"), RefusalCode::NoImage),
        ("CT", good.clone().text((8, 0x60), "CS", "CT"), RefusalCode::WrongModality),
        ("mammography", good.clone().text((8, 0x60), "CS", "MG"), RefusalCode::WrongModality),
        ("CT by class", good.clone().text((8, 0x16), "UI", "1.2.840.10008.5.1.4.1.1.2"), RefusalCode::WrongModality),
        ("a hand", good.clone().text(body_part, "CS", "HAND"), RefusalCode::WrongBodyPart),
        ("a spine", good.clone().text(body_part, "CS", "TSPINE"), RefusalCode::WrongBodyPart),
        ("chest and abdomen", good.clone().text(body_part, "CS", "CHESTABDOMEN"), RefusalCode::WrongBodyPart),
        ("raw", good.clone().text((8, 0x68), "CS", "FOR PROCESSING"), RefusalCode::Unsupported),
        ("a loop", good.clone().text((0x28, 8), "IS", "2"), RefusalCode::MultiFrame),
        ("palette", good.clone().text(PHOTOMETRIC, "CS", "PALETTE COLOR"), RefusalCode::Unsupported),
        ("32 bits", good.clone().words((0x28, 0x100), "US", &[32]), RefusalCode::Unsupported),
        ("no rows", good.clone().words((0x28, 0x10), "US", &[0]), RefusalCode::Damaged),
        ("too few pixels", good.clone().words((0x28, 0x10), "US", &[7]), RefusalCode::Damaged),
        ("more bits stored than allocated", good.clone().words((0x28, 0x101), "US", &[9]), RefusalCode::Damaged),
        ("slope 0", good.clone().text(SLOPE, "DS", "0"), RefusalCode::Damaged),
        (
            "a knee by code",
            {
                let region = Dataset::default().text((8, 0x100), "SH", "72696002");
                good.clone().without(body_part).items((8, 0x2218), vec![region])
            },
            RefusalCode::WrongBodyPart,
        ),
    ];
    for (name, dataset, code) in cases {
        let refusal = open(&dataset.file(EXPLICIT)).expect_err(name);
        assert_eq!(refusal.code, code, "{name}: {refusal}");
        for secret in ["Doe", "Jane", "4711", "HAND", "1.2.3"] {
            assert!(!refusal.message.contains(secret), "{name}: {refusal}");
        }
    }
    let unknown = good.file("1.2.840.10008.1.2.4.100");
    assert_eq!(open(&unknown).unwrap_err().code, RefusalCode::Unsupported);
    for chest in ["CHEST", "Thorax", "CHEST PA", "", "PORT CHEST", "PCHEST", "PECHO", "2- TORAX", "T\u{d3}RAX"] {
        assert!(open(&good.clone().text(body_part, "CS", chest).file(EXPLICIT)).is_ok(), "{chest:?}");
    }
    // The same in Latin-1, one byte a letter.
    let latin = good.clone().bytes(body_part, "CS", b"T\xd3RAX ");
    assert!(open(&latin.file(EXPLICIT)).is_ok());
    for modality in ["DX", "OT", "RG", ""] {
        assert!(open(&good.clone().text((8, 0x60), "CS", modality).file(EXPLICIT)).is_ok(), "{modality:?}");
    }
}

#[test]
fn the_origin_holds_pseudonyms_and_codes_only() {
    let dataset = chest(ROWS, COLUMNS, 8, 8).bytes(PIXELS, "OB", &[9; 42]);
    let radiograph = open(&dataset.file(EXPLICIT)).unwrap();
    let origin = &radiograph.origin;
    assert_eq!(origin.study, Some(key().pseudonym("study", "1.2.3.4")));
    assert_eq!(origin.series, Some(key().pseudonym("series", "1.2.3.4.6")));
    assert_eq!(origin.instance, Some(key().pseudonym("instance", "1.2.3.4.5")));
    assert_eq!((origin.modality.as_deref(), origin.view.as_deref()), (Some("CR"), Some("PA")));
    let all = format!("{radiograph:?}");
    for secret in ["Doe", "Jane", "4711", "1.2.3.4"] {
        assert!(!all.contains(secret), "{secret}");
    }
    let free = dataset.text((0x0018, 0x5101), "CS", "JANE DOE PA");
    assert_eq!(open(&free.file(EXPLICIT)).unwrap().origin.view, None);
}

#[test]
fn files_without_preamble_and_bare_data_sets_open_too() {
    let dataset = chest(ROWS, COLUMNS, 16, 12).words(PIXELS, "OW", &values(12));
    let expected = open(&dataset.file(EXPLICIT)).unwrap().pixels;
    let file = dataset.file(EXPLICIT);
    for (name, bytes) in [
        ("from DICM", file[128..].to_vec()),
        ("from the meta information", file[132..].to_vec()),
        ("bare explicit", dataset.bare(EXPLICIT)),
        ("bare implicit", dataset.bare(IMPLICIT)),
    ] {
        assert_eq!(open(&bytes).unwrap_or_else(|refusal| panic!("{name}: {refusal}")).pixels, expected, "{name}");
    }
}

#[test]
fn encapsulated_codestreams_open_in_one_or_several_fragments() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/codecs");
    for (name, uid, bits) in [
        ("lossless-12-p1.jpg", "1.2.840.10008.1.2.4.70", 12),
        ("lossless-12-p6.jpg", "1.2.840.10008.1.2.4.57", 12),
        ("dct-8.jpg", "1.2.840.10008.1.2.4.50", 8),
        ("dct-12.jpg", "1.2.840.10008.1.2.4.51", 12),
        ("lossless-16.jls", "1.2.840.10008.1.2.4.80", 16),
        ("near-3-16.jls", "1.2.840.10008.1.2.4.81", 16),
        ("lossless-12.j2k", "1.2.840.10008.1.2.4.90", 12),
    ] {
        let stream = fs::read(folder.join(name)).unwrap();
        let dataset = chest(45, 52, if bits == 8 { 8 } else { 16 }, bits);
        let (start, end) = stream.split_at(stream.len() / 4 * 2);
        let one = stored_values(&dataset.clone().fragments(&[&stream]).file(uid), &Limits::default()).unwrap();
        let two = stored_values(&dataset.clone().fragments(&[start, end]).file(uid), &Limits::default()).unwrap();
        assert_eq!(one, two, "{name}");
        let wrong = dataset.words((0x28, 0x10), "US", &[44]).fragments(&[&stream]).file(uid);
        assert_eq!(open(&wrong).unwrap_err().code, RefusalCode::Damaged, "{name} with other rows in the tags");
    }
}

#[test]
fn the_real_chest_files_open_and_the_real_extremity_ones_are_refused() {
    for path in shared_files("dicom/chest", ".dcm") {
        let radiograph = open(&fs::read(&path).unwrap()).unwrap_or_else(|refusal| panic!("{path:?}: {refusal}"));
        assert_eq!(radiograph.origin.modality.as_deref(), Some("CR"), "{path:?}");
        // Display sense: the film's middle column (spine, mediastinum) is brighter than the lungs beside it; the copy
        // that is falsely marked MONOCHROME1 must come out the other way round.
        let (width, height) = (radiograph.width as usize, radiograph.height as usize);
        let levels = levels(&radiograph);
        let mean = |column: usize| {
            let band =
                |row: usize| levels[row * width + column - 20..][..40].iter().map(|&l| f64::from(l)).sum::<f64>();
            (height * 3 / 10..height / 2).map(band).sum::<f64>()
        };
        let spine_is_brighter = mean(width / 2) > mean(width * 3 / 10);
        assert_eq!(spine_is_brighter, !path.to_string_lossy().contains("Fake_MONO"), "{path:?}");
    }
    for path in shared_files("dicom/other", ".dcm") {
        assert_eq!(open(&fs::read(&path).unwrap()).unwrap_err().code, RefusalCode::WrongBodyPart, "{path:?}");
    }
}

#[test]
fn the_real_lossless_files_of_one_picture_agree_exactly_and_the_lossy_ones_nearly() {
    let mut files = shared_files("dicom/other", ".dcm");
    let Some(reference) = files.iter().position(|path| path.to_string_lossy().ends_with("UNC.dcm")) else { return };
    let limits = Limits::default();
    let bytes = fs::read(files.remove(reference)).unwrap();
    let (stored, shown) = (stored_values(&bytes, &limits).unwrap(), display(&bytes, &limits).unwrap());
    for path in files {
        let bytes = fs::read(&path).unwrap();
        let other = stored_values(&bytes, &limits).unwrap_or_else(|refusal| panic!("{path:?}: {refusal}"));
        let lossless = ["J2KR", "JLSL", "JPLL", "RLE"].iter().any(|kind| path.to_string_lossy().contains(kind));
        if lossless {
            assert_eq!(other, stored, "{path:?}");
            assert_eq!(display(&bytes, &limits).unwrap().pixels, shown.pixels, "{path:?}");
        } else {
            let sum: u64 = other.words.iter().zip(&stored.words).map(|(&a, &b)| u64::from(a.abs_diff(b))).sum();
            let mean = sum as f64 / stored.words.len() as f64;
            assert!(mean < 2.5, "{path:?}: {mean} of 1023 apart");
        }
    }
}

proptest! {
    #[test]
    fn windows_are_the_standards_formulae(
        function in prop::sample::select(vec!["LINEAR", "LINEAR_EXACT", "SIGMOID"]),
        center in -70000.0..70000.0f64,
        width in 1.0..70000.0f64,
        x in -40000.0..70000.0f64,
    ) {
        let ours = Window::new(center, width, Function::from_code(Some(function))).unwrap();
        prop_assert!((ours.apply(x) * 65535.0 - window(function, center, width, x)).abs() < 1e-6);
        prop_assert!((0.0..=1.0).contains(&ours.apply(x)));
    }

    #[test]
    fn every_file_of_every_window_shows_the_standards_levels(
        function in prop::sample::select(vec!["LINEAR", "LINEAR_EXACT", "SIGMOID"]),
        center in -3000i32..6000,
        width in 2i32..9000,
        slope in prop::sample::select(vec![-2.0, -1.0, 0.5, 1.0, 3.0]),
        intercept in -2000i32..2000,
        signed: bool,
        inverted: bool,
    ) {
        let words = values(12);
        let dataset = chest(ROWS, COLUMNS, 16, 12)
            .text(PHOTOMETRIC, "CS", if inverted { "MONOCHROME1" } else { "MONOCHROME2" })
            .words(REPRESENTATION, "US", &[u16::from(signed)])
            .text(FUNCTION, "CS", function)
            .text(SLOPE, "DS", &slope.to_string())
            .text(INTERCEPT, "DS", &intercept.to_string())
            .text(CENTER, "DS", &center.to_string())
            .text(WIDTH, "DS", &width.to_string());
        let radiograph = open(&native(dataset, 16, &words, EXPLICIT)).unwrap();
        for (&word, level) in words.iter().zip(levels(&radiograph)) {
            let x = value(word, 12, signed) * slope + f64::from(intercept);
            let level_of_x = window(function, center.into(), width.into(), x);
            let expected = if inverted { 65535.0 - level_of_x } else { level_of_x };
            prop_assert!((f64::from(level) - expected).abs() <= 0.51, "{} gave {}, not {}", word, level, expected);
        }
    }
}
