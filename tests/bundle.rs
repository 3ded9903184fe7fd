//! A bundle opens only when every file is what the manifest says, and installs all or nothing.

use proptest::prelude::*;
use roentgen::bundle::{Bundle, BundleError, BundleWriter, MANIFEST_FILE, Manifest};
use roentgen::network::int8::{Conv, Layer, Network};
use roentgen::quant::QuantParams;
use roentgen::tensor::Tensor;
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

fn conv(name: &str, in_channels: usize, out_channels: usize, kernel: usize, output: QuantParams) -> Conv {
    let count = out_channels * kernel * kernel * in_channels;
    Conv {
        name: name.into(),
        in_channels,
        out_channels,
        kernel,
        weights: (0..count).map(|i| (i * 89 % 251) as u8 as i8).collect(),
        weight_scales: vec![0.004; out_channels],
        bias: vec![300; out_channels],
        input: QuantParams { scale: 1.0, zero_point: 0 },
        output,
    }
}

fn network() -> Network {
    let params = QuantParams { scale: 1.0, zero_point: 0 };
    let trunk = vec![Layer::Conv(conv("block1_conv1", 1, 6, 3, params)), Layer::MaxPool2];
    Network { input_size: 16, trunk, head: conv("head", 6, 4, 1, QuantParams { scale: 0.5, zero_point: 120 }) }
}

fn image(seed: usize) -> Tensor<u8> {
    Tensor::new([1, 16, 16, 1], (0..256).map(|i| (i * seed % 256) as u8).collect()).expect("16 × 16")
}

fn writer(images: &[Tensor<u8>]) -> BundleWriter {
    let manifest = Manifest::for_network("tiny", "1.0.0", &network());
    BundleWriter::new(manifest, &network(), images).expect("a sound network")
}

fn write_bundle(dir: &Path) -> Bundle {
    let writer = writer(&[image(7), image(31)]).file("README.md", b"A tiny model for tests.".to_vec());
    writer.write(dir).expect("a writable folder")
}

/// A bundle in a folder of its own.
fn bundle() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let dir = folder.path().join("tiny");
    write_bundle(&dir);
    (folder, dir)
}

fn refusal(dir: &Path) -> String {
    Bundle::open(dir).expect_err("must be refused").to_string()
}

/// Rewrites the manifest's text.
fn edit(dir: &Path, from: &str, to: &str) {
    let path = dir.join(MANIFEST_FILE);
    let text = fs::read_to_string(&path).expect("the manifest");
    assert!(text.contains(from), "{from:?} is not in {text}");
    fs::write(path, text.replacen(from, to, 1)).expect("writable");
}

#[test]
fn what_was_written_opens_and_gives_the_same_network() {
    let (_folder, dir) = bundle();
    let bundle = Bundle::open(&dir).expect("just written");
    let portable = network().with_portable_scales();
    assert_eq!(bundle.network().expect("sound"), portable);
    assert_eq!(portable.clone().with_portable_scales(), portable, "done twice is done once");
    assert_eq!(bundle.manifest().outputs.evidence.zero_point, 120);
    assert_eq!(bundle.manifest().outputs.features.channels, 6);
    assert_eq!(bundle.read("README.md").expect("listed"), b"A tiny model for tests.");
    assert_eq!(bundle.sha256().len(), 64);
    let golden = bundle.golden().expect("two of them");
    assert_eq!(golden.iter().map(|vector| vector.name.as_str()).collect::<Vec<_>>(), ["00", "01"]);
    let (evidence, features) = network().forward(&golden[1].image).expect("sound");
    assert_eq!((&golden[1].evidence, &golden[1].features), (&evidence, &features));
}

#[test]
fn writing_twice_gives_the_same_bytes_and_replaces_the_old_bundle_whole() {
    let (folder, dir) = bundle();
    let first = Bundle::open(&dir).expect("sound");
    fs::write(dir.join("left-over.txt"), "from before").expect("writable");
    assert_eq!(write_bundle(&dir).sha256(), first.sha256());
    assert!(!dir.join("left-over.txt").exists());
    assert_eq!(fs::read_dir(folder.path()).expect("readable").count(), 1, "nothing is left beside it");
}

#[test]
#[cfg(unix)]
fn other_users_may_read_an_installed_bundle() {
    use std::os::unix::fs::PermissionsExt;
    let (folder, dir) = bundle();
    let fresh = folder.path().join("fresh");
    fs::create_dir(&fresh).expect("writable");
    let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode();
    assert_eq!(mode(&dir), mode(&fresh), "the mode that any new folder has");
}

