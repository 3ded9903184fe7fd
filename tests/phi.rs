//! The promise: nothing that could name a patient leaves the box or is kept by it, but in the radiographs' own files. A
//! patient is planted in everything that a file can say, and then searched for in everything that the box says.

mod common;
#[path = "support/planted.rs"]
mod planted;
mod support;

use common::Random;
use common::dicom::{BIG_ENDIAN, DEFLATED, Dataset, EXPLICIT, IMPLICIT, PHOTOMETRIC, PIXELS};
use image::{DynamicImage, ImageFormat};
use planted::{DATE, DIGITS, Planted, Search, WORD, name};
use std::collections::BTreeSet;
use std::fs;
use std::io::Cursor;
use std::os::unix::fs::{PermissionsExt, symlink};
use support::daemon::{Place, Received};
use support::{names, output, roentgend, stderr, stdout, wait_for};

/// Files by name, all of one patient: judged ones, and ones for every reason of refusal.
fn files() -> Vec<(String, Vec<u8>)> {
    let mut counts = Planted::default();
    let object = planted::data_set(&mut counts);
    assert!(counts.elements > 2000 && counts.sequences > 500, "{} {}", counts.elements, counts.sequences);
    let explicit = planted::file(&object, EXPLICIT);
    let word = |tag, vr| object.clone().text(tag, vr, WORD);
    let number = |tag, vr| object.clone().text(tag, vr, DIGITS);
    let objects: [Dataset; 11] = [
        word((0x0008, 0x0016), "UI"),
        word((0x0008, 0x0060), "CS"),
        word((0x0008, 0x0068), "CS"),
        word((0x0018, 0x0015), "CS"),
        word((0x0018, 0x5101), "CS"),
        word(PHOTOMETRIC, "CS"),
        number((0x0028, 0x0008), "IS"),
        number((0x0028, 0x1050), "DS").text((0x0028, 0x1051), "DS", DIGITS),
        number((0x0028, 0x1053), "DS").text((0x0028, 0x1052), "DS", DIGITS),
        word((0x0028, 0x1056), "CS").text((0x0028, 0x1050), "DS", WORD),
        object.clone().without(PIXELS),
    ];
    let mut files: Vec<Vec<u8>> = objects.iter().map(|object| planted::file(object, EXPLICIT)).collect();
    files.extend([IMPLICIT, BIG_ENDIAN, EXPLICIT].map(|syntax| planted::file(&object, syntax)));
    files.push(object.file(DEFLATED));
    files.push(object.bare(EXPLICIT));
    // A transfer syntax that nobody knows, and one whose codestream is the patient.
    files.push(planted::file(&object, &format!("1.2.826.0.1.{DIGITS}.9")));
    for syntax in ["4.50", "4.57", "4.80", "4.90", "5"] {
        let coded = object.clone().fragments(&[format!("{WORD} {DIGITS} {DATE}").as_bytes()]);
        files.push(planted::file(&coded, &format!("1.2.840.10008.1.2.{syntax}")));
    }
    files.push(format!("Dear colleague, {WORD}, born {DATE}, called {DIGITS}.").into_bytes());
    files.push(WORD.repeat(600_000).into_bytes());
    let encoded = |image: &DynamicImage, format| {
        let mut bytes = Vec::new();
        image.write_to(&mut Cursor::new(&mut bytes), format).unwrap();
        bytes
    };
    let grey = |seed: u8| {
        DynamicImage::ImageLuma8(image::GrayImage::from_fn(200, 200, |x, y| image::Luma([(x + y) as u8 ^ seed])))
    };
    let colour =
        DynamicImage::ImageRgb8(image::RgbImage::from_fn(64, 64, |x, y| image::Rgb([x as u8 * 4, y as u8 * 4, 9])));
    files.push(planted::png(encoded(&grey(1), ImageFormat::Png)));
    files.push(planted::jpeg(&encoded(&grey(2), ImageFormat::Jpeg)));
    files.push(planted::png(encoded(&colour, ImageFormat::Png)));
    // Damaged at random: what decoders say of that must not quote it either.
    let mut random = Random::new(5);
    let sound = files.clone();
    for number in 0..60 {
        let mut file = sound[random.below(sound.len())].clone();
        if number % 3 == 0 {
            file.truncate(random.below(file.len()));
        }
        for _ in 0..random.below(40) {
            let at = random.below(file.len().max(1));
            if let Some(byte) = file.get_mut(at) {
                *byte ^= 1 << random.below(8);
            }
        }
        files.push(file);
    }
    // The headers alone, hit harder.
    for _ in 0..20 {
        let mut file = explicit.clone();
        for _ in 0..10 {
            file[128 + random.below(2000)] = random.next() as u8;
        }
        files.push(file);
    }
    files.into_iter().enumerate().map(|(number, file)| (name(number, ".dcm"), file)).collect()
}

