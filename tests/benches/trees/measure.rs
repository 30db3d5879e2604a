//! One run of one contestant, and what it cost.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::Signal;

use crate::against::{PART, Result, say};
use crate::case::{Caches, Case};
use crate::contestants::Contestant;
use crate::images::{Images, Volume};

/// The part that starts a command and says what it cost.
pub(crate) const CLOCK: &str = "clock";
/// The part that becomes the command.
pub(crate) const BECOME: &str = "become";

/// More than this share of the processors for others, and a run says little.
const QUIET: f64 = 0.12;

/// What one run cost.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) wall: Duration,
    /// Processor time of the contestant.
    pub(crate) own: Duration,
    /// Processor time of the whole machine: that of the kernel's threads and of a slow disk is in it as well.
    pub(crate) machine: Duration,
    /// The share of the processors that was taken by who has nothing to do with this.
    pub(crate) foreign: f64,
    /// Requests of the file system that its disk had to read.
    pub(crate) reads: u64,
    /// Resident memory at its peak.
    pub(crate) peak_kib: u64,
    /// Why it does not count: it failed, or left something.
    pub(crate) failed: Option<String>,
}

impl Run {
    pub(crate) fn is_quiet(&self) -> bool {
        self.foreign <= QUIET
    }
}

/// How long a quiet machine is waited for before a run, and how often a noisy run is done again.
#[derive(Clone, Copy)]
pub(crate) struct Patience {
    pub(crate) wait: Duration,
    pub(crate) again: usize,
}

/// Runs a contestant on the restored case, more than once if others disturb it; the quietest counts.
pub(crate) fn run(images: &mut Images<'_>, case: &Case, who: &Contestant, patience: Patience) -> Result<Run> {
    let mut best: Option<Run> = None;
    for _ in 0..=patience.again {
        let one = run_once(images, case, who, patience.wait)?;
        let better = best.as_ref().is_none_or(|best| one.foreign < best.foreign);
        if better {
            best = Some(one);
        }
        if best
            .as_ref()
            .is_some_and(|best| best.is_quiet() || best.failed.is_some())
        {
            break;
        }
    }
    best.ok_or_else(|| "nothing was run".into())
}

fn run_once(images: &mut Images<'_>, case: &Case, who: &Contestant, wait: Duration) -> Result<Run> {
    let volume = images.restore(case)?;
    let line = who.line(case, &volume)?;
    await_quiet(wait)?;
    prepare(case.caches, &volume)?;
    Contestant::load(&line);
    let reads = volume.reads()?;
    let mut run = timed(&line)?;
    run.reads = volume.reads()? - reads;
    if run.failed.is_none() {
        let left = volume.left()?;
        run.failed = (left > 0).then(|| format!("{left} entries are left"));
    }
    Ok(run)
}

/// Brings the caches to where the case wants them.
pub(crate) fn prepare(caches: Caches, volume: &Volume) -> Result<()> {
    match caches {
        Caches::Warm => volume.warm(),
        Caches::Cold => volume.chill(),
    }
}

/// Runs a command, and says what it cost.
pub(crate) fn timed(line: &[OsString]) -> Result<Run> {
    let before = Machine::now()?;
    let done = Command::new(std::env::current_exe()?)
        .args([PART, CLOCK])
        .args(line)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?
        .wait_with_output()?;
    let after = Machine::now()?;
    let said = String::from_utf8_lossy(&done.stdout);
    let mut numbers = said
        .lines()
        .last()
        .unwrap_or_default()
        .split(' ')
        .map(str::parse::<u64>);
    let mut number = || -> Result<u64> { Ok(numbers.next().ok_or("the clock stopped")??) };
    let wall = Duration::from_micros(number()?);
    let own = Duration::from_micros(number()?);
    let (peak_kib, success) = (number()?, number()? == 1);
    Ok(Run {
        wall,
        own,
        machine: after.busy.saturating_sub(before.busy),
        foreign: foreign(&before, &after),
        reads: 0,
        peak_kib,
        failed: (!success).then(|| last_words(&done.stderr)),
    })
}

fn last_words(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let line = text.lines().rev().find(|line| !line.trim().is_empty());
    line.map_or_else(
        || "failed, and said nothing".to_owned(),
        |line| line.chars().take(160).collect(),
    )
}

