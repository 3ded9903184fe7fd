//! What the gates must say for given measurements, and that no file makes them panic.

use super::*;
use crate::assess::view::{GRADIENTS, PIXELS};
use crate::bundle::{GATES_FILE, GATES_SCHEMA};
use proptest::prelude::*;

fn limits() -> GateLimits {
    GateLimits {
        schema: GATES_SCHEMA.into(),
        file: GATES_FILE.into(),
        false_abstention: 0.005,
        min_upright: 0.3,
        max_pixels: 2.0,
        max_gradients: 3.0,
        max_features: 4.0,
        max_energy: -1.0,
    }
}

/// Gates about the origin with variance 1 everywhere; every pose alike, but what has a first gradient is inverted.
fn gates() -> Gates {
    let space = |dimensions: usize| {
        let mut component = vec![0.0; dimensions];
        component[0] = 1.0;
        Subspace::new(dimensions, vec![0.0; dimensions], component, vec![1.0], 1.0).expect("sound")
    };
    let mut weights = vec![0.0; Pose::ALL.len() * GRADIENTS];
    weights[2 * GRADIENTS] = 20.0;
    let bias = vec![3.0, 0.0, 0.0, 0.0, 0.0, 0.0];
    let pose = PoseClassifier::new(weights, bias).expect("sound");
    Gates { pixels: space(PIXELS), gradients: space(GRADIENTS), features: space(8), pose, limits: limits() }
}

fn measured() -> Measured {
    Measured { upright: 0.9, pose: Pose::Inverted, pixels: 1.0, gradients: 1.0, features: 1.0, energy: -4.0 }
}

fn codes(measured: &Measured) -> Vec<ReasonCode> {
    gates().reasons(measured).iter().map(|reason| reason.code).collect()
}

#[test]
fn each_gate_has_its_reason_and_its_figures() {
    assert_eq!(codes(&measured()), []);
    for (pose, code) in [
        (Pose::Inverted, ReasonCode::Inverted),
        (Pose::UpsideDown, ReasonCode::UpsideDown),
        (Pose::TurnedLeft, ReasonCode::Rotated),
        (Pose::TurnedRight, ReasonCode::Rotated),
        (Pose::Part, ReasonCode::Cropped),
    ] {
        assert_eq!(codes(&Measured { upright: 0.29, pose, ..measured() }), [code]);
    }
    assert_eq!(codes(&Measured { pixels: 2.1, ..measured() }), [ReasonCode::UnusualAppearance]);
    assert_eq!(codes(&Measured { features: 4.1, energy: 0.0, ..measured() }), [ReasonCode::OutOfDistribution]);
    assert_eq!(codes(&Measured { energy: -0.9, ..measured() }), [ReasonCode::OutOfDistribution]);
    let both = gates().reasons(&Measured { pixels: 2.1, gradients: 9.0, ..measured() });
    assert_eq!((both.len(), both[0].value, both[0].limit), (1, 9.0, 3.0));
}

#[test]
fn what_is_not_a_number_closes_the_gate_and_still_fits_into_json() {
    let nan = f64::NAN;
    let broken =
        Measured { upright: nan, pose: Pose::Part, pixels: nan, gradients: nan, features: f64::INFINITY, energy: nan };
    let reasons = gates().reasons(&broken);
    let codes: Vec<ReasonCode> = reasons.iter().map(|reason| reason.code).collect();
    assert_eq!(codes, [ReasonCode::Cropped, ReasonCode::UnusualAppearance, ReasonCode::OutOfDistribution]);
    assert!(reasons.iter().all(|reason| reason.value.is_finite()), "{reasons:?}");
}

#[test]
fn the_direction_of_features_does_not_know_how_strong_they_are() {
    assert_eq!(direction(&[1.0, -5.0, 3.0]), [0.5, 0.0, 0.75f64.sqrt()]);
    assert_eq!(direction(&[10.0, 0.0, 30.0]), direction(&[1.0, -5.0, 3.0]));
    assert_eq!(direction(&[0.0, -1.0, f32::NAN]), [0.0; 3]);
}

#[test]
fn the_energy_is_that_of_the_definition() {
    let logits = [1.0f32, 2.0, -1.0, 0.5];
    let sum: f64 = logits.iter().map(|&logit| (f64::from(logit) / 0.7).exp()).sum();
    assert!((energy(&logits, 0.7) + 0.7 * sum.ln()).abs() < 1e-12);
    assert!(energy(&[1e30, 0.0, 0.0, 0.0], 0.1).is_finite());
}

#[test]
fn the_file_gives_back_what_was_written() {
    let gates = gates();
    let bytes = gates.encode().expect("tensors");
    assert_eq!(Gates::decode(&bytes, limits(), 8).expect("the same"), gates);
    let error = Gates::decode(&bytes, limits(), 512).expect_err("eight features");
    assert!(error.contains("512"), "{error}");
    assert!(Gates::decode(&bytes[..bytes.len() - 1], limits(), 8).is_err());
    assert!(Gates::decode(&[], limits(), 8).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_change_of_a_byte_makes_reading_or_measuring_panic(place in any::<prop::sample::Index>(), value in any::<u8>(),
        levels in prop::collection::vec(any::<u8>(), 1..200), features in prop::collection::vec(any::<f32>(), 0..9),
        logits in prop::array::uniform4(-1e30f32..1e30)) {
        let mut bytes = gates().encode().expect("tensors");
        // The header, where structure is; then anywhere.
        let header = place.index(1200.min(bytes.len()));
        let anywhere = place.index(bytes.len());
        bytes[if value & 1 == 0 { header } else { anywhere }] = value;
        let gates = Gates::decode(&bytes, limits(), 8).unwrap_or_else(|_| gates());
        let view = View::new(&levels, 1, levels.len());
        let measured = gates.measure(&view, &features, &logits, 1.0);
        for reason in gates.reasons(&measured) {
            prop_assert!(reason.value.is_finite() && reason.limit.is_finite() && !reason.message.is_empty());
        }
    }
}
