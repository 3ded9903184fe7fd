//! What the tests of the dashboard share: a plain HTTP client, a box with pages on a free port, and a long history. Not a
//! test.

#![allow(dead_code, reason = "every test file uses its own part of this")]

use crate::queue::report;
use crate::support::daemon::Place;
use crate::support::{PATIENCE, free_port};
use roentgen::outbox::{Config, Outbox};
use roentgen::report::{Decision, Label, Report};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// What came back.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}\n{}", self.head, self.text()))
    }

    /// The value of a header; the first of several.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// One request, and its answer to the end; status 0 where nothing answered.
pub(crate) fn ask(port: u16, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let mut request = format!("{method} {path} HTTP/1.1\r\n");
    if !headers.iter().any(|(name, _)| *name == "Host") {
        request.push_str(&format!("Host: 127.0.0.1:{port}\r\n"));
    }
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    if method == "POST" {
        request.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    request.push_str("\r\n");
    let mut answer = Vec::new();
    if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) {
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        // The other side may answer and close before it has read everything.
        let _ = stream.write_all(request.as_bytes()).and_then(|()| stream.write_all(body));
        let _ = stream.read_to_end(&mut answer);
    }
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap_or(answer.len());
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    Answer { status, head, body: answer.get(end + 4..).unwrap_or_default().to_vec() }
}

pub(crate) fn get(port: u16, path: &str) -> Answer {
    ask(port, "GET", path, &[], &[])
}

/// A place whose box has pages on a free port, with more lines in their section.
pub(crate) fn place(web: &str) -> Option<(Place, u16)> {
    let (place, port) = (Place::new()?, free_port());
    place.configure_more(&format!("[web]\nlisten = \"127.0.0.1:{port}\"\n{web}\n"));
    Some((place, port))
}

/// So many reports as history, of which so many were sent: five minutes apart, the last of them just before now.
pub(crate) fn fill(state: &Path, reports: u64, sent: u64) {
    // In memory first: ten thousand commits, each of which waits for the disk, would take a minute.
    let memory = Path::new("/dev/shm");
    let scratch = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
    let path = scratch.path().join("outbox.sqlite3");
    let mut outbox = Outbox::open(&path, &Config::default()).unwrap();
    let now = chrono::Utc::now();
    for n in 1..=reports {
        outbox.enqueue(&dated(n, now - chrono::Duration::minutes(5 * (reports - n) as i64 + 1))).unwrap();
    }
    outbox.mark_sent_up_to(sent).unwrap();
    drop(outbox);
    fs::create_dir_all(state).unwrap();
    for entry in fs::read_dir(scratch.path()).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), state.join(entry.file_name())).unwrap();
    }
}

/// The n-th report, received at some time, with the probabilities of its label.
pub(crate) fn dated(n: u64, at: chrono::DateTime<chrono::Utc>) -> Report {
    let mut report = report(n);
    report.received_at = at.to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
    report
}

/// The label of the n-th report, if it has one.
pub(crate) fn label(n: u64) -> Option<Label> {
    match report(n).decision {
        Decision::Reported { label } => Some(label),
        Decision::Abstained { .. } => None,
    }
}

/// Listens to events; each with its name.
pub(crate) struct Events(pub(crate) BufReader<TcpStream>);

impl Events {
    pub(crate) fn open(port: u16) -> Self {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(stream, "GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        assert!(line.contains("200"), "{line}");
        Self(reader)
    }

    /// Reads on until an event of that name is what is looked for.
    pub(crate) fn wait(&mut self, name: &str, is_it: impl Fn(&serde_json::Value) -> bool) -> serde_json::Value {
        let deadline = Instant::now() + PATIENCE;
        let mut event = String::new();
        loop {
            assert!(Instant::now() < deadline, "waited too long for the event {name}");
            let mut line = String::new();
            assert_ne!(self.0.read_line(&mut line).unwrap(), 0, "it ended before the event {name}");
            if let Some(of) = line.strip_prefix("event: ") {
                event = of.trim().to_owned();
            } else if let Some(data) = line.strip_prefix("data: ")
                && event == name
            {
                let data: serde_json::Value = serde_json::from_str(data).unwrap();
                if is_it(&data) {
                    return data;
                }
            }
        }
    }
}
