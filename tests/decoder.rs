//! The promise: a decoder that hangs, crashes, eats memory or talks nonsense costs its file and nothing else.
//!
//! The decoder runs here as a child process of this very test, which misbehaves where a file says so: no such thing is in
//! the program itself. The real one is asked for the same images as well.

mod support;

use roentgen::pseudonym::Key;
use roentgen::radiograph::{Limits, Pixels, Radiograph, Refusal, RefusalCode, encode_png, open_bytes, phantom};
use roentgen::source::decoder::{self, Decoder, Failure};
use roentgen::source::process::Program;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Write, stdin};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, abort};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use support::daemon::{Place, Received};
use support::{PATIENCE, png, wait_for};

fn key() -> Key {
    Key::from_bytes([7; 32])
}

/// This test's own program, to run one of the ignored functions below.
fn this(function: &str) -> Program {
    Program::new(&std::env::current_exe().unwrap(), ["--exact", function, "--ignored", "--nocapture"])
}

/// A decoder that does what a file's first word says; any other file it decodes.
fn decode(bytes: &[u8], limits: &Limits, key: &Key) -> Result<Radiograph, Refusal> {
    static FILES: AtomicU32 = AtomicU32::new(0);
    // The first one is that by which the daemon sees that the process works.
    let number = FILES.fetch_add(1, Ordering::Relaxed);
    let text = String::from_utf8_lossy(bytes);
    let mut words = text.split(' ');
    match words.next() {
        Some("HANG") => loop {
            std::thread::sleep(Duration::from_secs(1000));
        },
        Some("ABORT") => abort(),
        Some("EXIT") => std::process::exit(0),
        Some("EAT") => {
            let mut eaten = Vec::new();
            loop {
                eaten.push(vec![1u8; 16 << 20]);
            }
        }
        Some("NONSENSE") => {
            let mut daemon = File::from(stdin().as_fd().try_clone_to_owned().unwrap());
            daemon.write_all(b"{\"radiograph\": {\"width\": 4000000000").unwrap();
        }
        Some("PANIC") => panic!("a patient's name"),
        Some("WORN") if number > 1 => abort(),
        // Killed the first time, by somebody else.
        Some("KILLED") if !Path::new(words.next().unwrap()).exists() => {
            fs::write(text.split(' ').nth(1).unwrap(), "").unwrap();
            let own = std::process::id().to_string();
            Command::new("/bin/kill").args(["-KILL", &own]).status().unwrap();
        }
        Some("WORN" | "KILLED") => return Ok(phantom::radiograph(1, 64)),
        _ => {}
    }
    open_bytes(bytes, limits, key)
}

#[test]
#[ignore = "a process that the tests below start"]
fn decoder_process() {
    decoder::serve(decode).unwrap();
}

fn misbehaving(limits: Limits) -> Decoder {
    Decoder::in_child(this("decoder_process"), limits, key())
}

/// A file of these bytes that nobody else sees.
fn file(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file
}

fn decoded(decoder: &mut Decoder, bytes: &[u8]) -> Result<Radiograph, Failure> {
    decoder.start(file(bytes));
    let deadline = Instant::now() + PATIENCE;
    loop {
        // As the pipeline does: a little at a time.
        if let Some(decoded) = decoder.poll(Instant::now() + Duration::from_millis(50)) {
            return decoded;
        }
        assert!(Instant::now() < deadline, "no answer");
    }
}

fn code(decoded: Result<Radiograph, Failure>) -> RefusalCode {
    match decoded {
        Err(Failure::Refused(refusal)) => refusal.code,
        other => panic!("{other:?}"),
    }
}

#[test]
fn whatever_a_decoder_does_costs_its_file_and_not_the_next() {
    let limits = Limits { decode_seconds: 6, decode_memory_bytes: 384 << 20, ..Limits::default() };
    let mut decoder = misbehaving(limits);
    decoder.check().unwrap();
    let mut restarts = 0;
    for (word, expected) in [
        ("HANG", RefusalCode::DecoderTimeout),
        ("ABORT", RefusalCode::DecoderFailed),
        ("EXIT", RefusalCode::DecoderFailed),
        ("EAT", RefusalCode::DecoderFailed),
        ("NONSENSE", RefusalCode::DecoderFailed),
        ("PANIC", RefusalCode::DecoderFailed),
        ("a letter", RefusalCode::UnknownFormat),
    ] {
        assert_eq!(code(decoded(&mut decoder, word.as_bytes())), expected, "{word}");
        if expected != RefusalCode::UnknownFormat {
            assert!(decoder.restarts() > restarts, "{word}");
            restarts = decoder.restarts();
        }
        let good = decoded(&mut decoder, &png(3)).unwrap();
        assert_eq!(good, open_bytes(&png(3), &Limits::default(), &key()).unwrap(), "after {word}");
    }
}

