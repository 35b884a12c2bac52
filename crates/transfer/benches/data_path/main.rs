//! The benchmark suite of the data path: stages alone, the whole, and what people use instead, side by side in one run.
//!
//! ```sh
//! cargo bench -p transfer
//! cargo bench -p transfer -- --size-mib 200 --rounds 3 --out "$PWD/docs/benchmarks/2026-11-28-c8gd-large"
//! ```
//!
//! `docs/benchmarks/README.md` says what each row means. The program runs itself again for every measured row and for the
//! store, so that memory and CPU time are those of the row and of nothing else.

mod baseline;
mod client;
mod corpus;
mod goals;
mod measure;
mod report;
mod resume;
mod rows;
mod sink;
mod snapshots;
mod stages;
mod suite;
mod tls;
mod whole;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::rows::Row;

/// Measures the data path and says which of its goals are met.
#[derive(Debug, Parser)]
#[command(name = "data_path")]
struct Arguments {
    #[command(flatten)]
    settings: Settings,
    /// What `cargo bench` adds to every command line.
    #[arg(long, hide = true, global = true)]
    bench: bool,
    #[command(subcommand)]
    child: Option<Child>,
}

/// What a person may choose.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Settings {
    /// Size of the snapshots in MiB.
    #[arg(long, default_value_t = 800)]
    size_mib: u64,
    /// Size in MiB of the snapshots that `zstd -19` gets, which takes it a minute of CPU for 192. Of much smaller ones the start of the
    /// processes would be the larger part.
    #[arg(long, default_value_t = 192)]
    sample_mib: u64,
    /// How many times every row is run; the medians are reported.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Folder for the raw data (`raw.csv`, `run.json`) and the printed table (`table.txt`).
    #[arg(long)]
    out: Option<PathBuf>,
    /// The AWS CLI; `aws` on the PATH where not given.
    #[arg(long, env = "AWS_CLI")]
    aws_cli: Option<PathBuf>,
}

/// What the program does when it was started by itself.
#[derive(Debug, Subcommand)]
enum Child {
    /// One measured row.
    #[command(hide = true)]
    Row {
        /// The folder of the run.
        #[arg(long)]
        work: PathBuf,
        #[command(subcommand)]
        row: Row,
    },
    /// The store.
    #[command(hide = true)]
    Sink {
        /// The folder of the run.
        #[arg(long)]
        work: PathBuf,
    },
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    match arguments.child {
        None => suite::run(&arguments.settings),
        Some(Child::Row { work, row }) => rows::run(&work, row),
        Some(Child::Sink { work }) => sink::run(&work),
    }
}
