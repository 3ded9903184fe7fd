//! The promise: `roentgen-host` tells what a model is worth in `report.json` and in a `report.html` that is well-formed,
//! loads nothing, carries the notice, and shows no figure that is not in the JSON. On a small synthetic model and set.
#![cfg(feature = "host")]

#[path = "common/host.rs"]
mod chain;

use chain::{CLASSES, done, refused, write_data, write_image, write_trunk};
use roentgen::bundle::Bundle;
use roentgen::report::NOTICE;
use serde_json::Value;
use std::fs;
use std::path::Path;

/// The ids of the page's sections.
const SECTIONS: [&str; 13] = [
    "float-int8",
    "confusion",
    "groups",
    "shortcuts",
    "robustness",
    "curves",
    "operating-points",
    "calibration",
    "abstention",
    "out-of-domain",
    "quantization",
    "card",
    "method",
];

/// An element's start tag, as it stands in the page.
struct Tag {
    name: String,
    attributes: Vec<(String, String)>,
    /// The text between this tag and the next one.
    text: String,
}

impl Tag {
    fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }
}

/// Reads a page as XML would be read: every element closed, in order, every attribute quoted and given once, no stray
/// `<` or `&`.
fn parse(page: &str) -> Result<Vec<Tag>, String> {
    let mut rest = page.strip_prefix("<!DOCTYPE html>").ok_or("no doctype")?;
    let (mut open, mut tags): (Vec<String>, Vec<Tag>) = (Vec::new(), Vec::new());
    while let Some(at) = rest.find('<') {
        let text = plain(&rest[..at])?;
        match tags.last_mut() {
            Some(tag) => tag.text += &text,
            None if text.trim().is_empty() => {}
            None => return Err(format!("text before the first element: {text:?}")),
        }
        let end = rest[at..].find('>').ok_or("an open tag at the end")? + at;
        let inside = &rest[at + 1..end];
        rest = &rest[end + 1..];
        if let Some(name) = inside.strip_prefix('/') {
            let opened = open.pop().ok_or_else(|| format!("</{name}> closes nothing"))?;
            if opened != name {
                return Err(format!("</{name}> closes <{opened}>"));
            }
            tags.push(Tag { name: format!("/{name}"), attributes: Vec::new(), text: String::new() });
            continue;
        }
        let (inside, closed) = inside.strip_suffix('/').map_or((inside, false), |inside| (inside, true));
        let (name, mut left) = inside.split_once(' ').unwrap_or((inside, ""));
        if name.is_empty() || !name.chars().all(|letter| letter.is_ascii_alphanumeric()) {
            return Err(format!("<{name}> is no element"));
        }
        let mut attributes: Vec<(String, String)> = Vec::new();
        left = left.trim();
        while !left.is_empty() {
            let (key, after) = left.split_once("=\"").ok_or_else(|| format!("<{name}>: {left}"))?;
            let (value, after) = after.split_once('"').ok_or_else(|| format!("<{name}>: {left}"))?;
            if attributes.iter().any(|(known, _)| known == key) || key.contains(' ') {
                return Err(format!("<{name}>: {key}"));
            }
            attributes.push((key.to_owned(), plain(value)?));
            left = after.trim_start();
        }
        if !closed {
            open.push(name.to_owned());
        }
        tags.push(Tag { name: name.to_owned(), attributes, text: String::new() });
    }
    if open.is_empty() && rest.trim().is_empty() { Ok(tags) } else { Err(format!("left open: {open:?}, {rest:?}")) }
}

/// Text with its entities resolved; any but the four that XML knows is an error.
fn plain(text: &str) -> Result<String, String> {
    let mut out = String::new();
    for (index, part) in text.split('&').enumerate() {
        if index == 0 {
            out += part;
            continue;
        }
        let known = [("amp;", "&"), ("lt;", "<"), ("gt;", ">"), ("quot;", "\"")];
        let (entity, letter) = known
            .iter()
            .find(|(entity, _)| part.starts_with(entity))
            .ok_or_else(|| format!("a stray & before {part:?}"))?;
        out = out + letter + &part[entity.len()..];
    }
    Ok(out)
}

/// Every number in a JSON value.
fn numbers(value: &Value, found: &mut Vec<f64>) {
    match value {
        Value::Number(number) => found.extend(number.as_f64()),
        Value::Array(items) => items.iter().for_each(|item| numbers(item, found)),
        Value::Object(fields) => fields.values().for_each(|item| numbers(item, found)),
        _ => {}
    }
}

/// The number that a person reads: its value and half a unit of its last digit.
fn read_number(text: &str) -> (f64, f64) {
    let digits: String = text.replace('−', "-").chars().filter(|c| c.is_ascii_digit() || ".-+".contains(*c)).collect();
    let decimals = digits.split_once('.').map_or(0, |(_, decimals)| decimals.len());
    (digits.parse().unwrap_or_else(|_| panic!("{text:?} is no number")), 0.5 * 10f64.powi(-(decimals as i32)))
}

