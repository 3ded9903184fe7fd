//! The promise: what real senders send (dcmtk, pynetdicom, Orthanc) is reported, once, and lost by no death of the daemon.
//! Real daemon, real broker, real modalities.

#[path = "support/modality.rs"]
mod modality;
#[path = "common/networks.rs"]
mod networks;
mod support;

use modality::dicom::{BIG_ENDIAN, DEFLATED, EXPLICIT, IMPLICIT, RLE, chest, rle};
use modality::{described, instance, uid};
use roentgen::radiograph::phantom;
use roentgen::report::Report;
use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};
use support::authority::Authorities;
use support::daemon::{Place, Received};
use support::{Process, free_port, names, output, roentgend, stdout, wait_for};

const JPEG_LOSSLESS: &str = "1.2.840.10008.1.2.4.70";
const JPEG2000: &str = "1.2.840.10008.1.2.4.90";

/// Whether a program is there, which CI does not forgive.
fn have(program: &str, package: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    if folders.any(|folder| folder.join(program).is_file()) {
        return true;
    }
    let required = ["CI", "ROENTGEN_REQUIRE_PEERS"].iter().any(|name| std::env::var_os(name).is_some());
    assert!(!required, "{program} is missing: install the package {package}");
    eprintln!("SKIPPED: {program} is missing; install the package {package} to run this test");
    false
}

/// A clinic whose box listens to modalities on a port, with these lines more in the section.
fn clinic(lines: &str) -> Option<(Place, u16)> {
    let (place, port) = (Place::new()?, free_port());
    place.configure_more(&format!(
        "[source.dicom]\nlisten = \"127.0.0.1:{port}\"\nallowed_peers = [\"STORESCU@127.0.0.1\", \"ECHOSCU@127.0.0.0/8\", \
         \"PYNETDICOM@127.0.0.1\", \"ORTHANC@127.0.0.1\"]\n{lines}\n"
    ));
    Some((place, port))
}

fn wait_until_it_listens(place: &Place, port: u16) {
    let connects = || TcpStream::connect(("127.0.0.1", port)).is_ok();
    let deadline = Instant::now() + support::PATIENCE;
    while !connects() {
        assert!(Instant::now() < deadline, "{}", place.log());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// dcmtk's program with the arguments of every call.
fn scu(program: &str, port: u16, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(["-aec", "ROENTGEN"]).args(arguments).args(["127.0.0.1", &port.to_string()]);
    command
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&*output.stdout, &*output.stderr].concat()).into_owned()
}

/// Pseudonyms of the instances of all reports.
fn instances(reports: &[Report]) -> BTreeSet<String> {
    reports.iter().filter_map(|report| report.origin.instance.clone()).collect()
}

/// Image files by the syntaxes that senders propose them in, with dcmtk's option for it.
fn files_by_syntax(folder: &Path) -> Vec<(&'static str, PathBuf)> {
    let j2k = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/codecs");
    let coded = |number, name: &str, stored| {
        let stream = fs::read(j2k.join(name)).unwrap();
        described(chest(45, 52, 16, stored), number).fragments(&[&stream])
    };
    let levels: Vec<u16> = phantom::phantom(24, 64).into_iter().map(u16::from).collect();
    [
        ("-x=", instance(20).file(EXPLICIT)),
        ("-xi", instance(21).file(IMPLICIT)),
        ("-xb", instance(22).file(BIG_ENDIAN)),
        ("-xd", instance(23).file(DEFLATED)),
        ("-xr", described(chest(64, 64, 8, 8), 24).fragments(&[&rle(&levels, 1)]).file(RLE)),
        ("-xs", coded(25, "lossless-12-p1.jpg", 12).file(JPEG_LOSSLESS)),
        ("-xt", coded(26, "lossless-16.jls", 16).file("1.2.840.10008.1.2.4.80")),
        ("-xv", coded(27, "lossless-12.j2k", 12).file(JPEG2000)),
        ("-xx", coded(28, "dct-12.jpg", 12).file("1.2.840.10008.1.2.4.51")),
    ]
    .map(|(option, bytes)| {
        let path = folder.join(format!("file{option}.dcm"));
        fs::write(&path, bytes).unwrap();
        (option, path)
    })
    .into()
}

