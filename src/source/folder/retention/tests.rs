//! Tests of what is deleted from folders of settled files, and of what never is.

use super::*;

/// Everything until it rests.
fn settle(retention: &mut Retention, now: Instant) {
    for _ in 0..100_000 {
        retention.step(now);
        if matches!(&retention.phase, Phase::Rest(Some(until)) if *until > now) {
            return;
        }
    }
    panic!("it never rests");
}

fn in_forty_days() -> Option<SystemTime> {
    Some(SystemTime::now() + 40 * DAY)
}

fn files(folder: &Path) -> usize {
    fs::read_dir(folder).unwrap().count()
}

struct Place {
    root: tempfile::TempDir,
    config: Config,
}

impl Place {
    /// So many files of a hundred bytes, the first the oldest.
    fn new(count: usize) -> Self {
        let root = tempfile::tempdir().unwrap();
        let config = Config { incoming: root.path().join("incoming"), ..Config::default() };
        fs::create_dir(config.done()).unwrap();
        for number in 0..count {
            fs::write(config.done().join(format!("{number:04}.png")), [0; 100]).unwrap();
        }
        Self { root, config }
    }
}

/// Of `done/`, by a configuration.
fn of_done(config: &Config, time: Time) -> Option<Retention> {
    let bounds = Bounds { days: config.keep_done_days, bytes: config.keep_done_bytes };
    Retention::new(config.done(), bounds, time)
}

#[test]
fn by_default_everything_stays() {
    assert!(of_done(&Config::default(), in_forty_days).is_none());
}

#[test]
fn a_rejected_file_goes_with_its_reason_and_a_reason_alone_as_a_file() {
    let place = Place::new(0);
    let rejected = place.config.rejected();
    fs::create_dir(&rejected).unwrap();
    let names = || {
        let mut names: Vec<_> =
            fs::read_dir(&rejected).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    for name in ["a.dcm.reason.json", "b", "b.reason.json", "c", "c.reason.json"] {
        fs::write(rejected.join(name), [0; 100]).unwrap();
        std::thread::sleep(Duration::from_millis(20));
    }
    let with = |days, bytes, time| {
        let retention = Retention::new(rejected.clone(), Bounds { days, bytes }, time).unwrap();
        settle(&mut Retention { has_reasons: true, ..retention }, Instant::now());
    };
    with(30, 300, || None);
    assert_eq!(names().len(), 5, "reasons of others do not count");
    with(30, 250, || None);
    assert_eq!(names(), ["b", "b.reason.json", "c", "c.reason.json"], "one without its file is a file");
    with(30, 150, || None);
    assert_eq!(names(), ["c", "c.reason.json"]);
    with(39, 0, || None);
    assert_eq!(names().len(), 2);
    with(39, 0, in_forty_days);
    assert!(names().is_empty());
}

#[test]
fn beyond_the_bytes_the_oldest_go_and_the_others_stay() {
    let place = Place::new(0);
    let done = place.config.done();
    for name in ["c", "a", "d", "b"] {
        fs::write(done.join(name), [0; 100]).unwrap();
        // File systems count time in ticks of milliseconds.
        std::thread::sleep(Duration::from_millis(20));
    }
    let config = Config { keep_done_bytes: 250, ..place.config };
    let mut retention = of_done(&config, || None).unwrap();
    settle(&mut retention, Instant::now());
    assert_eq!(["a", "b", "c", "d"].map(|name| done.join(name).exists()), [false, true, false, true]);
    let Count { files, bytes } = retention.deleted;
    assert_eq!((files, bytes), (0, 0), "it is said");
}

#[test]
fn what_is_too_old_goes_only_by_a_clock_that_somebody_vouches_for() {
    let place = Place::new(5);
    let cases: [(u32, Time, usize); 3] = [(30, || None, 5), (41, in_forty_days, 5), (39, in_forty_days, 0)];
    for (days, time, left) in cases {
        let config = Config { keep_done_days: days, ..place.config.clone() };
        settle(&mut of_done(&config, time).unwrap(), Instant::now());
        assert_eq!(files(&config.done()), left, "{days}");
    }
}

#[test]
fn more_than_it_remembers_goes_too_and_then_it_rests_for_an_hour() {
    let place = Place::new(2 * MOST + 10);
    let config = Config { keep_done_bytes: 100, ..place.config };
    let mut retention = of_done(&config, || None).unwrap();
    let now = Instant::now();
    settle(&mut retention, now);
    assert_eq!(files(&config.done()), 1);
    for number in 0..3 {
        fs::write(config.done().join(number.to_string()), [0; 100]).unwrap();
    }
    settle(&mut retention, now + PAUSE / 2);
    assert_eq!(files(&config.done()), 4);
    settle(&mut retention, now + PAUSE);
    assert_eq!(files(&config.done()), 1);
    assert_eq!(retention.deleted.files, 3, "said once a day");
    settle(&mut retention, now + SAY + PAUSE);
    assert_eq!(retention.deleted.files, 0);
}

#[test]
fn nothing_else_is_ever_deleted() {
    let place = Place::new(3);
    let done = place.config.done();
    let outside = place.root.path().join("outside");
    fs::write(&outside, [0; 1000]).unwrap();
    std::os::unix::fs::symlink(&outside, done.join("link.png")).unwrap();
    fs::create_dir_all(done.join("folder")).unwrap();
    for kept in ["folder/a.png", ".roentgen-x1y2", "b.part"] {
        fs::write(done.join(kept), [0; 1000]).unwrap();
    }
    for other in ["incoming", "rejected"] {
        fs::create_dir(place.root.path().join(other)).unwrap();
        fs::write(place.root.path().join(other).join("c.png"), [0; 1000]).unwrap();
    }
    let config = Config { keep_done_days: 1, keep_done_bytes: 1, ..place.config };
    settle(&mut of_done(&config, in_forty_days).unwrap(), Instant::now());
    assert_eq!(files(&done), 4, "the link, the folder, and what is not finished");
    let others = ["outside", "done/folder/a.png", "incoming/c.png", "rejected/c.png"];
    assert!(others.iter().all(|path| place.root.path().join(path).is_file()));
}

#[test]
fn a_file_that_took_another_ones_place_meanwhile_stays() {
    let place = Place::new(1);
    let path = place.config.done().join("0000.png");
    let entry = fs::read_dir(place.config.done()).unwrap().next().unwrap().unwrap();
    let file = Settled::of(&entry, false).unwrap();
    fs::remove_file(&path).unwrap();
    fs::write(&path, "another one").unwrap();
    assert!(!delete(&file).unwrap() && path.exists());
    fs::remove_file(&path).unwrap();
    assert!(!delete(&file).unwrap());
}
