//! The reports of the outbox's history as JSON, page by page, and one by one. Not how they are shown.
//!
//! `GET /api/reports?since=&until=&label=&status=&before=&limit=` gives the newest first:
//! `{"reports": [{"sequence", "sent_at", "undeliverable", "image", "report"}], "next", "total", "damaged"}`. `next`, where there is
//! one, is the `before` of the next page; `total` counts all reports that the box keeps, whatever the filter.
//! `GET /api/reports/ID`, by report id or sequence, gives one such entry.

use super::query;
use crate::gallery::{self, Kind};
use crate::outbox::OutboxError;
use crate::outbox::history::{Entry, Filter, History, Status};
use crate::report::Label;
use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Value, json};
use std::path::Path;

/// Reports of a page where nobody says how many, and at most.
const PAGE: u64 = 50;
const MOST: u64 = 200;

/// What a query asks for, or what is wrong with it, in words.
pub(super) fn filter(text: &str) -> Result<Filter, String> {
    let mut filter = Filter { limit: Some(PAGE), ..Filter::default() };
    // A form sends what was left empty, too.
    for (name, value) in query::pairs(text).into_iter().filter(|(_, value)| !value.is_empty()) {
        match name.as_str() {
            "since" => filter.since = Some(time(&name, &value)?),
            "until" => filter.until = Some(time(&name, &value)?),
            "before" => filter.before = Some(number(&name, &value)?),
            "limit" => filter.limit = Some(number(&name, &value)?.clamp(1, MOST)),
            "label" => {
                let found = Label::ALL.into_iter().find(|label| label.name() == value);
                let names = Label::ALL.map(Label::name).join(", ");
                filter.label = Some(found.ok_or_else(|| format!("label: write one of {names}"))?);
            }
            "status" => match value.as_str() {
                "reported" => filter.status = Some(Status::Reported),
                "abstained" => filter.status = Some(Status::Abstained),
                "unsent" => filter.unsent = true,
                _ => return Err("status: write reported, abstained or unsent".into()),
            },
            _ => return Err("there is since, until, label, status, before and limit".into()),
        }
    }
    Ok(filter)
}

fn number(name: &str, value: &str) -> Result<u64, String> {
    value.parse().map_err(|_| format!("{name}: write a number"))
}

/// As reports have it, so that they can be compared as text.
fn time(name: &str, value: &str) -> Result<String, String> {
    let read = DateTime::parse_from_rfc3339(value).map_err(|_| format!("{name}: write it as 2026-11-24T08:00:00Z"))?;
    Ok(read.with_timezone(&Utc).to_rfc3339_opts(SecondsFormat::Millis, true))
}

/// A page of reports, newest first.
pub(super) fn reports(outbox: &Path, gallery: Option<&Path>, filter: &Filter) -> Result<Value, OutboxError> {
    let history = History::open(outbox)?;
    let limit = filter.limit.unwrap_or(PAGE);
    // One more than asked for tells whether there are more.
    let wider = Filter { limit: Some(limit + 1), ..filter.clone() };
    let mut found = Vec::new();
    let damaged = history.visit(&wider, &mut |entry| {
        found.push(entry);
        true
    })?;
    let surplus = found.len().saturating_sub(limit as usize);
    let shown = &found[surplus..];
    let next = shown.first().filter(|_| surplus > 0).map(|first| first.sequence);
    let reports: Vec<Value> = shown.iter().rev().filter_map(|one| entry(one, gallery)).collect();
    Ok(json!({ "reports": reports, "next": next, "total": history.count()?, "damaged": damaged }))
}

/// One report, by its id or its sequence.
pub(super) fn report(outbox: &Path, gallery: Option<&Path>, name: &str) -> Result<Option<Value>, OutboxError> {
    let history = History::open(outbox)?;
    // Both may be digits alone; an id has 32.
    let sequence = if name.len() == 32 { history.find(name)? } else { name.parse().ok() };
    let Some(sequence) = sequence else { return Ok(None) };
    let (after, before) = (sequence.checked_sub(1), sequence.checked_add(1));
    let mut found = None;
    history.visit(&Filter { after, before, ..Filter::default() }, &mut |one| {
        found = entry(&one, gallery);
        false
    })?;
    Ok(found)
}

/// A report as pages read it: without its evidence map, which is asked for by itself, and with whether there is a copy of
/// its radiograph, where copies are shown. `None` for one that is no JSON.
pub(super) fn entry(entry: &Entry, gallery: Option<&Path>) -> Option<Value> {
    let mut report: Value = serde_json::from_str(&entry.json).ok()?;
    report.as_object_mut()?.remove("evidence_map");
    let path = gallery.and_then(|folder| gallery::file(folder, report["report_id"].as_str()?, Kind::Png));
    let image = path.is_some_and(|path| path.exists());
    let Entry { sequence, sent_at, undeliverable, .. } = entry;
    Some(
        json!({ "sequence": sequence, "sent_at": sent_at, "undeliverable": undeliverable, "image": image, "report": report }),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_read_and_a_wrong_one_named() {
        let found =
            filter("since=2026-11-24T09:00:00%2B01:00&until=&label=covid&status=abstained&before=9&limit=7").unwrap();
        let expected = Filter {
            since: Some("2026-11-24T08:00:00.000Z".into()),
            label: Some(Label::Covid),
            status: Some(Status::Abstained),
            before: Some(9),
            limit: Some(7),
            ..Filter::default()
        };
        assert_eq!(found, expected);
        assert_eq!(filter("limit=100000").unwrap().limit, Some(MOST));
        assert_eq!(filter("").unwrap().limit, Some(PAGE));
        assert!(filter("status=unsent").unwrap().unsent);
        for (wrong, key) in [
            ("since=yesterday", "since"),
            ("label=flu", "label"),
            ("status=x", "status"),
            ("before=-1", "before"),
            ("a=1", "limit"),
        ] {
            assert!(filter(wrong).is_err_and(|error| error.contains(key)), "{wrong}");
        }
    }
}
