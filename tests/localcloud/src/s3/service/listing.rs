//! Listings: objects, versions and uploads, by prefix, grouped by a delimiter, in pages.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as TOKEN;
use s3s::dto;
use s3s::{S3Request, S3Result, s3_error};

use super::{Service, count, page_size, signed, timestamp};
use crate::s3::store::{Content, Upload, Version, etag};

/// What a listing shows at one place: an item, or all that begins with a common prefix.
enum Shown<T> {
    Item(T),
    Common(String),
}

/// One page of a listing.
struct Page<T> {
    shown: Vec<Shown<T>>,
    truncated: bool,
    /// The place of the last entry, from where the next page goes on.
    last: Option<String>,
}

/// Fills a page from `(key, item)` in order, beginning after the place `after`.
fn page<'a, T>(
    items: impl Iterator<Item = (&'a str, T)>,
    prefix: &str,
    delimiter: Option<&str>,
    limit: usize,
    after: Option<&str>,
) -> Page<T> {
    let mut page = Page { shown: Vec::new(), truncated: false, last: None };
    let mut common = BTreeSet::new();
    for (key, item) in items {
        let Some(rest) = key.strip_prefix(prefix) else { continue };
        let group = delimiter.filter(|delimiter| !delimiter.is_empty()).and_then(|delimiter| {
            rest.split_once(delimiter).map(|(head, _)| format!("{prefix}{head}{delimiter}"))
        });
        // A page that ended with a group leaves out the rest of that group.
        let seen = group.as_ref().is_some_and(|group| common.contains(group) || after == Some(group));
        if seen {
            continue;
        }
        if page.shown.len() >= limit {
            page.truncated = limit > 0;
            break;
        }
        page.last = Some(group.clone().unwrap_or_else(|| key.to_owned()));
        page.shown.push(match group {
            Some(group) => {
                common.insert(group.clone());
                Shown::Common(group)
            }
            None => Shown::Item(item),
        });
    }
    page
}

/// Separates a page's entries, each with its names encoded if that was asked for.
fn split<T>(shown: Vec<Shown<T>>, encode: &Encoding) -> (Vec<T>, Option<Vec<dto::CommonPrefix>>) {
    let mut items = Vec::new();
    let mut common = Vec::new();
    for entry in shown {
        match entry {
            Shown::Item(item) => items.push(item),
            Shown::Common(prefix) => common.push(dto::CommonPrefix { prefix: Some(encode.name(&prefix)) }),
        }
    }
    (items, (!common.is_empty()).then_some(common))
}

/// Whether names are percent-encoded in the answer, as `encoding-type=url` asks for.
struct Encoding(bool);

impl Encoding {
    fn new(asked: Option<&dto::EncodingType>) -> Self {
        Self(asked.is_some_and(|asked| asked.as_str() == dto::EncodingType::URL))
    }

    fn name(&self, name: &str) -> String {
        if !self.0 {
            return name.to_owned();
        }
        name.bytes().fold(String::with_capacity(name.len()), |mut encoded, byte| {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' => {
                    encoded.push(char::from(byte))
                }
                _ => encoded.push_str(&format!("%{byte:02X}")),
            }
            encoded
        })
    }
}

impl Service {
    /// Current objects after the place `after`, which may be a key or a common prefix.
    fn objects(
        &self,
        bucket: &str,
        prefix: &str,
        delimiter: Option<&str>,
        limit: usize,
        after: Option<&str>,
        encoding: &Encoding,
    ) -> S3Result<Page<dto::Object>> {
        let state = self.store.state();
        let objects = &state.bucket(bucket)?.objects;
        let items = objects
            .range(prefix.max(after.unwrap_or_default()).to_owned()..)
            .take_while(|(key, _)| key.starts_with(prefix))
            .filter(|(key, _)| after.is_none_or(|after| key.as_str() > after))
            .filter_map(|(key, versions)| {
                let current = versions.last()?;
                let content = current.content.as_ref()?;
                Some((key.as_str(), (key, current, content)))
            });
        let Page { shown, truncated, last } = page(items, prefix, delimiter, limit, after);
        let shown = shown
            .into_iter()
            .map(|entry| match entry {
                Shown::Item((key, version, content)) => {
                    Shown::Item(object(encoding.name(key), version, content))
                }
                Shown::Common(prefix) => Shown::Common(prefix),
            })
            .collect();
        Ok(Page { shown, truncated, last })
    }

