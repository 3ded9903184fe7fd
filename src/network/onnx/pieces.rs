//! A file as a row of pieces that are freed as they are read, so that what is decoded from it does not lie beside all of it
//! in memory. Not the reading of the file.

use bytes::{Buf, Bytes};
use std::collections::VecDeque;

/// The bytes that are left to read.
#[derive(Debug, Clone, Default)]
pub struct Pieces {
    /// None of them is empty.
    pieces: VecDeque<Bytes>,
    remaining: usize,
}

impl FromIterator<Bytes> for Pieces {
    fn from_iter<I: IntoIterator<Item = Bytes>>(pieces: I) -> Self {
        let pieces: VecDeque<Bytes> = pieces.into_iter().filter(|piece| !piece.is_empty()).collect();
        Self { remaining: pieces.iter().map(Bytes::len).sum(), pieces }
    }
}

impl From<Bytes> for Pieces {
    fn from(bytes: Bytes) -> Self {
        Self::from_iter([bytes])
    }
}

impl Buf for Pieces {
    fn remaining(&self) -> usize {
        self.remaining
    }

    fn chunk(&self) -> &[u8] {
        self.pieces.front().map_or(&[], |piece| piece)
    }

    /// Panics, as the trait asks, where fewer bytes are left than `count`.
    fn advance(&mut self, mut count: usize) {
        assert!(count <= self.remaining, "{count} bytes are asked for and {} are left", self.remaining);
        self.remaining -= count;
        while let Some(first) = self.pieces.front_mut().filter(|_| count > 0) {
            let step = count.min(first.len());
            first.advance(step);
            count -= step;
            if first.is_empty() {
                self.pieces.pop_front();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_read_like_the_whole() {
        let whole: Vec<u8> = (0..100).collect();
        for size in [1, 7, 99, 100, 200] {
            let mut pieces: Pieces = whole.chunks(size).map(Bytes::copy_from_slice).chain([Bytes::new()]).collect();
            assert_eq!((pieces.remaining(), pieces.get_u8()), (100, 0));
            assert_eq!(&pieces.copy_to_bytes(30)[..], &whole[1..31]);
            pieces.advance(40);
            assert_eq!((pieces.remaining(), pieces.chunk()[0]), (29, 71));
            assert_eq!(&pieces.copy_to_bytes(29)[..], &whole[71..]);
            assert!(!pieces.has_remaining() && pieces.chunk().is_empty());
        }
    }
}
