//! Augmentation of training images, chosen to destroy the cues that name a picture's source rather than its disease:
//! sharpness, resampling, noise, borders, markers, exposure. Not a left-right flip: the heart has a side.
//!
//! Works on the network's own input, 224 × 224 grey levels, so that what is trained on is what the box sees.

use crate::random::SplitMix;
use roentgen::network::vgg::INPUT_SIZE;

const N: usize = INPUT_SIZE;

/// How strong each change is at most. Angles in degrees, lengths as shares of the image's side, grey levels of 255.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Strength {
    rotation: f32,
    shift: f32,
    scale: f32,
    aspect: f32,
    gamma: f32,
    contrast: f32,
    brightness: f32,
    /// Smallest side, in pixels, to which a copy is shrunk before it is enlarged again.
    resample: f32,
    sharpen: f32,
    noise: f32,
    border: f32,
    marker: f32,
}

impl Default for Strength {
    fn default() -> Self {
        Self {
            rotation: 12.0,
            shift: 0.08,
            scale: 0.18,
            aspect: 0.06,
            gamma: 0.4,
            contrast: 0.3,
            brightness: 25.0,
            resample: 80.0,
            sharpen: 1.2,
            noise: 10.0,
            border: 0.10,
            marker: 0.22,
        }
    }
}

impl Strength {
    /// All changes times `factor` (0..=1), but for blur and markers, whose strength is not the point: that they come is.
    pub(crate) fn scaled(factor: f32) -> Self {
        let full = Self::default();
        Self {
            rotation: full.rotation * factor,
            shift: full.shift * factor,
            scale: full.scale * factor,
            aspect: full.aspect * factor,
            gamma: full.gamma * factor,
            contrast: full.contrast * factor,
            brightness: full.brightness * factor,
            resample: N as f32 - (N as f32 - full.resample) * factor,
            sharpen: full.sharpen * factor,
            noise: full.noise * factor,
            border: full.border * factor,
            marker: full.marker,
        }
    }
}

/// One augmented copy of a preprocessed image; the same for the same random stream.
pub(crate) fn augment(image: &[u8], strength: &Strength, random: &mut SplitMix) -> Vec<u8> {
    let mut x: Vec<f32> = image.iter().map(|&grey| f32::from(grey)).collect();
    x = warp(&x, strength, random);
    if random.chance(0.5) {
        let side = random.uniform(strength.resample, N as f32) as usize;
        x = resample(&x, side);
    }
    if random.chance(0.4) {
        let sigma = random.uniform(0.3, 1.6);
        blur(&mut x, sigma);
    } else if random.chance(0.4) {
        sharpen(&mut x, random.uniform(0.0, strength.sharpen));
    }
    expose(&mut x, strength, random);
    if random.chance(0.5) {
        let sigma = random.uniform(0.0, strength.noise);
        x.iter_mut().for_each(|value| *value += sigma * random.normal());
    }
    if random.chance(0.4) {
        border(&mut x, strength, random);
    }
    for corner in 0..4 {
        if random.chance(0.25) {
            marker(&mut x, corner, strength, random);
        }
    }
    x.into_iter().map(|value| value.round().clamp(0.0, 255.0) as u8).collect()
}

/// Rotates, scales and shifts, sampling bilinearly; what comes from outside is black or the edge's grey, by chance.
fn warp(x: &[f32], strength: &Strength, random: &mut SplitMix) -> Vec<f32> {
    let (sin, cos) = random.uniform(-strength.rotation, strength.rotation).to_radians().sin_cos();
    let scale = 1.0 + random.uniform(-strength.scale, strength.scale);
    let aspect = 1.0 + random.uniform(-strength.aspect, strength.aspect);
    let shift = strength.shift * N as f32;
    let (dx, dy) = (random.uniform(-shift, shift), random.uniform(-shift, shift));
    let black = random.chance(0.5);
    let centre = (N as f32 - 1.0) / 2.0;
    let last = N as f32 - 1.0;
    let inside = -0.5..=last + 0.5;
    let mut out = Vec::with_capacity(N * N);
    for row in 0..N {
        for column in 0..N {
            let (u, v) = ((column as f32 - centre) / (scale * aspect), (row as f32 - centre) * aspect / scale);
            let (mut s, mut t) = (cos * u - sin * v + centre + dx, sin * u + cos * v + centre + dy);
            if black && !(inside.contains(&s) && inside.contains(&t)) {
                out.push(0.0);
                continue;
            }
            s = s.clamp(0.0, last);
            t = t.clamp(0.0, last);
            out.push(bilinear(x, N, s, t));
        }
    }
    out
}

