//! What the dashboard shows of radiographs, where the configuration wants that: of each a small copy and its evidence map,
//! in files that only the daemon's user reads. Not the originals, and nothing that anybody must have: whatever goes wrong
//! here is a warning, and no radiograph waits for it.
//!
//! A copy is made along the line, and written by a thread of its own with a short queue; what does not fit into the queue is
//! left out. The oldest go when there are too many, when they take too much room, or when they are too old by a clock that
//! somebody vouches for. **They are a patient's data**: names that a modality burned into the pixels stay in them, which is
//! why there are none unless somebody asks for them, and why they never leave the box but to who looks at its pages.

use crate::assess;
use crate::preprocess;
use crate::radiograph::Radiograph;
use crate::report::EvidenceMap;
use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{ExtendedColorType, ImageEncoder};
use std::fs::{self, DirBuilder, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime};

/// Columns or rows of a copy at most.
pub const SIZE: u32 = 512;

/// Copies that wait to be written at most.
const QUEUE: usize = 8;

/// How often is looked for what is too old.
const HOUR: Duration = Duration::from_secs(3600);

/// How many copies there may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bounds {
    /// Their number.
    pub images: u64,
    /// Their bytes, evidence maps included.
    pub bytes: u64,
    /// How long they stay.
    pub age: Duration,
}

/// What is kept of one radiograph.
#[derive(Debug, Clone, PartialEq)]
pub struct Copy {
    width: u32,
    height: u32,
    levels: Vec<u8>,
    map: EvidenceMap,
}

impl Copy {
    /// The small copy of a radiograph, with the evidence for what was reported of it.
    pub fn of(radiograph: &Radiograph, map: EvidenceMap) -> Self {
        let (width, height, levels) = preprocess::fitted(radiograph, SIZE);
        Self { width, height, levels, map }
    }

    fn png(&self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        PngEncoder::new_with_quality(&mut bytes, CompressionType::Fast, FilterType::Adaptive)
            .write_image(&self.levels, self.width, self.height, ExtendedColorType::L8)
            .map_err(io::Error::other)?;
        Ok(bytes)
    }
}

/// The folder of a box's copies.
pub fn folder(state_dir: &Path) -> PathBuf {
    state_dir.join("web")
}

/// Removes what an earlier configuration has kept.
pub fn remove(state_dir: &Path) {
    let folder = folder(state_dir);
    match fs::remove_dir_all(&folder) {
        Ok(()) => log::info!("web.images = false: the copies of radiographs in {} are deleted", folder.display()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => log::warn!("{}: copies of radiographs cannot be deleted: {error}", folder.display()),
    }
}

/// A file of the copy of a report's radiograph; `None` for what is no report's id, so that no name leads elsewhere.
pub fn file(folder: &Path, report_id: &str, kind: Kind) -> Option<PathBuf> {
    let is_id = report_id.len() == 32 && report_id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    is_id.then(|| folder.join(format!("{report_id}.{}", kind.ending())))
}

/// Which of a copy's two files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The picture.
    Png,
    /// The evidence map, as JSON.
    Evidence,
}

impl Kind {
    fn ending(self) -> &'static str {
        match self {
            Self::Png => "png",
            Self::Evidence => "json",
        }
    }
}

/// Keeps copies. Dropping it writes what is queued, and ends.
#[derive(Debug)]
pub struct Gallery {
    queue: Option<SyncSender<(String, Copy)>>,
    thread: Option<JoinHandle<()>>,
}

impl Gallery {
    /// Makes the folder and starts the thread that writes into it.
    pub fn start(state_dir: &Path, bounds: Bounds) -> io::Result<Self> {
        let folder = folder(state_dir);
        DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        // One that somebody made by hand may let others in.
        fs::set_permissions(&folder, Permissions::from_mode(0o700))?;
        let (queue, copies) = sync_channel(QUEUE);
        let thread =
            thread::Builder::new().name("gallery".into()).spawn(move || Keeper::new(folder, bounds).run(&copies))?;
        Ok(Self { queue: Some(queue), thread: Some(thread) })
    }

