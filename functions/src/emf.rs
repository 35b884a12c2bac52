//! Metrics as CloudWatch reads them out of a function's log: one line of JSON in the embedded metric format.
//!
//! The only dimension is the function. What would make a metric of its own for every value (a backup, a kind of failure) goes along as a property, which a log
//! query finds and nobody pays for.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

/// The dimension of all metrics.
const DIMENSION: &str = "Function";

/// What a number counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Things.
    Count,
    /// Seconds.
    Seconds,
    /// Bytes.
    Bytes,
}

impl Unit {
    fn name(self) -> &'static str {
        match self {
            Self::Count => "Count",
            Self::Seconds => "Seconds",
            Self::Bytes => "Bytes",
        }
    }
}

/// One metric and its value.
#[derive(Clone, Debug, PartialEq)]
pub struct Metric {
    name: &'static str,
    unit: Unit,
    value: Value,
}

impl Metric {
    /// So many things.
    pub fn count(name: &'static str, value: u64) -> Self {
        Self { name, unit: Unit::Count, value: value.into() }
    }

    /// So many bytes.
    pub fn bytes(name: &'static str, value: u64) -> Self {
        Self { name, unit: Unit::Bytes, value: value.into() }
    }

    /// So long.
    pub fn seconds(name: &'static str, value: Duration) -> Self {
        Self { name, unit: Unit::Seconds, value: value.as_secs_f64().into() }
    }

    /// The metric's name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Its value.
    pub fn value(&self) -> &Value {
        &self.value
    }
}

/// The line for these metrics, without a newline; none where there are no metrics.
pub(crate) fn line(
    namespace: &str,
    function: &str,
    now: Timestamp,
    metrics: &[Metric],
    properties: &[(&'static str, &str)],
) -> Option<String> {
    if metrics.is_empty() {
        return None;
    }
    let declared: Vec<Value> =
        metrics.iter().map(|metric| json!({"Name": metric.name, "Unit": metric.unit.name()})).collect();
    let directive = json!({"Namespace": namespace, "Dimensions": [[DIMENSION]], "Metrics": declared});
    let mut line = Map::new();
    line.insert(
        "_aws".to_owned(),
        json!({"Timestamp": now.as_millisecond(), "CloudWatchMetrics": [directive]}),
    );
    line.insert(DIMENSION.to_owned(), function.into());
    line.extend(metrics.iter().map(|metric| (metric.name.to_owned(), metric.value.clone())));
    line.extend(properties.iter().map(|(name, value)| ((*name).to_owned(), Value::from(*value))));
    Some(Value::Object(line).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_declares_every_metric_that_it_has() {
        let now = "2026-11-23T05:14:00.5Z".parse().unwrap();
        let metrics = [
            Metric::count("Published", 1),
            Metric::bytes("PublishedBytes", 7),
            Metric::seconds("Age", Duration::from_millis(1500)),
        ];
        let line = line("QdrantBackup", "publish-manifest", now, &metrics, &[("Kind", "Busy")]).unwrap();
        let found: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(
            found,
            json!({
                "_aws": {
                    "Timestamp": 1_795_410_840_500_i64,
                    "CloudWatchMetrics": [{
                        "Namespace": "QdrantBackup",
                        "Dimensions": [["Function"]],
                        "Metrics": [
                            {"Name": "Published", "Unit": "Count"},
                            {"Name": "PublishedBytes", "Unit": "Bytes"},
                            {"Name": "Age", "Unit": "Seconds"},
                        ],
                    }],
                },
                "Function": "publish-manifest", "Published": 1, "PublishedBytes": 7, "Age": 1.5, "Kind": "Busy",
            })
        );
        assert!(!line.contains('\n'));
    }

    #[test]
    fn nothing_is_written_for_nothing() {
        assert_eq!(line("n", "f", Timestamp::UNIX_EPOCH, &[], &[]), None);
    }
}
