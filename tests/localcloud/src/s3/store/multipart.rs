//! Multipart uploads: created, filled part by part in any order, completed or aborted.

use std::io;
use std::path::PathBuf;

use fs_err as fs;
use s3s::crypto::{Checksum as _, Md5};
use s3s::{S3Error, S3Result, s3_error};
use tempfile::TempPath;

use super::layout::{remove_if_there, write_json};
use super::{Attributes, Condition, Content, ObjectPart, Part, Received, Store, Upload, fresh_id};
use crate::s3::checksum::{Algorithm, Checksum, Kind, combine};

/// What `CompleteMultipartUpload` says the object consists of.
#[derive(Debug)]
pub(crate) struct NamedPart {
    pub(crate) number: u32,
    /// Without quotes.
    pub(crate) etag: Option<String>,
    /// Each checksum given for the part, in Base64.
    pub(crate) checksums: Vec<(Algorithm, String)>,
}

impl Store {
    /// Begins an upload.
    pub(crate) fn create_upload(
        &self,
        bucket: &str,
        key: &str,
        checksum: Option<(Algorithm, Kind)>,
        attributes: Attributes,
    ) -> S3Result<Upload> {
        let mut state = self.state();
        state.bucket(bucket)?;
        let sequence = state.next_sequence();
        let upload = Upload {
            id: fresh_id("upload", sequence, self.now()),
            key: key.to_owned(),
            sequence,
            initiated: self.now(),
            checksum,
            attributes,
            parts: std::collections::BTreeMap::new(),
            completion: std::sync::Arc::default(),
        };
        let folder = self.layout.upload(bucket, &upload.id);
        fs::create_dir_all(&folder)
            .and_then(|()| write_json(&folder.join("upload.json"), &upload))
            .map_err(S3Error::internal_error)?;
        state.bucket_mut(bucket)?.uploads.insert(upload.id.clone(), upload.clone());
        Ok(upload)
    }

    /// The upload as it is now.
    pub(crate) fn upload(&self, bucket: &str, key: &str, id: &str) -> S3Result<Upload> {
        let state = self.state();
        let upload = state.bucket(bucket)?.uploads.get(id).filter(|upload| upload.key == key);
        upload.cloned().ok_or_else(no_such_upload)
    }

    /// Keeps a received payload as a part, in place of an earlier one of the same number.
    pub(crate) fn put_part(
        &self,
        bucket: &str,
        key: &str,
        id: &str,
        number: u32,
        received: Received,
    ) -> S3Result<Part> {
        let mut state = self.state();
        let sequence = state.next_sequence();
        let folder = self.layout.upload(bucket, id);
        let held = state.bucket_mut(bucket)?;
        let upload =
            held.uploads.get_mut(id).filter(|upload| upload.key == key).ok_or_else(no_such_upload)?;
        let part = Part {
            number,
            size: received.size,
            modified: self.now(),
            etag: part_etag(&received.md5, &upload.attributes),
            md5: hex::encode(received.md5),
            crc64nvme: received.digest(Algorithm::Crc64Nvme)?,
            digest: upload.checksum.map(|(algorithm, _)| received.digest(algorithm)).transpose()?,
            file: format!("{number:05}-{sequence}.part"),
        };
        received
            .path
            .persist(folder.join(&part.file))
            .map_err(|error| error.error)
            .and_then(|()| write_json(&folder.join(format!("{number:05}.json")), &part))
            .map_err(S3Error::internal_error)?;
        let replaced = upload.parts.insert(number, part.clone());
        // A completion under way still reads the part it was told; the folder goes when it is done.
        if let Some(replaced) = replaced.filter(|_| upload.completion.try_lock().is_ok()) {
            remove_if_there(&folder.join(replaced.file)).map_err(S3Error::internal_error)?;
        }
        Ok(part)
    }

    /// Ends an upload without an object.
    pub(crate) fn abort_upload(&self, bucket: &str, key: &str, id: &str) -> S3Result<()> {
        let mut state = self.state();
        let held = state.bucket_mut(bucket)?;
        held.uploads.get(id).filter(|upload| upload.key == key).ok_or_else(no_such_upload)?;
        held.uploads.remove(id);
        fs::remove_dir_all(self.layout.upload(bucket, id)).map_err(S3Error::internal_error)
    }

