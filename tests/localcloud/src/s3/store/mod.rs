//! The storage under the embedded S3: plain files, JSON side files, and an index of them in memory.
//!
//! Every change is made under one lock, so a write and the condition it depends on are one step: of two conditional
//! writes that race, one wins. Bytes come and go outside that lock, and are never held in memory.

mod commit;
mod damage;
mod layout;
mod multipart;
mod receive;
mod record;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fs_err as fs;
use s3s::crypto::{Checksum as _, Sha256};
use s3s::dto::{ETag, ETagCondition};
use s3s::{S3Error, S3Result, s3_error};

pub(crate) use self::multipart::{NamedPart, part_etag};
pub(crate) use self::receive::{Expected, Received, WrongByte};
pub(crate) use self::record::{
    Attributes, BucketRecord, Content, Encryption, ObjectPart, Part, Upload, Version, Versioning,
};

use self::layout::{Layout, read_json, write_json};
use self::record::History;
use super::clock::Clock;
use super::notice::Notices;

/// The objects, versions and uploads of one server.
#[derive(Debug)]
pub(crate) struct Store {
    layout: Layout,
    clock: Arc<Clock>,
    minimum_part_size: u64,
    state: Mutex<State>,
    notices: Notices,
}

/// The index of what is on the disk.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) buckets: BTreeMap<String, Bucket>,
    sequence: u64,
}

#[derive(Debug)]
pub(crate) struct Bucket {
    pub(crate) record: BucketRecord,
    /// Versions per key, oldest first, never empty.
    pub(crate) objects: BTreeMap<String, Vec<Version>>,
    /// Uploads under way, by id.
    pub(crate) uploads: BTreeMap<String, Upload>,
}

/// An object's bytes, open for reading, and what is known of them.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) version: Version,
    pub(crate) content: Content,
    /// What lies on the disk, which damage may have made different from `content.size`.
    pub(crate) size: u64,
    pub(crate) file: fs::File,
    /// Whether the bucket tells version ids.
    pub(crate) versioned: bool,
}

/// What the current version must be for a write to be carried out.
#[derive(Debug, Default, Clone)]
pub(crate) struct Condition {
    pub(crate) if_match: Option<ETagCondition>,
    pub(crate) if_none_match: Option<ETagCondition>,
}

impl Condition {
    /// Judges the condition for the object as it is now; `None` is an absent one.
    fn check(&self, current: Option<&Content>) -> S3Result<()> {
        match &self.if_none_match {
            Some(ETagCondition::Any) if current.is_some() => return Err(precondition_failed()),
            Some(ETagCondition::ETag(_)) => {
                return Err(s3_error!(
                    NotImplemented,
                    "A header you provided implies functionality that is not implemented"
                ));
            }
            Some(ETagCondition::Any) | None => {}
        }
        match (&self.if_match, current) {
            (None, _) | (Some(ETagCondition::Any), Some(_)) => Ok(()),
            (Some(_), None) => Err(s3_error!(NoSuchKey, "The specified key does not exist.")),
            (Some(ETagCondition::ETag(etag)), Some(content)) if etag.value() == content.etag => Ok(()),
            (Some(ETagCondition::ETag(_)), Some(_)) => Err(precondition_failed()),
        }
    }
}

/// The refusal of a call whose condition does not hold.
pub(crate) fn precondition_failed() -> S3Error {
    s3_error!(PreconditionFailed, "At least one of the pre-conditions you specified did not hold")
}

