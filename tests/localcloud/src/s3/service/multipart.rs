//! Multipart uploads.

use s3s::dto;
use s3s::{S3Request, S3Result, s3_error};

use super::{Service, attributes, count, page_size, part_number, report_encryption, signed, timestamp};
use crate::s3::checksum::{Algorithm, Claim, Kind, bad_digest, checked, given, report};
use crate::s3::notice::Reason;
use crate::s3::store::{Condition, Expected, NamedPart, Upload, WrongByte, etag};

impl Service {
    pub(super) async fn create_upload(
        &self,
        request: S3Request<dto::CreateMultipartUploadInput>,
    ) -> S3Result<dto::CreateMultipartUploadOutput> {
        let input = request.input;
        let asked = input.checksum_type.as_ref().map(dto::ChecksumType::as_str);
        let checksum = match input.checksum_algorithm.as_ref() {
            Some(algorithm) => {
                let algorithm = Algorithm::parse(algorithm.as_str())?;
                Some((algorithm, algorithm.kind(asked)?))
            }
            None if asked.is_some() => {
                return Err(s3_error!(
                    InvalidRequest,
                    "The x-amz-checksum-type header can only be used with the x-amz-checksum-algorithm header."
                ));
            }
            None => None,
        };
        let upload =
            self.store.create_upload(&input.bucket, &input.key, checksum, attributes!(self, input))?;
        let mut output = dto::CreateMultipartUploadOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(upload.id),
            checksum_algorithm: checksum.map(|(algorithm, _)| algorithm.name().to_owned().into()),
            checksum_type: checksum.map(|(_, kind)| kind.name().to_owned().into()),
            ..Default::default()
        };
        report_encryption!(output, upload.attributes);
        Ok(output)
    }

    pub(super) async fn put_part(
        &self,
        request: S3Request<dto::UploadPartInput>,
    ) -> S3Result<dto::UploadPartOutput> {
        let input = request.input;
        let number = part_number(input.part_number)?;
        let upload = self.store.upload(&input.bucket, &input.key, &input.upload_id)?;
        let claim = Claim::from_headers(&request.headers)?;
        check_algorithm(&upload, claim.as_ref())?;
        let claimed = claim.as_ref().map(|claim| claim.algorithm);
        let expected = Expected {
            length: input.content_length.and_then(|length| u64::try_from(length).ok()),
            md5: input.content_md5,
            claim,
            trailers: request.trailing_headers,
            wanted: upload.checksum.map(|(algorithm, _)| algorithm),
            wrong_byte: request.extensions.get::<WrongByte>().copied(),
        };
        let received = self.store.receive(input.body, expected).await?;
        let told = claimed.or(upload.checksum.map(|(algorithm, _)| algorithm));
        let told =
            told.map(|algorithm| received.digest(algorithm).map(|digest| (algorithm, digest))).transpose()?;
        let part = self.store.put_part(&input.bucket, &input.key, &input.upload_id, number, received)?;
        let mut output = dto::UploadPartOutput { e_tag: Some(etag(&part.etag)), ..Default::default() };
        if let Some((algorithm, digest)) = told {
            report!(output, algorithm, digest);
        }
        report_encryption!(output, upload.attributes);
        Ok(output)
    }

    /// `ListParts`: checksums only where the upload was created with an algorithm, as in AWS.
    pub(super) async fn parts(
        &self,
        request: S3Request<dto::ListPartsInput>,
    ) -> S3Result<dto::ListPartsOutput> {
        let input = request.input;
        let upload = self.store.upload(&input.bucket, &input.key, &input.upload_id)?;
        let limit = page_size(input.max_parts)?;
        let after = input.part_number_marker.and_then(|marker| u32::try_from(marker).ok()).unwrap_or(0);
        let rest: Vec<_> = upload.parts.range(after.saturating_add(1)..).map(|(_, part)| part).collect();
        let shown: Vec<dto::Part> = rest
            .iter()
            .take(limit)
            .map(|part| {
                let mut shown = dto::Part {
                    part_number: i32::try_from(part.number).ok(),
                    size: Some(signed(part.size)),
                    e_tag: Some(etag(&part.etag)),
                    last_modified: Some(timestamp(part.modified)),
                    ..Default::default()
                };
                if let (Some((algorithm, _)), Some(digest)) = (upload.checksum, &part.digest) {
                    report!(shown, algorithm, digest.clone());
                }
                shown
            })
            .collect();
        Ok(dto::ListPartsOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(input.upload_id),
            checksum_algorithm: upload.checksum.map(|(algorithm, _)| algorithm.name().to_owned().into()),
            checksum_type: upload.checksum.map(|(_, kind)| kind.name().to_owned().into()),
            is_truncated: Some(rest.len() > shown.len()),
            max_parts: Some(count(limit)),
            part_number_marker: Some(input.part_number_marker.unwrap_or(0)),
            next_part_number_marker: shown.last().and_then(|part| part.part_number),
            parts: Some(shown),
            storage_class: Some(dto::StorageClass::from_static(dto::StorageClass::STANDARD)),
            ..Default::default()
        })
    }

    /// `CompleteMultipartUpload`. A second one waits for the first, and finds no upload when that one succeeded.
    pub(super) async fn complete(
        &self,
        request: S3Request<dto::CompleteMultipartUploadInput>,
    ) -> S3Result<dto::CompleteMultipartUploadOutput> {
        let input = request.input;
        let (bucket, key) = (&input.bucket, &input.key);
        let completion = self.store.upload(bucket, key, &input.upload_id)?.completion;
        let _held = completion.lock().await;
        let upload = self.store.upload(bucket, key, &input.upload_id)?;

        let named =
            input.multipart_upload.as_ref().and_then(|upload| upload.parts.as_deref()).unwrap_or_default();
        let named = named.iter().map(named_part).collect::<S3Result<Vec<_>>>()?;
        let parts = self.store.choose_parts(&upload, &named)?;
        let content = self.store.content_of(&upload, &parts)?;
        if let Some(size) = input.mpu_object_size
            && u64::try_from(size).ok() != Some(content.size)
        {
            return Err(s3_error!(
                InvalidRequest,
                "The provided 'x-amz-mp-object-size' header value {size} does not match what was computed: {}",
                content.size
            ));
        }
        check_object(&upload, &input, &content.checksum.value)?;
        let condition =
            Condition { if_match: input.if_match.clone(), if_none_match: input.if_none_match.clone() };
        self.store.check(bucket, key, &condition)?;

        let path = self.store.join(bucket, &upload, &parts).await?;
        let (sequence, reason) = (Some(upload.sequence), Reason::CompleteMultipartUpload);
        let version = self.store.commit(bucket, key, content.clone(), path, sequence, &condition, reason)?;
        self.store.abort_upload(bucket, key, &input.upload_id)?;
        let mut output = dto::CompleteMultipartUploadOutput {
            e_tag: Some(etag(&content.etag)),
            checksum_type: Some(content.checksum.kind.name().to_owned().into()),
            location: Some(format!("http://s3/{bucket}/{key}")),
            version_id: version,
            ..Default::default()
        };
        report!(output, content.checksum.algorithm, content.checksum.value);
        report_encryption!(output, content.attributes);
        output.bucket = Some(input.bucket);
        output.key = Some(input.key);
        Ok(output)
    }

    pub(super) async fn abort(
        &self,
        request: S3Request<dto::AbortMultipartUploadInput>,
    ) -> S3Result<dto::AbortMultipartUploadOutput> {
        let input = request.input;
        let completion = self.store.upload(&input.bucket, &input.key, &input.upload_id)?.completion;
        let _held = completion.lock().await;
        self.store.abort_upload(&input.bucket, &input.key, &input.upload_id)?;
        Ok(dto::AbortMultipartUploadOutput::default())
    }
}

