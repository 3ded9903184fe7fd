//! The promise: an accelerator that is missing, refuses, fails, hangs, crashes or computes something else costs no report. The
//! processor makes it, within the accelerator's time limit and a second, under its own name; status and telemetry say so;
//! and the accelerator judges again once it works. With TFLite's own library (`cross/tflite` gets it) and a delegate that
//! is compiled here (tests/delegate/stub.c), in the real program.
#![cfg(all(feature = "host", feature = "edgetpu"))]

#[path = "support/accelerator.rs"]
mod accelerator;
mod support;

use accelerator::{BAR, Bench, TIMEOUT, image, tflite};
use roentgen::bundle::{Bundle, EDGETPU_FILE};
use roentgen::classifier::Classifier;
use roentgen::classifier::edgetpu::{Config, Guarded};
use roentgen::classifier::loaded::Loaded;
use roentgen::tensor::Tensor;
use std::fs;
use std::process::Command;
use support::daemon::{Place, Received, retained_status};
use support::{output, png, roentgend, stderr, stdout, tiny_bundle, wait_for};

#[test]
fn a_delegate_that_works_judges_as_the_engine_does() {
    let Some(bench) = Bench::new() else { return };
    let mut guarded = bench.start(bench.config(&[]));
    let running = guarded.running().unwrap();
    assert_eq!((running.backend.as_str(), running.fallback), ("edgetpu", None));
    assert!(running.kernel.starts_with("libedgetpu_stub.so, TFLite 2."), "{}", running.kernel);
    for shift in 0..3 {
        let bytes = image().into_data().into_iter().map(|grey| grey.wrapping_add(shift * 40)).collect();
        let image = Tensor::new([1, 224, 224, 1], bytes).unwrap();
        let (evidence, expected) = (guarded.classify(&image).unwrap(), bench.native().classify(&image).unwrap());
        assert_eq!(guarded.name(), "edgetpu");
        let steps = |a: &Tensor<u8>, b: &Tensor<u8>| a.data().iter().zip(b.data()).map(|(a, b)| a.abs_diff(*b)).max();
        assert!(steps(&evidence.map_quantized, &expected.map_quantized) <= Some(2), "evidence");
        assert!(steps(&evidence.features_quantized, &expected.features_quantized) <= Some(1), "features");
    }
}

#[test]
fn the_five_failures_each_end_in_a_report_of_the_processor_within_the_limit() {
    let Some(bench) = Bench::new() else { return };
    // At the start: the first image finds the processor at work.
    for (mode, reason) in [
        ("null", "no device is plugged in"),
        ("prepare", "cannot run the model with this delegate"),
        ("invoke", "the inference failed"),
        ("crash", "signal 11"),
    ] {
        let mut guarded = bench.start(bench.config(&[("mode", mode)]));
        let took = bench.must_fall_back(&mut guarded, reason);
        assert!(took < TIMEOUT + BAR, "{mode}: {took:?}");
    }
    // In the middle of the work: the golden vector is right, and the first image is not done.
    for (mode, reason) in [("invoke", "the inference failed"), ("crash", "signal 11"), ("hang", "took longer than 1 s")]
    {
        // A machine that is busy with other tests may be late once.
        let mut took = Vec::new();
        while took.len() < 3 && took.last().is_none_or(|took| *took >= TIMEOUT + BAR) {
            let mut guarded = bench.start(bench.config(&[("mode", mode), ("after", "1")]));
            assert_eq!(guarded.running().unwrap().fallback, None, "{mode}");
            took.push(bench.must_fall_back(&mut guarded, reason));
            // The next one does not wait for it again.
            assert_eq!(guarded.classify(&image()).map(|_| guarded.name().to_owned()).unwrap(), "native");
        }
        assert!(took.last().is_some_and(|took| *took < TIMEOUT + BAR), "{mode}: {took:?}");
        eprintln!("{mode}: the processor's report after {took:?}");
    }
}

#[test]
fn what_hangs_or_lies_at_the_start_is_not_waited_for_or_believed() {
    let Some(bench) = Bench::new() else { return };
    let config = Config { start_seconds: 1, ..bench.config(&[("mode", "stuck")]) };
    bench.must_fall_back(&mut bench.start(config), "its start took longer than 1 s");
    bench.must_fall_back(&mut bench.start(bench.config(&[("mode", "wrong")])), "golden outputs differ");
    bench.must_fall_back(&mut bench.start(bench.config(&[("speed", "9")])), "unknown option");
}