#[test]
fn dcmtk_sends_in_every_syntax_and_each_instance_is_reported_once() {
    if !have("storescu", "dcmtk") || !have("echoscu", "dcmtk") {
        return;
    }
    let Some((place, port)) = clinic("") else { return };
    let _broker = place.broker();
    let received = Received::subscribe(place.port, "screen");
    let mut daemon = place.daemon();
    wait_until_it_listens(&place, port);
    let echo = output(&mut scu("echoscu", port, &[]));
    assert!(echo.status.success(), "{}", said(&echo));
    let files = files_by_syntax(&place.path("broker"));
    for combined in [false, true] {
        for (option, file) in &files {
            let arguments = ["+C", option];
            let sent = output(scu("storescu", port, &arguments[usize::from(!combined)..]).arg(file));
            assert!(sent.status.success(), "{option}: {}\n{}", said(&sent), place.log());
        }
    }
    // A folder with what the box does not take between what it takes: that is refused, and the rest comes.
    let mixed = place.path("mixed");
    fs::create_dir(&mixed).unwrap();
    let ct = instance(31).text((0x0008, 0x0016), "UI", "1.2.840.10008.5.1.4.1.1.2").text((0x0008, 0x0060), "CS", "CT");
    let hand = instance(32).text((0x0018, 0x0015), "CS", "HAND");
    for (name, data) in [("a", &instance(30)), ("b", &ct), ("c", &hand), ("d", &instance(33))] {
        fs::write(mixed.join(name), data.file(EXPLICIT)).unwrap();
    }
    let sent = output(scu("storescu", port, &["-nh", "-R", "-v", "+sd"]).arg(&mixed));
    assert!(said(&sent).contains("No presentation context"), "{}", said(&sent));

    let expected = files.len() + 2;
    wait_for("all reports", || instances(&received.reports()).len() == expected);
    let spool = place.path("state/spool/dicom");
    wait_for("the spool to be empty", || names(&spool.join("incoming")).is_empty());
    let rejected = names(&spool.join("rejected"));
    assert_eq!(rejected.len(), 2, "the hand and its reason: {rejected:?}");
    assert_eq!(names(&spool).join(" "), "arriving at-hand incoming rejected", "no done/, nothing is kept");
    let reason = fs::read_to_string(spool.join("rejected").join(&rejected[1])).unwrap();
    assert!(reason.contains("wrong_body_part"), "{reason}");
    assert_eq!(received.count(), expected, "each once");
    assert!(received.reports().iter().all(|report| report.origin.modality.as_deref() == Some("CR")));

    // Who may not call is told so, in dcmtk's words.
    for (arguments, words) in
        [(["-aet", "OTHER"], "Calling AE Title Not Recognized"), (["-aec", "PACS"], "Called AE Title Not Recognized")]
    {
        let refused = output(&mut scu("echoscu", port, &arguments));
        assert!(!refused.status.success() && said(&refused).contains(words), "{}", said(&refused));
    }
    let status = output(roentgend().args(["status", "--config"]).arg(place.path("roentgend.toml")));
    assert!(stdout(&status).contains(&format!("listens on 127.0.0.1:{port}")), "{}", stdout(&status));
    daemon.signal("TERM");
    assert_eq!(daemon.wait().code(), Some(0), "{}", place.log());
    // What the files say of the patient stands in the spool's own files and nowhere else.
    let log = place.log();
    let mut told: Vec<_> = received.messages().into_iter().map(|(topic, payload)| topic + &payload).collect();
    told.push(log);
    for name in names(&place.path("state")) {
        let path = place.path("state").join(name);
        if path.is_file() {
            told.push(String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned());
        }
    }
    assert!(told.len() > expected);
    for secret in [&uid(20)[..22], "Doe^Jane", "PATIENT-4711"] {
        assert!(told.iter().all(|text| !text.contains(secret)), "{secret}");
    }
}

