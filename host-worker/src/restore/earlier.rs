//! What an earlier run of the same restore, which did not come to its end, has made in Qdrant.

use std::collections::{BTreeMap, BTreeSet};

use protocol::{CollectionName, Manifest, verdict};
use tracing::info;

use super::{
    REPLAY_PATIENCE,
    journal::{Journal, Step},
    plan::{Mode, target_name},
};
use crate::{
    error::Error,
    observe,
    output::on_one_line,
    qdrant,
    verify::{self, Summary},
};

/// Collections that the journal says were asked for and that are there now, by their names in Qdrant.
#[derive(Debug, Default)]
pub(super) struct Earlier {
    /// As recorded, as far as counts and configuration say: they need not be brought back again. The golden set still judges them.
    pub(super) made: BTreeSet<CollectionName>,
    /// Otherwise, and how: half a recovery, or somebody else's.
    pub(super) wrong: BTreeMap<CollectionName, String>,
}

impl Earlier {
    /// Waits until Qdrant recovers nothing any more that the earlier run asked for, and compares what came of it with the manifest.
    pub(super) async fn look(
        qdrant: &qdrant::Client,
        manifest: &Manifest,
        mode: &Mode,
        journal: &Journal,
    ) -> Result<Self, Error> {
        let mut asked = BTreeMap::new();
        for record in &manifest.collections {
            let name = target_name(&record.name, mode)?;
            match journal.asked(&name).map(|asked| asked.step) {
                Some(Step::Recover) => {
                    info!(collection = %name, "an earlier run asked for it; waiting until nothing recovers it any more");
                    qdrant.wait_for_recovery(&name).await?;
                    asked.insert(name, record.name.clone());
                }
                Some(Step::Recovered) => drop(asked.insert(name, record.name.clone())),
                // If it is there, it is what was there before.
                Some(Step::Delete) | None => {}
            }
        }
        let mut earlier = Self::default();
        if asked.is_empty() {
            return Ok(earlier);
        }
        let recorded = verify::of_manifest(manifest);
        for name in qdrant.collections().await? {
            let Some(collection) = asked.remove(&name) else { continue };
            let names = BTreeMap::from([(collection.clone(), name.clone())]);
            match observe::observe(qdrant, &recorded, &names, false, REPLAY_PATIENCE).await {
                Ok(observed) => {
                    let verdict = verdict::judge(&recorded, &observed, &BTreeSet::from([collection]));
                    if verdict.passed {
                        info!(collection = %name, "an earlier run has brought it back");
                        earlier.made.insert(name);
                    } else {
                        earlier.wrong.insert(name, Summary::failures(&verdict).join("; "));
                    }
                }
                // Half a recovery answers, but not with its data.
                Err(error) if error.is_answer() => {
                    earlier.wrong.insert(name, on_one_line(&Error::from(error)));
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(earlier)
    }
}
