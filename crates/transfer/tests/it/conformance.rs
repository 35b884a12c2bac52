//! The memory store keeps the port's promises, so that what is proved over it holds over S3.

use transfer::store::{Memory, conformance};

#[tokio::test]
async fn the_memory_store_conforms() {
    conformance::run(&Memory::default(), "conformance/").await.unwrap();
    conformance::run(&Memory::without_checksums(), "conformance/").await.unwrap();
}
