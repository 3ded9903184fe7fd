//! A bundle that travels as one `.tar` file: unpacking it, within limits. Says nothing about the bundle inside: whoever
//! unpacks one opens it next.

use super::files::MAX_BYTES as MAX_FILE_BYTES;
use super::{BundleError, MANIFEST_FILE, MAX_DEPTH, MAX_FILES};
use crate::plain_file;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};
use tar::{Archive, Entry, EntryType, PaxExtensions};

/// The largest archive that is read, in bytes; unpacked it is no larger.
const MAX_ARCHIVE_BYTES: u64 = MAX_FILE_BYTES + (16 << 20);

/// The longest extension of a header that is read, in bytes: what an archiver says of the next entry beside its plain
/// header, a long name above all.
const MAX_EXTENSION_BYTES: u64 = 64 << 10;

/// Most entries of an archive: files, folders and their extensions.
const MAX_ENTRIES: usize = 3 * MAX_FILES;

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
    let mut long_name = None;
    // Raw: the crate itself would read extensions into memory, however long they are, and nobody has signed this yet.
    for (count, entry) in archive.entries().map_err(broken)?.raw(true).enumerate() {
        let entry = entry.map_err(broken)?;
        if let Some(extension) = Extension::of(entry.header().entry_type()) {
            if entry.size() > MAX_EXTENSION_BYTES || count > MAX_ENTRIES {
                return Err(refuse(format!(
                    "an extension of {} bytes; no bundle's archive needs one of more than {MAX_EXTENSION_BYTES}. Do \
                     not use it.",
                    entry.size()
                )));
            }
            long_name = extension.name(entry).map_err(broken)?.or(long_name);
            continue;
        }
        let name = match long_name.take() {
            Some(name) => name,
            None => entry.path().map_err(broken)?.into_owned(),
        };
        let inside = relative(&name)
            .ok_or_else(|| refuse(format!("the entry {} would lie outside. Do not use it.", name.display())))?;
        if count > MAX_ENTRIES || inside.components().count() > MAX_DEPTH + 1 {
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
            _ => {
                let reason = format!("{} is no plain file. A bundle's archive holds plain files only.", name.display());
                return Err(refuse(reason));
            }
        }
    }
    root(into)?.ok_or_else(|| refuse(format!("no {MANIFEST_FILE} in it, at the top or in its only folder.")))
}

/// An entry that says something of the next one, or of all.
enum Extension {
    /// GNU's: the next entry's name.
    LongName,
    /// That of POSIX (pax): lines of key and value, the name among them.
    Pax,
    /// One without a name: of a link, which is refused when it comes, or of the archive.
    Other,
}

impl Extension {
    fn of(kind: EntryType) -> Option<Self> {
        match kind {
            EntryType::GNULongName => Some(Self::LongName),
            EntryType::XHeader => Some(Self::Pax),
            EntryType::GNULongLink | EntryType::XGlobalHeader => Some(Self::Other),
            _ => None,
        }
    }

    /// The name that it gives the next entry, if it gives one. The entry must not be long: it is read whole.
    fn name(&self, mut entry: Entry<'_, impl Read>) -> io::Result<Option<PathBuf>> {
        let name = match self {
            Self::Other => None,
            Self::LongName => {
                let mut bytes = Vec::new();
                entry.read_to_end(&mut bytes)?;
                while bytes.last() == Some(&0) {
                    bytes.pop();
                }
                Some(bytes)
            }
            Self::Pax => {
                let mut bytes = Vec::new();
                entry.read_to_end(&mut bytes)?;
                let mut name = None;
                for line in PaxExtensions::new(&bytes) {
                    let line = line?;
                    match line.key_bytes() {
                        b"path" => name = Some(line.value_bytes().to_vec()),
                        // Only a file of gigabytes needs it, and it would count in the header's place.
                        b"size" => return Err(io::Error::new(io::ErrorKind::InvalidData, "a size of its own")),
                        _ => {}
                    }
                }
                name
            }
        };
        Ok(name.map(|name| PathBuf::from(OsString::from_vec(name))))
    }
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
    fn long_names_are_read_in_both_notations() {
        let name = format!("golden/{}", "n".repeat(120));
        let pax = |key: &str, value: &str| {
            let rest = format!(" {key}={value}\n");
            let length = (rest.len()..).find(|length| length.to_string().len() + rest.len() == *length).unwrap();
            format!("{length}{rest}")
        };
        let (gnu, posix) = (format!("{name}\0"), pax("mtime", "1.5") + &pax("path", &name));
        for (kind, extension) in [(EntryType::GNULongName, gnu), (EntryType::XHeader, posix)] {
            let folder = tempfile::tempdir().unwrap();
            let into = folder.path().join("into");
            fs::create_dir(&into).unwrap();
            let global = pax("comment", "of the whole archive");
            let entries = [
                ("global", EntryType::XGlobalHeader, global.as_bytes()),
                ("long", kind, extension.as_bytes()),
                ("cut", FILE, b"a"),
                ("bundle.toml", FILE, b"b"),
            ];
            let root = unpack(&archive(folder.path(), &entries), &into).unwrap();
            assert_eq!(fs::read(root.join(&name)).unwrap(), b"a", "{kind:?}");
            assert!(root.join("bundle.toml").is_file() && !root.join("cut").exists(), "{kind:?}");
        }
        for outside in ["../x", "/x"] {
            let entries = [("long", EntryType::XHeader, pax("path", outside)), ("a", FILE, "?".into())];
            let entries = entries.each_ref().map(|(name, kind, text)| (*name, *kind, text.as_bytes()));
            assert!(unpacked(&entries).unwrap_err().contains("outside"));
        }
        let sized = pax("size", "999");
        assert!(unpacked(&[("s", EntryType::XHeader, sized.as_bytes()), ("a", FILE, b"?")]).is_err());
    }

    #[test]
    fn an_extension_is_not_read_into_memory_however_long_it_says_it_is() {
        use EntryType::{GNULongLink, GNULongName, XGlobalHeader, XHeader};
        for kind in [GNULongName, GNULongLink, XHeader, XGlobalHeader] {
            let mut long = vec![b'n'; MAX_EXTENSION_BYTES as usize];
            let short = unpacked(&[("x", kind, &long), ("bundle.toml", FILE, b"a")]);
            assert!(!short.is_err_and(|error| error.contains("an extension of")), "{kind:?}");
            long.push(b'n');
            let error = unpacked(&[("x", kind, &long), ("bundle.toml", FILE, b"a")]).unwrap_err();
            assert!(error.contains("an extension of 65537 bytes"), "{kind:?}: {error}");
        }
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
