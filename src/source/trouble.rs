//! Which errors of the system are about the box, which about a file, and which pass. Reads the error and nothing else.

use std::io;

/// Whom an error of the system is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// The whole box: no memory, no descriptors, no room, a disk that may only be read. It passes, and nothing can be done
    /// until then.
    Box,
    /// A disk or a network folder that may answer the next time.
    Passing,
    /// This file, and it will stay so.
    Lasting,
}

/// Whom this one is about.
pub(super) fn fate(error: &io::Error) -> Fate {
    let Some(code) = error.raw_os_error() else { return Fate::Lasting };
    match code {
        libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOBUFS | libc::EAGAIN => Fate::Box,
        libc::ENOSPC | libc::EDQUOT | libc::EROFS => Fate::Box,
        libc::EIO | libc::ESTALE | libc::ETIMEDOUT | libc::ENOTCONN | libc::ECONNRESET | libc::ECONNABORTED => {
            Fate::Passing
        }
        libc::EHOSTDOWN | libc::EHOSTUNREACH | libc::ENETDOWN | libc::ENETUNREACH | libc::ENOLINK => Fate::Passing,
        libc::ENODEV | libc::ENXIO | libc::EREMOTEIO | libc::EBUSY | libc::EINTR | libc::EPIPE => Fate::Passing,
        _ => Fate::Lasting,
    }
}
