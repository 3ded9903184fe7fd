//! The key `backend`: what can be written there, and what this build has. Not the backends.

use serde::{Deserialize, Serialize};

/// What runs the model. All names are settled; not every build has all of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// The fastest that this build and this box have.
    #[default]
    Auto,
    /// The box's own integer kernels.
    Native,
    /// tract.
    Onnx,
    /// TensorFlow Lite.
    Tflite,
    /// Coral's Edge TPU.
    Edgetpu,
}

impl Backend {
    /// Those that are something and not a choice, in the order in which they are taken where they are equally fast.
    pub const ALL: [Self; 4] = [Self::Native, Self::Tflite, Self::Edgetpu, Self::Onnx];

    /// What can be written in this build, for messages.
    pub fn built() -> String {
        let names = [Self::Auto].iter().chain(&Self::ALL).filter(|backend| backend.is_built()).map(|one| one.name());
        let names: Vec<_> = names.collect();
        match names.split_last() {
            Some((last, others)) => format!("{} or {last}", others.join(", ")),
            None => String::new(),
        }
    }

    /// Its name, as it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Native => "native",
            Self::Onnx => "onnx",
            Self::Tflite => "tflite",
            Self::Edgetpu => "edgetpu",
        }
    }

    /// Whether this build can run it.
    pub fn is_built(self) -> bool {
        match self {
            Self::Auto | Self::Native => true,
            Self::Onnx => cfg!(feature = "onnx"),
            Self::Tflite => cfg!(feature = "tflite"),
            Self::Edgetpu => cfg!(feature = "edgetpu"),
        }
    }
}

impl std::str::FromStr for Backend {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let all = [Self::Auto].into_iter().chain(Self::ALL);
        let backend = all.into_iter().find(|backend| backend.name() == name);
        let backend = backend.ok_or_else(|| format!("there is no such backend: write {}", Self::built()))?;
        if backend.is_built() { Ok(backend) } else { Err(format!("it is not in this build: write {}", Self::built())) }
    }
}
