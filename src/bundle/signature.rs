//! Who vouches for a bundle: minisign signatures (Ed25519 over BLAKE2b-512) of its manifest, and the keys that a box
//! trusts. Not the making of signatures, which is the host tool's; not hashes, which the manifest vouches for.
//!
//! `bundle.sig` is what `minisign -Sm bundle.toml -x bundle.sig` writes, and
//! `minisign -Vm bundle.toml -x bundle.sig -P KEY` checks it. Its trusted comment is signed as well.

use super::{BundleError, SIGNATURE_FILE, read_bounded, refuse_symlink};
use minisign_verify::{Error as Refused, PublicKey, Signature};
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};

/// The public key that Roentgen's own bundles are signed with. Its secret half is in no repository.
pub const RELEASE_KEY: &str = "RWScA7Xj5zFEfo/rLrALdrTqyi3DFzDUImNwmcmZp8mpFfgyMNTicFy0";

/// The largest signature or public key file that is read, in bytes; minisign's own have about 300.
const MAX_BYTES: u64 = 4096;

/// How a public key in minisign's notation begins: the two letters `Ed` and a zero bit, in base64.
const KEY_PREFIX: &str = "RW";

/// The `[bundles]` section: whose bundles the box installs and runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Minisign public keys: `RW…` itself, or the path of a `.pub` file.
    pub trusted_keys: Vec<String>,
    /// Whether a bundle without a signature may be installed and run.
    pub allow_unsigned: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self { trusted_keys: vec![RELEASE_KEY.into()], allow_unsigned: false }
    }
}

impl Config {
    /// Whether the section makes sense by itself; otherwise which key does not, and what to write.
    pub fn validate(&self) -> Result<(), String> {
        if self.trusted_keys.is_empty() && !self.allow_unsigned {
            return Err("bundles.trusted_keys is empty, so that no bundle could be used: list the public key of who \
                        makes your bundles"
                .into());
        }
        Ok(())
    }

    /// The keys, read from their files where they are named by path.
    pub fn trust(&self) -> Result<Trust, BundleError> {
        let keys = self.trusted_keys.iter().map(|entry| Key::read(entry)).collect::<Result<_, _>>()?;
        Ok(Trust { keys, unsigned: self.allow_unsigned, strangers: false })
    }
}

/// A public key.
#[derive(Debug, Clone)]
struct Key {
    /// As minisign writes it, `RW…`.
    text: String,
    key: PublicKey,
}

impl Key {
    /// A key as it stands in the configuration, or in the file that stands there.
    fn read(entry: &str) -> Result<Self, BundleError> {
        let refuse = |reason: String| BundleError::Key { entry: entry.to_owned(), reason };
        if entry.starts_with(KEY_PREFIX)
            && let Ok(key) = PublicKey::from_base64(entry)
        {
            return Ok(Self { text: entry.to_owned(), key });
        }
        let path = Path::new(entry);
        if !path.is_file() {
            return Err(refuse(
                "neither a minisign public key (RW…) nor a file. Copy the key from the .pub file".into(),
            ));
        }
        let bytes = read_bounded(path, MAX_BYTES)?;
        // A comment and the key, or the key alone.
        let text = String::from_utf8_lossy(&bytes);
        let line = text.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or_default();
        match PublicKey::from_base64(line) {
            Ok(key) => Ok(Self { text: line.to_owned(), key }),
            Err(_) => Err(refuse("this file holds no minisign public key. Give the .pub file of the key".into())),
        }
    }
}

/// What is asked of a bundle's signature. A signature of a trusted key that does not fit is always refused.
#[derive(Debug, Clone)]
pub struct Trust {
    keys: Vec<Key>,
    /// Whether a bundle without signature will do.
    unsigned: bool,
    /// Whether a signature by another key will do.
    strangers: bool,
}

impl Trust {
    /// Asks nothing: for who made the bundle, or wants its contents only.
    pub fn anyone() -> Self {
        Self { keys: Vec::new(), unsigned: true, strangers: true }
    }

    /// The same keys, and every other bundle as well: [`super::Bundle::signer`] then says which it is. For trying out a
    /// bundle that somebody named by hand.
    pub fn or_anyone(self) -> Self {
        Self { unsigned: true, strangers: true, ..self }
    }

