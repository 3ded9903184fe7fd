//! Figures as people read them, the same in statements, tables, card and page.

use super::intervals::Interval;

/// A share as a percentage with one decimal: `93.4 %`, with a space that no line is broken at.
pub(crate) fn percent(share: f64) -> String {
    format!("{:.1}\u{a0}%", 100.0 * share)
}

/// An interval of shares: `90.9–95.3 %`.
pub(crate) fn percent_range([low, high]: Interval) -> String {
    format!("{:.1}–{:.1}\u{a0}%", 100.0 * low, 100.0 * high)
}

/// A difference of percentages: `+0.2`, `−1.3`, `0.0`.
pub(crate) fn points(points: f64) -> String {
    let text = format!("{points:+.1}");
    match text.as_str() {
        "+0.0" | "-0.0" => "0.0".into(),
        text => text.replace('-', "−"),
    }
}

/// A count with its noun: `1 image`, `3 images`.
pub(crate) fn count(n: usize, noun: &str) -> String {
    if n == 1 { format!("1 {noun}") } else { format!("{n} {noun}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_written_as_people_read_them() {
        assert_eq!(percent(0.934), "93.4\u{a0}%");
        assert_eq!(percent_range([0.909, 0.953]), "90.9–95.3\u{a0}%");
        assert_eq!([0.04, -0.04, 0.25, -1.3].map(points), ["0.0", "0.0", "+0.2", "−1.3"]);
        assert_eq!([count(1, "image"), count(3, "image")], ["1 image", "3 images"]);
    }
}
