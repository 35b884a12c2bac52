//! What is in the catalogue, and which backup the pointer names.

use catalog::{Entry, PointerState, PublishPolicy};
use jiff::{SpanRound, Timestamp, Unit};
use protocol::{BackupId, Manifest, ProofLevel};
use serde::Serialize;

use crate::{
    backup::{outcome_line, remove_manifest, waiting_manifest},
    cli::{PublishArgs, ShowArgs},
    config::ByteSize,
    error::Error,
    output::{Render, table},
    select,
    session::Session,
};

/// The backups, newest first.
#[derive(Debug, Serialize)]
pub struct List {
    /// When it was listed.
    pub at: Timestamp,
    /// Why the pointer cannot be read, if it cannot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pointer_problem: Option<String>,
    /// A backup each.
    pub backups: Vec<ListedBackup>,
}

/// A line of the list.
#[derive(Debug, Serialize)]
pub struct ListedBackup {
    /// The backup.
    pub backup_id: BackupId,
    /// Whether the pointer names it.
    pub published: bool,
    /// How far it is proved, and when that was.
    pub proof: Option<(ProofLevel, Timestamp)>,
    /// Its size in bytes, collections, points; absent when its manifest cannot be used.
    pub content: Option<Content>,
    /// Why its manifest cannot be used.
    pub problem: Option<String>,
}

/// What a backup holds.
#[derive(Debug, Serialize)]
pub struct Content {
    /// Size of the archive in bytes.
    pub size_bytes: u64,
    /// Number of collections.
    pub collections: usize,
    /// Exact number of points of all collections.
    pub points: u64,
    /// Qdrant's version.
    pub qdrant: String,
    /// Whether only chosen collections are in it.
    pub partial: bool,
    /// Whether nothing was written while it was made.
    pub quiesced: bool,
}

/// Lists the backups.
pub async fn list(session: &Session, now: Timestamp) -> Result<List, Error> {
    let listing = session.catalog.list().await?;
    let pointer_problem = match listing.pointer {
        PointerState::Absent | PointerState::Names(_) => None,
        PointerState::Unreadable(error) => Some(error.to_string()),
    };
    Ok(List { at: now, pointer_problem, backups: listing.entries.into_iter().map(listed).collect() })
}

fn listed(entry: Entry) -> ListedBackup {
    let (content, problem) = match entry.manifest {
        Ok(manifest) => (Some(content(&manifest)), None),
        Err(error) => (None, Some(error.to_string())),
    };
    let proof = entry.proved.map(|proved| (proved.level, proved.at));
    ListedBackup { backup_id: entry.backup_id, published: entry.is_pointer, proof, content, problem }
}

fn content(manifest: &Manifest) -> Content {
    Content {
        size_bytes: manifest.size_bytes,
        collections: manifest.collections.len(),
        points: manifest.collections.iter().map(|collection| collection.points_after).sum(),
        qdrant: manifest.qdrant.version.clone(),
        partial: manifest.partial,
        quiesced: manifest.quiesced,
    }
}

impl Render for List {
    fn render(&self) -> String {
        let rows: Vec<Vec<String>> = self.backups.iter().map(|backup| row(backup, self.at)).collect();
        let header = ["backup", "age", "size", "collections", "points", "qdrant", "proof", ""];
        let table =
            if rows.is_empty() { "no backups".to_owned() } else { table(&header, &[1, 2, 3, 4], &rows) };
        match &self.pointer_problem {
            Some(problem) => format!("{table}\n\nthe pointer cannot be used: {problem}"),
            None => table,
        }
    }
}

fn row(backup: &ListedBackup, now: Timestamp) -> Vec<String> {
    let age = age(backup.backup_id, now);
    let Some(content) = &backup.content else {
        let problem = backup.problem.clone().unwrap_or_default();
        return vec![
            backup.backup_id.to_string(),
            age,
            "?".to_owned(),
            "?".to_owned(),
            "?".to_owned(),
            "?".to_owned(),
            "-".to_owned(),
            problem,
        ];
    };
    let notes = [
        (backup.published, "published"),
        (content.partial, "partial"),
        (!content.quiesced, "written to during the backup"),
    ];
    let notes: Vec<&str> = notes.iter().filter(|(holds, _)| *holds).map(|(_, note)| *note).collect();
    // Nothing is in the catalogue whose checksum the store did not confirm.
    let proof = backup
        .proof
        .map_or_else(|| ProofLevel::Checksummed.name().to_owned(), |(level, _)| level.name().to_owned());
    vec![
        backup.backup_id.to_string(),
        age,
        ByteSize(content.size_bytes).to_string(),
        content.collections.to_string(),
        content.points.to_string(),
        content.qdrant.clone(),
        proof,
        notes.join(", "),
    ]
}