    /// Has a copy kept, if there is time for it: it never waits.
    pub fn keep(&self, report_id: &str, copy: Copy) {
        if let Some(queue) = &self.queue
            && queue.try_send((report_id.to_owned(), copy)).is_err()
        {
            log::debug!("gallery: a copy is left out, the disk is too slow");
        }
    }
}

impl Drop for Gallery {
    fn drop(&mut self) {
        // Hanging up ends the thread, after what is queued.
        drop(self.queue.take());
        if let Some(thread) = self.thread.take() {
            // A panic in it was printed when it happened.
            let _ = thread.join();
        }
    }
}

/// What writes and deletes.
struct Keeper {
    folder: PathBuf,
    bounds: Bounds,
    /// What there was when it was last looked, and what was added since.
    images: u64,
    bytes: u64,
    /// What went wrong, as it was said.
    trouble: Option<String>,
}

impl Keeper {
    fn new(folder: PathBuf, bounds: Bounds) -> Self {
        Self { folder, bounds, images: 0, bytes: 0, trouble: None }
    }

    fn run(&mut self, copies: &Receiver<(String, Copy)>) {
        let tidied = self.tidy();
        self.say(tidied);
        loop {
            let done = match copies.recv_timeout(HOUR) {
                Ok((report_id, copy)) => self.write(&report_id, &copy),
                Err(RecvTimeoutError::Timeout) => self.tidy(),
                Err(RecvTimeoutError::Disconnected) => return,
            };
            self.say(done);
        }
    }

    /// Once per kind of trouble: a disk may be full for a week.
    fn say(&mut self, done: io::Result<()>) {
        let trouble = done.err().map(|error| error.to_string());
        if let Some(trouble) = &trouble
            && self.trouble.as_ref() != Some(trouble)
        {
            log::warn!("{}: copies of radiographs cannot be kept for the dashboard: {trouble}", self.folder.display());
        }
        self.trouble = trouble;
    }

    fn write(&mut self, report_id: &str, copy: &Copy) -> io::Result<()> {
        let png = copy.png()?;
        let map = serde_json::to_vec(&copy.map)?;
        for (kind, bytes) in [(Kind::Evidence, &map), (Kind::Png, &png)] {
            let path = file(&self.folder, report_id, kind).ok_or_else(|| io::Error::other("a strange report id"))?;
            let mut file = tempfile::Builder::new().prefix(".").suffix(".tmp").tempfile_in(&self.folder)?;
            file.write_all(bytes)?;
            file.persist(path).map_err(|error| error.error)?;
        }
        self.images += 1;
        self.bytes += (png.len() + map.len()) as u64;
        if self.images > self.bounds.images || self.bytes > self.bounds.bytes { self.tidy() } else { Ok(()) }
    }

