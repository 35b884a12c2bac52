//! The program `docker`.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program speaks to its caller")]

use std::{ffi::OsString, process::ExitCode};

use anyhow::{Context as _, bail, ensure};
use clap::Parser as _;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};

use super::{
    api::{Ended, Which},
    arguments::{Cli, Command, Container, Image, Named, PsArgs, Rm, RunArgs, Stop},
    endpoint,
};

/// What a refusal by the daemon, or a wrong flag, of `docker run` ends with.
const REFUSED: u8 = 125;

/// Runs the program with these arguments, the first of which is its name.
pub(crate) fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(REFUSED);
        }
    };
    let refused = match &cli.command {
        Command::Run(_) | Command::Container(Container::Run(_)) => REFUSED,
        Command::Ps(_) | Command::Inspect(_) | Command::Stop(_) | Command::Rm(_) => 1,
        Command::Container(_) | Command::Image(_) => 1,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let outcome =
        runtime.context("start the runtime").and_then(|runtime| runtime.block_on(command(cli.command)));
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("Error response from daemon: {error:#}");
            ExitCode::from(refused)
        }
    }
}

async fn command(command: Command) -> anyhow::Result<u8> {
    let client = Client { http: reqwest::Client::new(), endpoint: endpoint()? };
    match command {
        Command::Run(args) | Command::Container(Container::Run(args)) => client.run(*args).await,
        Command::Ps(args) | Command::Container(Container::Ls(args)) => client.list(&args).await,
        Command::Inspect(args) | Command::Container(Container::Inspect(args)) => client.inspect(&args).await,
        Command::Stop(args) | Command::Container(Container::Stop(args)) => client.stop(&args).await,
        Command::Rm(args) | Command::Container(Container::Rm(args)) => client.remove(&args).await,
        Command::Image(Image::Inspect(args)) => client.image(&args).await,
    }
}

/// A client of the engine.
struct Client {
    http: reqwest::Client,
    endpoint: String,
}

impl Client {
    async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> anyhow::Result<T> {
        let answer = self.http.post(format!("{}{path}", self.endpoint)).json(body).send().await?;
        read(answer).await
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        read(self.http.get(format!("{}{path}", self.endpoint)).send().await?).await
    }

    /// In the foreground: until the container ends, or this program is asked to, which stops the container.
    async fn run(&self, args: RunArgs) -> anyhow::Result<u8> {
        let run = args.read()?;
        let which = Which { name: run.name.clone() };
        let mut terminate = signal(SignalKind::terminate())?;
        let ended = self.post::<Ended>("/run", &run);
        tokio::pin!(ended);
        tokio::select! {
            ended = &mut ended => return Ok(ended?.code),
            _ = terminate.recv() => {}
        }
        self.post::<Value>("/stop", &which).await?;
        Ok(ended.await?.code)
    }

    async fn containers(&self) -> anyhow::Result<Vec<Value>> {
        self.get("/containers").await
    }

    async fn list(&self, args: &PsArgs) -> anyhow::Result<u8> {
        let filters: Vec<&str> =
            args.filter.iter().filter_map(|filter| filter.strip_prefix("name=")).collect();
        ensure!(filters.len() == args.filter.len(), "the stand-in filters by name only: {:?}", args.filter);
        for container in self.containers().await? {
            let name = container["Name"].as_str().unwrap_or_default();
            // Docker compares with the name as it keeps it, and without the slash.
            let plain = name.trim_start_matches('/');
            let mut is = false;
            for filter in &filters {
                let filter = regex_lite::Regex::new(filter)?;
                is |= filter.is_match(name) || filter.is_match(plain);
            }
            if is || filters.is_empty() {
                println!("{}", shown(&container, args.format.as_deref().unwrap_or("{{.ID}}"))?);
            }
        }
        Ok(0)
    }

    async fn find(&self, name: &str) -> anyhow::Result<Value> {
        let named = |container: &Value| {
            let text = |field: &str| container[field].as_str().unwrap_or_default().to_owned();
            text("Name").trim_start_matches('/') == name || text("Id").starts_with(name)
        };
        let found = self.containers().await?.into_iter().find(named);
        found.with_context(|| format!("No such container: {name}"))
    }

    async fn inspect(&self, args: &Named) -> anyhow::Result<u8> {
        let mut found = Vec::new();
        for name in &args.names {
            found.push(self.find(name).await?);
        }
        print_all(&found, args.format.as_deref())
    }

    async fn image(&self, args: &Named) -> anyhow::Result<u8> {
        let mut found = Vec::new();
        for name in &args.names {
            let answer =
                self.http.get(format!("{}/image", self.endpoint)).query(&Which { name: name.clone() }).send();
            found.push(read(answer.await?).await?);
        }
        print_all(&found, args.format.as_deref())
    }

    async fn stop(&self, args: &Stop) -> anyhow::Result<u8> {
        for name in &args.names {
            self.post::<Value>("/stop", &Which { name: name.clone() }).await?;
            println!("{name}");
        }
        Ok(0)
    }

    async fn remove(&self, args: &Rm) -> anyhow::Result<u8> {
        for name in &args.names {
            let there = self.find(name).await;
            match there {
                // Since 20.10 `--force` takes a container that is not there for removed.
                Err(_absent) if args.force => continue,
                Err(error) => return Err(error),
                Ok(_) if !args.force => bail!(
                    "cannot remove container \"/{name}\": container is running: stop the container before removing or force remove"
                ),
                Ok(_) => self.post::<Value>("/stop", &Which { name: name.clone() }).await?,
            };
            println!("{name}");
        }
        Ok(0)
    }
}

async fn read<T: DeserializeOwned>(answer: reqwest::Response) -> anyhow::Result<T> {
    let (status, text) = (answer.status(), answer.text().await?);
    ensure!(status.is_success(), "{text}");
    Ok(serde_json::from_str(if text.is_empty() { "null" } else { &text })?)
}

fn print_all(found: &[Value], format: Option<&str>) -> anyhow::Result<u8> {
    match format {
        None => println!("{}", serde_json::to_string_pretty(found)?),
        Some(format) => {
            for one in found {
                println!("{}", shown(one, format)?);
            }
        }
    }
    Ok(0)
}

/// The few templates that anybody uses: one field, or one as JSON.
fn shown(value: &Value, format: &str) -> anyhow::Result<String> {
    let inner = format.strip_prefix("{{").and_then(|rest| rest.strip_suffix("}}"));
    let inner = inner.with_context(|| format!("the stand-in knows no template `{format}`"))?.trim();
    let (as_json, path) = match inner.strip_prefix("json ") {
        Some(path) => (true, path.trim()),
        None => (false, inner),
    };
    let mut found = value;
    for field in path.split('.').filter(|field| !field.is_empty()) {
        let field = if field == "ID" { "Id" } else { field };
        found = found.get(field).with_context(|| format!("template: no field {field} in `{format}`"))?;
    }
    Ok(found.as_str().filter(|_| !as_json).map_or_else(|| found.to_string(), str::to_owned))
}
