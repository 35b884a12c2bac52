use std::path::Path;

use super::*;
use crate::machine::disks::survey::{blocks, mounted, signatures};

const STORAGE: &str = "Amazon EC2 NVMe Instance Storage";
const ROOT: &str = r#"{"path":"/dev/nvme0n1","type":"disk","model":"Amazon Elastic Block Store","size":8589934592,"maj:min":"259:0","mountpoints":[null],
    "children":[{"path":"/dev/nvme0n1p1","type":"part","model":null,"size":8587819520,"maj:min":"259:1","mountpoints":["/"]}]}"#;

/// An instance disk, with what is made of it.
fn disk(number: u32, children: &str) -> String {
    format!(
        r#"{{"path":"/dev/nvme{number}n1","type":"disk","model":"{STORAGE}        ","size":950000000000,"maj:min":"259:{}","mountpoints":[null],"children":[{children}]}}"#,
        number + 1
    )
}

/// An array; one of no bytes does not run.
fn array(size: u64) -> String {
    let kind = if size > 0 { "raid0" } else { "md" };
    format!(
        r#"{{"path":"/dev/md127","type":"{kind}","model":null,"size":{size},"maj:min":"9:127","mountpoints":[null]}}"#
    )
}

/// A machine with a root disk and these, where `found` is on devices.
fn machine(disks: &[String], found: &[(&str, &str)]) -> Survey {
    let disks = std::iter::once(ROOT.to_owned()).chain(disks.iter().cloned()).collect::<Vec<_>>().join(",");
    let mut seen =
        Survey { blocks: blocks(&format!(r#"{{"blockdevices":[{disks}]}}"#)).unwrap(), ..Survey::default() };
    for (device, signature) in found {
        let listed = signatures(&format!(r#"{{"signatures":[{signature}]}}"#)).unwrap();
        seen.signatures.entry(PathBuf::from(device)).or_default().extend(listed);
    }
    seen
}

fn decided(seen: &Survey) -> String {
    match next(seen, Path::new("/workspace/qdrant")) {
        Ok(step) => format!("{step:?}"),
        Err(error) => format!("error: {error}"),
    }
}

const OUR_XFS: &str = r#"{"type":"xfs","label":"qdrant","uuid":"1"}"#;
const OUR_MEMBER: &str = r#"{"type":"linux_raid_member","label":"any:qdrant","uuid":"a"}"#;

#[test]
fn one_disk() {
    let one = [disk(1, "")];
    for (found, wanted) in [
        (vec![], r#"MakeFileSystem { device: "/dev/nvme1n1", over_unfinished: false }"#),
        (vec![OUR_XFS], r#"Mount("/dev/nvme1n1")"#),
        (
            vec![r#"{"type":"ext4","label":"home","uuid":"1"}"#],
            "error: `/dev/nvme1n1` is not blank, and holds nothing of ours: ext4 `home`",
        ),
        (
            vec![r#"{"type":"xfs","label":null,"uuid":"1"}"#],
            "error: `/dev/nvme1n1` is not blank, and holds nothing of ours: xfs",
        ),
        (
            vec![r#"{"type":"gpt","label":null,"uuid":null}"#, r#"{"type":"PMBR","label":null,"uuid":null}"#],
            "error: `/dev/nvme1n1` is not blank, and holds nothing of ours: gpt, PMBR",
        ),
        // A trace of something else beside ours: whose data it is, nobody knows.
        (
            vec![OUR_XFS, r#"{"type":"ext4","label":null,"uuid":"1"}"#],
            "error: `/dev/nvme1n1` is not blank, and holds nothing of ours: xfs `qdrant`, ext4",
        ),
        // One disk of an array of several, moved here or left alone.
        (
            vec![OUR_MEMBER],
            "error: `/dev/nvme1n1` is not blank, and holds nothing of ours: linux_raid_member `any:qdrant`",
        ),
    ] {
        let found: Vec<_> = found.into_iter().map(|signature| ("/dev/nvme1n1", signature)).collect();
        assert_eq!(decided(&machine(&one, &found)), wanted, "{found:?}");
    }
    let mut interrupted = machine(&one, &[("/dev/nvme1n1", OUR_XFS)]);
    interrupted.unfinished.push("/dev/nvme1n1".into());
    assert_eq!(decided(&interrupted), r#"MakeFileSystem { device: "/dev/nvme1n1", over_unfinished: true }"#);
}

#[test]
fn several_disks() {
    let bare = || vec![disk(1, ""), disk(2, ""), disk(3, "")];
    let under = |size| vec![disk(1, &array(size)), disk(2, &array(size)), disk(3, &array(size))];
    let all = r#"["/dev/nvme1n1", "/dev/nvme2n1", "/dev/nvme3n1"]"#;
    let member = |number: u32| -> (&'static str, &'static str) {
        (["/dev/nvme1n1", "/dev/nvme2n1", "/dev/nvme3n1"][number as usize - 1], OUR_MEMBER)
    };
    let members = || vec![member(1), member(2), member(3)];
    let and = |mut found: Vec<(&'static str, &'static str)>, more| {
        found.push(more);
        found
    };
    for (disks, found, wanted) in [
        (bare(), vec![], format!("CreateArray({all})")),
        // After a reboot.
        (bare(), members(), format!("Assemble({all})")),
        (under(1 << 40), members(), r#"MakeFileSystem { device: "/dev/md127", over_unfinished: false }"#.to_owned()),
        (under(1 << 40), and(members(), ("/dev/md127", OUR_XFS)), r#"Mount("/dev/md127")"#.to_owned()),
        (
            under(1 << 40),
            and(members(), ("/dev/md127", r#"{"type":"ext4","label":null,"uuid":"1"}"#)),
            "error: `/dev/md127` is not blank, and holds nothing of ours: ext4".to_owned(),
        ),
        // The making of the array was interrupted, and udev has since tried to start it.
        (bare(), vec![member(1)], r#"ForgetArray(["/dev/nvme1n1"])"#.to_owned()),
        (bare(), vec![member(1), member(3)], r#"ForgetArray(["/dev/nvme1n1", "/dev/nvme3n1"])"#.to_owned()),
        (
            vec![disk(1, &array(0)), disk(2, ""), disk(3, "")],
            vec![member(1)],
            r#"StopArray("/dev/md127")"#.to_owned(),
        ),
        (under(0), members(), r#"StopArray("/dev/md127")"#.to_owned()),
        // Somebody's.
        (
            vec![disk(1, &array(1 << 40)), disk(2, &array(1 << 40)), disk(3, "")],
            vec![member(1), member(2)],
            "error: `/dev/md127` is not blank, and holds nothing of ours: an array of only some of the disks".to_owned(),
        ),
        (
            bare(),
            vec![member(1), member(2), ("/dev/nvme3n1", r#"{"type":"linux_raid_member","label":"any:qdrant","uuid":"b"}"#)],
            "error: `/dev/nvme1n1` is not blank, and holds nothing of ours: members of 2 arrays on /dev/nvme1n1, /dev/nvme2n1, /dev/nvme3n1".to_owned(),
        ),
        (
            bare(),
            vec![("/dev/nvme2n1", r#"{"type":"linux_raid_member","label":"db:data","uuid":"b"}"#)],
            "error: `/dev/nvme2n1` is not blank, and holds nothing of ours: linux_raid_member `db:data`".to_owned(),
        ),
        (
            bare(),
            vec![("/dev/nvme3n1", r#"{"type":"ext4","label":null,"uuid":"1"}"#)],
            "error: `/dev/nvme3n1` is not blank, and holds nothing of ours: ext4".to_owned(),
        ),
    ] {
        assert_eq!(decided(&machine(&disks, &found)), wanted, "{disks:?} {found:?}");
    }
}

#[test]
fn without_instance_disks_nothing_is_touched() {
    let message = decided(&machine(&[], &[]));
    assert_eq!(
        message,
        "error: this machine has no NVMe instance storage: it has /dev/nvme0n1 (Amazon Elastic Block Store)"
    );
}

#[test]
fn what_somebody_uses_is_not_touched() {
    let part = r#"{"path":"/dev/nvme1n1p1","type":"part","model":null,"size":1,"maj:min":"259:9","mountpoints":[null]}"#;
    let message = decided(&machine(&[disk(1, part)], &[]));
    assert_eq!(
        message,
        "error: `/dev/nvme1n1` is not blank, and holds nothing of ours: `/dev/nvme1n1p1` (part)"
    );
    let scratch = disk(2, "").replace("[null]", r#"[null, "/scratch"]"#);
    let message = decided(&machine(&[disk(1, ""), scratch], &[]));
    assert_eq!(message, "error: `/dev/nvme2n1` is mounted at `/scratch`");
}

#[test]
fn what_is_mounted_at_the_workspace_must_be_ours() {
    let one = [disk(1, "")];
    let striped = [disk(1, &array(1 << 40)), disk(2, &array(1 << 40))];
    let at = |disks: &[String], source: &str, fstype: &str, number: &str| {
        let mut seen = machine(disks, &[]);
        let listed = format!(
            r#"{{"filesystems":[{{"source":"{source}","fstype":"{fstype}","maj:min":"{number}"}}]}}"#
        );
        seen.mounted = mounted(&listed).unwrap();
        decided(&seen)
    };
    assert_eq!(at(&one, "/dev/nvme1n1", "xfs", "259:2"), r#"Done { devices: ["/dev/nvme1n1"] }"#);
    assert_eq!(
        at(&striped, "/dev/md127", "xfs", "9:127"),
        r#"Done { devices: ["/dev/nvme1n1", "/dev/nvme2n1"] }"#
    );
    for (disks, source, fstype, number) in [
        (&one[..], "/dev/nvme2n1p1", "xfs", "259:1"),
        (&one[..], "tmpfs", "tmpfs", "0:40"),
        (&one[..], "/dev/nvme1n1", "ext4", "259:2"),
        (&striped[..], "/dev/nvme1n1", "xfs", "259:2"),
        (&[][..], "/dev/nvme0n1p2", "xfs", "259:2"),
    ] {
        let message = at(disks, source, fstype, number);
        let begin = format!(
            "error: `{source}` ({fstype}) is mounted at `/workspace/qdrant`, where the file system of "
        );
        assert!(message.starts_with(&begin), "{message}");
    }
}