/// The value between the four neighbours of column `s` and row `t`, both within the image of `side` columns.
pub(crate) fn bilinear(x: &[f32], side: usize, s: f32, t: f32) -> f32 {
    let (c0, r0) = (s as usize, t as usize);
    let (c1, r1) = ((c0 + 1).min(side - 1), (r0 + 1).min(side - 1));
    let (fs, ft) = (s - c0 as f32, t - r0 as f32);
    let top = x[r0 * side + c0] * (1.0 - fs) + x[r0 * side + c1] * fs;
    let bottom = x[r1 * side + c0] * (1.0 - fs) + x[r1 * side + c1] * fs;
    top * (1.0 - ft) + bottom * ft
}

/// Down to `side` pixels by averaging and back up bilinearly: what a small copy of a picture loses.
pub(crate) fn resample(x: &[f32], side: usize) -> Vec<f32> {
    let side = side.clamp(8, N);
    let ratio = N as f32 / side as f32;
    let columns = shrink_rows(x, N, side, ratio);
    let small = transpose(&shrink_rows(&transpose(&columns, N, side), N, side, ratio), side, side);
    let back = |i: usize| ((i as f32 + 0.5) / ratio - 0.5).clamp(0.0, side as f32 - 1.0);
    let mut out = Vec::with_capacity(N * N);
    for row in 0..N {
        for column in 0..N {
            out.push(bilinear(&small, side, back(column), back(row)));
        }
    }
    out
}

/// Every row of `rows × N` averaged down to `side` values over intervals of `ratio` pixels.
fn shrink_rows(x: &[f32], rows: usize, side: usize, ratio: f32) -> Vec<f32> {
    let mut out = Vec::with_capacity(rows * side);
    for line in x.chunks_exact(N) {
        for i in 0..side {
            let (from, to) = (i as f32 * ratio, ((i + 1) as f32 * ratio).min(N as f32));
            let mut sum = 0.0;
            let mut at = from as usize;
            while (at as f32) < to && at < N {
                let share = (to.min(at as f32 + 1.0) - from.max(at as f32)).max(0.0);
                sum += line[at] * share;
                at += 1;
            }
            out.push(sum / (to - from));
        }
    }
    out
}

fn transpose(x: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    (0..columns * rows).map(|i| x[(i % rows) * columns + i / rows]).collect()
}

/// Gaussian blur, separable, edges repeated. `sigma` in pixels.
pub(crate) fn blur(x: &mut Vec<f32>, sigma: f32) {
    let radius = (3.0 * sigma).ceil() as isize;
    let weights: Vec<f32> = (-radius..=radius).map(|d| (-(d * d) as f32 / (2.0 * sigma * sigma)).exp()).collect();
    let sum: f32 = weights.iter().sum();
    for _ in 0..2 {
        let mut out = Vec::with_capacity(N * N);
        for line in x.chunks_exact(N) {
            for column in 0..N as isize {
                let value: f32 = weights
                    .iter()
                    .enumerate()
                    .map(|(k, w)| w * line[(column + k as isize - radius).clamp(0, N as isize - 1) as usize])
                    .sum();
                out.push(value / sum);
            }
        }
        *x = transpose(&out, N, N);
    }
}

/// Unsharp mask: adds `amount` times what a small blur takes away.
fn sharpen(x: &mut [f32], amount: f32) {
    let mut soft = x.to_vec();
    blur(&mut soft, 1.0);
    for (value, soft) in x.iter_mut().zip(soft) {
        *value += amount * (*value - soft);
    }
}

/// Gamma, contrast about the mean, and brightness.
fn expose(x: &mut [f32], strength: &Strength, random: &mut SplitMix) {
    let gamma = (strength.gamma * random.uniform(-1.0, 1.0)).exp();
    let contrast = (strength.contrast * random.uniform(-1.0, 1.0)).exp();
    let brightness = random.uniform(-strength.brightness, strength.brightness);
    let mean = x.iter().sum::<f32>() / x.len() as f32;
    for value in x {
        let curved = 255.0 * (value.clamp(0.0, 255.0) / 255.0).powf(gamma);
        *value = (curved - mean) * contrast + mean + brightness;
    }
}

