//! The promise: the documentation names nothing that does not exist, and what it tells a person to type on a box works. Blocks
//! marked `sh run` are run here, on a box with a broker, a web page and a DICOM door; those marked `sh box` under a real systemd
//! (`tests/nspawn`); of all others programs, options, units, topics, files and keys of the configuration are looked up.

#[path = "support/pages.rs"]
mod pages;
mod support;

use pages::{Block, commands};
use roentgen::config::{Config, DEFAULT_TOML};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use support::{Process, free_port, mosquitto, names, png, roentgend, start_mosquitto, tiny_bundle, user, wait_for};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The programs of others that the documentation may name.
const OTHERS: &[&str] = &[
    "adduser",
    "apt",
    "base64",
    "cat",
    "cp",
    "createdb",
    "curl",
    "df",
    "du",
    "echo",
    "echoscu",
    "edgetpu_compiler",
    "false",
    "grep",
    "head",
    "install",
    "ls",
    "mkdir",
    "npm",
    "promtool",
    "psql",
    "scp",
    "sh",
    "ss",
    "systemd-analyze",
    "tar",
    "telegraf",
    "timedatectl",
    "tee",
    "true",
];

/// A box as the package lays it out, in a folder of the test.
struct Bed {
    root: tempfile::TempDir,
    ports: BTreeMap<&'static str, u16>,
    _broker: Process,
    _daemon: Process,
}

impl Bed {
    fn start() -> Option<Self> {
        let program = mosquitto()?;
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        for folder in ["bin", "work", "etc", "var/incoming", "tmp"] {
            fs::create_dir_all(path(folder)).unwrap();
        }
        symlink(env!("CARGO_BIN_EXE_roentgend"), path("bin/roentgend")).unwrap();
        let sudo = "#!/bin/sh\n# Who runs the tests is who may.\n[ \"$1\" = -u ] && shift 2\nexec \"$@\"\n";
        fs::write(path("bin/sudo"), sudo).unwrap();
        fs::set_permissions(path("bin/sudo"), fs::Permissions::from_mode(0o755)).unwrap();
        let ports: BTreeMap<_, _> = ["1883", "8080", "11112"].map(|usual| (usual, free_port())).into();
        let broker = format!("listener {} 127.0.0.1\nallow_anonymous true\nuser {}\n", ports["1883"], user());
        fs::write(path("mosquitto.conf"), broker).unwrap();
        let config = format!(
            "bundle = {:?}\nstate_dir = {:?}\n[bundles]\nallow_unsigned = true\n\
             [source.folder]\n# Where radiographs are dropped.\nincoming = {:?}\nsettle_ms = 500\npoll_ms = 100\n\
             [source.dicom]\nlisten = \"127.0.0.1:{}\"\nallowed_peers = [\"*\"]\n\
             [mqtt]\nurl = \"mqtt://127.0.0.1:{}\"\n[web]\nlisten = \"127.0.0.1:{}\"\n",
            tiny_bundle(root.path()),
            path("var"),
            path("var/incoming"),
            ports["11112"],
            ports["1883"],
            ports["8080"],
        );
        fs::write(path("etc/roentgend.toml"), config).unwrap();
        let broker = start_mosquitto(&program, &path("mosquitto.conf"), ports["1883"]);
        let log = fs::File::create(path("log")).unwrap();
        let daemon = Process::spawn(roentgend().args(["run", "--config"]).arg(path("etc/roentgend.toml")).stderr(log));
        fs::write(path("var/incoming/one.png"), png(1)).unwrap();
        fs::write(path("var/incoming/text.png"), "no radiograph").unwrap();
        wait_for("a report and a refusal", || {
            names(&path("var/done")) == ["one.png"] && names(&path("var/rejected")).len() == 2
        });
        let status = path("var/status.json");
        wait_for("its word about itself", || status.exists());
        Some(Self { root, ports, _broker: broker, _daemon: daemon })
    }

