//! What a box makes of pictures that it should not judge: those of a folder of other things (`--negatives`), and
//! radiographs turned upside down or inverted. Not its ordinary abstentions (see `evaluation::abstention`), and not the
//! changes that should not matter (see `robustness`).

use crate::dataset;
use crate::evaluate::Depth;
use crate::evaluation::abstention::code_name;
use crate::evaluation::intervals::{Interval, wilson};
use crate::judge::{self, Int8, Verdict};
use crate::metrics::ratio;
use crate::robustness::perturb::{NOT_TO_BE_JUDGED, Perturbation};
use crate::robustness::{chosen, noise_seed};
use anyhow::{Context, Result, ensure};
use roentgen::bundle::Bundle;
use roentgen::report::Decision;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The least share of the negatives that must not be judged.
const NEGATIVES_AT_LEAST: f64 = 0.95;

/// The least share of the radiographs upside down, and of the inverted ones, that must not be judged.
const CHANGED_AT_LEAST: f64 = 0.90;

/// What came of one kind of picture that should not be judged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Rejection {
    /// A short name: `negatives`, `upside_down` or `inverted`.
    pub(crate) id: String,
    /// What they are, in words, with a capital.
    pub(crate) title: String,
    /// How many there are.
    pub(crate) n: usize,
    /// Those whose file was refused when it was opened.
    pub(crate) refused: usize,
    /// Those on which the box abstains.
    pub(crate) abstained: usize,
    /// Share refused or abstained on.
    pub(crate) share: f64,
    /// Wilson interval of it.
    pub(crate) share_ci95: Interval,
    /// The least share that is asked for.
    pub(crate) at_least: f64,
    /// How often each reason code and each code of a refusal was given; a picture may have several.
    pub(crate) reasons: BTreeMap<String, usize>,
    /// The negatives that were judged all the same, below their folder.
    pub(crate) judged: Vec<String>,
}

impl Rejection {
    /// Counts what was decided; an entry is the verdict, or the code of the refusal.
    fn new(id: String, title: String, at_least: f64, found: &[Result<&Verdict, String>]) -> Self {
        let (mut refused, mut abstained, mut reasons) = (0, 0, BTreeMap::<String, usize>::new());
        for found in found {
            match found {
                Err(code) => {
                    refused += 1;
                    *reasons.entry(code.clone()).or_default() += 1;
                }
                Ok(Verdict { decision: Decision::Abstained { reasons: given }, .. }) => {
                    abstained += 1;
                    for reason in given {
                        *reasons.entry(code_name(reason.code)).or_default() += 1;
                    }
                }
                Ok(_) => {}
            }
        }
        let (n, stopped) = (found.len(), refused + abstained);
        let (share, share_ci95) = (ratio(stopped, n), wilson(stopped, n));
        Self { id, title, n, refused, abstained, share, share_ci95, at_least, reasons, judged: Vec::new() }
    }
}

/// Measures the negatives of `depth`, if it names any, and turned and inverted radiographs (the same images that
/// robustness is measured on) unless it is quick.
pub(crate) fn run(bundle: &Bundle, unchanged: &Int8, depth: &Depth) -> Result<Vec<Rejection>> {
    let negatives = depth.negatives.as_deref().map(|dir| negatives(bundle, dir)).transpose()?;
    let mut all: Vec<Rejection> = negatives.into_iter().collect();
    if !depth.quick {
        all.extend(changed(bundle, unchanged, depth.full)?);
    }
    Ok(all)
}

