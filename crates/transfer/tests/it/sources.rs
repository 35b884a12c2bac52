//! Sources that are not, or do not stay, what was announced.

use std::{io::Write, path::Path, time::Duration};

use protocol::FailureKind;
use transfer::{
    Content, EntrySpec, Error, RetryPolicy, Source, UploadOptions,
    store::{Call, Effect, Fault, Memory, StoreErrorKind},
    upload,
};

use crate::support::{KEY, Tree, noise, retry, upload_options};

fn tree() -> Tree {
    Tree::new([("snapshots/a/a.snapshot", noise(1, 2_000_000)), ("backup.json", b"{}".to_vec())])
}

/// Uploads while `call` fails for half a second and `change` is done to the source meanwhile.
async fn change_during(call: Call, change: impl FnOnce(&Path)) -> Error {
    let (tree, store) = (tree(), Memory::default());
    store.fault(Fault {
        call: call.clone(),
        after: 0,
        times: 4,
        effect: Effect::Fail(StoreErrorKind::Transient),
    });
    let wait = Duration::from_millis(400);
    // One thread and one part at a time: most of the source is still unread when the first part is sent.
    let options = UploadOptions {
        memory_budget_bytes: 2_500_000,
        concurrency: Some(1),
        retry: RetryPolicy { attempts: 5, base: wait, cap: wait },
        ..upload_options()
    };
    let changing = async {
        let mut calls = Vec::new();
        for _ in 0..200 {
            calls.extend(store.take_calls());
            if calls.contains(&call) {
                tokio::time::sleep(Duration::from_millis(50)).await;
                return change(&tree.file(0));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("{call:?} was not made: {calls:?}");
    };
    let (result, ()) = tokio::join!(upload(&store, KEY, tree.sources(), options), changing);
    assert!(store.object(KEY).is_none() && store.pending() == 0);
    result.unwrap_err()
}

fn append(path: &Path) {
    fs_err::OpenOptions::new().append(true).open(path).unwrap().write_all(b"more").unwrap();
}

fn truncate(path: &Path) {
    fs_err::OpenOptions::new().write(true).open(path).unwrap().set_len(1_000_000).unwrap();
}

fn rewrite(path: &Path) {
    fs_err::write(path, noise(2, 2_000_000)).unwrap();
}

fn replace(path: &Path) {
    let other = path.with_extension("new");
    fs_err::write(&other, noise(1, 2_000_000)).unwrap();
    fs_err::rename(other, path).unwrap();
}

#[tokio::test]
async fn a_source_that_changes_before_it_is_opened() {
    let error = change_during(Call::Create, |path| fs_err::remove_file(path).unwrap()).await;
    assert!(matches!(&error, Error::SourceOpen { .. }), "{error:?}");
    assert_eq!(error.kind(), FailureKind::SnapshotFailed);
    assert!(error.hint().unwrap().contains("snapshot"));
    for (change, what) in [
        (truncate as fn(&Path), "it had 2000000 bytes and has 1000000"),
        (append, "it had 2000000 bytes and has 2000004"),
        (rewrite, "it was written to"),
        (replace, "another file has its name"),
    ] {
        let error = change_during(Call::Create, change).await;
        assert!(matches!(&error, Error::SourceChanged { what: found, .. } if found == what), "{error:?}");
        assert_eq!(error.kind(), FailureKind::SnapshotFailed);
    }
}

#[test]
fn a_source_that_may_not_be_read_is_a_matter_of_configuration() {
    let source = std::io::ErrorKind::PermissionDenied.into();
    let error = Error::SourceOpen { path: "/qdrant/snapshots/a".into(), source };
    assert_eq!(error.kind(), FailureKind::ConfigInvalid);
    assert!(error.hint().unwrap().contains("as root or as that user"));
}

#[tokio::test]
async fn a_source_that_changes_while_it_is_read() {
    for (change, what) in [
        (truncate as fn(&Path), "it ends at byte 1000000"),
        (append, "it had 2000000 bytes and has 2000004"),
        (rewrite, "it was written to"),
    ] {
        let error = change_during(Call::UploadPart(1), change).await;
        assert!(
            matches!(&error, Error::SourceChanged { what: found, .. } if found == what),
            "{what}: {error:?}"
        );
    }
}

#[tokio::test]
async fn sources_that_are_not_as_announced_start_nothing() {
    let tree = tree();
    let spec = |size| EntrySpec { name: "a".into(), size };
    let file = |path, size| Source { entry: spec(size), content: Content::File(path), expected_sha256: None };
    let missing = tree.folder.path().join("missing");
    for (source, kind) in [
        (file(missing, 1), FailureKind::SnapshotFailed),
        (file(tree.file(0), 1), FailureKind::SnapshotFailed),
        (file(tree.folder.path().to_owned(), 4096), FailureKind::SnapshotFailed),
        (
            Source {
                entry: spec(3),
                content: Content::Bytes(b"four".as_slice().into()),
                expected_sha256: None,
            },
            FailureKind::SnapshotFailed,
        ),
        (
            Source { entry: EntrySpec { name: "../a".into(), size: 0 }, ..file(tree.file(0), 0) },
            FailureKind::Internal,
        ),
    ] {
        let store = Memory::default();
        let error = upload(&store, KEY, vec![source], upload_options()).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error:?}");
        assert_eq!(store.take_calls(), []);
    }
    let store = Memory::default();
    let error = upload(&store, KEY, Vec::new(), upload_options()).await.unwrap_err();
    assert!(matches!(error, Error::Plan { .. }));
    let options = UploadOptions { memory_budget_bytes: 100_000, retry: retry(), ..UploadOptions::new(0) };
    let error = upload(&store, KEY, tree.sources(), options).await.unwrap_err();
    assert_eq!(error.kind(), FailureKind::ConfigInvalid);
    assert!(error.to_string().starts_with("memory budget of 100000 bytes, but "), "{error}");
    assert_eq!(store.take_calls(), []);
}

#[tokio::test]
async fn a_source_with_another_checksum_is_never_completed() {
    for entry in [0, 1] {
        let (tree, store) = (tree(), Memory::default());
        let mut sources = tree.sources();
        sources[entry].expected_sha256 = Some([7; 32]);
        let error = upload(&store, KEY, sources, upload_options()).await.unwrap_err();
        let Error::SourceChecksum { entry: name, expected, .. } = &error else { panic!("{error:?}") };
        assert_eq!((name, expected), (&tree.entries[entry].0, &"07".repeat(32)));
        assert_eq!(error.kind(), FailureKind::ChecksumMismatch);
        assert!(store.object(KEY).is_none() && store.pending() == 0);
        assert!(!store.take_calls().contains(&Call::Complete));
    }
    // An empty entry has a checksum too.
    let empty = Tree::new([("empty", Vec::new()), ("backup.json", b"{}".to_vec())]);
    let mut sources = empty.sources();
    sources[0].expected_sha256 = Some([0; 32]);
    let error = upload(&Memory::default(), KEY, sources, upload_options()).await.unwrap_err();
    assert!(matches!(error, Error::SourceChecksum { .. }), "{error:?}");
}
