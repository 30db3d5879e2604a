//! What the benchmarks share: two ways of doing a thing, in turns; the node they are done on; and the table.

#![allow(dead_code, reason = "each benchmark uses a part of this")]

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nodemend_lab::{Engine, Node, Options};
use serde_json::{Value, json};

/// A benchmark that cannot measure what it says must not print a number.
pub(crate) type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

/// Linux gives a bridge 1024 ports and no more.
const PORTS: usize = 1000;

/// The argument with which a benchmark runs a part of itself on the node.
pub(crate) const PART: &str = "--part";

/// The part of itself that this process is to be, with its arguments; none for the benchmark itself.
pub(crate) fn part() -> Option<(String, Vec<String>)> {
    let mut arguments = std::env::args()
        .skip(1)
        .skip_while(|argument| argument != PART)
        .skip(1);
    Some((arguments.next()?, arguments.collect()))
}

/// This program as a command on the node, to be another part of itself.
pub(crate) fn part_on(node: &Node, part: &str, arguments: &[&str]) -> Result<Command> {
    let mut command = node.command(std::env::current_exe()?);
    command.args([PART, part]).args(arguments);
    Ok(command)
}

/// A node of the stand-in with one live pod: a runtime that knows nothing at all is not believed in its first minute.
pub(crate) fn node(subnet: &str) -> Result<Node> {
    let node = Node::start(Options {
        subnets: vec![subnet.to_owned()],
        ..Options::on(Engine::StandIn)
    })?;
    node.run_sandboxes(1)?;
    Ok(node)
}

/// Builds a tool as it is released. Its path.
pub(crate) fn release(tool: &str) -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo)
        .args([
            "build",
            "--release",
            "--message-format=json-render-diagnostics",
            "-p",
            tool,
        ])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stderr(Stdio::inherit())
        .output()?;
    let built = succeeded(tool, built)?;
    let path = built.lines().find_map(|line| executable(line, tool));
    path.ok_or_else(|| format!("cargo did not say where it put {tool}").into())
}

fn executable(line: &str, tool: &str) -> Option<PathBuf> {
    let message: Value = serde_json::from_str(line).ok()?;
    let ours = message["target"]["name"] == tool;
    message["executable"].as_str().filter(|_| ours).map(PathBuf::from)
}

/// What a command that must succeed wrote.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    let line = format!("{command:?}");
    succeeded(&line, command.output()?)
}

fn succeeded(what: &str, done: Output) -> Result<String> {
    if done.status.success() {
        return Ok(String::from_utf8_lossy(&done.stdout).into_owned());
    }
    Err(format!(
        "{what}: {}: {}",
        done.status,
        String::from_utf8_lossy(&done.stderr)
    )
    .into())
}

/// How long a command took that must succeed. Its output is thrown away.
pub(crate) fn timed(mut command: Command) -> Result<Duration> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let begun = Instant::now();
    let done = command.spawn()?.wait_with_output()?;
    let took = begun.elapsed();
    succeeded(&format!("{command:?}"), done).map(|_| took)
}

/// Says how much memory a tool had at its peak on the node. A process of its own runs it, so that no other child counts.
pub(crate) fn peak(node: &Node, tool: &Path, arguments: &[&str]) -> Result<f64> {
    let tool = tool.display().to_string();
    let kib = run(&mut part_on(
        node,
        "peak",
        &[&[tool.as_str()], arguments].concat(),
    )?)?;
    Ok(kib.trim().parse::<f64>()? / 1024.0)
}

/// The part that [`peak`] starts: runs a command, then says what it took.
pub(crate) fn say_peak(line: &[String]) -> Result<()> {
    let (program, arguments) = line.split_first().ok_or("nothing to run")?;
    timed({
        let mut command = Command::new(program);
        command.args(arguments);
        command
    })?;
    say(&getrusage(UsageWho::RUSAGE_CHILDREN)?.max_rss().to_string());
    Ok(())
}

/// Refuses to go on unless a plan has exactly that many orphans: an empty plan is a fast one.
pub(crate) fn expect_orphans(node: &Node, tool: &Path, arguments: &[&str], count: usize) -> Result<()> {
    let said = run(node.command(tool).args(arguments))?;
    let report: Value = serde_json::from_str(&said)?;
    if report["summary"]["orphans"] == json!(count) {
        return Ok(());
    }
    let example = report["items"].as_array().and_then(|items| items.last());
    Err(format!(
        "not {count} orphans, but {}; such as {example:?}",
        report["summary"]
    )
    .into())
}

