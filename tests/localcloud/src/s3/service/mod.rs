//! The operations of S3, between the wire (`s3s`) and the [`Store`].

mod bucket;
mod listing;
mod multipart;
mod object;
mod reading;

use std::sync::Arc;

use s3s::auth::{S3Auth, SecretKey};
use s3s::dto::{self, Timestamp};
use s3s::{S3, S3Error, S3Request, S3Response, S3Result, s3_error};

use super::fault::Faults;
use super::store::{Encryption, Store};

/// The one account of the server.
#[derive(Debug, Clone)]
pub(crate) struct Account {
    pub(crate) access_key: String,
    pub(crate) secret_key: String,
    pub(crate) region: String,
}

#[async_trait::async_trait]
impl S3Auth for Account {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        if access_key == self.access_key {
            return Ok(SecretKey::from(self.secret_key.as_str()));
        }
        Err(s3_error!(
            InvalidAccessKeyId,
            "The AWS Access Key Id you provided does not exist in our records."
        ))
    }
}

/// The operations over one store.
#[derive(Debug)]
pub(crate) struct Service {
    store: Arc<Store>,
    faults: Arc<Faults>,
    region: String,
}

impl Service {
    pub(crate) fn new(store: Arc<Store>, faults: Arc<Faults>, region: String) -> Self {
        Self { store, faults, region }
    }

    /// What is said about the encryption of an object whose writer asked for this.
    fn encryption(
        &self,
        algorithm: Option<&dto::ServerSideEncryption>,
        key_id: Option<&str>,
        bucket_key: Option<bool>,
    ) -> S3Result<Encryption> {
        match algorithm.map(dto::ServerSideEncryption::as_str) {
            None | Some(dto::ServerSideEncryption::AES256) if key_id.is_none() => Ok(Encryption::default()),
            Some(
                algorithm @ (dto::ServerSideEncryption::AWS_KMS | dto::ServerSideEncryption::AWS_KMS_DSSE),
            ) => {
                let managed = || format!("arn:aws:kms:{}:000000000000:key/aws-managed-s3", self.region);
                Ok(Encryption {
                    algorithm: algorithm.to_owned(),
                    key_id: Some(key_id.map_or_else(managed, str::to_owned)),
                    bucket_key,
                })
            }
            _ => Err(s3_error!(
                InvalidArgument,
                "Server Side Encryption with AWS KMS managed key requires HTTP header x-amz-server-side-encryption : aws:kms"
            )),
        }
    }
}

/// Collects what a `PutObject` or a `CreateMultipartUpload` says about the object.
macro_rules! attributes {
    ($service:expr, $input:expr) => {
        $crate::s3::store::Attributes {
            content_type: $input.content_type.clone(),
            content_encoding: $input.content_encoding.clone(),
            content_disposition: $input.content_disposition.clone(),
            content_language: $input.content_language.clone(),
            cache_control: $input.cache_control.clone(),
            metadata: $input.metadata.clone().unwrap_or_default().into_iter().collect(),
            encryption: $service.encryption(
                $input.server_side_encryption.as_ref(),
                $input.ssekms_key_id.as_deref(),
                $input.bucket_key_enabled,
            )?,
        }
    };
}
use attributes;

/// Sets what a reply says about the encryption.
macro_rules! report_encryption {
    ($output:expr, $attributes:expr) => {{
        let encryption = &$attributes.encryption;
        $output.server_side_encryption =
            Some(s3s::dto::ServerSideEncryption::from(encryption.algorithm.clone()));
        $output.ssekms_key_id.clone_from(&encryption.key_id);
        $output.bucket_key_enabled = encryption.bucket_key;
    }};
}
use report_encryption;

/// A size as the API's structures hold it.
fn signed(size: u64) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

/// A count as the API's structures hold it.
fn count(items: usize) -> i32 {
    i32::try_from(items).unwrap_or(i32::MAX)
}

/// A limit on the items of one page: at most 1000, as in S3.
fn page_size(asked: Option<i32>) -> S3Result<usize> {
    match usize::try_from(asked.unwrap_or(1000)) {
        Ok(limit) => Ok(limit.min(1000)),
        Err(_) => Err(s3_error!(InvalidArgument, "Argument must be an integer between 0 and 2147483647")),
    }
}

fn timestamp(time: jiff::Timestamp) -> Timestamp {
    Timestamp::from(std::time::SystemTime::from(time))
}

fn part_number(number: i32) -> S3Result<u32> {
    match u32::try_from(number) {
        Ok(number @ 1..=10_000) => Ok(number),
        Ok(_) | Err(_) => {
            Err(s3_error!(InvalidArgument, "Part number must be an integer between 1 and 10000, inclusive"))
        }
    }
}

fn internal(error: impl std::error::Error + Send + Sync + 'static) -> S3Error {
    S3Error::internal_error(error)
}

/// Binds each operation of the trait to the method of `Service` that carries it out.
macro_rules! operations {
    ($($operation:ident = $method:ident: $input:ident => $output:ident),+ $(,)?) => {
        #[async_trait::async_trait]
        impl S3 for Service {
            $(
                async fn $operation(&self, request: S3Request<dto::$input>) -> S3Result<S3Response<dto::$output>> {
                    self.$method(request).await.map(S3Response::new)
                }
            )+
        }
    };
}

operations! {
    list_buckets = all_buckets: ListBucketsInput => ListBucketsOutput,
    create_bucket = make_bucket: CreateBucketInput => CreateBucketOutput,
    head_bucket = probe_bucket: HeadBucketInput => HeadBucketOutput,
    delete_bucket = remove_bucket: DeleteBucketInput => DeleteBucketOutput,
    get_bucket_location = bucket_location: GetBucketLocationInput => GetBucketLocationOutput,
    get_bucket_versioning = versioning: GetBucketVersioningInput => GetBucketVersioningOutput,
    put_bucket_versioning = set_versioning: PutBucketVersioningInput => PutBucketVersioningOutput,
    list_objects = list: ListObjectsInput => ListObjectsOutput,
    list_objects_v2 = list_v2: ListObjectsV2Input => ListObjectsV2Output,
    list_object_versions = list_versions: ListObjectVersionsInput => ListObjectVersionsOutput,
    list_multipart_uploads = list_uploads: ListMultipartUploadsInput => ListMultipartUploadsOutput,
    put_object = put: PutObjectInput => PutObjectOutput,
    get_object = get: GetObjectInput => GetObjectOutput,
    head_object = head: HeadObjectInput => HeadObjectOutput,
    get_object_attributes = describe: GetObjectAttributesInput => GetObjectAttributesOutput,
    delete_object = delete: DeleteObjectInput => DeleteObjectOutput,
    delete_objects = delete_many: DeleteObjectsInput => DeleteObjectsOutput,
    create_multipart_upload = create_upload: CreateMultipartUploadInput => CreateMultipartUploadOutput,
    upload_part = put_part: UploadPartInput => UploadPartOutput,
    list_parts = parts: ListPartsInput => ListPartsOutput,
    complete_multipart_upload = complete: CompleteMultipartUploadInput => CompleteMultipartUploadOutput,
    abort_multipart_upload = abort: AbortMultipartUploadInput => AbortMultipartUploadOutput,
}
