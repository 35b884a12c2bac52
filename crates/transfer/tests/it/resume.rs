//! An upload that is killed, stopped or cut off goes on in another process: the store gets what it lacks and nothing twice, and the
//! object is the one that an undisturbed upload makes.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use protocol::FailureKind;
use transfer::{
    Error, Level, Threads, UploadOptions, Uploaded, abandon,
    store::{Call, Effect, Fault, Memory, MultipartStore, StoreErrorKind},
    upload,
};

use crate::support::{KEY, Tree, noise, retry, text, upload_options};

/// Another attempt's key.
const OTHER: &str = "qdrant/backups/qdrant_snapshot_20261123T051400Z-deadbeef.tar.zst";

/// Sources and the place of a journal.
struct Host {
    tree: Tree,
    journal: PathBuf,
}

impl Host {
    /// An archive of some forty parts: several entries, one of them in a single frame, one empty, one that compresses well.
    fn new() -> Self {
        let tree = Tree::new([
            ("snapshots/a/a.snapshot", noise(1, 1_250_000)),
            ("snapshots/b/b.snapshot", noise(2, 60_000)),
            ("snapshots/c/c.snapshot", Vec::new()),
            ("snapshots/d/d.snapshot", text(3, 900_000)),
            ("snapshots/e/e.snapshot", noise(4, 1_300_000)),
            ("backup.json", b"{\"format_version\":1}".to_vec()),
        ]);
        let journal = tree.folder.path().join("upload.journal");
        Self { tree, journal }
    }

    fn options(&self, threads: Threads, concurrency: usize) -> UploadOptions {
        UploadOptions {
            journal: Some(self.journal.clone()),
            concurrency: Some(concurrency),
            threads,
            ..upload_options()
        }
    }

    async fn run(&self, store: &Memory, options: UploadOptions) -> Result<Uploaded, Error> {
        upload(store, KEY, self.tree.sources(), options).await
    }

    /// Runs until the store has answered `calls` calls; the process is killed when it makes another. `None` if it was.
    async fn killed_after(
        &self,
        store: &Memory,
        calls: usize,
        done: bool,
        options: UploadOptions,
    ) -> Option<Uploaded> {
        let killed = store.stop_after(calls, done);
        let uploaded = tokio::select! {
            () = killed => None,
            uploaded = self.run(store, options) => Some(uploaded.unwrap()),
        };
        store.go_on();
        uploaded
    }

    /// Kills an upload when some parts are stored and others on their way. Gives the parts that the store has.
    async fn interrupted(&self, store: &Memory) -> Vec<u32> {
        let options = self.options(Threads::Count(2), 4);
        assert!(self.killed_after(store, 18, false, options).await.is_none());
        let parts = store.parts();
        assert!(parts.len() >= 13, "{parts:?}");
        store.take_calls();
        parts
    }
}

/// What an undisturbed upload makes.
async fn reference(host: &Host) -> (Vec<u8>, Uploaded) {
    let store = Memory::default();
    let uploaded = upload(&store, KEY, host.tree.sources(), upload_options()).await.unwrap();
    (store.object(KEY).unwrap(), uploaded)
}

/// Everything but what differs between runs.
fn same(uploaded: &Uploaded) -> Uploaded {
    Uploaded { duration: Duration::ZERO, resumed_parts: 0, concurrency: 0, ..uploaded.clone() }
}

/// The numbers of the parts that were sent.
fn sent(calls: &[Call]) -> Vec<u32> {
    let mut parts = Vec::new();
    for call in calls {
        if let Call::UploadPart(part) = call {
            parts.push(*part);
        }
    }
    parts
}

