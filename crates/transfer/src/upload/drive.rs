//! Moving an upload's bytes: parts come from the crew and go to the store, so many at a time.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use tokio::{task::JoinSet, time::Instant};

use crate::{
    error::Error,
    progress::Progress,
    retry::{Attempts, RetryPolicy},
    store::{MultipartStore, StoreError, StoreErrorKind, StoredPart, UploadRef},
    upload::{
        UploadOptions,
        assemble::{Assembled, Part},
        begin::Begun,
        crew::{Crew, Event},
        journal::Journal,
        ledger::Ledger,
        pack::{Work, settle_empty},
        plan::Plan,
    },
    window::Window,
};

/// How long threads may take to notice that they are to stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// What is known when every part is stored.
#[derive(Debug)]
pub(super) struct Moved {
    pub(super) parts: Vec<StoredPart>,
    pub(super) object: Assembled,
    pub(super) digests: Vec<Option<[u8; 32]>>,
    /// Parts that the store had from an earlier run.
    pub(super) resumed: u32,
}

/// Packs everything that is not packed yet and sends every part that the store does not have. When it returns, nobody sends any more and,
/// unless a thread hangs in a read, nobody works.
pub(super) async fn transfer<S: MultipartStore>(
    store: &S,
    begun: &mut Begun,
    work: &Work,
    plan: &Plan,
    options: &UploadOptions,
) -> Result<Moved, Error> {
    let Begun { upload, resume, stored, journal, spent, asked: _ } = begun;
    settle_empty(work, &mut resume.digests)?;
    options.progress.add_raw(resume.frames.iter().map(|frame| u64::from(frame.raw_len)).sum());
    let mut crew = Crew::start(work, resume, plan, options)?;
    let mut sending = JoinSet::new();
    // Parts before the checkpoint are stored as the journal says; those behind it are made again and compared.
    let behind = stored.split_off(&(resume.checkpoint.parts + 1));
    let before: Vec<StoredPart> = std::mem::take(stored).into_values().collect();
    options.progress.add_object(before.iter().map(|part| part.size).sum());
    let mut drive = Drive {
        resumed: u32::try_from(before.len()).unwrap_or(u32::MAX),
        stored: behind,
        parts: before,
        ready: VecDeque::new(),
        object: None,
        unhashed: resume.digests.iter().filter(|digest| digest.is_none()).count(),
        ledger: Ledger::new(&work.layout, resume.digests.clone(), plan.frames),
        journal: journal.as_mut(),
        window: Window::new(plan.concurrency),
        begin: Instant::now(),
        spent: *spent,
    };
    let moved = drive.run(store, upload, plan, options, &mut crew, &mut sending).await;
    sending.shutdown().await;
    // A thread that hangs in a read must not keep the caller from stopping.
    if tokio::time::timeout(STOP_TIMEOUT, crew.stop()).await.is_err() {
        tracing::warn!(key = upload.key, "a thread of the upload does not stop");
    }
    let object = moved?;
    let Drive { mut parts, ledger, resumed, .. } = drive;
    parts.sort_unstable_by_key(|part| part.number);
    Ok(Moved { parts, object, digests: ledger.into_digests(), resumed })
}

/// What has happened so far.
struct Drive<'a> {
    /// Parts that the store has and that are not made again yet.
    stored: BTreeMap<u32, StoredPart>,
    /// Parts that are stored as they have to be.
    parts: Vec<StoredPart>,
    resumed: u32,
    /// Parts that wait to be sent.
    ready: VecDeque<Part>,
    object: Option<Assembled>,
    /// Entries whose digest is not known yet.
    unhashed: usize,
    ledger: Ledger,
    journal: Option<&'a mut Journal>,
    window: Window,
    begin: Instant,
    spent: Duration,
}

impl Drive<'_> {
    async fn run<S: MultipartStore>(
        &mut self,
        store: &S,
        upload: &UploadRef,
        plan: &Plan,
        options: &UploadOptions,
        crew: &mut Crew,
        sending: &mut JoinSet<Result<StoredPart, Error>>,
    ) -> Result<Assembled, Error> {
        loop {
            while sending.len() < plan.concurrency
                && let Some(part) = self.ready.pop_front()
            {
                let (retry, progress) = (options.retry, Arc::clone(&options.progress));
                let window = self.window.clone();
                sending.spawn(send_part(store.clone(), upload.clone(), part, window, retry, progress));
            }
            let made = self.object.is_some() && self.unhashed == 0;
            if made
                && sending.is_empty()
                && let Some(object) = self.object.take()
            {
                return Ok(object);
            }
            tokio::select! {
                biased;
                () = options.cancel.cancelled() => return Err(Error::Cancelled),
                Some(sent) = sending.join_next() => {
                    self.parts.push(sent.map_err(|error| Error::joined("send part", error))??);
                }
                event = crew.next(), if !made && (crew.runs_ahead() || self.ready.is_empty()) => {
                    self.take(event, &options.progress)?;
                }
            }
        }
    }

    fn take(&mut self, event: Event, progress: &Progress) -> Result<(), Error> {
        match event {
            Event::Part(part) => self.take_part(part, progress),
            Event::Hashing(frame, state) => self.ledger.state(frame, state),
            Event::Entry(entry, digest) => {
                self.unhashed -= 1;
                self.ledger.digest(entry, digest);
            }
            Event::Object(object) => self.object = Some(object),
            Event::Failed(error) => return Err(error),
        }
        while let Some(record) = self.ledger.next(self.spent + self.begin.elapsed()) {
            if let Some(journal) = &mut self.journal {
                journal.append(&record);
            }
        }
        Ok(())
    }

    /// A part that the store has already is not sent again.
    fn take_part(&mut self, part: Part, progress: &Progress) {
        self.ledger.boundary(part.boundary.clone(), part.crc64nvme);
        let same = |stored: &StoredPart| {
            stored.size == part.body.len() as u64 && stored.crc64nvme == Some(part.crc64nvme)
        };
        match self.stored.remove(&part.number).filter(same) {
            Some(stored) => {
                progress.add_object(stored.size);
                self.parts.push(stored);
                self.resumed += 1;
            }
            None => self.ready.push_back(part),
        }
    }
}

async fn send_part<S: MultipartStore>(
    store: S,
    upload: UploadRef,
    part: Part,
    window: Window,
    retry: RetryPolicy,
    progress: Arc<Progress>,
) -> Result<StoredPart, Error> {
    let Part { number, body, crc64nvme, boundary: _ } = part;
    let size = body.len() as u64;
    let mut attempts = Attempts::new(retry, &progress, format!("upload part {number} of {}", upload.key));
    loop {
        let answer = window.run(store.upload_part(&upload, number, body.clone(), crc64nvme)).await;
        let error = match answer {
            Ok(stored) if stored.size == size && stored.crc64nvme.is_none_or(|crc| crc == crc64nvme) => {
                progress.add_object(size);
                // What the store does not compute, its list of parts may still show: ours is kept to compare.
                return Ok(StoredPart { crc64nvme: Some(crc64nvme), ..stored });
            }
            Ok(_) => StoreError::new(
                StoreErrorKind::BadDigest,
                "UploadPart",
                "the store has other bytes than were sent",
            ),
            Err(error) => error,
        };
        if !attempts.again(&error).await {
            let attempts = attempts.failed();
            return Err(Error::UploadPart { key: upload.key, part: number, attempts, source: error });
        }
    }
}
