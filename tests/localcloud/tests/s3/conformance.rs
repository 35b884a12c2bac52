//! The product's own store ports, over the wire: each has one suite, which its memory store passes too.

use std::time::Duration;

use localcloud::s3::{Effect, Operation};
use transfer::{Content, EntrySpec, Geometry, Source, UploadOptions, store::MultipartStore};

use crate::{BUCKET, get, server};

#[tokio::test(flavor = "multi_thread")]
async fn the_catalogues_port_conforms() {
    let server = server().await;
    let store = catalog::store::S3::new(server.client().await, BUCKET);
    catalog::store::conformance::run(&store, "conformance/").await;
    catalog::store::conformance::what_is_deleted_is_gone(&store, "conformance/").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_transfers_port_conforms() {
    let server = server().await;
    let store = transfer::store::S3::new(server.client().await, BUCKET);
    transfer::store::conformance::run(&store, "conformance/").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_upload_goes_on_however_many_pages_its_parts_take() {
    let server = server().await;
    let store = transfer::store::S3::new(server.client().await, BUCKET);
    let folder = tempfile::tempdir().unwrap();
    let (source, journal) = (folder.path().join("source"), folder.path().join("upload.journal"));
    let bytes: Vec<u8> = (0..325_000_u32).flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    fs_err::write(&source, &bytes).unwrap();
    let sources = || {
        let entry = EntrySpec { name: "snapshots/a/a.snapshot".to_owned(), size: bytes.len() as u64 };
        vec![Source { entry, content: Content::File(source.clone()), expected_sha256: None }]
    };
    let options = || UploadOptions {
        geometry: Geometry { part_size: Some(1024), frame_raw_max: 64 << 10, ..Geometry::default() },
        journal: Some(journal.clone()),
        ..UploadOptions::new(64 << 20)
    };
    // S3 lists a thousand parts a page.
    const INTERRUPTED_AT: u32 = 1_100;
    server
        .faults()
        .on(Operation::UploadPart)
        .part(INTERRUPTED_AT)
        .inject(Effect::Stall(Duration::from_secs(300)));
    let first = options();
    let cancel = first.cancel.clone();
    let stopping = async {
        while !server.calls().iter().any(|call| call.part_number == Some(INTERRUPTED_AT)) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        cancel.cancel();
    };
    let (stopped, ()) = tokio::join!(transfer::upload(&store, "key", sources(), first), stopping);
    assert!(stopped.unwrap_err().is_resumable());
    server.faults().clear();
    let confirmed =
        |call: &localcloud::s3::Call| call.operation == Operation::UploadPart && call.status == Some(200);
    let stored = server.take_calls().into_iter().filter(confirmed).count();

    let uploaded = transfer::upload(&store, "key", sources(), options()).await.unwrap();
    assert!(uploaded.parts > INTERRUPTED_AT && uploaded.resumed_parts as usize >= stored, "{stored}");
    // A call that was cut off may have been seen late; those of this run begin with the list.
    let calls = server.calls().into_iter().skip_while(|call| call.operation != Operation::ListParts);
    let (lists, others): (Vec<_>, Vec<_>) = calls.partition(|call| call.operation == Operation::ListParts);
    let sent = others.iter().filter(|call| call.operation == Operation::UploadPart).count();
    assert_eq!(sent, (uploaded.parts - uploaded.resumed_parts) as usize);
    assert_eq!(lists.len(), 4, "two pages when it goes on, two when all parts are compared");
    let object = get(&server.client().await, "key").await;
    assert_eq!(object.len() as u64, uploaded.size_bytes);
    assert!(store.list_uploads("").await.unwrap().is_empty());
    let undisturbed = UploadOptions { journal: None, ..options() };
    transfer::upload(&store, "again", sources(), undisturbed).await.unwrap();
    assert!(get(&server.client().await, "again").await == object, "bit for bit");
}
