//! Whatever becomes of the daemon and its configuration, a film is reported, and by a camera that fits.

use crate::support::daemon::{Place, Received};
use crate::support::{PATIENCE, Process, names, wait_for};
use crate::world::{Camera, answer, empty, film, let_time_pass, lying, publish, said};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

/// The codes of what the box finds wrong with itself.
fn problems(received: &Received) -> Vec<String> {
    let all = said(received)["health"]["problems"].as_array().cloned().unwrap_or_default();
    all.iter().map(|problem| problem["code"].as_str().unwrap_or_default().to_owned()).collect()
}

/// How many descriptors of the camera a process has.
fn held(daemon: &Process) -> usize {
    let folder = fs::read_dir(format!("/proc/{}/fd", daemon.0.id())).unwrap();
    let links = folder.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    links.filter(|link| link.to_string_lossy().contains("fake-camera")).count()
}

/// Waits for a moment that is short: without rest.
fn catch(mut moment: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !moment() {
        assert!(Instant::now() < deadline, "the moment did not come");
    }
}

#[test]
fn a_reload_closes_the_camera_or_opens_it_in_another_mode_and_reports_no_film_again() {
    let Some(place) = Place::new() else { return };
    let camera = Camera::new(&place.path(""), "YUYV 800 600 30 0\nGREY 640 480 30 0\n");
    place.configure_more("[commands]\nallow = [\"capture/reference\"]\n");
    let without = fs::read_to_string(place.path("roentgend.toml")).unwrap();
    let configure = |section: &str| fs::write(place.path("roentgend.toml"), format!("{without}{section}")).unwrap();
    configure(&camera.section(""));
    let _broker = place.broker();
    let received = Received::subscribe(place.port, "screen");
    camera.show(&empty(), &film(1));
    let mut daemon = camera.daemon(&place);
    wait_for("the camera", || said(&received)["camera"]["mode"] == "YUYV 800x600");
    publish(place.port, "capture/reference", r#"{"id":"r"}"#);
    wait_for("the reference picture", || answer(&received, "r").is_some_and(|(stage, _)| stage == "done"));
    camera.show(&lying(0.0), &film(1));
    wait_for("the film's report", || received.count() == 1);

    // Without its section it is let go, and nothing is taken.
    configure("");
    daemon.signal("HUP");
    wait_for("the camera's end", || said(&received)["camera"].is_null() && held(&daemon) == 0);
    camera.show(&lying(0.0), &film(2));
    let_time_pass();
    assert_eq!(received.count(), 1, "{}", place.log());
    // In another mode: the picture of the empty light box is of no use there.
    configure(&camera.section("format = \"grey\"\n"));
    daemon.signal("HUP");
    wait_for("the other mode", || said(&received)["camera"]["mode"] == "GREY 640x480");
    wait_for("word of the reference picture", || problems(&received) == ["reference_unfit"]);
    assert_eq!(said(&received)["camera"]["reference"], false);
    wait_for("the next film's report", || received.count() == 2);
    // In the first one again, in which it is, and the film is the same.
    configure(&camera.section("format = \"yuyv\"\n"));
    daemon.signal("HUP");
    wait_for("the first mode", || {
        let camera = said(&received)["camera"].clone();
        camera["mode"] == "YUYV 800x600" && camera["reference"] == true
    });
    wait_for("no more complaint", || problems(&received).is_empty());
    let_time_pass();
    assert_eq!(received.count(), 2, "{}", place.log());
    assert_eq!(held(&daemon), 1, "the device, once");
    // One that is not there.
    configure("[source.camera]\ndevice = \"serial:none-such\"\n");
    daemon.signal("HUP");
    wait_for("word that it is away", || problems(&received) == ["camera_away"]);
    daemon.signal("TERM");
    assert_eq!(daemon.wait().code(), Some(0), "{}", place.log());
}

#[test]
fn a_kill_while_a_film_is_taken_loses_none_and_reports_it_at_most_twice() {
    let Some(place) = Place::new() else { return };
    let camera = Camera::new(&place.path(""), "GREY 800 600 30 0\n");
    place.configure_more(&camera.section(""));
    let _broker = place.broker();
    let received = Received::subscribe(place.port, "screen");
    camera.show(&empty(), &film(1));
    let spool = |name: &str| !names(&place.path("state/spool/camera").join(name)).is_empty();
    let kept = || -> Option<SystemTime> { fs::metadata(place.path("state/camera/films.json")).ok()?.modified().ok() };
    // Reports by picture; one that was not acknowledged before the kill is sent again, under its id.
    let pictures = || {
        let mut all: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for report in received.reports() {
            all.entry(report.origin.content_sha256).or_default().insert(report.report_id);
        }
        all
    };
    let mut before = 0;
    for (round, film) in (21..).map(film).take(5).enumerate() {
        let mut daemon = camera.daemon(&place);
        received.wait_for_status("online");
        wait_for("the camera", || held(&daemon) == 1);
        let (known, at_hand) = (kept(), received.count());
        camera.show(&lying(round as f64), &film);
        // Where such a moment is too short to be seen on a busy machine, the report that follows it will do.
        let is_reported = || received.count() > at_hand;
        match round {
            0 => catch(|| spool("arriving") || spool("incoming") || is_reported()),
            1 => catch(|| spool("incoming") || is_reported()),
            2 => catch(|| kept() != known || is_reported()),
            3 => thread::sleep(Duration::from_millis(900)),
            _ => catch(is_reported),
        }
        daemon.0.kill().unwrap();
        daemon.wait();
        let mut daemon = camera.daemon(&place);
        wait_for("a report of it", || pictures().len() > before);
        let_time_pass();
        let taken = pictures().len() - before;
        println!("round {round}: {taken} pictures");
        assert!(taken <= 2, "round {round}: {taken} pictures of one film\n{}", place.log());
        before += taken;
        // Phantoms are more alike than films: none is to be taken for one before it.
        camera.show(&empty(), &film);
        wait_for("the film to be forgotten", || kept().is_none());
        daemon.signal("TERM");
        assert_eq!(daemon.wait().code(), Some(0), "{}", place.log());
    }
    assert!(pictures().values().all(|ids| ids.len() == 1), "one picture, one id: {:?}", pictures());
    assert!(!spool("incoming") && !spool("arriving") && !spool("rejected"));
}
