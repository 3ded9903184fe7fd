//! PACS and validators of others, as tests start them: Orthanc, dcmtk's programs, dciodvfy. And radiographs that they file. Not a
//! test.

#![allow(dead_code, reason = "every test file uses its own part of this")]

use crate::common::dicom::{Dataset, EXPLICIT, PIXELS, chest};
use crate::support::{PATIENCE, Process, free_port, wait_for};
use roentgen::radiograph::phantom;
use std::env;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A program of another package; `None`, said plainly, where it is missing, which CI does not forgive.
pub(crate) fn peer(program: &str, package: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(["/usr/sbin", "/usr/bin"].map(PathBuf::from));
    let found = folders.map(|folder| folder.join(program)).find(|program| program.is_file());
    if found.is_none() {
        let required = ["CI", "ROENTGEN_REQUIRE_PEERS"].iter().any(|name| env::var_os(name).is_some());
        assert!(!required, "{program} is missing: install the package {package}");
        eprintln!("SKIPPED: {program} is missing; install the package {package} to run this test");
    }
    found
}

/// Runs a program to its end.
pub(crate) fn run(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// What a program said, on both channels.
pub(crate) fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Python with pydicom and highdicom, if it has them.
pub(crate) fn python() -> Option<PathBuf> {
    let python = env::var_os("ROENTGEN_PYTHON").map_or_else(|| PathBuf::from("python3"), PathBuf::from);
    let found = Command::new(&python).args(["-c", "import highdicom"]).stderr(Stdio::null()).status();
    if found.is_ok_and(|status| status.success()) {
        return Some(python);
    }
    let required = ["CI", "ROENTGEN_REQUIRE_PEERS"].iter().any(|name| env::var_os(name).is_some());
    assert!(!required, "highdicom is missing: install tests/witness/requirements.txt");
    eprintln!(
        "SKIPPED: highdicom is missing (tests/witness/requirements.txt); structured reports are read by no other"
    );
    None
}

/// What tests/witness/sr.py reads in structured reports, one after the other.
pub(crate) fn read_reports(python: &Path, reports: &[PathBuf]) -> Vec<serde_json::Value> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/witness/sr.py");
    let output = run(Command::new(python).arg(script).args(reports));
    assert!(output.status.success(), "{}", said(&output));
    String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A file of a data set that came over the network.
pub(crate) fn part10(class: &str, instance: &str, syntax: &str, data: &[u8]) -> Vec<u8> {
    let meta = Dataset::default().bytes((2, 1), "OB", &[0, 1]).text((2, 2), "UI", class).text((2, 3), "UI", instance);
    let meta = meta.text((2, 0x10), "UI", syntax).bare(EXPLICIT);
    let length = (meta.len() as u32).to_le_bytes();
    [&[0; 128], &b"DICM\x02\0\0\0UL\x04\0"[..], &length, &meta, data].concat()
}

/// A patient of these tests.
pub(crate) const PATIENT: &str = "Muster^Erika";

/// A chest CR of 8 bits that is a phantom; every number is another instance of one study.
pub(crate) fn radiograph(number: u64) -> Dataset {
    let size = 200;
    chest(size, size, 8, 8)
        .text((0x0008, 0x0005), "CS", "ISO_IR 100")
        .text((0x0008, 0x0018), "UI", &format!("1.2.826.0.1.3680043.8.498.7.{number}"))
        .text((0x0008, 0x0020), "DA", "20260105")
        .text((0x0008, 0x0030), "TM", "101500")
        .text((0x0008, 0x0050), "SH", "ACC-4711")
        .text((0x0008, 0x0090), "PN", "House^Gregory")
        .text((0x0010, 0x0010), "PN", PATIENT)
        .text((0x0010, 0x0030), "DA", "19640812")
        .text((0x0010, 0x0040), "CS", "F")
        .text((0x0020, 0x000d), "UI", "1.2.826.0.1.3680043.8.498.5")
        .text((0x0020, 0x000e), "UI", "1.2.826.0.1.3680043.8.498.6")
        .text((0x0020, 0x0010), "SH", "4711")
        .bytes(PIXELS, "OB", &phantom::phantom(number, size.into()))
}

/// Its file.
pub(crate) fn file(number: u64) -> Vec<u8> {
    radiograph(number).file(EXPLICIT)
}

/// The SOP Instance UID of that radiograph.
pub(crate) fn instance(number: u64) -> String {
    format!("1.2.826.0.1.3680043.8.498.7.{number}")
}

/// Debian's Orthanc on free ports, with its files in a folder of the test.
pub(crate) struct Orthanc {
    program: PathBuf,
    folder: PathBuf,
    http: u16,
    /// Where it takes DICOM associations, as `PACS`.
    pub(crate) dicom: u16,
}

impl Orthanc {
    /// `None` where it is missing.
    pub(crate) fn new(folder: &Path) -> Option<Self> {
        let program = peer("Orthanc", "orthanc")?;
        let orthanc = Self { program, folder: folder.to_owned(), http: free_port(), dicom: free_port() };
        fs::create_dir_all(folder.join("files")).unwrap();
        let config = serde_json::json!({
            "Name": "test", "HttpPort": orthanc.http, "DicomPort": orthanc.dicom, "DicomAet": "PACS",
            "StorageDirectory": folder.join("files"), "IndexDirectory": folder.join("files"), "Plugins": [],
            "RemoteAccessAllowed": false, "AuthenticationEnabled": false, "DicomCheckCalledAet": true,
            "DicomAlwaysAllowStore": true, "OverwriteInstances": false, "StableAge": 1, "HttpsVerifyPeers": false,
        });
        fs::write(folder.join("orthanc.json"), config.to_string()).unwrap();
        Some(orthanc)
    }

    /// Starts it, with what it has kept.
    pub(crate) fn start(&self) -> Process {
        let mut command = Command::new(&self.program);
        command.arg(self.folder.join("orthanc.json")).stdout(Stdio::null()).stderr(Stdio::null());
        let process = Process::spawn(&mut command);
        wait_for("Orthanc to answer", || self.request("GET", "/system", b"").is_some());
        wait_for("Orthanc to listen", || TcpStream::connect(("127.0.0.1", self.dicom)).is_ok());
        process
    }

    /// Its answer's body; `None` where it is not there or says no.
    pub(crate) fn request(&self, method: &str, path: &str, body: &[u8]) -> Option<Vec<u8>> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.http)).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let head = format!("{method} {path} HTTP/1.0\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n", body.len());
        stream.write_all(head.as_bytes()).ok()?;
        stream.write_all(body).ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok()?;
        let end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
        let is_good = answer.starts_with(b"HTTP/1.1 200") || answer.starts_with(b"HTTP/1.0 200");
        is_good.then(|| answer[end + 4..].to_vec())
    }

    /// The same as JSON.
    pub(crate) fn json(&self, path: &str) -> serde_json::Value {
        let body = self.request("GET", path, b"").unwrap_or_else(|| panic!("{path}"));
        serde_json::from_slice(&body).unwrap()
    }

    /// How many instances of a SOP class's modality it has.
    pub(crate) fn count(&self, modality: &str) -> usize {
        let series = self.json("/series?expand");
        let of = series.as_array().unwrap().iter().filter(|one| one["MainDicomTags"]["Modality"] == modality);
        of.map(|one| one["Instances"].as_array().unwrap().len()).sum()
    }
}

/// The `[dicom_results]` section for a PACS of this test.
pub(crate) fn section(port: u16, more: &str) -> String {
    format!("[dicom_results]\naddress = \"127.0.0.1:{port}\"\ncalled_ae_title = \"PACS\"\nmax_retry_s = 1\n{more}\n")
}
