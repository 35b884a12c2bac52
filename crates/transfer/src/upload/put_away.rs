//! Uploads that will never be an object: found by their key or by a journal, and aborted, so that nobody pays for their parts.

use std::{path::Path, time::Duration};

use crate::{
    error::Error,
    retry::{RetryPolicy, retried},
    store::{MultipartStore, StoreError, StoreErrorKind, UploadRef},
    upload::{
        UploadOptions,
        journal::{self, Journaled},
    },
};

/// How long it may take to put an upload away before that is left to the bucket's lifecycle.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Aborts the upload that the journal at `path` tells of, and removes the journal. There may be neither.
///
/// An object that the upload has become is not touched. Where the store does not let it be aborted, the journal stays for the next one who
/// abandons it; an upload that is begun in its place leaves it to the bucket's lifecycle.
pub async fn abandon<S: MultipartStore>(store: &S, path: &Path, retry: RetryPolicy) {
    let options = UploadOptions { retry, ..UploadOptions::new(0) };
    match Journaled::read(path) {
        Ok(Some(journaled)) => put_away(store, path, &journaled, &options).await,
        Ok(None) => journal::remove(path),
        Err(error) => tracing::warn!(%error, "the journal of an earlier upload cannot be read"),
    }
}

/// Aborts what `journaled`, the journal at `path`, tells of, and removes the journal if that could be done.
pub(super) async fn put_away<S: MultipartStore>(
    store: &S,
    path: &Path,
    journaled: &Journaled,
    options: &UploadOptions,
) {
    let key = &journaled.identity.key;
    let aborted = match &journaled.upload_id {
        Some(upload_id) => {
            let upload = UploadRef { key: key.clone(), upload_id: upload_id.clone() };
            abort(store, &upload, options).await
        }
        None => abort_strays(store, key, None, options).await,
    };
    if aborted {
        journal::remove(path);
    }
}

/// The upload of `key` that the store has, if it has one. If it has several, the others are aborted.
pub(super) async fn adopt<S: MultipartStore>(
    store: &S,
    key: &str,
    options: &UploadOptions,
) -> Result<Option<UploadRef>, Error> {
    let listing = uploads_of(store, key, options);
    let listed = options.cancel.run_until_cancelled(listing).await.ok_or(Error::Cancelled)?;
    let mut listed = listed.map_err(|source| Error::Create { key: key.to_owned(), source })?;
    let adopted = listed.pop();
    for stray in listed {
        let aborting = abort(store, &stray, options);
        options.cancel.run_until_cancelled(aborting).await.ok_or(Error::Cancelled)?;
    }
    Ok(adopted)
}

/// Aborts the uploads of `key` but `ours`: those whose start was not answered. They would be kept, and paid for, until the
/// bucket's lifecycle drops them. Says whether none is left.
pub(super) async fn abort_strays<S: MultipartStore>(
    store: &S,
    key: &str,
    ours: Option<&UploadRef>,
    options: &UploadOptions,
) -> bool {
    match tokio::time::timeout(TIMEOUT, uploads_of(store, key, options)).await {
        Ok(Ok(uploads)) => {
            let mut aborted = true;
            for stray in uploads.iter().filter(|upload| Some(*upload) != ours) {
                aborted &= abort(store, stray, options).await;
            }
            aborted
        }
        Ok(Err(error)) => {
            tracing::warn!(key, %error, "cannot look for uploads whose start was not answered");
            false
        }
        Err(_) => {
            tracing::warn!(key, "looking for uploads whose start was not answered takes too long");
            false
        }
    }
}

/// Aborts an upload, more than once if need be, within a time limit. Says whether it is gone.
pub(super) async fn abort<S: MultipartStore>(store: &S, upload: &UploadRef, options: &UploadOptions) -> bool {
    let what = format!("abort {}", upload.key);
    let aborting = retried(options.retry, &options.progress, what, || async {
        match store.abort(upload).await {
            Err(error) if error.kind == StoreErrorKind::NoSuchUpload => Ok(()),
            result => result,
        }
    });
    match tokio::time::timeout(TIMEOUT, aborting).await {
        Ok(Ok(())) => {
            tracing::info!(key = upload.key, "the upload is aborted");
            true
        }
        Ok(Err(error)) => {
            tracing::warn!(key = upload.key, upload.upload_id, %error, "the upload cannot be aborted and keeps its parts");
            false
        }
        Err(_) => {
            tracing::warn!(
                key = upload.key,
                upload.upload_id,
                "aborting the upload takes too long; it keeps its parts"
            );
            false
        }
    }
}

async fn uploads_of<S: MultipartStore>(
    store: &S,
    key: &str,
    options: &UploadOptions,
) -> Result<Vec<UploadRef>, StoreError> {
    let what = format!("list the uploads of {key}");
    let pending = retried(options.retry, &options.progress, what, || store.list_uploads(key)).await?;
    Ok(pending.into_iter().map(|pending| pending.upload).filter(|upload| upload.key == key).collect())
}
