//! A store in memory with scripted faults and a record of the calls made to it.

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use tokio::sync::Notify;

use crate::store::{
    Crc64, MultipartStore, ObjectInfo, PendingUpload, StoreError, StoreErrorKind, StoredPart, UploadRef,
    Whole,
};

/// A store in memory. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    state: Arc<Mutex<State>>,
}

/// A call that was made.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Call {
    /// An upload was started.
    Create,
    /// A part was sent.
    UploadPart(u32),
    /// The parts were listed.
    ListParts,
    /// The upload was completed.
    Complete,
    /// The upload was aborted.
    Abort,
    /// The uploads were listed.
    ListUploads,
    /// An object was asked about.
    Head,
    /// A range was read.
    GetRange(Range<u64>),
}

impl Call {
    /// Whether a fault scripted for `self` hits `made`: the same call; any range for an empty one.
    fn hits(&self, made: &Self) -> bool {
        match (self, made) {
            (Self::GetRange(range), Self::GetRange(_)) if range.is_empty() => true,
            (scripted, made) => scripted == made,
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Create => "CreateMultipartUpload",
            Self::UploadPart(_) => "UploadPart",
            Self::ListParts => "ListParts",
            Self::Complete => "CompleteMultipartUpload",
            Self::Abort => "AbortMultipartUpload",
            Self::ListUploads => "ListMultipartUploads",
            Self::Head => "HeadObject",
            Self::GetRange(_) => "GetObject",
        }
    }
}

/// What a scripted fault does to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The call fails and nothing happens in the store.
    Fail(StoreErrorKind),
    /// The call does its work, but its answer is lost.
    LoseReply,
    /// One byte is stored, or read, flipped; checksums are those of the flipped bytes. The list of parts shows another
    /// checksum for the second one.
    FlipByte,
    /// The call never answers.
    Hang,
    /// The call does its work, but never answers.
    HangAfter,
    /// The list of parts lacks the second one.
    DropPart,
    /// The list of parts shows the second one a byte shorter.
    ShortenPart,
    /// The list of parts has a part that was never sent.
    AddPart,
}

/// A scripted fault: the next `times` calls that `call` names suffer `effect`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Which call. A [`Call::GetRange`] of an empty range stands for every range.
    pub call: Call,
    /// How many calls pass unharmed before.
    pub after: u32,
    /// How many calls are hit.
    pub times: u32,
    /// What happens to them.
    pub effect: Effect,
}

#[derive(Debug, Default)]
struct State {
    objects: BTreeMap<String, Object>,
    uploads: BTreeMap<String, Upload>,
    next_upload: u64,
    calls: Vec<Call>,
    faults: Vec<Fault>,
    without_checksums: bool,
    stop: Option<Stop>,
    /// How long a part or a range takes.
    pace: Option<Duration>,
    underway: usize,
    widths: Vec<usize>,
}

/// Where a process is stopped, as far as the store sees it.
#[derive(Debug)]
struct Stop {
    /// How many calls are answered before.
    left: usize,
    /// Whether the call that is not answered does its work.
    done: bool,
    told: Arc<Notify>,
}

#[derive(Debug)]
struct Object {
    bytes: Vec<u8>,
    metadata: Vec<(String, String)>,
    version: u64,
}

#[derive(Debug)]
struct Upload {
    key: String,
    metadata: Vec<(String, String)>,
    parts: BTreeMap<u32, Bytes>,
}

impl Memory {
    /// A store that, like older S3-compatible ones, knows no CRC-64/NVME.
    pub fn without_checksums() -> Self {
        let store = Self::default();
        store.lock().without_checksums = true;
        store
    }

    /// Makes every part and every range take this long, refused ones included, so that others are underway meanwhile.
    pub fn pace(&self, pace: Duration) {
        self.lock().pace = Some(pace);
    }

    /// How many parts and ranges were underway when each began, itself included, in the order of [`Memory::take_calls`]; and forgets them.
    pub fn take_widths(&self) -> Vec<usize> {
        std::mem::take(&mut self.lock().widths)
    }

    /// Adds a scripted fault.
    pub fn fault(&self, fault: Fault) {
        self.lock().faults.push(fault);
    }

    /// Forgets the script.
    pub fn clear_faults(&self) {
        self.lock().faults.clear();
    }

    /// The calls made so far, in the order of their arrival, and forgets them.
    pub fn take_calls(&self) -> Vec<Call> {
        std::mem::take(&mut self.lock().calls)
    }

    /// The bytes of an object.
    pub fn object(&self, key: &str) -> Option<Vec<u8>> {
        self.lock().objects.get(key).map(|object| object.bytes.clone())
    }

