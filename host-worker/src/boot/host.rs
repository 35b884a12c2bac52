//! What boot does on a host besides the machine itself: its record, the data, the bucket and Qdrant, as a narrow port.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use super::{
    record::{Record, Rejected, Source},
    warm_up::WarmUp,
};
use crate::error::Error;

/// The host's data and what is known of it.
pub trait Host {
    /// Takes the host's lock, to be held as long as this lives, and reads the record.
    fn open(&self) -> Result<Option<Record>, Error>;

    /// Puts the record on the disk.
    fn save(&self, record: &Record) -> Result<(), Error>;

    /// Qdrant's data directory, for messages.
    fn data_dir(&self) -> PathBuf;

    /// Whether that holds collections.
    fn holds_data(&self) -> Result<bool, Error>;

    /// Removes what is in it. Nothing runs meanwhile.
    fn clear(&self) -> Result<(), Error>;

    /// What to restore, without what was rejected; `None` when nothing is left. An error means that nobody knows.
    fn choose(&self, rejected: &[Rejected]) -> impl Future<Output = Result<Option<Source>, Error>>;

    /// Fails unless there is room for the source.
    fn require_room(&self, source: &Source) -> impl Future<Output = Result<(), Error>>;

    /// Fails unless Qdrant answers at this address, which it does when everything is loaded.
    fn answers(&self, address: IpAddr) -> impl Future<Output = Result<(), Error>>;

    /// Restores the source into the Qdrant on 127.0.0.1, and verifies it. May be called again after any interruption.
    fn restore(&self, source: &Source) -> impl Future<Output = Result<(), Error>>;

    /// Verifies the source in the Qdrant on 127.0.0.1.
    fn verify(&self, source: &Source) -> impl Future<Output = Result<(), Error>>;

    /// Warms the Qdrant on 127.0.0.1 up.
    fn warm_up(&self, source: &Source) -> impl Future<Output = Result<WarmUp, Error>>;
}

/// How long boot waits for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Between two looks at something that is awaited.
    pub poll: Duration,
    /// Between two heartbeats of the lifecycle action; the least that a launch hook waits is 30 s, the usual an hour.
    pub heartbeat: Duration,
    /// How long Qdrant may run without an answer, with nothing or half a restore to load, before the host says that it is held.
    pub starting: Duration,
    /// How long Qdrant may run without an answer before the host says that it is held. It is waited for all the same.
    pub loading: Duration,
    /// The same for the machine's address.
    pub address: Duration,
    /// Before the first look at what has failed; doubled each time.
    pub look_again: Duration,
    /// The most between two looks.
    pub look_again_at_most: Duration,
    /// Between two lines that say why the host is held.
    pub say_again: Duration,
    /// Before the second try to complete the lifecycle action; doubled each time.
    pub complete: Duration,
}

impl Timing {
    /// As on a real host.
    pub const STANDARD: Self = Self {
        poll: Duration::from_secs(1),
        heartbeat: Duration::from_secs(25),
        starting: Duration::from_secs(300),
        loading: Duration::from_secs(1800),
        address: Duration::from_secs(300),
        look_again: Duration::from_secs(10),
        look_again_at_most: Duration::from_secs(300),
        say_again: Duration::from_secs(600),
        complete: Duration::from_secs(2),
    };

    /// All of them, shorter by a factor: for an embedded cloud whose clock runs faster.
    #[must_use]
    pub fn divided_by(self, divisor: u32) -> Self {
        let divisor = divisor.max(1);
        Self {
            poll: self.poll / divisor,
            heartbeat: self.heartbeat / divisor,
            starting: self.starting / divisor,
            loading: self.loading / divisor,
            address: self.address / divisor,
            look_again: self.look_again / divisor,
            look_again_at_most: self.look_again_at_most / divisor,
            say_again: self.say_again / divisor,
            complete: self.complete / divisor,
        }
    }
}
