//! The containers that processes belong to by their cgroups: known even when every record is lost.

use std::collections::{BTreeMap, HashSet};

use nodemend_procns::Census;

use crate::knowledge::{Record, RecordKind};

/// One record for each container id in the census, with the first process that carries it.
pub(crate) fn find(census: &Census) -> Result<Vec<Record>, String> {
    if let Some(unread) = census.unread.first() {
        return Err(unread.clone());
    }
    let mut first: BTreeMap<&str, u32> = BTreeMap::new();
    for process in &census.processes {
        for id in &process.container_ids {
            first.entry(id).or_insert(process.pid);
        }
    }
    Ok(first.into_iter().map(|(id, pid)| record(id, pid)).collect())
}

/// Containers that run and that no runtime accounts for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Adrift {
    pub(crate) count: usize,
    /// A process of the first of them.
    pub(crate) pid: u32,
    pub(crate) id: String,
}

/// The containers with a network of their own whose ids are not among `accounted`.
///
/// The ids of process 1 do not count: on a node that is a container itself, everything carries them.
pub(crate) fn adrift(census: &Census, accounted: &HashSet<&str>) -> Option<Adrift> {
    let outer = census.process(1).map_or(&[][..], |init| &init.container_ids);
    let mut first: BTreeMap<&str, u32> = BTreeMap::new();
    for process in &census.processes {
        if process.netns.is_none_or(|netns| netns == census.host) {
            continue;
        }
        for id in &process.container_ids {
            if !outer.contains(id) && !accounted.contains(id.as_str()) {
                first.entry(id).or_insert(process.pid);
            }
        }
    }
    let (id, pid) = first.first_key_value()?;
    Some(Adrift {
        count: first.len(),
        pid: *pid,
        id: (*id).to_owned(),
    })
}

fn record(id: &str, pid: u32) -> Record {
    Record {
        kind: RecordKind::Task,
        id: id.to_owned(),
        sandbox_id: None,
        namespace: None,
        state: None,
        pid: Some(pid),
        netns: None,
        host_network: false,
        pod: None,
    }
}

#[cfg(test)]
mod tests {
    use nodemend_procns::{NetnsId, Process};

    use super::*;

    const HOST: NetnsId = NetnsId { dev: 4, ino: 1 };
    const POD: NetnsId = NetnsId { dev: 4, ino: 7 };

    fn process(pid: u32, netns: Option<NetnsId>, ids: &[&str]) -> Process {
        Process {
            pid,
            comm: "pause".into(),
            start_time: 1,
            netns,
            container_ids: ids.iter().map(|id| (*id).to_owned()).collect(),
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

    #[test]
    fn each_container_is_told_once() {
        let census = census(vec![
            process(8, Some(POD), &["a"]),
            process(9, Some(POD), &["a", "b"]),
        ]);
        let told: Vec<_> = find(&census)
            .unwrap()
            .into_iter()
            .map(|record| (record.id, record.pid))
            .collect();
        assert_eq!(told, [("a".to_owned(), Some(8)), ("b".to_owned(), Some(9))]);
        let unread = Census {
            unread: vec!["process 9: EACCES".into()],
            ..census
        };
        assert_eq!(find(&unread), Err("process 9: EACCES".into()));
    }

    #[test]
    fn only_what_runs_in_a_network_of_its_own_and_is_accounted_for_by_nobody_is_adrift() {
        let census = census(vec![
            process(1, Some(HOST), &["node"]),
            process(7, Some(HOST), &["on-the-host"]),
            process(8, None, &["zombie"]),
            process(9, Some(POD), &["node", "docker"]),
            process(10, Some(POD), &["lost"]),
            process(11, Some(POD), &["lost", "mislaid"]),
        ]);
        let found = adrift(&census, &HashSet::from(["docker"])).unwrap();
        assert_eq!((found.count, found.pid, found.id.as_str()), (2, 10, "lost"));
        assert_eq!(
            adrift(&census, &HashSet::from(["docker", "lost", "mislaid"])),
            None
        );
    }
}
