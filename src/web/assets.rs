//! The dashboard's own files, compiled in. A translation is one more file beside `en.json` and one more line in
//! [`LANGUAGES`]; the pages hold no words of their own.

use super::reply::{self, HTML, Reply};
use crate::bundle::sha256_hex;
use hyper::header::{CACHE_CONTROL, ETAG, HeaderMap, IF_NONE_MATCH};
use hyper::{Response, StatusCode};
use serde_json::{Map, Value};
use std::sync::LazyLock;

/// Every language with its words; the first is that of whoever asks for none of them.
const LANGUAGES: [(&str, &str); 1] = [("en", include_str!("assets/en.json"))];

const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// Name below `/assets/`, kind, content.
const FILES: [(&str, &str, &[u8]); 12] = [
    ("style.css", CSS, include_bytes!("assets/style.css")),
    ("theme.js", SCRIPT, include_bytes!("assets/theme.js")),
    ("main.js", SCRIPT, include_bytes!("assets/main.js")),
    ("dom.js", SCRIPT, include_bytes!("assets/dom.js")),
    ("words.js", SCRIPT, include_bytes!("assets/words.js")),
    ("list.js", SCRIPT, include_bytes!("assets/list.js")),
    ("detail.js", SCRIPT, include_bytes!("assets/detail.js")),
    ("evidence.js", SCRIPT, include_bytes!("assets/evidence.js")),
    ("model.js", SCRIPT, include_bytes!("assets/model.js")),
    ("box.js", SCRIPT, include_bytes!("assets/box.js")),
    ("upload.js", SCRIPT, include_bytes!("assets/upload.js")),
    ("icon.svg", "image/svg+xml", include_bytes!("assets/icon.svg")),
];

/// Changes whenever any of the files does.
static TAG: LazyLock<String> = LazyLock::new(|| {
    let hashes: String = FILES.iter().map(|(_, _, bytes)| sha256_hex(bytes)).collect();
    format!("\"{}\"", &sha256_hex(hashes.as_bytes())[..16])
});

