//! The drop folder's promises: complete files are handed over once and in order, unfinished ones are left alone, settled
//! ones are moved without overwriting anything.

use roentgen::pseudonym::Key;
use roentgen::radiograph::{Limits, Refusal, RefusalCode, phantom};
use roentgen::source::decoder::Decoder;
use roentgen::source::folder::{Config, Folder};
use roentgen::source::{Content, Intake, Item, Outcome, Source};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

/// Long enough for a loaded machine; a test that passes does not wait for it.
const PATIENCE: Duration = Duration::from_secs(20);

/// Longer than the settle time below, for what must not come.
const QUIET: Duration = Duration::from_millis(900);

struct Place {
    _root: tempfile::TempDir,
    incoming: PathBuf,
    config: Config,
}

impl Place {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let incoming = root.path().join("incoming");
        fs::create_dir(&incoming).unwrap();
        let config = Config { incoming: incoming.clone(), settle_ms: 300, poll_ms: 50, ..Config::default() };
        Self { _root: root, incoming, config }
    }

    fn open(&self) -> Folder {
        Folder::open(&self.config, decoder()).unwrap()
    }

    fn names(&self, folder: &str) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(self.incoming.with_file_name(folder))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

fn decoder() -> Decoder {
    Decoder::in_process(Limits::default(), Key::from_bytes([7; 32]))
}

/// Whether it is a radiograph.
fn is_good(item: &Item) -> bool {
    matches!(item.content, Content::Radiograph(_))
}

fn png(seed: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    let grey = image::GrayImage::from_raw(64, 64, phantom::phantom(seed, 64)).unwrap();
    grey.write_to(&mut std::io::Cursor::new(&mut bytes), image::ImageFormat::Png).unwrap();
    bytes
}

fn name(item: &Item) -> &str {
    item.handle.file_name().unwrap().to_str().unwrap()
}

fn next(folder: &mut Folder) -> Item {
    folder.next(PATIENCE).unwrap().expect("a file was dropped and never came")
}

fn expect_nothing(folder: &mut Folder) {
    let item = folder.next(QUIET).unwrap();
    assert!(item.is_none(), "{item:?}");
}

#[test]
fn files_closed_or_renamed_in_are_taken_and_settled_without_overwriting() {
    let place = Place::new();
    let mut folder = place.open();
    for round in 0..3 {
        if round == 1 {
            fs::write(place.incoming.join("thorax.png.part"), png(round)).unwrap();
            fs::rename(place.incoming.join("thorax.png.part"), place.incoming.join("thorax.png")).unwrap();
        } else {
            fs::write(place.incoming.join("thorax.png"), png(round)).unwrap();
        }
        let item = next(&mut folder);
        assert_eq!(name(&item), "thorax.png");
        assert!(is_good(&item));
        assert!(item.received_at <= SystemTime::now());
        assert!(item.handle.exists(), "it stays until it is settled");
        folder.settle(&item, Outcome::Reported).unwrap();
        assert!(!item.handle.exists());
    }
    expect_nothing(&mut folder);
    assert_eq!(place.names("done"), ["thorax.1.png", "thorax.2.png", "thorax.png"]);
    for (file, seed) in [("thorax.png", 0), ("thorax.1.png", 1), ("thorax.2.png", 2)] {
        assert_eq!(fs::read(place.incoming.with_file_name("done").join(file)).unwrap(), png(seed), "{file}");
    }
    assert!(place.names("incoming").is_empty() && place.names("rejected").is_empty());
}

#[test]
fn a_refused_file_lies_in_rejected_with_its_reason() {
    let place = Place::new();
    let mut folder = place.open();
    fs::write(place.incoming.join("letter.txt"), "Dear colleague").unwrap();
    let item = next(&mut folder);
    let Content::Refused(refusal) = &item.content else { panic!("a text is no radiograph") };
    folder.settle(&item, Outcome::Rejected(refusal.clone())).unwrap();
    assert_eq!(place.names("rejected"), ["letter.txt", "letter.txt.reason.json"]);
    let reason = fs::read_to_string(place.incoming.with_file_name("rejected").join("letter.txt.reason.json")).unwrap();
    let reason: serde_json::Value = serde_json::from_str(&reason).unwrap();
    assert_eq!(reason["code"], "unknown_format");
    assert_eq!(reason["message"], refusal.message);
    assert!(reason["log_tag"].as_str().is_some_and(|tag| tag.starts_with("file ")), "{reason}");
    assert!(chrono::DateTime::parse_from_rfc3339(reason["received_at"].as_str().unwrap()).is_ok());
}

