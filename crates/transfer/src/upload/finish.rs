//! Making the object out of its parts: what the store has is compared first, and an answer that is lost is found out about.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

use crate::{
    error::Error,
    retry::{Attempts, retried},
    store::{MultipartStore, ObjectInfo, StoreError, StoreErrorKind, StoredPart, UploadRef, Whole},
    upload::UploadOptions,
};

/// The object could not be made.
#[derive(Debug)]
pub(super) struct Unfinished {
    pub(super) error: Error,
    /// Whether the upload is certainly not the object yet, so that it may be aborted.
    pub(super) abort: bool,
}

/// Compares the store's parts with `sent`, then completes the upload and looks at what came of it. Stops when asked to.
pub(super) async fn finish<S: MultipartStore>(
    store: &S,
    upload: &UploadRef,
    sent: Vec<StoredPart>,
    mut whole: Whole,
    asked_before: bool,
    options: &UploadOptions,
) -> Result<ObjectInfo, Unfinished> {
    let cancelled = |abort| Unfinished { error: Error::Cancelled, abort };
    let asked = AtomicBool::new(asked_before);
    let reviewed = options.cancel.run_until_cancelled(review(store, upload, sent, options)).await;
    let parts =
        reviewed.ok_or_else(|| cancelled(true))?.map_err(|error| Unfinished { error, abort: true })?;
    whole.checked_by_store = parts.iter().all(|part| part.crc64nvme.is_some());
    let completed = complete(store, upload, &parts, whole, options, &asked);
    let completed = options.cancel.run_until_cancelled(completed).await;
    // A store that was asked to make the object may still be at it.
    match completed {
        Some(completed) => completed,
        None => Err(cancelled(!asked.load(Relaxed))),
    }
}

/// The parts as the store lists them, with its checksums, once they are equal to what was sent.
async fn review<S: MultipartStore>(
    store: &S,
    upload: &UploadRef,
    sent: Vec<StoredPart>,
    options: &UploadOptions,
) -> Result<Vec<StoredPart>, Error> {
    let key = || upload.key.clone();
    let what = format!("list the parts of {}", upload.key);
    let listed = retried(options.retry, &options.progress, what, || store.list_parts(upload))
        .await
        .map_err(|source| Error::ListParts { key: key(), source })?;
    let mut listed: BTreeMap<u32, StoredPart> = listed.into_iter().map(|part| (part.number, part)).collect();
    let mut parts = Vec::with_capacity(sent.len());
    for ours in sent {
        let differs = |what: String| Error::PartDiffers { key: key(), part: ours.number, what };
        let Some(theirs) = listed.remove(&ours.number) else {
            return Err(differs("the store does not list it".to_owned()));
        };
        if theirs.size != ours.size {
            return Err(differs(format!("{} bytes, not {}", theirs.size, ours.size)));
        }
        if theirs.crc64nvme.is_some_and(|crc| Some(crc) != ours.crc64nvme) {
            return Err(differs("its CRC-64/NVME is another one".to_owned()));
        }
        parts.push(StoredPart { number: ours.number, ..theirs });
    }
    match listed.into_keys().next() {
        Some(part) => Err(Error::PartDiffers {
            key: key(),
            part,
            what: "the store lists it, but it was never sent".to_owned(),
        }),
        None => Ok(parts),
    }
}

