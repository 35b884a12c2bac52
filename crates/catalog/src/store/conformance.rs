//! The suite that every implementation of the port passes: what publication relies on, and nothing else.
//!
//! ```text
//! store::conformance::run(&store, "conformance/2026-11-23/").await;
//! ```

#![expect(
    clippy::unwrap_used,
    reason = "this is a test suite that other crates call; it ends in panics by design"
)]

use bytes::Bytes;

use super::{Condition, Deletion, ObjectStore, PutError};

/// Runs the whole suite on keys under `prefix`, which must be empty and end in a slash. The objects stay.
///
/// # Panics
///
/// When the store does not behave as the port says.
pub async fn run(store: &impl ObjectStore, prefix: &str) {
    absence_is_absence(store, prefix).await;
    what_is_put_is_read_and_described(store, prefix).await;
    creation_happens_once(store, prefix).await;
    replacement_needs_the_tag_of_what_it_replaces(store, prefix).await;
    versions_stay_readable(store, prefix).await;
    listings_are_whole_and_ordered(store, prefix).await;
    the_clock_is_a_clock(store, prefix).await;
}

/// What is deleted is absent, twice is as good as once, its versions stay readable, and the key can be written anew.
///
/// # Panics
///
/// When the store does not behave as the port says.
pub async fn what_is_deleted_is_gone(store: &impl Deletion, prefix: &str) {
    let key = format!("{prefix}deleted.json");
    let put = store.put(&key, Bytes::from_static(b"first"), Condition::IfAbsent).await.unwrap();
    for _twice in 0..2 {
        store.delete(&key).await.unwrap();
        assert_eq!(store.get(&key, None).await.unwrap(), None);
        assert_eq!(store.head(&key, None).await.unwrap(), None);
        assert_eq!(store.list(&key).await.unwrap(), []);
    }
    if let Some(version) = &put.version_id {
        assert_eq!(store.get(&key, Some(version)).await.unwrap().unwrap().bytes, "first");
    }
    store.put(&key, Bytes::from_static(b"second"), Condition::IfAbsent).await.unwrap();
    assert_eq!(store.get(&key, None).await.unwrap().unwrap().bytes, "second");
}

/// An absent key is `None` for both reads, and nothing is listed.
pub async fn absence_is_absence(store: &impl ObjectStore, prefix: &str) {
    let key = format!("{prefix}absent.json");
    assert_eq!(store.get(&key, None).await.unwrap(), None);
    assert_eq!(store.head(&key, None).await.unwrap(), None);
    assert_eq!(store.list(&key).await.unwrap(), []);
}

/// Bytes, size, tag and checksum agree between `put`, `get` and `head`.
pub async fn what_is_put_is_read_and_described(store: &impl ObjectStore, prefix: &str) {
    let key = format!("{prefix}described.json");
    // The check value of CRC-64/NVME is that of these nine digits.
    let put = store.put(&key, Bytes::from_static(b"123456789"), Condition::None).await.unwrap();
    let object = store.get(&key, None).await.unwrap().unwrap();
    let head = store.head(&key, None).await.unwrap().unwrap();
    assert_eq!(object.bytes, "123456789");
    assert_eq!(head.size, 9);
    assert_eq!(head.crc64nvme.as_deref(), Some("rosUhgp5mIg="));
    for (etag, version) in [(&object.etag, &object.version_id), (&head.etag, &head.version_id)] {
        assert_eq!((etag, version), (&put.etag, &put.version_id));
    }
    let empty = format!("{prefix}empty.json");
    store.put(&empty, Bytes::new(), Condition::IfAbsent).await.unwrap();
    assert_eq!(store.get(&empty, None).await.unwrap().unwrap().bytes, Bytes::new());
}

