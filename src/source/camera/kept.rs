//! What the camera's code keeps in `state_dir/camera`: the picture of the empty light box, and what tells the last film from
//! others, so that a restart does not report it again. No radiograph, and nothing by which a person could be known.

use super::eye::Eye;
use super::film::Print;
use super::flatten::{Light, MAX_BYTES};
use super::grey::Point;
use crate::bundle::sha256_hex;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// The file names.
const REFERENCE: &str = "reference.png";
const TAKEN_BY: &str = "reference.json";
const LAST: &str = "films.json";
/// The greatest coordinate that a frame has.
const FARTHEST: f64 = 16_384.0;

/// Which camera took a picture of the light box, and in which mode: what another sees, or the same in another mode, lies
/// elsewhere in its frames.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakenBy {
    /// The camera's own name and serial number.
    pub camera: String,
    /// E.g. `YUYV 1280x720`.
    pub mode: String,
}

impl TakenBy {
    /// What this camera takes now.
    pub fn eye(eye: &dyn Eye) -> Self {
        Self { camera: eye.name(), mode: eye.mode() }
    }
}

impl fmt::Display for TakenBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in {}", self.camera, self.mode)
    }
}

/// What lies beside the reference picture; it speaks of the picture of this hash, and of no other.
#[derive(Serialize, Deserialize)]
struct Beside {
    #[serde(flatten)]
    taken_by: TakenBy,
    sha256: String,
}

/// A film that was reported and may lie there still.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Last {
    /// What tells it from others.
    pub print: Print,
    /// Where it lay.
    pub corners: [(f64, f64); 4],
    /// Whether light was around it.
    pub is_lit: bool,
}

impl Last {
    /// The film of this print that lies there.
    pub fn new(print: Print, corners: &[Point; 4], is_lit: bool) -> Self {
        Self { print, corners: corners.map(|corner| (corner.x, corner.y)), is_lit }
    }

    /// It lies there now.
    pub fn move_to(&mut self, corners: &[Point; 4]) {
        self.corners = corners.map(|corner| (corner.x, corner.y));
    }

    /// Whether it can be what this program has written.
    fn is_sound(&self) -> bool {
        let is_place = |(x, y): &(f64, f64)| [x, y].into_iter().all(|at| (-FARTHEST..=FARTHEST).contains(at));
        self.print.is_sound() && self.corners.iter().all(is_place)
    }

    /// Where it lay.
    pub fn corners(&self) -> [Point; 4] {
        self.corners.map(|(x, y)| Point::new(x, y))
    }
}

/// The folder.
#[derive(Debug, Clone)]
pub struct Kept(PathBuf);

impl Kept {
    /// In this `state_dir`; the folder is made when something is kept.
    pub fn new(state_dir: &Path) -> Self {
        Self(state_dir.join("camera"))
    }

    /// The reference picture's file.
    pub fn reference_path(&self) -> PathBuf {
        self.0.join(REFERENCE)
    }

    /// When the reference picture was taken.
    pub fn reference_time(&self) -> Option<SystemTime> {
        fs::metadata(self.reference_path()).and_then(|metadata| metadata.modified()).ok()
    }

    /// The reference picture for what is taken by this camera, where there is one; or, in words, why it is of no use.
    pub fn reference(&self, by: &TakenBy) -> Result<Option<Light>, String> {
        let Some(png) = read(&self.reference_path()) else { return Ok(None) };
        let unfit = |why: &str| {
            format!(
                "the picture of the empty light box is not used, since {why}: empty the light box, and take a new one with \
                 the command `capture/reference` or `roentgend camera reference`"
            )
        };
        let light = Light::from_png(&png).ok_or_else(|| unfit("its file is damaged"))?;
        let beside: Option<Beside> = read(&self.0.join(TAKEN_BY)).and_then(|json| serde_json::from_slice(&json).ok());
        match beside.filter(|beside| beside.sha256 == sha256_hex(&png)).map(|beside| beside.taken_by) {
            None => Err(unfit("nothing says which camera took it")),
            Some(taken_by) if taken_by == *by => Ok(Some(light)),
            Some(taken_by) => Err(unfit(&format!("it was taken by {taken_by}, and the camera now is {by}"))),
        }
    }

