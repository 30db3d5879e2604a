//! The images: each built once and kept, and restored before each run, so that all contestants find the same bytes.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, PosixFadviseAdvice, fallocate, posix_fadvise};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::{Whence, lseek};
use nodemend_lab::disk::{Format, Ground};

use crate::against::{Result, run, say};
use crate::case::{Case, Medium, format_word};
use crate::limit;
use crate::slow_disk::SlowDisk;
use crate::tree::{self, Shape};

/// To be raised when the tree or a file system's options change: older images are then not used any more.
const VERSION: u32 = 1;

/// The name of the tree on its file system.
const TREE: &str = "tree";

/// Where images are kept and restored.
pub(crate) struct Images<'a> {
    ground: &'a Ground,
    /// Where they are kept between runs of this program.
    kept: PathBuf,
    /// A directory in memory, private as the ground is.
    memory: PathBuf,
    quick: bool,
    master: Option<Master>,
    /// A file on the machine's disk that has no name any more, at its private one.
    on_disk: Option<PathBuf>,
    /// Two at once would measure each other.
    _alone: File,
}

/// An image in memory that nothing writes to.
struct Master {
    format: Format,
    shape: Shape,
    image: PathBuf,
    listing: PathBuf,
    lanes: limit::Lanes,
}

impl<'a> Images<'a> {
    /// Images that are kept in a directory, which is made if need be.
    pub(crate) fn kept_in(kept: &Path, ground: &'a Ground, quick: bool) -> Result<Self> {
        fs::create_dir_all(kept)?;
        let alone = File::create(kept.join("lock"))?;
        match alone.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err("another run uses the same directory".into()),
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
        // What a killed run was just about to name, or to take the name from.
        for entry in fs::read_dir(kept)? {
            let path = entry?.path();
            if path.extension().is_some_and(|kind| kind == "unfinished") {
                fs::remove_file(path)?;
            }
        }
        Ok(Self {
            ground,
            kept: kept.to_owned(),
            memory: ground.directory()?,
            quick,
            master: None,
            on_disk: None,
            _alone: alone,
        })
    }

    /// The case's file system as it was built, mounted.
    pub(crate) fn restore(&mut self, case: &Case) -> Result<Volume> {
        let (format, shape) = (case.format, case.shape);
        if !matches!(&self.master, Some(master) if (master.format, master.shape) == (format, shape)) {
            self.load(format, shape)?;
        }
        let master = self.master.as_ref().ok_or("no image")?;
        let mut volume = Volume {
            at: PathBuf::new(),
            image: PathBuf::new(),
            device: PathBuf::new(),
            listing: master.listing.clone(),
            lanes: master.lanes,
            in_memory: None,
            slow: None,
        };
        let image = match (case.medium, &self.on_disk) {
            (Medium::Ram | Medium::Slow, _) => {
                let copy = self.memory.join("run");
                // A new file, as the blocks of a used one would hold what the last run left in what must be zero.
                let _of_last_run = fs::remove_file(&copy);
                volume.in_memory = Some(copy.clone());
                let to = create_sized(&copy, &master.image)?;
                copy_data(&File::open(&master.image)?, &to)?;
                copy
            }
            (Medium::Disk, Some(file)) => {
                rewrite(file, &master.image)?;
                file.clone()
            }
            (Medium::Disk, None) => return Err("no file on the disk".into()),
        };
        let image = match case.medium {
            Medium::Ram | Medium::Disk => image,
            Medium::Slow => {
                let slow = SlowDisk::serve(&image, &self.ground.directory()?)?;
                volume.slow.insert(slow).path()
            }
        };
        volume.at = self.ground.mounted(&image, &[])?;
        volume.image = image;
        volume.device = device_of(&volume.at)?;
        if case.medium != Medium::Ram {
            // So that each request goes to the disk, and several at once do.
            run(Command::new("losetup").arg("--direct-io=on").arg(&volume.device))?;
        }
        Ok(volume)
    }

