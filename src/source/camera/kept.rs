//! What the camera's code keeps in `state_dir/camera`: the picture of the empty light box, and what tells the last film from
//! others, so that a restart does not report it again. No radiograph, and nothing by which a person could be known.

use super::film::Print;
use super::flatten::{Light, MAX_BYTES};
use super::grey::Point;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// The file names.
const REFERENCE: &str = "reference.png";
const LAST: &str = "last-film.json";

/// The film that was reported last.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Last {
    /// What tells it from others.
    pub print: Print,
    /// Where it lay.
    pub corners: [(f64, f64); 4],
}

impl Last {
    /// The film of this print that lies there.
    pub fn new(print: Print, corners: &[Point; 4]) -> Self {
        Self { print, corners: corners.map(|corner| (corner.x, corner.y)) }
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

    /// The reference picture, where there is one that can be read.
    pub fn reference(&self) -> Option<Light> {
        let light = Light::from_png(&read(&self.reference_path())?);
        if light.is_none() {
            let path = self.reference_path();
            log::warn!("{}: no picture of a light box; take a new one with the camera", path.display());
        }
        light
    }

    /// Keeps a reference picture.
    pub fn keep_reference(&self, light: &Light) -> io::Result<()> {
        let png = light.to_png().ok_or_else(|| io::Error::other("it cannot be written as PNG"))?;
        self.write(REFERENCE, &png)
    }

    /// The film that was reported last, where it may lie there still.
    pub fn last(&self) -> Option<Last> {
        serde_json::from_slice(&read(&self.0.join(LAST))?).ok()
    }

    /// Keeps which film was reported last; none: it has left.
    pub fn keep_last(&self, last: Option<&Last>) -> io::Result<()> {
        match last {
            Some(last) => self.write(LAST, &serde_json::to_vec(last)?),
            None => match fs::remove_file(self.0.join(LAST)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            },
        }
    }

    /// Writes a file as a whole or not at all.
    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        fs::create_dir_all(&self.0)?;
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
        assert!(kept.reference().is_none() && kept.last().is_none() && kept.reference_time().is_none());
        kept.keep_last(None).unwrap();
        let picture = Grey::new(60, 50, (0..3000).map(|level| level * 20).collect()).unwrap();
        let corners = [(1.0, 2.0), (3.0, 4.0), (5.0, 6.0), (7.5, 8.0)].map(|(x, y)| Point::new(x, y));
        let last = Last::new(Print::of(&picture), &corners);
        kept.keep_last(Some(&last)).unwrap();
        assert_eq!(kept.last(), Some(last.clone()));
        assert_eq!(last.corners(), corners);
        kept.keep_last(None).unwrap();
        assert_eq!(kept.last(), None);
        fs::write(root.path().join("camera").join(LAST), "{}").unwrap();
        fs::write(kept.reference_path(), "no PNG").unwrap();
        assert!(kept.last().is_none() && kept.reference().is_none());
        assert!(kept.reference_time().is_some());
    }
}