/// What must hold of every page.
fn check_page(page: &str, report: &Value) -> Vec<Tag> {
    let tags = parse(page).unwrap_or_else(|error| panic!("not well-formed: {error}"));
    for tag in &tags {
        assert!(
            !["script", "link", "img", "iframe", "object", "base", "form"].contains(&tag.name.as_str()),
            "{}",
            tag.name
        );
        assert_eq!(tag.attribute("src"), None, "{}", tag.name);
        if let Some(target) = tag.attribute("href") {
            let id = target.strip_prefix('#').unwrap_or_else(|| panic!("a link out of the page: {target}"));
            assert!(tags.iter().any(|tag| tag.attribute("id") == Some(id)), "{target} leads nowhere");
        }
    }
    for loading in ["url(", "@import", "http://", "https://"] {
        assert!(!page.contains(loading), "{loading}");
    }
    for id in SECTIONS {
        assert!(tags.iter().any(|tag| tag.name == "section" && tag.attribute("id") == Some(id)), "{id}");
    }
    assert!(page.matches(NOTICE).count() >= 2, "the notice stands at the top and at the end");

    let mut known = Vec::new();
    numbers(report, &mut known);
    let figures: Vec<&Tag> = tags.iter().filter(|tag| tag.name == "data").collect();
    assert!(figures.len() > 200, "{} figures", figures.len());
    for tag in figures {
        let value: f64 = tag.attribute("value").unwrap().parse().unwrap();
        assert!(known.iter().any(|known| (known - value).abs() <= 1e-12), "{value} ({}) is not in the JSON", tag.text);
        let (read, unit) = read_number(&tag.text);
        let near = |exact: f64| (read - exact).abs() <= unit * 1.0001;
        assert!(near(value) || near(100.0 * value), "{} stands for {value}", tag.text);
    }
    tags
}

