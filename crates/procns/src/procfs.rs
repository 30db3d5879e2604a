//! Reading /proc below an open directory.

use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags, RawDir, openat, readlinkat_raw};
use rustix::io::Errno;

/// Opens a directory for listing and for calls relative to it.
pub(crate) fn open_dir(at: impl AsFd, name: impl rustix::path::Arg) -> Result<OwnedFd, Errno> {
    openat(
        at,
        name,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
}

/// Opens /proc.
pub(crate) fn open_proc() -> Result<OwnedFd, Errno> {
    open_dir(CWD, c"/proc")
}

/// Reads a file into `buffer`, which is cleared before. False if it is longer than `limit`, in bytes.
///
/// For files that the kernel writes in one piece (`single_open` in fs/seq_file.c, and `environ`): a read that does not
/// fill the buffer is the last one.
pub(crate) fn read(
    at: impl AsFd,
    name: impl rustix::path::Arg,
    buffer: &mut Vec<u8>,
    limit: usize,
) -> Result<bool, Errno> {
    read_until(at, name, buffer, limit, |got, asked| got < asked)
}

/// As [`read`], for files of many records: the kernel gives as many as fit into a page, so only a read of nothing
/// is the end.
pub(crate) fn read_records(
    at: impl AsFd,
    name: impl rustix::path::Arg,
    buffer: &mut Vec<u8>,
    limit: usize,
) -> Result<bool, Errno> {
    read_until(at, name, buffer, limit, |got, _| got == 0)
}

fn read_until(
    at: impl AsFd,
    name: impl rustix::path::Arg,
    buffer: &mut Vec<u8>,
    limit: usize,
    is_last: impl Fn(usize, usize) -> bool,
) -> Result<bool, Errno> {
    let fd = openat(at, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    buffer.clear();
    loop {
        buffer.reserve(buffer.len().max(4096));
        let asked = buffer.capacity() - buffer.len();
        match rustix::io::read(&fd, rustix::buffer::spare_capacity(buffer)) {
            Ok(got) if buffer.len() <= limit && is_last(got, asked) => return Ok(true),
            Ok(_) if buffer.len() > limit => return Ok(false),
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// Calls `each` for every entry of a directory whose name is a number, until it fails.
pub(crate) fn numbers<E: From<Errno>>(
    dir: impl AsFd,
    mut each: impl FnMut(u32, &CStr) -> Result<(), E>,
) -> Result<(), E> {
    let mut buffer = [std::mem::MaybeUninit::uninit(); 8192];
    let mut entries = RawDir::new(dir, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let number = entry.file_name().to_str().ok().and_then(|name| name.parse().ok());
        if let Some(number) = number {
            each(number, entry.file_name())?;
        }
    }
    Ok(())
}

/// The first bytes of the text of a link: enough to tell a namespace from a path.
#[derive(Clone, Copy, Default)]
pub(crate) struct LinkText {
    bytes: [u8; 32],
    len: usize,
}

impl LinkText {
    /// Reads it.
    pub(crate) fn read(at: impl AsFd, name: impl rustix::path::Arg) -> Result<Self, Errno> {
        let mut text = Self::default();
        text.len = readlinkat_raw(at, name, &mut text.bytes)?;
        Ok(text)
    }

    /// The text, cut at 32 bytes.
    pub(crate) fn text(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    /// The inode of the namespace, if the text is `kind:[inode]`. No file can have such a text by its name: the
    /// text of a file starts with `/`.
    pub(crate) fn namespace(&self, kind: &[u8]) -> Option<u64> {
        let inode = self
            .text()
            .strip_prefix(kind)?
            .strip_prefix(b":[")?
            .strip_suffix(b"]")?;
        std::str::from_utf8(inode).ok()?.parse().ok()
    }
}

/// True for the errors that say that a process or thread has ended meanwhile.
pub(crate) fn is_gone(errno: Errno) -> bool {
    matches!(errno, Errno::NOENT | Errno::SRCH)
}
