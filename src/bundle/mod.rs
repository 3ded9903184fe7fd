//! The model bundle: a directory with manifest, network, golden vectors and the model's own report. Not the classifier
//! that runs it.
//!
//! Opening one checks, in this order: the signature over the manifest's bytes, before they are parsed; the manifest;
//! the hash of every file that it lists, before any of them is parsed. [`Trust`] says whose signature is asked for.
//! [`Store`] holds the bundles that a box has installed.
//!
//! ```text
//! cxr-vgg16/
//!   bundle.toml               the manifest; lists every other file with its SHA-256
//!   bundle.sig                a minisign signature over bundle.toml
//!   model.onnx                the quantized network
//!   model.tflite              the same integers for TFLite
//!   model_edgetpu.tflite      what Coral's compiler made of that, if somebody had it do so
//!   golden/00.image.u8        an input (rows × columns bytes)
//!   golden/00.evidence.u8     the integers it must give: rows × columns × channels bytes, NHWC
//!   golden/00.features.u8
//!   …                         whatever else is listed, e.g. README.md, report.json
//! ```

mod archive;
mod disk;
mod files;
mod golden;
mod manifest;
mod peek;
mod signature;
mod store;
mod write;

pub use archive::unpack;
pub use files::sha256_hex;
pub use golden::{Golden, SelfTest};
pub use manifest::{Calibration, GATES_SCHEMA, GateLimits, Input, Manifest, Output, Outputs, SCHEMA, Thresholds};
pub use peek::{Promised, peek};
pub use signature::{Config, RELEASE_KEY, Signer, Trust};
pub use store::{Entry, Fallback, Inbox, Install, Installed, RolledBack, State, Step, Store, StoreError, folder_name};
pub use write::{BundleWriter, add_signature};

use crate::network::int8::Network;
use crate::network::onnx::{self, Model, OnnxError, Pieces};
use crate::network::outline::Outline;
use bytes::Bytes;
use files::{check_name, read_bounded, refuse_symlink};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The manifest's file name.
pub const MANIFEST_FILE: &str = "bundle.toml";
/// The network's file name.
pub const MODEL_FILE: &str = "model.onnx";
/// The file name of the same integers for TFLite, which a bundle may leave out.
pub const TFLITE_FILE: &str = "model.tflite";
/// The file name of what Coral's compiler made of that for the Edge TPU, which a bundle may leave out.
pub const EDGETPU_FILE: &str = "model_edgetpu.tflite";
/// The signature's file name. It is over the manifest, so that the manifest cannot list it.
pub const SIGNATURE_FILE: &str = "bundle.sig";

/// The file of what the gates of abstention were fitted to.
pub const GATES_FILE: &str = "gates.safetensors";

/// The largest manifest that is read, in bytes.
const MAX_MANIFEST_BYTES: u64 = 1 << 20;
/// Most files of a bundle.
const MAX_FILES: usize = 1000;
/// Deepest folder of a bundle.
const MAX_DEPTH: usize = 8;

