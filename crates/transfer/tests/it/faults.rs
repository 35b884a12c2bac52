//! What the store does wrong, by script, and what becomes of the upload.

use std::time::{Duration, Instant};

use protocol::FailureKind;
use transfer::{
    Error, Phase, UploadOptions, Uploaded,
    store::{Call, Effect, Fault, Memory, StoreErrorKind},
    upload,
};

use crate::support::{KEY, Tree, noise, upload_options};

const TRANSIENT: Effect = Effect::Fail(StoreErrorKind::Transient);

/// An archive of some twenty parts.
fn tree() -> Tree {
    Tree::new([("snapshots/a/a.snapshot", noise(1, 1_300_000)), ("backup.json", b"{}".to_vec())])
}

fn fault(call: Call, times: u32, effect: Effect) -> Fault {
    Fault { call, after: 0, times, effect }
}

async fn run(store: &Memory) -> Result<Uploaded, Error> {
    upload(store, KEY, tree().sources(), upload_options()).await
}

/// The calls without the parts, which arrive in any order.
fn frame_of(calls: &[Call]) -> Vec<Call> {
    calls.iter().filter(|call| !matches!(call, Call::UploadPart(_))).cloned().collect()
}

fn count(calls: &[Call], wanted: &Call) -> usize {
    calls.iter().filter(|call| *call == wanted).count()
}

/// The upload fails so, and nothing of it is left.
async fn fails_cleanly(store: &Memory, kind: FailureKind) -> Error {
    let error = run(store).await.unwrap_err();
    assert_eq!(error.kind(), kind, "{error:?}");
    assert!(store.object(KEY).is_none() && store.pending() == 0, "{error:?}");
    assert_eq!(count(&store.take_calls(), &Call::Abort), 1, "{error:?}");
    error
}

#[tokio::test]
async fn an_undisturbed_upload_makes_exactly_these_calls() {
    let store = Memory::default();
    let uploaded = run(&store).await.unwrap();
    let calls = store.take_calls();
    assert_eq!(frame_of(&calls), [Call::Create, Call::ListParts, Call::Complete, Call::Head]);
    assert_eq!(calls.len(), 4 + uploaded.parts as usize);
    assert!((1..=uploaded.parts).all(|part| count(&calls, &Call::UploadPart(part)) == 1));
    assert!(uploaded.parts > 17 && !uploaded.read_back);
}

#[tokio::test]
async fn a_part_that_fails_three_times_is_sent_a_fourth_time() {
    for effect in [
        TRANSIENT,
        Effect::Fail(StoreErrorKind::Throttled),
        Effect::Fail(StoreErrorKind::BadDigest),
        Effect::LoseReply,
        Effect::FlipByte,
    ] {
        let store = Memory::default();
        store.fault(fault(Call::UploadPart(17), 3, effect));
        let options = upload_options();
        let progress = options.progress.clone();
        let uploaded = upload(&store, KEY, tree().sources(), options).await.unwrap();
        assert_eq!(count(&store.take_calls(), &Call::UploadPart(17)), 4, "{effect:?}");
        assert_eq!((progress.retries(), progress.phase()), (3, Phase::Done));
        assert_eq!(progress.object_bytes(), uploaded.size_bytes);
        assert_eq!(store.object(KEY), reference().await, "{effect:?}");
    }
}

/// The object as an undisturbed upload makes it.
async fn reference() -> Option<Vec<u8>> {
    let store = Memory::default();
    run(&store).await.unwrap();
    store.object(KEY)
}

#[tokio::test]
async fn a_storm_is_outlasted() {
    let store = Memory::default();
    for part in 1..=20 {
        store.fault(fault(Call::UploadPart(part), 4, Effect::Fail(StoreErrorKind::Throttled)));
    }
    run(&store).await.unwrap();
    assert_eq!(store.object(KEY), reference().await);
}

