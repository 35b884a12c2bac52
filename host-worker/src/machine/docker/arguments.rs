//! What the `docker` and `systemd-run` programs are told. Pure functions: what runs on a host is read here, and tested as text.

use std::{ffi::OsString, path::Path};

use super::{Docker, NAME, STOP_SECONDS, UNIT};
use crate::machine::{Launch, disks::OWNER};

/// Variables that are set here, and that the environment file must leave alone: the container is built around them.
pub(super) const RESERVED: [&str; 7] = [
    "QDRANT__STORAGE__STORAGE_PATH",
    "QDRANT__STORAGE__SNAPSHOTS_PATH",
    "QDRANT__TELEMETRY_DISABLED",
    "QDRANT_INIT_FILE_PATH",
    "QDRANT__SERVICE__HOST",
    "QDRANT__SERVICE__HTTP_PORT",
    "QDRANT__SERVICE__GRPC_PORT",
];

/// The arguments of `docker` that run this in the foreground. No secret is among them: keys are in the file that `--env-file` names.
pub(super) fn run(docker: &Docker, launch: &Launch) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = Vec::new();
    let mut add = |flag: &str, value: &dyn AsRef<std::ffi::OsStr>| {
        arguments.extend([OsString::from(flag), value.as_ref().to_owned()]);
    };
    add("--name", &NAME);
    // After a reboot an empty Qdrant on the root disk must not serve: only boot starts it.
    add("--restart", &"no");
    // A host has no registry to pull from, and a tag that moved must not reach it.
    add("--pull", &"never");
    // On the bridge a hop limit of 1 keeps the instance's credentials from the container.
    add("--network", &"bridge");
    add("--user", &OWNER);
    add("--cap-drop", &"ALL");
    add("--security-opt", &"no-new-privileges");
    add("--tmpfs", &"/tmp:rw,noexec,nosuid,nodev,size=64m");
    // A segment is dozens of files.
    add("--ulimit", &"nofile=1048576:1048576");
    add("--stop-timeout", &STOP_SECONDS.to_string());
    // For `docker logs`, and never more than this; the journal has it all.
    add("--log-driver", &"local");
    add("--log-opt", &"max-size=20m");
    add("--log-opt", &"max-file=3");
    if let Some(memory) = docker.memory {
        add("--memory", &memory.to_string());
        // Equal to the limit: no swap.
        add("--memory-swap", &memory.to_string());
    }
    add("--mount", &mount(&docker.paths.workspace, &docker.paths.workspace_inside));
    add("--publish", &published(launch, docker.port, 6333));
    if docker.grpc {
        add("--publish", &published(launch, 6334, 6334));
    }
    add("--env-file", &docker.environment_file);
    add("--env", &variable("QDRANT__STORAGE__STORAGE_PATH", &docker.paths.storage_inside));
    add("--env", &variable("QDRANT__STORAGE__SNAPSHOTS_PATH", &docker.paths.snapshots_inside));
    add("--env", &"QDRANT__TELEMETRY_DISABLED=true");
    add("--env", &"QDRANT_INIT_FILE_PATH=/tmp/.qdrant-initialized");
    // The image's own entry point ends before Qdrant has: a stop would be a kill.
    add("--entrypoint", &"./qdrant");
    arguments.push(OsString::from(&launch.image));
    ["run", "--rm", "--read-only"].map(OsString::from).into_iter().chain(arguments).collect()
}

/// The arguments of `systemd-run` that make a unit of it. systemd owns the container, and requires the mount below it.
pub(super) fn unit(docker: &Docker, launch: &Launch) -> Vec<OsString> {
    let mut mounts = OsString::from("--property=RequiresMountsFor=");
    mounts.push(&docker.paths.workspace);
    let properties = [
        format!("--unit={UNIT}"),
        format!("--description=Qdrant ({})", launch.image),
        "--collect".to_owned(),
        "--quiet".to_owned(),
        "--service-type=exec".to_owned(),
        "--property=Wants=docker.service".to_owned(),
        "--property=After=docker.service".to_owned(),
        // Whatever ends it: only who stops the unit, as boot does, means it.
        "--property=Restart=always".to_owned(),
        "--property=RestartSec=5".to_owned(),
        "--property=KillMode=mixed".to_owned(),
        format!("--property=TimeoutStopSec={}", STOP_SECONDS + 30),
        // What a `docker` program that was killed has left.
        format!("--property=ExecStartPre=-/usr/bin/env docker stop {NAME}"),
        format!("--property=ExecStop=-/usr/bin/env docker stop {NAME}"),
    ];
    let mut arguments: Vec<OsString> = properties.map(OsString::from).into();
    arguments.extend([mounts, "--".into(), "docker".into()]);
    arguments.extend(run(docker, launch));
    arguments
}