    /// Runs a block as it stands, but for where this box has its folders and ports.
    fn run(&self, block: &Block) -> Result<(), String> {
        let path = |name: &str| self.root.path().join(name).display().to_string();
        let mut text = block.text.replace("/etc/roentgen", &path("etc")).replace("/var/lib/roentgen", &path("var"));
        let examples = root().join("systemd/examples").display().to_string();
        text = text.replace("/usr/share/doc/roentgen/examples", &examples);
        text = text.replace("/tmp/maps", &path("tmp/maps"));
        for (usual, port) in &self.ports {
            text = text.replace(usual, &port.to_string());
        }
        let others = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new("bash");
        command.args(["-eu", "-o", "pipefail", "-c", &text]).current_dir(self.root.path().join("work"));
        command.env("PATH", format!("{}:{others}:/usr/sbin:/sbin", path("bin"))).env("HOME", path("work"));
        let done = command.stdin(Stdio::null()).output().expect("bash");
        if done.status.success() {
            return Ok(());
        }
        let said = [done.stdout, done.stderr].map(|said| String::from_utf8_lossy(&said).into_owned());
        Err(format!("{} ended with {}:\n{text}\n{}{}", block.place, done.status, said[0], said[1]))
    }
}

#[test]
fn what_a_person_is_told_to_type_works() {
    let Some(the_box) = Bed::start() else { return };
    let pages = pages::all(root());
    let blocks: Vec<&Block> =
        pages.iter().flat_map(|page| &page.blocks).filter(|block| block.is("sh") && block.says("run")).collect();
    assert!(blocks.len() >= 10, "only {} blocks are run", blocks.len());
    let failed: Vec<String> = blocks.iter().filter_map(|block| the_box.run(block).err()).collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    let wrong = Block { place: "here".into(), words: Vec::new(), text: "roentgend status --nonsense | cat\n".into() };
    assert!(the_box.run(&wrong).is_err(), "a block that fails is seen");
}

/// What `--help` says of a command, without its options' values.
fn help(program: &Path, subcommands: &[&str]) -> Option<String> {
    let mut command = Command::new(program);
    let done = command.args(subcommands).arg("--help").stdin(Stdio::null()).output().expect("our program");
    done.status.success().then(|| String::from_utf8(done.stdout).expect("UTF-8"))
}

/// Whether a command of ours exists with these options.
fn check_ours(program: &Path, words: &[String]) -> Result<(), String> {
    let mut subcommands: Vec<&str> = Vec::new();
    let mut said = help(program, &[]).ok_or("no --help")?;
    for word in &words[1..] {
        let listed =
            said.lines().any(|line| line.strip_prefix("  ").is_some_and(|line| line.split(' ').next() == Some(word)));
        if word.starts_with('-') || !listed {
            break;
        }
        subcommands.push(word);
        said = help(program, &subcommands).ok_or_else(|| format!("{word} is no command"))?;
    }
    // Where there are more commands below, one of them must follow, or options alone.
    let next = words[1 + subcommands.len()..].first().filter(|word| !word.starts_with('-'));
    if let Some(unknown) = next.filter(|_| said.contains("\nCommands:")) {
        return Err(format!("{unknown} is no command"));
    }
    let options: BTreeSet<&str> = said.split(|c: char| !c.is_ascii_alphanumeric() && c != '-').collect();
    match words
        .iter()
        .find(|word| word.starts_with('-') && !options.contains(word.split('=').next().unwrap_or_default()))
    {
        Some(unknown) => Err(format!("{} has no {unknown}", words[..=subcommands.len()].join(" "))),
        None => Ok(()),
    }
}