/// Why a bundle cannot be used. Every message names the file and what to do.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// The configuration's list of trusted keys has an entry that is none.
    #[error("bundles.trusted_keys: {entry:?}: {reason}.")]
    Key {
        /// The entry.
        entry: String,
        /// What is wrong with it, and what to do.
        reason: String,
    },
    /// There is no signature.
    #[error(
        "{path}: missing, so that nobody vouches for this bundle. Have it signed (roentgen-host pack --sign KEY), or set \
         bundles.allow_unsigned = true."
    )]
    Unsigned {
        /// Where it would be.
        path: PathBuf,
    },
    /// There is a signature, by a key that is not trusted.
    #[error(
        "{path}: made with a key that bundles.trusted_keys does not list. Add the maker's public key there if you trust \
         them; else do not use this bundle."
    )]
    Stranger {
        /// The signature.
        path: PathBuf,
    },
    /// There is a signature, and it is wrong.
    #[error("{path}: {reason}: damaged or tampered with. Do not use this bundle; get it again from who made it.")]
    Signature {
        /// The signature.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A file or folder could not be read or written.
    #[error("{path}: {what}: {error}. Check that it exists and that this user may access it.")]
    Io {
        /// What was being done.
        what: &'static str,
        /// To which path.
        path: PathBuf,
        /// What the system said.
        #[source]
        error: io::Error,
    },
    /// The manifest is no TOML or lacks a field.
    #[error("{path}: not a bundle's manifest: {message}. Install the bundle again.")]
    Manifest {
        /// The manifest.
        path: PathBuf,
        /// What the parser said.
        message: String,
    },
    /// The manifest says what this program cannot act on.
    #[error("{path}: {reason}. Install a bundle made for this version of roentgen.")]
    Unsupported {
        /// The manifest.
        path: PathBuf,
        /// Which field says what.
        reason: String,
    },
    /// A file is not what its hash says.
    #[error(
        "{path}: SHA-256 is {found}, the manifest lists {expected}: damaged or tampered with. Install the bundle again."
    )]
    Hash {
        /// The file.
        path: PathBuf,
        /// Its SHA-256.
        found: String,
        /// The one listed.
        expected: String,
    },
    /// A file is there and not listed, or listed and not there, or is not allowed.
    #[error("{path}: {reason}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        reason: String,
    },
    /// The network cannot be read, or is not the one the manifest describes.
    #[error("{path}: {reason}. The bundle was packed wrongly: make it again with roentgen-host.")]
    Network {
        /// The network's file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The classifier does not give the golden vectors' integers.
    #[error("{path}: self-test failed: {reason}. This machine or this backend must not be used with this bundle.")]
    SelfTest {
        /// The golden image.
        path: PathBuf,
        /// What came out.
        reason: String,
    },
}

/// An opened bundle: its signature was what was asked, its manifest is sound, every file has had the listed hash.
#[derive(Debug, Clone)]
pub struct Bundle {
    dir: PathBuf,
    manifest: Manifest,
    /// The manifest's bytes as they were checked.
    text: Vec<u8>,
    sha256: String,
    signer: Signer,
    /// The signature's bytes as they were checked.
    signature: Option<Vec<u8>>,
}

impl Bundle {
    /// Opens the bundle in `dir`, whoever made it, checking the manifest and the hash of every file; nothing but the
    /// manifest is parsed.
    pub fn open(dir: &Path) -> Result<Self, BundleError> {
        Self::open_trusted(dir, &Trust::anyone())
    }

