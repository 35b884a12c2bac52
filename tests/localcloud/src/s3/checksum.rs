//! The checksums of S3: which there are, how they are claimed in requests, and how those of parts make that of an object.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use crc_fast::CrcAlgorithm;
use hyper::HeaderMap;
use s3s::crypto::{Checksum as _, Crc32, Crc32c, Crc64Nvme, Sha1, Sha256};
use s3s::{S3Result, s3_error};
use serde::{Deserialize, Serialize};

/// A checksum algorithm of S3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Algorithm {
    Crc32,
    Crc32c,
    Crc64Nvme,
    Sha1,
    Sha256,
}

/// What a multipart object's checksum is computed from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Kind {
    /// From the object's bytes, as if it had been sent in one piece.
    FullObject,
    /// From the checksums of the parts.
    Composite,
}

/// A checksum as S3 stores and reports it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Checksum {
    pub(crate) algorithm: Algorithm,
    pub(crate) kind: Kind,
    /// Base64; a composite one ends in `-` and the number of parts.
    pub(crate) value: String,
}

impl Algorithm {
    pub(crate) const ALL: [Algorithm; 5] =
        [Algorithm::Crc32, Algorithm::Crc32c, Algorithm::Crc64Nvme, Algorithm::Sha1, Algorithm::Sha256];

    /// The name that the API uses, such as `CRC64NVME`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Algorithm::Crc32 => "CRC32",
            Algorithm::Crc32c => "CRC32C",
            Algorithm::Crc64Nvme => "CRC64NVME",
            Algorithm::Sha1 => "SHA1",
            Algorithm::Sha256 => "SHA256",
        }
    }

    /// Reads the API's name.
    pub(crate) fn parse(name: &str) -> S3Result<Self> {
        Self::ALL
            .into_iter()
            .find(|algorithm| algorithm.name().eq_ignore_ascii_case(name))
            .ok_or_else(|| s3_error!(InvalidRequest, "Checksum algorithm provided is unsupported: {name}"))
    }

    /// The kind that an upload gets which names none; `asked` is the name of the kind that it asked for.
    pub(crate) fn kind(self, asked: Option<&str>) -> S3Result<Kind> {
        let full = match asked {
            Some("FULL_OBJECT") => true,
            Some("COMPOSITE") => false,
            Some(other) => {
                return Err(s3_error!(
                    InvalidRequest,
                    "Value for x-amz-checksum-type header is invalid: {other}"
                ));
            }
            None => self == Algorithm::Crc64Nvme,
        };
        match self {
            Algorithm::Crc64Nvme if !full => Err(self.unfit("COMPOSITE")),
            Algorithm::Sha1 | Algorithm::Sha256 if full => Err(self.unfit("FULL_OBJECT")),
            Algorithm::Crc32
            | Algorithm::Crc32c
            | Algorithm::Crc64Nvme
            | Algorithm::Sha1
            | Algorithm::Sha256 => Ok(if full { Kind::FullObject } else { Kind::Composite }),
        }
    }

    fn unfit(self, kind: &str) -> s3s::S3Error {
        let name = self.name().to_lowercase();
        s3_error!(
            InvalidRequest,
            "The {kind} checksum type cannot be used with the {name} checksum algorithm."
        )
    }

    fn header(self) -> String {
        format!("x-amz-checksum-{}", self.name().to_lowercase())
    }

    fn digest_length(self) -> usize {
        match self {
            Algorithm::Crc32 | Algorithm::Crc32c => 4,
            Algorithm::Crc64Nvme => 8,
            Algorithm::Sha1 => 20,
            Algorithm::Sha256 => 32,
        }
    }

    fn crc(self) -> Option<CrcAlgorithm> {
        match self {
            Algorithm::Crc32 => Some(CrcAlgorithm::Crc32IsoHdlc),
            Algorithm::Crc32c => Some(CrcAlgorithm::Crc32Iscsi),
            Algorithm::Crc64Nvme => Some(CrcAlgorithm::Crc64Nvme),
            Algorithm::Sha1 | Algorithm::Sha256 => None,
        }
    }
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::FullObject => "FULL_OBJECT",
            Kind::Composite => "COMPOSITE",
        }
    }
}

/// A running digest.
pub(crate) enum Hasher {
    Crc32(Crc32),
    Crc32c(Crc32c),
    Crc64Nvme(Crc64Nvme),
    Sha1(Sha1),
    Sha256(Sha256),
}

