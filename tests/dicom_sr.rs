//! The promise: what goes back to the PACS is what the standard and the programs of others take for a structured report and a
//! picture of that very study, and says of the patient what the original says, byte for byte. No network here.

mod common;
#[path = "support/pacs.rs"]
mod pacs;
mod support;

use common::dicom::{BIG_ENDIAN, DEFLATED, Dataset, EXPLICIT, IMPLICIT};
use common::{key, shared_files};
use dicom_core::Tag;
use dicom_dictionary_std::tags;
use dicom_object::{DefaultDicomObject, from_reader};
use pacs::{PATIENT, file, instance, part10, peer, python, radiograph, read_reports, run, said};
use roentgen::assess::Assessor;
use roentgen::bundle::Bundle;
use roentgen::classifier::native::NativeClassifier;
use roentgen::pipeline::judge_and_draw;
use roentgen::pseudonym::Key;
use roentgen::radiograph::dicom::Filing;
use roentgen::radiograph::{Limits, RefusalCode, open_bytes};
use roentgen::report::{Clock, Decision, NOTICE, Report};
use roentgen::sink::dicom_sr::{Config, Results};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

fn time() -> Option<SystemTime> {
    Some(SystemTime::now())
}

/// A box without its network: it judges, and leaves what goes to the PACS in a folder.
struct Bench {
    folder: tempfile::TempDir,
    classifier: NativeClassifier,
    assessor: Assessor,
    results: Results,
    made: u64,
}

impl Bench {
    fn new() -> Self {
        Self::called("box-t", key())
    }

    fn called(device: &str, key: Key) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let bundle = Bundle::open(&support::tiny_bundle(folder.path())).unwrap();
        let classifier = NativeClassifier::load(&bundle, &Default::default(), None).unwrap();
        let assessor = Assessor::new(&bundle, device, Default::default()).unwrap();
        let results = Results::new(&Config::to("127.0.0.1:1", "PACS"), device, &key, folder.path(), time).unwrap();
        Self { folder, classifier, assessor, results, made: 0 }
    }

    /// The report on a file, and its two objects: structured report and picture.
    fn judge(&mut self, bytes: &[u8]) -> (Report, [PathBuf; 2]) {
        let radiograph = open_bytes(bytes, &Limits::default(), &key()).unwrap();
        let filing = Filing::of(bytes, &Limits::default()).expect("it says what study it is of");
        let (now, took) = (SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_600_000), Duration::from_millis(5));
        let (report, picture) =
            judge_and_draw(&radiograph, now, took, &mut self.classifier, &self.assessor, true).unwrap();
        (report.clone(), self.keep(&filing, &report, picture.as_ref()))
    }

    fn keep(&mut self, filing: &Filing, report: &Report, picture: Option<&image::RgbImage>) -> [PathBuf; 2] {
        self.made += 1;
        self.results.stage(&self.results.maker().make(filing, report, picture)).unwrap();
        self.results.release(&report.report_id, self.made).unwrap();
        let (made, id) = (self.made, &report.report_id);
        ["sr", "secondary_capture"]
            .map(|kind| self.folder.path().join(format!("results/waiting/{made:020}-{id}-{kind}.dcm")))
    }
}

fn read(path: &Path) -> DefaultDicomObject {
    from_reader(&fs::read(path).unwrap()[..]).unwrap()
}

fn text(object: &DefaultDicomObject, tag: Tag) -> String {
    object.element(tag).unwrap().to_str().unwrap().into_owned()
}

/// A radiograph whose report is an abstention, with reasons that hold more than ASCII.
fn lateral() -> Vec<u8> {
    radiograph(9).text((0x0018, 0x5101), "CS", "LL").file(EXPLICIT)
}

