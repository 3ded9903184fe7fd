//! The promise: only a bundle that somebody trusted signed, that is whole, and that gives its golden vectors on this box
//! becomes active; whatever happens on the way there, the old one stays, and stays whole.

mod support;

use proptest::prelude::*;
use roentgen::bundle::{Bundle, BundleError, Config, Install, MANIFEST_FILE, SIGNATURE_FILE, Step, Store, StoreError};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use support::store::{Place, test};
use support::{Maker, names, tiny_writer};

fn change(path: &Path, edit: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    edit(&mut bytes);
    fs::write(path, bytes).unwrap();
}

const FILES: [&str; 7] = [
    MANIFEST_FILE,
    SIGNATURE_FILE,
    "model.onnx",
    "README.md",
    "golden/00.image.u8",
    "golden/00.evidence.u8",
    "golden/00.features.u8",
];

#[test]
fn a_good_bundle_becomes_active_and_the_one_before_stays() {
    let place = Place::new();
    let installed = place.install(&place.bundle("1.1.0")).unwrap();
    assert_eq!(installed.bundle.manifest().version, "1.1.0");
    assert!(installed.previous.unwrap().starts_with("tiny-1.0.0-"));
    assert_eq!(place.active().as_deref(), Some("1.1.0"));
    let candidates = place.store.candidates().unwrap();
    assert_eq!(candidates.len(), 2);
    assert_eq!(candidates[0], installed.bundle.dir());
    let digits = &installed.bundle.sha256()[..8];
    assert_eq!(installed.bundle.dir().file_name().unwrap().to_str().unwrap(), format!("tiny-1.1.0-{digits}"));
    for entry in place.store.entries(&place.trust).unwrap() {
        assert!(entry.bundle.is_ok());
    }
}

#[test]
fn one_flipped_byte_in_any_file_is_refused() {
    for file in FILES {
        let place = Place::new();
        let source = place.bundle("1.1.0");
        change(&source.join(file), |bytes| {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
        });
        let said = place.refused(&source).to_string();
        // The signature is over the manifest: a change in either shows as a signature that does not fit.
        let named = if file == MANIFEST_FILE { SIGNATURE_FILE } else { file };
        assert!(said.contains(named), "{file}: {said}");
    }
}

#[test]
fn a_cut_off_or_missing_file_is_refused() {
    for file in FILES {
        let place = Place::new();
        let source = place.bundle("1.1.0");
        for left in [3, 2, 1, 0] {
            change(&source.join(file), |bytes| bytes.truncate(bytes.len() * left / 4));
            place.refused(&source);
        }
        fs::remove_file(source.join(file)).unwrap();
        let said = place.refused(&source).to_string();
        assert!(said.contains(file), "{file}: {said}");
    }
}

#[test]
fn a_file_that_nobody_listed_is_refused() {
    let place = Place::new();
    let source = place.bundle("1.1.0");
    fs::write(source.join("extra.sh"), "?").unwrap();
    assert!(place.refused(&source).to_string().contains("extra.sh"));
}

#[test]
fn a_bundle_without_the_right_signature_is_refused() {
    let place = Place::new();
    let bundle = |error: StoreError| match error {
        StoreError::Bundle(error) => error,
        other => panic!("{other}"),
    };
    let source = place.bundle("1.1.0");
    // Of another manifest.
    let other = place.bundle("1.2.0");
    fs::copy(other.join(SIGNATURE_FILE), source.join(SIGNATURE_FILE)).unwrap();
    assert!(matches!(bundle(place.refused(&source)), BundleError::Signature { .. }));
    // By another key.
    Maker::new().sign(&source);
    assert!(matches!(bundle(place.refused(&source)), BundleError::Stranger { .. }));
    // Of nobody.
    fs::remove_file(source.join(SIGNATURE_FILE)).unwrap();
    assert!(matches!(bundle(place.refused(&source)), BundleError::Unsigned { .. }));
    // Which the configuration may allow.
    let lax = Config { trusted_keys: vec![place.maker.key()], allow_unsigned: true }.trust().unwrap();
    let terms = Install { source: &source, trust: &lax, packaged: &source, allow_downgrade: false };
    place.store.install(&terms, test, |_| ()).unwrap();
    assert_eq!(place.store.candidates().unwrap().len(), 2);
    let strict = place.store.entries(&place.trust).unwrap().remove(0);
    assert!(matches!(strict.bundle, Err(BundleError::Unsigned { .. })), "and may forbid again");
}

#[test]
fn a_wrong_golden_vector_is_refused_even_where_its_maker_signed_it() {
    for file in ["golden/00.evidence.u8", "golden/00.features.u8", "golden/00.image.u8"] {
        let place = Place::new();
        let source = place.path("made/wrong");
        let right = Bundle::open(&place.bundle("1.1.0")).unwrap();
        let mut bytes = right.read(file).unwrap();
        bytes.iter_mut().for_each(|value| *value = value.wrapping_add(100));
        place.maker.write(tiny_writer("1.1.0").file(file, bytes), &source);
        let said = place.refused(&source).to_string();
        assert!(said.contains("self-test failed") && said.contains("golden/00"), "{said}");
    }
}

