//! The gallery's files, for who may see the dashboard. Makes none of them.

use super::Site;
use super::reply::{JSON, Reply, whole};
use crate::gallery::{self, Kind};
use hyper::{Response, StatusCode};
use std::fs::File;
use std::io::Read;

/// A copy has some hundred kilobytes.
const MAX_BYTES: u64 = 4 << 20;

/// A file of a report's copy; `None` where there is none, or none is to be shown.
pub(super) fn file(site: &Site, report_id: &str, kind: Kind) -> Option<Response<Reply>> {
    let path = gallery::file(&site.gallery()?, report_id, kind)?;
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(MAX_BYTES).read_to_end(&mut bytes).ok()?;
    let content = match kind {
        Kind::Png => "image/png",
        Kind::Evidence => JSON,
    };
    Some(whole(StatusCode::OK, content, bytes))
}
