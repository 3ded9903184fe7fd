//! Memory aligned to cache lines, as vector loads want it. Not an allocator: a buffer has its size for life.
#![allow(unsafe_code)] // A slice of lines is seen as a slice of their bytes.

/// Bytes of a cache line.
const LINE: usize = 64;

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; LINE]);

/// Numbers that may be any pattern of bits, so that memory can be seen as a slice of them.
trait Plain: Copy {}
impl Plain for u8 {}
impl Plain for i8 {}
impl Plain for i16 {}
impl Plain for i32 {}

/// A buffer of bytes, zeros at first, aligned to 64 bytes, and a view of them as the integers of a kernel.
#[derive(Default)]
pub struct Aligned {
    lines: Vec<Line>,
}

impl Aligned {
    /// At least `bytes` bytes of zeros, rounded up to whole lines.
    pub fn zeroed(bytes: usize) -> Self {
        Self { lines: vec![Line([0; LINE]); bytes.div_ceil(LINE)] }
    }

    /// Bytes it holds.
    pub fn len(&self) -> usize {
        self.lines.len() * LINE
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
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
        let count = self.len() / size_of::<T>();
        // SAFETY: the lines are initialised memory of `count × size_of::<T>()` bytes, aligned to 64, which no `Plain`
        // exceeds; every pattern of bits is a `Plain`; the borrow of `self` keeps them alive and unwritten.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), count) }
    }

    fn view_mut<T: Plain>(&mut self) -> &mut [T] {
        let count = self.len() / size_of::<T>();
        // SAFETY: as in `view`, and the borrow is unique; whatever is written is bytes of a `Line`.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), count) }
    }
}

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