#[test]
fn the_signature_is_asked_before_the_manifest_is_read() {
    let place = Place::new();
    let source = place.bundle("1.1.0");
    fs::write(source.join(MANIFEST_FILE), "no = [ toml").unwrap();
    assert!(matches!(place.refused(&source), StoreError::Bundle(BundleError::Signature { .. })));
}

#[test]
fn versions_do_not_go_back_unless_told() {
    let place = Place::new();
    let (old, new, newest) = (place.bundle("1.0.0"), place.bundle("1.10.0"), place.bundle("2.0.0"));
    let candidate = place.bundle("1.10.0-rc.1");
    place.install(&new).unwrap();
    for source in [&old, &candidate] {
        let error = place.install(source).unwrap_err();
        assert!(matches!(&error, StoreError::Older { highest, .. } if highest.to_string() == "1.10.0"), "{error}");
        assert!(error.to_string().contains("--allow-downgrade"), "{error}");
    }
    assert_eq!(place.rollback().unwrap(), "1.0.0", "the operator's own word");
    assert!(matches!(place.install(&place.bundle("1.9.0")), Err(StoreError::Older { .. })), "1.10.0 was active once");
    // Forward again to what was there, and beyond.
    place.install(&new).unwrap();
    place.install(&newest).unwrap();
    place.install_whatever_its_version(&old).unwrap();
    assert_eq!(place.active().as_deref(), Some("1.0.0"));
    assert!(matches!(place.install(&new), Err(StoreError::Older { .. })), "2.0.0 was active once");
}

#[test]
fn one_version_has_one_content() {
    let place = Place::new();
    place.install(&place.bundle("1.0.0")).unwrap();
    let changed = place.path("made/changed");
    place.maker.write(tiny_writer("1.0.0").file("README.md", b"Not the same.".to_vec()), &changed);
    assert!(matches!(place.refused(&changed), StoreError::Changed { .. }));
    place.install_whatever_its_version(&changed).unwrap();
    assert_eq!(place.store.candidates().unwrap().len(), 2);
}

#[test]
fn the_configured_bundle_counts_while_none_is_installed() {
    let place = Place::new();
    let fresh = Store::new(&place.path("another-box"));
    let (older, packaged) = (place.bundle("0.9.0"), place.bundle("1.0.0"));
    let error = fresh.install(&place.terms(&older, &packaged), test, |_| ()).unwrap_err();
    assert!(matches!(error, StoreError::Older { .. }), "{error}");
    fresh.install(&place.terms(&place.bundle("1.0.1"), &packaged), test, |_| ()).unwrap();
}

#[test]
fn names_and_versions_that_cannot_be_folders_are_refused() {
    let place = Place::new();
    for version in ["one", "1.0", "1.0.0/../../x"] {
        let source = place.path("made/odd");
        place.maker.write(tiny_writer(version), &source);
        let error = place.refused(&source);
        assert!(matches!(error, StoreError::Identity { .. }), "{error}");
    }
}

#[test]
fn a_rollback_goes_to_what_is_good_and_changes_nothing_where_nothing_is() {
    let place = Place::new();
    place.install(&place.bundle("1.1.0")).unwrap();
    let previous = place.store.candidates().unwrap().remove(1);
    change(&previous.join("model.onnx"), |bytes| bytes[9] ^= 4);
    let error = place.rollback().unwrap_err();
    assert!(matches!(&error, StoreError::NothingGood { reasons } if reasons.len() == 2), "{error}");
    assert!(error.to_string().contains("model.onnx") && error.to_string().contains("packaged"), "{error}");
    assert_eq!(place.active().as_deref(), Some("1.1.0"));

    place.maker.bundle(place.root.path(), "0.1.0");
    fs::rename(place.path("0.1.0"), place.path("packaged")).unwrap();
    assert_eq!(place.rollback().unwrap(), "0.1.0", "past the damaged one, to the configured one");
    assert_eq!(place.active(), None);
    assert!(matches!(place.rollback(), Err(StoreError::NothingActive { .. })));
    place.install(&place.bundle("1.1.0")).unwrap();
    assert_eq!(place.active().as_deref(), Some("1.1.0"));
}

#[test]
fn the_last_two_good_ones_are_kept() {
    let place = Place::new();
    for version in ["1.1.0", "1.2.0", "1.3.0"] {
        place.install(&place.bundle(version)).unwrap();
    }
    let folders = |place: &Place| -> Vec<String> {
        let kept = names(&place.path("state/bundles")).into_iter().filter(|name| name.starts_with("tiny-"));
        kept.map(|name| name[..10].to_owned()).collect()
    };
    assert_eq!(folders(&place), ["tiny-1.2.0", "tiny-1.3.0"]);
    // What has gone bad is no good one: it does not push the one before out.
    let active = place.store.candidates().unwrap().remove(0);
    change(&active.join("golden/00.image.u8"), |bytes| bytes.truncate(5));
    place.install(&place.bundle("1.4.0")).unwrap();
    assert_eq!(folders(&place), ["tiny-1.2.0", "tiny-1.4.0"]);
    assert_eq!(names(&place.path("state/bundles")).len(), 3, "and the record, and nothing else");
    // The active one, damaged, is put right by installing it again.
    let active = place.store.candidates().unwrap().remove(0);
    fs::remove_file(active.join("model.onnx")).unwrap();
    place.install(&place.bundle("1.4.0")).unwrap();
    assert_eq!(place.active().as_deref(), Some("1.4.0"));
    assert_eq!(folders(&place), ["tiny-1.2.0", "tiny-1.4.0"]);
}

