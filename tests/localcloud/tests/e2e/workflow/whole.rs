//! What goes well, from the input to the pointer.

use serde_json::json;

use super::harness::Flow;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_from_the_console_is_published() {
    let flow = Flow::small().await;
    assert_eq!(flow.succeeds(json!({})).await, "BackedUp");
    assert!(flow.fixture.pointer().await.is_some());
}
