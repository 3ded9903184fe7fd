//! Synthetic frontal chest radiographs, drawn in code: thorax, lungs, ribs, spine, heart, diaphragm, clavicles, noise.
//! Not patients and not training data: they stand in for radiographs in the demo, in golden vectors and in tests.
//!
//! The same seed and size give the same bytes on every processor: only the arithmetic that IEEE 754 defines to the last
//! bit is used (+ − × ÷), no function of a mathematics library.

use super::{Origin, Pixels, Radiograph};
use sha2::{Digest, Sha256};

/// A phantom as an 8-bit radiograph of `size` × `size` pixels (at least 1), as if it had come as a raster image.
pub fn radiograph(seed: u64, size: u32) -> Radiograph {
    let pixels = phantom(seed, size);
    let size = size.max(1);
    let content_sha256 = super::hex(&Sha256::digest(&pixels));
    Radiograph {
        width: size,
        height: size,
        pixels: Pixels::Grey8(pixels),
        origin: Origin::of_raster(content_sha256),
        applied: vec!["synthetic phantom".into()],
    }
}

/// The grey levels of a phantom, row by row, `size` × `size` (at least 1). Varied by `seed`.
pub fn phantom(seed: u64, size: u32) -> Vec<u8> {
    let size = size.max(1);
    let body = Body::new(seed);
    let mut pixels = Vec::with_capacity(size as usize * size as usize);
    for row in 0..size {
        for column in 0..size {
            // Pixel centres, both coordinates in −1..1: the anatomy does not move with the size.
            let x = (f64::from(column) + 0.5) / f64::from(size) * 2.0 - 1.0;
            let y = (f64::from(row) + 0.5) / f64::from(size) * 2.0 - 1.0;
            let noise = unit(hash(hash(seed ^ u64::from(row)) ^ u64::from(column))) - 0.5;
            let level = body.level(x, y) + noise * body.noise;
            pixels.push((level.clamp(0.0, 1.0) * 255.0 + 0.5) as u8);
        }
    }
    pixels
}

/// What differs from phantom to phantom. Lengths in half image widths.
struct Body {
    exposure: f64,
    noise: f64,
    shift_x: f64,
    shift_y: f64,
    trunk: f64,
    lung_width: f64,
    lung_bottom: f64,
    heart: f64,
    rib_offset: f64,
    rib_slope: f64,
    /// Soft opacities: centre x, centre y, radius, strength.
    opacities: [[f64; 4]; 4],
}

impl Body {
    fn new(seed: u64) -> Self {
        let mut state = hash(seed);
        let mut between = |low: f64, high: f64| {
            state = hash(state);
            low + (high - low) * unit(state)
        };
        Self {
            exposure: between(0.92, 1.06),
            noise: between(0.012, 0.03),
            shift_x: between(-0.04, 0.04),
            shift_y: between(-0.04, 0.04),
            trunk: between(0.84, 0.93),
            lung_width: between(0.33, 0.38),
            lung_bottom: between(0.46, 0.60),
            heart: between(0.26, 0.34),
            rib_offset: between(-0.05, 0.05),
            rib_slope: between(0.34, 0.50),
            opacities: std::array::from_fn(|_| {
                let side = if between(0.0, 1.0) < 0.5 { -1.0 } else { 1.0 };
                // Three quarters of them vanish: most phantoms are clear, some are patchy.
                let strength = (between(0.0, 0.36) - 0.27).max(0.0) * 2.0;
                [side * between(0.28, 0.58), between(-0.3, 0.4), between(0.12, 0.24), strength]
            }),
        }
    }

    /// The grey level at a point, 0 black (air) to 1 white (dense).
    fn level(&self, x: f64, y: f64) -> f64 {
        let (x, y) = (x - self.shift_x, y - self.shift_y);
        let inside = self.trunk_mask(x, y);
        // Where the heart lies before the lung there is little air in the beam.
        let lung = self.lung_mask(x, y) * inside * (1.0 - 0.9 * self.heart_mask(x, y));
        // Soft tissue is denser in the middle and below the diaphragm.
        let mut level = inside * (0.66 - 0.12 * x * x + 0.08 * step(0.3, 0.9, y));
        level *= 1.0 - 0.62 * lung;
        level += inside * self.spine(x, y);
        level += lung * (self.ribs(x, y) + self.vessels(x, y));
        level += 0.10 * inside * clavicle(x, y);
        for [centre_x, centre_y, radius, strength] in self.opacities {
            level += lung * strength * bump(((x - centre_x) / radius).powi(2) + ((y - centre_y) / radius).powi(2));
        }
        (0.03 + 0.94 * level) * self.exposure
    }

