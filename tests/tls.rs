//! `mqtts://` speaks TLS with a broker whose certificate is signed by a trusted authority, and with no other; shows the
//! box's own certificate to a broker that asks for one; and no secret shows anywhere.

mod support;

use std::fs;
use std::path::Path;
use support::authority::{Authorities, line};
use support::daemon::Received;
use support::{Process, output, png, roentgend, stderr, stdout, wait_for};

const PASSWORD: &str = "Zq9-unmistakable-hunter2";

/// What `doctor` says of the broker, and that neither it nor its log says the password.
fn verdict(config: &Path, credentials: Option<&Path>) -> String {
    let mut doctor = roentgend();
    doctor.args(["-v", "doctor", "--config"]).arg(config).env_remove("CREDENTIALS_DIRECTORY");
    if let Some(folder) = credentials {
        doctor.env("CREDENTIALS_DIRECTORY", folder);
    }
    let said = output(&mut doctor);
    let all = format!("{}{}", stdout(&said), stderr(&said));
    assert!(!all.contains(PASSWORD) && !all.contains("PRIVATE KEY"), "{all}");
    let from = all.find("  broker").map_or(0, |at| at - 4);
    all[from..].lines().next().unwrap_or_default().to_owned()
}

#[track_caller]
fn expect(verdict: &str, beginning: &str, words: &[&str]) {
    assert!(verdict.starts_with(&format!("{beginning}  broker")), "{verdict}");
    for word in words {
        assert!(verdict.contains(word), "{word:?} is missing in: {verdict}");
    }
}

#[test]
fn a_broker_is_trusted_for_its_certificate_and_only_for_that() {
    let Some(place) = Authorities::new() else { return };
    let (_broker, port, plain) = place.broker("broker", "allow_anonymous true");
    let said = |host: &str, ca: &str| {
        verdict(&place.configure(&format!("mqtts://{host}:{port}"), &line("ca_file", &place.path(ca))), None)
    };
    expect(&said("localhost", "ca.pem"), "ok  ", &[]);
    expect(&said("localhost", "stranger.pem"), "FAIL", &["certificate", "mqtt.ca_file"]);
    expect(&said("127.0.0.1", "ca.pem"), "FAIL", &["certificate", "another host name"]);
    expect(&said("localhost", "missing.pem"), "FAIL", &["missing.pem", "mqtt.ca_file"]);
    expect(&said("localhost", "ca.key"), "FAIL", &["ca.key", "no certificate"]);
    let ca = line("ca_file", &place.path("ca.pem"));
    expect(&verdict(&place.configure(&format!("mqtts://localhost:{plain}"), &ca), None), "FAIL", &[]);

    place.sign("expired", "localhost", "ca", -1);
    let (_broker, port, _) = place.broker("expired", "allow_anonymous true");
    let config = place.configure(&format!("mqtts://localhost:{port}"), &ca);
    expect(&verdict(&config, None), "FAIL", &["expired", "clock"]);
}

#[test]
fn a_broker_that_asks_for_a_certificate_gets_the_boxs_own() {
    let Some(place) = Authorities::new() else { return };
    place.sign("box", "box-t", "ca", 2);
    place.sign("foreign", "box-t", "stranger", 2);
    place.sign("old", "box-t", "ca", -1);
    place.openssl("ec -in box.key -aes128 -passout pass:secret -out locked.key");
    let (_broker, port, _) = place.broker("broker", "allow_anonymous true\nrequire_certificate true");
    let said = |more: &str| {
        let lines = format!("{}{more}", line("ca_file", &place.path("ca.pem")));
        verdict(&place.configure(&format!("mqtts://localhost:{port}"), &lines), None)
    };
    let client = |certificate: &str, key: &str| {
        format!("{}{}", line("client_certificate", &place.path(certificate)), line("client_key", &place.path(key)))
    };
    expect(&said(""), "FAIL", &["mqtt.client_certificate"]);
    expect(&said(&client("box.pem", "box.key")), "ok  ", &[]);
    expect(&said(&client("foreign.pem", "foreign.key")), "FAIL", &["mqtt.client_certificate"]);
    expect(&said(&client("old.pem", "old.key")), "FAIL", &["mqtt.client_certificate"]);
    expect(&said(&client("box.pem", "old.key")), "FAIL", &["mqtt.client_key", "not the key"]);
    expect(&said(&client("box.pem", "locked.key")), "FAIL", &["locked.key", "encrypted"]);
    expect(&said(&client("box.pem", "box.pem")), "FAIL", &["mqtt.client_key"]);
    place.write("open.key", &fs::read_to_string(place.path("box.key")).unwrap(), 0o644);
    expect(&said(&client("box.pem", "open.key")), "FAIL", &["open.key", "0644", "chmod"]);
}

