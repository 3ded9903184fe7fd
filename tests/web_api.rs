//! The promise: the dashboard's interface gives the box's history page by page, tells what happens as it happens, is there
//! for who may see it and for nobody else, and names no patient. Real daemon, real broker, plain sockets.

mod common;
#[path = "support/planted.rs"]
mod planted;
#[path = "common/queue.rs"]
mod queue;
mod support;
#[path = "support/web.rs"]
mod web;

use common::dicom::EXPLICIT;
use planted::{Planted, Search, name};
use roentgen::report::Label;
use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;
use support::{names, output, png, roentgend, stdout, wait_for};
use web::{Events, ask, fill, get, label, place};

/// The sequences of a page of reports.
fn sequences(page: &serde_json::Value) -> Vec<u64> {
    page["reports"].as_array().unwrap().iter().map(|entry| entry["sequence"].as_u64().unwrap()).collect()
}

#[test]
fn ten_thousand_reports_are_there_page_by_page_and_by_what_they_are() {
    let Some((place, port)) = place("") else { return };
    const ALL: u64 = 10_000;
    fill(&place.path("state"), ALL, ALL - 3);
    let _daemon = place.daemon();
    wait_for("the reports", || get(port, "/api/reports").status == 200);
    let first = get(port, "/api/reports").json();
    assert_eq!(sequences(&first), (ALL - 49..=ALL).rev().collect::<Vec<_>>());
    assert_eq!((first["total"].as_u64(), first["damaged"].as_u64()), (Some(ALL), Some(0)));
    let (mut seen, mut next) = (Vec::new(), Some(ALL + 1));
    while let Some(before) = next {
        let page = get(port, &format!("/api/reports?limit=200&before={before}")).json();
        seen.extend(sequences(&page));
        next = page["next"].as_u64();
    }
    assert!(seen.into_iter().eq((1..=ALL).rev()), "every report once, newest first");

    let all_of = |query: &str| {
        let (mut found, mut before) = (Vec::new(), String::new());
        loop {
            let page = get(port, &format!("/api/reports?limit=200{before}&{query}")).json();
            found.extend(sequences(&page));
            match page["next"].as_u64() {
                Some(next) => before = format!("&before={next}"),
                None => return found,
            }
        }
    };
    let expected = |is_it: &dyn Fn(u64) -> bool| (1..=ALL).rev().filter(|n| is_it(*n)).collect::<Vec<_>>();
    assert_eq!(all_of("label=covid"), expected(&|n| label(n) == Some(Label::Covid)));
    assert_eq!(all_of("status=abstained"), expected(&|n| label(n).is_none()));
    assert_eq!(all_of("status=unsent"), [ALL, ALL - 1, ALL - 2]);
    let now = chrono::Utc::now();
    let time = |minutes: i64| (now - chrono::Duration::minutes(minutes)).format("%Y-%m-%dT%H:%M:%SZ");
    assert_eq!(all_of(&format!("since={}", time(11))).len(), 2);
    let between = expected(&|n| label(n).is_some() && (200..300).contains(&(ALL - n)));
    assert_eq!(all_of(&format!("since={}&until={}&status=reported", time(5 * 300), time(5 * 200))), between);
    for wrong in ["label=flu", "since=yesterday", "before=x", "x=1", "status=good"] {
        let answer = get(port, &format!("/api/reports?{wrong}"));
        assert_eq!((answer.status, answer.json()["error"]["code"].as_str()), (400, Some("query")), "{wrong}");
    }

    let one = get(port, "/api/reports/7").json();
    assert_eq!(one["sequence"], 7);
    let id = one["report"]["report_id"].as_str().unwrap();
    assert_eq!(get(port, &format!("/api/reports/{id}")).json(), one);
    for missing in ["0", "10001", "18446744073709551615", "x", "00000000000000000000000000000000", "..%2f.."] {
        assert_eq!(get(port, &format!("/api/reports/{missing}")).status, 404, "{missing}");
    }
}

