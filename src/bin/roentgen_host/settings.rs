//! How to fine-tune: the options of `roentgen-host train` that come after `--unfreeze`. Not the loop that follows them
//! (see `finetune`).

use crate::network::Precision;
use anyhow::{Result, ensure};
use std::path::PathBuf;

/// How to fine-tune.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Settings {
    /// Passes of fine-tuning over as many images as the training split has
    #[arg(long, default_value_t = 14)]
    pub(crate) fine_epochs: usize,
    /// Greatest step size of AdamW while fine-tuning, reached after the warm-up and lowered along a cosine
    #[arg(long, default_value_t = 6e-5)]
    pub(crate) fine_lr: f64,
    /// AdamW's weight decay while fine-tuning (biases never decay)
    #[arg(long, default_value_t = 0.02)]
    pub(crate) fine_weight_decay: f64,
    /// Images a step while fine-tuning
    #[arg(long, default_value_t = 64)]
    pub(crate) fine_batch: usize,
    /// Share of the truth that is spread over all classes, 0..1
    #[arg(long, default_value_t = 0.05)]
    pub(crate) label_smoothing: f32,
    /// Share of the last features that are dropped at random, 0..1
    #[arg(long, default_value_t = 0.3)]
    pub(crate) dropout: f64,
    /// How far classes are evened out when images are drawn: 0 as they are, 1 every class equally often
    #[arg(long, default_value_t = 0.5)]
    pub(crate) balance: f64,
    /// How slowly the averaged weights follow the trained ones, 0..1 (exponential moving average a step)
    #[arg(long, default_value_t = 0.998)]
    pub(crate) average: f64,
    /// How strongly training images are changed, 0..1: more is harder to learn and withstands more
    #[arg(long, default_value_t = 0.5)]
    pub(crate) augmentation: f32,
    /// Augmented copies of each image, whose way through the frozen blocks is computed once and kept on disk beside the
    /// features: with few trained blocks that saves most of the work. 0: every draw is augmented anew
    #[arg(long, default_value_t = 0)]
    pub(crate) copies: usize,
    /// Most gigabytes that the frozen blocks' outputs of --copies may take on disk
    #[arg(long, default_value_t = 20.0)]
    pub(crate) cache_gb: f64,
    /// In which numbers convolutions are computed while fine-tuning
    #[arg(long, value_enum, default_value_t = Precision::F32)]
    pub(crate) precision: Precision,
    /// Fit the run into so many minutes: the schedule follows the clock where that is ahead of the passes
    #[arg(long)]
    pub(crate) minutes: Option<f64>,
    /// Minutes between checkpoints; one is also written after every pass
    #[arg(long, default_value_t = 5.0)]
    pub(crate) checkpoint_minutes: f64,
    /// Go on from the checkpoint beside --out, if there is one, with the settings that it was started with
    #[arg(long)]
    pub(crate) resume: bool,
    /// Where a line of figures is written after every pass (CSV); the learning curves are drawn beside it (SVG)
    #[arg(long)]
    pub(crate) log: Option<PathBuf>,
}

impl Settings {
    /// The settings that shape the model, for its notes.
    pub(crate) fn words(&self) -> String {
        format!(
            "AdamW, lr {}, weight decay {}, batch {}, label smoothing {}, dropout {}, balance {}, average {}, \
             augmentation {}, copies {}",
            self.fine_lr,
            self.fine_weight_decay,
            self.fine_batch,
            self.label_smoothing,
            self.dropout,
            self.balance,
            self.average,
            self.augmentation,
            self.copies
        )
    }

    /// Refuses what cannot be meant.
    pub(crate) fn check(&self) -> Result<()> {
        ensure!(self.fine_batch > 0 && self.fine_epochs > 0, "--fine-batch and --fine-epochs must be at least 1");
        ensure!(self.fine_lr > 0.0 && self.fine_lr.is_finite(), "--fine-lr must be above 0");
        let decay = self.fine_weight_decay;
        ensure!(decay >= 0.0 && decay.is_finite(), "--fine-weight-decay must not be below 0");
        ensure!(self.minutes.is_none_or(|minutes| minutes > 0.0), "--minutes must be above 0");
        ensure!(self.checkpoint_minutes >= 0.0, "--checkpoint-minutes must not be below 0");
        ensure!(self.cache_gb >= 0.0, "--cache-gb must not be below 0");
        ensure!((0.0..=1.0).contains(&self.augmentation), "--augmentation goes from 0 to 1");
        ensure!((0.0..=1.0).contains(&self.balance), "--balance goes from 0 to 1");
        ensure!((0.0..1.0).contains(&self.dropout), "--dropout goes from 0 to less than 1");
        ensure!((0.0..1.0).contains(&self.label_smoothing), "--label-smoothing goes from 0 to less than 1");
        ensure!((0.0..1.0).contains(&self.average), "--average goes from 0 to less than 1");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Typed {
        #[command(flatten)]
        settings: Settings,
    }

    #[test]
    fn what_cannot_be_meant_is_refused_by_its_name() {
        let checked = |typed: &str| {
            let arguments = std::iter::once("train").chain(typed.split_whitespace());
            Typed::try_parse_from(arguments).unwrap().settings.check()
        };
        assert!(checked("").is_ok() && checked("--minutes 0.5 --checkpoint-minutes 0 --fine-weight-decay 0").is_ok());
        for wrong in [
            "--fine-epochs=0",
            "--fine-batch=0",
            "--fine-lr=0",
            "--fine-lr=NaN",
            "--fine-lr=inf",
            "--fine-weight-decay=-1",
            "--minutes=0",
            "--minutes=NaN",
            "--checkpoint-minutes=-1",
            "--cache-gb=-1",
            "--augmentation=2",
            "--balance=-1",
            "--dropout=1",
            "--label-smoothing=1",
            "--average=1",
        ] {
            let named = wrong.split('=').next().unwrap();
            assert!(checked(wrong).unwrap_err().to_string().contains(named), "{wrong}");
        }
    }
}
