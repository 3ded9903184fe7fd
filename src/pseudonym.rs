//! Keyed pseudonyms: HMAC-SHA-256 of an identifier under a key that never leaves the box.
//! Not encryption: nobody can turn one back, the box included.

/// The box's own key.
#[derive(Clone)]
pub struct Key([u8; 32]);

impl Key {
    /// A key from its 32 bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}
