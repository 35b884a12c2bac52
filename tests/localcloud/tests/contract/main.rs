//! Rules about the repository itself, and promises that its documents make.

#![expect(clippy::unwrap_used, reason = "a test says what went wrong by panicking")]

mod docs;
mod infrastructure;
mod runbook;
mod settings;
mod workflow;
mod workspace;

use std::path::{Path, PathBuf};

/// The root of the repository.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// A file of the repository.
fn read(path: &str) -> String {
    fs_err::read_to_string(root().join(path)).unwrap()
}

/// Every Rust file of the repository with its text.
fn sources() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut dirs = ["crates", "functions", "host-worker", "tests"].map(|dir| root().join(dir)).to_vec();
    while let Some(dir) = dirs.pop() {
        for entry in fs_err::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs_err::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    assert!(found.len() > 50, "only {} source files found", found.len());
    found
}
