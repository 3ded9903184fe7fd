//! The promise: a film before the camera is reported once, whatever format the camera has and however often it is unplugged.
//! With the real daemon and a camera that is preloaded into it (tests/support/fake_camera.c), since few machines that run
//! tests have one.
#![cfg(feature = "camera")]

#[path = "support/light_box.rs"]
mod light_box;
mod support;

use light_box::{Picture, Scene};
use roentgen::radiograph::{OriginKind, phantom};
use roentgen::source::camera::Point;
use rumqttc::{Client, Event, MqttOptions, Packet, QoS};
use serde_json::Value;
use std::fs::{self, File};
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;
use support::daemon::{Place, Received};
use support::{Process, names, output, roentgend, stderr, stdout, wait_for};

/// The size of what is drawn.
const SIZE: (usize, usize) = (800, 600);

/// The camera: a folder, and the library that makes one of it.
struct Camera {
    folder: PathBuf,
    library: PathBuf,
}

impl Camera {
    /// Compiles it. `modes` are lines of format, width, height, pictures a second, and bytes of padding.
    fn new(root: &Path, modes: &str) -> Self {
        let folder = root.join("camera");
        fs::create_dir(&folder).unwrap();
        let library = root.join("fake_camera.so");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/fake_camera.c");
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(source).arg("-ldl");
        assert!(compiler.status().expect("cc: Rust itself needs it").success(), "{compiler:?}");
        let camera = Self { folder, library };
        camera.set_modes(modes);
        camera.plug();
        camera
    }

    fn set_modes(&self, modes: &str) {
        fs::write(self.folder.join("modes"), modes).unwrap();
    }

    fn device(&self) -> PathBuf {
        self.folder.join("video0")
    }

    fn plug(&self) {
        fs::write(self.device(), "").unwrap();
    }

    fn unplug(&self) {
        fs::remove_file(self.device()).unwrap();
    }

    /// What it sees from now on.
    fn show(&self, scene: &Scene, picture: &Picture) {
        let frame = scene.draw(picture);
        let mut bytes = Vec::new();
        for side in [frame.width(), frame.height()] {
            bytes.extend((side as u32).to_le_bytes());
        }
        bytes.extend(frame.levels().iter().map(|level| (level >> 8) as u8));
        self.put("scene.grey", &bytes);
        let levels = bytes.split_off(8);
        let image = image::GrayImage::from_raw(frame.width() as u32, frame.height() as u32, levels).unwrap();
        let mut jpeg = Cursor::new(Vec::new());
        image::codecs::jpeg::JpegEncoder::new_with_quality(&mut jpeg, 92).encode_image(&image).unwrap();
        self.put("scene.jpg", &jpeg.into_inner());
    }

    fn put(&self, name: &str, bytes: &[u8]) {
        let part = self.folder.join("part");
        fs::write(&part, bytes).unwrap();
        fs::rename(&part, self.folder.join(name)).unwrap();
    }

    /// The real program with this camera.
    fn roentgend(&self) -> Command {
        let mut command = roentgend();
        command.env("LD_PRELOAD", &self.library).env("FAKE_CAMERA", &self.folder);
        command
    }

    fn daemon(&self, place: &Place) -> Process {
        let log = File::options().create(true).append(true).open(place.path("daemon.log")).unwrap();
        Process::spawn(self.roentgend().args(["run", "--config"]).arg(place.path("roentgend.toml")).stderr(log))
    }

    fn section(&self, more: &str) -> String {
        format!("[source.camera]\ndevice = {:?}\nstill_ms = 500\nburst = 3\n{more}", self.device())
    }
}

fn empty() -> Scene {
    Scene { noise: 0.003, ..Scene::empty(SIZE.0, SIZE.1) }
}

/// A film, moved to the right by so many pixels.
fn lying(by: f64) -> Scene {
    empty().with_film((0.5 + by / SIZE.0 as f64, 0.5), 0.7, 0.85, 0.06, (0.1, -0.1))
}

fn film(seed: u64) -> Picture {
    Picture::of_bytes(200, 200, &phantom::phantom(seed, 200))
}

/// A hand that carries or holds something.
fn with_hand(scene: Scene, to: f64) -> Scene {
    let finger = (Point::new(840.0, 560.0), Point::new(800.0 - to, 420.0), 50.0, 0.3);
    Scene { fingers: vec![finger], ..scene }
}

/// Sends a command.
fn publish(port: u16, leaf: &str, payload: &str) {
    let options = MqttOptions::new(format!("commander-{leaf}").replace('/', "-"), "127.0.0.1", port);
    let (client, mut connection) = Client::new(options, 8);
    client.publish(format!("roentgen/box-t/command/{leaf}"), QoS::AtLeastOnce, false, payload).unwrap();
    for event in connection.iter() {
        if let Event::Incoming(Packet::PubAck(_)) = event.expect("the broker is there") {
            return;
        }
    }
}

/// The last telemetry.
fn said(received: &Received) -> Value {
    received.on("telemetry").last().map(|(_, json)| json.clone()).unwrap_or_default()
}

