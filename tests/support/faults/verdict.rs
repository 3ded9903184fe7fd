//! What must hold when all is over, whatever happened meanwhile: looked at from outside, in the folders and in what the
//! witness heard.

use super::clinic::Dropped;
use super::images::Fate;
use super::witness::Heard;
use crate::support::names;
use roentgen::bundle::sha256_hex;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::Path;

/// What makes up a report's id beside the image.
pub(super) struct Model {
    /// SHA-256 of the bundle's manifest.
    pub(super) bundle_sha256: String,
    /// The version of the preprocessing.
    pub(super) preprocessing: &'static str,
    /// What was sent may be judged again: then a repeat has the same id and the same findings, and else they are its own.
    pub(super) forgets: bool,
}

impl Model {
    /// The id of the report on an image, as the report's documentation says it.
    fn report_id(&self, image_sha256: &str) -> String {
        let id = sha256_hex(format!("{image_sha256}\n{}\n{}\n", self.bundle_sha256, self.preprocessing).as_bytes());
        id[..32].to_owned()
    }

    /// The ids that must have come, and no others.
    pub(super) fn expected(&self, dropped: &[Dropped]) -> BTreeSet<String> {
        let good = dropped.iter().filter(|file| file.fate == Fate::Reported);
        good.map(|file| self.report_id(&file.sha256)).collect()
    }
}

/// What was counted.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) reports: usize,
    pub(super) repeats: usize,
    pub(super) rejected: usize,
}

/// Everything that is wrong, in words; nothing where all is well.
pub(super) fn examine(folder: &Path, dropped: &[Dropped], heard: &[Heard], model: &Model) -> (Counts, Vec<String>) {
    let mut wrong = Vec::new();
    let expected = model.expected(dropped);
    let counts = reports(heard, &expected, model.forgets, &mut wrong);
    let rejected = files(folder, dropped, &mut wrong);
    (Counts { rejected, ..counts }, wrong)
}

/// Every expected report came, no other one, the repeats are the same, the sequences are in order and given once.
fn reports(heard: &[Heard], expected: &BTreeSet<String>, forgets: bool, wrong: &mut Vec<String>) -> Counts {
    let mut first: HashMap<&str, &Heard> = HashMap::new();
    let mut owner: HashMap<u64, &str> = HashMap::new();
    let (mut last, mut repeats) = (0, 0);
    for report in heard {
        let other = *owner.entry(report.sequence).or_insert(&report.id);
        if other != report.id {
            wrong.push(format!("sequence {} was given to {other} and to {}", report.sequence, report.id));
        }
        match first.get(report.id.as_str()) {
            Some(earlier) => {
                repeats += 1;
                let findings = |report: &Heard| (report.json()["findings"].clone(), report.json()["decision"].clone());
                let is_same = earlier.payload == report.payload || forgets && findings(earlier) == findings(report);
                if !is_same {
                    wrong.push(format!("a repeat differs: {}\nand {}", earlier.payload, report.payload));
                }
            }
            None => {
                if report.sequence <= last {
                    wrong.push(format!("{} came with sequence {} after {last}", report.id, report.sequence));
                }
                last = last.max(report.sequence);
                first.insert(&report.id, report);
            }
        }
    }
    let came: BTreeSet<String> = first.keys().map(|id| (*id).to_owned()).collect();
    wrong.extend(expected.difference(&came).map(|id| format!("LOST: the report {id}")));
    wrong.extend(came.difference(expected).map(|id| format!("nobody asked for the report {id}")));
    Counts { reports: came.len(), repeats, rejected: 0 }
}

/// Every file lies where it belongs, each rejected one with its reason, and nothing else lies anywhere.
fn files(folder: &Path, dropped: &[Dropped], wrong: &mut Vec<String>) -> usize {
    for name in names(&folder.join("incoming")) {
        wrong.push(format!("incoming/{name} was left"));
    }
    let mut fates: BTreeMap<String, (Fate, i64, Vec<&str>)> = BTreeMap::new();
    for file in dropped {
        let entry = fates.entry(file.sha256.clone()).or_insert((file.fate, 0, Vec::new()));
        entry.1 += 1;
        entry.2.push(&file.name);
    }
    for name in names(&folder.join("done")) {
        let sha256 = content(&folder.join("done").join(&name));
        match fates.get_mut(&sha256) {
            Some((Fate::Reported, left, _)) => *left -= 1,
            _ => wrong.push(format!("done/{name} does not belong there")),
        }
    }
    let rejected = names(&folder.join("rejected"));
    let mut count = 0;
    for name in &rejected {
        if let Some(file) = name.strip_suffix(".reason.json") {
            if !rejected.iter().any(|other| other == file) {
                wrong.push(format!("rejected/{name} is a reason without its file"));
            }
            continue;
        }
        count += 1;
        let reason = fs::read_to_string(folder.join("rejected").join(format!("{name}.reason.json")));
        let reason: serde_json::Value =
            reason.ok().and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
        match fates.get_mut(&content(&folder.join("rejected").join(name))) {
            Some((Fate::Rejected(code), left, _)) => {
                *left -= 1;
                if reason["code"] != *code {
                    wrong.push(format!("rejected/{name} has the reason {reason} and should have {code}"));
                }
            }
            _ => wrong.push(format!("rejected/{name} does not belong there; its reason: {reason}")),
        }
    }
    for (fate, left, names) in fates.values().filter(|(_, left, _)| *left != 0) {
        let problem = if *left > 0 { "LOST" } else { "too many" };
        wrong.push(format!("{problem}: {} copies of {names:?}, which should be {fate:?}", left.abs()));
    }
    count
}

fn content(path: &Path) -> String {
    fs::read(path).map(|bytes| sha256_hex(&bytes)).unwrap_or_default()
}
