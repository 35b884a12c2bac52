//! Restoring: what is written where, and what is left when it fails.

use std::{os::unix::fs::MetadataExt, path::Path, time::Duration};

use protocol::FailureKind;
use transfer::{
    Error, ReadOptions, Threads, restore_entries,
    store::{Call, Effect, Fault, StoreErrorKind},
};

use crate::support::{KEY, Stored, listing, read_options};

const ANY_RANGE: Call = Call::GetRange(0..0);

fn fault(after: u32, times: u32, effect: Effect) -> Fault {
    Fault { call: ANY_RANGE, after, times, effect }
}

#[tokio::test]
async fn chosen_entries_go_to_chosen_files_and_nothing_else_is_read() {
    let (tree, stored) = Stored::typical().await;
    let folder = tempfile::tempdir().unwrap();
    let wanted = [(3, folder.path().join("empty")), (1, folder.path().join("images"))];
    stored.store.take_calls();
    let restored = restore_entries(&stored.store, stored.reference(), &stored.index, &wanted, read_options())
        .await
        .unwrap();
    assert_eq!(listing(folder.path()), ["empty", "images"]);
    assert_eq!(fs_err::read(&wanted[1].1).unwrap(), tree.entries[1].1);
    assert_eq!(fs_err::read(&wanted[0].1).unwrap(), b"");
    assert_eq!(restored.raw_bytes, 400_001);
    let entry = &stored.archive.entries[1];
    let frames = usize::try_from(entry.first_frame).unwrap()..usize::try_from(entry.first_frame).unwrap() + 7;
    let bytes: u64 = stored.index.frames[frames].iter().map(|frame| u64::from(frame.compressed_len)).sum();
    assert_eq!(restored.object_bytes, bytes);
    assert_eq!(stored.store.take_calls()[0], Call::Head);
}

#[tokio::test]
async fn zeros_become_holes() {
    let (_, stored) = Stored::typical().await;
    let folder = tempfile::tempdir().unwrap();
    stored.restore_all(folder.path()).await.unwrap();
    let sparse = fs_err::metadata(folder.path().join("2")).unwrap();
    assert_eq!(sparse.len(), 300_000);
    assert!(sparse.blocks() * 512 <= 8192, "{} blocks", sparse.blocks());
}

#[tokio::test]
async fn what_is_there_is_never_overwritten() {
    let (_, stored) = Stored::typical().await;
    let folder = tempfile::tempdir().unwrap();
    fs_err::write(folder.path().join("2"), "mine").unwrap();
    let error = stored.restore_all(folder.path()).await.unwrap_err();
    assert!(matches!(&error, Error::TargetExists { path } if path.ends_with("2")), "{error:?}");
    assert_eq!(error.kind(), FailureKind::RestoreFailed);
    assert_eq!(listing(folder.path()), ["2"]);
    assert_eq!(fs_err::read(folder.path().join("2")).unwrap(), b"mine");
    // A dangling link is something, too.
    let folder = tempfile::tempdir().unwrap();
    fs_err::os::unix::fs::symlink("/nowhere/at/all", folder.path().join("0")).unwrap();
    assert!(matches!(stored.restore_all(folder.path()).await.unwrap_err(), Error::TargetExists { .. }));
}

#[tokio::test]
async fn leftovers_of_a_killed_restore_are_replaced() {
    let (tree, stored) = Stored::typical().await;
    let folder = tempfile::tempdir().unwrap();
    fs_err::write(folder.path().join("0.partial"), vec![7; 3_000_000]).unwrap();
    let elsewhere = folder.path().join("elsewhere");
    fs_err::write(&elsewhere, "mine").unwrap();
    fs_err::os::unix::fs::symlink(&elsewhere, folder.path().join("1.partial")).unwrap();
    stored.restore_all(folder.path()).await.unwrap();
    assert_eq!(fs_err::read(folder.path().join("0")).unwrap(), tree.entries[0].1);
    assert_eq!(fs_err::read(&elsewhere).unwrap(), b"mine", "nothing is written through a link");
}

#[tokio::test]
async fn ranges_that_fail_are_read_again() {
    let (tree, stored) = Stored::typical().await;
    for effect in
        [Effect::Fail(StoreErrorKind::Transient), Effect::Fail(StoreErrorKind::Throttled), Effect::LoseReply]
    {
        stored.store.fault(fault(3, 4, effect));
        let folder = tempfile::tempdir().unwrap();
        let options = read_options();
        let progress = options.progress.clone();
        stored.restore_all_with(folder.path(), options).await.unwrap();
        assert_eq!(progress.retries(), 4);
        assert_eq!(fs_err::read(folder.path().join("0")).unwrap(), tree.entries[0].1);
    }
}

