//! The promise: a module imports only from lower floors, or itself. Reads the sources as text; runs none of them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The floor of every top-level module, as `src/lib.rs` lists them.
const FLOORS: [(&str, u32); 18] = [
    ("plain_file", 0),
    ("radiograph", 1),
    ("tensor", 1),
    ("report", 1),
    ("pseudonym", 1),
    ("preprocess", 2),
    ("quant", 2),
    ("kernels", 3),
    ("network", 4),
    ("bundle", 4),
    ("classifier", 5),
    ("assess", 5),
    ("source", 5),
    ("outbox", 5),
    ("sink", 5),
    ("config", 6),
    ("status", 6),
    ("pipeline", 7),
];

/// Modules of one floor that may see each other: floor 1 holds the nouns, and a report holds an origin; a bundle holds
/// a network; evidence is what assess judges; the floor of traits shares none of its modules but the ones named here.
const NEIGHBOURS: [(&str, &str); 4] =
    [("report", "radiograph"), ("radiograph", "pseudonym"), ("bundle", "network"), ("assess", "classifier")];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    for entry in entries {
        let path = entry.unwrap_or_else(|error| panic!("{}: {error}", folder.display())).path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The top-level modules that a line of code names as `crate::module`, one or several in braces.
fn named_modules(line: &str) -> Vec<String> {
    let code = line.split("//").next().unwrap_or("");
    let mut names = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        let candidates: Vec<&str> = match rest.strip_prefix('{') {
            Some(list) => list.split([',', '}']).collect(),
            None => vec![rest],
        };
        for candidate in candidates {
            let name: String =
                candidate.trim().chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
            if !name.is_empty() {
                names.push(name);
            }
        }
    }
    names
}

/// The imports of `module`'s file `text` that break the floors, each as a sentence. Test modules, which stand at a
/// file's end, may look anywhere.
fn breaches(module: &str, text: &str) -> Vec<String> {
    let floors: BTreeMap<&str, u32> = FLOORS.into_iter().collect();
    let Some(&floor) = floors.get(module) else {
        return vec![format!("module `{module}` stands on no floor: add it to src/lib.rs and to this test")];
    };
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if line.starts_with("#[cfg(test)]") {
            break;
        }
        for name in named_modules(line) {
            let allowed = name == module
                || NEIGHBOURS.contains(&(module, name.as_str()))
                || floors.get(name.as_str()).is_some_and(|&other| other < floor);
            if !allowed {
                found.push(format!("line {}: `{module}` (floor {floor}) imports `{name}`", index + 1));
            }
        }
    }
    found
}

#[test]
fn a_module_imports_only_from_lower_floors() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let mut all = Vec::new();
    let mut read = 0;
    for file in files {
        let relative = file.strip_prefix(&root).expect("the walk started at the root");
        if relative.starts_with("bin") || relative == Path::new("lib.rs") {
            continue;
        }
        let first = relative.components().next().expect("a file has a name").as_os_str().to_string_lossy();
        let module = first.trim_end_matches(".rs");
        let text = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        read += 1;
        all.extend(breaches(module, &text).into_iter().map(|breach| format!("{}: {breach}", relative.display())));
    }
    assert!(read >= 15, "only {read} sources were read: is the walk broken?");
    assert!(all.is_empty(), "imports against the floors:\n{}", all.join("\n"));
}

#[test]
fn the_library_imports_no_training_crate() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    for file in files {
        if file.strip_prefix(&root).expect("the walk started at the root").starts_with("bin/roentgen_host") {
            continue;
        }
        let text = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        for forbidden in ["burn::", "indicatif::", "feature = \"host\""] {
            assert!(!text.contains(forbidden), "{}: holds `{forbidden}`", file.display());
        }
    }
}

#[test]
fn a_breach_would_be_found() {
    assert_eq!(breaches("tensor", "use crate::pipeline::run;\n").len(), 1);
    assert_eq!(breaches("radiograph", "use crate::{pseudonym::Key, sink, outbox};\n").len(), 2);
    assert_eq!(breaches("source", "let x = crate::sink::mqtt::thing();\n").len(), 1);
    assert!(breaches("pipeline", "use crate::sink::Sink;\n// crate::nothing\n").is_empty());
    assert!(breaches("sink", "#[cfg(test)]\nuse crate::pipeline::run;\n").is_empty());
}
