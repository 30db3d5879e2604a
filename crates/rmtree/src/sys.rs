//! The calls of the kernel for which there is no safe wrapper: the only unsafe code of this crate.
//!
//! Each function is one call. What comes back is data of the file system; who reads it checks its bounds.

#![allow(
    unsafe_code,
    reason = "ioctls and two system calls that neither rustix nor nix wraps; each function here is one call"
)]

use std::ffi::CStr;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;
use rustix::ioctl::{Getter, Opcode, Setter, Updater, ioctl, opcode};

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

/// Gives the calling thread the idle I/O class: it gets the disk when nobody else wants it. By ioprio_set(2), with the
/// numbers of `include/uapi/linux/ioprio.h`. Schedulers without classes ignore it.
///
/// # Errors
/// EPERM before Linux 2.6.25 without `CAP_SYS_ADMIN`; ENOSYS where the kernel was built without block devices.
pub(crate) fn set_io_idle() -> io::Result<()> {
    const WHO_PROCESS: libc::c_long = 1;
    const THIS_THREAD: libc::c_long = 0;
    const CLASS_IDLE: libc::c_long = 3 << 13;
    // SAFETY: takes three numbers, touches no memory of this process.
    let answer = unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, THIS_THREAD, CLASS_IDLE) };
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// `struct xfs_fsop_geom_v1` of `fs/xfs/libxfs/xfs_fs.h` (`xfs/xfs_fs.h` of xfslibs-dev).
#[repr(C)]
#[derive(Clone, Copy)]
struct FsopGeomV1 {
    blocksize: u32,
    rtextsize: u32,
    agblocks: u32,
    agcount: u32,
    logblocks: u32,
    sectsize: u32,
    inodesize: u32,
    imaxpct: u32,
    datablocks: u64,
    rtblocks: u64,
    rtextents: u64,
    logstart: u64,
    uuid: [u8; 16],
    sunit: u32,
    swidth: u32,
    version: i32,
    flags: u32,
    logsectsize: u32,
    rtsectsize: u32,
    dirblocksize: u32,
}

#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<FsopGeomV1>() == 112);

/// The allocation groups of an XFS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct XfsGeometry {
    /// How many there are.
    pub(crate) groups: u32,
    /// The group of an inode is its number, shifted right by this.
    pub(crate) shift: u32,
}

/// The allocation groups of the XFS on which `dir` lies. By `XFS_IOC_FSGEOMETRY_V1`, which every kernel has; ask only on XFS,
/// as other file systems and drivers may mean something else by the number. `dir` must not be opened with `O_PATH`.
///
/// # Errors
/// ENOTTY where it is no XFS after all; [`io::ErrorKind::InvalidData`] if the answer makes no sense.
pub(crate) fn xfs_geometry(dir: BorrowedFd<'_>) -> io::Result<XfsGeometry> {
    const GEOMETRY: Opcode = opcode::read::<FsopGeomV1>(b'X', 100);
    // SAFETY: the number says that the kernel writes one `FsopGeomV1`, for which there is room, and all of whose bytes are
    // valid whatever they are.
    let geometry = unsafe { ioctl(dir, Getter::<GEOMETRY, FsopGeomV1>::new()) }?;
    inode_groups(&geometry)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "an XFS of no known shape"))
}

/// `XFS_INO_TO_AGNO` of `fs/xfs/libxfs/xfs_format.h` shifts by `sb_agblklog + sb_inopblog`: the bits of a block's number in its
/// group (log2, rounded up, as the last group may be shorter but none is longer) and the bits of an inode's place in its block.
fn inode_groups(geometry: &FsopGeomV1) -> Option<XfsGeometry> {
    let blocks = geometry.agblocks.checked_next_power_of_two()?.checked_ilog2()?;
    let inodes = geometry
        .blocksize
        .checked_div(geometry.inodesize)?
        .checked_ilog2()?;
    (geometry.agblocks > 0 && geometry.agcount > 0).then_some(XfsGeometry {
        groups: geometry.agcount,
        shift: blocks + inodes,
    })
}

// The ioctls of btrfs, from `include/uapi/linux/btrfs.h`. Ask only on btrfs. No descriptor may be opened with `O_PATH`.

/// `BTRFS_IOCTL_MAGIC`.
const BTRFS: u8 = 0x94;

/// `struct btrfs_ioctl_vol_args`.
#[repr(C)]
struct VolArgs {
    fd: i64,
    name: [u8; VolArgs::NAME],
}

impl VolArgs {
    const NAME: usize = 4088;
}

