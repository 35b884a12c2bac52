//! What goes up comes down, and every reader of tar and zstd reads it.

use std::{
    io::{Cursor, Read},
    os::unix::fs::MetadataExt,
};

use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use transfer::{Level, ReadOptions, Threads, UploadOptions, check_object, store::Memory, upload};

use crate::support::{
    KEY, Stored, Tree, geometry, listing, noise, read_options, retry, text, upload_options,
};

/// Reads an archive with the `tar` crate over the stream decoder of the `zstd` crate.
fn read_as_tar(object: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut archive = tar::Archive::new(zstd::stream::read::Decoder::new(object).unwrap());
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let header = entry.header();
        assert_eq!(header.mode().unwrap(), 0o600);
        assert_eq!((header.uid().unwrap(), header.gid().unwrap(), header.mtime().unwrap()), (0, 0, 0));
        assert_eq!(header.entry_type(), tar::EntryType::Regular);
        let name = entry.path().unwrap().to_str().unwrap().to_owned();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        (name, bytes)
    });
    entries.collect()
}

/// Reads the tar stream with an independent implementation of the seekable format.
fn read_as_seekable(object: &[u8]) -> (u32, Vec<u8>) {
    let mut decoder = zeekstd::Decoder::new(Cursor::new(object)).unwrap();
    let frames = decoder.seek_table().num_frames();
    let mut raw = Vec::new();
    decoder.read_to_end(&mut raw).unwrap();
    (frames, raw)
}

async fn round_trip(tree: &Tree, threads: Threads) {
    let store = Memory::default();
    let options = UploadOptions { threads, ..upload_options() };
    let progress = options.progress.clone();
    let uploaded = upload(&store, KEY, tree.sources(), options).await.unwrap();
    let object = store.object(KEY).unwrap();
    assert_eq!(uploaded.size_bytes, object.len() as u64);
    assert_eq!(progress.raw_done(), uploaded.raw_bytes);
    assert_eq!(progress.object_bytes(), uploaded.size_bytes);
    assert!(progress.memory_peak() <= upload_options().memory_budget_bytes);

    assert_eq!(read_as_tar(&object), tree.entries);
    let (frames, raw) = read_as_seekable(&object);
    assert_eq!(frames as usize, uploaded.index.frames.len());
    assert_eq!(raw.len() as u64, uploaded.raw_bytes);

    let stored = Stored::new(store, uploaded);
    let options = ReadOptions { threads, ..read_options() };
    let check =
        check_object(&stored.store, stored.reference(), &stored.index, options.clone()).await.unwrap();
    assert!(check.is_whole(), "{:?}", check.findings);
    assert_eq!(check.frames_good, check.frames_total);
    assert_eq!(check.object_bytes, stored.size_bytes);
    let folder = tempfile::tempdir().unwrap();
    let restored = stored.restore_all_with(folder.path(), options).await.unwrap();
    assert_eq!(restored.raw_bytes, tree.entries.iter().map(|(_, bytes)| bytes.len() as u64).sum::<u64>());
    assert_eq!(listing(folder.path()).len(), tree.entries.len(), "{:?}", listing(folder.path()));
    for (number, (name, bytes)) in tree.entries.iter().enumerate() {
        let path = folder.path().join(number.to_string());
        assert!(&fs_err::read(&path).unwrap() == bytes, "{name}");
        assert_eq!(fs_err::metadata(&path).unwrap().mode() & 0o777, 0o600);
    }
}

#[tokio::test]
async fn a_typical_archive_comes_back_on_threads_and_inline() {
    let tree = Tree::typical();
    for threads in [Threads::PerCore, Threads::Count(1), Threads::Count(7), Threads::Inline] {
        round_trip(&tree, threads).await;
    }
}

#[tokio::test]
async fn who_packs_and_how_often_makes_no_difference() {
    let tree = Tree::typical();
    let mut objects = Vec::new();
    for threads in [Threads::Count(1), Threads::Count(5), Threads::Inline] {
        let store = Memory::default();
        upload(&store, KEY, tree.sources(), UploadOptions { threads, ..upload_options() }).await.unwrap();
        objects.push(store.object(KEY).unwrap());
    }
    assert!(objects.windows(2).all(|pair| pair[0] == pair[1]));
}

#[tokio::test]
async fn every_size_around_a_boundary_and_every_sort_of_name() {
    let frame = 64 << 10;
    let sizes = [0, 1, 511, 512, 513, frame - 1, frame, frame + 1, 3 * frame];
    let names = [
        "n".repeat(99),
        "n".repeat(100),
        "n".repeat(101),
        format!("{}/{}", "d".repeat(200), "ü".repeat(300)),
    ];
    let odd = ["a b", "%2F", "-rf", "ends.", "日本", "a\\b", "\u{feff}x"];
    let names = names.into_iter().chain(odd.map(str::to_owned)).cycle();
    let entries = (0..).zip(sizes.iter().cycle().take(27)).zip(names);
    let tree =
        Tree::new(entries.map(|((number, size), name)| (format!("{number}/{name}"), text(number, *size))));
    round_trip(&tree, Threads::PerCore).await;
}

