//! Small pieces of HTML: escaped text, figures, tables, Markdown. Every element is closed and every attribute quoted, so
//! that the page is well-formed XML too.

use crate::evaluation::intervals::Interval;
use crate::evaluation::numbers;
use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};

/// Text as content or attribute.
pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A figure: what people read, and beside it the exact number of `report.json`.
pub(crate) fn figure(value: f64, words: &str) -> String {
    format!("<data value=\"{value}\">{}</data>", escape(words))
}

/// A share as a percentage.
pub(crate) fn percent(share: f64) -> String {
    figure(share, &numbers::percent(share))
}

/// A count.
pub(crate) fn count(n: usize) -> String {
    figure(n as f64, &n.to_string())
}

/// A number with so many decimals.
pub(crate) fn number(value: f64, decimals: usize) -> String {
    figure(value, &format!("{value:.decimals$}"))
}

/// A difference in percentage points.
pub(crate) fn points(value: f64) -> String {
    figure(value, &numbers::points(value))
}

/// An interval of shares, as percentages.
pub(crate) fn interval([low, high]: Interval) -> String {
    let end = |value: f64| figure(value, &format!("{:.1}", 100.0 * value));
    format!("<span class=\"ci\">{}–{}</span>", end(low), end(high))
}

/// An interval of other numbers.
pub(crate) fn number_interval(interval: Option<Interval>, decimals: usize) -> String {
    let Some([low, high]) = interval else { return String::new() };
    format!("<span class=\"ci\">{}–{}</span>", number(low, decimals), number(high, decimals))
}

/// An interval of percentage points.
pub(crate) fn points_interval(interval: Option<Interval>) -> String {
    let Some([low, high]) = interval else { return String::new() };
    format!("<span class=\"ci\">{} to {}</span>", points(low), points(high))
}

/// A share with its interval.
pub(crate) fn percent_with(share: f64, ends: Interval) -> String {
    format!("{} {}", percent(share), interval(ends))
}

/// A table of cells that are HTML already; the first cell of a row names it. Wider than a phone, it scrolls by itself.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let mut out = String::from("<div class=\"scroll\"><table><thead><tr>");
    for cell in head {
        out += &format!("<th scope=\"col\">{}</th>", escape(cell));
    }
    out += "</tr></thead><tbody>\n";
    for row in rows {
        out += "<tr>";
        for (index, cell) in row.iter().enumerate() {
            out += &if index == 0 { format!("<th scope=\"row\">{cell}</th>") } else { format!("<td>{cell}</td>") };
        }
        out += "</tr>\n";
    }
    out + "</tbody></table></div>\n"
}

/// A plot with its caption, and what follows it.
pub(crate) fn plate(caption: &str, content: &str) -> String {
    format!("<figure><figcaption>{}</figcaption>\n{content}</figure>\n", escape(caption))
}

/// Markdown as HTML, its headings two levels down. Raw HTML in it is shown as text, and its images are left out: the page
/// loads nothing.
pub(crate) fn markdown(text: &str) -> String {
    let lower = |level: pulldown_cmark::HeadingLevel| {
        pulldown_cmark::HeadingLevel::try_from((level as usize + 2).min(6)).unwrap_or(level)
    };
    let events = Parser::new_ext(text, Options::ENABLE_TABLES).map(|event| match event {
        Event::Html(raw) | Event::InlineHtml(raw) => Event::Text(raw),
        Event::Start(Tag::Image { .. }) => Event::Start(Tag::Emphasis),
        Event::End(TagEnd::Image) => Event::End(TagEnd::Emphasis),
        Event::Start(Tag::Heading { level, classes, attrs, .. }) => {
            // Two cards on one page could claim one id.
            Event::Start(Tag::Heading { level: lower(level), id: None, classes, attrs })
        }
        Event::End(TagEnd::Heading(level)) => Event::End(TagEnd::Heading(lower(level))),
        event => event,
    });
    let mut out = String::new();
    pulldown_cmark::html::push_html(&mut out, events);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markdown_becomes_plain_html_that_loads_nothing() {
        let html = markdown("# A\n\n**b** <script>x</script> ![c](http://d/e.png) `f<g`\n\n| h |\n|---|\n| i |\n");
        assert!(html.contains("<h3>A</h3>") && html.contains("<strong>b</strong>"), "{html}");
        assert!(html.contains("&lt;script&gt;") && !html.contains("<script") && !html.contains("e.png"), "{html}");
        assert!(html.contains("<em>c</em>") && html.contains("f&lt;g") && html.contains("<table>"), "{html}");
    }

    #[test]
    fn a_figure_carries_its_exact_number() {
        assert_eq!(percent(0.9344), "<data value=\"0.9344\">93.4\u{a0}%</data>");
        assert_eq!(escape("a<b & \"c\""), "a&lt;b &amp; &quot;c&quot;");
    }
}