#[test]
fn a_password_comes_from_a_file_or_from_systemd_and_is_never_shown() {
    let Some(place) = Authorities::new() else { return };
    let passwords = place.mosquitto_passwords("passwords", "box-t", PASSWORD);
    let (_broker, port, _) = place.broker("broker", &format!("password_file {}", passwords.display()));
    place.write("right", &format!("{PASSWORD}\nmore\n"), 0o600);
    place.write("wrong", &format!("{PASSWORD}x\n"), 0o600);
    place.write("empty", "\n", 0o600);
    place.write("open", &format!("{PASSWORD}\n"), 0o604);
    let said = |file: &str, credentials: Option<&Path>| {
        let ca = line("ca_file", &place.path("ca.pem"));
        let lines = format!("{ca}username = \"box-t\"\npassword_file = {file:?}\n");
        verdict(&place.configure(&format!("mqtts://localhost:{port}"), &lines), credentials)
    };
    let at = |name: &str| place.path(name).display().to_string();
    expect(&said(&at("right"), None), "ok  ", &[]);
    expect(&said(&at("wrong"), None), "FAIL", &["does not", "mqtt.password_file"]);
    expect(&said(&at("empty"), None), "FAIL", &["empty"]);
    expect(&said(&at("open"), None), "FAIL", &["0604", "chmod"]);
    expect(&said(&at("missing"), None), "FAIL", &["missing"]);
    let folder = place.path("");
    expect(&said("credential:right", Some(&folder)), "ok  ", &[]);
    expect(&said("credential:right", None), "FAIL", &["LoadCredential=right"]);
    expect(&said("credential:missing", Some(&folder)), "FAIL", &["missing"]);

    // A password where a path belongs is not repeated.
    let config = place.configure("mqtts://localhost", &format!("username = \"a\"\npassword_file = {PASSWORD:?}\n"));
    let said = verdict(&config, None);
    assert!(said.starts_with("FAIL  configuration") && said.contains("mqtt.password_file"), "{said}");
    for (url, lines) in [
        (format!("mqtt://box-t:{PASSWORD}@localhost"), String::new()),
        ("mqtt://localhost".to_owned(), format!("password = {PASSWORD:?}\n")),
        ("mqtt://localhost".to_owned(), format!("username = \"a\"\npassword_file = {PASSWORD}\n")),
    ] {
        let said = verdict(&place.configure(&url, &lines), None);
        assert!(said.starts_with("FAIL  configuration"), "{said}");
    }
}

#[test]
fn the_daemon_reports_over_mutual_tls_to_a_broker_with_rules() {
    let Some(place) = Authorities::new() else { return };
    place.sign("box", "box-t", "ca", 2);
    let passwords = place.mosquitto_passwords("passwords", "box-t", PASSWORD);
    // What README asks a broker's administrator for, and no more.
    let rules = "user box-t\ntopic write roentgen/box-t/report\ntopic write roentgen/box-t/status\n\
                 topic write roentgen/box-t/telemetry\ntopic write roentgen/box-t/result\n\
                 topic read roentgen/box-t/command/#\n";
    place.write("rules", rules, 0o600);
    let lines = format!(
        "require_certificate true\npassword_file {}\nacl_file {}",
        passwords.display(),
        place.path("rules").display()
    );
    let (_broker, port, plain) = place.broker("broker", &lines);
    fs::create_dir(place.path("credentials")).unwrap();
    place.write("credentials/password", PASSWORD, 0o400);
    place.write("credentials/key", &fs::read_to_string(place.path("box.key")).unwrap(), 0o400);
    fs::create_dir(place.path("incoming")).unwrap();
    let config = place.configure(
        &format!("mqtts://localhost:{port}"),
        &format!(
            "username = \"box-t\"\npassword_file = \"credential:password\"\nclient_key = \"credential:key\"\n{}{}",
            line("ca_file", &place.path("ca.pem")),
            line("client_certificate", &place.path("box.pem"))
        ),
    );
    let received = Received::subscribe(plain, "listener");
    let log = fs::File::create(place.path("daemon.log")).unwrap();
    let mut daemon = Process::spawn(
        roentgend()
            .args(["-v", "run", "--config"])
            .arg(&config)
            .env("CREDENTIALS_DIRECTORY", place.path("credentials"))
            .stderr(log),
    );
    received.wait_for_status("online");
    fs::write(place.path("incoming/a.png"), png(1)).unwrap();
    wait_for("the report", || received.reports().len() == 1);
    // What other programs of the box can see of it.
    for about in ["cmdline", "environ"] {
        let shown = fs::read(format!("/proc/{}/{about}", daemon.0.id())).unwrap();
        assert!(!String::from_utf8_lossy(&shown).contains(PASSWORD), "{about}");
    }
    daemon.signal("TERM");
    assert_eq!(daemon.wait().code(), Some(0));
    let log = fs::read_to_string(place.path("daemon.log")).unwrap();
    assert!(!log.contains(PASSWORD) && !log.contains("PRIVATE KEY"), "{log}");
}