#[test]
fn a_folder_that_is_no_bundle_is_never_replaced() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::write(folder.path().join("thesis.txt"), "ten years").expect("writable");
    let error = writer(&[image(7)]).write(folder.path()).expect_err("must be refused").to_string();
    assert!(error.contains("is not a bundle"), "{error}");
    assert!(folder.path().join("thesis.txt").exists());
}

#[test]
fn a_bundle_without_golden_vectors_cannot_be_tested() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let bundle = writer(&[]).write(&folder.path().join("tiny")).expect("writable");
    let error = bundle.self_test(0, |image| network().forward(image).map_err(|error| error.to_string()));
    assert!(error.expect_err("must fail").to_string().contains("no golden vectors"));
}

#[test]
fn the_self_test_passes_what_is_equal_and_counts_what_is_not() {
    let (_folder, dir) = bundle();
    let bundle = Bundle::open(&dir).expect("sound");
    let run = |off: u8| {
        move |image: &Tensor<u8>| {
            let (evidence, features) = network().forward(image).map_err(|error| error.to_string())?;
            let shape = features.shape();
            let mut data = features.into_data();
            data[5] ^= off;
            Ok((evidence, Tensor::new(shape, data).expect("the same length")))
        }
    };
    let exact = bundle.self_test(0, run(0)).expect("equal");
    assert_eq!((exact.vectors, exact.largest_difference), (2, 0));
    assert_eq!(bundle.self_test(1, run(1)).expect("within one step").largest_difference, 1);
    let error = bundle.self_test(0, run(1)).expect_err("one step is too many").to_string();
    assert!(error.contains("1 of 384 features values differ, by up to 1 steps"), "{error}");
    let error = bundle.self_test(0, |_| Err("no such device".into())).expect_err("it failed").to_string();
    assert!(error.contains("00.image.u8") && error.contains("no such device"), "{error}");
    let error = bundle.self_test(255, |image| Ok((image.clone(), image.clone()))).expect_err("shapes").to_string();
    assert!(error.contains("evidence has shape [1, 16, 16, 1] instead of [1, 8, 8, 4]"), "{error}");
}

#[test]
fn every_changed_file_is_named() {
    for name in ["model.onnx", "README.md", "golden/00.evidence.u8", "golden/01.image.u8"] {
        let (_folder, dir) = bundle();
        let path = dir.join(name);
        let mut bytes = fs::read(&path).expect("readable");
        bytes[3] ^= 1;
        fs::write(&path, bytes).expect("writable");
        let error = Bundle::open(&dir).expect_err("one bit differs");
        assert!(matches!(error, BundleError::Hash { .. }), "{error}");
        assert!(error.to_string().contains(name), "{error}");
    }
}

#[test]
fn what_changes_after_opening_is_not_used() {
    let (_folder, dir) = bundle();
    let bundle = Bundle::open(&dir).expect("sound");
    fs::write(dir.join("model.onnx"), "something else").expect("writable");
    assert!(matches!(bundle.network(), Err(BundleError::Hash { .. })));
}

#[test]
fn missing_and_unlisted_files_are_refused() {
    let (_folder, dir) = bundle();
    fs::write(dir.join("golden/extra.bin"), "?").expect("writable");
    assert!(refusal(&dir).contains("golden/extra.bin: the manifest does not list this file"));
    fs::remove_file(dir.join("golden/extra.bin")).expect("removable");
    fs::remove_file(dir.join("model.onnx")).expect("removable");
    let said = refusal(&dir);
    assert!(said.contains("model.onnx") && said.contains("Check that it exists"), "{said}");
    let said = refusal(&dir.join("nowhere"));
    assert!(said.contains("nowhere/bundle.toml"), "{said}");
}

#[test]
fn paths_that_leave_the_bundle_are_refused() {
    for name in ["../secret", "/etc/passwd", "golden/../../x", "a//b", "./a", "c:\\\\x", "bundle.toml"] {
        let (folder, dir) = bundle();
        fs::write(folder.path().join("secret"), "A tiny model for tests.").expect("writable");
        edit(&dir, "\"README.md\"", &format!("\"{name}\""));
        let error = Bundle::open(&dir).expect_err(name);
        let by_its_name = matches!(&error, BundleError::File { reason, .. } if reason.contains("the manifest lists a"));
        assert!(by_its_name, "{error}");
    }
}

