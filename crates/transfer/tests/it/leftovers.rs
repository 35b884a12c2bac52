//! Restores that go on from what an earlier one has left: what is fetched again, what is not, and what is not trusted.

use std::{
    collections::BTreeSet,
    ops::Range,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::PathBuf,
    time::Duration,
};

use protocol::FailureKind;
use tempfile::TempDir;
use transfer::{
    Error, Leftovers, ReadOptions, Restored, Threads, restore_entries,
    store::{Call, Effect, Fault, Memory, StoreErrorKind},
};

use crate::support::{SMALL, Stored, Tree, listing, noise, read_options, text};

const FRAMES: usize = 40;
const FRAME: usize = SMALL as usize;

/// A stored archive with one entry to restore, and a folder to restore it to.
struct Case {
    stored: Stored,
    bytes: Vec<u8>,
    folder: TempDir,
}

impl Case {
    /// Forty frames that do not compress, so that each is a range of its own.
    async fn forty_frames() -> Self {
        Self::of(noise(1, FRAMES * FRAME)).await
    }

    async fn of(bytes: Vec<u8>) -> Self {
        let tree = Tree::new([
            ("snapshots/before/a.snapshot", text(7, 1000)),
            ("snapshots/docs/docs-1.snapshot", bytes.clone()),
            ("backup.json", b"{}".to_vec()),
        ]);
        let store = Memory::default();
        let uploaded = tree.upload(&store).await;
        let case = Self { stored: Stored::new(store, uploaded), bytes, folder: tempfile::tempdir().unwrap() };
        let _uploading = case.stored.store.take_calls();
        case
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("docs")
    }

    fn partial(&self) -> PathBuf {
        self.folder.path().join("docs.partial")
    }

    async fn restore(&self, options: ReadOptions) -> Result<Restored, Error> {
        let wanted = [(1, self.file())];
        restore_entries(&self.stored.store, self.stored.reference(), &self.stored.index, &wanted, options)
            .await
    }

    /// The entry's frames: their places in the index.
    fn frames(&self) -> Range<usize> {
        let first = usize::try_from(self.stored.archive.entries[1].first_frame).unwrap();
        first..first + self.bytes.len().div_ceil(FRAME)
    }

    /// Which of the entry's frames the unfinished file lacks: all, if there is none.
    fn missing(&self) -> BTreeSet<usize> {
        let found = fs_err::read(self.partial()).unwrap_or_default();
        let lacks = |(number, frame): (usize, &[u8])| {
            let start = number * FRAME;
            (found.get(start..start + frame.len()) != Some(frame)).then_some(number)
        };
        self.bytes.chunks(FRAME).enumerate().filter_map(lacks).collect()
    }

    /// The frames of the entry that were fetched since the last look, each once.
    fn fetched(&self) -> BTreeSet<usize> {
        let calls = self.stored.store.take_calls();
        assert_eq!(calls[0], Call::Head);
        let (offsets, frames) = (self.stored.index.offsets(), self.frames());
        let mut fetched = BTreeSet::new();
        for call in &calls[1..] {
            let Call::GetRange(range) = call else { panic!("{call:?}") };
            let place = |offset: u64| offsets.binary_search(&offset).unwrap();
            for frame in place(range.start)..place(range.end) {
                assert!(frames.contains(&frame), "{call:?}");
                assert!(fetched.insert(frame - frames.start), "frame {frame} was fetched twice");
            }
        }
        fetched
    }

    /// Goes on from what is there: only what it lacks is fetched, and the file is as it should be.
    async fn resume(&self) -> Restored {
        let missing = self.missing();
        let _before = self.stored.store.take_calls();
        let options = resuming();
        let progress = options.progress.clone();
        let restored = self.restore(options).await.unwrap();
        assert_eq!(self.fetched(), missing);
        self.assert_whole();
        let frames = &self.stored.index.frames[self.frames()];
        let (mut kept, mut fetched) = (0, 0);
        for (number, frame) in frames.iter().enumerate() {
            if missing.contains(&number) {
                fetched += u64::from(frame.compressed_len);
            } else {
                kept += u64::from(frame.raw_len);
            }
        }
        assert_eq!((restored.kept_bytes, restored.object_bytes), (kept, fetched));
        assert_eq!(restored.raw_bytes, self.bytes.len() as u64);
        assert_eq!(progress.raw_done(), progress.raw_total(), "what was kept is done");
        restored
    }

