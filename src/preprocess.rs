//! Radiograph → `Tensor<u8>`: the one path that training, calibration and the box share. Versioned: a change of any grey
//! level it gives is a new version, since a bundle is only right for the version it was trained with.
//!
//! 1. 8-bit grey levels are spread to 16 bits (× 257), so that there is one path for both depths.
//! 2. The whole image is resized to 224 × 224, rows and columns each by their own factor. A clinic's film of 3000 × 2500
//!    is thus squeezed a little, as the public radiographs that the network is trained on were made square. Padding
//!    would show the network black bars that its training data lack, and that tell of the scanner, not of the lungs;
//!    a centre crop would cut off costophrenic angles and apices, where findings sit.
//! 3. The filter is a triangle as wide as the step (Pillow's `BILINEAR`): it antialiases when it makes smaller, so that
//!    3000 pixels and 256 pixels of the same anatomy give the same grey levels, and it never overshoots at the edge of
//!    a marker.
//! 4. 16 bits are rounded once to 8, half up.
//!
//! The answer is the same on every processor, which report ids promise: coefficients are quotients of sums in f64 (IEEE
//! 754 defines them to the last bit) rounded to integers, and the convolution on 16-bit levels sums 64-bit integers, so
//! that the order in which SIMD lanes add makes no difference. A unit test holds the result against a naive statement of
//! that arithmetic.

use crate::radiograph::{Pixels, Radiograph};
use crate::tensor::Tensor;
use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::U16;
use fast_image_resize::{FilterType, ResizeAlg, ResizeOptions, Resizer};

/// The version that bundles and report ids carry.
pub const VERSION: &str = "preprocess/1";

/// Rows and columns of the result.
pub const SIZE: u32 = 224;

/// The network's input for a radiograph: 1 × 224 × 224 × 1 grey levels.
///
/// A radiograph whose pixels do not fill its width and height (none that [`crate::radiograph::open`] gave) comes out black.
pub fn preprocess(radiograph: &Radiograph) -> Tensor<u8> {
    square(radiograph, SIZE)
}

/// The same view of a radiograph, the whole of it made square, at `size` × `size` grey levels (at least 1): for eyes, which
/// want more than the network reads.
pub fn square(radiograph: &Radiograph, size: u32) -> Tensor<u8> {
    let shape = [1, size as usize, size as usize, 1];
    resized(radiograph, size, size)
        .map(to_bytes)
        .and_then(|bytes| Tensor::new(shape, bytes))
        .unwrap_or_else(|| Tensor::filled(shape, 0))
}

/// A small copy of a radiograph in its own proportions, for eyes alone: columns, rows and grey levels, of which neither
/// columns nor rows are more than `most` (at least 1), nor more than the radiograph has.
pub fn fitted(radiograph: &Radiograph, most: u32) -> (u32, u32, Vec<u8>) {
    let (width, height) = (radiograph.width.max(1), radiograph.height.max(1));
    let longer = width.max(height);
    let part = |extent: u32| {
        let scaled = u64::from(extent) * u64::from(most.min(longer)) / u64::from(longer);
        (scaled as u32).max(1)
    };
    let (width, height) = (part(width), part(height));
    let levels = resized(radiograph, width, height).map(to_bytes);
    (width, height, levels.unwrap_or_else(|| vec![0; width as usize * height as usize]))
}

/// 16 bits rounded to 8, half up.
fn to_bytes(levels: Vec<u16>) -> Vec<u8> {
    levels.into_iter().map(|level| ((u32::from(level) + 128) / 257) as u8).collect()
}