/// The part that starts the command. It is a process of its own, so that the command is its only child.
///
/// That child is the first process of a pid namespace: ours asks who uses the tree, and should find a node's processes, not
/// what runs on the machine of whoever measures, which it may not even be allowed to look at.
pub(crate) fn clock_here(line: &[String]) -> Result<()> {
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    unshare(CloneFlags::CLONE_NEWPID)?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args([PART, BECOME]).args(line).stdout(Stdio::null());
    let begun = Instant::now();
    let status = command.spawn()?.wait()?;
    let wall = begun.elapsed();
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let micros = |time: nix::sys::time::TimeVal| time.tv_sec() * 1_000_000 + time.tv_usec();
    let own = micros(usage.user_time()) + micros(usage.system_time());
    let (wall, peak, success) = (wall.as_micros(), usage.max_rss(), u8::from(status.success()));
    say(&format!("{wall} {own} {peak} {success}"));
    Ok(())
}

/// The part that becomes the command, and ends with who measures it.
pub(crate) fn become_here(line: &[String]) -> Result<()> {
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    unshare(CloneFlags::CLONE_NEWNS)?;
    let none: Option<&str> = None;
    mount(Some("proc"), "/proc", Some("proc"), MsFlags::empty(), none)?;
    let (program, arguments) = line.split_first().ok_or("nothing to run")?;
    Err(Command::new(program).args(arguments).exec().into())
}

/// Waits until others leave the machine alone, at most so long. What is measured on a busy one is marked.
pub(crate) fn await_quiet(at_most: Duration) -> Result<()> {
    let end = Instant::now() + at_most;
    while Instant::now() < end {
        let before = Machine::now()?;
        std::thread::sleep(Duration::from_millis(500));
        if foreign(&before, &Machine::now()?) <= QUIET / 2.0 {
            break;
        }
    }
    Ok(())
}

/// What the machine's processors have done so far.
struct Machine {
    at: Instant,
    busy: Duration,
    /// Taken by the hypervisor.
    stolen: Duration,
    /// Taken by processes that this one did not start, those they have reaped included; without the kernel's threads.
    others: Duration,
}

impl Machine {
    fn now() -> Result<Self> {
        let stat = fs::read_to_string("/proc/stat")?;
        let ticks: Vec<u64> = stat
            .lines()
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .skip(1)
            .filter_map(|field| field.parse().ok())
            .collect();
        // user nice system idle iowait irq softirq steal, of proc_stat(5).
        let [user, nice, system, _, _, irq, softirq, steal, ..] = ticks[..] else {
            return Err("/proc/stat has no line for all processors".into());
        };
        Ok(Self {
            at: Instant::now(),
            busy: time(user + nice + system + irq + softirq),
            stolen: time(steal),
            others: time(others()),
        })
    }
}

/// Which share of the processors others had between two looks.
fn foreign(before: &Machine, after: &Machine) -> f64 {
    let taken = after.others.saturating_sub(before.others) + after.stolen.saturating_sub(before.stolen);
    let cores = std::thread::available_parallelism().map_or(1.0, |cores| cores.get() as f64);
    taken.as_secs_f64() / (after.at - before.at).as_secs_f64() / cores
}

/// The kernel counts in hundredths of a second, on every architecture that Linux tells programs about.
fn time(ticks: u64) -> Duration {
    Duration::from_millis(ticks * 10)
}

struct Process {
    parent: u32,
    kernel: bool,
    ticks: u64,
}

fn others() -> u64 {
    let processes = processes();
    let own = std::process::id();
    let ours = |mut pid: u32| {
        while let Some(process) = processes.get(&pid) {
            if pid == own {
                return true;
            }
            pid = process.parent;
        }
        false
    };
    processes
        .iter()
        .filter(|(pid, process)| !process.kernel && !ours(**pid))
        .map(|(_, process)| process.ticks)
        .sum()
}

fn processes() -> HashMap<u32, Process> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return HashMap::new();
    };
    entries
        .filter_map(|entry| {
            let name = entry.ok()?.file_name();
            let pid = name.to_str()?.parse().ok()?;
            Some((pid, Process::read(&Path::new("/proc").join(name))?))
        })
        .collect()
}

impl Process {
    fn read(dir: &Path) -> Option<Self> {
        /// Of a kernel thread, by linux/sched.h.
        const PF_KTHREAD: u64 = 0x0020_0000;
        let stat = fs::read_to_string(dir.join("stat")).ok()?;
        let (_, rest) = stat.rsplit_once(") ")?;
        let fields: Vec<&str> = rest.split(' ').collect();
        // From the state on, which is the third of proc_pid_stat(5): ppid, flags, utime, stime, cutime, cstime.
        let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
        Some(Self {
            parent: u32::try_from(number(1)?).ok()?,
            kernel: number(6)? & PF_KTHREAD != 0,
            ticks: number(11)? + number(12)? + number(13)? + number(14)?,
        })
    }
}
