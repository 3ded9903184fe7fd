//! Video4Linux, call by call: what of the kernel's interface a camera needs, safe to use. The constants and layouts are the
//! crate `v4l`'s; its own streams are not used, since they panic over values and errors that drivers do give, when they are
//! dropped too. Nothing about which mode is good or what a frame shows.

#![allow(unsafe_code, reason = "ioctl, mmap and poll")]

use std::ffi::c_void;
use std::io;
use std::mem::zeroed;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::ptr::{NonNull, null_mut};
use std::time::Duration;
use v4l::v4l_sys::{
    v4l2_buffer, v4l2_capability, v4l2_fmtdesc, v4l2_format, v4l2_frmivalenum, v4l2_frmsizeenum, v4l2_requestbuffers,
    v4l2_streamparm,
};
use v4l::v4l2::vidioc;

const CAPTURE: u32 = v4l::v4l_sys::v4l2_buf_type_V4L2_BUF_TYPE_VIDEO_CAPTURE;
const MMAP: u32 = v4l::v4l_sys::v4l2_memory_V4L2_MEMORY_MMAP;
const CAN_CAPTURE: u32 = v4l::v4l_sys::V4L2_CAP_VIDEO_CAPTURE;
const CAN_STREAM: u32 = v4l::v4l_sys::V4L2_CAP_STREAMING;
const HAS_OWN_CAPABILITIES: u32 = v4l::v4l_sys::V4L2_CAP_DEVICE_CAPS;
const ERRONEOUS: u32 = v4l::v4l_sys::V4L2_BUF_FLAG_ERROR;
const CLOCK: u32 = v4l::v4l_sys::V4L2_BUF_FLAG_TIMESTAMP_MASK;
const MONOTONIC: u32 = v4l::v4l_sys::V4L2_BUF_FLAG_TIMESTAMP_MONOTONIC;

/// Most entries of a list that a driver gives: some never end.
const MOST: u32 = 200;
/// Buffers that are asked for.
const BUFFERS: u32 = 4;
/// No frame waits so long in a buffer: a driver that says so has another clock.
const OLDEST: Duration = Duration::from_secs(4);

/// An open video device.
#[derive(Debug)]
pub(super) struct Handle(OwnedFd);

/// What a device says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Said {
    /// The maker's name for it.
    pub(super) card: String,
    /// Its driver.
    pub(super) driver: String,
    /// Whether it gives pictures in the way that is understood here.
    pub(super) is_camera: bool,
}

/// The sizes that a device offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Size {
    /// This one.
    One(u32, u32),
    /// All from the first to the second, in steps of the third: columns, then rows.
    Range([u32; 3], [u32; 3]),
}

/// What a device was set to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Set {
    pub(super) code: [u8; 4],
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) stride: u32,
}