#[test]
fn what_happens_is_told_as_it_happens() {
    let Some((place, port)) = place("") else { return };
    let mut broker = place.broker();
    let _daemon = place.daemon();
    wait_for("the pages", || get(port, "/healthz").status == 200);
    let mut events = Events::open(port);
    events.wait("health", |telemetry| telemetry["broker"]["connected"] == true);
    place.drop_file("a.png", &png(1));
    let entry = events.wait("report", |entry| entry["sequence"] == 1);
    assert_eq!(entry["report"]["device"], "box-t");
    assert!(entry["report"]["evidence_map"].is_null());
    if entry["sent_at"].is_null() {
        events.wait("sent", |sent| sent["up_to"] == 1);
    }
    // Without a broker a report is told all the same, and that it waits.
    broker.signal("TERM");
    broker.wait();
    events.wait("health", |telemetry| telemetry["broker"]["connected"] == false);
    place.drop_file("b.png", &png(2));
    let entry = events.wait("report", |entry| entry["sequence"] == 2);
    assert!(entry["sent_at"].is_null(), "{entry}");
    events.wait("health", |telemetry| telemetry["queue"]["unsent"] == 1);
    let _broker = place.broker();
    events.wait("sent", |sent| sent["up_to"] == 2);

    // Listeners are few; who leaves makes room.
    let mut all = vec![events];
    let refused = loop {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        write!(stream, "GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        if !line.contains("200") {
            break line;
        }
        all.push(Events(reader));
        assert!(all.len() < 100);
    };
    assert!(refused.contains("503") && all.len() >= 8, "{refused} {}", all.len());
    assert_eq!(get(port, "/api/health").status, 200, "the pages answer all the same");
    all.truncate(1);
    wait_for("room for another listener", || {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        write!(stream, "GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).unwrap();
        line.contains("200")
    });
}

#[test]
fn the_dashboard_is_for_who_knows_the_token_and_asks_by_its_name() {
    let Some((place, port)) = place("hosts = [\"box.clinic.example\"]\ntoken = \"TOKEN\"") else { return };
    let token = place.path("token");
    fs::write(&token, "correct-horse-battery\n").unwrap();
    fs::set_permissions(&token, Permissions::from_mode(0o600)).unwrap();
    let path = place.path("roentgend.toml");
    let text = fs::read_to_string(&path).unwrap().replace("TOKEN", token.to_str().unwrap());
    fs::write(&path, &text).unwrap();
    let daemon = place.daemon();
    wait_for("the pages", || get(port, "/metrics").status == 200);
    // Without it: the way to the login page, and nothing else.
    let page = get(port, "/");
    assert_eq!((page.status, page.header("location")), (303, Some("/login")));
    for path in
        ["/api/reports", "/api/health", "/api/events", "/api/model", "/api/images/x", "/model/card.md", "/nothing"]
    {
        let answer = get(port, path);
        assert_eq!((answer.status, answer.json()["error"]["code"].as_str()), (401, Some("login_needed")), "{path}");
    }
    assert_eq!(ask(port, "POST", "/api/upload", &[], &png(1)).status, 401);
    let login = get(port, "/login");
    assert!(login.status == 200 && login.text().contains("type=\"password\""), "{}", login.text());
    assert_eq!(get(port, "/assets/style.css").status, 200);
    for (said, status) in [("correct-horse-battery", 200), ("correct-horse-batterz", 401), ("", 401)] {
        let header = format!("Bearer {said}");
        assert_eq!(ask(port, "GET", "/api/reports", &[("Authorization", &header)], &[]).status, status, "{said}");
    }
    let wrong = ask(port, "POST", "/login", &[], b"token=wrong-horse-battery");
    assert!(wrong.status == 401 && wrong.header("set-cookie").is_none());
    assert!(wrong.text().contains("That is not the token"), "{}", wrong.text());
    let own = format!("http://127.0.0.1:{port}");
    let right = ask(port, "POST", "/login", &[("Origin", &own)], b"token=correct-horse-battery");
    assert_eq!((right.status, right.header("location")), (303, Some("/")), "{}", right.text());
    let cookie = right.header("set-cookie").unwrap();
    assert!(cookie.contains("; HttpOnly") && cookie.contains("; SameSite=Strict"), "{cookie}");
    let cookie = cookie.split(';').next().unwrap();
    let with_cookie =
        |path: &str, more: &[(&str, &str)]| ask(port, "GET", path, &[&[("Cookie", cookie)][..], more].concat(), &[]);
    assert_eq!(with_cookie("/", &[]).status, 200);
    assert_eq!(with_cookie("/api/reports", &[]).status, 200);
    // A page from elsewhere, under its own name (DNS rebinding), or with the reader's own browser.
    for host in ["evil.example", &format!("evil.example:{port}"), "box", "127.0.0.1.evil.example"] {
        assert_eq!(with_cookie("/api/reports", &[("Host", host)]).status, 421, "{host}");
    }
    assert_eq!(with_cookie("/", &[("Host", "box.clinic.example")]).status, 200);
    for elsewhere in [("Origin", "http://evil.example"), ("Origin", "null"), ("Sec-Fetch-Site", "cross-site")] {
        let answer = ask(port, "POST", "/login", &[elsewhere], b"token=correct-horse-battery");
        assert_eq!((answer.status, answer.header("set-cookie")), (403, None), "{elsewhere:?}");
    }
    let out = ask(port, "POST", "/logout", &[("Cookie", cookie)], &[]);
    assert!(out.status == 303 && out.header("set-cookie").unwrap().contains("Max-Age=0"));
    assert!(!place.log().contains("correct-horse"), "{}", place.log());

    // On other addresses the dashboard needs a token; what machines read does not.
    drop(daemon);
    let doctor = || stdout(&output(roentgend().args(["doctor", "--config"]).arg(&path)));
    assert!(doctor().contains("for who knows the token"), "{}", doctor());
    fs::set_permissions(&token, Permissions::from_mode(0o644)).unwrap();
    assert!(doctor().lines().any(|line| line.starts_with("FAIL  web") && line.contains("chmod")), "{}", doctor());
    fs::set_permissions(&token, Permissions::from_mode(0o600)).unwrap();
    let open = text
        .replace(&format!("127.0.0.1:{port}"), &format!("0.0.0.0:{port}"))
        .replace("[web]", "[web]\nallow_remote = true");
    fs::write(&path, open.lines().filter(|line| !line.starts_with("token")).collect::<Vec<_>>().join("\n")).unwrap();
    let daemon = place.daemon();
    wait_for("the metrics", || get(port, "/metrics").status == 200);
    for path in ["/", "/login", "/api/reports", "/assets/main.js"] {
        let answer = get(port, path);
        assert!(answer.status == 403 && answer.text().contains("token"), "{path}: {} {}", answer.head, answer.text());
    }
    drop(daemon);
    fs::write(&path, open).unwrap();
    let _daemon = place.daemon();
    wait_for("the pages", || get(port, "/metrics").status == 200);
    assert_eq!(get(port, "/").status, 303);
    assert_eq!(with_cookie("/", &[]).status, 200, "a session outlives a restart");
}

#[test]
fn pages_may_do_nothing_but_show_themselves() {
    let Some((place, port)) = place("") else { return };
    let _daemon = place.daemon();
    wait_for("the pages", || get(port, "/api/model").status == 200);
    for path in ["/", "/assets/main.js", "/api/reports", "/api/health", "/model/card.md", "/nothing"] {
        let answer = get(port, path);
        let policy = answer.header("content-security-policy").unwrap_or_default().to_owned();
        for part in ["default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "base-uri 'none'"] {
            assert!(policy.contains(part), "{path}: {policy}");
        }
        assert!(!policy.contains("unsafe"), "{path}: {policy}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{path}");
    }
    let page = get(port, "/");
    assert!(page.text().contains("Screening aid, not a diagnosis"), "{}", page.text());
    assert!(page.text().contains(r#""device":"box-t""#), "{}", page.text());
    let asset = get(port, "/assets/main.js");
    let tag = asset.header("etag").unwrap();
    let again = ask(port, "GET", "/assets/main.js", &[("If-None-Match", tag)], &[]);
    assert_eq!((again.status, again.body.len()), (304, 0));
    for path in
        ["/assets/", "/assets/../mod.rs", "/assets/en.json", "/api/", "/api/images/../../outbox.sqlite3", "/login/"]
    {
        assert_eq!(get(port, path).status, 404, "{path}");
    }
    let model = get(port, "/api/model").json();
    assert_eq!((model["name"].as_str(), model["has_card"].as_bool()), (Some("tiny"), Some(true)), "{model}");
    assert_eq!(get(port, "/model/card.md").text(), "A test.");
    assert_eq!(get(port, "/model/report.html").status, 404, "this bundle has none");
    // What is not what the manifest says is not shown.
    assert_eq!(get(port, "/api/about").json()["upload"], false);
    assert_eq!(ask(port, "POST", "/api/upload", &[], &png(1)).status, 403, "nobody has allowed it");
    assert_eq!(get(port, "/api/images/00000000000000000000000000000000").status, 404);
}

#[test]
fn what_is_sent_in_is_judged_or_refused_and_said_to_be() {
    let Some((place, port)) = place("upload = true") else { return };
    place.configure_more("[limits]\nmax_file_bytes = 4000000\n");
    let _broker = place.broker();
    let _daemon = place.daemon();
    wait_for("the pages", || get(port, "/healthz").status == 200);
    let send = |bytes: &[u8]| ask(port, "POST", "/api/upload", &[], bytes);
    let became = |name: &str| {
        let mut state = serde_json::Value::Null;
        wait_for("what became of it", || {
            state = get(port, &format!("/api/upload/{name}")).json();
            state["state"] != "waiting"
        });
        state
    };
    let sent = send(&png(1));
    assert_eq!(sent.status, 202, "{}", sent.text());
    let name = sent.json()["name"].as_str().unwrap().to_owned();
    assert_eq!(became(&name), serde_json::json!({ "state": "reported", "sequence": 1 }));
    let report = get(port, "/api/reports/1").json();
    assert_eq!(report["report"]["origin"]["content_sha256"], sent.json()["content_sha256"]);
    // The same again is settled, and is the same report.
    let again = send(&png(1)).json()["name"].as_str().unwrap().to_owned();
    assert_eq!(became(&again)["sequence"], 1);
    let mut broken = png(2);
    broken.truncate(200);
    let name = send(&broken).json()["name"].as_str().unwrap().to_owned();
    let state = became(&name);
    assert_eq!((state["state"].as_str(), state["code"].as_str()), (Some("rejected"), Some("damaged")), "{state}");
    for (bytes, status, code) in [
        (&b"Dear colleague, "[..], 415, "unknown_format"),
        (b"", 415, "unknown_format"),
        (&[&png(3)[..], &vec![0; 4_000_000]].concat(), 413, "too_large"),
    ] {
        let refused = send(bytes);
        assert_eq!(
            (refused.status, refused.json()["error"]["code"].as_str()),
            (status, Some(code)),
            "{}",
            refused.text()
        );
    }
    // Cut off in the middle, and from elsewhere.
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    write!(stream, "POST /api/upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999\r\n\r\n").unwrap();
    stream.write_all(&png(4)).unwrap();
    drop(stream);
    let evil = ask(port, "POST", "/api/upload", &[("Origin", "http://evil.example")], &png(5));
    assert_eq!(evil.status, 403);
    assert_eq!(get(port, "/api/upload/nothing").status, 404);
    wait_for("nothing to be left of those", || names(&place.path("incoming")).is_empty());
    assert_eq!(names(&place.path("done")).len(), 2);
}

#[test]
fn radiographs_are_kept_only_where_that_is_wanted() {
    let Some((place, port)) = place("images = true\nmax_images = 3") else { return };
    let _broker = place.broker();
    let daemon = place.daemon();
    wait_for("the pages", || get(port, "/healthz").status == 200);
    for seed in 0..5 {
        place.drop_file(&format!("{seed}.png"), &png(seed));
        wait_for("its report", || get(port, &format!("/api/reports/{}", seed + 1)).status == 200);
    }
    let id = get(port, "/api/reports/5").json()["report"]["report_id"].as_str().unwrap().to_owned();
    wait_for("its picture", || get(port, &format!("/api/images/{id}")).status == 200);
    assert_eq!(get(port, "/api/reports/5").json()["image"], true);
    let picture = get(port, &format!("/api/images/{id}"));
    assert_eq!(
        (picture.header("content-type"), picture.header("cache-control")),
        (Some("image/png"), Some("no-store"))
    );
    let image = image::load_from_memory(&picture.body).unwrap();
    assert_eq!((image.width(), image.height()), (96, 96), "it is not made larger");
    let evidence = get(port, &format!("/api/evidence/{id}")).json();
    assert_eq!((evidence["rows"].as_u64(), evidence["logits"].as_array().unwrap().len()), (Some(7), 7 * 7 * 4));
    let folder = place.path("state/web");
    wait_for("the oldest to go", || names(&folder).iter().filter(|name| name.ends_with(".png")).count() <= 3);
    assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
    // Told otherwise it deletes them.
    let path = place.path("roentgend.toml");
    fs::write(&path, fs::read_to_string(&path).unwrap().replace("images = true", "images = false")).unwrap();
    daemon.signal("HUP");
    wait_for("the copies to be deleted", || !folder.exists());
    wait_for("other pages", || {
        let about = get(port, "/api/about");
        about.status == 200 && about.json()["images"] == false
    });
    assert_eq!(get(port, &format!("/api/images/{id}")).status, 404);
}

#[test]
fn no_page_names_a_patient() {
    let Some((place, port)) = place("images = true\nupload = true") else { return };
    let mut counts = Planted::default();
    let object = planted::data_set(&mut counts);
    let file = planted::file(&object, EXPLICIT);
    let _broker = place.broker();
    let _daemon = place.daemon();
    wait_for("the pages", || get(port, "/healthz").status == 200);
    let mut events = Events::open(port);
    place.drop_file(&name(1, ".dcm"), &file);
    let mut other = file.clone();
    // Another file of the same patient, sent in.
    other.push(0);
    let told = events.wait("report", |entry| entry["sequence"] == 1);
    let sent = ask(port, "POST", "/api/upload", &[], &other);
    let search = Search::for_the_patient();
    let mut said = vec![("an event", told.to_string()), ("the upload", format!("{}{}", sent.head, sent.text()))];
    let id = told["report"]["report_id"].as_str().unwrap().to_owned();
    wait_for("what became of it", || {
        let state = get(port, &format!("/api/upload/{}", sent.json()["name"].as_str().unwrap()));
        said.push(("its state", state.text()));
        !state.text().contains("waiting")
    });
    for path in
        ["/", "/api/reports", "/api/reports/1", "/api/health", "/api/about", "/api/model", "/metrics", "/healthz"]
    {
        let answer = get(port, path);
        assert_eq!(answer.status, 200, "{path}");
        said.push((path, format!("{}{}", answer.head, answer.text())));
    }
    wait_for("the picture", || get(port, &format!("/api/images/{id}")).status == 200);
    said.push(("the evidence", get(port, &format!("/api/evidence/{id}")).text()));
    let mut hits: Vec<_> = said.iter().flat_map(|(what, text)| search.hits(what, text.as_bytes())).collect();
    // The picture's pixels are the patient's; its file holds nothing else.
    hits.extend(search.hits("a picture", &get(port, &format!("/api/images/{id}")).body));
    hits.extend(search.hits_below(&place.path("state"), &|path| path.ends_with("pseudonym.key")));
    hits.extend(search.hits("the log", place.log().as_bytes()));
    assert_eq!(hits, Vec::<String>::new());
}
