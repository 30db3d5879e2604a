use nodemend_procns::Process;

use super::*;
use crate::knowledge::{NetnsRef, Pod};
use crate::sources::Asked;

const RUN: &str = "/run/containerd/containerd.sock";
const K3S: &str = "/run/k3s/containerd/containerd.sock";
const HOST: NetnsId = netns(1);
const ID: &str = "8f3a5c9e0b7d21468f3a5c9e0b7d21468f3a5c9e0b7d21468f3a5c9e0b7d2146";
const APP: &str = "aa11bb22cc33dd44aa11bb22cc33dd44aa11bb22cc33dd44aa11bb22cc33dd44";

const fn netns(ino: u64) -> NetnsId {
    NetnsId { dev: 4, ino }
}

fn record(kind: RecordKind, id: &str) -> Record {
    let sandbox_id = (kind == RecordKind::Sandbox).then(|| id.to_owned());
    Record {
        kind,
        id: id.to_owned(),
        sandbox_id,
        namespace: None,
        state: None,
        pid: None,
        netns: None,
        host_network: false,
        pod: None,
    }
}

fn sandbox(id: &str) -> Record {
    record(RecordKind::Sandbox, id)
}

fn container(id: &str, sandbox: &str) -> Record {
    Record {
        sandbox_id: Some(sandbox.to_owned()),
        ..record(RecordKind::Container, id)
    }
}

fn at(path: &str, id: Option<NetnsId>, record: Record) -> Record {
    Record {
        netns: Some(NetnsRef {
            path: path.into(),
            id,
        }),
        ..record
    }
}

fn host_network(record: Record) -> Record {
    Record {
        host_network: true,
        ..record
    }
}

fn running(pid: u32, record: Record) -> Record {
    Record {
        pid: Some(pid),
        ..record
    }
}

fn in_state(state: &str, record: Record) -> Record {
    Record {
        state: Some(state.to_owned()),
        ..record
    }
}

fn cri(records: Vec<Record>) -> Answer {
    Answer {
        source: sources::cri(RUN),
        known: Known::Records(records),
    }
}

fn native(records: Vec<Record>) -> Answer {
    Answer {
        source: sources::containerd(RUN, Asked::Containers),
        known: Known::Records(records),
    }
}

fn named(name: &str, records: Vec<Record>) -> Answer {
    Answer {
        source: Source::new(name),
        known: Known::Records(records),
    }
}

fn tasks(records: Vec<Record>) -> Answer {
    Answer {
        source: sources::containerd(RUN, Asked::Tasks),
        known: Known::Records(records),
    }
}

fn bundles(records: Vec<Record>) -> Answer {
    named(sources::SHIM_BUNDLES, records)
}

fn process(pid: u32, netns: NetnsId, ids: &[&str]) -> Process {
    let container_ids = ids.iter().map(|id| (*id).to_owned()).collect();
    Process {
        pid,
        comm: "pause".into(),
        start_time: 1,
        netns: Some(netns),
        container_ids,
        cni: None,
    }
}

fn census(processes: Vec<Process>) -> Census {
    Census {
        host: HOST,
        processes,
        ..Census::default()
    }
}

fn index(answers: Vec<Answer>, processes: Vec<Process>) -> Index {
    Index::new(&Knowledge { answers }, &census(processes), &[])
}

/// One letter for each answer: U(sed), A(bsent), ?.
fn letters(said: &[Evidence]) -> String {
    let letter = |evidence: &Evidence| match evidence.claim {
        Claim::InUse(_) => 'U',
        Claim::Absent(_) => 'A',
        Claim::Unknown(_) => '?',
    };
    said.iter().map(letter).collect()
}

fn of_netns(index: &Index, ino: u64) -> String {
    letters(&index.of_netns(netns(ino), &[]))
}

mod ties;
mod traps;
