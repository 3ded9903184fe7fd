//! The definition of every integer operation, as naive loops. Every kernel equals it bit for bit; nothing here is fast.