    /// Takes an image into memory, and builds it first if there is none.
    fn load(&mut self, format: Format, shape: Shape) -> Result<()> {
        self.forget();
        let size = if self.quick { "-quick" } else { "" };
        let name = format!("{}-{}{size}-v{VERSION}", format_word(format), shape.word());
        let (kept, kept_listing) = (
            self.kept.join(format!("{name}.img")),
            self.kept.join(format!("{name}.list")),
        );
        let (image, listing) = (self.memory.join("master"), self.memory.join("listing"));
        if kept.exists() && kept_listing.exists() {
            copy_data(&File::open(&kept)?, &create_sized(&image, &kept)?)?;
            fs::copy(&kept_listing, &listing)?;
        } else {
            say(&format!("building {name}, once"));
            self.build(format, shape, &image, &listing)?;
            self.keep(&listing, &kept_listing)?;
            self.keep(&image, &kept)?;
        }
        let lanes = match format {
            Format::Ext4 | Format::Btrfs => limit::Lanes::One,
            Format::Xfs => allocation_groups(&image)?,
        };
        self.master = Some(Master {
            format,
            shape,
            image,
            listing,
            lanes,
        });
        self.on_disk = Some(self.file_on_disk()?);
        Ok(())
    }

    fn build(&self, format: Format, shape: Shape, image: &Path, listing: &Path) -> Result<()> {
        let gigabytes = if shape == Shape::Million { 24 } else { 12 };
        File::create(image)?.set_len(gigabytes << 30)?;
        let mut mkfs = Command::new(format!("mkfs.{}", format_word(format)));
        match format {
            // The journal that mkfs gives to a node's disk, and no thread that zeroes inodes later. The seed of the hash
            // decides in which order a directory is listed.
            Format::Ext4 => mkfs
                .args(["-q", "-F", "-J", "size=1024", "-E"])
                .arg("lazy_itable_init=0,lazy_journal_init=0,hash_seed=6e6f6465-6d65-4e64-8000-7472656573ff"),
            Format::Xfs => mkfs.args(["-q", "-f"]),
            Format::Btrfs => mkfs.args(["-q", "-f"]),
        };
        run(mkfs.arg(image))?;
        let at = self.ground.mounted(image, &[])?;
        let built = tree::build(&at.join(TREE), shape, self.quick);
        umount2(&at, MntFlags::empty())?;
        let counts = built?;
        say(&format!(
            "  {} files in {} directories",
            counts.files, counts.directories
        ));
        let at = self.ground.mounted(image, &[])?;
        let listed = limit::list(&at.join(TREE), listing);
        umount2(&at, MntFlags::empty())?;
        listed
    }

    /// Puts a file into the directory of kept ones, whole or not at all.
    fn keep(&self, from: &Path, to: &Path) -> Result<()> {
        let unfinished = self.kept.join("kept.unfinished");
        let file = create_sized(&unfinished, from)?;
        copy_data(&File::open(from)?, &file)?;
        file.sync_all()?;
        fs::rename(&unfinished, to)?;
        Ok(())
    }

    /// A file on the machine's disk that no name leads to but one in the private namespace, so that it goes with it.
    fn file_on_disk(&self) -> Result<PathBuf> {
        let (named, private) = (self.kept.join("run.unfinished"), self.memory.join("on-disk"));
        File::create(&named)?;
        File::create(&private)?;
        let none: Option<&str> = None;
        let bound = mount(Some(&named), &private, none, MsFlags::MS_BIND, none);
        fs::remove_file(&named)?;
        bound?;
        Ok(private)
    }

    fn forget(&mut self) {
        self.master = None;
        if let Some(file) = self.on_disk.take() {
            let _never_left = umount2(&file, MntFlags::MNT_DETACH);
        }
    }
}

/// A restored file system. Unmounted with this value.
pub(crate) struct Volume {
    at: PathBuf,
    image: PathBuf,
    /// Its loop device.
    pub(crate) device: PathBuf,
    /// The listing of its tree, made beforehand.
    pub(crate) listing: PathBuf,
    pub(crate) lanes: limit::Lanes,
    in_memory: Option<PathBuf>,
    slow: Option<SlowDisk>,
}

impl Volume {
    /// The tree that is to go.
    pub(crate) fn tree(&self) -> PathBuf {
        self.at.join(TREE)
    }

    /// A file beside the tree.
    pub(crate) fn beside(&self) -> PathBuf {
        self.at.join("beside")
    }

    /// Reads every inode and name of the tree.
    pub(crate) fn warm(&self) -> Result<()> {
        walk(&self.tree(), &mut |_| {})?;
        Ok(())
    }

