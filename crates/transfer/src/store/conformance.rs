//! A suite that every implementation of the port has to pass: what the transfer relies on, one call after the other.

use bytes::Bytes;

use crate::store::{Crc64, MultipartStore, StoreError, StoreErrorKind, StoredPart, UploadRef, Whole};

/// The size of a part that is not the last one, in bytes: the least that S3 takes.
const PART: usize = 5 << 20;

/// What a store does otherwise than the transfer needs it, in words.
pub type Nonconformance = String;

/// Runs the suite in keys that start with `prefix`, which nothing else uses.
pub async fn run<S: MultipartStore>(store: &S, prefix: &str) -> Result<(), Nonconformance> {
    let suite = Suite { store, prefix };
    let with_checksums = suite.an_upload_becomes_an_object().await?;
    suite.a_part_can_be_replaced().await?;
    suite.a_key_is_written_once().await?;
    suite.an_aborted_upload_is_gone().await?;
    suite.what_is_missing_is_said_to_be().await?;
    if with_checksums {
        suite.wrong_checksums_are_refused().await?;
    }
    Ok(())
}

struct Suite<'a, S> {
    store: &'a S,
    prefix: &'a str,
}

impl<S: MultipartStore> Suite<'_, S> {
    /// Says whether the store computes checksums.
    async fn an_upload_becomes_an_object(&self) -> Result<bool, Nonconformance> {
        let key = self.key("object");
        let metadata = [("backup-id".to_owned(), "20261123T051400Z".to_owned())];
        let upload = done("create", self.store.create(&key, &metadata).await)?;
        same("the upload's key", &upload.key, &key)?;
        let bodies = [body(1, PART), body(2, PART + 17), body(3, 1000)];
        let mut parts = Vec::new();
        // The last one first: parts may arrive in any order.
        for number in [3, 1, 2] {
            parts.push(self.send(&upload, number, &bodies[number as usize - 1]).await?);
        }
        parts.sort_by_key(|part| part.number);
        let listed = done("list parts", self.store.list_parts(&upload).await)?;
        same("the parts' numbers and sizes", &sizes(&listed), &sizes(&parts))?;
        let with_checksums = parts.iter().all(|part| part.crc64nvme.is_some());
        for (part, body) in listed.iter().zip(&bodies) {
            let crc = Some(Crc64::of(body)).filter(|_| with_checksums);
            same("the checksum of a listed part", &part.crc64nvme, &crc)?;
        }
        let pending = done("list uploads", self.store.list_uploads(self.prefix).await)?;
        same("the upload is listed", &pending.iter().filter(|p| p.upload == upload).count(), &1)?;
        let elsewhere = done("list uploads", self.store.list_uploads(&self.key("other")).await)?;
        same("the upload is listed under its own prefix only", &elsewhere.len(), &0)?;
        same("there is no object yet", &done("head", self.store.head(&key, None).await)?.is_some(), &false)?;

        let object = bodies.concat();
        let whole = Whole {
            size: object.len() as u64,
            crc64nvme: Crc64::of(&object),
            checked_by_store: with_checksums,
        };
        done("complete", self.store.complete(&upload, &listed, whole).await)?;
        let info = done("head", self.store.head(&key, None).await)?.ok_or("there is no object after all")?;
        same("the object's size", &info.size, &whole.size)?;
        same("the object's checksum", &info.crc64nvme, &Some(whole.crc64nvme).filter(|_| with_checksums))?;
        let kept = info
            .metadata
            .iter()
            .any(|(name, value)| name.eq_ignore_ascii_case("backup-id") && *value == metadata[0].1);
        same("the metadata is kept", &kept, &true)?;
        let pending = done("list uploads", self.store.list_uploads(self.prefix).await)?;
        same("the upload is no longer listed", &pending.iter().any(|p| p.upload == upload), &false)?;

        let (version, etag) = (info.version_id.as_deref(), info.etag.as_deref());
        let end = whole.size;
        let mut read = Vec::new();
        for range in [0..end, 0..1, end - 1..end, PART as u64 - 3..PART as u64 + 3, 7..7] {
            for (version, etag) in [(None, None), (version, None), (version, etag)] {
                let got = self.store.get_range(&key, version, etag, range.clone(), &mut read).await;
                done("read a range", got)?;
                let expected = usize::try_from(range.start).ok().zip(usize::try_from(range.end).ok());
                let expected = expected.and_then(|(start, end)| object.get(start..end));
                same("the bytes of a range", &Some(read.as_slice()), &expected)?;
            }
        }
        for range in [end..end + 1, end - 1..end + 1, end + 10..end + 20] {
            let got = self.store.get_range(&key, None, None, range, &mut read).await;
            refused("a range behind the end", got, StoreErrorKind::OutOfRange)?;
        }
        let got = self
            .store
            .get_range(&key, None, Some("\"00000000000000000000000000000000\""), 0..1, &mut read)
            .await;
        refused("a range of another object", got, StoreErrorKind::PreconditionFailed)?;
        Ok(with_checksums)
    }

    async fn a_part_can_be_replaced(&self) -> Result<(), Nonconformance> {
        let key = self.key("replaced");
        let upload = done("create", self.store.create(&key, &[]).await)?;
        self.send(&upload, 1, &body(4, 2000)).await?;
        let last = body(5, 1500);
        let part = self.send(&upload, 1, &last).await?;
        let listed = done("list parts", self.store.list_parts(&upload).await)?;
        same("only the last version of a part counts", &sizes(&listed), &vec![(1, 1500)])?;
        let whole =
            Whole { size: 1500, crc64nvme: Crc64::of(&last), checked_by_store: part.crc64nvme.is_some() };
        done("complete", self.store.complete(&upload, &listed, whole).await)?;
        let mut read = Vec::new();
        done("read a range", self.store.get_range(&key, None, None, 0..1500, &mut read).await)?;
        same("the object's bytes", &read.as_slice(), &last.as_ref())
    }

    async fn a_key_is_written_once(&self) -> Result<(), Nonconformance> {
        let key = self.key("once");
        for (turn, len) in [(0, 300), (1, 400)] {
            let upload = done("create", self.store.create(&key, &[]).await)?;
            let body = body(6, len);
            let part = self.send(&upload, 1, &body).await?;
            let checked_by_store = part.crc64nvme.is_some();
            let whole = Whole { size: len as u64, crc64nvme: Crc64::of(&body), checked_by_store };
            let completed = self.store.complete(&upload, &[part], whole).await;
            if turn == 0 {
                done("complete", completed)?;
            } else {
                refused("to complete over an object", completed, StoreErrorKind::PreconditionFailed)?;
                done("abort", self.store.abort(&upload).await)?;
            }
        }
        let info = done("head", self.store.head(&key, None).await)?.ok_or("the first object is gone")?;
        same("the first object stays", &info.size, &300)
    }

    async fn an_aborted_upload_is_gone(&self) -> Result<(), Nonconformance> {
        let key = self.key("aborted");
        let upload = done("create", self.store.create(&key, &[]).await)?;
        let body = body(7, 100);
        let part = self.send(&upload, 1, &body).await?;
        done("abort", self.store.abort(&upload).await)?;
        let gone = StoreErrorKind::NoSuchUpload;
        refused("to list the parts of an aborted upload", self.store.list_parts(&upload).await, gone)?;
        let sent = self.store.upload_part(&upload, 1, body.clone(), Crc64::of(&body)).await;
        refused("a part of an aborted upload", sent, gone)?;
        let whole =
            Whole { size: 100, crc64nvme: Crc64::of(&body), checked_by_store: part.crc64nvme.is_some() };
        refused("to complete an aborted upload", self.store.complete(&upload, &[part], whole).await, gone)?;
        same("there is no object", &done("head", self.store.head(&key, None).await)?.is_some(), &false)
    }

    async fn what_is_missing_is_said_to_be(&self) -> Result<(), Nonconformance> {
        let key = self.key("missing");
        same("there is no object", &done("head", self.store.head(&key, None).await)?.is_some(), &false)?;
        let got = self.store.get_range(&key, None, None, 0..1, &mut Vec::new()).await;
        refused("a range of nothing", got, StoreErrorKind::NoSuchKey)
    }

    async fn wrong_checksums_are_refused(&self) -> Result<(), Nonconformance> {
        let key = self.key("checked");
        let upload = done("create", self.store.create(&key, &[]).await)?;
        let body = body(8, 5000);
        let wrong = Crc64(Crc64::of(&body).0 ^ 1);
        let sent = self.store.upload_part(&upload, 1, body.clone(), wrong).await;
        refused("a part with a wrong checksum", sent, StoreErrorKind::BadDigest)?;
        let part = self.send(&upload, 1, &body).await?;
        for (size, crc64nvme) in [(5000, wrong), (5001, Crc64::of(&body))] {
            let whole = Whole { size, crc64nvme, checked_by_store: true };
            match self.store.complete(&upload, std::slice::from_ref(&part), whole).await {
                Ok(()) => {
                    return Err(format!("an object of {size} bytes with checksum {crc64nvme} is accepted"));
                }
                Err(error) if error.kind.is_transient() && error.kind != StoreErrorKind::BadDigest => {
                    return Err(format!("a wrong whole is not refused but: {error}"));
                }
                Err(_) => {}
            }
        }
        done("abort", self.store.abort(&upload).await)
    }

    async fn send(
        &self,
        upload: &UploadRef,
        number: u32,
        body: &Bytes,
    ) -> Result<StoredPart, Nonconformance> {
        let crc = Crc64::of(body);
        let part = done("upload a part", self.store.upload_part(upload, number, body.clone(), crc).await)?;
        same("the part's number and size", &(part.number, part.size), &(number, body.len() as u64))?;
        match part.crc64nvme {
            Some(stored) => same("the part's checksum", &stored, &crc)?,
            None => tracing::debug!("the store computes no checksum"),
        }
        Ok(part)
    }

    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }
}

fn sizes(parts: &[StoredPart]) -> Vec<(u32, u64)> {
    parts.iter().map(|part| (part.number, part.size)).collect()
}

fn body(seed: u8, len: usize) -> Bytes {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut bytes);
    bytes.into()
}

fn done<T>(what: &str, result: Result<T, StoreError>) -> Result<T, Nonconformance> {
    result.map_err(|error| format!("{what}: {error}"))
}

fn refused<T>(what: &str, result: Result<T, StoreError>, kind: StoreErrorKind) -> Result<(), Nonconformance> {
    match result {
        Ok(_) => Err(format!("{what} is accepted")),
        Err(error) if error.kind == kind => Ok(()),
        Err(error) => Err(format!("{what} is refused as {:?}, not {kind:?}: {error}", error.kind)),
    }
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, found: &T, expected: &T) -> Result<(), Nonconformance> {
    if found == expected {
        return Ok(());
    }
    // Bodies of megabytes help nobody.
    let brief = |value: &T| format!("{value:?}").chars().take(200).collect::<String>();
    Err(format!("{what}: {} instead of {}", brief(found), brief(expected)))
}
