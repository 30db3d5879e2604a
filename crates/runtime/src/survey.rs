//! Asking every source of a node at once.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::future::{join, join_all, join3};
use nodemend_evidence::Source;
use nodemend_hostfs::Host;
use nodemend_procns::Census;

use crate::empty::{Asking, Question, Running, doubt};
use crate::endpoint::{Endpoint, WELL_KNOWN};
use crate::knowledge::{Answer, Knowledge, Known, Record, RecordKind};
use crate::line::{Line, Silence, connect};
use crate::ownership::in_run;
use crate::shims::Shim;
use crate::sources::{self, Asked};
use crate::{bundles, cgroups, containerd, cri, netns, shims};

/// How long a source may take, if nobody says otherwise.
pub const DEFAULT_DEADLINE: Duration = Duration::from_secs(5);

/// Asks every source at once, each with its own deadline.
///
/// This never fails: a source that does not answer is in the result as [`Known::Unknown`], with the reason. Take the
/// census before: what was born since is no object of this look.
///
/// The sources, by name: `cri <endpoint>`; `containerd <endpoint> containers`, `… tasks` and `… sandboxes`;
/// `shim processes`; `shim bundles`; `container ids in cgroups`. Without any endpoint there is one answer `cri`,
/// which is unknown. An empty answer of a runtime that came up within the last minute, or that what runs contradicts, is
/// [`Known::Doubted`].
///
/// Needs a tokio runtime with I/O and time; see [`crate::blocking`] for callers without one.
pub async fn survey(host: &Host, endpoints: &[Endpoint], census: &Census, deadline: Duration) -> Knowledge {
    let (heard, shims, bundles) = join3(
        join_all(endpoints.iter().map(|endpoint| ask(host, endpoint, deadline))),
        look_for_shims(host, census, endpoints, deadline),
        look_for_bundles(host, endpoints, deadline),
    )
    .await;
    let found = shims.as_deref().unwrap_or_default();
    let heard: Vec<_> = heard.into_iter().flatten().collect();
    let running = Running {
        shims: found,
        adrift: cgroups::adrift(census, &accounted(&heard, found)),
    };
    let mut answers: Vec<_> = heard
        .into_iter()
        .map(|heard| heard.weigh(endpoints, &running))
        .collect();
    if endpoints.is_empty() {
        answers.push(answer(sources::no_cri(), Err(Silence::Unknown(nothing_found()))));
    }
    let shims = shims.map(|shims| shims.iter().map(Shim::record).collect());
    answers.push(answer(
        Source::new(sources::SHIM_PROCESSES),
        shims.map_err(Silence::from),
    ));
    answers.push(answer(
        Source::new(sources::SHIM_BUNDLES),
        bundles.map_err(Silence::from),
    ));
    answers.push(answer(
        Source::new(sources::CGROUP_IDS),
        cgroups::find(census).map_err(Silence::from),
    ));
    look_up_namespaces(host, &mut answers, deadline).await;
    Knowledge { answers }
}

/// The ids of everything that has a record or a shim. A task is no record: containerd takes up those whose record it
/// lost.
fn accounted<'a>(heard: &'a [Heard], shims: &'a [Shim]) -> HashSet<&'a str> {
    let said = heard.iter().filter_map(|heard| heard.said.as_ref().ok());
    let records = said
        .flat_map(|said| &said.records)
        .filter(|record| matches!(record.kind, RecordKind::Sandbox | RecordKind::Container));
    let ids = shims.iter().map(|shim| shim.id.as_str());
    ids.chain(records.map(|record| record.id.as_str())).collect()
}

fn nothing_found() -> String {
    format!(
        "no runtime socket was found; looked at {}; give --runtime-endpoint",
        WELL_KNOWN.join(", ")
    )
}

fn answer(source: Source, records: Result<Vec<Record>, Silence>) -> Answer {
    let known = match records {
        Ok(records) => Known::Records(records),
        Err(Silence::Unknown(reason)) => Known::Unknown(reason),
        Err(Silence::Doubted(reason)) => Known::Doubted(reason),
        Err(Silence::NotOffered(reason)) => Known::NotOffered(reason),
    };
    tracing::debug!(%source, answered = matches!(known, Known::Records(_)), "a source was asked");
    Answer { source, known }
}

/// What one question to one runtime gave.
struct Heard {
    source: Source,
    question: Question,
    socket: PathBuf,
    said: Result<Said, Silence>,
}

struct Said {
    records: Vec<Record>,
    age: Result<Duration, String>,
}

impl Heard {
    /// An empty answer is compared with what runs.
    fn weigh(self, endpoints: &[Endpoint], running: &Running<'_>) -> Answer {
        let said = match self.said {
            Ok(said) => said,
            Err(silence) => return answer(self.source, Err(silence)),
        };
        let socket = in_run(&self.socket);
        let sockets = sockets(endpoints).into_iter().map(|other| in_run(&other));
        let others = sockets.filter(|other| *other != socket).collect();
        let asking = Asking {
            question: self.question,
            socket,
            others,
            age: said.age,
        };
        let records = match doubt(&asking, &said.records, running) {
            None => Ok(said.records),
            Some(reason) if said.records.is_empty() => Err(Silence::Doubted(reason)),
            // Containers without a sandbox: it does know of something.
            Some(reason) => Err(Silence::Unknown(reason)),
        };
        answer(self.source, records)
    }
}

