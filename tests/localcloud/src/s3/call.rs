//! What was asked of S3: the name of each call, and the log of calls that tests make assertions about.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use hyper::header::{CONTENT_LENGTH, IF_MATCH, IF_NONE_MATCH, RANGE};
use hyper::{HeaderMap, Method, Request};

macro_rules! operations {
    ($($name:ident),+ $(,)?) => {
        /// An operation of the S3 API, by AWS's own name.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[expect(missing_docs, reason = "the names are AWS's and documented there")]
        pub enum Operation {
            $($name,)+
            /// Any call that has no name here. The server answers it with 501 or 405.
            Other,
        }

        impl Operation {
            /// AWS's name of the operation.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Operation::$name => stringify!($name),)+
                    Operation::Other => "Other",
                }
            }
        }
    };
}

operations! {
    ListBuckets, CreateBucket, HeadBucket, DeleteBucket, GetBucketLocation, GetBucketVersioning, PutBucketVersioning,
    ListObjects, ListObjectsV2, ListObjectVersions, ListMultipartUploads,
    GetObject, HeadObject, GetObjectAttributes, PutObject, CopyObject, DeleteObject, DeleteObjects,
    CreateMultipartUpload, UploadPart, UploadPartCopy, CompleteMultipartUpload, AbortMultipartUpload, ListParts,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One request that reached the server, in the order of arrival.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// What was asked for.
    pub operation: Operation,
    /// The bucket, unless the call is about none.
    pub bucket: Option<String>,
    /// The key, for calls about one object.
    pub key: Option<String>,
    /// The prefix, for listings.
    pub prefix: Option<String>,
    /// `partNumber` of an `UploadPart` or of a read by part.
    pub part_number: Option<u32>,
    /// `uploadId`, for calls about a multipart upload.
    pub upload_id: Option<String>,
    /// `versionId`, when one was pinned.
    pub version_id: Option<String>,
    /// The `Range` header as sent.
    pub range: Option<String>,
    /// The `If-Match` header as sent.
    pub if_match: Option<String>,
    /// The `If-None-Match` header as sent.
    pub if_none_match: Option<String>,
    /// Bytes of payload that the request announced (without chunk framing).
    pub length: u64,
    /// The HTTP status of the answer; `None` while the call is under way and when its connection was dropped instead.
    pub status: Option<u16>,
}

impl Call {
    /// Names the call that `request` makes.
    pub(crate) fn identify<B>(request: &Request<B>) -> Call {
        let path = decode(request.uri().path().trim_start_matches('/'));
        let query = parse_query(request.uri().query().unwrap_or_default());
        let (bucket, key) = match path.split_once('/') {
            Some((bucket, key)) => {
                (Some(bucket.to_owned()), Some(key.to_owned()).filter(|key| !key.is_empty()))
            }
            None => (Some(path).filter(|bucket| !bucket.is_empty()), None),
        };
        let header = |name: &str| text(request.headers(), name);
        let length = header("x-amz-decoded-content-length")
            .or_else(|| header(CONTENT_LENGTH.as_str()))
            .and_then(|value| value.parse().ok())
            .unwrap_or(0);
        Call {
            operation: operation(
                request.method(),
                bucket.is_some(),
                key.is_some(),
                &query,
                request.headers().contains_key("x-amz-copy-source"),
            ),
            bucket,
            key,
            prefix: query.get("prefix").cloned(),
            part_number: query.get("partNumber").and_then(|value| value.parse().ok()),
            upload_id: query.get("uploadId").cloned(),
            version_id: query.get("versionId").cloned(),
            range: header(RANGE.as_str()),
            if_match: header(IF_MATCH.as_str()),
            if_none_match: header(IF_NONE_MATCH.as_str()),
            length,
            status: None,
        }
    }
}

fn operation(
    method: &Method,
    bucket: bool,
    key: bool,
    query: &BTreeMap<String, String>,
    copy: bool,
) -> Operation {
    let has = |name: &str| query.contains_key(name);
    match (method.as_str(), bucket, key) {
        ("GET", false, _) => Operation::ListBuckets,
        ("HEAD", true, false) => Operation::HeadBucket,
        ("HEAD", true, true) => Operation::HeadObject,
        ("PUT", true, false) if has("versioning") => Operation::PutBucketVersioning,
        ("PUT", true, false) if query.keys().all(|name| name == "x-id") => Operation::CreateBucket,
        ("DELETE", true, false) if query.keys().all(|name| name == "x-id") => Operation::DeleteBucket,
        ("POST", true, false) if has("delete") => Operation::DeleteObjects,
        ("GET", true, false) if has("location") => Operation::GetBucketLocation,
        ("GET", true, false) if has("versioning") => Operation::GetBucketVersioning,
        ("GET", true, false) if has("uploads") => Operation::ListMultipartUploads,
        ("GET", true, false) if has("versions") => Operation::ListObjectVersions,
        ("GET", true, false) if has("list-type") => Operation::ListObjectsV2,
        ("GET", true, false) if !BUCKET_SETTINGS.iter().any(|name| has(name)) => Operation::ListObjects,
        ("GET", true, true) if has("attributes") => Operation::GetObjectAttributes,
        ("GET", true, true) if has("uploadId") => Operation::ListParts,
        ("GET", true, true) if !OBJECT_SETTINGS.iter().any(|name| has(name)) => Operation::GetObject,
        ("PUT", true, true) if has("partNumber") && copy => Operation::UploadPartCopy,
        ("PUT", true, true) if has("partNumber") => Operation::UploadPart,
        ("PUT", true, true) if copy => Operation::CopyObject,
        ("PUT", true, true) if !OBJECT_SETTINGS.iter().any(|name| has(name)) => Operation::PutObject,
        ("POST", true, true) if has("uploads") => Operation::CreateMultipartUpload,
        ("POST", true, true) if has("uploadId") => Operation::CompleteMultipartUpload,
        ("DELETE", true, true) if has("uploadId") => Operation::AbortMultipartUpload,
        ("DELETE", true, true) if !OBJECT_SETTINGS.iter().any(|name| has(name)) => Operation::DeleteObject,
        _ => Operation::Other,
    }
}

