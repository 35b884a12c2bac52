//! The settings of a function, from its environment, which nothing else reads. The clients of AWS read their own (`AWS_REGION`, `AWS_ENDPOINT_URL`).
//!
//! | variable | what | default |
//! |---|---|---|
//! | `QDRANT_BACKUP_BUCKET` | the bucket | – |
//! | `QDRANT_BACKUP_PREFIX` | the folder of the archives in it | `qdrant/backups` |
//! | `QDRANT_BACKUP_SUCCESS_MARKER` | the key of the indexing job's success marker | `qdrant/indexing/_SUCCESS.json` |
//! | `QDRANT_BACKUP_DOCUMENT` | the name of the SSM document `infra/ssm/host-task.json` | – |
//! | `QDRANT_BACKUP_HOST_TAG` | the tag of the production host, as `key=value` | – |
//! | `QDRANT_BACKUP_STAGING_TAG` | the tag of the staging hosts of drills, as `key=value` | – |
//! | `QDRANT_BACKUP_KMS_KEY` | the ARN or id of the KMS key that archives must be encrypted with | not looked at |
//! | `QDRANT_BACKUP_METRICS_NAMESPACE` | the namespace of the metrics | `QdrantBackup` |
//! | `QDRANT_BACKUP_LOG` | `error`, `warn`, `info`, `debug` or `trace` | `info` |
//!
//! An empty value counts as none: CloudFormation cannot leave a variable out. A setting that a function does not use may be absent.

use std::{fmt::Display, str::FromStr};

use protocol::{Layout, key};
use tracing_subscriber::filter::LevelFilter;

use crate::{error::Error, hosts::Tag};

const BUCKET: &str = "QDRANT_BACKUP_BUCKET";
const PREFIX: &str = "QDRANT_BACKUP_PREFIX";
const SUCCESS_MARKER: &str = "QDRANT_BACKUP_SUCCESS_MARKER";
const DOCUMENT: &str = "QDRANT_BACKUP_DOCUMENT";
const HOST_TAG: &str = "QDRANT_BACKUP_HOST_TAG";
const STAGING_TAG: &str = "QDRANT_BACKUP_STAGING_TAG";
const KMS_KEY: &str = "QDRANT_BACKUP_KMS_KEY";
const NAMESPACE: &str = "QDRANT_BACKUP_METRICS_NAMESPACE";
const LOG: &str = "QDRANT_BACKUP_LOG";

/// The namespace of the metrics, unless configured otherwise.
pub const DEFAULT_NAMESPACE: &str = "QdrantBackup";

/// The settings of a function.
#[derive(Clone, Debug)]
pub struct Settings {
    bucket: String,
    layout: Layout,
    success_marker: String,
    document: Option<String>,
    host_tag: Option<Tag>,
    staging_tag: Option<Tag>,
    kms_key: Option<String>,
    namespace: String,
}

impl Settings {
    /// The settings of this process.
    pub fn from_env() -> Result<Self, Error> {
        Self::from_lookup(variable)
    }

    /// Reads the settings; `lookup` gives the value of a variable.
    pub fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, Error> {
        let value = |name: &'static str| lookup(name).filter(|value| !value.trim().is_empty());
        let prefix = parsed(PREFIX, value(PREFIX))?.map_or_else(|| parse(PREFIX, key::DEFAULT_PREFIX), Ok)?;
        Ok(Self {
            bucket: value(BUCKET).ok_or(Error::SettingMissing { name: BUCKET })?,
            layout: Layout::new(prefix),
            success_marker: success_marker(value(SUCCESS_MARKER))?,
            document: value(DOCUMENT),
            host_tag: parsed(HOST_TAG, value(HOST_TAG))?,
            staging_tag: parsed(STAGING_TAG, value(STAGING_TAG))?,
            kms_key: kms_key(value(KMS_KEY))?,
            namespace: namespace(value(NAMESPACE))?,
        })
    }

    /// The bucket.
    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// Where the objects are in it.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The namespace of the metrics.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    pub(crate) fn success_marker(&self) -> &str {
        &self.success_marker
    }

    pub(crate) fn kms_key(&self) -> Option<&str> {
        self.kms_key.as_deref()
    }

    pub(crate) fn document(&self) -> Result<&str, Error> {
        self.document.as_deref().ok_or(Error::SettingMissing { name: DOCUMENT })
    }

    pub(crate) fn host_tag(&self) -> Result<&Tag, Error> {
        self.host_tag.as_ref().ok_or(Error::SettingMissing { name: HOST_TAG })
    }

    pub(crate) fn staging_tag(&self) -> Result<&Tag, Error> {
        self.staging_tag.as_ref().ok_or(Error::SettingMissing { name: STAGING_TAG })
    }
}