/// Destroys the subvolume that has a name in a directory, with all that is in it: `BTRFS_IOC_SNAP_DESTROY`.
///
/// # Errors
/// NAMETOOLONG without a call if the name does not fit; else see [`subvolume::destroy`](crate::subvolume::destroy).
pub(crate) fn btrfs_snap_destroy(dir: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<()> {
    const SNAP_DESTROY: Opcode = opcode::write::<VolArgs>(BTRFS, 15);
    let mut args = VolArgs {
        fd: 0,
        name: [0; VolArgs::NAME],
    };
    let bytes = name.to_bytes_with_nul();
    args.name
        .get_mut(..bytes.len())
        .ok_or(Errno::NAMETOOLONG)?
        .copy_from_slice(bytes);
    // SAFETY: the number says that the kernel reads one `VolArgs`; its name ends with NUL.
    unsafe { ioctl(dir, Setter::<SNAP_DESTROY, VolArgs>::new(args)) }
}

/// `BTRFS_SUBVOL_RDONLY`, the only flag that [`btrfs_subvol_flags`] gives.
pub(crate) const BTRFS_SUBVOL_RDONLY: u64 = 1 << 1;

/// The flags of a subvolume, from its root directory: `BTRFS_IOC_SUBVOL_GETFLAGS`.
///
/// # Errors
/// INVAL for any other directory.
pub(crate) fn btrfs_subvol_flags(root: BorrowedFd<'_>) -> rustix::io::Result<u64> {
    const SUBVOL_GETFLAGS: Opcode = opcode::read::<u64>(BTRFS, 25);
    // SAFETY: the number says that the kernel writes one u64.
    unsafe { ioctl(root, Getter::<SUBVOL_GETFLAGS, u64>::new()) }
}

/// Sets the flags of a subvolume, by its root directory: `BTRFS_IOC_SUBVOL_SETFLAGS`.
///
/// # Errors
/// PERM for anybody but its owner and root, and while it is being sent.
pub(crate) fn btrfs_set_subvol_flags(root: BorrowedFd<'_>, flags: u64) -> rustix::io::Result<()> {
    const SUBVOL_SETFLAGS: Opcode = opcode::write::<u64>(BTRFS, 26);
    // SAFETY: the number says that the kernel reads one u64.
    unsafe { ioctl(root, Setter::<SUBVOL_SETFLAGS, u64>::new(flags)) }
}

/// `struct btrfs_ioctl_ino_lookup_args`.
#[repr(C)]
struct InoLookup {
    tree: u64,
    inode: u64,
    name: [u8; InoLookup::NAME],
}

impl InoLookup {
    const NAME: usize = 4080;
}

/// In which subvolume an inode lies, and its path below the root of that, with a slash at the end: `BTRFS_IOC_INO_LOOKUP`.
/// Subvolume 0 is that of `dir`. The path of a root directory (inode 256) is empty.
///
/// # Errors
/// NOENT if there is no such inode, NAMETOOLONG if the path has more than 4,079 bytes. PERM without `CAP_SYS_ADMIN`, except
/// for a root directory since Linux 4.2.
pub(crate) fn btrfs_ino_lookup(
    dir: BorrowedFd<'_>,
    subvolume: u64,
    inode: u64,
) -> rustix::io::Result<(u64, Vec<u8>)> {
    const INO_LOOKUP: Opcode = opcode::read_write::<InoLookup>(BTRFS, 18);
    let mut args = InoLookup {
        tree: subvolume,
        inode,
        name: [0; InoLookup::NAME],
    };
    // SAFETY: the number says that the kernel reads and writes one `InoLookup`, all of whose bytes are valid whatever they are.
    unsafe { ioctl(dir, Updater::<INO_LOOKUP, InoLookup>::new(&mut args)) }?;
    let path = args.name.split(|&byte| byte == 0).next().unwrap_or_default();
    Ok((args.tree, path.to_vec()))
}

/// A key of a tree of btrfs; they are ordered as they are here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct BtrfsKey {
    pub(crate) object: u64,
    pub(crate) kind: u32,
    pub(crate) offset: u64,
}

/// `struct btrfs_ioctl_search_args`, whose first member is `struct btrfs_ioctl_search_key`.
#[repr(C)]
struct SearchArgs {
    tree: u64,
    min_object: u64,
    max_object: u64,
    min_offset: u64,
    max_offset: u64,
    min_transaction: u64,
    max_transaction: u64,
    min_kind: u32,
    max_kind: u32,
    items: u32,
    unused: u32,
    unused_too: [u64; 4],
    buffer: [u8; SearchArgs::BUFFER],
}

impl SearchArgs {
    const BUFFER: usize = 4096 - 104;
}

const _: () = assert!(size_of::<VolArgs>() == 4096);
const _: () = assert!(size_of::<InoLookup>() == 4096);
const _: () = assert!(size_of::<SearchArgs>() == 4096);

