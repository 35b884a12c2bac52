//! Whether the archive that a manifest names is there and is the one described, and what belongs to it is there.

use protocol::Manifest;

use crate::{Catalog, Error, store::ObjectStore};

/// An archive that is there and is the one described, as far as the store can tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckedObject {
    /// The version that was looked at, where the bucket has versions.
    pub version_id: Option<String>,
    /// What the store's checksum says.
    pub checksum: Checksum,
    /// The ARN of the KMS key that it is encrypted with.
    pub kms_key: Option<String>,
}

/// What a store's own checksum of an object says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// CRC-64/NVME of the whole object is the one stated.
    Equal,
    /// The store keeps none: only the size is known to be right.
    Absent,
}

impl<S: ObjectStore> Catalog<S> {
    /// Looks at the archive in this bucket, at the version that the manifest names: size, CRC-64/NVME and, where one is
    /// configured, the KMS key (its ARN or its id, not an alias). Then whether the frame index and the golden set are there,
    /// without which no restore can be done and proved.
    pub async fn check_object(
        &self,
        manifest: &Manifest,
        expected_kms_key: Option<&str>,
    ) -> Result<CheckedObject, Error> {
        let key = manifest.key.to_string();
        let Some(head) = self.store.head(&key, manifest.version_id.as_deref()).await? else {
            return Err(Error::ObjectMissing {
                backup: manifest.backup_id,
                bucket: self.bucket.clone(),
                key,
                version_id: manifest.version_id.clone(),
            });
        };
        let differs = |what, expected: String, found: String| {
            Err(Error::ObjectDiffers { key: key.clone(), what, expected, found })
        };
        if head.size != manifest.size_bytes {
            return differs("size in bytes", manifest.size_bytes.to_string(), head.size.to_string());
        }
        let checksum = match head.crc64nvme {
            Some(found) if found != manifest.crc64nvme => {
                return differs("CRC-64/NVME", manifest.crc64nvme.clone(), found);
            }
            Some(_) => Checksum::Equal,
            None => Checksum::Absent,
        };
        if let Some(expected) = expected_kms_key {
            let found = head.sse_kms_key_id.as_deref();
            let id = found.and_then(|arn| arn.rsplit('/').next());
            if found != Some(expected) && id != Some(expected) {
                return Err(Error::WrongKmsKey {
                    key,
                    expected: expected.to_owned(),
                    found: head.sse_kms_key_id,
                });
            }
        }
        for key in [manifest.key.frames(), manifest.key.golden()] {
            if self.store.head(&key, None).await?.is_none() {
                let (backup, bucket) = (manifest.backup_id, self.bucket.clone());
                return Err(Error::SideFileMissing { backup, bucket, key });
            }
        }
        Ok(CheckedObject { version_id: head.version_id, checksum, kms_key: head.sse_kms_key_id })
    }
}
