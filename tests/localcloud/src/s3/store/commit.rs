//! Giving a version its place among the others, and taking it away: the only code that changes the index of objects.

use std::io;

use fs_err as fs;
use s3s::{S3Error, S3Result};
use tempfile::TempPath;

use super::layout::{remove_if_there, write_json};
use super::record::{History, NULL_VERSION};
use super::{Bucket, Condition, Content, Store, Version, Versioning, fresh_id, precondition_failed};
use crate::s3::notice::{ObjectCreated, Reason};

/// What a `DeleteObject` did.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Deleted {
    /// Whether a delete marker was made, or removed.
    pub(crate) marker: bool,
    /// The marker made or the version removed, where the bucket tells versions.
    pub(crate) version: Option<String>,
}

impl Store {
    /// Makes the bytes at `path` a version of the key, if the condition holds now. `sequence` is the place among the
    /// writes when that is not now, `reason` what listeners are told. Answers the version's id if the bucket tells version ids.
    #[expect(clippy::too_many_arguments, reason = "they are what the two calls that write know of an object")]
    pub(crate) fn commit(
        &self,
        bucket: &str,
        key: &str,
        content: Content,
        path: TempPath,
        sequence: Option<u64>,
        condition: &Condition,
        reason: Reason,
    ) -> S3Result<Option<String>> {
        let mut state = self.state();
        condition.check(state.bucket(bucket)?.current(key))?;
        let next = state.next_sequence();
        let held = state.bucket_mut(bucket)?;
        let id = match held.record.versioning {
            Versioning::Enabled => fresh_id("version", next, self.now()),
            Versioning::Off | Versioning::Suspended => NULL_VERSION.to_owned(),
        };
        let (size, etag) = (content.size, content.etag.clone());
        let version = Version {
            id: id.clone(),
            sequence: sequence.unwrap_or(next),
            modified: self.now(),
            in_place: false,
            content: Some(content),
        };
        self.insert(bucket, held, key, version, Some(path)).map_err(S3Error::internal_error)?;
        let version = (held.record.versioning != Versioning::Off).then_some(id);
        // Under the lock, so that they are told in the order in which they happened.
        self.notices().tell(ObjectCreated {
            bucket: bucket.to_owned(),
            key: key.to_owned(),
            size,
            etag,
            version: version.clone(),
            reason,
        });
        Ok(version)
    }

    /// Carries out `DeleteObject`.
    pub(crate) fn delete(
        &self,
        bucket: &str,
        key: &str,
        version: Option<&str>,
        condition: &Condition,
    ) -> S3Result<Deleted> {
        let mut state = self.state();
        let next = state.next_sequence();
        let held = state.bucket_mut(bucket)?;
        if condition.if_match.is_some() {
            condition.check(held.current(key)).map_err(|_absent| precondition_failed())?;
        }
        if let Some(id) = version {
            let marker = held.version(key, Some(id)).is_ok_and(|version| version.content.is_none());
            self.remove_version(bucket, held, key, id).map_err(S3Error::internal_error)?;
            return Ok(Deleted { marker, version: Some(id.to_owned()) });
        }
        let id = match held.record.versioning {
            Versioning::Off => {
                self.remove_version(bucket, held, key, NULL_VERSION).map_err(S3Error::internal_error)?;
                return Ok(Deleted { marker: false, version: None });
            }
            Versioning::Enabled => fresh_id("marker", next, self.now()),
            Versioning::Suspended => NULL_VERSION.to_owned(),
        };
        let marker =
            Version { id: id.clone(), sequence: next, modified: self.now(), in_place: false, content: None };
        self.insert(bucket, held, key, marker, None).map_err(S3Error::internal_error)?;
        Ok(Deleted { marker: true, version: Some(id) })
    }

    /// Makes a key as if it had never been, all versions of it, behind S3's back.
    pub(crate) fn forget(&self, bucket: &str, key: &str) -> S3Result<()> {
        let mut state = self.state();
        let held = state.bucket_mut(bucket)?;
        held.version(key, None)?;
        for version in held.objects.remove(key).unwrap_or_default() {
            remove_if_there(&self.path_of(bucket, key, &version)).map_err(S3Error::internal_error)?;
        }
        fs::remove_dir_all(self.layout.object_records(bucket, key)).map_err(S3Error::internal_error)?;
        self.layout.tidy(bucket, key);
        Ok(())
    }

    fn insert(
        &self,
        bucket: &str,
        held: &mut Bucket,
        key: &str,
        version: Version,
        path: Option<TempPath>,
    ) -> io::Result<()> {
        fs::create_dir_all(self.layout.object_records(bucket, key))?;
        let mut versions = held.objects.get(key).cloned().unwrap_or_default();
        if version.id == NULL_VERSION
            && let Some(index) = versions.iter().position(|other| other.id == NULL_VERSION)
        {
            let replaced = versions.remove(index);
            remove_if_there(&self.path_of(bucket, key, &replaced))?;
        }
        if let Some(path) = path {
            path.persist(self.layout.aside(bucket, key, &version.id))?;
        }
        let index = versions.partition_point(|other| other.sequence < version.sequence);
        versions.insert(index, version);
        self.settle(bucket, held, key, versions)
    }

    fn remove_version(&self, bucket: &str, held: &mut Bucket, key: &str, id: &str) -> io::Result<()> {
        let mut versions = held.objects.get(key).cloned().unwrap_or_default();
        let Some(index) = versions.iter().position(|version| version.id == id) else {
            return Ok(());
        };
        let removed = versions.remove(index);
        remove_if_there(&self.path_of(bucket, key, &removed))?;
        self.settle(bucket, held, key, versions)
    }

    /// Brings the current version into its place and the others out of it, and writes down how things are now.
    fn settle(
        &self,
        bucket: &str,
        held: &mut Bucket,
        key: &str,
        mut versions: Vec<Version>,
    ) -> io::Result<()> {
        let last = versions.len().saturating_sub(1);
        for (index, version) in versions.iter_mut().enumerate() {
            if version.in_place && index != last {
                let aside = self.layout.aside(bucket, key, &version.id);
                match fs::rename(self.layout.plain(bucket, key), aside) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    Ok(()) | Err(_) => version.in_place = false,
                }
            }
        }
        if let Some(current) = versions.last_mut()
            && current.content.is_some()
            && !current.in_place
        {
            let aside = self.layout.aside(bucket, key, &current.id);
            current.in_place = self.layout.put_in_place(bucket, key, &aside)?;
        }
        if versions.is_empty() {
            held.objects.remove(key);
            fs::remove_dir_all(self.layout.object_records(bucket, key))?;
        } else {
            let history = History { key: key.to_owned(), versions: versions.clone() };
            write_json(&self.layout.history(bucket, key), &history)?;
            held.objects.insert(key.to_owned(), versions);
        }
        self.layout.tidy(bucket, key);
        Ok(())
    }
}
