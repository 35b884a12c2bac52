//! Operations on buckets.

use s3s::dto::{self, BucketVersioningStatus};
use s3s::{S3Request, S3Result, s3_error};

use super::{Service, timestamp};
use crate::s3::store::Versioning;

impl Service {
    pub(super) async fn all_buckets(
        &self,
        _request: S3Request<dto::ListBucketsInput>,
    ) -> S3Result<dto::ListBucketsOutput> {
        let state = self.store.state();
        let buckets = state.buckets.iter().map(|(name, bucket)| dto::Bucket {
            name: Some(name.clone()),
            creation_date: Some(timestamp(bucket.record.created)),
            bucket_region: Some(self.region.clone()),
        });
        Ok(dto::ListBucketsOutput { buckets: Some(buckets.collect()), ..Default::default() })
    }

    /// Making a bucket that is there already succeeds: all buckets are the one account's.
    pub(super) async fn make_bucket(
        &self,
        request: S3Request<dto::CreateBucketInput>,
    ) -> S3Result<dto::CreateBucketOutput> {
        let name = request.input.bucket;
        self.store.create_bucket(&name, Versioning::Off)?;
        Ok(dto::CreateBucketOutput { location: Some(format!("/{name}")) })
    }

    pub(super) async fn probe_bucket(
        &self,
        request: S3Request<dto::HeadBucketInput>,
    ) -> S3Result<dto::HeadBucketOutput> {
        self.store.state().bucket(&request.input.bucket)?;
        Ok(dto::HeadBucketOutput { bucket_region: Some(self.region.clone()), ..Default::default() })
    }

    pub(super) async fn remove_bucket(
        &self,
        request: S3Request<dto::DeleteBucketInput>,
    ) -> S3Result<dto::DeleteBucketOutput> {
        self.store.delete_bucket(&request.input.bucket)?;
        Ok(dto::DeleteBucketOutput::default())
    }

    /// Answers no constraint for `us-east-1`, as AWS does.
    pub(super) async fn bucket_location(
        &self,
        request: S3Request<dto::GetBucketLocationInput>,
    ) -> S3Result<dto::GetBucketLocationOutput> {
        self.store.state().bucket(&request.input.bucket)?;
        let constraint = (self.region != "us-east-1").then(|| self.region.clone().into());
        Ok(dto::GetBucketLocationOutput { location_constraint: constraint })
    }

    pub(super) async fn versioning(
        &self,
        request: S3Request<dto::GetBucketVersioningInput>,
    ) -> S3Result<dto::GetBucketVersioningOutput> {
        let status = match self.store.state().bucket(&request.input.bucket)?.record.versioning {
            Versioning::Off => None,
            Versioning::Enabled => Some(BucketVersioningStatus::ENABLED),
            Versioning::Suspended => Some(BucketVersioningStatus::SUSPENDED),
        };
        let status = status.map(BucketVersioningStatus::from_static);
        Ok(dto::GetBucketVersioningOutput { status, ..Default::default() })
    }

    pub(super) async fn set_versioning(
        &self,
        request: S3Request<dto::PutBucketVersioningInput>,
    ) -> S3Result<dto::PutBucketVersioningOutput> {
        let status = request.input.versioning_configuration.status;
        let versioning = match status.as_ref().map(BucketVersioningStatus::as_str) {
            Some(BucketVersioningStatus::ENABLED) => Versioning::Enabled,
            Some(BucketVersioningStatus::SUSPENDED) => Versioning::Suspended,
            _ => {
                return Err(s3_error!(
                    IllegalVersioningConfigurationException,
                    "The versioning status is not valid"
                ));
            }
        };
        self.store.set_versioning(&request.input.bucket, versioning)?;
        Ok(dto::PutBucketVersioningOutput::default())
    }
}