#[tokio::test]
async fn what_cannot_be_read_leaves_nothing() {
    for (effect, kind) in [
        (Effect::Fail(StoreErrorKind::Transient), FailureKind::StoreUnavailable),
        (Effect::Fail(StoreErrorKind::AccessDenied), FailureKind::StoreUnavailable),
        (Effect::Fail(StoreErrorKind::PreconditionFailed), FailureKind::DownloadFailed),
        (Effect::FlipByte, FailureKind::ArchiveCorrupt),
    ] {
        for threads in [Threads::PerCore, Threads::Inline] {
            let (_, stored) = Stored::typical().await;
            stored.store.fault(fault(5, 1000, effect));
            let folder = tempfile::tempdir().unwrap();
            let options = ReadOptions { threads, ..read_options() };
            let error = stored.restore_all_with(folder.path(), options).await.unwrap_err();
            assert_eq!(error.kind(), kind, "{error:?}");
            assert_eq!(listing(folder.path()), [""; 0]);
        }
    }
}

#[tokio::test]
async fn a_missing_or_other_object() {
    let (_, stored) = Stored::typical().await;
    let folder = tempfile::tempdir().unwrap();
    let wanted = [(0, folder.path().join("a"))];
    for (key, version_id) in [("qdrant/backups/other", None), (KEY, Some("v2"))] {
        let reference = transfer::ArchiveRef { key, version_id, ..stored.reference() };
        let error = restore_entries(&stored.store, reference, &stored.index, &wanted, read_options())
            .await
            .unwrap_err();
        assert!(matches!(error, Error::ObjectMissing { .. }), "{error:?}");
        assert_eq!(error.kind(), FailureKind::ManifestMissing);
    }
    let pinned = transfer::ArchiveRef { version_id: Some("v1"), ..stored.reference() };
    restore_entries(&stored.store, pinned, &stored.index, &wanted, read_options()).await.unwrap();
}

#[tokio::test]
async fn wishes_that_make_no_sense() {
    let (_, stored) = Stored::typical().await;
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    for wanted in
        [vec![(5, path("a"))], vec![(0, path("a")), (0, path("b"))], vec![(0, path("a")), (1, path("a"))]]
    {
        let result =
            restore_entries(&stored.store, stored.reference(), &stored.index, &wanted, read_options());
        let error = result.await.unwrap_err();
        assert!(matches!(error, Error::Wanted { .. }), "{error:?}");
    }
    let missing = [(0, path("no/such/folder/a"))];
    let error = restore_entries(&stored.store, stored.reference(), &stored.index, &missing, read_options())
        .await
        .unwrap_err();
    assert!(matches!(error, Error::TargetWrite { .. }), "{error:?}");
    let small = ReadOptions { memory_budget_bytes: 1000, ..read_options() };
    let error = stored.restore_all_with(folder.path(), small).await.unwrap_err();
    assert_eq!(error.kind(), FailureKind::ConfigInvalid, "{error}");
    let none =
        restore_entries(&stored.store, stored.reference(), &stored.index, &[], read_options()).await.unwrap();
    assert_eq!((none.raw_bytes, none.object_bytes), (0, 0));
    assert_eq!(listing(folder.path()), [""; 0]);
}

#[tokio::test]
async fn a_request_to_stop_or_a_dropped_restore_leaves_nothing() {
    async fn until_empty(folder: &Path) {
        for _ in 0..200 {
            if listing(folder).is_empty() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{:?} stays", listing(folder));
    }
    let (_, stored) = Stored::typical().await;
    stored.store.fault(fault(4, 1000, Effect::Hang));
    let folder = tempfile::tempdir().unwrap();
    let options = read_options();
    let cancel = options.cancel.clone();
    let stopping = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(listing(folder.path()).len(), 5);
        cancel.cancel();
    };
    let (result, ()) = tokio::join!(stored.restore_all_with(folder.path(), options), stopping);
    assert_eq!(result.unwrap_err().kind(), FailureKind::Cancelled);
    assert_eq!(listing(folder.path()), [""; 0]);

    let dropped = stored.restore_all(folder.path());
    assert!(tokio::time::timeout(Duration::from_millis(200), dropped).await.is_err());
    until_empty(folder.path()).await;
}

#[test]
fn a_full_disk_is_named() {
    // ENOSPC, EDQUOT and EFBIG, as Linux numbers them.
    for code in [28, 122, 27] {
        let source = std::io::Error::from_raw_os_error(code);
        let error = Error::TargetWrite { path: "/data/a".into(), source };
        assert_eq!(error.kind(), FailureKind::LowDisk);
        assert!(error.hint().unwrap().contains("free space"));
    }
}
