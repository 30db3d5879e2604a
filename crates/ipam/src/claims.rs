//! What each source says of one reservation.

use std::collections::HashMap;
use std::sync::Arc;

use nodemend_evidence::{Claim, Evidence, Source};
use nodemend_hostfs::Spoken;
use nodemend_runtime::Known;

use crate::addresses::{Owner, Spot};
use crate::form::{Form, bare_id};
use crate::judge::Policy;
use crate::reservation::Reservation;
use crate::scene::Scene;
use crate::survey::Survey;

/// Before this moment (2001) no cluster ran: a file of such an age was made before the clock was set.
const CLOCK_NOT_SET: i64 = 1_000_000_000;

/// The sources that this crate asks itself. All are required.
pub(crate) struct Sources {
    file: Source,
    configuration: Source,
    runtimes: Source,
    plugins: Source,
    addresses: Source,
    processes: Source,
    age: Source,
}

impl Sources {
    pub(crate) fn new() -> Self {
        Self {
            file: Source::new("reservation file"),
            configuration: Source::new("CNI configuration"),
            runtimes: Source::new("container runtimes"),
            plugins: Source::new("CNI plugins at work"),
            addresses: Source::new("addresses in namespaces"),
            processes: Source::new("processes"),
            age: Source::new("age"),
        }
    }

    pub(crate) fn all(&self) -> [&Source; 7] {
        [
            &self.file,
            &self.configuration,
            &self.runtimes,
            &self.plugins,
            &self.addresses,
            &self.processes,
            &self.age,
        ]
    }
}

/// What is said of nearly every reservation, made once.
pub(crate) struct Said {
    well_formed: Claim,
    empty: Claim,
    no_id: Claim,
    runtimes: Claim,
    processes: Claim,
    no_plugin: Claim,
    any_plugin: Option<Claim>,
    not_configured: Claim,
    old: Claim,
    future: Claim,
    clock_not_set: Claim,
}

impl Said {
    pub(crate) fn of(survey: &Survey, policy: &Policy) -> Self {
        let empty = if policy.include_empty {
            Claim::absent("empty, so it names nobody; --include-empty is given")
        } else {
            Claim::unknown(
                "empty, so it names nobody who could be asked for; it may go only with --include-empty",
            )
        };
        let any_plugin = at_work(survey)
            .find(|(_, call)| !matches!(&*call.command, "DEL" | "CHECK"))
            .map(|(process, call)| {
                let (pid, comm, command) = (process.pid, &process.comm, &call.command);
                Claim::unknown(format!(
                    "process {pid} ({comm}) is at CNI {command}, and an empty file may be its own"
                ))
            });
        Self {
            well_formed: Claim::absent("of host-local's form"),
            empty,
            no_id: Claim::absent("the file has no id; the other sources decide"),
            runtimes: runtimes(survey),
            processes: processes(survey),
            no_plugin: Claim::absent("none at work for this id"),
            any_plugin,
            not_configured: Claim::absent("configured in no namespace"),
            old: Claim::absent(format!(
                "older than the grace of {}",
                Spoken(policy.grace.as_secs())
            )),
            future: Claim::unknown(
                "its time lies in the future, so the clock was set, and nothing tells its age",
            ),
            clock_not_set: Claim::unknown(
                "its time is from before the clock was set, so nothing tells its age",
            ),
        }
    }
}

fn runtimes(survey: &Survey) -> Claim {
    match survey.knowledge.answers.len() {
        0 => Claim::unknown("no runtime was found on this node, so nobody could be asked"),
        count => Claim::absent(format!("{count} sources were asked")),
    }
}

fn processes(survey: &Survey) -> Claim {
    match survey.census.unread.first() {
        Some(unread) => Claim::unknown(unread.as_str()),
        None => Claim::absent(format!("all {} could be read", survey.census.processes.len())),
    }
}

fn at_work(survey: &Survey) -> impl Iterator<Item = (&nodemend_procns::Process, &nodemend_procns::CniCall)> {
    survey
        .census
        .processes
        .iter()
        .filter_map(|process| Some((process, process.cni.as_ref()?)))
}

/// What each container id's plugin is doing.
pub(crate) fn calls(survey: &Survey) -> HashMap<&str, Claim> {
    let told = at_work(survey).map(|(process, call)| {
        let detail = format!(
            "process {} ({}) is at CNI {} for this id",
            process.pid, process.comm, call.command
        );
        (&*call.container_id, Claim::in_use(detail))
    });
    told.collect()
}

/// What the CNI configuration says, for each directory that it names.
pub(crate) fn configured(survey: &Survey) -> HashMap<&str, Claim> {
    let broken = survey.configurations.problems.first().map(|problem| {
        let path = problem.path.display();
        Claim::unknown(format!(
            "{path}: {}; nobody can say what it configures",
            problem.reason
        ))
    });
    let ours = survey.networks.iter().filter(|network| network.configured);
    ours.map(|network| {
        let claim = broken
            .clone()
            .unwrap_or_else(|| network_claim(survey, &network.network));
        (&*network.dir, claim)
    })
    .collect()
}

