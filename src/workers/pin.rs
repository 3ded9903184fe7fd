//! Keeping a thread to one processor, where the system can. Best effort: a thread that cannot be pinned runs where it is put.
#![allow(unsafe_code)] // Two calls of the C library.

/// Pins the calling thread to one of the processors that the process may use: that of this number, counted round.
#[cfg(target_os = "linux")]
pub(super) fn to_processor(number: usize) {
    let size = size_of::<libc::cpu_set_t>();
    // SAFETY: a set of processors is plain bits, of which all may be 0.
    let mut allowed: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set is as large as said, and 0 means the calling thread.
    if unsafe { libc::sched_getaffinity(0, size, &mut allowed) } != 0 {
        log::debug!("threads are not pinned: {}", std::io::Error::last_os_error());
        return;
    }
    // SAFETY: every number below CPU_SETSIZE is within the set.
    let is_allowed = |cpu: &usize| unsafe { libc::CPU_ISSET(*cpu, &allowed) };
    let processors = || (0..libc::CPU_SETSIZE as usize).filter(is_allowed);
    let count = processors().count();
    let Some(processor) = processors().nth(number % count.max(1)) else { return };
    // SAFETY: as above; `processor` is below CPU_SETSIZE.
    let pinned = unsafe {
        let mut one: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(processor, &mut one);
        libc::sched_setaffinity(0, size, &one)
    };
    if pinned != 0 {
        log::debug!("a thread is not pinned to processor {processor}: {}", std::io::Error::last_os_error());
    }
}

/// Does nothing: this system is not known.
#[cfg(not(target_os = "linux"))]
pub(super) fn to_processor(_: usize) {}
