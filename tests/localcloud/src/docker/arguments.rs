//! What the program understands: the commands and flags of Docker that the worker uses, and no others.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf};

use anyhow::{Context as _, bail, ensure};
use clap::{Args, Parser, Subcommand};

use super::api::Run;

#[derive(Debug, Parser)]
#[command(name = "docker", disable_help_subcommand = true)]
pub(super) struct Cli {
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    Run(Box<RunArgs>),
    Ps(PsArgs),
    Inspect(Named),
    Stop(Stop),
    Rm(Rm),
    #[command(subcommand)]
    Container(Container),
    #[command(subcommand)]
    Image(Image),
}

#[derive(Debug, Subcommand)]
pub(super) enum Container {
    Run(Box<RunArgs>),
    Inspect(Named),
    Stop(Stop),
    Rm(Rm),
    Ls(PsArgs),
}

#[derive(Debug, Subcommand)]
pub(super) enum Image {
    Inspect(Named),
}

#[derive(Debug, Args)]
pub(super) struct PsArgs {
    #[arg(short, long)]
    pub(super) all: bool,
    #[arg(long)]
    pub(super) no_trunc: bool,
    #[arg(short, long)]
    pub(super) filter: Vec<String>,
    #[arg(long)]
    pub(super) format: Option<String>,
    #[arg(short, long)]
    pub(super) quiet: bool,
}

#[derive(Debug, Args)]
pub(super) struct Named {
    #[arg(short, long)]
    pub(super) format: Option<String>,
    #[arg(long = "type")]
    pub(super) kind: Option<String>,
    #[arg(required = true)]
    pub(super) names: Vec<String>,
}

#[derive(Debug, Args)]
pub(super) struct Stop {
    #[arg(short, long, visible_alias = "timeout")]
    pub(super) time: Option<u32>,
    #[arg(required = true)]
    pub(super) names: Vec<String>,
}

#[derive(Debug, Args)]
pub(super) struct Rm {
    #[arg(short, long)]
    pub(super) force: bool,
    #[arg(short, long)]
    pub(super) volumes: bool,
    #[arg(required = true)]
    pub(super) names: Vec<String>,
}

#[derive(Debug, Args)]
#[command(trailing_var_arg = true)]
pub(super) struct RunArgs {
    #[arg(long)]
    rm: bool,
    #[arg(long)]
    init: bool,
    #[arg(long)]
    name: String,
    #[arg(long, default_value = "no")]
    restart: String,
    #[arg(long, default_value = "missing", value_parser = ["always", "missing", "never"])]
    pull: String,
    #[arg(long)]
    entrypoint: Option<String>,
    #[arg(long)]
    network: Option<String>,
    #[arg(short, long)]
    user: Option<String>,
    #[arg(short, long)]
    workdir: Option<String>,
    #[arg(long)]
    cap_drop: Vec<String>,
    #[arg(long)]
    security_opt: Vec<String>,
    #[arg(long)]
    ulimit: Vec<String>,
    #[arg(long)]
    tmpfs: Vec<String>,
    #[arg(long)]
    read_only: bool,
    #[arg(long)]
    stop_timeout: Option<u32>,
    #[arg(long)]
    stop_signal: Option<String>,
    #[arg(long)]
    log_driver: Option<String>,
    #[arg(long)]
    log_opt: Vec<String>,
    #[arg(long)]
    label: Vec<String>,
    #[arg(long)]
    pids_limit: Option<i64>,
    #[arg(short, long)]
    memory: Option<String>,
    #[arg(long)]
    memory_swap: Option<String>,
    #[arg(long)]
    oom_score_adj: Option<i32>,
    #[arg(short, long)]
    publish: Vec<String>,
    #[arg(long)]
    mount: Vec<String>,
    #[arg(long)]
    env_file: Vec<PathBuf>,
    #[arg(short, long)]
    env: Vec<String>,
    image: String,
    command: Vec<String>,
}

impl RunArgs {
    /// What the engine is to run. The client reads the environment files, as Docker's does.
    pub(super) fn read(self) -> anyhow::Result<Run> {
        ensure!(self.rm, "the stand-in forgets a container that ends: give --rm");
        ensure!(
            self.entrypoint.as_deref() == Some("./qdrant"),
            "with the image's own entrypoint a stop kills Qdrant: give --entrypoint ./qdrant"
        );
        ensure!(self.command.is_empty(), "Qdrant takes no such arguments: {:?}", self.command);
        let mut environment = BTreeMap::new();
        for file in &self.env_file {
            let text = fs_err::read_to_string(file)?;
            for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
            {
                let (name, value) = line
                    .split_once('=')
                    .with_context(|| format!("poorly formatted environment: `{}`", file.display()))?;
                environment.insert(name.to_owned(), value.to_owned());
            }
        }
        for pair in &self.env {
            let (name, value) = pair.split_once('=').with_context(|| format!("--env {pair}: no value"))?;
            environment.insert(name.to_owned(), value.to_owned());
        }
        let mut rest = None;
        for published in &self.publish {
            let (outside, inside) = published.rsplit_once(':').context("--publish without a port inside")?;
            match inside.trim_end_matches("/tcp") {
                "6333" => {
                    let outside: SocketAddr =
                        outside.parse().with_context(|| format!("invalid publish: {published}"))?;
                    ensure!(rest.replace(outside).is_none(), "REST is published twice");
                }
                "6334" => {}
                other => bail!("Qdrant does not listen on port {other}"),
            }
        }
        let [mount] = self.mount.as_slice() else {
            bail!("one mount holds everything, and there are {}", self.mount.len());
        };
        let field = |names: [&str; 3]| {
            let mut fields = mount.split(',').filter_map(|field| field.split_once('='));
            fields.find(|(name, _)| names.contains(name)).map(|(_, value)| value.to_owned())
        };
        ensure!(field(["type"; 3]).as_deref() == Some("bind"), "--mount {mount}: not a bind mount");
        let source = field(["source", "src", "source"]).context("--mount without a source")?;
        let target = field(["target", "dst", "destination"]).context("--mount without a target")?;
        Ok(Run {
            name: self.name,
            image: self.image,
            publish: rest.context("REST is not published")?,
            mount: (source.into(), target),
            environment,
            restart: self.restart,
        })
    }
}
