//! Nothing is allocated while the engine infers: what counts is the allocator itself. One test only, since it counts what
//! every thread of this program does.
#![allow(unsafe_code)] // An allocator that counts, and hands on to the system's.

#[path = "common/networks.rs"]
mod networks;

use networks::{Random, small_network};
use roentgen::kernels::available;
use roentgen::network::engine::Engine;
use roentgen::network::plan::{Family, Memory, Options};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps `alloc`'s contract, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: `pointer` came from `alloc` above, and so from the system.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

#[test]
fn nothing_is_allocated_while_inferring() {
    for odd in [false, true] {
        let network = small_network(1, odd);
        let image = Random(2).image(network.input_size);
        for kernels in available() {
            for memory in [Memory::Small, Memory::Balanced, Memory::Fast] {
                for (threads, family) in [(1, Family::Any), (3, Family::Any), (3, Family::Direct)] {
                    for fuse_pool in [true, false] {
                        let options = Options { memory, family, fuse_pool, ..Options::new(kernels, threads) };
                        let mut engine = Engine::new(&network, options, false).expect("an engine");
                        // The first call may make what the system makes once, as the threads' names.
                        engine.infer(image.data()).expect("an image");
                        let before = ALLOCATIONS.load(Ordering::Relaxed);
                        for _ in 0..5 {
                            engine.infer(image.data()).expect("an image");
                        }
                        let after = ALLOCATIONS.load(Ordering::Relaxed);
                        assert_eq!(after - before, 0, "{} {memory:?} {threads} threads", kernels.name);
                        assert!(!engine.evidence().data().is_empty());
                        assert!(ALLOCATIONS.load(Ordering::Relaxed) > after, "the counter counts");
                    }
                }
            }
        }
    }
}
