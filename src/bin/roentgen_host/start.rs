//! What `roentgen-host train` starts from: an imported model, a trunk's own file, or random weights.

use crate::fold::Convention;
use crate::import::import;
use crate::scratch::random_trunk;
use crate::weights::FloatModel;
use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};

/// One of three starts.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("begin").args(["model", "weights", "from_scratch"]).required(true))]
pub(crate) struct Start {
    /// A model of `roentgen-host import`
    #[arg(long)]
    model: Option<PathBuf>,
    /// Instead of --model: VGG16's convolutions, as `roentgen-host import` reads them
    #[arg(long, requires = "convention")]
    weights: Option<PathBuf>,
    /// The preprocessing that --weights were trained with
    #[arg(long, value_enum, requires = "weights")]
    convention: Option<Convention>,
    /// Instead of --model: random weights; wants --unfreeze all, a higher --fine-lr and many images
    #[arg(long)]
    from_scratch: bool,
    /// With --from-scratch: VGG16 with so many times fewer channels, for trials
    #[arg(long, requires = "from_scratch", default_value_t = 1)]
    narrower: usize,
}

impl Start {
    /// The model to start from.
    pub(crate) fn model(&self, seed: u64) -> Result<FloatModel> {
        match (&self.model, &self.weights) {
            (Some(model), _) => FloatModel::load(model),
            (None, Some(weights)) => {
                let convention = self.convention.context("--weights needs --convention")?;
                Ok(import(weights, convention)?.0)
            }
            (None, None) => {
                ensure!((1..=64).contains(&self.narrower), "--narrower goes from 1 to 64");
                Ok(random_trunk(seed, self.narrower))
            }
        }
    }

    /// The file that caches lie beside: that of the start, or `out`.
    pub(crate) fn file<'a>(&'a self, out: &'a Path) -> &'a Path {
        self.model.as_deref().or(self.weights.as_deref()).unwrap_or(out)
    }
}
