//! A search that is like those that Qdrant serves: normal, by a vector that is in the collection, in the largest collection.

use std::time::Duration;

use protocol::{
    CollectionName, FailureKind,
    golden::{CollectionGolden, SEARCH_LIMIT},
};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    config::Config,
    error::Error,
    qdrant::{self, Client, Options, Search},
};

/// A search that takes longer is as good as none, and the next one is wanted.
const PATIENCE: Duration = Duration::from_secs(2);

/// Searches to be made in turn, so that no single one is always answered out of a cache.
#[derive(Debug)]
pub(crate) struct Probe {
    client: Client,
    collection: CollectionName,
    searches: Vec<(String, Value)>,
    next: usize,
}

/// What came of a search.
#[derive(Debug)]
pub(super) enum Answer {
    /// An answer, after this long.
    Took(Duration),
    /// None, or a server that says that it cannot.
    Silence,
    /// The server does not want such searches, and why.
    Refused(String),
}

impl Probe {
    /// A probe of the largest of the collections, given with their numbers of points, that has something to search by; `None` if none has.
    pub(crate) fn of<'a>(
        config: &Config,
        collections: impl IntoIterator<Item = (&'a CollectionGolden, u64)>,
    ) -> Result<Option<Self>, Error> {
        let searchable = collections.into_iter().map(|(golden, points)| (points, golden, searches(golden)));
        let largest =
            searchable.filter(|(_, _, searches)| !searches.is_empty()).max_by_key(|(points, ..)| *points);
        let Some((_, golden, searches)) = largest else { return Ok(None) };
        let access = config.qdrant()?;
        // A failed search is an answer to the question that is asked here, and not tried again.
        let options = Options { request_timeout: PATIENCE, attempts: 1, ..Options::STANDARD };
        let client = Client::new(&access.url, access.api_key, options)?;
        Ok(Some(Self { client, collection: golden.name.clone(), searches, next: 0 }))
    }

    /// The collection that is searched.
    pub(super) fn collection(&self) -> &CollectionName {
        &self.collection
    }

    /// Makes the next search.
    pub(super) async fn search(&mut self) -> Answer {
        let (using, query) = &self.searches[self.next % self.searches.len()];
        self.next += 1;
        let search = Search { using, query, limit: SEARCH_LIMIT, exact: false, among: None };
        let begin = Instant::now();
        let found = self.client.search(&self.collection, &search).await;
        let took = begin.elapsed();
        match found {
            Ok(_) => Answer::Took(took),
            Err(error) => understand(&error),
        }
    }
}

fn understand(error: &qdrant::Error) -> Answer {
    if let Some(reason) = error.refusal() {
        return Answer::Refused(reason.to_owned());
    }
    if error.is_timeout() || error.kind() == FailureKind::QdrantUnavailable {
        return Answer::Silence;
    }
    let source = std::error::Error::source(error).map(|source| format!(": {source}")).unwrap_or_default();
    Answer::Refused(format!("{error}{source}"))
}

/// What a collection can be searched by: the recorded queries; where none could be recorded, a sampled point's own vector by its id.
fn searches(golden: &CollectionGolden) -> Vec<(String, Value)> {
    let recorded: Vec<(String, Value)> =
        golden.searches.iter().map(|search| (search.using.clone(), search.query.clone())).collect();
    if !recorded.is_empty() {
        return recorded;
    }
    let by_point =
        golden.points.iter().find_map(|point| Some((point.vectors.keys().next()?.clone(), json!(point.id))));
    by_point.into_iter().collect()
}
