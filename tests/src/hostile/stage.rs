//! A disk with a tree on it, a victim beside it, and ways from one to the other.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::mount::{MsFlags, mount};

use crate::disk::{Format, GROUND, Ground, succeed};
use crate::error::{Doing, LabError, Result};
use crate::hostile::outside::set_xattr;
use crate::hostile::program::{Ended, Program};
use crate::hostile::{Dir, Outcome, Outside};
use crate::old_kernel::Kernel;
use crate::tools;

/// Megabytes of a disk; XFS wants 300.
const SIZE: u64 = 320;

/// A disk with `tree`, which is to be removed, and `victim`, which must stay. The calling thread is in a mount namespace of its own,
/// and nothing of a stage stays behind.
#[derive(Debug)]
pub struct Stage {
    /// Where disks are made.
    pub ground: Ground,
    /// The kernel that removals run on.
    pub kernel: Kernel,
    /// Where the disk is mounted.
    pub disk: PathBuf,
    /// What is to be removed.
    pub tree: PathBuf,
    /// What must stay: directories, files, links and attributes.
    pub victim: PathBuf,
    /// Mounts in the tree: what they show must stay.
    views: Vec<PathBuf>,
    /// What may change: the tree, and what else a test says.
    except: Vec<PathBuf>,
}

/// What is left in the tree: the names below it; the empty one is the tree itself.
pub type Left = BTreeSet<String>;

impl Stage {
    /// A new disk, in a namespace of its own. Needs root.
    ///
    /// # Errors
    /// If the machine cannot make one; so do all others.
    pub fn new(format: Format, kernel: Kernel) -> Result<Self> {
        let ground = Ground::enter()?;
        let disk = ground.disk(format, SIZE)?;
        Self::on(ground, disk, kernel)
    }

    /// On a disk that is there.
    ///
    /// # Errors
    /// As of [`new`](Self::new).
    pub fn on(ground: Ground, disk: PathBuf, kernel: Kernel) -> Result<Self> {
        let (tree, victim) = (disk.join("tree"), disk.join("victim"));
        fs::create_dir(&tree).at("make", &tree)?;
        make_victim(&victim)?;
        // A name that a removal of the tree's name with something behind it would take as well.
        make_victim(&disk.join("tree-2"))?;
        let state = PathBuf::from(GROUND).join("state");
        Ok(Self {
            ground,
            kernel,
            except: vec![tree.clone(), state],
            views: Vec::new(),
            disk,
            tree,
            victim,
        })
    }

    /// Gives the tree what every tree has: 11 directories, 100 files, a symlink out of it.
    ///
    /// # Errors
    /// As of [`new`](Self::new).
    pub fn plant(&self) -> Result<Dir> {
        let root = Dir::open(&self.tree)?;
        let plain = root.dir("plain")?;
        for directory in 0..10 {
            let dir = plain.dir(directory.to_string())?;
            for file in 0..10 {
                dir.file(file.to_string(), "content")?;
            }
        }
        root.symlink("out", &self.victim)?;
        Ok(root)
    }

    /// A path in the tree.
    pub fn at(&self, below: impl AsRef<Path>) -> PathBuf {
        self.tree.join(below)
    }

    /// Says that something outside may change.
    pub fn except(&mut self, path: PathBuf) {
        self.except.push(path);
    }

    /// A directory in the tree, and those on the way to it.
    ///
    /// # Errors
    /// As of [`new`](Self::new).
    pub fn dir(&self, below: impl AsRef<Path>) -> Result<PathBuf> {
        let path = self.at(below);
        fs::create_dir_all(&path).at("make", &path)?;
        Ok(path)
    }

    /// Shows something from elsewhere in the tree: a bind mount, of a directory or of a file.
    ///
    /// # Errors
    /// As of [`new`](Self::new).
    pub fn bind(&mut self, from: &Path, below: impl AsRef<Path>) -> Result<()> {
        let at = self.at(below);
        if from.is_dir() {
            fs::create_dir_all(&at).at("make", &at)?;
        } else {
            fs::write(&at, "").at("make", &at)?;
        }
        let none: Option<&str> = None;
        mount(Some(from), &at, none, MsFlags::MS_BIND, none).at("mount at", &at)?;
        self.views.push(at);
        Ok(())
    }

