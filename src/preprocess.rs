//! Radiograph → Tensor<u8>: the one path that training, calibration and the box share. Versioned: a change of any grey
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
    let shape = [1, SIZE as usize, SIZE as usize, 1];
    resized(radiograph)
        .map(|levels| levels.into_iter().map(|level| ((u32::from(level) + 128) / 257) as u8).collect())
        .and_then(|bytes| Tensor::new(shape, bytes))
        .unwrap_or_else(|| Tensor::filled(shape, 0))
}

/// The image at 224 × 224 with 16 bits a pixel.
fn resized(radiograph: &Radiograph) -> Option<Vec<u16>> {
    let levels: Vec<U16> = match &radiograph.pixels {
        Pixels::Grey8(levels) => levels.iter().map(|&level| U16::new(u16::from(level) * 257)).collect(),
        Pixels::Grey16(levels) => levels.iter().map(|&level| U16::new(level)).collect(),
    };
    let source = TypedImageRef::new(radiograph.width, radiograph.height, &levels).ok()?;
    let mut target = TypedImage::<U16>::new(SIZE, SIZE);
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Bilinear)).use_alpha(false);
    Resizer::new().resize_typed(&source, &mut target, &options).ok()?;
    Some(target.pixels().iter().map(|pixel| pixel.0).collect())
}
