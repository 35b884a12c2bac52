//! Writing and deleting objects.

use s3s::dto;
use s3s::{S3Request, S3Result};

use super::{Service, attributes, report_encryption, signed};
use crate::s3::checksum::{Algorithm, Checksum, Claim, Kind, report};
use crate::s3::notice::Reason;
use crate::s3::store::{Condition, Content, Expected, WrongByte, etag, part_etag};

impl Service {
    /// `PutObject`. Without a checksum in the request the object gets a CRC64NVME, as in AWS.
    pub(super) async fn put(
        &self,
        request: S3Request<dto::PutObjectInput>,
    ) -> S3Result<dto::PutObjectOutput> {
        let input = request.input;
        self.store.state().bucket(&input.bucket)?;
        let attributes = attributes!(self, input);
        let claim = Claim::from_headers(&request.headers)?;
        let algorithm = claim.as_ref().map_or(Algorithm::Crc64Nvme, |claim| claim.algorithm);
        let expected = Expected {
            length: input.content_length.and_then(|length| u64::try_from(length).ok()),
            md5: input.content_md5,
            claim,
            trailers: request.trailing_headers,
            wanted: Some(algorithm),
            wrong_byte: request.extensions.get::<WrongByte>().copied(),
        };
        let received = self.store.receive(input.body, expected).await?;
        let content = Content {
            size: received.size,
            etag: part_etag(&received.md5, &attributes),
            checksum: Checksum { algorithm, kind: Kind::FullObject, value: received.digest(algorithm)? },
            parts: Vec::new(),
            attributes,
        };
        let condition = Condition { if_match: input.if_match, if_none_match: input.if_none_match };
        let (bucket, key, reason) = (&input.bucket, &input.key, Reason::PutObject);
        let version =
            self.store.commit(bucket, key, content.clone(), received.path, None, &condition, reason)?;
        let mut output = dto::PutObjectOutput {
            e_tag: Some(etag(&content.etag)),
            checksum_type: Some(Kind::FullObject.name().to_owned().into()),
            size: Some(signed(content.size)),
            version_id: version,
            ..Default::default()
        };
        report!(output, algorithm, content.checksum.value);
        report_encryption!(output, content.attributes);
        Ok(output)
    }

    /// `DeleteObject`: a delete marker where versions are kept, the end of one version where one is named.
    pub(super) async fn delete(
        &self,
        request: S3Request<dto::DeleteObjectInput>,
    ) -> S3Result<dto::DeleteObjectOutput> {
        let input = request.input;
        let condition = Condition { if_match: input.if_match, if_none_match: None };
        let deleted =
            self.store.delete(&input.bucket, &input.key, input.version_id.as_deref(), &condition)?;
        Ok(dto::DeleteObjectOutput {
            delete_marker: deleted.marker.then_some(true),
            version_id: deleted.version,
            ..Default::default()
        })
    }

    /// `DeleteObjects`: each key for itself, and the failures told apart.
    pub(super) async fn delete_many(
        &self,
        request: S3Request<dto::DeleteObjectsInput>,
    ) -> S3Result<dto::DeleteObjectsOutput> {
        let input = request.input;
        self.store.state().bucket(&input.bucket)?;
        let mut deleted = Vec::new();
        let mut errors = Vec::new();
        for object in input.delete.objects {
            let condition =
                Condition { if_match: object.e_tag.map(dto::ETagCondition::ETag), if_none_match: None };
            let version = object.version_id.as_deref();
            match self.store.delete(&input.bucket, &object.key, version, &condition) {
                Ok(done) => deleted.push(dto::DeletedObject {
                    delete_marker: done.marker.then_some(true),
                    delete_marker_version_id: done.version.filter(|_| done.marker),
                    key: Some(object.key),
                    version_id: object.version_id,
                }),
                Err(error) => errors.push(dto::Error {
                    code: Some(error.code().as_str().to_owned()),
                    message: error.message().map(str::to_owned),
                    key: Some(object.key),
                    version_id: object.version_id,
                }),
            }
        }
        let quiet = input.delete.quiet.unwrap_or(false);
        Ok(dto::DeleteObjectsOutput {
            deleted: (!quiet).then_some(deleted),
            errors: (!errors.is_empty()).then_some(errors),
            ..Default::default()
        })
    }
}
