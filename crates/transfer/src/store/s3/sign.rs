//! What a part's signature says of its payload.

use aws_runtime::auth::PayloadSigningOverride;
use aws_sdk_s3::{
    config::{ConfigBag, Intercept, RuntimeComponents, interceptors::BeforeTransmitInterceptorContextMut},
    error::BoxError,
};
use bytes::Bytes;
use sha2::{Digest, Sha256};

/// The payload as the signature has it.
#[derive(Clone, Debug)]
pub(super) enum Payload {
    /// Not at all.
    Unsigned,
    /// By its SHA-256, in hexadecimal.
    Sha256(String),
}

impl Payload {
    /// Hashes `body` where it holds up nobody.
    pub(super) async fn hashed(body: &Bytes) -> Self {
        let bytes = body.clone();
        let hash = tokio::task::spawn_blocking(move || Sha256::digest(&bytes)).await;
        // A hash that cannot be had on another thread is had on this one.
        let hash = hash.unwrap_or_else(|_gone| Sha256::digest(body));
        Self::Sha256(hex::encode(hash))
    }
}

impl Intercept for Payload {
    fn name(&self) -> &'static str {
        "Payload"
    }

    fn modify_before_signing(
        &self,
        _context: &mut BeforeTransmitInterceptorContextMut<'_>,
        _components: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        config.interceptor_state().store_put(match self {
            Self::Unsigned => PayloadSigningOverride::UnsignedPayload,
            Self::Sha256(hash) => PayloadSigningOverride::Precomputed(hash.clone()),
        });
        Ok(())
    }
}
