//! A camera that is preloaded into the real program (tests/support/fake_camera.c), what it sees, and what the program says
//! of it. Not a test.

use crate::light_box::{Picture, Scene};
use crate::support::daemon::{Place, Received};
use crate::support::{Process, roentgend};
use roentgen::radiograph::phantom;
use roentgen::source::camera::Point;
use rumqttc::{Client, Event, MqttOptions, Packet, QoS};
use serde_json::Value;
use std::fs::{self, File};
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

/// The size of what is drawn.
const SIZE: (usize, usize) = (800, 600);

/// The camera: a folder, and the library that makes one of it.
pub(crate) struct Camera {
    pub(crate) folder: PathBuf,
    pub(crate) library: PathBuf,
}

impl Camera {
    /// Compiles it. `modes` are lines of format, width, height, pictures a second, and bytes of padding.
    pub(crate) fn new(root: &Path, modes: &str) -> Self {
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

    pub(crate) fn set_modes(&self, modes: &str) {
        fs::write(self.folder.join("modes"), modes).unwrap();
    }

    pub(crate) fn device(&self) -> PathBuf {
        self.folder.join("video0")
    }

    pub(crate) fn plug(&self) {
        fs::write(self.device(), "").unwrap();
    }

    pub(crate) fn unplug(&self) {
        fs::remove_file(self.device()).unwrap();
    }

    /// What it sees from now on.
    pub(crate) fn show(&self, scene: &Scene, picture: &Picture) {
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

    pub(crate) fn put(&self, name: &str, bytes: &[u8]) {
        let part = self.folder.join("part");
        fs::write(&part, bytes).unwrap();
        fs::rename(&part, self.folder.join(name)).unwrap();
    }

    /// The real program with this camera.
    pub(crate) fn roentgend(&self) -> Command {
        let mut command = roentgend();
        command.env("LD_PRELOAD", &self.library).env("FAKE_CAMERA", &self.folder);
        command
    }

    pub(crate) fn daemon(&self, place: &Place) -> Process {
        let log = File::options().create(true).append(true).open(place.path("daemon.log")).unwrap();
        Process::spawn(self.roentgend().args(["run", "--config"]).arg(place.path("roentgend.toml")).stderr(log))
    }

    pub(crate) fn section(&self, more: &str) -> String {
        format!("[source.camera]\ndevice = {:?}\nstill_ms = 500\nburst = 3\n{more}", self.device())
    }
}

pub(crate) fn empty() -> Scene {
    Scene { noise: 0.003, ..Scene::empty(SIZE.0, SIZE.1) }
}

/// A film, moved to the right by so many pixels.
pub(crate) fn lying(by: f64) -> Scene {
    empty().with_film((0.5 + by / SIZE.0 as f64, 0.5), 0.7, 0.85, 0.06, (0.1, -0.1))
}

pub(crate) fn film(seed: u64) -> Picture {
    Picture::of_bytes(200, 200, &phantom::phantom(seed, 200))
}

/// A hand that carries or holds something.
pub(crate) fn with_hand(scene: Scene, to: f64) -> Scene {
    let finger = (Point::new(840.0, 560.0), Point::new(800.0 - to, 420.0), 50.0, 0.3);
    Scene { fingers: vec![finger], ..scene }
}

/// Sends a command.
pub(crate) fn publish(port: u16, leaf: &str, payload: &str) {
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
pub(crate) fn said(received: &Received) -> Value {
    received.on("telemetry").last().map(|(_, json)| json.clone()).unwrap_or_default()
}

/// What was answered to this command last: stage and words.
pub(crate) fn answer(received: &Received, id: &str) -> Option<(String, String)> {
    let text = |json: &Value, key: &str| json[key].as_str().unwrap_or_default().to_owned();
    let answers = received.on("result");
    let last = answers.iter().map(|(_, json)| json).rfind(|json| json["id"] == id && json["stage"] != "accepted")?;
    Some((text(last, "stage"), text(last, "message")))
}

/// As long as a report would take that must not come.
pub(crate) fn let_time_pass() {
    thread::sleep(Duration::from_secs(3));
}
