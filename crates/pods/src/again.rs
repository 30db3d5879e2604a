//! The look under the lock, for one pod directory after the other.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nodemend_evidence::{Look, Source};

use crate::apply::{Again, Looks};
use crate::judge::{Policy, looks_again};
use crate::pod::PodDir;
use crate::survey::Survey;
use crate::uid::Uid;

/// For how long a look is good. A purge can take long, and a static pod's UID can live again meanwhile.
pub(crate) const GOOD_FOR: Duration = Duration::from_secs(10);

/// Looks at the whole node, and again when the last look is too old to remove something by it.
pub struct ThirdLook<'a> {
    policy: &'a Policy,
    survey: Box<dyn FnMut() -> Result<Survey, String> + 'a>,
    last: Option<Taken>,
    required: Vec<Source>,
}

struct Taken {
    at: Instant,
    /// How long it took: a node on which a look takes a minute must not be looked at all the time.
    took: Duration,
    looks: HashMap<Uid, Look<Arc<PodDir>>>,
}

impl<'a> ThirdLook<'a> {
    /// `survey` takes a look; the policy is that of the plan.
    pub fn new(policy: &'a Policy, survey: impl FnMut() -> Result<Survey, String> + 'a) -> Self {
        Self {
            policy,
            survey: Box::new(survey),
            last: None,
            required: Vec::new(),
        }
    }

    fn refresh(&mut self) -> Result<(), String> {
        let good = |last: &Taken| last.at.elapsed() < GOOD_FOR.max(last.took * 4);
        if self.last.as_ref().is_some_and(good) {
            return Ok(());
        }
        // Nothing of the old look may be used if this one fails.
        self.last = None;
        let start = Instant::now();
        let survey = (self.survey)()?;
        let took = start.elapsed();
        let again = looks_again(&survey, self.policy);
        self.required = again.required;
        let looks = again
            .pods
            .into_iter()
            .map(|look| (look.subject.uid.clone(), look))
            .collect();
        self.last = Some(Taken {
            at: start,
            took,
            looks,
        });
        Ok(())
    }
}

impl Looks for ThirdLook<'_> {
    fn look(&mut self, pod: &PodDir) -> Again {
        if let Err(reason) = self.refresh() {
            return Again::Refused(reason);
        }
        let looks = self.last.as_ref().map(|last| &last.looks);
        match looks.and_then(|looks| looks.get(&pod.uid)) {
            Some(look) => Again::Here(Box::new(look.clone())),
            None => Again::Gone,
        }
    }

    fn required(&self) -> &[Source] {
        &self.required
    }
}