    /// Leaves nothing of it in memory but what mounting needs. It is freshly mounted, so no inode and no name is known, and
    /// its image is read past the page cache; only the device's own buffers are to be dropped. The machine's other caches
    /// are let alone: dropping them would slow down the tools that are measured, and everybody else.
    pub(crate) fn chill(&self) -> Result<()> {
        nix::unistd::syncfs(&File::open(&self.at)?)?;
        run(Command::new("blockdev").arg("--flushbufs").arg(&self.device))?;
        Ok(())
    }

    /// How many requests to read its device has had.
    pub(crate) fn reads(&self) -> Result<u64> {
        let name = self.device.file_name().ok_or("a device without a name")?;
        let stat = fs::read_to_string(Path::new("/sys/block").join(name).join("stat"))?;
        let reads = stat
            .split_whitespace()
            .next()
            .ok_or("a device without statistics")?;
        Ok(reads.parse()?)
    }

    fn is_attached(&self) -> bool {
        let Some(name) = self.device.file_name() else {
            return false;
        };
        let file = Path::new("/sys/block").join(name).join("loop/backing_file");
        fs::read_to_string(file).is_ok_and(|file| Path::new(file.trim()) == self.image)
    }

    /// How many entries of the tree are left; its root alone is none, as some tools can only empty it.
    pub(crate) fn left(&self) -> Result<u64> {
        let mut left = 0;
        match walk(&self.tree(), &mut |_| left += 1) {
            Ok(()) => Ok(left),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(left),
            Err(error) => Err(error.into()),
        }
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        if umount2(&self.at, MntFlags::empty()).is_err() {
            let _not_mounted = umount2(&self.at, MntFlags::MNT_DETACH);
        }
        // A contestant had a copy of the mount in its own namespace, which the kernel takes down a moment after its end. Until
        // then the file must not be touched.
        let end = Instant::now() + Duration::from_secs(30);
        while self.is_attached() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
        }
        drop(self.slow.take());
        if let Some(file) = &self.in_memory {
            let _gone = fs::remove_file(file);
        }
    }
}

fn walk(dir: &Path, each: &mut impl FnMut(&fs::Metadata)) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        each(&metadata);
        if metadata.is_dir() {
            walk(&entry.path(), each)?;
        }
    }
    Ok(())
}

fn create_sized(path: &Path, like: &Path) -> Result<File> {
    let file = File::create(path)?;
    file.set_len(fs::metadata(like)?.len())?;
    Ok(file)
}

/// Copies what is data; what is a hole in `from` is left as it is in `to`.
fn copy_data(mut from: &File, mut to: &File) -> Result<()> {
    let mut offset = 0;
    loop {
        let data = match lseek(from.as_fd(), offset, Whence::SeekData) {
            Ok(data) => data,
            Err(Errno::ENXIO) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let hole = lseek(from.as_fd(), data, Whence::SeekHole)?;
        let [start, length] = [data, hole - data].map(u64::try_from);
        from.seek(SeekFrom::Start(start?))?;
        to.seek(SeekFrom::Start(start?))?;
        io::copy(&mut from.take(length?), &mut to)?;
        offset = hole;
    }
}

/// Makes a file on the disk what the image is. Its blocks stay where they are and all are there, so a run allocates none; the
/// holes of the image read as zeros again, as a log of the last run that is found in one would be replayed.
fn rewrite(file: &Path, image: &Path) -> Result<()> {
    let to = OpenOptions::new().read(true).write(true).open(file)?;
    let length = fs::metadata(image)?.len();
    to.set_len(length)?;
    let zero = FallocateFlags::FALLOC_FL_ZERO_RANGE;
    fallocate(&to, zero, 0, i64::try_from(length)?)?;
    copy_data(&File::open(image)?, &to)?;
    to.sync_all()?;
    posix_fadvise(&to, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
    Ok(())
}

/// The device that is mounted there.
fn device_of(at: &Path) -> Result<PathBuf> {
    let said = run(Command::new("findmnt")
        .args(["--noheadings", "--output", "SOURCE", "--mountpoint"])
        .arg(at))?;
    Ok(PathBuf::from(said.trim()))
}

/// From the superblock of XFS: sb_agcount, sb_inopblog and sb_agblklog of fs/xfs/libxfs/xfs_format.h.
fn allocation_groups(image: &Path) -> Result<limit::Lanes> {
    let mut block = [0_u8; 128];
    File::open(image)?.read_exact(&mut block)?;
    let count = u32::from_be_bytes([block[88], block[89], block[90], block[91]]);
    let shift = u32::from(block[123]) + u32::from(block[124]);
    Ok(limit::Lanes::Groups { count, shift })
}
