//! `mqtts://` speaks TLS with a broker whose certificate is signed by a trusted authority, and with no other.

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;
use support::{free_port, mosquitto, output, roentgend, start_mosquitto, stdout, tiny_bundle, user};

/// Runs openssl in a folder; the key pairs of a test are worth nothing an hour later.
fn openssl(folder: &Path, arguments: &str) {
    let made = Command::new("openssl").args(arguments.split(' ')).current_dir(folder).output().expect("openssl");
    assert!(made.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&made.stderr));
}

#[test]
fn a_broker_is_trusted_for_its_certificate_and_only_for_that() {
    let Some(mosquitto) = mosquitto() else { return };
    let root = tempfile::tempdir().unwrap();
    let path = |name: &str| root.path().join(name);
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    for authority in ["ca", "stranger"] {
        openssl(
            root.path(),
            &format!("req -x509 {key} -keyout {authority}.key -out {authority}.pem -subj /CN={authority} -days 2"),
        );
    }
    openssl(root.path(), &format!("req {key} -keyout broker.key -out broker.csr -subj /CN=localhost"));
    fs::write(path("names"), "subjectAltName=DNS:localhost\n").unwrap();
    openssl(
        root.path(),
        "x509 -req -in broker.csr -CA ca.pem -CAkey ca.key -CAcreateserial -extfile names -days 2 -out broker.pem",
    );
    let port = free_port();
    let folder = root.path().display();
    let broker = format!(
        "listener {port} 127.0.0.1\nallow_anonymous true\nuser {}\n\
         cafile {folder}/ca.pem\ncertfile {folder}/broker.pem\nkeyfile {folder}/broker.key\n",
        user()
    );
    fs::write(path("mosquitto.conf"), broker).unwrap();
    let _broker = start_mosquitto(&mosquitto, &path("mosquitto.conf"), port);
    let bundle = tiny_bundle(root.path());
    let verdict = |host: &str, ca: &str| {
        let text = format!(
            "bundle = {bundle:?}\nstate_dir = {:?}\nbundles.allow_unsigned = true\n[source.folder]\nincoming = {:?}\n\
             [mqtt]\nurl = \"mqtts://{host}:{port}\"\nca_file = {:?}\n",
            path("state"),
            path("incoming"),
            path(ca)
        );
        fs::write(path("roentgend.toml"), text).unwrap();
        let said = stdout(&output(roentgend().args(["doctor", "--config"]).arg(path("roentgend.toml"))));
        said.lines().last().unwrap_or_default().to_owned()
    };
    assert!(verdict("localhost", "ca.pem").starts_with("ok    broker"), "{}", verdict("localhost", "ca.pem"));
    let stranger = verdict("localhost", "stranger.pem");
    assert!(stranger.starts_with("FAIL  broker") && stranger.contains("certificate"), "{stranger}");
    let other_name = verdict("127.0.0.1", "ca.pem");
    assert!(other_name.starts_with("FAIL  broker") && other_name.contains("certificate"), "{other_name}");
    let no_file = verdict("localhost", "missing.pem");
    assert!(no_file.starts_with("FAIL  broker") && no_file.contains("missing.pem"), "{no_file}");
}