#[test]
fn the_validators_of_others_find_no_error() {
    let mut bench = Bench::new();
    // One whose patient was removed by the methods of a sequence alone; and one whose UIDs are padded with spaces.
    let removed = radiograph(4).text((0x0012, 0x0062), "CS", "YES").items((0x0012, 0x0064), vec![]);
    let spaced = [((0x0008, 0x0018), "7"), ((0x0020, 0x000d), "8"), ((0x0020, 0x000e), "9")];
    let spaced = spaced.into_iter().fold(radiograph(5), |object, (tag, last)| {
        object.text(tag, "UI", &format!("1.2.826.0.1.3680043.8.498.77.{last}  "))
    });
    let mut files = vec![file(1), lateral(), removed.file(EXPLICIT), spaced.file(EXPLICIT)];
    files.extend(shared_files("dicom/chest", ".dcm").iter().map(|path| fs::read(path).unwrap()));
    let objects: Vec<_> = files.iter().flat_map(|bytes| bench.judge(bytes).1).collect();
    let Some(dciodvfy) = peer("dciodvfy", "dicom3tools") else { return };
    let (Some(dsrdump), Some(dcmdump)) = (peer("dsrdump", "dcmtk"), peer("dcmdump", "dcmtk")) else { return };
    for path in &objects {
        let verified = run(Command::new(&dciodvfy).arg(path));
        let words = said(&verified);
        let complaints: Vec<_> = words.lines().filter(|line| line.starts_with("Error")).collect();
        assert!(complaints.is_empty() && verified.status.success(), "{}: {words}", path.display());
        let is_report = path.to_string_lossy().ends_with("-sr.dcm");
        assert!(words.contains(if is_report { "Comprehensive3DSR" } else { "SCImage" }), "{words}");
        let dumped = run(Command::new(&dcmdump).arg("--quiet").arg(path));
        assert!(dumped.status.success() && !said(&dumped).contains("E: "), "{}", said(&dumped));
        if is_report {
            // Its options that forgive are not given: every relation must be one of the IOD.
            let dumped = run(Command::new(&dsrdump).args(["--print-all-codes", "--print-long-values"]).arg(path));
            let words = said(&dumped);
            assert!(dumped.status.success(), "{words}");
            let complains = words.lines().any(|line| line.starts_with("E:") || line.starts_with("W:"));
            assert!(
                !complains && words.contains("Certainty of Finding") && words.contains(NOTICE),
                "{}: {words}",
                path.display()
            );
        }
    }
}