    /// A file system of its own in the tree, with content like the victim's.
    ///
    /// # Errors
    /// As of [`new`](Self::new).
    pub fn tmpfs(&mut self, below: impl AsRef<Path>) -> Result<()> {
        let at = self.dir(below)?;
        let none: Option<&str> = None;
        mount(Some("inside"), &at, Some("tmpfs"), MsFlags::empty(), none).at("mount at", &at)?;
        make_victim(&at.join("content"))?;
        self.views.push(at);
        Ok(())
    }

    /// An overlay in the tree, of layers outside of it: the victim below, and a written layer above.
    ///
    /// # Errors
    /// As of [`new`](Self::new).
    pub fn overlay(&mut self, below: impl AsRef<Path>) -> Result<()> {
        let at = self.dir(below)?;
        let [upper, work] = ["upper", "work"].map(|name| self.disk.join(name));
        for dir in [&upper, &work] {
            fs::create_dir(dir).at("make", dir)?;
        }
        let layers = format!(
            "lowerdir={},upperdir={},workdir={}",
            self.victim.display(),
            upper.display(),
            work.display()
        );
        mount(
            Some("overlay"),
            &at,
            Some("overlay"),
            MsFlags::empty(),
            Some(layers.as_str()),
        )
        .at("mount at", &at)?;
        fs::write(at.join("file"), "written in the container").at("write below", &at)?;
        fs::remove_file(at.join("dir/a")).at("write below", &at)?;
        self.views.push(at);
        Ok(())
    }

    /// Says that something is mounted there, by whomever.
    pub fn is_mounted(&mut self, at: PathBuf) {
        self.views.push(at);
    }

    /// Nothing is mounted in the tree any more.
    pub fn nothing_is_mounted(&mut self) {
        self.views.clear();
    }

    /// Runs btrfs(8).
    ///
    /// # Errors
    /// As of [`new`](Self::new).
    pub fn btrfs(&self, line: &str, paths: &[&Path]) -> Result<()> {
        let btrfs = tools::need("btrfs", "btrfs-progs")?;
        succeed(Command::new(btrfs).args(line.split_whitespace()).args(paths))
    }

    /// Everything that must stay, as it is now.
    ///
    /// # Errors
    /// If something cannot be read.
    pub fn outside(&self) -> Result<Outside> {
        let mut roots = self.views.clone();
        roots.push(PathBuf::from(GROUND));
        Outside::of(&roots, &self.except)
    }

    /// Everything that must stay must be like this.
    ///
    /// # Errors
    /// With every difference.
    pub fn unchanged(&self, before: &Outside) -> Result<()> {
        let changes = before.changes(&self.outside()?);
        if changes.is_empty() {
            return Ok(());
        }
        Err(LabError::Odd(format!("what must stay changed:\n{changes}")))
    }

    /// What is left of the tree. What is mounted in it is not entered.
    ///
    /// # Errors
    /// If a directory cannot be read.
    pub fn left(&self) -> Result<Left> {
        let mut left = Left::new();
        self.add_left(&self.tree, &mut left)?;
        Ok(left)
    }

    fn add_left(&self, path: &Path, left: &mut Left) -> Result<()> {
        let Ok(meta) = fs::symlink_metadata(path) else {
            return Ok(());
        };
        left.insert(self.below(path));
        if meta.is_dir() && !self.views.iter().any(|view| view == path) {
            for entry in fs::read_dir(path).at("list", path)? {
                self.add_left(&entry.at("list", path)?.path(), left)?;
            }
        }
        Ok(())
    }

    fn below(&self, path: &Path) -> String {
        let below = path.strip_prefix(&self.tree).unwrap_or(path);
        below.as_os_str().as_bytes().escape_ascii().to_string()
    }

    /// What runs a removal with these arguments, the path included; its output is captured.
    ///
    /// # Errors
    /// If the program was not built.
    pub fn command(&self, program: Program, arguments: &[&str]) -> Result<Command> {
        let mut command = self.machine(program)?;
        if self.kernel == Kernel::Today {
            command.push(program.path()?.into());
        } else {
            let kernel = self.kernel.to_string();
            command.push(tools::lab_binary()?.into());
            command.extend(["old-kernel", "--kernel", &kernel, "--"].map(OsString::from));
            command.push(program.path()?.into());
        }
        Ok(Self::finished(command, program, arguments))
    }