#[tokio::test]
async fn a_part_that_never_works_ends_and_aborts_the_upload() {
    for (effect, kind, attempts) in [
        (TRANSIENT, FailureKind::StoreUnavailable, 5),
        (Effect::FlipByte, FailureKind::ChecksumMismatch, 5),
        (Effect::Fail(StoreErrorKind::AccessDenied), FailureKind::StoreUnavailable, 1),
        (Effect::Fail(StoreErrorKind::NoSuchUpload), FailureKind::UploadFailed, 1),
    ] {
        let store = Memory::default();
        store.fault(fault(Call::UploadPart(3), 100, effect));
        let error = fails_cleanly(&store, kind).await;
        let Error::UploadPart { part: 3, attempts: tried, .. } = error else { panic!("{error:?}") };
        assert_eq!(tried, attempts, "{effect:?}");
        assert!(error.to_string().contains("upload part 3 of `qdrant/backups/"), "{error}");
    }
}

#[tokio::test]
async fn an_upload_that_cannot_be_aborted_still_says_why_it_failed() {
    let store = Memory::default();
    store.fault(fault(Call::UploadPart(1), 1, Effect::Fail(StoreErrorKind::AccessDenied)));
    store.fault(fault(Call::Abort, 1, Effect::Fail(StoreErrorKind::AccessDenied)));
    let error = run(&store).await.unwrap_err();
    assert!(matches!(error, Error::UploadPart { part: 1, .. }), "{error:?}");
    assert!(error.hint().unwrap().contains("credentials"));
    assert_eq!(store.pending(), 1);
}

#[tokio::test]
async fn an_abort_that_fails_is_tried_again() {
    for effect in [TRANSIENT, Effect::LoseReply] {
        let store = Memory::default();
        store.fault(fault(Call::UploadPart(1), 1, Effect::Fail(StoreErrorKind::AccessDenied)));
        store.fault(fault(Call::Abort, 1, effect));
        run(&store).await.unwrap_err();
        assert_eq!((store.pending(), count(&store.take_calls(), &Call::Abort)), (0, 2));
    }
}

#[tokio::test]
async fn a_start_whose_answer_is_lost_leaves_no_second_upload() {
    let store = Memory::default();
    store.fault(fault(Call::Create, 2, Effect::LoseReply));
    run(&store).await.unwrap();
    assert_eq!(store.pending(), 0);
    let calls = store.take_calls();
    assert_eq!((count(&calls, &Call::Create), count(&calls, &Call::Abort)), (3, 2));
}

#[tokio::test]
async fn a_start_whose_answers_are_all_lost_leaves_nothing() {
    let store = Memory::default();
    store.fault(fault(Call::Create, 100, Effect::LoseReply));
    store.fault(fault(Call::ListUploads, 2, TRANSIENT));
    let error = run(&store).await.unwrap_err();
    assert!(matches!(error, Error::Create { .. }), "{error:?}");
    assert_eq!((store.pending(), count(&store.take_calls(), &Call::Abort)), (0, 5));
}

#[tokio::test]
async fn a_request_that_cannot_be_sent_is_tried_three_times() {
    let store = Memory::default();
    store.fault(fault(Call::Create, 100, Effect::Fail(StoreErrorKind::Unsent)));
    let error = run(&store).await.unwrap_err();
    assert_eq!(error.kind(), FailureKind::StoreUnavailable);
    assert!(error.hint().unwrap().contains("credentials"));
    assert_eq!(count(&store.take_calls(), &Call::Create), 3);
}

#[tokio::test]
async fn a_store_that_refuses_to_start_is_named() {
    for (kind, expected, hint) in [
        (StoreErrorKind::NoSuchBucket, FailureKind::StoreUnavailable, "bucket's name"),
        (StoreErrorKind::AccessDenied, FailureKind::StoreUnavailable, "credentials"),
        (StoreErrorKind::ClockSkewed, FailureKind::StoreUnavailable, "clock"),
        (StoreErrorKind::Refused, FailureKind::UploadFailed, ""),
    ] {
        let store = Memory::default();
        store.fault(fault(Call::Create, 1, Effect::Fail(kind)));
        let error = run(&store).await.unwrap_err();
        assert_eq!(error.kind(), expected);
        assert!(error.hint().unwrap_or_default().contains(hint));
        assert_eq!(store.take_calls(), [Call::Create]);
    }
}

#[tokio::test]
async fn a_completion_whose_answer_is_lost_is_recognised() {
    let store = Memory::default();
    store.fault(fault(Call::Complete, 1, Effect::LoseReply));
    run(&store).await.unwrap();
    let calls = store.take_calls();
    assert_eq!(frame_of(&calls), [Call::Create, Call::ListParts, Call::Complete, Call::Head]);
}