/// Sub-resources of a bucket that are not served, so that they are not taken for a listing.
const BUCKET_SETTINGS: [&str; 12] = [
    "acl",
    "cors",
    "encryption",
    "lifecycle",
    "logging",
    "notification",
    "object-lock",
    "policy",
    "publicAccessBlock",
    "replication",
    "tagging",
    "website",
];

/// Sub-resources of an object that are not served.
const OBJECT_SETTINGS: [&str; 5] = ["acl", "legal-hold", "retention", "tagging", "torrent"];

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
}

fn parse_query(query: &str) -> BTreeMap<String, String> {
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(&name.replace('+', " ")), decode(&value.replace('+', " ")))
        })
        .collect()
}

/// Undoes percent-encoding; what is no valid escape stays as it is.
fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let escaped =
            (first == b'%').then(|| tail.get(..2).and_then(|digits| hex::decode(digits).ok())).flatten();
        match escaped {
            Some(byte) => {
                bytes.extend(byte);
                rest = tail.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// All calls so far.
#[derive(Debug, Default)]
pub(crate) struct CallLog {
    calls: Mutex<(u64, Vec<(u64, Call)>)>,
}

impl CallLog {
    /// Notes that a call has arrived; the answer is the handle for [`finish`](Self::finish).
    pub(crate) fn begin(&self, call: Call) -> u64 {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        calls.0 += 1;
        let id = calls.0;
        calls.1.push((id, call));
        id
    }

    pub(crate) fn finish(&self, id: u64, status: u16) {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, call)) = calls.1.iter_mut().rev().find(|(other, _)| *other == id) {
            call.status = Some(status);
        }
    }

    pub(crate) fn snapshot(&self) -> Vec<Call> {
        let calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        calls.1.iter().map(|(_, call)| call.clone()).collect()
    }

    pub(crate) fn take(&self) -> Vec<Call> {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut calls.1).into_iter().map(|(_, call)| call).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(method: &str, uri: &str) -> Call {
        Call::identify(&Request::builder().method(method).uri(uri).body(()).unwrap())
    }

    #[test]
    fn calls_are_named_as_aws_names_them() {
        let cases = [
            ("GET", "/", Operation::ListBuckets),
            ("PUT", "/b", Operation::CreateBucket),
            ("PUT", "/b/", Operation::CreateBucket),
            ("PUT", "/b?versioning", Operation::PutBucketVersioning),
            ("PUT", "/b?policy", Operation::Other),
            ("GET", "/b?list-type=2&prefix=a%2F", Operation::ListObjectsV2),
            ("GET", "/b", Operation::ListObjects),
            ("GET", "/b?lifecycle", Operation::Other),
            ("GET", "/b?uploads", Operation::ListMultipartUploads),
            ("GET", "/b?versions", Operation::ListObjectVersions),
            ("POST", "/b/?delete", Operation::DeleteObjects),
            ("HEAD", "/b/k", Operation::HeadObject),
            ("GET", "/b/k?x-id=GetObject", Operation::GetObject),
            ("GET", "/b/k?attributes", Operation::GetObjectAttributes),
            ("GET", "/b/k?uploadId=1", Operation::ListParts),
            ("PUT", "/b/k?x-id=PutObject", Operation::PutObject),
            ("PUT", "/b/k?tagging", Operation::Other),
            ("PUT", "/b/k?partNumber=3&uploadId=1", Operation::UploadPart),
            ("POST", "/b/k?uploads", Operation::CreateMultipartUpload),
            ("POST", "/b/k?uploadId=1", Operation::CompleteMultipartUpload),
            ("DELETE", "/b/k?uploadId=1", Operation::AbortMultipartUpload),
            ("DELETE", "/b/k?versionId=1", Operation::DeleteObject),
        ];
        for (method, uri, expected) in cases {
            assert_eq!(call(method, uri).operation, expected, "{method} {uri}");
        }
    }

    #[test]
    fn the_key_and_the_query_are_decoded() {
        let call = call("PUT", "/b/a%20b/c%25.tar?partNumber=7&uploadId=x%2Fy");
        assert_eq!(call.bucket.as_deref(), Some("b"));
        assert_eq!(call.key.as_deref(), Some("a b/c%.tar"));
        assert_eq!(call.part_number, Some(7));
        assert_eq!(call.upload_id.as_deref(), Some("x/y"));
    }
}
