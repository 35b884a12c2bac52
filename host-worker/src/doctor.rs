//! Pre-flight: everything that a backup needs, looked at one by one, each with what to do about it.

use catalog::{Check, Standing};
use jiff::Timestamp;
use serde::Serialize;

use crate::{
    backup::free_bytes,
    config::ByteSize,
    error::Error,
    limits,
    output::{Failure, Render, table},
    qdrant::{self, Auth},
    session::Session,
};

/// Everything that was looked at.
#[derive(Debug, Serialize)]
pub struct Diagnosis {
    /// Whether nothing stands in the way of a backup.
    pub healthy: bool,
    /// What was looked at, in order.
    pub findings: Vec<Finding>,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
pub struct Finding {
    /// What.
    pub subject: &'static str,
    /// How it is.
    pub state: State,
    /// What was seen.
    pub seen: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// How something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// As it should be.
    Good,
    /// Works, and should be changed.
    Warning,
    /// A backup would fail.
    Bad,
}

/// Looks at everything; only settings that are missing altogether end it early.
pub async fn doctor(session: &Session, now: Timestamp) -> Result<Diagnosis, Error> {
    let mut findings = Vec::new();
    qdrant_findings(session, &mut findings).await;
    disk_findings(session, &mut findings);
    store_findings(session, now, &mut findings).await;
    match limits::memory_budget(session.config.memory_budget()) {
        Ok(budget) => findings.push(good("memory budget", ByteSize(budget).to_string())),
        Err(error) => findings.push(bad("memory budget", &error)),
    }
    let healthy = findings.iter().all(|finding| finding.state != State::Bad);
    Ok(Diagnosis { healthy, findings })
}

async fn qdrant_findings(session: &Session, findings: &mut Vec<Finding>) {
    let client = match session.qdrant() {
        Ok(client) => client,
        Err(error) => return findings.push(bad("Qdrant", &error)),
    };
    match client.version().await {
        Ok(version) => match version.check_supported() {
            Ok(()) => findings.push(good("Qdrant's version", version.to_string())),
            Err(error) => findings.push(bad("Qdrant's version", &error.into())),
        },
        // Without an answer nothing else about Qdrant can be learned.
        Err(error) => return findings.push(bad("Qdrant", &error.into())),
    }
    findings.push(match client.check_auth().await {
        Ok(Auth::Required) => good("API key", "accepted; a call without it is refused".to_owned()),
        Ok(Auth::Open) => Finding {
            subject: "API key",
            state: State::Warning,
            seen: "Qdrant answers calls without a key".to_owned(),
            hint: Some("set QDRANT__SERVICE__API_KEY; a misspelt variable is ignored in silence".to_owned()),
        },
        Err(error) => bad("API key", &error.into()),
    });
    findings.push(collections(&client).await);
}

async fn collections(client: &qdrant::Client) -> Finding {
    let metrics = match client.metrics().await {
        Ok(metrics) => metrics,
        Err(error) => return bad("collections", &error.into()),
    };
    if metrics.recovery_mode {
        return Finding {
            subject: "collections",
            state: State::Bad,
            seen: "Qdrant is in recovery mode: every collection is empty and only deletes work".to_owned(),
            hint: Some("free memory or disk, restart Qdrant without recovery mode".to_owned()),
        };
    }
    match crate::state::State::read(client).await {
        Ok(state) => {
            let points: u64 = state.collections.values().map(|collection| collection.count).sum();
            good(
                "collections",
                format!("{} with {points} points, {} aliases", state.collections.len(), state.aliases.len()),
            )
        }
        Err(error) => bad("collections", &error.into()),
    }
}

fn disk_findings(session: &Session, findings: &mut Vec<Finding>) {
    let dir = match session.config.snapshots_dir() {
        Ok(dir) => dir,
        Err(error) => return findings.push(bad("snapshots directory", &error)),
    };
    findings.push(match fs_err::read_dir(&dir.host) {
        Ok(_) => good(
            "snapshots directory",
            format!("`{}`, which Qdrant calls `{}`", dir.host.display(), dir.qdrant.display()),
        ),
        Err(source) => bad(
            "snapshots directory",
            &Error::Local { what: format!("list `{}`", dir.host.display()), source },
        ),
    });
    findings.push(match free_bytes(&dir.host) {
        Ok(free) => good("disk of the snapshots", format!("{} free", ByteSize(free))),
        Err(error) => bad("disk of the snapshots", &error),
    });
    let work_dir = session.config.work_dir();
    findings.push(match fs_err::create_dir_all(&work_dir) {
        Ok(()) => good("work directory", format!("`{}`", work_dir.display())),
        Err(source) => {
            bad("work directory", &Error::Local { what: format!("create `{}`", work_dir.display()), source })
        }
    });
}

async fn store_findings(session: &Session, now: Timestamp, findings: &mut Vec<Finding>) {
    findings.extend(session.catalog.probe(now).await.findings.into_iter().map(|finding| Finding {
        subject: match finding.check {
            Check::List => "list the bucket",
            Check::AbsentIsAbsent => "absent keys",
            Check::IfNoneMatch => "write only if absent",
            Check::IfMatch => "write only if unchanged",
            Check::Checksum => "the store's checksums",
            Check::Clock => "clock",
        },
        state: match finding.standing {
            Standing::Passed => State::Good,
            Standing::Warning => State::Warning,
            Standing::Failed => State::Bad,
        },
        seen: finding.detail,
        hint: finding.hint,
    }));
    findings.push(match session.catalog.pointer().await {
        Ok(Some(pointer)) => good("published backup", pointer.manifest.backup_id.to_string()),
        Ok(None) => good("published backup", "none yet".to_owned()),
        Err(error) => bad("published backup", &error.into()),
    });
}

fn good(subject: &'static str, seen: String) -> Finding {
    Finding { subject, state: State::Good, seen, hint: None }
}

fn bad(subject: &'static str, error: &Error) -> Finding {
    let failure = Failure::from(error);
    let seen = std::iter::once(failure.message).chain(failure.causes).collect::<Vec<_>>().join(": ");
    Finding { subject, state: State::Bad, seen, hint: failure.hint }
}

impl Render for Diagnosis {
    fn render(&self) -> String {
        let mark = |state| match state {
            State::Good => "ok",
            State::Warning => "WARN",
            State::Bad => "BAD",
        };
        let mut rows = Vec::new();
        for finding in &self.findings {
            rows.push(vec![mark(finding.state).to_owned(), finding.subject.to_owned(), finding.seen.clone()]);
            if let Some(hint) = &finding.hint {
                rows.push(vec![String::new(), String::new(), format!("hint: {hint}")]);
            }
        }
        let last = if self.healthy { "a backup can run" } else { "a backup would fail" };
        format!("{}\n\n{last}", table(&["", "looked at", "seen"], &[], &rows))
    }
}