#[tokio::test]
async fn a_completion_that_did_not_happen_is_made_again() {
    let store = Memory::default();
    store.fault(fault(Call::Complete, 2, TRANSIENT));
    run(&store).await.unwrap();
    let expected = [
        Call::Create,
        Call::ListParts,
        Call::Complete,
        Call::Head,
        Call::Complete,
        Call::Head,
        Call::Complete,
        Call::Head,
    ];
    assert_eq!(frame_of(&store.take_calls()), expected);
    assert_eq!(store.object(KEY), reference().await);
}

#[tokio::test]
async fn a_completion_lost_and_not_yet_seen_is_recognised_when_repeated() {
    // The answer is lost and the first look fails; the repetition is told that there is no such upload.
    let store = Memory::default();
    store.fault(fault(Call::Complete, 1, Effect::LoseReply));
    store.fault(fault(Call::Head, 2, TRANSIENT));
    run(&store).await.unwrap();
    assert_eq!(store.object(KEY), reference().await);
}

#[tokio::test]
async fn a_completion_that_is_refused_aborts() {
    let store = Memory::default();
    store.fault(fault(Call::Complete, 1, Effect::Fail(StoreErrorKind::Refused)));
    let error = fails_cleanly(&store, FailureKind::UploadFailed).await;
    assert!(matches!(error, Error::Complete { .. }));
    let store = Memory::default();
    store.fault(fault(Call::Complete, 1, Effect::Fail(StoreErrorKind::NoSuchUpload)));
    fails_cleanly(&store, FailureKind::UploadFailed).await;
}

#[tokio::test]
async fn an_upload_in_doubt_is_not_aborted() {
    let store = Memory::default();
    store.fault(fault(Call::Complete, 1, Effect::LoseReply));
    store.fault(fault(Call::Head, 100, TRANSIENT));
    let error = run(&store).await.unwrap_err();
    assert!(matches!(error, Error::Complete { .. }), "{error:?}");
    assert_eq!(count(&store.take_calls(), &Call::Abort), 0);
}

#[tokio::test]
async fn once_in_doubt_the_object_is_looked_for_and_the_upload_left_alone() {
    // Neither answered nor there at first, then refused: it may still be on its way.
    for later in [StoreErrorKind::Transient, StoreErrorKind::NoSuchUpload, StoreErrorKind::Refused] {
        let store = Memory::default();
        store.fault(fault(Call::Complete, 1, TRANSIENT));
        store.fault(fault(Call::Complete, 100, Effect::Fail(later)));
        let error = run(&store).await.unwrap_err();
        assert!(matches!(error, Error::Complete { .. }), "{error:?}");
        let calls = store.take_calls();
        assert_eq!(count(&calls, &Call::Abort), 0, "{later:?}");
        assert_eq!((count(&calls, &Call::Complete), count(&calls, &Call::Head)), (5, 5), "{later:?}");
        assert_eq!(store.pending(), 1);
    }
}

#[tokio::test]
async fn a_request_to_stop_at_the_end_aborts_unless_the_store_was_asked_to_complete() {
    for (call, aborts) in [(Call::ListParts, 1), (Call::Complete, 0), (Call::Head, 0)] {
        let store = Memory::default();
        store.fault(fault(call.clone(), 100, Effect::Hang));
        let (tree, options) = (tree(), upload_options());
        let cancel = options.cancel.clone();
        let stopping = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            cancel.cancel();
        };
        let (result, ()) = tokio::join!(upload(&store, KEY, tree.sources(), options), stopping);
        assert!(matches!(result, Err(Error::Cancelled)), "{result:?}");
        let calls = store.take_calls();
        assert!(calls.contains(&call));
        assert_eq!(count(&calls, &Call::Abort), aborts, "{call:?}");
    }
}

#[tokio::test]
async fn somebody_elses_object_is_neither_taken_for_ours_nor_touched() {
    let store = Memory::default();
    store.put(KEY, b"another archive".to_vec());
    let error = run(&store).await.unwrap_err();
    assert!(matches!(error, Error::KeyTaken { .. }), "{error:?}");
    assert_eq!(store.object(KEY).unwrap(), b"another archive");
    assert_eq!(store.pending(), 0);

    // The same bytes under another backup's id are not ours either.
    let store = Memory::default();
    run(&store).await.unwrap();
    let options =
        UploadOptions { metadata: vec![("backup-id".into(), "20990101T000000Z".into())], ..upload_options() };
    let error = upload(&store, KEY, tree().sources(), options).await.unwrap_err();
    assert!(matches!(error, Error::KeyTaken { .. }), "{error:?}");
}

