//! Whether a bucket, with these credentials, is one that publication can rely on.

use bytes::Bytes;
use jiff::Timestamp;
use protocol::{FailureKind, key};
use serde::Serialize;

use crate::{
    Catalog,
    error::chain,
    rules::MAX_CLOCK_AHEAD,
    store::{Condition, Head, ObjectStore, PutError, StoreError},
};

/// What was found out about a bucket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Probe {
    /// One finding per check, in the order of the checks.
    pub findings: Vec<Finding>,
}

impl Probe {
    /// Whether nothing failed. Warnings are no failures.
    pub fn passed(&self) -> bool {
        self.findings.iter().all(|finding| finding.standing != Standing::Failed)
    }
}

/// The result of one check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was checked.
    pub check: Check,
    /// How it stands.
    pub standing: Standing,
    /// What was seen.
    pub detail: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The failure that this would end in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<FailureKind>,
}

/// What is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Check {
    /// The manifests can be listed.
    List,
    /// An absent key reads as absent, not as refused.
    AbsentIsAbsent,
    /// An existing object is not overwritten by a write that demands absence.
    IfNoneMatch,
    /// An object is not overwritten by a write that demands another state.
    IfMatch,
    /// The store keeps CRC-64/NVME of what it is given.
    Checksum,
    /// This machine's clock agrees with the store's.
    Clock,
}

/// How a check stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// As it must be.
    Passed,
    /// It works, with a drawback.
    Warning,
    /// Backups would fail or be unsafe.
    Failed,
}

impl<S: ObjectStore> Catalog<S> {
    /// Checks access, conditional writes, checksums and the clock. `now` is this machine's time.
    ///
    /// One small object beside the archives, always the same, is created by the first probe and stays.
    pub async fn probe(&self, now: Timestamp) -> Probe {
        let conditions = self.probe_conditions().await;
        // The object that the checksum is read of is there if its conditions could be tried.
        let exists = conditions.iter().any(|finding| finding.check == Check::IfMatch);
        let mut findings = vec![self.probe_list().await, self.probe_absent().await];
        findings.extend(conditions);
        if exists {
            findings.push(self.probe_checksum().await);
        }
        findings.push(self.probe_clock(now).await);
        Probe { findings }
    }

    /// The part of [`probe`](Self::probe) without which nothing may be published: two small writes that must be refused.
    pub async fn probe_conditions(&self) -> Vec<Finding> {
        let (if_none_match, exists) = self.probe_if_none_match().await;
        let mut findings = vec![if_none_match];
        if exists {
            findings.push(self.probe_if_match().await);
        }
        findings
    }

    async fn probe_list(&self) -> Finding {
        match self.store.list(key::MANIFESTS).await {
            Ok(listed) => passed(Check::List, format!("{} objects under `{}`", listed.len(), key::MANIFESTS)),
            Err(error) => refused(Check::List, &error),
        }
    }

    async fn probe_absent(&self) -> Finding {
        let key = format!("{}-absent", self.layout.probe());
        match self.store.get(&key, None).await {
            Ok(None) => passed(Check::AbsentIsAbsent, "an absent key is answered with 404".to_owned()),
            Ok(Some(_)) => failed(
                Check::AbsentIsAbsent,
                format!("`{key}` exists"),
                "remove it",
                FailureKind::ConfigInvalid,
            ),
            Err(error) => refused(Check::AbsentIsAbsent, &error),
        }
    }

    /// The finding, and whether the object is there now.
    async fn probe_if_none_match(&self) -> (Finding, bool) {
        let key = self.layout.probe();
        for _ in 0..2 {
            match self.store.put(&key, CONTENT, Condition::IfAbsent).await {
                Ok(_) => {}
                Err(PutError::PreconditionFailed { .. }) => {
                    let detail = "a second write with If-None-Match is refused".to_owned();
                    return (passed(Check::IfNoneMatch, detail), true);
                }
                Err(PutError::Other(error)) => return (refused(Check::IfNoneMatch, &error), false),
            }
        }
        (ignored(Check::IfNoneMatch, "If-None-Match"), true)
    }

    async fn probe_if_match(&self) -> Finding {
        let other = Condition::IfMatch("\"00000000000000000000000000000000\"".to_owned());
        match self.store.put(&self.layout.probe(), CONTENT, other).await {
            Ok(_) => ignored(Check::IfMatch, "If-Match"),
            Err(PutError::PreconditionFailed { .. }) => {
                passed(Check::IfMatch, "a write with another ETag in If-Match is refused".to_owned())
            }
            Err(PutError::Other(error)) => refused(Check::IfMatch, &error),
        }
    }

    async fn probe_checksum(&self) -> Finding {
        match self.store.head(&self.layout.probe(), None).await {
            Ok(Some(Head { crc64nvme: Some(_), .. })) => {
                passed(Check::Checksum, "CRC-64/NVME of an upload is kept".to_owned())
            }
            Ok(_) => Finding {
                check: Check::Checksum,
                standing: Standing::Warning,
                detail: "the store keeps no CRC-64/NVME".to_owned(),
                hint: Some(
                    "each archive is read back before it is published; on S3 this is a lack of kms:Decrypt"
                        .to_owned(),
                ),
                kind: None,
            },
            Err(error) => refused(Check::Checksum, &error),
        }
    }

    async fn probe_clock(&self, now: Timestamp) -> Finding {
        let store = match self.store.now().await {
            Ok(store) => store,
            Err(error) => return refused(Check::Clock, &error),
        };
        let ahead = now.as_second() - store.as_second();
        let detail = match ahead {
            ..0 => format!("this machine is {} s behind the store", -ahead),
            0.. => format!("this machine is {ahead} s ahead of the store"),
        };
        // Half of what publication refuses; behind, S3 itself refuses signatures from 15 minutes on.
        let limit = MAX_CLOCK_AHEAD.as_secs() / 2;
        let standing = if ahead.unsigned_abs() <= limit { Standing::Passed } else { Standing::Failed };
        let hint = "set the clock (chrony, Amazon Time Sync): backups are ordered by it";
        if standing == Standing::Passed {
            passed(Check::Clock, detail)
        } else {
            failed(Check::Clock, detail, hint, FailureKind::ConfigInvalid)
        }
    }
}

const CONTENT: Bytes =
    Bytes::from_static(b"written by `host-worker doctor` to see whether conditional writes are honoured\n");

fn passed(check: Check, detail: String) -> Finding {
    Finding { check, standing: Standing::Passed, detail, hint: None, kind: None }
}

fn failed(check: Check, detail: String, hint: &str, kind: FailureKind) -> Finding {
    Finding { check, standing: Standing::Failed, detail, hint: Some(hint.to_owned()), kind: Some(kind) }
}

fn refused(check: Check, error: &StoreError) -> Finding {
    Finding {
        check,
        standing: Standing::Failed,
        detail: chain(error),
        hint: error.hint(),
        kind: Some(error.kind()),
    }
}

fn ignored(check: Check, header: &str) -> Finding {
    failed(
        check,
        format!("the store takes a write that its {header} forbids"),
        "use a store with conditional writes: without them two publishers can undo each other",
        FailureKind::ConfigInvalid,
    )
}