/// Makes orphaned pairs on as many bridges as the kernel needs for them, each of a network of its own. What they
/// have inside is up, as in a pod.
pub(crate) fn orphaned_pairs(node: &Node, count: usize) -> Result<()> {
    let mut batch = String::new();
    for number in 0..count {
        if number % PORTS == 0 && number > 0 {
            add_bridge(node, number / PORTS)?;
        }
        let netns = format!("cni-{number:08x}-0000-4000-8000-000000000000");
        let veth = format!("veth{number:08x}");
        // The pod of the node has a port as well, so the bridges hold a few more than PORTS at most.
        writeln!(batch, "netns add {netns}")?;
        writeln!(batch, "link add {veth} type veth peer name eth0 netns {netns}")?;
        writeln!(batch, "link set {veth} master {} up", bridge(number / PORTS))?;
    }
    node.write("/run/lab/pairs", &batch)?;
    node.exec(&["ip", "-batch", "/run/lab/pairs"])?;
    node.shell("for f in /run/netns/cni-????????-0000-*; do nsenter --net=$f ip link set eth0 up; done")?;
    Ok(())
}

/// Removes the files of [`orphaned_pairs`], and with them what is left of the pairs.
pub(crate) fn release_pairs(node: &Node) -> Result<()> {
    node.shell(
        "for f in /run/netns/cni-????????-0000-*; do if [ -e $f ]; then umount -l $f; rm $f; fi; done",
    )?;
    Ok(())
}

fn bridge(number: usize) -> String {
    format!("cni{number}")
}

fn add_bridge(node: &Node, number: usize) -> Result<()> {
    let name = bridge(number);
    if node.links()?.iter().any(|link| link.ifname == name) {
        return Ok(());
    }
    let ipam = json!({"type": "host-local", "ranges": [[{"subnet": format!("10.{}.0.0/16", 100 + number)}]]});
    let plugin = json!({"type": "bridge", "bridge": &name, "isGateway": true, "ipam": ipam});
    let network = json!({"cniVersion": "0.3.1", "name": format!("more{number}"), "plugins": [plugin]});
    node.write(
        format!("/etc/cni/net.d/9{number}-more.conflist"),
        &format!("{network:#}\n"),
    )?;
    node.shell(&format!(
        "ip link add {name} type bridge && ip link set {name} up"
    ))?;
    Ok(())
}

/// Ways of doing one thing, each done once a turn, in turns: A B A B.
#[derive(Default)]
pub(crate) struct Turns<'a> {
    ways: Vec<Way<'a>>,
}

struct Way<'a> {
    name: String,
    act: Box<dyn FnMut() -> Result<Duration> + 'a>,
    took: Vec<Duration>,
}

impl<'a> Turns<'a> {
    /// Adds a way. The first is what all others are compared with.
    pub(crate) fn way(mut self, name: impl Into<String>, act: impl FnMut() -> Result<Duration> + 'a) -> Self {
        self.ways.push(Way {
            name: name.into(),
            act: Box::new(act),
            took: Vec::new(),
        });
        self
    }

    /// Does each way that often, and gives the lines of the table.
    pub(crate) fn take(mut self, turns: usize) -> Result<Vec<Line>> {
        for _ in 0..turns {
            for way in &mut self.ways {
                way.took.push((way.act)()?);
            }
        }
        Ok(self
            .ways
            .into_iter()
            .map(|way| Line::of(way.name, way.took))
            .collect())
    }
}

/// A line of a table: what one way took.
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) least: Duration,
    pub(crate) median: Duration,
    pub(crate) most: Duration,
}

impl Line {
    pub(crate) fn of(name: impl Into<String>, mut took: Vec<Duration>) -> Self {
        took.sort();
        let at = |index: usize| took.get(index).copied().unwrap_or_default();
        Self {
            name: name.into(),
            least: at(0),
            median: at(took.len() / 2),
            most: at(took.len().saturating_sub(1)),
        }
    }

    /// The same, for one of `parts` equal parts of it, or for `1 / parts` as many.
    pub(crate) fn part(&self, name: &str, parts: f64) -> Self {
        Self {
            name: name.to_owned(),
            least: self.least.div_f64(parts),
            median: self.median.div_f64(parts),
            most: self.most.div_f64(parts),
        }
    }
}

/// Prints lines, each with how many times faster it is than the slowest way of today, which is `today`.
pub(crate) fn table(title: &str, lines: &[Line], today: Duration) {
    say(&format!("\n{title}   (load {})", load()));
    say(&format!(
        "{:<58}{:>12}{:>12}{:>12}{:>10}",
        "", "least", "median", "most", "faster"
    ));
    for line in lines {
        let ratio = today.as_secs_f64() / line.median.as_secs_f64();
        let [least, median, most] = [line.least, line.median, line.most].map(milliseconds);
        say(&format!(
            "{:<58}{least:>12}{median:>12}{most:>12}{ratio:>9.1}x",
            line.name
        ));
    }
}

fn milliseconds(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}

/// How busy the machine is: a number taken on a busy one says little.
fn load() -> String {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

/// Prints a line.
#[allow(clippy::print_stdout, reason = "a measurement is for reading")]
pub(crate) fn say(line: &str) {
    println!("{line}");
}