#[test]
fn pynetdicom_sends_and_the_same_again_is_no_second_report() {
    let Some(python) = networks::find_python("dicom_storescu.py", "pynetdicom") else { return };
    let Some((place, port)) = clinic("") else { return };
    let _broker = place.broker();
    let received = Received::subscribe(place.port, "screen");
    let _daemon = place.daemon();
    wait_until_it_listens(&place, port);
    let files = files_by_syntax(&place.path("broker"));
    let mut command = Command::new(python);
    command.arg(networks::script("dicom_storescu.py")).arg(port.to_string());
    let sent = output(command.args(files.iter().map(|(_, file)| file)));
    assert!(sent.status.success(), "{}\n{}", said(&sent), place.log());
    let expected = format!("echo 0000\n{}stranger 1 1 3\n", "store 0000\n".repeat(2 * files.len()));
    assert_eq!(stdout(&sent), expected);
    let spool = place.path("state/spool/dicom/incoming");
    wait_for("the reports", || received.count() >= files.len() && names(&spool).is_empty());
    assert_eq!((received.count(), instances(&received.reports()).len()), (files.len(), files.len()));
}

#[test]
fn tls_is_spoken_and_certificates_are_asked_for() {
    if !have("storescu", "dcmtk") {
        return;
    }
    let Some(authorities) = Authorities::new() else { return };
    authorities.sign("box", "localhost", "ca", 2);
    authorities.sign("modality", "cr1", "ca", 2);
    authorities.sign("thief", "cr1", "stranger", 2);
    let file = |name: &str| authorities.path(name).display().to_string();
    let Some((place, port)) = clinic(&format!(
        "tls_certificate = {:?}\ntls_key = {:?}\ntls_client_ca = {:?}",
        file("box.pem"),
        file("box.key"),
        file("ca.pem")
    )) else {
        return;
    };
    let _broker = place.broker();
    let received = Received::subscribe(place.port, "screen");
    let _daemon = place.daemon();
    wait_until_it_listens(&place, port);
    fs::write(place.path("a.dcm"), instance(40).file(EXPLICIT)).unwrap();
    let send = |name: &str| {
        let (key, certificate, ca) = (file(&format!("{name}.key")), file(&format!("{name}.pem")), file("ca.pem"));
        let arguments = ["-to", "20", "-ta", "20", "+tls", &key, &certificate, "+cf", &ca];
        output(scu("storescu", port, &arguments).arg(place.path("a.dcm")))
    };
    let good = send("modality");
    assert!(good.status.success(), "{}\n{}", said(&good), place.log());
    let thief = send("thief");
    assert!(!thief.status.success(), "{}", said(&thief));
    let plain = output(scu("storescu", port, &["-to", "20", "-ta", "20"]).arg(place.path("a.dcm")));
    assert!(!plain.status.success(), "{}", said(&plain));
    wait_for("the report", || received.count() == 1);
}

/// Sends a request to Orthanc and gives the body of the answer.
fn http(port: u16, method: &str, path: &str, body: &[u8]) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(support::PATIENCE)).ok()?;
    let head = format!("{method} {path} HTTP/1.0\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all(&[head.as_bytes(), body].concat()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    head.lines().next()?.contains(" 200 ").then(|| body.to_owned())
}

