//! The sizes at which arithmetic goes wrong: nothing, one byte, and far more than memory holds.

use protocol::FailureKind;
use transfer::{
    Content, EntrySpec, Error, Source, UploadOptions, Uploaded,
    store::{Call, Memory},
    upload,
};

use crate::support::{KEY, Stored, read_options};

const GIB: u64 = 1 << 30;

/// Uploads a file of `size` zeros, which takes no room on the disk, with the sizes and the budget of production.
async fn zeros(size: u64, budget: u64) -> (tempfile::TempDir, Memory, Result<Uploaded, Error>, u64) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("zeros.snapshot");
    fs_err::File::create(&path).unwrap().set_len(size).unwrap();
    let entry = EntrySpec { name: "snapshots/zeros/zeros.snapshot".to_owned(), size };
    let source = Source { entry, content: Content::File(path), expected_sha256: None };
    let options =
        UploadOptions { journal: Some(folder.path().join("upload.journal")), ..UploadOptions::new(budget) };
    let (store, progress) = (Memory::default(), options.progress.clone());
    let uploaded = upload(&store, KEY, vec![source], options).await;
    (folder, store, uploaded, progress.memory_peak())
}

#[tokio::test]
async fn nothing_and_one_byte_come_back() {
    for size in [0, 1] {
        let (folder, store, uploaded, _) = zeros(size, 64 << 20).await;
        let stored = Stored::new(store, uploaded.unwrap());
        let file = folder.path().join("back");
        let options = transfer::ReadOptions { geometry: transfer::Geometry::default(), ..read_options() };
        transfer::restore_entries(
            &stored.store,
            stored.reference(),
            &stored.index,
            &[(0, file.clone())],
            options,
        )
        .await
        .unwrap();
        assert_eq!(fs_err::read(file).unwrap(), vec![0; usize::try_from(size).unwrap()]);
    }
}

#[tokio::test]
async fn twenty_gibibytes_of_zeros_take_a_small_budget_and_a_small_object() {
    let budget = 96 << 20;
    let (_folder, store, uploaded, peak) = zeros(20 * GIB, budget).await;
    let uploaded = uploaded.unwrap();
    assert!(peak <= budget, "{peak} bytes");
    assert_eq!(uploaded.index.frames.len() as u64, 20 * GIB / (8 << 20) + 2);
    // zstd makes some 10,000 to 1 of it, so 2,560 frames are not even one part.
    assert!(uploaded.size_bytes < 16 << 20, "{} bytes", uploaded.size_bytes);
    assert_eq!(
        store.take_calls(),
        [Call::Create, Call::UploadPart(1), Call::ListParts, Call::Complete, Call::Head]
    );
}

#[tokio::test]
async fn a_budget_below_one_frame_is_an_error_that_says_what_is_needed() {
    let (_folder, store, uploaded, _) = zeros(GIB, 8 << 20).await;
    let error = uploaded.unwrap_err();
    assert_eq!(error.kind(), FailureKind::ConfigInvalid);
    let Error::BudgetTooSmall { needed, .. } = error else { panic!("{error:?}") };
    assert_eq!(store.take_calls(), []);
    let (_folder, _, uploaded, peak) = zeros(GIB, needed).await;
    uploaded.unwrap();
    assert!(peak <= needed);
}
