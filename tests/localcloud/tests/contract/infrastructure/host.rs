//! The settings that a host renders for its worker (`infra/host/render-config`, by its own tests) are settings that the worker takes.

use std::net::Ipv4Addr;

use host_worker::config::{Config, HostRole, Settings};

use super::template::{resources, stack};
use crate::read;

fn rendered(role: &str) -> Config {
    let text = read(&format!("infra/host/tests/expected-{role}.toml"));
    // The key's file is on a host only; which file it is, is looked at below.
    let text = text.replace("qdrant-api-key-file = \"/run/qdrant-backup/qdrant-api-key\"\n", "");
    Config::new(Settings::default(), Some(&text), None).unwrap_or_else(|error| panic!("{role}: {error}"))
}

#[test]
fn what_a_production_host_renders_is_taken_by_the_worker() {
    let config = rendered("production");
    assert_eq!(config.host_role(), HostRole::Production);
    assert!(config.qdrant_address().unwrap() != Ipv4Addr::LOCALHOST, "clients reach nobody there");
    let boot = config.boot().expect("a host brings itself up");
    let lifecycle = boot.lifecycle.as_ref().expect("a group waits for it");
    let host = stack("host");
    let groups = resources(&host, "AWS::AutoScaling::AutoScalingGroup");
    let hooks = groups[0].1["Properties"]["LifecycleHookSpecificationList"].to_string();
    assert!(hooks.contains(&format!("\"LifecycleHookName\":\"{}\"", lifecycle.hook)), "{hooks}");
    assert!(lifecycle.group.ends_with("-host"), "{}", lifecycle.group);
    assert_eq!(config.snapshots_dir().unwrap().host, boot.workspace.join("snapshots"));
    assert!(config.work_dir().starts_with(&boot.workspace), "journals go with the data that they are about");
    assert!(config.success_marker().is_some(), "a backup would not say which batch it covers");
}

#[test]
fn what_a_staging_host_renders_is_taken_by_the_worker() {
    let config = rendered("staging");
    assert_eq!(config.host_role(), HostRole::Staging);
    assert_eq!(config.qdrant_address().unwrap(), Ipv4Addr::LOCALHOST, "nobody else reaches a drill");
    assert!(config.boot().expect("a drill starts Qdrant itself").lifecycle.is_none());
}

/// What fetches the keys, what runs with them, and the units name the same files.
#[test]
fn the_keys_are_read_where_they_are_put() {
    let fetch = read("infra/host/fetch-secrets");
    let lib = read("infra/host/lib.sh");
    assert!(lib.contains("keys=$ROOT/run/qdrant-backup\n"));
    for role in ["production", "staging"] {
        let text = read(&format!("infra/host/tests/expected-{role}.toml"));
        for (setting, file) in [("qdrant-api-key-file", "qdrant-api-key"), ("environment-file", "qdrant.env")]
        {
            assert!(
                text.contains(&format!("{setting} = \"/run/qdrant-backup/{file}\"\n")),
                "{role}: {setting}"
            );
            assert!(fetch.contains(&format!("write \"$keys/{file}\" 600")), "{file} is not written");
        }
    }
}