    pub(super) async fn list_v2(
        &self,
        request: S3Request<dto::ListObjectsV2Input>,
    ) -> S3Result<dto::ListObjectsV2Output> {
        let input = request.input;
        let encoding = Encoding::new(input.encoding_type.as_ref());
        let limit = page_size(input.max_keys)?;
        let resumed = input.continuation_token.as_deref().map(parse_token).transpose()?;
        let after = resumed.as_deref().or(input.start_after.as_deref());
        let prefix = input.prefix.as_deref().unwrap_or_default();
        let delimiter = input.delimiter.as_deref();
        let page = self.objects(&input.bucket, prefix, delimiter, limit, after, &encoding)?;
        let next = page.last.filter(|_| page.truncated).map(|last| TOKEN.encode(last));
        let key_count = count(page.shown.len());
        let (contents, common_prefixes) = split(page.shown, &encoding);
        Ok(dto::ListObjectsV2Output {
            name: Some(input.bucket),
            prefix: Some(encoding.name(prefix)),
            delimiter: input.delimiter.map(|delimiter| encoding.name(&delimiter)),
            start_after: input.start_after,
            encoding_type: input.encoding_type,
            max_keys: Some(count(limit)),
            key_count: Some(key_count),
            is_truncated: Some(page.truncated),
            continuation_token: input.continuation_token,
            next_continuation_token: next,
            contents: Some(contents),
            common_prefixes,
            ..Default::default()
        })
    }

    pub(super) async fn list(
        &self,
        request: S3Request<dto::ListObjectsInput>,
    ) -> S3Result<dto::ListObjectsOutput> {
        let input = request.input;
        let encoding = Encoding::new(input.encoding_type.as_ref());
        let limit = page_size(input.max_keys)?;
        let prefix = input.prefix.as_deref().unwrap_or_default();
        let (delimiter, after) = (input.delimiter.as_deref(), input.marker.as_deref());
        let page = self.objects(&input.bucket, prefix, delimiter, limit, after, &encoding)?;
        let (contents, common_prefixes) = split(page.shown, &encoding);
        Ok(dto::ListObjectsOutput {
            name: Some(input.bucket),
            prefix: Some(encoding.name(prefix)),
            delimiter: input.delimiter.map(|delimiter| encoding.name(&delimiter)),
            marker: Some(input.marker.unwrap_or_default()),
            encoding_type: input.encoding_type,
            max_keys: Some(count(limit)),
            is_truncated: Some(page.truncated),
            next_marker: page.last.filter(|_| page.truncated),
            contents: Some(contents),
            common_prefixes,
            ..Default::default()
        })
    }

    /// `ListObjectVersions`: keys in order, each key's versions newest first.
    pub(super) async fn list_versions(
        &self,
        request: S3Request<dto::ListObjectVersionsInput>,
    ) -> S3Result<dto::ListObjectVersionsOutput> {
        let input = request.input;
        let encoding = Encoding::new(input.encoding_type.as_ref());
        let limit = page_size(input.max_keys)?;
        let prefix = input.prefix.as_deref().unwrap_or_default();
        let (after_key, after_version) = (input.key_marker.as_deref(), input.version_id_marker.as_deref());
        let state = self.store.state();
        let objects = &state.bucket(&input.bucket)?.objects;
        let items = objects.iter().flat_map(|(key, versions)| {
            let newest_first = versions.iter().rev();
            // Of the key where the last page ended, go on below the version where it ended.
            let skipped = match after_key {
                Some(after) if key.as_str() < after => versions.len(),
                Some(after) if key == after => after_version
                    .and_then(|id| versions.iter().rev().position(|version| version.id == id))
                    .map_or(versions.len(), |position| position + 1),
                Some(_) | None => 0,
            };
            newest_first
                .enumerate()
                .skip(skipped)
                .map(move |(place, version)| (key.as_str(), (place == 0, key, version)))
        });
        let Page { shown, truncated, last } =
            page(items, prefix, input.delimiter.as_deref(), limit, after_key);
        let last_version = match shown.last() {
            Some(Shown::Item((_, _, version))) => Some(version.id.clone()),
            Some(Shown::Common(_)) | None => None,
        };
        let (shown, common_prefixes) = split(shown, &encoding);
        let mut versions = Vec::new();
        let mut markers = Vec::new();
        for (is_latest, key, version) in shown {
            match &version.content {
                Some(content) => {
                    versions.push(object_version(encoding.name(key), version, content, is_latest))
                }
                None => markers.push(dto::DeleteMarkerEntry {
                    is_latest: Some(is_latest),
                    key: Some(encoding.name(key)),
                    last_modified: Some(timestamp(version.modified)),
                    version_id: Some(version.id.clone()),
                    ..Default::default()
                }),
            }
        }
        Ok(dto::ListObjectVersionsOutput {
            name: Some(input.bucket),
            prefix: Some(encoding.name(prefix)),
            delimiter: input.delimiter.map(|delimiter| encoding.name(&delimiter)),
            encoding_type: input.encoding_type,
            key_marker: input.key_marker,
            version_id_marker: input.version_id_marker,
            max_keys: Some(count(limit)),
            is_truncated: Some(truncated),
            next_key_marker: last.filter(|_| truncated),
            next_version_id_marker: last_version.filter(|_| truncated),
            versions: (!versions.is_empty()).then_some(versions),
            delete_markers: (!markers.is_empty()).then_some(markers),
            common_prefixes,
            ..Default::default()
        })
    }

