//! Tests of the objects on disk: what waits when, what is dropped first, what a crash leaves.

use super::*;
use std::os::unix::fs::PermissionsExt;

fn id(number: u64) -> String {
    format!("{number:032x}")
}

fn made(number: u64) -> Made {
    Made { report_id: id(number), objects: vec![(Kind::Sr, vec![1; 10]), (Kind::SecondaryCapture, vec![2; 100])] }
}

fn store(folder: &Path, change: impl FnOnce(&mut Config)) -> Store {
    let mut config = Config::to("pacs:104", "PACS");
    change(&mut config);
    Store::open(folder, &config)
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn what_is_staged_waits_once_its_report_is_durable_and_not_before() {
    let folder = tempfile::tempdir().unwrap();
    let place = store(folder.path(), |_| {});
    place.stage(&made(7)).unwrap();
    assert_eq!((place.next(None), place.depth()), (None, Depth::default()));
    assert_eq!(place.release(&id(8), 1).unwrap(), 0, "another report's");
    // A crash: nothing is remembered but the files.
    let place = store(folder.path(), |_| {});
    assert_eq!((place.release(&id(7), 3).unwrap(), place.release(&id(7), 3).unwrap()), (2, 0));
    let first = place.next(None).unwrap();
    assert_eq!((first.sequence, first.kind), (3, Kind::Sr), "the report before its picture");
    assert_eq!(place.next(Some(&first)).unwrap().kind, Kind::SecondaryCapture);
    assert_eq!(place.depth(), Depth { waiting: 2, refused: 0, bytes: 110 });
    for path in ["results", "results/waiting"] {
        let mode = fs::metadata(folder.path().join(path)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "{path}");
    }
    for name in names(&folder.path().join("results/waiting")) {
        let mode = fs::metadata(folder.path().join("results/waiting").join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    place.delivered(&first).unwrap();
    place.delivered(&first).unwrap();
    place.refuse(&place.next(None).unwrap()).unwrap();
    assert_eq!((place.next(None), place.depth()), (None, Depth { waiting: 0, refused: 1, bytes: 100 }));
    // A technician moves it back.
    let refused = folder.path().join("results/refused");
    let name = names(&refused).remove(0);
    fs::rename(refused.join(&name), folder.path().join("results/waiting").join(name)).unwrap();
    place.look().unwrap();
    assert_eq!(place.depth(), Depth { waiting: 1, refused: 0, bytes: 100 });
}

#[test]
fn beyond_the_bounds_pictures_go_first_and_of_all_the_oldest() {
    let folder = tempfile::tempdir().unwrap();
    let place = store(folder.path(), |config| (config.max_waiting, config.max_bytes) = (5, 1000));
    for number in 1..=4 {
        place.stage(&made(number)).unwrap();
        place.release(&id(number), number).unwrap();
    }
    let dropped: Vec<_> = place.tidy().into_iter().map(|name| (name.sequence, name.kind)).collect();
    let picture = Kind::SecondaryCapture;
    assert_eq!(dropped, [(1, picture), (2, picture), (3, picture)]);
    assert!(place.tidy().is_empty());
    let tight = store(folder.path(), |config| config.max_bytes = 25);
    let dropped: Vec<_> = tight.tidy().into_iter().map(|name| (name.sequence, name.kind)).collect();
    assert_eq!(dropped, [(4, picture), (1, Kind::Sr), (2, Kind::Sr)]);
}

#[test]
fn what_is_too_old_goes_and_what_is_no_object_of_ours_stays() {
    let folder = tempfile::tempdir().unwrap();
    let place = store(folder.path(), |config| config.max_age_days = 1);
    place.stage(&made(1)).unwrap();
    place.stage(&made(2)).unwrap();
    place.release(&id(1), 1).unwrap();
    let (staged, waiting) = (folder.path().join("results/staged"), folder.path().join("results/waiting"));
    fs::write(waiting.join("notes.txt"), "mine").unwrap();
    fs::write(staged.join("half.tmp"), "").unwrap();
    let old = SystemTime::now() - Duration::from_secs(2 * 86_400);
    for file in [staged.join(format!("{}-sr.dcm", id(2))), waiting.join(format!("{:020}-{}-sr.dcm", 1, id(1)))] {
        File::options().write(true).open(file).unwrap().set_modified(old).unwrap();
    }
    let place = store(folder.path(), |config| config.max_age_days = 1);
    place.sweep();
    assert_eq!(place.tidy().len(), 1);
    assert_eq!(names(&staged), [format!("{}-secondary_capture.dcm", id(2))]);
    assert_eq!(names(&waiting), [format!("{:020}-{}-secondary_capture.dcm", 1, id(1)), "notes.txt".into()]);
}

#[test]
fn an_id_is_never_a_path() {
    let folder = tempfile::tempdir().unwrap();
    let place = store(folder.path(), |_| {});
    let evil = Made { report_id: "../../../../../../../../tmp/aaaa".into(), objects: vec![(Kind::Sr, vec![1])] };
    place.stage(&evil).unwrap();
    assert_eq!(place.release(&evil.report_id, 1).unwrap(), 0);
    assert!(names(&folder.path().join("results/staged")).is_empty());
}
