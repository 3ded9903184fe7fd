//! The promise: a disk that fills up stops the intake before it is full, and whatever is full stops nothing for good. Real
//! daemon, real broker, small file systems in memory (which only root may mount).

mod support;

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use support::daemon::{Place, Received};
use support::{names, png, wait_for};

/// A small file system in memory, unmounted when the test is over.
struct Small(PathBuf);

impl Small {
    fn mount(path: PathBuf, size: &str) -> Option<Self> {
        fs::create_dir_all(&path).unwrap();
        let mut command = Command::new("mount");
        command
            .args(["-t", "tmpfs", "-o", &format!("size={size},mode=0777"), "tmpfs"])
            .arg(&path)
            .stderr(Stdio::null());
        if command.status().is_ok_and(|status| status.success()) {
            return Some(Self(path));
        }
        // Root inside a container may not; that is no fault of the machine's preparation.
        eprintln!("SKIPPED: no file system can be mounted here (that takes root), so that none can be filled");
        None
    }

    /// Fills it to the last byte.
    fn fill(&self) {
        let mut file = File::create(self.0.join("ballast")).unwrap();
        while file.write_all(&[1; 4096]).is_ok() {}
    }

    fn free(&self) {
        fs::remove_file(self.0.join("ballast")).unwrap();
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn append(place: &Place, section: &str) {
    let mut file = File::options().append(true).open(place.path("roentgend.toml")).unwrap();
    writeln!(file, "{section}").unwrap();
}

fn count(text: &str, part: &str) -> usize {
    text.matches(part).count()
}

#[test]
fn a_disk_below_its_reserve_takes_nothing_until_there_is_room_again() {
    let Some(place) = Place::new() else { return };
    let Some(disk) = Small::mount(place.path("state"), "24m") else { return };
    append(&place, "[reserve]\nmin_free_bytes = 8388608");
    let _broker = place.broker();
    let received = Received::subscribe(place.port, "screen");
    let mut daemon = place.daemon();
    received.wait_for_status("online");
    place.drop_file("a.png", &png(1));
    wait_for("the first report", || received.reports().len() == 1);

    fs::write(place.path("state/ballast"), vec![1; 18 << 20]).unwrap();
    wait_for("the log to say so", || place.log().contains("reserve.min_free_bytes"));
    for seed in 2..6 {
        place.drop_file(&format!("{seed}.png"), &png(seed));
    }
    // Longer than it takes to judge them all.
    std::thread::sleep(std::time::Duration::from_secs(3));
    assert_eq!(names(&place.path("incoming")).len(), 4);
    assert_eq!((names(&place.path("done")).len(), received.reports().len()), (1, 1));
    assert_eq!(count(&place.log(), "no image is taken"), 1, "{}", place.log());

    disk.free();
    wait_for("the other reports", || received.reports().len() == 5);
    wait_for("the folder to be empty", || names(&place.path("incoming")).is_empty());
    assert_eq!(count(&place.log(), "images are taken again"), 1, "{}", place.log());
    daemon.signal("TERM");
    assert_eq!(daemon.wait().code(), Some(0), "{}", place.log());
}

/// Everything comes through although `folder` was full meanwhile.
fn filled(folder: &str, is_through_meanwhile: impl Fn(&Place, &Received) -> bool) {
    let Some(place) = Place::new() else { return };
    let Some(disk) = Small::mount(place.path(folder), "4m") else { return };
    append(&place, "[reserve]\nmin_free_bytes = 0");
    let _broker = place.broker();
    let received = Received::subscribe(place.port, "screen");
    let mut daemon = place.daemon();
    received.wait_for_status("online");
    disk.fill();
    for seed in 0..5 {
        place.drop_file(&format!("{seed}.png"), &png(seed));
    }
    place.drop_file("letter.txt", b"no image");
    wait_for("the log to say so", || place.log().contains("no image is taken"));
    assert!(is_through_meanwhile(&place, &received), "{}", place.log());
    assert!(daemon.0.try_wait().unwrap().is_none(), "{}", place.log());
    disk.free();
    wait_for("all reports", || received.hashes().len() == 5);
    wait_for("the folder to be empty", || names(&place.path("incoming")).is_empty());
    assert_eq!(whole(&place.path("done")).len(), 5);
    assert_eq!(whole(&place.path("rejected")), ["letter.txt", "letter.txt.reason.json"]);
    daemon.signal("TERM");
    assert_eq!(daemon.wait().code(), Some(0), "{}", place.log());
}

/// The names in a folder but for what the test itself put there; nothing half-written is among them.
fn whole(folder: &Path) -> Vec<String> {
    let names: Vec<_> = names(folder).into_iter().filter(|name| name != "ballast").collect();
    assert!(names.iter().all(|name| !name.starts_with('.')), "{names:?}");
    names
}

#[test]
fn settled_files_wait_for_room_where_they_go_to_another_full_disk() {
    filled("done", |place, _| names(&place.path("incoming")).len() >= 5);
}

#[test]
fn refused_files_wait_for_room_for_their_reason() {
    filled("rejected", |place, _| names(&place.path("incoming")).contains(&"letter.txt".to_owned()));
}

#[test]
fn reports_wait_for_room_in_the_outbox() {
    filled("state", |place, _| names(&place.path("incoming")).len() >= 5);
}
