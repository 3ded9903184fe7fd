//! Commands as strangers may send them.

use super::*;

fn refused(name: &str, payload: &[u8]) -> String {
    parse(name, payload).expect_err("it must be refused").reason
}

#[test]
fn commands_are_read_with_their_fields() {
    for payload in [&b"{}"[..], b" {\"id\": \"\"}\n"] {
        let request = Request { id: String::new(), command: Command::Telemetry };
        assert_eq!(parse("telemetry", payload), Ok(request));
    }
    let request = Request { id: "7".into(), command: Command::Reload };
    assert_eq!(parse("reload", br#"{"id":"7"}"#), Ok(request));
    let request = parse("bundle/install", br#"{"id":"a-1","file":"cxr-1.2.0+b.tar"}"#).unwrap();
    let wanted = Wanted { file: Some("cxr-1.2.0+b.tar".into()), manifest: None };
    assert_eq!(request.command, Command::Install(wanted));
    let only = parse("bundle/install", b"{}").unwrap().command;
    assert_eq!(only, Command::Install(Wanted { file: None, manifest: None }));
    let request = parse("bundle/install", br#"{"manifest":"m","signature":"s"}"#).unwrap();
    let manifest = Some(SignedManifest { manifest: "m".into(), signature: "s".into() });
    assert_eq!(request.command, Command::Install(Wanted { file: None, manifest }));
    let version = parse("bundle/activate", br#"{"version":"1.2.0"}"#).unwrap().command;
    assert_eq!(version, Command::Activate("1.2.0".into()));
    let id = "0123456789abcdef".repeat(2);
    let again = parse("reclassify", format!("{{\"report_id\":\"{id}\"}}").as_bytes()).unwrap().command;
    assert_eq!(again, Command::Reclassify(id));
    for name in [Name::Rollback, Name::Capture, Name::Reference] {
        assert_eq!(parse(name.as_str(), b"{}").unwrap().command.name(), name);
    }
}

#[test]
fn an_answer_is_short_and_one_line_whatever_was_sent() {
    let reason = refused("telemetry", br#"{"a\nerror: all is lost": 1}"#);
    assert!(reason.contains("all is lost") && !reason.contains('\n'), "{reason}");
    assert!(refused("telemetry", format!("{{\"{}\": 1}}", "a".repeat(60_000)).as_bytes()).len() < 300);
}

#[test]
fn what_is_strange_is_refused_and_says_what_to_send() {
    assert!(refused("bundle/erase", b"{}").contains("bundle/install"));
    assert!(refused("", b"{}").contains("no such command"));
    assert!(refused("telemetry", br#"{"ids":"7"}"#).contains("ids"));
    assert!(refused("telemetry", br#"{"id":7}"#).contains("string"));
    assert!(refused("telemetry", br#"{"id":"1","id":"2"}"#).contains("duplicate"));
    assert!(refused("reload", b"").contains("JSON object"), "what clears a kept message is no command");
    assert!(refused("telemetry", b"now").contains("JSON object"));
    assert!(refused("telemetry", b"[]").contains("JSON object"));
    assert!(refused("telemetry", br#"{"file":"a"}"#).contains("no other field"));
    assert!(refused("telemetry", br#"{"id":"a b"}"#).contains("id"));
    assert!(refused("telemetry", format!("{{\"id\":\"{}\"}}", "a".repeat(65)).as_bytes()).contains("64"));
    assert!(refused("telemetry", &vec![b' '; MAX_PAYLOAD + 1]).contains("65536"));
    assert!(refused("bundle/install", br#"{"file":"a","signature":"s"}"#).contains("together"));
    assert!(refused("bundle/install", br#"{"version":"1.0.0"}"#).contains("file, manifest, signature"));
    for version in ["", "../1", "1/2", "1\\u0000"] {
        assert!(refused("bundle/activate", format!("{{\"version\":\"{version}\"}}").as_bytes()).contains("version"));
    }
    for id in ["", "0123", "../../../../../../../../etc/pass", "0123456789ABCDEF0123456789ABCDEF"] {
        assert!(refused("reclassify", format!("{{\"report_id\":\"{id}\"}}").as_bytes()).contains("32"), "{id}");
    }
    for file in ["../a", "a/b", ".hidden", "", "a\\u0000b", "http://host/a", "-rf /", "a\\nb"] {
        let payload = format!("{{\"id\":\"9\",\"file\":\"{file}\"}}");
        let error = parse("bundle/install", payload.as_bytes()).expect_err(file);
        assert!(error.reason.contains("no path") && error.id == "9", "{error:?}");
    }
}

#[test]
fn names_stand_in_the_configuration_as_in_topics() {
    for name in Name::ALL {
        assert_eq!(serde_json::to_value(name).unwrap(), name.as_str());
    }
    for stage in [Stage::Accepted, Stage::Checking, Stage::Done, Stage::Installed, Stage::Rejected, Stage::Failed] {
        assert_eq!(serde_json::to_value(stage).unwrap(), stage.as_str());
    }
}
