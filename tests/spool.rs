//! The promises of spools and of several doors: what is stored is whole, durable and judged once; what is settled leaves
//! nothing behind; no door waits for another.

use roentgen::pseudonym::Key;
use roentgen::radiograph::{Limits, OriginKind, encode_png, phantom};
use roentgen::source::decoder::Decoder;
use roentgen::source::folder::{self, Bounds, Folder, Time};
use roentgen::source::process::Program;
use roentgen::source::reserve;
use roentgen::source::spool::{Door, Keep, Spool, SpoolError};
use roentgen::source::{Content, Doors, Intake, Item, Outcome, Source};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Long enough for a loaded machine; a test that passes does not wait for it.
const PATIENCE: Duration = Duration::from_secs(30);

const NO_RESERVE: reserve::Config = reserve::Config { min_free_bytes: 0 };

fn png(seed: u64) -> Vec<u8> {
    encode_png(&phantom::radiograph(seed, 64)).unwrap()
}

fn decoder() -> Decoder {
    Decoder::in_process(Limits::default(), Key::from_bytes([7; 32]))
}

fn watch(spool: &Spool, keep: Keep) -> Folder {
    spool.watch(&keep, decoder(), Program::this(["no-trial"])).unwrap()
}

fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn next(source: &mut impl Source) -> Item {
    source.next(PATIENCE).unwrap().expect("an image was put there and never came")
}

fn name(item: &Item) -> &str {
    item.handle.file_name().unwrap().to_str().unwrap()
}

fn refuse(source: &mut impl Source, item: &Item) {
    let Content::Refused(refusal) = &item.content else { panic!("it is no radiograph") };
    source.settle(item, Outcome::Rejected(refusal.clone())).unwrap();
}

#[test]
fn a_reported_image_leaves_nothing_and_a_rejected_one_stays_with_its_reason() {
    let state = tempfile::tempdir().unwrap();
    let spool = Spool::open(state.path(), Door::Camera, &NO_RESERVE).unwrap();
    let root = state.path().join("spool/camera");
    let mut folder = watch(&spool, Keep::default());
    spool.store("film-1.png", &png(1)).unwrap();
    assert!(matches!(spool.store("film-1.png", &png(2)), Err(SpoolError::Name)), "it waits already");
    let item = next(&mut folder);
    let Content::Radiograph(radiograph) = &item.content else { panic!("a phantom can be read") };
    assert_eq!((name(&item), radiograph.origin.kind), ("film-1.png", OriginKind::Camera));
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&item.handle), mode(item.handle.parent().unwrap())), (0o600, 0o700));
    folder.settle(&item, Outcome::Reported).unwrap();
    spool.store("film-2.png", b"no image").unwrap();
    let item = next(&mut folder);
    refuse(&mut folder, &item);
    assert_eq!(names(&root), ["arriving", "at-hand", "incoming", "rejected"]);
    assert_eq!(names(&root.join("rejected")), ["film-2.png", "film-2.png.reason.json"]);
    assert!(names(&root.join("incoming")).is_empty() && names(&root.join("arriving")).is_empty());
}

#[test]
fn what_is_kept_of_settled_images_can_be_chosen() {
    let state = tempfile::tempdir().unwrap();
    let spool = Spool::open(state.path(), Door::Dicom, &NO_RESERVE).unwrap();
    let mut folder = watch(&spool, Keep { reported: true, rejected: false, ..Keep::default() });
    spool.store("a", &png(1)).unwrap();
    spool.store("b", b"no image").unwrap();
    for _ in 0..2 {
        let item = next(&mut folder);
        match &item.content {
            Content::Refused(_) => refuse(&mut folder, &item),
            _ => folder.settle(&item, Outcome::Reported).unwrap(),
        }
    }
    let root = state.path().join("spool/dicom");
    assert_eq!(names(&root), ["arriving", "at-hand", "done", "incoming"]);
    assert_eq!(names(&root.join("done")), ["a"]);
    assert!(names(&root.join("incoming")).is_empty());
}