/// The codes of refusal that stand in the reasons of a folder.
fn codes(place: &Place) -> BTreeSet<String> {
    let reasons = names(&place.path("rejected")).into_iter().filter(|name| name.ends_with(".reason.json"));
    let codes = reasons.map(|name| {
        let reason: serde_json::Value =
            serde_json::from_slice(&fs::read(place.path("rejected").join(name)).unwrap()).unwrap();
        reason["code"].as_str().unwrap().to_owned()
    });
    codes.collect()
}

#[test]
fn the_search_finds_what_it_looks_for() {
    let search = Search::for_the_patient();
    let wide: Vec<u8> = WORD.encode_utf16().flat_map(u16::to_le_bytes).collect();
    for (what, leak) in [
        ("plain", format!("judged {WORD}").into_bytes()),
        ("folded", WORD.to_lowercase().into_bytes()),
        ("wide", wide),
        ("hexadecimal", WORD.bytes().map(|byte| format!("{byte:02X}")).collect::<String>().into_bytes()),
        ("date", b"born 1877-03-21".to_vec()),
        // Python: base64.b64encode(b"x ZQXWJKVB y"), and with one and two letters more in front.
        ("base64", b"eCBaUVhXSktWQiB5".to_vec()),
        ("base64", b"eHggWlFYV0pLVkIgeQ==".to_vec()),
        ("base64", b"eHh4IFpRWFdKS1ZCIHk=".to_vec()),
    ] {
        assert!(!search.hits("", &leak).is_empty(), "{what}");
    }
    assert_eq!(search.hits("", b"an image, 1877, 7731 0577, ZQXWJ"), Vec::<String>::new());
}

#[test]
fn nothing_that_names_a_patient_leaves_the_radiographs_own_files() {
    let Some(place) = Place::new() else { return };
    place.configure(&place.path("tiny"), "allow_unsigned = true\n[limits]\nmax_file_bytes = 4000000");
    fs::create_dir(place.path("temporary")).unwrap();
    let files = files();
    let mut broker = place.broker();
    let received = Received::subscribe(place.port, "consumer");
    // Not files: a folder and a link, whose names must not be told either.
    fs::create_dir(place.path("incoming").join(name(1, " folder"))).unwrap();
    symlink("nowhere", place.path("incoming").join(name(2, " link"))).unwrap();
    for (name, bytes) in &files {
        place.drop_file(name, bytes);
    }
    let mut daemon = place.verbose_daemon(&place.path("temporary"));
    wait_for("half of the files", || names(&place.path("incoming")).len() < files.len() / 2);
    // A crash, in the middle of the work.
    daemon.signal("ABRT");
    daemon.wait();
    let mut daemon = place.verbose_daemon(&place.path("temporary"));
    wait_for("all files to be settled", || names(&place.path("incoming")).len() == 2);
    let done = names(&place.path("done")).len();
    wait_for("all reports", || received.hashes().len() == done);
    // One that comes twice and one that is removed before it is settled change nothing.
    place.drop_file(&files[11].0, &files[11].1);
    wait_for("the file again", || names(&place.path("done")).len() == done + 1);

    let mut search = Search::for_the_patient();
    let key = fs::read(place.path("state/pseudonym.key")).unwrap();
    assert_eq!(fs::metadata(place.path("state/pseudonym.key")).unwrap().permissions().mode() & 0o7777, 0o600);
    search.add("the key of the pseudonyms", &key);
    let mut hits = Vec::new();
    for about in ["cmdline", "environ"] {
        hits.extend(search.hits(about, &fs::read(format!("/proc/{}/{about}", daemon.0.id())).unwrap()));
    }
    // While it runs, with the write-ahead log beside the database; and after it has ended.
    let state = || search.hits_below(&place.path("state"), &|path| path.ends_with("pseudonym.key"));
    hits.extend(state());
    daemon.signal("TERM");
    daemon.wait();
    hits.extend(state());
    received.wait_for_status("offline");
    broker.signal("TERM");
    broker.wait();
    for folder in ["broker", "temporary"] {
        hits.extend(search.hits_below(&place.path(folder), &|_| false));
    }
    hits.extend(search.hits("the daemon's log", place.log().as_bytes()));
    let mut messages = 0;
    for (topic, payload) in received.messages() {
        hits.extend(search.hits("a topic", topic.as_bytes()));
        hits.extend(search.hits("a message", payload.as_bytes()));
        messages += 1;
    }
    let reasons = names(&place.path("rejected")).into_iter().filter(|name| name.ends_with(".reason.json"));
    let reasons: Vec<_> = reasons.collect();
    for reason in &reasons {
        hits.extend(search.hits("a reason", &fs::read(place.path("rejected").join(reason)).unwrap()));
    }
    assert_eq!(hits, Vec::<String>::new());

    // That it was searched in something.
    assert!(
        done >= 12 && messages > done && reasons.len() > 20,
        "{done} {messages} {}\n{}",
        reasons.len(),
        place.log()
    );
    let expected = [
        "damaged",
        "limit_exceeded",
        "multi_frame",
        "no_image",
        "not_a_radiograph",
        "unknown_format",
        "unsupported",
        "wrong_body_part",
        "wrong_modality",
    ];
    let codes = codes(&place);
    for code in expected {
        assert!(codes.contains(code), "{code} is missing in {codes:?}");
    }
    let log = place.log();
    assert!(log.contains("rejected: ") && log.contains("only plain files") && log.contains("file "), "{log}");
    // A line of the log leads to its file all the same, for who has the box's key.
    let tagged =
        output(roentgend().args(["tag", "--config"]).arg(place.path("roentgend.toml")).arg(place.path("rejected")));
    let tagged = stdout(&tagged);
    let (tag, _) = tagged.lines().find(|line| !line.ends_with(".json")).unwrap().split_once("  ").unwrap();
    assert!(log.contains(&format!("{tag}: rejected: ")), "{tag}\n{log}");
}

