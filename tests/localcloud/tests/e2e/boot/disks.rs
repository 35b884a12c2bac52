//! Boots on an instance with NVMe disks of its own: blank, striped, foreign, and a power that goes while they are prepared.

use localcloud::{disks::Moment, instance::InstanceOptions};

use super::harness::Replaced;
use crate::harness::{Fixture, says};

impl Replaced {
    /// After a backup of [`Fixture::small`], on an instance with so many disks.
    async fn with_disks(disks: usize) -> Self {
        let fixture = Fixture::small().await;
        fixture.backup().await;
        Self::with(fixture, |options: &mut InstanceOptions| options.disks = disks).await
    }

    fn calls(&self, words: &str) -> usize {
        self.instance.disks.calls().unwrap().iter().filter(|call| call.starts_with(words)).count()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn blank_disks_are_restored_to_and_found_again_after_a_reboot() {
    for disks in [1, 3] {
        let mut host = Replaced::with_disks(disks).await;
        host.boots().await;
        host.assert_serves_what_was_lost().await;
        host.instance.power_cut().await;
        assert!(host.record().is_none(), "the record is on the disks, and nothing is mounted");
        host.fixture.forget_calls();
        host.boots().await;
        host.assert_serves_what_was_lost().await;
        assert_eq!(host.downloads(), 0, "{disks} disks: something was fetched");
        assert_eq!((host.calls("mkfs.xfs"), host.calls("mdadm --create")), (1, usize::from(disks > 1)));
        // The next instance's disks are blank, and the completion marker is gone with the data that it spoke of.
        host.instance.replace().await.unwrap();
        host.fixture.forget_calls();
        host.boots().await;
        host.assert_serves_what_was_lost().await;
        assert_eq!(host.downloads_of_archives().min(1), 1, "{disks} disks: nothing was fetched");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_with_somebodys_data_is_named_and_nobody_is_served() {
    let host = Replaced::with_disks(1).await;
    host.instance.disks.put_foreign("nvme1n1", "ext4", Some("home")).unwrap();
    let error = host.fails(&["boot", "--once"], "ConfigInvalid", 2).await;
    says(&error, &["nvme1n1", "ext4 `home`", "wipefs"]);
    assert!(!host.serves().await);
    assert_eq!(host.instance.docker.started(), []);
    assert_eq!((host.calls("mkfs.xfs"), host.calls("mount")), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_power_cut_while_disks_are_prepared_is_gone_on_from() {
    for (disks, call) in [(1, "mkfs.xfs"), (1, "mount"), (3, "mdadm --create"), (3, "mkfs.xfs"), (3, "chown")]
    {
        let host = Replaced::with_disks(disks).await;
        host.instance.disks.cut_power_at(call, Moment::Within).unwrap();
        let cut = host.instance.run(&["boot"]).await.unwrap();
        assert_eq!(cut.code(), None, "`{call}`: the power is not cut: {}", cut.stderr);
        host.instance.power_cut().await;
        host.boots().await;
        host.assert_serves_what_was_lost().await;
    }
}