#[test]
fn what_lies_there_at_the_start_comes_oldest_first() {
    let place = Place::new();
    for (file, age) in [("c.png", 30), ("a.png", 20), ("b.png", 10)] {
        fs::write(place.incoming.join(file), png(age)).unwrap();
        let time = SystemTime::now() - Duration::from_secs(age);
        File::options().write(true).open(place.incoming.join(file)).unwrap().set_modified(time).unwrap();
    }
    let mut folder = place.open();
    let mut names = Vec::new();
    for _ in 0..3 {
        let item = next(&mut folder);
        names.push(name(&item).to_owned());
        folder.settle(&item, Outcome::Reported).unwrap();
    }
    assert_eq!(names, ["c.png", "a.png", "b.png"]);
}

#[test]
fn unfinished_names_links_folders_and_pipes_stay_where_they_are() {
    let place = Place::new();
    let outside = place.incoming.with_file_name("outside.png");
    fs::write(&outside, png(1)).unwrap();
    let mut folder = place.open();
    for file in ["a.png.part", "b.tmp", "c.partial", ".hidden.png"] {
        fs::write(place.incoming.join(file), png(2)).unwrap();
    }
    std::os::unix::fs::symlink(&outside, place.incoming.join("link.png")).unwrap();
    fs::create_dir(place.incoming.join("folder.png")).unwrap();
    let pipe = place.incoming.join("pipe.png");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    expect_nothing(&mut folder);
    assert_eq!(place.names("incoming").len(), 7);
    // A finished one beside them is not held up.
    fs::write(place.incoming.join("good.png"), png(3)).unwrap();
    assert_eq!(name(&next(&mut folder)), "good.png");
}

#[test]
fn a_file_whose_writer_is_slow_is_left_alone_until_it_is_closed() {
    let place = Place::new();
    let mut folder = place.open();
    let bytes = png(4);
    let (first, second) = bytes.split_at(bytes.len() / 2);
    let mut writer = File::create(place.incoming.join("slow.png")).unwrap();
    writer.write_all(first).unwrap();
    writer.flush().unwrap();
    // Longer than the settle time: a pause of the writer is not its end.
    expect_nothing(&mut folder);
    writer.write_all(second).unwrap();
    drop(writer);
    let item = next(&mut folder);
    assert!(is_good(&item), "{item:?}");
}

#[test]
fn a_file_that_gives_no_close_is_taken_when_it_has_stopped_changing() {
    let place = Place::new();
    let outside = place.incoming.with_file_name("outside.png");
    fs::write(&outside, png(5)).unwrap();
    let mut folder = place.open();
    // A hard link is made without any close: what a file system without events looks like.
    fs::hard_link(&outside, place.incoming.join("linked.png")).unwrap();
    assert_eq!(name(&next(&mut folder)), "linked.png");
}

#[test]
fn an_empty_file_is_given_time_to_be_filled() {
    let place = Place::new();
    let mut folder = place.open();
    let path = place.incoming.join("two-steps.png");
    drop(File::create(&path).unwrap());
    assert!(folder.next(Duration::from_millis(100)).unwrap().is_none());
    OpenOptions::new().append(true).open(&path).unwrap().write_all(&png(6)).unwrap();
    let item = next(&mut folder);
    assert!(is_good(&item), "{item:?}");
    folder.settle(&item, Outcome::Reported).unwrap();
    drop(File::create(&path).unwrap());
    assert!(!is_good(&next(&mut folder)), "one that stays empty is refused in the end");
}

#[test]
fn a_file_that_vanishes_is_skipped() {
    let place = Place::new();
    let mut folder = place.open();
    let path = place.incoming.join("gone.png");
    fs::write(&path, png(7)).unwrap();
    fs::remove_file(&path).unwrap();
    expect_nothing(&mut folder);
    // And one that vanishes between its report and its settling stops nothing.
    fs::write(&path, png(8)).unwrap();
    let item = next(&mut folder);
    fs::remove_file(&path).unwrap();
    folder.settle(&item, Outcome::Reported).unwrap();
    assert!(place.names("done").is_empty());
}

