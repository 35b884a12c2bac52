//! Disks: blank, found again, foreign, and a power that goes at any moment.

use localcloud::disks::Moment;
use serde_json::json;

use crate::host::Host;

/// What changes something; everything else only looks.
const CHANGES: [&str; 4] = ["mkfs.xfs", "mdadm", "mount", "chown"];

/// How what was interrupted is gone on with.
#[derive(Clone, Copy, Debug)]
enum Then {
    /// After a start of the machine, whose udev looks for arrays.
    RebootWithUdev,
    /// After a start of the machine, whose udev does not.
    Reboot,
    /// On the machine as it is: only the worker was killed.
    GoOn,
}

impl Host {
    fn write(&self, text: &str) {
        fs_err::write(self.workspace().join("data/written"), text).unwrap();
    }

    fn written(&self) -> Option<String> {
        fs_err::read_to_string(self.workspace().join("data/written")).ok()
    }

    fn called(&self, program: &str) -> usize {
        let calls = self.disks.calls().unwrap();
        calls.iter().filter(|call| call.split(' ').next() == Some(program)).count()
    }

    fn assert_untouched(&self) {
        for program in CHANGES {
            assert_eq!(self.called(program), 0, "{:?}", self.disks.calls().unwrap());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blank_disk_is_made_found_and_left_alone() {
    let host = Host::with_disks(1);
    let disk = host.disks.device("nvme1n1");
    assert_eq!(host.done("prepare").await, json!({ "how": "made", "devices": [disk] }));
    for dir in ["data", "snapshots", "backups"] {
        assert!(host.workspace().join(dir).is_dir(), "{dir}");
    }
    let (workspace, calls) = (host.workspace(), host.disks.calls().unwrap());
    let owned = format!("chown 1000:1000 -- {0}/data {0}/snapshots", workspace.display());
    assert!(calls.contains(&owned), "the work dir stays root's: {calls:?}");
    host.write("kept");

    assert_eq!(host.done("prepare").await["how"], "mounted");
    assert_eq!((host.called("mkfs.xfs"), host.called("mount")), (1, 1));

    host.disks.reboot(true).unwrap();
    assert_eq!(host.written(), None, "nothing is mounted after a start");
    assert_eq!(host.done("prepare").await["how"], "found");
    assert_eq!(host.written().as_deref(), Some("kept"));
    assert_eq!(host.called("mkfs.xfs"), 1);

    host.disks.renew(1).unwrap();
    assert_eq!(host.done("prepare").await["how"], "made");
    assert_eq!(host.written(), None, "the disks of another instance are blank");
}

#[tokio::test(flavor = "multi_thread")]
async fn several_disks_are_one_stripe_and_found_as_such() {
    let host = Host::with_disks(3);
    let disks: Vec<_> = ["nvme1n1", "nvme2n1", "nvme3n1"].map(|name| host.disks.device(name)).into();
    assert_eq!(host.done("prepare").await, json!({ "how": "made", "devices": disks }));
    host.write("kept");
    assert_eq!(host.done("prepare").await["how"], "mounted");
    for found_by_udev in [true, false] {
        host.disks.reboot(found_by_udev).unwrap();
        assert_eq!(host.done("prepare").await, json!({ "how": "found", "devices": disks }));
        assert_eq!(host.written().as_deref(), Some("kept"));
    }
    // Made once, started once where udev had not done it.
    assert_eq!((host.called("mkfs.xfs"), host.called("mdadm")), (1, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_root_disk_is_not_the_instances_own() {
    let host = Host::with_disks(0);
    let (error, hint) = host.fails("prepare").await;
    assert!(
        error.starts_with("this machine has no NVMe instance storage: it has ")
            && error.contains("nvme0n1 (Amazon Elastic Block Store)"),
        "{error}"
    );
    assert!(hint.contains("no-disks = true"), "{hint}");
    host.assert_untouched();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_stands_in_for_disks_where_the_settings_say_so() {
    let host = Host::new(1, "no-disks = true");
    assert_eq!(host.done("prepare").await, json!({ "how": "mounted", "devices": [] }));
    host.write("kept");
    assert_eq!(host.done("prepare").await["how"], "mounted");
    assert_eq!(host.written().as_deref(), Some("kept"));
    assert_eq!(host.disks.calls().unwrap(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_ours_is_named_and_not_touched() {
    for (disks, disk, kind, label) in [
        (1, "nvme1n1", "ext4", Some("home")),
        (1, "nvme1n1", "xfs", None),
        (3, "nvme2n1", "LVM2_member", None),
    ] {
        let host = Host::with_disks(disks);
        host.disks.put_foreign(disk, kind, label).unwrap();
        let (error, hint) = host.fails("prepare").await;
        let label = label.map(|label| format!(" `{label}`")).unwrap_or_default();
        assert!(
            error.ends_with(&format!("{disk}` is not blank, and holds nothing of ours: {kind}{label}")),
            "{error}"
        );
        assert!(hint.contains("wipefs --no-act") && hint.contains(disk), "{hint}");
        host.assert_untouched();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_file_system_at_the_workspace_is_not_taken_for_ours() {
    let host = Host::with_disks(1);
    fs_err::create_dir_all(host.workspace()).unwrap();
    host.disks.mount_root_at(&host.workspace()).unwrap();
    let (error, hint) = host.fails("prepare").await;
    assert!(error.contains("nvme0n1` (xfs) is mounted at") && error.contains("nvme1n1 belongs"), "{error}");
    assert!(hint.contains("umount"), "{hint}");
    host.assert_untouched();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_fails_or_is_missing_says_so() {
    let host = Host::with_disks(1);
    host.disks.fail("mkfs.xfs", "pwrite failed: Input/output error").unwrap();
    let (error, _) = host.fails("prepare").await;
    assert!(error.contains("mkfs.xfs -q -K -L qdrant") && error.contains("Input/output error"), "{error}");
    assert_eq!(host.called("mount"), 0);

    let host = Host::with_disks(2);
    fs_err::remove_file(host.bin().join("mdadm")).unwrap();
    let (error, hint) = host.fails("prepare").await;
    assert!(error.starts_with("cannot run `mdadm`"), "{error}");
    assert_eq!(hint, "`mdadm` must be on the path: install mdadm");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_power_cut_anywhere_is_gone_on_from_with_one_disk() {
    cut_everywhere(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_power_cut_anywhere_is_gone_on_from_with_three_disks() {
    cut_everywhere(3).await;
}

/// Cuts the power at every call of a preparation: before it, and within and after it where it changes something.
async fn cut_everywhere(disks: usize) {
    let host = Host::with_disks(disks);
    host.done("prepare").await;
    let calls = host.disks.calls().unwrap();
    let mut running = tokio::task::JoinSet::new();
    for (number, call) in calls.iter().enumerate() {
        let changes = CHANGES.iter().any(|program| call.split(' ').next() == Some(program));
        let moments = [Moment::Before, Moment::Within, Moment::After];
        for moment in moments.into_iter().take(if changes { 3 } else { 1 }) {
            for then in
                [Then::RebootWithUdev, Then::Reboot, Then::GoOn].into_iter().take(if changes { 3 } else { 1 })
            {
                let call = call.clone();
                running.spawn(async move { cut(disks, number, moment, then, &call).await });
                if running.len() >= 4 {
                    running.join_next().await.unwrap().unwrap();
                }
            }
        }
    }
    while let Some(ended) = running.join_next().await {
        ended.unwrap();
    }
}

async fn cut(disks: usize, number: usize, moment: Moment, then: Then, call: &str) {
    let case = format!("{moment:?} `{call}`, then {then:?}");
    let host = Host::with_disks(disks);
    host.disks.cut_power(number, moment).unwrap();
    assert_eq!(host.outcome("prepare").await, None, "{case}: the power is not cut");
    again(&host, then);
    host.done("prepare").await;
    assert!(host.called("mkfs.xfs") <= 2, "{case}: {:?}", host.disks.calls().unwrap());
    host.write(&case);
    host.disks.reboot(true).unwrap();
    assert_eq!(host.done("prepare").await["how"], "found", "{case}");
    assert_eq!(host.written(), Some(case));
}

fn again(host: &Host, then: Then) {
    match then {
        Then::RebootWithUdev => host.disks.reboot(true).unwrap(),
        Then::Reboot => host.disks.reboot(false).unwrap(),
        Then::GoOn => {}
    }
}

/// The making of an array is interrupted, and then the undoing of that.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_power_cut_is_gone_on_from_too() {
    for then in [Then::RebootWithUdev, Then::Reboot] {
        let host = Host::with_disks(6);
        host.disks.cut_power_at("mdadm --create", Moment::Within).unwrap();
        assert_eq!(host.outcome("prepare").await, None);
        again(&host, then);
        host.disks.cut_power_at("mdadm --zero-superblock", Moment::Within).unwrap();
        assert_eq!(host.outcome("prepare").await, None);
        again(&host, then);
        assert_eq!(host.done("prepare").await["how"], "made", "{then:?}");
    }
}
