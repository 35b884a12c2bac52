//! The program on the Qdrant host: backup, restore, verify, and what a person types.
//!
//! [`run`] is the whole program; `main` is a doorstep. Read [`backup::backup`] and [`restore::restore`] from top to bottom for what it does.

pub mod backup;
pub mod bandwidth;
pub mod boot;
pub mod catalogue;
pub mod cli;
pub mod config;
pub mod doctor;
pub mod drill;
pub mod error;
pub mod golden;
pub mod governor;
pub mod health;
pub mod limits;
pub mod lock;
pub mod machine;
mod network;
pub mod observe;
pub mod origin;
pub mod output;
mod priority;
pub mod progress;
pub mod prune;
pub mod pulse;
pub mod qdrant;
pub mod quiesce;
pub mod restore;
mod select;
pub mod session;
pub mod state;
pub mod task;
pub mod verify;

use std::{ffi::OsString, io::IsTerminal, path::Path, process::ExitCode};

use clap::Parser;
use jiff::Timestamp;
use protocol::FailureKind;
use tokio_util::sync::CancellationToken;

pub use crate::error::Error;
use crate::{
    cli::{Cli, Command},
    config::Config,
    output::Render,
    progress::Display,
    session::Session,
};

/// The settings that are read when no others are named.
const USUAL_CONFIG: &str = "/etc/qdrant-backup.toml";

/// Runs the program with these arguments (the first is its own name) and answers with its exit code: 0 done, 1 failed,
/// 2 usage or settings, 3 verification failed.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            output::print_usage(&error);
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    let display = if !cli.json && std::io::stderr().is_terminal() { Display::Bar } else { Display::Log };
    start_log(display, matches!(cli.command, Command::Task(_) | Command::Dispatch));
    let json = cli.json;
    priority::lower(cli.command.nice());
    let result = tokio::runtime::Runtime::new()
        .map_err(|source| Error::Local { what: "start the runtime".to_owned(), source })
        .and_then(|runtime| {
            let result = runtime.block_on(command(cli, display));
            // Work that was given up because it hangs must not keep the process, and with it a unit, from ending.
            runtime.shutdown_background();
            result
        });
    match result {
        Ok(code) => code,
        Err(error) => {
            output::print_error(&error, json);
            ExitCode::from(error.kind().exit_code())
        }
    }
}

async fn command(cli: Cli, display: Display) -> Result<ExitCode, Error> {
    let config = config(&cli)?;
    let cancel = CancellationToken::new();
    let now = Timestamp::now();
    let work = async {
        let open = || Session::open(config.clone(), cancel.clone());
        match &cli.command {
            Command::Backup(args) => {
                done(&backup::backup(&open().await?, args, display, now).await?, cli.json)
            }
            Command::Restore(args) => done(&restore::restore(&open().await?, args, display).await?, cli.json),
            Command::Verify(args) => {
                let result = verify::verify(&open().await?, args, display, now).await?;
                judged(&result, result.passed(), FailureKind::VerificationFailed, cli.json)
            }
            Command::List => {
                let session = open().await?;
                done(&session.unless_cancelled(catalogue::list(&session, now)).await??, cli.json)
            }
            Command::Show(args) => {
                let session = open().await?;
                done(&session.unless_cancelled(catalogue::show(&session, args)).await??, cli.json)
            }
            Command::Publish(args) => done(&catalogue::publish(&open().await?, args).await?, cli.json),
            Command::Prune(args) => {
                let pruned = prune::prune(&open().await?, args).await?;
                judged(&pruned, pruned.complete(), FailureKind::StoreUnavailable, cli.json)
            }
            Command::Acknowledge => done(&origin::acknowledge(&open().await?)?, cli.json),
            Command::Doctor => {
                let session = open().await?;
                let diagnosis = session.unless_cancelled(doctor::doctor(&session, now)).await??;
                judged(&diagnosis, diagnosis.healthy, FailureKind::Internal, cli.json)
            }
            Command::Health(args) => {
                let health = health::health(&config, now).await?;
                if args.cloudwatch {
                    return done(&health::ForCloudWatch(health), cli.json);
                }
                let good = health.good();
                judged(&health, good, FailureKind::Internal, cli.json)
            }
            Command::Boot(args) => {
                let order = boot::Order::new(&config, args, now)?;
                let host = boot::OnHost::open(config.clone(), cancel.clone(), display).await?;
                let machine = machine::Machine::of(&config, !config.has_systemd()).await?;
                let result = boot::boot(&machine, &host, &order, &cancel).await?;
                judged(&result, result.complete(), FailureKind::Internal, cli.json)
            }
            Command::Dispatch => {
                done(&task::dispatch(&config.work_dir(), variable, now, config.has_systemd())?, cli.json)
            }
            Command::Task(args) => task::run(config.clone(), args, cancel.clone()).await,
        }
    };
    until_signal(work, &cancel).await
}

