//! Folds VGG16's first layer, which reads three normalised colour channels, to one channel of plain grey levels.
//!
//! A grey image has the same level g in all three channels, and the normalisation of channel c is (g − m_c) × s_c. So
//!
//! ```text
//! Σ_c Σ_k w_ck (g_k − m_c) s_c  =  Σ_k (Σ_c w_ck s_c) g_k  −  Σ_c Σ_k w_ck m_c s_c
//! ```
//!
//! and the folded layer has the weights Σ_c w_c s_c and the bias b − Σ_c Σ_k w_ck m_c s_c. That is exact wherever the
//! kernel lies inside the image. At the border it is not: the padding's zero meant the mean colour, and now means black.

use crate::weights::FloatConv;
use anyhow::{Result, ensure};
use std::fmt;

/// How the imported weights expect their input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Convention {
    /// Oxford and Keras: BGR, 0–255, minus [103.939, 116.779, 123.68], not scaled.
    Caffe,
    /// PyTorch and the ONNX model zoo: RGB, 0–1, minus [0.485, 0.456, 0.406], divided by [0.229, 0.224, 0.225].
    Torchvision,
}

impl Convention {
    /// The mean m and the factor s of each channel, in the order the weights have them: input = (grey − m) × s.
    pub(crate) fn channels(self) -> [(f64, f64); 3] {
        match self {
            Convention::Caffe => [(103.939, 1.0), (116.779, 1.0), (123.68, 1.0)],
            Convention::Torchvision => {
                [(0.485, 0.229), (0.456, 0.224), (0.406, 0.225)].map(|(m, d)| (m * 255.0, 1.0 / (d * 255.0)))
            }
        }
    }
}

impl fmt::Display for Convention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Convention::Caffe => "caffe",
            Convention::Torchvision => "torchvision",
        })
    }
}

/// The first layer, reading one channel of grey levels 0–255.
pub(crate) fn fold(conv: &FloatConv, convention: Convention) -> Result<FloatConv> {
    ensure!(conv.in_channels == 3, "{} reads {} channels; VGG16's first layer reads 3", conv.name, conv.in_channels);
    let area = conv.kernel * conv.kernel;
    let channels = convention.channels();
    let mut weights = Vec::with_capacity(conv.out_channels * area);
    let mut bias = Vec::with_capacity(conv.out_channels);
    for (kernel, b) in conv.weights.chunks_exact(3 * area).zip(&conv.bias) {
        let mut folded = vec![0f64; area];
        let mut offset = f64::from(*b);
        for (plane, (mean, factor)) in kernel.chunks_exact(area).zip(channels) {
            for (sum, w) in folded.iter_mut().zip(plane) {
                *sum += f64::from(*w) * factor;
                offset -= f64::from(*w) * mean * factor;
            }
        }
        weights.extend(folded.into_iter().map(|w| w as f32));
        bias.push(offset as f32);
    }
    Ok(FloatConv { in_channels: 1, weights, bias, name: conv.name.clone(), ..*conv })
}

/// How far the folded layer is from the original on one image, as the greatest absolute difference of an output.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FoldDifference {
    /// Where the kernel lies inside the image.
    pub(crate) interior: f64,
    /// In the outermost ring of pixels.
    pub(crate) border: f64,
    /// The greatest absolute output of the original, to compare with.
    pub(crate) greatest: f64,
}

/// Measures [`fold`] on a test image of `size` × `size` grey levels that covers the whole range.
pub(crate) fn measure(conv: &FloatConv, folded: &FloatConv, convention: Convention, size: usize) -> FoldDifference {
    let grey: Vec<f64> = (0..size * size).map(|i| ((i / size * 37 + i % size * 11) % 256) as f64).collect();
    let planes: Vec<Vec<f64>> =
        convention.channels().iter().map(|(m, s)| grey.iter().map(|g| (g - m) * s).collect()).collect();
    let original = naive(conv, &planes, size);
    let new = naive(folded, &[grey], size);
    let mut difference = FoldDifference { interior: 0.0, border: 0.0, greatest: 0.0 };
    for (index, (a, b)) in original.iter().zip(&new).enumerate() {
        let (row, column) = (index / size % size, index % size);
        let ring = row == 0 || column == 0 || row == size - 1 || column == size - 1;
        let worst = if ring { &mut difference.border } else { &mut difference.interior };
        *worst = worst.max((a - b).abs());
        difference.greatest = difference.greatest.max(a.abs());
    }
    difference
}

/// The convolution by its definition, in f64, padded with zeros: one plane per output channel.
fn naive(conv: &FloatConv, planes: &[Vec<f64>], size: usize) -> Vec<f64> {
    let k = conv.kernel;
    let reach = (k / 2) as isize;
    let mut out = Vec::with_capacity(conv.out_channels * size * size);
    for o in 0..conv.out_channels {
        for row in 0..size as isize {
            for column in 0..size as isize {
                let mut sum = f64::from(conv.bias[o]);
                for (c, plane) in planes.iter().enumerate() {
                    for (y, x) in (0..k).flat_map(|y| (0..k).map(move |x| (y, x))) {
                        let (r, q) = (row + y as isize - reach, column + x as isize - reach);
                        if (0..size as isize).contains(&r) && (0..size as isize).contains(&q) {
                            let w = conv.weights[((o * conv.in_channels + c) * k + y) * k + x];
                            sum += f64::from(w) * plane[r as usize * size + q as usize];
                        }
                    }
                }
                out.push(sum);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn first_layer(values: &[f32]) -> FloatConv {
        FloatConv {
            name: "block1_conv1".into(),
            out_channels: 2,
            in_channels: 3,
            kernel: 3,
            weights: values[..54].to_vec(),
            bias: values[54..].to_vec(),
        }
    }

    proptest! {
        #[test]
        fn inside_the_image_the_folded_layer_is_the_three_channel_one(
            values in prop::collection::vec(-1f32..1.0, 56),
            caffe in any::<bool>(),
        ) {
            let convention = if caffe { Convention::Caffe } else { Convention::Torchvision };
            let conv = first_layer(&values);
            let folded = fold(&conv, convention).unwrap();
            let difference = measure(&conv, &folded, convention, 9);
            // The folded weights are rounded to f32 once: 24 bits of a sum of at most 9 × 255 × 3 (caffe).
            prop_assert!(difference.interior < 1e-3, "{difference:?}");
        }
    }

    #[test]
    fn at_the_border_the_padding_differs_and_the_measurement_sees_it() {
        let conv = first_layer(&[0.5; 56]);
        let folded = fold(&conv, Convention::Caffe).unwrap();
        let difference = measure(&conv, &folded, Convention::Caffe, 9);
        // A corner misses five of nine kernel cells, each worth 0.5 × the sum of the means.
        let corner = 5.0 * 0.5 * (103.939 + 116.779 + 123.68);
        assert!((difference.border - corner).abs() < 1e-3, "{difference:?}");
    }

    #[test]
    fn a_layer_that_does_not_read_colour_is_refused() {
        let grey = fold(&first_layer(&[0.1; 56]), Convention::Caffe).unwrap();
        assert!(fold(&grey, Convention::Caffe).is_err());
    }
}