    /// Deletes the oldest, as far as there are too many, and what is too old. Then there is room for a few.
    fn tidy(&mut self) -> io::Result<()> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.folder)?.filter_map(Result::ok) {
            let path = entry.path();
            let Ok(metadata) = entry.metadata() else { continue };
            match path.extension().and_then(|ending| ending.to_str()) {
                Some("png") => {
                    let map = fs::metadata(path.with_extension("json")).map_or(0, |map| map.len());
                    let time = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                    found.push((time, metadata.len() + map, path));
                }
                Some("json") if path.with_extension("png").exists() => {}
                // Half-written by a process that ended, or the other half is gone.
                _ => drop(fs::remove_file(&path)),
            }
        }
        found.sort();
        let (mut images, mut bytes) = (found.len() as u64, found.iter().map(|(_, bytes, _)| bytes).sum::<u64>());
        let is_full = images > self.bounds.images || bytes > self.bounds.bytes;
        // A twentieth more than must be, so that it is not done for every image.
        let room = |bound: u64| if is_full { bound - bound / 20 } else { bound };
        let now = assess::trusted_time();
        for (time, size, path) in found {
            let is_old = now.and_then(|now| now.duration_since(time).ok()).is_some_and(|age| age > self.bounds.age);
            if !is_old && images <= room(self.bounds.images) && bytes <= room(self.bounds.bytes) {
                break;
            }
            fs::remove_file(&path)?;
            // The map without its picture is removed the next time at the latest.
            let _ = fs::remove_file(path.with_extension("json"));
            (images, bytes) = (images - 1, bytes - size);
        }
        (self.images, self.bytes) = (images, bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::radiograph::phantom;

    fn copy(seed: u64) -> Copy {
        let map = EvidenceMap { rows: 1, columns: 1, logits: vec![seed as f32; 4] };
        Copy::of(&phantom::radiograph(seed, 700), map)
    }

    fn id(number: u64) -> String {
        format!("{number:032x}")
    }

    fn bounds(images: u64, bytes: u64) -> Bounds {
        Bounds { images, bytes, age: HOUR }
    }

    fn pictures(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_copy_is_small_grey_and_for_the_daemons_eyes() {
        let root = tempfile::tempdir().unwrap();
        let gallery = Gallery::start(root.path(), bounds(10, 1 << 30)).unwrap();
        gallery.keep(&id(1), copy(1));
        drop(gallery);
        let folder = folder(root.path());
        assert_eq!(pictures(&folder), [format!("{}.json", id(1)), format!("{}.png", id(1))]);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&folder), mode(&folder.join(format!("{}.png", id(1))))), (0o700, 0o600));
        let png = image::open(file(&folder, &id(1), Kind::Png).unwrap()).unwrap();
        assert_eq!((png.width(), png.height(), png.color()), (SIZE, SIZE, image::ColorType::L8));
        let map = fs::read(file(&folder, &id(1), Kind::Evidence).unwrap()).unwrap();
        assert_eq!(serde_json::from_slice::<EvidenceMap>(&map).unwrap(), copy(1).map);
        remove(root.path());
        assert!(!folder.exists());
    }

    #[test]
    fn the_oldest_go_when_there_are_too_many_or_they_take_too_much() {
        let root = tempfile::tempdir().unwrap();
        let mut keeper = Keeper::new(root.path().to_owned(), bounds(3, 1 << 30));
        for number in 0..7 {
            keeper.write(&id(number), &copy(number)).unwrap();
            let path = file(root.path(), &id(number), Kind::Png).unwrap();
            let time = SystemTime::now() - Duration::from_secs(60 - number);
            fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
        }
        let left = |names: Vec<String>| names.iter().filter(|name| name.ends_with(".png")).cloned().collect::<Vec<_>>();
        assert_eq!(left(pictures(root.path())), [4, 5, 6].map(|number| format!("{}.png", id(number))));
        assert_eq!(pictures(root.path()).len(), 6, "their maps too");
        // An orphan, and what a killed process left.
        fs::write(root.path().join(format!("{}.json", id(99))), "{}").unwrap();
        fs::write(root.path().join(".a.tmp"), "").unwrap();
        keeper.bounds = bounds(100, 1);
        keeper.tidy().unwrap();
        assert!(pictures(root.path()).is_empty());
    }

    #[test]
    fn no_name_leads_out_of_the_folder() {
        let folder = Path::new("/state/web");
        for name in ["../../etc/passwd", "", "..", &"A".repeat(32), &"0".repeat(31), &format!("{}/", "0".repeat(31))] {
            assert!(file(folder, name, Kind::Png).is_none(), "{name}");
        }
        assert_eq!(file(folder, &id(255), Kind::Evidence).unwrap(), folder.join(format!("{}.json", id(255))));
    }
}
