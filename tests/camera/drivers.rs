//! Whatever format a camera has, whatever its driver makes of what it is asked for and whichever number it gets, its frames
//! are read for what they are.

use crate::support::{names, output, stderr, stdout, wait_for};
use crate::world::{Camera, empty, film, lying};
use roentgen::source::camera::device;
use roentgen::source::camera::names::Roots;
use roentgen::source::camera::{Away, Config, Door, Eye};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::thread;

/// A camera in a folder of its own, which sees a film.
fn watching(root: &Path, modes: &str) -> Camera {
    fs::create_dir(root).unwrap();
    let camera = Camera::new(root, modes);
    camera.show(&lying(0.0), &film(7));
    camera
}

fn preview(camera: &Camera, out: &Path) -> Output {
    output(camera.roentgend().args(["camera", "preview", "--device"]).arg(camera.device()).arg("--out").arg(out))
}

/// What the program makes of the film before the camera, small.
fn seen(camera: &Camera, case: &str, is_deep: bool) -> Vec<u8> {
    let out = camera.folder.join("out");
    let preview = preview(camera, &out);
    assert_eq!(preview.status.code(), Some(0), "{case}: {}{}", stdout(&preview), stderr(&preview));
    assert_eq!(names(&out), ["film.png", "frame.png"]);
    let film = image::open(out.join("film.png")).unwrap();
    assert_eq!(film.color() == image::ColorType::L16, is_deep, "{case}");
    let frame = image::open(out.join("frame.png")).unwrap().into_rgb8();
    let is_green = |pixel: &image::Rgb<u8>| pixel.0[1] > 200 && pixel.0[0] < 80;
    assert!(frame.pixels().filter(|pixel| is_green(pixel)).count() > 1000, "{case}: no edges are drawn");
    image::imageops::resize(&film.into_luma8(), 64, 64, image::imageops::FilterType::Triangle).into_raw()
}

/// Asserts that all of these are one picture but for noise.
fn assert_same(all: &[(String, Vec<u8>)]) {
    for (case, picture) in all {
        let far: u32 = all[0].1.iter().zip(picture).map(|(a, b)| u32::from(a.abs_diff(*b))).sum();
        assert!(far < 4 * 64 * 64, "{case}: {} off", far / (64 * 64));
    }
}

