use std::time::Duration;

use protocol::manifest::Archive;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    layout::EntrySpec,
    store::Memory,
    upload::{Content, Geometry, Source, Threads, UploadOptions, upload},
};

const FRAME: u32 = 16 << 10;
const KEY: &str = "archive";

/// Checks an archive of forty ranges with two buffers for them and a hash that is slower than all else.
async fn check_slowly(pause: Duration, cancel: CancellationToken) -> Result<Check, Error> {
    let store = Memory::default();
    let geometry = Geometry { frame_raw_max: FRAME, part_size: Some(256 << 10), range_size: FRAME.into() };
    let mut bytes = vec![0; 40 * FRAME as usize];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    let entry = EntrySpec { name: "a".into(), size: bytes.len() as u64 };
    let source = Source { entry, content: Content::Bytes(bytes.into()), expected_sha256: None };
    let options = UploadOptions { geometry, ..UploadOptions::new(16 << 20) };
    let uploaded = upload(&store, KEY, vec![source], options).await.unwrap();
    let archive = Archive {
        raw_bytes: uploaded.raw_bytes,
        frame_count: uploaded.index.frames.len() as u64,
        frames_root: uploaded.index.root_hex(),
        golden_sha256: String::new(),
        entries: uploaded.entries.clone(),
    };
    let reference = ArchiveRef {
        key: KEY,
        version_id: None,
        size_bytes: uploaded.size_bytes,
        sha256: &uploaded.sha256,
        crc64nvme: &uploaded.crc64nvme,
        archive: &archive,
    };
    let options = ReadOptions {
        geometry,
        threads: Threads::Count(1),
        concurrency: Some(1),
        cancel,
        ..ReadOptions::new(16 << 20)
    };
    let mut hasher = WholeHasher::new();
    hasher.pause = pause;
    check_with(&store, reference, &uploaded.index, options, hasher).await
}

#[tokio::test]
async fn hashing_may_be_slower_than_checking() {
    let check = check_slowly(Duration::from_millis(5), CancellationToken::new()).await.unwrap();
    assert!(check.is_whole(), "{:?}", check.findings);
    assert_eq!((check.frames_good, check.frames_total), (42, 42));
}

#[tokio::test]
async fn what_is_queued_is_left_when_asked_to_stop() {
    let cancel = CancellationToken::new();
    let started = Instant::now();
    let stopping = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        cancel.cancel();
    };
    let (result, ()) = tokio::join!(check_slowly(Duration::from_millis(500), cancel.clone()), stopping);
    assert!(matches!(result, Err(Error::Cancelled)), "{result:?}");
    assert!(started.elapsed() < Duration::from_secs(4));
}
