//! A bundle that travels as one `.tar` file: unpacking it, within limits. Says nothing about the bundle inside: whoever
//! unpacks one opens it next.

use super::{BundleError, MANIFEST_FILE, MAX_DEPTH, MAX_FILE_BYTES, MAX_FILES};
use crate::plain_file;
use std::fs;
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};
use tar::{Archive, EntryType};

/// The largest archive that is read, in bytes; unpacked it is no larger.
const MAX_ARCHIVE_BYTES: u64 = MAX_FILE_BYTES + (16 << 20);

/// Unpacks the archive `file` into the folder `into`, which is there and empty, and returns the bundle's directory: that
/// folder, or the only one in it. Takes plain files and folders only, nothing that would lie outside.
pub fn unpack(file: &Path, into: &Path) -> Result<PathBuf, BundleError> {
    let reading = |error| BundleError::Io { what: "reading the archive", path: file.to_owned(), error };
    let refuse = |reason: String| BundleError::File { path: file.to_owned(), reason };
    let (opened, metadata) = plain_file::open(file).map_err(reading)?;
    if metadata.len() > MAX_ARCHIVE_BYTES {
        return Err(refuse(format!("longer than the {MAX_ARCHIVE_BYTES} bytes allowed for a bundle's archive.")));
    }
    let mut archive = Archive::new(opened.take(MAX_ARCHIVE_BYTES));
    let broken = |error: io::Error| refuse(format!("no tar archive, or cut off ({error}). Get it again."));
    let mut left = MAX_ARCHIVE_BYTES;
    for (count, entry) in archive.entries().map_err(broken)?.enumerate() {
        let entry = entry.map_err(broken)?;
        let name = entry.path().map_err(broken)?.into_owned();
        let inside = relative(&name)
            .ok_or_else(|| refuse(format!("the entry {} would lie outside. Do not use it.", name.display())))?;
        if count > MAX_FILES || inside.components().count() > MAX_DEPTH + 1 {
            return Err(refuse("too many files or folders for a bundle.".into()));
        }
        let path = into.join(inside);
        let writing = |error| BundleError::Io { what: "unpacking", path: path.clone(), error };
        match entry.header().entry_type() {
            EntryType::Directory => fs::create_dir_all(&path).map_err(writing)?,
            EntryType::Regular => {
                if let Some(folder) = path.parent() {
                    fs::create_dir_all(folder).map_err(writing)?;
                }
                let mut out = fs::File::create_new(&path).map_err(writing)?;
                let written = io::copy(&mut entry.take(left), &mut out).map_err(writing)?;
                left -= written;
                if left == 0 {
                    return Err(refuse(format!("it unpacks to more than {MAX_ARCHIVE_BYTES} bytes.")));
                }
            }
            // The name's or the archive's own extended attributes.
            EntryType::XGlobalHeader => {}
            _ => {
                let reason = format!("{} is no plain file. A bundle's archive holds plain files only.", name.display());
                return Err(refuse(reason));
            }
        }
    }
    root(into)?.ok_or_else(|| refuse(format!("no {MANIFEST_FILE} in it, at the top or in its only folder.")))
}

/// The name without a leading `./`; `None` where it is absolute or goes up.
fn relative(name: &Path) -> Option<PathBuf> {
    let mut inside = PathBuf::new();
    for component in name.components() {
        match component {
            Component::Normal(part) => inside.push(part),
            Component::CurDir => {}
            _ => return None,
        }
    }
    Some(inside)
}

/// The folder with the manifest: this one, or the only one in it.
fn root(unpacked: &Path) -> Result<Option<PathBuf>, BundleError> {
    let listing = |error| BundleError::Io { what: "listing the folder", path: unpacked.to_owned(), error };
    if unpacked.join(MANIFEST_FILE).is_file() {
        return Ok(Some(unpacked.to_owned()));
    }
    let mut entries = fs::read_dir(unpacked).map_err(listing)?;
    let (Some(first), None) = (entries.next().transpose().map_err(listing)?, entries.next()) else { return Ok(None) };
    Ok(Some(first.path()).filter(|folder| folder.join(MANIFEST_FILE).is_file()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An archive with these entries: name, kind, contents.
    fn archive(folder: &Path, entries: &[(&str, EntryType, &[u8])]) -> PathBuf {
        let path = folder.join("bundle.tar");
        let mut builder = tar::Builder::new(fs::File::create(&path).unwrap());
        for (name, kind, bytes) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_entry_type(*kind);
            header.set_mode(0o644);
            // Not `set_path`, which refuses the names that a stranger would write.
            header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
            if kind.is_symlink() {
                header.set_link_name("/etc/passwd").unwrap();
            }
            header.set_cksum();
            builder.append(&header, *bytes).unwrap();
        }
        builder.finish().unwrap();
        path
    }

    fn unpacked(entries: &[(&str, EntryType, &[u8])]) -> Result<PathBuf, String> {
        let folder = tempfile::tempdir().unwrap();
        let into = folder.path().join("a/b");
        fs::create_dir_all(&into).unwrap();
        let found = unpack(&archive(folder.path(), entries), &into).map_err(|error| error.to_string());
        assert!(!folder.path().join("a/x").exists() && !folder.path().join("x").exists(), "it left its folder");
        found.map(|root| root.strip_prefix(&into).unwrap().to_owned())
    }

    const FILE: EntryType = EntryType::Regular;

    #[test]
    fn the_manifest_may_lie_at_the_top_or_in_the_only_folder() {
        assert_eq!(unpacked(&[("./bundle.toml", FILE, b"a"), ("golden/x", FILE, b"b")]), Ok("".into()));
        let below = [("tiny", EntryType::Directory, &b""[..]), ("tiny/bundle.toml", FILE, b"a")];
        assert_eq!(unpacked(&below), Ok("tiny".into()));
        let error = unpacked(&[("a/bundle.toml", FILE, b"a"), ("b/x", FILE, b"b")]).unwrap_err();
        assert!(error.contains("bundle.tar") && error.contains("no bundle.toml"), "{error}");
    }

    #[test]
    fn nothing_leaves_the_folder_and_nothing_but_files_comes_out() {
        for name in ["../x", "/x", "a/../../x"] {
            let error = unpacked(&[(name, FILE, b"?")]).unwrap_err();
            assert!(error.contains("outside"), "{name}: {error}");
        }
        for kind in [EntryType::Symlink, EntryType::Link, EntryType::Fifo, EntryType::Char] {
            let error = unpacked(&[("x", kind, b"")]).unwrap_err();
            assert!(error.contains("no plain file"), "{error}");
        }
        let twice = unpacked(&[("bundle.toml", FILE, b"a"), ("bundle.toml", FILE, b"b")]);
        assert!(twice.is_err(), "a second file of one name");
    }

    #[test]
    fn what_is_no_archive_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("photo.tar");
        for bytes in [vec![7; 4096], Vec::new()] {
            fs::write(&path, bytes).unwrap();
            let error = unpack(&path, &folder.path().join("into")).unwrap_err().to_string();
            assert!(error.contains("photo.tar") || error.contains("into"), "{error}");
        }
        let error = unpack(&folder.path().join("none.tar"), folder.path()).unwrap_err().to_string();
        assert!(error.contains("none.tar"), "{error}");
    }
}
