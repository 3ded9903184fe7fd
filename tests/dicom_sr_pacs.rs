//! The promise: what the box reports on a DICOM radiograph lies in the PACS beside it, exactly once, whatever goes away in
//! between: the PACS, the daemon, or the will of the PACS to take it. Real daemon, Debian's Orthanc, dcmtk's storescp.

mod common;
#[path = "support/pacs.rs"]
mod pacs;
#[path = "support/planted.rs"]
mod planted;
mod support;

use common::dicom::EXPLICIT;
use dicom_dictionary_std::{tags, uids};
use pacs::{Orthanc, file, instance, peer, radiograph, section};
use planted::{Planted, Search, WORD};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::Duration;
use support::authority::{Authorities, line};
use support::daemon::{Place, Received};
use support::{Process, free_port, names, output, png, roentgend, stdout, wait_for};

/// What lies in a folder of the results.
fn lying(place: &Place, folder: &str) -> Vec<String> {
    names(&place.path("state/results").join(folder))
}

/// SOP Instance UIDs of all that the PACS has, with repeats.
fn instances(orthanc: &Orthanc) -> Vec<String> {
    let all = orthanc.json("/instances?expand");
    let uids =
        all.as_array().unwrap().iter().map(|one| one["MainDicomTags"]["SOPInstanceUID"].as_str().unwrap().into());
    uids.collect()
}

#[test]
fn the_pacs_shows_report_and_picture_in_the_study_of_the_radiograph() {
    let Some(place) = Place::new() else { return };
    let Some(orthanc) = Orthanc::new(&place.path("orthanc")) else { return };
    let _pacs = orthanc.start();
    let _broker = place.broker();
    place.configure_more(&section(orthanc.dicom, ""));
    let told = output(roentgend().args(["doctor", "--config"]).arg(place.path("roentgend.toml")));
    assert!(stdout(&told).contains("ok    PACS"), "{}", stdout(&told));
    let _daemon = place.daemon();
    orthanc.request("POST", "/instances", &file(1)).expect("Orthanc takes the radiograph");
    place.drop_file("a.dcm", &file(1));
    // A picture file has no study.
    place.drop_file("b.png", &png(1));
    wait_for("both to be settled", || names(&place.path("done")).len() == 2);
    wait_for("report and picture", || orthanc.count("SR") == 1 && orthanc.count("OT") == 1);
    let studies = orthanc.json("/studies?expand");
    let studies = studies.as_array().unwrap();
    assert_eq!(studies.len(), 1, "{studies:?}");
    assert_eq!(studies[0]["Series"].as_array().unwrap().len(), 3);
    assert_eq!(studies[0]["PatientMainDicomTags"]["PatientName"], pacs::PATIENT);
    assert_eq!(studies[0]["MainDicomTags"]["AccessionNumber"], "ACC-4711");
    // The same image again sends nothing again.
    place.drop_file("again.dcm", &file(1));
    wait_for("the repeat to be settled", || names(&place.path("done")).len() == 3);
    wait_for("nothing to wait", || lying(&place, "waiting").is_empty());
    assert_eq!((instances(&orthanc).len(), lying(&place, "staged").len()), (3, 0), "{}", place.log());
    assert_eq!(place.log().matches("the PACS has the ").count(), 2, "{}", place.log());
}