    /// `ListMultipartUploads`: by key, and for one key in the order of creation.
    pub(super) async fn list_uploads(
        &self,
        request: S3Request<dto::ListMultipartUploadsInput>,
    ) -> S3Result<dto::ListMultipartUploadsOutput> {
        let input = request.input;
        let encoding = Encoding::new(input.encoding_type.as_ref());
        let limit = page_size(input.max_uploads)?;
        let prefix = input.prefix.as_deref().unwrap_or_default();
        let state = self.store.state();
        let mut uploads: Vec<&Upload> = state.bucket(&input.bucket)?.uploads.values().collect();
        uploads.sort_by(|a, b| (&a.key, a.sequence).cmp(&(&b.key, b.sequence)));
        let after_key = input.key_marker.as_deref();
        let after_upload = input
            .upload_id_marker
            .as_deref()
            .and_then(|id| uploads.iter().find(|upload| upload.id == id).map(|upload| upload.sequence));
        let items = uploads
            .iter()
            .filter(|upload| match (after_key, after_upload) {
                (None, _) => true,
                (Some(key), None) => upload.key.as_str() > key,
                (Some(key), Some(sequence)) => (upload.key.as_str(), upload.sequence) > (key, sequence),
            })
            .map(|upload| (upload.key.as_str(), *upload));
        let Page { shown, truncated, last } =
            page(items, prefix, input.delimiter.as_deref(), limit, after_key);
        let last_upload = match shown.last() {
            Some(Shown::Item(upload)) => Some(upload.id.clone()),
            Some(Shown::Common(_)) | None => None,
        };
        let (shown, common_prefixes) = split(shown, &encoding);
        let uploads = shown.into_iter().map(|upload| dto::MultipartUpload {
            key: Some(encoding.name(&upload.key)),
            upload_id: Some(upload.id.clone()),
            initiated: Some(timestamp(upload.initiated)),
            checksum_algorithm: upload.checksum.map(|(algorithm, _)| algorithm.name().to_owned().into()),
            checksum_type: upload.checksum.map(|(_, kind)| kind.name().to_owned().into()),
            storage_class: Some(dto::StorageClass::from_static(dto::StorageClass::STANDARD)),
            ..Default::default()
        });
        Ok(dto::ListMultipartUploadsOutput {
            bucket: Some(input.bucket),
            prefix: Some(encoding.name(prefix)),
            delimiter: input.delimiter.map(|delimiter| encoding.name(&delimiter)),
            encoding_type: input.encoding_type,
            key_marker: input.key_marker,
            upload_id_marker: input.upload_id_marker,
            max_uploads: Some(count(limit)),
            is_truncated: Some(truncated),
            next_key_marker: last.filter(|_| truncated),
            next_upload_id_marker: last_upload.filter(|_| truncated),
            uploads: Some(uploads.collect()),
            common_prefixes,
            ..Default::default()
        })
    }
}

fn object(key: String, version: &Version, content: &Content) -> dto::Object {
    dto::Object {
        key: Some(key),
        size: Some(signed(content.size)),
        e_tag: Some(etag(&content.etag)),
        last_modified: Some(timestamp(version.modified)),
        checksum_algorithm: Some(vec![content.checksum.algorithm.name().to_owned().into()]),
        checksum_type: Some(content.checksum.kind.name().to_owned().into()),
        storage_class: Some(dto::ObjectStorageClass::from_static(dto::ObjectStorageClass::STANDARD)),
        ..Default::default()
    }
}

fn object_version(key: String, version: &Version, content: &Content, is_latest: bool) -> dto::ObjectVersion {
    dto::ObjectVersion {
        key: Some(key),
        version_id: Some(version.id.clone()),
        is_latest: Some(is_latest),
        size: Some(signed(content.size)),
        e_tag: Some(etag(&content.etag)),
        last_modified: Some(timestamp(version.modified)),
        checksum_algorithm: Some(vec![content.checksum.algorithm.name().to_owned().into()]),
        checksum_type: Some(content.checksum.kind.name().to_owned().into()),
        storage_class: Some(dto::ObjectVersionStorageClass::from_static(
            dto::ObjectVersionStorageClass::STANDARD,
        )),
        ..Default::default()
    }
}

fn parse_token(token: &str) -> S3Result<String> {
    let invalid = || s3_error!(InvalidArgument, "The continuation token provided is incorrect");
    String::from_utf8(TOKEN.decode(token).map_err(|_error| invalid())?).map_err(|_error| invalid())
}
