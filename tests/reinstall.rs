//! The promise: what already lies where a bundle is installed is neither followed, nor in the way, nor a reason to say
//! something untrue: the same bundle with another signature, a link, a folder that does not go.

mod support;

use roentgen::bundle::{Bundle, Config, Install, SIGNATURE_FILE, Step, Trust};
use std::fs;
use std::os::unix::fs::symlink;
use support::store::{Place, test};
use support::{Maker, names};

#[test]
fn the_same_bundle_signed_anew_takes_over_the_new_signature() {
    let place = Place::new();
    let (source, next) = (place.path("made/1.0.0"), Maker::new());
    let trust = |keys: &[&Maker], allow_unsigned| {
        let trusted_keys = keys.iter().map(|maker| maker.key()).collect();
        Config { trusted_keys, allow_unsigned }.trust().unwrap()
    };
    let install = |trust: &Trust| {
        let terms = Install { source: &source, trust, packaged: &source, allow_downgrade: false };
        place.store.install(&terms, test, |_| ()).unwrap();
        let installed = place.store.candidates().unwrap().remove(0);
        assert_eq!(fs::read(installed.join(SIGNATURE_FILE)).ok(), fs::read(source.join(SIGNATURE_FILE)).ok());
        installed
    };
    let (old, new) = (trust(&[&place.maker], false), trust(&[&next], false));
    // The maker's key has changed; the box trusts both for a while, or the new one at once.
    for during in [trust(&[&place.maker, &next], false), new.clone()] {
        place.maker.sign(&source);
        assert!(Bundle::open_trusted(&install(&old), &new).is_err(), "the old key is not trusted any more");
        next.sign(&source);
        let installed = install(&during);
        assert!(Bundle::open_trusted(&installed, &new).is_ok(), "the active one can be used with the new key alone");
    }
    // From unsigned to signed, and no way back for what is signed well.
    fs::remove_file(source.join(SIGNATURE_FILE)).unwrap();
    let lax = trust(&[&place.maker], true);
    assert!(!install(&lax).join(SIGNATURE_FILE).exists(), "a signature that is not trusted goes");
    place.maker.sign(&source);
    assert!(Bundle::open_trusted(&install(&old), &old).is_ok());
    fs::remove_file(source.join(SIGNATURE_FILE)).unwrap();
    place.install_unsigned(&source).unwrap();
    assert!(Bundle::open_trusted(&place.store.candidates().unwrap()[0], &old).is_ok(), "a trusted one stays");
    assert_eq!(names(&place.path("state/bundles")).len(), 2, "the bundle and the record");
}

#[test]
fn a_link_that_somebody_put_there_is_not_followed() {
    let place = Place::new();
    let precious = place.path("precious");
    fs::write(&precious, "as it was").unwrap();
    let bundles = place.path("state/bundles");
    let record = fs::read(bundles.join("installed.json")).unwrap();
    fs::remove_file(bundles.join("installed.json")).unwrap();
    fs::write(place.path("record"), record).unwrap();
    symlink(place.path("record"), bundles.join("installed.json")).unwrap();
    for name in ["installed.json.part", ".staging-1", &format!(".staging-{}", std::process::id())] {
        symlink(&precious, bundles.join(name)).unwrap();
    }
    let before = fs::read(place.path("record")).unwrap();
    place.install(&place.bundle("1.1.0")).unwrap();
    assert_eq!(fs::read_to_string(&precious).unwrap(), "as it was");
    assert_eq!(fs::read(place.path("record")).unwrap(), before, "the new record took the link's place");
    assert_eq!(place.active().as_deref(), Some("1.1.0"));
}

#[test]
fn an_old_bundle_that_cannot_be_removed_is_no_reason_to_say_that_nothing_was_installed() {
    let place = Place::new();
    place.install(&place.bundle("1.1.0")).unwrap();
    let newest = place.bundle("1.2.0");
    let in_the_way = |step: Step| {
        if step == Step::Switched {
            let staging = names(&place.path("state/bundles")).into_iter().find(|name| name.starts_with(".staging-"));
            fs::write(place.path("state/bundles").join(staging.unwrap()).join("old"), "a file").unwrap();
        }
    };
    let done = place.store.install(&place.terms(&newest, &place.path("packaged")), test, in_the_way).unwrap();
    assert!(done.left.len() == 1 && done.left[0].contains("tiny-1.0.0-"), "{:?}", done.left);
    assert_eq!(place.active().as_deref(), Some("1.2.0"));
    assert_eq!(names(&place.path("state/bundles")).len(), 4, "three bundles and the record");
    // The next installation tries again.
    let done = place.install(&place.bundle("1.3.0")).unwrap();
    assert_eq!((done.left, names(&place.path("state/bundles")).len()), (Vec::new(), 3));
}
