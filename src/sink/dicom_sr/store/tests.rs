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
    Store::open(folder, &config, now)
}

/// The same on a box whose clock says this.
fn store_at(folder: &Path, time: Time) -> Store {
    Store::open(folder, &Config::to("pacs:104", "PACS"), time)
}

fn now() -> Option<SystemTime> {
    Some(SystemTime::now())
}

fn in_forty_days() -> Option<SystemTime> {
    Some(SystemTime::now() + Duration::from_secs(40 * 86_400))
}

fn unset() -> Option<SystemTime> {
    None
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
    assert_eq!((place.next(None), place.depth()), (None, Depth { bytes: 110, ..Depth::default() }));
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
    let dropped: Vec<_> = place.tidy().into_iter().map(|(name, _)| (name.sequence, name.kind)).collect();
    let picture = Kind::SecondaryCapture;
    assert_eq!(dropped, [(1, picture), (2, picture), (3, picture)]);
    assert!(place.tidy().is_empty());
    let tight = store(folder.path(), |config| config.max_bytes = 25);
    let dropped: Vec<_> = tight.tidy().into_iter().map(|(name, _)| (name.sequence, name.kind)).collect();
    assert_eq!(dropped, [(4, picture), (1, Kind::Sr), (2, Kind::Sr)]);
}

#[test]
fn what_is_too_old_goes_and_what_is_no_object_of_ours_stays() {
    let folder = tempfile::tempdir().unwrap();
    let place = store(folder.path(), |config| config.max_age_days = 1);
    place.stage(&made(1)).unwrap();
    place.release(&id(1), 1).unwrap();
    let (staged, waiting) = (folder.path().join("results/staged"), folder.path().join("results/waiting"));
    fs::write(waiting.join("notes.txt"), "mine").unwrap();
    fs::write(staged.join("half.tmp"), "").unwrap();
    let old = SystemTime::now() - Duration::from_secs(2 * 86_400);
    let file = waiting.join(format!("{:020}-{}-sr.dcm", 1, id(1)));
    File::options().write(true).open(file).unwrap().set_modified(old).unwrap();
    let place = Store::open(folder.path(), &Config { max_age_days: 1, ..Config::to("pacs:104", "PACS") }, unset);
    assert_eq!(place.tidy(), [], "nobody vouches for the clock");
    let place = store(folder.path(), |config| config.max_age_days = 1);
    place.sweep();
    assert_eq!(place.tidy().len(), 1);
    assert!(names(&staged).is_empty());
    assert_eq!(names(&waiting), [format!("{:020}-{}-secondary_capture.dcm", 1, id(1)), "notes.txt".into()]);
}

#[test]
fn a_clock_that_was_not_set_costs_nothing_when_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let waiting = folder.path().join("results/waiting");
    let age = |name: &str| {
        let modified = fs::metadata(waiting.join(name)).unwrap().modified().unwrap();
        SystemTime::now().duration_since(modified).unwrap()
    };
    // Judged before the time came: by the time of 1970, or by that of a shutdown weeks ago.
    let place = store_at(folder.path(), unset);
    place.stage(&made(1)).unwrap();
    place.release(&id(1), 1).unwrap();
    assert_eq!(place.tidy(), []);
    let file = names(&waiting).remove(0);
    assert!(age(&file) > Duration::from_secs(50 * 365 * 86_400), "such a date is no time of this program");
    // One of an earlier version, dated by the clock as it stood then.
    let early = waiting.join(format!("{:020}-{}-sr.dcm", 2, id(2)));
    fs::write(&early, "1").unwrap();
    File::options()
        .write(true)
        .open(&early)
        .unwrap()
        .set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(86_400))
        .unwrap();
    // It is set: their age begins.
    let place = store_at(folder.path(), now);
    assert_eq!((place.tidy(), place.depth().waiting), (vec![], 3));
    assert!(names(&waiting).iter().all(|name| age(name) < Duration::from_secs(3600)));
    place.look().unwrap();
    assert_eq!(place.tidy(), []);
    assert_eq!(store_at(folder.path(), in_forty_days).tidy().len(), 3);
}

#[test]
fn what_the_pacs_has_is_not_sent_again_when_its_file_cannot_be_removed() {
    let folder = tempfile::tempdir().unwrap();
    let place = store(folder.path(), |_| {});
    place.stage(&made(1)).unwrap();
    place.release(&id(1), 1).unwrap();
    let first = place.next(None).unwrap();
    let path = folder.path().join("results/waiting").join(first.file(Folder::Waiting));
    let aside = folder.path().join("aside");
    // As on a disk that may only be read, for root too: a folder is not removed as a file is.
    fs::rename(&path, &aside).unwrap();
    fs::create_dir(&path).unwrap();
    place.delivered(&first).unwrap_err();
    fs::remove_dir(&path).unwrap();
    fs::rename(&aside, &path).unwrap();
    place.look().unwrap();
    let second = place.next(None).unwrap();
    assert!(second != first && place.next(Some(&second)).is_none() && !place.waits(&first));
    assert_eq!((place.depth().waiting, path.exists()), (1, true));
    assert_eq!((place.tidy(), path.exists()), (vec![], false), "it goes as soon as it can");
    place.look().unwrap();
    assert_eq!(place.next(None), Some(second));
}

#[test]
fn what_was_set_aside_waits_again_when_it_is_recalled() {
    let folder = tempfile::tempdir().unwrap();
    let place = store(folder.path(), |_| {});
    for number in 1..=2 {
        place.stage(&made(number)).unwrap();
        place.release(&id(number), number).unwrap();
        while let Some(name) = place.next(None) {
            place.refuse(&name).unwrap();
        }
    }
    assert_eq!(place.depth(), Depth { waiting: 0, refused: 4, bytes: 220 });
    // A technician has deleted one.
    let refused = folder.path().join("results/refused");
    fs::remove_file(refused.join(&names(&refused)[0])).unwrap();
    let (recalled, done) = place.recall();
    done.unwrap();
    assert_eq!(recalled.len(), 3);
    assert_eq!((place.depth().waiting, place.depth().refused, names(&refused).len()), (3, 0, 0));
    assert!(place.recall().0.is_empty());
}

#[test]
fn folders_that_somebody_removed_are_made_again_and_what_never_comes_is_discarded() {
    let folder = tempfile::tempdir().unwrap();
    assert!(!holds_any(folder.path()));
    let place = store(folder.path(), |_| {});
    assert!(!holds_any(folder.path()));
    place.stage(&made(1)).unwrap();
    place.stage(&made(2)).unwrap();
    assert!(holds_any(folder.path()));
    let waiting = folder.path().join("results/waiting");
    fs::remove_dir(&waiting).unwrap();
    assert_eq!(place.release(&id(1), 1).unwrap(), 2);
    assert_eq!(names(&waiting).len(), 2);
    place.discard(&id(2));
    place.discard(&id(3));
    assert_eq!((place.release(&id(2), 2).unwrap(), place.depth().bytes), (0, 110));
    assert!(names(&folder.path().join("results/staged")).is_empty());
    // Something else in the way is said, and nothing is lost.
    place.stage(&made(4)).unwrap();
    fs::remove_dir_all(&waiting).unwrap();
    fs::write(&waiting, "in the way").unwrap();
    place.release(&id(4), 4).unwrap_err();
    fs::remove_file(&waiting).unwrap();
    assert_eq!(place.release(&id(4), 4).unwrap(), 2);
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