    /// Who signed the manifest's bytes in `dir`. Parses the signature and nothing else.
    pub(super) fn check(&self, dir: &Path, manifest: &[u8]) -> Result<(Signer, Option<Vec<u8>>), BundleError> {
        let path = dir.join(SIGNATURE_FILE);
        match refuse_symlink(&path) {
            Err(BundleError::Io { error, .. }) if error.kind() == io::ErrorKind::NotFound => {
                return if self.unsigned { Ok((Signer::Nobody, None)) } else { Err(BundleError::Unsigned { path }) };
            }
            checked => checked?,
        }
        let bytes = read_bounded(&path, MAX_BYTES)?;
        Ok((self.judge(path, &bytes, manifest)?, Some(bytes)))
    }

    /// Whether a trusted key signed these bytes, whatever else this trust allows; `from` is named in errors. For a manifest
    /// that comes without its bundle.
    pub fn vouches(&self, manifest: &[u8], signature: &str, from: &Path) -> Result<(), BundleError> {
        let strict = Self { unsigned: false, strangers: false, ..self.clone() };
        strict.judge(from.to_owned(), signature.as_bytes(), manifest).map(|_| ())
    }

    /// Who made the signature, which lies in `path`.
    fn judge(&self, path: PathBuf, bytes: &[u8], manifest: &[u8]) -> Result<Signer, BundleError> {
        let damaged = |reason: &str| BundleError::Signature { path: path.clone(), reason: reason.into() };
        let text = std::str::from_utf8(bytes).map_err(|_| damaged("it is no text"))?;
        let signature = Signature::decode(text).map_err(|_| damaged("it is no minisign signature, or cut off"))?;
        for Key { text, key } in &self.keys {
            match key.verify(manifest, &signature, false) {
                Ok(()) => {
                    let comment = signature.trusted_comment().to_owned();
                    return Ok(Signer::Trusted { key: text.clone(), comment });
                }
                Err(Refused::UnexpectedKeyId) => {}
                Err(Refused::UnexpectedAlgorithm) => {
                    return Err(damaged("it is of minisign's old kind, which is not read here"));
                }
                Err(_) => return Err(damaged("it does not fit this manifest, or is not by the key that it names")),
            }
        }
        if self.strangers {
            return Ok(Signer::Stranger);
        }
        Err(BundleError::Stranger { path })
    }
}

/// Who signed a bundle, as far as was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signer {
    /// A trusted key did, and the signature fits.
    Trusted {
        /// The public key, `RW…`.
        key: String,
        /// The signature's trusted comment.
        comment: String,
    },
    /// There is a signature, by none of the trusted keys: it was not checked.
    Stranger,
    /// There is no signature.
    Nobody,
}

