//! The documentation as tests read it: pages, their blocks of code, the words of shell commands, headings and links. Not a test.

use std::fs;
use std::path::{Path, PathBuf};

/// A page of Markdown.
pub(crate) struct Page {
    /// Its path below the root, for messages.
    pub(crate) name: String,
    /// The folder that its links start from.
    pub(crate) folder: PathBuf,
    /// Its text without blocks of code.
    pub(crate) prose: String,
    /// Its blocks of code.
    pub(crate) blocks: Vec<Block>,
}

/// A block of code.
pub(crate) struct Block {
    /// Page and line, for messages.
    pub(crate) place: String,
    /// What follows the fence: the language, then what tests do with it.
    pub(crate) words: Vec<String>,
    /// What stands in it.
    pub(crate) text: String,
}

impl Block {
    /// Whether it is of this language.
    pub(crate) fn is(&self, language: &str) -> bool {
        self.words.first().is_some_and(|word| word == language)
    }

    /// Whether it is to be used so.
    pub(crate) fn says(&self, word: &str) -> bool {
        self.words[1..].iter().any(|found| found == word)
    }
}

/// The entrance and every page of the documentation.
pub(crate) fn all(root: &Path) -> Vec<Page> {
    let mut files = vec![root.join("README.md")];
    let folder = root.join("src/doc");
    let found = fs::read_dir(&folder).expect("documentation").map(|entry| entry.expect("listed").path());
    files.extend(found.filter(|path| path.extension().is_some_and(|extension| extension == "md")));
    files.sort();
    files.iter().map(|path| page(root, path)).collect()
}

/// One page, taken apart.
pub(crate) fn page(root: &Path, path: &Path) -> Page {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let name = path.strip_prefix(root).expect("below the root").display().to_string();
    let (mut prose, mut blocks, mut open) = (String::new(), Vec::new(), None::<Block>);
    for (i, line) in text.lines().enumerate() {
        match (line.trim_start().strip_prefix("```"), &mut open) {
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some(words), None) => {
                let words = words.split_whitespace().map(str::to_owned).collect();
                open = Some(Block { place: format!("{name}:{}", i + 1), words, text: String::new() });
            }
            (None, Some(block)) => block.text += &format!("{line}\n"),
            (None, None) => prose += &format!("{line}\n"),
        }
    }
    assert!(open.is_none(), "{name}: a block of code is not closed");
    Page { name, folder: path.parent().expect("a folder").to_owned(), prose, blocks }
}

impl Page {
    /// What stands between single backquotes.
    pub(crate) fn spans(&self) -> Vec<String> {
        let parts = self.prose.split('`').skip(1).step_by(2);
        parts.map(|span| span.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
    }

    /// Where its links lead.
    pub(crate) fn links(&self) -> Vec<&str> {
        let parts = self.prose.split("](").skip(1);
        parts.filter_map(|part| part.split(')').next()).collect()
    }

    /// The names by which links reach its headings.
    pub(crate) fn anchors(&self) -> Vec<String> {
        let headings = self.prose.lines().filter(|line| line.starts_with('#'));
        let slug = |heading: &str| {
            let kept = heading.trim_start_matches('#').trim().to_lowercase();
            let kept = kept.chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
            kept.map(|c| if c == ' ' { '-' } else { c }).collect()
        };
        headings.map(slug).collect()
    }
}

/// The commands of a shell block, as words; without comments, redirections, assignments and the brackets of usage lines.
pub(crate) fn commands(text: &str) -> Vec<Vec<String>> {
    let (mut commands, mut words, mut word, mut quote) = (Vec::new(), Vec::new(), String::new(), None);
    let mut text = text.replace("\\\n", " ").chars().collect::<Vec<_>>().into_iter().peekable();
    let end_word = |word: &mut String, words: &mut Vec<String>| {
        if !word.is_empty() {
            words.push(std::mem::take(word));
        }
    };
    while let Some(c) = text.next() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some(_), c) => word.push(c),
            (None, '\'' | '"') => quote = Some(c),
            (None, '#') if word.is_empty() => while text.next_if(|&c| c != '\n').is_some() {},
            (None, '[' | ']') => {}
            (None, '\n' | ';' | '|' | '&') => {
                end_word(&mut word, &mut words);
                if !words.is_empty() {
                    commands.push(std::mem::take(&mut words));
                }
            }
            (None, c) if c.is_whitespace() => end_word(&mut word, &mut words),
            (None, c) => word.push(c),
        }
    }
    end_word(&mut word, &mut words);
    commands.push(words);
    commands.retain_mut(|words| {
        if let Some(at) = words.iter().position(|word| word.starts_with('>')) {
            words.truncate(at);
        }
        let assigned = words
            .iter()
            .take_while(|word| {
                word.split_once('=').is_some_and(|(name, _)| name.bytes().all(|b| b.is_ascii_uppercase() || b == b'_'))
            })
            .count();
        words.drain(..assigned);
        !words.is_empty()
    });
    commands
}
