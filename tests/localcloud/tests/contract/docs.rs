//! What the documents promise is so.

use std::{path::Path, process::Command};

use protocol::{marker, point_id};

use crate::{read, root};

/// The text between a heading and the next of the same or a higher level.
pub(crate) fn section<'a>(document: &'a str, heading: &str) -> &'a str {
    let level = heading.chars().take_while(|c| *c == '#').count();
    let from =
        document.find(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("no heading `{heading}`")) + 1;
    let body = &document[from + heading.len()..];
    let ends = |(at, _): &(usize, &str)| {
        let line = body[*at + 1..].lines().next().unwrap_or_default();
        let hashes = line.chars().take_while(|c| *c == '#').count();
        (1..=level).contains(&hashes) && line.as_bytes().get(hashes) == Some(&b' ')
    };
    let to = body.match_indices('\n').find(ends).map_or(body.len(), |(at, _)| at);
    &body[..to]
}

/// Every document of the repository, by its path from the root: what is not a note of a run or of a fixture.
fn documents() -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut dirs = vec![root()];
    while let Some(dir) = dirs.pop() {
        for entry in fs_err::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                if !name.starts_with('.')
                    && !["target", "fixtures", "benchmarks", "node_modules"].contains(&name.as_str())
                {
                    dirs.push(path);
                }
            } else if name.ends_with(".md") {
                let text = fs_err::read_to_string(&path).unwrap();
                found.push((path.strip_prefix(root()).unwrap().to_string_lossy().into_owned(), text));
            }
        }
    }
    assert!(found.len() > 15, "only {} documents found", found.len());
    found
}

#[test]
fn the_readme_names_the_two_commands_that_ci_runs() {
    let (readme, ci) = (read("README.md"), read(".ci/run"));
    for command in ["cargo run --release -p localcloud -- demo", "cargo test --workspace"] {
        assert!(readme.contains(command), "README.md does not name `{command}`");
        assert!(ci.contains(command), ".ci/run does not run `{command}`");
    }
}

#[test]
fn the_clients_page_states_the_test_vectors_and_reads_as_a_marker() {
    let page = read("docs/clients.md");
    for (doc_id, chunk_index, id) in point_id::TEST_VECTORS {
        let shown = if doc_id.is_empty() { "(empty)".to_owned() } else { format!("`{doc_id}`") };
        assert!(page.contains(&format!("| {shown} | {chunk_index} | `{id}` |")), "{doc_id:?} {chunk_index}");
    }
    let example = page.split("```json").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let marker = marker::SuccessMarker::from_json(example.as_bytes()).unwrap();
    assert_eq!(marker.id_scheme.as_deref(), Some(point_id::SCHEME));
}

#[test]
fn every_command_and_flag_in_the_documents_exists() {
    let worker = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_localcloud"))
            .arg("host-worker")
            .args(arguments)
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let commands = [
        "backup",
        "restore",
        "verify",
        "list",
        "show",
        "prune",
        "publish",
        "acknowledge",
        "doctor",
        "health",
        "boot",
        "dispatch",
        "task",
    ];
    let overview = worker(&["--help"]);
    for command in commands {
        assert!(
            overview.contains(&format!("\n  {command} ")),
            "`host-worker --help` does not show {command}"
        );
    }
    for (document, text) in documents() {
        for line in text.split('`').filter(|code| code.starts_with("host-worker ") && !code.contains('→')) {
            let mut words = line.split_whitespace().skip(1);
            let command = words.next().unwrap();
            if command.starts_with('-') {
                continue;
            }
            assert!(commands.contains(&command), "{document}: `{line}`: there is no such command");
            let help = worker(&[command, "--help"]);
            for flag in words.filter(|word| word.starts_with("--")) {
                let flag = flag.split('=').next().unwrap();
                assert!(help.contains(flag), "{document}: `{line}`: {command} has no {flag}");
            }
        }
    }
}

#[test]
fn files_that_the_documents_name_exist() {
    for (document, text) in documents() {
        for code in text.split('`').skip(1).step_by(2) {
            let path = code.split_whitespace().next().unwrap_or_default();
            let ours = [
                "crates/",
                "functions/",
                "host-worker/",
                "infra/",
                "state-machines/",
                "tests/",
                "docs/",
                ".ci/",
            ]
            .iter()
            .any(|dir| path.starts_with(dir));
            if ours && !path.contains(['*', '<', '…', '{']) {
                assert!(root().join(path).exists(), "{document} names `{path}`, which is not there");
            }
        }
    }
}

/// How a heading is called in a link, as GitHub does it.
fn anchor(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = text.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn links_of_the_documents_lead_somewhere() {
    let mut links = 0;
    for (document, text) in documents() {
        let dir = Path::new(&document).parent().unwrap().to_owned();
        let inline = text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link);
        let referenced =
            text.lines().filter_map(|line| line.strip_prefix('[')?.split_once("]: ")).map(|(_, link)| link);
        for link in inline.chain(referenced).filter(|link| !link.contains("://")) {
            let (path, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = if path.is_empty() { root().join(&document) } else { root().join(&dir).join(path) };
            assert!(target.exists(), "{document} links to `{link}`, which is not there");
            let has = |text: &str| text.lines().any(|line| line.starts_with('#') && anchor(line) == heading);
            assert!(
                heading.is_empty() || has(&fs_err::read_to_string(&target).unwrap()),
                "{document} links to `{link}`: there is no such heading"
            );
            links += 1;
        }
    }
    assert!(links > 20, "only {links} links found");
}

#[test]
fn the_repository_speaks_of_itself_alone() {
    let output = Command::new("git").args(["ls-files"]).current_dir(root()).output();
    let Ok(output) = output else { return assert!(root().join("Cargo.lock").exists()) };
    for path in String::from_utf8_lossy(&output.stdout).lines() {
        let Ok(text) = fs_err::read_to_string(root().join(path)) else { continue };
        for word in ["/root/", "/work/"] {
            let named = text.replace("/workspace/", "").contains(word);
            assert!(
                !named || path.ends_with("contract/docs.rs"),
                "{path} names a path of somebody's machine: {word}"
            );
        }
    }
}
