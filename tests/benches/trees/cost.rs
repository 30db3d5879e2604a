//! What a removal costs others: a small writer on the same file system, which waits for its data to be safe.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nodemend_lab::disk::Format;

use crate::against::{Result, say};
use crate::case::{Caches, Case, Medium, Target};
use crate::contestants::{Contestant, OURS, RM};
use crate::images::Images;
use crate::measure::{self, Patience, Run};
use crate::report;
use crate::tree::Shape;

/// How often the writer writes.
const EVERY: Duration = Duration::from_millis(10);
/// How long it is watched while nothing is removed, in seconds.
const IDLE: &str = "4";

/// A node's disk, in the state of a node on which nobody has looked at the tree for long.
fn case(medium: Medium) -> Case {
    Case {
        format: Format::Ext4,
        caches: Caches::Cold,
        medium,
        shape: Shape::Node,
        target: Target::default(),
    }
}

/// One removal with the writer beside it.
struct Beside {
    /// Sorted: how long each write took until it was safe.
    waits: Vec<Duration>,
    run: Run,
}

/// Measures in turns, and prints the table.
pub(crate) fn compare(
    images: &mut Images<'_>,
    medium: Medium,
    contestants: &[Contestant],
    rounds: usize,
    patience: Patience,
) -> Result<()> {
    let case = case(medium);
    let rivals: Vec<&Contestant> = contestants
        .iter()
        .filter(|who| !["find", "rsync"].contains(&who.word))
        .collect();
    let mut idle = Vec::new();
    let mut beside: Vec<Vec<Beside>> = rivals.iter().map(|_| Vec::new()).collect();
    for _ in 0..rounds {
        idle.push(once(images, &case, None, patience)?);
        for (who, runs) in rivals.iter().zip(&mut beside) {
            runs.push(once(images, &case, Some(who), patience)?);
        }
    }
    let title = format!("cost to others: {case}, 4 KiB and fsync every 10 ms beside");
    report::heading(&title, rounds);
    say(&format!(
        "{:<30}{:>9}{:>10}{:>10}{:>10}{:>10}{:>10}",
        "", "wall", "p50", "p90", "p99", "max", "worst"
    ));
    line("nothing", &idle);
    for (who, runs) in rivals.iter().zip(&beside) {
        line(who.name, runs);
    }
    let of = |word: &str| {
        let found = rivals.iter().zip(&beside).find(|(who, _)| who.word == word);
        found.map(|(_, runs)| (waited(runs, 0.99), wall(runs)))
    };
    if let (Some((ours, our_wall)), Some((theirs, their_wall))) = (of(OURS), of(RM)) {
        let mark = if ours <= theirs { "reached" } else { "MISSED" };
        let (ours, theirs) = (report::millis(ours), report::millis(theirs));
        let share = 100.0 * our_wall.as_secs_f64() / their_wall.as_secs_f64();
        say(&format!(
            "  target: p99 no worse than beside rm: {ours} against {theirs}, in {share:.0} % of its time: {mark}"
        ));
    }
    Ok(())
}

fn line(name: &str, runs: &[Beside]) {
    let [p50, p90, p99, max] = [0.50, 0.90, 0.99, 1.0].map(|share| report::millis(waited(runs, share)));
    let worst = counting(runs).iter().filter_map(|run| run.waits.last()).max();
    let worst = report::millis(worst.copied().unwrap_or_default());
    let wall = format!("{:.2} s", wall(runs).as_secs_f64());
    let noise = report::noise(runs.iter().map(|run| &run.run));
    say(&format!(
        "{name:<30}{wall:>9}{p50:>10}{p90:>10}{p99:>10}{max:>10}{worst:>10}{noise}"
    ));
}

/// The quiet ones; all, if others disturbed each of them.
fn counting(runs: &[Beside]) -> Vec<&Beside> {
    let quiet: Vec<&Beside> = runs.iter().filter(|run| run.run.is_quiet()).collect();
    if quiet.is_empty() {
        runs.iter().collect()
    } else {
        quiet
    }
}

/// The median over the runs of the wait that this share of a run's waits does not exceed.
fn waited(runs: &[Beside], share: f64) -> Duration {
    let runs = counting(runs);
    let each: Vec<Duration> = runs.iter().map(|run| percentile(&run.waits, share)).collect();
    report::median(&each)
}

fn wall(runs: &[Beside]) -> Duration {
    let each: Vec<Duration> = counting(runs).iter().map(|run| run.run.wall).collect();
    report::median(&each)
}

/// The wait that this share of the waits does not exceed.
fn percentile(sorted: &[Duration], share: f64) -> Duration {
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an index of a short list"
    )]
    let index = ((sorted.len() as f64 * share).ceil() as usize).clamp(1, sorted.len().max(1)) - 1;
    sorted.get(index).copied().unwrap_or_default()
}

fn once(
    images: &mut Images<'_>,
    case: &Case,
    who: Option<&Contestant>,
    patience: Patience,
) -> Result<Beside> {
    let mut last = beside(images, case, who, patience.wait)?;
    for _ in 0..patience.again {
        if last.run.is_quiet() {
            break;
        }
        last = beside(images, case, who, patience.wait)?;
    }
    Ok(last)
}

fn beside(images: &mut Images<'_>, case: &Case, who: Option<&Contestant>, wait: Duration) -> Result<Beside> {
    let volume = images.restore(case)?;
    // With nobody to run, a command that does nothing: so it is known whether others disturbed that, too.
    let nothing = || Ok(vec!["sleep".into(), IDLE.into()]);
    let line = who.map_or_else(nothing, |who| who.line(case, &volume))?;
    measure::await_quiet(wait)?;
    measure::prepare(case.caches, &volume)?;
    Contestant::load(&line);
    let stop = AtomicBool::new(false);
    let file = volume.beside();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| write(&file, &stop));
        let run = measure::timed(&line);
        stop.store(true, Ordering::Relaxed);
        let mut waits = writer.join().map_err(|_| "the writer panicked")??;
        waits.sort_unstable();
        let mut run = run?;
        let left = if who.is_some() { volume.left()? } else { 0 };
        if run.failed.is_none() && left > 0 {
            run.failed = Some(format!("{left} entries are left"));
        }
        match &run.failed {
            Some(why) => Err(format!("beside a writer: {why}").into()),
            None => Ok(Beside { waits, run }),
        }
    })
}

/// Writes until it is told to stop. How long each write took.
fn write(file: &Path, stop: &AtomicBool) -> std::io::Result<Vec<Duration>> {
    let mut file = OpenOptions::new().append(true).create(true).open(file)?;
    let mut waits = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let begun = Instant::now();
        file.write_all(&[b'x'; 4096])?;
        file.sync_all()?;
        let took = begun.elapsed();
        waits.push(took);
        std::thread::sleep(EVERY.saturating_sub(took));
    }
    Ok(waits)
}
