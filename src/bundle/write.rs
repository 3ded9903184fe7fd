//! Writing a bundle: hashes, manifest, golden vectors, never in part; adding a signature. Not training or quantizing,
//! which make what is written, and not the key that signs.

use super::disk::{sync_folder, write_files};
use super::golden::file_name;
use super::{Bundle, BundleError, MANIFEST_FILE, MODEL_FILE, Manifest, SIGNATURE_FILE, check_name, sha256_hex};
use super::{Calibration, GateLimits, Thresholds};
use crate::network::int8::{Network, NetworkError};
use crate::network::onnx;
use crate::tensor::Tensor;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

/// Collects the files of a bundle, then writes them at once.
#[derive(Debug, Clone)]
pub struct BundleWriter {
    manifest: Manifest,
    files: BTreeMap<String, Vec<u8>>,
}

impl BundleWriter {
    /// A bundle of `network`, with portable scales ([`Network::with_portable_scales`]), described by `manifest`, whose
    /// input and outputs are set from the network and whose list of files is made anew. The golden vectors are `images` (1 × rows ×
    /// columns × 1; at least one) with what the reference forward pass gives for them: seconds an image for VGG16.
    pub fn new(manifest: Manifest, network: &Network, images: &[Tensor<u8>]) -> Result<Self, NetworkError> {
        let derived = Manifest::for_network(&manifest.name, &manifest.version, network);
        let manifest = Manifest {
            input: derived.input,
            outputs: derived.outputs,
            labels: derived.labels,
            schema: derived.schema,
            files: BTreeMap::new(),
            ..manifest
        };
        let mut files = BTreeMap::new();
        network.check()?;
        let network = network.clone().with_portable_scales();
        files.insert(MODEL_FILE.to_owned(), onnx::write(&network));
        for (index, image) in images.iter().enumerate() {
            let (evidence, features) = network.forward(image)?;
            let name = format!("{index:02}");
            files.insert(file_name(&name, "image"), image.data().to_vec());
            files.insert(file_name(&name, "evidence"), evidence.into_data());
            files.insert(file_name(&name, "features"), features.into_data());
        }
        Ok(Self { manifest, files })
    }

    /// A copy of an opened bundle, to be changed and written; its signature, if it has one, is left behind.
    pub fn of(bundle: &Bundle) -> Result<Self, BundleError> {
        let names = bundle.manifest().files.keys();
        let files = names.map(|name| Ok((name.clone(), bundle.read(name)?))).collect::<Result<_, BundleError>>()?;
        Ok(Self { manifest: bundle.manifest().clone(), files })
    }

    /// Sets what is fitted on the network's own answers, so only once it can be run.
    pub fn fitted(mut self, calibration: Calibration, thresholds: Thresholds, gates: Option<GateLimits>) -> Self {
        self.manifest = Manifest { calibration, thresholds, gates, ..self.manifest };
        self
    }

    /// Makes it another version of the same bundle, with `provenance` in place of the lines of the same keys.
    pub fn versioned(mut self, version: &str, provenance: BTreeMap<String, String>) -> Self {
        self.manifest.version = version.to_owned();
        self.manifest.provenance.extend(provenance);
        self
    }

    /// Adds a file, e.g. `README.md` or `report.json`; `name` is its path inside the bundle, with `/`.
    pub fn file(mut self, name: &str, bytes: Vec<u8>) -> Self {
        self.files.insert(name.to_owned(), bytes);
        self
    }

    /// Writes the bundle as the directory `dir` and opens it. Until everything is on disk nothing is seen there: it is
    /// written beside `dir` and renamed. A bundle that is there already is replaced; any other folder is refused.
    pub fn write(mut self, dir: &Path) -> Result<Bundle, BundleError> {
        for name in self.files.keys() {
            check_name(name).map_err(|reason| BundleError::File { path: dir.join(name), reason })?;
        }
        self.manifest.files = self.files.iter().map(|(name, bytes)| (name.clone(), sha256_hex(bytes))).collect();
        let unwritable = |message: String| BundleError::Manifest { path: dir.join(MANIFEST_FILE), message };
        let text = toml::to_string(&self.manifest).map_err(|error| unwritable(error.to_string()))?;
        self.files.insert(MANIFEST_FILE.to_owned(), text.into_bytes());
        place(dir, &self.files)
    }
}

/// The files as the bundle `dir`: never a part of them. A bundle that is there is first moved into a hidden folder beside
/// it (`.bundle-…/old`), since no folder can be replaced in one step: a kill or power cut between these two renames leaves
/// no bundle at `dir`, and both there. This is for who makes bundles; a box's are switched by [`super::Store`].
fn place(dir: &Path, files: &BTreeMap<String, Vec<u8>>) -> Result<Bundle, BundleError> {
    let io = |what| move |error| BundleError::Io { what, path: dir.to_owned(), error };
    refuse_foreign(dir)?;
    // A relative name of one part has the parent "".
    let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(parent).map_err(io("creating the parent folder"))?;
    let staging = tempfile::Builder::new().prefix(".bundle-").tempdir_in(parent).map_err(io("writing beside"))?;
    let made = staging.path().join("new");
    write_files(&made, files).map_err(io("writing"))?;
    Bundle::open(&made)?; // What would not open must not replace what does.
    let replaced = staging.path().join("old");
    if dir.symlink_metadata().is_ok() {
        fs::rename(dir, &replaced).map_err(io("moving the old bundle aside"))?;
    }
    if let Err(error) = fs::rename(&made, dir) {
        // Best effort: the error that matters is the first.
        let _ = fs::rename(&replaced, dir);
        return Err(io("moving into place")(error));
    }
    sync_folder(parent).map_err(io("syncing"))?;
    Bundle::open(dir)
}

/// Writes `bundle` with this signature (the text that is to be its `bundle.sig`) as the bundle `to`, which may be where
/// it is. Whether the signature fits is not looked at: [`Bundle::open_trusted`] does.
pub fn add_signature(bundle: &Bundle, signature: &str, to: &Path) -> Result<Bundle, BundleError> {
    let mut files = bundle.contents()?;
    files.insert(SIGNATURE_FILE.to_owned(), signature.as_bytes().to_vec());
    place(to, &files)
}

/// `dir` may be absent, empty or a bundle: anything else is somebody's folder.
fn refuse_foreign(dir: &Path) -> Result<(), BundleError> {
    let refuse = || BundleError::File {
        path: dir.to_owned(),
        reason: "this is there and is not a bundle. Choose another folder, or remove it.".into(),
    };
    match dir.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(BundleError::Io { what: "looking", path: dir.to_owned(), error }),
        Ok(found) if !found.is_dir() => Err(refuse()),
        Ok(_) if dir.join(MANIFEST_FILE).is_file() => Ok(()),
        Ok(_) => match fs::read_dir(dir).map(|mut entries| entries.next().is_none()) {
            Ok(true) => Ok(()),
            Ok(false) => Err(refuse()),
            Err(error) => Err(BundleError::Io { what: "listing the folder", path: dir.to_owned(), error }),
        },
    }
}
