//! A film is handed over once, whatever is done with it and however often the camera is unplugged.

use crate::light_box::{Picture, Scene};
use crate::support::daemon::{Place, Received};
use crate::support::{names, wait_for};
use crate::world::{Camera, answer, empty, film, let_time_pass, lying, publish, said, with_hand};
use roentgen::radiograph::OriginKind;
use std::fs;
use std::path::PathBuf;

#[test]
fn every_film_is_reported_once_over_removal_movement_restart_and_commands() {
    let Some(place) = Place::new() else { return };
    // Rows padded as some drivers do after another format, and a mode that is too small to be taken.
    let camera = Camera::new(&place.path(""), "YUYV 320 240 30 0\nGREY 800 600 30 800\n");
    place.configure_more(&camera.section(""));
    place.configure_more("[commands]\nallow = [\"capture\", \"capture/reference\"]\n");
    let _broker = place.broker();
    let received = Received::subscribe(place.port, "screen");
    camera.show(&empty(), &film(1));
    let mut daemon = camera.daemon(&place);
    received.wait_for_status("online");
    let reports = |count: usize| {
        wait_for(&format!("{count} reports"), || received.count() >= count);
        let_time_pass();
        assert_eq!(received.count(), count, "{}", place.log());
    };
    wait_for("the camera in the telemetry", || said(&received)["camera"]["mode"] == "GREY 800x600");

    // The empty light box, and what a hand does.
    publish(place.port, "capture/reference", r#"{"id":"r-1"}"#);
    wait_for("the reference picture", || answer(&received, "r-1").is_some_and(|(stage, _)| stage == "done"));
    publish(place.port, "capture", r#"{"id":"c-0"}"#);
    wait_for("a refusal", || answer(&received, "c-0").is_some());
    let (stage, message) = answer(&received, "c-0").unwrap();
    assert!(stage == "failed" && message.contains("no film is seen"), "{stage}: {message}");
    for to in [100.0, 300.0, 500.0] {
        camera.show(&with_hand(lying(to / 4.0), to), &film(1));
    }
    camera.show(&lying(0.0), &film(1));
    reports(1);
    // A hand that rests on it, and moves it.
    camera.show(&with_hand(lying(0.0), 250.0), &film(1));
    let_time_pass();
    camera.show(&lying(9.0), &film(1));
    reports(1);
    // The lamp goes off and on again, and a sheet of paper covers the film: it has not left.
    camera.show(&Scene { lamp: [0.02, 0.0, 0.0, 0.0], ..lying(9.0) }, &film(1));
    let_time_pass();
    camera.show(&lying(9.0), &film(1));
    let_time_pass();
    let paper = Picture::of_bytes(2, 2, &[200; 4]);
    camera.show(&lying(9.0), &paper);
    let_time_pass();
    camera.show(&lying(9.0), &film(1));
    reports(1);
    // A wish that the unplugged camera could not meet is not met later.
    camera.unplug();
    wait_for("word that it is away", || said(&received)["camera"]["connected"] == false);
    publish(place.port, "capture", r#"{"id":"c-x"}"#);
    wait_for("a refusal", || answer(&received, "c-x").is_some_and(|(stage, _)| stage == "failed"));
    camera.plug();
    reports(1);
    camera.show(&empty(), &film(1));
    let_time_pass();
    camera.show(&lying(0.0), &film(2));
    reports(2);
    // Another one on top of it.
    camera.show(&lying(4.0), &film(3));
    reports(3);

    daemon.signal("TERM");
    assert_eq!(daemon.wait().code(), Some(0), "{}", place.log());
    let mut daemon = camera.daemon(&place);
    received.wait_for_status("online");
    reports(3);
    // Somebody wants it all the same.
    publish(place.port, "capture", r#"{"id":"c-1"}"#);
    reports(4);
    assert_eq!(answer(&received, "c-1").map(|(stage, _)| stage), Some("done".into()));
    daemon.signal("TERM");
    assert_eq!(daemon.wait().code(), Some(0), "{}", place.log());

    for report in received.reports() {
        assert_eq!(report.origin.kind, OriginKind::Camera);
    }
    assert_eq!(received.hashes().len(), 4, "four pictures");
    // Reported pictures are not piled up.
    assert!(names(&place.path("state/spool/camera/incoming")).is_empty());
    assert!(names(&place.path("state/spool/camera/rejected")).is_empty());
}

#[test]
fn a_camera_may_be_unplugged_twenty_times() {
    let Some(place) = Place::new() else { return };
    let camera = Camera::new(&place.path(""), "YUYV 800 600 30 0\n");
    place.configure_more(&camera.section(""));
    let _broker = place.broker();
    let received = Received::subscribe(place.port, "screen");
    camera.show(&lying(0.0), &film(1));
    camera.unplug();
    let mut daemon = camera.daemon(&place);
    received.wait_for_status("online");
    let is_away = || {
        said(&received)["health"]["problems"]
            .as_array()
            .is_some_and(|all| all.iter().any(|p| p["code"] == "camera_away"))
    };
    wait_for("word that there is no camera", is_away);
    assert_eq!(said(&received)["health"]["healthy"], false);
    let folder = PathBuf::from(format!("/proc/{}", daemon.0.id()));
    let descriptors = || fs::read_dir(folder.join("fd")).unwrap().count();
    let resident = || {
        let status = fs::read_to_string(folder.join("status")).unwrap();
        let line = status.lines().find(|line| line.starts_with("RssAnon")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    let lines = |text: &str| place.log().lines().filter(|line| line.contains(text)).count();
    let mut before = None;
    for time in 1..=20 {
        camera.plug();
        wait_for("the camera", || lines("YUYV 800x600") == time);
        if time == 1 {
            wait_for("the film's report", || received.count() == 1);
        }
        if time == 3 {
            before = Some((descriptors(), resident()));
        }
        camera.unplug();
        wait_for("its loss", || lines("tried again until it is back") == time + 1);
        let maps = fs::read_to_string(folder.join("maps")).unwrap();
        assert_eq!(maps.lines().filter(|line| line.contains("fake-camera")).count(), 0, "{maps}");
    }
    camera.plug();
    wait_for("the camera", || lines("YUYV 800x600") == 21);
    wait_for("word that it is back", || {
        said(&received)["camera"]["connected"] == true && said(&received)["health"]["healthy"] == true
    });
    let_time_pass();
    let (descriptors_before, resident_before) = before.unwrap();
    let (descriptors, resident) = (descriptors(), resident());
    println!("descriptors {descriptors_before} -> {descriptors}, resident {resident_before} -> {resident} kB");
    // Between two moments of its work a descriptor may be open for as long.
    assert!(descriptors <= descriptors_before + 2, "{descriptors_before} -> {descriptors}");
    assert!(resident < resident_before + 12_000, "{resident_before} -> {resident} kB");
    assert_eq!(said(&received)["camera"]["losses"], 20);
    // The same film as before: once.
    assert_eq!(received.count(), 1, "{}", place.log());
    camera.show(&lying(0.0), &film(5));
    wait_for("the next film's report", || received.count() == 2);
    daemon.signal("TERM");
    assert_eq!(daemon.wait().code(), Some(0), "{}", place.log());
}
