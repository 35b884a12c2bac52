//! One handle for a Qdrant, real or stand-in, chosen by stated rules and described in plain words.

use super::real::{self, Child, Container, Keys};
use super::stand_in::{QdrantOptions, QdrantStandIn};
use anyhow::{Context as _, bail};
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A server that somebody else runs.
#[derive(Clone)]
pub struct Existing {
    /// Its base URL.
    pub url: String,
    /// Where its snapshots are, as this process sees them.
    pub snapshots_dir: PathBuf,
    /// Where its snapshots are, as it sees them itself; the same when not given.
    pub server_snapshots_dir: Option<PathBuf>,
    /// The read-write key.
    pub api_key: Option<String>,
    /// The read-only key.
    pub read_only_key: Option<String>,
}

impl std::fmt::Debug for Existing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Existing")
            .field("url", &self.url)
            .field("snapshots_dir", &self.snapshots_dir)
            .finish_non_exhaustive()
    }
}

/// Which server to use.
#[derive(Clone, Debug, Default)]
pub struct ServerOptions {
    /// The stand-in, if it comes to that. Its keys are the keys of a real server too.
    pub stand_in: QdrantOptions,
    /// Use this one and nothing else.
    pub existing: Option<Existing>,
    /// Run this program and nothing else.
    pub binary: Option<PathBuf>,
    /// Look for no real server.
    pub only_stand_in: bool,
    /// Refuse to fall back to the stand-in.
    pub only_real: bool,
}

/// What was chosen.
#[derive(Debug)]
pub enum Chosen {
    /// The stand-in, in this process.
    StandIn(QdrantStandIn),
    /// A server that somebody else runs.
    Existing(Existing),
    /// A program that was started here.
    Child(Child),
    /// A container that was started here.
    Container(Container),
}

/// A Qdrant to talk to. What was started here ends when it is dropped.
#[derive(Debug)]
pub struct Server {
    chosen: Chosen,
    keys: Keys,
    version: String,
}

impl Server {
    /// Picks, in this order: the existing server; the given program; `QDRANT_BIN`; `qdrant` on the path; Docker, if its
    /// daemon answers; the stand-in.
    pub async fn choose(options: ServerOptions) -> anyhow::Result<Self> {
        let mut keys = Keys {
            read_write: options.stand_in.api_key.clone(),
            read_only: options.stand_in.read_only_key.clone(),
        };
        let chosen = if let Some(existing) = options.existing {
            keys = Keys { read_write: existing.api_key.clone(), read_only: existing.read_only_key.clone() };
            Chosen::Existing(existing)
        } else if options.only_stand_in {
            Chosen::StandIn(QdrantStandIn::start(options.stand_in).await?)
        } else if let Some(binary) = match options.binary {
            Some(binary) => Some(binary),
            None => real::find_binary()?,
        } {
            Chosen::Child(Child::start(binary, keys.clone()).await?)
        } else if real::docker_answers().await {
            Chosen::Container(Container::start(&keys).await?)
        } else if options.only_real {
            bail!(
                "there is no real Qdrant: set QDRANT_BIN, put `qdrant` on the path, start Docker, or name a server"
            )
        } else {
            Chosen::StandIn(QdrantStandIn::start(options.stand_in).await?)
        };
        let mut server = Self { chosen, keys, version: String::new() };
        server.version = match &server.chosen {
            // It may not answer yet, and need not be asked.
            Chosen::StandIn(stand_in) => stand_in.version().to_owned(),
            Chosen::Existing(_) | Chosen::Child(_) | Chosen::Container(_) => version(&server.url()).await?,
        };
        Ok(server)
    }

    /// What it is, in plain words for a person.
    pub fn describe(&self) -> String {
        match &self.chosen {
            Chosen::StandIn(_) => "Qdrant stand-in (in-memory, part of localcloud)".to_owned(),
            Chosen::Existing(existing) => format!("real Qdrant {} at {}", self.version, existing.url),
            Chosen::Child(child) => {
                format!("real Qdrant {} at {} (`{}`)", self.version, child.url(), child.binary().display())
            }
            Chosen::Container(container) => {
                format!("real Qdrant {} at {} (Docker)", self.version, container.url())
            }
        }
    }

    /// What was chosen.
    pub fn chosen(&self) -> &Chosen {
        &self.chosen
    }

    /// The stand-in, if it is one: for faults and for the call log.
    pub fn stand_in(&self) -> Option<&QdrantStandIn> {
        match &self.chosen {
            Chosen::StandIn(stand_in) => Some(stand_in),
            Chosen::Existing(_) | Chosen::Child(_) | Chosen::Container(_) => None,
        }
    }

    /// True when a real server answers.
    pub fn is_real(&self) -> bool {
        self.stand_in().is_none()
    }

    /// Its version, without a leading `v`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Its base URL, without a trailing slash.
    pub fn url(&self) -> String {
        match &self.chosen {
            Chosen::StandIn(stand_in) => stand_in.url(),
            Chosen::Existing(existing) => existing.url.trim_end_matches('/').to_owned(),
            Chosen::Child(child) => child.url(),
            Chosen::Container(container) => container.url(),
        }
    }

    /// Where its snapshots are, as this process sees them.
    pub fn snapshots_dir(&self) -> &Path {
        match &self.chosen {
            Chosen::StandIn(stand_in) => stand_in.snapshots_dir(),
            Chosen::Existing(existing) => &existing.snapshots_dir,
            Chosen::Child(child) => child.snapshots_dir(),
            Chosen::Container(container) => container.snapshots_dir(),
        }
    }

    /// Where its snapshots are, as it sees them itself: what a `file://` location must name.
    pub fn server_snapshots_dir(&self) -> &Path {
        match &self.chosen {
            Chosen::Existing(existing) => {
                existing.server_snapshots_dir.as_deref().unwrap_or(&existing.snapshots_dir)
            }
            Chosen::Container(container) => container.inner_snapshots_dir(),
            Chosen::StandIn(_) | Chosen::Child(_) => self.snapshots_dir(),
        }
    }

    /// The read-write key.
    pub fn api_key(&self) -> Option<&str> {
        self.keys.read_write.as_deref()
    }

    /// The read-only key.
    pub fn read_only_key(&self) -> Option<&str> {
        self.keys.read_only.as_deref()
    }

    /// As by SIGKILL. A server that somebody else runs is not killed: that is an error.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        match &mut self.chosen {
            Chosen::StandIn(stand_in) => stand_in.kill().await,
            Chosen::Child(child) => child.kill().await?,
            Chosen::Container(container) => container.kill().await?,
            Chosen::Existing(existing) => bail!("{} is not ours to kill", existing.url),
        }
        Ok(())
    }

    /// Kills it if it runs, starts it again on the same address and data, and waits until it answers.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        match &mut self.chosen {
            Chosen::StandIn(stand_in) => stand_in.restart().await,
            Chosen::Child(child) => child.restart().await,
            Chosen::Container(container) => container.restart().await,
            Chosen::Existing(existing) => bail!("{} is not ours to restart", existing.url),
        }
    }
}

#[derive(Deserialize)]
struct Root {
    version: String,
}

async fn version(url: &str) -> anyhow::Result<String> {
    let asked = real::client()?.get(format!("{url}/")).timeout(Duration::from_secs(10)).send().await;
    let root: Root = asked
        .and_then(reqwest::Response::error_for_status)
        .with_context(|| format!("ask {url} for its version"))?
        .json()
        .await
        .with_context(|| format!("{url} does not answer like a Qdrant"))?;
    Ok(root.version)
}
