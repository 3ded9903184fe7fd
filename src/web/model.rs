//! What the bundle that runs says of itself: its card, its limits, its operating points and its `report.html`. Read from
//! its folder when the model changes, and each file only if it has the hash that the manifest gives. Judges nothing.

use crate::bundle::{Manifest, sha256_hex};
use crate::plain_file;
use crate::status::Setup;
use serde_json::{Value, json};
use std::io::{self, Read};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// A bundle's texts are some hundred kilobytes.
const MAX_BYTES: u64 = 8 << 20;

/// What a page can be given of a bundle.
#[derive(Debug, Default)]
pub(super) struct Model {
    /// Of which manifest; the report's `model.sha256`.
    sha256: String,
    /// As `/api/model` has it.
    pub(super) about: Value,
    /// `README.md`.
    pub(super) card: Option<String>,
    /// `report.html`.
    pub(super) report: Option<Vec<u8>>,
}

/// The model that runs, once somebody asked for it.
#[derive(Debug, Default)]
pub(super) struct Shelf(Mutex<Arc<Model>>);

impl Shelf {
    /// What the bundle says; reads the disk where it is another than the last time.
    pub(super) fn of(&self, setup: &Setup) -> io::Result<Arc<Model>> {
        let mut shelf = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if shelf.sha256 != setup.model.sha256 {
            *shelf = Arc::new(read(setup)?);
        }
        Ok(Arc::clone(&shelf))
    }
}

fn read(setup: &Setup) -> io::Result<Model> {
    let of_another = || io::Error::new(io::ErrorKind::InvalidData, "it is not the bundle that runs any more");
    let manifest = file(&setup.bundle.join("bundle.toml"))?;
    if sha256_hex(&manifest) != setup.model.sha256 {
        return Err(of_another());
    }
    let manifest: Manifest =
        String::from_utf8(manifest).ok().and_then(|text| toml::from_str(&text).ok()).ok_or_else(of_another)?;
    // What is missing, or is not what was signed, is not shown.
    let listed = |name: &str| {
        let bytes = file(&setup.bundle.join(name)).ok()?;
        (manifest.files.get(name)? == &sha256_hex(&bytes)).then_some(bytes)
    };
    let card = listed("README.md").and_then(|bytes| String::from_utf8(bytes).ok());
    let report = listed("report.html");
    let evaluation = listed("report.json").and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or(Value::Null);
    let about = json!({
        "name": manifest.name,
        "version": manifest.version,
        "sha256": setup.model.sha256,
        "min_probability": manifest.thresholds.min_probability,
        "operating_points": operating_points(&evaluation),
        "has_card": card.is_some(),
        "has_report": report.is_some(),
        "provenance": manifest.provenance,
    });
    Ok(Model { sha256: setup.model.sha256.clone(), about, card, report })
}

/// Of every label, at which probability how many of the test images without it lie below, and how many with it above:
/// from the model's own evaluation, where it has one.
fn operating_points(evaluation: &Value) -> Value {
    let shares = evaluation["int8"]["classes"].as_array();
    let points = evaluation["int8_probabilities"]["classes"].as_array();
    let pairs = shares.into_iter().flatten().zip(points.into_iter().flatten());
    pairs
        .filter_map(|(share, points)| {
            let points = points["sensitivity_at_specificity"].as_array()?;
            let point = |point: &Value| {
                json!({
                    "asked": point["asked"], "threshold": point["threshold"],
                    "sensitivity": point["sensitivity"], "specificity": point["specificity"],
                })
            };
            Some((share["label"].as_str()?.to_owned(), points.iter().map(point).collect()))
        })
        .collect::<serde_json::Map<_, Value>>()
        .into()
}

fn file(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    plain_file::open(path)?.0.take(MAX_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operating_points_are_those_of_the_models_own_evaluation() {
        let evaluation = json!({
            "int8": { "classes": [{ "label": "covid" }] },
            "int8_probabilities": { "classes": [{ "sensitivity_at_specificity": [
                { "asked": 0.95, "threshold": 0.07, "sensitivity": 0.99, "specificity": 0.951, "sensitivity_ci95": [0.9, 1.0] }
            ] }] },
        });
        let points = operating_points(&evaluation);
        assert_eq!(
            points,
            json!({ "covid": [{ "asked": 0.95, "threshold": 0.07, "sensitivity": 0.99, "specificity": 0.951 }] })
        );
        assert_eq!(operating_points(&Value::Null), json!({}));
        assert_eq!(operating_points(&json!({ "int8": 1, "int8_probabilities": { "classes": {} } })), json!({}));
    }
}