/// A page with its words in, in every language.
struct Page(Vec<(&'static str, String)>);

static INDEX: LazyLock<Page> = LazyLock::new(|| Page::of(include_str!("assets/index.html")));
static LOGIN: LazyLock<Page> = LazyLock::new(|| Page::of(include_str!("assets/login.html")));

impl Page {
    fn of(template: &str) -> Self {
        Self(LANGUAGES.iter().map(|(language, words)| (*language, filled(template, language, words))).collect())
    }

    /// In the first of the languages that a browser asks for and that is there.
    fn for_reader(&self, headers: &HeaderMap) -> &str {
        let asked = headers.get("accept-language").and_then(|value| value.to_str().ok()).unwrap_or_default();
        let asked = asked.split(',').filter_map(|part| part.split([';', '-']).next());
        let found = asked.into_iter().find_map(|asked| self.0.iter().find(|(language, _)| *language == asked.trim()));
        found.or(self.0.first()).map_or("", |(_, page)| page)
    }
}

/// What stands in a page for what the dashboard can do here, which is known when somebody asks for it.
const ABOUT: &str = "{{about}}";

/// Puts the words in the places of `{{…}}`; `{{words}}` stands for all of them, for the scripts, and `{{about}}` stays.
fn filled(template: &str, language: &str, words: &str) -> String {
    let read: Map<String, Value> = serde_json::from_str(words).unwrap_or_default();
    let all = in_script(&Value::from(read.clone()));
    let mut page = String::new();
    for (at, part) in template.split("{{").enumerate() {
        let Some((name, rest)) = part.split_once("}}").filter(|_| at > 0) else {
            page.push_str(part);
            continue;
        };
        match name {
            "words" => page.push_str(&all),
            "language" => page.push_str(language),
            "about" => page.push_str(ABOUT),
            name => page.push_str(&escaped(read.get(name).and_then(Value::as_str).unwrap_or_default())),
        }
        page.push_str(rest);
    }
    page
}

/// JSON in a script element, which only a `<` could end.
fn in_script(json: &Value) -> String {
    json.to_string().replace('<', "\\u003c")
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;")
}

/// The dashboard, told what it can do here.
pub(super) fn index(headers: &HeaderMap, about: &Value) -> Response<Reply> {
    reply::whole(StatusCode::OK, HTML, INDEX.for_reader(headers).replace(ABOUT, &in_script(about)))
}

/// The page that asks for the token; `is_wrong` where a wrong one was typed.
pub(super) fn login(headers: &HeaderMap, is_wrong: bool) -> Response<Reply> {
    let code = if is_wrong { StatusCode::UNAUTHORIZED } else { StatusCode::OK };
    let hidden = if is_wrong { "" } else { "hidden" };
    reply::whole(code, HTML, LOGIN.for_reader(headers).replace("data-wrong", hidden))
}

/// A file below `/assets/`. Browsers keep it and ask whether it is still the same.
pub(super) fn file(name: &str, headers: &HeaderMap) -> Option<Response<Reply>> {
    let (_, kind, bytes) = FILES.iter().find(|(file, ..)| *file == name)?;
    let is_same = headers.get(IF_NONE_MATCH).is_some_and(|tag| tag.as_bytes() == TAG.as_bytes());
    let mut found = if is_same {
        reply::whole(StatusCode::NOT_MODIFIED, kind, "")
    } else {
        reply::whole(StatusCode::OK, kind, *bytes)
    };
    reply::with(&mut found, CACHE_CONTROL, "no-cache");
    reply::with(&mut found, ETAG, &TAG);
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::radiograph::RefusalCode;
    use crate::report::{Label, NOTICE, ReasonCode};

    fn words() -> Vec<(&'static str, Map<String, Value>)> {
        LANGUAGES.iter().map(|(language, words)| (*language, serde_json::from_str(words).unwrap())).collect()
    }

    /// Whoever adds a reason adds it here: the match below does not compile without it.
    const REASONS: [ReasonCode; 14] = [
        ReasonCode::TooSmall,
        ReasonCode::Elongated,
        ReasonCode::LowContrast,
        ReasonCode::UnderExposed,
        ReasonCode::OverExposed,
        ReasonCode::Noise,
        ReasonCode::LateralView,
        ReasonCode::Inverted,
        ReasonCode::UpsideDown,
        ReasonCode::Rotated,
        ReasonCode::Cropped,
        ReasonCode::UnusualAppearance,
        ReasonCode::OutOfDistribution,
        ReasonCode::LowConfidence,
    ];

    fn place(code: ReasonCode) -> usize {
        match code {
            ReasonCode::TooSmall => 0,
            ReasonCode::Elongated => 1,
            ReasonCode::LowContrast => 2,
            ReasonCode::UnderExposed => 3,
            ReasonCode::OverExposed => 4,
            ReasonCode::Noise => 5,
            ReasonCode::LateralView => 6,
            ReasonCode::Inverted => 7,
            ReasonCode::UpsideDown => 8,
            ReasonCode::Rotated => 9,
            ReasonCode::Cropped => 10,
            ReasonCode::UnusualAppearance => 11,
            ReasonCode::OutOfDistribution => 12,
            ReasonCode::LowConfidence => 13,
        }
    }

    const REFUSALS: [RefusalCode; 13] = [
        RefusalCode::Unreadable,
        RefusalCode::UnknownFormat,
        RefusalCode::Damaged,
        RefusalCode::LimitExceeded,
        RefusalCode::NotARadiograph,
        RefusalCode::NoImage,
        RefusalCode::WrongModality,
        RefusalCode::WrongBodyPart,
        RefusalCode::MultiFrame,
        RefusalCode::Unsupported,
        RefusalCode::DecoderFailed,
        RefusalCode::DecoderTimeout,
        RefusalCode::CrashedTheProgram,
    ];

    #[test]
    fn every_reason_has_a_sentence_in_every_language() {
        assert!(REASONS.iter().enumerate().all(|(at, code)| place(*code) == at));
        let reasons = REASONS.map(|code| format!("reason.{code}"));
        let refusals = REFUSALS.map(|code| format!("refusal.{code}"));
        let labels = Label::ALL.map(|label| format!("label.{label}"));
        for (language, words) in words() {
            for key in reasons.iter().chain(&refusals).chain(&labels) {
                let text = words.get(key).and_then(Value::as_str).unwrap_or_default();
                assert!(!text.is_empty(), "{language}: {key} is missing");
                if key.starts_with("reason.") || key.starts_with("refusal.") {
                    assert!(text.ends_with('.') && text.len() > 20, "{language}: {key} is no sentence: {text}");
                }
            }
        }
    }

    #[test]
    fn every_problem_of_the_box_has_a_title() {
        // Whatever health says, as its source says it.
        let sources = [include_str!("../status/health.rs"), include_str!("../status/telemetry.rs")].concat();
        let codes: Vec<_> = ["Problem::failing(\"", "Problem::warning(\""]
            .iter()
            .flat_map(|begin| sources.split(begin).skip(1))
            .filter_map(|rest| rest.split('"').next())
            .collect();
        assert!(codes.len() >= 15, "{codes:?}");
        for (language, words) in words() {
            for code in &codes {
                assert!(words.contains_key(&format!("problem.{code}")), "{language}: problem.{code} is missing");
            }
        }
    }

    #[test]
    fn every_language_has_the_words_of_the_first_and_no_others() {
        let all = words();
        let keys = |words: &Map<String, Value>| words.keys().cloned().collect::<Vec<_>>();
        for (language, words) in &all {
            assert_eq!(keys(words), keys(&all[0].1), "{language}");
            assert!(words.values().all(|text| text.as_str().is_some_and(|text| !text.is_empty())), "{language}");
        }
        assert_eq!(all[0].1["notice"], NOTICE);
    }

    #[test]
    fn words_that_pages_and_scripts_name_are_there_and_those_there_are_named() {
        let words = &words()[0].1;
        let scripts = FILES.iter().filter(|(_, kind, _)| *kind == SCRIPT);
        let mut text: String =
            scripts.map(|(_, _, bytes)| String::from_utf8(bytes.to_vec()).unwrap()).collect::<Vec<_>>().join("\n");
        text.push_str(include_str!("assets/index.html"));
        text.push_str(include_str!("assets/login.html"));
        // {{key}} in pages, and t("key") in scripts, where no other function's name ends so.
        let in_pages = text.split("{{").skip(1).filter_map(|rest| rest.split("}}").next());
        let parts: Vec<_> = text.split("t(\"").collect();
        let is_call = |before: &str| !before.ends_with(|letter: char| letter.is_alphanumeric() || letter == '.');
        let in_scripts = parts.windows(2).filter(|pair| is_call(pair[0])).filter_map(|pair| pair[1].split('"').next());
        for key in in_pages.chain(in_scripts) {
            assert!(
                ["words", "language", "about"].contains(&key) || words.contains_key(key),
                "{key} is missing in en.json"
            );
        }
        // Those that are put together of a beginning and a code.
        let parts =
            ["reason.", "refusal.", "label.", "problem.", "origin.", "step.", "unit.", "upload.error.", "box.disk."];
        for key in words.keys().filter(|key| !parts.iter().any(|part| key.starts_with(part)) && !key.starts_with('_')) {
            assert!(
                text.contains(&format!("\"{key}\"")) || text.contains(&format!("{{{{{key}}}}}")),
                "{key} is used nowhere"
            );
        }
    }

    #[test]
    fn the_page_with_all_its_parts_is_small_and_holds_no_script_and_no_address_of_elsewhere() {
        let page = INDEX.for_reader(&HeaderMap::new());
        let bytes = page.len() + FILES.iter().map(|(_, _, bytes)| bytes.len()).sum::<usize>();
        assert!(bytes < 200_000, "{bytes} bytes");
        for page in [page, LOGIN.for_reader(&HeaderMap::new())] {
            assert!(!page.replace(ABOUT, "").contains("{{") && page.contains("<!doctype html>"), "{page}");
            assert!(!page.contains("style=\"") && !page.contains(" onclick"), "the policy forbids these");
        }
        for (name, kind, bytes) in FILES {
            let text = String::from_utf8(bytes.to_vec()).unwrap();
            let elsewhere = text.replace("http://www.w3.org/", "").contains("://");
            assert!(!elsewhere && !text.contains("innerHTML"), "{name} {kind}");
        }
    }

    #[test]
    fn words_cannot_become_markup_and_readers_get_their_language_or_the_first() {
        let page = filled("<p title=\"{{a}}\">{{missing}}</p>{{words}}", "en", r#"{"a": "\"<b>&"}"#);
        assert_eq!(page, "<p title=\"&quot;&lt;b>&amp;\"></p>{\"a\":\"\\\"\\u003cb>&\"}");
        let page = Page(vec![("en", "English".into()), ("de", "Deutsch".into())]);
        let read = |asked: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("accept-language", asked.parse().unwrap());
            page.for_reader(&headers).to_owned()
        };
        assert_eq!(read("de-DE,de;q=0.9,en;q=0.8"), "Deutsch");
        assert_eq!(read("fr, en;q=0.5"), "English");
        assert_eq!(read("fr"), "English");
    }
}
