//! The promise of `roentgend classify --heatmap`: a picture for every judged file, under a name of its own, and no
//! other file touched. What is on a picture is tested beside its drawing.

mod support;

use roentgen::assess::heatmap::{OVERLAY, RADIOGRAPH, WIDTH};
use roentgen::report::Report;
use serde_json::Value;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Output;
use support::{names, output, png, roentgend, stderr, stdout, tiny_bundle};

struct Place {
    root: tempfile::TempDir,
    bundle: PathBuf,
}

impl Place {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let bundle = tiny_bundle(root.path());
        Self { root, bundle }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn image(&self, name: &str, seed: u64) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, png(seed)).unwrap();
        path
    }

    fn classify(&self, paths: &[&Path]) -> Output {
        let mut command = roentgend();
        command.args(["classify", "--json", "--bundle"]).arg(&self.bundle);
        command.arg("--heatmap").arg(self.path("a/pictures")).args(paths);
        output(&mut command)
    }
}

/// The lines of JSON of a run that must end so.
fn lines(output: &Output, code: i32) -> Vec<Value> {
    assert_eq!(output.status.code(), Some(code), "{}", stderr(output));
    stdout(output).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn picture(line: &Value) -> PathBuf {
    line["heatmap"].as_str().unwrap_or_else(|| panic!("no picture is named: {line}")).into()
}

#[test]
fn every_judged_file_has_its_picture_and_the_line_of_json_names_it() {
    let place = Place::new();
    let (good, broken) = (place.image("in/film 1.dcm.png", 1), place.path("in/broken.png"));
    fs::write(&broken, b"\x89PNG\r\n\x1a\n").unwrap();
    let found = lines(&place.classify(&[&good, &broken]), 1);
    let report: Report = serde_json::from_value(found[0]["report"].clone()).unwrap();
    assert_eq!(picture(&found[0]), place.path(&format!("a/pictures/film_1.dcm-{}.png", &report.report_id[..12])));
    assert_eq!(found[1].as_object().unwrap().keys().collect::<Vec<_>>(), ["error", "path"]);
    assert_eq!(names(&place.path("a/pictures")).len(), 1, "no picture of what was not judged, nothing left over");

    let drawn = image::open(picture(&found[0])).unwrap().into_rgb8();
    assert!(drawn.width() == WIDTH && drawn.height() > RADIOGRAPH.top + RADIOGRAPH.height);
    let is_coloured = |area: roentgen::assess::heatmap::Area| {
        let view = image::imageops::crop_imm(&drawn, area.left, area.top, area.width, area.height).to_image();
        view.pixels().any(|pixel| pixel[0] != pixel[1] || pixel[1] != pixel[2])
    };
    assert!(!is_coloured(RADIOGRAPH) && is_coloured(OVERLAY));

    // Without the option the line is what it was.
    let plain = output(roentgend().args(["classify", "--json", "--bundle"]).arg(&place.bundle).arg(&good));
    assert_eq!(lines(&plain, 0)[0].as_object().unwrap().keys().collect::<Vec<_>>(), ["path", "report"]);
}

#[test]
fn files_of_one_name_have_pictures_of_their_own_and_the_same_image_keeps_one() {
    let place = Place::new();
    let (one, other) = (place.image("x/film.png", 1), place.image("y/film.png", 2));
    let found = lines(&place.classify(&[&one, &other]), 0);
    assert_ne!(picture(&found[0]), picture(&found[1]));
    let before: Vec<Vec<u8>> = found.iter().map(|line| fs::read(picture(line)).unwrap()).collect();
    assert_ne!(before[0], before[1]);

    // Another run, another order: the same pictures, byte for byte.
    let again = lines(&place.classify(&[&other, &one]), 0);
    assert_eq!([picture(&again[1]), picture(&again[0])], [picture(&found[0]), picture(&found[1])]);
    assert_eq!(fs::read(picture(&found[0])).unwrap(), before[0]);
    assert_eq!(names(&place.path("a/pictures")).len(), 2);
}

#[test]
fn a_link_in_the_pictures_place_is_refused_and_not_followed() {
    let place = Place::new();
    let input = place.image("film.png", 1);
    let written = picture(&lines(&place.classify(&[&input]), 0)[0]);
    let precious = place.path("precious");
    fs::write(&precious, "as it was").unwrap();
    fs::remove_file(&written).unwrap();
    symlink(&precious, &written).unwrap();
    let refused = place.classify(&[&input]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains(&written.display().to_string()), "{}", stderr(&refused));
    assert_eq!(fs::read_to_string(&precious).unwrap(), "as it was");
    assert!(fs::symlink_metadata(&written).unwrap().is_symlink());
}

#[test]
fn odd_names_stay_inside_the_folder() {
    let place = Place::new();
    let long = format!("in/{}.png", "ü".repeat(120));
    let odd = [".hidden", "in/a\nb\x1b[31m.png", "in/...png", long.as_str(), "in/-rf.png"];
    let inputs: Vec<PathBuf> = odd.iter().zip(1..).map(|(name, seed)| place.image(name, seed)).collect();
    let found = lines(&place.classify(&inputs.iter().map(PathBuf::as_path).collect::<Vec<_>>()), 0);
    for line in &found {
        let path = picture(line);
        assert_eq!(path.parent(), Some(place.path("a/pictures").as_path()));
        let name = path.file_name().unwrap().to_str().unwrap();
        let kept = |letter: char| letter.is_alphanumeric() || "-_.".contains(letter);
        assert!(name.chars().all(kept) && !name.starts_with('.') && name.ends_with(".png"), "{name:?}");
        assert!(path.is_file());
    }
    assert_eq!(names(&place.path("a/pictures")).len(), odd.len());
}

#[test]
fn a_folder_that_cannot_be_made_is_said_before_anything_is_judged() {
    let place = Place::new();
    let input = place.image("film.png", 1);
    fs::write(place.path("a"), "a file").unwrap();
    let refused = place.classify(&[&input]);
    assert_eq!((refused.status.code(), stdout(&refused).as_str()), (Some(1), ""));
    assert!(stderr(&refused).contains("--heatmap") && stderr(&refused).contains("a/pictures"), "{}", stderr(&refused));
}