impl Handle {
    /// Opens a device; no call on it waits.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        if path.as_os_str().as_encoded_bytes().contains(&0) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let descriptor = v4l::v4l2::open(path, libc::O_RDWR | libc::O_NONBLOCK | libc::O_CLOEXEC)?;
        // SAFETY: it was just opened, and nobody else knows it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(descriptor) }))
    }

    /// A call whose argument is a `T`.
    ///
    /// # Safety
    /// `request` must be one for which the kernel reads and writes a `T`, and nothing that pointers in it lead to.
    unsafe fn call<T>(&self, request: vidioc::_IOC_TYPE, argument: &mut T) -> io::Result<()> {
        loop {
            // SAFETY: the descriptor is open, and the caller vouches for the rest.
            let done = unsafe { v4l::v4l2::ioctl(self.0.as_raw_fd(), request, (&raw mut *argument).cast::<c_void>()) };
            match done {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                done => return done,
            }
        }
    }

    /// What it says of itself.
    pub(super) fn said(&self) -> io::Result<Said> {
        // SAFETY: plain numbers, of which 0 is one.
        let mut said: v4l2_capability = unsafe { zeroed() };
        // SAFETY: the argument of this request.
        unsafe { self.call(vidioc::VIDIOC_QUERYCAP, &mut said)? };
        let can = if said.capabilities & HAS_OWN_CAPABILITIES != 0 { said.device_caps } else { said.capabilities };
        let wanted = CAN_CAPTURE | CAN_STREAM;
        Ok(Said { card: text(&said.card), driver: text(&said.driver), is_camera: can & wanted == wanted })
    }

    /// Its pixel formats.
    pub(super) fn formats(&self) -> Vec<[u8; 4]> {
        let format = |index: u32| {
            // SAFETY: plain numbers, of which 0 is one.
            let mut format: v4l2_fmtdesc = unsafe { zeroed() };
            (format.index, format.type_) = (index, CAPTURE);
            // SAFETY: the argument of this request.
            unsafe { self.call(vidioc::VIDIOC_ENUM_FMT, &mut format) }.ok()?;
            Some(format.pixelformat.to_le_bytes())
        };
        (0..MOST).map_while(format).collect()
    }

    /// The sizes of a pixel format.
    pub(super) fn sizes(&self, code: [u8; 4]) -> Vec<Size> {
        let size = |index: u32| {
            // SAFETY: plain numbers, of which 0 is one.
            let mut size: v4l2_frmsizeenum = unsafe { zeroed() };
            (size.index, size.pixel_format) = (index, u32::from_le_bytes(code));
            // SAFETY: the argument of this request.
            unsafe { self.call(vidioc::VIDIOC_ENUM_FRAMESIZES, &mut size) }.ok()?;
            if size.type_ == v4l::v4l_sys::v4l2_frmsizetypes_V4L2_FRMSIZE_TYPE_DISCRETE {
                // SAFETY: the type says that this is the field in use; all are plain numbers.
                let one = unsafe { size.__bindgen_anon_1.discrete };
                return Some(Size::One(one.width, one.height));
            }
            // SAFETY: as above.
            let range = unsafe { size.__bindgen_anon_1.stepwise };
            Some(Size::Range(
                [range.min_width, range.max_width, range.step_width],
                [range.min_height, range.max_height, range.step_height],
            ))
        };
        (0..MOST).map_while(size).collect()
    }

    /// The most pictures a second of a mode, where it says so.
    pub(super) fn rate(&self, code: [u8; 4], width: u32, height: u32) -> Option<f64> {
        let rate = |index: u32| {
            // SAFETY: plain numbers, of which 0 is one.
            let mut interval: v4l2_frmivalenum = unsafe { zeroed() };
            (interval.index, interval.pixel_format) = (index, u32::from_le_bytes(code));
            (interval.width, interval.height) = (width, height);
            // SAFETY: the argument of this request.
            unsafe { self.call(vidioc::VIDIOC_ENUM_FRAMEINTERVALS, &mut interval) }.ok()?;
            // SAFETY: the least interval of a range stands where a single one does; both are plain numbers.
            let shortest = unsafe { interval.__bindgen_anon_1.discrete };
            Some(f64::from(shortest.denominator) / f64::from(shortest.numerator.max(1)))
        };
        (0..MOST).map_while(rate).reduce(f64::max)
    }

    /// The size that it is set to.
    pub(super) fn current(&self) -> io::Result<(u32, u32)> {
        // SAFETY: plain numbers, of which 0 is one.
        let mut format: v4l2_format = unsafe { zeroed() };
        format.type_ = CAPTURE;
        // SAFETY: the argument of this request.
        unsafe { self.call(vidioc::VIDIOC_G_FMT, &mut format)? };
        // SAFETY: the field in use for this type of buffer; plain numbers.
        let pix = unsafe { format.fmt.pix };
        Ok((pix.width, pix.height))
    }

    /// Sets it to a mode, and says what it made of that.
    pub(super) fn set(&self, code: [u8; 4], width: u32, height: u32) -> io::Result<Set> {
        // SAFETY: plain numbers, of which 0 is one.
        let mut format: v4l2_format = unsafe { zeroed() };
        format.type_ = CAPTURE;
        format.fmt.pix.width = width;
        format.fmt.pix.height = height;
        format.fmt.pix.pixelformat = u32::from_le_bytes(code);
        // SAFETY: the argument of this request.
        unsafe { self.call(vidioc::VIDIOC_S_FMT, &mut format)? };
        // SAFETY: the field in use for this type of buffer; plain numbers.
        let pix = unsafe { format.fmt.pix };
        let code = pix.pixelformat.to_le_bytes();
        Ok(Set { code, width: pix.width, height: pix.height, stride: pix.bytesperline })
    }

    /// Asks for so many pictures a second. Not every device can.
    pub(super) fn set_rate(&self, rate: u32) -> io::Result<()> {
        // SAFETY: plain numbers, of which 0 is one.
        let mut parameters: v4l2_streamparm = unsafe { zeroed() };
        parameters.type_ = CAPTURE;
        parameters.parm.capture.timeperframe.numerator = 1;
        parameters.parm.capture.timeperframe.denominator = rate;
        // SAFETY: the argument of this request.
        unsafe { self.call(vidioc::VIDIOC_S_PARM, &mut parameters) }
    }
}