/// Completes the upload. `asked` says whether an earlier run may have asked the store to, and is set before this one does.
///
/// Once an answer was lost, the store may be making the object, whatever it says to later calls: then the upload is not
/// aborted any more, and the object is looked for until the attempts are used up.
async fn complete<S: MultipartStore>(
    store: &S,
    upload: &UploadRef,
    parts: &[StoredPart],
    whole: Whole,
    options: &UploadOptions,
    asked: &AtomicBool,
) -> Result<ObjectInfo, Unfinished> {
    let key = || upload.key.clone();
    let mut attempts = Attempts::new(options.retry, &options.progress, format!("complete {}", upload.key));
    let mut in_doubt = asked.load(Relaxed);
    loop {
        asked.store(true, Relaxed);
        let error = match store.complete(upload, parts, whole).await {
            Ok(()) => return confirm(store, upload, whole, options).await,
            Err(error) => error,
        };
        let meaning = meaning_of(&error);
        in_doubt |= meaning == Meaning::Unknown;
        if meaning == Meaning::Refused && !in_doubt {
            return Err(Unfinished { error: Error::Complete { key: key(), source: error }, abort: true });
        }
        match look(store, upload, options).await {
            Ok(Some(info)) => match difference(&info, whole, &options.metadata) {
                None => {
                    tracing::info!(key = upload.key, %error, "the upload was completed although the store said otherwise");
                    return Ok(info);
                }
                Some(what) => {
                    let error = Error::KeyTaken { key: key(), what };
                    return Err(Unfinished { error, abort: !in_doubt });
                }
            },
            Ok(None) if in_doubt && attempts.again_anyway(&error).await => {}
            Ok(None) => {
                let error = Error::Complete { key: key(), source: error };
                return Err(Unfinished { error, abort: !in_doubt });
            }
            Err(source) => {
                tracing::warn!(key = upload.key, error = %source, "cannot see whether the upload was completed");
                let error = Error::Complete { key: key(), source: error };
                return Err(Unfinished { error, abort: !in_doubt });
            }
        }
    }
}

/// What a failed call says about the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    /// The call may have made it, or may still be making it.
    Unknown,
    /// This call has not made it, but there may be one, from an earlier call or from somebody else.
    NotByThisCall,
    /// The call has not made it.
    Refused,
}

fn meaning_of(error: &StoreError) -> Meaning {
    match error.kind {
        StoreErrorKind::Transient | StoreErrorKind::Throttled | StoreErrorKind::Unsent => Meaning::Unknown,
        StoreErrorKind::PreconditionFailed | StoreErrorKind::NoSuchUpload => Meaning::NotByThisCall,
        StoreErrorKind::NoSuchKey
        | StoreErrorKind::NoSuchBucket
        | StoreErrorKind::AccessDenied
        | StoreErrorKind::ClockSkewed
        | StoreErrorKind::OutOfRange
        | StoreErrorKind::BadDigest
        | StoreErrorKind::Refused => Meaning::Refused,
    }
}

/// Looks at an object that the store says it has made.
async fn confirm<S: MultipartStore>(
    store: &S,
    upload: &UploadRef,
    whole: Whole,
    options: &UploadOptions,
) -> Result<ObjectInfo, Unfinished> {
    let key = upload.key.clone();
    let error = match look(store, upload, options).await {
        Ok(Some(info)) => match difference(&info, whole, &options.metadata) {
            None => return Ok(info),
            Some(what) => Error::ObjectDiffers { key, what },
        },
        Ok(None) => Error::ObjectMissing { key },
        Err(source) => Error::Head { key, source },
    };
    Err(Unfinished { error, abort: false })
}

async fn look<S: MultipartStore>(
    store: &S,
    upload: &UploadRef,
    options: &UploadOptions,
) -> Result<Option<ObjectInfo>, StoreError> {
    let what = format!("look at {}", upload.key);
    retried(options.retry, &options.progress, what, || store.head(&upload.key, None)).await
}

/// In what an object is not the one that was sent; `None` if it is.
pub(super) fn difference(info: &ObjectInfo, whole: Whole, metadata: &[(String, String)]) -> Option<String> {
    if info.size != whole.size {
        return Some(format!("{} bytes, not {}", info.size, whole.size));
    }
    if let Some(crc) = info.crc64nvme.filter(|crc| *crc != whole.crc64nvme) {
        return Some(format!("CRC-64/NVME {crc}, not {}", whole.crc64nvme));
    }
    // Metadata travels as headers, whose names have no case.
    let stored = |name: &str| {
        info.metadata.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    };
    let other = metadata.iter().find(|(name, value)| stored(name) != Some(value));
    other.map(|(name, value)| format!("its metadata `{name}` is {:?}, not {value:?}", stored(name)))
}