/// Items of a tree whose keys are in a range, as many as fit: how many, and `struct btrfs_ioctl_search_header` and content of
/// each, one behind the other. `BTRFS_IOC_TREE_SEARCH`.
///
/// # Errors
/// PERM without `CAP_SYS_ADMIN`.
pub(crate) fn btrfs_tree_search(
    dir: BorrowedFd<'_>,
    tree: u64,
    from: BtrfsKey,
    to: BtrfsKey,
) -> rustix::io::Result<(u32, Vec<u8>)> {
    const TREE_SEARCH: Opcode = opcode::read_write::<SearchArgs>(BTRFS, 17);
    let mut args = SearchArgs {
        tree,
        min_object: from.object,
        max_object: to.object,
        min_offset: from.offset,
        max_offset: to.offset,
        min_transaction: 0,
        max_transaction: u64::MAX,
        min_kind: from.kind,
        max_kind: to.kind,
        items: u32::MAX,
        unused: 0,
        unused_too: [0; 4],
        buffer: [0; SearchArgs::BUFFER],
    };
    // SAFETY: the number says that the kernel reads and writes one `SearchArgs`, all of whose bytes are valid whatever they are.
    unsafe { ioctl(dir, Updater::<TREE_SEARCH, SearchArgs>::new(&mut args)) }?;
    Ok((args.items, args.buffer.to_vec()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use std::fs::File;
    use std::os::fd::AsFd;
    use std::os::unix::fs::MetadataExt;
    use std::path::Path;
    use std::process::Command;
    use std::thread;

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

    #[test]
    fn the_idle_class_is_of_the_calling_thread_only() {
        fn class() -> String {
            let thread = rustix::thread::gettid().as_raw_nonzero().to_string();
            let output = Command::new("ionice").args(["-p", &thread]).output().unwrap();
            String::from_utf8(output.stdout).unwrap()
        }
        let before = class();
        thread::spawn(|| {
            set_io_idle().unwrap();
            assert_eq!(class().trim(), "idle");
        })
        .join()
        .unwrap();
        assert_eq!(class(), before);
    }

    /// What xfs_db reads in the superblock itself.
    fn superblock(disk: &Path, field: &str) -> u32 {
        let find = |args: &[&str]| {
            let output = Command::new(args[0]).args(&args[1..]).output().unwrap();
            assert!(output.status.success(), "{args:?}: {output:?}");
            String::from_utf8(output.stdout).unwrap().trim().to_owned()
        };
        let device = find(&["findmnt", "-n", "-o", "SOURCE", disk.to_str().unwrap()]);
        let line = find(&[
            "xfs_db",
            "-r",
            "-c",
            "sb 0",
            "-c",
            &format!("print {field}"),
            &device,
        ]);
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }

    #[test]
    fn the_groups_of_an_xfs_are_those_of_its_superblock() {
        let ground = Ground::enter().unwrap();
        for megabytes in [320, 500, 1024] {
            let disk = ground.disk(Format::Xfs, megabytes).unwrap();
            let geometry = xfs_geometry(File::open(&disk).unwrap().as_fd()).unwrap();
            let shift = superblock(&disk, "agblklog") + superblock(&disk, "inopblog");
            let groups = superblock(&disk, "agcount");
            assert_eq!(geometry, XfsGeometry { groups, shift }, "{megabytes} MB");
        }
    }

    #[test]
    fn new_directories_of_an_xfs_lie_in_all_of_its_groups_and_no_other() {
        let ground = Ground::enter().unwrap();
        let disk = ground.disk(Format::Xfs, 320).unwrap();
        let geometry = xfs_geometry(File::open(&disk).unwrap().as_fd()).unwrap();
        // XFS puts each new directory into the next group.
        let mut seen = vec![false; usize::try_from(geometry.groups).unwrap()];
        for number in 0..geometry.groups * 2 {
            let path = disk.join(number.to_string());
            std::fs::create_dir(&path).unwrap();
            let group = path.metadata().unwrap().ino() >> geometry.shift;
            seen[usize::try_from(group).unwrap()] = true;
        }
        assert_eq!(seen, vec![true; seen.len()]);
    }

    #[test]
    fn a_file_system_of_another_kind_is_no_xfs() {
        let ground = Ground::enter().unwrap();
        let disk = ground.disk(Format::Ext4, 320).unwrap();
        let error = xfs_geometry(File::open(&disk).unwrap().as_fd()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOTTY));
    }

    #[test]
    fn a_geometry_that_makes_no_sense_is_none() {
        let sane = FsopGeomV1 {
            blocksize: 4096,
            agblocks: 20_480,
            agcount: 4,
            inodesize: 512,
            // SAFETY: a struct of numbers, for which zeros are valid.
            ..unsafe { std::mem::zeroed() }
        };
        assert_eq!(
            inode_groups(&sane),
            Some(XfsGeometry {
                groups: 4,
                shift: 15 + 3
            })
        );
        for broken in [
            FsopGeomV1 { inodesize: 0, ..sane },
            FsopGeomV1 {
                inodesize: 8192,
                ..sane
            },
            FsopGeomV1 { agblocks: 0, ..sane },
            FsopGeomV1 {
                agblocks: u32::MAX,
                ..sane
            },
            FsopGeomV1 { agcount: 0, ..sane },
        ] {
            assert_eq!(inode_groups(&broken), None);
        }
    }
}
