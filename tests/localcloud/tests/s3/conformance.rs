//! The product's own store ports, over the wire: each has one suite, which its memory store passes too.

use crate::{BUCKET, server};

#[tokio::test(flavor = "multi_thread")]
async fn the_catalogues_port_conforms() {
    let server = server().await;
    let store = catalog::store::S3::new(server.client().await, BUCKET);
    catalog::store::conformance::run(&store, "conformance/").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_transfers_port_conforms() {
    let server = server().await;
    let store = transfer::store::S3::new(server.client().await, BUCKET);
    transfer::store::conformance::run(&store, "conformance/").await.unwrap();
}
