//! Takes radiographs from the dashboard into the drop folder, where that is allowed, and says what became of them. Judges
//! and decodes nothing: from then on it is a file that somebody dropped.
//!
//! What cannot be taken is refused at once: too large, of no known format, no room, no intake. A file comes under a name
//! with a dot, which the folder does not touch, and gets a name of the box's own when all of it is on the disk. The name that
//! it had where it came from is never sent: it may be a patient's.

use super::reply::{Reply, json, problem};
use super::{Exchange, Site};
use crate::assess;
use crate::outbox::history::History;
use crate::preprocess;
use crate::radiograph;
use crate::status::probe::Disk;
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use hyper::{Request, Response, StatusCode};
use serde_json::{Value, json as value};
use sha2::{Digest, Sha256};
use std::collections::VecDeque;
use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};
use tempfile::NamedTempFile;
use tokio::sync::Semaphore;

/// How long one file may take to come.
const LIFE: Duration = Duration::from_secs(600);
/// How long nothing of it may come.
const SILENCE: Duration = Duration::from_secs(30);
/// Files that come at a time.
const AT_A_TIME: usize = 2;
/// Bytes that are written at once; the first of them tell what it is.
const PIECE: usize = 256 << 10;
/// Files that are remembered, to say what became of them.
const REMEMBERED: usize = 256;
/// How names begin, and those of unfinished files.
const NAME: &str = "upload-";
const UNFINISHED: &str = ".upload-";
/// After how long an unfinished file is one that a dead process left.
const ABANDONED: Duration = Duration::from_secs(3600);

/// What is known of files that came.
pub(super) struct Desk {
    room: Semaphore,
    /// Names and content hashes, oldest first.
    known: Mutex<VecDeque<(String, String)>>,
}

impl Default for Desk {
    fn default() -> Self {
        Self { room: Semaphore::new(AT_A_TIME), known: Mutex::default() }
    }
}

/// Why a file is not taken.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("the box does not take files this way: set upload = true in [web]")]
    Off,
    #[error("others are being sent at the moment; try again")]
    Busy,
    #[error("{0}")]
    Closed(String),
    #[error("the file is larger than the box allows (limits.max_file_bytes)")]
    TooLarge,
    #[error("the box's disk is full")]
    NoRoom,
    #[error("the file is neither DICOM nor PNG nor JPEG; export the radiograph as DICOM or PNG")]
    UnknownFormat,
    #[error("the file did not arrive whole; send it again")]
    CutOff,
    #[error("the drop folder cannot be written: {0}")]
    Disk(#[from] io::Error),
}

impl Refused {
    fn answer(&self) -> Response<Reply> {
        let (status, code) = match self {
            Self::Off => (StatusCode::FORBIDDEN, "off"),
            Self::Busy => (StatusCode::SERVICE_UNAVAILABLE, "busy"),
            Self::Closed(_) => (StatusCode::SERVICE_UNAVAILABLE, "closed"),
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
            Self::NoRoom => (StatusCode::INSUFFICIENT_STORAGE, "no_room"),
            Self::UnknownFormat => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unknown_format"),
            Self::CutOff => (StatusCode::BAD_REQUEST, "cut_off"),
            Self::Disk(error) if error.kind() == io::ErrorKind::StorageFull => {
                (StatusCode::INSUFFICIENT_STORAGE, "no_room")
            }
            Self::Disk(_) => (StatusCode::SERVICE_UNAVAILABLE, "closed"),
        };
        problem(status, code, &self.to_string())
    }
}

/// Takes the file that a request brings.
pub(super) async fn take(request: Request<Incoming>, site: &Arc<Site>, exchange: &Arc<Exchange>) -> Response<Reply> {
    match taken(request.into_body(), site, exchange).await {
        Ok((name, content_sha256)) => {
            json(StatusCode::ACCEPTED, &value!({ "name": name, "content_sha256": content_sha256 }))
        }
        Err(refused) => {
            log::info!("web: a file was not taken: {refused}");
            refused.answer()
        }
    }
}

