//! How an upload begins: anew, or where another process left it.

use std::{collections::BTreeMap, path::Path, time::Duration};

use crate::{
    error::Error,
    frame::Level,
    index::FrameIndex,
    layout::Layout,
    retry::{Attempts, retried},
    store::{Crc64, MultipartStore, ObjectInfo, StoreErrorKind, StoredPart, UploadRef, Whole},
    upload::{
        Content, Source, UploadOptions,
        assemble::Assembled,
        checkpoint::Resume,
        finish::difference,
        journal::{self, ContentIdentity, EntryIdentity, Identity, Journal, Journaled, Record, Sealed},
        plan::Plan,
        put_away::{abort_strays, adopt, put_away},
        source::Sources,
    },
};

/// What there is to go on with.
#[derive(Debug)]
pub(super) enum Beginning {
    /// An upload, with everything behind `resume` still to be made.
    Upload(Box<Begun>),
    /// The object is there already: the process that made it was stopped before it could say so.
    Object(Box<Found>),
}

/// An upload that takes parts.
#[derive(Debug)]
pub(super) struct Begun {
    pub(super) upload: UploadRef,
    pub(super) resume: Resume,
    /// Parts that the store has, with their checksums, by number.
    pub(super) stored: BTreeMap<u32, StoredPart>,
    pub(super) journal: Option<Journal>,
    /// How long the runs before this one took.
    pub(super) spent: Duration,
    /// Whether an earlier run may have asked the store to make the object.
    pub(super) asked: bool,
}

/// An object that an earlier run has made.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) info: ObjectInfo,
    pub(super) object: Assembled,
    pub(super) digests: Vec<Option<[u8; 32]>>,
    pub(super) parts: u32,
    pub(super) spent: Duration,
}

/// What makes the upload of `sources` as `key` this upload and no other.
pub(super) fn identity(
    key: &str,
    layout: &Layout,
    sources: &Sources,
    plan: &Plan,
    options: &UploadOptions,
) -> Identity {
    let entry = |entry: usize| {
        let Source { entry: spec, content, expected_sha256 } = sources.get(entry);
        EntryIdentity {
            name: spec.name.clone(),
            size: spec.size,
            content: match content {
                Content::Bytes(bytes) => {
                    ContentIdentity::Bytes { blake3: blake3::hash(bytes).to_hex().to_string() }
                }
                Content::File(path) => sources.file_identity(entry, path),
            },
            expected_sha256: expected_sha256.map(hex::encode),
        }
    };
    Identity {
        format: Identity::FORMAT,
        key: key.to_owned(),
        metadata: options.metadata.clone(),
        tool: env!("CARGO_PKG_VERSION").to_owned(),
        zstd: zstd_safe::version_number(),
        level: match options.level {
            Level::Auto => None,
            Level::Fixed(level) => Some(level),
        },
        part_size: plan.part_size,
        frame_raw_max: layout.frame_max(),
        entries: (0..layout.entry_count()).map(entry).collect(),
    }
}

/// Begins the upload that `identity` is of, or goes on with it.
pub(super) async fn begin<S: MultipartStore>(
    store: &S,
    identity: Identity,
    options: &UploadOptions,
) -> Result<Beginning, Error> {
    let Some(path) = &options.journal else {
        let upload = start(store, &identity.key, None, options).await?;
        return Ok(Begun::anew(upload, identity.entries.len(), None));
    };
    let journaled = Journaled::read(path).unwrap_or_else(|error| {
        tracing::warn!(%error, "the journal of an earlier upload cannot be read; a new one is begun");
        None
    });
    match journaled {
        Some(journaled) if journaled.identity.key == identity.key => {
            go_on(store, path, identity, journaled, options).await
        }
        other => {
            if let Some(journaled) = other {
                let putting = put_away(store, path, &journaled, options);
                options.cancel.run_until_cancelled(putting).await.ok_or(Error::Cancelled)?;
            }
            anew(store, path, &identity, None, options).await
        }
    }
}

async fn anew<S: MultipartStore>(
    store: &S,
    path: &Path,
    identity: &Identity,
    adopted: Option<UploadRef>,
    options: &UploadOptions,
) -> Result<Beginning, Error> {
    let mut journal = Journal::create(path, identity);
    let upload = match adopted {
        Some(upload) => upload,
        None => start(store, &identity.key, journal.as_ref(), options).await?,
    };
    if let Some(journal) = &mut journal {
        journal.append_durably(&Record::Upload { upload_id: upload.upload_id.clone() });
    }
    Ok(Begun::anew(upload, identity.entries.len(), journal))
}