    /// The parts that make the object, if they are those that were uploaded and large enough.
    pub(crate) fn choose_parts(&self, upload: &Upload, named: &[NamedPart]) -> S3Result<Vec<Part>> {
        if named.is_empty() {
            return Err(s3_error!(
                MalformedXML,
                "The XML you provided was not well-formed or did not validate against our published schema"
            ));
        }
        if !named.is_sorted_by(|a, b| a.number < b.number) {
            return Err(s3_error!(
                InvalidPartOrder,
                "The list of parts was not in ascending order. Parts must be ordered by part number."
            ));
        }
        let mut parts = Vec::with_capacity(named.len());
        for name in named {
            let part = upload.parts.get(&name.number).ok_or_else(invalid_part)?;
            if name.etag.as_deref() != Some(&part.etag) {
                return Err(invalid_part());
            }
            for (algorithm, given) in &name.checksums {
                let stored = upload.checksum.filter(|(own, _)| own == algorithm).and(part.digest.as_ref());
                if stored != Some(given) {
                    return Err(invalid_part());
                }
            }
            if let Some((algorithm, Kind::Composite)) = upload.checksum
                && name.checksums.is_empty()
            {
                return Err(s3_error!(
                    InvalidRequest,
                    "The upload was created using a {} checksum. The complete request must include the checksum for each part. It was missing for part {} in the request.",
                    algorithm.name().to_lowercase(),
                    name.number
                ));
            }
            parts.push(part.clone());
        }
        let (_last, others) = parts.split_last().ok_or_else(invalid_part)?;
        if let Some(small) = others.iter().find(|part| part.size < self.minimum_part_size) {
            return Err(s3_error!(
                EntityTooSmall,
                "Your proposed upload is smaller than the minimum allowed size: part {} has {} bytes, {} are needed",
                small.number,
                small.size,
                self.minimum_part_size
            ));
        }
        let consecutive = parts.iter().zip(1..).all(|(part, number)| part.number == number);
        if upload.checksum.is_some() && !consecutive {
            return Err(s3_error!(
                InternalError,
                "Part numbers must be consecutive from 1 when a checksum is used."
            ));
        }
        Ok(parts)
    }

    /// What the object will be that these parts make.
    pub(crate) fn content_of(&self, upload: &Upload, parts: &[Part]) -> S3Result<Content> {
        let (algorithm, kind) = upload.checksum.unwrap_or((Algorithm::Crc64Nvme, Kind::FullObject));
        let digests: Vec<(String, u64)> = parts
            .iter()
            .map(|part| (part.digest.clone().unwrap_or_else(|| part.crc64nvme.clone()), part.size))
            .collect();
        let mut md5 = Md5::new();
        for part in parts {
            md5.update(&hex::decode(&part.md5).map_err(S3Error::internal_error)?);
        }
        Ok(Content {
            size: parts.iter().map(|part| part.size).sum(),
            etag: format!("{}-{}", part_etag(&md5.finalize(), &upload.attributes), parts.len()),
            checksum: combine(algorithm, kind, &digests)?,
            parts: parts
                .iter()
                .map(|part| ObjectPart {
                    number: part.number,
                    size: part.size,
                    checksum: part.digest.clone().map(|value| Checksum {
                        algorithm,
                        kind: Kind::FullObject,
                        value,
                    }),
                })
                .collect(),
            attributes: upload.attributes.clone(),
        })
    }

    /// Judges a condition before the work is done. It is judged again when the object takes its place.
    pub(crate) fn check(&self, bucket: &str, key: &str, condition: &Condition) -> S3Result<()> {
        condition.check(self.state().bucket(bucket)?.current(key))
    }

    /// Joins the parts' bytes in a file of their own.
    pub(crate) async fn join(&self, bucket: &str, upload: &Upload, parts: &[Part]) -> S3Result<TempPath> {
        let folder = self.layout.upload(bucket, &upload.id);
        let files: Vec<PathBuf> = parts.iter().map(|part| folder.join(&part.file)).collect();
        let (mut whole, path) = self.incoming()?;
        let joined = tokio::task::spawn_blocking(move || -> io::Result<TempPath> {
            for file in files {
                io::copy(fs::File::open(file)?.file_mut(), whole.file_mut())?;
            }
            Ok(path)
        });
        joined.await.map_err(S3Error::internal_error)?.map_err(S3Error::internal_error)
    }
}

/// The `ETag` of bytes with this MD5: the MD5 itself, unless a KMS key is used, when it is something else, as in AWS.
pub(crate) fn part_etag(md5: &[u8; 16], attributes: &Attributes) -> String {
    if attributes.encryption.algorithm == "AES256" {
        return hex::encode(md5);
    }
    let mut opaque = Md5::new();
    opaque.update(md5);
    opaque.update(attributes.encryption.key_id.as_deref().unwrap_or_default().as_bytes());
    hex::encode(opaque.finalize())
}

fn no_such_upload() -> S3Error {
    s3_error!(
        NoSuchUpload,
        "The specified upload does not exist. The upload ID may be invalid, or the upload may have been aborted or completed."
    )
}

fn invalid_part() -> S3Error {
    s3_error!(
        InvalidPart,
        "One or more of the specified parts could not be found. The part may not have been uploaded, or the specified entity tag may not match the part's entity tag."
    )
}
