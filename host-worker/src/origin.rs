//! What this host's data was restored from: written by a restore, recorded by every backup until a person acknowledges it.

use std::path::Path;

use protocol::manifest::Origin;

use crate::{backup::write_durably, error::Error};

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