#[test]
fn what_a_modality_sends_over_the_network_comes_back_to_the_pacs_too() {
    let (Some(place), Some(storescu)) = (Place::new(), peer("storescu", "dcmtk")) else { return };
    let Some(orthanc) = Orthanc::new(&place.path("orthanc")) else { return };
    let _pacs = orthanc.start();
    let _broker = place.broker();
    let port = free_port();
    let door = format!("[source.dicom]\nlisten = \"127.0.0.1:{port}\"\nallowed_peers = [\"*\"]\n");
    place.configure_more(&section(orthanc.dicom, &door));
    let _daemon = place.daemon();
    wait_for("the box to listen", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    fs::write(place.path("sent.dcm"), file(1)).unwrap();
    let mut send = Command::new(storescu);
    send.args(["-aec", "ROENTGEN", "127.0.0.1", &port.to_string()]).arg(place.path("sent.dcm"));
    let sent = pacs::run(&mut send);
    assert!(sent.status.success(), "{}", pacs::said(&sent));
    wait_for("report and picture", || orthanc.count("SR") == 1 && orthanc.count("OT") == 1);
    let studies = orthanc.json("/studies?expand");
    assert_eq!(studies[0]["PatientMainDicomTags"]["PatientName"], pacs::PATIENT, "{studies}");
}

#[test]
fn nothing_is_lost_while_the_pacs_is_away_and_the_daemon_is_killed() {
    let Some(place) = Place::new() else { return };
    let Some(orthanc) = Orthanc::new(&place.path("orthanc")) else { return };
    let _broker = place.broker();
    place.configure_more(&section(orthanc.dicom, "timeout_s = 10"));
    let received = Received::subscribe(place.port, "consumer");
    let count = 24;
    for number in 0..count {
        place.drop_file(&format!("{number}.dcm"), &file(number));
    }
    // Without a PACS: everything is judged and reported all the same.
    let mut daemon = place.daemon();
    wait_for("some to be settled", || names(&place.path("done")).len() >= 6);
    daemon.signal("KILL");
    daemon.wait();
    let mut daemon = place.daemon();
    wait_for("more to be settled", || names(&place.path("done")).len() >= 14);
    assert!(lying(&place, "waiting").len() > 8, "{}", place.log());
    for name in lying(&place, "waiting") {
        let path = place.path("state/results/waiting").join(name);
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
    }
    let mut pacs = orthanc.start();
    wait_for("some results", || orthanc.count("SR") >= 3);
    daemon.signal("KILL");
    daemon.wait();
    pacs.signal("KILL");
    pacs.wait();
    let mut daemon = place.daemon();
    wait_for("the rest to be settled", || names(&place.path("done")).len() == count as usize);
    let _pacs = orthanc.start();
    wait_for("all reports in the PACS", || orthanc.count("SR") == count as usize);
    wait_for("nothing to wait", || lying(&place, "waiting").is_empty());
    wait_for("all reports at the broker", || received.hashes().len() == count as usize);
    daemon.signal("TERM");
    assert_eq!(daemon.wait().code(), Some(0), "{}", place.log());
    let all = instances(&orthanc);
    let distinct: BTreeSet<_> = all.iter().collect();
    assert_eq!((all.len(), orthanc.count("OT")), (distinct.len(), count as usize), "{}", place.log());
    assert!(lying(&place, "staged").is_empty() && lying(&place, "refused").is_empty(), "{}", place.log());
    // Each is of its own radiograph.
    let of: BTreeSet<_> = orthanc
        .json("/series?expand")
        .as_array()
        .unwrap()
        .iter()
        .filter(|series| series["MainDicomTags"]["Modality"] == "SR")
        .flat_map(|series| series["Instances"].as_array().unwrap().clone())
        .map(|id| {
            let tags = orthanc.json(&format!("/instances/{}/simplified-tags", id.as_str().unwrap()));
            let evidence = &tags["CurrentRequestedProcedureEvidenceSequence"][0]["ReferencedSeriesSequence"][0];
            evidence["ReferencedSOPSequence"][0]["ReferencedSOPInstanceUID"].as_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!(of, (0..count).map(instance).collect());
}

#[test]
fn what_the_pacs_does_not_take_waits_and_is_told_and_the_rest_goes_on() {
    let (Some(place), Some(storescp)) = (Place::new(), peer("storescp", "dcmtk")) else { return };
    let (port, taken) = (free_port(), place.path("taken"));
    fs::create_dir(&taken).unwrap();
    // A PACS that files pictures, in implicit VRs alone, and no structured reports.
    let profile = "[[TransferSyntaxes]]\n[Implicit]\nTransferSyntax1 = LittleEndianImplicit\n\
                   [[PresentationContexts]]\n[Pictures]\nPresentationContext1 = SecondaryCaptureImageStorage\\Implicit\n\
                   [[Profiles]]\n[Default]\nPresentationContexts = Pictures\n";
    fs::write(place.path("storescp.cfg"), profile).unwrap();
    let serve = |more: &[&str]| {
        let mut command = Command::new(&storescp);
        command.arg("-od").arg(&taken).args(more).arg(port.to_string()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = Process::spawn(&mut command);
        wait_for("storescp to listen", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
        process
    };
    let _broker = place.broker();
    place.configure_more(&section(port, "[telemetry]\ninterval_s = 5"));
    let received = Received::subscribe(place.port, "consumer");
    let mut pacs = serve(&["-xf", place.path("storescp.cfg").to_str().unwrap(), "Default"]);
    let told = output(roentgend().args(["doctor", "--config"]).arg(place.path("roentgend.toml")));
    assert!(stdout(&told).contains("FAIL  PACS") && stdout(&told).contains("structured report"), "{}", stdout(&told));
    let _daemon = place.daemon();
    place.drop_file("a.dcm", &file(1));
    wait_for("the picture", || names(&taken).len() == 1);
    let picture = dicom_object::open_file(taken.join(&names(&taken)[0])).unwrap();
    let number = |tag| picture.element(tag).unwrap().to_int::<usize>().unwrap();
    let pixels = number(tags::ROWS) * number(tags::COLUMNS) * 3;
    assert_eq!(picture.meta().transfer_syntax(), uids::IMPLICIT_VR_LITTLE_ENDIAN);
    assert_eq!(picture.element(tags::PIXEL_DATA).unwrap().to_bytes().unwrap().len(), pixels.next_multiple_of(2));
    // Of structured reports it takes none: that is no evidence against this one.
    wait_for("telemetry about it", || {
        received.on("telemetry").iter().any(|(_, telemetry)| {
            let results = &telemetry["results"];
            results["waiting"] == 1
                && results["sent"] == 1
                && results["error"].as_str().is_some_and(|error| error.contains("does not take a structured report"))
        })
    });
    assert!(lying(&place, "refused").is_empty() && lying(&place, "waiting")[0].ends_with("-sr.dcm"));
    // The administrator has it mended.
    pacs.signal("TERM");
    pacs.wait();
    let mut pacs = serve(&[]);
    place.drop_file("b.dcm", &file(2));
    wait_for("everything", || names(&taken).len() == 4 && lying(&place, "waiting").is_empty());
    // It refuses associations altogether: that passes, and nothing is set aside for it.
    pacs.signal("TERM");
    pacs.wait();
    let troubles = || place.log().matches("results wait for the PACS").count();
    let before = troubles();
    let mut pacs = serve(&["--refuse"]);
    place.drop_file("c.dcm", &file(3));
    wait_for("the log to say so", || troubles() > before);
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!((lying(&place, "waiting").len(), lying(&place, "refused").len()), (2, 0));
    pacs.signal("TERM");
    pacs.wait();
    let _pacs = serve(&[]);
    wait_for("the last two", || names(&taken).len() == 6 && lying(&place, "waiting").is_empty());
    assert!(place.log().contains("the PACS takes results again"), "{}", place.log());
}

#[test]
fn nothing_is_made_unless_the_configuration_names_a_pacs_which_a_reload_may_do() {
    let Some(place) = Place::new() else { return };
    let Some(orthanc) = Orthanc::new(&place.path("orthanc")) else { return };
    let _pacs = orthanc.start();
    let _broker = place.broker();
    let plain = fs::read_to_string(place.path("roentgend.toml")).unwrap();
    let daemon = place.daemon();
    let settle = |number: u64| {
        place.drop_file(&format!("{number}.dcm"), &file(number));
        wait_for("it to be settled", || names(&place.path("done")).contains(&format!("{number}.dcm")));
    };
    let reload = |times: usize| {
        daemon.signal("HUP");
        wait_for("the reload", || place.log().matches("read the configuration again").count() == times);
    };
    settle(1);
    assert!(!place.path("state/results").exists());
    place.configure_more(&section(orthanc.dicom, "send = [\"sr\"]"));
    reload(1);
    settle(2);
    wait_for("its report in the PACS", || orthanc.count("SR") == 1);
    wait_for("nothing to wait", || lying(&place, "waiting").is_empty());
    fs::write(place.path("roentgend.toml"), plain).unwrap();
    reload(2);
    settle(3);
    for folder in ["staged", "waiting", "refused"] {
        assert!(lying(&place, folder).is_empty(), "{folder}: {}", place.log());
    }
    assert_eq!((orthanc.count("SR"), orthanc.count("OT")), (1, 0), "no picture was asked for");
}

#[test]
fn while_results_cannot_be_kept_no_image_is_taken_and_then_it_goes_on() {
    let Some(place) = Place::new() else { return };
    place.configure_more(&section(free_port(), ""));
    // As a disk that may only be read, for root too: the folder cannot be made.
    fs::create_dir(place.path("state")).unwrap();
    fs::write(place.path("state/results"), "in the way").unwrap();
    let _broker = place.broker();
    let received = Received::subscribe(place.port, "consumer");
    let _daemon = place.daemon();
    place.drop_file("a.dcm", &file(1));
    wait_for("the log to say so", || place.log().contains("no image is taken until reports can be kept again"));
    assert_eq!((names(&place.path("done")).len(), received.count()), (0, 0), "{}", place.log());
    fs::remove_file(place.path("state/results")).unwrap();
    wait_for("it to go on", || names(&place.path("done")).len() == 1);
    wait_for("its report", || received.count() == 1);
    assert_eq!((lying(&place, "waiting").len(), lying(&place, "staged").len()), (2, 0), "{}", place.log());
}

#[test]
fn over_tls_both_show_a_certificate_and_a_stranger_gets_nothing() {
    let (Some(authorities), Some(storescp)) = (Authorities::new(), peer("storescp", "dcmtk")) else { return };
    authorities.sign("pacs", "localhost", "ca", 2);
    authorities.sign("box", "box", "ca", 2);
    let (port, taken) = (free_port(), authorities.path("taken"));
    fs::create_dir(&taken).unwrap();
    let mut command = Command::new(storescp);
    command.arg("+tls").args(["pacs.key", "pacs.pem"].map(|name| authorities.path(name)));
    command.arg("+cf").arg(authorities.path("ca.pem")).arg("-od").arg(&taken).arg(port.to_string());
    let _pacs = Process::spawn(command.stdout(Stdio::null()).stderr(Stdio::null()));
    wait_for("storescp to listen", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    let configure = |authority: &str| {
        let files = [("ca_file", authority), ("client_certificate", "box.pem"), ("client_key", "box.key")];
        let files: String = files.iter().map(|(key, name)| line(key, &authorities.path(name))).collect();
        let address = format!("address = \"localhost:{port}\"\ncalled_ae_title = \"PACS\"\nmax_retry_s = 1\n");
        authorities.configure("mqtt://127.0.0.1:1", &format!("[dicom_results]\n{address}tls = true\n{files}"))
    };
    let config = configure("stranger.pem");
    let told = output(roentgend().args(["doctor", "--config"]).arg(&config));
    assert!(stdout(&told).contains("FAIL  PACS") && stdout(&told).contains("TLS"), "{}", stdout(&told));
    let config = configure("ca.pem");
    let log = fs::File::create(authorities.path("log")).unwrap();
    let _daemon = Process::spawn(roentgend().args(["run", "--config"]).arg(config).stderr(log));
    wait_for("the drop folder", || authorities.path("incoming").is_dir());
    fs::write(authorities.path("incoming/a.dcm"), file(1)).unwrap();
    wait_for("report and picture", || names(&taken).len() == 2);
}

#[test]
fn the_patient_goes_to_the_pacs_and_nowhere_else() {
    let Some(place) = Place::new() else { return };
    let Some(orthanc) = Orthanc::new(&place.path("orthanc")) else { return };
    let mut counts = Planted::default();
    let object = planted::data_set(&mut counts);
    let files = [planted::file(&object, EXPLICIT), planted::file(&radiograph(1), EXPLICIT)];
    let mut broker = place.broker();
    place.configure_more(&section(orthanc.dicom, "[telemetry]\ninterval_s = 5"));
    fs::create_dir(place.path("temporary")).unwrap();
    let received = Received::subscribe(place.port, "consumer");
    let mut daemon = place.verbose_daemon(&place.path("temporary"));
    for (number, file) in files.iter().enumerate() {
        place.drop_file(&planted::name(number, ".dcm"), file);
    }
    wait_for("both to be settled", || names(&place.path("done")).len() == 2);
    // The PACS is away, and the word of that must not name anybody either.
    wait_for("the log to say that they wait", || place.log().contains("results wait for the PACS"));
    let waiting = lying(&place, "waiting");
    assert_eq!(waiting.len(), 4, "{}", place.log());
    let search = Search::for_the_patient();
    let holds = |name: &String| {
        let bytes = fs::read(place.path("state/results/waiting").join(name)).unwrap();
        !search.hits("", &bytes).is_empty()
    };
    assert_eq!(waiting.iter().filter(|name| holds(name)).count(), 2, "results are filed under their patient");
    let limits = fs::read_to_string(format!("/proc/{}/limits", daemon.0.id())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert!(core.split_whitespace().filter(|word| *word == "0").count() == 2, "a crash would write names: {core}");
    // It dies with all that in its memory.
    wait_for("telemetry about it", || {
        received.on("telemetry").iter().any(|(_, telemetry)| telemetry["results"]["waiting"] == 4)
    });
    daemon.signal("ABRT");
    daemon.wait();
    let let_off = ["done", "incoming", "orthanc", "state/results"].map(|folder| place.path(folder));
    let left = search.hits_below(&place.path(""), &|path| let_off.iter().any(|folder| path == folder));
    assert_eq!(left, Vec::<String>::new());
    let mut daemon = place.verbose_daemon(&place.path("temporary"));
    let _pacs = orthanc.start();
    wait_for("the PACS to have all", || orthanc.count("SR") == 2 && orthanc.count("OT") == 2);
    wait_for("nothing to wait", || lying(&place, "waiting").is_empty());
    let filed = orthanc.json("/studies?expand").to_string();
    assert!(filed.contains(WORD), "{filed}");
    daemon.signal("TERM");
    assert_eq!(daemon.wait().code(), Some(0), "{}", place.log());
    broker.signal("TERM");
    broker.wait();
    let let_off = [place.path("done"), place.path("incoming"), place.path("orthanc")];
    let mut hits = search.hits_below(&place.path(""), &|path| let_off.iter().any(|folder| path == folder));
    for (topic, payload) in received.messages() {
        hits.extend(search.hits(&topic, payload.as_bytes()));
    }
    assert_eq!(hits, Vec::<String>::new());
    assert_eq!(received.reports().len(), 2);
}