/// Goes on with the upload that `journaled` tells of, if it is the one that is wanted. One that cannot be finished is aborted.
async fn go_on<S: MultipartStore>(
    store: &S,
    path: &Path,
    identity: Identity,
    journaled: Journaled,
    options: &UploadOptions,
) -> Result<Beginning, Error> {
    let key = &identity.key;
    let lost = |what: String| Error::NotResumable { key: key.clone(), what };
    if let Some(what) = identity.difference(&journaled.identity) {
        let putting = put_away(store, path, &journaled, options);
        options.cancel.run_until_cancelled(putting).await.ok_or(Error::Cancelled)?;
        return Err(lost(what));
    }
    let entries = identity.entries.len();
    let Some(upload_id) = &journaled.upload_id else {
        // Killed while the upload was started. Its key finds it, since no other upload ever has this key.
        let adopted = adopt(store, key, options).await?;
        return anew(store, path, &identity, adopted, options).await;
    };
    let upload = UploadRef { key: key.clone(), upload_id: upload_id.clone() };
    let what = format!("list the parts of {key}");
    let listing = retried(options.retry, &options.progress, what, || store.list_parts(&upload));
    let listed = match options.cancel.run_until_cancelled(listing).await.ok_or(Error::Cancelled)? {
        Ok(listed) => listed,
        Err(error) if error.kind == StoreErrorKind::NoSuchUpload => {
            let found = match journaled.sealed() {
                Some(sealed) => found(store, key, sealed, &journaled, options).await,
                None => Err(lost("the store does not have it any more".to_owned())),
            };
            return found.inspect_err(|error| {
                if !error.is_resumable() {
                    journal::remove(path);
                }
            });
        }
        Err(source) => return Err(Error::ListParts { key: key.clone(), source }),
    };
    // A store that has no checksums cannot say what it has: it gets everything again.
    let stored: BTreeMap<u32, StoredPart> =
        listed.into_iter().filter(|part| part.crc64nvme.is_some()).map(|part| (part.number, part)).collect();
    let whole = stored_from_the_start(&journaled, &stored);
    let Some((resume, keep)) = (0..=whole).rev().find_map(|parts| journaled.resume_behind(parts, entries))
    else {
        return Err(Error::Internal { what: "nothing cannot be resumed" });
    };
    tracing::info!(
        key,
        parts = stored.len(),
        behind = resume.checkpoint.parts,
        bytes = stored.values().map(|part| part.size).sum::<u64>(),
        "an interrupted upload goes on"
    );
    let journal = Some(Journal::reopen(path, keep));
    let spent = journaled.spent(resume.checkpoint.parts);
    let asked = journaled.sealed().is_some();
    Ok(Beginning::Upload(Box::new(Begun { upload, resume, stored, journal, spent, asked })))
}

/// How many parts the store has, from the first one on, just as the journal says.
fn stored_from_the_start(journaled: &Journaled, stored: &BTreeMap<u32, StoredPart>) -> usize {
    let mut start = 0;
    let has = |part: &&journal::PartRecord| {
        let size = part.size - start;
        start = part.size;
        let stored = stored.get(&part.parts);
        stored.is_some_and(|stored| stored.size == size && stored.crc64nvme == part.part_crc64nvme())
    };
    journaled.parts().take_while(has).count()
}

/// The object of a sealed upload that is no more: completed, or dropped by somebody else.
async fn found<S: MultipartStore>(
    store: &S,
    key: &str,
    sealed: &Sealed,
    journaled: &Journaled,
    options: &UploadOptions,
) -> Result<Beginning, Error> {
    let lost = |what: &str| Error::NotResumable { key: key.to_owned(), what: what.to_owned() };
    let looking =
        retried(options.retry, &options.progress, format!("look at {key}"), || store.head(key, None));
    let looked = options.cancel.run_until_cancelled(looking).await.ok_or(Error::Cancelled)?;
    let info = looked.map_err(|source| Error::Head { key: key.to_owned(), source })?;
    let info = info.ok_or_else(|| lost("the store has neither it nor the object"))?;
    let entries = journaled.identity.entries.len();
    let all = journaled.parts().count();
    let (crc64nvme, (resume, _)) = Crc64::parse(&sealed.crc64nvme)
        .zip(journaled.resume_behind(all, entries))
        .ok_or_else(|| lost("its journal is damaged"))?;
    let whole = Whole { size: sealed.size, crc64nvme, checked_by_store: info.crc64nvme.is_some() };
    if let Some(what) = difference(&info, whole, &options.metadata) {
        return Err(Error::KeyTaken { key: key.to_owned(), what });
    }
    let mut sha256 = [0; 32];
    hex::decode_to_slice(&sealed.sha256, &mut sha256).map_err(|_malformed| lost("its journal is damaged"))?;
    tracing::info!(key, "an interrupted upload had been completed");
    let object =
        Assembled { size: sealed.size, sha256, crc64nvme, index: FrameIndex { frames: resume.frames } };
    Ok(Beginning::Object(Box::new(Found {
        info,
        object,
        digests: resume.digests,
        parts: resume.checkpoint.parts,
        spent: Duration::from_millis(sealed.elapsed_ms),
    })))
}

impl Begun {
    fn anew(upload: UploadRef, entries: usize, journal: Option<Journal>) -> Beginning {
        Beginning::Upload(Box::new(Self {
            upload,
            resume: Resume::from_start(entries),
            stored: BTreeMap::new(),
            journal,
            spent: Duration::ZERO,
            asked: false,
        }))
    }
}

/// Starts the upload. Whatever comes of it, no other upload of the key is left, also where the store's answer was lost.
async fn start<S: MultipartStore>(
    store: &S,
    key: &str,
    journal: Option<&Journal>,
    options: &UploadOptions,
) -> Result<UploadRef, Error> {
    let mut attempts = Attempts::new(options.retry, &options.progress, format!("start the upload of {key}"));
    let creating = async {
        loop {
            match store.create(key, &options.metadata).await {
                Ok(upload) => return Ok(upload),
                Err(error) if attempts.again(&error).await => {}
                Err(source) => return Err(source),
            }
        }
    };
    let created = options.cancel.run_until_cancelled(creating).await;
    let (upload, unanswered) = match created {
        Some(Ok(upload)) => (Ok(upload), attempts.failed() > 0),
        Some(Err(source)) => {
            let unanswered = attempts.failed() > 1 || source.kind.is_transient();
            (Err(Error::Create { key: key.to_owned(), source }), unanswered)
        }
        // Whoever goes on with the journal will find it by its key.
        None => (Err(Error::Cancelled), journal.is_none()),
    };
    if unanswered {
        abort_strays(store, key, upload.as_ref().ok(), options).await;
    }
    upload
}