#[test]
fn libraries_and_models_that_are_not_there_or_not_right_are_named() {
    let Some(bench) = Bench::new() else { return };
    let missing = Config { delegate: "/nowhere/libedgetpu.so.1".into(), ..bench.config(&[]) };
    bench.must_fall_back(&mut bench.start(missing), "/nowhere/libedgetpu.so.1 is not there");
    // TFLite's library in the delegate's place, and another one in its own.
    let swapped = bench.folder.path().join("libedgetpu_swapped.so");
    fs::copy(&bench.library, &swapped).unwrap();
    let no_delegate = Config { delegate: swapped, ..bench.config(&[]) };
    bench.must_fall_back(&mut bench.start(no_delegate), "has no tflite_plugin_create_delegate");
    let compiled = |name: &str, text: &str| {
        let (source, made) = (bench.folder.path().join(format!("{name}.c")), bench.folder.path().join(name));
        fs::write(&source, text).unwrap();
        let built = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&made).arg(&source).status().unwrap();
        assert!(built.success());
        Config { library: made, ..bench.config(&[]) }
    };
    let other = compiled("libother.so", "int something_else;\n");
    bench.must_fall_back(&mut bench.start(other), "has no TfLiteVersion");
    // Versions of TFLite that are too old, or not what they say.
    let old = compiled("libold.so", "const char *TfLiteVersion(void) { return \"2.5.0\"; }\n");
    bench.must_fall_back(&mut bench.start(old), "version \"2.5.0\": 2.12 or later is needed");
    let hollow = compiled("libhollow.so", "const char *TfLiteVersion(void) { return \"2.17.1\"; }\n");
    bench.must_fall_back(&mut bench.start(hollow), "has no TfLiteModelCreate");
    // No library at all.
    let text = bench.folder.path().join("libedgetpu_text.so");
    fs::write(&text, "not a library").unwrap();
    let text = Config { delegate: text, ..bench.config(&[]) };
    bench.must_fall_back(&mut bench.start(text), "cannot be loaded");
    // A bundle that nobody compiled.
    let plain = Bundle::open(&tiny_bundle(&bench.folder.path().join("plain"))).unwrap();
    bench.must_fall_back(&mut bench.start_bundle(bench.config(&[]), plain), "has no model_edgetpu.tflite");
}

#[test]
fn another_delegate_runs_the_plain_model_under_a_name_of_its_own() {
    let Some(bench) = Bench::new() else { return };
    let other = bench.folder.path().join("libother.so");
    fs::copy(bench.stub(), &other).unwrap();
    let mut guarded = bench.start(Config { delegate: other, ..bench.config(&[]) });
    guarded.classify(&image()).unwrap();
    assert_eq!(guarded.name(), "delegate");
    assert_eq!(guarded.running().unwrap().fallback, None);
}

#[test]
fn it_judges_again_once_it_works_again() {
    let Some(bench) = Bench::new() else { return };
    let mode = bench.folder.path().join("mode");
    fs::write(&mode, "null").unwrap();
    let mut guarded = bench.start(bench.config(&[("mode_file", mode.to_str().unwrap())]));
    bench.must_fall_back(&mut guarded, "no device is plugged in");
    fs::write(&mode, "works").unwrap();
    wait_for("the accelerator to be tried again", || {
        guarded.tend();
        guarded.running().unwrap().fallback.is_none()
    });
    guarded.classify(&image()).unwrap();
    assert_eq!(guarded.name(), "edgetpu");
}

#[test]
fn one_that_takes_anothers_place_is_started_once_that_is_gone() {
    let Some(bench) = Bench::new() else { return };
    let settings = bench.settings(bench.config(&[]), bench.bundle.clone());
    let mut guarded = Guarded::later(settings, Loaded::Native(Box::new(bench.native())));
    let running = guarded.running().unwrap();
    assert_eq!((running.backend.as_str(), running.fallback), ("native", None));
    wait_for("the accelerator to work", || {
        guarded.tend();
        guarded.running().unwrap().backend == "edgetpu"
    });
}

