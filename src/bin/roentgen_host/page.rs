//! `report.html`: an evaluation as one page that loads nothing, for a screen, a phone or paper. What it shows is what
//! `report.json` says, or follows from it by a division or an interval (shares of reasons, the ends of a drawn line).

mod first;
mod html;
mod plots;
mod sections;
mod svg;
mod trust;

use crate::evaluation::Evaluation;
use html::escape;
use roentgen::bundle::Manifest;
use roentgen::report::NOTICE;

/// Light, dark, print and phone.
const STYLE: &str = include_str!("page/style.css");

/// The sections after the first screen: id, title and content.
type Section = (&'static str, &'static str, String);

/// The page. `card` is the person's text of the model card, Markdown.
pub(crate) fn html(evaluation: &Evaluation, manifest: &Manifest, card: &str) -> String {
    let sections: Vec<Section> = vec![
        ("float-int8", "Float against int8", sections::float_int8(evaluation)),
        ("confusion", "Confusion matrices", sections::confusion(evaluation)),
        ("groups", "Populations and sources", sections::groups(evaluation)),
        ("shortcuts", "Shortcut tests", trust::shortcuts(evaluation)),
        ("robustness", "Robustness", trust::robustness(evaluation)),
        ("curves", "ROC and precision-recall curves", sections::curves(evaluation)),
        ("operating-points", "Operating points", sections::operating_points(evaluation)),
        ("calibration", "Calibration", trust::calibration(evaluation)),
        ("abstention", "Abstention", trust::abstention(evaluation)),
        ("out-of-domain", "What it should not judge", trust::out_of_domain(evaluation)),
        ("quantization", "What quantization cost", sections::quantization(evaluation)),
        ("card", "Model card", sections::card(card, manifest)),
        ("method", "How this was measured", sections::method(evaluation)),
    ];
    let title = escape(&format!("{} {}: evaluation", evaluation.model, evaluation.version));
    let mut out = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\"/>\n\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n"
    );
    out += &first::screen(evaluation);
    out += "<nav aria-label=\"Sections\"><ol>";
    for (id, title, _) in &sections {
        out += &format!("<li><a href=\"#{id}\">{title}</a></li>");
    }
    out += "</ol></nav>\n<main>\n";
    for (id, title, content) in &sections {
        out += &format!("<section id=\"{id}\">\n<h2>{title}</h2>\n{content}</section>\n");
    }
    out += &format!("</main>\n<footer><p>{}</p></footer>\n</body>\n</html>\n", escape(NOTICE));
    out
}
