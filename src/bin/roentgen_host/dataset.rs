//! Which images there are, their class and their split. Not their pixels' meaning: those go through the same
//! `radiograph::open` and `preprocess` as on the box.

use anyhow::{Context, Result, bail, ensure};
use roentgen::preprocess::preprocess;
use roentgen::pseudonym::Key;
use roentgen::radiograph::{self, Limits, Radiograph, Refusal};
use roentgen::report::Label;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

/// What an image may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, clap::ValueEnum)]
pub(crate) enum Split {
    /// Weights and ranges are fitted on it.
    Train,
    /// Choices are made on it.
    Val,
    /// Figures are reported on it, and nothing else.
    Test,
}

impl Split {
    /// All of them.
    pub(crate) const ALL: [Split; 3] = [Split::Train, Split::Val, Split::Test];

    /// The folder's name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Split::Train => "train",
            Split::Val => "val",
            Split::Test => "test",
        }
    }
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sample {
    /// Its file.
    pub(crate) path: PathBuf,
    /// Its class, as its folder says.
    pub(crate) label: Label,
    /// Its split; `None` where the data set has none.
    pub(crate) split: Option<Split>,
    /// The population that `manifest.csv` names for it, e.g. `adult`.
    pub(crate) population: Option<String>,
}

impl Sample {
    /// The image, opened as the box opens it.
    pub(crate) fn radiograph(&self) -> Result<Radiograph> {
        open(&self.path).map_err(|refusal| anyhow::anyhow!("{}: {refusal}", self.path.display()))
    }

    /// The network's input for this image: 224 × 224 grey levels, by the path that the box uses.
    pub(crate) fn input(&self) -> Result<Vec<u8>> {
        Ok(preprocess(&self.radiograph()?).into_data())
    }
}

/// An image file, opened as the box opens it.
pub(crate) fn open(path: &Path) -> Result<Radiograph, Refusal> {
    // Pseudonyms made here go nowhere, so any key will do.
    radiograph::open(path, &Limits::default(), &Key::from_bytes([0; 32]))
}

/// A folder of images, sorted by path.
#[derive(Debug, Clone)]
pub(crate) struct Dataset {
    /// Every image.
    pub(crate) samples: Vec<Sample>,
}

impl Dataset {
    /// Reads a data set in one of three layouts: `DIR/{train,val,test}/CLASS/*`, the COVID-19 Radiography Database's own
    /// `DIR/CLASS/images/*`, or `DIR/CLASS/*`. The latter two have no split: see [`Dataset::assign_splits`].
    pub(crate) fn open(dir: &Path) -> Result<Self> {
        let mut samples = Vec::new();
        let splits: Vec<Split> = Split::ALL.into_iter().filter(|split| dir.join(split.name()).is_dir()).collect();
        if splits.is_empty() {
            read_classes(dir, None, &mut samples)?;
        }
        for split in splits {
            read_classes(&dir.join(split.name()), Some(split), &mut samples)?;
        }
        ensure!(
            !samples.is_empty(),
            "{} holds no class folder with images; expected {}, with or without train/, val/ and test/ above them",
            dir.display(),
            Label::ALL.map(Label::name).join("/, ") + "/"
        );
        samples.sort_by(|a, b| a.path.cmp(&b.path));
        let populations = manifest_column(dir, "population")?;
        for sample in &mut samples {
            let relative = sample.path.strip_prefix(dir).unwrap_or(&sample.path);
            sample.population = populations.get(relative).cloned();
        }
        Ok(Self { samples })
    }

    /// Whether the folder came with splits.
    pub(crate) fn is_split(&self) -> bool {
        self.samples.iter().all(|sample| sample.split.is_some())
    }

    /// Gives a data set without splits 80 % train, 10 % val and 10 % test in every class, the same for the same seed:
    /// each class is ordered by the hash of seed and file name and cut. Images are taken as independent of each other:
    /// where a patient has several, split the folder yourself.
    pub(crate) fn assign_splits(&mut self, seed: u64) {
        if self.is_split() {
            return;
        }
        for label in Label::ALL {
            let mut class: Vec<&mut Sample> = self.samples.iter_mut().filter(|sample| sample.label == label).collect();
            class.sort_by_cached_key(|sample| {
                let name = sample.path.file_name().unwrap_or_default();
                Sha256::new().chain_update(seed.to_le_bytes()).chain_update(name.as_encoded_bytes()).finalize()
            });
            // Rounded to the nearest, but at least one of each as soon as a class has three images.
            let tenth = if class.len() < 3 { 0 } else { ((class.len() + 5) / 10).max(1) };
            for (index, sample) in class.into_iter().enumerate() {
                sample.split = Some(match index {
                    _ if index < tenth => Split::Test,
                    _ if index < 2 * tenth => Split::Val,
                    _ => Split::Train,
                });
            }
        }
    }