/// Asks one runtime everything, over one connection for each question.
async fn ask(host: &Host, endpoint: &Endpoint, deadline: Duration) -> Vec<Heard> {
    let address = endpoint.address();
    let elsewhere = (!host.is_running()).then_some(ELSEWHERE);
    let socket = match elsewhere.map_or_else(|| endpoint.socket(), Err) {
        Ok(socket) => socket,
        Err(reason) => {
            let said = Err(Silence::Unknown(reason.to_owned()));
            let source = sources::cri(address);
            return vec![Heard {
                source,
                question: Question::Cri,
                socket: PathBuf::new(),
                said,
            }];
        }
    };
    let heard = |source, question, said| Heard {
        source,
        question,
        socket: socket.to_owned(),
        said,
    };
    let native = Asked::ALL.map(|asked| within(deadline, ask_containerd(host, socket, asked)));
    let cri = async {
        match endpoint.has_cri() {
            true => Some(within(deadline, ask_cri(host, socket)).await),
            false => None,
        }
    };
    let (cri, native) = join(cri, join_all(native)).await;
    let native = Asked::ALL.into_iter().zip(native);
    let native = native.map(|(asked, said)| {
        heard(
            sources::containerd(address, asked),
            Question::Containerd(asked),
            said,
        )
    });
    cri.map(|said| heard(sources::cri(address), Question::Cri, said))
        .into_iter()
        .chain(native)
        .collect()
}

const ELSEWHERE: &str =
    "cannot be asked: this looks at the files of another host, of which nothing runs here";

async fn ask_cri(host: &Host, socket: &Path) -> Result<Said, Silence> {
    let Line { channel, age } = connect(host, socket).await?;
    Ok(Said {
        records: cri::ask(channel).await?,
        age,
    })
}

async fn ask_containerd(host: &Host, socket: &Path, asked: Asked) -> Result<Said, Silence> {
    let Line { channel, age } = connect(host, socket).await?;
    Ok(Said {
        records: containerd::ask(channel, asked).await?,
        age,
    })
}

pub(crate) async fn within<T, E: From<String>>(
    deadline: Duration,
    asking: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    match tokio::time::timeout(deadline, asking).await {
        Ok(said) => said,
        Err(_elapsed) => Err(E::from(format!("did not answer within {}", in_words(deadline)))),
    }
}

fn in_words(deadline: Duration) -> String {
    match deadline.subsec_millis() {
        0 => format!("{} s", deadline.as_secs()),
        _ => format!("{} ms", deadline.as_millis()),
    }
}

pub(crate) async fn look_for_shims(
    host: &Host,
    census: &Census,
    endpoints: &[Endpoint],
    deadline: Duration,
) -> Result<Vec<Shim>, String> {
    if !host.is_running() {
        return Err(ELSEWHERE.to_owned());
    }
    let (host, census, sockets) = (host.clone(), shims::candidates(census), sockets(endpoints));
    let look = move || {
        let mut found = shims::find(&host, &census)?;
        shims::rename(&host, &mut found, &sockets);
        Ok(found)
    };
    aside(deadline, look).await?
}

async fn look_for_bundles(
    host: &Host,
    endpoints: &[Endpoint],
    deadline: Duration,
) -> Result<Vec<Record>, String> {
    let (host, sockets) = (host.clone(), sockets(endpoints));
    aside(deadline, move || bundles::find(&host, &sockets)).await?
}

pub(crate) fn sockets(endpoints: &[Endpoint]) -> Vec<PathBuf> {
    endpoints
        .iter()
        .filter_map(|endpoint| endpoint.socket().ok())
        .map(Path::to_owned)
        .collect()
}

async fn look_up_namespaces(host: &Host, answers: &mut [Answer], deadline: Duration) {
    let (host, paths) = (host.clone(), netns::paths(answers));
    let found = aside(deadline, move || netns::look(&host, paths)).await;
    netns::enter(answers, &found);
}

/// Looks at files on a thread of its own, which is left behind if it hangs: a file system can.
pub(crate) async fn aside<T: Send + 'static>(
    deadline: Duration,
    look: impl FnOnce() -> T + Send + 'static,
) -> Result<T, String> {
    let (tell, told) = tokio::sync::oneshot::channel();
    // Nobody listens any more once the deadline has passed.
    let work = move || drop(tell.send(look()));
    let thread = std::thread::Builder::new().name("look".to_owned()).spawn(work);
    thread.map_err(|error| format!("no thread could be started: {error}"))?;
    within(deadline, async {
        told.await
            .map_err(|_closed| "the look at the files broke off".to_owned())
    })
    .await
}
