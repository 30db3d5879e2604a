//! A disk that takes 0.8 ms for every request and serves many at once, as a cloud's does: one file of a file system in user
//! space, which sleeps. The file's data is in memory, so the sleep is all of the latency.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, UNIX_EPOCH};

use fuser::{
    Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, InitFlags,
    KernelConfig, LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry, ReplyOpen,
    ReplyWrite, Request, Session, WriteFlags,
};
use nix::mount::{MntFlags, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::signal::Signal;

use crate::against::{Result, say};

/// What each request takes.
pub(crate) const LATENCY: Duration = Duration::from_micros(800);

/// How many requests are served at once. Cloud disks have queues of that order.
const AT_ONCE: u16 = 64;

/// The part that serves.
pub(crate) const PART: &str = "slow-disk";

/// The name of the one file.
const NAME: &str = "disk";
const DISK: INodeNo = INodeNo(2);
const FOREVER: Duration = Duration::from_secs(3600);

/// A served file. Ends with this value, and with this process.
pub(crate) struct SlowDisk {
    server: Child,
    mounted: PathBuf,
}

impl SlowDisk {
    /// Serves the content of `backing` at `mounted`, which is an empty directory.
    pub(crate) fn serve(backing: &Path, mounted: &Path) -> Result<Self> {
        let mut server = Command::new(std::env::current_exe()?)
            .args([crate::against::PART, PART])
            .args([backing, mounted])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let said = server.stdout.take().ok_or("the slow disk has no output")?;
        let mut line = String::new();
        BufReader::new(said).read_line(&mut line)?;
        let disk = Self {
            server,
            mounted: mounted.to_owned(),
        };
        if line.trim() == "ready" {
            return Ok(disk);
        }
        Err("the slow disk could not be served; is there /dev/fuse?".into())
    }

    /// The file.
    pub(crate) fn path(&self) -> PathBuf {
        self.mounted.join(NAME)
    }
}

impl Drop for SlowDisk {
    fn drop(&mut self) {
        // The loop device lets go of the file a moment after its unmount; what is in flight then must still be served.
        let end = Instant::now() + Duration::from_secs(10);
        while umount2(&self.mounted, MntFlags::empty()).is_err() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(20));
        }
        let _gone = self.server.kill();
        let _reaped = self.server.wait();
        let _already = umount2(&self.mounted, MntFlags::MNT_DETACH);
    }
}

/// The part that serves: says `ready`, and runs until the mount is gone.
pub(crate) fn serve_here(arguments: &[String]) -> Result<()> {
    let [backing, mounted] = arguments else {
        return Err("expected a file and a directory".into());
    };
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    // The usual 50 us of slack would be a part of each request's time. Threads inherit it.
    prctl::set_timerslack(1)?;
    let file = OpenOptions::new().read(true).write(true).open(backing)?;
    let size = file.metadata()?.len();
    let mut config = Config::default();
    config.mount_options = vec![MountOption::FSName("slow-disk".to_owned())];
    config.n_threads = Some(usize::from(AT_ONCE));
    config.clone_fd = true;
    let session = Session::new(Served { file, size }, mounted, &config)?;
    // Away from the mounts that need this process: were it the last one among them, the kernel would have it unmount the file
    // system on its own disk while it ends, and wait for its answers for ever. Every loop device of the machine waits with it.
    unshare(CloneFlags::CLONE_NEWNS)?;
    umount2(Path::new(mounted), MntFlags::MNT_DETACH)?;
    say("ready");
    session.run()?;
    Ok(())
}

struct Served {
    file: File,
    size: u64,
}

impl Served {
    fn attributes(&self, ino: INodeNo) -> FileAttr {
        let disk = ino == DISK;
        FileAttr {
            ino,
            size: if disk { self.size } else { 0 },
            blocks: 0,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind: if disk {
                FileType::RegularFile
            } else {
                FileType::Directory
            },
            perm: if disk { 0o600 } else { 0o700 },
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }
}

impl Filesystem for Served {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        // Without these the kernel sends a loop device's requests one after the other, or a dozen at once.
        let none = |_| std::io::Error::other("this kernel has no asynchronous direct I/O for FUSE");
        config.add_capabilities(InitFlags::FUSE_ASYNC_DIO).map_err(none)?;
        let few = |_| std::io::Error::other("too few requests at once");
        config.set_max_background(4 * AT_ONCE).map_err(few)?;
        config.set_congestion_threshold(4 * AT_ONCE).map_err(few)?;
        Ok(())
    }

    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if name == NAME {
            reply.entry(&FOREVER, &self.attributes(DISK), Generation(0));
        } else {
            reply.error(Errno::ENOENT);
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&FOREVER, &self.attributes(ino));
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        // No page cache of this file answers in place of the disk.
        let flags = FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES;
        reply.opened(FileHandle(0), flags);
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        std::thread::sleep(LATENCY);
        let left = usize::try_from(self.size.saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut data = vec![0; left.min(size as usize)];
        match self.file.read_exact_at(&mut data, offset) {
            Ok(()) => reply.data(&data),
            Err(error) => reply.error(error.into()),
        }
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        std::thread::sleep(LATENCY);
        match (self.file.write_all_at(data, offset), u32::try_from(data.len())) {
            (Ok(()), Ok(size)) => reply.written(size),
            (Err(error), _) => reply.error(error.into()),
            (_, Err(_)) => reply.error(Errno::EINVAL),
        }
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        std::thread::sleep(LATENCY);
        reply.ok();
    }
}

/// What a disk does: how long one random read of 4 KiB takes, and how many are done in a second when 16 are asked for at
/// once.
pub(crate) struct Pace {
    pub(crate) alone: Duration,
    pub(crate) at_depth_16: f64,
}

/// Reads from a block device past all caches.
pub(crate) fn pace(device: &Path) -> Result<Pace> {
    const ALONE: u32 = 200;
    const TOGETHER: u32 = 100;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(nix::fcntl::OFlag::O_DIRECT.bits())
        .open(device)?;
    let blocks = std::io::Seek::seek(&mut &file, std::io::SeekFrom::End(0))? / 4096;
    let begun = Instant::now();
    read_at_random(&file, blocks, 0, ALONE)?;
    let alone = begun.elapsed() / ALONE;
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let file = &file;
        let readers: Vec<_> = (1..=16)
            .map(|seed| scope.spawn(move || read_at_random(file, blocks, seed, TOGETHER)))
            .collect();
        readers.into_iter().try_for_each(|reader| match reader.join() {
            Ok(read) => read,
            Err(_) => Err(std::io::Error::other("a reader panicked")),
        })
    })?;
    let at_depth_16 = f64::from(16 * TOGETHER) / begun.elapsed().as_secs_f64();
    Ok(Pace { alone, at_depth_16 })
}

fn read_at_random(file: &File, blocks: u64, seed: u64, times: u32) -> std::io::Result<()> {
    // O_DIRECT wants memory at a multiple of the block size.
    let mut room = vec![0_u8; 2 * 4096];
    let start = room.as_ptr().align_offset(4096);
    let block = &mut room[start..start + 4096];
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for _ in 0..times {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        file.read_exact_at(block, (state >> 20) % blocks * 4096)?;
    }
    Ok(())
}
