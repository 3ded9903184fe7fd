//! What this program asks of the C library's allocator. Not an allocator.
#![allow(unsafe_code)] // A call into the C library.

/// From this many bytes on memory is mapped from the system, and given back to it as soon as it is freed.
#[cfg(target_env = "gnu")]
const MAPPED_FROM: libc::c_int = 128 << 10;

/// Has large pieces given back when they are freed. Left to itself glibc raises the bound with every such piece that is
/// freed, to 32 MiB: the largest image that a box ever decoded, and what a model was read from, would stay part of it.
pub(crate) fn give_back_large_pieces() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt changes a setting and touches no memory of ours. No thread has been started yet; where it fails
    // (it returns 0) the setting stays what it was.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_FROM);
    }
}
