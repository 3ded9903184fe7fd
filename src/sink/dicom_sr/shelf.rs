//! What lies in the folders of results, as far as is known without looking: names, sizes, ages, and what must go when there
//! is too much. Touches no disk.

use super::config::Kind;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::time::{Duration, Instant, SystemTime};

/// Seconds since 1970 at the beginning of 2026: a file that says it is older was written by a clock that was not set.
const BEGINNING: u64 = 1_767_225_600;

/// For how long a staged object may be that of an image at hand: the line keeps it again and again meanwhile.
const AT_HAND: Duration = Duration::from_secs(3600);

/// The folders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Folder {
    Staged,
    Waiting,
    Refused,
}

impl Folder {
    pub(super) const ALL: [Folder; 3] = [Folder::Staged, Folder::Waiting, Folder::Refused];

    pub(super) fn name(self) -> &'static str {
        match self {
            Folder::Staged => "staged",
            Folder::Waiting => "waiting",
            Folder::Refused => "refused",
        }
    }
}

/// An object's name: where it stands in the order, whose it is, and what.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Name {
    /// 0 while it is staged.
    pub(super) sequence: u64,
    pub(super) kind: Kind,
    pub(super) report_id: String,
}

impl Name {
    pub(super) fn staged(kind: Kind, report_id: &str) -> Self {
        Self { sequence: 0, kind, report_id: report_id.to_owned() }
    }

    /// The file in that folder.
    pub(super) fn file(&self, folder: Folder) -> String {
        let Self { sequence, kind, report_id } = self;
        match folder {
            Folder::Staged => format!("{report_id}-{kind}.dcm"),
            Folder::Waiting | Folder::Refused => format!("{sequence:020}-{report_id}-{kind}.dcm"),
        }
    }

    /// `None` for what is no name of ours in that folder.
    pub(super) fn parse(folder: Folder, file: &str) -> Option<Self> {
        let stem = file.strip_suffix(".dcm")?;
        let (sequence, rest) = match folder {
            Folder::Staged => (0, stem),
            Folder::Waiting | Folder::Refused => {
                let (sequence, rest) = stem.split_once('-')?;
                (sequence.parse().ok().filter(|_| sequence.len() == 20)?, rest)
            }
        };
        let (report_id, kind) = rest.split_once('-')?;
        let kind = Kind::ALL.into_iter().find(|known| known.name() == kind)?;
        is_id(report_id).then(|| Self { sequence, kind, report_id: report_id.to_owned() })
    }
}

/// Whether a report's id can be part of a file's name.
pub(super) fn is_id(report_id: &str) -> bool {
    report_id.len() == 32 && report_id.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// What one object takes, and since when.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub(super) bytes: u64,
    /// By the file; `None`: written by a clock that nobody vouched for, so that its age is not known.
    pub(super) since: Option<SystemTime>,
    /// When this process came to know of it.
    pub(super) noted: Instant,
}

impl Entry {
    pub(super) fn of(metadata: &std::fs::Metadata) -> Self {
        let beginning = SystemTime::UNIX_EPOCH + Duration::from_secs(BEGINNING);
        let since = metadata.modified().ok().filter(|modified| *modified >= beginning);
        Self { bytes: metadata.len(), since, noted: Instant::now() }
    }
}

/// One folder.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    entries: BTreeMap<Name, Entry>,
    bytes: u64,
}

impl Shelf {
    pub(super) fn insert(&mut self, name: Name, entry: Entry) {
        self.remove(&name);
        self.bytes += entry.bytes;
        self.entries.insert(name, entry);
    }

    pub(super) fn remove(&mut self, name: &Name) -> Option<Entry> {
        let entry = self.entries.remove(name)?;
        self.bytes = self.bytes.saturating_sub(entry.bytes);
        Some(entry)
    }

    pub(super) fn contains(&self, name: &Name) -> bool {
        self.entries.contains_key(name)
    }

    pub(super) fn len(&self) -> u64 {
        self.entries.len() as u64
    }

    pub(super) fn names(&self) -> Vec<Name> {
        self.entries.keys().cloned().collect()
    }

    /// The first one, or the first behind `after`.
    pub(super) fn next(&self, after: Option<&Name>) -> Option<&Name> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.entries.range::<Name, _>((from, Bound::Unbounded)).next().map(|(name, _)| name)
    }

    /// What a look has found that began then: what has come since then stays.
    pub(super) fn found(&mut self, mut found: BTreeMap<Name, Entry>, began: Instant) {
        for (name, old) in std::mem::take(&mut self.entries) {
            match found.get_mut(&name) {
                Some(new) => {
                    new.noted = old.noted;
                    new.since = new.since.or(old.since);
                }
                None if old.noted >= began => drop(found.insert(name, old)),
                None => {}
            }
        }
        self.bytes = found.values().map(|entry| entry.bytes).sum();
        self.entries = found;
    }

    /// Takes this time for that of all whose time is not known, or lies ahead. Which those were.
    pub(super) fn date(&mut self, now: SystemTime) -> Vec<Name> {
        let undated = self.entries.iter_mut().filter(|(_, entry)| entry.since.is_none_or(|since| since > now));
        let dated = undated.map(|(name, entry)| {
            entry.since = Some(now);
            name.clone()
        });
        dated.collect()
    }
}

/// How much may lie there, and for how long.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) objects: u64,
    pub(super) bytes: u64,
    pub(super) age: Duration,
}

/// All folders.
#[derive(Debug, Default)]
pub(super) struct Index {
    staged: Shelf,
    waiting: Shelf,
    refused: Shelf,
}