/// What was answered to this command last: stage and words.
fn answer(received: &Received, id: &str) -> Option<(String, String)> {
    let text = |json: &Value, key: &str| json[key].as_str().unwrap_or_default().to_owned();
    let answers = received.on("result");
    let last = answers.iter().map(|(_, json)| json).rfind(|json| json["id"] == id && json["stage"] != "accepted")?;
    Some((text(last, "stage"), text(last, "message")))
}

/// As long as a report would take that must not come.
fn let_time_pass() {
    thread::sleep(Duration::from_secs(3));
}

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

#[test]
fn every_format_gives_the_same_film() {
    let root = tempfile::tempdir().unwrap();
    let camera = Camera::new(root.path(), "");
    camera.show(&lying(0.0), &film(7));
    let mut first: Option<Vec<u8>> = None;
    for mode in [
        "GREY 800 600 30 0",
        "GREY 800 600 30 800",
        "YUYV 800 600 30 64",
        "NV12 800 600 30 32",
        "Y16 800 600 9 16",
        "MJPG 800 600 30 0",
    ] {
        camera.set_modes(&format!("{mode}\n"));
        let out = root.path().join(mode.replace(' ', "-"));
        let preview = output(
            camera.roentgend().args(["camera", "preview", "--device"]).arg(camera.device()).arg("--out").arg(&out),
        );
        assert_eq!(preview.status.code(), Some(0), "{mode}: {}{}", stdout(&preview), stderr(&preview));
        assert_eq!(names(&out), ["film.png", "frame.png"]);
        let film = image::open(out.join("film.png")).unwrap();
        assert_eq!(film.color() == image::ColorType::L16, mode.starts_with("Y16"), "{mode}");
        let small =
            image::imageops::resize(&film.into_luma8(), 64, 64, image::imageops::FilterType::Triangle).into_raw();
        let frame = image::open(out.join("frame.png")).unwrap().into_rgb8();
        let is_green = |pixel: &image::Rgb<u8>| pixel.0[1] > 200 && pixel.0[0] < 80;
        assert!(frame.pixels().filter(|pixel| is_green(pixel)).count() > 1000, "no edges are drawn");
        match &first {
            None => first = Some(small),
            Some(first) => {
                let far: u32 = first.iter().zip(&small).map(|(a, b)| u32::from(a.abs_diff(*b))).sum();
                assert!(far < 4 * 64 * 64, "{mode}: {} off", far / (64 * 64));
            }
        }
    }
    // What is damaged is said to be, and nothing hangs.
    fs::write(camera.folder.join("damage"), "").unwrap();
    let damaged = output(
        camera
            .roentgend()
            .args(["camera", "preview", "--device"])
            .arg(camera.device())
            .arg("--out")
            .arg(root.path().join("x")),
    );
    assert_eq!(damaged.status.code(), Some(1));
    assert!(stderr(&damaged).contains("damaged"), "{}", stderr(&damaged));
}

#[test]
fn cameras_are_listed_with_their_modes_and_an_absent_one_says_what_to_do() {
    let root = tempfile::tempdir().unwrap();
    let camera = Camera::new(root.path(), "MJPG 1280 720 30 0\nYUYV 1280 720 10 0\nH264 1920 1080 30 0\n");
    let list = || output(camera.roentgend().args(["camera", "list"]).arg(camera.device()));
    let listed = list();
    assert_eq!(listed.status.code(), Some(0), "{}", stderr(&listed));
    let text = stdout(&listed);
    for part in [
        "video0",
        "Fake camera",
        "MJPG  1280x720  30/s\n",
        "YUYV  1280x720  10/s   <- taken by itself",
        "not read: H264",
    ] {
        assert!(text.contains(part), "{part:?} is missing in {text}");
    }
    // The empty light box, from the command line: taken, and refused where it is not empty.
    camera.set_modes("YUYV 800 600 30 0\n");
    let config = root.path().join("roentgend.toml");
    let state = root.path().join("state");
    fs::write(&config, format!("state_dir = {state:?}\n{}", camera.section(""))).unwrap();
    let reference = || output(camera.roentgend().args(["camera", "reference", "--config"]).arg(&config));
    camera.show(&lying(0.0), &film(1));
    let refused = reference();
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("take everything off"), "{}", stderr(&refused));
    camera.show(&empty(), &film(1));
    let taken = reference();
    assert_eq!(taken.status.code(), Some(0), "{}", stderr(&taken));
    assert!(state.join("camera/reference.png").is_file());

    camera.unplug();
    let gone = list();
    assert_eq!(gone.status.code(), Some(1));
    assert!(stdout(&gone).contains("plug it in"), "{}", stdout(&gone));
    let out = root.path().join("out");
    let preview =
        output(camera.roentgend().args(["camera", "preview", "--device"]).arg(camera.device()).arg("--out").arg(&out));
    assert_eq!(preview.status.code(), Some(1));
    assert!(stderr(&preview).contains("plug it in") && !out.exists(), "{}", stderr(&preview));
}