    /// Puts an object in place, whatever was there.
    pub fn put(&self, key: &str, bytes: Vec<u8>) {
        let mut state = self.lock();
        let version = state.objects.get(key).map_or(1, |object| object.version + 1);
        state.objects.insert(key.to_owned(), Object { bytes, metadata: Vec::new(), version });
    }

    /// Answers the next `calls` calls and no more, as if the process that makes them were killed then; the first call that gets no answer
    /// does its work if `done`, those after it do not. Comes back when it is made.
    pub fn stop_after(&self, calls: usize, done: bool) -> impl Future<Output = ()> + use<> {
        let told = Arc::new(Notify::new());
        self.lock().stop = Some(Stop { left: calls, done, told: Arc::clone(&told) });
        async move { told.notified().await }
    }

    /// Answers again.
    pub fn go_on(&self) {
        self.lock().stop = None;
    }

    /// The numbers of the parts of all unfinished uploads.
    pub fn parts(&self) -> Vec<u32> {
        self.lock().uploads.values().flat_map(|upload| upload.parts.keys().copied()).collect()
    }

    /// Flips a byte of a part of an unfinished upload, whose checksum is that of the flipped bytes from then on.
    pub fn damage_part(&self, number: u32) {
        for upload in self.lock().uploads.values_mut() {
            if let Some(part) = upload.parts.get_mut(&number) {
                *part = flipped(part);
            }
        }
    }

    /// Drops all unfinished uploads, as a bucket's lifecycle does.
    pub fn expire_uploads(&self) {
        self.lock().uploads.clear();
    }

    /// How many uploads are unfinished.
    pub fn pending(&self) -> usize {
        self.lock().uploads.len()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records a call that moves bytes, takes its time over it, and says what its script has for it.
    async fn move_bytes(&self, call: Call) -> Result<(Option<Effect>, Underway<'_>), StoreError> {
        let (underway, pace) = {
            let mut state = self.lock();
            state.underway += 1;
            let width = state.underway;
            state.widths.push(width);
            (Underway { store: self }, state.pace)
        };
        let effect = self.arrive(call).await;
        match pace {
            Some(pace) => tokio::time::sleep(pace).await,
            // Another task may run between the call's arrival and its work, as with a real store.
            None => tokio::task::yield_now().await,
        }
        Ok((effect?, underway))
    }

    /// Records a call and says what its script has for it.
    async fn arrive(&self, call: Call) -> Result<Option<Effect>, StoreError> {
        let effect = {
            let mut state = self.lock();
            let effect = state.stopped().or_else(|| state.effect_on(&call));
            state.calls.push(call.clone());
            effect
        };
        match effect {
            Some(Effect::Fail(kind)) => Err(StoreError::new(kind, call.name(), "scripted failure")),
            Some(Effect::Hang) => std::future::pending().await,
            Some(
                Effect::LoseReply
                | Effect::HangAfter
                | Effect::FlipByte
                | Effect::DropPart
                | Effect::ShortenPart
                | Effect::AddPart,
            )
            | None => Ok(effect),
        }
    }
}

/// A call that moves bytes, until it ends or is dropped.
struct Underway<'a> {
    store: &'a Memory,
}

impl Drop for Underway<'_> {
    fn drop(&mut self) {
        self.store.lock().underway -= 1;
    }
}

impl State {
    /// What becomes of the call that is made, if the process that makes it is to be stopped.
    fn stopped(&mut self) -> Option<Effect> {
        let stop = self.stop.as_mut()?;
        let Some(left) = stop.left.checked_sub(1) else {
            stop.told.notify_one();
            let effect = if stop.done { Effect::HangAfter } else { Effect::Hang };
            stop.done = false;
            return Some(effect);
        };
        stop.left = left;
        None
    }

    fn effect_on(&mut self, call: &Call) -> Option<Effect> {
        for fault in self.faults.iter_mut().filter(|fault| fault.call.hits(call) && fault.times > 0) {
            if fault.after > 0 {
                fault.after -= 1;
                continue;
            }
            fault.times -= 1;
            return Some(fault.effect);
        }
        None
    }