impl Index {
    pub(super) fn shelf(&mut self, folder: Folder) -> &mut Shelf {
        match folder {
            Folder::Staged => &mut self.staged,
            Folder::Waiting => &mut self.waiting,
            Folder::Refused => &mut self.refused,
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.staged.bytes + self.waiting.bytes + self.refused.bytes
    }

    /// What is too old, by a clock that somebody vouches for; and what is beyond the bounds: pictures first, and of the rest what
    /// was refused or staged for a report that never came, always the oldest.
    pub(super) fn too_much(&self, bounds: &Bounds, now: Option<SystemTime>) -> Vec<(Name, Folder)> {
        let orphans = self.staged.entries.iter().filter(|(_, entry)| entry.noted.elapsed() > AT_HAND);
        let mut all: Vec<_> = self.refused.entries.iter().map(|(name, entry)| (name, entry, Folder::Refused)).collect();
        all.extend(orphans.map(|(name, entry)| (name, entry, Folder::Staged)));
        all.extend(self.waiting.entries.iter().map(|(name, entry)| (name, entry, Folder::Waiting)));
        // A stable sort: the folders in this order, and each in its own.
        all.sort_by_key(|(name, ..)| name.kind != Kind::SecondaryCapture);
        let is_old = |entry: &Entry| {
            let age = now.zip(entry.since).and_then(|(now, since)| now.duration_since(since).ok());
            age.is_some_and(|age| age > bounds.age)
        };
        let mut count = self.staged.len() + self.waiting.len() + self.refused.len();
        let mut bytes = self.bytes();
        let mut victims = Vec::new();
        for (name, entry, folder) in all {
            if count > bounds.objects || bytes > bounds.bytes || is_old(entry) {
                victims.push((name.clone(), folder));
                count -= 1;
                bytes = bytes.saturating_sub(entry.bytes);
            }
        }
        victims
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn entry(age: Duration, known: Duration) -> Entry {
        let (now, noted) = (SystemTime::now(), Instant::now());
        Entry { bytes: 10, since: Some(now - age), noted: noted.checked_sub(known).unwrap() }
    }

    fn name(sequence: u64) -> Name {
        Name { sequence, kind: Kind::Sr, report_id: format!("{sequence:032x}") }
    }

    #[test]
    fn what_is_staged_counts_and_goes_only_where_it_is_not_of_an_image_at_hand() {
        let mut index = Index::default();
        let [at_hand, orphan] = ["a", "b"].map(|id| Name::staged(Kind::Sr, &id.repeat(32)));
        index.shelf(Folder::Staged).insert(at_hand.clone(), entry(100 * HOUR, HOUR / 2));
        index.shelf(Folder::Staged).insert(orphan.clone(), entry(100 * HOUR, 2 * HOUR));
        index.shelf(Folder::Waiting).insert(name(1), entry(HOUR, 2 * HOUR));
        index.shelf(Folder::Refused).insert(name(2), entry(HOUR, 2 * HOUR));
        assert_eq!(index.bytes(), 40);
        let over = |objects, bytes, hours, now| index.too_much(&Bounds { objects, bytes, age: hours * HOUR }, now);
        let now = Some(SystemTime::now());
        assert_eq!(over(4, 40, 101, now), []);
        assert_eq!(over(4, 40, 99, now), [(orphan.clone(), Folder::Staged)]);
        assert_eq!(over(4, 40, 99, None), [], "nobody vouches for the clock");
        assert_eq!(over(2, 40, 101, None), [(name(2), Folder::Refused), (orphan, Folder::Staged)]);
        assert_eq!(over(4, 0, 101, None).len(), 3, "all but what is at hand");
    }

    #[test]
    fn a_look_forgets_what_is_gone_and_not_what_came_meanwhile() {
        let mut shelf = Shelf::default();
        shelf.insert(name(1), entry(HOUR, HOUR));
        shelf.insert(name(2), entry(HOUR, HOUR));
        let began = Instant::now();
        shelf.insert(name(3), entry(HOUR, Duration::ZERO));
        let undated = Entry { since: None, ..entry(HOUR, Duration::ZERO) };
        shelf.found(BTreeMap::from([(name(2), undated), (name(4), undated)]), began);
        assert_eq!((shelf.names(), shelf.bytes), (vec![name(2), name(3), name(4)], 30));
        assert_eq!(shelf.date(SystemTime::now()), [name(4)], "the other one was dated before");
        assert_eq!(shelf.next(Some(&name(2))), Some(&name(3)));
        assert_eq!((shelf.next(None), shelf.next(Some(&name(4)))), (Some(&name(2)), None));
    }

    #[test]
    fn names_are_read_as_they_are_written_and_no_others() {
        for (folder, name) in [
            (Folder::Waiting, name(7)),
            (Folder::Refused, Name { kind: Kind::SecondaryCapture, ..name(u64::MAX) }),
            (Folder::Staged, Name { sequence: 0, ..name(7) }),
        ] {
            assert_eq!(Name::parse(folder, &name.file(folder)), Some(name.clone()));
            let other = if folder == Folder::Staged { Folder::Waiting } else { Folder::Staged };
            assert_eq!(Name::parse(other, &name.file(folder)), None);
        }
        let id = "a".repeat(32);
        for bad in [format!("7-{id}-sr.dcm"), format!("{:020}-{id}-pdf.dcm", 7), format!("{:020}-../x-sr.dcm", 7)] {
            assert_eq!(Name::parse(Folder::Waiting, &bad), None, "{bad}");
        }
    }
}