/// How old a backup is, as `3d 4h`.
pub(crate) fn age(backup: BackupId, now: Timestamp) -> String {
    let rounding = SpanRound::new().largest(Unit::Hour).smallest(Unit::Minute);
    match now.since(backup.time()).and_then(|span| span.round(rounding)) {
        Ok(span) => {
            let (hours, minutes) = (span.get_hours(), span.get_minutes());
            if hours >= 48 {
                format!("{}d {}h", hours / 24, hours % 24)
            } else {
                format!("{hours}h {minutes}m")
            }
        }
        Err(_out_of_range) => "?".to_owned(),
    }
}

/// One backup, as its manifest has it.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub struct Show(pub Manifest);

/// Shows one backup.
pub async fn show(session: &Session, args: &ShowArgs) -> Result<Show, Error> {
    Ok(Show(select::manifest_alone(session, &args.selection).await?))
}

impl Render for Show {
    fn render(&self) -> String {
        let manifest = &self.0;
        let rows: Vec<Vec<String>> = manifest
            .collections
            .iter()
            .map(|collection| {
                let recall =
                    collection.golden.recall.map_or_else(|| "-".to_owned(), |recall| format!("{recall:.3}"));
                vec![
                    collection.name.to_string(),
                    collection.points_after.to_string(),
                    ByteSize(collection.size_bytes).to_string(),
                    collection.golden.points.to_string(),
                    collection.golden.searches.to_string(),
                    recall,
                ]
            })
            .collect();
        let aliases: Vec<String> =
            manifest.aliases.iter().map(|(alias, target)| format!("{alias} → {target}")).collect();
        let batch = manifest.indexing.as_ref().map_or("none recorded", |marker| marker.batch_id.as_str());
        let fields = [
            ("created", manifest.created_at.to_string()),
            ("archive", manifest.latest_snapshot_to_path.clone()),
            (
                "size",
                format!("{} ({} raw)", ByteSize(manifest.size_bytes), ByteSize(manifest.archive.raw_bytes)),
            ),
            ("sha256", manifest.sha256.clone()),
            ("crc64nvme", manifest.crc64nvme.clone()),
            ("version", manifest.version_id.clone().unwrap_or_else(|| "the bucket has none".to_owned())),
            ("qdrant", manifest.qdrant.version.clone()),
            ("batch", batch.to_owned()),
            ("aliases", if aliases.is_empty() { "none".to_owned() } else { aliases.join(", ") }),
            ("quiesced", if manifest.quiesced { "yes" } else { "no, counts may be a range" }.to_owned()),
            ("partial", if manifest.partial { "yes" } else { "no" }.to_owned()),
        ];
        let mut text = format!("backup {}", manifest.backup_id);
        for (name, value) in fields {
            text.push_str(&format!("\n  {name:<10} {value}"));
        }
        let header = ["collection", "points", "snapshot", "sampled", "searches", "recall"];
        format!("{text}\n\n{}", table(&header, &[1, 2, 3, 4, 5], &rows))
    }
}

/// What publication came to.
#[derive(Debug, Serialize)]
pub struct Published {
    /// The backup.
    pub backup_id: BackupId,
    /// Whether the pointer names it now.
    pub publication: catalog::Published,
}

/// Publishes a backup that this host uploaded with `--no-publish`, or one that the catalogue has.
pub async fn publish(session: &Session, args: &PublishArgs) -> Result<Published, Error> {
    let work_dir = session.config.work_dir();
    let manifest = match waiting_manifest(&work_dir, args.backup)? {
        Some(manifest) => manifest,
        None => session.catalog.manifest(args.backup).await?,
    };
    let policy = PublishPolicy { force: args.force, rollback: args.rollback, ..PublishPolicy::default() };
    let publication = session.catalog.publish(&manifest, &policy).await?;
    remove_manifest(&work_dir, args.backup);
    Ok(Published { backup_id: manifest.backup_id, publication })
}

impl Render for Published {
    fn render(&self) -> String {
        format!("backup {}: {}", self.backup_id, outcome_line(self.publication.outcome))
    }
}