fn network_claim(survey: &Survey, name: &str) -> Claim {
    let mut named = survey
        .configurations
        .networks
        .iter()
        .filter(|network| *network.name == *name);
    if let Some(shared) = named.clone().find(|network| network.disable_gc) {
        let file = shared.file.display();
        return Claim::unknown(format!(
            "{file} sets disableGC: other runtimes, which may not be known here, keep addresses in this network too"
        ));
    }
    match named.next() {
        Some(network) => Claim::absent(format!("{} names the network", network.file.display())),
        None => Claim::unknown("the configuration does not name the network any more"),
    }
}

/// Every claim on one reservation.
pub(crate) fn of(scene: &Scene<'_>, reservation: &Reservation) -> Vec<Evidence> {
    let sources = &scene.sources;
    let known = scene.configured.get(&*reservation.dir).cloned();
    let configuration =
        known.unwrap_or_else(|| Claim::unknown("the configuration does not name the network"));
    let mut said = index(scene, reservation);
    said.reserve_exact(8);
    said.push(Evidence::new(&sources.file, file(scene, reservation)));
    said.push(Evidence::new(&sources.configuration, configuration));
    said.push(Evidence::new(&sources.runtimes, scene.said.runtimes.clone()));
    said.push(Evidence::new(&sources.plugins, plugins(scene, reservation)));
    said.push(Evidence::new(&sources.addresses, addresses(scene, reservation)));
    said.push(Evidence::new(&sources.processes, scene.said.processes.clone()));
    said.push(Evidence::new(&sources.age, age(scene, reservation)));
    said
}

/// What the runtimes know of the id.
fn index(scene: &Scene<'_>, reservation: &Reservation) -> Vec<Evidence> {
    match &reservation.id {
        // nerdctl's ids have the containerd namespace before them; a record has it beside its id.
        Some(id) => scene.index.of_id(bare_id(id)),
        None => nameless(scene, reservation),
    }
}

/// What the runtimes say of a file without an id. One that did not answer may still have just given the address out.
fn nameless(scene: &Scene<'_>, reservation: &Reservation) -> Vec<Evidence> {
    let of_file = match &reservation.form {
        Form::Empty if scene.policy.include_empty => scene.said.no_id.clone(),
        Form::Empty => scene.said.empty.clone(),
        Form::Unread(reason) | Form::Foreign(reason) => Claim::Unknown(reason.clone()),
        Form::Modern | Form::Legacy => Claim::unknown("no id was read"),
    };
    let answers = scene.survey.knowledge.answers.iter();
    let told = answers.filter_map(|answer| match &answer.known {
        Known::Records(_) => Some(Evidence::new(&answer.source, of_file.clone())),
        Known::Unknown(reason) | Known::Doubted(reason) => {
            Some(Evidence::new(&answer.source, Claim::unknown(reason.as_str())))
        }
        Known::NotOffered(_) => None,
    });
    told.collect()
}

fn file(scene: &Scene<'_>, reservation: &Reservation) -> Claim {
    match &reservation.form {
        Form::Modern | Form::Legacy => scene.said.well_formed.clone(),
        Form::Empty => scene.said.empty.clone(),
        Form::Foreign(reason) | Form::Unread(reason) => Claim::Unknown(reason.clone()),
    }
}

fn plugins(scene: &Scene<'_>, reservation: &Reservation) -> Claim {
    let Some(id) = &reservation.id else {
        return scene
            .said
            .any_plugin
            .clone()
            .unwrap_or_else(|| scene.said.no_plugin.clone());
    };
    let call = scene.calls.get(&**id).or_else(|| scene.calls.get(bare_id(id)));
    call.unwrap_or(&scene.said.no_plugin).clone()
}

fn addresses(scene: &Scene<'_>, reservation: &Reservation) -> Claim {
    let Some(ip) = reservation.ip else {
        return Claim::unknown("it names no address");
    };
    let spots = scene.addresses.spots(ip);
    if let Some(spot) = spots.iter().find(|spot| *spot.owner != Owner::Nobody) {
        return Claim::in_use(format!("configured on {}", spot.told()));
    }
    let sibling = reservation.id.as_deref().and_then(|id| scene.siblings.get(id));
    if let Some((other, spot)) = sibling.filter(|(_, spot)| *spot.owner != Owner::Nobody) {
        return Claim::in_use(format!(
            "{other} of the same container is configured on {}",
            spot.told()
        ));
    }
    match (
        spots.first().or(sibling.map(|(_, spot)| spot)),
        &scene.addresses.doubt,
    ) {
        (Some(spot), _) => Claim::Unknown(still_there(spot)),
        (None, Some(doubt)) => Claim::Unknown(doubt.clone()),
        (None, None) => scene.said.not_configured.clone(),
    }
}

fn still_there(spot: &Spot<'_>) -> Arc<str> {
    let told = spot.told();
    format!(
        "still configured on {told}: run mend-veth first; freeing it now would give the address out twice"
    )
    .into()
}

fn age(scene: &Scene<'_>, reservation: &Reservation) -> Claim {
    let grace = scene.policy.grace.as_secs();
    match reservation.age {
        None => scene.said.future.clone(),
        Some(_) if reservation.mtime < CLOCK_NOT_SET => scene.said.clock_not_set.clone(),
        Some(age) if age >= grace => scene.said.old.clone(),
        Some(age) => Claim::unknown(format!(
            "{} old, which is within the grace of {}; see --grace",
            Spoken(age),
            Spoken(grace)
        )),
    }
}
