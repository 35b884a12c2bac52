//! The runbook: what it says of kinds, messages, settings and metrics is what the sources say.

use std::collections::{BTreeMap, BTreeSet};

use protocol::FailureKind;

use crate::{docs::section, read, root, sources};

const RUNBOOK: &str = "docs/operations.md";
const MESSAGES: &str = "docs/operations/messages.md";

/// Errors that no operator sees, each with the reason why the page of messages need not have it.
const UNSEEN: [(&str, &str); 6] = [
    ("…", "it is what the caller says: those texts are in the page as they are"),
    ("…: …", "a call of the store's client, behind a message that the page has"),
    ("the condition on … does not hold", "publication looks again, and says what it finds"),
    ("… is not a failure kind", "between programs of one release"),
    (
        "… is not a function: there are quiesce-check, trigger-snapshot, publish-manifest and verify-restore",
        "of localcloud",
    ),
    (
        "the document id … holds a zero byte, which separates it from the chunk index",
        "of the library that an indexing job may use",
    ),
];

/// The product's sources: what operators run.
fn product() -> impl Iterator<Item = String> {
    let tests = root().join("tests");
    sources()
        .into_iter()
        .filter(move |(path, _)| {
            let name = path.to_string_lossy();
            !path.starts_with(&tests)
                && name.contains("/src/")
                && !name.ends_with("/tests.rs")
                && !name.contains("/tests/")
        })
        .map(|(_, text)| text)
}

/// Text as the page of messages writes it: on one line, `…` for what a placeholder stands for, without the backquotes around names.
fn plain(source: &str) -> String {
    let mut text = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(c) = rest.chars().next() {
        let after = &rest[c.len_utf8()..];
        if c == '\\' && after.starts_with('\n') {
            rest = after.trim_start();
        } else if let Some(end) = placeholder(rest) {
            text.push('…');
            rest = &rest[end..];
        } else {
            if c != '`' {
                text.push(c);
            }
            rest = after;
        }
    }
    text
}

/// The length of the placeholder of a format string that the text begins with.
fn placeholder(text: &str) -> Option<usize> {
    let inner = text.strip_prefix('{')?;
    let end = inner.find('}')?;
    let of_a_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | ':' | '?' | '#');
    inner[..end].chars().all(of_a_name).then_some(end + 2)
}

/// The string literal that the text begins with, without its quotes.
pub(crate) fn literal(text: &str) -> Option<&str> {
    let inner = text.strip_prefix('"')?;
    let mut escaped = false;
    let end = inner.find(|c| {
        let ends = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        ends
    })?;
    Some(&inner[..end])
}

/// Every `#[error("…")]` of the product.
fn errors() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for text in product() {
        for after in text.split("#[error(").skip(1) {
            found.extend(literal(after.trim_start()).map(plain));
        }
    }
    assert!(found.len() > 120, "only {} messages found", found.len());
    found
}

/// The shipped state machines, as the page of messages writes text.
fn state_machines() -> Vec<String> {
    let files = fs_err::read_dir(root().join("state-machines")).unwrap().map(|entry| entry.unwrap().path());
    let definitions = files.filter(|path| path.extension().is_some_and(|extension| extension == "json"));
    let texts: Vec<String> = definitions.map(|path| plain(&fs_err::read_to_string(path).unwrap())).collect();
    assert!(!texts.is_empty(), "no state machine found");
    texts
}

/// The causes that state machines write, without their hints.
fn causes() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for text in state_machines() {
        for opening in ["\"Cause.$\": \"States.Format('", "\"Cause\": \""] {
            let causes = text.split(opening).skip(1).filter_map(|after| after.split(['\'', '"', ';']).next());
            found.extend(causes.map(str::to_owned));
        }
    }
    assert!(!found.is_empty(), "no cause found");
    found
}

/// The rows of a page's tables: their cells.
pub(crate) fn rows(page: &str) -> Vec<Vec<String>> {
    page.lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("|--"))
        .map(|line| line.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect())
        .collect()
}

/// The only code of a cell, where the cell is nothing else.
pub(crate) fn code(cell: &str) -> Option<&str> {
    cell.strip_prefix('`')?.strip_suffix('`').filter(|code| !code.contains('`'))
}

