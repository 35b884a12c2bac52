//! The host as SSM knows it: its tags, and what a script of its agent finds.

use std::path::PathBuf;

use anyhow::Context as _;

use crate::{
    cli::WORKER,
    cloud::{Cloud, Program},
    ssm::HostOptions,
};

/// The instance id of the host.
pub const INSTANCE: &str = "i-0123456789abcdef0";
/// The tag of a production host, as the Lambdas are told it.
pub const TAG: &str = "QdrantBackup=production";
/// The tag of a staging host.
pub const STAGING_TAG: &str = "QdrantBackup=staging";

/// The host of `cloud` under this instance id. Whatever its agent starts finds the settings of the worker, and the worker on the path.
pub(super) fn options(
    cloud: &Cloud,
    instance_id: &str,
    endpoint: &str,
    divisor: u32,
) -> anyhow::Result<HostOptions> {
    let bin = install(cloud)?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths(std::iter::once(bin).chain(std::env::split_paths(&path)))?;
    let mut options = HostOptions::new(instance_id, cloud.dir().join("agent").join(instance_id));
    let (key, value) = TAG.split_once('=').context("the tag has a key and a value")?;
    options = options.tag(key, value);
    options.env = cloud.worker_environment()?;
    options.env.insert("PATH".to_owned(), path.into_string().ok().context("the path is text")?);
    options.env.insert("AWS_REGION".to_owned(), cloud.s3.region().to_owned());
    options.env.insert("AWS_ENDPOINT_URL_SFN".to_owned(), endpoint.to_owned());
    // What is started here must end here, and systemd is the machine's own.
    options.env.insert("QDRANT_BACKUP_DETACHED".to_owned(), "true".to_owned());
    options.env.insert("QDRANT_BACKUP_TIME_DIVISOR".to_owned(), divisor.to_string());
    Ok(options)
}

/// Puts the worker on the host under its own name, and answers with the directory. This program is the worker when it is called so: a hard link, because a
/// process finds out by its own path what it was called, and a symbolic link would be resolved.
fn install(cloud: &Cloud) -> anyhow::Result<PathBuf> {
    let bin = cloud.dir().join("bin");
    fs_err::create_dir_all(&bin)?;
    let worker = bin.join(WORKER);
    if !worker.exists() {
        let (Program::Localcloud(program) | Program::HostWorker(program)) = cloud.program();
        // The directory may be on another file system.
        fs_err::hard_link(program, &worker).or_else(|_other| fs_err::copy(program, &worker).map(drop))?;
    }
    Ok(bin)
}