#[test]
fn another_image_under_the_same_name_is_not_settled_with_the_first() {
    let place = Place::new();
    let mut folder = place.open();
    let path = place.incoming.join("a.png");
    fs::write(&path, png(9)).unwrap();
    let first = next(&mut folder);
    fs::write(place.incoming.join("a.part"), png(10)).unwrap();
    fs::rename(place.incoming.join("a.part"), &path).unwrap();
    folder.settle(&first, Outcome::Reported).unwrap();
    assert!(place.names("done").is_empty(), "nobody has judged what lies there now");
    let second = next(&mut folder);
    let hash = |item: &Item| item.content.radiograph().unwrap().unwrap().origin.content_sha256.clone();
    assert_ne!(hash(&first), hash(&second));
    folder.settle(&second, Outcome::Reported).unwrap();
    assert_eq!(place.names("done"), ["a.png"]);
}

#[test]
fn the_longest_name_can_be_rejected_too() {
    let place = Place::new();
    let mut folder = place.open();
    let long = format!("{}.dcm", "x".repeat(251));
    fs::write(place.incoming.join(&long), "no image").unwrap();
    let item = next(&mut folder);
    let refusal = Refusal { code: RefusalCode::Damaged, message: "It ends too early.".into() };
    folder.settle(&item, Outcome::Rejected(refusal)).unwrap();
    let names = place.names("rejected");
    assert_eq!(names.len(), 2);
    assert_eq!(names[1], format!("{}.reason.json", names[0]));
    assert!(place.names("incoming").is_empty());
}

#[test]
fn a_folder_that_cannot_be_made_is_an_error_with_its_path() {
    let place = Place::new();
    let file = place.incoming.join("file");
    fs::write(&file, "").unwrap();
    let config = Config { incoming: file.join("incoming"), ..Config::default() };
    let Err(error) = Folder::open(&config, decoder()) else { panic!("a folder inside a file cannot be made") };
    assert!(error.to_string().contains(file.to_str().unwrap()), "{error}");
    assert!(Path::new(&file).is_file());
}

/// Closed, and why.
fn reason(folder: &Folder) -> String {
    match folder.condition().intake {
        Intake::Closed { reason } => reason,
        Intake::Open => panic!("images are taken"),
    }
}

#[test]
fn a_drop_folder_that_is_removed_and_made_again_is_waited_for_and_watched_again() {
    let place = Place::new();
    let mut folder = place.open();
    fs::write(place.incoming.join("lost.png"), png(11)).unwrap();
    fs::remove_dir_all(&place.incoming).unwrap();
    expect_nothing(&mut folder);
    assert!(reason(&folder).contains(place.incoming.to_str().unwrap()), "{}", reason(&folder));
    // `done/` and `rejected/` go as well; they are made again, the drop folder is not: it may be a disk that is away.
    fs::remove_dir_all(place.incoming.with_file_name("done")).unwrap();
    fs::remove_dir_all(place.incoming.with_file_name("rejected")).unwrap();
    assert!(folder.next(Duration::ZERO).unwrap().is_none() && !place.incoming.exists());

    fs::create_dir(&place.incoming).unwrap();
    fs::write(place.incoming.join("a.png"), png(12)).unwrap();
    let item = next(&mut folder);
    assert_eq!(name(&item), "a.png");
    assert_eq!(folder.condition().intake, Intake::Open);
    folder.settle(&item, Outcome::Reported).unwrap();
    assert_eq!(place.names("done"), ["a.png"]);
    // Events come again: with polling alone this would take the settle time.
    let long = Config { settle_ms: 600_000, ..place.config.clone() };
    drop(folder);
    let mut folder = Folder::open(&long, decoder()).unwrap();
    fs::rename(&place.incoming, place.incoming.with_file_name("away")).unwrap();
    assert!(folder.next(QUIET).unwrap().is_none());
    fs::create_dir(&place.incoming).unwrap();
    assert!(folder.next(QUIET).unwrap().is_none() && folder.condition().intake == Intake::Open);
    fs::write(place.incoming.join("b.png"), png(13)).unwrap();
    assert_eq!(name(&next(&mut folder)), "b.png");
}

