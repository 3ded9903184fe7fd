//! The promise: the Grafana dashboards in `systemd/examples` are of the shape that Grafana publishes, and lie on their page as
//! a person would lay them. Grafana's own types and the TypeScript compiler; Grafana itself is in no package archive that these
//! tests install from, so that nothing is imported into one. What the panels ask for is asked in `prometheus.rs` and
//! `telegraf.rs`.

#[path = "support/dashboards.rs"]
mod dashboards;
mod support;

use dashboards::{dashboards, grafana, root};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

const ALL: [&str; 2] = ["prometheus.json", "sql.json"];

/// What the compiler complains of.
fn complaints(packages: &Path, dashboard: &Value) -> String {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), dashboard.to_string()).unwrap();
    let mut command = Command::new("node");
    command.arg(root().join("tests/dashboards/grafana.cjs")).arg(file.path());
    let output = command.env("ROENTGEN_DASHBOARDS", packages).stdin(Stdio::null()).output().expect("node");
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.success(), said.is_empty(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    said
}

#[test]
fn the_dashboards_are_of_grafanas_own_types() {
    let Some(packages) = dashboards() else { return };
    for name in ALL {
        assert_eq!(complaints(&packages, &grafana(name)), "", "{name}");
    }
    let spoil = |path: &str, value: Value| {
        let mut dashboard = grafana(ALL[0]);
        *dashboard.pointer_mut(path).unwrap_or_else(|| panic!("{path} is gone")) = value;
        complaints(&packages, &dashboard)
    };
    assert!(spoil("/schemaVersion", json!("39")).contains("schemaVersion"));
    assert!(spoil("/panels/1/gridPos", json!({ "x": 0, "y": 0 })).contains("gridPos"));
    assert!(spoil("/panels/1/options/colorMode", json!("rainbow")).contains("rainbow"));
}

#[test]
fn every_panel_has_its_place_its_name_and_its_source_and_the_notice_stands_on_top() {
    for name in ALL {
        let dashboard = grafana(name);
        let panels = dashboard["panels"].as_array().unwrap();
        assert!(panels[0]["options"]["content"].as_str().unwrap().contains("screens, it does not diagnose"), "{name}");
        assert_eq!((&panels[0]["gridPos"]["x"], &panels[0]["gridPos"]["y"]), (&json!(0), &json!(0)));
        let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
        assert_eq!(ids.len(), panels.len(), "{name}: ids are shared");
        let mut taken = BTreeSet::new();
        for panel in panels {
            let [x, y, w, h] = ["x", "y", "w", "h"].map(|key| panel["gridPos"][key].as_u64().unwrap());
            assert!(x + w <= 24 && w > 0 && h > 0, "{name}: {panel}");
            for cell in (y..y + h).flat_map(|row| (x..x + w).map(move |column| (column, row))) {
                assert!(taken.insert(cell), "{name}: {} lies over another", panel["title"]);
            }
            assert!(panel["type"] == "text" || !panel["title"].as_str().unwrap().is_empty(), "{name}: {panel}");
            for target in panel["targets"].as_array().into_iter().flatten() {
                assert_eq!(target["datasource"]["uid"], "${datasource}", "{name}: {panel}");
            }
        }
    }
}