    /// The images of one split.
    pub(crate) fn of(&self, split: Split) -> Vec<Sample> {
        self.samples.iter().filter(|sample| sample.split == Some(split)).cloned().collect()
    }
}

/// At most `per_class` images of every class, spread evenly over the class's files.
pub(crate) fn thin(samples: &[Sample], per_class: usize) -> Vec<Sample> {
    let mut out = Vec::new();
    for label in Label::ALL {
        let class: Vec<&Sample> = samples.iter().filter(|sample| sample.label == label).collect();
        let take = per_class.min(class.len());
        out.extend((0..take).map(|i| class[i * class.len() / take].clone()));
    }
    out
}

/// The label that a folder's name stands for: ours, or the COVID-19 Radiography Database's.
fn label_of(folder: &str) -> Option<Label> {
    match folder.to_ascii_lowercase().replace([' ', '-'], "_").as_str() {
        "covid" | "covid19" | "covid_19" => Some(Label::Covid),
        "lung_opacity" => Some(Label::LungOpacity),
        "normal" => Some(Label::Normal),
        "viral_pneumonia" => Some(Label::ViralPneumonia),
        _ => None,
    }
}

/// Reads `dir/CLASS/*` or, where there is one, `dir/CLASS/images/*`.
fn read_classes(dir: &Path, split: Option<Split>, samples: &mut Vec<Sample>) -> Result<()> {
    for entry in std::fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))? {
        let folder = entry.with_context(|| format!("cannot read {}", dir.display()))?.path();
        if !folder.is_dir() {
            continue;
        }
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Some(label) = label_of(&name) else {
            bail!(
                "{} is no class; the folders must be {} (or as the COVID-19 Radiography Database names them)",
                folder.display(),
                Label::ALL.map(Label::name).join(", ")
            );
        };
        let images = folder.join("images");
        let images = if images.is_dir() { images } else { folder };
        for entry in std::fs::read_dir(&images).with_context(|| format!("cannot read {}", images.display()))? {
            let path = entry.with_context(|| format!("cannot read {}", images.display()))?.path();
            let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
            if path.is_file() && !hidden {
                samples.push(Sample { path, label, split, population: None });
            }
        }
    }
    Ok(())
}

