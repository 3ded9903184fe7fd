//! The promise: models/schema describes every message as it really is. What a running box publishes, and what it would in
//! every other case, fits the JSON Schemas, with no field that they do not name; their closed lists are those of the
//! program; and what is spoiled does not fit. jsonschema is the judge (PyPI, in Python).

mod support;

use roentgen::radiograph::{OriginKind, RefusalCode};
use roentgen::report::{Clock, Label, NOTICE, ReasonCode, SCHEMA};
use roentgen::sink::mqtt::command::{self, Name, Stage};
use roentgen::status::{Severity, WINDOW, probe};
use rumqttc::{Client, Event, MqttOptions, Packet, QoS};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use support::daemon::{Place, Received};
use support::payloads::{abstained, assert_fit, codes, judged, python, reports, telemetry, variants};
use support::{png, wait_for};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn schema(name: &str) -> Value {
    let path = Path::new(ROOT).join("models/schema").join(name).with_extension("json");
    serde_json::from_slice(&fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))).unwrap()
}

fn names(list: &Value) -> BTreeSet<String> {
    list.as_array()
        .unwrap_or_else(|| panic!("{list} is no list"))
        .iter()
        .map(|one| one.as_str().unwrap().into())
        .collect()
}

/// The texts that follow `before` in the sources of a folder.
fn quoted_after(folder: &str, before: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut folders = vec![Path::new(ROOT).join("src").join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = fs::read_to_string(path).unwrap();
            for (at, _) in text.match_indices(before) {
                found.extend(text[at + before.len()..].split('"').next().map(str::to_owned));
            }
        }
    }
    found
}

#[test]
fn closed_lists_are_those_of_the_program() {
    let (report, status, result, telemetry) =
        (schema("report"), schema("status"), schema("result"), schema("telemetry"));
    let defs = &report["$defs"];
    let labels: BTreeSet<String> = Label::ALL.into_iter().map(|label| label.name().to_owned()).collect();
    assert_eq!(names(&defs["label"]["enum"]), labels);
    assert_eq!(names(&telemetry["properties"]["counts"]["properties"]["reported"]["required"]), labels);
    let order: Vec<_> = report["properties"]["findings"]["prefixItems"].as_array().unwrap().iter().collect();
    assert_eq!(
        order.iter().map(|one| one["properties"]["label"]["const"].as_str().unwrap()).collect::<Vec<_>>(),
        Label::ALL.map(Label::name)
    );
    assert_eq!(names(&defs["reason"]["properties"]["code"]["enum"]), variants::<ReasonCode>());
    assert_eq!(names(&defs["origin"]["properties"]["kind"]["enum"]), variants::<OriginKind>());
    assert_eq!(names(&report["properties"]["clock"]["enum"]), variants::<Clock>());
    assert_eq!(names(&telemetry["properties"]["clock"]["enum"]), variants::<Clock>());
    assert_eq!(report["properties"]["notice"]["const"], NOTICE);
    assert_eq!(report["properties"]["schema"]["const"], SCHEMA);
    assert_eq!(status["properties"]["schema"]["const"], roentgen::sink::mqtt::STATUS_SCHEMA);
    assert_eq!(telemetry["properties"]["schema"]["const"], roentgen::status::SCHEMA);
    assert_eq!(result["properties"]["schema"]["const"], command::RESULT_SCHEMA);
    assert_eq!(names(&telemetry["$defs"]["refusal"]["enum"]), variants::<RefusalCode>());
    assert_eq!(names(&telemetry["$defs"]["problem"]["properties"]["severity"]["enum"]), variants::<Severity>());
    assert_eq!(names(&result["properties"]["stage"]["enum"]), variants::<Stage>());
    assert_eq!(telemetry["properties"]["latency_ms"]["properties"]["window"]["maximum"], WINDOW);
    let problems = &quoted_after("status", "Problem::failing(\"") | &quoted_after("status", "Problem::warning(\"");
    assert_eq!(names(&telemetry["$defs"]["problem"]["properties"]["code"]["enum"]), problems);
    let firmware = &telemetry["properties"]["heat"]["properties"]["firmware"]["items"]["enum"];
    let bits: BTreeSet<String> = probe::firmware_words().into_iter().map(str::to_owned).collect();
    assert_eq!(names(firmware), bits);
    let helpers = ["id", "plain"].map(str::to_owned);
    let commands: BTreeSet<String> =
        schema("command")["$defs"].as_object().unwrap().keys().filter(|key| !helpers.contains(key)).cloned().collect();
    assert_eq!(commands, Name::ALL.into_iter().map(|name| name.as_str().to_owned()).collect());
}

