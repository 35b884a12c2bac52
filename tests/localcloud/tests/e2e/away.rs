//! A store that does not answer well again. It is tried for half a minute, so this comes first, and all at once.

use std::time::Duration;

use localcloud::s3::{Effect, Operation};

use crate::harness::{Fixture, failed, next_second, says};

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_stays_away_is_named_in_the_end() {
    let gone = async {
        let fixture = Fixture::small().await;
        fixture.cloud.s3.faults().refuse_all();
        let said = fixture.fails("backup --no-quiesce", "StoreUnavailable", 1).await;
        assert_eq!(said["transient"], true);
        says(&said, &["fails (no connection)"]);
        fixture.fails("restore", "StoreUnavailable", 1).await;
        fixture.assert_nothing_left().await;
    };
    let failing = async {
        let fixture = Fixture::small().await;
        fixture.cloud.s3.faults().on(Operation::UploadPart).times(u64::MAX).inject(Effect::InternalError);
        let said = fixture.fails("backup --no-quiesce", "StoreUnavailable", 1).await;
        says(&said, &["upload part 1 of", "(8 attempts)", "InternalError", "may succeed later"]);
        // It does, with what the first one took and sent.
        fixture.cloud.s3.faults().clear();
        fixture.forget_calls();
        fixture.backup().await;
        assert_eq!(fixture.cloud.s3.count(Operation::CreateMultipartUpload), 0);
        assert_eq!((fixture.uploads().await, fixture.snapshot_files().len()), (0, 0));
    };
    let gone_in_between = async {
        let fixture = Fixture::small().await;
        let stall = Effect::Stall(Duration::from_secs(5));
        fixture.cloud.s3.faults().on(Operation::UploadPart).inject(stall);
        let worker = fixture.start("backup --no-quiesce");
        fixture.until_asked(Operation::UploadPart).await;
        fixture.cloud.s3.faults().refuse_all();
        let said = failed(&worker.finished().await, "StoreUnavailable", 1);
        says(&said, &["upload part 1 of", "the connection fails"]);
        fixture.cloud.s3.faults().clear();
        assert_eq!(fixture.keys().await, [""; 0]);
        assert_eq!(fixture.uploads().await, 1);
        next_second().await;
        fixture.backup().await;
        assert_eq!((fixture.uploads().await, fixture.snapshot_files().len()), (0, 0));
    };
    let unreadable = async {
        let mut fixture = Fixture::small().await;
        fixture.backup().await;
        fixture.replace_host().await;
        let archive = fixture.cloud.s3.faults().on(Operation::GetObject).key_containing(".tar.zst");
        archive.times(u64::MAX).inject(Effect::SlowDown);
        let said = fixture.fails("restore", "StoreUnavailable", 1).await;
        says(&said, &["read bytes", "SlowDown", "fewer parts in flight"]);
        fixture.assert_nothing_restored().await;
    };
    tokio::join!(gone, failing, gone_in_between, unreadable);
}
