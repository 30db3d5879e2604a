//! Work on a few threads, with no answer waited for longer than a moment.
//!
//! A call on a dead file system does not return, and neither may a read below /proc: `environ` and `cmdline`
//! take the lock of its memory map (`access_remote_vm` in mm/memory.c), and their open waits for an execve that
//! hangs (`mm_access` in kernel/fork.c). Broken nodes have such processes. So the reads are done by threads
//! that nobody joins: one that makes no progress is left behind, and its job is handed back as given up.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How long a job may go without a sign of life, in seconds.
pub const PATIENCE: u64 = 2;
/// How often the signs of life are looked at.
const TICK: Duration = Duration::from_millis(100);
/// More threads do not help: most of the work is in the kernel, on shared locks, and the node has work to do.
const THREADS: usize = 2;
/// How many threads may be left behind before the rest of the jobs is given up.
const MAX_STUCK: usize = 8;
const IDLE: usize = usize::MAX;

/// The sign of life of one worker.
#[derive(Debug)]
pub struct Pulse {
    at: AtomicUsize,
    beats: AtomicU64,
}

impl Pulse {
    /// Says that the job goes on. Called between steps of a long job.
    pub fn beat(&self) {
        self.beats.fetch_add(1, Ordering::Relaxed);
    }
}

/// What became of a list of jobs.
#[derive(Debug)]
pub struct Done<A> {
    /// The answers, in no order.
    pub answers: Vec<A>,
    /// The jobs that did not end. They may have given some of their answers.
    pub given_up: Vec<usize>,
}

/// One job: gives any number of answers.
pub type Work<J, A> = dyn Fn(&J, &Pulse, &mut dyn FnMut(A)) + Send + Sync;

struct Shared<J, A> {
    jobs: Vec<J>,
    next: AtomicUsize,
    work: Box<Work<J, A>>,
    state: Mutex<State<A>>,
    /// Told when no job is open any more.
    all_done: Condvar,
}

struct State<A> {
    answers: Vec<A>,
    /// Which jobs have neither ended nor been given up. What any other says comes too late.
    open: Vec<bool>,
    left: usize,
    given_up: Vec<usize>,
}

impl<A> State<A> {
    fn is_open(&self, at: usize) -> bool {
        self.open.get(at).copied().unwrap_or(false)
    }

    fn close(&mut self, at: usize) -> bool {
        let was_open = self.open.get_mut(at).is_some_and(std::mem::take);
        self.left -= usize::from(was_open);
        was_open
    }

    fn give_up(&mut self, at: usize) {
        if self.close(at) {
            self.given_up.push(at);
        }
    }
}

impl<J, A> Shared<J, A> {
    fn state(&self) -> MutexGuard<'_, State<A>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Worker {
    pulse: Arc<Pulse>,
    /// The job, the beats and the time of the last progress that was seen.
    last: (usize, u64, Instant),
    stuck: bool,
    thread: JoinHandle<()>,
}

/// Does every job. One that shows no sign of life for [`PATIENCE`] is given up.
///
/// # Errors
/// If no thread can be started.
pub fn run<J, A>(jobs: Vec<J>, work: Box<Work<J, A>>) -> std::io::Result<Done<A>>
where
    J: Send + Sync + 'static,
    A: Send + 'static,
{
    run_with(Duration::from_secs(PATIENCE), jobs, work)
}

/// As [`run`], with another patience.
///
/// # Errors
/// If no thread can be started.
pub fn run_with<J, A>(patience: Duration, jobs: Vec<J>, work: Box<Work<J, A>>) -> std::io::Result<Done<A>>
where
    J: Send + Sync + 'static,
    A: Send + 'static,
{
    let count = jobs.len();
    let state = State {
        answers: Vec::with_capacity(count),
        open: vec![true; count],
        left: count,
        given_up: vec![],
    };
    let (state, all_done) = (Mutex::new(state), Condvar::new());
    let shared = Arc::new(Shared {
        jobs,
        next: AtomicUsize::new(0),
        work,
        state,
        all_done,
    });
    let mut workers = Vec::new();
    for _ in 0..THREADS.min(count) {
        match start(&shared) {
            Ok(worker) => workers.push(worker),
            // One thread does the work too.
            Err(_) if !workers.is_empty() => {}
            Err(error) => return Err(error),
        }
    }
    let done = collect(patience, &shared, &mut workers);
    if done.given_up.is_empty() {
        // All have ended, or are about to. An allocator keeps memory for each thread that lives: the threads of the next
        // list of jobs are to get the same.
        for worker in workers {
            let _ = worker.thread.join();
        }
    }
    Ok(done)
}