    fn assert_whole(&self) {
        assert!(fs_err::read(self.file()).unwrap() == self.bytes, "the file is not what was packed");
        assert_eq!(listing(self.folder.path()), ["docs"]);
        assert_eq!(fs_err::metadata(self.file()).unwrap().permissions().mode() & 0o777, 0o600);
    }

    /// Puts `bytes` where an earlier restore leaves what it has not finished.
    fn leave(&self, bytes: &[u8]) {
        fs_err::write(self.partial(), bytes).unwrap();
    }

    /// Makes the folder empty again.
    fn clear(&self) {
        for path in [self.file(), self.partial()] {
            if fs_err::symlink_metadata(&path).is_ok() {
                fs_err::remove_file(path).unwrap();
            }
        }
    }
}

fn resuming() -> ReadOptions {
    ReadOptions { leftovers: Leftovers::Resume, ..read_options() }
}

fn fault(after: usize, effect: Effect) -> Fault {
    Fault { call: Call::GetRange(0..0), after: after.try_into().unwrap(), times: 1000, effect }
}

/// Ways in which a restore ends before its time.
#[derive(Clone, Copy, Debug)]
enum End {
    /// It is asked to stop.
    Cancelled,
    /// Its future is dropped, which leaves what SIGKILL leaves.
    Dropped,
    /// The store fails for longer than the retries last.
    Failed,
}

