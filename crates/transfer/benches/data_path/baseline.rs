//! What people use instead: shell pipelines over `tar`, `zstd`, `sha256sum`, `curl` and the AWS CLI.
//!
//! Each does at least what the product does, in the order that its goal names. Hashes beside a pipeline come out of a named
//! pipe and are waited for: bash does not wait for `>(sha256sum)`, whose CPU time would be lost.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context as _, ensure};

use crate::{
    Settings,
    measure::{Sample, children_cpu},
    sink::{DISCARD, Endpoint, KEEP},
    snapshots::Snapshots,
    tls,
    whole::Stored,
};

/// What the baselines of a backup need.
pub(crate) const TO_BACK_UP: &[&str] = &["bash", "mkfifo", "tar", "zstd", "tee", "sha256sum", "aws"];
/// What the baseline of a restore needs.
pub(crate) const TO_RESTORE: &[&str] = &["bash", "mkfifo", "tar", "zstd", "tee", "sha256sum", "curl"];
/// What the smallest of them needs.
pub(crate) const TO_PACK: &[&str] = &["bash", "tar", "zstd"];

/// The programs of the baselines.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    aws: PathBuf,
    /// Those that are not there or do not say what they are.
    pub(crate) missing: Vec<String>,
    /// What the others say they are.
    pub(crate) versions: BTreeMap<String, String>,
}

impl Programs {
    /// Looks for all of them.
    pub(crate) fn find(settings: &Settings) -> Self {
        let aws = settings.aws_cli.clone().unwrap_or_else(|| "aws".into());
        let (mut missing, mut versions) = (Vec::new(), BTreeMap::new());
        for name in TO_BACK_UP.iter().chain(&["curl"]) {
            let program = if *name == "aws" { &aws } else { Path::new(name) };
            match version(program) {
                Some(version) => drop(versions.insert((*name).to_owned(), version)),
                None => missing.push((*name).to_owned()),
            }
        }
        Self { aws, missing, versions }
    }

    /// Whether all of `names` are there.
    pub(crate) fn have(&self, names: &[&str]) -> bool {
        !self.missing.iter().any(|missing| names.contains(&missing.as_str()))
    }

    /// `tar | zstd -T0 -3 | tee >(sha256sum) | aws s3 cp -`, with the check of the snapshots beside it.
    pub(crate) fn pipeline(&self, work: &Path, input: &str) -> anyhow::Result<String> {
        let (tar, cp) = (tar(work, input)?, self.cp(work, "-", "pipeline")?);
        Ok(format!(
            "rm -f pipe; mkfifo pipe
             (cd {input} && exec sha256sum --quiet -c ../{input}.sha256) & check=$!
             sha256sum < pipe > pipeline.sha256 & hash=$!
             {tar} | zstd -q -T0 -3 -c | tee pipe | {cp}
             wait $check; wait $hash"
        ))
    }

    /// The three passes: `tar | zstd -T0 -19` to a file, `sha256sum`, `aws s3 cp`. Says the object's size.
    pub(crate) fn three_passes(&self, work: &Path, input: &str) -> anyhow::Result<String> {
        let (tar, cp) = (tar(work, input)?, self.cp(work, "passes.tar.zst", "passes")?);
        Ok(format!(
            "{tar} | zstd -q -f -T0 -19 -o passes.tar.zst
             sha256sum passes.tar.zst > passes.sha256
             {cp}
             stat -c %s passes.tar.zst"
        ))
    }

    fn cp(&self, work: &Path, from: &str, key: &str) -> anyhow::Result<String> {
        let (aws, endpoint) = (self.aws.display(), Endpoint::load(work)?.https);
        Ok(format!(
            "'{aws}' s3 cp {from} s3://{DISCARD}/{key} --only-show-errors --endpoint-url https://{endpoint} --ca-bundle {}",
            tls::CA
        ))
    }
}

/// `tar | zstd -3`, one frame on one thread. Says its size.
pub(crate) fn single_frame(work: &Path, input: &str) -> anyhow::Result<String> {
    Ok(format!("{} | zstd -q -3 -c | wc -c", tar(work, input)?))
}

/// `curl | tee >(sha256sum) | zstd -d | tar x` of the kept archive of `input`.
pub(crate) fn restore(work: &Path, input: &str) -> anyhow::Result<String> {
    let (Stored { key, sha256, .. }, https) = (Stored::load(work, input)?, Endpoint::load(work)?.https);
    let ca = tls::CA;
    Ok(format!(
        "rm -f pipe; mkfifo pipe
         sha256sum < pipe > restore.sha256 & hash=$!
         curl -sS --fail --cacert {ca} https://{https}/{KEEP}/{key} | tee pipe | zstd -q -d -c | tar -xf - -C restored
         wait $hash
         grep -q {sha256} restore.sha256"
    ))
}

fn tar(work: &Path, input: &str) -> anyhow::Result<String> {
    let names: Vec<String> = Snapshots::load(work, input)?.files.into_iter().map(|file| file.name).collect();
    Ok(format!("tar -cf - -C {input} {}", names.join(" ")))
}

/// The first line of what a program says it is.
fn version(program: &Path) -> Option<String> {
    let said = Command::new(program).arg("--version").stdin(Stdio::null()).stderr(Stdio::null()).output();
    let said = said.ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&said.stdout).lines().next().unwrap_or_default().to_owned())
}

/// Runs a script and counts the CPU time of everything that it starts. A number that it says last is the object's size.
pub(crate) fn run(work: &Path, script: &str, raw_bytes: u64) -> anyhow::Result<Sample> {
    let started = Instant::now();
    let output = Command::new("bash")
        .args(["-euo", "pipefail", "-c", script])
        .current_dir(work)
        .env("AWS_ACCESS_KEY_ID", "benchmark")
        .env("AWS_SECRET_ACCESS_KEY", "benchmark")
        .env("AWS_DEFAULT_REGION", "us-east-1")
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .env("AWS_CONFIG_FILE", "/dev/null")
        .env("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("start bash")?;
    let wall_s = started.elapsed().as_secs_f64();
    ensure!(output.status.success(), "{}:\n{script}", output.status);
    let said = String::from_utf8_lossy(&output.stdout);
    let object_bytes = said.lines().last().and_then(|line| line.trim().parse().ok());
    Ok(Sample { cpu_s: children_cpu()?, wall_s, raw_bytes, object_bytes, ..Sample::default() })
}