impl Hasher {
    pub(crate) fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Crc32 => Hasher::Crc32(Crc32::new()),
            Algorithm::Crc32c => Hasher::Crc32c(Crc32c::new()),
            Algorithm::Crc64Nvme => Hasher::Crc64Nvme(Crc64Nvme::new()),
            Algorithm::Sha1 => Hasher::Sha1(Sha1::new()),
            Algorithm::Sha256 => Hasher::Sha256(Sha256::new()),
        }
    }

    pub(crate) fn update(&mut self, data: &[u8]) {
        match self {
            Hasher::Crc32(hasher) => hasher.update(data),
            Hasher::Crc32c(hasher) => hasher.update(data),
            Hasher::Crc64Nvme(hasher) => hasher.update(data),
            Hasher::Sha1(hasher) => hasher.update(data),
            Hasher::Sha256(hasher) => hasher.update(data),
        }
    }

    /// The digest, in Base64.
    pub(crate) fn finish(self) -> String {
        match self {
            Hasher::Crc32(hasher) => BASE64.encode(hasher.finalize()),
            Hasher::Crc32c(hasher) => BASE64.encode(hasher.finalize()),
            Hasher::Crc64Nvme(hasher) => BASE64.encode(hasher.finalize()),
            Hasher::Sha1(hasher) => BASE64.encode(hasher.finalize()),
            Hasher::Sha256(hasher) => BASE64.encode(hasher.finalize()),
        }
    }
}

/// The checksum of an object from those of its parts, in order: each the part's digest in Base64 and its length in bytes.
pub(crate) fn combine(algorithm: Algorithm, kind: Kind, parts: &[(String, u64)]) -> S3Result<Checksum> {
    let mut digests = Vec::with_capacity(parts.len());
    for (digest, length) in parts {
        let digest = BASE64.decode(digest).map_err(s3s::S3Error::internal_error)?;
        digests.push((digest, *length));
    }
    let value = match (kind, algorithm.crc()) {
        (Kind::FullObject, Some(crc)) => {
            let mut sum: Option<u64> = None;
            for (digest, length) in &digests {
                let part = digest.iter().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
                sum = Some(match sum {
                    None => part,
                    Some(before) => crc_fast::checksum_combine(crc, before, part, *length),
                });
            }
            let bytes = sum.unwrap_or_default().to_be_bytes();
            BASE64.encode(bytes.get(bytes.len() - algorithm.digest_length()..).unwrap_or_default())
        }
        (Kind::Composite, _) | (Kind::FullObject, None) => {
            let mut hasher = Hasher::new(algorithm);
            for (digest, _) in &digests {
                hasher.update(digest);
            }
            format!("{}-{}", hasher.finish(), digests.len())
        }
    };
    Ok(Checksum { algorithm, kind, value })
}

/// What a request says its payload's checksum is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) algorithm: Algorithm,
    /// Base64; `None` when the value follows the payload, as a trailer.
    pub(crate) value: Option<String>,
}

impl Claim {
    /// The claim in the headers of a request that carries a payload.
    pub(crate) fn from_headers(headers: &HeaderMap) -> S3Result<Option<Claim>> {
        let mut claims = Vec::new();
        for algorithm in Algorithm::ALL {
            if let Some(value) = headers.get(algorithm.header()) {
                let value = value.to_str().map_err(|_error| invalid(algorithm))?;
                claims.push(Claim { algorithm, value: Some(checked(algorithm, value)?) });
            }
        }
        let trailer = headers.get("x-amz-trailer").and_then(|value| value.to_str().ok()).unwrap_or_default();
        for algorithm in Algorithm::ALL {
            if trailer.split(',').any(|name| name.trim().eq_ignore_ascii_case(&algorithm.header())) {
                claims.push(Claim { algorithm, value: None });
            }
        }
        if claims.len() > 1 {
            return Err(s3_error!(
                InvalidRequest,
                "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed."
            ));
        }
        Ok(claims.pop())
    }

    /// The claimed value, once the payload has been read and its trailers with it.
    pub(crate) fn value(&self, trailers: Option<&s3s::TrailingHeaders>) -> S3Result<String> {
        if let Some(value) = &self.value {
            return Ok(value.clone());
        }
        let trailer = trailers
            .and_then(|trailers| trailers.read(|map| map.get(self.algorithm.header()).cloned()).flatten())
            .ok_or_else(|| {
                s3_error!(
                    InvalidRequest,
                    "The checksum that x-amz-trailer announces did not follow the payload."
                )
            })?;
        checked(self.algorithm, trailer.to_str().map_err(|_error| invalid(self.algorithm))?)
    }
}