#[test]
fn a_death_that_may_not_be_the_files_doing_is_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut decoder = misbehaving(Limits::default());
    decoded(&mut decoder, &png(1)).unwrap();
    // A process that has decoded others before.
    decoded(&mut decoder, b"WORN").unwrap();
    // One that somebody else has killed.
    decoded(&mut decoder, format!("KILLED {}", folder.path().join("mark").display()).as_bytes()).unwrap();
    assert_eq!(decoder.restarts(), 2);
}

#[test]
fn a_decoder_that_does_not_work_at_all_condemns_no_file() {
    let mut decoder = Decoder::in_child(Program::new(Path::new("/bin/false"), [""; 0]), Limits::default(), key());
    assert!(decoder.check().unwrap_err().to_string().contains("exit code 1"));
    assert!(matches!(decoded(&mut decoder, &png(1)), Err(Failure::NoDecoder(_))));
    let mut decoder = Decoder::in_child(Program::new(Path::new("/no/such/program"), [""; 0]), Limits::default(), key());
    assert!(matches!(decoded(&mut decoder, &png(1)), Err(Failure::NoDecoder(_))));
}

/// The real decoder process.
fn real() -> Decoder {
    let program = Program::new(Path::new(env!("CARGO_BIN_EXE_roentgend")), ["decode-worker"]);
    Decoder::in_child(program, Limits::default(), key())
}

#[test]
fn the_real_decoder_gives_what_decoding_here_gives() {
    let mut decoder = real();
    let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/dicom");
    let shared = std::env::var_os("ROENTGEN_SHARED").map_or(shared, |shared| PathBuf::from(shared).join("dicom"));
    let mut files = vec![png(1), png(2)[..500].to_vec(), Vec::new(), b"no image".to_vec()];
    for folder in ["chest", "other"] {
        match fs::read_dir(shared.join(folder)) {
            Ok(entries) => files.extend(entries.map(|entry| fs::read(entry.unwrap().path()).unwrap())),
            Err(_) => eprintln!("SKIPPED: no DICOM files in {}", shared.display()),
        }
    }
    for bytes in files {
        let here = open_bytes(&bytes, &Limits::default(), &key());
        match (decoded(&mut decoder, &bytes), here) {
            (Ok(there), Ok(here)) => assert_eq!(there, here),
            (Err(Failure::Refused(there)), Err(here)) => assert_eq!(there, here),
            (there, here) => panic!("{there:?}, {here:?}"),
        }
    }
    assert_eq!(decoder.restarts(), 0);
}

#[test]
fn the_largest_image_that_the_limits_allow_fits_the_decoders_memory() {
    // A tenth of the default limits, so that the test itself stays small; the process's own 256 MiB stay the same.
    let limits =
        Limits { max_file_bytes: 25 << 20, max_pixels: 10_000_000, max_decoded_bytes: 51 << 20, ..Limits::default() };
    let memory = limits.decode_memory() - (200 << 20);
    let limits = Limits { decode_memory_bytes: memory, ..limits };
    let program = Program::new(Path::new(env!("CARGO_BIN_EXE_roentgend")), ["decode-worker"]);
    let mut decoder = Decoder::in_child(program, limits, key());
    let (width, height) = (3125, 2000);
    let mut colour = Vec::new();
    // Four channels of 16 bits: nothing of so many pixels takes more.
    let image = image::ImageBuffer::from_pixel(width, height, image::Rgba([9000u16, 9000, 9000, 65535]));
    image::DynamicImage::ImageRgba16(image)
        .write_to(&mut std::io::Cursor::new(&mut colour), image::ImageFormat::Png)
        .unwrap();
    let grey = Radiograph {
        width: 5000,
        height: 2000,
        pixels: Pixels::Grey16((0..10_000_000u32).map(|n| (n >> 8) as u16).collect()),
        ..phantom::radiograph(1, 8)
    };
    for bytes in [colour, encode_png(&grey).unwrap()] {
        let radiograph = decoded(&mut decoder, &bytes).unwrap();
        assert!(matches!(radiograph.pixels, Pixels::Grey16(_)));
    }
    assert_eq!(decoder.restarts(), 0);
}

