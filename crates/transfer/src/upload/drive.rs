//! Moving an upload's bytes: parts come from the crew and go to the store, so many at a time.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use tokio::task::JoinSet;

use crate::{
    error::Error,
    layout::Layout,
    progress::Progress,
    retry::{Attempts, RetryPolicy},
    store::{MultipartStore, StoreError, StoreErrorKind, StoredPart, UploadRef},
    upload::{
        UploadOptions,
        assemble::{Assembled, Part},
        crew::{Crew, Event},
        plan::Plan,
        source::Sources,
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
    pub(super) digests: Vec<[u8; 32]>,
}

/// Packs everything and sends every part. Returns when nobody works or sends any more, also when it fails.
pub(super) async fn transfer<S: MultipartStore>(
    store: &S,
    upload: &UploadRef,
    layout: &Arc<Layout>,
    sources: &Arc<Sources>,
    plan: &Plan,
    options: &UploadOptions,
) -> Result<Moved, Error> {
    let mut crew = Crew::start(layout, sources, plan, options)?;
    let mut sending = JoinSet::new();
    let moved = drive(store, upload, plan, options, &mut crew, &mut sending).await;
    sending.shutdown().await;
    // A thread that hangs in a read must not keep the caller from stopping.
    if tokio::time::timeout(STOP_TIMEOUT, crew.stop()).await.is_err() {
        tracing::warn!(key = upload.key, "a thread of the upload does not stop");
    }
    moved
}

async fn drive<S: MultipartStore>(
    store: &S,
    upload: &UploadRef,
    plan: &Plan,
    options: &UploadOptions,
    crew: &mut Crew,
    sending: &mut JoinSet<Result<StoredPart, Error>>,
) -> Result<Moved, Error> {
    let mut ready = VecDeque::new();
    let (mut parts, mut object, mut digests) = (Vec::new(), None, None);
    let window = Window::new(plan.concurrency);
    loop {
        while sending.len() < plan.concurrency
            && let Some(part) = ready.pop_front()
        {
            let (retry, progress) = (options.retry, Arc::clone(&options.progress));
            sending.spawn(send_part(store.clone(), upload.clone(), part, window.clone(), retry, progress));
        }
        let finished = object.is_some() && digests.is_some();
        if finished && sending.is_empty() {
            break;
        }
        tokio::select! {
            biased;
            () = options.cancel.cancelled() => return Err(Error::Cancelled),
            Some(sent) = sending.join_next() => parts.push(sent.map_err(|error| Error::joined("send part", error))??),
            event = crew.next(), if !finished && (crew.runs_ahead() || ready.is_empty()) => match event {
                Event::Part(part) => ready.push_back(part),
                Event::Entries(found) => digests = Some(found),
                Event::Object(assembled) => object = Some(assembled),
                Event::Failed(error) => return Err(error),
            },
        }
    }
    parts.sort_unstable_by_key(|part: &StoredPart| part.number);
    let (object, digests) =
        object.zip(digests).ok_or(Error::Internal { what: "the parts ended before the object" })?;
    Ok(Moved { parts, object, digests })
}

async fn send_part<S: MultipartStore>(
    store: S,
    upload: UploadRef,
    part: Part,
    window: Window,
    retry: RetryPolicy,
    progress: Arc<Progress>,
) -> Result<StoredPart, Error> {
    let Part { number, body, crc64nvme } = part;
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
