//! A store that asks to slow down: fewer requests are underway, and more again when it is content. On a paused clock and in one task,
//! so that every run is the same.

use std::{path::PathBuf, time::Duration};

use transfer::{
    Level, ReadOptions, RetryPolicy, Threads, UploadOptions,
    store::{Call, Effect, Fault, Memory, StoreErrorKind},
    upload,
};

use crate::support::{KEY, SMALL, Stored, Tree, noise, read_options, upload_options};

const PACE: Duration = Duration::from_millis(10);
const CONCURRENCY: usize = 8;

/// An archive of 100 parts.
fn tree() -> Tree {
    let bytes = noise(7, 99 * SMALL as usize);
    Tree::new([("snapshots/a/a.snapshot", bytes), ("backup.json", b"{}".to_vec())])
}

fn throttle(call: Call, after: u32, times: u32) -> Fault {
    Fault { call, after, times, effect: Effect::Fail(StoreErrorKind::Throttled) }
}

fn retry() -> RetryPolicy {
    RetryPolicy { attempts: 8, base: PACE, cap: PACE * 4 }
}

async fn send(store: &Memory) {
    store.pace(PACE);
    let options = UploadOptions {
        threads: Threads::Inline,
        level: Level::Fixed(1),
        concurrency: Some(CONCURRENCY),
        retry: retry(),
        ..upload_options()
    };
    upload(store, KEY, tree().sources(), options).await.unwrap();
}

/// The first width from which on nothing is wider than `limit`, as often as `times` in a row.
fn narrow(widths: &[usize], limit: usize, times: usize) -> Option<usize> {
    widths.windows(times).position(|run| run.iter().all(|width| *width <= limit))
}

/// The store refused what was underway several times over; `widths` fell, stayed low, and came back.
fn assert_fell_and_came_back(widths: &[usize]) {
    assert_eq!(widths[CONCURRENCY - 1], CONCURRENCY, "{widths:?}");
    let low = narrow(widths, 2, 4).unwrap_or_else(|| panic!("it never fell: {widths:?}"));
    let back = widths[low..].iter().position(|width| *width == CONCURRENCY);
    let back = back.unwrap_or_else(|| panic!("it never came back: {widths:?}"));
    // From 2 back to 8, one more for each windowful: 2 + 3 + ... + 7 successes.
    assert!(back >= 27, "too soon, after {back}: {widths:?}");
    let grows = widths[low + 4..low + back].windows(2).all(|pair| pair[1] <= pair[0] + 1);
    assert!(grows, "{widths:?}");
}

#[tokio::test(start_paused = true)]
async fn a_storm_narrows_an_upload_and_its_end_widens_it() {
    let store = Memory::default();
    for part in 17..=24 {
        store.fault(throttle(Call::UploadPart(part), 0, 3));
    }
    send(&store).await;
    let calls = store.take_calls();
    let parts = calls.iter().filter(|call| matches!(call, Call::UploadPart(_))).count();
    assert_eq!(parts, 100 + 8 * 3);
    let widths = store.take_widths();
    assert_eq!(widths.len(), parts);
    assert_fell_and_came_back(&widths);
}

#[tokio::test(start_paused = true)]
async fn a_full_window_that_is_refused_is_halved_once_and_other_failures_do_not_narrow_it() {
    for (kind, width) in [(StoreErrorKind::Throttled, 4), (StoreErrorKind::Transient, 8)] {
        let store = Memory::default();
        // All eight that are underway at the start are refused, and never again.
        for part in 1..=8 {
            store.fault(Fault { effect: Effect::Fail(kind), ..throttle(Call::UploadPart(part), 0, 1) });
        }
        send(&store).await;
        let widths = store.take_widths();
        assert_eq!(widths[..8], [1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(widths[8..16].iter().max(), Some(&width), "{kind:?}: {widths:?}");
        assert!(widths[16..].contains(&8), "{widths:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_storm_narrows_a_restore_and_its_end_widens_it() {
    let store = Memory::default();
    let tree = tree();
    let uploaded = tree.upload(&store).await;
    let stored = Stored::new(store.clone(), uploaded);
    store.pace(PACE);
    let _upload = (store.take_widths(), store.take_calls());
    store.fault(throttle(Call::GetRange(0..0), 16, 24));
    let folder = tempfile::tempdir().unwrap();
    let options = ReadOptions {
        threads: Threads::Inline,
        concurrency: Some(CONCURRENCY),
        retry: retry(),
        ..read_options()
    };
    let entries: Vec<(usize, PathBuf)> = vec![(0, folder.path().join("a"))];
    transfer::restore_entries(&stored.store, stored.reference(), &stored.index, &entries, options)
        .await
        .unwrap();
    assert!(fs_err::read(folder.path().join("a")).unwrap() == tree.entries[0].1);
    assert_fell_and_came_back(&store.take_widths());
}
