//! The promise: what one start packed makes the next one faster and nothing else: it is taken only where it is whole, of the
//! same model and options, and out of other people's reach; and it never makes a good bundle look bad.

mod support;

use roentgen::bundle::Bundle;
use roentgen::classifier::native::{Config, NativeClassifier};
use roentgen::network::cache;
use roentgen::network::plan::Memory;
use roentgen::preprocess::preprocess;
use roentgen::radiograph::phantom;
use roentgen::tensor::Tensor;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use support::daemon::{Place, Received};
use support::{names, tiny_bundle, wait_for};

struct Room {
    root: tempfile::TempDir,
    bundle: Bundle,
}

impl Room {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let bundle = Bundle::open(&tiny_bundle(root.path())).unwrap();
        Self { root, bundle }
    }

    fn folder(&self) -> PathBuf {
        self.root.path().join("packed")
    }

    fn load(&self, config: &Config) -> NativeClassifier {
        NativeClassifier::load(&self.bundle, config, Some(&self.folder())).unwrap()
    }

    fn files(&self) -> Vec<PathBuf> {
        names(&self.folder()).iter().map(|name| self.folder().join(name)).collect()
    }
}

fn one_thread() -> Config {
    Config { threads: 1, ..Config::default() }
}

/// What it makes of a phantom.
fn outputs(classifier: &mut NativeClassifier) -> (Tensor<u8>, Tensor<u8>) {
    classifier.run(&preprocess(&phantom::radiograph(7, 300))).unwrap()
}

#[test]
fn the_next_start_takes_them_and_gives_the_same() {
    let room = Room::new();
    let mut packed = room.load(&one_thread());
    assert_eq!(room.files().len(), 1);
    let mut kept = room.load(&one_thread());
    assert_eq!(outputs(&mut kept), outputs(&mut packed));
    assert!(!packed.forget_packed() && kept.forget_packed(), "only the second was loaded from the file");
    assert!(room.files().is_empty(), "what is forgotten is gone");
    assert_eq!(fs::metadata(room.folder()).unwrap().permissions().mode() & 0o777, 0o700);
    let off = Config { cache: false, ..one_thread() };
    assert!(!room.load(&off).forget_packed() && room.files().is_empty());
}

#[test]
fn those_of_other_options_or_another_model_are_not_taken_and_few_are_kept() {
    let room = Room::new();
    room.load(&one_thread());
    let kernel = roentgen::kernels::available().last().unwrap().name.to_owned();
    let others = [
        Config { memory: Memory::Fast, ..one_thread() },
        Config { threads: 2, ..one_thread() },
        Config { kernel, ..one_thread() },
        Config { direct_only: true, ..one_thread() },
    ];
    for config in &others {
        assert!(!room.load(config).forget_packed(), "{config:?}");
    }
    assert_eq!(room.files().len(), 3);
    let other = Room::new();
    support::tiny_writer("2.0.0").write(&other.root.path().join("two")).unwrap();
    let two = Bundle::open(&other.root.path().join("two")).unwrap();
    let same_model = two.manifest().files["model.onnx"] == room.bundle.manifest().files["model.onnx"];
    let mut loaded = NativeClassifier::load(&two, &others[3], Some(&room.folder())).unwrap();
    assert_eq!(loaded.forget_packed(), same_model, "the model decides, not the bundle's version");
}

#[test]
fn damaged_ones_are_packed_again() {
    let room = Room::new();
    room.load(&one_thread());
    let file = room.files().remove(0);
    let whole = fs::read(&file).unwrap();
    for at in [0, 40, 100, whole.len() / 2, whole.len() - 1] {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x10;
        fs::write(&file, &damaged).unwrap();
        assert!(!room.load(&one_thread()).forget_packed(), "byte {at}");
        assert_eq!(fs::read(&file).unwrap(), whole, "and put in place again");
    }
    fs::write(&file, &whole[..whole.len() / 3]).unwrap();
    assert!(!room.load(&one_thread()).forget_packed());
}

#[test]
fn a_folder_in_which_others_may_write_is_not_used() {
    let room = Room::new();
    room.load(&one_thread());
    for mode in [0o770, 0o707, 0o720] {
        fs::set_permissions(room.folder(), Permissions::from_mode(mode)).unwrap();
        assert!(!room.load(&one_thread()).forget_packed(), "{mode:o}");
    }
    fs::set_permissions(room.folder(), Permissions::from_mode(0o700)).unwrap();
    assert!(room.load(&one_thread()).forget_packed());
    // A link to a folder of somebody's choice is no folder of ours.
    fs::remove_dir_all(room.folder()).unwrap();
    fs::create_dir(room.root.path().join("elsewhere")).unwrap();
    std::os::unix::fs::symlink(room.root.path().join("elsewhere"), room.folder()).unwrap();
    assert!(!room.load(&one_thread()).forget_packed());
    assert!(names(&room.root.path().join("elsewhere")).is_empty());
}

/// Other weights under the right key, with the right hashes.
fn forge(file: &Path) {
    let bytes = fs::read(file).unwrap();
    let key: [u8; 32] = bytes[32..64].try_into().unwrap();
    let packed = cache::load(file, &key, 1).unwrap();
    let wrong: Vec<u8> = packed.bytes.as_u8()[..packed.length].iter().map(|byte| byte.wrapping_add(3)).collect();
    cache::save(file, &key, &packed.note, &wrong).unwrap();
}

#[test]
fn wrong_ones_do_not_make_the_daemon_blame_a_good_bundle() {
    let Some(place) = Place::new() else { return };
    let _broker = place.broker();
    let received = Received::subscribe(place.port, "packed");
    let packed = place.path("state/packed");
    for round in 0..2 {
        let mut daemon = place.daemon();
        received.wait_for_status("online");
        wait_for("packed weights", || packed.is_dir() && names(&packed).len() == 1);
        daemon.signal("TERM");
        assert!(daemon.wait().success());
        received.wait_for_status("offline");
        if round == 0 {
            forge(&packed.join(&names(&packed)[0]));
        }
    }
    assert!(place.log().contains("packing them again"), "{}", place.log());
    assert!(received.last_status().unwrap()["bundle_fallback"].is_null());
}
