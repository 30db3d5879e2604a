//! Who removes the tree.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use nodemend_lab::disk::Format;

use crate::against::{self, Result, run, say};
use crate::case::{Caches, Case};
use crate::images::Volume;
use crate::limit;

/// The part that is the library without the tool around it.
pub(crate) const LIBRARY: &str = "library";

/// The version that the targets were set against.
const RMZ: &str = "3.2.1";

/// One way to remove a tree.
#[derive(Clone)]
pub(crate) struct Contestant {
    /// The word that selects it.
    pub(crate) word: &'static str,
    /// What a reader sees.
    pub(crate) name: &'static str,
    kind: Kind,
}

#[derive(Clone)]
enum Kind {
    Ours {
        tool: PathBuf,
        urgent: bool,
        threads: Option<&'static str>,
    },
    Library {
        urgent: bool,
    },
    Rm,
    Find,
    Rsync {
        empty: PathBuf,
    },
    Rmz {
        tool: PathBuf,
    },
    Limit,
}

/// The word of ours at full speed.
pub(crate) const URGENT: &str = "urgent";
/// The word of ours as it is by default.
pub(crate) const OURS: &str = "mend-rm";
pub(crate) const RM: &str = "rm";
pub(crate) const RMZ_WORD: &str = "rmz";

const WORDS: [(&str, &str); 12] = [
    (URGENT, "mend-rm --urgent"),
    (OURS, "mend-rm"),
    (RM, "rm -rf"),
    ("find", "find -delete"),
    ("rsync", "rsync -a --delete"),
    (RMZ_WORD, "rmz"),
    ("limit", "limit (listing made before)"),
    ("threads-2", "mend-rm --threads 2"),
    ("threads-4", "mend-rm --threads 4"),
    ("threads-8", "mend-rm --threads 8"),
    (LIBRARY, "the library, urgent"),
    ("library-background", "the library, background"),
];

/// Those that are left out unless they are named: to find out what a policy should be.
const ON_REQUEST: [&str; 5] = [
    "threads-2",
    "threads-4",
    "threads-8",
    LIBRARY,
    "library-background",
];

/// Those that were asked for, in the order of the table; all of them for no words. What cannot be had is said and left out.
pub(crate) fn gather(words: &[String], installed: &Path, empty: &Path) -> Result<Vec<Contestant>> {
    if let Some(word) = words
        .iter()
        .find(|word| !WORDS.iter().any(|(known, _)| known == word))
    {
        let known: Vec<&str> = WORDS.iter().map(|(word, _)| *word).collect();
        return Err(format!("no contestant is called `{word}`, only {}", known.join(", ")).into());
    }
    let asked = |word: &str| match words.is_empty() {
        true => !ON_REQUEST.contains(&word),
        false => words.iter().any(|asked| asked == word),
    };
    let mut contestants = Vec::new();
    for (word, name) in WORDS.into_iter().filter(|(word, _)| asked(word)) {
        match kind(word, installed, empty) {
            Ok(kind) => contestants.push(Contestant { word, name, kind }),
            Err(error) => say(&format!("*** {name} IS NOT COMPARED: {error}")),
        }
    }
    Ok(contestants)
}

fn kind(word: &'static str, installed: &Path, empty: &Path) -> Result<Kind> {
    Ok(match word {
        URGENT | OURS | "threads-2" | "threads-4" | "threads-8" => Kind::Ours {
            tool: ours()?,
            urgent: word == URGENT,
            threads: word.strip_prefix("threads-"),
        },
        RM => Kind::Rm,
        "find" => Kind::Find,
        "rsync" => {
            run(Command::new("rsync").arg("--version"))
                .map_err(|error| format!("{error} (tests/setup.sh installs it)"))?;
            Kind::Rsync {
                empty: empty.to_owned(),
            }
        }
        RMZ_WORD => Kind::Rmz {
            tool: rmz(installed)?,
        },
        "limit" => Kind::Limit,
        _ => Kind::Library {
            urgent: word == LIBRARY,
        },
    })
}