#[test]
fn the_host_tool_adds_what_corals_compiler_made_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let bundle = Bundle::open(&tiny_bundle(folder.path())).unwrap();
    let network = bundle.network().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::write(path("plain.tflite"), tflite::write(&network)).unwrap();
    fs::write(path("compiled.tflite"), tflite::write_behind(&network, "edgetpu-custom-op")).unwrap();
    let host = || Command::new(env!("CARGO_BIN_EXE_roentgen-host"));
    assert!(host().args(["keygen", "--no-password", "--out"]).arg(path("clinic.key")).status().unwrap().success());
    let pack = |model: &str| {
        let mut command = host();
        command.args(["pack", "--version", "0.0.2", "--bundle"]).arg(bundle.dir()).arg("--edgetpu").arg(path(model));
        output(command.arg("--sign").arg(path("clinic.key")).arg("--out").arg(path("packed")))
    };
    let refused = pack("plain.tflite");
    assert!(!refused.status.success() && stderr(&refused).contains("is not what edgetpu_compiler makes"));
    let packed = pack("compiled.tflite");
    assert!(packed.status.success(), "{}", stderr(&packed));
    let packed = Bundle::open(&path("packed")).unwrap();
    assert_eq!(packed.manifest().version, "0.0.2");
    assert!(packed.read(EDGETPU_FILE).unwrap() == fs::read(path("compiled.tflite")).unwrap());
    assert!(packed.manifest().provenance[EDGETPU_FILE].contains("edgetpu_compiler"));
}

#[test]
fn status_telemetry_and_reports_say_what_judges() {
    let Some(bench) = Bench::new() else { return };
    let Some(place) = Place::new() else { return };
    place.configure(bench.bundle.dir(), "allow_unsigned = true");
    let mode = bench.folder.path().join("mode");
    fs::write(&mode, "hang").unwrap();
    let text = fs::read_to_string(place.path("roentgend.toml")).unwrap();
    let accelerator = format!(
        "[accelerator]\ndelegate = {:?}\nlibrary = {:?}\ntimeout_ms = 1000\nretry_seconds = 5\ntolerance = 2\n\
         [accelerator.options]\nmode_file = {mode:?}\nafter = \"1\"\n[telemetry]\ninterval_s = 5\n",
        bench.stub(),
        bench.library
    );
    fs::write(place.path("roentgend.toml"), format!("backend = \"edgetpu\"\n{text}{accelerator}")).unwrap();
    let _broker = place.broker();
    let received = Received::subscribe(place.port, "accelerator");
    let mut daemon = place.daemon();
    received.wait_for_status("online");
    assert_eq!(received.last_status().unwrap()["backend_fallback"], serde_json::Value::Null);

    // The golden vector is the one inference that works; the image's hangs.
    place.drop_file("a.png", &png(1));
    wait_for("a report of the processor", || received.count() == 1);
    assert_eq!(received.reports()[0].backend, "native", "{}", place.log());
    wait_for("the status to say so", || {
        received.on("status").iter().any(|(_, status)| {
            let fallback = &status["backend_fallback"];
            fallback["wanted"] == "edgetpu" && fallback["reason"].to_string().contains("took longer than 1 s")
        })
    });
    wait_for("the telemetry to say so", || {
        received.on("telemetry").iter().any(|(_, json)| {
            let problem = json["health"]["problems"].as_array().and_then(|problems| problems.first().cloned());
            json["engine"]["backend_fallback"]["wanted"] == "edgetpu"
                && json["engine"]["backend"] == "native"
                && problem.is_some_and(|problem| problem["code"] == "backend_fallback")
        })
    });

    fs::write(&mode, "works").unwrap();
    wait_for("the status to say that it works again", || {
        received.last_status().is_some_and(|status| status["backend_fallback"].is_null())
    });
    place.drop_file("b.png", &png(2));
    wait_for("a report of the accelerator", || received.count() == 2);
    assert_eq!(received.reports()[1].backend, "edgetpu", "{}", place.log());
    assert_eq!(retained_status(place.port)["backend_fallback"], serde_json::Value::Null);
    daemon.signal("TERM");
    assert!(daemon.wait().success());

    // Tried out by hand, while no daemon has it.
    let config = place.path("roentgend.toml");
    let mut bench_command = roentgend();
    bench_command.args(["bench", "--backend", "edgetpu", "--json", "--runs", "3", "--config"]).arg(config);
    let said = output(bench_command.arg("--bundle").arg(bench.bundle.dir()));
    let said: serde_json::Value = serde_json::from_str(&stdout(&said)).unwrap();
    assert_eq!(said["backend"], "edgetpu");
    let mut all = roentgend();
    all.args(["bench", "--all", "--json", "--config"]).arg(place.path("roentgend.toml"));
    let said = output(all.arg("--bundle").arg(bench.bundle.dir()));
    let said: serde_json::Value = serde_json::from_str(&stdout(&said)).unwrap();
    let row = said["backends"].as_array().unwrap().iter().find(|row| row["backend"] == "edgetpu").unwrap();
    assert!(row["median_ms"].as_f64() > Some(0.0) && row["largest_difference"].as_u64() <= Some(2), "{said}");
}