    /// The same, asking first whether somebody who is trusted signed it.
    pub fn open_trusted(dir: &Path, trust: &Trust) -> Result<Self, BundleError> {
        let path = dir.join(MANIFEST_FILE);
        refuse_symlink(&path)?;
        let bytes = read_bounded(&path, MAX_MANIFEST_BYTES)?;
        let (signer, signature) = trust.check(dir, &bytes)?;
        let unreadable = |message: String| BundleError::Manifest { path: path.clone(), message };
        let text = std::str::from_utf8(&bytes).map_err(|error| unreadable(error.to_string()))?;
        let manifest: Manifest = toml::from_str(text).map_err(|error| unreadable(error.to_string()))?;
        manifest.check().map_err(|reason| BundleError::Unsupported { path: path.clone(), reason })?;
        for name in manifest.files.keys() {
            check_name(name).map_err(|reason| BundleError::File { path: dir.join(name), reason })?;
        }
        if !manifest.files.contains_key(MODEL_FILE) {
            let reason = format!("[files] does not list {MODEL_FILE}");
            return Err(BundleError::Unsupported { path, reason });
        }
        let sha256 = sha256_hex(&bytes);
        let bundle = Self { dir: dir.to_owned(), manifest, text: bytes, sha256, signer, signature };
        let mut found = 0;
        bundle.refuse_unlisted("", 0, &mut found)?;
        files::check_hashes(&bundle.dir, &bundle.manifest.files)?;
        Ok(bundle)
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// SHA-256 (hex) of `bundle.toml`, which lists the hash of every other file: it names the whole bundle.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// Who signed it.
    pub fn signer(&self) -> &Signer {
        &self.signer
    }

    /// The manifest's bytes: what a signature is over.
    pub fn signed_bytes(&self) -> &[u8] {
        &self.text
    }

    /// All files of the bundle with their bytes: those that were checked, or hashes that are checked again.
    fn contents(&self) -> Result<BTreeMap<String, Vec<u8>>, BundleError> {
        let listed = self.manifest.files.keys().map(|name| Ok((name.clone(), self.read(name)?)));
        let mut files = listed.collect::<Result<BTreeMap<_, _>, BundleError>>()?;
        files.insert(MANIFEST_FILE.to_owned(), self.text.clone());
        files.extend(self.signature.clone().map(|signature| (SIGNATURE_FILE.to_owned(), signature)));
        Ok(files)
    }

    /// The bytes of a listed file. Its hash is checked again, so that what is used is what was checked.
    pub fn read(&self, name: &str) -> Result<Vec<u8>, BundleError> {
        let path = self.dir.join(name);
        let Some(expected) = self.manifest.files.get(name) else {
            return Err(BundleError::File { path, reason: "the manifest does not list it".into() });
        };
        files::refuse_symlinks(&self.dir, name)?;
        let bytes = read_bounded(&path, files::MAX_BYTES)?;
        files::same_hash(path, sha256_hex(&bytes), expected)?;
        Ok(bytes)
    }

    /// The same in pieces.
    fn pieces(&self, name: &str) -> Result<Pieces, BundleError> {
        let path = self.dir.join(name);
        let Some(expected) = self.manifest.files.get(name) else {
            return Err(BundleError::File { path, reason: "the manifest does not list it".into() });
        };
        let mut pieces = Vec::new();
        files::check_hash(&self.dir, name, expected, |piece| pieces.push(Bytes::copy_from_slice(piece)))?;
        Ok(pieces.into_iter().collect())
    }

    /// The bytes of `model.onnx`, for backends that read ONNX.
    pub fn model_onnx(&self) -> Result<Vec<u8>, BundleError> {
        self.read(MODEL_FILE)
    }

    /// The network, checked to be the one that the manifest describes.
    pub fn network(&self) -> Result<Network, BundleError> {
        self.parse_model(&self.model_onnx()?)
    }

    /// The network's file and its outline, checked to be the one that the manifest describes. Its layers can be read from the
    /// file one at a time.
    pub fn outline(&self) -> Result<(Model, Outline), BundleError> {
        let refuse = |reason: String| BundleError::Network { path: self.dir.join(MODEL_FILE), reason };
        let model = Model::parse(self.pieces(MODEL_FILE)?).map_err(|error| refuse(error.to_string()))?;
        let outline = Outline::read(&model).map_err(|error: OnnxError| refuse(error.to_string()))?;
        self.manifest.check_outline(&outline).map_err(refuse)?;
        Ok((model, outline))
    }

    /// The same from the bytes of `model.onnx`, for who has them already.
    pub fn parse_model(&self, bytes: &[u8]) -> Result<Network, BundleError> {
        let path = || self.dir.join(MODEL_FILE);
        let network =
            onnx::read(bytes).map_err(|error| BundleError::Network { path: path(), reason: error.to_string() })?;
        self.manifest.check_network(&network).map_err(|reason| BundleError::Network { path: path(), reason })?;
        Ok(network)
    }

    /// Walks the folder `inside` (relative, `/`, empty for the bundle itself): every file must be listed, and none may
    /// be a symbolic link or anything but a plain file.
    fn refuse_unlisted(&self, inside: &str, depth: usize, found: &mut usize) -> Result<(), BundleError> {
        let folder = self.dir.join(inside);
        let io = |error| BundleError::Io { what: "listing the folder", path: folder.clone(), error };
        for entry in fs::read_dir(&folder).map_err(io)? {
            let entry = entry.map_err(io)?;
            let refuse = |reason: &str| BundleError::File { path: entry.path(), reason: reason.into() };
            *found += 1;
            if *found > MAX_FILES || depth > MAX_DEPTH {
                return Err(refuse("too many files or folders for a bundle. Install the bundle again."));
            }
            let Some(name) = entry.file_name().to_str().map(|name| format!("{inside}{name}")) else {
                return Err(refuse("its name is not UTF-8. Remove it."));
            };
            let kind = entry.file_type().map_err(io)?;
            if kind.is_dir() {
                self.refuse_unlisted(&format!("{name}/"), depth + 1, found)?;
            } else if !kind.is_file() {
                return Err(refuse("a bundle holds plain files only, no links. Install the bundle again."));
            } else if name != MANIFEST_FILE && name != SIGNATURE_FILE && !self.manifest.files.contains_key(&name) {
                return Err(refuse("the manifest does not list this file. Remove it, or install the bundle again."));
            }
        }
        Ok(())
    }
}