    fn complete(&mut self, upload: &UploadRef, parts: &[StoredPart], whole: Whole) -> Result<(), StoreError> {
        let name = Call::Complete.name();
        let checked = !self.without_checksums;
        let has_key = self.objects.contains_key(&upload.key);
        let found = self.upload(upload, name)?;
        if has_key {
            return Err(StoreError::new(StoreErrorKind::PreconditionFailed, name, "the key exists"));
        }
        let mut bytes = Vec::new();
        for part in parts {
            let body =
                found.parts.get(&part.number).filter(|body| etag(body) == part.etag).ok_or_else(|| {
                    StoreError::new(StoreErrorKind::Refused, name, format!("InvalidPart: {}", part.number))
                })?;
            bytes.extend_from_slice(body);
        }
        if checked && (bytes.len() as u64 != whole.size || Crc64::of(&bytes) != whole.crc64nvme) {
            return Err(StoreError::new(
                StoreErrorKind::BadDigest,
                name,
                "the whole is not what its checksum says",
            ));
        }
        let metadata = std::mem::take(&mut found.metadata);
        self.uploads.remove(&upload.upload_id);
        self.objects.insert(upload.key.clone(), Object { bytes, metadata, version: 1 });
        Ok(())
    }

    fn upload(&mut self, upload: &UploadRef, call: &'static str) -> Result<&mut Upload, StoreError> {
        let missing = || StoreError::new(StoreErrorKind::NoSuchUpload, call, "no such upload");
        self.uploads.get_mut(&upload.upload_id).filter(|found| found.key == upload.key).ok_or_else(missing)
    }
}

/// The answer, unless the script loses it.
async fn answer<T>(effect: Option<Effect>, call: &'static str, value: T) -> Result<T, StoreError> {
    match effect {
        Some(Effect::HangAfter) => std::future::pending().await,
        Some(Effect::LoseReply) => Err(StoreError::new(StoreErrorKind::Transient, call, "connection reset")),
        Some(
            Effect::Fail(_)
            | Effect::FlipByte
            | Effect::Hang
            | Effect::DropPart
            | Effect::ShortenPart
            | Effect::AddPart,
        )
        | None => Ok(value),
    }
}

fn etag(bytes: &[u8]) -> String {
    format!("\"{}\"", &blake3::hash(bytes).to_hex()[..32])
}

impl MultipartStore for Memory {
    async fn create(&self, key: &str, metadata: &[(String, String)]) -> Result<UploadRef, StoreError> {
        let effect = self.arrive(Call::Create).await?;
        let upload = {
            let mut state = self.lock();
            state.next_upload += 1;
            let upload =
                UploadRef { key: key.to_owned(), upload_id: format!("upload-{}", state.next_upload) };
            let started = Upload { key: key.to_owned(), metadata: metadata.to_vec(), parts: BTreeMap::new() };
            state.uploads.insert(upload.upload_id.clone(), started);
            upload
        };
        answer(effect, Call::Create.name(), upload).await
    }

    async fn upload_part(
        &self,
        upload: &UploadRef,
        number: u32,
        body: Bytes,
        crc64nvme: Crc64,
    ) -> Result<StoredPart, StoreError> {
        let call = Call::UploadPart(number);
        let name = call.name();
        let (effect, _underway) = self.move_bytes(call).await?;
        let part = {
            let mut state = self.lock();
            let with_checksums = !state.without_checksums;
            if with_checksums && Crc64::of(&body) != crc64nvme {
                return Err(StoreError::new(
                    StoreErrorKind::BadDigest,
                    name,
                    "the body is not what its checksum says",
                ));
            }
            let flip = effect == Some(Effect::FlipByte);
            let body = if flip { flipped(&body) } else { Bytes::copy_from_slice(&body) };
            let part = stored(number, &body, with_checksums);
            state.upload(upload, name)?.parts.insert(number, body);
            part
        };
        answer(effect, name, part).await
    }

    async fn list_parts(&self, upload: &UploadRef) -> Result<Vec<StoredPart>, StoreError> {
        let effect = self.arrive(Call::ListParts).await?;
        let mut parts: Vec<StoredPart> = {
            let mut state = self.lock();
            let with_checksums = !state.without_checksums;
            let upload = state.upload(upload, Call::ListParts.name())?;
            upload.parts.iter().map(|(number, body)| stored(*number, body, with_checksums)).collect()
        };
        distort(&mut parts, effect);
        answer(effect, Call::ListParts.name(), parts).await
    }

    async fn complete(
        &self,
        upload: &UploadRef,
        parts: &[StoredPart],
        whole: Whole,
    ) -> Result<(), StoreError> {
        let effect = self.arrive(Call::Complete).await?;
        self.lock().complete(upload, parts, whole)?;
        answer(effect, Call::Complete.name(), ()).await
    }

    async fn abort(&self, upload: &UploadRef) -> Result<(), StoreError> {
        let effect = self.arrive(Call::Abort).await?;
        {
            let mut state = self.lock();
            state.upload(upload, Call::Abort.name())?;
            state.uploads.remove(&upload.upload_id);
        }
        answer(effect, Call::Abort.name(), ()).await
    }

