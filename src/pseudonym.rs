//! Keyed pseudonyms: HMAC-SHA-256 of an identifier under a key that never leaves the box.
//! Not encryption: nobody can turn one back, the box included.

use crate::plain_file;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::fmt;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Bytes of a key.
const KEY_BYTES: usize = 32;

/// The box's own key. `Debug` does not show it, and its memory is overwritten when it is dropped.
#[derive(Clone)]
pub struct Key(Zeroizing<[u8; KEY_BYTES]>);

/// Why the box's key could not be read or made. An error about the daemon, not about an image.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file system refused.
    #[error("cannot {action} the pseudonym key {path}: {error}")]
    Io {
        /// What was being done.
        action: &'static str,
        /// To which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        error: io::Error,
    },
    /// The file is no key of this program.
    #[error(
        "the pseudonym key {path} is {found} bytes long, not 32: restore it from a backup, or delete it to get a new \
         key (pseudonyms then differ from those of earlier reports)"
    )]
    Length {
        /// Which file.
        path: PathBuf,
        /// Its length in bytes; reading stops one byte beyond a key's.
        found: usize,
    },
    /// Others than the owner may read or write the file.
    #[error("the pseudonym key {path} has mode {mode:o}, so that other users reach it: type `chmod 600 {path}`")]
    Mode {
        /// Which file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
}

impl Key {
    /// The first `bytes` bytes of HMAC-SHA-256 over `kind`, a zero byte and `identifier`, in hexadecimal.
    fn keyed_digits(&self, kind: &str, identifier: &[u8], bytes: usize) -> String {
        // A zero byte cannot occur in `kind`, which the callers write as literals: no two pairs give the same message.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(self.0.as_slice()) else {
            unreachable!("HMAC takes keys of every length")
        };
        mac.update(kind.as_bytes());
        mac.update(&[0]);
        mac.update(identifier);
        let digest = mac.finalize().into_bytes();
        digest.iter().take(bytes).map(|byte| format!("{byte:02x}")).collect()
    }

    /// A key from its 32 bytes.
    pub fn from_bytes(bytes: [u8; KEY_BYTES]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Its bytes, for handing it to a child process of this program; never for a log, a file or an argument.
    pub(crate) fn bytes(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }

    /// Reads the key in `path`; `None` when there is no such file. Makes nothing.
    pub fn load(path: &Path) -> Result<Option<Self>, KeyError> {
        match load(path) {
            Err(KeyError::Io { error, .. }) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            loaded => loaded.map(Some),
        }
    }

    /// Reads the key in `path`, or makes one from the system's randomness when there is no such file.
    ///
    /// The file is created with mode 0600, whole or not at all; of two processes that create it at once both get the
    /// same key.
    pub fn load_or_create(path: &Path) -> Result<Self, KeyError> {
        match Self::load(path)? {
            Some(key) => Ok(key),
            None => {
                create(path)?;
                load(path)
            }
        }
    }

    /// The pseudonym of an identifier: the first 32 hexadecimal digits (128 bits) of HMAC-SHA-256 over `kind`, a zero
    /// byte and `identifier`. The same identifier as another kind (study, series, instance) has another pseudonym.
    pub fn pseudonym(&self, kind: &str, identifier: &str) -> String {
        self.keyed_digits(kind, identifier.as_bytes(), 16)
    }

    /// What logs and errors say instead of a file's name, which may be a patient's: `file` and the first 8 hexadecimal
    /// digits of the keyed hash of its last component. The same name has the same tag on one box.
    pub fn tag(&self, path: &Path) -> String {
        let name = path.file_name().unwrap_or_default();
        format!("file {}", self.keyed_digits("file", name.as_bytes(), 4))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(hidden)")
    }
}