/// A column of `manifest.csv`, e.g. `population`, by path below `dir`; empty where there is no such file or column.
pub(crate) fn manifest_column(dir: &Path, name: &str) -> Result<BTreeMap<PathBuf, String>> {
    let path = dir.join("manifest.csv");
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    let mut lines = text.lines();
    let header: Vec<&str> = lines.next().unwrap_or_default().split(',').collect();
    let column = |name| header.iter().position(|&field| field == name);
    let (Some(file), Some(wanted)) = (column("path"), column(name)) else {
        return Ok(BTreeMap::new());
    };
    let mut found = BTreeMap::new();
    for (index, line) in lines.enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let fields: Vec<&str> = line.split(',').collect();
        // A comma within a quoted field would shift the columns unnoticed.
        let quoted = fields.iter().any(|field| field.trim_start().starts_with('"'));
        ensure!(
            fields.len() == header.len() && !quoted,
            "line {} of {} must have {} fields, as its first line has, and none in quotes",
            index + 2,
            path.display(),
            header.len()
        );
        found.insert(PathBuf::from(fields[file]), fields[wanted].to_owned());
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touch(dir: &Path, names: &[&str]) {
        for name in names {
            let path = dir.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, b"x").unwrap();
        }
    }

    #[test]
    fn the_three_layouts_are_read() {
        let split = tempfile::tempdir().unwrap();
        touch(split.path(), &["train/covid/a.png", "test/lung_opacity/b.png"]);
        std::fs::write(
            split.path().join("manifest.csv"),
            "path,split,class,population\ntest/lung_opacity/b.png,test,lung_opacity,adult\n",
        )
        .unwrap();
        let data = Dataset::open(split.path()).unwrap();
        assert!(data.is_split());
        assert_eq!(data.of(Split::Test)[0].label, Label::LungOpacity);
        assert_eq!(data.of(Split::Test)[0].population.as_deref(), Some("adult"));
        assert_eq!(data.of(Split::Train)[0].population, None);

        let kaggle = tempfile::tempdir().unwrap();
        touch(kaggle.path(), &["COVID/images/COVID-1.png", "COVID/masks/COVID-1.png", "Viral Pneumonia/images/v.png"]);
        touch(kaggle.path(), &["COVID.metadata.xlsx"]);
        let data = Dataset::open(kaggle.path()).unwrap();
        assert_eq!(data.samples.len(), 2, "{:?}", data.samples);
        assert!(!data.is_split());

        let flat = tempfile::tempdir().unwrap();
        touch(flat.path(), &["normal/a.png", "normal/.hidden", "Lung_Opacity/b.png"]);
        assert_eq!(Dataset::open(flat.path()).unwrap().samples.len(), 2);
    }

    #[test]
    fn a_manifest_whose_columns_could_shift_is_refused_with_its_line() {
        let dir = tempfile::tempdir().unwrap();
        let column = |text: &str| {
            std::fs::write(dir.path().join("manifest.csv"), text).unwrap();
            manifest_column(dir.path(), "source")
        };
        let sound = column("path,source\na.png,Clinic \"A\"\n\nb.png,\n").unwrap();
        assert_eq!(sound[Path::new("a.png")], "Clinic \"A\"");
        assert_eq!((sound.len(), &*sound[Path::new("b.png")]), (2, ""));
        for broken in ["b.png,\"Clinic, B\"", "b.png,\"B\"", "b.png", "b.png,Clinic, B"] {
            let error = column(&format!("path,source\na.png,A\n{broken}\n")).unwrap_err().to_string();
            assert!(error.contains("line 3") && error.contains("manifest.csv"), "{error}");
        }
        assert!(column("path,class\na.png\n").unwrap().is_empty(), "without the column nothing is read");
    }

    #[test]
    fn a_folder_that_is_no_class_is_named() {
        let dir = tempfile::tempdir().unwrap();
        touch(dir.path(), &["covid/a.png", "cats/b.png"]);
        assert!(Dataset::open(dir.path()).unwrap_err().to_string().contains("cats"));
        let empty = tempfile::tempdir().unwrap();
        assert!(Dataset::open(empty.path()).unwrap_err().to_string().contains("lung_opacity"));
    }

    #[test]
    fn the_seeded_split_is_stratified_and_depends_on_the_seed_alone() {
        let dir = tempfile::tempdir().unwrap();
        let names: Vec<String> = (0..40).map(|i| format!("covid/{i}.png")).collect();
        touch(dir.path(), &names.iter().map(String::as_str).collect::<Vec<_>>());
        touch(dir.path(), &["normal/a.png", "normal/b.png", "normal/c.png"]);
        let split = |seed| {
            let mut data = Dataset::open(dir.path()).unwrap();
            data.assign_splits(seed);
            data
        };
        let one = split(1);
        let count = |split, label| one.of(split).iter().filter(|sample| sample.label == label).count();
        assert_eq!(Split::ALL.map(|split| count(split, Label::Covid)), [32, 4, 4]);
        assert_eq!(Split::ALL.map(|split| count(split, Label::Normal)), [1, 1, 1]);
        assert_eq!(one.samples, split(1).samples);
        assert_ne!(one.samples, split(2).samples);
    }

    #[test]
    fn thinning_keeps_every_class() {
        let sample = |label, index: usize| Sample {
            path: PathBuf::from(format!("{index}")),
            label,
            split: None,
            population: None,
        };
        let mut samples: Vec<Sample> = (0..10).map(|i| sample(Label::Covid, i)).collect();
        samples.push(sample(Label::Normal, 10));
        let thinned = thin(&samples, 5);
        assert_eq!(thinned.len(), 6);
        let kept: Vec<&str> = thinned.iter().filter_map(|sample| sample.path.to_str()).collect();
        assert_eq!(kept, ["0", "2", "4", "6", "8", "10"]);
    }
}
