//! The promise: the Node-RED flow in `systemd/examples` shows a clinic what its boxes report and who needs somebody, as soon
//! as it is imported. Real Node-RED with its dashboard, real mosquitto, real daemon, Chromium.

mod common;
#[path = "support/dashboards.rs"]
mod dashboards;
mod support;

use common::dicom::{Dataset, EXPLICIT, PIXELS, chest};
use dashboards::{Page, browser, dashboards, example, http};
use roentgen::radiograph::phantom;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};
use support::daemon::{Place, Received};
use support::{Process, free_port, png, wait_for};

/// Node-RED in a folder of the test, empty: the flow is imported as its editor does.
fn node_red(place: &Place, packages: &Path) -> (Process, u16) {
    let (folder, port) = (place.path("node-red"), free_port());
    fs::create_dir(&folder).unwrap();
    // As `npm install @flowfuse/node-red-dashboard` leaves it.
    symlink(packages.join("node_modules"), folder.join("node_modules")).unwrap();
    fs::write(folder.join("package.json"), r#"{"dependencies": {"@flowfuse/node-red-dashboard": "*"}}"#).unwrap();
    let settings = "module.exports = { uiHost: '127.0.0.1', flowFile: 'flow.json', credentialSecret: 'a test', \
                    telemetry: { enabled: false }, logging: { console: { level: 'warn' } } };\n";
    fs::write(folder.join("settings.js"), settings).unwrap();
    let log = fs::File::create(place.path("node-red.log")).unwrap();
    let mut command = Command::new("node");
    command
        .arg(packages.join("node_modules/node-red/red.js"))
        .args(["--port", &port.to_string(), "--userDir"])
        .arg(&folder)
        .arg("--settings")
        .arg(folder.join("settings.js"))
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log);
    let process = Process::spawn(&mut command);
    wait_for("Node-RED", || http(port, "GET", "/flows", "").0.contains("200"));
    // What the technician does in the editor: the broker's address.
    let flow = example("node-red/flow.json").replace("\"port\": \"1883\"", &format!("\"port\": \"{}\"", place.port));
    let (head, body) = http(port, "POST", "/flows", &flow);
    assert!(head.contains("204"), "{head}: {body}");
    (process, port)
}

/// A chest radiograph that its tags call a lateral view: the box abstains.
fn lateral() -> Vec<u8> {
    let size = 200;
    let dataset: Dataset = chest(size, size, 8, 8).text((0x0018, 0x5101), "CS", "LL");
    dataset.bytes(PIXELS, "OB", &phantom::phantom(9, size.into())).file(EXPLICIT)
}

#[test]
fn the_flow_shows_reports_abstentions_and_a_box_that_is_gone() {
    let (Some(packages), Some(browser)) = (dashboards(), browser()) else { return };
    let Some(place) = Place::new() else { return };
    place.configure_more("[telemetry]\ninterval_s = 5\n");
    let mut broker = place.broker();
    let received = Received::subscribe(place.port, "screen");
    let mut daemon = place.daemon();
    received.wait_for_status("online");
    let (mut node_red, port) = node_red(&place, &packages);
    let mut page = Page::open(&browser, &format!("http://127.0.0.1:{port}/dashboard/roentgen"));
    page.see("This screens, it does not diagnose.");
    page.see("box-t");
    page.see("tiny 0.0.1");

    place.drop_file("a.png", &png(1));
    wait_for("a report", || received.count() == 1);
    let report = received.reports().remove(0);
    let roentgen::report::Decision::Reported { label } = report.decision else { panic!("{report:?}") };
    page.see(&format!("Reported: {}", label.title()));
    page.see(&report.notice);
    let most = report.findings.iter().map(|finding| finding.probability).fold(0.0, f32::max);
    page.see(&format!("{:.0} %", most * 100.0));

    place.drop_file("b.dcm", &lateral());
    page.see("Not judged");
    wait_for("the second report", || received.count() == 2);
    let second = received.reports().remove(1);
    let roentgen::report::Decision::Abstained { reasons } = second.decision else { panic!("{second:?}") };
    page.see(&reasons[0].message);
    page.shot("node-red.png", 1280, 900);

    // The same report again, as after a lost connection, is no second row.
    let rows = page.count(&reasons[0].message);
    let again = received.messages().into_iter().filter(|(topic, _)| topic.ends_with("/report")).nth(1).unwrap().1;
    publish(place.port, "roentgen/box-t/report", &again);
    publish(place.port, "roentgen/box-t/report", "no JSON");
    publish(place.port, "roentgen/box-u/report", &again.replace("box-t", "box-u"));
    page.see("box-u");
    assert_eq!(page.count(&reasons[0].message), rows + 1, "one of another box, none of this one");

    daemon.0.kill().unwrap();
    page.see("box-t: offline: connection lost");
    page.see("box-t needs somebody");
    page.shot("node-red-offline.png", 1280, 900);
    page.shot("node-red-phone.png", 400, 800);
    daemon.wait();
    let _daemon = place.daemon();
    page.gone("box-t: offline");
    broker.0.kill().unwrap();
    broker.wait();
    page.see("No connection to the broker: what you see here is old.");
    let _broker = place.broker();
    page.gone("No connection to the broker");
    place.drop_file("c.png", &png(2));
    page.see(&format!("no. {}", 3));
    assert_eq!(page.elsewhere(), "", "it works without the Internet");
    assert!(node_red.0.try_wait().unwrap().is_none(), "Node-RED goes on");
    let log = fs::read_to_string(place.path("node-red.log")).unwrap();
    assert!(!log.contains("TypeError") && !log.contains("ReferenceError"), "{log}");
}

/// Publishes and returns once the broker has it.
fn publish(port: u16, topic: &str, payload: &str) {
    let mut options = rumqttc::MqttOptions::new("a-hand", "127.0.0.1", port);
    options.set_max_packet_size(1 << 20, 1 << 20);
    let (client, mut connection) = rumqttc::Client::new(options, 8);
    client.publish(topic, rumqttc::QoS::AtLeastOnce, false, payload).unwrap();
    for event in connection.iter() {
        if let rumqttc::Event::Incoming(rumqttc::Packet::PubAck(_)) = event.expect("the broker is there") {
            return;
        }
    }
}
