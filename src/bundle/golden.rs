//! Golden vectors: images and the integers the network must give for them. What a box installs it tests with these,
//! through the classifier it will use. Not that classifier: it is an argument.

use super::{Bundle, BundleError};
use crate::bundle::Output;
use crate::tensor::Tensor;

/// The folder of the golden vectors.
const FOLDER: &str = "golden";

/// One golden vector.
#[derive(Debug, Clone, PartialEq)]
pub struct Golden {
    /// Its number, two digits: the files are called `golden/<name>.image.u8` and so on.
    pub name: String,
    /// The image, 1 × rows × columns × 1.
    pub image: Tensor<u8>,
    /// The evidence map it must give, NHWC.
    pub evidence: Tensor<u8>,
    /// The last feature map it must give, NHWC.
    pub features: Tensor<u8>,
}

/// What a self-test found, all being well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SelfTest {
    /// How many golden vectors were run.
    pub vectors: usize,
    /// The greatest difference from them, in quantization steps; 0 is exact.
    pub largest_difference: u8,
}

impl Bundle {
    /// The golden vectors, in order. At least one.
    pub fn golden(&self) -> Result<Vec<Golden>, BundleError> {
        let manifest = self.manifest();
        let image = [1, manifest.input.rows, manifest.input.columns, 1];
        let shape = |output: &Output| [1, output.rows, output.columns, output.channels];
        let names = manifest.files.keys().filter_map(|file| golden_name(file));
        let golden: Result<Vec<Golden>, BundleError> = names
            .map(|name| {
                Ok(Golden {
                    image: self.vector(&file_name(name, "image"), image)?,
                    evidence: self.vector(&file_name(name, "evidence"), shape(&manifest.outputs.evidence))?,
                    features: self.vector(&file_name(name, "features"), shape(&manifest.outputs.features))?,
                    name: name.to_owned(),
                })
            })
            .collect();
        let golden = golden?;
        if golden.is_empty() {
            let reason = "the bundle has no golden vectors. Make it again with roentgen-host.".into();
            return Err(BundleError::File { path: self.dir().join(FOLDER), reason });
        }
        Ok(golden)
    }

    /// Runs every golden image through `classifier`, which returns the quantized evidence map and features (NHWC), and
    /// compares. Fails where any value is off by more than `tolerance` quantization steps; 0 demands equality.
    pub fn self_test<F>(&self, tolerance: u8, mut classifier: F) -> Result<SelfTest, BundleError>
    where
        F: FnMut(&Tensor<u8>) -> Result<(Tensor<u8>, Tensor<u8>), String>,
    {
        let golden = self.golden()?;
        let mut result = SelfTest { vectors: golden.len(), largest_difference: 0 };
        for vector in &golden {
            let path = self.dir().join(file_name(&vector.name, "image"));
            let failed = |reason| BundleError::SelfTest { path: path.clone(), reason };
            let (evidence, features) = classifier(&vector.image).map_err(failed)?;
            for (what, found, expected) in
                [("evidence", &evidence, &vector.evidence), ("features", &features, &vector.features)]
            {
                if found.shape() != expected.shape() {
                    let (found, expected) = (found.shape(), expected.shape());
                    return Err(failed(format!("{what} has shape {found:?} instead of {expected:?}")));
                }
                let differences = found.data().iter().zip(expected.data()).map(|(a, b)| a.abs_diff(*b));
                let difference = differences.clone().max().unwrap_or(0);
                if difference > tolerance {
                    let count = differences.filter(|&difference| difference > tolerance).count();
                    let of = found.data().len();
                    return Err(failed(format!("{count} of {of} {what} values differ, by up to {difference} steps")));
                }
                result.largest_difference = result.largest_difference.max(difference);
            }
        }
        Ok(result)
    }

    fn vector(&self, file: &str, shape: [usize; 4]) -> Result<Tensor<u8>, BundleError> {
        let bytes = self.read(file)?;
        let found = bytes.len();
        Tensor::new(shape, bytes).ok_or_else(|| BundleError::File {
            path: self.dir().join(file),
            reason: format!("{found} bytes; {shape:?} are needed. Make the bundle again with roentgen-host."),
        })
    }
}

/// The name of a golden vector's file; `part` is image, evidence or features.
pub(super) fn file_name(name: &str, part: &str) -> String {
    format!("{FOLDER}/{name}.{part}.u8")
}

/// The golden vector that a file is the image of.
fn golden_name(file: &str) -> Option<&str> {
    file.strip_prefix(FOLDER)?.strip_prefix('/')?.strip_suffix(".image.u8")
}
