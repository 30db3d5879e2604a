//! Flags.
use rustix::fs::AtFlags;
use rustix::io::Errno;
use std::ffi::CStr;
use std::os::fd::BorrowedFd;
pub(crate) enum Flag {
    Immutable,
    AppendOnly,
}
pub(crate) fn protecting(_p: BorrowedFd<'_>, _n: &CStr) -> Option<Flag> {
    None
}
pub(crate) fn remove_protected(_p: BorrowedFd<'_>, _n: &CStr, _h: AtFlags) -> Result<(), Errno> {
    Err(Errno::PERM)
}
