//! One slice, written by many tasks: each has its own part of it. Not for tasks whose parts overlap.
#![allow(unsafe_code)] // Threads write disjoint parts of one slice, which the borrow checker cannot see.

use super::Workers;
use std::marker::PhantomData;
use std::ops::Range;

/// How a slice is cut: into blocks of equal length, one after another, and each of these into strips of equal length.
///
/// ```text
/// ┌────────────── block ──────────────┐┌───────────── block …
/// │head│ strip │ strip │ strip │ tail ││head│ strip │
/// └─── part 0 ─┴ part 1┴─── part 2 ───┘└─── part 0 …
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// How many blocks.
    pub blocks: usize,
    /// Elements of a block.
    pub block: usize,
    /// How many strips a block has; at least 1.
    pub strips: usize,
    /// Elements before the first strip of a block, which belong to it.
    pub head: usize,
    /// Elements of a strip; the last has all that is left.
    pub strip: usize,
}

impl Cut {
    /// The elements of one part. For any two different pairs of `block` and `strip` within the bounds they are disjoint,
    /// whatever the fields: a part begins where the one before ends.
    fn part(&self, block: usize, strip: usize) -> Range<usize> {
        let begins = |strip: usize| match strip {
            0 => 0,
            // Also where there are more strips than elements to fill them: the last ones are empty.
            _ if strip >= self.strips => self.block,
            _ => strip.saturating_mul(self.strip).saturating_add(self.head).min(self.block),
        };
        block * self.block + begins(strip)..block * self.block + begins(strip + 1)
    }
}

/// A task's share of a slice: the parts of one strip in some consecutive blocks.
pub struct Share<'a, T> {
    slice: *mut T,
    cut: &'a Cut,
    strip: usize,
    blocks: Range<usize>,
    borrowed: PhantomData<&'a mut [T]>,
}

impl<T> Share<'_, T> {
    /// Which strip.
    pub fn strip(&self) -> usize {
        self.strip
    }

    /// Which blocks.
    pub fn blocks(&self) -> Range<usize> {
        self.blocks.clone()
    }

    /// The part in one of [`Self::blocks`].
    ///
    /// # Panics
    /// If it is none of these.
    pub fn part(&mut self, block: usize) -> &mut [T] {
        assert!(self.blocks.contains(&block), "block {block} is another task's");
        let part = self.cut.part(block, self.strip);
        // SAFETY: `Workers::run_on` made this share from a slice of at least `blocks × block` elements that it borrows
        // mutably until all tasks are done, and gave no other task this strip of these blocks; parts are disjoint
        // (`Cut::part`), lie within their block, and `&mut self` keeps this task from holding two at a time.
        unsafe { std::slice::from_raw_parts_mut(self.slice.add(part.start), part.len()) }
    }
}

/// A pointer that tasks on other threads may have.
struct Everybodys<T>(*mut T);
// SAFETY: only `Share::part` uses the pointer, and for disjoint parts; elements are handed to other threads, so `T: Send`.
unsafe impl<T: Send> Sync for Everybodys<T> {}

impl<T> Everybodys<T> {
    fn pointer(&self) -> *mut T {
        self.0
    }
}

impl Workers {
    /// Cuts a slice and runs a task for each of some `strips` of each `group` consecutive blocks, the strips of a group one
    /// after another: `task(thread, share)`.
    ///
    /// # Panics
    /// If the slice is shorter than the blocks, or as [`Workers::run`].
    pub fn run_on<T: Send>(
        &mut self,
        slice: &mut [T],
        cut: &Cut,
        strips: Range<usize>,
        group: usize,
        task: &(dyn Fn(usize, Share<'_, T>) + Sync),
    ) {
        let within = cut.blocks.checked_mul(cut.block).is_some_and(|length| length <= slice.len());
        assert!(within, "{cut:?} of {} elements", slice.len());
        let (first_strip, count, group) = (strips.start, strips.len(), group.max(1));
        let base = Everybodys(slice.as_mut_ptr());
        self.run(cut.blocks.div_ceil(group) * count, &|thread, number| {
            let (first, strip) = (number / count * group, first_strip + number % count);
            let blocks = first..(first + group).min(cut.blocks);
            task(thread, Share { slice: base.pointer(), cut, strip, blocks, borrowed: PhantomData });
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_element_belongs_to_one_task(blocks in 0usize..5, block in 0usize..40, strips in 1usize..6, head in 0usize..9,
            strip in 0usize..12, group in 0usize..4, threads in 1usize..4) {
            let cut = Cut { blocks, block, strips, head, strip };
            let mut slice = vec![0u32; blocks * block + 3];
            let mut workers = Workers::new(threads, false).expect("threads can be made");
            let (early, late) = (0..strips / 2, strips / 2..strips);
            for strips in [early, late] { workers.run_on(&mut slice, &cut, strips, group, &|_, mut share| {
                for block in share.blocks() {
                    let strip = share.strip();
                    let mark = (block * 100 + strip + 1) as u32;
                    share.part(block).iter_mut().for_each(|element| *element += mark);
                }
            }); }
            prop_assert_eq!(&slice[blocks * block..], [0; 3]);
            for (index, element) in slice[..blocks * block].iter().enumerate() {
                let (block, strip) = (*element as usize / 100, *element as usize % 100);
                prop_assert!(strip > 0 && cut.part(block, strip - 1).contains(&index), "{} at {}", element, index);
            }
        }
    }

    #[test]
    #[should_panic(expected = "of 7 elements")]
    fn a_slice_that_is_too_short_is_refused() {
        let cut = Cut { blocks: 2, block: 4, strips: 1, head: 0, strip: 4 };
        Workers::new(1, false).expect("no thread").run_on(&mut [0u8; 7], &cut, 0..1, 1, &|_, _| ());
    }

    #[test]
    #[should_panic(expected = "another task's")]
    fn another_tasks_block_is_refused() {
        let cut = Cut { blocks: 2, block: 4, strips: 1, head: 0, strip: 4 };
        Workers::new(1, false).expect("no thread").run_on(&mut [0u8; 8], &cut, 0..1, 1, &|_, mut share| {
            share.part(1 - share.blocks().start);
        });
    }
}
