//! Looking at a running Qdrant through a golden set, so that `protocol::verdict` can judge it.

use std::{collections::BTreeMap, time::Duration};

use protocol::{
    CollectionName, GoldenSet, PointId,
    golden::CollectionGolden,
    verdict::{CollectionObservation, Observation},
};
use tokio::time::Instant;

use crate::{
    golden::{sample, search},
    qdrant::{Client, CollectionStatus, Error},
};

/// Between two looks at the update queues, unless the client is set to look more often.
const QUEUE_POLL: Duration = Duration::from_millis(300);
/// In how many looks in a row every queue must be empty: the operation being applied is not in the queue.
const QUEUE_POLLS: u32 = 3;

/// Makes the recorded calls.
///
/// `names` says which of the recorded collections to look at, and under which name each is there now. A collection that is not there is
/// absent from the result. Aliases are compared only `with_aliases`; targets are given by their recorded names. When every recorded collection is
/// looked at and aliases are too, the collections of which nothing is recorded are named. Update queues are awaited first, at most `patience`:
/// some versions replay a part of what was restored in the background.
pub async fn observe(
    client: &Client,
    golden: &GoldenSet,
    names: &BTreeMap<CollectionName, CollectionName>,
    with_aliases: bool,
    patience: Duration,
) -> Result<Observation, Error> {
    wait_for_empty_queues(client, names.values(), patience).await?;
    let mut observation = Observation::default();
    for recorded in &golden.collections {
        let Some(actual) = names.get(&recorded.name) else { continue };
        match observe_collection(client, recorded, actual).await {
            Ok(seen) => {
                observation.collections.insert(recorded.name.clone(), seen);
            }
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
    }
    if with_aliases {
        // What is not looked at goes by its own name, unless that is the recorded name of something that is there under another one.
        let recorded_name = |actual: &CollectionName| {
            let looked_at = names.iter().find(|(_, name)| *name == actual).map(|(recorded, _)| recorded);
            looked_at.or((!names.contains_key(actual)).then_some(actual)).cloned()
        };
        let aliases = client.aliases().await?;
        observation.aliases = Some(
            aliases
                .into_iter()
                .filter_map(|(alias, target)| Some((alias, recorded_name(&target)?)))
                .collect(),
        );
        if golden.collections.iter().all(|recorded| names.contains_key(&recorded.name)) {
            let all = client.collections().await?.into_iter();
            observation.others = all.filter(|name| !names.values().any(|known| known == name)).collect();
        }
    }
    Ok(observation)
}

/// Waits until the update queues of these collections are empty and nothing more is applied; those that are not there are passed over.
pub async fn wait_for_empty_queues(
    client: &Client,
    names: impl IntoIterator<Item = &CollectionName>,
    patience: Duration,
) -> Result<(), Error> {
    let names: Vec<&CollectionName> = names.into_iter().collect();
    let started = Instant::now();
    let mut quiet = 0;
    let mut last = None;
    loop {
        let mut waiting = None;
        for name in &names {
            match client.collection(name).await {
                Ok(info) if info.queue_length() > 0 => {
                    waiting = Some(((*name).clone(), info.queue_length()));
                    break;
                }
                Ok(_) => {}
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        let mut numbers = client.telemetry().await?.operation_numbers;
        numbers.retain(|id, _| names.iter().any(|name| name.as_str() == id));
        let stands = last.as_ref() == Some(&numbers);
        quiet = match (&waiting, stands) {
            (Some(_), _) => 0,
            (None, true) => quiet + 1,
            (None, false) => 1,
        };
        last = Some(numbers);
        if quiet >= QUEUE_POLLS {
            return Ok(());
        }
        let waited = started.elapsed();
        if waited >= patience {
            // Empty queues while something is applied: a live collection. What it holds is judged as it is.
            return match waiting {
                Some((collection, length)) => Err(Error::QueueNotEmpty { collection, length, waited }),
                None => Ok(()),
            };
        }
        tokio::time::sleep(client.options().poll_interval.min(QUEUE_POLL)).await;
    }
}

async fn observe_collection(
    client: &Client,
    recorded: &CollectionGolden,
    actual: &CollectionName,
) -> Result<CollectionObservation, Error> {
    let info = client.collection(actual).await?;
    let points = client.count_exact(actual, None).await?;
    let ids: Vec<PointId> = recorded.points.iter().map(|point| point.id).collect();
    let sampled = sample::read(client, actual, &ids).await?.iter().filter_map(sample::digest_of).collect();
    let mut searches = Vec::with_capacity(recorded.searches.len());
    for recorded_search in &recorded.searches {
        searches.push(search::again(client, actual, recorded_search, &ids).await?);
    }
    Ok(CollectionObservation {
        points,
        config: info.config,
        payload_schema: info.payload_schema,
        sampled,
        searches,
        indexed_vectors: info.indexed_vectors_count,
        // Grey is what a restart leaves where optimizations are pending.
        optimizing: matches!(info.status, CollectionStatus::Yellow | CollectionStatus::Grey),
    })
}