impl Store {
    /// Opens the folder and reads what an earlier server left there.
    pub(crate) fn open(root: PathBuf, minimum_part_size: u64, clock: Arc<Clock>) -> io::Result<Self> {
        let layout = Layout::open(root)?;
        let mut state = State::default();
        for entry in fs::read_dir(layout.records())? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if fs::exists(layout.bucket_record(&name))? {
                let bucket = load_bucket(&layout, &name)?;
                let versions = bucket.objects.values().flatten().map(|version| version.sequence);
                let uploads = bucket.uploads.values().map(|upload| upload.sequence);
                state.sequence = versions.chain(uploads).fold(state.sequence, u64::max);
                state.buckets.insert(name, bucket);
            }
        }
        Ok(Self { layout, clock, minimum_part_size, state: Mutex::new(state), notices: Notices::default() })
    }

    pub(crate) fn layout_root(&self) -> &std::path::Path {
        self.layout.root()
    }

    pub(crate) fn notices(&self) -> &Notices {
        &self.notices
    }

    /// The index, for as long as the guard lives. Nothing awaits while holding it.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The time S3 believes it is, in whole seconds as S3 reports it.
    pub(crate) fn now(&self) -> jiff::Timestamp {
        let now = self.clock.now();
        jiff::Timestamp::from_second(now.as_second()).unwrap_or(now)
    }

    /// Makes a bucket, or leaves it as it is when it is there.
    pub(crate) fn create_bucket(&self, name: &str, versioning: Versioning) -> S3Result<()> {
        let mut state = self.state();
        if state.buckets.contains_key(name) {
            return Ok(());
        }
        let record = BucketRecord { created: self.now(), versioning };
        let made = fs::create_dir_all(self.layout.bucket(name))
            .and_then(|()| fs::create_dir_all(self.layout.objects(name)))
            .and_then(|()| fs::create_dir_all(self.layout.uploads(name)))
            .and_then(|()| write_json(&self.layout.bucket_record(name), &record));
        made.map_err(S3Error::internal_error)?;
        let bucket = Bucket { record, objects: BTreeMap::new(), uploads: BTreeMap::new() };
        state.buckets.insert(name.to_owned(), bucket);
        Ok(())
    }

    /// Removes an empty bucket.
    pub(crate) fn delete_bucket(&self, name: &str) -> S3Result<()> {
        let mut state = self.state();
        let bucket = state.bucket(name)?;
        if !bucket.objects.is_empty() || !bucket.uploads.is_empty() {
            return Err(s3_error!(BucketNotEmpty, "The bucket you tried to delete is not empty"));
        }
        fs::remove_dir_all(self.layout.bucket_records(name)).map_err(S3Error::internal_error)?;
        fs::remove_dir_all(self.layout.bucket(name)).map_err(S3Error::internal_error)?;
        state.buckets.remove(name);
        Ok(())
    }

    pub(crate) fn set_versioning(&self, name: &str, versioning: Versioning) -> S3Result<()> {
        let mut state = self.state();
        let bucket = state.bucket_mut(name)?;
        let record = BucketRecord { versioning, ..bucket.record.clone() };
        write_json(&self.layout.bucket_record(name), &record).map_err(S3Error::internal_error)?;
        bucket.record = record;
        Ok(())
    }

    /// Opens a version for reading, the current one unless `version` names another.
    pub(crate) fn open_object(&self, bucket: &str, key: &str, version: Option<&str>) -> S3Result<Opened> {
        let state = self.state();
        let held = state.bucket(bucket)?;
        let versioned = held.record.versioning != Versioning::Off;
        let version = held.version(key, version)?.clone();
        let Some(content) = version.content.clone() else {
            return Err(s3_error!(
                MethodNotAllowed,
                "The specified method is not allowed against this resource."
            ));
        };
        let path = self.path_of(bucket, key, &version);
        match fs::File::open(path) {
            Ok(file) => {
                let size = file.metadata().map_err(S3Error::internal_error)?.len();
                Ok(Opened { version, content, size, file, versioned })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(no_such_key(None)),
            Err(error) => Err(S3Error::internal_error(error)),
        }
    }

    pub(crate) fn path_of(&self, bucket: &str, key: &str, version: &Version) -> PathBuf {
        match version.in_place {
            true => self.layout.plain(bucket, key),
            false => self.layout.aside(bucket, key, &version.id),
        }
    }
}

impl State {
    pub(crate) fn bucket(&self, name: &str) -> S3Result<&Bucket> {
        self.buckets.get(name).ok_or_else(no_such_bucket)
    }

    fn bucket_mut(&mut self, name: &str) -> S3Result<&mut Bucket> {
        self.buckets.get_mut(name).ok_or_else(no_such_bucket)
    }

    fn next_sequence(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }
}

impl Bucket {
    /// The named version, or the current one. A delete marker is found only by its id.
    fn version(&self, key: &str, id: Option<&str>) -> S3Result<&Version> {
        let versions = self.objects.get(key).map(Vec::as_slice).unwrap_or_default();
        match id {
            Some(id) => versions
                .iter()
                .find(|version| version.id == id)
                .ok_or_else(|| s3_error!(NoSuchVersion, "The specified version does not exist.")),
            None => match versions.last() {
                Some(version) if version.content.is_some() => Ok(version),
                Some(marker) => Err(no_such_key(Some(&marker.id))),
                None => Err(no_such_key(None)),
            },
        }
    }

    fn current(&self, key: &str) -> Option<&Content> {
        self.objects
            .get(key)
            .and_then(|versions| versions.last())
            .and_then(|version| version.content.as_ref())
    }
}

fn no_such_bucket() -> S3Error {
    s3_error!(NoSuchBucket, "The specified bucket does not exist")
}

/// The answer for an absent key; `marker` is the delete marker that makes it absent.
fn no_such_key(marker: Option<&str>) -> S3Error {
    let mut error = s3_error!(NoSuchKey, "The specified key does not exist.");
    if let Some(id) = marker.and_then(|id| id.parse().ok()) {
        let mut headers = hyper::HeaderMap::new();
        headers.insert("x-amz-delete-marker", hyper::header::HeaderValue::from_static("true"));
        headers.insert("x-amz-version-id", id);
        error.set_headers(headers);
    }
    error
}

/// An `ETag` as the API writes it.
pub(crate) fn etag(value: &str) -> ETag {
    ETag::Strong(value.to_owned())
}

/// An id that looks like S3's: 32 characters, never the same twice below one root.
fn fresh_id(kind: &str, sequence: u64, now: jiff::Timestamp) -> String {
    let digest =
        hex::encode(Sha256::checksum(format!("{kind} {sequence} {}", now.as_nanosecond()).as_bytes()));
    digest.get(..32).unwrap_or(&digest).to_owned()
}

fn load_bucket(layout: &Layout, name: &str) -> io::Result<Bucket> {
    let mut bucket = Bucket {
        record: read_json(&layout.bucket_record(name))?,
        objects: BTreeMap::new(),
        uploads: BTreeMap::new(),
    };
    for entry in fs::read_dir(layout.objects(name))? {
        let history: History = read_json(&entry?.path().join("versions.json"))?;
        bucket.objects.insert(history.key, history.versions);
    }
    for entry in fs::read_dir(layout.uploads(name))? {
        let folder = entry?.path();
        let mut upload: Upload = read_json(&folder.join("upload.json"))?;
        for file in fs::read_dir(&folder)? {
            let path = file?.path();
            if path.extension().is_some_and(|extension| extension == "json") && !path.ends_with("upload.json")
            {
                let part: Part = read_json(&path)?;
                upload.parts.insert(part.number, part);
            }
        }
        bucket.uploads.insert(upload.id.clone(), upload);
    }
    Ok(bucket)
}
