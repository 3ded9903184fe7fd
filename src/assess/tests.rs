//! What a report must say for given evidence.

use super::*;
use crate::network::int8::{Conv, Network};
use crate::quant::QuantParams;
use crate::radiograph::{OriginKind, Pixels};
use crate::report::ReasonCode;
use crate::tensor::Tensor;
use proptest::prelude::*;
use std::time::Duration;

fn manifest(min_probability: f32) -> Manifest {
    let params = QuantParams { scale: 0.5, zero_point: 10 };
    let head = Conv {
        name: "head".into(),
        in_channels: 1,
        out_channels: 4,
        kernel: 1,
        weights: vec![1; 4],
        weight_scales: vec![1.0; 4],
        bias: vec![0; 4],
        input: params,
        output: params,
    };
    let manifest = Manifest::for_network("tiny", "1.2.3", &Network { input_size: 1, trunk: Vec::new(), head });
    Manifest { calibration: Calibration { temperature: 2.0 }, thresholds: Thresholds { min_probability }, ..manifest }
}

fn assessor(min_probability: f32, evidence_map: bool) -> Assessor {
    Assessor::of(&manifest(min_probability), &"b".repeat(64), "box-9", Config { evidence_map })
}

fn origin(content_sha256: &str) -> Origin {
    let (study, series, instance) = (None, None, None);
    let kind = OriginKind::Raster;
    Origin { kind, content_sha256: content_sha256.into(), study, series, instance, modality: None, view: None }
}

/// Logits 0, 2, −1, 4: halved by the temperature 0, 1, −0.5, 2.
fn evidence() -> Evidence {
    let map = Tensor::new([1, 1, 1, 4], vec![10, 14, 8, 18]).expect("four logits");
    Evidence::from_quantized(map, Tensor::filled([1, 1, 1, 1], 10), &manifest(0.0)).expect("the manifest's shapes")
}

fn report(assessor: &Assessor) -> Report {
    let received_at = UNIX_EPOCH + Duration::from_millis(1_700_000_000_250);
    let origin = origin("c0ffee");
    let radiograph = Radiograph { width: 1, height: 1, pixels: Pixels::Grey8(vec![7]), origin, applied: Vec::new() };
    let seen = Seen { radiograph: &radiograph, image: &Tensor::filled([1, 1, 1, 1], 7), evidence: &evidence() };
    assessor.assess(&seen, received_at, Timing::default(), 7, "onnx")
}

#[test]
fn a_report_says_what_was_judged_by_which_model_and_how() {
    let report = report(&assessor(0.3, false));
    assert_eq!(report.decision, Decision::Reported { label: Label::ViralPneumonia });
    // exp(0), exp(1), exp(-0.5), exp(2) over their sum 11.71387…
    let expected = [0.085369, 0.232057, 0.051779, 0.630795];
    for ((finding, label), expected) in report.findings.iter().zip(Label::ALL).zip(expected) {
        assert_eq!(finding.label, label);
        assert!((finding.probability - expected).abs() < 1e-6, "{finding:?}, expected {expected}");
    }
    assert_eq!((report.schema.as_str(), report.sequence, report.device.as_str()), ("roentgen.report/1", 7, "box-9"));
    assert_eq!(report.received_at, "2023-11-14T22:13:20.250Z");
    assert_eq!((report.model.version.as_str(), report.backend.as_str()), ("1.2.3", "onnx"));
    assert_eq!((report.evidence_map, report.notice.as_str()), (None, NOTICE));
}

#[test]
fn a_report_of_another_box_or_model_is_not_ones_own() {
    let base = assessor(0.3, false);
    assert!(base.is_own(&report(&base)));
    assert!(!base.is_own(&report(&Assessor::of(&manifest(0.3), &"b".repeat(64), "box-2", Config::default()))));
    assert!(!base.is_own(&report(&Assessor::of(&manifest(0.3), &"c".repeat(64), "box-9", Config::default()))));
    let spoiled: [fn(&mut Report); 4] = [
        |report| report.report_id = "d".repeat(32),
        |report| report.origin.content_sha256 = "c0ffed".into(),
        |report| report.model.name = "other".into(),
        |report| report.notice = "A diagnosis.".into(),
    ];
    for spoil in spoiled {
        let mut report = report(&base);
        spoil(&mut report);
        assert!(!base.is_own(&report), "{report:?}");
    }
}

