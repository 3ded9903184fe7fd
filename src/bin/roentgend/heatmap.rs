//! `classify --heatmap DIR`: keeps what the network said about an image, and writes its picture into the folder. Not
//! the drawing itself ([`roentgen::assess::heatmap`]).

use anyhow::{Context, bail};
use roentgen::assess::{Seen, heatmap};
use roentgen::classifier::{Classifier, ClassifyError, Evidence};
use roentgen::radiograph::Radiograph;
use roentgen::report::Report;
use roentgen::tensor::Tensor;
use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Bytes of an input's name that a picture's name takes over: file systems take 255 in all.
const LONGEST_NAME: usize = 100;

/// Digits of the report's id in a picture's name: 48 bits tell the images of a folder apart.
const ID_DIGITS: usize = 12;

/// A classifier that remembers what it read and said last.
pub(crate) struct Remembering<'a> {
    inner: &'a mut dyn Classifier,
    last: Option<(Tensor<u8>, Evidence)>,
}

impl<'a> Remembering<'a> {
    pub(crate) fn new(inner: &'a mut dyn Classifier) -> Self {
        Self { inner, last: None }
    }
}

impl Classifier for Remembering<'_> {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn classify(&mut self, image: &Tensor<u8>) -> Result<Evidence, ClassifyError> {
        let evidence = self.inner.classify(image)?;
        self.last = Some((image.clone(), evidence.clone()));
        Ok(evidence)
    }
}

/// The folder that pictures are written into.
pub(crate) struct Pictures {
    folder: PathBuf,
}

impl Pictures {
    /// Makes the folder if there is none.
    pub(crate) fn into_folder(folder: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(folder)
            .with_context(|| format!("--heatmap {}: cannot make this folder for the pictures", folder.display()))?;
        Ok(Self { folder: folder.to_owned() })
    }

    /// Writes the picture of the radiograph that came from `input` and that `remembered` has just judged; where it
    /// lies.
    ///
    /// Its name is that of `input` and the beginning of the report's id. So another image's picture has another name,
    /// whatever the inputs are called, and the same image's takes its old one's place: whole, never in part.
    pub(crate) fn write(
        &self,
        input: &Path,
        radiograph: &Radiograph,
        remembered: &Remembering<'_>,
        report: &Report,
    ) -> anyhow::Result<PathBuf> {
        let path = self.folder.join(name(input, report));
        let told = || format!("cannot write the picture {}", path.display());
        let (image, evidence) = remembered.last.as_ref().context("no image was judged").with_context(told)?;
        let seen = Seen { radiograph, image, evidence };
        let png = heatmap::encode_png(&heatmap::render(&seen, report)).with_context(told)?;
        match fs::symlink_metadata(&path) {
            Ok(there) if !there.is_file() => {
                bail!("{}: this is in the picture's place and not an ordinary file: remove it", path.display())
            }
            _ => {}
        }
        // Made beside its place and renamed, which follows no link. Readable as other files are: a temporary file is
        // not.
        let permissions = Permissions::from_mode(0o666);
        let mut file =
            tempfile::Builder::new().permissions(permissions).tempfile_in(&self.folder).with_context(told)?;
        file.write_all(&png).with_context(told)?;
        file.persist(&path).with_context(told)?;
        Ok(path)
    }
}

/// The name of an input's picture: letters and digits of its own name without the ending, and of the report's id.
fn name(input: &Path, report: &Report) -> String {
    let stem = input.file_stem().map(|stem| stem.to_string_lossy()).unwrap_or_default();
    let kept = |letter: char| if letter.is_alphanumeric() || "-_.".contains(letter) { letter } else { '_' };
    let mut name: String = stem.chars().map(kept).collect();
    // A name that begins with a dot would hide the picture.
    name = name.trim_start_matches('.').to_owned();
    while name.len() > LONGEST_NAME {
        name.pop();
    }
    if name.is_empty() {
        name.push_str("radiograph");
    }
    let id: String = report.report_id.chars().take(ID_DIGITS).collect();
    format!("{name}-{id}.png")
}