/// Text that ends with a 0.
fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).chars().filter(|c| !c.is_control()).collect()
}

/// A buffer of the driver's in this process's memory.
#[derive(Debug)]
struct Mapped {
    start: NonNull<u8>,
    length: usize,
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: it was mapped with this length, and slices of it live no longer than it.
        let _ = unsafe { v4l::v4l2::munmap(self.start.as_ptr().cast::<c_void>(), self.length) };
    }
}

/// A device that sends frames. Dropping it stops and closes it.
#[derive(Debug)]
pub(super) struct Stream {
    buffers: Vec<Mapped>,
    handle: Handle,
}

/// A frame in a buffer, which goes back when it was looked at.
#[derive(Debug, Clone, Copy)]
pub(super) struct Filled {
    index: u32,
    used: usize,
    /// How long ago it was taken, as far as the driver tells.
    pub(super) age: Duration,
    /// The driver says that it is whole.
    pub(super) is_sound: bool,
}

impl Stream {
    /// Has a device send frames.
    pub(super) fn start(handle: Handle) -> io::Result<Self> {
        let mut stream = Self { buffers: Vec::new(), handle };
        for index in 0..stream.request(BUFFERS)? {
            let buffer = stream.describe(vidioc::VIDIOC_QUERYBUF, index)?;
            // SAFETY: the field in use for mapped buffers.
            let offset = unsafe { buffer.m.offset };
            let length = buffer.length as usize;
            let (access, descriptor) = (libc::PROT_READ | libc::PROT_WRITE, stream.handle.0.as_raw_fd());
            // SAFETY: a new mapping wherever there is room, of what the driver says that this buffer is.
            let start = unsafe {
                v4l::v4l2::mmap(null_mut(), length, access, libc::MAP_SHARED, descriptor, offset as libc::off_t)?
            };
            let start = NonNull::new(start.cast::<u8>()).ok_or_else(|| io::Error::other("no memory was mapped"))?;
            stream.buffers.push(Mapped { start, length });
            stream.queue(index)?;
        }
        if stream.buffers.is_empty() {
            return Err(io::Error::other("it gives no buffers"));
        }
        stream.switch(vidioc::VIDIOC_STREAMON)?;
        Ok(stream)
    }

    fn request(&self, count: u32) -> io::Result<u32> {
        // SAFETY: plain numbers, of which 0 is one.
        let mut request: v4l2_requestbuffers = unsafe { zeroed() };
        (request.count, request.type_, request.memory) = (count, CAPTURE, MMAP);
        // SAFETY: the argument of this request.
        unsafe { self.handle.call(vidioc::VIDIOC_REQBUFS, &mut request)? };
        Ok(request.count.min(32))
    }

    fn describe(&self, request: vidioc::_IOC_TYPE, index: u32) -> io::Result<v4l2_buffer> {
        // SAFETY: plain numbers, and a pointer that mapped buffers do not use.
        let mut buffer: v4l2_buffer = unsafe { zeroed() };
        (buffer.index, buffer.type_, buffer.memory) = (index, CAPTURE, MMAP);
        // SAFETY: the argument of all requests that this is called with.
        unsafe { self.handle.call(request, &mut buffer)? };
        Ok(buffer)
    }

    fn switch(&self, request: vidioc::_IOC_TYPE) -> io::Result<()> {
        let mut kind = CAPTURE;
        // SAFETY: both requests take the type of buffers.
        unsafe { self.handle.call(request, &mut kind) }
    }