async fn taken(mut body: Incoming, site: &Arc<Site>, exchange: &Exchange) -> Result<(String, String), Refused> {
    let (settings, desk) = (&site.settings, &site.uploads);
    if !settings.web.upload {
        return Err(Refused::Off);
    }
    let _room = desk.room.try_acquire().map_err(|_| Refused::Busy)?;
    if let Some(closed) = site.status.health().problems.into_iter().find(|problem| problem.code == "intake_closed") {
        return Err(Refused::Closed(closed.message));
    }
    let (announced, most) = (body.size_hint().lower(), settings.max_file_bytes);
    if announced > most {
        return Err(Refused::TooLarge);
    }
    let incoming = settings.folder.incoming.clone();
    let needed = settings.min_free_bytes.saturating_add(announced);
    let folder = incoming.clone();
    let mut draft = on_disk(move || {
        if Disk::read(&folder).is_some_and(|disk| disk.free_bytes < needed) {
            return Err(Refused::NoRoom);
        }
        sweep(&folder);
        Ok(tempfile::Builder::new().prefix(UNFINISHED).suffix(".part").tempfile_in(&folder)?)
    })
    .await?;
    exchange.extend(LIFE);
    let (mut hash, mut total, mut piece, mut ending) = (Sha256::new(), 0u64, Vec::new(), None);
    loop {
        let frame = tokio::time::timeout(SILENCE, body.frame()).await.map_err(|_| Refused::CutOff)?;
        let is_over = frame.is_none();
        if let Some(frame) = frame {
            let data = frame.map_err(|_| Refused::CutOff)?.into_data().unwrap_or_default();
            total += data.len() as u64;
            if total > most {
                return Err(Refused::TooLarge);
            }
            piece.extend_from_slice(&data);
        }
        if piece.len() >= PIECE || is_over {
            if ending.is_none() {
                ending = Some(radiograph::known_ending(&piece).ok_or(Refused::UnknownFormat)?);
            }
            hash.update(&piece);
            let bytes = std::mem::take(&mut piece);
            draft = on_disk(move || Ok(draft.write_all(&bytes).map(|()| draft)?)).await?;
        }
        if is_over {
            break;
        }
    }
    let sha256: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    let name = name(ending.unwrap_or("dcm"))?;
    let path = incoming.join(&name);
    on_disk(move || finish(draft, &path)).await?;
    let mut known = desk.known.lock().unwrap_or_else(PoisonError::into_inner);
    if known.len() >= REMEMBERED {
        known.pop_front();
    }
    known.push_back((name.clone(), sha256.clone()));
    Ok((name, sha256))
}

/// Gives a file its name, when all of it is on the disk. Who may look into the folder may read it.
fn finish(draft: NamedTempFile, path: &Path) -> Result<(), Refused> {
    draft.as_file().set_permissions(Permissions::from_mode(0o640))?;
    draft.as_file().sync_all()?;
    draft.persist_noclobber(path).map_err(|error| error.error)?;
    if let Some(folder) = path.parent() {
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

/// A name that no other file has, and that tells nothing.
fn name(ending: &str) -> io::Result<String> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("{NAME}{digits}.{ending}"))
}

/// Removes what a process has left that died while files came.
fn sweep(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.filter_map(Result::ok) {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let is_ours = name.starts_with(UNFINISHED) && name.ends_with(".part");
        let age = || SystemTime::now().duration_since(entry.metadata().ok()?.modified().ok()?).ok();
        if is_ours && age().is_some_and(|age| age > ABANDONED) {
            // The next file tries again.
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Runs in a thread of its own what may wait for the disk.
async fn on_disk<T: Send + 'static>(work: impl FnOnce() -> Result<T, Refused> + Send + 'static) -> Result<T, Refused> {
    // A panic was printed when it happened.
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| Err(Refused::Closed("a defect of the program".into())))
}

/// What became of a file: `waiting`, `reported` with the report's sequence, `rejected` with why, or `settled`, where more is
/// not known. `None`: there was no such file.
pub(super) fn state(site: &Site, name: &str) -> Option<Value> {
    let known = site.uploads.known.lock().unwrap_or_else(PoisonError::into_inner);
    let sha256 = known.iter().find(|(other, _)| other == name).map(|(_, sha256)| sha256.clone())?;
    drop(known);
    let folder = &site.settings.folder;
    if folder.incoming.join(name).exists() {
        return Some(value!({ "state": "waiting" }));
    }
    if let Ok(reason) = File::open(folder.rejected().join(format!("{name}.reason.json"))) {
        let mut text = String::new();
        let read = reason.take(64 << 10).read_to_string(&mut text);
        let reason: Value = read.ok().and_then(|_| serde_json::from_str(&text).ok()).unwrap_or_default();
        return Some(value!({ "state": "rejected", "code": reason["code"], "message": reason["message"] }));
    }
    let model = site.status.setup().map(|setup| setup.model.sha256).unwrap_or_default();
    let id = assess::report_id(&sha256, &model, preprocess::VERSION);
    let found = History::open(&site.settings.outbox).and_then(|history| history.find(&id));
    match found {
        Ok(Some(sequence)) => Some(value!({ "state": "reported", "sequence": sequence })),
        _ => Some(value!({ "state": "settled" })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_nothing_and_the_folder_takes_only_finished_ones() {
        let names: std::collections::BTreeSet<_> = (0..100).map(|_| name("png").unwrap()).collect();
        assert_eq!(names.len(), 100);
        for name in names {
            assert!(name.len() == 27 && name.starts_with("upload-") && name.ends_with(".png"), "{name}");
            assert!(crate::source::folder::may_be_taken(Path::new(&name)));
        }
        assert!(!crate::source::folder::may_be_taken(Path::new(".upload-a.part")));
    }

    #[test]
    fn what_a_dead_process_left_is_removed_and_what_comes_now_is_not() {
        let folder = tempfile::tempdir().unwrap();
        for (name, age) in
            [(".upload-old.part", 7200), (".upload-new.part", 0), (".other.part", 7200), ("upload-a.png", 7200)]
        {
            let file = File::create(folder.path().join(name)).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(age)).unwrap();
        }
        sweep(folder.path());
        let left = |name: &str| folder.path().join(name).exists();
        assert!(!left(".upload-old.part") && left(".upload-new.part") && left(".other.part") && left("upload-a.png"));
    }
}
