//! The durable queue between judging and publishing (SQLite).