fn config(cli: &Cli) -> Result<Config, Error> {
    let usual = Path::new(USUAL_CONFIG);
    let file = match cli.config.as_deref().or_else(|| usual.exists().then_some(usual)) {
        Some(path) => Some(
            fs_err::read_to_string(path).map_err(|source| Error::ConfigFile { source: Box::new(source) })?,
        ),
        None => None,
    };
    Config::new(cli.settings.clone(), file.as_deref(), variable("QDRANT_API_KEY"))
}

/// A secret or a task that came in the environment; settings are `clap`'s to read.
#[expect(clippy::disallowed_methods, reason = "this is the edge")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn done<T: Render>(result: &T, json: bool) -> Result<ExitCode, Error> {
    output::print(result, json);
    Ok(ExitCode::SUCCESS)
}

/// A result that was reached and may still be bad news.
fn judged<T: Render>(result: &T, good: bool, kind: FailureKind, json: bool) -> Result<ExitCode, Error> {
    output::print(result, json);
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::from(kind.exit_code()) })
}

/// Runs `work`; on the first SIGINT or SIGTERM asks it to stop and waits for it to clean up, on the second leaves at once.
async fn until_signal(
    work: impl Future<Output = Result<ExitCode, Error>>,
    cancel: &CancellationToken,
) -> Result<ExitCode, Error> {
    use tokio::signal::unix::{SignalKind, signal};
    let listen =
        |kind| signal(kind).map_err(|source| Error::Local { what: "listen for signals".to_owned(), source });
    let (mut interrupt, mut terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    tokio::pin!(work);
    loop {
        tokio::select! {
            result = &mut work => return result,
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        if cancel.is_cancelled() {
            return Err(Error::Cancelled);
        }
        tracing::warn!("asked to stop: cleaning up; a second signal leaves at once");
        cancel.cancel();
    }
}

/// On a terminal only what a person must see; otherwise JSON lines. `RUST_LOG` overrides the level.
fn start_log(display: Display, has_token: bool) {
    use tracing_subscriber::EnvFilter;
    let default = match display {
        Display::Bar => "warn",
        Display::Log => "host_worker=info,transfer=info,catalog=info,warn",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_unset| EnvFilter::new(default));
    let filter = if has_token { without_requests(filter) } else { filter };
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A second run in one process (tests, the embedded cloud) keeps the first log.
    let _already_set = match display {
        Display::Bar => log.compact().try_init(),
        Display::Log => log.json().flatten_event(true).try_init(),
    };
}

/// No less than warnings of those that write down requests in their finer levels, with the task token in them.
fn without_requests(filter: tracing_subscriber::EnvFilter) -> tracing_subscriber::EnvFilter {
    ["aws_config", "aws_runtime", "aws_sdk_s3", "aws_sdk_sfn", "aws_smithy_runtime", "hyper", "hyper_util"]
        .into_iter()
        .filter_map(|target| format!("{target}=warn").parse().ok())
        .fold(filter, tracing_subscriber::EnvFilter::add_directive)
}
