//! The promise: a module imports only from lower floors, or itself. Reads the sources as text; runs none of them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The floor of every top-level module, as `src/lib.rs` lists them.
const FLOORS: [(&str, u32); 24] = [
    ("named_file", 0),
    ("plain_file", 0),
    ("process", 0),
    ("reload", 0),
    ("workers", 0),
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
    ("gallery", 6),
    ("status", 6),
    ("pipeline", 7),
    ("web", 7),
];

/// Modules of one floor that may see each other: floor 1 holds the nouns, and a report holds an origin; a bundle holds
/// a network; evidence is what assess judges; the floor of traits shares none of its modules but the ones named here.
const NEIGHBOURS: [(&str, &str); 5] = [
    ("named_file", "plain_file"),
    ("report", "radiograph"),
    ("radiograph", "pseudonym"),
    ("bundle", "network"),
    ("assess", "classifier"),
];

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

/// The top-level modules that `code` names as `crate::module`, one or several in braces, over however many lines.
fn named_modules(code: &str) -> Vec<String> {
    let mut names = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = code[at + "crate::".len()..].trim_start();
        let Some(list) = rest.strip_prefix('{') else {
            names.push(first_name(rest));
            continue;
        };
        // The first name of every item at the list's own depth: `{a::b, c::{d, e}}` names a and c.
        let (mut depth, mut item) = (0, String::new());
        for letter in list.chars() {
            match letter {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => names.push(first_name(&std::mem::take(&mut item))),
                _ => item.push(letter),
            }
        }
        names.push(first_name(&item));
    }
    names.retain(|name| !name.is_empty());
    names
}

/// The identifier that `text` begins with.
fn first_name(text: &str) -> String {
    text.trim_start().chars().take_while(|letter| letter.is_ascii_alphanumeric() || *letter == '_').collect()
}

/// The code of a file without its comments and without the test module that ends it. One whose body is another file
/// (`mod tests;`) ends nothing.
fn code_only(text: &str) -> String {
    let with_body = |at: &usize| text[at + 1..].lines().nth(1).is_some_and(|line| !line.trim_end().ends_with(';'));
    let end = text.match_indices("\n#[cfg(test)]\nmod ").map(|(at, _)| at).find(with_body);
    let before_tests = &text[..end.unwrap_or(text.len())];
    before_tests.lines().map(|line| line.split("//").next().unwrap_or("")).collect::<Vec<_>>().join("\n")
}

/// How many modules a file under `src` stands in, itself counted: as many times `super` in it is the crate.
fn depth(relative: &Path) -> usize {
    relative.components().count() - usize::from(relative.ends_with("mod.rs"))
}

/// The imports of `module`'s file `text`, `depth` modules deep, that break the floors, each as a sentence. Test modules,
/// which stand at a file's end, may look anywhere.
fn breaches(module: &str, depth: usize, text: &str) -> Vec<String> {
    let floors: BTreeMap<&str, u32> = FLOORS.into_iter().collect();
    let Some(&floor) = floors.get(module) else {
        return vec![format!("module `{module}` stands on no floor: add it to src/lib.rs and to this test")];
    };
    let code = code_only(text);
    let mut names = named_modules(&code.replace(&"super::".repeat(depth), "crate::"));
    names.sort_unstable();
    names.dedup();
    let allowed = |name: &str| {
        name == module || NEIGHBOURS.contains(&(module, name)) || floors.get(name).is_some_and(|&other| other < floor)
    };
    names
        .into_iter()
        .filter(|name| !allowed(name))
        .map(|name| format!("`{module}` (floor {floor}) imports `{name}`"))
        .collect()
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
        let found = breaches(module, depth(relative), &text);
        all.extend(found.into_iter().map(|breach| format!("{}: {breach}", relative.display())));
    }
    assert!(read >= 100, "only {read} sources were read: is the walk broken?");
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
    let count = |module, text| breaches(module, 1, text).len();
    assert_eq!(count("tensor", "use crate::pipeline::run;\n"), 1);
    assert_eq!(count("radiograph", "use crate::{pseudonym::Key, sink, outbox};\n"), 2);
    assert_eq!(count("radiograph", "use crate::{\n    pseudonym::{Key, sink},\n    outbox,\n};\n"), 1);
    assert_eq!(count("source", "let x = crate::sink::mqtt::thing();\n"), 1);
    assert_eq!(count("outbox", "use super::sink;\n"), 1);
    assert_eq!(breaches("sink", 2, "use super::Sink;\n").len(), 0);
    assert_eq!(breaches("kernels", 2, "use super::super::pipeline::run;\n").len(), 1);
    assert_eq!(breaches("kernels", 3, "use super::super::direct::Direct;\n").len(), 0);
    assert_eq!(count("sink", "#[cfg(test)]\nuse crate::pipeline::run;\n"), 1);
    assert_eq!(count("sink", "fn f() {}\n#[cfg(test)]\nmod tests {\n    use crate::pipeline::run;\n}\n"), 0);
    assert_eq!(count("kernels", "\n#[cfg(test)]\nmod conformance;\nuse crate::pipeline::run;\n"), 1);
    assert_eq!(
        count("kernels", "\n#[cfg(test)]\nmod a;\n#[cfg(test)]\nmod b {\n    use crate::pipeline::run;\n}\n"),
        0
    );
    assert_eq!(count("pipeline", "use crate::sink::Sink;\n// crate::nothing\n"), 0);
    let depths =
        ["tensor.rs", "kernels/mod.rs", "kernels/plane.rs", "kernels/direct/mod.rs"].map(|file| depth(Path::new(file)));
    assert_eq!(depths, [1, 1, 2, 2]);
}