#[test]
fn the_tools_tell_nothing_but_the_path_that_they_were_given() {
    let Some(place) = Place::new() else { return };
    let folder = place.path(&name(0, " folder"));
    fs::create_dir(&folder).unwrap();
    let files = files();
    for (name, bytes) in &files {
        fs::write(folder.join(name), bytes).unwrap();
    }
    let pipe = place.path(&name(1, " pipe"));
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let said = output(
        roentgend().args(["-v", "classify", "--json", "--bundle"]).arg(place.path("tiny")).arg(&folder).arg(&pipe),
    );
    let mut search = Search::for_the_patient();
    let (mut hits, mut reports, mut codes) = (search.hits("stderr", stderr(&said).as_bytes()), 0, BTreeSet::new());
    for line in stdout(&said).lines() {
        let mut json: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(json["path"].as_str().unwrap().contains(WORD), "the path as it was given: {json}");
        json.as_object_mut().unwrap().remove("path");
        hits.extend(search.hits("a line of JSON", json.to_string().as_bytes()));
        reports += usize::from(json["report"].is_object());
        codes.extend(json["error"]["code"].as_str().map(str::to_owned));
    }
    assert_eq!(hits, Vec::<String>::new());
    assert!(reports > 12 && codes.contains("unreadable") && codes.len() >= 9, "{reports} {codes:?}");

    search.add("a password", b"correct-horse");
    fs::write(place.path("password"), "correct-horse").unwrap();
    fs::set_permissions(place.path("password"), fs::Permissions::from_mode(0o600)).unwrap();
    let mut config = fs::read_to_string(place.path("roentgend.toml")).unwrap();
    config.push_str(&format!("username = \"box\"\npassword_file = {:?}\n", place.path("password")));
    fs::write(place.path("roentgend.toml"), config).unwrap();
    for command in [vec!["-v", "doctor", "--config"], vec!["-v", "config"]] {
        let mut program = roentgend();
        program.args(&command);
        if command.contains(&"--config") {
            program.arg(place.path("roentgend.toml"));
        }
        let said = output(&mut program);
        let said = format!("{}{}", stdout(&said), stderr(&said));
        assert!(said.len() > 100, "{said}");
        assert_eq!(search.hits(command[1], said.as_bytes()), Vec::<String>::new());
    }
}
