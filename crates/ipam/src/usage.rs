//! How full each network is. Pure.

use std::fmt;

use nodemend_cni::{Range, RangeSet};
use nodemend_evidence::{Plan, VerdictKind};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::networks::NetworkDir;
use crate::reservation::Reservation;
use crate::survey::Survey;

/// How full one set of ranges is. A network of two families has two sets, and each runs out for itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NetworkUsage {
    /// The network.
    pub name: String,
    /// The addresses that it hands out, as a network or as first and last. Empty where no configuration of this
    /// node says, and for files that are in none of the ranges.
    pub ranges: String,
    /// How many addresses that is; 0 if nobody says. A number that a report of JSON can hold: more than 2^64-1 IPv6
    /// addresses are told as that many.
    pub capacity: u64,
    /// How many have a file.
    pub reserved: usize,
    /// Of these: held by somebody.
    pub live: usize,
    /// Of these: held by nobody, proven.
    pub orphaned: usize,
    /// Of these: not proven either way.
    pub undecided: usize,
    /// Of these: not made by this node's host-local.
    pub foreign: usize,
}

impl NetworkUsage {
    fn count(&mut self, verdict: VerdictKind) {
        self.reserved += 1;
        *match verdict {
            VerdictKind::Live => &mut self.live,
            VerdictKind::Foreign => &mut self.foreign,
            VerdictKind::Undecided => &mut self.undecided,
            VerdictKind::Orphan => &mut self.orphaned,
        } += 1;
    }
}

impl fmt::Display for NetworkUsage {
    /// `cbr0 10.88.0.0/25: 125 addresses, 125 reserved, 12 live, 113 orphaned`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if self.ranges.is_empty() {
            f.write_str(":")?;
        } else {
            write!(f, " {}: {} addresses,", self.ranges, self.capacity)?;
        }
        write!(
            f,
            " {} reserved, {} live, {} orphaned",
            self.reserved, self.live, self.orphaned
        )?;
        if self.undecided > 0 {
            write!(f, ", {} undecided", self.undecided)?;
        }
        if self.foreign > 0 {
            write!(f, ", {} foreign", self.foreign)?;
        }
        Ok(())
    }
}

/// How full the networks are, by the verdicts of a plan: a line for each set of ranges, and one for each directory
/// with files that are in none.
pub fn usage(survey: &Survey, plan: &Plan<Reservation>) -> Vec<NetworkUsage> {
    let mut tables: Vec<Table<'_>> = survey
        .networks
        .iter()
        .map(|network| Table::of(survey, network))
        .collect();
    for verdict in plan.verdicts() {
        let reservation = verdict.subject();
        if let Some(table) = tables
            .iter_mut()
            .find(|table| table.network.dir == reservation.dir)
        {
            table.line(reservation).count(verdict.kind());
        }
    }
    tables.into_iter().flat_map(Table::lines).collect()
}

/// The lines of one directory.
struct Table<'a> {
    network: &'a NetworkDir,
    sets: Vec<(&'a RangeSet, NetworkUsage)>,
    outside: NetworkUsage,
}

impl<'a> Table<'a> {
    fn of(survey: &'a Survey, network: &'a NetworkDir) -> Self {
        let name = network.network.to_string();
        let line = |set: &'a RangeSet| {
            let (ranges, capacity) = (shown(set), u64::try_from(set.capacity()).unwrap_or(u64::MAX));
            (
                set,
                NetworkUsage {
                    name: name.clone(),
                    ranges,
                    capacity,
                    ..NetworkUsage::default()
                },
            )
        };
        Self {
            network,
            sets: range_sets(survey, network).map(line).collect(),
            outside: NetworkUsage {
                name: name.clone(),
                ..NetworkUsage::default()
            },
        }
    }

    fn line(&mut self, reservation: &Reservation) -> &mut NetworkUsage {
        let inside = |set: &RangeSet| reservation.ip.is_some_and(|ip| set.contains(ip));
        match self.sets.iter_mut().find(|(set, _)| inside(set)) {
            Some((_, line)) => line,
            None => &mut self.outside,
        }
    }

    fn lines(self) -> Vec<NetworkUsage> {
        let mut lines: Vec<_> = self.sets.into_iter().map(|(_, line)| line).collect();
        if self.outside.reserved > 0 {
            lines.push(self.outside);
        }
        lines
    }
}

/// The sets of ranges that this node's configuration hands out from a directory.
pub(crate) fn range_sets<'a>(survey: &'a Survey, dir: &'a NetworkDir) -> impl Iterator<Item = &'a RangeSet> {
    let named = survey.configurations.networks.iter();
    let networks = named.filter(|network| dir.configured && *network.name == *dir.network);
    networks.flat_map(|network| network.ipam.iter().flat_map(|ipam| &ipam.range_sets))
}

fn shown(set: &RangeSet) -> String {
    set.ranges.iter().map(shown_range).collect::<Vec<_>>().join(", ")
}

/// A whole network by its name, a part of one by its ends.
fn shown_range(range: &Range) -> String {
    match Range::new(range.subnet, None, None, None) {
        Ok(whole) if (whole.start, whole.end) == (range.start, range.end) => range.subnet.to_string(),
        Ok(_) | Err(_) => range.to_string(),
    }
}
