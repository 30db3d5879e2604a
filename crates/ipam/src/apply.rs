//! Carrying a plan out: the second look under the lock, the copy for an undo, the removal, and the check of it.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nodemend_cni::{Replay, ReplayError};
use nodemend_evidence::{Confirmed, Orphan, Outcome, Subject};
use nodemend_hostfs::{Host, HostLock, Journal, StateDir};
use serde::Serialize;

use crate::addresses::Addresses;
use crate::error::Error;
use crate::judge::{Policy, looks_again};
use crate::netdir::NetDir;
use crate::outcome::{Replayed, outcome};
use crate::reservation::{Reservation, ReservationIdentity};
use crate::scene::{Replays, index};
use crate::survey::Survey;
use crate::undodir::{run_dir, save};

/// What became of each reservation.
pub type Outcomes = Vec<(ReservationIdentity, Outcome)>;

/// What an apply needs besides the plan.
pub struct Tools<'a> {
    /// Where the copies for an undo go.
    pub state: &'a StateDir,
    /// The name of this run, for `undo`: letters, digits, dot, dash and underscore.
    pub run: &'a str,
    /// The host.
    pub host: &'a Host,
    /// How a CNI DEL is repeated.
    pub replay: &'a Replay,
    /// Where each action is written down before it happens.
    pub journal: &'a mut Journal,
    /// Set by a signal: the attachment in hand is finished, the rest is not tried.
    pub stop: &'a AtomicBool,
    /// Called with the number of reservations done so far.
    pub progress: &'a mut (dyn FnMut(usize) + Send),
}

/// One line of the journal.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Entry<'a> {
    tool: &'static str,
    run: &'a str,
    action: String,
    reservation: ReservationIdentity,
}

/// Frees the addresses of a plan. `again` is a survey taken after `lock`.
///
/// Each reservation is confirmed on that survey. Then all of them are copied into the state directory, and only when
/// the disk has the copies is anything removed. An attachment that libcni's cache knows goes by its own CNI DEL, if
/// all its reservations are confirmed; what is left of it, and all others, goes file by file under host-local's lock.
///
/// # Errors
/// If the name of the run is not fit for one. What failed for a reservation is its outcome.
pub fn apply(
    orphans: Vec<Orphan<Reservation>>,
    lock: &HostLock,
    again: &Survey,
    policy: &Policy,
    mut tools: Tools<'_>,
) -> Result<Outcomes, Error> {
    run_dir(tools.state, tools.run)?;
    let mut outcomes = Outcomes::with_capacity(orphans.len());
    let confirmed = confirm(orphans, lock, again, policy, &mut outcomes);
    if confirmed.is_empty() || give_up(&confirmed, &tools, &mut outcomes) {
        return Ok(outcomes);
    }
    match keep(&confirmed, &mut tools) {
        Ok(undo) => free_all(confirmed, again, undo, &mut tools, &mut outcomes),
        Err(error) => {
            let reason = format!("no copy could be made for an undo, so nothing was removed: {error}");
            let failed = |proof: &Confirmed<'_, _>| {
                (
                    Subject::identity(proof.subject()),
                    Outcome::Failed(reason.clone()),
                )
            };
            outcomes.extend(confirmed.iter().map(failed));
        }
    }
    Ok(outcomes)
}

fn confirm<'l>(
    orphans: Vec<Orphan<Reservation>>,
    lock: &'l HostLock,
    again: &Survey,
    policy: &Policy,
    outcomes: &mut Outcomes,
) -> Vec<Confirmed<'l, Reservation>> {
    let looks = looks_again(again, policy);
    let key = |reservation: &Reservation| (reservation.dir.clone(), reservation.file.clone());
    let mut now: HashMap<_, _> = looks
        .ours
        .into_iter()
        .map(|look| (key(&look.subject), look))
        .collect();
    let others: HashMap<_, _> = looks
        .foreign
        .into_iter()
        .map(|(subject, reason)| (key(&subject), reason))
        .collect();
    let mut confirmed = Vec::with_capacity(orphans.len());
    for orphan in orphans {
        let identity = orphan.subject().identity();
        let key = key(orphan.subject());
        match (now.remove(&key), others.get(&key)) {
            (Some(look), _) => match orphan.confirm(lock, &looks.required, look) {
                Ok(proof) => confirmed.push(proof),
                Err(kept) => outcomes.push((identity, Outcome::Refused(kept.reason.to_string()))),
            },
            (None, Some(reason)) => outcomes.push((identity, Outcome::Refused(reason.to_string()))),
            (None, None) => outcomes.push((identity, lost(again, &key.0))),
        }
    }
    confirmed
}

/// A file that the second look did not find is gone only if its directory could be read.
fn lost(again: &Survey, dir: &Arc<str>) -> Outcome {
    let place = again.networks.iter().find(|network| network.dir == *dir);
    match place.and_then(|network| network.problem.as_ref()) {
        Some(problem) => Outcome::Refused(problem.clone()),
        None => Outcome::AlreadyGone,
    }
}