    /// 1 inside neck, shoulders and trunk.
    fn trunk_mask(&self, x: f64, y: f64) -> f64 {
        let shoulder = step(-1.0, -0.55, y);
        let half_width = 0.24 + (self.trunk - 0.24) * shoulder - 0.05 * step(-0.3, 0.4, y);
        1.0 - step(half_width - 0.04, half_width + 0.05, x.abs())
    }

    /// 1 inside either lung: two tall ovals, narrow at the apex, cut off by the domes of the diaphragm.
    fn lung_mask(&self, x: f64, y: f64) -> f64 {
        let from_apex = (y + 0.82) / (self.lung_bottom + 0.82);
        // The lung widens from the apex downwards.
        let half_width = self.lung_width * (0.62 + 0.42 * step(0.0, 0.75, from_apex));
        let centre = 0.13 + half_width;
        let across = (x.abs() - centre) / half_width;
        let along = (y - (self.lung_bottom - 0.62)) / 0.78;
        let along = if along < 0.0 { along } else { 0.35 * along };
        let oval = across * across * (0.6 + 0.4 * across * across) + along * along;
        // The right dome (left in the image) stands a little higher: the liver.
        let height = if x < 0.0 { 0.05 } else { 0.0 };
        let dome = self.lung_bottom - height + 0.26 * across * across;
        (1.0 - step(0.78, 1.05, oval)) * (1.0 - step(dome - 0.03, dome + 0.03, y))
    }

    /// The vertebral column: a bright band with darker discs.
    fn spine(&self, x: f64, y: f64) -> f64 {
        let band = 1.0 - step(0.07, 0.13, x.abs());
        let disc = triangle(y * 7.0 + self.rib_offset * 10.0);
        band * (0.10 + 0.05 * step(0.2, 0.6, disc))
    }

    /// Posterior ribs, falling outwards, and the fainter anterior ones, falling inwards.
    fn ribs(&self, x: f64, y: f64) -> f64 {
        let outwards = x.abs() - 0.1;
        let posterior = y - self.rib_slope * outwards * (0.2 + outwards) + self.rib_offset;
        let anterior = y + 0.55 * outwards + 0.4 * self.rib_offset;
        0.13 * step(0.45, 0.75, triangle(posterior * 5.2)) + 0.05 * step(0.5, 0.8, triangle(anterior * 4.0 + 0.3))
    }

    /// The hila and the vessels that fade outwards from them.
    fn vessels(&self, x: f64, y: f64) -> f64 {
        let (dx, dy) = ((x.abs() - 0.17) / 0.20, (y - 0.02) / 0.32);
        0.15 * bump(dx * dx + dy * dy)
    }

    /// The heart's silhouette, to the right of the image's middle.
    fn heart_mask(&self, x: f64, y: f64) -> f64 {
        let (dx, dy) = (x - 0.13, y - (self.lung_bottom - 0.20));
        // Its axis falls to the left of the patient.
        let (along, across) = (0.82 * dx + 0.57 * dy, 0.82 * dy - 0.57 * dx);
        let oval = (along / (self.heart + 0.08)).powi(2) + (across / self.heart).powi(2);
        1.0 - step(0.72, 1.15, oval)
    }
}

/// The collar bones: two slanted bands.
fn clavicle(x: f64, y: f64) -> f64 {
    let outwards = x.abs();
    let middle = -0.60 - 0.18 * (outwards - 0.1);
    let distance = ((y - middle) / 0.045).powi(2);
    bump(distance) * step(0.08, 0.16, outwards) * (1.0 - step(0.62, 0.74, outwards))
}

/// Smoothly 0 to 1 as `value` goes from `low` to `high`.
fn step(low: f64, high: f64, value: f64) -> f64 {
    let t = ((value - low) / (high - low)).clamp(0.0, 1.0);
    t * t * (3.0 - 2.0 * t)
}

/// A soft bump: 1 at a squared distance of 0, 0 from a squared distance of 1.
fn bump(squared_distance: f64) -> f64 {
    let t = (1.0 - squared_distance).max(0.0);
    t * t
}

/// A triangle wave of period 1 between 0 and 1.
fn triangle(value: f64) -> f64 {
    let phase = value - value.floor();
    1.0 - (2.0 * phase - 1.0).abs()
}

/// SplitMix64's step and mixing function (Steele, Lea & Flood 2014).
fn hash(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A number in 0..1 from a hash: its upper 53 bits.
fn unit(hash: u64) -> f64 {
    (hash >> 11) as f64 / (1u64 << 53) as f64
}
