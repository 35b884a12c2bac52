//! Damage of every sort in every place: each ends in a named error and no file, and `check_object` names the place.

use transfer::{
    Error, Finding, check_object, fetch_index,
    store::{Call, Effect, Fault},
};

use crate::support::{KEY, Stored, listing, read_options};

const INDEX_KEY: &str = "qdrant/backups/qdrant_snapshot_20261123T051400Z-0badcafe.frames.json.zst";

#[derive(Clone, Copy, Debug)]
enum Damage {
    Flip,
    Zero,
    Swap,
    Remove,
    Duplicate,
}

/// Does `damage` to the bytes `from..to`; the other place to swap with is at `other`.
fn apply(bytes: &mut Vec<u8>, damage: Damage, from: usize, to: usize, other: usize) {
    match damage {
        Damage::Flip => bytes[usize::midpoint(from, to)] ^= 0x20,
        Damage::Zero => bytes[from..to].fill(0),
        Damage::Swap => {
            for step in 0..(to - from).min(bytes.len() - other) {
                bytes.swap(from + step, other + step);
            }
        }
        Damage::Remove => drop(bytes.drain(from..to)),
        Damage::Duplicate => {
            let copy = bytes[from..to].to_vec();
            bytes.splice(to..to, copy);
        }
    }
}

async fn restores_nothing(stored: &Stored) -> Error {
    let folder = tempfile::tempdir().unwrap();
    let error = stored.restore_all(folder.path()).await.unwrap_err();
    assert_eq!(listing(folder.path()), [""; 0], "{error:?}");
    error
}

async fn findings(stored: &Stored) -> Vec<Finding> {
    check_object(&stored.store, stored.reference(), &stored.index, read_options()).await.unwrap().findings
}

#[tokio::test]
async fn every_frame_and_every_damage() {
    let (_, pristine) = Stored::typical().await;
    let offsets =
        pristine.index.offsets().into_iter().map(|o| usize::try_from(o).unwrap()).collect::<Vec<_>>();
    let object = pristine.store.object(KEY).unwrap();
    let frames = pristine.index.frames.len();
    let needed: Vec<bool> = {
        // Frames that hold data of entries: the others are not even fetched by a restore.
        let entries = &pristine.archive.entries;
        let of = |frame: u64| {
            entries.iter().any(|e| {
                e.size > 0 && (e.first_frame..e.first_frame + e.size.div_ceil(65_536)).contains(&frame)
            })
        };
        (0..frames as u64).map(of).collect()
    };
    for frame in 0..frames {
        for damage in [Damage::Flip, Damage::Zero, Damage::Swap] {
            let other = offsets[(frame + 1) % frames];
            let mut bytes = object.clone();
            apply(&mut bytes, damage, offsets[frame], offsets[frame + 1], other);
            if bytes == object {
                // Two frames of zeros are the same.
                continue;
            }
            pristine.store.put(KEY, bytes);
            let found = findings(&pristine).await;
            let named = |finding: &Finding| matches!(finding, Finding::Frame { frame: f, object_offset, .. } if *f == frame as u64 && *object_offset == offsets[frame] as u64);
            assert!(found.iter().any(named), "{damage:?} of frame {frame}: {found:?}");
            assert!(found.iter().any(|finding| matches!(finding, Finding::Sha256 { .. })));
            assert!(found.iter().any(|finding| matches!(finding, Finding::Crc64Nvme { .. })));
            if needed[frame] {
                let error = restores_nothing(&pristine).await;
                assert!(
                    matches!(error, Error::FrameDamaged { .. }),
                    "{damage:?} of frame {frame}: {error:?}"
                );
            }
        }
        for damage in [Damage::Remove, Damage::Duplicate] {
            let mut bytes = object.clone();
            apply(&mut bytes, damage, offsets[frame], offsets[frame + 1], 0);
            pristine.store.put(KEY, bytes);
            assert!(matches!(restores_nothing(&pristine).await, Error::ObjectSize { .. }));
            let found = findings(&pristine).await;
            assert!(matches!(found[0], Finding::Size { .. }), "{found:?}");
        }
    }
}

#[tokio::test]
async fn truncated_objects_and_trailing_garbage() {
    let (_, stored) = Stored::typical().await;
    let object = stored.store.object(KEY).unwrap();
    for len in [0, 1, object.len() / 3, object.len() / 2, object.len() - 18, object.len() - 1] {
        stored.store.put(KEY, object[..len].to_vec());
        let error = restores_nothing(&stored).await;
        assert!(matches!(&error, Error::ObjectSize { found, .. } if *found == len as u64), "{error:?}");
        let check =
            check_object(&stored.store, stored.reference(), &stored.index, read_options()).await.unwrap();
        assert!(!check.is_whole());
        let whole = stored.index.offsets().iter().filter(|offset| **offset <= len as u64).count() - 1;
        assert_eq!(check.frames_good, whole as u64, "everything before the end is still read");
        let missing =
            check.findings.iter().filter(|finding| matches!(finding, Finding::Frame { .. })).count();
        assert_eq!(missing as u64, check.frames_total - check.frames_good);
    }
    stored.store.put(KEY, [object.as_slice(), b"garbage"].concat());
    assert!(matches!(restores_nothing(&stored).await, Error::ObjectSize { .. }));
    let found = findings(&stored).await;
    assert_eq!(found, [Finding::Size { expected: object.len() as u64, found: object.len() as u64 + 7 }]);
}

