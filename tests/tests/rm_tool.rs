//! `mend-rm` on real file systems: what it refuses, what it removes, and what it says.
//!
//! Each test has a machine of its own: disks and mounts that nobody else sees, and processes of its own, of which the tool
//! sees no other.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failed unwrap in a test's helper is a failed test"
)]

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use nodemend_lab::disk::{Format, Ground};
use nodemend_lab::tools::workspace_binary;
use schemars::schema_for;
use serde_json::Value;

/// A machine with one disk. The mount namespace in which its processes live is copied when it starts: what is mounted later
/// is mounted by [`Machine::shell`].
struct Machine {
    disk: PathBuf,
    init: Child,
    /// The first process, as the test sees it.
    pid: i32,
    // Dropped last: the disk is in it.
    _ground: Ground,
}

/// What a run of the tool gave.
struct Ran {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Ran {
    fn ended(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{}{}", self.stdout, self.stderr);
        self
    }

    fn says(self, words: &str) -> Self {
        assert!(
            self.stdout.contains(words) || self.stderr.contains(words),
            "no {words:?} in:\n{}{}",
            self.stdout,
            self.stderr
        );
        self
    }

    /// The report, which must be as its schema says.
    fn report(&self) -> Value {
        let report: Value =
            serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: {}", self.stdout));
        let schema = schema_for!(mend_rm::RemovalReport);
        let validator = jsonschema::validator_for(schema.as_value()).unwrap();
        let faults: Vec<String> = validator
            .iter_errors(&report)
            .map(|fault| fault.to_string())
            .collect();
        assert!(faults.is_empty(), "{faults:?}");
        report
    }

    /// The reasons for which the first tree was refused.
    fn reasons(&self) -> Vec<String> {
        let report = self.report();
        let refusals = report["items"][0]["refusals"].as_array().unwrap();
        let words = refusals.iter().map(|refusal| refusal["reason"].as_str().unwrap());
        words.map(str::to_owned).collect()
    }
}

impl Machine {
    fn new() -> Self {
        Self::with(Format::Ext4, 128)
    }

    fn with(format: Format, megabytes: u64) -> Self {
        let ground = Ground::enter().unwrap();
        let disk = ground.disk(format, megabytes).unwrap();
        let init = Command::new("unshare")
            .args(["--pid", "--fork", "--kill-child", "--mount-proc", "sleep", "1000"])
            .spawn()
            .unwrap();
        let pid = child_of(init.id());
        let machine = Self {
            disk,
            init,
            pid,
            _ground: ground,
        };
        // The new /proc is mounted a moment after the process is there.
        until("the machine to start", || {
            let exe = machine.inside("readlink").arg("/proc/1/exe").output().unwrap();
            String::from_utf8_lossy(&exe.stdout).contains("sleep")
        });
        machine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.disk.join(name)
    }

    /// A command in the machine.
    fn inside(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args([
                "--target",
                &self.pid.to_string(),
                "--pid",
                "--mount",
                "--wd=/",
                "--",
            ])
            .arg(program)
            .stdin(Stdio::null());
        command
    }