#[test]
fn of_what_was_rejected_the_oldest_go_in_time_with_their_reasons() {
    let state = tempfile::tempdir().unwrap();
    let spool = Spool::open(state.path(), Door::Dicom, &NO_RESERVE).unwrap();
    let rejected = state.path().join("spool/dicom/rejected");
    let mut folder = watch(&spool, Keep::default());
    for name in ["a", "b", "c"] {
        spool.store(name, &[b'x'; 1000]).unwrap();
        let item = next(&mut folder);
        refuse(&mut folder, &item);
        // File systems count time in ticks of milliseconds.
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(names(&rejected).len(), 6);
    let look = |bounds: Bounds, time: Time| {
        let mut folder = watch(&spool, Keep::default()).with_retention_of_rejected(bounds, time);
        for _ in 0..20 {
            assert!(folder.next(Duration::from_millis(5)).unwrap().is_none());
        }
        names(&rejected)
    };
    let in_forty_days = || Some(SystemTime::now() + Duration::from_secs(40 * 86_400));
    assert_eq!(look(Keep::BOUNDS, || None).len(), 6, "nobody vouches for the clock");
    assert_eq!(look(Bounds { days: 0, bytes: 2500 }, || None), ["b", "b.reason.json", "c", "c.reason.json"]);
    assert_eq!(look(Bounds { days: 0, bytes: 0 }, in_forty_days).len(), 4, "for ever");
    assert!(look(Keep::BOUNDS, in_forty_days).is_empty());
    // Where none are kept nobody looks for them.
    let keep = Keep { rejected: false, ..Keep::default() };
    std::fs::remove_dir(&rejected).unwrap();
    let mut folder = watch(&spool, keep).with_retention_of_rejected(keep.bounds, || None);
    assert!(folder.next(Duration::ZERO).unwrap().is_none() && !rejected.exists());
}

#[test]
fn nothing_unfinished_is_seen_or_survives_its_run() {
    let state = tempfile::tempdir().unwrap();
    let root = state.path().join("spool/dicom");
    fs::create_dir_all(root.join("arriving")).unwrap();
    fs::write(root.join("arriving/0123456789abcdef-x.tmp"), "of an earlier run").unwrap();
    let spool = Spool::open(state.path(), Door::Dicom, &NO_RESERVE).unwrap();
    let mut folder = watch(&spool, Keep::default());
    let image = png(1);
    let mut draft = spool.draft().unwrap();
    draft.append(&image[..100]).unwrap();
    // As a reload does, while an image is arriving.
    let again = Spool::open(state.path(), Door::Dicom, &NO_RESERVE).unwrap();
    assert_eq!(names(&root.join("arriving")).len(), 1);
    assert!(folder.next(Duration::from_millis(1500)).unwrap().is_none(), "it is not whole");
    draft.append(&image[100..]).unwrap();
    draft.commit("whole.dcm").unwrap();
    let item = next(&mut folder);
    assert!(matches!(item.content, Content::Radiograph(_)));
    drop(again.draft().unwrap());
    assert!(names(&root.join("arriving")).is_empty(), "given up");
    for bad in ["", ".hidden", "a/b", "../a", "a.tmp"] {
        assert!(matches!(spool.store(bad, b"1"), Err(SpoolError::Name)), "{bad}");
    }
    assert_eq!(names(&root.join("incoming")), ["whole.dcm"]);
    assert_eq!(names(state.path()), ["spool"]);
}

#[test]
fn what_lies_there_at_the_start_is_taken_and_a_folder_that_vanished_is_made_again() {
    let state = tempfile::tempdir().unwrap();
    let spool = Spool::open(state.path(), Door::Dicom, &NO_RESERVE).unwrap();
    spool.store("before.dcm", &png(1)).unwrap();
    let mut folder = watch(&spool, Keep::default());
    let item = next(&mut folder);
    assert_eq!(name(&item), "before.dcm");
    folder.settle(&item, Outcome::Reported).unwrap();
    fs::remove_dir_all(state.path().join("spool/dicom")).unwrap();
    spool.store("after.dcm", &png(2)).unwrap();
    assert_eq!(name(&next(&mut folder)), "after.dcm");
    assert_eq!(folder.condition().intake, Intake::Open);
}

#[test]
fn a_reserve_that_is_reached_is_said_before_anything_is_written() {
    let state = tempfile::tempdir().unwrap();
    let all = reserve::Config { min_free_bytes: u64::MAX };
    let spool = Spool::open(state.path(), Door::Dicom, &all).unwrap();
    assert!(matches!(spool.check_room(), Err(SpoolError::NoRoom(_))));
    let Err(SpoolError::NoRoom(reason)) = spool.store("a.dcm", b"1") else { panic!("there is no room") };
    assert!(reason.contains("min_free_bytes"), "{reason}");
    assert!(names(&state.path().join("spool/dicom/arriving")).is_empty());
}

#[test]
fn what_came_before_the_reserve_was_reached_is_judged_which_makes_room() {
    let state = tempfile::tempdir().unwrap();
    Spool::open(state.path(), Door::Dicom, &NO_RESERVE).unwrap().store("a.dcm", &png(1)).unwrap();
    let all = reserve::Config { min_free_bytes: u64::MAX };
    let spool = Spool::open(state.path(), Door::Dicom, &all).unwrap();
    let mut folder = watch(&spool, Keep::default());
    let item = next(&mut folder);
    folder.settle(&item, Outcome::Reported).unwrap();
    assert!(names(&state.path().join("spool/dicom/incoming")).is_empty());
    assert!(matches!(spool.check_room(), Err(SpoolError::NoRoom(_))), "and nothing more is taken");
}

#[test]
fn a_reserve_that_is_reached_in_the_middle_of_a_file_ends_it() {
    const MIB: u64 = 1 << 20;
    // In memory, where hardly anybody else changes what is free.
    let memory = Path::new("/dev/shm");
    let place = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    let state = tempfile::tempdir_in(place).unwrap();
    let free = || {
        let disk = rustix::fs::statvfs(state.path()).unwrap();
        disk.f_bavail * disk.f_frsize
    };
    // What others write or remove meanwhile may spoil a try.
    let is_ended = (0..5).any(|_| {
        let room = reserve::Config { min_free_bytes: free().saturating_sub(8 * MIB) };
        let spool = Spool::open(state.path(), Door::Dicom, &room).unwrap();
        let Ok(mut draft) = spool.draft() else { return false };
        let chunk = vec![0; MIB as usize];
        let error = (0..24).find_map(|_| draft.append(&chunk).err());
        matches!(error, Some(SpoolError::NoRoom(reason)) if reason.contains("min_free_bytes"))
    });
    assert!(is_ended);
    assert!(names(&state.path().join("spool/dicom/arriving")).is_empty());
}

/// A drop folder and two spools as one source.
struct Clinic {
    _root: tempfile::TempDir,
    incoming: PathBuf,
    dicom: Spool,
    camera: Spool,
    doors: Doors,
}

fn clinic() -> Clinic {
    let root = tempfile::tempdir().unwrap();
    let incoming = root.path().join("incoming");
    // Events only: by its looks alone nothing would come out of the drop folder within the patience.
    let config =
        folder::Config { incoming: incoming.clone(), settle_ms: 600_000, poll_ms: 600_000, ..Default::default() };
    let mut doors = Doors::new(Folder::open(&config, decoder()).unwrap());
    let [dicom, camera] = [Door::Dicom, Door::Camera].map(|door| Spool::open(root.path(), door, &NO_RESERVE).unwrap());
    for spool in [&dicom, &camera] {
        doors.add(watch(spool, Keep::default()));
    }
    Clinic { _root: root, incoming, dicom, camera, doors }
}

#[test]
fn a_door_with_many_images_does_not_starve_another() {
    let Clinic { _root, incoming, dicom, camera, mut doors } = clinic();
    for seed in 0..40 {
        fs::write(incoming.join(format!("{seed}.png")), png(seed)).unwrap();
        dicom.store(&format!("{seed}.dcm"), &png(100 + seed)).unwrap();
    }
    camera.store("film.png", &png(200)).unwrap();
    let mut came = Vec::new();
    while came.len() < 81 {
        let item = next(&mut doors);
        came.push(item.handle.clone());
        doors.settle(&item, Outcome::Reported).unwrap();
    }
    assert_eq!(came.iter().collect::<BTreeSet<_>>().len(), 81, "each once");
    let film = came.iter().position(|path| path.ends_with("film.png")).unwrap();
    assert!(film < 12, "the film came after {film} others");
    // In turns to the end, as long as both have any.
    let ends = came[..60].iter().filter(|path| path.extension().is_some_and(|end| end == "dcm")).count();
    assert!((25..=35).contains(&ends), "{ends} of the first 60");
    assert_eq!(doors.condition().waiting, 0);
    assert_eq!(names(&incoming.with_file_name("done")).len(), 40);
}

#[test]
fn images_that_come_while_all_doors_are_waited_for_are_seen_at_whichever_door() {
    let Clinic { _root, incoming, dicom, camera, mut doors } = clinic();
    assert!(doors.next(Duration::from_millis(50)).unwrap().is_none());
    for round in 0..6 {
        let (incoming, dicom, camera) = (incoming.clone(), dicom.clone(), camera.clone());
        let late = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(100));
            match round % 3 {
                0 => fs::write(incoming.join(format!("{round}.png")), png(round)).unwrap(),
                1 => dicom.store(&format!("{round}.dcm"), &png(round)).unwrap(),
                _ => camera.store(&format!("{round}.png"), &png(round)).unwrap(),
            }
        });
        let item = next(&mut doors);
        late.join().unwrap();
        assert!(name(&item).starts_with(&round.to_string()));
        doors.settle(&item, Outcome::Reported).unwrap();
    }
}

#[test]
fn a_closed_door_is_named_and_the_others_go_on() {
    let Clinic { _root, incoming, dicom, mut doors, .. } = clinic();
    fs::remove_dir_all(&incoming).unwrap();
    dicom.store("a.dcm", &png(1)).unwrap();
    assert_eq!(name(&next(&mut doors)), "a.dcm");
    assert!(doors.next(Duration::from_millis(300)).unwrap().is_none());
    let Intake::Closed { reason } = doors.condition().intake else { panic!("the drop folder is gone") };
    assert!(reason.starts_with("the drop folder: ") && reason.contains("incoming"), "{reason}");
    fs::create_dir(&incoming).unwrap();
    assert!(doors.next(Duration::from_millis(300)).unwrap().is_none());
    assert_eq!(doors.condition().intake, Intake::Open);
}
