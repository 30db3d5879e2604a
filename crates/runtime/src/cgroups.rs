//! The containers that processes belong to by their cgroups: known even when every record is lost.

use std::collections::BTreeMap;

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
