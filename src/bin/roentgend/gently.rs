//! Working so that the daemon beside this process is not kept waiting, nor killed in its place. Asks only: where the system
//! does not let it, the work is done all the same.
#![allow(unsafe_code)] // A call into the C library.

/// How far back in the queue for the processor; 0 is ordinary, 19 the last.
const NICE: libc::c_int = 10;

/// How readily the kernel takes this process when memory runs out; 0 is ordinary, 1000 always.
const OUT_OF_MEMORY: &str = "500";

/// From now on radiographs come first.
pub(crate) fn give_way() {
    // SAFETY: setpriority changes a number that the kernel keeps of this process, and touches no memory of ours.
    let _ = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICE) };
    let _ = std::fs::write("/proc/self/oom_score_adj", OUT_OF_MEMORY);
}
