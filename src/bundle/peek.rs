//! What a bundle that lies somewhere promises to be, before anybody has copied or tested it: name and version of its manifest,
//! if a trusted key vouches for that. Reads these two small files and nothing else; whether the rest fits is for the
//! installation to find out.

use super::files::read_bounded;
use super::{MANIFEST_FILE, MAX_MANIFEST_BYTES, Manifest, SIGNATURE_FILE, Trust, sha256_hex};
use crate::plain_file;
use std::collections::HashMap;
use std::io::Read;
use std::path::Path;
use tar::{Archive, EntryType};

/// The longest signature that is read, in bytes.
const MAX_SIGNATURE_BYTES: u64 = 64 << 10;

/// Most entries of an archive that are looked at.
const MAX_ENTRIES: usize = 3000;

/// What a bundle promises to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Promised {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// SHA-256 of its manifest.
    pub sha256: String,
}

/// Looks into a bundle's folder, or its `.tar`. `None`: it is none, or nobody who is trusted vouches for it.
pub fn peek(path: &Path, trust: &Trust) -> Option<Promised> {
    let (manifest, signature) = if path.is_dir() {
        let manifest = read_bounded(&path.join(MANIFEST_FILE), MAX_MANIFEST_BYTES).ok()?;
        (manifest, read_bounded(&path.join(SIGNATURE_FILE), MAX_SIGNATURE_BYTES).ok()?)
    } else {
        packed(path)?
    };
    trust.vouches(&manifest, std::str::from_utf8(&signature).ok()?, path).ok()?;
    let parsed: Manifest = toml::from_str(std::str::from_utf8(&manifest).ok()?).ok()?;
    Some(Promised { name: parsed.name, version: parsed.version, sha256: sha256_hex(&manifest) })
}

/// Manifest and signature of an archive: those at its top, or in its only folder.
fn packed(path: &Path) -> Option<(Vec<u8>, Vec<u8>)> {
    let (file, _) = plain_file::open(path).ok()?;
    let mut archive = Archive::new(file);
    let mut found: HashMap<&str, Vec<u8>> = HashMap::new();
    // Raw: of what extensions say nothing is wanted, and the crate would read them into memory. Contents are skipped.
    for entry in archive.entries_with_seek().ok()?.raw(true).take(MAX_ENTRIES) {
        let entry = entry.ok()?;
        let name = entry.path().ok()?.into_owned();
        let parts = name.components().filter(|part| *part != std::path::Component::CurDir).count();
        let wanted = [(MANIFEST_FILE, MAX_MANIFEST_BYTES), (SIGNATURE_FILE, MAX_SIGNATURE_BYTES)];
        let wanted = wanted.into_iter().find(|(wanted, _)| parts <= 2 && name.ends_with(wanted));
        if let (Some((wanted, most)), EntryType::Regular) = (wanted, entry.header().entry_type()) {
            let mut bytes = Vec::new();
            if entry.size() > most || entry.take(most).read_to_end(&mut bytes).is_err() {
                return None;
            }
            found.insert(wanted, bytes);
        }
        if found.len() == 2 {
            break;
        }
    }
    Some((found.remove(MANIFEST_FILE)?, found.remove(SIGNATURE_FILE)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::Config;
    use std::fs;

    const MANIFEST: &str = include_str!("../../models/cxr-vgg16/bundle.toml");
    const SIGNATURE: &str = include_str!("../../models/cxr-vgg16/bundle.sig");

    fn tar(folder: &Path, entries: &[(&str, &str)]) -> std::path::PathBuf {
        let path = folder.join("bundle.tar");
        let mut builder = tar::Builder::new(fs::File::create(&path).unwrap());
        for (name, text) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_size(text.len() as u64);
            header.set_mode(0o644);
            builder.append_data(&mut header, name, text.as_bytes()).unwrap();
        }
        builder.finish().unwrap();
        path
    }

    #[test]
    fn name_and_version_are_told_of_what_a_trusted_key_signed() {
        let folder = tempfile::tempdir().unwrap();
        let trust = Config::default().trust().unwrap();
        let large = "x".repeat(1 << 20);
        let whole = [("model.onnx", large.as_str()), ("bundle.sig", SIGNATURE), ("bundle.toml", MANIFEST)];
        let promised = peek(&tar(folder.path(), &whole), &trust).expect("it is signed");
        assert_eq!((promised.name.as_str(), promised.sha256), ("cxr-vgg16", sha256_hex(MANIFEST.as_bytes())));
        let inside = [("./m/bundle.toml", MANIFEST), ("./m/bundle.sig", SIGNATURE)];
        assert_eq!(peek(&tar(folder.path(), &inside), &trust).unwrap().version, promised.version);
        let plain = folder.path().join("plain");
        fs::create_dir(&plain).unwrap();
        fs::write(plain.join("bundle.toml"), MANIFEST).unwrap();
        assert_eq!(peek(&plain, &trust), None, "nobody signed it yet");
        fs::write(plain.join("bundle.sig"), SIGNATURE).unwrap();
        assert_eq!(peek(&plain, &trust).unwrap().version, promised.version);
    }

    #[test]
    fn nothing_is_told_of_anything_else() {
        let folder = tempfile::tempdir().unwrap();
        let trust = Config::default().trust().unwrap();
        let changed = MANIFEST.replacen("cxr", "bad", 1);
        for entries in [
            &[("bundle.toml", changed.as_str()), ("bundle.sig", SIGNATURE)][..],
            &[("bundle.toml", MANIFEST)],
            &[("a/b/bundle.toml", MANIFEST), ("a/b/bundle.sig", SIGNATURE)],
            &[],
        ] {
            assert_eq!(peek(&tar(folder.path(), entries), &trust), None);
        }
        fs::write(folder.path().join("text"), MANIFEST).unwrap();
        assert_eq!(peek(&folder.path().join("text"), &trust), None);
        assert_eq!(peek(&folder.path().join("none"), &trust), None);
        let nobody = Config { trusted_keys: Vec::new(), allow_unsigned: true }.trust().unwrap();
        let whole = tar(folder.path(), &[("bundle.toml", MANIFEST), ("bundle.sig", SIGNATURE)]);
        assert_eq!(peek(&whole, &nobody), None, "unsigned ones are not taken from there");
    }
}