#[test]
fn every_format_gives_the_same_film() {
    let root = tempfile::tempdir().unwrap();
    let modes = [
        "GREY 800 600 30 0",
        "GREY 800 600 30 800",
        "YUYV 800 600 30 64",
        "NV12 800 600 30 32",
        "Y16 800 600 9 16",
        "MJPG 800 600 30 0",
    ];
    let all: Vec<_> = thread::scope(|scope| {
        let one = |mode: &'static str| {
            let folder = root.path().join(mode.replace(' ', "-"));
            scope.spawn(move || {
                let camera = watching(&folder, &format!("{mode}\n"));
                (mode.to_owned(), seen(&camera, mode, mode.starts_with("Y16")))
            })
        };
        modes.map(one).into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_same(&all);
}

#[test]
fn what_a_driver_makes_of_a_wish_is_what_counts() {
    let root = tempfile::tempdir().unwrap();
    let plain = watching(&root.path().join("plain"), "GREY 800 600 30 0\n");
    let mut all = vec![("plain".to_owned(), seen(&plain, "plain", false))];
    // Another format, size and padding than was asked for, and no rate at all.
    let other = watching(&root.path().join("other"), "YUYV 1280 720 30 0\n");
    other.put("answer", b"GREY 800 600 30 16\n");
    other.put("no-rate", b"");
    all.push(("other".into(), seen(&other, "other", false)));
    // GREY after YUYV on drivers that do not forget the bytes a line: only in what they say, or in what they send.
    let leftover = watching(&root.path().join("leftover"), "YUYV 800 600 30 0\n");
    all.push(("YUYV before".into(), seen(&leftover, "YUYV before", false)));
    leftover.set_modes("GREY 800 600 30 0\n");
    for kind in ["said", "sent"] {
        leftover.put("leftover", kind.as_bytes());
        all.push((kind.into(), seen(&leftover, kind, false)));
        assert_eq!(fs::read_to_string(leftover.folder.join("line")).unwrap(), "1600");
    }
    assert_same(&all);
    // One that cannot be read, and one that is damaged: said, and nothing hangs.
    for (name, bytes, words) in [("answer", "H264 800 600 30 0\n", "none of the formats"), ("damage", "", "damaged")] {
        plain.put(name, bytes.as_bytes());
        let refused = preview(&plain, &root.path().join(name));
        assert_eq!(refused.status.code(), Some(1), "{}", stdout(&refused));
        assert!(stderr(&refused).contains(words), "{}", stderr(&refused));
        fs::remove_file(plain.folder.join(name)).unwrap();
    }
}

/// In the test's own process, which the camera is preloaded into: `/dev` and `/sys` are the world's folder.
fn follow_by(device: &str, camera: &Camera) {
    let roots = Roots { dev: camera.folder.clone(), sys: camera.folder.join("sys") };
    let config = Config { device: device.into(), still_ms: 300, burst: 2, ..Config::default() };
    let (wanted, stored) = (config.clone(), Arc::new(Mutex::new(0)));
    let open = move || -> Result<Box<dyn Eye>, Away> { Ok(Box::new(device::Camera::open(&wanted, &roots)?)) };
    let count = stored.clone();
    let store = move |_: &str, _: &[u8]| {
        *count.lock().unwrap() += 1;
        Ok(())
    };
    let state = tempfile::tempdir().unwrap();
    let door = Door::start(&config, state.path(), Box::new(open), Box::new(store)).unwrap();
    let remote = door.remote();
    let films = || *stored.lock().unwrap();
    camera.show(&lying(0.0), &film(7));
    wait_for("the film", || films() == 1);
    // Plugged in again as another number, while another camera has got the first.
    plug(camera, 0, None);
    wait_for("its loss", || remote.condition().away.is_some_and(|away| away.contains("plug it in")));
    plug(camera, 1, Some("another"));
    plug(camera, 3, Some("SN-77"));
    wait_for("the camera", || remote.condition().mode.is_some());
    camera.show(&lying(3.0), &film(8));
    wait_for("the next film", || films() == 2);
    assert_eq!(remote.condition().losses, 1);
    plug(camera, 1, None);
    plug(camera, 3, None);
    plug(camera, 0, Some("SN-77"));
}

/// Puts a camera of this serial number at this number; none: takes it away.
fn plug(camera: &Camera, number: u32, serial: Option<&str>) {
    let device = camera.folder.join(format!("video{number}"));
    let class = camera.folder.join(format!("sys/class/video4linux/video{number}"));
    let link = camera.folder.join("v4l/by-id/usb-Maker_Camera_SN-77-video-index0");
    if fs::read_link(&link).is_ok_and(|target| target.ends_with(format!("video{number}"))) {
        fs::remove_file(&link).unwrap();
    }
    let Some(serial) = serial else {
        let _ = fs::remove_file(&device);
        let _ = fs::remove_dir_all(&class);
        return;
    };
    let usb = camera.folder.join("sys/usb").join(serial);
    fs::create_dir_all(usb.join("interface")).unwrap();
    fs::write(usb.join("serial"), format!("{serial}\n")).unwrap();
    fs::create_dir_all(&class).unwrap();
    let _ = fs::remove_file(class.join("device"));
    symlink(usb.join("interface"), class.join("device")).unwrap();
    fs::create_dir_all(link.parent().unwrap()).unwrap();
    if serial == "SN-77" {
        symlink(format!("../../video{number}"), &link).unwrap();
    }
    // Written elsewhere: in a process with the camera in it, what is written here would be the camera.
    camera.put(&format!("video{number}"), b"");
}

#[test]
fn a_camera_is_found_again_by_serial_number_or_name_under_another_number() {
    const NAME: &str = "drivers::a_camera_is_found_again_by_serial_number_or_name_under_another_number";
    if let Some(folder) = std::env::var_os("FAKE_CAMERA") {
        let camera = Camera { folder: folder.into(), library: "preloaded".into() };
        follow_by("serial:SN-77", &camera);
        return follow_by("usb-Maker_Camera_SN-77-video-index0", &camera);
    }
    let root = tempfile::tempdir().unwrap();
    let camera = Camera::new(root.path(), "GREY 800 600 30 0\n");
    plug(&camera, 0, Some("SN-77"));
    let mut again = Command::new(std::env::current_exe().unwrap());
    again.args(["--exact", NAME, "--nocapture"]);
    let done = output(again.env("LD_PRELOAD", &camera.library).env("FAKE_CAMERA", &camera.folder));
    assert!(done.status.success() && stdout(&done).contains("1 passed"), "{}{}", stdout(&done), stderr(&done));
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
