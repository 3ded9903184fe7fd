//! Writing that survives a power cut: files and folders that are durable, one file replaced whole. Not what is written.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// The mode of a file that its owner writes and everybody reads.
const READABLE_FILE: u32 = 0o644;
/// The same for a folder.
pub(super) const READABLE_FOLDER: u32 = 0o755;

/// Writes a file that is not there yet and syncs its contents; its name is durable once its folder is synced.
fn write_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // Not `create`, which would follow a link that somebody put in this place.
    let mut file = fs::File::create_new(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Writes the files below `dir`, which is made and has none of them yet, and syncs every file and folder. Names are
/// relative, with `/`.
pub(super) fn write_files(dir: &Path, files: &BTreeMap<String, Vec<u8>>) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    for (name, bytes) in files {
        let path = dir.join(name);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        write_file(&path, bytes)?;
    }
    sync_folders(dir)
}

/// Replaces the file in `path` by `bytes`, for every user to read: at any moment, a power cut included, it is the old one
/// or the new one. The new file is written beside it, under a name that begins with `prefix` and that nobody can know
/// before; a link in either place is not followed. Its folder must be there.
pub(super) fn replace_file(path: &Path, prefix: &str, bytes: &[u8]) -> io::Result<()> {
    // A relative name of one part has the parent "".
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new().prefix(prefix).tempfile_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().set_permissions(Permissions::from_mode(READABLE_FILE))?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    sync_folder(folder)
}

/// Opens a folder and all below it to all readers, links excepted.
pub(super) fn let_read(path: &Path) -> io::Result<()> {
    let kind = fs::symlink_metadata(path)?.file_type();
    if kind.is_symlink() {
        return Ok(());
    }
    fs::set_permissions(path, Permissions::from_mode(if kind.is_dir() { READABLE_FOLDER } else { READABLE_FILE }))?;
    if kind.is_dir() {
        for entry in fs::read_dir(path)? {
            let_read(&entry?.path())?;
        }
    }
    Ok(())
}

/// Makes the names in a folder durable.
pub(super) fn sync_folder(dir: &Path) -> io::Result<()> {
    fs::File::open(dir)?.sync_all()
}

/// Makes the names in a folder and in all folders below it durable.
fn sync_folders(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_folders(&entry.path())?;
        }
    }
    sync_folder(dir)
}
