//! The embedded cloud for people: it stays up, and the `aws` command line works against it.

#![expect(clippy::print_stdout, reason = "a person has to know where everything is")]

use std::path::PathBuf;

use anyhow::Context as _;

use crate::{
    cloud::{BUCKET, Cloud, Program},
    lost_host,
    qdrant::{QdrantOptions, ServerOptions},
    workflow::{INSTANCE, Machine, Workflow, WorkflowOptions},
};

/// How the cloud is set up.
#[derive(Debug)]
pub struct Options {
    /// Where the bucket and the host are kept; a directory that goes with the cloud otherwise.
    pub keep: Option<PathBuf>,
    /// The port of Step Functions, Lambda and Systems Manager; 0 is a free one.
    pub port: u16,
    /// By what waits, time-outs and heartbeats are divided.
    pub divisor: u32,
    /// Begin where a host was lost.
    pub lost_host: bool,
    /// A `qdrant` program.
    pub binary: Option<PathBuf>,
    /// Use the stand-in even where a real server could be had.
    pub only_stand_in: bool,
}

/// Starts everything, says where it is, and stays until Ctrl-C.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let temporary = tempfile::TempDir::with_prefix("localcloud-")?;
    let dir = options.keep.as_deref().unwrap_or(temporary.path());
    let program = Program::Localcloud(std::env::current_exe().context("find this program")?);
    let server = ServerOptions {
        binary: options.binary,
        only_stand_in: options.only_stand_in,
        ..Cloud::protected(QdrantOptions::default())
    };
    let mut cloud = Cloud::start(dir, program, server.clone()).await?;
    if options.lost_host {
        lost_host::leave_one(&mut cloud, server.clone()).await?;
    }
    let workflow_options = WorkflowOptions {
        port: options.port,
        divisor: options.divisor,
        staging_qdrant: server,
        ..WorkflowOptions::default()
    };
    let workflow = Workflow::start(&cloud, &workflow_options)?;
    workflow.listen(&cloud);
    print_places(&cloud, &workflow, options.divisor)?;
    tokio::signal::ctrl_c().await.context("wait for Ctrl-C")?;
    println!("\ngoing down");
    Ok(())
}

fn print_places(cloud: &Cloud, workflow: &Workflow, divisor: u32) -> anyhow::Result<()> {
    let (access_key, secret_key) = cloud.s3.credentials();
    println!("# {}", cloud.qdrant.describe());
    println!(
        "# waits, time-outs and heartbeats are divided by {divisor}; the host is {INSTANCE}; Ctrl-C ends it all"
    );
    println!("export AWS_ACCESS_KEY_ID={access_key} AWS_SECRET_ACCESS_KEY={secret_key}");
    // Version 1 of the command line reads the second of these only.
    println!("export AWS_REGION={0} AWS_DEFAULT_REGION={0}", cloud.s3.region());
    println!("export AWS_ENDPOINT_URL={}", workflow.endpoint());
    println!("export AWS_ENDPOINT_URL_S3={}", cloud.s3.endpoint());
    // As docs/restore-by-hand.md calls them.
    let settings = cloud.worker_environment()?;
    for (name, setting) in [
        ("BUCKET", "QDRANT_BACKUP_BUCKET"),
        ("QDRANT", "QDRANT_BACKUP_QDRANT_URL"),
        ("KEY_FILE", "QDRANT_BACKUP_QDRANT_API_KEY_FILE"),
        ("SNAPSHOTS_DIR", "QDRANT_BACKUP_SNAPSHOTS_DIR"),
        ("SNAPSHOTS_DIR_IN_QDRANT", "QDRANT_BACKUP_QDRANT_SNAPSHOTS_PATH"),
    ] {
        println!("export {name}='{}'", settings.get(setting).context("a setting of the host")?);
    }
    println!("# back up now, and look at it:");
    let start = |machine: Machine, input: &str| {
        let arn = workflow.machine(machine);
        println!("aws stepfunctions start-execution --state-machine-arn {arn} --input '{input}'");
    };
    start(Machine::Backup, "{}");
    println!("aws stepfunctions list-executions --state-machine-arn {}", workflow.machine(Machine::Backup));
    println!("aws ssm list-commands");
    println!("aws s3 ls --recursive s3://{BUCKET}/");
    println!(
        "# a drill on a staging host of its own, of the newest backup or of an older one; and the sweep for hosts that are left:"
    );
    start(Machine::RestoreDrill, "{}");
    start(Machine::RestoreDrill, r#"{"mode":"RANDOM"}"#);
    start(Machine::TerminateStaging, r#"{"older_than_seconds":600}"#);
    println!("# a batch that is done starts a backup by itself:");
    println!(
        "echo '{{\"batch_id\":\"b1\",\"finished_at\":\"2026-01-01T00:00:00Z\"}}' | aws s3 cp - s3://{BUCKET}/{}",
        protocol::key::DEFAULT_SUCCESS_MARKER
    );
    Ok(())
}