#[tokio::test]
async fn killed_at_every_call_it_goes_on_with_what_the_store_lacks() {
    let host = Host::new();
    let (object, expected) = reference(&host).await;
    assert!(expected.parts >= 40, "{}", expected.parts);
    for (threads, concurrency) in [(Threads::Inline, 1), (Threads::Count(2), 4)] {
        for done in [false, true] {
            for calls in 0.. {
                let store = Memory::default();
                let options = || host.options(threads, concurrency);
                let uploaded = host.killed_after(&store, calls, done, options()).await;
                let first = store.take_calls();
                let undisturbed = uploaded.is_some();
                let (has, had_object) = (store.parts(), store.object(KEY).is_some());
                let uploaded = match uploaded {
                    Some(uploaded) => uploaded,
                    None => host.run(&store, options()).await.unwrap(),
                };
                let case = format!("{threads:?}, killed at call {calls} ({done}), the store had {has:?}");
                assert_eq!(same(&uploaded), same(&expected), "{case}");
                assert!(store.object(KEY).unwrap() == object, "{case}");
                assert_eq!(store.pending(), 0, "{case}");

                let second = store.take_calls();
                let mut again = sent(&second);
                again.sort_unstable();
                if had_object || undisturbed {
                    assert!(again.is_empty(), "{case}: {again:?}");
                } else {
                    let lacking: Vec<u32> = (1..=expected.parts).filter(|part| !has.contains(part)).collect();
                    assert_eq!(again, lacking, "{case}");
                    assert_eq!(uploaded.resumed_parts as usize, has.len(), "{case}");
                }
                // Only what was on its way when it was killed may have been sent in vain.
                let twice = sent(&first).len() + again.len() - expected.parts as usize;
                assert!(twice <= concurrency, "{case}: {twice} parts were sent twice");
                fs_err::remove_file(&host.journal).unwrap();
                if undisturbed {
                    // Create, list, complete, head, and a call per part.
                    assert_eq!(calls, expected.parts as usize + 4, "{case}");
                    break;
                }
            }
        }
    }
}

#[tokio::test]
async fn killed_again_and_again_it_still_comes_to_its_end() {
    let host = Host::new();
    let (object, expected) = reference(&host).await;
    for calls in 2..8 {
        let store = Memory::default();
        let mut runs = 0;
        let uploaded = loop {
            runs += 1;
            assert!(runs < 60, "it makes no progress with {calls} calls a run");
            let options = host.options(Threads::Count(2), 1);
            if let Some(uploaded) = host.killed_after(&store, calls, runs % 2 == 0, options).await {
                break uploaded;
            }
        };
        assert_eq!(same(&uploaded), same(&expected));
        assert!(store.object(KEY).unwrap() == object);
        assert!(runs > 5, "{runs}");
        fs_err::remove_file(&host.journal).unwrap();
    }
}

#[tokio::test]
async fn a_journal_may_lose_its_end_or_be_damaged_anywhere() {
    let host = Host::new();
    let (object, expected) = reference(&host).await;
    let whole = {
        let store = Memory::default();
        assert!(host.killed_after(&store, 30, true, host.options(Threads::Inline, 1)).await.is_none());
        fs_err::read(&host.journal).unwrap()
    };
    let head = whole.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    let mut reused = 0;
    // Everywhere, and behind each line.
    let ends = (1..=whole.len()).filter(|end| whole[end - 1] == b'\n');
    for place in (0..whole.len()).step_by(331).chain(ends) {
        for flip in [false, true] {
            let store = Memory::default();
            fs_err::remove_file(&host.journal).unwrap_or_default();
            assert!(host.killed_after(&store, 30, true, host.options(Threads::Inline, 1)).await.is_none());
            let has = store.parts();
            let mut journal = fs_err::read(&host.journal).unwrap();
            if flip {
                let place = place.min(journal.len() - 1);
                journal[place] ^= 1;
            } else {
                journal.truncate(place);
            }
            fs_err::write(&host.journal, journal).unwrap();
            store.take_calls();
            let uploaded = host.run(&store, host.options(Threads::Count(2), 4)).await.unwrap();
            assert_eq!(same(&uploaded), same(&expected), "{place} {flip}");
            assert!(store.object(KEY).unwrap() == object, "{place} {flip}");
            // The journal that it went on with says the same to whoever asks once more.
            let again = host.run(&store, host.options(Threads::Inline, 1)).await.unwrap();
            assert_eq!(same(&again), same(&expected), "{place} {flip}");
            if place > head + 100 {
                // Whatever of it is lost, what the store has is not sent again.
                let again = sent(&store.take_calls());
                assert!(again.iter().all(|part| !has.contains(part)), "{place} {flip}: {again:?}");
                reused += 1;
            }
        }
    }
    assert!(reused > 40, "{reused}");
}

#[tokio::test]
async fn what_the_store_keeps_wrong_is_sent_again() {
    for damaged in [2, 9] {
        let host = Host::new();
        let (object, expected) = reference(&host).await;
        let store = Memory::default();
        let has = host.interrupted(&store).await;
        store.damage_part(damaged);
        let uploaded = host.run(&store, host.options(Threads::Count(2), 4)).await.unwrap();
        let again = sent(&store.take_calls());
        assert!(again.contains(&damaged) && has.contains(&damaged));
        assert_eq!(again.len(), expected.parts as usize - has.len() + 1);
        assert_eq!(uploaded.resumed_parts as usize, has.len() - 1);
        assert!(store.object(KEY).unwrap() == object);
    }
}