#[test]
#[cfg(unix)]
fn links_are_refused_wherever_they_lead() {
    for name in ["model.onnx", "golden", "bundle.toml"] {
        let (folder, dir) = bundle();
        fs::rename(dir.join(name), folder.path().join(name)).expect("movable");
        std::os::unix::fs::symlink(Path::new("..").join(name), dir.join(name)).expect("linkable");
        assert!(refusal(&dir).contains("no links"));
    }
}

#[test]
fn manifests_that_ask_for_what_this_program_cannot_do_are_refused_by_field() {
    let cases = [
        ("roentgen.bundle/1", "roentgen.bundle/2", "schema"),
        ("\"covid\", \"lung_opacity\"", "\"lung_opacity\", \"covid\"", "labels"),
        ("preprocess/1", "preprocess/999", "input.preprocessing"),
        ("temperature = 1.0", "temperature = 0.0", "calibration.temperature"),
        ("temperature = 1.0", "temperature = nan", "calibration.temperature"),
        ("min_probability = 0.0", "min_probability = 1.5", "thresholds.min_probability"),
        ("scale = 0.5", "scale = -0.5", "outputs.evidence.scale"),
        ("rows = 16", "rows = 0", "input is 0"),
        ("channels = 4", "channels = 5", "outputs.evidence.channels"),
    ];
    for (from, to, field) in cases {
        let (_folder, dir) = bundle();
        edit(&dir, from, to);
        let error = Bundle::open(&dir).expect_err(field);
        assert!(matches!(error, BundleError::Unsupported { .. }), "{error}");
        assert!(error.to_string().contains(field), "{error}");
    }
}

#[test]
fn a_key_that_is_not_known_is_refused_in_every_section() {
    // A mistyped `[gates]` above all: without it the box would judge whatever it is given.
    let sections = ["", "[input]", "[outputs.evidence]", "[calibration]", "[thresholds]"];
    let keys = sections.map(|section| (section, format!("{section}\nodd = 1\n")));
    for (section, edited) in keys.into_iter().chain([("[files]", "[gate]\nmin_upright = 0.3\n\n[files]".into())]) {
        let (_folder, dir) = bundle();
        if section.is_empty() {
            edit(&dir, "schema =", "odd = 1\nschema =");
        } else {
            edit(&dir, &format!("{section}\n"), &format!("{}\n", edited.trim_end()));
        }
        let error = Bundle::open(&dir).expect_err(section);
        assert!(matches!(error, BundleError::Manifest { .. }), "{section}: {error}");
        assert!(error.to_string().contains("unknown field"), "{section}: {error}");
    }
}

#[test]
fn a_manifest_that_describes_another_network_is_refused() {
    let (_folder, dir) = bundle();
    edit(&dir, "zero_point = 120", "zero_point = 121");
    let bundle = Bundle::open(&dir).expect("the hashes are right");
    assert!(matches!(bundle.network(), Err(BundleError::Network { .. })));
}

#[test]
fn an_endless_manifest_is_not_read_to_its_end() {
    let (_folder, dir) = bundle();
    fs::write(dir.join(MANIFEST_FILE), vec![b' '; 2 << 20]).expect("writable");
    assert!(refusal(&dir).contains("longer than the 1048576 bytes allowed"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn every_scale_survives_the_manifest_bit_for_bit(bits in 1u32..0x7149_f2ca, zero_point in any::<u8>()) {
        let mut network = network();
        network.head.output = QuantParams { scale: f32::from_bits(bits), zero_point };
        let manifest = Manifest::for_network("tiny", "1.0.0", &network);
        let text = toml::to_string(&manifest).expect("plain values");
        let read: Manifest = toml::from_str(&text).expect("just written");
        prop_assert_eq!(read.check_network(&network), Ok(()));
    }

    #[test]
    fn a_damaged_manifest_never_panics(at in any::<prop::sample::Index>(), value in any::<u8>()) {
        let (_folder, dir) = bundle();
        let path = dir.join(MANIFEST_FILE);
        let mut bytes = fs::read(&path).expect("readable");
        let index = at.index(bytes.len());
        bytes[index] = value;
        fs::write(&path, bytes).expect("writable");
        if let Ok(bundle) = Bundle::open(&dir) {
            prop_assert_eq!(bundle.manifest().files.len(), 8);
        }
    }
}