#[test]
fn orthanc_sends_what_it_holds() {
    if !have("Orthanc", "orthanc") {
        return;
    }
    let Some((place, port)) = clinic("") else { return };
    let _broker = place.broker();
    let received = Received::subscribe(place.port, "screen");
    let _daemon = place.daemon();
    wait_until_it_listens(&place, port);
    let (rest, dicom) = (free_port(), free_port());
    let config = serde_json::json!({
        "Name": "test", "HttpPort": rest, "DicomPort": dicom, "DicomAet": "ORTHANC", "Plugins": [],
        "StorageDirectory": place.path("orthanc"), "IndexDirectory": place.path("orthanc"),
        "RemoteAccessAllowed": false, "AuthenticationEnabled": false, "DicomServerEnabled": false,
        "DicomModalities": { "box": ["ROENTGEN", "127.0.0.1", port] },
    });
    fs::write(place.path("orthanc.json"), config.to_string()).unwrap();
    let log = fs::File::create(place.path("orthanc.log")).unwrap();
    let orthanc = PathBuf::from("/usr/sbin/Orthanc");
    let mut command = Command::new(if orthanc.is_file() { orthanc } else { "Orthanc".into() });
    command.arg(place.path("orthanc.json")).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    let _orthanc = Process::spawn(&mut command);
    wait_for("Orthanc", || http(rest, "GET", "/system", b"").is_some());
    let mut ids = Vec::new();
    for number in 50..60 {
        let answer = http(rest, "POST", "/instances", &instance(number).file(EXPLICIT)).expect("stored");
        let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
        ids.push(answer["ID"].as_str().unwrap().to_owned());
    }
    assert!(http(rest, "POST", "/modalities/box/echo", b"{}").is_some(), "{}", place.log());
    let wanted = serde_json::json!({ "Resources": ids, "Synchronous": true }).to_string();
    let answer = http(rest, "POST", "/modalities/box/store", wanted.as_bytes()).expect("sent");
    let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
    assert_eq!((&answer["FailedInstancesCount"], &answer["InstancesCount"]), (&0.into(), &10.into()), "{answer}");
    wait_for("ten reports", || received.count() >= 10);
    assert_eq!((received.count(), instances(&received.reports()).len()), (10, 10));
}

/// Sends a folder until all of it is acknowledged, as a modality's queue does: storescu renames what was. How many attempts
/// failed.
fn send_until_done(folder: &Path, port: u16) -> usize {
    let waits = || names(folder).into_iter().filter(|name| !name.ends_with(".done")).collect::<Vec<_>>();
    let deadline = Instant::now() + Duration::from_secs(900);
    let mut failed = 0;
    while !waits().is_empty() {
        assert!(Instant::now() < deadline, "{:?} are left", waits());
        for name in waits() {
            if let Some(tried) = name.strip_suffix(".bad") {
                fs::rename(folder.join(&name), folder.join(tried)).unwrap();
            }
        }
        let mut command = scu("storescu", port, &["-R", "-to", "5", "-td", "30", "+rn", "+sd", "+sp", "*.dcm"]);
        failed += usize::from(!output(command.arg(folder)).status.success());
        std::thread::sleep(Duration::from_millis(100));
    }
    failed
}

