//! `roentgen-host import`: other people's VGG16 weights → our float model, its first layer folded to grey.

use crate::fold::{Convention, FoldDifference, fold, measure};
use crate::import_onnx;
use crate::weights::{FloatModel, Numbers, from_named, read_safetensors};
use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What `import` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// VGG16's convolutions: safetensors (named block1_conv1.weight …, or features.0.weight … as in torchvision) or ONNX
    #[arg(long)]
    weights: PathBuf,
    /// The preprocessing that the weights were trained with
    #[arg(long, value_enum)]
    convention: Convention,
    /// Where to write the model
    #[arg(long, default_value = "model.safetensors")]
    out: PathBuf,
}

/// Reads a trunk and folds its first layer to grey; says also how far the fold is from the original.
pub(crate) fn import(weights: &Path, convention: Convention) -> Result<(FloatModel, FoldDifference)> {
    let mut model = read(weights)?;
    model.check(3).with_context(|| format!("{} is no VGG16 trunk", weights.display()))?;
    let first = model.trunk.first().context("there is no first layer")?.clone();
    let folded = fold(&first, convention)?;
    let difference = measure(&first, &folded, convention, 32);
    model.trunk[0] = folded;
    model.notes.insert("source_sha256".into(), crate::hex(&Sha256::digest(crate::read(weights)?)));
    model.notes.insert("convention".into(), convention.to_string());
    model.check(1)?;
    Ok((model, difference))
}

/// Runs the subcommand.
pub(crate) fn run(args: &Args) -> Result<()> {
    let (model, difference) = import(&args.weights, args.convention)?;
    model.save(&args.out)?;

    let weights: usize = model.trunk.iter().map(|conv| conv.weights.len()).sum();
    println!(
        "{}: {} convolutions, {weights} weights, written to {}",
        args.weights.display(),
        model.trunk.len(),
        args.out.display()
    );
    println!(
        "First layer folded from three channels ({}) to one. Greatest difference from the original on a test image: \
         {:.1e} inside, {:.1} in the outermost ring of pixels, outputs reaching {:.0}. The fold is exact but for that \
         ring: there the zero padding meant the mean colour, and now means black.",
        args.convention, difference.interior, difference.border, difference.greatest
    );
    Ok(())
}

/// Reads a trunk whose first layer still has three channels, deciding by the file's content.
fn read(path: &Path) -> Result<FloatModel> {
    let bytes = crate::read(path)?;
    // A safetensors file begins with the length of its JSON header in eight bytes, then the header.
    if bytes.get(8) != Some(&b'{') {
        return import_onnx::read(&bytes).with_context(|| path.display().to_string());
    }
    let (tensors, notes) = read_safetensors(path)?;
    let kept = ["source", "license", "licence"];
    let notes = notes.into_iter().filter(|(key, _)| kept.contains(&key.as_str())).collect();
    let named = if tensors.keys().any(|name| name.starts_with("features.")) { torchvision(tensors)? } else { tensors };
    let mut model = from_named(named, notes).with_context(|| path.display().to_string())?;
    model.head = None;
    Ok(model)
}

/// Renames torchvision's `features.N.weight` to ours. N counts ReLUs and poolings too, so that the next convolution
/// comes two later inside a block and three later in the next one. The classifier's tensors are left out.
fn torchvision(tensors: BTreeMap<String, Numbers>) -> Result<BTreeMap<String, Numbers>> {
    let index_of = |name: &str| -> Option<usize> { name.strip_prefix("features.")?.split('.').next()?.parse().ok() };
    let mut indices: Vec<usize> = tensors.keys().filter_map(|name| index_of(name)).collect();
    indices.sort_unstable();
    indices.dedup();
    let mut names: BTreeMap<usize, String> = BTreeMap::new();
    let (mut block, mut conv, mut last) = (1, 0, None);
    for &index in &indices {
        match last.map(|last| index - last) {
            None | Some(2) => conv += 1,
            Some(3) => (block, conv) = (block + 1, 1),
            Some(_) => bail!("features.{index} does not follow as in torchvision's VGG16 (without batch norm)"),
        }
        names.insert(index, format!("block{block}_conv{conv}"));
        last = Some(index);
    }
    let renamed = tensors.into_iter().filter_map(|(name, numbers)| {
        let ours = names.get(&index_of(&name)?)?;
        let part = name.rsplit('.').next()?;
        Some((format!("{ours}.{part}"), numbers))
    });
    Ok(renamed.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn torchvision_names_become_ours() {
        let numbers = || Numbers { shape: vec![1], values: vec![0.0] };
        let tensors = [0, 2, 5, 7, 10, 12, 14].iter().flat_map(|index| {
            [format!("features.{index}.weight"), format!("features.{index}.bias")].map(|name| (name, numbers()))
        });
        let mut tensors: BTreeMap<String, Numbers> = tensors.collect();
        tensors.insert("classifier.0.weight".into(), numbers());
        let names: Vec<String> = torchvision(tensors).unwrap().into_keys().filter(|n| n.ends_with("weight")).collect();
        let expected = ["1_conv1", "1_conv2", "2_conv1", "2_conv2", "3_conv1", "3_conv2", "3_conv3"];
        assert_eq!(names, expected.map(|name| format!("block{name}.weight")));
        let broken = BTreeMap::from([("features.0.weight".into(), numbers()), ("features.4.weight".into(), numbers())]);
        assert!(torchvision(broken).is_err());
    }
}