/// Refuses a part whose checksum is by another algorithm than the upload's. A composite checksum needs one on every part;
/// that of a full object does not.
fn check_algorithm(upload: &Upload, claim: Option<&Claim>) -> S3Result<()> {
    let claimed = claim.map(|claim| claim.algorithm);
    match upload.checksum {
        None | Some((_, Kind::FullObject)) if claimed.is_none() => Ok(()),
        None => Ok(()),
        Some((own, _)) if claimed == Some(own) => Ok(()),
        Some((own, _)) => Err(s3_error!(
            InvalidRequest,
            "Checksum Type mismatch occurred, expected checksum Type: {}, actual checksum Type: {}",
            own.name().to_lowercase(),
            claimed.map_or("null".to_owned(), |algorithm| algorithm.name().to_lowercase())
        )),
    }
}

/// Compares what the completion says about the whole object. When the upload was created without an algorithm AWS
/// ignores it, and so does this.
fn check_object(upload: &Upload, input: &dto::CompleteMultipartUploadInput, computed: &str) -> S3Result<()> {
    let Some((algorithm, kind)) = upload.checksum else { return Ok(()) };
    if input.checksum_type.as_ref().is_some_and(|asked| asked.as_str() != kind.name()) {
        return Err(s3_error!(
            InvalidRequest,
            "The upload was created using the {} checksum mode. The complete request must use the same checksum mode.",
            kind.name()
        ));
    }
    for other in Algorithm::ALL {
        match given!(input, other) {
            Some(_) if other != algorithm => {
                return Err(s3_error!(
                    InvalidRequest,
                    "Checksum Type mismatch occurred, expected checksum Type: {}, actual checksum Type: {}",
                    algorithm.name().to_lowercase(),
                    other.name().to_lowercase()
                ));
            }
            Some(claim) => {
                // A composite claim may leave out the number of parts.
                let bare = claim.split_once('-').map_or(claim, |(digest, _)| digest);
                checked(algorithm, bare)?;
                if claim != computed && Some(claim) != computed.split_once('-').map(|(digest, _)| digest) {
                    return Err(bad_digest(algorithm));
                }
            }
            None => {}
        }
    }
    Ok(())
}

fn named_part(part: &dto::CompletedPart) -> S3Result<NamedPart> {
    let checksums = Algorithm::ALL
        .into_iter()
        .filter_map(|algorithm| given!(part, algorithm).map(|value| (algorithm, value.to_owned())))
        .collect();
    Ok(NamedPart {
        number: part_number(part.part_number.unwrap_or(0))?,
        etag: part.e_tag.as_ref().map(|etag| etag.value().to_owned()),
        checksums,
    })
}
