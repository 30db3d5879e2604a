//! btrfs subvolumes.
use rustix::io::Errno;
use std::ffi::CStr;
use std::os::fd::BorrowedFd;
pub(crate) enum Refusal {
    Kernel(Errno),
    Mounted,
}
pub(crate) fn is_root(stat: &rustix::fs::Stat) -> bool {
    stat.st_ino == 256
}
pub(crate) fn is_read_only(_dir: BorrowedFd<'_>) -> bool {
    false
}
pub(crate) fn destroy(_p: BorrowedFd<'_>, _n: &CStr, _c: BorrowedFd<'_>) -> Result<(), Refusal> {
    Err(Refusal::Mounted)
}