fn start<J, A>(shared: &Arc<Shared<J, A>>) -> std::io::Result<Worker>
where
    J: Send + Sync + 'static,
    A: Send + 'static,
{
    let pulse = Arc::new(Pulse {
        at: AtomicUsize::new(IDLE),
        beats: AtomicU64::new(0),
    });
    let (shared, own) = (Arc::clone(shared), Arc::clone(&pulse));
    let thread = thread::Builder::new()
        .name("reader".into())
        .stack_size(512 << 10)
        .spawn(move || labour(&shared, &own))?;
    Ok(Worker {
        pulse,
        last: (IDLE, 0, Instant::now()),
        stuck: false,
        thread,
    })
}

fn labour<J, A>(shared: &Shared<J, A>, pulse: &Pulse) {
    loop {
        let at = shared.next.fetch_add(1, Ordering::Relaxed);
        let Some(job) = shared.jobs.get(at) else { break };
        pulse.at.store(at, Ordering::Relaxed);
        (shared.work)(job, pulse, &mut |answer| {
            let mut state = shared.state();
            if state.is_open(at) {
                state.answers.push(answer);
            }
        });
        pulse.at.store(IDLE, Ordering::Relaxed);
        let mut state = shared.state();
        state.close(at);
        if state.left == 0 {
            shared.all_done.notify_all();
        }
    }
}

fn collect<J, A>(patience: Duration, shared: &Arc<Shared<J, A>>, workers: &mut Vec<Worker>) -> Done<A>
where
    J: Send + Sync + 'static,
    A: Send + 'static,
{
    let mut state = shared.state();
    while state.left > 0 {
        let waited = shared.all_done.wait_timeout(state, TICK);
        state = waited.unwrap_or_else(PoisonError::into_inner).0;
        for at in newly_stuck(workers, patience) {
            state.give_up(at);
            if workers.len() < THREADS + MAX_STUCK {
                workers.extend(start(shared));
            }
        }
        if workers.iter().all(|worker| worker.stuck) {
            (0..shared.jobs.len()).for_each(|at| state.give_up(at));
        }
    }
    let (answers, mut given_up) = (
        std::mem::take(&mut state.answers),
        std::mem::take(&mut state.given_up),
    );
    given_up.sort_unstable();
    Done { answers, given_up }
}

/// The jobs of the workers that have made no progress for too long, each once.
fn newly_stuck(workers: &mut [Worker], patience: Duration) -> Vec<usize> {
    let mut stuck = Vec::new();
    for worker in workers {
        let at = worker.pulse.at.load(Ordering::Relaxed);
        let beats = worker.pulse.beats.load(Ordering::Relaxed);
        if at == IDLE || (at, beats) != (worker.last.0, worker.last.1) {
            worker.last = (at, beats, Instant::now());
            worker.stuck = false;
        } else if !worker.stuck && worker.last.2.elapsed() >= patience {
            worker.stuck = true;
            stuck.push(at);
        }
    }
    stuck
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_millis(300);

    fn hang() {
        loop {
            thread::park();
        }
    }

    #[test]
    fn a_job_that_hangs_is_given_up_and_the_others_are_done() {
        let work: Box<Work<u64, u64>> = Box::new(|job, _, answer| {
            answer(*job);
            if job % 50 == 7 {
                hang();
            }
        });
        let done = run_with(PATIENCE, (0..100).collect(), work).unwrap();
        assert_eq!(done.given_up, [7, 57]);
        assert_eq!(done.answers.len(), 100, "what a hung job said before counts");
    }

    #[test]
    fn when_everything_hangs_the_rest_is_given_up_at_once() {
        let work: Box<Work<u64, ()>> = Box::new(|_, _, _| hang());
        let done = run_with(PATIENCE, (0..1000).collect(), work).unwrap();
        assert_eq!(done.given_up.len(), 1000);
    }

    #[test]
    fn a_slow_job_that_beats_is_waited_for() {
        let work: Box<Work<u64, u64>> = Box::new(|job, pulse, answer| {
            for _ in 0..60 {
                thread::sleep(Duration::from_millis(10));
                pulse.beat();
            }
            answer(*job);
        });
        let done = run_with(PATIENCE, vec![1], work).unwrap();
        assert_eq!((done.answers, done.given_up), (vec![1], vec![]));
    }

    #[test]
    fn no_jobs_are_done_at_once() {
        let work: Box<Work<u64, u64>> = Box::new(|_, _, _| {});
        assert!(run_with(PATIENCE, vec![], work).unwrap().answers.is_empty());
    }
}
