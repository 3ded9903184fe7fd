//! PNG and JPEG files as radiographs: grey, or colour whose channels agree. Not cameras' raw frames, and not the JPEG
//! streams inside DICOM files (see [`super::codec`]).
//!
//! The decoders are those of the `image` crate (`png` and `zune-jpeg`, both pure Rust); width, height and the bytes of
//! the decoded image are checked from the header, before anything is allocated for them.

use super::codec::{CodecError, Extent, jpeg};
use super::{Limits, Pixels, Radiograph, Refusal, RefusalCode, guard};
use image::{DynamicImage, ImageBuffer, ImageDecoder, ImageFormat, ImageReader, metadata::Orientation};
use std::io::Cursor;

/// How far the channels of a grey pixel may lie apart, of 255. JPEG's conversion from YCbCr with rounded chroma moves a
/// grey pixel by up to 2; scanners' and viewers' colour profiles tint a little more.
const CHANNEL_TOLERANCE: u16 = 12;

/// The share of pixels that may be more coloured than that (a marker, a compression artefact at an edge): 1 in 100.
const COLOURED_PIXELS_ONE_IN: usize = 100;

/// A decoded raster: width, height, grey levels and what was done to get them.
pub(super) struct Raster {
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) pixels: Pixels,
    pub(super) applied: Vec<String>,
}

/// Decodes a PNG.
pub(super) fn open_png(bytes: &[u8], limits: &Limits) -> Result<Raster, Refusal> {
    open_with_image_crate(bytes, ImageFormat::Png, limits)
}

/// Decodes a JPEG: baseline and progressive with 8 bits, extended grey ones with 12, lossless grey ones with up to 16.
pub(super) fn open_jpeg(bytes: &[u8], limits: &Limits) -> Result<Raster, Refusal> {
    let damaged = |_| damaged("JPEG");
    let header = jpeg::Header::read(bytes).map_err(damaged)?;
    // The decoder fills in what a truncated file lacks: half a chest, without a word. The end must be there.
    header.require_end(bytes).map_err(damaged)?;
    if header.decodable_by_image_crate() {
        return open_with_image_crate(bytes, ImageFormat::Jpeg, limits);
    }
    if header.components != 1 {
        return Err(Refusal::new(
            RefusalCode::Unsupported,
            "This JPEG is of a colour kind that the box cannot read. Export it as PNG or as baseline JPEG.",
        ));
    }
    limits.check_image(header.columns.into(), header.rows.into(), 2)?;
    let extent = Extent { rows: header.rows, columns: header.columns, components: 1 };
    let samples = jpeg::decode_grey(bytes, extent).map_err(|error| match error {
        CodecError::Damaged(_) => damaged(error),
        CodecError::Unsupported(_) => Refusal::new(
            RefusalCode::Unsupported,
            "This JPEG is of a kind that the box cannot read. Export it as PNG or as baseline JPEG.",
        ),
    })?;
    let maximum = (1u32 << header.precision) - 1;
    let spread = |sample: u16| (u32::from(sample).min(maximum) * 65535 / maximum) as u16;
    Ok(Raster {
        width: header.columns.into(),
        height: header.rows.into(),
        pixels: Pixels::Grey16(samples.into_iter().map(spread).collect()),
        applied: vec![format!("JPEG {}, {} bits grey", header.process(), header.precision)],
    })
}

/// Decodes with the `image` crate, limits first.
fn open_with_image_crate(bytes: &[u8], format: ImageFormat, limits: &Limits) -> Result<Raster, Refusal> {
    let name = if format == ImageFormat::Png { "PNG" } else { "JPEG" };
    guard(|| {
        let mut bounds = image::Limits::default();
        bounds.max_alloc = Some(limits.max_decoded_bytes);
        let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
        reader.limits(bounds);
        let mut decoder = reader.into_decoder().map_err(|error| refuse(&error, name))?;
        let (width, height) = decoder.dimensions();
        limits.check_image(width, height, u64::from(decoder.color_type().bytes_per_pixel()))?;
        let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
        let mut image = DynamicImage::from_decoder(decoder).map_err(|error| refuse(&error, name))?;
        let mut applied = vec![format!("{name}, {:?}", image.color())];
        if orientation != Orientation::NoTransforms {
            image.apply_orientation(orientation);
            applied.push(format!("Exif orientation {}", orientation.to_exif()));
        }
        let (width, height) = (image.width(), image.height());
        Ok(Raster { width, height, pixels: grey(image)?, applied })
    })
    .unwrap_or_else(|_| Err(damaged(name)))
}

