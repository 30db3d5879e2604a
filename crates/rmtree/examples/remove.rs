//! Removes the directory that it is given, and says how it goes: an [`Observer`] at work.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::use_debug,
    reason = "an example speaks to its reader"
)]

use std::path::Path;

use nodemend_rmtree::{Observer, Options, Progress, Tree, Urgency, remove};

/// Says how far it is, about once a second.
#[derive(Default)]
struct Told(u64);

impl Observer for Told {
    fn progress(&mut self, progress: &Progress) {
        if progress.elapsed.as_secs() > self.0 {
            self.0 = progress.elapsed.as_secs();
            eprintln!(
                "{} entries, {} threads",
                progress.removed.entries(),
                progress.threads
            );
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args_os().nth(1).ok_or("give a directory")?;
    let tree = Tree::open(Path::new(&path))?;
    let options = Options {
        urgency: Urgency::Urgent,
        ..Options::default()
    };
    println!(
        "{} on {}: {:?}",
        tree.path().display(),
        tree.file_system(),
        tree.policy(&options)
    );
    let report = remove(tree, &options, &mut Told::default());
    for problem in &report.problems {
        println!("{problem}");
    }
    println!(
        "{:?}: {} entries in {:?}, {} threads at most",
        report.end,
        report.removed.entries(),
        report.elapsed,
        report.threads
    );
    Ok(())
}
