//! The house: which package may know which, and what every package has.

use std::{collections::BTreeMap, process::Command};

use serde_json::Value;

use crate::{read, root, sources};

/// `cargo metadata` of the workspace, from the lock file and without a network.
fn metadata() -> Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Package to the names of what it depends on, development dependencies left out.
fn arrows() -> BTreeMap<String, Vec<String>> {
    let metadata = metadata();
    let package = |package: &Value| {
        let dependencies = package["dependencies"].as_array().unwrap().iter();
        let names =
            dependencies.filter(|d| d["kind"] != "dev").map(|d| d["name"].as_str().unwrap().to_owned());
        (package["name"].as_str().unwrap().to_owned(), names.collect())
    };
    metadata["packages"].as_array().unwrap().iter().map(package).collect()
}

#[test]
fn arrows_go_one_way() {
    let allowed: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("protocol", &[][..]),
        ("catalog", &["protocol"]),
        ("transfer", &["protocol"]),
        // Not `transfer`: a Lambda that links zstd does the worker's job.
        ("functions", &["catalog", "protocol"]),
        ("host-worker", &["catalog", "protocol", "transfer"]),
        ("localcloud", &["catalog", "functions", "host-worker", "protocol", "transfer"]),
    ]);
    let arrows = arrows();
    assert_eq!(
        arrows.keys().collect::<Vec<_>>(),
        allowed.keys().collect::<Vec<_>>(),
        "a package without a place in the design"
    );
    for (package, dependencies) in &arrows {
        for ours in dependencies.iter().filter(|name| arrows.contains_key(*name)) {
            assert!(allowed[package.as_str()].contains(&ours.as_str()), "{package} must not know {ours}");
        }
    }
}

#[test]
fn some_packages_do_without_some_things() {
    let forbidden = [
        ("protocol", &["tokio", "reqwest", "aws-sdk-s3", "zstd", "zstd-safe", "fs-err"][..]),
        ("catalog", &["zstd", "zstd-safe", "transfer", "reqwest"]),
        ("functions", &["aws-sdk-sfn", "reqwest", "zstd"]),
        ("transfer", &["reqwest", "aws-sdk-sfn", "aws-sdk-ssm"]),
    ];
    let arrows = arrows();
    for (package, without) in forbidden {
        for dependency in without {
            assert!(
                !arrows[package].iter().any(|name| name == dependency),
                "{package} must do without {dependency}"
            );
        }
    }
}

#[test]
fn folders_are_named_like_their_packages_and_share_the_lints() {
    for package in metadata()["packages"].as_array().unwrap() {
        let (name, manifest) =
            (package["name"].as_str().unwrap(), package["manifest_path"].as_str().unwrap());
        assert!(manifest.ends_with(&format!("/{name}/Cargo.toml")), "{name} lives in {manifest}");
        let text = fs_err::read_to_string(manifest).unwrap();
        assert!(text.contains("[lints]\nworkspace = true"), "{name} has lints of its own");
        assert!(
            text.contains("license.workspace = true") && text.contains("publish.workspace = true"),
            "{name}"
        );
    }
}

#[test]
fn keys_of_stored_objects_are_made_in_one_module() {
    let spellings = [
        "latest_qdrant_backup",
        "qdrant_snapshot_",
        "qdrant/manifests/",
        "qdrant/proofs/",
        ".frames.json.zst",
        ".golden.json.zst",
    ];
    let key = root().join("crates/protocol/src/key.rs");
    for (path, text) in sources() {
        let relative = path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
        // Tests may state what the keys must be; so may comments.
        let product =
            ["crates/", "functions/", "host-worker/src"].iter().any(|part| relative.starts_with(part))
                && !relative.contains("/tests")
                && !relative.contains("/examples/")
                && !relative.contains("/benches/");
        if path == key || !product {
            continue;
        }
        let code: Vec<&str> = text
            .split("#[cfg(test)]")
            .next()
            .unwrap()
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"))
            .collect();
        for spelling in spellings {
            assert!(
                !code.iter().any(|line| line.contains(spelling)),
                "{relative} spells the key `{spelling}` itself"
            );
        }
    }
}

#[test]
fn the_locked_versions_build_on_the_pinned_toolchain() {
    let pinned = read("rust-toolchain.toml")
        .lines()
        .find_map(|line| line.strip_prefix("channel = \"").map(|rest| rest.trim_end_matches('"').to_owned()))
        .unwrap();
    let minor: u32 = pinned.split('.').nth(1).unwrap().parse().unwrap();
    let stated = format!("rust-version = \"1.{minor}\"");
    assert!(read("Cargo.toml").contains(&stated), "Cargo.toml does not state {stated}");
}