impl std::fmt::Display for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Signer::Trusted { key, .. } => write!(f, "signed by {key}"),
            Signer::Stranger => f.write_str("signed by a key that is not trusted here"),
            Signer::Nobody => f.write_str("not signed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// Made once with minisign 0.11: `minisign -G -W`, `minisign -Sm bundle.toml -x bundle.sig`.
    const KEY: &str = "RWTMrHWFRwaqnfh2lNeFVJmuBgRz6Vg+w2NnRDDxicCm++apBCdkYXbw";
    const MANIFEST: &[u8] = b"schema = \"of a test\"\n";
    const SIGNATURE: &str = "untrusted comment: signature from minisign secret key\n\
        RUTMrHWFRwaqnfMzdJlM8n16BjKoSpkOT+JA9C4RUoEKv0NnG32HP926RVMzXDVNbjM5BHv3RCwqWed/kOt9O4OjEe7VcfhHAwc=\n\
        trusted comment: tiny 1.0.0\n\
        ozJzjIjfghwBfVsDzZ3aY/x3+qnr1HxPFNnp6F7XnC2Esh7u9yW5SegYhk3U/ghylAD140SGpyLOkOVJzl2YAA==\n";

    fn trust(keys: &[&str]) -> Trust {
        let trusted_keys = keys.iter().map(|&key| key.to_owned()).collect();
        Config { trusted_keys, allow_unsigned: false }.trust().unwrap()
    }

    fn place(signature: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(SIGNATURE_FILE), signature).unwrap();
        dir
    }

    #[test]
    fn a_signature_of_minisign_itself_is_accepted_with_its_comment() {
        let dir = place(SIGNATURE);
        let (signer, bytes) = trust(&[RELEASE_KEY, KEY]).check(dir.path(), MANIFEST).unwrap();
        assert_eq!(bytes.unwrap(), SIGNATURE.as_bytes());
        assert_eq!(signer, Signer::Trusted { key: KEY.into(), comment: "tiny 1.0.0".into() });
    }

    #[test]
    fn every_flipped_bit_of_signed_bytes_is_noticed() {
        let trust = trust(&[KEY]);
        let dir = place(SIGNATURE);
        for at in 0..MANIFEST.len() {
            let mut manifest = MANIFEST.to_vec();
            manifest[at] ^= 1;
            assert!(matches!(trust.check(dir.path(), &manifest), Err(BundleError::Signature { .. })), "{at}");
        }
        // The first line is a comment that nobody signed.
        for at in SIGNATURE.find('\n').unwrap() + 1..SIGNATURE.trim_end().len() {
            let mut bytes = SIGNATURE.as_bytes().to_vec();
            bytes[at] ^= 1;
            fs::write(dir.path().join(SIGNATURE_FILE), bytes).unwrap();
            assert!(trust.check(dir.path(), MANIFEST).is_err(), "byte {at}");
        }
        for length in 0..SIGNATURE.trim_end().len() {
            fs::write(dir.path().join(SIGNATURE_FILE), &SIGNATURE[..length]).unwrap();
            assert!(matches!(trust.check(dir.path(), MANIFEST), Err(BundleError::Signature { .. })), "{length} bytes");
        }
    }

    #[test]
    fn who_signed_decides() {
        let (signed, unsigned) = (place(SIGNATURE), tempfile::tempdir().unwrap());
        let check =
            |trust: &Trust, dir: &tempfile::TempDir| trust.check(dir.path(), MANIFEST).map(|(signer, _)| signer);
        let other = trust(&[RELEASE_KEY]);
        assert!(matches!(check(&other, &signed), Err(BundleError::Stranger { .. })));
        assert!(matches!(check(&other, &unsigned), Err(BundleError::Unsigned { .. })));
        assert_eq!(check(&other.clone().or_anyone(), &signed).unwrap(), Signer::Stranger);
        assert_eq!(check(&other.or_anyone(), &unsigned).unwrap(), Signer::Nobody);
        let lax = Config { trusted_keys: vec![RELEASE_KEY.into()], allow_unsigned: true }.trust().unwrap();
        assert_eq!(check(&lax, &unsigned).unwrap(), Signer::Nobody);
        assert!(check(&lax, &signed).is_err(), "a stranger's signature is no missing one");
        // Whoever is asked: a trusted key's signature that does not fit is never taken.
        let forged = trust(&[KEY]).or_anyone().check(signed.path(), b"another manifest");
        assert!(matches!(forged, Err(BundleError::Signature { .. })));
    }

    #[test]
    fn keys_are_read_from_the_configuration_or_from_a_file_it_names() {
        let dir = place(SIGNATURE);
        let file = dir.path().join("clinic.pub");
        for text in [format!("untrusted comment: minisign public key\n{KEY}\n"), format!("{KEY}\n"), KEY.into()] {
            fs::write(&file, text).unwrap();
            assert!(trust(&[file.to_str().unwrap()]).check(dir.path(), MANIFEST).is_ok());
        }
        fs::write(&file, "nothing").unwrap();
        for entry in [file.to_str().unwrap(), "RWno", "/nowhere/clinic.pub", ""] {
            let refused = Config { trusted_keys: vec![entry.into()], allow_unsigned: false }.trust().unwrap_err();
            let said = refused.to_string();
            assert!(said.contains("bundles.trusted_keys") && said.contains(entry), "{said}");
        }
        assert!(Config { trusted_keys: Vec::new(), allow_unsigned: false }.validate().is_err());
        assert_eq!(Config::default().validate(), Ok(()));
        assert!(Config::default().trust().is_ok(), "the key of the releases is a key");
    }
}