/// The grey levels of a decoded image; refused when its channels disagree.
fn grey(image: DynamicImage) -> Result<Pixels, Refusal> {
    Ok(match image {
        DynamicImage::ImageLuma8(image) => Pixels::Grey8(image.into_raw()),
        DynamicImage::ImageLuma16(image) => Pixels::Grey16(image.into_raw()),
        DynamicImage::ImageLumaA8(image) => Pixels::Grey8(
            image.pixels().map(|pixel| over_black(pixel.0[0].into(), pixel.0[1].into(), 255) as u8).collect(),
        ),
        DynamicImage::ImageLumaA16(image) => Pixels::Grey16(
            image.pixels().map(|pixel| over_black(pixel.0[0].into(), pixel.0[1].into(), 65535) as u16).collect(),
        ),
        DynamicImage::ImageRgb8(image) => {
            Pixels::Grey8(grey_of_colour(image.as_raw(), 3, 255)?.into_iter().map(|level| level as u8).collect())
        }
        DynamicImage::ImageRgba8(image) => {
            Pixels::Grey8(grey_of_colour(image.as_raw(), 4, 255)?.into_iter().map(|level| level as u8).collect())
        }
        DynamicImage::ImageRgb16(image) => Pixels::Grey16(grey_of_colour(image.as_raw(), 3, 65535)?),
        DynamicImage::ImageRgba16(image) => Pixels::Grey16(grey_of_colour(image.as_raw(), 4, 65535)?),
        _ => return Err(damaged("image")),
    })
}

/// Grey levels of interleaved red, green, blue and, with four channels, alpha; refused when the colours disagree.
/// `maximum` is the value of white.
pub(super) fn grey_of_colour<T: Copy + Into<u32>>(
    samples: &[T],
    channels: usize,
    maximum: u32,
) -> Result<Vec<u16>, Refusal> {
    let tolerance = u32::from(CHANNEL_TOLERANCE) * maximum / 255;
    let mut coloured = 0;
    let mut levels = Vec::with_capacity(samples.len() / channels);
    for pixel in samples.chunks_exact(channels) {
        let [red, green, blue]: [u32; 3] = [pixel[0].into(), pixel[1].into(), pixel[2].into()];
        let alpha = pixel.get(3).map_or(maximum, |&alpha| alpha.into());
        let spread = red.max(green).max(blue) - red.min(green).min(blue);
        coloured += usize::from(over_black(spread, alpha, maximum) > tolerance);
        // Rec. 601 luma, the weights of JPEG's own Y; equal channels come out as they are.
        let luma = (299 * red + 587 * green + 114 * blue + 500) / 1000;
        levels.push(over_black(luma, alpha, maximum) as u16);
    }
    if coloured > levels.len() / COLOURED_PIXELS_ONE_IN {
        return Err(Refusal::new(
            RefusalCode::NotARadiograph,
            "This is a colour picture, not a radiograph. Export the radiograph itself from the imaging system.",
        ));
    }
    Ok(levels)
}

/// A level with its alpha, laid over black: what is transparent shows no film.
fn over_black(level: u32, alpha: u32, maximum: u32) -> u32 {
    // Both are at most 65535: the product and the rounding fit 32 bits.
    if alpha >= maximum {
        level
    } else {
        ((u64::from(level) * u64::from(alpha) + u64::from(maximum / 2)) / u64::from(maximum)) as u32
    }
}

/// A radiograph as a grey PNG of its own depth; `None` when its pixels do not fill its width and height.
pub(super) fn encode_png(radiograph: &Radiograph) -> Option<Vec<u8>> {
    let (width, height) = (radiograph.width, radiograph.height);
    let image = match &radiograph.pixels {
        Pixels::Grey8(levels) => DynamicImage::ImageLuma8(ImageBuffer::from_raw(width, height, levels.clone())?),
        Pixels::Grey16(levels) => DynamicImage::ImageLuma16(ImageBuffer::from_raw(width, height, levels.clone())?),
    };
    let mut png = Cursor::new(Vec::new());
    image.write_to(&mut png, ImageFormat::Png).ok()?;
    Some(png.into_inner())
}

/// The refusal for an error of the `image` crate, whose own text may quote the file and is not passed on.
fn refuse(error: &image::ImageError, name: &str) -> Refusal {
    match error {
        image::ImageError::Limits(_) => Refusal::limit("max_decoded_bytes", "memory to decode"),
        image::ImageError::Unsupported(_) => Refusal::new(
            RefusalCode::Unsupported,
            format!("This {name} is of a kind that the box cannot read. Export it as an ordinary grey PNG."),
        ),
        _ => damaged(name),
    }
}

fn damaged(name: &str) -> Refusal {
    Refusal::new(
        RefusalCode::Damaged,
        format!("This {name} file is damaged or was not copied completely. Send it again."),
    )
}