#[test]
fn every_kind_of_message_fits_its_schema() {
    let Some(python) = python() else { return };
    let mut payloads = reports();
    payloads.extend(telemetry());
    let of_kind = |kind: &str| payloads.iter().filter(|(schema, _)| schema == kind).count();
    assert!(of_kind("report") > 18 && of_kind("telemetry") == 2);
    assert_fit(&python, &payloads);
}

/// Publishes a command and returns once the broker has it.
fn command(port: u16, name: &str, payload: &Value) {
    let mut options = MqttOptions::new(format!("commander-{name}").replace('/', "-"), "127.0.0.1", port);
    options.set_max_packet_size(1 << 20, 1 << 20);
    let (client, mut connection) = Client::new(options, 8);
    client.publish(format!("roentgen/box-t/command/{name}"), QoS::AtLeastOnce, false, payload.to_string()).unwrap();
    for event in connection.iter() {
        if let Event::Incoming(Packet::PubAck(_)) = event.expect("the broker is there") {
            return;
        }
    }
}

#[test]
fn what_a_running_box_says_fits_its_schema() {
    let Some(python) = python() else { return };
    let Some(place) = Place::new() else { return };
    let gated = support::gated::gated_bundle(&place.path("."));
    let allow =
        "[commands]\nallow = [\"telemetry\", \"reload\", \"bundle/install\", \"bundle/rollback\", \"capture\"]\n";
    place.configure_more(&format!("[telemetry]\ninterval_s = 5\n[report]\nevidence_map = true\n{allow}"));
    let _broker = place.broker();
    let received = Received::subscribe(place.port, "screen");
    let mut daemon = place.daemon();
    received.wait_for_status("online");
    for seed in 0..4 {
        place.drop_file(&format!("{seed}.png"), &png(seed));
    }
    place.drop_file("text.png", b"no image");
    wait_for("four reports", || received.reports().len() == 4);
    // The same images are judged anew by a bundle that would rather not.
    let config = fs::read_to_string(place.path("roentgend.toml")).unwrap();
    let tiny = format!("bundle = {:?}", place.path("tiny"));
    assert!(config.contains(&tiny), "{config}");
    fs::write(place.path("roentgend.toml"), config.replace(&tiny, &format!("bundle = {:?}", gated.dir()))).unwrap();
    let commands = [
        ("reload", json!({ "id": "r" }), "done"),
        ("telemetry", json!({ "id": "t" }), "done"),
        ("capture", json!({ "id": "c" }), "rejected"),
        ("bundle/install", json!({ "id": "i", "file": "none.tar" }), "rejected"),
        ("bundle/rollback", json!({ "id": "b" }), "rejected"),
        ("nonsense", json!({ "id": "n" }), "rejected"),
        ("telemetry", json!({ "id": "w", "what": 1 }), "rejected"),
    ];
    for (name, payload, stage) in &commands {
        command(place.port, name, payload);
        let last = || {
            let mut answers = received.on("result").into_iter().map(|(_, json)| json);
            // What cannot be read is answered without its id.
            answers.rfind(|json| json["id"] == payload["id"] || json["id"] == "")
        };
        wait_for(&format!("{name} to be {stage}"), || {
            last().is_some_and(|json| json["stage"] == *stage || json["stage"] == "failed")
        });
    }
    for seed in 0..2 {
        place.drop_file(&format!("again-{seed}.png"), &png(seed));
    }
    wait_for("two abstentions", || received.reports().len() == 6);
    wait_for("telemetry of them", || {
        received.on("telemetry").last().is_some_and(|(_, json)| json["counts"]["abstained"].as_u64() >= Some(2))
    });
    daemon.signal("KILL");
    daemon.wait();
    received.wait_for_status("offline");
    let mut daemon = place.daemon();
    received.wait_for_status("online");
    daemon.signal("TERM");
    assert_eq!(daemon.wait().code(), Some(0), "{}", place.log());
    received.wait_for_status("offline");

    let mut payloads = Vec::new();
    for kind in ["report", "status", "telemetry", "result"] {
        let of_kind: Vec<_> = received.on(kind).into_iter().map(|(_, json)| (kind.to_owned(), json)).collect();
        assert!(of_kind.len() >= 4, "{kind}: {of_kind:?}\n{}", place.log());
        payloads.extend(of_kind);
    }
    let has =
        |pointer: &str, value: &str| payloads.iter().any(|(_, json)| json.pointer(pointer) == Some(&value.into()));
    assert!(has("/decision/status", "abstained"), "{payloads:?}");
    assert!(has("/reason", "connection lost") && has("/reason", "stopped"));
    assert!(payloads.iter().any(|(_, json)| json["evidence_map"]["rows"] == 7));
    for (name, payload, stage) in &commands {
        let sense = !payload.to_string().contains("what") && *name != "nonsense";
        if sense || *stage == "done" {
            payloads.push((format!("command#{name}"), payload.clone()));
        }
    }
    assert_fit(&python, &payloads);
}

