//! What is measured: which tree, on which file system and disk, with what in the caches; and what is to be reached there.

use std::fmt;

use nodemend_lab::disk::Format;

use crate::tree::Shape;

/// One comparison.
#[derive(Clone, Copy, PartialEq)]
pub(crate) struct Case {
    pub(crate) format: Format,
    pub(crate) caches: Caches,
    pub(crate) medium: Medium,
    pub(crate) shape: Shape,
    pub(crate) target: Target,
}

/// What is in memory when a run begins.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Caches {
    /// Every inode and every name: the tree was walked after mounting.
    Warm,
    /// Nothing: freshly mounted, and all caches dropped.
    Cold,
}

/// Where the image lies.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Medium {
    /// In memory.
    Ram,
    /// On this machine's disk.
    Disk,
    /// In memory, behind 0.8 ms for every request: a cloud's disk.
    Slow,
}

impl Medium {
    /// Its word.
    fn word(self) -> &'static str {
        match self {
            Self::Ram => "ram",
            Self::Disk => "disk",
            Self::Slow => "slow",
        }
    }
}

/// How many times faster than others ours is to be.
#[derive(Clone, Copy, PartialEq, Default)]
pub(crate) struct Target {
    pub(crate) rm: Option<f64>,
    pub(crate) rmz: Option<f64>,
}

const fn case(
    format: Format,
    caches: Caches,
    medium: Medium,
    shape: Shape,
    rm: Option<f64>,
    rmz: Option<f64>,
) -> Case {
    Case {
        format,
        caches,
        medium,
        shape,
        target: Target { rm, rmz },
    }
}

/// All of them. Those with a target are the ones that are run when nothing is selected.
#[rustfmt::skip]
pub(crate) const CASES: [Case; 24] = {
    use Caches::{Cold, Warm};
    use Format::{Btrfs, Ext4, Xfs};
    use Medium::{Disk, Ram, Slow};
    use Shape::{Million, Node, Wide};
    [
        case(Ext4, Cold, Slow, Node, Some(7.0), Some(3.5)),
        case(Ext4, Cold, Disk, Node, Some(2.4), Some(1.35)),
        case(Ext4, Warm, Disk, Wide, Some(2.0), Some(2.0)),
        case(Ext4, Warm, Disk, Node, Some(2.0), Some(1.0)),
        case(Xfs, Cold, Slow, Node, Some(3.0), Some(1.6)),
        case(Xfs, Warm, Ram, Node, Some(1.4), Some(1.3)),
        case(Xfs, Warm, Disk, Node, Some(1.4), Some(1.3)),
        case(Btrfs, Cold, Slow, Node, Some(1.7), Some(1.2)),
        case(Btrfs, Warm, Ram, Node, Some(1.0), None),
        case(Ext4, Warm, Ram, Node, None, None),
        case(Ext4, Warm, Ram, Wide, None, None),
        case(Ext4, Cold, Slow, Wide, None, None),
        case(Ext4, Cold, Disk, Wide, None, None),
        case(Xfs, Cold, Disk, Node, None, None),
        case(Xfs, Warm, Ram, Wide, None, None),
        case(Xfs, Cold, Slow, Wide, None, None),
        case(Btrfs, Warm, Disk, Node, None, None),
        case(Btrfs, Cold, Disk, Node, None, None),
        case(Btrfs, Warm, Ram, Wide, None, None),
        case(Ext4, Cold, Slow, Million, None, None),
        case(Ext4, Cold, Disk, Million, None, None),
        case(Ext4, Warm, Disk, Million, None, None),
        case(Xfs, Cold, Disk, Million, None, None),
        case(Btrfs, Cold, Disk, Million, None, None),
    ]
};

impl Case {
    /// Words that select it.
    fn words(&self) -> [&'static str; 4] {
        [
            format_word(self.format),
            match self.caches {
                Caches::Warm => "warm",
                Caches::Cold => "cold",
            },
            self.medium.word(),
            self.shape.word(),
        ]
    }

    fn has_target(&self) -> bool {
        self.target != Target::default()
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words().join(" "))
    }
}

/// The word for a file system.
pub(crate) fn format_word(format: Format) -> &'static str {
    match format {
        Format::Ext4 => "ext4",
        Format::Xfs => "xfs",
        Format::Btrfs => "btrfs",
    }
}

/// What a person has asked for.
pub(crate) struct Selection {
    pub(crate) cases: Vec<Case>,
    /// The disk on which the cost to a writer beside is measured, if it is.
    pub(crate) cost: Option<Medium>,
}

/// Words that are no case's.
const ALL: &str = "all";
const COST: &str = "cost";

impl Selection {
    /// `ext4 cold slow` is each case that is all of it; `ext4 xfs cold` is cold ext4 and cold XFS. `all` is every case, and
    /// no word at all each one that has a target, and the cost to others. `cost` is that alone, on the machine's disk or, with
    /// `slow` or `ram`, on one that others of the machine do not use.
    pub(crate) fn of(words: &[String]) -> Result<Self, String> {
        let known: Vec<&str> = CASES.iter().flat_map(Case::words).chain([ALL, COST]).collect();
        if let Some(word) = words.iter().find(|word| !known.contains(&word.as_str())) {
            return Err(format!(
                "nothing is called `{word}`; `--list` shows what there is"
            ));
        }
        let has = |known: &str| words.iter().any(|word| word == known);
        if has(COST) {
            let media = [Medium::Ram, Medium::Slow];
            let medium = media.into_iter().find(|medium| has(medium.word()));
            return Ok(Self {
                cases: Vec::new(),
                cost: Some(medium.unwrap_or(Medium::Disk)),
            });
        }
        let words: Vec<&String> = words.iter().collect();
        let chosen = |case: &&Case| match words.is_empty() {
            true => case.has_target(),
            false => has(ALL) || matches(case, &words),
        };
        let cases: Vec<Case> = CASES.iter().filter(chosen).copied().collect();
        if cases.is_empty() {
            return Err("no case is all of this; `--list` shows what there is".to_owned());
        }
        let cost = (words.is_empty() || has(ALL)).then_some(Medium::Disk);
        Ok(Self { cases, cost })
    }
}

/// For each of the four questions: either no word answers it, or one that fits.
fn matches(case: &Case, words: &[&String]) -> bool {
    case.words().iter().enumerate().all(|(question, own)| {
        let mut answers = words
            .iter()
            .filter(|word| CASES.iter().any(|other| other.words()[question] == **word))
            .peekable();
        answers.peek().is_none() || answers.any(|word| word.as_str() == *own)
    })
}