#[test]
fn an_archive_installs_like_its_folder_and_a_cut_off_one_does_not() {
    let place = Place::new();
    let source = place.bundle("1.1.0");
    let archive = place.path("bundle.tar");
    let mut tar = Command::new("tar");
    let packed = tar.arg("-cf").arg(&archive).arg("-C").arg(source.parent().unwrap()).arg("1.1.0").status();
    let packed = packed.expect("tar");
    assert!(packed.success());
    let whole = fs::read(&archive).unwrap();
    let padding = whole.iter().rev().take_while(|byte| **byte == 0).count();
    for tenths in 0..10 {
        fs::write(&archive, &whole[..(whole.len() - padding) * tenths / 10]).unwrap();
        place.refused(&archive);
    }
    fs::write(&archive, &whole).unwrap();
    place.install(&archive).unwrap();
    assert_eq!(place.active().as_deref(), Some("1.1.0"));
}

#[test]
fn of_two_installations_at_once_one_waits_for_its_turn() {
    let place = Place::new();
    let (first, second) = (place.bundle("1.1.0"), place.bundle("1.2.0"));
    let mut told = None;
    let watch = |step| {
        if step == Step::Copied {
            told = Some(place.install(&second).unwrap_err());
        }
    };
    place.store.install(&place.terms(&first, &place.path("packaged")), test, watch).unwrap();
    assert!(matches!(told, Some(StoreError::Busy { .. })), "{told:?}");
    assert_eq!(place.active().as_deref(), Some("1.1.0"));
}

#[test]
fn a_power_cut_after_any_step_leaves_the_old_bundle_or_the_new_one() {
    let place = Place::new();
    let source = place.bundle("1.1.0");
    let mut steps = Vec::new();
    let copy = |step: Step| {
        // What the disk holds at this moment.
        let to = place.path(&format!("cut-{step:?}"));
        fs::create_dir(&to).unwrap();
        let copied = Command::new("cp").arg("-a").arg(place.path("state/bundles")).arg(&to).status().expect("cp");
        assert!(copied.success());
        steps.push((step, to));
    };
    place.store.install(&place.terms(&source, &place.path("packaged")), test, copy).unwrap();
    let order = [Step::Accepted, Step::Copied, Step::Tested, Step::Placed, Step::Switched, Step::Pruned];
    assert_eq!(steps.iter().map(|(step, _)| *step).collect::<Vec<_>>(), order);
    for (step, state_dir) in steps {
        let store = Store::new(&state_dir);
        let version = |store: &Store| {
            let bundle = Bundle::open_trusted(&store.candidates().unwrap()[0], &place.trust).unwrap();
            test(&bundle).unwrap();
            bundle.manifest().version.clone()
        };
        let expected = if order[..4].contains(&step) { "1.0.0" } else { "1.1.0" };
        assert_eq!(version(&store), expected, "after {step:?}");
        // And what was left behind is in nobody's way.
        store.install(&place.terms(&source, &place.path("packaged")), test, |_| ()).unwrap();
        assert_eq!(version(&store), "1.1.0");
        let left = names(&state_dir.join("bundles"));
        assert!(left.len() == 3 && !left.iter().any(|name| name.starts_with('.')), "{left:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn whatever_is_changed_never_becomes_active(
        file in prop::sample::select(FILES.to_vec()),
        at in any::<prop::sample::Index>(),
        value in any::<u8>(),
        kind in 0..3,
    ) {
        // One box and one bundle for all cases: making them takes longer than trying them.
        thread_local!(static PLACE: (Place, PathBuf) = {
            let place = Place::new();
            let source = place.bundle("1.1.0");
            (place, source)
        });
        PLACE.with(|(place, source)| {
            let path = source.join(file);
            let whole = fs::read(&path).unwrap();
            let at = at.index(whole.len());
            let mut changed = whole.clone();
            match kind {
                0 => changed[at] = value,
                1 => changed.truncate(at),
                _ => changed.insert(at, value),
            }
            // The first line of a signature is a comment that is not signed, and so is white space at its end.
            let comment = whole.iter().position(|byte| *byte == b'\n').unwrap_or(0);
            let unsigned = file == SIGNATURE_FILE && (at <= comment || at >= whole.len() - 1);
            if changed != whole && !unsigned {
                fs::write(&path, &changed).unwrap();
                place.refused(source);
                fs::write(&path, &whole).unwrap();
            }
        });
    }
}