    /// As [`command`](Self::command), with a fault put in at calls: an `inject` expression of strace(1). Not on another kernel.
    ///
    /// # Errors
    /// If there is no strace, or the program was not built.
    pub fn injected(&self, fault: &str, program: Program, arguments: &[&str]) -> Result<Command> {
        let mut command = self.machine(program)?;
        command.push(tools::need("strace", "strace")?.into());
        command.extend(["--follow-forks", "--quiet=all", "--output=/dev/null", "-e"].map(OsString::from));
        command.push(format!("inject={fault}").into());
        command.push(program.path()?.into());
        Ok(Self::finished(command, program, arguments))
    }

    /// `mend-rm` looks at every process, and must run where it sees them all: here it is alone. Its mounts follow the stage's.
    fn machine(&self, program: Program) -> Result<Vec<OsString>> {
        if program == Program::Library {
            return Ok(Vec::new());
        }
        let unshare = tools::need("unshare", "util-linux")?;
        let flags = [
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
            "--propagation=slave",
            "--",
        ];
        Ok([unshare.into()]
            .into_iter()
            .chain(flags.map(OsString::from))
            .collect())
    }

    fn finished(line: Vec<OsString>, program: Program, arguments: &[&str]) -> Command {
        let mut line = line.into_iter();
        let mut command = Command::new(line.next().unwrap_or_default());
        command.args(line).args(program.arguments());
        if program == Program::MendRm {
            command.arg("--state-dir").arg(Path::new(GROUND).join("state"));
        }
        command
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// From now on, what is mounted on the disk is seen by a `mend-rm` that runs already.
    ///
    /// # Errors
    /// As of [`new`](Self::new).
    pub fn share_mounts(&self) -> Result<()> {
        let none: Option<&str> = None;
        mount(none, &self.disk, none, MsFlags::MS_SHARED, none).at("share mounts on", &self.disk)
    }

    /// Removes the tree by a program, whatever that makes of it.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn run(&self, program: Program, arguments: &[&str]) -> Result<Ended> {
        let mut command = self.command(program, arguments)?;
        command.arg(&self.tree);
        let output = command.output().doing(|| format!("run {command:?}"))?;
        Ok(Ended::from(&output))
    }

    /// Removes the tree by the library; nothing else may change.
    ///
    /// # Errors
    /// With what changed outside, or all that was said if there is no report.
    pub fn remove(&self, arguments: &[&str]) -> Result<Outcome> {
        self.remove_expecting(arguments, &self.outside()?)
    }

    /// Removes the tree by the library; what is outside must be like this then.
    ///
    /// # Errors
    /// As of [`remove`](Self::remove).
    pub fn remove_expecting(&self, arguments: &[&str], outside: &Outside) -> Result<Outcome> {
        let ended = self.run(Program::Library, arguments)?;
        let outcome = ended.outcome()?;
        self.unchanged(outside)?;
        Ok(outcome)
    }

    /// What stayed and why, by a report: names below the tree, and the words for the reasons. Sorted.
    pub fn stayed(&self, outcome: &Outcome) -> Vec<(String, String)> {
        let one = |stayed: &super::Stayed| (self.below(Path::new(&stayed.path)), stayed.reason.clone());
        let mut all: Vec<_> = outcome.problems.iter().map(one).collect();
        all.sort();
        all
    }
}

/// A directory with everything in it that a removal could take.
fn make_victim(path: &Path) -> Result<()> {
    fs::create_dir_all(path.join("dir/deep/er")).at("make", path)?;
    fs::create_dir(path.join("empty")).at("make", path)?;
    for name in ["file", "dir/a", "dir/b", "dir/deep/c", "dir/deep/er/d"] {
        fs::write(path.join(name), format!("the content of {name}")).at("write in", path)?;
    }
    fs::hard_link(path.join("file"), path.join("dir/link")).at("link in", path)?;
    Dir::open(path)?.symlink("symlink", "dir/a")?;
    set_xattr(&path.join("dir/b"), "trusted.kept", "value")
}