/// Every place in a payload, as JSON pointers.
fn places(payload: &Value, at: &str, found: &mut Vec<String>) {
    match payload {
        Value::Object(fields) => {
            for (name, value) in fields {
                let at = format!("{at}/{}", name.replace('~', "~0").replace('/', "~1"));
                found.push(at.clone());
                places(value, &at, found);
            }
        }
        Value::Array(list) => {
            for (index, value) in list.iter().enumerate().take(4) {
                places(value, &format!("{at}/{index}"), found);
            }
        }
        _ => {}
    }
}

#[test]
fn what_is_spoiled_does_not_fit() {
    let Some(python) = python() else { return };
    let status = json!({ "schema": "roentgen.status/1", "status": "online", "device": "b", "version": "1" });
    let offline = json!({ "schema": "roentgen.status/1", "status": "offline", "device": "b", "version": "1",
                          "reason": "stopped" });
    let result = json!({ "schema": "roentgen.result/1", "device": "b", "id": "1", "command": "reload", "stage": "done",
                         "message": "it is", "at": "2026-01-01T00:00:00Z" });
    let install = json!({ "id": "1", "file": "a.tar" });
    let mut whole = vec![reports().remove(0), reports().pop().unwrap(), telemetry().pop().unwrap()];
    whole.push(("report".into(), serde_json::to_value(abstained(&codes())).unwrap()));
    whole.extend(
        [("status", status), ("status", offline), ("result", result)].map(|(name, json)| (name.to_owned(), json)),
    );
    whole.push(("command#bundle/install".into(), install));
    assert_fit(&python, &whole);

    // Anything that is of another type, wherever it stands.
    let mut spoiled = Vec::new();
    for (schema, payload) in &whole {
        let mut found = Vec::new();
        places(payload, "", &mut found);
        assert!(found.len() >= 2, "{payload}");
        for at in found {
            let mut wrong = payload.clone();
            let place = wrong.pointer_mut(&at).unwrap();
            *place = if place.is_boolean() { "yes".into() } else { true.into() };
            spoiled.push((schema.clone(), wrong));
        }
    }
    // And what is of the right type.
    let mut changed = Vec::new();
    let mut change = |index: usize, at: &str, value: Value| {
        let (schema, mut payload) = whole[index].clone();
        let found = payload.pointer_mut(at).map(|place| *place = value);
        assert!(found.is_some(), "{at} in {payload}");
        changed.push((schema, payload));
    };
    change(0, "/schema", "roentgen.report/2".into());
    change(0, "/report_id", "ABC".into());
    change(0, "/findings/0/probability", 1.5.into());
    change(0, "/findings/0/label", "normal".into());
    change(0, "/findings", json!([]));
    change(0, "/decision", json!({ "status": "reported", "label": "healthy" }));
    change(0, "/decision", json!({ "status": "diagnosed", "label": "normal" }));
    change(0, "/decision", json!({ "status": "abstained", "reasons": [] }));
    change(0, "/received_at", "yesterday".into());
    change(0, "/origin/content_sha256", "DOE^JANE".into());
    change(0, "/origin/study", "1.2.840.10008".into());
    change(0, "/notice", "A diagnosis.".into());
    change(0, "/timing_ms/total", (-1).into());
    change(3, "/decision/reasons/0/code", "bad_luck".into());
    change(2, "/health/problems/0/code", "bad_luck".into());
    change(2, "/counts/rejected", json!({ "bad_luck": 1 }));
    change(2, "/counts/reported", json!({ "covid": 1 }));
    change(2, "/queue/unsent", (-1).into());
    change(4, "/status", "asleep".into());
    change(5, "/reason", "no reason".into());
    change(6, "/stage", "perhaps".into());
    change(6, "/at", "12:00".into());
    change(7, "/file", "../a.tar".into());
    spoiled.extend(changed);
    for (schema, payload) in &whole {
        if !schema.starts_with("command") {
            let mut wrong = payload.clone();
            wrong.as_object_mut().unwrap().remove("schema");
            spoiled.push((schema.clone(), wrong));
        }
    }
    spoiled.push(("command#reload".into(), json!({ "id": "1", "path": "/etc/passwd" })));
    spoiled.push(("command#reload".into(), json!(["1"])));
    assert!(spoiled.len() > 150, "{}", spoiled.len());
    for ((schema, payload), wrong) in spoiled.iter().zip(judged(&python, &spoiled, false)) {
        assert!(!wrong.is_empty(), "{schema} takes {payload}");
    }
    // Consumers must bear fields that are added; the box does not bear any in a command.
    let mut more = whole[0].1.clone();
    more["added_later"] = 1.into();
    let more = [("report".to_owned(), more)];
    assert_eq!(judged(&python, &more, false), [Vec::<String>::new()]);
    assert!(!judged(&python, &more, true)[0].is_empty());
}