    /// Keeps a reference picture.
    pub fn keep_reference(&self, light: &Light, by: &TakenBy) -> io::Result<()> {
        let png = light.to_png().ok_or_else(|| io::Error::other("it cannot be written as PNG"))?;
        // Of what is cut off between the two nothing is believed.
        let beside = Beside { taken_by: by.clone(), sha256: sha256_hex(&png) };
        self.write(TAKEN_BY, &serde_json::to_vec(&beside)?)?;
        self.write(REFERENCE, &png)
    }

    /// The films that were reported and may lie there still.
    pub fn films(&self) -> Vec<Last> {
        let kept: Option<Vec<Last>> = read(&self.0.join(LAST)).and_then(|json| serde_json::from_slice(&json).ok());
        kept.filter(|films| films.iter().all(Last::is_sound)).unwrap_or_default()
    }

    /// Keeps which films were reported; none: they have left.
    pub fn keep_films(&self, films: &[Last]) -> io::Result<()> {
        if !films.is_empty() {
            return self.write(LAST, &serde_json::to_vec(films)?);
        }
        match fs::remove_file(self.0.join(LAST)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Writes a file as a whole or not at all.
    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.0)?;
        let temporary = self.0.join(format!("{name}.tmp"));
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, self.0.join(name))?;
        File::open(&self.0)?.sync_all()
    }
}

fn read(path: &Path) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(MAX_BYTES).read_to_end(&mut bytes)).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::camera::grey::Grey;

    #[test]
    fn what_is_kept_is_read_again_and_rubbish_is_nothing() {
        let root = tempfile::tempdir().unwrap();
        let kept = Kept::new(root.path());
        let by = |camera: &str| TakenBy { camera: camera.into(), mode: "GREY 640x480".into() };
        assert!(kept.reference(&by("a")) == Ok(None) && kept.films().is_empty() && kept.reference_time().is_none());
        kept.keep_films(&[]).unwrap();
        let picture = Grey::new(60, 50, (0..3000).map(|level| level * 20).collect()).unwrap();
        let corners = [(1.0, 2.0), (3.0, 4.0), (5.0, 6.0), (7.5, 8.0)].map(|(x, y)| Point::new(x, y));
        let film = Last::new(Print::of(&picture), &corners, true);
        kept.keep_films(&[film.clone(), film.clone()]).unwrap();
        assert_eq!(kept.films(), [film.clone(), film.clone()]);
        assert_eq!(film.corners(), corners);
        let far = Last { corners: [(1e300, 0.0); 4], ..film };
        kept.keep_films(&[far]).unwrap();
        assert!(kept.films().is_empty(), "no frame reaches so far");
        kept.keep_films(&[]).unwrap();
        for rubbish in ["{}", "[{\"print\":[1,2],\"corners\":[[0,0],[0,0],[0,0],[0,0]],\"is_lit\":true}]"] {
            fs::write(root.path().join("camera").join(LAST), rubbish).unwrap();
            assert!(kept.films().is_empty());
        }
        let light = Light::Reference(picture.reduced(1));
        kept.keep_reference(&light, &by("a")).unwrap();
        assert!(kept.reference(&by("a")).unwrap().is_some() && kept.reference_time().is_some());
        let refused = |by: &TakenBy| kept.reference(by).unwrap_err();
        assert!(
            refused(&by("b")).contains("taken by a in GREY 640x480, and the camera now is b"),
            "{}",
            refused(&by("b"))
        );
        let other_mode = TakenBy { mode: "GREY 1280x720".into(), ..by("a") };
        assert!(refused(&other_mode).contains("1280x720"));
        // Another picture than the one that was spoken of, as after a power cut between the two files.
        fs::write(kept.reference_path(), Light::Reference(picture.reduced(2)).to_png().unwrap()).unwrap();
        assert!(refused(&by("a")).contains("nothing says which camera took it"));
        fs::write(kept.reference_path(), "no PNG").unwrap();
        assert!(refused(&by("a")).contains("damaged"));
    }
}
