//! The tree that is removed: like a containerd root, or one wide directory. The same calls in the same order each time, so
//! that the same image comes out.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};

use crate::against::Result;

/// Which tree.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// 60 snapshots as containerd keeps them: 250 thousand files, one directory of 25,000 entries, one chain 300 deep.
    Node,
    /// The same with a million files.
    Million,
    /// One directory of 200 thousand files.
    Wide,
}

impl Shape {
    /// Its word.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Million => "million",
            Self::Wide => "wide",
        }
    }

    /// How many files it has about; all it has is in [`Counts`].
    pub(crate) fn files(self, quick: bool) -> u64 {
        let full = match self {
            Self::Node => 250_000,
            Self::Million => 1_000_000,
            Self::Wide => 200_000,
        };
        if quick { full / 10 } else { full }
    }
}

const SNAPSHOTS: u64 = 60;
const DEPTH: usize = 300;

/// What was made.
#[derive(Clone, Copy, Default)]
pub(crate) struct Counts {
    pub(crate) files: u64,
    pub(crate) directories: u64,
}

/// Makes a tree at a path where nothing is yet.
pub(crate) fn build(root: &Path, shape: Shape, quick: bool) -> Result<Counts> {
    let mut builder = Builder::new(shape as u64);
    let files = shape.files(quick);
    builder.directory(root)?;
    if shape == Shape::Wide {
        builder.fill(root, "layer", files)?;
        return Ok(builder.counts);
    }
    let wide = files / 10;
    let share = (files - wide - DEPTH as u64) / SNAPSHOTS;
    for number in 1..=SNAPSHOTS {
        builder.snapshot(&root.join(number.to_string()), share)?;
    }
    let cache = root.join("wide");
    builder.directory(&cache)?;
    builder.fill(&cache, "blob", wide)?;
    builder.chain(&root.join("deep"))?;
    Ok(builder.counts)
}

struct Builder {
    random: Random,
    counts: Counts,
    /// The last plain file, for the next hard link.
    linked: Option<PathBuf>,
}

impl Builder {
    fn new(seed: u64) -> Self {
        Self {
            random: Random(seed + 1),
            counts: Counts::default(),
            linked: None,
        }
    }

    /// One snapshot: a base system, python packages, a git clone and node modules.
    fn snapshot(&mut self, at: &Path, files: u64) -> Result<()> {
        self.linked = None;
        self.directory(at)?;
        self.directory(&at.join("work"))?;
        let fs = at.join("fs");
        self.directory(&fs)?;
        let parts = [12, 38, 15, 35].map(|percent| files * percent / 100);
        self.base(&fs, parts[0])?;
        self.python(&fs.join("site-packages"), parts[1])?;
        self.git(&fs.join(".git"), parts[2])?;
        self.node(&fs.join("node_modules"), parts[3])
    }

    fn base(&mut self, fs: &Path, files: u64) -> Result<()> {
        let places = ["bin", "etc", "lib", "sbin", "usr", "usr/bin", "usr/share", "var"];
        for place in places {
            let dir = fs.join(place);
            self.directory(&dir)?;
            self.fill(&dir, "lib", files / places.len() as u64)?;
        }
        Ok(())
    }

    fn python(&mut self, at: &Path, files: u64) -> Result<()> {
        self.directory(at)?;
        let end = self.counts.files + files;
        while self.counts.files < end {
            let package = at.join(format!("package_{}", self.counts.directories));
            let cache = package.join("__pycache__");
            let modules = 6 + self.random.below(34);
            self.directory(&package)?;
            self.fill(&package, "module", modules)?;
            self.directory(&cache)?;
            self.fill(&cache, "module.cpython-311", modules)?;
        }
        Ok(())
    }

    fn git(&mut self, at: &Path, files: u64) -> Result<()> {
        for dir in ["", "refs", "hooks", "objects"] {
            self.directory(&at.join(dir))?;
        }
        self.fill(&at.join("hooks"), "sample", 14)?;
        let end = self.counts.files + files.saturating_sub(14);
        for fan in 0..256 {
            if self.counts.files >= end {
                break;
            }
            let dir = at.join(format!("objects/{fan:02x}"));
            let objects = 4 + self.random.below(9);
            self.directory(&dir)?;
            self.fill(&dir, "3f786850e387550fdab836ed7e6dc881de23", objects)?;
        }
        Ok(())
    }

    fn node(&mut self, at: &Path, files: u64) -> Result<()> {
        self.directory(at)?;
        let end = self.counts.files + files;
        while self.counts.files < end {
            let module = at.join(format!("module-{}", self.counts.directories));
            let library = module.join("lib");
            self.directory(&module)?;
            self.fill(&module, "package", 5)?;
            self.directory(&library)?;
            let sources = 4 + self.random.below(16);
            self.fill(&library, "index", sources)?;
            if self.random.below(4) == 0 {
                let nested = module.join("node_modules");
                self.directory(&nested)?;
                self.directory(&nested.join("dep"))?;
                self.fill(&nested.join("dep"), "index", 6)?;
            }
        }
        Ok(())
    }

    fn chain(&mut self, at: &Path) -> Result<()> {
        let mut dir = at.to_owned();
        for _ in 0..DEPTH {
            self.directory(&dir)?;
            self.fill(&dir, "f", 1)?;
            dir.push("deeper");
        }
        Ok(())
    }

    fn directory(&mut self, at: &Path) -> Result<()> {
        fs::create_dir(at).map_err(|error| format!("make {}: {error}", at.display()))?;
        self.counts.directories += 1;
        Ok(())
    }

    fn fill(&mut self, dir: &Path, name: &str, entries: u64) -> Result<()> {
        for number in 0..entries {
            let path = dir.join(format!("{name}_{number:04}"));
            self.entry(&path)
                .map_err(|error| format!("make {}: {error}", path.display()))?;
            self.counts.files += 1;
        }
        Ok(())
    }

    /// Five of a hundred are symlinks, two are hard links, one is a whiteout of an overlay.
    fn entry(&mut self, path: &Path) -> Result<()> {
        match (self.random.below(100), &self.linked) {
            (0..5, _) => symlink("../../usr/lib/target", path)?,
            (5..7, Some(file)) => fs::hard_link(file, path)?,
            (7, _) => mknod(path, SFlag::S_IFCHR, Mode::empty(), makedev(0, 0))?,
            _ => {
                self.file(path)?;
                self.linked = Some(path.to_owned());
            }
        }
        Ok(())
    }

    /// Blocks are reserved rather than written: freeing them costs the same, and the image stays small. The smallest files
    /// are written, as btrfs and others keep them inside the inode.
    fn file(&mut self, path: &Path) -> Result<()> {
        let mut file = File::create(path)?;
        let size = match self.random.below(100) {
            0..10 => 0,
            10..25 => 1 + self.random.below(256),
            25..80 => 257 + self.random.below(8 << 10),
            80..98 => (8 << 10) + self.random.below(56 << 10),
            _ => (64 << 10) + self.random.below(256 << 10),
        };
        if size > 256 {
            fallocate(&file, FallocateFlags::empty(), 0, i64::try_from(size)?)?;
        } else {
            file.write_all(&vec![b'x'; usize::try_from(size)?])?;
        }
        Ok(())
    }
}

/// splitmix64: small, and the same everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }
}