/// Whether what a command names exists.
fn check(words: &[String]) -> Result<(), String> {
    let mut words = words;
    if words[0] == "sudo" {
        words = &words[if words.get(1).is_some_and(|word| word == "-u") { 3 } else { 1 }..];
    }
    let Some(program) = words.first() else { return Err("nothing is run".into()) };
    let units = |word: &String| ["roentgend", "mosquitto"].contains(&word.trim_end_matches(".service"));
    match program.as_str() {
        "roentgend" => check_ours(Path::new(env!("CARGO_BIN_EXE_roentgend")), words),
        "roentgen-host" => {
            option_env!("CARGO_BIN_EXE_roentgen-host").map_or(Ok(()), |host| check_ours(Path::new(host), words))
        }
        "systemctl" if words.len() > 2 => words[2..].iter().any(units).then_some(()).ok_or("no unit of ours".into()),
        "systemctl" => Ok(()),
        "journalctl" => {
            let source: String = sources();
            let fields = words.iter().filter_map(|word| word.split_once('=')).map(|(field, _)| field);
            let unknown = fields.filter(|field| field.starts_with("ROENTGEN_")).find(|field| !source.contains(*field));
            unknown.map_or(Ok(()), |field| Err(format!("no line of the journal has {field}")))
        }
        "mosquitto_sub" | "mosquitto_pub" => {
            let topic = words.iter().skip_while(|word| *word != "-t").nth(1).ok_or("no topic")?;
            let leaf = topic.split('/').nth(2).unwrap_or("#");
            let known = ["report", "status", "telemetry", "result", "command", "#"].contains(&leaf);
            (topic.starts_with("roentgen/") && known).then_some(()).ok_or(format!("{topic} is no topic of ours"))
        }
        "cargo" => {
            let manifest: toml::Value =
                toml::from_str(&fs::read_to_string(root().join("Cargo.toml")).unwrap()).unwrap();
            let features = words.iter().skip_while(|word| *word != "--features").nth(1);
            let unknown =
                features.and_then(|list| list.split(',').find(|name| manifest["features"].get(name).is_none()));
            unknown.map_or(Ok(()), |name| Err(format!("there is no feature {name}")))
        }
        path if path.contains('/') => {
            let file = root().join(path.trim_start_matches("./"));
            let mode = fs::metadata(&file).map_err(|error| format!("{path}: {error}"))?.permissions().mode();
            (mode & 0o111 != 0).then_some(()).ok_or(format!("{path} cannot be run"))
        }
        other => OTHERS
            .contains(&other)
            .then_some(())
            .ok_or(format!("{other} is no program that the documentation may name")),
    }
}

/// All of the program's own source.
fn sources() -> String {
    let mut text = String::new();
    let mut folders = vec![root().join("src")];
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                text += &fs::read_to_string(path).unwrap();
            }
        }
    }
    text
}