#[test]
fn what_is_not_probable_enough_is_not_reported() {
    let Decision::Abstained { reasons } = report(&assessor(0.64, false)).decision else {
        panic!("0.63 is below 0.64");
    };
    assert_eq!((reasons.len(), reasons[0].code, reasons[0].limit), (1, ReasonCode::LowConfidence, 0.64));
    assert!((reasons[0].value - 0.630795).abs() < 1e-6);
    assert!(reasons[0].message.contains("Viral pneumonia, has a probability of 63 %; 64 %"), "{}", reasons[0].message);
}

#[test]
fn the_evidence_map_travels_only_when_asked_for() {
    let map = report(&assessor(0.0, true)).evidence_map.expect("asked for");
    assert_eq!((map.rows, map.columns, map.logits), (1, 1, vec![0.0, 2.0, -1.0, 4.0]));
}

#[test]
fn the_id_depends_on_image_bundle_and_preprocessing_and_nothing_else() {
    let id = |assessor: &Assessor, content: &str| assessor.report_id(&origin(content));
    let base = assessor(0.0, false);
    // SHA-256 of "aa", 64 times "b" and "preprocess/1", a line each, computed with sha256sum.
    assert_eq!(id(&base, "aa"), "feec2ddb98afee0dfe373c1d0d2162f3");
    assert_eq!(id(&base, "aa"), id(&Assessor::of(&manifest(0.9), &"b".repeat(64), "box-2", Config::default()), "aa"));
    assert_ne!(id(&base, "aa"), id(&base, "ab"));
    assert_ne!(id(&base, "aa"), id(&Assessor::of(&manifest(0.0), &"c".repeat(64), "box-9", Config::default()), "aa"));
}

#[test]
fn times_that_cannot_be_written_do_not_stop_the_box() {
    assert_eq!(rfc3339(UNIX_EPOCH - Duration::from_secs(1)), "1970-01-01T00:00:00.000Z");
    if let Some(far) = UNIX_EPOCH.checked_add(Duration::from_secs(1 << 62)) {
        assert_eq!(rfc3339(far), "1970-01-01T00:00:00.000Z");
    }
}

#[test]
fn the_first_of_equals_is_reported() {
    let Decision::Reported { label } =
        decide::decide(&findings(&[1.0, 3.0, 3.0, 0.0], 1.0), &Thresholds { min_probability: 0.0 }, Vec::new())
    else {
        panic!("nothing to abstain for");
    };
    assert_eq!(label, Label::LungOpacity);
}

proptest! {
    #[test]
    fn probabilities_sum_to_one_whatever_the_logits(logits in prop::array::uniform4(-1e30f32..1e30), exponent in -44i32..38,
        shift in -30.0f32..30.0, small in prop::array::uniform4(-20.0f32..20.0)) {
        let temperature = 10f32.powi(exponent).max(f32::MIN_POSITIVE);
        for logits in [logits, small] {
            let findings = findings(&logits, temperature);
            let sum: f32 = findings.iter().map(|finding| finding.probability).sum();
            prop_assert!((sum - 1.0).abs() < 1e-6, "{findings:?}");
            prop_assert!(findings.iter().all(|finding| (0.0..=1.0).contains(&finding.probability)));
        }
        // Adding the same to every logit changes nothing.
        let (a, b) = (findings(&small, 1.0), findings(&small.map(|logit| logit + shift), 1.0));
        prop_assert!(a.iter().zip(&b).all(|(a, b)| (a.probability - b.probability).abs() < 1e-5));
    }
}
