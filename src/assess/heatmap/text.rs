//! Words as pixels: two weights of Inter, antialiased. Not where the words stand.
//!
//! Inter (Rasmus Andersson and the Inter project authors, SIL Open Font License 1.1: `font/OFL.txt`), version 4.001,
//! cut down to the characters of Latin-1 and some punctuation, without hinting: 35 kB in the program, and the same
//! pixels on every processor, since drawing takes nothing but IEEE 754's own operations.

use ab_glyph::{Font, FontRef, Glyph, ScaleFont, point};
use std::sync::LazyLock;

/// A weight of the font.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Weight {
    Regular,
    SemiBold,
}

static FONTS: LazyLock<Option<[FontRef<'static>; 2]>> = LazyLock::new(|| {
    let regular = FontRef::try_from_slice(include_bytes!("font/inter-regular.ttf")).ok()?;
    let semibold = FontRef::try_from_slice(include_bytes!("font/inter-semibold.ttf")).ok()?;
    Some([regular, semibold])
});

/// A size (pixels from the highest ascender to the lowest descender) and weight to write in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Style {
    pub(super) weight: Weight,
    pub(super) pixels: f32,
}

impl Style {
    pub(super) const fn regular(pixels: f32) -> Self {
        Self { weight: Weight::Regular, pixels }
    }

    pub(super) const fn bold(pixels: f32) -> Self {
        Self { weight: Weight::SemiBold, pixels }
    }

    /// Pixels from one line to the next.
    pub(super) fn line_height(self) -> u32 {
        (self.pixels * 1.2).ceil() as u32
    }

    /// Pixels that a line of text takes.
    pub(super) fn width(self, text: &str) -> f32 {
        let Some(font) = self.font() else { return 0.0 };
        let font = font.as_scaled(self.pixels);
        text.chars().map(|letter| font.h_advance(glyph_id(&font, letter))).sum()
    }

    /// The lines of a text that is no line wider than `width`: broken at spaces, and within a word that is wider
    /// itself.
    pub(super) fn wrap(self, text: &str, width: f32) -> Vec<String> {
        let mut lines = Vec::new();
        let mut line = String::new();
        for word in text.split_whitespace() {
            let longer = if line.is_empty() { word.to_owned() } else { format!("{line} {word}") };
            if self.width(&longer) <= width {
                line = longer;
                continue;
            }
            lines.extend((!line.is_empty()).then(|| std::mem::take(&mut line)));
            for letter in word.chars() {
                line.push(letter);
                if self.width(&line) > width && line.chars().nth(1).is_some() {
                    line.pop();
                    lines.push(std::mem::replace(&mut line, letter.to_string()));
                }
            }
        }
        lines.extend((!line.is_empty()).then_some(line));
        lines
    }

    /// Draws a line whose upper left corner is at `left`, `top`: `dot` gets every pixel that is touched and how much,
    /// 0..=1.
    pub(super) fn draw(self, text: &str, left: f32, top: f32, mut dot: impl FnMut(i32, i32, f32)) {
        let Some(font) = self.font() else { return };
        let font = font.as_scaled(self.pixels);
        let mut x = left;
        for letter in text.chars() {
            let id = glyph_id(&font, letter);
            let glyph = Glyph { id, scale: self.pixels.into(), position: point(x, top + font.ascent()) };
            x += font.h_advance(id);
            if let Some(outline) = font.outline_glyph(glyph) {
                let corner = outline.px_bounds().min;
                outline.draw(|across, down, cover| {
                    dot(corner.x as i32 + across as i32, corner.y as i32 + down as i32, cover.clamp(0.0, 1.0));
                });
            }
        }
    }

    /// The font of this weight; there always is one, as a test shows.
    fn font(self) -> Option<&'static FontRef<'static>> {
        let [regular, semibold] = FONTS.as_ref()?;
        Some(match self.weight {
            Weight::Regular => regular,
            Weight::SemiBold => semibold,
        })
    }
}

/// The glyph of a character; a question mark where the font has none.
fn glyph_id<F: Font, S: ScaleFont<F>>(font: &S, letter: char) -> ab_glyph::GlyphId {
    match font.glyph_id(letter) {
        none if none.0 == 0 => font.glyph_id('?'),
        id => id,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn both_fonts_have_every_letter_that_is_written() {
        for weight in [Weight::Regular, Weight::SemiBold] {
            let font = Style { weight, pixels: 20.0 }.font().expect("an embedded font");
            for letter in (' '..='~').chain("°±²·×ÄÖÜßàéñ–—‘’“”…−".chars()) {
                assert_ne!(font.glyph_id(letter).0, 0, "{weight:?}: {letter}");
            }
        }
        assert_eq!(Style::bold(20.0).width("中"), Style::bold(20.0).width("?"));
    }

    #[test]
    fn ink_stays_within_the_line_and_its_width() {
        let style = Style::regular(30.0);
        let text = "Ägjpqy|{_WM%";
        let (mut ink, width) = (0.0, style.width(text));
        style.draw(text, 0.0, 0.0, |x, y, cover| {
            assert!(
                cover < 0.02 || ((-1..=width as i32 + 1).contains(&x) && (0..=style.line_height() as i32).contains(&y))
            );
            ink += cover;
        });
        assert!(ink > 500.0, "{ink}");
    }

    proptest! {
        #[test]
        fn wrapping_loses_no_letter_and_no_line_is_too_wide(text in "[a-zA-Z .,]{0,200}", width in 30.0f32..400.0) {
            let style = Style::regular(16.0);
            let lines = style.wrap(&text, width);
            let letters = |text: &str| text.chars().filter(|letter| !letter.is_whitespace()).collect::<String>();
            prop_assert_eq!(letters(&lines.concat()), letters(&text));
            for line in &lines {
                prop_assert!(style.width(line) <= width && !line.is_empty(), "{} in {}", line, width);
            }
        }
    }
}
