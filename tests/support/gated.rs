//! The tiny bundle with gates, all of them closed. Not a test.

use super::tiny_bundle;
use roentgen::assess::gates::{Gates, Pose, PoseClassifier, Subspace};
use roentgen::assess::view::{GRADIENTS, PIXELS};
use roentgen::bundle::{Bundle, BundleWriter, GATES_FILE, GATES_SCHEMA, GateLimits, Manifest};
use std::path::Path;

/// Gates about the origin that let nothing pass but what is all 0.
pub(crate) fn closed() -> Gates {
    let space =
        |dimensions| Subspace::new(dimensions, vec![0.0; dimensions], Vec::new(), Vec::new(), 1.0).expect("sound");
    let pose = PoseClassifier::new(vec![0.0; Pose::ALL.len() * GRADIENTS], vec![0.0; Pose::ALL.len()]).expect("sound");
    let limits = GateLimits {
        schema: GATES_SCHEMA.into(),
        file: GATES_FILE.into(),
        false_abstention: 0.0,
        min_upright: 0.5,
        max_pixels: 1e-6,
        max_gradients: 1e-6,
        max_features: 1e-6,
        max_energy: -1e6,
    };
    Gates { pixels: space(PIXELS), gradients: space(GRADIENTS), features: space(4), pose, limits }
}

/// The tiny bundle, unsigned, in the folder `gated`, with such gates, whose file is `file`.
pub(crate) fn bundle_with_gates(folder: &Path, file: Option<Vec<u8>>) -> Bundle {
    let tiny = Bundle::open(&tiny_bundle(folder)).expect("a bundle");
    let Manifest { calibration, thresholds, .. } = tiny.manifest().clone();
    let writer = BundleWriter::of(&tiny).expect("readable").fitted(calibration, thresholds, Some(closed().limits));
    let writer = file.into_iter().fold(writer, |writer, file| writer.file(GATES_FILE, file));
    writer.write(&folder.join("gated")).expect("written")
}

/// The same with the file that belongs to it.
pub(crate) fn gated_bundle(folder: &Path) -> Bundle {
    bundle_with_gates(folder, Some(closed().encode().expect("tensors")))
}
