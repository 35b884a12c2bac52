//! What S3 tells of new objects, to whoever listens.

use tokio::sync::broadcast;

/// How many notices a listener may be behind before it misses the oldest.
const BACKLOG: usize = 4096;

/// An `Object Created` event: the object is there, under its name, as EventBridge would tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectCreated {
    /// The bucket.
    pub bucket: String,
    /// The key.
    pub key: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its `ETag`, without quotes.
    pub etag: String,
    /// Its version, where the bucket keeps versions.
    pub version: Option<String>,
    /// What made it.
    pub reason: Reason,
}

/// What made an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are AWS's and documented there")]
pub enum Reason {
    PutObject,
    CompleteMultipartUpload,
}

impl Reason {
    /// AWS's name of it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::PutObject => "PutObject",
            Self::CompleteMultipartUpload => "CompleteMultipartUpload",
        }
    }
}

/// Tells everybody who listens.
#[derive(Debug)]
pub(crate) struct Notices(broadcast::Sender<ObjectCreated>);

impl Default for Notices {
    fn default() -> Self {
        Self(broadcast::Sender::new(BACKLOG))
    }
}

impl Notices {
    pub(crate) fn tell(&self, notice: ObjectCreated) {
        // It fails when nobody listens, which is nobody's fault.
        let _listeners = self.0.send(notice);
    }

    pub(crate) fn listen(&self) -> broadcast::Receiver<ObjectCreated> {
        self.0.subscribe()
    }
}