#[test]
fn highdicom_reads_what_the_report_says() {
    let mut bench = Bench::new();
    let mut judged: Vec<_> = [file(1), file(2), lateral()].iter().map(|bytes| bench.judge(bytes)).collect();
    // The same with the other state of the clock.
    let mut other = judged[1].0.clone();
    other.clock = match other.clock {
        Clock::Synchronised => Clock::Unsynchronised,
        Clock::Unsynchronised => Clock::Synchronised,
    };
    let filing = Filing::of(&file(2), &Limits::default()).unwrap();
    let objects = bench.keep(&filing, &other, None);
    judged.push((other, objects));
    let Some(python) = python() else { return };
    let reports: Vec<_> = judged.iter().map(|(_, [sr, _])| sr.clone()).collect();
    let lines = read_reports(&python, &reports);
    assert_eq!(lines.len(), judged.len());
    let codes = [("840539006", "SCT"), ("112001", "DCM"), ("17621005", "SCT"), ("75570004", "SCT")];
    for ((report, _), json) in judged.iter().zip(&lines) {
        assert_eq!((json["title"].as_str(), json["patient"].as_str()), (Some("126000"), Some(PATIENT)));
        assert_eq!(json["flags"], serde_json::json!(["COMPLETE", "UNVERIFIED", "PRELIMINARY"]));
        let observer = &json["observer"];
        let name = |key: &str| observer[key][0].as_str().unwrap();
        assert_eq!(["name", "manufacturer", "model"].map(name), ["box-t", "Roentgen", "roentgend"]);
        assert_eq!((&observer["type"][0][0], name("uid").starts_with("2.25.")), (&"121007".into(), true));
        assert_eq!(json["procedure"], serde_json::json!([["168537006", "SCT", "Plain radiography"]]));
        assert_eq!((&json["language"][0][0], &json["station"]), (&"en".into(), &"box-t".into()));
        assert_eq!(json["software"][0], env!("CARGO_PKG_VERSION"));
        let groups = json["groups"].as_array().unwrap();
        for ((finding, group), (value, scheme)) in report.findings.iter().zip(groups).zip(codes) {
            let is_reported = report.decision == Decision::Reported { label: finding.label };
            let standing = match report.decision {
                Decision::Reported { .. } if is_reported => "reported",
                Decision::Reported { .. } => "not reported",
                Decision::Abstained { .. } => "not reported: abstained",
            };
            assert_eq!(group["tracking"], format!("{} ({standing})", finding.label.name()));
            assert_eq!(group["standing"][0][0], if is_reported { "reported" } else { "not_reported" });
            assert_eq!(group["site"], serde_json::json!([["39607008", "SCT", "Lung"]]));
            let model = &report.model;
            assert_eq!(group["algorithm"], serde_json::json!([model.name, model.version]));
            let backend = format!("backend {}", report.backend);
            assert_eq!(group["parameters"], serde_json::json!([format!("bundle sha256 {}", model.sha256), backend]));
            assert!(group["tracking_uid"].as_str().unwrap().starts_with("2.25."));
            assert_eq!(group["finding"], serde_json::json!([value, scheme]));
            assert_eq!(group["unit"], serde_json::json!(["%", "UCUM"]));
            let percent = group["percent"].as_f64().unwrap();
            assert!((percent - f64::from(finding.probability) * 100.0).abs() < 0.006, "{percent}");
            assert_eq!(group["source"], json["evidence"][2]);
        }
        match &report.decision {
            Decision::Reported { label } => {
                let (value, scheme) = codes[*label as usize];
                assert_eq!((&json["decision"][0], &json["decision"][1]), (&value.into(), &scheme.into()));
                assert_eq!(json["reasons"].as_array().unwrap().len(), 0);
            }
            Decision::Abstained { reasons } => {
                assert_eq!((&json["decision"][0], &json["decision"][1]), (&"abstained".into(), &"99ROENTGEN".into()));
                let told = json["reasons"].as_array().unwrap();
                assert_eq!(told.len(), reasons.len());
                assert!(told.iter().all(|reason| reason[1] == "99ROENTGEN" && reason[3].as_str().unwrap().is_ascii()));
            }
        }
        let comments = json["comments"].as_array().unwrap();
        assert!(comments[0] == NOTICE && comments[1].as_str().unwrap().contains(&report.report_id), "{json}");
        let warned = comments.iter().any(|comment| comment.as_str().unwrap().contains("clock"));
        assert_eq!(warned, report.clock == Clock::Unsynchronised);
    }
    assert!(matches!(judged[2].0.decision, Decision::Abstained { .. }));
    assert_eq!(lines[0]["evidence"][2], instance(1));
    assert_eq!(lines[0]["study"], lines[1]["study"]);
    assert_ne!(lines[0]["instance"], lines[1]["instance"]);
}

#[test]
fn the_same_report_makes_the_same_objects_in_every_transfer_syntax_of_the_original() {
    let uids = |object: &DefaultDicomObject| {
        [tags::SOP_INSTANCE_UID, tags::SERIES_INSTANCE_UID, tags::STUDY_INSTANCE_UID].map(|tag| text(object, tag))
    };
    let of = |bytes: &[u8]| Bench::new().judge(bytes).1.map(|path| read(&path));
    let [sr, picture] = of(&file(1));
    let [again, same] = of(&file(1));
    assert_eq!((uids(&sr), uids(&picture)), (uids(&again), uids(&same)));
    // As it comes from another way, with other file meta information; and what a second box says of it is its own.
    let other_way = part10("1.2", &instance(1), EXPLICIT, &radiograph(1).bare(EXPLICIT));
    assert_ne!(other_way, file(1));
    assert_eq!(of(&other_way).map(|object| uids(&object)), [uids(&sr), uids(&picture)]);
    for mut other in [Bench::called("box-u", key()), Bench::called("box-t", Key::from_bytes([8; 32]))] {
        let [theirs, their_picture] = other.judge(&file(1)).1.map(|path| uids(&read(&path)));
        for (own, theirs) in [(uids(&sr), theirs), (uids(&picture), their_picture)] {
            assert!(own[0] != theirs[0] && own[1] != theirs[1] && own[2] == theirs[2], "{own:?} {theirs:?}");
        }
    }
    assert_ne!(uids(&sr), uids(&picture));
    assert_ne!(text(&sr, tags::SERIES_INSTANCE_UID), text(&picture, tags::SERIES_INSTANCE_UID));
    for syntax in [IMPLICIT, BIG_ENDIAN, DEFLATED] {
        for object in of(&radiograph(1).file(syntax)) {
            assert_eq!(text(&object, tags::PATIENT_NAME), PATIENT, "{syntax}");
            assert_eq!(text(&object, tags::STUDY_INSTANCE_UID), text(&sr, tags::STUDY_INSTANCE_UID));
            assert_eq!(text(&object, tags::ACCESSION_NUMBER), "ACC-4711");
            let own = if text(&object, tags::MODALITY) == "SR" { uids(&sr) } else { uids(&picture) };
            assert_eq!(uids(&object), own, "{syntax}");
        }
    }
}