    async fn list_uploads(&self, prefix: &str) -> Result<Vec<PendingUpload>, StoreError> {
        let effect = self.arrive(Call::ListUploads).await?;
        let pending: Vec<PendingUpload> = {
            let state = self.lock();
            let pending = state.uploads.iter().filter(|(_, upload)| upload.key.starts_with(prefix));
            let pending = pending.map(|(id, upload)| PendingUpload {
                upload: UploadRef { key: upload.key.clone(), upload_id: id.clone() },
                initiated: None,
            });
            pending.collect()
        };
        answer(effect, Call::ListUploads.name(), pending).await
    }

    async fn head(&self, key: &str, version_id: Option<&str>) -> Result<Option<ObjectInfo>, StoreError> {
        let effect = self.arrive(Call::Head).await?;
        let info = {
            let state = self.lock();
            let object = state.objects.get(key).filter(|object| object.has_version(version_id));
            object.map(|object| ObjectInfo {
                size: object.bytes.len() as u64,
                etag: Some(etag(&object.bytes)),
                version_id: Some(object.version_id()),
                crc64nvme: (!state.without_checksums).then(|| Crc64::of(&object.bytes)),
                metadata: object.metadata.clone(),
            })
        };
        answer(effect, Call::Head.name(), info).await
    }

    async fn get_range(
        &self,
        key: &str,
        version_id: Option<&str>,
        pinned: Option<&str>,
        range: Range<u64>,
        into: &mut Vec<u8>,
    ) -> Result<(), StoreError> {
        let call = Call::GetRange(range.clone());
        let name = call.name();
        let (effect, _underway) = self.move_bytes(call).await?;
        into.clear();
        {
            let state = self.lock();
            let object = state.objects.get(key).filter(|object| object.has_version(version_id));
            let object =
                object.ok_or_else(|| StoreError::new(StoreErrorKind::NoSuchKey, name, "no such key"))?;
            if pinned.is_some_and(|tag| tag != etag(&object.bytes)) {
                return Err(StoreError::new(
                    StoreErrorKind::PreconditionFailed,
                    name,
                    "the object is another one",
                ));
            }
            let (start, end) = (usize::try_from(range.start), usize::try_from(range.end));
            let bytes = start.ok().zip(end.ok()).and_then(|(start, end)| object.bytes.get(start..end));
            let out_of_range = || StoreError::new(StoreErrorKind::OutOfRange, name, "the object is shorter");
            into.extend_from_slice(bytes.ok_or_else(out_of_range)?);
        }
        if effect == Some(Effect::FlipByte) {
            let flipped = flipped(into);
            into.copy_from_slice(&flipped);
        }
        answer(effect, name, ()).await
    }
}

impl Object {
    fn version_id(&self) -> String {
        format!("v{}", self.version)
    }

    fn has_version(&self, version_id: Option<&str>) -> bool {
        version_id.is_none_or(|wanted| wanted == self.version_id())
    }
}

fn stored(number: u32, body: &Bytes, with_checksum: bool) -> StoredPart {
    let crc64nvme = with_checksum.then(|| Crc64::of(body));
    StoredPart { number, size: body.len() as u64, etag: etag(body), crc64nvme }
}

/// Makes the list of parts wrong, as the script wants it.
fn distort(parts: &mut Vec<StoredPart>, effect: Option<Effect>) {
    match effect {
        Some(Effect::DropPart) if parts.len() > 1 => drop(parts.remove(1)),
        Some(Effect::AddPart) => {
            let extra = parts.last().map(|last| StoredPart { number: last.number + 1, ..last.clone() });
            parts.extend(extra);
        }
        Some(Effect::ShortenPart | Effect::FlipByte) => {
            if let Some(part) = parts.get_mut(1) {
                part.size -= u64::from(effect == Some(Effect::ShortenPart));
                part.crc64nvme =
                    part.crc64nvme.filter(|_| effect != Some(Effect::FlipByte)).or(Some(Crc64(1)));
            }
        }
        Some(Effect::DropPart | Effect::Fail(_) | Effect::LoseReply | Effect::Hang | Effect::HangAfter)
        | None => {}
    }
}

/// The bytes with the middle one flipped.
fn flipped(bytes: &[u8]) -> Bytes {
    let mut bytes = bytes.to_vec();
    let middle = bytes.len() / 2;
    if let Some(byte) = bytes.get_mut(middle) {
        *byte ^= 0x10;
    }
    bytes.into()
}