#[tokio::test]
async fn what_the_store_lists_must_be_what_was_sent() {
    // The store forgets the difference at first: its answer to the part is right, what it keeps is not. Only a store
    // without checksums can do that here, and then the sizes agree too: reading back finds it.
    let store = Memory::without_checksums();
    store.fault(fault(Call::UploadPart(5), 1, Effect::FlipByte));
    let error = run(&store).await.unwrap_err();
    let Error::ObjectDiffers { what, .. } = &error else { panic!("{error:?}") };
    assert!(what.contains("`snapshots/a/a.snapshot` at byte"), "{what}");
    assert_eq!(error.kind(), FailureKind::ChecksumMismatch);

    for (effect, part, says) in [
        (Effect::DropPart, 2, "does not list"),
        (Effect::ShortenPart, 2, "65535 bytes, not 65536"),
        (Effect::FlipByte, 2, "CRC-64/NVME"),
        (Effect::AddPart, 21, "never sent"),
    ] {
        let store = Memory::default();
        store.fault(fault(Call::ListParts, 1, effect));
        let error = fails_cleanly(&store, FailureKind::ChecksumMismatch).await;
        let Error::PartDiffers { part: found, what, .. } = &error else { panic!("{error:?}") };
        assert!(*found == part && what.contains(says), "{found}: {what}");
    }

    let store = Memory::default();
    store.fault(fault(Call::ListParts, 100, TRANSIENT));
    let error = fails_cleanly(&store, FailureKind::StoreUnavailable).await;
    assert!(matches!(error, Error::ListParts { .. }));
}

#[tokio::test]
async fn a_request_to_stop_is_heard_at_once_and_cleans_up() {
    for call in [Call::UploadPart(2), Call::Create] {
        let store = Memory::default();
        store.fault(fault(call.clone(), 100, Effect::Hang));
        let (tree, options) = (tree(), upload_options());
        let cancel = options.cancel.clone();
        let started = Instant::now();
        let stopping = async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            cancel.cancel();
        };
        let (result, ()) = tokio::join!(upload(&store, KEY, tree.sources(), options), stopping);
        let error = result.unwrap_err();
        assert_eq!(error.kind(), FailureKind::Cancelled);
        assert!(started.elapsed() < Duration::from_secs(2));
        assert_eq!(store.pending(), 0, "{call:?}");
    }
}

#[tokio::test]
async fn no_more_parts_are_underway_than_allowed() {
    let store = Memory::default();
    for part in 1..=30 {
        store.fault(fault(Call::UploadPart(part), 1, Effect::Hang));
    }
    let (tree, options) = (tree(), UploadOptions { concurrency: Some(3), ..upload_options() });
    let cancel = options.cancel.clone();
    let stopping = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        cancel.cancel();
    };
    let (result, ()) = tokio::join!(upload(&store, KEY, tree.sources(), options), stopping);
    assert!(matches!(result.unwrap_err(), Error::Cancelled));
    let parts = store.take_calls().into_iter().filter(|call| matches!(call, Call::UploadPart(_))).count();
    assert_eq!(parts, 3);
}

#[tokio::test]
async fn an_upload_that_is_dropped_lets_go_of_its_sources() {
    let tree = tree();
    let store = Memory::default();
    store.fault(fault(Call::UploadPart(1), 1, Effect::Hang));
    let running = upload(&store, KEY, tree.sources(), upload_options());
    assert!(tokio::time::timeout(Duration::from_millis(200), running).await.is_err());
    // Threads end by themselves; a file descriptor of the source that stays open would keep its blocks for ever.
    let path = tree.file(0);
    let open = || {
        let descriptors = fs_err::read_dir("/proc/self/fd").unwrap();
        descriptors
            .filter(|fd| fs_err::read_link(fd.as_ref().unwrap().path()).is_ok_and(|to| to == path))
            .count()
    };
    for _ in 0..100 {
        if open() == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{} descriptors of the source are still open", open());
}
