//! What can be known to fail before anything is written.

use catalog::Standing;
use protocol::FailureKind;
use tracing::warn;

use super::source::Source;
use crate::{error::Error, qdrant, session::Session};

/// Whether Qdrant is one that can be backed up, and the bucket one that can be published to; answers with Qdrant's version.
pub(super) async fn preflight(session: &Session, source: &Source<'_>) -> Result<qdrant::Version, Error> {
    let version = source.preflight().await?;
    require_conditional_writes(session).await?;
    // A bucket that cannot be read cannot be published to: better known before the snapshots are taken.
    match session.catalog.pointer().await {
        // A damaged pointer is no reason to go without a backup: publication will say what to do about it.
        Err(error) if error.kind() == FailureKind::ManifestInvalid => {
            warn!(error = &error as &dyn std::error::Error, "the pointer cannot be used")
        }
        Ok(_) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(version)
}

/// Publication stands on conditional writes: a store without them is refused before anything is stored.
async fn require_conditional_writes(session: &Session) -> Result<(), Error> {
    let findings = session.catalog.probe_conditions().await;
    match findings.into_iter().find(|finding| finding.standing == Standing::Failed) {
        Some(finding) => Err(Error::StoreUnfit {
            problem: finding.detail,
            kind: finding.kind.unwrap_or(FailureKind::StoreUnavailable),
            hint: finding.hint,
        }),
        None => Ok(()),
    }
}