/// Reads an existing key and checks its length and mode.
fn load(path: &Path) -> Result<Key, KeyError> {
    let failed = |action| move |error| KeyError::Io { action, path: path.to_owned(), error };
    let (file, metadata) = plain_file::open(path).map_err(failed("open"))?;
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(KeyError::Mode { path: path.to_owned(), mode });
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(KEY_BYTES + 1));
    file.take(KEY_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(failed("read"))?;
    let found = bytes.len();
    let key = bytes.as_slice().try_into().map_err(|_| KeyError::Length { path: path.to_owned(), found })?;
    Ok(Key(Zeroizing::new(key)))
}

/// Makes a key file unless another process was faster.
fn create(path: &Path) -> Result<(), KeyError> {
    let failed = |action| move |error| KeyError::Io { action, path: path.to_owned(), error };
    let mut bytes = Zeroizing::new([0; KEY_BYTES]);
    getrandom::fill(bytes.as_mut_slice()).map_err(|error| failed("draw random bytes for")(io::Error::other(error)))?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Files of `tempfile` have mode 0600 from the start.
    let mut file = tempfile::NamedTempFile::new_in(directory).map_err(failed("create"))?;
    file.write_all(bytes.as_slice()).map_err(failed("write"))?;
    file.as_file().sync_all().map_err(failed("write"))?;
    match file.persist_noclobber(path) {
        Ok(_) => {}
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        Err(error) => return Err(failed("create")(error.error)),
    }
    // Without this the name can be lost on a power cut, and with it every pseudonym given until then.
    fs::File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed("write"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pseudonym_is_the_hmac_of_kind_and_identifier() {
        // Computed with Python: hmac.new(bytes(range(32)), b"study\0" + b"1.2.3", "sha256").hexdigest()[:32]
        let key = Key::from_bytes(std::array::from_fn(|i| i as u8));
        assert_eq!(key.pseudonym("study", "1.2.3"), "1aae6e50e63819a4006efa4a2187e382");
        assert_ne!(key.pseudonym("series", "1.2.3"), key.pseudonym("study", "1.2.3"));
        assert_ne!(Key::from_bytes([0; 32]).pseudonym("study", "1.2.3"), key.pseudonym("study", "1.2.3"));
    }

    #[test]
    fn a_file_is_called_by_the_keyed_hash_of_its_name() {
        // Computed with Python: hmac.new(bytes(range(32)), b"file\0" + b"DOE^JANE.dcm", "sha256").hexdigest()[:8]
        let key = Key::from_bytes(std::array::from_fn(|i| i as u8));
        assert_eq!(key.tag(Path::new("/incoming/DOE^JANE.dcm")), "file 906455c1");
        assert_eq!(key.tag(Path::new("/done/DOE^JANE.dcm")), key.tag(Path::new("DOE^JANE.dcm")));
        assert_ne!(key.tag(Path::new("DOE^JANE.dcm")), Key::from_bytes([0; 32]).tag(Path::new("DOE^JANE.dcm")));
    }

    #[test]
    fn debug_hides_the_key() {
        assert_eq!(format!("{:?}", Key::from_bytes([7; 32])), "Key(hidden)");
    }

    #[test]
    fn a_key_is_made_once_with_mode_0600_and_read_back() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pseudonym.key");
        assert!(Key::load(&path).unwrap().is_none() && !path.exists());
        let made = Key::load_or_create(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(Key::load_or_create(&path).unwrap().0, made.0);
        let other = Key::load_or_create(&directory.path().join("other.key")).unwrap();
        assert_ne!(other.0, made.0);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2, "no temporary file is left");
    }

    #[test]
    fn a_key_that_others_can_read_or_of_another_length_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pseudonym.key");
        fs::write(&path, [1; 32]).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = Key::load_or_create(&path).unwrap_err().to_string();
        assert!(error.contains("chmod 600"), "{error}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        for length in [0, 31, 33, 4096] {
            fs::write(&path, vec![1; length]).unwrap();
            assert!(matches!(Key::load_or_create(&path), Err(KeyError::Length { .. })), "{length} bytes");
        }
    }
}