#[tokio::test]
async fn a_store_without_checksums_gets_everything_again() {
    let host = Host::new();
    let (object, expected) = reference(&host).await;
    let store = Memory::without_checksums();
    host.interrupted(&store).await;
    let uploaded = host.run(&store, host.options(Threads::Count(2), 4)).await.unwrap();
    let calls = store.take_calls();
    let mut again = sent(&calls);
    again.sort_unstable();
    assert_eq!(again, (1..=expected.parts).collect::<Vec<_>>());
    assert!(uploaded.read_back && uploaded.resumed_parts == 0 && !calls.contains(&Call::Create));
    assert!(store.object(KEY).unwrap() == object);
}

#[tokio::test]
async fn a_killed_completion_is_found_out_about() {
    for done in [false, true] {
        let host = Host::new();
        let (object, expected) = reference(&host).await;
        let store = Memory::default();
        let before_complete = 2 + expected.parts as usize;
        let options = host.options(Threads::Inline, 1);
        assert!(host.killed_after(&store, before_complete, done, options).await.is_none());
        assert_eq!(store.object(KEY).is_some(), done);
        store.take_calls();
        let uploaded = host.run(&store, host.options(Threads::Count(2), 4)).await.unwrap();
        assert_eq!(same(&uploaded), same(&expected));
        assert_eq!(uploaded.resumed_parts, expected.parts);
        let calls = store.take_calls();
        let expected_calls: &[Call] = if done {
            &[Call::ListParts, Call::Head]
        } else {
            &[Call::ListParts, Call::ListParts, Call::Complete, Call::Head]
        };
        assert_eq!(calls, expected_calls);
        assert!(store.object(KEY).unwrap() == object);
        // And once more, for whoever was killed before he could note the result.
        assert_eq!(same(&host.run(&store, host.options(Threads::Inline, 1)).await.unwrap()), same(&expected));
    }
}

#[tokio::test]
async fn a_start_that_was_not_answered_is_found_by_its_key() {
    for strays in [0, 1, 3] {
        let host = Host::new();
        let store = Memory::default();
        let options = host.options(Threads::Inline, 1);
        assert!(host.killed_after(&store, 0, strays > 0, options).await.is_none());
        for _ in 1..strays {
            store.create(KEY, &upload_options().metadata).await.unwrap();
        }
        assert_eq!(store.pending(), strays);
        store.take_calls();
        host.run(&store, host.options(Threads::Count(2), 4)).await.unwrap();
        assert_eq!(store.pending(), 0);
        let calls = store.take_calls();
        let count = |wanted: &Call| calls.iter().filter(|call| *call == wanted).count();
        assert_eq!(count(&Call::Create), usize::from(strays == 0), "{calls:?}");
        assert_eq!(count(&Call::Abort), strays.saturating_sub(1), "{calls:?}");
    }
}

/// The one way in which the store shows that an upload was put away.
fn assert_aborted(store: &Memory, host: &Host) {
    assert_eq!(store.pending(), 0);
    assert!(!host.journal.exists());
}

#[tokio::test]
async fn a_snapshot_that_changed_in_between_is_another_upload() {
    type Change = fn(&Path);
    let changes: [(&str, Change); 3] = [
        ("written to", |path| {
            let bytes = fs_err::read(path).unwrap();
            std::thread::sleep(Duration::from_millis(20));
            fs_err::write(path, bytes).unwrap();
        }),
        ("replaced", |path| {
            let copy = path.with_extension("copy");
            fs_err::copy(path, &copy).unwrap();
            fs_err::rename(copy, path).unwrap();
        }),
        ("another time", |path| {
            let file = fs_err::OpenOptions::new().write(true).open(path).unwrap();
            file.file().set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
        }),
    ];
    for (how, change) in changes {
        let host = Host::new();
        let store = Memory::default();
        host.interrupted(&store).await;
        change(&host.tree.file(0));
        let error = host.run(&store, host.options(Threads::Count(2), 4)).await.unwrap_err();
        let Error::NotResumable { what, .. } = &error else { panic!("{how}: {error:?}") };
        assert_eq!(what, "the source of `snapshots/a/a.snapshot` is another one now", "{how}");
        assert_eq!(error.kind(), FailureKind::UploadFailed);
        assert!(!error.is_resumable());
        assert_aborted(&store, &host);
        assert!(store.object(KEY).is_none());
        // A new attempt has a key of its own.
        let options = host.options(Threads::Count(2), 4);
        upload(&store, OTHER, host.tree.sources(), options).await.unwrap();
    }
}

