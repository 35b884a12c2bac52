//! The pages of settings and metrics have every one that there is, and no other.

use std::collections::{BTreeMap, BTreeSet};

use clap::CommandFactory as _;
use host_worker::{
    cli::Cli,
    config::{Config, Settings},
};

use crate::{
    docs::section,
    read,
    runbook::{code, literal, rows},
    sources,
};

const PAGE: &str = "docs/operations/settings.md";

/// The table that follows a text of the page: the code of the first cell, and the row.
fn table(page: &str, after: &str) -> BTreeMap<String, Vec<String>> {
    let rest = page.split_once(after).unwrap_or_else(|| panic!("{PAGE} has no `{after}`")).1;
    let lines =
        rest.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    let lines: Vec<&str> = lines.collect();
    let found: BTreeMap<String, Vec<String>> = rows(&lines.join("\n"))
        .into_iter()
        .filter_map(|row| Some((code(row.first()?)?.to_owned(), row)))
        .collect();
    assert!(!found.is_empty(), "{PAGE}: no table after `{after}`");
    found
}

/// The keys that a table of the config file may have, by what it says to one that it may not.
fn keys_of(table: &str) -> BTreeSet<String> {
    let file = format!("{table}\nno-such-key = 1\n");
    let problem = Config::new(Settings::default(), Some(&file), None).unwrap_err().to_string();
    let expected = problem.split_once("expected ").unwrap_or_else(|| panic!("{table}: {problem}")).1;
    expected.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn every_setting_of_the_worker_is_on_the_page() {
    let page = read(PAGE);
    let documented = table(&page, "### One for every command");
    let command = Cli::command();
    let mut settings = BTreeSet::new();
    for argument in
        command.get_arguments().filter(|argument| argument.is_global_set() && !argument.is_hide_set())
    {
        let (Some(flag), Some(variable)) = (argument.get_long(), argument.get_env()) else { continue };
        if flag == "config" {
            continue;
        }
        let row = documented.get(flag).unwrap_or_else(|| panic!("{PAGE} has no row for `{flag}`"));
        assert_eq!(code(&row[1]), variable.to_str(), "{PAGE}: the variable of `{flag}`");
        let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
        if let Some((_, default)) = help.split_once("[default: ") {
            let default = default.trim_end_matches(']');
            let shown = row[3].replace('`', "").replace("the available memory", "the memory");
            assert_eq!(shown, default.replace("--", ""), "{PAGE}: the default of `{flag}`");
        }
        settings.insert(flag.to_owned());
    }
    let documented: BTreeSet<String> = documented.into_keys().collect();
    assert_eq!(documented, settings);
    // What the file takes is the same, its tables and the embedded cloud's own setting aside.
    let mut file = keys_of("");
    for aside in ["task", "boot", "targets", "time-divisor"] {
        assert!(file.remove(aside), "the file has no `{aside}`");
    }
    assert_eq!(file, settings);
}

#[test]
fn every_table_of_the_config_file_is_on_the_page() {
    let page = read(PAGE);
    for name in ["[task]", "[boot]", "[boot.lifecycle]", "[targets]"] {
        let documented: BTreeSet<String> = table(&page, &format!("\n`{name}`: ")).into_keys().collect();
        assert_eq!(documented, keys_of(name), "{name}");
    }
}

#[test]
fn every_setting_of_the_functions_is_on_the_page() {
    let page = read(PAGE);
    let source = read("functions/src/config.rs");
    let section = section(&page, "## The Lambdas");
    let stated: Vec<&str> =
        source.lines().filter_map(|line| line.strip_prefix("//! | `QDRANT_BACKUP_")).collect();
    for row in &stated {
        assert!(
            section.contains(&format!("\n| `QDRANT_BACKUP_{row}\n")),
            "{PAGE} has not the row of functions/src/config.rs: {row}"
        );
    }
    assert_eq!(section.matches("\n| `QDRANT_BACKUP_").count(), stated.len());
    for line in source.lines().filter(|line| line.starts_with("const ")) {
        if let Some(variable) = line.split_once("= ").and_then(|(_, value)| literal(value)) {
            assert!(section.contains(&format!("`{variable}`")), "{PAGE} does not name {variable}");
        }
    }
}

/// The argument of the call whose opening parenthesis the text begins behind.
fn argument(text: &str) -> &str {
    let mut depth = 1;
    let end = text.find(|c| {
        depth += match c {
            '(' => 1,
            ')' => -1,
            _ => 0,
        };
        depth == 0
    });
    &text[..end.unwrap_or(text.len())]
}

/// The string literals of a piece of source that are names of metrics.
fn names(source: &str) -> impl Iterator<Item = String> + '_ {
    let literals = source.match_indices('"').filter_map(|(at, _)| literal(&source[at..]));
    literals
        .filter(|text| text.starts_with(char::is_uppercase) && text.chars().all(char::is_alphanumeric))
        .map(str::to_owned)
}

#[test]
fn every_metric_is_on_the_page() {
    let calls = [
        (".count(", "Count"),
        (".number(", "Count"),
        (".bytes(", "Bytes"),
        (".seconds(", "Seconds"),
        ("Metric::count(", "Count"),
    ];
    let mut emitted = BTreeSet::new();
    for (path, text) in sources() {
        let path = path.to_string_lossy();
        if !path.contains("/functions/src/") || path.ends_with("/tests.rs") || path.ends_with("/emf.rs") {
            continue;
        }
        for (call, unit) in calls {
            for (at, _) in text.match_indices(call) {
                let argument = argument(&text[at + call.len()..]);
                let mut found: Vec<String> = names(argument).collect();
                if found.is_empty() {
                    // The name was chosen before.
                    let chosen = format!("let {argument} = ");
                    let before = text[..at].rfind(&chosen).map(|from| &text[from..at]);
                    found = names(before.unwrap_or_default()).collect();
                }
                emitted.extend(found.into_iter().map(|name| (name, unit.to_owned())));
            }
        }
    }
    assert!(emitted.len() > 10, "only {emitted:?}");
    let page = rows(&read("docs/operations/metrics.md"));
    let documented: BTreeSet<(String, String)> = page
        .iter()
        .filter(|row| row.len() == 4)
        .filter_map(|row| Some((code(&row[0])?.to_owned(), row[1].clone())))
        .collect();
    assert_eq!(documented, emitted);
}
