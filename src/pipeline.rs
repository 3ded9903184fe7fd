//! next → preprocess → classify → assess → outbox → settle.
