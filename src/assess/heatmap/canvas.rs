//! A picture to draw areas and lines of text on. Not what is drawn.

use super::Area;
use super::colour::mix;
use super::text::Style;
use image::{Rgb, RgbImage};

/// A colour as red, green, blue.
pub(super) type Colour = [u8; 3];

/// The picture while it is drawn. What lies outside it is dropped.
pub(super) struct Canvas(pub(super) RgbImage);

impl Canvas {
    pub(super) fn new(width: u32, height: u32, colour: Colour) -> Self {
        Self(RgbImage::from_pixel(width, height, Rgb(colour)))
    }

    /// Fills an area with one colour.
    pub(super) fn fill(&mut self, area: Area, colour: Colour) {
        self.paint(area, |_, _| colour);
    }

    /// Fills an area with the colours of its columns and rows, both counted from its corner.
    pub(super) fn paint(&mut self, area: Area, colour: impl Fn(u32, u32) -> Colour) {
        for row in 0..area.height {
            for column in 0..area.width {
                if let Some(pixel) = self.0.get_pixel_mut_checked(area.left + column, area.top + row) {
                    *pixel = Rgb(colour(column, row));
                }
            }
        }
    }

    /// Writes a line; the right end of its ink's box.
    pub(super) fn write(&mut self, text: &str, left: f32, top: u32, style: Style, colour: Colour) -> f32 {
        style.draw(text, left, top as f32, |x, y, cover| {
            let (Ok(x), Ok(y)) = (u32::try_from(x), u32::try_from(y)) else { return };
            if let Some(Rgb(pixel)) = self.0.get_pixel_mut_checked(x, y) {
                *pixel = std::array::from_fn(|i| mix(pixel[i], colour[i], cover.into()));
            }
        });
        left + style.width(text)
    }
}