#[tokio::test]
async fn a_snapshot_that_changed_and_does_not_show_it_is_caught_by_its_checksum() {
    let host = Host::new();
    let store = Memory::default();
    host.interrupted(&store).await;
    // As after a loss of power: the size and the time are there, the bytes are not.
    let path = host.tree.file(4);
    let modified = fs_err::metadata(&path).unwrap().modified().unwrap();
    let file = fs_err::OpenOptions::new().write(true).open(&path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(file.file(), &[0; 4096], 1_000_000).unwrap();
    file.file().set_modified(modified).unwrap();
    let error = host.run(&store, host.options(Threads::Count(2), 4)).await.unwrap_err();
    assert!(
        matches!(&error, Error::SourceChecksum { entry, .. } if entry == "snapshots/e/e.snapshot"),
        "{error:?}"
    );
    assert_aborted(&store, &host);
}

#[tokio::test]
async fn other_options_or_versions_are_another_upload() {
    let host = Host::new();
    let store = Memory::default();
    host.interrupted(&store).await;
    let options = UploadOptions { level: Level::Fixed(1), ..host.options(Threads::Count(2), 4) };
    let error = host.run(&store, options).await.unwrap_err();
    assert!(
        matches!(&error, Error::NotResumable { what, .. } if what.contains("other options")),
        "{error:?}"
    );
    assert_aborted(&store, &host);

    let store = Memory::default();
    host.interrupted(&store).await;
    let journal = fs_err::read_to_string(&host.journal).unwrap();
    let (first, rest) = journal.split_once('\n').unwrap();
    let json = first[17..].replacen("\"zstd\":", "\"zstd\":9", 1);
    let check = blake3::hash(json.as_bytes()).to_hex()[..16].to_owned();
    fs_err::write(&host.journal, format!("{check} {json}\n{rest}")).unwrap();
    let error = host.run(&store, host.options(Threads::Count(2), 4)).await.unwrap_err();
    assert!(matches!(&error, Error::NotResumable { what, .. } if what.contains("with zstd 9")), "{error:?}");
    assert_aborted(&store, &host);
}

#[tokio::test]
async fn an_upload_that_the_store_has_dropped_is_no_more() {
    let host = Host::new();
    let store = Memory::default();
    host.interrupted(&store).await;
    store.expire_uploads();
    let error = host.run(&store, host.options(Threads::Count(2), 4)).await.unwrap_err();
    assert!(
        matches!(&error, Error::NotResumable { what, .. } if what.contains("does not have it")),
        "{error:?}"
    );
    assert!(error.hint().unwrap().contains("key of its own"));
    assert_aborted(&store, &host);
}

#[tokio::test]
async fn somebody_elses_object_is_not_taken_for_the_one_that_was_completed() {
    let host = Host::new();
    let store = Memory::default();
    let (_, expected) = reference(&host).await;
    let before_complete = 2 + expected.parts as usize;
    assert!(
        host.killed_after(&store, before_complete, true, host.options(Threads::Inline, 1)).await.is_none()
    );
    store.put(KEY, b"another archive".to_vec());
    let error = host.run(&store, host.options(Threads::Count(2), 4)).await.unwrap_err();
    assert!(matches!(&error, Error::KeyTaken { what, .. } if what.contains("15 bytes")), "{error:?}");
    assert_aborted(&store, &host);
    assert_eq!(store.object(KEY).unwrap(), b"another archive");
}

#[tokio::test]
async fn a_request_to_stop_leaves_an_upload_to_go_on_with() {
    for hanging in [Call::Create, Call::UploadPart(7), Call::ListParts, Call::Complete, Call::Head] {
        let host = Host::new();
        let (object, _) = reference(&host).await;
        let store = Memory::default();
        store.fault(Fault { call: hanging.clone(), after: 0, times: 1, effect: Effect::Hang });
        let options = host.options(Threads::Count(2), 4);
        let cancel = options.cancel.clone();
        let begin = Instant::now();
        let stopping = async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            cancel.cancel();
        };
        let (result, ()) = tokio::join!(host.run(&store, options), stopping);
        let error = result.unwrap_err();
        assert!(matches!(error, Error::Cancelled) && error.is_resumable(), "{error:?}");
        assert!(begin.elapsed() < Duration::from_secs(2));
        let calls = store.take_calls();
        assert!(!calls.contains(&Call::Abort), "{hanging:?}: {calls:?}");
        let has = store.parts();
        host.run(&store, host.options(Threads::Count(2), 4)).await.unwrap();
        assert!(store.object(KEY).unwrap() == object);
        assert_eq!(store.pending(), 0);
        let again = sent(&store.take_calls());
        assert!(again.iter().all(|part| !has.contains(part)), "{hanging:?}: {again:?}");
    }
}