    fn shell(&self, script: &str) {
        let mut command = self.inside("sh");
        let output = command
            .args(["-e", "-c", &format!("cd {}\n{script}", self.disk.display())])
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{script}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    fn command(&self, line: &str) -> Command {
        let mut command = self.inside(workspace_binary("mend-rm").unwrap());
        if !line.contains("--state-dir") {
            command.args(["--state-dir", "/mnt/state"]);
        }
        // `@` stands for the disk.
        command.args(
            line.split_whitespace()
                .map(|word| word.replace('@', self.disk.to_str().unwrap())),
        );
        command
    }

    /// Runs the tool.
    fn mend(&self, line: &str) -> Ran {
        let output = self.command(line).output().unwrap();
        Ran {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    fn json(&self, line: &str) -> Ran {
        self.mend(&format!("--output json {line}"))
    }

    /// A process that stays, in the machine; the pid as the test sees it.
    fn stays(&self, command: &mut Command) -> Stays {
        let child = command.spawn().unwrap();
        let pid = child_of(child.id());
        Stays { child, pid }
    }

    /// A shell that is called like a daemon, has its arguments, and waits. Not with `-c`, which names containerd's
    /// configuration.
    fn daemon(&self, name: &str, argument: &str) -> Stays {
        let program = Path::new("/mnt").join(name);
        fs::copy(nodemend_lab::tools::find("dash").unwrap(), &program).unwrap();
        let mut command = self.inside(&program);
        self.stays(command.args(["-s", "--", argument]).stdin(Stdio::piped()))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.init.kill();
        let _ = self.init.wait();
    }
}

/// A process that ends with its owner.
struct Stays {
    child: Child,
    pid: i32,
}

impl Drop for Stays {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.pid), Signal::SIGKILL);
        let _ = self.child.wait();
    }
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(
            begun.elapsed() < Duration::from_secs(20),
            "waited too long for {what}"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The one child of a process, which may not be there yet.
fn child_of(pid: u32) -> i32 {
    let mut child = None;
    until("a child process", || {
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        child = children
            .split_whitespace()
            .next()
            .and_then(|pid| pid.parse().ok());
        child.is_some()
    });
    child.unwrap()
}

/// A tree of directories with ten files each.
fn grow(root: &Path, directories: usize) {
    for directory in 0..directories {
        let dir = root.join(format!("d{}/e{directory}", directory % 7));
        fs::create_dir_all(&dir).unwrap();
        for file in 0..10 {
            fs::write(dir.join(format!("f{file}")), "x").unwrap();
        }
    }
}

fn entries(root: &Path) -> usize {
    fs::read_dir(root).map_or(0, |dir| {
        dir.map(|entry| {
            let entry = entry.unwrap();
            1 + if entry.file_type().unwrap().is_dir() {
                entries(&entry.path())
            } else {
                0
            }
        })
        .sum()
    })
}

#[test]
fn the_plan_changes_nothing() {
    let machine = Machine::new();
    grow(&machine.path("tree"), 5);
    let before = entries(&machine.disk);
    for line in ["@/tree", "-n @/tree", "--set-aside @/tree", "--keep-root @/tree"] {
        let ran = machine.json(line).ended(0);
        let report = ran.report();
        assert_eq!(report["dryRun"], true);
        assert_eq!(report["changed"], false);
        assert_eq!(report["items"][0]["state"], "planned");
        let plan = &report["items"][0]["plan"];
        assert_eq!(plan["fileSystem"], "ext4");
        assert!(plan["inodesUsed"].as_u64().unwrap() > 50);
        assert!(plan["estimate"]["slowSeconds"].as_u64().is_some());
    }
    machine
        .mend("@/tree --detailed-exitcode")
        .ended(3)
        .says("REMOVE")
        .says("--apply");
    assert_eq!(entries(&machine.disk), before);
    assert!(!Path::new("/mnt/state").exists(), "a plan leaves no trace");
}

#[test]
fn without_a_terminal_a_yes_is_needed() {
    let machine = Machine::new();
    grow(&machine.path("tree"), 1);
    machine.mend("@/tree --apply").ended(2).says("--yes");
    assert!(machine.path("tree").exists());
}

#[test]
fn a_tree_goes_and_a_second_run_has_nothing_to_do() {
    let machine = Machine::new();
    grow(&machine.path("tree"), 20);
    fs::write(machine.path("other"), "stays").unwrap();
    let report = machine.json("@/tree --apply --yes").ended(0).report();
    let item = &report["items"][0];
    assert_eq!(
        (&item["state"], &report["changed"]),
        (&"removed".into(), &true.into())
    );
    assert_eq!(item["outcome"]["removed"]["files"], 200);
    assert_eq!(item["outcome"]["removed"]["directories"], 28);
    assert!(!machine.path("tree").exists());
    assert!(machine.path("other").exists());
    let journal = fs::read_to_string("/mnt/state/journal.jsonl").unwrap();
    assert!(
        journal.contains("\"remove\"") && journal.contains("\"removed\""),
        "{journal}"
    );
    machine
        .mend("@/tree --apply --yes")
        .ended(0)
        .says("nothing is there");
}

#[test]
fn what_is_no_tree_of_its_own_is_refused() {
    let machine = Machine::new();
    grow(&machine.path("tree"), 1);
    symlink(machine.path("tree"), machine.path("link")).unwrap();
    fs::write(machine.path("file"), "").unwrap();
    for (line, reason) in [
        ("/", "noName"),
        (".", "noName"),
        ("@/tree/..", "noName"),
        ("@", "mountPoint"),
        ("@/link", "symlink"),
        ("@/link/d0", "symlink"),
        ("@/file", "notADirectory"),
        ("@/tree @/tree/d0", "overlap"),
        ("@/tree @/tree", "overlap"),
        ("@/tree --state-dir @/tree/state", "stateDirectory"),
        ("/mnt", "mountPoint"),
    ] {
        let ran = machine.json(&format!("{line} --apply --yes"));
        assert!(
            ran.reasons().contains(&reason.to_owned()),
            "{line}: {}",
            ran.stdout
        );
        ran.ended(4);
    }
    assert_eq!(entries(&machine.path("tree")), 12);
}

#[test]
fn the_working_directory_is_kept() {
    let machine = Machine::new();
    grow(&machine.path("tree"), 1);
    let mut command = machine.inside("sh");
    let tool = workspace_binary("mend-rm").unwrap();
    let tree = machine.path("tree");
    let line = format!(
        "cd {0}/d0 && {1} {0} --apply --yes",
        tree.display(),
        tool.display()
    );
    let output = command.args(["-c", &line]).output().unwrap();
    assert_eq!(output.status.code(), Some(4));
    assert!(String::from_utf8_lossy(&output.stdout).contains("working directory"));
    assert!(tree.join("d0").exists());
}

#[test]
fn the_root_of_a_running_containerd_is_refused_by_whatever_name() {
    let machine = Machine::new();
    grow(&machine.path("data/containerd/snapshots"), 1);
    grow(&machine.path("other"), 1);
    symlink(machine.path("data/containerd"), machine.path("link")).unwrap();
    let root = format!("--root={}", machine.path("link").display());
    let daemon = machine.daemon("containerd", &root);
    for tree in ["@/data", "@/data/containerd"] {
        let ran = machine.json(&format!("{tree} --apply --yes")).ended(4);
        assert_eq!(ran.reasons(), ["daemon"], "{tree}");
    }
    machine
        .mend("@/data/containerd/snapshots")
        .ended(0)
        .says("the tree lies in its root");
    machine.mend("@/other --apply --yes").ended(0);
    drop(daemon);
    machine.mend("@/data --apply --yes").ended(0);
    assert!(!machine.path("data").exists());
}

#[test]
fn a_tree_in_which_a_kubelet_has_files_open_is_refused() {
    let machine = Machine::new();
    grow(&machine.path("tree"), 1);
    fs::copy(nodemend_lab::tools::find("sleep").unwrap(), "/mnt/kubelet").unwrap();
    let held = fs::File::open(machine.path("tree/d0/e0/f0")).unwrap();
    let mut command = machine.inside("/mnt/kubelet");
    let daemon = machine.stays(command.arg("1000").stdin(held));
    let ran = machine.json("@/tree --apply --yes").ended(4);
    assert_eq!(ran.reasons(), ["daemon"]);
    drop(daemon);
    machine.mend("@/tree --apply --yes").ended(0);
}

#[test]
fn who_else_uses_the_tree_is_said() {
    let machine = Machine::new();
    grow(&machine.path("tree"), 1);
    let held = fs::File::open(machine.path("tree/d0/e0/f0")).unwrap();
    let mut command = machine.inside("sleep");
    let _user = machine.stays(command.arg("1000").stdin(held));
    let report = machine.json("@/tree").ended(0).report();
    let users = report["items"][0]["plan"]["users"].as_array().unwrap();
    assert_eq!(users.len(), 1, "{users:?}");
    assert_eq!(users[0]["openFiles"], 1);
}

#[test]
fn mounts_inside_are_refused_and_with_skip_mounts_left() {
    let machine = Machine::new();
    grow(&machine.path("tree"), 3);
    grow(&machine.path("victim"), 1);
    machine.shell(
        "mkdir tree/d0/bind tree/d0/tmp; mount --bind victim tree/d0/bind; mount -t tmpfs x tree/d0/tmp",
    );
    machine.shell("touch tree/d0/tmp/kept");
    let ran = machine.json("@/tree --apply --yes").ended(4);
    assert_eq!(ran.reasons(), ["mountsInside"]);
    let mounts = ran.report()["items"][0]["plan"]["mountsInside"].clone();
    assert_eq!(mounts.as_array().unwrap().len(), 2, "{mounts}");
    assert!(
        mounts[0]["source"].as_str().unwrap().contains("victim"),
        "{mounts}"
    );
    assert_eq!(mounts[1]["fileSystem"], "tmpfs");

    let report = machine
        .json("@/tree --skip-mounts --apply --yes")
        .ended(4)
        .report();
    assert_eq!(report["items"][0]["state"], "left");
    assert_eq!(
        report["items"][0]["outcome"]["problemCounts"][0]["reason"],
        "mount"
    );
    machine.shell(
        "test -e tree/d0/tmp/kept; test -e tree/d0/bind/d0/e0/f9; test ! -e tree/d1; test ! -e tree/d0/e0",
    );
    assert_eq!(entries(&machine.path("victim")), 12);
}

#[test]
fn a_part_that_is_mounted_elsewhere_keeps_the_tree() {
    let machine = Machine::new();
    grow(&machine.path("tree"), 1);
    machine.shell("mkdir shown; mount --bind tree/d0 shown");
    let ran = machine.json("@/tree --apply --yes").ended(4);
    assert_eq!(ran.reasons(), ["shownElsewhere"]);
    machine.shell("umount shown");
    machine.mend("@/tree --apply --yes").ended(0);
}

#[test]
fn an_overlay_that_lives_from_a_renamed_tree_keeps_it_and_not_its_namesake() {
    let machine = Machine::new();
    let layers = |root: &str| {
        for dir in ["s/1/fs", "s/2/fs", "s/2/work"] {
            fs::create_dir_all(machine.path(root).join(dir)).unwrap();
        }
        fs::write(machine.path(root).join("s/1/fs/file"), "x").unwrap();
    };
    layers("root");
    let d = machine.disk.display();
    machine.shell(&format!(
        "mkdir merged; mount -t overlay x -o lowerdir={d}/root/s/1/fs,upperdir={d}/root/s/2/fs,workdir={d}/root/s/2/work merged"
    ));
    for tree in ["@/root", "@/root/s/1", "@/root/s/2"] {
        assert_eq!(
            machine.json(&format!("{tree} --apply --yes")).ended(4).reasons(),
            ["overlay"]
        );
    }

    fs::rename(machine.path("root"), machine.path("old")).unwrap();
    layers("root");
    for tree in ["@/old", "@/old/s"] {
        let ran = machine.json(&format!("{tree} --apply --yes")).ended(4);
        assert_eq!(ran.reasons(), ["overlay"], "{tree}: {}", ran.stdout);
    }
    machine.shell("test -e merged/file; umount merged");
    machine.mend("@/old --apply --yes").ended(0);
    machine.shell("test -e root/s/1/fs/file");
}

#[test]
fn a_tree_of_other_layers_of_the_same_names_may_go() {
    let machine = Machine::new();
    for dir in [
        "root/s/1/fs",
        "root/s/2/fs",
        "root/s/2/work",
        "old/s/1/fs",
        "old/s/2/fs",
    ] {
        fs::create_dir_all(machine.path(dir)).unwrap();
    }
    let d = machine.disk.display();
    machine.shell(&format!(
        "mkdir merged; mount -t overlay x -o lowerdir={d}/root/s/1/fs,upperdir={d}/root/s/2/fs,workdir={d}/root/s/2/work merged"
    ));
    machine.mend("@/old --apply --yes").ended(0);
    assert!(!machine.path("old").exists());
}

#[test]
fn if_one_tree_is_refused_none_is_touched() {
    let machine = Machine::new();
    grow(&machine.path("a"), 1);
    grow(&machine.path("b"), 1);
    machine.shell("mkdir b/m; mount -t tmpfs x b/m");
    let report = machine.json("@/a @/b --apply --yes").ended(4).report();
    assert_eq!(report["items"][0]["state"], "notTried");
    assert_eq!(report["items"][1]["state"], "refused");
    assert_eq!(entries(&machine.path("a")), 12);
}

#[test]
fn the_root_can_be_kept() {
    let machine = Machine::new();
    grow(&machine.path("tree"), 3);
    machine.mend("@/tree --keep-root --apply --yes").ended(0);
    assert_eq!(entries(&machine.path("tree")), 0);
    assert!(machine.path("tree").is_dir());
}

#[test]
fn a_tree_that_was_set_aside_and_whose_removal_was_killed_is_resumed() {
    let machine = Machine::with(Format::Ext4, 1024);
    grow(&machine.path("tree"), 2000);
    let mut tool = machine.command("@/tree --set-aside --threads 1 --apply --yes --progress json");
    let mut running = tool.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(running.stderr.take().unwrap()).lines();
    lines.next().unwrap().unwrap();
    kill(Pid::from_raw(child_of(running.id())), Signal::SIGKILL).unwrap();
    running.wait().unwrap();
    assert!(!machine.path("tree").exists(), "its name is free at once");
    fs::create_dir(machine.path(".tree.nodemend-aside-0123456789abcdef")).unwrap();
    fs::create_dir(machine.path("tree")).unwrap();
    assert!(entries(&machine.disk) > 1000, "it was killed in the middle");

    let plan = machine.json("--resume @").ended(0).report();
    assert_eq!(plan["items"].as_array().unwrap().len(), 1);
    assert_eq!(plan["items"][0]["was"], machine.path("tree").to_str().unwrap());
    assert_eq!(plan["lookalikes"].as_array().unwrap().len(), 1);
    machine.json("--resume @ --apply --yes").ended(0).report();
    assert!(
        machine.path("tree").exists(),
        "what has the name now is another directory"
    );
    let left: Vec<_> = fs::read_dir(&machine.disk)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(
        left.len(),
        3,
        "the namesake, lost+found and the lookalike: {left:?}"
    );
    machine
        .mend("--resume @ --apply --yes")
        .ended(0)
        .says("nothing to resume");
}

#[test]
fn a_copy_of_a_tree_set_aside_is_not_ours() {
    let machine = Machine::new();
    let real = machine.path(".a.nodemend-aside-0123456789abcdef");
    grow(&machine.path("a"), 1);
    let tree = nodemend_rmtree::Tree::open(&machine.path("a")).unwrap();
    let aside = nodemend_rmtree::set_aside(tree).unwrap();
    let copied = Command::new("cp")
        .args(["-a", "--preserve=xattr"])
        .arg(aside.path())
        .arg(&real)
        .status()
        .unwrap();
    assert!(copied.success());
    let found = nodemend_rmtree::find(&machine.disk).unwrap();
    assert_eq!(found.trees.len(), 1);
    assert_eq!(found.trees[0].tree.path(), aside.path());
    assert_eq!(found.trees[0].was, machine.path("a"));
    assert_eq!(found.lookalikes[0].path, real);
    assert!(
        found.lookalikes[0].reason.contains("copy"),
        "{:?}",
        found.lookalikes
    );
}

#[test]
fn a_name_of_255_bytes_can_be_set_aside() {
    let machine = Machine::new();
    let name = "x".repeat(255);
    grow(&machine.path(&name), 1);
    let tree = nodemend_rmtree::Tree::open(&machine.path(&name)).unwrap();
    nodemend_rmtree::set_aside(tree).unwrap();
    let found = nodemend_rmtree::find(&machine.disk).unwrap();
    assert_eq!(found.trees[0].was, machine.path(&name));
}

#[test]
fn on_a_signal_it_ends_within_a_second_and_tells_the_truth() {
    let machine = Machine::with(Format::Ext4, 1024);
    grow(&machine.path("tree"), 4000);
    let before = entries(&machine.path("tree")) as u64;
    let mut tool = machine.command("@/tree --threads 1 --apply --yes --progress json --output json");
    let mut running = tool
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stderr = BufReader::new(running.stderr.take().unwrap());
    let mut line = String::new();
    stderr.read_line(&mut line).unwrap();
    kill(Pid::from_raw(child_of(running.id())), Signal::SIGINT).unwrap();
    let signalled = Instant::now();
    let mut stdout = String::new();
    running
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut stdout)
        .unwrap();
    let code = running.wait().unwrap().code().unwrap();
    assert!(
        signalled.elapsed() < Duration::from_secs(1),
        "{:?}",
        signalled.elapsed()
    );
    let ran = Ran {
        code,
        stdout,
        stderr: String::new(),
    };
    let ran = ran.ended(130);
    let report = ran.report();
    assert_eq!(report["signal"], 2);
    assert_eq!(report["items"][0]["state"], "stopped");
    let removed = &report["items"][0]["outcome"]["removed"];
    let gone = removed["files"].as_u64().unwrap() + removed["directories"].as_u64().unwrap();
    let left = entries(&machine.path("tree")) as u64;
    assert!(left > 0, "it was stopped in the middle");
    assert_eq!(gone + left, before);
    machine.mend("@/tree --apply --yes").ended(0);
}

#[test]
fn progress_is_one_json_object_a_line() {
    let machine = Machine::new();
    grow(&machine.path("tree"), 100);
    let ran = machine
        .mend("@/tree --apply --yes --progress json --set-aside")
        .ended(0);
    let lines: Vec<Value> = ran
        .stderr
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
        .collect();
    let last = lines.last().unwrap();
    assert_eq!(last["kind"], "RemovalProgress");
    assert_eq!(last["done"], true);
    assert_eq!(last["removed"]["files"], 1000);
    assert!(last["entriesPerSecond"].as_u64().unwrap() > 0);
}

#[test]
fn the_brake_needs_a_kernel_that_measures_pressure() {
    let machine = Machine::new();
    grow(&machine.path("tree"), 10);
    machine.shell("touch none; mount --bind none /proc/pressure/io");
    let ran = machine.mend("@/tree --max-io-pressure 50 --apply --yes").ended(1);
    assert!(ran.stderr.contains("--max-io-pressure"), "{}", ran.stderr);
    assert!(machine.path("tree").exists());
    machine.shell("umount /proc/pressure/io");
    machine.mend("@/tree --max-io-pressure 99 --apply --yes").ended(0);
}

#[test]
fn a_tree_that_another_run_removes_is_left_to_it() {
    let machine = Machine::new();
    grow(&machine.path("tree"), 1);
    let tree = fs::File::open(machine.path("tree")).unwrap();
    tree.lock().unwrap();
    machine
        .mend("@/tree --apply --yes")
        .ended(75)
        .says("another mend-rm");
    drop(tree);
    machine.mend("@/tree --apply --yes").ended(0);
}

#[test]
fn a_flag_that_would_help_is_named() {
    let machine = Machine::new();
    grow(&machine.path("tree"), 1);
    machine.shell("chattr +i tree/d0/e0/f0");
    let ran = machine.mend("@/tree --apply --yes").ended(4);
    machine.shell("chattr -i tree/d0/e0/f0");
    ran.says("immutable").says("--clear-flags");
}

#[test]
fn subvolumes_are_in_the_plan_and_go_only_if_it_was_asked_for() {
    let machine = Machine::with(Format::Btrfs, 320);
    grow(&machine.path("tree"), 1);
    machine.shell("btrfs -q subvolume create tree/sub; touch tree/sub/file; btrfs -q subvolume snapshot -r tree/sub tree/d0/snap");
    let plan = machine.json("@/tree").ended(0).report()["items"][0]["plan"].clone();
    let subvolumes = plan["subvolumes"].as_array().unwrap();
    assert_eq!(subvolumes.len(), 2, "{plan}");
    assert_eq!(
        subvolumes[0]["path"],
        machine.path("tree/d0/snap").to_str().unwrap()
    );
    assert_eq!(subvolumes[0]["readOnly"], true);
    assert!(
        plan["estimate"].is_null() && plan["inodesUsed"].is_null(),
        "btrfs does not count inodes"
    );
    machine.mend("@/tree --apply --yes").ended(4).says("--subvolumes");
    machine.mend("@/tree --subvolumes --apply --yes").ended(0);
    assert!(!machine.path("tree").exists());
}

#[test]
fn a_full_disk_does_not_keep_the_tree_for_want_of_a_journal() {
    let machine = Machine::new();
    grow(&machine.path("tree"), 1);
    machine.shell("mkdir state; mount -t tmpfs -o size=4k x state; dd if=/dev/zero of=state/fill bs=4k count=1 status=none");
    let ran = machine.mend("@/tree --state-dir @/state --apply --yes").ended(0);
    ran.says("no room for the journal");
    assert!(!machine.path("tree").exists());
}