#[test]
fn names_in_any_character_set_come_back_byte_for_byte() {
    let cases: [(&str, &[u8]); 4] = [
        ("ISO_IR 192", "山田^太郎".as_bytes()),
        ("ISO_IR 144", b"\xbb\xee\xdae\xdc\xd1yp\xd3"),
        ("\\ISO 2022 IR 87", b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B"),
        ("GB18030", b"Wang^XiaoDong=\xcd\xf5^\xd0\xa1\xb6\xab="),
    ];
    for (set, name) in cases {
        let named = radiograph(3).text((0x0008, 0x0005), "CS", set).bytes((0x0010, 0x0010), "PN", name);
        for path in Bench::new().judge(&named.file(EXPLICIT)).1 {
            let bytes = fs::read(&path).unwrap();
            let holds = |part: &[u8]| bytes.windows(part.len()).any(|window| window == part);
            assert!(holds(name) && holds(set.as_bytes()), "{set}");
        }
    }
}

#[test]
fn the_picture_is_one_of_the_original_and_the_box_itself_would_not_judge_either_object() {
    let mut bench = Bench::new();
    let (_, [sr, picture]) = bench.judge(&file(1));
    let object = read(&picture);
    assert_eq!(text(&object, tags::IMAGE_TYPE), "DERIVED\\SECONDARY");
    assert_eq!(text(&object, tags::BURNED_IN_ANNOTATION), "YES");
    let source = &object.element(tags::SOURCE_IMAGE_SEQUENCE).unwrap().items().unwrap()[0];
    assert_eq!(source.element(tags::REFERENCED_SOP_INSTANCE_UID).unwrap().to_str().unwrap(), instance(1));
    let number = |tag| object.element(tag).unwrap().to_int::<u32>().unwrap();
    let (rows, columns) = (number(tags::ROWS), number(tags::COLUMNS));
    let pixels = object.element(tags::PIXEL_DATA).unwrap().to_bytes().unwrap().into_owned();
    assert_eq!(pixels.len() as u32, (rows * columns * 3).next_multiple_of(2));
    if let Some(folder) = std::env::var_os("ROENTGEN_SHOW") {
        // To be looked at.
        let image = image::RgbImage::from_raw(columns, rows, pixels).unwrap();
        image.save(Path::new(&folder).join("secondary_capture.png")).unwrap();
    }
    // A PACS that forwards all of a study to the box must not set off an endless round.
    let refused = |path: &Path| open_bytes(&fs::read(path).unwrap(), &Limits::default(), &key()).unwrap_err().code;
    assert_eq!((refused(&sr), refused(&picture)), (RefusalCode::NoImage, RefusalCode::NotARadiograph));
}

#[test]
fn without_the_uids_of_its_study_nothing_is_made_and_a_picture_file_has_none() {
    for object in [(0x0020, 0x000d), (0x0020, 0x000e), (0x0008, 0x0018)].map(|tag| radiograph(1).without(tag)) {
        let bytes = Dataset::file(&object, EXPLICIT);
        assert!(open_bytes(&bytes, &Limits::default(), &key()).is_ok(), "it is judged all the same");
        assert!(Filing::of(&bytes, &Limits::default()).is_none());
    }
    assert!(Filing::of(&support::png(1), &Limits::default()).is_none());
}