fn mount(source: &Path, target: &Path) -> OsString {
    let mut mount = OsString::from("type=bind,source=");
    mount.push(source);
    mount.push(",target=");
    mount.push(target);
    mount
}

fn published(launch: &Launch, port: u16, inside: u16) -> String {
    format!("{}:{inside}", std::net::SocketAddr::new(launch.address, port))
}

fn variable(name: &str, value: &Path) -> OsString {
    let mut variable = OsString::from(name);
    variable.push("=");
    variable.push(value);
    variable
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::docker::tests::docker;

    fn text(arguments: Vec<OsString>) -> String {
        let words: Vec<_> = arguments.into_iter().map(|word| word.into_string().unwrap()).collect();
        words.join(" ").replace(" --", "\n--")
    }

    fn launch(address: [u8; 4]) -> Launch {
        Launch { image: "qdrant/qdrant:v1.18.3-unprivileged".to_owned(), address: address.into() }
    }

    #[test]
    fn what_docker_is_told() {
        insta::assert_snapshot!(text(run(&docker(), &launch([10, 0, 2, 15]))), @r"
        run
        --rm
        --read-only
        --name qdrant
        --restart no
        --pull never
        --network bridge
        --user 1000:1000
        --cap-drop ALL
        --security-opt no-new-privileges
        --tmpfs /tmp:rw,noexec,nosuid,nodev,size=64m
        --ulimit nofile=1048576:1048576
        --stop-timeout 120
        --log-driver local
        --log-opt max-size=20m
        --log-opt max-file=3
        --memory 25769803776
        --memory-swap 25769803776
        --mount type=bind,source=/workspace/qdrant,target=/workspace/qdrant
        --publish 10.0.2.15:6333:6333
        --publish 10.0.2.15:6334:6334
        --env-file /run/qdrant-backup/qdrant.env
        --env QDRANT__STORAGE__STORAGE_PATH=/workspace/qdrant/data
        --env QDRANT__STORAGE__SNAPSHOTS_PATH=/workspace/qdrant/snapshots
        --env QDRANT__TELEMETRY_DISABLED=true
        --env QDRANT_INIT_FILE_PATH=/tmp/.qdrant-initialized
        --entrypoint ./qdrant qdrant/qdrant:v1.18.3-unprivileged
        ");
    }

    #[test]
    fn without_limit_and_grpc_and_on_an_ipv6_address() {
        let docker = Docker { memory: None, grpc: false, ..docker() };
        let launch = Launch { address: std::net::Ipv6Addr::LOCALHOST.into(), ..launch([0; 4]) };
        let text = text(run(&docker, &launch));
        assert!(text.contains("\n--publish [::1]:6333:6333\n"), "{text}");
        assert!(!text.contains("memory") && !text.contains("6334"), "{text}");
    }

    #[test]
    fn what_systemd_is_told() {
        let text = text(unit(&docker(), &launch([127, 0, 0, 1])));
        let (unit, container) = text.split_once("\n-- docker ").unwrap();
        insta::assert_snapshot!(unit, @r"
        --unit=qdrant.service
        --description=Qdrant (qdrant/qdrant:v1.18.3-unprivileged)
        --collect
        --quiet
        --service-type=exec
        --property=Wants=docker.service
        --property=After=docker.service
        --property=Restart=always
        --property=RestartSec=5
        --property=KillMode=mixed
        --property=TimeoutStopSec=150
        --property=ExecStartPre=-/usr/bin/env docker stop qdrant
        --property=ExecStop=-/usr/bin/env docker stop qdrant
        --property=RequiresMountsFor=/workspace/qdrant
        ");
        assert!(container.starts_with("run\n--rm\n--read-only\n--name qdrant\n"), "{container}");
    }

    #[test]
    fn what_is_set_here_is_reserved() {
        let arguments = run(&docker(), &launch([127, 0, 0, 1]));
        let set = arguments.windows(2).filter(|pair| pair[0] == "--env");
        for pair in set {
            let name = pair[1].to_str().unwrap().split('=').next().unwrap();
            assert!(RESERVED.contains(&name), "{name}");
        }
    }
}
