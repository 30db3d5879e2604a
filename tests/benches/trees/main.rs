//! Removing a tree of many files, against what people use today, and against the least that any program must do.
//!
//! ```text
//! cargo bench -p nodemend-lab --bench trees -- --list
//! cargo bench -p nodemend-lab --bench trees                        # each case that has a target: about an hour
//! cargo bench -p nodemend-lab --bench trees -- ext4 cold slow      # one case
//! cargo bench -p nodemend-lab --bench trees -- cost                # what a writer beside has to wait
//! cargo bench -p nodemend-lab --bench trees -- --quick all         # small trees, to try the program
//! ```
//!
//! Needs root. All mounts are in a private namespace, the images of a run have no name on the machine's disk, and each process
//! ends with this one: nothing stays but the built images in the work directory.

#![allow(
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "measurements are for reading, and their errors are larger than those of a float"
)]

#[path = "../against/mod.rs"]
mod against;
mod case;
mod contestants;
mod cost;
mod images;
mod limit;
mod measure;
mod report;
mod slow_disk;
mod tree;

use std::path::{Path, PathBuf};
use std::time::Duration;

use against::{Result, say};
use case::{CASES, Case, Medium, Selection};
use clap::Parser;
use contestants::Contestant;
use images::Images;
use measure::Patience;
use nodemend_lab::disk::Ground;

/// Compares ways to remove a tree.
#[derive(Parser)]
struct Options {
    /// Words that select cases, such as `ext4 cold slow`; also `cost`, and `all`
    words: Vec<String>,
    /// Show the cases, and end
    #[arg(long)]
    list: bool,
    /// How often each contestant runs
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Trees of a tenth, to try this program
    #[arg(long)]
    quick: bool,
    /// The contestants, by their words, with commas between
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Where images are built and kept [default: trees, in cargo's directory]
    #[arg(long)]
    work: Option<PathBuf>,
    /// How many seconds to wait for a quiet machine before each run
    #[arg(long, default_value_t = 20)]
    wait: u64,
    /// How often a run that others disturbed is done again
    #[arg(long, default_value_t = 2)]
    again: usize,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

/// Below the target directory.
const CARGO_DIR: &str = env!("CARGO_TARGET_TMPDIR");

fn main() -> Result<()> {
    if let Some((part, arguments)) = against::part() {
        return match part.as_str() {
            slow_disk::PART => slow_disk::serve_here(&arguments),
            limit::PART => limit::remove_here(&arguments),
            contestants::LIBRARY => contestants::remove_here(&arguments),
            measure::CLOCK => measure::clock_here(&arguments),
            measure::BECOME => measure::become_here(&arguments),
            other => Err(format!("no part is called {other}").into()),
        };
    }
    let options = Options::parse();
    if options.list {
        list();
        return Ok(());
    }
    let selection = Selection::of(&options.words)?;
    let empty = tempfile::tempdir()?;
    let installed = Path::new(CARGO_DIR).with_file_name("contestants");
    let contestants = contestants::gather(&options.only, &installed, empty.path())?;
    let ground = Ground::enter()?;
    let work = options.work.unwrap_or_else(|| Path::new(CARGO_DIR).join("trees"));
    let mut images = Images::kept_in(&work, &ground, options.quick)?;
    let patience = Patience {
        wait: Duration::from_secs(options.wait),
        again: options.again,
    };
    for case in &selection.cases {
        compare(&mut images, case, &contestants, options.rounds, patience)?;
    }
    if let Some(medium) = selection.cost {
        cost::compare(&mut images, medium, &contestants, options.rounds, patience)?;
    }
    Ok(())
}

fn list() {
    for case in CASES {
        let aims = [("rm", case.target.rm), ("rmz", case.target.rmz)];
        let aims: Vec<String> = aims
            .into_iter()
            .filter_map(|(rival, aim)| Some(format!("{}x {rival}", aim?)))
            .collect();
        say(format!("{:<28}{}", case.to_string(), aims.join(", ")).trim_end());
    }
    say("cost                        p99 of a writer beside: no worse than with rm");
}

fn compare(
    images: &mut Images<'_>,
    case: &Case,
    contestants: &[Contestant],
    rounds: usize,
    patience: Patience,
) -> Result<()> {
    if case.medium == Medium::Slow {
        let pace = slow_disk::pace(&images.restore(case)?.device)?;
        say(&format!(
            "\nthe slow disk: {} for a random read of 4 KiB, {:.0} of them a second when 16 are asked for at once",
            report::millis(pace.alone),
            pace.at_depth_16
        ));
    }
    let mut results: Vec<report::Result<'_>> = contestants
        .iter()
        .map(|who| report::Result {
            who,
            runs: Vec::new(),
        })
        .collect();
    for _ in 0..rounds {
        for result in &mut results {
            result
                .runs
                .push(measure::run(images, case, result.who, patience)?);
        }
    }
    report::table(case, &results, rounds);
    Ok(())
}