/// The bar: 1000 instances (`ROENTGEN_LONG=1`; else 160) over 8 associations at once, the daemon killed in between.
#[test]
fn a_thousand_instances_over_eight_associations_are_each_reported_once_although_the_daemon_is_killed() {
    if !have("storescu", "dcmtk") {
        return;
    }
    let Some((place, port)) = clinic("") else { return };
    let total = if std::env::var_os("ROENTGEN_LONG").is_some() { 1000 } else { 160 };
    let _broker = place.broker();
    let received = Received::subscribe(place.port, "screen");
    let folders: Vec<PathBuf> = (0..8).map(|sender| place.path(&format!("sender-{sender}"))).collect();
    for folder in &folders {
        fs::create_dir(folder).unwrap();
    }
    for number in 0..total {
        let folder = &folders[number as usize % 8];
        fs::write(folder.join(format!("{number}.dcm")), instance(1000 + number).file(EXPLICIT)).unwrap();
    }
    let mut daemon = place.daemon();
    wait_until_it_listens(&place, port);
    let started = Instant::now();
    let failed: usize = std::thread::scope(|scope| {
        let senders: Vec<_> = folders.iter().map(|folder| scope.spawn(|| send_until_done(folder, port))).collect();
        for share in [4, 2] {
            wait_for("a share of the reports", || received.count() as u64 >= total / share);
            daemon.signal("KILL");
            daemon.wait();
            daemon = place.daemon();
        }
        senders.into_iter().map(|sender| sender.join().unwrap()).sum()
    });
    let sent = started.elapsed();
    let deadline = Instant::now() + Duration::from_secs(600);
    let spool = place.path("state/spool/dicom");
    while instances(&received.reports()).len() < total as usize || !names(&spool.join("incoming")).is_empty() {
        assert!(Instant::now() < deadline, "{} of {total}\n{}", received.count(), place.log());
        std::thread::sleep(Duration::from_millis(100));
    }
    daemon.signal("TERM");
    assert_eq!(daemon.wait().code(), Some(0), "{}", place.log());
    // A kill may have one report come twice, with the same sequence and identity: consumers drop it.
    let reports = received.reports();
    let ids: BTreeSet<_> = reports.iter().map(|report| (report.sequence, &report.report_id)).collect();
    assert_eq!((ids.len(), instances(&reports).len()), (total as usize, total as usize));
    assert!(names(&spool.join("arriving")).is_empty() && names(&spool.join("rejected")).is_empty());
    eprintln!(
        "{total} instances over 8 associations, 2 kills, {failed} attempts that failed: sent in {:.1} s, all reported \
         after {:.1} s, {} messages",
        sent.as_secs_f64(),
        started.elapsed().as_secs_f64(),
        reports.len()
    );
}

#[test]
fn a_reload_moves_the_door_and_a_closed_one_leaves_nothing_unreported() {
    if !have("storescu", "dcmtk") {
        return;
    }
    let Some((place, port)) = clinic("") else { return };
    let _broker = place.broker();
    let received = Received::subscribe(place.port, "screen");
    let daemon = place.daemon();
    wait_until_it_listens(&place, port);
    fs::write(place.path("a.dcm"), instance(70).file(EXPLICIT)).unwrap();
    let send = |port| output(scu("storescu", port, &["-to", "5"]).arg(place.path("a.dcm"))).status.success();
    assert!(send(port));
    wait_for("the report", || received.count() == 1);
    let config = fs::read_to_string(place.path("roentgend.toml")).unwrap();
    let other = free_port();
    fs::write(place.path("roentgend.toml"), config.replace(&port.to_string(), &other.to_string())).unwrap();
    daemon.signal("HUP");
    wait_until_it_listens(&place, other);
    wait_for("the old port to be free", || TcpStream::connect(("127.0.0.1", port)).is_err());
    fs::write(place.path("a.dcm"), instance(71).file(EXPLICIT)).unwrap();
    assert!(send(other));
    wait_for("the second report", || received.count() == 2);
    // Closed, with an instance in the spool that was taken before: it is reported all the same.
    let section = config.find("[source.dicom]").unwrap();
    fs::write(place.path("roentgend.toml"), &config[..section]).unwrap();
    let spool = place.path("state/spool/dicom/incoming");
    daemon.signal("HUP");
    wait_for("the door to be closed", || TcpStream::connect(("127.0.0.1", other)).is_err());
    let mut daemon = daemon;
    daemon.signal("KILL");
    daemon.wait();
    fs::write(spool.join("left.dcm"), instance(72).file(EXPLICIT)).unwrap();
    let mut daemon = place.daemon();
    wait_for("the third report", || received.count() >= 3 && names(&spool).is_empty());
    assert_eq!(instances(&received.reports()).len(), 3);
    daemon.signal("TERM");
    assert_eq!(daemon.wait().code(), Some(0), "{}", place.log());
}