    fn queue(&self, index: u32) -> io::Result<()> {
        self.describe(vidioc::VIDIOC_QBUF, index).map(drop)
    }

    /// Waits until there may be a frame; false where there was none in this time.
    pub(super) fn wait(&self, patience: Duration) -> io::Result<bool> {
        let mut what = libc::pollfd { fd: self.handle.0.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let milliseconds = i32::try_from(patience.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: one entry, which lives through the call.
        match unsafe { libc::poll(&raw mut what, 1, milliseconds) } {
            -1 => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => Ok(false),
                error => Err(error),
            },
            0 => Ok(false),
            // A device that is gone is always "ready".
            _ => Ok(true),
        }
    }

    /// The next frame, if one is ready.
    pub(super) fn take(&self) -> io::Result<Option<Filled>> {
        match self.describe(vidioc::VIDIOC_DQBUF, 0) {
            Ok(buffer) => Ok(Some(Filled {
                index: buffer.index,
                used: buffer.bytesused as usize,
                age: age(buffer.flags, since_boot(&buffer), monotonic()),
                is_sound: buffer.flags & ERRONEOUS == 0 && buffer.bytesused > 0,
            })),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Looks at a frame and gives its buffer back.
    pub(super) fn look<T>(&mut self, filled: Filled, look: impl FnOnce(&[u8]) -> T) -> io::Result<T> {
        let buffer = self.buffers.get(filled.index as usize).ok_or_else(|| io::Error::other("an unknown buffer"))?;
        // SAFETY: mapped with this length; the driver writes to no buffer that it has handed out, and it gets it back below,
        // when the slice is gone.
        let bytes = unsafe { std::slice::from_raw_parts(buffer.start.as_ptr(), buffer.length.min(filled.used)) };
        let seen = look(bytes);
        self.queue(filled.index)?;
        Ok(seen)
    }
}

/// A part of a time; drivers may write rubbish.
fn part(number: impl TryInto<u64>) -> u64 {
    number.try_into().unwrap_or_default()
}

/// The time that a driver has written on a frame.
fn since_boot(buffer: &v4l2_buffer) -> Duration {
    let time = buffer.timestamp;
    Duration::from_secs(part(time.tv_sec)).saturating_add(Duration::from_micros(part(time.tv_usec)))
}

/// The time of the clock that most drivers go by, and `Instant` too.
fn monotonic() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the place for the answer lives through the call.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    Duration::from_secs(part(time.tv_sec)) + Duration::from_nanos(part(time.tv_nsec))
}

/// How old a frame is; nothing, where its time says nothing.
fn age(flags: u32, taken: Duration, now: Duration) -> Duration {
    let age = now.checked_sub(taken).filter(|age| flags & CLOCK == MONOTONIC && *age <= OLDEST);
    age.unwrap_or_default()
}

impl Drop for Stream {
    fn drop(&mut self) {
        // One that was unplugged refuses all this, and has no need of it.
        let _ = self.switch(vidioc::VIDIOC_STREAMOFF);
        self.buffers.clear();
        let _ = self.request(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_as_old_as_its_driver_says_where_that_can_be() {
        let ms = Duration::from_millis;
        assert_eq!(age(MONOTONIC | ERRONEOUS, ms(900), ms(1000)), ms(100));
        for (flags, taken, what) in [
            (0, 900, "no clock is named"),
            (0x4000, 900, "a copied time"),
            (MONOTONIC, 1001, "not taken yet"),
            (MONOTONIC, 0, "since another moment"),
        ] {
            let now = if taken == 0 { ms(1_000_000) } else { ms(1000) };
            assert_eq!(age(flags, ms(taken), now), Duration::ZERO, "{what}");
        }
        // SAFETY: plain numbers, of which 0 is one.
        let mut buffer: v4l2_buffer = unsafe { zeroed() };
        (buffer.timestamp.tv_sec, buffer.timestamp.tv_usec) = (3, 250_000);
        assert_eq!(since_boot(&buffer), ms(3250));
        (buffer.timestamp.tv_sec, buffer.timestamp.tv_usec) = (-1, i64::MAX);
        since_boot(&buffer);
        assert!(monotonic() > Duration::ZERO);
    }
}
