//! Memory aligned to cache lines, as vector loads want it, and to huge pages where it is large. Not an allocator: a buffer has
//! its size for life.
#![allow(unsafe_code)] // Memory is asked for by hand, so that huge pages can be asked for before it is touched.

use std::alloc::{Layout, alloc, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;

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
pub struct Aligned {
    /// The first byte; dangling where there is none.
    start: NonNull<u8>,
    /// How many there are: a multiple of [`LINE`].
    bytes: usize,
}

// SAFETY: the buffer owns its memory, which any thread may read, write and free.
unsafe impl Send for Aligned {}
// SAFETY: through a shared reference it can only be read.
unsafe impl Sync for Aligned {}

/// How a buffer of so many bytes is allocated; `None` where no machine has as many.
fn layout(bytes: usize) -> Option<Layout> {
    Layout::from_size_align(bytes, if bytes < HUGE { LINE } else { HUGE }).ok()
}

impl Aligned {
    /// At least `bytes` bytes of zeros, rounded up to whole lines.
    ///
    /// # Panics
    /// Or aborts, as `Vec` does, where there is no such memory.
    pub fn zeroed(bytes: usize) -> Self {
        let Some(layout) = bytes.checked_next_multiple_of(LINE).and_then(layout) else { panic!("capacity overflow") };
        let bytes = layout.size();
        if bytes == 0 {
            return Self::default();
        }
        let start = if bytes < HUGE {
            // SAFETY: the layout's size is not 0.
            unsafe { alloc_zeroed(layout) }
        } else {
            // SAFETY: the layout's size is not 0.
            let start = unsafe { alloc(layout) };
            if !start.is_null() {
                advise_huge_pages(start, bytes);
                // SAFETY: `start` points to `bytes` bytes that were just allocated.
                unsafe { start.write_bytes(0, bytes) };
            }
            start
        };
        let Some(start) = NonNull::new(start) else { handle_alloc_error(layout) };
        Self { start, bytes }
    }

    /// Bytes it holds.
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
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
        // SAFETY: `start` points to `bytes` initialised bytes, aligned to 64, which no `Plain` exceeds, or is so aligned and
        // dangling for none; every pattern of bits is a `Plain`; the borrow of `self` keeps them alive and unwritten.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast(), self.bytes / size_of::<T>()) }
    }

    fn view_mut<T: Plain>(&mut self) -> &mut [T] {
        // SAFETY: as in `view`, and the borrow is unique.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr().cast(), self.bytes / size_of::<T>()) }
    }
}

impl Default for Aligned {
    /// An empty one.
    fn default() -> Self {
        #[repr(align(64))]
        struct Line;
        Self { start: NonNull::<Line>::dangling().cast(), bytes: 0 }
    }
}

impl Drop for Aligned {
    fn drop(&mut self) {
        // There was a layout when it was allocated.
        if let Some(layout) = layout(self.bytes).filter(|_| self.bytes > 0) {
            // SAFETY: allocated with this layout, which depends on `bytes` only, and not freed before.
            unsafe { dealloc(self.start.as_ptr(), layout) };
        }
    }
}

/// Asks the system for huge pages; it may have none, which is no failure.
#[cfg(all(target_os = "linux", not(miri)))]
fn advise_huge_pages(start: *mut u8, bytes: usize) {
    // SAFETY: the range is whole pages of memory of ours, or ends within one, and the advice does not change what it holds.
    unsafe { libc::madvise(start.cast(), bytes, libc::MADV_HUGEPAGE) };
}

/// Does nothing: this system is not known.
#[cfg(not(all(target_os = "linux", not(miri))))]
fn advise_huge_pages(_: *mut u8, _: usize) {}

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

    #[test]
    fn large_buffers_are_zeros_too_and_aligned_to_huge_pages() {
        let mut buffer = Aligned::zeroed(HUGE + 1);
        assert_eq!((buffer.len(), buffer.as_u8().as_ptr() as usize % HUGE), (HUGE + LINE, 0));
        assert!(buffer.as_u8().iter().all(|&byte| byte == 0));
        buffer.as_u8_mut()[HUGE] = 1;
        assert_eq!(buffer.as_i16()[HUGE / 2], 1);
    }
}
