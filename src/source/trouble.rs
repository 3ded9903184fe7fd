//! Which errors of the system are about the box, which about a file, and which pass. Reads the error and nothing else.

use std::io::{self, ErrorKind};

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
    match error.raw_os_error() {
        Some(code) => of_code(code),
        // A library has put its own words around it; the kind is what it kept.
        None => of_kind(error.kind()),
    }
}

fn of_code(code: i32) -> Fate {
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

fn of_kind(kind: ErrorKind) -> Fate {
    match kind {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::ReadOnlyFilesystem => Fate::Box,
        ErrorKind::OutOfMemory | ErrorKind::WouldBlock => Fate::Box,
        ErrorKind::StaleNetworkFileHandle | ErrorKind::TimedOut | ErrorKind::HostUnreachable => Fate::Passing,
        ErrorKind::NetworkUnreachable | ErrorKind::NetworkDown | ErrorKind::Interrupted => Fate::Passing,
        _ => Fate::Lasting,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_one_whoever_says_so() {
        let plain = io::Error::from_raw_os_error(libc::ENOSPC);
        let wrapped = io::Error::new(plain.kind(), "no space left, says a library");
        assert_eq!((fate(&plain), fate(&wrapped)), (Fate::Box, Fate::Box));
        assert_eq!(fate(&io::Error::from_raw_os_error(libc::EMFILE)), Fate::Box);
        assert_eq!(fate(&io::Error::from_raw_os_error(libc::EIO)), Fate::Passing);
        assert_eq!(fate(&io::Error::from_raw_os_error(libc::EACCES)), Fate::Lasting);
        assert_eq!(fate(&io::Error::new(ErrorKind::InvalidInput, "a pipe")), Fate::Lasting);
    }
}
