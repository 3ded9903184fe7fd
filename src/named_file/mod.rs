//! The files that sections of the configuration name: certificates, keys, passwords. Found (systemd's credentials
//! included), bounded, and secrets only where other users cannot read them; [`pem`] reads what certificates and keys hold.
//! Not what they are for.

pub mod pem;

use crate::plain_file;
use std::env;
use std::fmt;
use std::fs::Metadata;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// How a value begins that names a credential of the service instead of a path.
const CREDENTIAL: &str = "credential:";

/// Where systemd says that the service's credentials are.
const CREDENTIALS_DIRECTORY: &str = "CREDENTIALS_DIRECTORY";

/// A distribution's whole list of certificate authorities is about 250 KB.
const MAX_BYTES: u64 = 4 << 20;

/// Bits of the mode that a secret's file may not have: others read or write it, or its group writes it.
const TOO_OPEN: u32 = 0o027;

/// A file that the configuration names is none that can be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It holds something else, or others may read it.
    #[error("{key} = {path}: {problem}")]
    Unusable {
        /// The key as it stands in the configuration.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong and what to do.
        problem: String,
    },
    /// It cannot be read.
    #[error("{key} = {path}: {error}{advice}")]
    Read {
        /// The key as it stands in the configuration.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said; passing trouble of a disk is not the configuration's fault.
        #[source]
        error: io::Error,
        /// What to do.
        advice: &'static str,
    },
}

impl FileError {
    /// That a file is none that can be used, and why.
    pub fn unusable(key: &'static str, path: &Path, problem: impl Into<String>) -> Self {
        Self::Unusable { key, path: path.to_owned(), problem: problem.into() }
    }
}

/// What nobody may see: `Debug` does not show it, there is no `Display`, and its memory is overwritten when it is dropped.
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// What it is, for the one place that needs it.
    pub fn reveal(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(hidden)")
    }
}

/// Checks what can be checked of such a value without looking at the disk, and says what is wrong. The value itself may be
/// a secret that somebody wrote in the wrong place: it is not to be quoted.
pub fn check(value: &Path) -> Result<(), &'static str> {
    let Some(text) = value.to_str() else { return Err("the path is not UTF-8") };
    if let Some(name) = text.strip_prefix(CREDENTIAL) {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if name.is_empty() || name.starts_with('.') || name.len() > 255 || !name.chars().all(is_plain) {
            return Err("after credential: write the name that LoadCredential= gives it: letters, digits, . - _");
        }
        return Ok(());
    }
    if !value.is_absolute() || text.contains(char::is_control) {
        return Err("write the absolute path of a file, or credential:NAME; the secret itself does not belong here");
    }
    Ok(())
}

/// Where the file is: the path itself, or the credential that systemd gave the service.
pub fn locate(key: &'static str, value: &Path) -> Result<PathBuf, FileError> {
    locate_in(key, value, env::var_os(CREDENTIALS_DIRECTORY).map(PathBuf::from).as_deref())
}

fn locate_in(key: &'static str, value: &Path, credentials: Option<&Path>) -> Result<PathBuf, FileError> {
    check(value).map_err(|problem| FileError::unusable(key, Path::new("…"), problem))?;
    let Some(name) = value.to_str().and_then(|text| text.strip_prefix(CREDENTIAL)) else { return Ok(value.to_owned()) };
    match credentials {
        Some(folder) if folder.is_absolute() => Ok(folder.join(name)),
        _ => {
            let problem = format!(
                "systemd has given this process no credentials; write LoadCredential={name}:/etc/roentgen/{name} into the \
                 unit (systemctl edit roentgend). Outside of the unit, as doctor is, name a folder that holds it: \
                 {CREDENTIALS_DIRECTORY}=/etc/roentgen roentgend doctor …"
            );
            Err(FileError::unusable(key, value, problem))
        }
    }
}

/// A file that everybody may read, such as a certificate.
pub fn read_public(key: &'static str, path: &Path) -> Result<Vec<u8>, FileError> {
    let (bytes, _) = read(key, path)?;
    Ok(bytes.to_vec())
}

