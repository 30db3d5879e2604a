//! Time that a change of the wall clock does not move.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::host::Host;

/// A moment in the life of the running kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Moment {
    /// `/proc/sys/kernel/random/boot_id`: moments of two boots cannot be compared.
    pub boot_id: String,
    /// Seconds since that boot, suspended time included.
    pub since_boot: u64,
    /// Seconds since 1970, by the wall clock, which may have been set meanwhile.
    pub unix: u64,
}

/// A length of time as people say it: `45 s`, `10 min`, `2 h 10 min`, `3 d 4 h`.
///
/// ```
/// use nodemend_hostfs::Spoken;
/// assert_eq!(Spoken(7_800).to_string(), "2 h 10 min");
/// assert_eq!(Spoken(600).to_string(), "10 min");
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Spoken(
    /// Seconds.
    pub u64,
);

impl fmt::Display for Spoken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            (self.0 / 86_400, "d"),
            (self.0 / 3_600 % 24, "h"),
            (self.0 / 60 % 60, "min"),
            (self.0 % 60, "s"),
        ];
        let first = parts.iter().position(|(count, _)| *count > 0).unwrap_or(3);
        let (count, unit) = parts[first];
        write!(f, "{count} {unit}")?;
        match parts.get(first + 1) {
            Some((count, unit)) if *count > 0 => write!(f, " {count} {unit}"),
            _ => Ok(()),
        }
    }
}

/// Reads the clocks.
#[derive(Clone, Debug)]
pub struct BootClock {
    boot_id: String,
}

impl BootClock {
    /// The clock of the running kernel.
    ///
    /// # Errors
    /// If /proc does not give the boot id.
    pub fn new() -> Result<Self, Error> {
        let bytes = Host::local().read(Path::new("/proc/sys/kernel/random/boot_id"), 100)?;
        Ok(Self {
            boot_id: String::from_utf8_lossy(&bytes).trim().to_owned(),
        })
    }

    /// Now.
    pub fn now(&self) -> Moment {
        let boot = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let wall = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
        Moment {
            boot_id: self.boot_id.clone(),
            since_boot: u64::try_from(boot.tv_sec).unwrap_or_default(),
            unix: u64::try_from(wall.tv_sec).unwrap_or_default(),
        }
    }
}

impl Moment {
    /// How long `earlier` lies back; nothing if it is of another boot or in the future.
    pub fn since(&self, earlier: &Moment) -> Option<Duration> {
        (self.boot_id == earlier.boot_id)
            .then(|| self.since_boot.checked_sub(earlier.since_boot))
            .flatten()
            .map(Duration::from_secs)
    }
}