#[test]
fn a_folder_for_settled_files_that_vanishes_is_made_again() {
    let place = Place::new();
    let mut folder = place.open();
    for (file, outcome, to) in [("a.png", Outcome::Reported, "done"), ("b.png", rejected(), "rejected")] {
        fs::write(place.incoming.join(file), png(14)).unwrap();
        let item = next(&mut folder);
        fs::remove_dir_all(place.incoming.with_file_name(to)).unwrap();
        folder.settle(&item, outcome).unwrap();
        assert!(place.names(to).contains(&file.to_owned()), "{to}");
        assert_eq!(folder.condition().intake, Intake::Open);
    }
    assert!(place.names("incoming").is_empty());
}

fn rejected() -> Outcome {
    Outcome::Rejected(Refusal { code: RefusalCode::Damaged, message: "It ends too early.".into() })
}

#[test]
fn what_cannot_be_moved_now_is_moved_as_soon_as_it_can_and_nothing_is_taken_meanwhile() {
    let place = Place::new();
    let mut folder = place.open();
    fs::write(place.incoming.join("a.png"), png(15)).unwrap();
    let item = next(&mut folder);
    // A file in the place of `done/`: whoever runs the tests, root included, can move nothing into it.
    let done = place.incoming.with_file_name("done");
    fs::remove_dir(&done).unwrap();
    fs::write(&done, "").unwrap();
    folder.settle(&item, Outcome::Reported).unwrap();
    fs::write(place.incoming.join("b.png"), png(16)).unwrap();
    expect_nothing(&mut folder);
    assert!(reason(&folder).contains("done"), "{}", reason(&folder));
    assert_eq!(place.names("incoming"), ["a.png", "b.png"]);

    fs::remove_file(&done).unwrap();
    let second = next(&mut folder);
    assert_eq!((name(&second), place.names("done")), ("b.png", vec!["a.png".to_owned()]));
    assert_eq!(folder.condition().intake, Intake::Open);
}

#[test]
fn what_was_left_half_written_is_removed_at_the_start() {
    let place = Place::new();
    drop(place.open());
    for to in ["done", "rejected"] {
        fs::write(place.incoming.with_file_name(to).join(".roentgen-x1y2"), "half").unwrap();
        fs::write(place.incoming.with_file_name(to).join("whole.png"), "whole").unwrap();
    }
    // A reason whose file was not moved after it any more, and one whose file somebody took away.
    fs::write(place.incoming.join("a.png"), "no image").unwrap();
    let rejected = place.incoming.with_file_name("rejected");
    for file in ["a.png", "b.png"] {
        let tag = Key::from_bytes([7; 32]).tag(Path::new(file));
        fs::write(rejected.join(format!("{file}.reason.json")), format!("{{\"log_tag\": \"{tag}\"}}")).unwrap();
    }
    drop(place.open());
    assert_eq!(place.names("done"), ["whole.png"]);
    assert_eq!(place.names("rejected"), ["b.png.reason.json", "whole.png"]);
}

#[test]
fn a_postponed_item_is_handed_over_again() {
    let place = Place::new();
    let mut folder = place.open();
    fs::write(place.incoming.join("a.png"), png(17)).unwrap();
    let item = next(&mut folder);
    folder.settle(&item, Outcome::Later).unwrap();
    assert_eq!(name(&next(&mut folder)), "a.png");
}

#[test]
fn done_keeps_what_it_is_to_keep_while_images_go_on() {
    let place = Place::new();
    drop(place.open());
    let (done, rejected) = (place.incoming.with_file_name("done"), place.incoming.with_file_name("rejected"));
    for number in 0..300 {
        for folder in [&done, &rejected] {
            File::create(folder.join(format!("{number}.png"))).unwrap().set_len(100_000).unwrap();
        }
    }
    fs::write(place.incoming.join("a.png"), png(18)).unwrap();
    let config = Config { keep_done_bytes: 150_000, ..place.config.clone() };
    let mut folder = place.open().with_retention(&config, || None);
    let item = next(&mut folder);
    assert_eq!(name(&item), "a.png");
    folder.settle(&item, Outcome::Reported).unwrap();
    let deadline = Instant::now() + PATIENCE;
    while place.names("done").len() > 2 {
        assert!(Instant::now() < deadline, "{} files are left", place.names("done").len());
        assert!(folder.next(Duration::from_millis(10)).unwrap().is_none());
    }
    assert!(place.names("done").contains(&"a.png".to_owned()), "the newest: {:?}", place.names("done"));
    assert_eq!((place.names("rejected").len(), folder.condition().intake), (300, Intake::Open));
}
