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
    // The limit is used up by those whose searches are to be protected.
    if error.is_rate_limited() {
        return Answer::Silence;
    }
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

#[cfg(test)]
mod tests {
    use protocol::golden::{GoldenSearch, PointDigest};

    use super::*;

    impl Probe {
        /// A probe of a server that is not there.
        pub(crate) fn of_nobody() -> Self {
            // Port 9 is for discarding, and nobody listens there any more.
            let client =
                Client::new("http://127.0.0.1:9", None, Options { attempts: 1, ..Options::STANDARD })
                    .unwrap();
            let searches = vec![(String::new(), json!([1.0]))];
            Self { client, collection: "docs".parse().unwrap(), searches, next: 0 }
        }
    }

    fn golden(name: &str, points: Vec<PointDigest>, searches: Vec<GoldenSearch>) -> CollectionGolden {
        CollectionGolden {
            name: name.parse().unwrap(),
            points_min: 0,
            points_max: 0,
            config: Value::Null,
            payload_schema: std::collections::BTreeMap::new(),
            points,
            changed: Vec::new(),
            searches,
            not_searched: None,
            indexed_vectors: None,
        }
    }

    fn point(id: u64, vectors: &[&str]) -> PointDigest {
        let vectors = vectors.iter().map(|name| ((*name).to_owned(), String::new())).collect();
        PointDigest {
            id: protocol::PointId::Number(id),
            payload: String::new(),
            vectors,
            sketches: Default::default(),
        }
    }

    fn search(using: &str, query: Value) -> GoldenSearch {
        let point = protocol::PointId::Number(1);
        GoldenSearch {
            using: using.into(),
            point,
            query,
            limit: 10,
            confined: false,
            hits: Vec::new(),
            recall: None,
        }
    }

    #[test]
    fn the_largest_collection_that_can_be_searched_is() {
        let settings = crate::config::Settings {
            qdrant_url: Some("http://127.0.0.1:9".to_owned()),
            ..crate::config::Settings::default()
        };
        let config = Config::new(settings, None, None).unwrap();
        let recorded = golden(
            "small",
            vec![point(1, &["a"])],
            vec![search("a", json!([1.0])), search("b", json!([2.0]))],
        );
        let by_id = golden("large", vec![point(7, &[]), point(8, &["title", "text"])], Vec::new());
        let nothing = golden("largest", vec![point(1, &[])], Vec::new());
        let of = |collections: &[(&CollectionGolden, u64)]| {
            let probe = Probe::of(&config, collections.iter().copied()).unwrap()?;
            Some((probe.collection.to_string(), probe.searches))
        };
        let all = [(&recorded, 10), (&by_id, 100), (&nothing, 1_000)];
        assert_eq!(of(&all), Some(("large".to_owned(), vec![("text".to_owned(), json!(8))])));
        let recorded_ones = vec![("a".to_owned(), json!([1.0])), ("b".to_owned(), json!([2.0]))];
        assert_eq!(of(&all[..1]), Some(("small".to_owned(), recorded_ones)));
        assert_eq!(of(&all[2..]), None);
    }

    #[tokio::test]
    async fn searches_take_turns_and_nobody_there_is_silence() {
        let mut probe = Probe::of_nobody();
        probe.searches.push(("b".to_owned(), json!([2.0])));
        for _ in 0..3 {
            assert!(matches!(probe.search().await, Answer::Silence));
        }
        assert_eq!(probe.next, 3);
    }
}