/// Paints a frame of one grey over the edges, each side with its own width.
fn border(x: &mut [f32], strength: &Strength, random: &mut SplitMix) {
    let widths: [usize; 4] = std::array::from_fn(|_| random.uniform(0.0, strength.border * N as f32) as usize);
    let grey = if random.chance(0.6) { 0.0 } else { random.uniform(0.0, 255.0) };
    for (index, value) in x.iter_mut().enumerate() {
        let (row, column) = (index / N, index % N);
        if row < widths[0] || row >= N - widths[1] || column < widths[2] || column >= N - widths[3] {
            *value = grey;
        }
    }
}

/// Masks one corner with a patch of one grey, or writes a bright sign into it like a side marker.
fn marker(x: &mut [f32], corner: usize, strength: &Strength, random: &mut SplitMix) {
    let most = strength.marker * N as f32;
    let (height, width) = (random.uniform(6.0, most) as usize, random.uniform(6.0, most) as usize);
    let (inset_row, inset_column) = (random.below(12), random.below(12));
    let sign = random.chance(0.4);
    let grey = if sign { random.uniform(190.0, 255.0) } else { random.uniform(0.0, 160.0) };
    let (height, width) = if sign { (height.min(20), width.min(14)) } else { (height, width) };
    let stroke = 2 + random.below(3);
    for r in 0..height {
        for c in 0..width {
            let (row, column) = (r + inset_row, c + inset_column);
            let row = if corner & 1 == 0 { row } else { N - 1 - row };
            let column = if corner & 2 == 0 { column } else { N - 1 - column };
            // A sign is the outline of its box with a bar: near enough to an L, an R or a date for a network.
            let drawn =
                !sign || c < stroke || r < stroke || r + stroke >= height || r.abs_diff(height / 2) < stroke / 2;
            if drawn {
                x[row * N + column] = grey;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gradient() -> Vec<u8> {
        (0..N * N).map(|i| ((i % N) * 255 / N) as u8).collect()
    }

    #[test]
    fn the_same_stream_gives_the_same_copy_and_another_gives_another() {
        let image = gradient();
        let copy = |seed| augment(&image, &Strength::default(), &mut SplitMix::new(seed));
        assert_eq!(copy(1), copy(1));
        assert_ne!(copy(1), copy(2));
        assert_eq!(copy(3).len(), N * N);
    }

    #[test]
    fn a_weaker_augmentation_changes_less() {
        let image: Vec<u8> = roentgen::radiograph::phantom::phantom(1, N as u32);
        let change = |factor| -> u64 {
            let copies = (0..20).map(|seed| augment(&image, &Strength::scaled(factor), &mut SplitMix::new(seed)));
            copies.flatten().zip(image.iter().cycle()).map(|(a, &b)| u64::from(a.abs_diff(b))).sum()
        };
        let (weak, half, full) = (change(0.1), change(0.5), change(1.0));
        assert!(weak < half && half < full, "{weak} {half} {full}");
    }

    #[test]
    fn left_stays_left() {
        let image = gradient();
        for seed in 0..40 {
            let copy = augment(&image, &Strength::default(), &mut SplitMix::new(seed));
            let half = |from: usize| -> f64 {
                (0..N * N).filter(|i| (i % N) / (N / 2) == from).map(|i| f64::from(copy[i])).sum()
            };
            assert!(half(0) < half(1), "seed {seed} mirrored the image");
        }
    }

    #[test]
    fn blur_and_resampling_keep_a_flat_image_flat_and_lower_contrast() {
        let mut flat = vec![77.0f32; N * N];
        blur(&mut flat, 1.3);
        assert!(flat.iter().all(|v| (v - 77.0).abs() < 1e-2));
        assert!(resample(&flat, 100).iter().all(|v| (v - 77.0).abs() < 1e-2));
        let checker: Vec<f32> =
            (0..N * N).map(|i| if (i / N + i % N).is_multiple_of(2) { 0.0 } else { 200.0 }).collect();
        let spread = |x: &[f32]| x.iter().map(|v| (v - 100.0).abs()).sum::<f32>() / x.len() as f32;
        assert!(spread(&resample(&checker, 90)) < 0.6 * spread(&checker));
        let mut soft = checker.clone();
        blur(&mut soft, 1.0);
        assert!(spread(&soft) < 0.2 * spread(&checker));
    }
}