#[tokio::test]
async fn killed_after_each_get_only_the_rest_is_fetched() {
    let case = Case::forty_frames().await;
    for end in [End::Cancelled, End::Dropped, End::Failed] {
        for gets in 0..FRAMES {
            case.clear();
            let options = ReadOptions { concurrency: Some(3), ..resuming() };
            let (progress, cancel) = (options.progress.clone(), options.cancel.clone());
            let effect = match end {
                End::Cancelled | End::Dropped => Effect::Hang,
                End::Failed => Effect::Fail(StoreErrorKind::Transient),
            };
            case.stored.store.fault(fault(gets, effect));
            let arrived = async {
                while progress.raw_done() < (gets * FRAME) as u64 || !case.partial().exists() {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            };
            let restore = case.restore(options);
            match end {
                End::Cancelled => {
                    let stopping = async {
                        arrived.await;
                        cancel.cancel();
                    };
                    let (result, ()) = tokio::join!(restore, stopping);
                    assert_eq!(result.unwrap_err().kind(), FailureKind::Cancelled);
                }
                End::Dropped => tokio::select! {
                    result = restore => panic!("{result:?}"),
                    () = arrived => {}
                },
                End::Failed => {
                    assert_eq!(restore.await.unwrap_err().kind(), FailureKind::StoreUnavailable);
                }
            }
            case.stored.store.clear_faults();
            let missing = case.missing().len();
            match end {
                End::Cancelled | End::Dropped => assert_eq!(missing, FRAMES - gets, "{end:?}"),
                // What has arrived when the last attempt fails may not be written any more.
                End::Failed => assert!(missing >= FRAMES - gets, "{missing} frames after {gets}"),
            }
            let restored = case.resume().await;
            assert_eq!(restored.kept_bytes, ((FRAMES - missing) * FRAME) as u64);
        }
    }
}

#[tokio::test]
async fn a_damaged_frame_is_fetched_again_and_no_other() {
    let case = Case::forty_frames().await;
    for frame in 0..FRAMES {
        case.clear();
        let mut bytes = case.bytes.clone();
        bytes[frame * FRAME + frame * 1601] ^= 0x20;
        case.leave(&bytes);
        assert_eq!(case.resume().await.kept_bytes, ((FRAMES - 1) * FRAME) as u64);
    }
}

#[tokio::test]
async fn what_is_whole_is_not_fetched_at_all() {
    let case = Case::forty_frames().await;
    for threads in [Threads::PerCore, Threads::Inline] {
        case.clear();
        case.leave(&case.bytes);
        let options = ReadOptions { threads, memory_budget_bytes: 2 << 20, ..resuming() };
        let progress = options.progress.clone();
        let restored = case.restore(options).await.unwrap();
        assert_eq!((restored.kept_bytes, restored.object_bytes), ((FRAMES * FRAME) as u64, 0));
        assert_eq!(case.stored.store.take_calls(), [Call::Head]);
        assert!(progress.memory_peak() <= 2 << 20);
        case.assert_whole();
    }
}

#[tokio::test]
async fn a_leftover_counts_by_its_content_alone() {
    let case = Case::forty_frames().await;
    let whole = (FRAMES * FRAME) as u64;
    let odd = 7 * FRAME + 1234;
    for (leftover, kept) in [
        (Vec::new(), 0),
        (case.bytes[..odd].to_vec(), 7 * FRAME as u64),
        ([case.bytes.as_slice(), &noise(2, 3 * FRAME + 1)].concat(), whole),
        // Another archive's, of the same size.
        (noise(3, FRAMES * FRAME), 0),
        // The right frames in the wrong places.
        ([&case.bytes[FRAME..], &case.bytes[..FRAME]].concat(), 0),
        (vec![0; FRAMES * FRAME], 0),
    ] {
        case.clear();
        case.leave(&leftover);
        fs_err::set_permissions(case.partial(), std::fs::Permissions::from_mode(0o644)).unwrap();
        let restored = case.restore(resuming()).await.unwrap();
        assert_eq!(restored.kept_bytes, kept, "{} bytes were left", leftover.len());
        case.assert_whole();
    }
}

#[tokio::test]
async fn where_zeros_belong_there_are_zeros_and_holes() {
    // Frames of zeros, of both, and of data; a last frame that ends within a block.
    let mut bytes = vec![0; 12 * FRAME + 5000];
    bytes[3 * FRAME..4 * FRAME].copy_from_slice(&noise(4, FRAME));
    bytes[5 * FRAME + 20_000..5 * FRAME + 20_010].copy_from_slice(&noise(5, 10));
    bytes[12 * FRAME + 4999] = 1;
    let case = Case::of(bytes).await;
    let blocks_of_data = (FRAME as u64 + 4096 + 2 * 4096) / 512;
    for threads in [Threads::PerCore, Threads::Inline] {
        // Nothing but garbage, and garbage around frames that are right.
        for right in [0..0, 2..6, 0..12] {
            case.clear();
            let mut leftover = noise(6, case.bytes.len());
            let right = right.start * FRAME..right.end * FRAME;
            leftover[right.clone()].copy_from_slice(&case.bytes[right.clone()]);
            case.leave(&leftover);
            let restored = case.restore(ReadOptions { threads, ..resuming() }).await.unwrap();
            assert_eq!(restored.kept_bytes, right.len() as u64);
            case.assert_whole();
            // What was kept stays as it is on the disk; what was written has holes.
            let most = blocks_of_data + right.len() as u64 / 512;
            let blocks = fs_err::metadata(case.file()).unwrap().blocks();
            assert!(blocks <= most, "{blocks} blocks, at most {most} after {right:?}");
        }
    }
}

#[tokio::test]
async fn holes_that_belong_there_are_kept() {
    let mut bytes = vec![0; 20 * FRAME + 100];
    bytes[..FRAME].copy_from_slice(&noise(8, FRAME));
    let case = Case::of(bytes).await;
    fs_err::File::create(case.partial()).unwrap();
    let restored = case.restore(resuming()).await.unwrap();
    assert_eq!(case.fetched(), BTreeSet::from([0]));
    case.assert_whole();
    assert_eq!(restored.kept_bytes, 19 * FRAME as u64 + 100, "all but the first frame");
    assert!(fs_err::metadata(case.file()).unwrap().blocks() * 512 <= FRAME as u64 + 8192);
}

#[tokio::test]
async fn what_is_no_plain_file_is_not_written_to() {
    let case = Case::forty_frames().await;
    let elsewhere = tempfile::tempdir().unwrap();
    let target = elsewhere.path().join("mine");
    for what in ["a symbolic link", "a second name"] {
        case.clear();
        fs_err::write(&target, &case.bytes[..FRAME]).unwrap();
        match what {
            "a symbolic link" => fs_err::os::unix::fs::symlink(&target, case.partial()).unwrap(),
            _ => fs_err::hard_link(&target, case.partial()).unwrap(),
        }
        let restored = case.restore(resuming()).await.unwrap();
        assert_eq!(restored.kept_bytes, 0, "{what}");
        case.assert_whole();
        assert!(fs_err::read(&target).unwrap() == case.bytes[..FRAME], "{what}");
    }
    // A directory is not removed: somebody else made it.
    case.clear();
    fs_err::create_dir(case.partial()).unwrap();
    let error = case.restore(resuming()).await.unwrap_err();
    assert!(matches!(&error, Error::TargetWrite { path, .. } if *path == case.partial()), "{error:?}");
    assert_eq!(error.kind(), FailureKind::RestoreFailed);
    assert_eq!(listing(case.folder.path()), ["docs.partial"]);
}

#[tokio::test]
async fn what_stays_after_a_failure_depends_on_the_failure() {
    let case = Case::forty_frames().await;
    for (effect, kind, stays) in [
        (Effect::Fail(StoreErrorKind::Transient), FailureKind::StoreUnavailable, true),
        (Effect::Fail(StoreErrorKind::AccessDenied), FailureKind::StoreUnavailable, true),
        (Effect::Fail(StoreErrorKind::PreconditionFailed), FailureKind::DownloadFailed, true),
        (Effect::FlipByte, FailureKind::ArchiveCorrupt, false),
    ] {
        for leftovers in [Leftovers::Resume, Leftovers::Discard] {
            case.clear();
            case.stored.store.fault(fault(20, effect));
            let options = ReadOptions { leftovers, ..read_options() };
            let error = case.restore(options).await.unwrap_err();
            assert_eq!(error.kind(), kind, "{error:?}");
            let left: &[&str] = if stays && leftovers == Leftovers::Resume { &["docs.partial"] } else { &[] };
            assert_eq!(listing(case.folder.path()), left, "{effect:?} {leftovers:?}");
            case.stored.store.clear_faults();
        }
    }
    // A file in which nothing was written yet is of no use.
    case.clear();
    case.stored.store.fault(fault(0, Effect::Fail(StoreErrorKind::AccessDenied)));
    case.restore(resuming()).await.unwrap_err();
    case.stored.store.clear_faults();
    assert_eq!(listing(case.folder.path()), [""; 0]);
    // What is left is of no use to a restore that does not go on from it.
    case.clear();
    case.leave(&case.bytes);
    let restored = case.restore(read_options()).await.unwrap();
    assert_eq!(restored.kept_bytes, 0);
    case.assert_whole();
}

#[tokio::test]
async fn several_files_go_on_each_from_where_it_was() {
    let (tree, stored) = Stored::typical().await;
    let folder = tempfile::tempdir().unwrap();
    let path = |entry: usize, end: &str| folder.path().join(format!("{entry}{end}"));
    fs_err::write(path(0, ".partial"), &tree.entries[0].1[..300_000]).unwrap();
    fs_err::write(path(2, ".partial"), &tree.entries[2].1).unwrap();
    fs_err::write(path(3, ".partial"), "not empty").unwrap();
    let restored = stored.restore_all_with(folder.path(), resuming()).await.unwrap();
    for (entry, (_, bytes)) in tree.entries.iter().enumerate() {
        assert!(fs_err::read(path(entry, "")).unwrap() == *bytes, "entry {entry}");
    }
    assert_eq!(restored.kept_bytes, 4 * FRAME as u64 + 300_000);
    assert_eq!(listing(folder.path()), ["0", "1", "2", "3", "4"]);
}