/// A claimed value, if it has the form of that algorithm's digests.
pub(crate) fn checked(algorithm: Algorithm, value: &str) -> S3Result<String> {
    match BASE64.decode(value) {
        Ok(digest) if digest.len() == algorithm.digest_length() => Ok(value.to_owned()),
        Ok(_) | Err(_) => Err(invalid(algorithm)),
    }
}

fn invalid(algorithm: Algorithm) -> s3s::S3Error {
    s3_error!(InvalidRequest, "Value for {} header is invalid.", algorithm.header())
}

/// The refusal of a payload whose checksum is not the claimed one.
pub(crate) fn bad_digest(algorithm: Algorithm) -> s3s::S3Error {
    s3_error!(BadDigest, "The {} you specified did not match the calculated checksum.", algorithm.name())
}

/// Sets the checksum field of a reply's structure that belongs to the algorithm.
macro_rules! report {
    ($output:expr, $algorithm:expr, $value:expr) => {{
        let value = Some($value);
        match $algorithm {
            $crate::s3::checksum::Algorithm::Crc32 => $output.checksum_crc32 = value,
            $crate::s3::checksum::Algorithm::Crc32c => $output.checksum_crc32c = value,
            $crate::s3::checksum::Algorithm::Crc64Nvme => $output.checksum_crc64nvme = value,
            $crate::s3::checksum::Algorithm::Sha1 => $output.checksum_sha1 = value,
            $crate::s3::checksum::Algorithm::Sha256 => $output.checksum_sha256 = value,
        }
    }};
}
pub(crate) use report;

/// Reads the checksum field of a request's structure that belongs to the algorithm.
macro_rules! given {
    ($input:expr, $algorithm:expr) => {
        match $algorithm {
            $crate::s3::checksum::Algorithm::Crc32 => $input.checksum_crc32.as_deref(),
            $crate::s3::checksum::Algorithm::Crc32c => $input.checksum_crc32c.as_deref(),
            $crate::s3::checksum::Algorithm::Crc64Nvme => $input.checksum_crc64nvme.as_deref(),
            $crate::s3::checksum::Algorithm::Sha1 => $input.checksum_sha1.as_deref(),
            $crate::s3::checksum::Algorithm::Sha256 => $input.checksum_sha256.as_deref(),
        }
    };
}
pub(crate) use given;

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(algorithm: Algorithm, data: &[u8]) -> String {
        let mut hasher = Hasher::new(algorithm);
        hasher.update(data);
        hasher.finish()
    }

    #[test]
    fn a_full_object_checksum_of_parts_is_that_of_the_whole() {
        for algorithm in [Algorithm::Crc32, Algorithm::Crc32c, Algorithm::Crc64Nvme] {
            let parts = [&b"123"[..], b"4567", b"89"];
            let parts: Vec<_> =
                parts.iter().map(|part| (digest(algorithm, part), part.len() as u64)).collect();
            let combined = combine(algorithm, Kind::FullObject, &parts).unwrap();
            assert_eq!(combined.value, digest(algorithm, b"123456789"), "{algorithm:?}");
        }
    }

    #[test]
    fn crc64nvme_of_the_check_string_is_the_catalogued_value() {
        // The check value of CRC-64/NVME: 0xAE8B14860A799888.
        let expected = BASE64.encode(0xAE8B_1486_0A79_9888_u64.to_be_bytes());
        assert_eq!(digest(Algorithm::Crc64Nvme, b"123456789"), expected);
    }

    #[test]
    fn a_composite_checksum_is_the_digest_of_the_digests() {
        let parts = [(digest(Algorithm::Sha256, b"a"), 1), (digest(Algorithm::Sha256, b"b"), 1)];
        let combined = combine(Algorithm::Sha256, Kind::Composite, &parts).unwrap();
        let mut joined = BASE64.decode(&parts[0].0).unwrap();
        joined.extend(BASE64.decode(&parts[1].0).unwrap());
        assert_eq!(combined.value, format!("{}-2", digest(Algorithm::Sha256, &joined)));
    }

    #[test]
    fn kinds_are_limited_per_algorithm() {
        assert_eq!(Algorithm::Crc64Nvme.kind(None).unwrap(), Kind::FullObject);
        assert_eq!(Algorithm::Crc32.kind(None).unwrap(), Kind::Composite);
        assert_eq!(Algorithm::Crc32.kind(Some("FULL_OBJECT")).unwrap(), Kind::FullObject);
        assert!(Algorithm::Crc64Nvme.kind(Some("COMPOSITE")).is_err());
        assert!(Algorithm::Sha256.kind(Some("FULL_OBJECT")).is_err());
    }
}