/// True if a signal came before anything was done.
fn give_up(confirmed: &[Confirmed<'_, Reservation>], tools: &Tools<'_>, outcomes: &mut Outcomes) -> bool {
    let stopped = tools.stop.load(Ordering::Relaxed);
    if stopped {
        outcomes.extend(
            confirmed
                .iter()
                .map(|proof| (proof.subject().identity(), Outcome::NotTried)),
        );
    }
    stopped
}

/// Copies everything for an undo, then writes the journal. Gives the directory of the copies.
fn keep(confirmed: &[Confirmed<'_, Reservation>], tools: &mut Tools<'_>) -> Result<PathBuf, Error> {
    let undo = save(tools.state, tools.run, confirmed.iter().map(Confirmed::subject))?;
    let run = tools.run;
    tools.journal.append_all(confirmed.iter().map(|proof| Entry {
        tool: "mend-ipam",
        run,
        action: proof.subject().action(),
        reservation: proof.subject().identity(),
    }))?;
    Ok(undo)
}

/// The reservations of one container in one network. They go together, as the plugins would free them.
type Attachment<'l> = Vec<Confirmed<'l, Reservation>>;

/// Groups by network and id, in the order given. An empty file stands alone.
fn attachments(confirmed: Vec<Confirmed<'_, Reservation>>) -> Vec<Attachment<'_>> {
    let mut groups: Vec<Attachment<'_>> = Vec::new();
    let mut of: HashMap<(Arc<str>, Arc<str>), usize> = HashMap::new();
    for proof in confirmed {
        let reservation = proof.subject();
        let Some(id) = &reservation.id else {
            groups.push(vec![proof]);
            continue;
        };
        let at = *of
            .entry((reservation.network.clone(), id.clone()))
            .or_insert(groups.len());
        match groups.get_mut(at) {
            Some(group) => group.push(proof),
            None => groups.push(vec![proof]),
        }
    }
    groups
}

fn free_all(
    confirmed: Vec<Confirmed<'_, Reservation>>,
    again: &Survey,
    undo: PathBuf,
    tools: &mut Tools<'_>,
    outcomes: &mut Outcomes,
) {
    let index = index(again);
    let mut hand = Hand {
        replays: Replays::of(again, &index, &Addresses::of(again, &index)),
        reserved: count(again),
        dirs: HashMap::new(),
        hung: false,
        undo,
        host: tools.host,
        replay: tools.replay,
    };
    for attachment in attachments(confirmed) {
        if tools.stop.load(Ordering::Relaxed) {
            outcomes.extend(
                attachment
                    .iter()
                    .map(|proof| (proof.subject().identity(), Outcome::NotTried)),
            );
            continue;
        }
        hand.free(attachment, outcomes);
        (tools.progress)(outcomes.len());
    }
}

/// How many files each container has in each network, whatever was judged of them.
fn count(survey: &Survey) -> HashMap<(&str, &str), usize> {
    let mut reserved = HashMap::new();
    for reservation in &survey.reservations {
        if let Some(id) = &reservation.id {
            *reserved.entry((&*reservation.network, &**id)).or_default() += 1;
        }
    }
    reserved
}

/// What is needed to free one attachment after the other.
struct Hand<'a> {
    replays: Replays<'a>,
    reserved: HashMap<(&'a str, &'a str), usize>,
    dirs: HashMap<Arc<str>, NetDir>,
    /// True once a DEL hung: each more would cost its whole deadline.
    hung: bool,
    undo: PathBuf,
    host: &'a Host,
    replay: &'a Replay,
}

impl Hand<'_> {
    fn free(&mut self, attachment: Attachment<'_>, outcomes: &mut Outcomes) {
        let replayed = self.replay(&attachment);
        for proof in attachment {
            let identity = proof.subject().identity();
            let removed = self.dir(&identity.dir).and_then(|dir| dir.remove(proof));
            outcomes.push((identity, outcome(&replayed, removed, &self.undo)));
        }
    }

    /// Repeats the CNI DEL of an attachment, if that takes nothing away but what is confirmed.
    fn replay(&mut self, attachment: &Attachment<'_>) -> Replayed {
        let subjects = || attachment.iter().map(Confirmed::subject);
        let total = subjects().next().and_then(|first| {
            let id = first.id.as_deref()?;
            self.reserved.get(&(&*first.network, id))
        });
        let mut entries: Vec<_> = subjects()
            .filter_map(|reservation| self.replays.find(reservation))
            .collect();
        entries.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        entries.dedup_by(|a, b| a.path == b.path);
        if entries.is_empty() || total != Some(&attachment.len()) {
            return Replayed::Not;
        }
        if self.hung {
            return Replayed::Failed("it was not run, since one before it hung".to_owned());
        }
        if let Some(why) = entries.iter().find_map(|entry| self.replays.refusal(entry)) {
            return Replayed::Failed(format!("it was not run: {why}"));
        }
        for entry in entries {
            if let Err(error) = self.replay.delete(self.host, entry, attachment) {
                self.hung = matches!(error, ReplayError::Hung { .. });
                return Replayed::Failed(error.to_string());
            }
        }
        Replayed::Done
    }

    fn dir(&mut self, dir: &Arc<str>) -> Result<&mut NetDir, Error> {
        match self.dirs.entry(dir.clone()) {
            std::collections::hash_map::Entry::Occupied(open) => Ok(open.into_mut()),
            std::collections::hash_map::Entry::Vacant(new) => {
                Ok(new.insert(NetDir::open(self.host, std::path::Path::new(&**dir))?))
            }
        }
    }
}
