//! One TOML, every module with its own section, unknown keys refused.
