//! Memory aligned to cache lines, as vector loads want it, and to huge pages where it is large. Not an allocator: a buffer has
//! its size for life.
#![allow(unsafe_code)] // Bytes are seen as numbers, and the system is asked for huge pages.

/// Bytes of a cache line.
const LINE: usize = 64;

/// Bytes of a huge page. A network's planes and weights are walked through in strides; with pages of 4 KB the processor looks
/// up thousands of them an inference: one of VGG16 takes 4 % longer (two Zen 5 cores).
const HUGE: usize = 2 << 20;

/// Numbers that may be any pattern of bits, so that memory can be seen as a slice of them.
trait Plain: Copy {}
impl Plain for u8 {}
impl Plain for i8 {}
impl Plain for i16 {}
impl Plain for i32 {}

/// A buffer of bytes, zeros at first, aligned to 64 bytes, and a view of them as the integers of a kernel.
#[derive(Default)]
pub struct Aligned {
    /// Somewhat more than is used. A plain vector of zeros, since the system hands those out as pages that take no memory
    /// before they are written to; memory that is allocated with an alignment is written to at once.
    bytes: Vec<u8>,
    /// The first byte that is used, at an address that is a multiple of 64; of a large buffer, of a huge page.
    start: usize,
    len: usize,
}

impl Aligned {
    /// At least `bytes` bytes of zeros, rounded up to whole lines.
    pub fn zeroed(bytes: usize) -> Self {
        let len = bytes.next_multiple_of(LINE);
        let aligned_to = if len < HUGE { LINE } else { HUGE };
        let bytes = vec![0u8; if len == 0 { 0 } else { len + aligned_to - 1 }];
        let address = bytes.as_ptr() as usize;
        let start = address.next_multiple_of(aligned_to) - address;
        if len >= HUGE {
            advise_huge_pages(&bytes[start..]);
        }
        Self { bytes, start, len }
    }

    /// Bytes it holds.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// As bytes.
    pub fn as_u8(&self) -> &[u8] {
        self.view()
    }

    /// As bytes, to be written.
    pub fn as_u8_mut(&mut self) -> &mut [u8] {
        self.view_mut()
    }

    /// As i8.
    pub fn as_i8(&self) -> &[i8] {
        self.view()
    }

    /// As i8, to be written.
    pub fn as_i8_mut(&mut self) -> &mut [i8] {
        self.view_mut()
    }

    /// As i16.
    pub fn as_i16(&self) -> &[i16] {
        self.view()
    }

    /// As i16, to be written.
    pub fn as_i16_mut(&mut self) -> &mut [i16] {
        self.view_mut()
    }

    /// As i32, to be written.
    pub fn as_i32_mut(&mut self) -> &mut [i32] {
        self.view_mut()
    }

    fn view<T: Plain>(&self) -> &[T] {
        seen(self.bytes.get(self.start..self.start + self.len).unwrap_or(&[]))
    }

    fn view_mut<T: Plain>(&mut self) -> &mut [T] {
        let bytes = self.bytes.get_mut(self.start..self.start + self.len).unwrap_or(&mut []);
        // SAFETY: every pattern of bits is a `Plain`, and every `Plain` is plain bytes.
        match unsafe { bytes.align_to_mut() } {
            ([], numbers, _) => numbers,
            _ => &mut [],
        }
    }
}

/// Asks the system for huge pages; it may have none, which is no failure. `bytes` begin at a page.
#[cfg(all(target_os = "linux", not(miri)))]
fn advise_huge_pages(bytes: &[u8]) {
    // SAFETY: the range is memory of ours from the beginning of a page on, and the advice does not change what it holds.
    unsafe { libc::madvise(bytes.as_ptr().cast_mut().cast(), bytes.len(), libc::MADV_HUGEPAGE) };
}

/// Does nothing: this system is not known.
#[cfg(not(all(target_os = "linux", not(miri))))]
fn advise_huge_pages(_: &[u8]) {}

/// Bytes as i8.
pub fn as_i8(bytes: &[u8]) -> &[i8] {
    seen(bytes)
}

/// Bytes as i16 of this processor's order. Nothing where they do not begin at an even address; an odd last byte is left out.
pub fn as_i16(bytes: &[u8]) -> &[i16] {
    seen(bytes)
}

fn seen<T: Plain>(bytes: &[u8]) -> &[T] {
    // SAFETY: every pattern of bits is a `Plain`.
    match unsafe { bytes.align_to() } {
        ([], numbers, _) => numbers,
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn views_are_aligned_and_see_the_same_memory() {
        let mut buffer = Aligned::zeroed(65);
        assert_eq!((buffer.len(), buffer.as_i16().len(), buffer.as_i32_mut().len()), (128, 64, 32));
        buffer.as_i16_mut()[63] = -2;
        assert_eq!(buffer.as_u8()[126..].iter().map(|&b| u32::from(b)).sum::<u32>(), 0xfe + 0xff);
        assert_eq!(buffer.as_i8().as_ptr() as usize % 64, 0);
        let bytes = [as_i8(&buffer.as_u8()[126..])[0], as_i8(&buffer.as_u8()[127..])[0]];
        assert_eq!((bytes, as_i16(&buffer.as_u8()[126..])), ([-2, -1], &[-2][..]));
        assert!(as_i16(&buffer.as_u8()[125..]).is_empty());
        assert!(Aligned::zeroed(0).as_u8().is_empty() && Aligned::default().is_empty());
    }
}
