//! The reports of restore drills: written once, and read again by the drills that come after.

use bytes::Bytes;
use protocol::{DrillReport, key};

use crate::{Catalog, Error, error::chain, store::ObjectStore};

impl<S: ObjectStore> Catalog<S> {
    /// Stores a drill's report, for programs and for people; answers with the key of the latter. The same report again is no error.
    pub async fn put_drill(&self, report: &DrillReport, page: String) -> Result<String, Error> {
        let folder = key::drill(report.backup_id, report.started_at);
        let (json, html) = (format!("{folder}report.json"), format!("{folder}report.html"));
        let bytes =
            report.to_json().map_err(|source| Error::ProofUnwritable { key: json.clone(), source })?;
        // The page first: whoever finds the one for programs finds both.
        self.put_once(&html, Bytes::from(page), |_| false).await?;
        self.put_once(&json, bytes.into(), |_| false).await?;
        Ok(html)
    }

    /// The last `most` reports, oldest first. One that cannot be read is passed over with a warning.
    pub async fn drills(&self, most: usize) -> Result<Vec<DrillReport>, Error> {
        let listed = self.store.list(key::DRILLS).await?;
        let keys: Vec<String> = listed
            .into_iter()
            .map(|object| object.key)
            .filter(|key| key::parse_drill(key).is_some())
            .collect();
        let mut reports = Vec::new();
        // Keys begin with the time, so that their order is that of the drills.
        for key in keys.iter().skip(keys.len().saturating_sub(most)) {
            let Some(object) = self.store.get(key, None).await? else { continue };
            match DrillReport::from_json(&object.bytes) {
                Ok(report) => reports.push(report),
                Err(error) => tracing::warn!(
                    key,
                    error = chain(&error),
                    "the drill's report cannot be read; passed over"
                ),
            }
        }
        Ok(reports)
    }
}