fn json(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn a_bundle_carries_its_report_as_json_and_as_a_page() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    write_trunk(&dir.join("trunk.safetensors"));
    write_data(&dir.join("data"));
    // Two classes have a source of their own, two share one.
    let manifest = fs::read_to_string(dir.join("data/manifest.csv")).unwrap();
    let source = |line: &str| match CLASSES.iter().position(|class| line.contains(class)) {
        None => "source",
        Some(0) => "Clinic <A> & \"B\"",
        Some(1) => "clinic C",
        Some(_) => "clinic D",
    };
    let manifest: String = manifest.lines().map(|line| format!("{line},{}\n", source(line))).collect();
    fs::write(dir.join("data/manifest.csv"), manifest).unwrap();
    done(dir, "import --weights {}/trunk.safetensors --convention caffe --out {}/model.safetensors");
    let train = "train --model {}/model.safetensors --data {}/data --out {}/trained.safetensors --lr 0.01 --epochs 12";
    done(dir, train);
    fs::write(dir.join("card.md"), "# Tiny\n\nA *card* with <b>raw</b> & more.\n\n| a | b |\n|---|---|\n| 1 | 2 |\n")
        .unwrap();
    write_negatives(&dir.join("negatives"));
    let quantize = "quantize --model {}/trained.safetensors --data {}/data --out {}/bundle --calibration-images 8 \
                    --card {}/card.md --provenance data=synthetic --negatives {}/negatives";
    done(dir, quantize);
    let bundle = Bundle::open(&dir.join("bundle")).unwrap();
    assert!(bundle.manifest().files.contains_key("report.html"));

    let report = json(&dir.join("bundle/report.json"));
    assert_eq!(report["schema"], "roentgen.evaluation/1");
    for field in [
        "/int8/accuracy_ci95/1",
        "/int8/macro_f1_ci95/0",
        "/int8/classes/3/recall_ci95/0",
        "/int8/classes/0/f1_ci95/1",
        "/float/accuracy",
        "/cost/label_agreement",
        "/cost/accuracy_points_ci95/0",
        "/int8_probabilities/calibrated/ece",
        "/int8_probabilities/calibrated/bins/0/n",
        "/int8_probabilities/uncalibrated/class_ece/3",
        "/int8_probabilities/classes/0/auc",
        "/int8_probabilities/classes/0/roc/0",
        "/float_probabilities/classes/3/auc_ci95/0",
        "/int8_probabilities/classes/2/average_precision",
        "/int8_probabilities/classes/1/precision_recall/0",
        "/int8_probabilities/classes/1/sensitivity_at_specificity/2/sensitivity_ci95/0",
        "/int8_probabilities/classes/1/specificity_at_sensitivity/0/threshold",
        "/abstention/curve/0/1",
        "/abstention/reasons",
        "/populations/adult/float_accuracy",
        "/populations/adult/classes/3/float_recall_ci95/0",
        "/sources/clinic D/classes/1/recall",
        "/source_alone/accuracy",
        "/paediatric_normals/share_ci95/1",
        "/robustness/tests/17/accuracy_points_ci95/0",
        "/shortcuts/tests/2/recalls/3",
        "/shortcuts/chance",
        "/out_of_domain/2/share_ci95/1",
        "/statements/0/text",
        "/network_sha256",
        "/notice",
    ] {
        assert!(report.pointer(field).is_some_and(|value| !value.is_null()), "{field} is missing: {report}");
    }
    assert_eq!(
        (&report["source_alone"]["of_one_class"], &report["source_alone"]["accuracy"]),
        (&2.into(), &0.75.into())
    );
    let kinds: Vec<&Value> = report["out_of_domain"].as_array().unwrap().iter().map(|kind| &kind["id"]).collect();
    assert_eq!(kinds, ["negatives", "upside_down", "inverted"]);
    let negatives = &report["out_of_domain"][0];
    assert_eq!((&negatives["n"], &negatives["refused"]), (&3.into(), &1.into()), "{negatives}");
    assert_eq!(negatives["reasons"]["unknown_format"], 1, "{negatives}");
    assert_eq!(negatives["reasons"]["noise"], 1, "{negatives}");
    // A radiograph of the test split is in the wrong place there: whatever the box says of it is told.
    let judged = negatives["judged"].as_array().unwrap().len() as u64;
    assert_eq!(2 - judged, negatives["abstained"].as_u64().unwrap(), "{negatives}");
    assert_eq!(report["out_of_domain"][1]["n"], 16, "as many as are changed for robustness: {report}");
    assert_eq!(report["network_sha256"], bundle.manifest().files["model.onnx"].as_str());

    let page = fs::read_to_string(dir.join("bundle/report.html")).unwrap();
    let tags = check_page(&page, &report);
    let text_of = |tags: &[Tag]| -> String { tags.iter().map(|tag| tag.text.as_str()).collect() };
    let shown = text_of(&tags);
    let first = text_of(&tags[..tags.iter().position(|tag| tag.name == "nav").unwrap()]);
    for statement in report["statements"].as_array().unwrap() {
        let text = statement["text"].as_str().unwrap();
        assert!(first.contains(text), "not on the first screen: {text}");
    }
    assert!(shown.contains("Clinic <A> & \"B\"") && shown.contains("<b>raw</b> & more"), "names are shown as they are");
    let card = fs::read_to_string(dir.join("bundle/README.md")).unwrap();
    assert!(card.starts_with("# Tiny") && card.contains(NOTICE) && card.contains("data: synthetic"), "{card}");
    assert!(card.contains(report["statements"][0]["text"].as_str().unwrap()), "{card}");

    // The same figures again, without a float model at hand and without changed images.
    done(dir, "evaluate --bundle {}/bundle --data {}/data --quick --out {}/again");
    let again = json(&dir.join("again/report.json"));
    for same in ["int8", "int8_probabilities", "abstention", "source_alone"] {
        assert_eq!(again[same], report[same], "{same}");
    }
    assert_eq!((&again["float"]["source"], &again["shortcuts"]), (&"recorded".into(), &Value::Null));
    assert_eq!(again["out_of_domain"], Value::Array(Vec::new()));
    let page = fs::read_to_string(dir.join("again/report.html")).unwrap();
    check_page(&page, &again);
    assert!(page.contains("shortcut tests were left out") && page.contains("<em>card</em>"));

    let error = refused(dir, "evaluate --bundle {}/bundle --data {}/data --quick --full");
    assert!(error.contains("--full"), "{error}");
}

/// What is no radiograph: a text, noise, and, in the wrong place, a radiograph.
fn write_negatives(dir: &Path) {
    fs::create_dir_all(dir.join("more")).unwrap();
    fs::write(dir.join("note.txt"), b"no picture").unwrap();
    write_image(&dir.join("more/radiograph.png"), 2, 2200);
    let noise = chain::noise(256 * 256, 3).into_iter().map(|x| (127.5 + 127.5 * x) as u8).collect();
    image::GrayImage::from_raw(256, 256, noise).unwrap().save(dir.join("more/noise.png")).unwrap();
}

#[test]
fn the_check_of_pages_would_notice() {
    assert!(parse("<!DOCTYPE html><p a=\"1\">x &amp; y<br/></p>").is_ok());
    for broken in
        ["<p>", "<p><b></p></b>", "<p a=1></p>", "<p>a & b</p>", "<p a=\"1\" a=\"2\"></p>", "</p>", "<p></p>x<"]
    {
        assert!(parse(&format!("<!DOCTYPE html>{broken}")).is_err(), "{broken}");
    }
    assert_eq!(read_number("−1.3\u{a0}%"), (-1.3, 0.05));
}
