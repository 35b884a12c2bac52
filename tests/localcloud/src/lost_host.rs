//! What is left when a host is lost: a backup in the bucket, and a Qdrant that is new and empty. For people who try what the documents say.

use std::collections::BTreeMap;

use anyhow::ensure;
use jiff::Timestamp;

use crate::{
    cloud::{BUCKET, Cloud},
    corpus::Corpus,
    indexer::{self, Client},
    qdrant::{Server, ServerOptions},
};

/// A collection whose name is another in a URL and in an archive than in Qdrant.
const AWKWARD: &str = "release notes é 2.0";

/// Indexes the corpus, backs it up, and replaces the host. `server` is how Qdrant is started again.
pub async fn leave_one(cloud: &mut Cloud, server: ServerOptions) -> anyhow::Result<()> {
    ensure!(server.existing.is_none(), "a server that somebody else runs is not thrown away");
    let corpus = Corpus::load()?;
    let client = Client::new(&cloud.qdrant.url(), cloud.qdrant.api_key());
    let mut counts = BTreeMap::new();
    for (collection, alias, points) in [
        ("handbook", "handbook-live", corpus.points().len()),
        (AWKWARD, "what is new", 300),
        ("drafts", "drafts-live", 0),
    ] {
        client.create_collection(collection).await?;
        client.create_alias(alias, collection).await?;
        counts.insert(collection.to_owned(), client.index(collection, corpus.points().take(points)).await?);
    }
    let s3 = cloud.s3.client().await;
    indexer::mark_success(&s3, BUCKET, "the last batch", Timestamp::now(), &counts).await?;
    cloud.run(["backup"]).await?.success()?;
    cloud.qdrant.kill().await?;
    cloud.qdrant = Server::choose(server).await?;
    fs_err::remove_dir_all(cloud.work_dir())?;
    Ok(())
}
