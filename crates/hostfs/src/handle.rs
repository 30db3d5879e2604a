//! name_to_handle_at(2), for which there is no safe wrapper: the only unsafe code of this crate.

#![allow(
    unsafe_code,
    reason = "a system call that neither rustix nor nix wraps: one function, one call"
)]

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// `struct file_handle` of `include/linux/fs.h`, with room for the largest handle (`MAX_HANDLE_SZ`).
#[repr(C)]
struct FileHandle {
    handle_bytes: u32,
    handle_type: i32,
    f_handle: [u8; FileHandle::MAX],
}

impl FileHandle {
    const MAX: usize = 128;
}

/// The id of the mount on which an entry of `dir` lies, as `/proc/self/mountinfo` has it; with an empty name, of `dir`
/// itself. A symlink is not followed; what is mounted on the entry is what is asked about. By name_to_handle_at(2), Linux
/// 2.6.39.
///
/// # Errors
/// EOPNOTSUPP where the file system has no handles (procfs; overlayfs on many kernels), ENOSYS where the kernel was built
/// without `CONFIG_FHANDLE`, EPERM where a container's filter forbids the call.
pub(crate) fn mount_id_by_handle(dir: BorrowedFd<'_>, name: &CStr) -> io::Result<u64> {
    let mut handle = FileHandle {
        handle_bytes: 128,
        handle_type: 0,
        f_handle: [0; FileHandle::MAX],
    };
    let mut mount_id: libc::c_int = -1;
    let flags = if name.is_empty() { libc::AT_EMPTY_PATH } else { 0 };
    // SAFETY: `name` ends with NUL; the kernel writes at most `handle_bytes` bytes behind the head of the handle, which is
    // what `FileHandle` has room for, and one int. All of them live until the call returns.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_name_to_handle_at,
            libc::c_long::from(dir.as_raw_fd()),
            name.as_ptr(),
            &raw mut handle,
            &raw mut mount_id,
            libc::c_long::from(flags),
        )
    };
    if answer < 0 {
        let error = io::Error::last_os_error();
        // `do_sys_name_to_handle` (fs/fhandle.c) writes the mount id also when it finds no handle that fits, and then gives
        // EOVERFLOW. The man page does not promise it, so an id that was not written is told apart by being negative.
        if error.raw_os_error() != Some(libc::EOVERFLOW) {
            return Err(error);
        }
    }
    u64::try_from(mount_id).map_err(|_| io::Error::from_raw_os_error(libc::EOVERFLOW))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use std::fs::File;
    use std::os::fd::AsFd;
    use std::os::unix::fs::MetadataExt;
    use std::path::Path;

    use nodemend_lab::disk::{Format, Ground};
    use rustix::fs::{AtFlags, StatxFlags};

    use super::*;

    fn by_statx(dir: &File, name: &CStr) -> u64 {
        let flags = AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::statx(dir, name, flags, StatxFlags::MNT_ID)
            .unwrap()
            .stx_mnt_id
    }

    fn bind(from: &Path, to: &Path) {
        rustix::mount::mount_bind(from, to).unwrap();
    }

    #[test]
    fn a_handle_names_the_mount_that_statx_names() {
        let ground = Ground::enter().unwrap();
        let disks = Format::ALL.map(|format| ground.disk(format, 320).unwrap());
        let tmpfs = ground.directory().unwrap();
        for place in disks.iter().chain([&tmpfs]) {
            std::fs::create_dir(place.join("below")).unwrap();
            std::fs::write(place.join("file"), "").unwrap();
            std::os::unix::fs::symlink("/proc", place.join("link")).unwrap();
            let dir = File::open(place).unwrap();
            for name in [c"", c".", c"below", c"file", c"link"] {
                let id = mount_id_by_handle(dir.as_fd(), name).unwrap();
                assert_eq!(id, by_statx(&dir, name), "{place:?} {name:?}");
                assert_eq!(id, by_statx(&dir, c""), "{place:?} {name:?}");
            }
        }
    }

    #[test]
    fn a_handle_tells_a_bind_mount_of_the_same_file_system() {
        let ground = Ground::enter().unwrap();
        for place in Format::ALL.map(|format| ground.disk(format, 320).unwrap()) {
            for name in ["outside", "below"] {
                std::fs::create_dir(place.join(name)).unwrap();
                std::fs::write(place.join(name).join("file"), "").unwrap();
            }
            std::fs::write(place.join("file"), "").unwrap();
            bind(&place.join("outside"), &place.join("below"));
            bind(&place.join("outside/file"), &place.join("file"));
            let dir = File::open(&place).unwrap();
            let id = |name| mount_id_by_handle(dir.as_fd(), name).unwrap();
            assert_eq!(id(c"outside"), id(c""));
            assert_ne!(id(c"below"), id(c""));
            assert_ne!(id(c"file"), id(c""));
            assert_eq!(id(c"below"), by_statx(&dir, c"below"));
            assert_eq!(
                place.join("below").metadata().unwrap().dev(),
                dir.metadata().unwrap().dev(),
                "a device number does not tell"
            );
        }
    }

    #[test]
    fn a_file_system_without_handles_says_so() {
        let proc = File::open("/proc").unwrap();
        let error = mount_id_by_handle(proc.as_fd(), c"").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EOPNOTSUPP));
    }
}
