//! `${Name}` in a definition, as CloudFormation's `DefinitionSubstitutions` fills it in.

use std::collections::{BTreeMap, BTreeSet};

/// A definition and its substitutions that do not fit together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubstitutionError {
    /// The text asks for a name that nobody supplies.
    #[error("the definition asks for `${{{name}}}`, which is not supplied; there are {supplied}")]
    Missing {
        /// The name.
        name: String,
        /// What is supplied.
        supplied: String,
    },
    /// A name is supplied that the text does not ask for.
    #[error("the definition does not ask for `${{{name}}}`, which is supplied")]
    Unused {
        /// The name.
        name: String,
    },
    /// A `${` without an end, or around something that is no name.
    #[error("the definition has `${{` at byte {at}, and not the name and `}}` that must follow")]
    Malformed {
        /// Where.
        at: usize,
    },
}

/// Fills in every `${Name}`. Each name of the text must be supplied, and each that is supplied must be asked for: a misspelt
/// name is both.
///
/// # Errors
/// When the text and `values` do not fit together.
pub fn substitute(text: &str, values: &BTreeMap<String, String>) -> Result<String, SubstitutionError> {
    let mut filled = String::with_capacity(text.len());
    let mut used = BTreeSet::new();
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        let at = text.len() - rest.len() + start;
        let (before, after) = (&rest[..start], &rest[start + 2..]);
        let name = after
            .split_once('}')
            .map(|(name, _)| name)
            .filter(|name| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'))
            .ok_or(SubstitutionError::Malformed { at })?;
        let value = values.get(name).ok_or_else(|| SubstitutionError::Missing {
            name: name.to_owned(),
            supplied: values.keys().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", "),
        })?;
        filled.push_str(before);
        filled.push_str(value);
        used.insert(name);
        rest = &after[name.len() + 1..];
    }
    filled.push_str(rest);
    match values.keys().find(|name| !used.contains(name.as_str())) {
        None => Ok(filled),
        Some(name) => Err(SubstitutionError::Unused { name: name.clone() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn every_name_is_filled_in() {
        let filled =
            substitute(r#"{"a": "${A}", "b": ["${B_2}/${A}"]}"#, &values(&[("A", "x"), ("B_2", "y")]));
        assert_eq!(filled.unwrap(), r#"{"a": "x", "b": ["y/x"]}"#);
        assert_eq!(substitute("$.a $$ {}", &values(&[])).unwrap(), "$.a $$ {}");
    }

    #[test]
    fn what_is_supplied_is_not_filled_in_again() {
        assert_eq!(substitute("${A}", &values(&[("A", "${A}")])).unwrap(), "${A}");
    }

    #[test]
    fn names_that_do_not_fit_are_refused() {
        let message =
            |text, pairs: &[(&str, &str)]| substitute(text, &values(pairs)).unwrap_err().to_string();
        assert_eq!(
            message("${Bucket}", &[("Bucket1", "x")]),
            "the definition asks for `${Bucket}`, which is not supplied; there are `Bucket1`"
        );
        assert_eq!(
            message("${A}", &[("A", "x"), ("B", "y")]),
            "the definition does not ask for `${B}`, which is supplied"
        );
        assert_eq!(
            message("ab ${A", &[]),
            "the definition has `${` at byte 3, and not the name and `}` that must follow"
        );
        assert!(message("${A B}", &[]).contains("at byte 0"));
    }
}