/// A file that holds a secret. One that other users reach is refused: it is none.
pub fn read_secret(key: &'static str, path: &Path) -> Result<Secret, FileError> {
    let (bytes, metadata) = read(key, path)?;
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & TOO_OPEN != 0 {
        let shown = path.display();
        let problem = format!(
            "it has mode {mode:04o}, so that other users of this box can read or change it: type \
             `chmod u=rw,g=r,o= {shown}` (and `chgrp roentgen {shown}` if the service is to read it by its group)"
        );
        return Err(FileError::unusable(key, path, problem));
    }
    Ok(Secret(bytes))
}

fn read(key: &'static str, path: &Path) -> Result<(Zeroizing<Vec<u8>>, Metadata), FileError> {
    let failed = |error: io::Error| {
        let advice = match error.kind() {
            io::ErrorKind::NotFound => "; put the file there, or correct the path",
            io::ErrorKind::PermissionDenied => "; let the service's user (roentgen) read it",
            _ => "",
        };
        FileError::Read { key, path: path.to_owned(), error, advice }
    };
    let (file, metadata) = plain_file::open(path).map_err(failed)?;
    if metadata.len() > MAX_BYTES {
        let problem = format!("it is larger than {MAX_BYTES} bytes; name the right file");
        return Err(FileError::unusable(key, path, problem));
    }
    // Of its final size from the start: growing would leave copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(metadata.len() as usize + 1));
    file.take(metadata.len()).read_to_end(&mut bytes).map_err(failed)?;
    Ok((bytes, metadata))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};

    const KEY: &str = "mqtt.password_file";

    #[test]
    fn a_credential_is_looked_up_where_systemd_says() {
        let located = |value: &str, folder: Option<&str>| locate_in(KEY, Path::new(value), folder.map(Path::new));
        let found = located("credential:mqtt-password", Some("/run/credentials/roentgend.service")).unwrap();
        assert_eq!(found, Path::new("/run/credentials/roentgend.service/mqtt-password"));
        assert_eq!(located("/etc/a", Some("/run")).unwrap(), Path::new("/etc/a"));
        for folder in [None, Some(""), Some("here")] {
            let error = located("credential:mqtt-password", folder).unwrap_err().to_string();
            assert!(error.contains("LoadCredential=mqtt-password"), "{error}");
        }
    }

    #[test]
    fn a_value_that_is_no_path_is_refused_and_not_quoted() {
        for value in ["hunter2", "", "-----BEGIN PRIVATE KEY-----\nhunter2", "/etc/hunter2\n", "credential:../hunter2"]
        {
            let error = locate_in(KEY, Path::new(value), None).unwrap_err().to_string();
            assert!(error.contains(KEY) && !error.contains("hunter2"), "{error}");
        }
        for name in ["credential:", "credential:.", "credential:a/b", "credential:.a"] {
            assert!(check(Path::new(name)).is_err(), "{name}");
        }
        assert!(check(Path::new("credential:mqtt-password")).is_ok());
    }

    #[test]
    fn a_secret_that_others_reach_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        fs::write(&path, "hunter2\n").unwrap();
        for (mode, good) in
            [(0o600, true), (0o400, true), (0o640, true), (0o440, true), (0o644, false), (0o660, false), (0o602, false)]
        {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let read = read_secret(KEY, &path);
            assert_eq!(read.is_ok(), good, "{mode:o}");
            if let Err(error) = read {
                let error = error.to_string();
                assert!(error.contains("chmod") && !error.contains("hunter2"), "{error}");
            }
            assert_eq!(read_public(KEY, &path).unwrap(), b"hunter2\n");
        }
    }

    #[test]
    fn a_secret_does_not_show_itself() {
        let secret = Secret(Zeroizing::new(b"hunter2".to_vec()));
        assert_eq!(format!("{secret:?}"), "Secret(hidden)");
        assert_eq!(secret.reveal(), b"hunter2");
    }

    #[test]
    fn pipes_folders_and_large_files_are_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let large = folder.path().join("large");
        fs::File::create(&large).unwrap().set_len(MAX_BYTES + 1).unwrap();
        for path in [pipe.as_path(), folder.path(), large.as_path(), Path::new("/nowhere/at/all")] {
            let error = read_public(KEY, path).unwrap_err().to_string();
            assert!(error.contains(KEY) && error.contains(&*path.to_string_lossy()), "{error}");
        }
    }
}
