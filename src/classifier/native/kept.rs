//! Packed weights that are kept between starts: under which name, for whom, and when not. Not the file's format, which is
//! [`crate::network::cache`]'s.

use crate::bundle::{Bundle, MODEL_FILE};
use crate::kernels::direct::pack_filters;
use crate::kernels::{BLOCK, Kernels};
use crate::network::cache::{self, CacheError};
use crate::network::outline::Outline;
use crate::network::plan::{Options, Plan};
use crate::network::weights::{self, Weights};
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How the names of files of packed weights begin.
const PREFIX: &str = "weights-";
/// And end.
const SUFFIX: &str = ".packed";
/// How many of them are kept: of the active bundle, of the good one before it, and of one more.
const KEPT: usize = 3;
/// After so long an unfinished file is one that nobody writes any more.
const ABANDONED: Duration = Duration::from_secs(3600);

/// Where weights are kept that were packed from a bundle's network for some options by this program.
pub(super) struct Kept {
    folder: PathBuf,
    path: PathBuf,
    key: [u8; 32],
}

impl Kept {
    /// `None` where this program cannot be told from another, so that nothing that it kept could be trusted.
    pub(super) fn of(folder: &Path, bundle: &Bundle, options: &Options) -> Option<Self> {
        let model = bundle.manifest().files.get(MODEL_FILE)?.to_ascii_lowercase();
        // The order of packed weights is the kernels' own affair, and where they lie the planner's: whatever another build
        // packed is not for this one. Its file tells builds apart, but for those whose times and sizes are made the same;
        // so the kernels are asked too how they pack.
        let program = fs::metadata("/proc/self/exe").ok()?;
        let program = [program.len(), program.ino(), program.mtime() as u64, program.mtime_nsec() as u64];
        let program = format!("{} {program:?}", env!("CARGO_PKG_VERSION"));
        let Options { kernels, memory, threads, fuse_pool, family } = options;
        let options = format!("{} {memory:?} {threads} {fuse_pool} {family:?}", kernels.name);
        let version = weights::VERSION.to_le_bytes();
        let parts = [model.as_bytes(), &version, program.as_bytes(), options.as_bytes(), &probe(kernels)];
        let key = cache::key(&parts);
        let name: String = key[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        Some(Self { folder: folder.to_owned(), path: folder.join(format!("{PREFIX}{name}{SUFFIX}")), key })
    }

    /// The plan and weights that were kept, if they are there and whole, where only this user writes.
    pub(super) fn load(&self, options: &Options) -> Option<(Plan, Weights)> {
        let read = || {
            check_folder(&self.folder)?;
            cache::load(&self.path, &self.key, options.threads)
        };
        let packed = match read() {
            Err(error) if error.is_absent() => return None,
            Err(error) => {
                log::warn!("packed weights: {error}; packing them again");
                return None;
            }
            Ok(packed) => packed,
        };
        let outline: Outline = serde_json::from_slice(&packed.note).ok()?;
        let plan = Plan::new(&outline, *options).ok()?;
        (packed.length == plan.weight_bytes).then(|| (plan, Weights::packed_before(packed.bytes)))
    }

    /// Keeps them. Where that fails it is said, and the next start packs again.
    pub(super) fn save(&self, outline: &Outline, weights: &Weights, plan: &Plan) {
        let save = || -> Result<(), CacheError> {
            let io = |what| move |error| CacheError::Io { what, path: self.folder.clone(), error };
            // For this user alone, whatever the umask: who writes here decides what the model answers.
            let made = DirBuilder::new().recursive(true).mode(0o700).create(&self.folder);
            made.map_err(io("making the folder"))?;
            check_folder(&self.folder)?;
            self.remove_abandoned().map_err(io("removing unfinished files"))?;
            let note = serde_json::to_vec(outline).map_err(|error| io("describing it")(error.into()))?;
            let packed = weights.as_bytes().get(..plan.weight_bytes).unwrap_or_default();
            cache::save(&self.path, &self.key, &note, packed)?;
            self.remove_old().map_err(io("removing old files"))
        };
        if let Err(error) = save() {
            log::warn!("packed weights are not kept: {error}");
        }
    }

    /// Removes the file; whether it did.
    pub(super) fn remove(&self) -> bool {
        let removed = fs::remove_file(&self.path);
        if let Err(error) = &removed {
            log::warn!("{}: cannot be removed: {error}", self.path.display());
        }
        removed.is_ok()
    }

    /// Removes all but the newest.
    fn remove_old(&self) -> io::Result<()> {
        let mut files = self.files(|name| name.starts_with(PREFIX) && name.ends_with(SUFFIX))?;
        files.sort();
        let old = files.len().saturating_sub(KEPT);
        files[..old].iter().filter(|(_, path)| *path != self.path).try_for_each(|(_, path)| remove(path))
    }

    /// Removes what was being written when the power went.
    fn remove_abandoned(&self) -> io::Result<()> {
        let files = self.files(|name| name.starts_with(cache::UNFINISHED))?;
        let abandoned = files.iter().filter(|(modified, _)| modified.elapsed().is_ok_and(|age| age > ABANDONED));
        abandoned.into_iter().try_for_each(|(_, path)| remove(path))
    }

    /// The files of the folder with such names: when they were written, and where they are.
    fn files(&self, is_meant: impl Fn(&str) -> bool) -> io::Result<Vec<(std::time::SystemTime, PathBuf)>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            if entry.file_name().to_str().is_some_and(&is_meant) {
                match entry.metadata().and_then(|metadata| metadata.modified()) {
                    Ok(modified) => files.push((modified, entry.path())),
                    // Gone since it was listed.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(files)
    }
}

/// Removes a file, if it is still there.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Refuses a folder in which others than its owner may write, or that is another user's.
fn check_folder(folder: &Path) -> Result<(), CacheError> {
    let io = |error| CacheError::Io { what: "looking at the folder", path: folder.to_owned(), error };
    let metadata = fs::symlink_metadata(folder).map_err(io)?;
    // This process's own folder in /proc belongs to whom it runs as.
    let user = fs::metadata("/proc/self").map_err(io)?.uid();
    if !metadata.is_dir() || metadata.uid() != user || metadata.mode() & 0o022 != 0 {
        let reason = "others may write in its folder, which must be this user's alone (chmod 700)";
        return Err(CacheError::Damaged { path: folder.to_owned(), reason });
    }
    Ok(())
}

/// How these kernels pack: a pattern of weights in their own order.
fn probe(kernels: &Kernels) -> Vec<u8> {
    let pattern: Vec<i8> = (0..BLOCK * 9 * BLOCK).map(|i| (i * 89 % 251) as u8 as i8).collect();
    let filters = pack_filters(&pattern, BLOCK, 9);
    let mut packed = vec![0i8; (kernels.direct.packed_bytes)(1, 9)];
    (kernels.direct.pack)(&filters, 9, &mut packed);
    let mut bytes: Vec<u8> = packed.iter().map(|&w| w as u8).collect();
    for winograd in kernels.winograd {
        let mut u = vec![0i16; winograd.weight_count(1)];
        (winograd.weights)(&filters, &mut u);
        bytes.extend(u.iter().flat_map(|u| u.to_le_bytes()));
    }
    bytes
}
