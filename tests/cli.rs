//! What the command line promises: outputs that others parse, and exit codes.

mod support;

use roentgen::config::Config;
use roentgen::outbox::Outbox;
use roentgen::report::{NOTICE, Report};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use support::gated::gated_bundle;
use support::{Maker, Process, free_port, names, output, png, roentgend, stderr, stdout, tiny_bundle};

fn place() -> (tempfile::TempDir, PathBuf) {
    let root = tempfile::tempdir().unwrap();
    let bundle = tiny_bundle(root.path());
    (root, bundle)
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

#[test]
fn classify_json_has_a_line_for_each_file_in_sorted_order_and_fails_at_the_end() {
    let (root, bundle) = place();
    let images = root.path().join("images");
    fs::create_dir_all(images.join("b")).unwrap();
    fs::write(images.join("b/2.png"), png(2)).unwrap();
    fs::write(images.join("a.png"), png(1)).unwrap();
    fs::write(images.join("b/1-broken.png"), &png(3)[..500]).unwrap();
    fs::write(images.join(".hidden"), "x").unwrap();
    let run = |path: &Path| output(roentgend().args(["classify", "--json", "--bundle"]).arg(&bundle).arg(path));

    let mixed = run(&images);
    assert_eq!(mixed.status.code(), Some(1), "{}", stderr(&mixed));
    let found = lines(&stdout(&mixed));
    let paths: Vec<_> = found.iter().map(|line| Path::new(line["path"].as_str().unwrap())).collect();
    assert_eq!(paths, [images.join("a.png"), images.join("b/1-broken.png"), images.join("b/2.png")]);
    assert_eq!(found[1]["error"]["code"], "damaged");
    assert!(!found[1]["error"]["message"].as_str().unwrap().is_empty());
    for line in [&found[0], &found[2]] {
        let report: Report = serde_json::from_value(line["report"].clone()).unwrap();
        let sum: f32 = report.findings.iter().map(|finding| finding.probability).sum();
        assert!((sum - 1.0).abs() < 1e-4, "{sum}");
        assert_eq!((report.sequence, report.notice.as_str(), report.backend.as_str()), (0, NOTICE, "native"));
    }

    let good = run(&images.join("a.png"));
    assert_eq!(good.status.code(), Some(0), "{}", stderr(&good));
    let again = lines(&stdout(&good));
    assert_eq!(again[0]["report"]["report_id"], found[0]["report"]["report_id"], "the same image, the same id");
    assert_ne!(found[2]["report"]["report_id"], found[0]["report"]["report_id"]);

    let missing = run(&root.path().join("nothing.png"));
    assert_eq!(missing.status.code(), Some(1));
    assert_eq!(lines(&stdout(&missing))[0]["error"]["code"], "unreadable");
}

#[test]
fn the_table_shows_the_notice() {
    let (root, bundle) = place();
    fs::write(root.path().join("a.png"), png(1)).unwrap();
    let table = output(roentgend().args(["classify", "--bundle"]).arg(&bundle).arg(root.path().join("a.png")));
    assert_eq!(table.status.code(), Some(0), "{}", stderr(&table));
    assert!(stdout(&table).contains("a.png") && stdout(&table).contains(NOTICE), "{}", stdout(&table));
}

#[test]
fn bench_json_has_the_fields_that_others_read() {
    let (_root, bundle) = place();
    let bench = output(roentgend().args(["bench", "--json", "--runs", "3", "--bundle"]).arg(&bundle));
    assert_eq!(bench.status.code(), Some(0), "{}", stderr(&bench));
    let line = &lines(&stdout(&bench))[0];
    let fields: Vec<_> = line.as_object().unwrap().keys().map(String::as_str).collect();
    let expected = ["backend", "cold_start_ms", "kernel", "median_ms", "min_ms", "peak_rss_mb", "runs", "threads"];
    assert_eq!(fields, expected);
    assert_eq!(line["runs"], 3);
    let number = |key: &str| line[key].as_f64().unwrap();
    assert!(number("min_ms") > 0.0 && number("min_ms") <= number("median_ms"), "{line}");
    assert!(number("cold_start_ms") > 0.0 && number("peak_rss_mb") > 1.0, "{line}");
}

#[test]
fn bench_takes_the_backend_threads_and_kernel_that_it_is_given() {
    let (_root, bundle) = place();
    let bench = |arguments: &[&str]| {
        output(roentgend().args(["bench", "--runs", "1", "--bundle"]).arg(&bundle).args(arguments))
    };
    let native =
        bench(&["--json", "--backend", "native", "--threads", "3", "--kernel", "portable", "--memory", "small"]);
    assert_eq!(native.status.code(), Some(0), "{}", stderr(&native));
    let line = &lines(&stdout(&native))[0];
    assert_eq!((&line["backend"], &line["kernel"]), (&"native".into(), &"portable".into()), "{line}");
    assert_eq!(line["threads"], 3);
    let onnx = lines(&stdout(&bench(&["--json", "--backend", "onnx"]))).remove(0);
    assert_eq!((&onnx["backend"], &onnx["kernel"]), (&"onnx".into(), &"tract".into()), "{onnx}");

    let plan = bench(&["--plan", "--direct-only"]);
    assert_eq!(plan.status.code(), Some(0), "{}", stderr(&plan));
    for part in ["block1_conv1", "head", "pool2", "products a nanosecond"] {
        assert!(stdout(&plan).contains(part), "{part} is missing: {}", stdout(&plan));
    }
    assert!(!stdout(&plan).contains("F("), "direct only: {}", stdout(&plan));

    let unknown = bench(&["--kernel", "mmx"]);
    assert_ne!(unknown.status.code(), Some(0));
    assert!(stderr(&unknown).contains("this processor runs auto, "), "{}", stderr(&unknown));
}

#[test]
fn config_prints_what_run_would_read() {
    let printed = output(roentgend().arg("config"));
    assert_eq!(printed.status.code(), Some(0));
    assert_eq!(Config::parse(&stdout(&printed), Path::new("printed")).unwrap(), Config::default());
}

#[test]
fn a_wrong_command_line_ends_with_1_and_help_with_0() {
    for arguments in [&["flash"][..], &["run"], &["classify", "--backend", "gpu", "a.png"], &[]] {
        let wrong = output(roentgend().args(arguments));
        assert_eq!(wrong.status.code(), Some(1), "{arguments:?}: {}", stderr(&wrong));
        assert!(stderr(&wrong).contains("Usage") || stderr(&wrong).contains("--help"), "{}", stderr(&wrong));
        assert_eq!(stdout(&wrong), "");
    }
    for arguments in [&["--help"][..], &["--version"], &["run", "--help"]] {
        let asked = output(roentgend().args(arguments));
        assert_eq!((asked.status.code(), stderr(&asked).as_str()), (Some(0), ""), "{arguments:?}");
        assert!(stdout(&asked).contains("roentgend"), "{}", stdout(&asked));
    }
}

#[test]
fn a_pipe_instead_of_a_file_is_an_error_and_no_wait() {
    let (root, bundle) = place();
    let pipe = root.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let mut cases = vec![(vec!["run", "--config"], 78), (vec!["doctor", "--config"], 78)];
    if cfg!(feature = "demo") {
        cases.push((vec!["demo", "--once", "--bundle", bundle.to_str().unwrap(), "--images"], 1));
    }
    for (arguments, code) in cases {
        let mut command = roentgend();
        command.args(&arguments).arg(&pipe).stdout(Stdio::null()).stderr(Stdio::null());
        assert_eq!(Process::spawn(&mut command).wait().code(), Some(code), "{arguments:?}");
    }
}

#[test]
fn classify_makes_no_key_for_the_daemon() {
    let (root, bundle) = place();
    let config = root.path().join("roentgend.toml");
    fs::write(&config, format!("bundle = {bundle:?}\nstate_dir = {:?}\nbundles.allow_unsigned = true\n", root.path()))
        .unwrap();
    fs::write(root.path().join("a.png"), png(1)).unwrap();
    let done = output(roentgend().args(["classify", "--config"]).arg(&config).arg(root.path().join("a.png")));
    assert_eq!(done.status.code(), Some(0), "{}", stderr(&done));
    assert!(!root.path().join("pseudonym.key").exists());
}

#[test]
fn bad_configurations_and_bundles_end_with_78_and_say_why() {
    let (root, bundle) = place();
    let write = |name: &str, text: &str| {
        let path = root.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let broken = root.path().join("broken-bundle");
    fs::create_dir(&broken).unwrap();
    for entry in fs::read_dir(&bundle).unwrap() {
        let entry = entry.unwrap();
        if entry.path().is_file() {
            fs::copy(entry.path(), broken.join(entry.file_name())).unwrap();
        }
    }
    fs::write(broken.join("model.onnx"), "not a model").unwrap();
    let cases = [
        (root.path().join("missing.toml"), "missing.toml"),
        (write("typo.toml", "[mqtt]\nurll = \"x\"\n"), "line 2"),
        (write("door.toml", "[source.dicom]\nlisten = \"0.0.0.0:11112\"\n"), "source.dicom.allowed_peers"),
        (write("engine.toml", "[engine]\nthread = 2\n"), "line 2"),
        (write("kernel.toml", "engine.kernel = \"mmx\"\n"), "this processor runs auto, "),
        (write("device.toml", "device = \"ward/1\"\n"), "device"),
        (write("bundle.toml", &format!("bundle = {:?}\n", root.path().join("none"))), "none"),
        (write("broken.toml", &format!("bundle = {broken:?}\nbundles.allow_unsigned = true\n")), "broken-bundle"),
        (write("unsigned.toml", &format!("bundle = {bundle:?}\n")), "bundles.allow_unsigned"),
    ];
    for (path, said) in cases {
        let run = output(roentgend().args(["run", "--config"]).arg(&path));
        assert_eq!(run.status.code(), Some(78), "{}: {}", path.display(), stderr(&run));
        assert!(stderr(&run).contains(said), "{} does not say {said}: {}", path.display(), stderr(&run));
    }
}

#[test]
fn a_bundle_that_nobody_named_must_be_signed_by_a_trusted_key() {
    let (root, bundle) = place();
    let found = root.path().join("models/cxr-vgg16");
    fs::create_dir(root.path().join("models")).unwrap();
    fs::rename(&bundle, &found).unwrap();
    fs::write(root.path().join("a.png"), png(1)).unwrap();
    let mut commands = vec![vec!["classify", "a.png"], vec!["bench", "--runs", "1"]];
    if cfg!(feature = "demo") {
        commands.push(vec!["demo", "--once"]);
    }
    for arguments in &commands {
        for signed in [false, true] {
            let _ = fs::remove_file(found.join("bundle.sig"));
            if signed {
                Maker::new().sign(&found);
            }
            // In the folder where the command is typed, before any other place that is looked in.
            let run = |more: &[&str]| output(roentgend().args(arguments).args(more).current_dir(root.path()));
            let refused = run(&[]);
            assert_eq!((refused.status.code(), stdout(&refused).as_str()), (Some(78), ""), "{arguments:?}");
            let said = stderr(&refused);
            assert!(said.contains("--bundle models/cxr-vgg16") && said.contains("bundle.sig"), "{said}");
            let named = run(&["--bundle", "models/cxr-vgg16"]);
            assert_eq!(named.status.code(), Some(0), "{arguments:?}: {}", stderr(&named));
            assert!(stderr(&named).contains("for trying out only"), "{}", stderr(&named));
        }
    }
    // Whose key the configuration trusts decides what is worth a warning.
    let maker = Maker::new();
    maker.sign(&found);
    let config = root.path().join("roentgend.toml");
    fs::write(&config, format!("bundles.trusted_keys = [{:?}]\nstate_dir = {:?}\n", maker.key(), root.path())).unwrap();
    let mut ours = roentgend();
    ours.args(["classify", "--bundle"]).arg(&found).arg("--config").arg(&config).arg(root.path().join("a.png"));
    let ours = output(&mut ours);
    assert_eq!(ours.status.code(), Some(0), "{}", stderr(&ours));
    assert!(!stderr(&ours).contains("trying out"), "{}", stderr(&ours));
}

#[test]
fn doctor_warns_of_a_bundle_without_gates() {
    let (root, bundle) = place();
    let config = root.path().join("roentgen.toml");
    fs::write(&config, format!("bundle = {bundle:?}\nstate_dir = {:?}\nbundles.allow_unsigned = true", root.path()))
        .unwrap();
    let said = stdout(&output(roentgend().args(["doctor", "--config"]).arg(&config)));
    let line = said.lines().find(|line| line[6..].starts_with("bundle")).unwrap();
    assert!(line.starts_with("warn") && line.contains("no gates of abstention"), "{said}");
}

#[test]
fn doctor_says_what_is_wrong_and_what_to_do() {
    let root = tempfile::tempdir().unwrap();
    let bundle = gated_bundle(root.path()).dir().to_owned();
    let maker = Maker::new();
    maker.sign(&bundle);
    let config = root.path().join("roentgen.toml");
    let incoming = root.path().join("drop/incoming");
    let port = free_port();
    let text = format!(
        "bundle = {bundle:?}\nstate_dir = {:?}\nbundles.trusted_keys = [{:?}]\n[source.folder]\nincoming = {incoming:?}\n[mqtt]\nurl = \"mqtt://127.0.0.1:{port}\"\n",
        root.path().join("state"),
        maker.key()
    );
    fs::write(&config, text).unwrap();
    fs::create_dir_all(&incoming).unwrap();
    fs::write(root.path().join("drop/done"), "a file where a folder belongs").unwrap();
    let doctor = output(roentgend().args(["doctor", "--config"]).arg(&config));
    let said = stdout(&doctor);
    assert_eq!(doctor.status.code(), Some(1), "{said}");
    let line = |check: &str| {
        said.lines().find(|line| line[6..].starts_with(check)).unwrap_or_else(|| panic!("{check}: {said}"))
    };
    for check in ["configuration", "bundle", "backends", "incoming"] {
        assert!(line(check).starts_with("ok"), "{said}");
    }
    assert!(line("rejected").starts_with("warn"), "{said}");
    assert!(line("done").starts_with("FAIL"), "{said}");
    assert!(line("broker").starts_with("FAIL") && line("broker").contains(&port.to_string()), "{said}");
    assert!(!root.path().join("state").exists(), "it only looks");
    assert!(line("moving").starts_with("warn") && line("moving").contains("rejected"), "{said}");

    // Neither tables nor files for an empty database, nor a WAL for a whole one.
    let state = root.path().join("state");
    fs::create_dir(&state).unwrap();
    let outbox = state.join("outbox.sqlite3");
    fs::write(&outbox, "").unwrap();
    for _ in 0..2 {
        let before = fs::read(&outbox).unwrap();
        let said = stdout(&output(roentgend().args(["doctor", "--config"]).arg(&config)));
        assert!(said.contains("outbox.sqlite3: nothing waits"), "{said}");
        assert_eq!(fs::read(&outbox).unwrap(), before);
        assert_eq!(names(&state), ["outbox.sqlite3"]);
        fs::remove_file(&outbox).unwrap();
        drop(Outbox::open(&outbox, &roentgen::outbox::Config::default()).unwrap());
    }

    fs::write(&config, "devise = \"a\"").unwrap();
    let doctor = output(roentgend().args(["doctor", "--config"]).arg(&config));
    assert_eq!(doctor.status.code(), Some(78));
    assert!(stdout(&doctor).starts_with("FAIL"), "{}", stdout(&doctor));
}

#[cfg(feature = "demo")]
#[test]
fn demo_once_shows_every_phantom_as_it_came_from_the_broker() {
    let (_root, bundle) = place();
    let demo = output(roentgend().args(["demo", "--once", "--bundle"]).arg(&bundle));
    let said = stdout(&demo);
    assert_eq!(demo.status.code(), Some(0), "{said}{}", stderr(&demo));
    for part in ["phantom-1.png", "phantom-2.png", "mosquitto_sub -h 127.0.0.1 -p", "synthetic", "/incoming/"] {
        assert!(said.contains(part), "{part} is missing: {said}");
    }
    assert_eq!(said.matches(NOTICE).count(), 2, "{said}");
    let complaints = stderr(&demo);
    let expected = ["not signed; for trying out only", "no gates of abstention"];
    assert!(complaints.lines().all(|line| expected.iter().any(|part| line.contains(part))), "{complaints}");
    assert!(!said.contains("should abstain"), "without gates it has no way to: {said}");
}

#[cfg(feature = "demo")]
#[test]
fn demo_says_why_it_abstains_on_phantoms() {
    let root = tempfile::tempdir().unwrap();
    let bundle = gated_bundle(root.path());
    let demo = output(roentgend().args(["demo", "--once", "--bundle"]).arg(bundle.dir()));
    let said = stdout(&demo);
    assert_eq!(demo.status.code(), Some(0), "{said}{}", stderr(&demo));
    assert_eq!(said.matches("should abstain").count(), 1, "{said}");
    assert_eq!(said.matches("abstained: ").count(), 2, "{said}");
}

#[cfg(feature = "demo")]
#[test]
fn demo_once_takes_images_and_fails_when_one_is_rejected() {
    let (root, bundle) = place();
    let images = root.path().join("images");
    fs::create_dir(&images).unwrap();
    fs::write(images.join("good.png"), png(5)).unwrap();
    let run = || output(roentgend().args(["demo", "--once", "--bundle"]).arg(&bundle).arg("--images").arg(&images));
    fs::write(images.join("same.png"), png(5)).unwrap();
    let repeated = run();
    let said = stdout(&repeated);
    assert_eq!(repeated.status.code(), Some(0), "{said}{}", stderr(&repeated));
    assert!(said.contains("repeated: 0002-same.png: the same image as 0001-good.png"), "{said}");
    assert_eq!(said.matches(NOTICE).count(), 1, "{said}");
    fs::remove_file(images.join("same.png")).unwrap();
    fs::write(images.join("bad.png"), "no image").unwrap();
    let demo = run();
    let said = stdout(&demo);
    assert_eq!(demo.status.code(), Some(1), "{said}{}", stderr(&demo));
    assert!(said.contains("0002-good.png") && said.contains("rejected: 0001-bad.png"), "{said}");
}