#[test]
fn every_failure_kind_has_a_heading_with_three_parts() {
    let runbook = read(RUNBOOK);
    for kind in FailureKind::ALL {
        let text = section(&runbook, &format!("### {kind}"));
        let retried = if kind.is_transient() { "Transient: yes" } else { "Transient: no" };
        assert!(text.contains(retried), "`### {kind}` does not say `{retried}`");
        for part in ["What it means", "What to look at", "What to do"] {
            let said = text
                .split(&format!("* **{part}**:"))
                .nth(1)
                .unwrap_or_else(|| panic!("`### {kind}` has no part `{part}`"));
            let words = said.split("\n* ").next().unwrap_or_default().split_whitespace().count();
            assert!(words > 3, "`### {kind}`, `{part}`: says nothing");
        }
    }
    let headings: BTreeSet<&str> =
        runbook.lines().filter_map(|line| line.strip_prefix("### ")).filter(|h| !h.contains(' ')).collect();
    for heading in headings {
        assert!(heading.parse::<FailureKind>().is_ok(), "`### {heading}` is no failure kind");
    }
}

#[test]
fn every_error_and_every_cause_is_on_the_page_of_messages() {
    let page = rows(&read(MESSAGES));
    let shown: BTreeSet<&str> = page.iter().filter_map(|row| code(&row[0])).collect();
    let unseen: BTreeMap<&str, &str> = UNSEEN.into_iter().collect();
    let errors = errors();
    for message in errors.iter().chain(&causes()) {
        let known = shown.contains(message.as_str()) != unseen.contains_key(message.as_str());
        assert!(known, "{MESSAGES} has no row for `{message}`, or it is among the unseen ones as well");
    }
    for (message, reason) in UNSEEN {
        assert!(errors.contains(message), "no error is `{message}` ({reason})");
    }
}

#[test]
fn every_message_of_the_page_is_in_the_sources() {
    let sources: Vec<String> = product().map(|text| plain(&text)).collect();
    let causes = causes();
    let page = read(MESSAGES);
    let mut seen = BTreeSet::new();
    for row in rows(&page) {
        let Some(message) = code(&row[0]) else { continue };
        let quoted = format!("\"{message}\"");
        let there = causes.contains(message) || sources.iter().any(|text| text.contains(&quoted));
        assert!(there, "`{message}` is no text of the sources");
        assert!(seen.insert(message.to_owned()), "`{message}` has two rows");
        assert!(row.iter().all(|cell| !cell.is_empty()), "`{message}` has an empty cell");
    }
    assert!(seen.len() > 150, "only {} messages", seen.len());
    let links: BTreeMap<&str, &str> =
        page.lines().filter_map(|line| line.strip_prefix('[')?.split_once("]: ")).collect();
    for (kind, target) in &links {
        assert!(kind.parse::<FailureKind>().is_ok(), "[{kind}] is no failure kind");
        assert_eq!(*target, format!("../operations.md#{}", kind.to_lowercase()));
    }
    let linked =
        |kind: &FailureKind| page.contains(&format!("[{kind}] ")) || page.contains(&format!("[{kind}],"));
    for kind in FailureKind::ALL.into_iter().filter(linked) {
        assert!(links.contains_key(kind.name()), "[{kind}] leads nowhere");
    }
}

#[test]
fn what_the_state_machines_send_people_to_is_in_the_runbook() {
    let runbook = read(RUNBOOK);
    let mut sent = 0;
    for text in state_machines() {
        for after in text.split("hint: docs/operations.md, ").skip(1) {
            let what = after.split(['\'', '"']).next().unwrap();
            assert!(
                runbook.contains(&format!("**{what}.**")),
                "people are sent to “{what}”, which {RUNBOOK} has not"
            );
            sent += 1;
        }
        // Also to headings that are no kinds.
        for after in text.split("docs/operations.md, heading ").skip(1) {
            let heading: String = after.chars().take_while(|c| c.is_alphanumeric()).collect();
            let there = heading.is_empty() || runbook.contains(&format!("\n### {heading}\n"));
            assert!(there, "people are sent to the heading {heading}, which {RUNBOOK} has not");
        }
    }
    assert!(sent > 0, "no state machine sends anybody anywhere");
}