#[tokio::test]
async fn many_small_entries_and_a_single_empty_one() {
    let tree = Tree::new((0..2_000).map(|number| {
        (format!("snapshots/{number}"), noise(number, [0, 1, 2][usize::try_from(number % 3).unwrap()]))
    }));
    round_trip(&tree, Threads::PerCore).await;
    round_trip(&Tree::new([("empty", Vec::new())]), Threads::PerCore).await;
    round_trip(&Tree::new([("one", vec![7])]), Threads::Inline).await;
}

#[test]
fn random_trees_come_back() {
    let bytes = prop_oneof![
        (any::<u64>(), 0..200_000_usize).prop_map(|(seed, len)| text(seed, len)),
        (any::<u64>(), 0..200_000_usize).prop_map(|(seed, len)| noise(seed, len)),
        (0..300_000_usize).prop_map(|len| vec![0; len]),
        Just(Vec::new()),
        (any::<u64>(), 1..4_usize).prop_map(|(seed, frames)| text(seed, frames * 65_536)),
    ];
    let entry = ("[a-zA-Z0-9._ü%-]{1,140}", bytes);
    let trees = prop::collection::vec(entry, 1..12);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap();
    let mut runner = TestRunner::new(Config { cases: 40, failure_persistence: None, ..Config::default() });
    let result = runner.run(&trees, |entries| {
        let entries = entries
            .into_iter()
            .enumerate()
            .map(|(number, (name, bytes))| (format!("{number}-{name}"), bytes));
        let tree = Tree::new(entries);
        runtime.block_on(round_trip(&tree, Threads::PerCore));
        Ok(())
    });
    result.unwrap();
}

#[tokio::test]
async fn data_that_compresses_ten_thousand_to_one_flows_through_a_small_budget() {
    // Far more frames per part than the budget has room for: permits that waited for parts would wait for ever.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("zeros");
    let size = 512 << 20;
    fs_err::File::create(&path).unwrap().set_len(size).unwrap();
    let entry = transfer::EntrySpec { name: "zeros".into(), size };
    let source = transfer::Source { entry, content: transfer::Content::File(path), expected_sha256: None };
    let (store, mut options) = (Memory::default(), upload_options());
    options.memory_budget_bytes = 2_500_000;
    let progress = options.progress.clone();
    let uploaded = upload(&store, KEY, vec![source], options).await.unwrap();
    assert_eq!(uploaded.index.frames.len(), 2 + 8192);
    assert!(progress.memory_peak() <= 2_500_000);

    let stored = Stored::new(store, uploaded);
    let mut options = ReadOptions { memory_budget_bytes: 3 << 20, ..read_options() };
    options.progress = std::sync::Arc::default();
    let progress = options.progress.clone();
    let target = folder.path().join("restored");
    let wanted = [(0, target.clone())];
    transfer::restore_entries(&stored.store, stored.reference(), &stored.index, &wanted, options)
        .await
        .unwrap();
    assert!(progress.memory_peak() <= 3 << 20);
    let metadata = fs_err::metadata(&target).unwrap();
    assert_eq!((metadata.len(), metadata.blocks()), (size, 0), "zeros are holes");
}

#[tokio::test]
async fn production_sizes_and_levels_come_back() {
    let frame = 8 << 20;
    let tree = Tree::new([
        ("exact", text(1, frame)),
        ("over", noise(2, frame + 1)),
        ("under", text(3, frame - 1)),
        ("backup.json", b"{}".to_vec()),
    ]);
    for level in [Level::Auto, Level::Fixed(1), Level::Fixed(3), Level::Fixed(9)] {
        let store = Memory::default();
        let options = UploadOptions { level, retry: retry(), ..UploadOptions::new(128 << 20) };
        let uploaded = upload(&store, KEY, tree.sources(), options).await.unwrap();
        assert_eq!(uploaded.part_size, 16 << 20);
        assert!(read_as_tar(&store.object(KEY).unwrap()) == tree.entries);
        let stored = Stored::new(store, uploaded);
        let folder = tempfile::tempdir().unwrap();
        stored.restore_all_with(folder.path(), ReadOptions::new(128 << 20)).await.unwrap();
        assert!(fs_err::read(folder.path().join("1")).unwrap() == tree.entries[1].1);
    }
}

#[tokio::test]
async fn a_store_without_checksums_is_read_back() {
    let tree = Tree::typical();
    let store = Memory::without_checksums();
    let uploaded = upload(&store, KEY, tree.sources(), upload_options()).await.unwrap();
    assert!(uploaded.read_back);
    assert_eq!(read_as_tar(&store.object(KEY).unwrap()), tree.entries);
    assert_eq!(geometry().part_size, Some(uploaded.part_size));
}
