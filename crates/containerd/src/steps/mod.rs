//! The steps of the runbook.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub(crate) mod aside;
#[cfg(test)]
pub(crate) mod aside_tests;
pub(crate) mod holders;
pub(crate) mod images;
pub(crate) mod leftovers;
pub(crate) mod likeness;
pub(crate) mod own_mount;
pub(crate) mod removal;
mod rename;
mod sandboxes;
pub(crate) mod services;
pub(crate) mod unmount;

/// A step of the runbook, in the order in which they are done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Step {
    /// Look whether there is anything to mend.
    Look,
    /// Stop kubelet, then containerd.
    Stop,
    /// End the running pods, or leave them.
    Pods,
    /// Unmount what containerd mounted below its root.
    Unmount,
    /// Set the root aside, and make it anew.
    SetAside,
    /// Start containerd, then kubelet, and wait for each.
    Start,
    /// Clear what is left of the sandboxes.
    Leftovers,
    /// Remove the old root in the background.
    Remove,
}

impl Step {
    /// All of them, in order.
    pub const ALL: [Self; 8] = [
        Self::Look,
        Self::Stop,
        Self::Pods,
        Self::Unmount,
        Self::SetAside,
        Self::Start,
        Self::Leftovers,
        Self::Remove,
    ];

    /// Its number in the runbook, from 1.
    pub fn number(self) -> usize {
        Self::ALL.iter().take_while(|step| **step != self).count() + 1
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Look => "look",
            Self::Stop => "stop kubelet and containerd",
            Self::Pods => "running pods",
            Self::Unmount => "unmount below the root",
            Self::SetAside => "set the root aside",
            Self::Start => "start containerd and kubelet",
            Self::Leftovers => "clear what is left of the pods",
            Self::Remove => "remove the old root",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_steps_have_the_numbers_of_the_runbook() {
        let numbers: Vec<usize> = Step::ALL.iter().map(|step| step.number()).collect();
        assert_eq!(numbers, [1, 2, 3, 4, 5, 6, 7, 8]);
        assert!(Step::ALL.is_sorted());
    }
}