/// The ids of the processes whose parent this one is, with a word among their arguments.
fn children(parent: u32, word: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir("/proc").unwrap().filter_map(Result::ok) {
        let read = |name: &str| fs::read_to_string(entry.path().join(name)).unwrap_or_default();
        let is_child = read("status").lines().any(|line| line.strip_prefix("PPid:\t") == Some(&parent.to_string()));
        if is_child && read("cmdline").contains(word) {
            found.insert(entry.file_name().into_string().unwrap());
        }
    }
    found
}

#[test]
fn the_decoder_outlives_a_stop_of_the_service_and_never_the_daemon() {
    let Some(place) = Place::new() else { return };
    let _broker = place.broker();
    let received = Received::subscribe(place.port, "screen");
    let mut daemon = place.daemon();
    received.wait_for_status("online");
    let decoders = children(daemon.0.id(), "decode-worker");
    assert_eq!(decoders.len(), 1, "{}", place.log());
    for id in &decoders {
        // What `systemctl stop` and Ctrl-C send to every process.
        for signal in ["-TERM", "-INT", "-HUP"] {
            assert!(Command::new("kill").args([signal, id]).status().unwrap().success());
        }
        assert_eq!(fs::read(format!("/proc/{id}/environ")).unwrap(), b"", "its environment is empty");
        let limits = fs::read_to_string(format!("/proc/{id}/limits")).unwrap();
        let memory = limits.lines().find(|line| line.starts_with("Max address space")).unwrap();
        assert!(memory.contains(&Limits::default().decode_memory().to_string()), "{memory}");
        assert!(fs::read_to_string(format!("/proc/{id}/status")).unwrap().contains("NoNewPrivs:\t1"));
    }
    place.drop_file("a.png", &png(1));
    wait_for("the report", || received.reports().len() == 1);
    assert_eq!(children(daemon.0.id(), "decode-worker"), decoders, "the same one");
    daemon.signal("KILL");
    daemon.wait();
    let is_gone = |id: &String| {
        fs::read_to_string(format!("/proc/{id}/status")).map_or(true, |status| status.contains("State:\tZ"))
    };
    wait_for("the decoder to end with its daemon", || decoders.iter().all(is_gone));
}

#[test]
#[ignore = "measures; prints what a decoder process costs"]
fn what_the_decoder_process_costs() {
    let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared");
    let large = fs::read_dir(shared.join("dicom/chest")).unwrap().map(|entry| entry.unwrap().path());
    let large = large.max_by_key(|path| {
        open_bytes(&fs::read(path).unwrap(), &Limits::default(), &key()).map_or(0, |r| r.width * r.height)
    });
    let large = fs::read(large.unwrap()).unwrap();
    let phantom = |size| encode_png(&phantom::radiograph(1, size)).unwrap();
    let deep = Radiograph {
        pixels: Pixels::Grey16((0..9_000_000u32).map(|n| (n % 60_000) as u16).collect()),
        width: 3000,
        height: 3000,
        ..phantom::radiograph(1, 8)
    };
    let deep = encode_png(&deep).unwrap();
    for (name, bytes) in [("large DICOM", large), ("PNG of 16 bits", deep), ("PNG of 8 bits", phantom(299))] {
        let (mut here, mut there) = (Decoder::in_process(Limits::default(), key()), real());
        there.check().unwrap();
        let (mut times, file) = ([Vec::new(), Vec::new()], file(&bytes));
        let mut size = (0, 0);
        for _ in 0..31 {
            for (decoder, times) in [&mut here, &mut there].into_iter().zip(&mut times) {
                let started = Instant::now();
                decoder.start(file.try_clone().unwrap());
                let radiograph = decoder.poll(Instant::now() + PATIENCE).unwrap().unwrap();
                times.push(started.elapsed().as_secs_f64() * 1000.0);
                size = (radiograph.width, radiograph.height);
            }
        }
        let [here, there] = times.map(|mut times| {
            times.sort_by(f64::total_cmp);
            times[times.len() / 2]
        });
        println!(
            "{name} ({} × {}, {} bytes): here {here:.2} ms, in a process {there:.2} ms",
            size.0,
            size.1,
            bytes.len()
        );
    }
    let started = Instant::now();
    real().check().unwrap();
    println!("starting one: {:.2} ms", started.elapsed().as_secs_f64() * 1000.0);
}
