//! The promise: the committed bundle holds the bars that it is said here to hold, by its own report on the test split, and
//! misses those that it is said to miss. Reads that report, and whether it is this bundle's; measures nothing
//! (`roentgen-host evaluate` does).

use roentgen::bundle::{Bundle, MODEL_FILE};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// What a figure must be.
#[derive(Debug, Clone, Copy)]
enum Bar {
    AtLeast(f64),
    AtMost(f64),
}

/// Whether the committed bundle holds a bar.
#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    Held,
    /// Known not to, as the model card says: the bar stays what it is, and this line goes with the bundle that holds it.
    Missed,
}

use Bar::{AtLeast, AtMost};
use State::{Held, Missed};

/// Where each figure stands in `report.json`, its bar, and whether it is held. Shares are of 1, `accuracy_points` are
/// percentage points, and those of `out_of_domain` are of what should not be judged.
const BARS: [(&str, Bar, State); 12] = [
    ("/int8/accuracy", AtLeast(0.945), Missed),
    ("/int8/macro_f1", AtLeast(0.89), Held),
    // With abstention: how many, and what the rest is worth.
    ("/abstained", AtMost(0.05), Held),
    ("/abstention/reported_accuracy", AtLeast(0.97), Missed),
    ("/int8_probabilities/calibrated/ece", AtMost(0.03), Held),
    // What int8 cost, either way.
    ("/cost/label_agreement", AtLeast(0.995), Held),
    ("/cost/accuracy_points", AtLeast(-0.2), Missed),
    ("/cost/accuracy_points", AtMost(0.2), Held),
    // Normal radiographs of children that are called viral pneumonia.
    ("/paediatric_normals/share", AtMost(0.05), Held),
    ("/out_of_domain/negatives/share", AtLeast(0.95), Held),
    ("/out_of_domain/upside_down/share", AtLeast(0.90), Held),
    ("/out_of_domain/inverted/share", AtLeast(0.90), Held),
];

/// The committed bundle, or that of `$ROENTGEN_BUNDLE`.
fn bundle() -> Bundle {
    let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/cxr-vgg16");
    let folder = std::env::var_os("ROENTGEN_BUNDLE").map_or(committed, PathBuf::from);
    Bundle::open(&folder).unwrap_or_else(|error| panic!("{error}"))
}

fn report(bundle: &Bundle) -> Value {
    let bytes = bundle.read("report.json").unwrap_or_else(|error| panic!("{error}"));
    serde_json::from_slice(&bytes).unwrap_or_else(|error| panic!("report.json: {error}"))
}

/// The figure in a place; of the kinds in `out_of_domain` each is named by its `id`.
fn figure(report: &Value, place: &str) -> Option<f64> {
    let kind = place.strip_prefix("/out_of_domain/").and_then(|rest| rest.split_once('/'));
    let found = match kind {
        None => report.pointer(place)?,
        Some((id, field)) => &report["out_of_domain"].as_array()?.iter().find(|kind| kind["id"] == id)?[field],
    };
    found.as_f64()
}

/// Every bar whose state is another one than the report's figure says.
fn wrong(report: &Value) -> Vec<String> {
    let is_held = |found: f64, bar: Bar| match bar {
        AtLeast(least) => found >= least,
        AtMost(most) => found <= most,
    };
    let check = |&(place, bar, state): &(&str, Bar, State)| match figure(report, place) {
        // A figure that is not there is never as it should be.
        None => Some(format!("{place} is not in the report; the bar is {bar:?}")),
        Some(found) if is_held(found, bar) != (state == Held) => {
            Some(format!("{place} is {found}, the bar is {bar:?}, and it is said to be {state:?}"))
        }
        Some(_) => None,
    };
    BARS.iter().filter_map(check).collect()
}

#[test]
fn the_committed_bundle_holds_the_bars_that_it_is_said_to_hold() {
    let bundle = bundle();
    let report = report(&bundle);
    let network = &bundle.manifest().files[MODEL_FILE];
    assert_eq!(report["network_sha256"].as_str(), Some(network.as_str()), "a report of another network");
    assert_eq!((&report["split"], &report["float"]["source"]), (&"test".into(), &"measured".into()));
    assert_eq!(report["n"], 500, "the whole split");
    assert!(bundle.manifest().gates.is_some(), "it has no gates of abstention");
    let wrong = wrong(&report);
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_bar_that_is_missed_is_noticed_and_so_is_one_that_is_held_at_last() {
    let kinds = json!([{ "id": "inverted", "share": 0.5 }, { "id": "negatives", "share": 0.95 }]);
    let (agreement, abstained) = (json!({ "label_agreement": 0.995 }), 0.06);
    let wrong = wrong(&json!({ "abstained": abstained, "cost": agreement, "out_of_domain": kinds }));
    let about = |place: &str| wrong.iter().find(|line| line.starts_with(place)).map(String::as_str);
    assert_eq!(about("/abstained"), Some("/abstained is 0.06, the bar is AtMost(0.05), and it is said to be Held"));
    assert!(about("/int8/macro_f1").is_some_and(|line| line.contains("not in the report")), "{wrong:#?}");
    assert!(about("/out_of_domain/inverted/share").is_some_and(|line| line.contains("0.5")), "{wrong:#?}");
    assert_eq!((about("/cost/label_agreement"), about("/out_of_domain/negatives/share")), (None, None));
}