#[test]
fn no_command_names_what_does_not_exist() {
    let mut problems = Vec::new();
    for block in pages::all(root()).iter().flat_map(|page| &page.blocks).filter(|block| block.is("sh")) {
        for words in commands(&block.text) {
            if let Err(problem) = check(&words) {
                problems.push(format!("{}: {}: {problem}", block.place, words.join(" ")));
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    for wrong in [
        "roentgend nonsense",
        "roentgend status --nonsense",
        "roentgend bundle nonsense",
        "tests/nonsense",
        "nonsense",
        "mosquitto_sub -t other/#",
        "systemctl status nonsense",
        "cargo build --features nonsense",
        "journalctl ROENTGEN_NONSENSE=1",
    ] {
        assert!(check(&commands(wrong)[0]).is_err(), "{wrong} is found to be right");
    }
}

/// The sections of the configuration with their keys, those that are commented out too.
fn sections() -> BTreeMap<String, BTreeSet<String>> {
    let mut sections = BTreeMap::<String, BTreeSet<String>>::new();
    let mut current = String::new();
    for line in DEFAULT_TOML.lines().map(|line| line.trim_start_matches("# ")) {
        let is_name = |text: &str| text.bytes().all(|b| b.is_ascii_lowercase() || b"._".contains(&b));
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')).filter(|name| is_name(name))
        {
            current = name.to_owned();
            sections.entry(current.clone()).or_default();
        } else if let Some((key, _)) = line.split_once(" = ").filter(|(key, _)| is_name(key)) {
            sections.entry(current.clone()).or_default().insert(key.to_owned());
        }
    }
    sections
}

/// What is wrong with something that stands between backquotes; `None` where nothing is, or it is nothing that is known here.
fn check_span(span: &str, sections: &BTreeMap<String, BTreeSet<String>>) -> Option<String> {
    let is_name = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_lowercase() || b"._".contains(&b));
    let named = span.strip_prefix('[').and_then(|rest| rest.split_once(']')).filter(|(section, _)| is_name(section));
    if let Some((section, rest)) = named {
        let Some(keys) = sections.get(section) else { return Some(format!("there is no section [{section}]")) };
        let key = rest.trim().split([' ', '=']).next().unwrap_or_default();
        return (!key.is_empty() && !keys.contains(key)).then(|| format!("[{section}] has no {key}"));
    }
    let dotted = span.split([' ', '=']).next().and_then(|name| name.rsplit_once('.'));
    // A file's name looks like a key.
    let dotted = dotted.filter(|(section, key)| is_name(section) && !["html", "json", "toml", "sqlite3"].contains(key));
    if let Some((keys, (section, key))) = dotted.and_then(|dotted| Some((sections.get(dotted.0)?, dotted))) {
        return (!keys.contains(key)).then(|| format!("{section} has no {key}"));
    }
    let first = span.split(' ').next().unwrap_or_default();
    let ours = ["src/", "tests/", "cross/", "models/", "systemd/", "examples/"];
    let is_pattern = first.contains(['*', '{', '<', '…']) || first.contains("my-model");
    if !ours.iter().any(|folder| first.starts_with(folder)) || is_pattern {
        return None;
    }
    let path = if first.starts_with("examples/") { Path::new("systemd").join(first) } else { PathBuf::from(first) };
    (!root().join(&path).exists()).then(|| format!("there is no {}", path.display()))
}

#[test]
fn files_keys_and_links_that_are_named_exist() {
    let (sections, mut problems) = (sections(), Vec::new());
    assert!(sections.len() > 10 && sections["mqtt"].contains("url"), "{sections:?}");
    for page in pages::all(root()) {
        let spans = page.spans();
        problems.extend(
            spans.iter().filter_map(|span| Some(format!("{}: `{span}`: {}", page.name, check_span(span, &sections)?))),
        );
        for link in page.links().into_iter().filter(|link| !link.contains("://")) {
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let path = if file.is_empty() { root().join(&page.name) } else { page.folder.join(file) };
            if !path.exists() {
                problems.push(format!("{}: {link} leads nowhere", page.name));
            } else if !anchor.is_empty()
                && !pages::page(root(), &path.canonicalize().unwrap()).anchors().contains(&anchor.into())
            {
                problems.push(format!("{}: {link}: no such heading", page.name));
            }
        }
        for block in page.blocks.iter().filter(|block| block.is("toml")) {
            if let Err(error) = Config::parse(&block.text, Path::new(&block.place)) {
                problems.push(error.to_string());
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    for wrong in ["[nonsense]", "[mqtt] nonsense", "mqtt.nonsense", "src/nonsense.rs", "examples/nonsense.conf"] {
        assert!(check_span(wrong, &sections).is_some(), "{wrong} is found to be right");
    }
}

#[test]
fn every_code_that_a_person_may_meet_is_explained() {
    let read = |path: &str| fs::read_to_string(root().join(path)).unwrap();
    let (troubles, radiographers) = (read("src/doc/troubleshooting.md"), read("src/doc/radiographers.md"));
    let source = sources();
    let problems = ["Problem::failing(", "Problem::warning("].into_iter().flat_map(|call| source.split(call).skip(1));
    let codes: BTreeSet<&str> =
        problems.filter_map(|rest| rest.trim_start().strip_prefix('"')?.split('"').next()).collect();
    assert!(codes.len() > 15, "{codes:?}");
    let missing: Vec<_> = codes.iter().filter(|code| !troubles.contains(&format!("`{code}`"))).collect();
    assert!(missing.is_empty(), "src/doc/troubleshooting.md does not explain {missing:?}");
    // The README's lists are the closed ones.
    let readme = read("README.md");
    for (begins, least) in [("Reason codes of abstentions", 14), ("Codes of rejected files", 13)] {
        let table = readme.split(begins).nth(1).unwrap_or_default();
        let rows = table.lines().skip_while(|line| !line.starts_with("| `")).take_while(|line| line.starts_with("| `"));
        let codes: Vec<&str> =
            rows.flat_map(|row| row.split('|').nth(1).unwrap().split('`').skip(1).step_by(2)).collect();
        assert!(codes.len() >= least, "{codes:?}");
        let missing: Vec<_> = codes.iter().filter(|code| !radiographers.contains(&format!("`{code}`"))).collect();
        assert!(missing.is_empty(), "src/doc/radiographers.md does not explain {missing:?}");
    }
}
