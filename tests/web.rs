//! The promise: the box's own pages say how it is, in forms that monitoring reads, to this machine only unless told
//! otherwise, and whoever abuses them hurts nobody but himself. Real daemon, plain sockets.

mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;
use support::daemon::Place;
use support::{free_port, names, output, png, roentgend, stderr, wait_for};

/// A place whose box has pages on a free port. Without a broker: it is not asked.
fn place() -> Option<(Place, u16)> {
    let (place, port) = (Place::new()?, free_port());
    place.configure_more(&format!("[web]\nlisten = \"127.0.0.1:{port}\"\n"));
    Some((place, port))
}

/// Sends bytes and reads the answer to its end; empty where the connection was refused or cut.
fn exchange(port: u16, request: &[u8]) -> String {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return String::new() };
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut answer = Vec::new();
    // The other side may close before it has read everything.
    let _ = stream.write_all(request);
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8(answer).unwrap()
}

fn get(port: u16, path: &str) -> (String, String) {
    let answer = exchange(port, format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes());
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    (head.lines().next().unwrap_or_default().to_owned(), body.to_owned())
}

/// The Python of the outside witnesses, if it has Prometheus's own parser.
fn python() -> Option<PathBuf> {
    let python = std::env::var_os("ROENTGEN_PYTHON").map(PathBuf::from).unwrap_or_else(|| "python3".into());
    let found = Command::new(&python).args(["-c", "import prometheus_client"]).stderr(Stdio::null()).status();
    if found.is_ok_and(|status| status.success()) {
        return Some(python);
    }
    let required = ["CI", "ROENTGEN_REQUIRE_PEERS"].iter().any(|name| std::env::var_os(name).is_some());
    assert!(!required, "prometheus_client is missing: install tests/witness/requirements.txt");
    eprintln!("SKIPPED: Prometheus's parser is missing (tests/witness/requirements.txt); /metrics is read by no other");
    None
}

#[test]
fn prometheus_reads_the_metrics_and_healthz_says_that_all_is_well() {
    let Some((place, port)) = place() else { return };
    let _broker = place.broker();
    let _daemon = place.daemon();
    wait_for("a box that is well", || get(port, "/healthz").0.contains("200"));
    let (_, health) = get(port, "/healthz");
    assert_eq!(health, r#"{"healthy":true,"problems":[]}"#);
    place.drop_file("a.png", &png(1));
    place.drop_file("b.png", b"no image");
    wait_for("both to be counted", || {
        let (_, text) = get(port, "/metrics");
        text.contains("roentgen_rejected_files_total{code=\"unknown_format\"} 1")
            && text.contains("roentgen_image_duration_seconds_count{step=\"infer\"} 1")
            && text.contains("roentgen_published_reports_total 1")
    });
    let (head, text) = get(port, "/metrics");
    assert!(head.contains("200 OK"), "{head}");
    assert!(text.contains("roentgen_model_info{name=\"tiny\""), "{text}");
    for (path, code) in [("/", "200"), ("/metrics/", "404"), ("/../etc/passwd", "404"), ("/healthz?x=1", "200")] {
        assert!(get(port, path).0.contains(code), "{path}: {:?}", get(port, path));
    }
    let Some(python) = python() else { return };
    let script = "import sys\n\
        from prometheus_client.parser import text_string_to_metric_families as parse\n\
        families = list(parse(sys.stdin.read()))\n\
        for family in families:\n\
        \x20   assert family.documentation and family.type in ('counter', 'gauge', 'summary'), family\n\
        \x20   assert family.name.startswith('roentgen_'), family\n\
        print(len(families))\n";
    let mut child = Command::new(python)
        .args(["-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let read = child.wait_with_output().unwrap();
    assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
    let families: usize = String::from_utf8(read.stdout).unwrap().trim().parse().unwrap();
    assert!(families >= 25, "only {families} metrics");
}

#[test]
fn strange_requests_and_slow_ones_get_nothing_and_keep_nobody_waiting() {
    let Some((place, port)) = place() else { return };
    let daemon = place.daemon();
    wait_for("the pages", || get(port, "/metrics").0.contains("200"));
    let long = [b"GET / HTTP/1.1\r\nX: ".as_slice(), &vec![b'a'; 64 << 10], b"\r\n\r\n"].concat();
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "X: a\r\n".repeat(1000));
    for (request, code) in [
        (&b"POST /metrics HTTP/1.1\r\nHost: box\r\nContent-Length: 3\r\n\r\nabc"[..], "405"),
        (b"DELETE / HTTP/1.1\r\nHost: localhost\r\n\r\n", "405"),
        (&long, "431"),
        (many.as_bytes(), "431"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "400"),
        (b"nonsense\r\n\r\n", "400"),
    ] {
        let answer = exchange(port, request);
        let shown = String::from_utf8_lossy(&request[..request.len().min(40)]).into_owned();
        assert!(answer.is_empty() || answer.lines().next().unwrap().contains(code), "{shown:?}: {answer}");
    }
    // Clients that begin and never end, many more than are let in.
    let mut slow: Vec<TcpStream> = (0..64).filter_map(|_| TcpStream::connect(("127.0.0.1", port)).ok()).collect();
    for stream in &mut slow {
        let _ = stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: ");
    }
    // The line does not care, and the pages are there again once they are cut off.
    place.drop_file("a.png", &png(1));
    wait_for("the image", || names(&place.path("done")) == ["a.png"]);
    wait_for("the pages again", || get(port, "/metrics").0.contains("200"));
    let threads = fs::read_dir(format!("/proc/{}/task", daemon.0.id())).unwrap().count();
    assert!(threads < 32, "{threads} threads");
    for mut stream in slow {
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let mut answer = Vec::new();
        // Closed, whether in order or not, is what counts.
        let _ = stream.read_to_end(&mut answer);
        assert!(!String::from_utf8_lossy(&answer).contains("200 OK"));
    }
}

#[test]
fn without_a_section_nothing_listens_and_other_addresses_need_a_word() {
    let Some((place, port)) = place() else { return };
    let path = place.path("roentgend.toml");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("127.0.0.1:", "0.0.0.0:").replace("mqtt://0.0.0.0", "mqtt://127.0.0.1")).unwrap();
    let refused = output(roentgend().args(["run", "--config"]).arg(&path));
    assert_eq!(refused.status.code(), Some(78));
    assert!(stderr(&refused).contains("allow_remote = true"), "{}", stderr(&refused));

    fs::write(&path, text.split("[web]").next().unwrap()).unwrap();
    let _daemon = place.daemon();
    wait_for("a box that works", || place.path("state/status.json").exists());
    place.drop_file("a.png", &png(1));
    wait_for("the image", || names(&place.path("done")) == ["a.png"]);
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
}

#[test]
fn a_port_that_is_taken_stops_nothing_and_is_tried_again() {
    let Some((place, port)) = place() else { return };
    let taken = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let _daemon = place.daemon();
    wait_for("the word about it", || place.log().contains("trying again until it can be had"));
    place.drop_file("a.png", &png(1));
    wait_for("the image", || names(&place.path("done")) == ["a.png"]);
    drop(taken);
    wait_for("the pages", || get(port, "/metrics").0.contains("200"));
}
