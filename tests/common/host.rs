//! `roentgen-host` as a person types it, and the small random trunk and synthetic radiographs that it is tested on.
#![allow(dead_code, unreachable_pub, missing_docs)] // every test file compiles its own copy and uses a part of it

use roentgen::radiograph::phantom::phantom;
use safetensors::tensor::{Dtype, TensorView};
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

/// Rows and columns of the synthetic radiographs.
pub const SIZE: u32 = 256;

/// Channels of every layer of the small trunk.
pub const CHANNELS: usize = 8;

/// Runs `roentgen-host` with arguments; `{}` in them stands for `dir`.
pub fn host(dir: &Path, arguments: &str) -> Output {
    let arguments = arguments.split_whitespace().map(|word| word.replace("{}", &dir.display().to_string()));
    Command::new(env!("CARGO_BIN_EXE_roentgen-host")).args(arguments).output().unwrap()
}

/// As [`host`], for runs that must succeed: what was printed.
pub fn done(dir: &Path, arguments: &str) -> String {
    let output = host(dir, arguments);
    let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "roentgen-host {arguments}\n{out}\n{error}");
    out.into_owned()
}

/// As [`host`], for runs that must fail: the error.
pub fn refused(dir: &Path, arguments: &str) -> String {
    let output = host(dir, arguments);
    assert!(!output.status.success(), "roentgen-host {arguments} should fail");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Deterministic numbers in -1..1.
pub fn noise(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..count)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        })
        .collect()
}

/// A trunk of five blocks with one random convolution each, as somebody else's safetensors file.
pub fn write_trunk(path: &Path) {
    let bytes = |values: &[f32]| -> Vec<u8> { values.iter().flat_map(|value| value.to_le_bytes()).collect() };
    let mut tensors = Vec::new();
    for block in 1..=5usize {
        let inputs = if block == 1 { 3 } else { CHANNELS };
        // He et al.'s gain keeps the activations' size from layer to layer.
        let gain = (2.0 / (9 * inputs) as f32).sqrt() * 3f32.sqrt();
        let weights: Vec<f32> = noise(CHANNELS * inputs * 9, block as u64).iter().map(|w| w * gain).collect();
        tensors.push((format!("block{block}_conv1.weight"), vec![CHANNELS, inputs, 3, 3], bytes(&weights)));
        tensors.push((format!("block{block}_conv1.bias"), vec![CHANNELS], bytes(&[1.0; CHANNELS])));
    }
    let views = tensors
        .iter()
        .map(|(name, shape, data)| (name.clone(), TensorView::new(Dtype::F32, shape.clone(), data).unwrap()));
    fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

/// One phantom with the marks of its class: brightness and stripes that the small trunk can tell apart.
pub fn write_image(path: &Path, class: usize, seed: u64) {
    let mut pixels = phantom(seed, SIZE);
    for (index, level) in pixels.iter_mut().enumerate() {
        let (row, column) = (index / SIZE as usize, index % SIZE as usize);
        let bright = match class {
            0 => row % 8 < 4,
            1 => column % 8 < 4,
            2 => false,
            _ => (row / 4 + column / 4) % 2 == 0,
        };
        *level = (*level / 3).saturating_add(if bright { 120 } else { 20 * class as u8 });
    }
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    image::GrayImage::from_raw(SIZE, SIZE, pixels).unwrap().save(path).unwrap();
}

/// The classes' folders.
pub const CLASSES: [&str; 4] = ["covid", "lung_opacity", "normal", "viral_pneumonia"];

/// The same in our split layout.
pub fn write_data(dir: &Path) {
    let mut manifest = String::from("path,split,class,population\n");
    for (split, first, count) in [("train", 0, 8), ("val", 100, 4), ("test", 200, 4)] {
        for (class, name) in CLASSES.iter().enumerate() {
            for seed in first..first + count {
                let relative = format!("{split}/{name}/{seed}.png");
                write_image(&dir.join(&relative), class, seed + 1000 * class as u64);
                let population = if seed % 2 == 0 { "adult" } else { "paediatric" };
                manifest += &format!("{relative},{split},{name},{population}\n");
            }
        }
    }
    fs::write(dir.join("manifest.csv"), manifest).unwrap();
}
