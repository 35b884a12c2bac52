//! Taking in a payload: to a file beside the objects, counted and hashed on the way, and refused if it is not what was said.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use fs_err as fs;
use futures::StreamExt as _;
use s3s::crypto::{Checksum as _, Md5};
use s3s::dto::StreamingBlob;
use s3s::{S3Error, S3Result, TrailingHeaders, s3_error};
use std::collections::BTreeMap;
use tempfile::TempPath;
use tokio::io::{AsyncSeekExt as _, AsyncWriteExt as _};

use super::Store;
use crate::s3::checksum::{Algorithm, Claim, Hasher, bad_digest};

/// What the request says about its payload, and what is wanted of it.
#[derive(Debug, Default)]
pub(crate) struct Expected {
    /// Length in bytes.
    pub(crate) length: Option<u64>,
    /// `Content-MD5`, in Base64.
    pub(crate) md5: Option<String>,
    pub(crate) claim: Option<Claim>,
    pub(crate) trailers: Option<TrailingHeaders>,
    /// An algorithm to compute whether claimed or not. CRC64NVME always is.
    pub(crate) wanted: Option<Algorithm>,
    pub(crate) wrong_byte: Option<WrongByte>,
}

/// The scripted fault of storing one wrong byte; carried to the storage in the request's extensions.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WrongByte {
    pub(crate) offset: u64,
}

/// A payload that is on the disk; its file is removed unless it is given a place.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) path: TempPath,
    pub(crate) size: u64,
    pub(crate) md5: [u8; 16],
    digests: BTreeMap<Algorithm, String>,
}

impl Received {
    /// The digest by an algorithm that was claimed or wanted, in Base64.
    pub(crate) fn digest(&self, algorithm: Algorithm) -> S3Result<String> {
        self.digests
            .get(&algorithm)
            .cloned()
            .ok_or_else(|| s3_error!(InternalError, "no {} computed", algorithm.name()))
    }
}

impl Store {
    /// A new file for bytes on their way in.
    pub(crate) fn incoming(&self) -> S3Result<(fs::File, TempPath)> {
        let folder = self.layout.incoming();
        let (file, path) =
            tempfile::NamedTempFile::new_in(folder).map_err(S3Error::internal_error)?.into_parts();
        Ok((fs::File::from_parts(file, path.to_path_buf()), path))
    }

    /// Reads the whole payload into a file, and checks it against what was said of it.
    pub(crate) async fn receive(
        &self,
        body: Option<StreamingBlob>,
        expected: Expected,
    ) -> S3Result<Received> {
        let declared_md5 = expected.md5.as_deref().map(parse_md5).transpose()?;
        let (file, path) = self.incoming()?;
        let mut file = fs::tokio::File::from_std(file);
        let claimed = expected.claim.as_ref().map(|claim| claim.algorithm);
        let mut hashers: BTreeMap<Algorithm, Hasher> = [Some(Algorithm::Crc64Nvme), claimed, expected.wanted]
            .into_iter()
            .flatten()
            .map(|algorithm| (algorithm, Hasher::new(algorithm)))
            .collect();
        let mut md5 = Md5::new();
        let mut size: u64 = 0;
        if let Some(mut body) = body {
            while let Some(chunk) = body.next().await {
                let chunk = chunk.map_err(unreadable)?;
                md5.update(&chunk);
                hashers.values_mut().for_each(|hasher| hasher.update(&chunk));
                file.write_all(&chunk).await.map_err(S3Error::internal_error)?;
                size += u64::try_from(chunk.len()).map_err(S3Error::internal_error)?;
            }
        }
        file.flush().await.map_err(S3Error::internal_error)?;
        if expected.length.is_some_and(|length| length != size) {
            return Err(s3_error!(IncompleteBody, "The request body terminated unexpectedly"));
        }
        let md5 = md5.finalize();
        if declared_md5.is_some_and(|declared| declared != md5) {
            return Err(s3_error!(
                BadDigest,
                "The Content-MD5 you specified did not match what we received."
            ));
        }
        let digests: BTreeMap<Algorithm, String> =
            hashers.into_iter().map(|(algorithm, hasher)| (algorithm, hasher.finish())).collect();
        if let Some(claim) = &expected.claim {
            let value = claim.value(expected.trailers.as_ref())?;
            if digests.get(&claim.algorithm) != Some(&value) {
                return Err(bad_digest(claim.algorithm));
            }
        }
        if let Some(wrong) = expected.wrong_byte.filter(|_| size > 0) {
            flip(&mut file, wrong.offset.min(size - 1)).await.map_err(S3Error::internal_error)?;
        }
        Ok(Received { path, size, md5, digests })
    }
}

/// Flips the lowest bit of one byte.
async fn flip(file: &mut fs::tokio::File, offset: u64) -> std::io::Result<()> {
    use tokio::io::AsyncReadExt as _;
    file.seek(std::io::SeekFrom::Start(offset)).await?;
    let byte = file.read_u8().await?;
    file.seek(std::io::SeekFrom::Start(offset)).await?;
    file.write_u8(byte ^ 1).await?;
    file.flush().await
}

fn parse_md5(value: &str) -> S3Result<[u8; 16]> {
    let invalid = || s3_error!(InvalidDigest, "The Content-MD5 you specified was invalid.");
    let bytes = BASE64.decode(value).map_err(|_error| invalid())?;
    bytes.try_into().map_err(|_bytes| invalid())
}

/// The answer when the payload breaks off or its chunks are not signed as they should be.
fn unreadable(error: s3s::StdError) -> S3Error {
    let code = match error.to_string().contains("SignatureMismatch") {
        true => s3s::S3ErrorCode::SignatureDoesNotMatch,
        false => s3s::S3ErrorCode::IncompleteBody,
    };
    S3Error::with_source(code, error)
}