fn negatives(bundle: &Bundle, dir: &Path) -> Result<Rejection> {
    let mut files = Vec::new();
    walk(dir, &mut files)?;
    ensure!(!files.is_empty(), "{} holds no file; --negatives needs pictures", dir.display());
    files.sort();
    let verdicts = judge::radiographs(bundle, files.len(), "negatives", |index| dataset::open(&files[index]))?;
    let found: Vec<Result<&Verdict, String>> =
        verdicts.iter().map(|found| found.as_ref().map_err(|refusal| code_name(refusal.code))).collect();
    let title = "Pictures that are no frontal chest radiographs".into();
    let mut rejection = Rejection::new("negatives".into(), title, NEGATIVES_AT_LEAST, &found);
    let judged = files
        .iter()
        .zip(&verdicts)
        .filter(|(_, found)| found.as_ref().is_ok_and(|verdict| matches!(verdict.decision, Decision::Reported { .. })));
    let relative = |file: &PathBuf| file.strip_prefix(dir).unwrap_or(file).display().to_string();
    rejection.judged = judged.map(|(file, _)| relative(file)).collect();
    Ok(rejection)
}

/// Every file below a folder but hidden ones; a link to a folder is not followed.
fn walk(dir: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let told = || format!("cannot read {}", dir.display());
    for entry in std::fs::read_dir(dir).with_context(told)? {
        let entry = entry.with_context(told)?;
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        if entry.file_type().with_context(told)?.is_dir() {
            walk(&entry.path(), files)?;
        } else {
            files.push(entry.path());
        }
    }
    Ok(())
}

fn changed(bundle: &Bundle, unchanged: &Int8, full: bool) -> Result<Vec<Rejection>> {
    let images = chosen(&unchanged.samples, full);
    let jobs: Vec<(Perturbation, usize)> =
        NOT_TO_BE_JUDGED.iter().flat_map(|&change| images.iter().map(move |&index| (change, index))).collect();
    let verdicts = judge::radiographs(bundle, jobs.len(), "turned and inverted images", |job| {
        let (change, index) = jobs[job];
        change.apply(&unchanged.samples[index].radiograph()?, noise_seed(index))
    })?;
    let verdicts = verdicts.into_iter().collect::<Result<Vec<Verdict>>>()?;
    let parts = NOT_TO_BE_JUDGED.iter().zip(verdicts.chunks(images.len().max(1)));
    let rejection = |(change, part): (&Perturbation, &[Verdict])| {
        let found: Vec<Result<&Verdict, String>> = part.iter().map(Ok).collect();
        Rejection::new(change.id(), change.title(), CHANGED_AT_LEAST, &found)
    };
    Ok(parts.map(rejection).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use roentgen::assess::findings;
    use roentgen::report::{Label, Reason, ReasonCode};

    #[test]
    fn what_is_refused_or_abstained_on_is_not_judged() {
        let logits = [1.0, 0.0, 0.0, 0.0];
        let verdict = |decision| Verdict { logits, features: Vec::new(), findings: findings(&logits, 1.0), decision };
        let reason = |code| Reason { code, message: String::new(), value: 1.0, limit: 0.5 };
        let reasons = vec![reason(ReasonCode::Noise), reason(ReasonCode::OutOfDistribution)];
        let (abstained, reported) =
            (verdict(Decision::Abstained { reasons }), verdict(Decision::Reported { label: Label::Covid }));
        let found = [Ok(&abstained), Ok(&reported), Err("damaged".to_owned()), Ok(&abstained)];
        let counted = Rejection::new("negatives".into(), "Other things".into(), 0.95, &found);
        assert_eq!((counted.n, counted.refused, counted.abstained, counted.share), (4, 1, 2, 0.75));
        let expected = [("damaged", 1), ("noise", 2), ("out_of_distribution", 2)];
        assert_eq!(counted.reasons, expected.map(|(code, n)| (code.to_owned(), n)).into());
    }

    #[test]
    fn hidden_files_are_no_negatives() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("a/.git")).unwrap();
        for name in ["b.png", "a/c.png", "a/.d.png", "a/.git/e.png"] {
            std::fs::write(dir.path().join(name), b"x").unwrap();
        }
        let mut files = Vec::new();
        walk(dir.path(), &mut files).unwrap();
        files.sort();
        assert_eq!(files, [dir.path().join("a/c.png"), dir.path().join("b.png")]);
    }
}