/// How much is logged. What cannot be understood is no reason to say nothing.
pub(crate) fn log_level() -> LevelFilter {
    variable(LOG).and_then(|level| level.parse().ok()).unwrap_or(LevelFilter::INFO)
}

/// Whether AWS Lambda, or something like it, has started this process.
pub(crate) fn is_in_lambda() -> bool {
    variable("AWS_LAMBDA_RUNTIME_API").is_some()
}

#[expect(clippy::disallowed_methods, reason = "this is the `config` that the ban speaks of")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn parse<T: FromStr<Err: Display>>(name: &'static str, text: &str) -> Result<T, Error> {
    text.parse().map_err(|error: T::Err| wrong(name, error))
}

fn parsed<T: FromStr<Err: Display>>(name: &'static str, text: Option<String>) -> Result<Option<T>, Error> {
    text.map(|text| parse(name, &text)).transpose()
}

fn wrong(name: &'static str, problem: impl Display) -> Error {
    Error::SettingWrong { name, problem: problem.to_string() }
}

fn success_marker(key: Option<String>) -> Result<String, Error> {
    let key = key.unwrap_or_else(|| key::DEFAULT_SUCCESS_MARKER.to_owned());
    if key.len() > 1024 || key.starts_with('/') {
        return Err(wrong(
            SUCCESS_MARKER,
            format_args!("`{key}` is not a key: at most 1024 bytes, no slash first"),
        ));
    }
    Ok(key)
}

/// S3 states the key of an object as an ARN, so an alias would never be equal.
fn kms_key(key: Option<String>) -> Result<Option<String>, Error> {
    match key {
        Some(key) if key.starts_with("alias/") || key.contains(":alias/") => {
            Err(wrong(KMS_KEY, format_args!("`{key}` is an alias; it must be the ARN or the id of a key")))
        }
        key => Ok(key),
    }
}

fn namespace(text: Option<String>) -> Result<String, Error> {
    let text = text.unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned());
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '/' | '#');
    if text.len() > 255 || !text.chars().all(plain) || text.starts_with("AWS/") {
        let rule = "is not a namespace: at most 255 of [A-Za-z0-9._/#-], not beginning with AWS/";
        return Err(wrong(NAMESPACE, format_args!("`{text}` {rule}")));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use protocol::FailureKind;

    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> Result<Settings, Error> {
        Settings::from_lookup(|name| {
            pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn only_the_bucket_has_no_default() {
        let settings = settings(&[(BUCKET, "b"), (PREFIX, ""), (KMS_KEY, " ")]).unwrap();
        assert_eq!(settings.bucket(), "b");
        assert_eq!(settings.layout().prefix().to_string(), key::DEFAULT_PREFIX);
        assert_eq!(settings.success_marker(), key::DEFAULT_SUCCESS_MARKER);
        assert_eq!(settings.namespace(), DEFAULT_NAMESPACE);
        assert_eq!(settings.kms_key(), None);
        for missing in [
            settings.document().unwrap_err(),
            settings.host_tag().unwrap_err(),
            settings.staging_tag().unwrap_err(),
        ] {
            assert_eq!(missing.kind(), FailureKind::ConfigInvalid);
            assert!(missing.hint().is_some(), "{missing}");
        }
    }

    #[test]
    fn what_is_wrong_is_named_with_its_variable() {
        for (name, value) in [
            (BUCKET, ""),
            (PREFIX, "qdrant/manifests"),
            (SUCCESS_MARKER, "/x"),
            (HOST_TAG, "Role"),
            (STAGING_TAG, "=x"),
            (KMS_KEY, "alias/backup"),
            (KMS_KEY, "arn:aws:kms:eu-central-1:111122223333:alias/backup"),
            (NAMESPACE, "AWS/S3"),
            (NAMESPACE, "a b"),
        ] {
            let mut pairs = vec![(name, value)];
            if name != BUCKET {
                pairs.push((BUCKET, "b"));
            }
            let error = settings(&pairs).unwrap_err();
            assert_eq!(error.kind(), FailureKind::ConfigInvalid);
            assert!(error.to_string().contains(name), "{error}");
        }
    }
}