/// `IfAbsent` succeeds once and never again, and the first bytes stay.
pub async fn creation_happens_once(store: &impl ObjectStore, prefix: &str) {
    let key = format!("{prefix}created.json");
    store.put(&key, Bytes::from_static(b"first"), Condition::IfAbsent).await.unwrap();
    for again in ["first", "second"] {
        refused(store, &key, again, Condition::IfAbsent).await;
    }
    assert_eq!(store.get(&key, None).await.unwrap().unwrap().bytes, "first");
}

/// `IfMatch` succeeds over the state that was read and over no other, also not over an absent key.
pub async fn replacement_needs_the_tag_of_what_it_replaces(store: &impl ObjectStore, prefix: &str) {
    let key = format!("{prefix}replaced.json");
    let first = store.put(&key, Bytes::from_static(b"first"), Condition::IfAbsent).await.unwrap();
    let over_first = Condition::IfMatch(first.etag.clone());
    let second = store.put(&key, Bytes::from_static(b"second"), over_first.clone()).await.unwrap();
    assert_ne!(first.etag, second.etag);
    refused(store, &key, "third", over_first.clone()).await;
    assert_eq!(store.get(&key, None).await.unwrap().unwrap().bytes, "second");
    let over_second = Condition::IfMatch(second.etag);
    store.put(&key, Bytes::from_static(b"third"), over_second).await.unwrap();
    assert_eq!(store.get(&key, None).await.unwrap().unwrap().bytes, "third");
    refused(store, &format!("{prefix}never-there.json"), "x", over_first).await;
}

/// Where the store has versions, an overwritten one is still read and described by its id.
pub async fn versions_stay_readable(store: &impl ObjectStore, prefix: &str) {
    let key = format!("{prefix}versions.json");
    let first = store.put(&key, Bytes::from_static(b"one"), Condition::None).await.unwrap();
    let second = store.put(&key, Bytes::from_static(b"other"), Condition::None).await.unwrap();
    let (Some(old), Some(new)) = (first.version_id, second.version_id) else { return };
    for (version, bytes, size) in [(old, "one", 3), (new, "other", 5)] {
        assert_eq!(store.get(&key, Some(&version)).await.unwrap().unwrap().bytes, bytes);
        assert_eq!(store.head(&key, Some(&version)).await.unwrap().unwrap().size, size);
    }
}

/// A listing has every key under the prefix, in order, and none beside it.
pub async fn listings_are_whole_and_ordered(store: &impl ObjectStore, prefix: &str) {
    let keys: Vec<String> = (0..25).map(|n| format!("{prefix}listed/{:02}.json", n)).collect();
    for key in keys.iter().rev() {
        store.put(key, Bytes::from_static(b"1234"), Condition::IfAbsent).await.unwrap();
    }
    store.put(&format!("{prefix}listed-beside.json"), Bytes::new(), Condition::IfAbsent).await.unwrap();
    let listed = store.list(&format!("{prefix}listed/")).await.unwrap();
    assert_eq!(listed.iter().map(|object| object.key.clone()).collect::<Vec<_>>(), keys);
    assert!(listed.iter().all(|object| object.size == 4));
}

/// The clock does not lag what the store itself writes (to the second, in which HTTP dates are given).
pub async fn the_clock_is_a_clock(store: &impl ObjectStore, prefix: &str) {
    let key = format!("{prefix}clock.json");
    store.put(&key, Bytes::from_static(b"tick"), Condition::None).await.unwrap();
    let written = store.get(&key, None).await.unwrap().unwrap().last_modified;
    let now = store.now().await.unwrap();
    assert!(now.as_second() >= written.as_second(), "{now} is before {written}");
    assert!(now.as_second() - written.as_second() < 600, "{now} is long after {written}");
}

async fn refused(store: &impl ObjectStore, key: &str, bytes: &'static str, condition: Condition) {
    let result = store.put(key, Bytes::from_static(bytes.as_bytes()), condition.clone()).await;
    assert!(
        matches!(result, Err(PutError::PreconditionFailed { .. })),
        "put `{key}` under {condition:?}: {result:?}"
    );
}
