//! What a boot came to, for people and for programs.

use std::fmt;

use serde::Serialize;

use super::record::{Record, Source};
use crate::output::{Render, table};

/// What a boot came to.
#[derive(Debug, Serialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum BootResult {
    /// Qdrant answers at its address.
    Serving {
        /// The whole story.
        record: Box<Record>,
        /// What became of the lifecycle action.
        lifecycle: Told,
    },
    /// A staging host has its disks, and waits for a drill.
    ReadyForDrill,
}

/// What became of the lifecycle action.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum Told {
    /// The group was told that the instance is ready.
    Completed,
    /// No group waits for this instance.
    NobodyWaits,
    /// The group could not be told.
    Failed {
        /// Why.
        problem: String,
    },
}

impl BootResult {
    /// Whether all is well: the host serves, and whoever waits was told.
    pub fn complete(&self) -> bool {
        match self {
            Self::Serving { lifecycle, .. } => !matches!(lifecycle, Told::Failed { .. }),
            Self::ReadyForDrill => true,
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Backup { backup_id, why, .. } => write!(f, "backup {backup_id} ({why})"),
            Self::LocalSnapshots { files, why } => {
                write!(f, "local snapshots of {} collections ({why})", files.len())
            }
            Self::Nothing => f.write_str("nothing: there was never a backup"),
            Self::Adopted => f.write_str("the data on the disk, as a person said"),
        }
    }
}

impl Render for BootResult {
    fn render(&self) -> String {
        let Self::Serving { record, lifecycle } = self else {
            return "the disks are prepared: ready for a drill".to_owned();
        };
        let mut lines = vec![match &record.marker {
            Some(marker) if marker.boot_id != record.boot_id => {
                format!(
                    "serving; the data is complete since {}, and nothing was restored",
                    marker.completed_at
                )
            }
            Some(_) | None => "serving".to_owned(),
        }];
        let mut line = |name: &str, value: String| lines.push(format!("  {name:<10} {value}"));
        if let Some(source) = &record.source {
            line("data", source.to_string());
            if source.degraded() {
                line(
                    "",
                    "degraded: backups do not move the pointer until `host-worker acknowledge`".to_owned(),
                );
            }
        }
        for rejected in &record.rejected {
            line("rejected", format!("{}: {}", rejected.source, rejected.why));
        }
        if let Some(image) = &record.image {
            line("qdrant", image.clone());
        }
        if let Some(warm_up) = &record.warm_up {
            line("warm-up", warm_up.to_string());
        }
        line(
            "group",
            match lifecycle {
                Told::Completed => "told that the host is ready".to_owned(),
                Told::NobodyWaits => "none waits for this host".to_owned(),
                Told::Failed { problem } => format!("NOT told: {problem}"),
            },
        );
        if let Some(seconds) = record.serving_after_seconds {
            let runs = if record.runs > 1 { format!(", in {} runs", record.runs) } else { String::new() };
            line("recovery", format!("{seconds:.1} s from the start to serving{runs}"));
        }
        for note in &record.notes {
            line("note", note.clone());
        }
        let rows: Vec<Vec<String>> = record
            .steps
            .iter()
            .map(|step| {
                vec![step.step.name().to_owned(), step.started_at.to_string(), format!("{:.1}", step.seconds)]
            })
            .collect();
        format!("{}\n\n{}", lines.join("\n"), table(&["step", "began", "seconds"], &[2], &rows))
    }
}