#[tokio::test]
async fn a_store_that_goes_away_leaves_an_upload_to_go_on_with() {
    for (kind, resumable) in [
        (StoreErrorKind::Transient, true),
        (StoreErrorKind::Throttled, true),
        (StoreErrorKind::AccessDenied, true),
        (StoreErrorKind::ClockSkewed, true),
        (StoreErrorKind::Refused, false),
        (StoreErrorKind::NoSuchUpload, false),
    ] {
        let host = Host::new();
        let (object, _) = reference(&host).await;
        let store = Memory::default();
        store.fault(Fault { call: Call::UploadPart(9), after: 0, times: 100, effect: Effect::Fail(kind) });
        let options = UploadOptions { retry: retry(), ..host.options(Threads::Count(2), 4) };
        let error = host.run(&store, options).await.unwrap_err();
        assert_eq!(error.is_resumable(), resumable, "{error:?}");
        assert_eq!(store.pending(), usize::from(resumable), "{kind:?}");
        assert_eq!(host.journal.exists(), resumable, "{kind:?}");
        if resumable {
            // The network is mended.
            store.clear_faults();
            let has = store.parts();
            store.take_calls();
            host.run(&store, host.options(Threads::Count(2), 4)).await.unwrap();
            assert!(sent(&store.take_calls()).iter().all(|part| !has.contains(part)));
            assert!(store.object(KEY).unwrap() == object);
        }
    }
}

#[tokio::test]
async fn another_upload_puts_the_old_one_away() {
    let host = Host::new();
    let store = Memory::default();
    host.interrupted(&store).await;
    upload(&store, OTHER, host.tree.sources(), host.options(Threads::Count(2), 4)).await.unwrap();
    assert_eq!(store.pending(), 0);
    assert!(store.object(KEY).is_none() && store.object(OTHER).is_some());
}

#[tokio::test]
async fn an_abandoned_upload_is_aborted_and_an_object_is_left_alone() {
    let host = Host::new();
    let store = Memory::default();
    host.interrupted(&store).await;
    abandon(&store, &host.journal, retry()).await;
    assert_aborted(&store, &host);
    assert_eq!(store.take_calls(), [Call::Abort]);
    abandon(&store, &host.journal, retry()).await;
    assert_eq!(store.take_calls(), []);

    // Killed while it was started.
    assert!(host.killed_after(&store, 0, true, host.options(Threads::Inline, 1)).await.is_none());
    assert_eq!(store.pending(), 1);
    abandon(&store, &host.journal, retry()).await;
    assert_aborted(&store, &host);

    host.run(&store, host.options(Threads::Count(2), 4)).await.unwrap();
    abandon(&store, &host.journal, retry()).await;
    assert_aborted(&store, &host);
    assert!(store.object(KEY).is_some());

    // What cannot be aborted now keeps its journal, for the next who comes by.
    let store = Memory::default();
    host.interrupted(&store).await;
    store.fault(Fault {
        call: Call::Abort,
        after: 0,
        times: 1,
        effect: Effect::Fail(StoreErrorKind::AccessDenied),
    });
    abandon(&store, &host.journal, retry()).await;
    assert!(host.journal.exists());
    abandon(&store, &host.journal, retry()).await;
    assert_aborted(&store, &host);
}

#[tokio::test]
async fn a_journal_that_cannot_be_written_is_no_reason_to_fail() {
    let host = Host::new();
    let store = Memory::default();
    let options = UploadOptions {
        journal: Some(host.tree.folder.path().join("no such folder/upload.journal")),
        ..host.options(Threads::Count(2), 4)
    };
    host.run(&store, options).await.unwrap();
    assert!(store.object(KEY).is_some());
    // Garbage in its place is not believed, and replaced.
    fs_err::write(&host.journal, noise(9, 5000)).unwrap();
    let store = Memory::default();
    host.run(&store, host.options(Threads::Count(2), 4)).await.unwrap();
    assert!(store.object(KEY).is_some());
}

#[tokio::test]
async fn a_journal_is_nobody_elses_business_and_holds_no_data() {
    use std::os::unix::fs::PermissionsExt;
    let host = Host::new();
    let store = Memory::default();
    host.interrupted(&store).await;
    assert_eq!(fs_err::metadata(&host.journal).unwrap().permissions().mode() & 0o777, 0o600);
}
