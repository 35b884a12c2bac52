//! What this host's data was restored from: written by a restore, recorded by every backup until a person acknowledges it.

use std::path::Path;

use protocol::manifest::Origin;
use serde::Serialize;

use crate::{backup::write_durably, error::Error, output::Render, session::Session};

const FILE: &str = "origin.json";

/// What the host was restored from; `None` for data that grew here.
pub(crate) fn read(work_dir: &Path) -> Result<Option<Origin>, Error> {
    let path = work_dir.join(FILE);
    let failed = |source| Error::Local { what: format!("read `{}`", path.display()), source };
    match fs_err::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|source| failed(source.into())),
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(failed(source)),
    }
}

/// Notes what the host was restored from.
pub(crate) fn write(work_dir: &Path, origin: &Origin) -> Result<(), Error> {
    let path = work_dir.join(FILE);
    let bytes = serde_json::to_vec_pretty(origin).map_err(|source| Error::Local {
        what: format!("write `{}`", path.display()),
        source: source.into(),
    })?;
    write_durably(&path, &bytes)
}

/// What a person acknowledged.
#[derive(Debug, Serialize)]
pub struct Acknowledged {
    /// What the host was restored from; absent when its data grew here.
    pub origin: Option<Origin>,
    /// Whether it was degraded until now.
    pub was_degraded: bool,
}

/// Lifts the degraded state: backups of this host may move the pointer again.
pub fn acknowledge(session: &Session) -> Result<Acknowledged, Error> {
    let work_dir = session.config.work_dir();
    let Some(mut origin) = read(&work_dir)? else {
        return Ok(Acknowledged { origin: None, was_degraded: false });
    };
    let was_degraded = std::mem::replace(&mut origin.degraded, false);
    if was_degraded {
        write(&work_dir, &origin)?;
    }
    Ok(Acknowledged { origin: Some(origin), was_degraded })
}

impl Render for Acknowledged {
    fn render(&self) -> String {
        let from = self.origin.as_ref().and_then(|origin| origin.backup_id).map_or_else(
            || "its data grew here".to_owned(),
            |backup| format!("its data came from backup {backup}"),
        );
        if self.was_degraded {
            format!("{from}; the host is no longer degraded, and its backups move the pointer again")
        } else {
            format!("{from}; the host was not degraded")
        }
    }
}