#[tokio::test]
async fn a_damaged_seek_table_is_found_and_does_not_keep_from_restoring() {
    let (_, stored) = Stored::typical().await;
    let table = usize::try_from(*stored.index.offsets().last().unwrap()).unwrap();
    let object = stored.store.object(KEY).unwrap();
    for at in table..object.len() {
        stored.store.put(KEY, object.clone());
        stored.damage(|bytes| bytes[at] ^= 1);
        let found = findings(&stored).await;
        let what = format!("byte {at} of the object is another one");
        assert_eq!(found[0], Finding::SeekTable { what });
        assert_eq!(found.len(), 3, "{found:?}");
    }
    let folder = tempfile::tempdir().unwrap();
    stored.restore_all(folder.path()).await.unwrap();
}

#[tokio::test]
async fn the_list_of_findings_has_an_end() {
    let tree = crate::support::Tree::new([("a", crate::support::noise(1, 200 * 65_536))]);
    let store = transfer::store::Memory::default();
    let uploaded = tree.upload(&store).await;
    let stored = Stored::new(store, uploaded);
    stored.damage(|bytes| bytes.fill(0));
    let check = check_object(&stored.store, stored.reference(), &stored.index, read_options()).await.unwrap();
    assert_eq!(check.findings.len(), transfer::download::MAX_FINDINGS);
    assert_eq!(check.frames_good, 0);
    let total = check.frames_total + 3;
    assert_eq!(check.more, total - 100);
    assert!(!check.is_whole());
    let first = check.findings[1].to_string();
    assert!(first.starts_with("frame 1 at byte ") && first.contains("(`a` at byte 0): "), "{first}");
}

#[tokio::test]
async fn a_request_to_stop_is_heard_while_the_index_is_read() {
    let (_, stored) = Stored::typical().await;
    stored.store.put(INDEX_KEY, stored.index.to_json_zst());
    for call in [Call::Head, Call::GetRange(0..0)] {
        stored.store.fault(Fault { call, after: 0, times: 1, effect: Effect::Hang });
        let options = read_options();
        options.cancel.cancel();
        let error = fetch_index(&stored.store, INDEX_KEY, stored.reference(), &options).await.unwrap_err();
        assert!(matches!(error, Error::Cancelled), "{error:?}");
        let options = read_options();
        let cancel = options.cancel.clone();
        let stopping = async {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            cancel.cancel();
        };
        let fetching = fetch_index(&stored.store, INDEX_KEY, stored.reference(), &options);
        let (result, ()) = tokio::join!(fetching, stopping);
        assert!(matches!(result, Err(Error::Cancelled)), "{result:?}");
    }
}

#[tokio::test]
async fn a_damaged_index_is_refused() {
    let (_, stored) = Stored::typical().await;
    let json = stored.index.to_json_zst();
    let fetch = async || fetch_index(&stored.store, INDEX_KEY, stored.reference(), &read_options()).await;
    assert!(matches!(fetch().await.unwrap_err(), Error::ObjectMissing { .. }));
    stored.store.put(INDEX_KEY, json.clone());
    assert_eq!(fetch().await.unwrap(), stored.index);
    for at in (0..json.len()).step_by(7) {
        let mut flipped = json.clone();
        flipped[at] ^= 2;
        stored.store.put(INDEX_KEY, flipped);
        match fetch().await {
            Ok(index) => assert_eq!(index, stored.index, "a bit that no decoder looks at"),
            Err(error) => assert_eq!(error.kind(), protocol::FailureKind::ArchiveCorrupt, "{error:?}"),
        }
        stored.store.put(INDEX_KEY, json[..at].to_vec());
        assert!(matches!(fetch().await.unwrap_err(), Error::Index { .. }));
    }
    // A well-formed index of something else.
    let mut other = stored.index.clone();
    other.frames[1].hash[0] ^= 1;
    stored.store.put(INDEX_KEY, other.to_json_zst());
    let error = fetch().await.unwrap_err();
    assert!(format!("{error:?}").contains("Root"), "{error:?}");
    stored.store.put(INDEX_KEY, vec![0; 1 << 20]);
    assert!(format!("{:?}", fetch().await.unwrap_err()).contains("TooLarge"));
}
