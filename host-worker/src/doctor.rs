//! Pre-flight: everything that a backup needs, looked at one by one, each with what to do about it.

use std::net::IpAddr;

use catalog::{Check, Standing};
use jiff::Timestamp;
use serde::Serialize;

use crate::{
    backup::free_bytes,
    boot,
    config::ByteSize,
    error::Error,
    limits::{Limits, Wish},
    output::{Render, on_one_line, table},
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
    findings.extend(boot_record(session));
    findings.push(match Limits::of(&session.config, Wish::default()) {
        Ok(limits) => {
            Finding { hint: limits.hint().map(str::to_owned), ..good("data path", limits.to_string()) }
        }
        Err(error) => bad("data path", &error),
    });
    let healthy = findings.iter().all(|finding| finding.state != State::Bad);
    Ok(Diagnosis { healthy, findings })
}

/// How the host came up, where it brings itself up.
fn boot_record(session: &Session) -> Option<Finding> {
    session.config.boot()?;
    let record = match boot::record::read(&session.config.work_dir()) {
        Ok(record) => record,
        Err(error) => return Some(bad("boot", &error)),
    };
    let warning = |seen: String, hint: Option<String>| {
        Some(Finding { subject: "boot", state: State::Warning, seen, hint })
    };
    let Some(record) = record else {
        return warning(
            "this host has not brought itself up".to_owned(),
            Some("`host-worker boot` does; with --adopt it takes the data that is there".to_owned()),
        );
    };
    if let Some(held) = record.held {
        let seen =
            format!("held at {} since {}: {} [{}]", held.step.name(), held.since, held.message, held.kind);
        return Some(Finding { subject: "boot", state: State::Bad, seen, hint: held.hint });
    }
    match record.marker {
        Some(marker) => Some(good("boot", format!("complete since {}", marker.completed_at))),
        None => {
            warning(format!("not complete: at {}, started {}", record.step.name(), record.started_at), None)
        }
    }
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
    let auth = match client.check_auth().await {
        Ok(auth) => client.check_write().await.map(|()| auth),
        Err(error) => Err(error),
    };
    findings.push(match auth {
        Ok(Auth::Required) => {
            good("API key", "accepted, also to write; a call without it is refused".to_owned())
        }
        Ok(Auth::Open) => Finding {
            subject: "API key",
            state: State::Warning,
            seen: "Qdrant answers calls without a key".to_owned(),
            hint: Some("set QDRANT__SERVICE__API_KEY; a misspelt variable is ignored in silence".to_owned()),
        },
        Err(error) => bad("API key", &error.into()),
    });
    findings.push(collections(&client).await);
    findings.extend(mount(session, &client).await);
    findings.extend(binding(session));
}

/// Whether a snapshot that Qdrant lists is where this host looks for it. Nothing is known while there is none.
async fn mount(session: &Session, client: &qdrant::Client) -> Option<Finding> {
    let dir = session.config.snapshots_dir().ok()?;
    for collection in client.collections().await.ok()? {
        let Some(snapshot) = client.snapshots(&collection).await.ok()?.into_iter().next() else { continue };
        let path = dir.host.join(collection.as_str()).join(&snapshot.name);
        return Some(if path.exists() {
            good("snapshots are seen here", format!("`{}`", path.display()))
        } else {
            bad(
                "snapshots are seen here",
                &Error::SnapshotNotVisible { collection, snapshot: snapshot.name, path },
            )
        });
    }
    None
}

/// Whether Qdrant's port is open on every interface of this host. Nothing is known when it does not listen here.
fn binding(session: &Session) -> Option<Finding> {
    let url = reqwest::Url::parse(&session.config.qdrant().ok()?.url).ok()?;
    let port = url.port_or_known_default()?;
    let tables =
        ["/proc/net/tcp", "/proc/net/tcp6"].map(|path| fs_err::read_to_string(path).unwrap_or_default());
    let addresses: Vec<IpAddr> = tables.iter().flat_map(|table| listeners(table, port)).collect();
    if addresses.is_empty() {
        return None;
    }
    let shown = addresses.iter().map(|address| format!("{address}:{port}")).collect::<Vec<_>>().join(", ");
    Some(if addresses.iter().any(IpAddr::is_unspecified) {
        Finding {
            subject: "Qdrant's address",
            state: State::Warning,
            seen: format!("{shown}: every interface of this host"),
            hint: Some("publish the port on the private address only (`-p 10.0.2.15:6333:6333`)".to_owned()),
        }
    } else {
        good("Qdrant's address", shown)
    })
}

/// The local addresses that listen on `port`, out of the kernel's table of sockets (`/proc/net/tcp` or `tcp6`).
fn listeners(table: &str, port: u16) -> Vec<IpAddr> {
    /// `TCP_LISTEN` of the kernel.
    const LISTENING: &str = "0A";
    let local_address = |line: &str| {
        let mut fields = line.split_whitespace().skip(1);
        let (local, state) = (fields.next()?, fields.nth(1)?);
        let (address, local_port) = local.split_once(':')?;
        let listens = state == LISTENING && u16::from_str_radix(local_port, 16).ok()? == port;
        // The kernel prints each 32-bit word of an address as a number of this host's byte order.
        let mut bytes = hex::decode(address).ok()?;
        bytes.chunks_exact_mut(4).for_each(<[u8]>::reverse);
        let address = match bytes.len() {
            4 => IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?),
            16 => IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?),
            _ => return None,
        };
        listens.then_some(address)
    };
    table.lines().filter_map(local_address).collect()
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
            let unsupported = state
                .collections
                .iter()
                .find_map(|(name, collection)| qdrant::check_config(name, &collection.config).err());
            if let Some(error) = unsupported {
                return bad("collections", &error.into());
            }
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
    Finding { subject, state: State::Bad, seen: on_one_line(error), hint: error.hint() }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_are_found_in_the_kernels_table() {
        // Little-endian hosts print 127.0.0.1 as 0100007F; 18BD is 6333.
        let table = "  sl  local_address rem_address   st\n\
             0: 0100007F:18BD 00000000:0000 0A 00000000:00000000 00:00000000 00000000\n\
             1: 00000000:18BE 00000000:0000 0A 00000000:00000000 00:00000000 00000000\n\
             2: 0100007F:18BD 0100007F:C350 01 00000000:00000000 00:00000000 00000000\n";
        assert_eq!(listeners(table, 6333), [IpAddr::from([127, 0, 0, 1])]);
        assert_eq!(listeners(table, 6334), [IpAddr::from([0, 0, 0, 0])]);
        assert_eq!(listeners(table, 80), [] as [IpAddr; 0]);
        let six = "  sl  local_address\n 0: 00000000000000000000000001000000:18BD 00000000000000000000000000000000:0000 0A\n";
        assert_eq!(listeners(six, 6333), [IpAddr::from(std::net::Ipv6Addr::LOCALHOST)]);
    }
}
