//! What is printed.

use std::time::Duration;

use crate::against::say;
use crate::case::{Case, Target};
use crate::contestants::{Contestant, OURS, RM, RMZ_WORD, URGENT};
use crate::measure::Run;

/// What one contestant did in all rounds.
pub(crate) struct Result<'a> {
    pub(crate) who: &'a Contestant,
    pub(crate) runs: Vec<Run>,
}

/// A line above a table.
pub(crate) fn heading(title: &str, rounds: usize) {
    let rounds = match rounds {
        1 => "1 round".to_owned(),
        many => format!("{many} rounds in turns"),
    };
    say(&format!("\n{title}   ({rounds})"));
}

/// The table of a case, and its targets.
pub(crate) fn table(case: &Case, results: &[Result<'_>], rounds: usize) {
    heading(&case.to_string(), rounds);
    say(&format!(
        "{:<30}{:>9}{:>14}{:>10}{:>10}{:>8}{:>10}{:>7}{:>7}",
        "", "median", "least-most", "own CPU", "all CPU", "reads", "peak", "x rm", "x rmz"
    ));
    let median_of = |word: &str| {
        let found = results.iter().find(|result| result.who.word == word)?;
        found.median()
    };
    let (rm, rmz) = (median_of(RM), median_of(RMZ_WORD));
    for result in results {
        result.print(rm, rmz);
    }
    // The tool at full speed, or what stands for it.
    let ours = results.iter().find(|result| result.who.word == URGENT);
    let ours = ours.or_else(|| {
        results
            .iter()
            .find(|result| result.who.name.starts_with("the library, urgent"))
    });
    if let Some(took) = ours.and_then(Result::median) {
        let Target {
            rm: aim_rm,
            rmz: aim_rmz,
        } = case.target;
        target("rm", aim_rm, rm, took);
        target("rmz", aim_rmz, rmz, took);
    }
    let peak_of = |word: &str| Some(results.iter().find(|result| result.who.word == word)?.peak());
    if let (Some(ours), Some(theirs)) = (peak_of(URGENT).or_else(|| peak_of(OURS)), peak_of(RM)) {
        let mark = if ours < theirs { "reached" } else { "MISSED" };
        say(&format!(
            "  target: peak memory below that of rm: {:.1} MiB against {:.1}: {mark}",
            mebibytes(ours),
            mebibytes(theirs)
        ));
    }
}

fn target(rival: &str, aim: Option<f64>, theirs: Option<Duration>, ours: Duration) {
    let (Some(aim), Some(theirs)) = (aim, theirs) else {
        return;
    };
    let ratio = theirs.as_secs_f64() / ours.as_secs_f64();
    let mark = if ratio >= aim {
        "reached".to_owned()
    } else {
        let most = theirs.as_secs_f64() / aim;
        format!(
            "MISSED by {:.0} % ({:.2} s would do)",
            100.0 * (1.0 - ratio / aim),
            most
        )
    };
    say(&format!("  target: {aim}x {rival}: {ratio:.2}x: {mark}"));
}

impl Result<'_> {
    /// Of the runs that count.
    fn counting(&self) -> Vec<&Run> {
        let good = self.runs.iter().filter(|run| run.failed.is_none());
        let quiet: Vec<&Run> = good.clone().filter(|run| run.is_quiet()).collect();
        if quiet.is_empty() { good.collect() } else { quiet }
    }

    fn median(&self) -> Option<Duration> {
        let walls: Vec<Duration> = self.counting().iter().map(|run| run.wall).collect();
        (!walls.is_empty()).then(|| median(&walls))
    }

    fn peak(&self) -> u64 {
        self.runs.iter().map(|run| run.peak_kib).max().unwrap_or(0)
    }

    fn print(&self, rm: Option<Duration>, rmz: Option<Duration>) {
        let name = self.who.name;
        if let Some(why) = self.runs.iter().find_map(|run| run.failed.as_ref()) {
            say(&format!("{name:<30}FAILED: {why}"));
            return;
        }
        let runs = self.counting();
        let of = |pick: fn(&Run) -> Duration| {
            let all: Vec<Duration> = runs.iter().map(|run| pick(run)).collect();
            median(&all).as_secs_f64()
        };
        let wall = of(|run| run.wall);
        let walls = || runs.iter().map(|run| run.wall.as_secs_f64());
        let (least, most) = (walls().fold(f64::MAX, f64::min), walls().fold(0.0, f64::max));
        let range = format!("{least:.2}-{most:.2}");
        let [rm, rmz] = [rm, rmz].map(|rival| {
            rival.map_or_else(String::new, |rival| format!("{:.2}", rival.as_secs_f64() / wall))
        });
        let mut reads: Vec<u64> = runs.iter().map(|run| run.reads).collect();
        reads.sort_unstable();
        let reads = reads[(reads.len() - 1) / 2];
        let (own, machine) = (of(|run| run.own), of(|run| run.machine));
        let peak = mebibytes(self.peak());
        let noise = noise(self.runs.iter());
        say(&format!(
            "{name:<30}{wall:>7.2} s{range:>14}{own:>8.2} s{machine:>8.2} s{reads:>8}{peak:>6.1} MiB{rm:>7}{rmz:>7}{noise}"
        ));
    }
}

/// A mark for runs that others disturbed.
pub(crate) fn noise<'a>(runs: impl Iterator<Item = &'a Run>) -> String {
    let all: Vec<&Run> = runs.collect();
    let noisy: Vec<String> = all
        .iter()
        .filter(|run| !run.is_quiet())
        .map(|run| format!("{:.0} %", 100.0 * run.foreign))
        .collect();
    match noisy.len() {
        0 => String::new(),
        some if some < all.len() => format!("  (left out, noisy: {some} of {})", all.len()),
        _ => format!("  NOISY: foreign CPU {}", noisy.join(", ")),
    }
}

/// The middle one; of two, the smaller.
pub(crate) fn median(times: &[Duration]) -> Duration {
    let mut times = times.to_vec();
    times.sort_unstable();
    times
        .get(times.len().saturating_sub(1) / 2)
        .copied()
        .unwrap_or_default()
}

/// A time for a table.
pub(crate) fn millis(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1e3)
}

fn mebibytes(kib: u64) -> f64 {
    kib as f64 / 1024.0
}
