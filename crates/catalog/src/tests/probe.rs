//! What the probe finds on good and bad stores.

use protocol::key;

use super::support::{catalog, minute};
use crate::{
    Check, Standing,
    store::{Fault, Memory, Operation},
};

const ALL: [Check; 6] =
    [Check::List, Check::AbsentIsAbsent, Check::IfNoneMatch, Check::IfMatch, Check::Checksum, Check::Clock];

#[tokio::test]
async fn a_good_store_passes_each_time_and_keeps_one_small_object() {
    let catalog = catalog();
    for _ in 0..3 {
        let probe = catalog.probe(minute(120)).await;
        assert!(probe.passed());
        assert_eq!(probe.findings.iter().map(|finding| finding.check).collect::<Vec<_>>(), ALL);
        assert!(probe.findings.iter().all(|finding| finding.standing == Standing::Passed), "{probe:?}");
    }
    assert_eq!(catalog.store().keys(), ["qdrant/backups/.doctor"]);
    assert_eq!(catalog.store().history("qdrant/backups/.doctor").len(), 1);
}

#[tokio::test]
async fn each_lack_is_found_and_explained() {
    type Lack = fn(&Memory);
    let cases: [(&str, Lack, &[Check], &str); 6] = [
        (
            "no list permission",
            |store| store.fail(Operation::List, key::MANIFESTS, Fault::Denied),
            &[Check::List],
            "s3:ListBucket",
        ),
        (
            "403 for an absent key",
            |store| store.fail(Operation::Get, "absent", Fault::Denied),
            &[Check::AbsentIsAbsent],
            "s3:ListBucket",
        ),
        (
            "no write permission",
            |store| store.fail(Operation::Put, ".doctor", Fault::Denied),
            &[Check::IfNoneMatch],
            "s3:PutObject",
        ),
        (
            "conditions are ignored",
            Memory::ignore_conditions,
            &[Check::IfNoneMatch, Check::IfMatch],
            "conditional writes",
        ),
        ("a fast clock", |store| store.set_now(minute(117)), &[Check::Clock], "chrony"),
        ("a slow clock", |store| store.set_now(minute(123)), &[Check::Clock], "chrony"),
    ];
    for (what, lack, expected, hint) in cases {
        let catalog = catalog();
        lack(catalog.store());
        let probe = catalog.probe(minute(120)).await;
        assert!(!probe.passed(), "{what}");
        let failed: Vec<_> =
            probe.findings.iter().filter(|finding| finding.standing == Standing::Failed).collect();
        assert_eq!(failed.iter().map(|finding| finding.check).collect::<Vec<_>>(), expected, "{what}");
        for finding in failed {
            assert!(finding.hint.as_ref().unwrap().contains(hint), "{what}: {finding:?}");
            assert!(finding.kind.is_some() && !finding.detail.is_empty(), "{what}: {finding:?}");
        }
    }
}

#[tokio::test]
async fn a_store_without_checksums_is_a_warning() {
    let catalog = catalog();
    catalog.store().forget_crc();
    let probe = catalog.probe(minute(120)).await;
    assert!(probe.passed());
    let finding = probe.findings.iter().find(|finding| finding.check == Check::Checksum).unwrap();
    assert_eq!(finding.standing, Standing::Warning);
}
