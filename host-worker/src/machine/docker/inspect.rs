//! What `docker container inspect` tells.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
};

use serde::Deserialize;

use crate::machine::{Error, Launch};

/// A container, in whatever state.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Inspected {
    state: State,
    config: Config,
    #[serde(default)]
    mounts: Vec<Mount>,
    host_config: HostConfig,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct State {
    running: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Config {
    image: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HostConfig {
    #[serde(default)]
    port_bindings: Option<BTreeMap<String, Option<Vec<Binding>>>>,
    #[serde(default)]
    restart_policy: Option<RestartPolicy>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Mount {
    #[serde(default)]
    source: PathBuf,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RestartPolicy {
    name: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Binding {
    host_ip: String,
    host_port: String,
}

/// Reads what was printed about one container.
pub(super) fn parsed(printed: &str) -> Result<Option<Inspected>, Error> {
    serde_json::from_str::<Vec<Inspected>>(printed)
        .map(|mut containers| containers.pop())
        .map_err(|source| Error::Unreadable { program: "docker", source })
}

impl Inspected {
    pub(super) fn runs(&self) -> bool {
        self.state.running
    }

    /// What runs. A REST port that is published otherwise than here, at all or at another port, is at an address that is never asked for (0.0.0.0).
    /// So is one with other data than the workspace's, or that Docker starts by itself.
    pub(super) fn launch(&self, port: u16, workspace: &Path) -> Launch {
        let bindings = self.host_config.port_bindings.as_ref();
        let bindings = bindings.and_then(|all| all.get("6333/tcp")?.as_deref()).unwrap_or_default();
        let ours = self.mounts.iter().any(|mount| mount.source == workspace)
            && self
                .host_config
                .restart_policy
                .as_ref()
                .is_none_or(|policy| matches!(policy.name.as_str(), "" | "no"));
        let address = match bindings {
            [one] if ours && one.host_port == port.to_string() => one.host_ip.parse().ok(),
            _ => None,
        };
        let address = address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        Launch { image: self.config.image.clone(), address }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn launch(bindings: &str) -> String {
        let printed = format!(
            r#"[{{"Id":"ab","State":{{"Status":"running","Running":true}},"Config":{{"Image":"qdrant/qdrant:v1.18.3"}},"Mounts":[{{"Type":"bind","Source":"/workspace/qdrant","Destination":"/q"}}],"HostConfig":{{"RestartPolicy":{{"Name":"no"}},"PortBindings":{bindings}}}}}]"#
        );
        let Launch { image, address } =
            parsed(&printed).unwrap().unwrap().launch(6333, Path::new("/workspace/qdrant"));
        format!("{image} at {address}")
    }

    #[test]
    fn a_container_is_known_by_its_image_and_where_it_is_published() {
        for (bindings, address) in [
            (
                r#"{"6333/tcp":[{"HostIp":"10.0.2.15","HostPort":"6333"}],"6334/tcp":[{"HostIp":"10.0.2.15","HostPort":"6334"}]}"#,
                "10.0.2.15",
            ),
            (r#"{"6333/tcp":[{"HostIp":"::1","HostPort":"6333"}]}"#, "::1"),
            (r#"{"6333/tcp":[{"HostIp":"","HostPort":"6333"}]}"#, "0.0.0.0"),
            (r#"{"6333/tcp":[{"HostIp":"10.0.2.15","HostPort":"7000"}]}"#, "0.0.0.0"),
            (r#"{"6333/tcp":null}"#, "0.0.0.0"),
            ("{}", "0.0.0.0"),
            ("null", "0.0.0.0"),
        ] {
            assert_eq!(launch(bindings), format!("qdrant/qdrant:v1.18.3 at {address}"), "{bindings}");
        }
        let strange = |mount: &str, restart: &str| {
            let printed = format!(
                r#"[{{"State":{{"Running":true}},"Config":{{"Image":"q:v1.18.3"}},"Mounts":[{{"Source":"{mount}"}}],"HostConfig":{{"RestartPolicy":{{"Name":"{restart}"}},"PortBindings":{{"6333/tcp":[{{"HostIp":"10.0.2.15","HostPort":"6333"}}]}}}}}}]"#
            );
            parsed(&printed)
                .unwrap()
                .unwrap()
                .launch(6333, Path::new("/workspace/qdrant"))
                .address
                .to_string()
        };
        assert_eq!(strange("/workspace/qdrant", "no"), "10.0.2.15");
        assert_eq!(strange("/var/lib/qdrant", "no"), "0.0.0.0", "other data");
        assert_eq!(strange("/workspace/qdrant", "unless-stopped"), "0.0.0.0", "Docker starts it");
        assert!(parsed("[]").unwrap().is_none());
        assert!(parsed("oops").unwrap_err().to_string().contains("docker"));
    }
}