/// The image at `width` × `height` with 16 bits a pixel.
fn resized(radiograph: &Radiograph, width: u32, height: u32) -> Option<Vec<u16>> {
    let levels: Vec<U16> = match &radiograph.pixels {
        Pixels::Grey8(levels) => levels.iter().map(|&level| U16::new(u16::from(level) * 257)).collect(),
        Pixels::Grey16(levels) => levels.iter().map(|&level| U16::new(level)).collect(),
    };
    let source = TypedImageRef::new(radiograph.width, radiograph.height, &levels).ok()?;
    let mut target = TypedImage::<U16>::new(width, height);
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Bilinear)).use_alpha(false);
    Resizer::new().resize_typed(&source, &mut target, &options).ok()?;
    Some(target.pixels().iter().map(|pixel| pixel.0).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::radiograph::phantom;

    /// The weights of one output position, as integers of `precision` bits: where they begin, and they.
    fn weights(input: u32, output: u32) -> (Vec<(usize, Vec<i64>)>, u32) {
        let scale = f64::from(input) / f64::from(SIZE);
        let reach = scale.max(1.0);
        let real: Vec<(usize, Vec<f64>)> = (0..output)
            .map(|index| {
                let center = (f64::from(index) + 0.5) * scale;
                let (from, to) = ((center - reach).floor().max(0.0), (center + reach).ceil().min(f64::from(input)));
                let weight = |x: u32| (1.0 - ((f64::from(x) - (center - 0.5)) * (1.0 / reach)).abs()).max(0.0);
                let all: Vec<f64> = (from as u32..to as u32).map(weight).collect();
                let mut sum = 0.0;
                all.iter().for_each(|weight| sum += weight);
                (from as usize, all.into_iter().map(|weight| weight / sum).collect())
            })
            .collect();
        let largest = real.iter().flat_map(|(_, weights)| weights).fold(0.0f64, |a, &b| a.max(b));
        // As many bits as leave the largest weight below 2³¹, at most 45.
        let precision = (0..46).take_while(|&p| (largest * (1u64 << p) as f64).round() < 2f64.powi(31)).last().unwrap();
        let whole = |weight: f64| (weight * (1u64 << precision) as f64).round() as i64;
        (real.into_iter().map(|(from, all)| (from, all.into_iter().map(whole).collect())).collect(), precision)
    }

    /// Resizes rows of `width` levels to rows of 224.
    fn resize_rows(levels: &[u16], width: u32) -> Vec<u16> {
        if width == SIZE {
            return levels.to_vec();
        }
        let (weights, precision) = weights(width, SIZE);
        let mut out = Vec::new();
        for row in levels.chunks_exact(width as usize) {
            for (from, weights) in &weights {
                let sum: i64 =
                    weights.iter().zip(&row[*from..]).map(|(&weight, &level)| weight * i64::from(level)).sum();
                out.push(((sum + (1 << (precision - 1))) >> precision).clamp(0, 65535) as u16);
            }
        }
        out
    }

    fn transpose(levels: &[u16], width: usize) -> Vec<u16> {
        (0..width).flat_map(|column| levels.iter().skip(column).step_by(width).copied()).collect()
    }

    #[test]
    fn the_result_is_that_of_the_naive_integer_arithmetic_to_the_last_bit() {
        let square = phantom::radiograph(11, 317);
        for (width, height) in [(256, 256), (317, 317), (500, 224), (224, 300), (100, 150), (31, 700)] {
            // Any pixels do: those of the phantom, repeated, mixed to fill 16 bits.
            let Pixels::Grey8(levels) = &square.pixels else { unreachable!("phantoms have 8 bits") };
            let mix = |i: u32| u16::from(levels[i as usize % levels.len()]) * 251 + (i % 997) as u16;
            let levels: Vec<u16> = (0..width * height).map(mix).collect();
            let image = Radiograph { width, height, pixels: Pixels::Grey16(levels.clone()), ..square.clone() };
            let rows = resize_rows(&levels, width);
            let columns = resize_rows(&transpose(&rows, SIZE as usize), height);
            assert!(resized(&image, SIZE, SIZE).unwrap() == transpose(&columns, SIZE as usize), "{width} × {height}");
        }
    }

    #[test]
    fn a_small_copy_keeps_its_proportions_and_is_never_larger() {
        let square = phantom::radiograph(3, 300);
        let Pixels::Grey8(levels) = &square.pixels else { unreachable!("phantoms have 8 bits") };
        let of = |width: u32, height: u32| {
            let levels = levels.iter().copied().cycle().take((width * height) as usize).collect();
            fitted(&Radiograph { width, height, pixels: Pixels::Grey8(levels), ..square.clone() }, 100)
        };
        for (extent, copy) in [
            ((300, 300), (100, 100)),
            ((300, 150), (100, 50)),
            ((1, 5000), (1, 100)),
            ((7, 9), (7, 9)),
            ((333, 250), (100, 75)),
        ] {
            let (width, height, copied) = of(extent.0, extent.1);
            assert_eq!((width, height), copy);
            assert_eq!(copied.len(), (width * height) as usize);
        }
        assert_eq!(fitted(&square, 300).2, *levels, "of its own size it is itself");
    }
}
