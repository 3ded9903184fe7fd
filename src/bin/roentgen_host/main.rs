//! `roentgen-host`: makes model bundles on a host. Not part of what a box runs.

mod adamw;
mod augment;
mod average;
mod calibrate;
mod card;
mod checkpoint;
mod correct;
mod curves;
mod dataset;
mod device;
mod draw;
mod equalise;
mod evaluate;
mod evaluation;
mod features;
mod finetune;
mod fit;
mod fold;
mod frozen;
mod history;
mod import;
mod import_onnx;
mod judge;
mod keygen;
mod lower_cache;
mod metrics;
mod model;
mod network;
mod out_of_domain;
mod pack;
mod page;
mod progress;
mod quantization;
mod quantize;
mod random;
mod robustness;
mod round;
mod scratch;
mod settings;
mod sign;
mod sqnr;
mod standardize;
mod start;
mod tflite;
mod training;
mod weights;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use std::fs::File;
use std::io::Write;
use std::path::Path;

/// Trains, quantizes and judges the model that roentgend runs. The model screens; it does not diagnose.
#[derive(Debug, Parser)]
#[command(name = "roentgen-host", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Where tensors are computed
    #[arg(long, global = true, value_enum, default_value_t = device::Choice::Auto)]
    device: device::Choice,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Read VGG16's ImageNet convolutions and fold the first layer to grey
    Import(import::Args),
    /// Train the head on the features of the frozen trunk
    Train(training::Args),
    /// Average the weights of models that were fine-tuned from the same trunk
    Average(average::Args),
    /// Quantize a trained model to int8 and write a bundle
    Quantize(pack::Args),
    /// Fit temperature, gates and threshold of a bundle again
    Fit(fit::Args),
    /// Make a pair of keys to sign bundles with
    Keygen(keygen::Args),
    /// Sign a bundle
    Pack(sign::Args),
    /// Measure a bundle on labelled images
    Evaluate(evaluate::Args),
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    device::choose(cli.device)?;
    match cli.command {
        Command::Import(args) => import::run(&args),
        Command::Train(args) => training::run(&args),
        Command::Average(args) => average::run(&args),
        Command::Quantize(args) => pack::run(&args),
        Command::Fit(args) => fit::run(&args),
        Command::Keygen(args) => keygen::run(&args),
        Command::Pack(args) => sign::run(&args),
        Command::Evaluate(args) => evaluate::run(&args),
    }
}

/// Lower-case hexadecimal.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads a file, naming it in the error.
fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// Writes a file that appears whole or not at all: beside its place under another name, then renamed.
fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let told = || format!("cannot write {}", path.display());
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(told)?;
    }
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    let mut file = File::create(&part).with_context(told)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).with_context(told)?;
    std::fs::rename(&part, path).with_context(told)
}
