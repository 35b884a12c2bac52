//! The command line of `localcloud`, which is also that of `host-worker` when it is called as one.

use std::{
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use functions::Function;

use crate::{
    demo, disks, docker,
    qdrant::Existing,
    simulation::{self, Scenario},
    up,
};

/// The name of the worker's program.
pub(crate) const WORKER: &str = "host-worker";
/// The name of Docker's.
pub(crate) const DOCKER: &str = "docker";

/// Everything that qdrant-backup talks to, on this machine, and a demo of the main job.
#[derive(Debug, Parser)]
#[command(name = "localcloud", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Index a real corpus, let the workflow back it up although its worker is killed, lose the host, restore it, prove it
    Demo(DemoArgs),
    /// Start the embedded cloud and leave it up, for the `aws` command line
    Up(UpArgs),
    /// Hurt the workflow at every call, in memory, and look at what must hold
    Simulate(SimulateArgs),
    /// Be one of the Lambdas, as AWS starts it
    Lambda {
        /// quiesce-check, trigger-snapshot, publish-manifest or verify-restore
        function: Function,
    },
    /// Be `host-worker`
    #[command(disable_help_flag = true)]
    HostWorker {
        /// Its arguments
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
}

#[derive(Args, Debug)]
struct DemoArgs {
    /// Keep the bucket in this empty directory
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// Use the empty Qdrant at this address
    #[arg(long, value_name = "URL", requires = "snapshots_dir")]
    qdrant_url: Option<String>,
    /// With --qdrant-url: its snapshots directory, as this machine sees it
    #[arg(long, value_name = "DIR")]
    snapshots_dir: Option<PathBuf>,
    /// With --qdrant-url: the same directory as Qdrant sees it
    #[arg(long, value_name = "DIR")]
    qdrant_snapshots_path: Option<PathBuf>,
    /// With --qdrant-url: file that holds its read-write API key
    #[arg(long, value_name = "FILE")]
    qdrant_api_key_file: Option<PathBuf>,
    /// Run this `qdrant` program [default: QDRANT_BIN, `qdrant` on the path, Docker, and else the stand-in]
    #[arg(long, value_name = "FILE", conflicts_with_all = ["qdrant_url", "stand_in"])]
    qdrant_bin: Option<PathBuf>,
    /// Use the stand-in even where a real server could be had
    #[arg(long, conflicts_with = "qdrant_url")]
    stand_in: bool,
}

#[derive(Args, Debug)]
struct UpArgs {
    /// Keep the bucket and the host in this directory
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// The port of Step Functions, Lambda and Systems Manager [default: a free one]
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    port: u16,
    /// Divide waits, time-outs and heartbeats by this
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    divisor: u32,
    /// Begin where a host was lost: a backup of a corpus is in the bucket, and Qdrant is empty
    #[arg(long)]
    lost_host: bool,
    /// Run this `qdrant` program [default: QDRANT_BIN, `qdrant` on the path, Docker, and else the stand-in]
    #[arg(long, value_name = "FILE", conflicts_with = "stand_in")]
    qdrant_bin: Option<PathBuf>,
    /// Use the stand-in even where a real server could be had
    #[arg(long)]
    stand_in: bool,
}

#[derive(Args, Debug)]
struct SimulateArgs {
    /// Pairs of faults, after every call was struck by every effect
    #[arg(long, default_value_t = 3000, value_name = "N")]
    pairs: usize,
    /// What the pairs are drawn from
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,
    /// Only this run, told call by call, as `console 12:reply-lost+40:host-replaced`
    #[arg(long, value_name = "SCENARIO PLAN", num_args = 2)]
    only: Option<Vec<String>>,
}

/// Runs the program with these arguments and answers with its exit code. Under the names `host-worker` and `docker`, and those of the
/// programs that prepare disks, it is those.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut arguments = arguments.into_iter().peekable();
    let name = arguments.peek().map(Path::new).and_then(Path::file_name);
    if name == Some(OsStr::new(WORKER)) {
        return host_worker::run(arguments);
    }
    if name == Some(OsStr::new(DOCKER)) {
        return docker::program::run(arguments);
    }
    if let Some(name) = name.and_then(disks::programs::known_as) {
        return disks::programs::run(name, arguments.skip(1));
    }
    match Cli::try_parse_from(arguments) {
        Ok(Cli { command: Command::HostWorker { arguments } }) => {
            host_worker::run(std::iter::once(OsString::from(WORKER)).chain(arguments))
        }
        Ok(Cli { command: Command::Lambda { function } }) => functions::run(function),
        Ok(Cli { command: Command::Demo(args) }) => report(demo(args)),
        Ok(Cli { command: Command::Up(args) }) => report(up(args)),
        Ok(Cli { command: Command::Simulate(args) }) => report(simulate(args)),
        Err(error) => {
            host_worker::output::print_usage(&error);
            ExitCode::from(if error.use_stderr() { 2 } else { 0 })
        }
    }
}

fn demo(args: DemoArgs) -> anyhow::Result<()> {
    let existing = match (args.qdrant_url, args.snapshots_dir) {
        (Some(url), Some(snapshots_dir)) => {
            let api_key = match args.qdrant_api_key_file {
                Some(path) => Some(fs_err::read_to_string(path)?.trim().to_owned()),
                None => None,
            };
            let server_snapshots_dir = args.qdrant_snapshots_path;
            Some(Existing { url, snapshots_dir, server_snapshots_dir, api_key, read_only_key: None })
        }
        _ => None,
    };
    let options =
        demo::Options { keep: args.keep, existing, binary: args.qdrant_bin, only_stand_in: args.stand_in };
    tokio::runtime::Runtime::new().context("start the runtime")?.block_on(demo::run(options))
}

fn up(args: UpArgs) -> anyhow::Result<()> {
    let UpArgs { keep, port, divisor, lost_host, qdrant_bin, stand_in } = args;
    let options = up::Options { keep, port, divisor, lost_host, binary: qdrant_bin, only_stand_in: stand_in };
    tokio::runtime::Runtime::new().context("start the runtime")?.block_on(up::run(options))
}

fn simulate(args: SimulateArgs) -> anyhow::Result<()> {
    let SimulateArgs { pairs, seed, only } = args;
    let only = match only.as_deref() {
        Some([scenario, plan]) => {
            let known = Scenario::ALL.into_iter().find(|known| known.name() == scenario);
            let known = known.with_context(|| format!("`{scenario}` is no scenario"))?;
            Some((known, plan.parse().map_err(anyhow::Error::msg)?))
        }
        Some(_) | None => None,
    };
    let exploration = simulation::explore(&simulation::Options { pairs, seed, only })?;
    anyhow::ensure!(exploration.violations.is_empty(), "{}", exploration.violations.join("\n"));
    Ok(())
}

#[expect(clippy::print_stderr, reason = "the last word of a failed command")]
fn report(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_workers_arguments_pass_through_untouched() {
        let line = ["localcloud", "host-worker", "--help", "backup", "--json"].map(OsString::from);
        let Command::HostWorker { arguments } = Cli::try_parse_from(line).unwrap().command else {
            panic!("not the worker")
        };
        assert_eq!(arguments, ["--help", "backup", "--json"]);
    }
}
