//! The one place that prints: results on standard output, errors on standard error, for people or as JSON.

#![expect(clippy::print_stderr, reason = "this module is what prints")]

use std::{fmt::Write, io::Write as _};

use protocol::{FailureKind, failure};
use serde::Serialize;

use crate::error::Error;

/// A result that can be shown to a person.
pub trait Render: Serialize {
    /// Lines for a person, without a newline at the end.
    fn render(&self) -> String;
}

/// Prints a result.
pub fn print<T: Render>(result: &T, json: bool) {
    if json {
        match serde_json::to_string_pretty(result) {
            Ok(document) => line(&document),
            Err(error) => eprintln!("error: the result cannot be written as JSON: {error}"),
        }
    } else {
        line(&result.render());
    }
}

/// Writes to standard output. A reader that has gone away, as `head` does, is no failure of the work that was done.
fn line(text: &str) {
    let _reader_gone = writeln!(std::io::stdout(), "{text}");
}

/// What a failed command leaves on standard error (for people) or standard output (as JSON).
#[derive(Debug, Serialize)]
pub struct Failure {
    /// What kind of thing failed.
    pub error: FailureKind,
    /// Whether the same command may succeed later without anybody changing anything.
    pub transient: bool,
    /// What failed, and on what.
    pub message: String,
    /// Why, from the outside in.
    pub causes: Vec<String>,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        let mut causes = Vec::new();
        let mut source = std::error::Error::source(error);
        while let Some(cause) = source {
            causes.push(cause.to_string());
            source = cause.source();
        }
        let kind = error.kind();
        Self {
            error: kind,
            transient: kind.is_transient(),
            message: error.to_string(),
            causes,
            hint: error.hint(),
        }
    }
}

impl Failure {
    fn render(&self) -> String {
        let mut text = format!("error: {} [{}]", self.message, self.error);
        for cause in &self.causes {
            let _infallible = write!(text, "\n  because: {cause}");
        }
        if let Some(hint) = &self.hint {
            let _infallible = write!(text, "\nhint: {hint}");
        }
        text
    }
}

/// An error and its causes on one line, from the outside in.
pub(crate) fn on_one_line(error: &dyn std::error::Error) -> String {
    failure::chain(error).replace('\n', " ")
}

/// Prints why a command failed.
pub fn print_error(error: &Error, json: bool) {
    let failure = Failure::from(error);
    if json {
        print_json(&failure);
    } else {
        eprintln!("{}", failure.render());
    }
}

fn print_json(failure: &Failure) {
    match serde_json::to_string_pretty(failure) {
        Ok(document) => line(&document),
        Err(_unlikely) => eprintln!("{}", failure.render()),
    }
}

/// Prints what the command line parser says: help on standard output, errors on standard error.
pub fn print_usage(error: &clap::Error) {
    // A closed pipe is nobody's fault and leaves nothing to say.
    let _closed = error.print();
}

/// A table: columns as wide as they need, two spaces between them, numbers to the right.
pub fn table(header: &[&str], right: &[usize], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain(header.get(column).map(|cell| cell.chars().count())).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let line = |cells: Vec<&str>| {
        let mut text = String::new();
        for (column, cell) in cells.into_iter().enumerate() {
            let pad = " ".repeat(widths[column].saturating_sub(cell.chars().count()));
            let gap = if column == 0 { "" } else { "  " };
            let _infallible = if right.contains(&column) {
                write!(text, "{gap}{pad}{cell}")
            } else {
                write!(text, "{gap}{cell}{pad}")
            };
        }
        text.trim_end().to_owned()
    };
    let mut lines = vec![line(header.to_vec())];
    lines.extend(rows.iter().map(|row| line(row.iter().map(String::as_str).collect())));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_aligns_numbers_to_the_right() {
        let rows = vec![vec!["docs".to_owned(), "10".to_owned()], vec!["ü".to_owned(), "2000".to_owned()]];
        assert_eq!(table(&["name", "points"], &[1], &rows), "name  points\ndocs      10\nü       2000");
    }

    #[test]
    fn an_error_says_what_failed_why_and_what_to_do() {
        let error = Error::MissingSetting { name: "bucket" };
        let text = Failure::from(&error).render();
        assert_eq!(
            text,
            "error: `bucket` is not set [ConfigInvalid]\nhint: give --bucket, set QDRANT_BACKUP_BUCKET, or write `bucket` into the config file"
        );
    }
}