/// `mend-rm` as it is released.
fn ours() -> Result<PathBuf> {
    let tool = against::release("mend-rm")?;
    let help = run(Command::new(&tool).arg("--help"))?;
    if help.contains("--urgent") {
        return Ok(tool);
    }
    Err("mend-rm has no --urgent yet".into())
}

/// `rmz`, installed into a directory of its own if it is not there.
fn rmz(installed: &Path) -> Result<PathBuf> {
    let tool = installed.join("bin/rmz");
    let right = |said: String| said.split_whitespace().any(|word| word == RMZ);
    if !run(Command::new(&tool).arg("--version")).is_ok_and(right) {
        say(&format!("installing rmz {RMZ}"));
        run(
            Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
                .args([
                    "install",
                    "rmz",
                    "--locked",
                    "--force",
                    "--version",
                    RMZ,
                    "--root",
                ])
                .arg(installed),
        )?;
    }
    Ok(tool)
}

impl Contestant {
    /// Its command line for a tree.
    pub(crate) fn line(&self, case: &Case, volume: &Volume) -> Result<Vec<OsString>> {
        let tree = volume.tree();
        let own = |part: &str, arguments: Vec<String>| -> Result<Vec<OsString>> {
            let program = std::env::current_exe()?.into_os_string();
            let part = [against::PART, part].map(OsString::from);
            let arguments = arguments.into_iter().map(OsString::from);
            Ok([program].into_iter().chain(part).chain(arguments).collect())
        };
        let plain = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
        Ok(match &self.kind {
            Kind::Ours {
                tool,
                urgent,
                threads,
            } => {
                let mut line = vec![tool.into(), "--apply".into(), "--yes".into()];
                line.extend(urgent.then(|| OsString::from("--urgent")));
                if let Some(threads) = threads {
                    line.extend(["--threads".into(), OsString::from(threads)]);
                }
                line.push(tree.into());
                line
            }
            Kind::Library { urgent } => own(LIBRARY, vec![tree.display().to_string(), urgent.to_string()])?,
            Kind::Rm => [plain(&["rm", "-rf"]), vec![tree.into()]].concat(),
            Kind::Find => vec!["find".into(), tree.into(), "-delete".into()],
            Kind::Rsync { empty } => {
                // With the slash, rsync empties the directory that is named.
                let [from, to] = [empty, &tree].map(|dir| dir.join("").into_os_string());
                [plain(&["rsync", "-a", "--delete"]), vec![from, to]].concat()
            }
            Kind::Rmz { tool } => vec![tool.into(), tree.into()],
            Kind::Limit => {
                let (threads, split) = best_known(case);
                let listing = &volume.listing;
                own(
                    limit::PART,
                    limit::arguments(listing, &tree, volume.lanes, threads, split),
                )?
            }
        })
    }

    /// Takes its program into memory: the tree is cold, not the tool.
    pub(crate) fn load(line: &[OsString]) {
        let program = line.first().map(Path::new).unwrap_or(Path::new("true"));
        let _help = Command::new(program).arg("--version").output();
    }
}

/// With how many threads the limit was best, and whether wide directories are to be split. On XFS there is one for each
/// allocation group instead.
fn best_known(case: &Case) -> (usize, bool) {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    match (case.format, case.caches) {
        (Format::Ext4, Caches::Warm) => (cores, true),
        (Format::Ext4, Caches::Cold) => (16, true),
        (Format::Xfs, _) => (1, false),
        (Format::Btrfs, Caches::Warm) => (1, false),
        (Format::Btrfs, Caches::Cold) => (16, false),
    }
}

/// The part that is the library alone.
pub(crate) fn remove_here(arguments: &[String]) -> Result<()> {
    use nodemend_rmtree::{Options, Tree, Urgency, remove};
    let [tree, urgent] = arguments else {
        return Err("expected a tree and whether it is urgent".into());
    };
    let options = Options {
        urgency: if urgent == "true" {
            Urgency::Urgent
        } else {
            Urgency::Background
        },
        ..Options::default()
    };
    let report = remove(Tree::open(Path::new(tree))?, &options, &mut ());
    if report.gone() {
        return Ok(());
    }
    Err(report
        .problems
        .first()
        .map_or("it stopped".to_owned(), ToString::to_string)
        .into())
}
