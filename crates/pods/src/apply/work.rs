//! What the repairs of all pods share: the tools, the mount tables, the memory of what hung.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::Tools;
use super::inventory::{self, Found, RECORD};
use super::leftovers::Leftovers;
use super::steps::{Step, Steps};
use super::tables::{Home, Tables};
use crate::error::Error;
use crate::held::Held;
use crate::pod::PodDir;
use crate::quarantine::{KeptItem, Shelf, manifest, real};
use crate::restore::records;

/// What the repairs of all pods share.
pub(crate) struct Work<'a, 't> {
    pub(crate) tools: &'a mut Tools<'t>,
    pub(crate) leftovers: Leftovers,
    /// File systems whose unmount did not end.
    pub(crate) hung: HashSet<(u32, u32)>,
    home: Option<(PathBuf, u64, Home)>,
    tables: Option<Tables>,
}

impl<'a, 't> Work<'a, 't> {
    pub(crate) fn new(tools: &'a mut Tools<'t>, leftovers: Leftovers) -> Self {
        Self {
            tools,
            leftovers,
            hung: HashSet::new(),
            home: None,
            tables: None,
        }
    }

    pub(crate) fn stopped(&self) -> bool {
        super::is_set(self.tools.stop)
    }

    pub(crate) fn progress(&mut self, done: usize) {
        (self.tools.progress)(done);
    }

    /// Opens a pod directory, and makes sure that it is the one that was judged. None if it is gone.
    pub(crate) fn hold(&mut self, dir: &PodDir) -> Result<Option<Held>, Error> {
        let pods = dir.path.parent().unwrap_or(Path::new("/"));
        if dir.path.file_name() != Some(OsStr::new(dir.uid.as_str())) {
            return Err(Error::unfit(&dir.path, "does not have the name of its pod"));
        }
        let Some(held) = Held::open(&dir.path)? else {
            return Ok(None);
        };
        if held.id()? != dir.identity.dir || held.mount() != dir.identity.mount {
            return Err(Error::unfit(&dir.path, "is another directory than was judged"));
        }
        let known = |(path, mount, _): &(PathBuf, u64, Home)| path == pods && *mount == held.mount();
        if !self.home.as_ref().is_some_and(known) {
            let home = Home::of(pods, held.mount())?;
            self.home = Some((pods.to_owned(), held.mount(), home));
            self.tables = None;
        }
        Ok(Some(held))
    }

    /// Makes sure that the mount tables are fresh.
    pub(crate) fn look(&mut self) -> Result<(), Error> {
        match self.is_fresh() {
            true => Ok(()),
            false => self.look_again(),
        }
    }

    /// True if the last look at the mount tables is good enough for a removal now.
    pub(crate) fn is_fresh(&self) -> bool {
        self.tables.as_ref().is_some_and(Tables::is_fresh)
    }

    /// Reads the mount tables, whenever that was done before.
    pub(crate) fn look_again(&mut self) -> Result<(), Error> {
        // Nothing of the old look may be used if this one fails.
        self.tables = None;
        let Some((_, _, home)) = &self.home else {
            return Err(Error::unfit("/", "no pod directory is held"));
        };
        self.tables = Some(Tables::take(home)?);
        Ok(())
    }

    /// As [`look`](Self::look), at tables that were read after that moment.
    pub(crate) fn look_since(&mut self, moment: Instant) -> Result<(), Error> {
        match self.tables.as_ref().is_some_and(|tables| tables.is_after(moment)) {
            true => self.look(),
            false => self.look_again(),
        }
    }

    /// The mount tables, as of the last look.
    pub(crate) fn tables(&self) -> Result<&Tables, Error> {
        self.tables
            .as_ref()
            .ok_or_else(|| Error::unfit("/", "no mount table was read"))
    }

    pub(crate) fn steps(&mut self, dir: &PodDir) -> Steps<'_> {
        Steps {
            journal: self.tools.journal,
            run: self.tools.run,
            uid: dir.uid.clone(),
        }
    }

    /// What lies in the directory now.
    pub(crate) fn inventory(&self, pod: &Held, dir: &PodDir) -> Result<Vec<Found>, Error> {
        let covered: HashSet<PathBuf> = self
            .tables()?
            .ours(dir.uid.as_str())
            .filter_map(|near| Some(near.mount.mountpoint.strip_prefix(pod.path()).ok()?.to_owned()))
            .collect();
        inventory::take(pod, dir, &|path| covered.contains(path))
    }

    /// Copies the `vol_data.json` of these into the state directory. Gives the directory of the copies.
    pub(crate) fn keep_records(
        &mut self,
        pod: &Held,
        dir: &PodDir,
        found: &[&Found],
    ) -> Result<Option<PathBuf>, Error> {
        if found.is_empty() {
            return Ok(None);
        }
        let shelf = Shelf::open(&real(&records(self.tools.state)))?;
        let entry = shelf.entry(self.tools.run, &dir.uid)?;
        let mut manifest = manifest(dir, self.tools.run);
        let mut steps = Vec::new();
        for (number, found) in found.iter().enumerate() {
            let place = found.place.join(RECORD);
            let item = number.to_string();
            steps.push(Step::Keep {
                from: pod.path().join(&place),
                to: entry.path().join(&item),
            });
            manifest.items.push(KeptItem {
                name: item,
                place,
                plugin: found.plugin.clone(),
                class: found.class,
                content: found.content.clone(),
                csi: found.csi.clone(),
            });
        }
        self.steps(dir).write_all(steps)?;
        for (found, item) in found.iter().zip(&manifest.items) {
            if let Some(place) = pod.below(&found.place)? {
                entry.copy(&place, RECORD.as_ref(), &item.name)?;
            }
        }
        entry.write(&manifest)?;
        Ok(Some(entry.path().to_owned()))
    }
}
