//! What is used of `GET /metrics`.

use std::collections::BTreeMap;

use reqwest::Method;

use super::{client::Client, error::Error, operation::Operation};

/// The metrics that decide whether something moves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metrics {
    /// Write requests answered since the server started.
    pub writes: WriteCounters,
    /// Snapshots being taken, by collection; only those with any.
    pub snapshots_running: BTreeMap<String, u64>,
    /// Recoveries running, by collection; only those with any.
    pub recoveries_running: BTreeMap<String, u64>,
    /// Updates waiting, by collection.
    pub queue_lengths: BTreeMap<String, u64>,
    /// Whether the server runs without its collections' data, after it ran out of memory while loading.
    pub recovery_mode: bool,
}

/// How many write requests were answered since the server started, by endpoint. Requests being answered are not counted yet, and those that
/// were refused (4xx) not at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteCounters(BTreeMap<String, u64>);

impl WriteCounters {
    /// The endpoints whose counters are not the same, with both values.
    pub fn differences<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = (&'a str, u64, u64)> {
        let keys: std::collections::BTreeSet<&String> = self.0.keys().chain(other.0.keys()).collect();
        let value = |counters: &Self, key: &String| counters.0.get(key).copied().unwrap_or(0);
        keys.into_iter()
            .map(move |key| (key.as_str(), value(self, key), value(other, key)))
            .filter(|(_, a, b)| a != b)
    }

    /// The sum.
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }
}

#[cfg(test)]
impl WriteCounters {
    pub(crate) fn with(endpoint: &str, count: u64) -> Self {
        Self(BTreeMap::from([(endpoint.to_owned(), count)]))
    }
}

impl Client {
    /// The server's metrics.
    pub async fn metrics(&self) -> Result<Metrics, Error> {
        let body = self.read(&Operation::Metrics, Method::GET, self.url(&["metrics"])?, None).await?;
        Ok(parse(&String::from_utf8_lossy(&body)))
    }
}

/// Writes by REST: method and the path below the collection.
const REST_WRITES: [(&str, &str); 12] = [
    ("PUT", "/points"),
    ("POST", "/points/batch"),
    ("POST", "/points/delete"),
    ("POST", "/points/payload"),
    ("PUT", "/points/payload"),
    ("POST", "/points/payload/clear"),
    ("POST", "/points/payload/delete"),
    ("PUT", "/points/vectors"),
    ("POST", "/points/vectors/delete"),
    ("PUT", "/index"),
    ("PUT", "/vectors/{vector_name}"),
    ("DELETE", "/vectors/{vector_name}"),
];

/// Writes by gRPC.
const GRPC_WRITES: [&str; 11] = [
    "Upsert",
    "UpdateBatch",
    "Delete",
    "DeletePayload",
    "ClearPayload",
    "SetPayload",
    "OverwritePayload",
    "UpdateVectors",
    "DeleteVectors",
    "CreateVectorName",
    "DeleteVectorName",
];

fn parse(text: &str) -> Metrics {
    let mut metrics = Metrics::default();
    for sample in text.lines().filter_map(Sample::parse) {
        // A server may be configured to put a prefix before every name.
        let is = |name: &str| sample.name.ends_with(name);
        if is("rest_responses_total") {
            if let Some(endpoint) = rest_write(&sample) {
                *metrics.writes.0.entry(endpoint).or_default() += sample.value;
            }
        } else if is("grpc_responses_total") {
            if let Some(endpoint) = grpc_write(&sample) {
                *metrics.writes.0.entry(endpoint).or_default() += sample.value;
            }
        } else if is("app_status_recovery_mode") {
            metrics.recovery_mode = sample.value > 0;
        } else if let Some(id) = sample.label("id") {
            let id = id.to_owned();
            if is("snapshot_creation_running") && sample.value > 0 {
                metrics.snapshots_running.insert(id, sample.value);
            } else if is("snapshot_recovery_running") && sample.value > 0 {
                metrics.recoveries_running.insert(id, sample.value);
            } else if is("collection_update_queue_length") {
                metrics.queue_lengths.insert(id, sample.value);
            }
        }
    }
    metrics
}

fn rest_write(sample: &Sample<'_>) -> Option<String> {
    if sample.label("status")?.starts_with('4') {
        return None;
    }
    let endpoint = sample.label("endpoint")?;
    // The label is `{collection_name}` since 1.17.1 and was `{name}` before.
    let path = ["/collections/{collection_name}", "/collections/{name}"]
        .iter()
        .find_map(|prefix| endpoint.strip_prefix(prefix))?;
    let method = sample.label("method")?;
    let (method, path) = REST_WRITES.iter().find(|write| **write == (method, path))?;
    Some(format!("{method} {path}"))
}

fn grpc_write(sample: &Sample<'_>) -> Option<String> {
    let method = sample.label("endpoint")?.strip_prefix("/qdrant.Points/")?;
    GRPC_WRITES.contains(&method).then(|| format!("gRPC {method}"))
}

/// One line of the text format.
struct Sample<'a> {
    name: &'a str,
    labels: Vec<(&'a str, String)>,
    /// Counters and gauges here are whole numbers.
    value: u64,
}

impl<'a> Sample<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            return None;
        }
        let name_end = line.find(['{', ' ', '\t'])?;
        let (name, mut rest) = line.split_at(name_end);
        let mut labels = Vec::new();
        if let Some(inside) = rest.strip_prefix('{') {
            rest = inside;
            loop {
                rest = rest.trim_start_matches([',', ' ']);
                if let Some(after) = rest.strip_prefix('}') {
                    rest = after;
                    break;
                }
                let (label, quoted) = rest.split_once("=\"")?;
                let (value, after) = unquote(quoted)?;
                labels.push((label.trim(), value));
                rest = after;
            }
        }
        let value: f64 = rest.split_whitespace().next()?.parse().ok()?;
        Some(Self { name, labels, value: whole(value)? })
    }

    fn label(&self, name: &str) -> Option<&str> {
        self.labels.iter().find(|(label, _)| *label == name).map(|(_, value)| value.as_str())
    }
}

/// The text up to the closing quote, and what follows it.
fn unquote(quoted: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &quoted[at + 1..])),
            '\\' => match chars.next()?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            other => value.push(other),
        }
    }
    None
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the range is checked, and fractions do not occur in what is counted"
)]
fn whole(value: f64) -> Option<u64> {
    (0.0..=9.0e15).contains(&value).then_some(value as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_are_counted_whatever_the_label_is_called_and_reads_are_not() {
        let metrics = parse(
            r#"# HELP rest_responses_total total number of responses
# TYPE rest_responses_total counter
rest_responses_total{method="PUT",endpoint="/collections/{collection_name}/points",status="200"} 7
rest_responses_total{method="PUT",endpoint="/collections/{name}/points",status="200"} 3
rest_responses_total{method="PUT",endpoint="/collections/{collection_name}/points",status="400"} 100
rest_responses_total{method="PUT",endpoint="/collections/{collection_name}/points",status="500"} 1
rest_responses_total{method="POST",endpoint="/collections/{collection_name}/points",status="200"} 55
rest_responses_total{method="POST",endpoint="/collections/{collection_name}/points/query",status="200"} 9
qdrant_rest_responses_total{method="POST",endpoint="/collections/{collection_name}/points/delete",status="200"} 2
rest_responses_avg_duration_seconds{method="PUT",endpoint="/collections/{name}/points",status="200"} 0.5
grpc_responses_total{endpoint="/qdrant.Points/Upsert",status="0"} 4
grpc_responses_total{endpoint="/qdrant.Points/Search",status="0"} 4
"#,
        );
        let none = WriteCounters::default();
        assert_eq!(
            metrics.writes.differences(&none).collect::<Vec<_>>(),
            [("POST /points/delete", 2, 0), ("PUT /points", 11, 0), ("gRPC Upsert", 4, 0)]
        );
        assert_eq!(metrics.writes.total(), 17);
        assert_eq!(metrics.writes.differences(&metrics.writes).count(), 0);
    }

    #[test]
    fn what_runs_is_found_by_the_collections_own_name() {
        let metrics = parse(
            "snapshot_creation_running{id=\"docs\"} 1\n\
             snapshot_creation_running{id=\"idle\"} 0\n\
             snapshot_recovery_running{id=\"odd \\\"name\\\" , } 2\"} 2\n\
             collection_update_queue_length{id=\"docs\"} 12\n\
             app_status_recovery_mode 1\n\
             broken{id=\"x\" 1\n\
             collection_update_queue_length{id=\"nan\"} NaN\n",
        );
        assert_eq!(metrics.snapshots_running, BTreeMap::from([("docs".to_owned(), 1)]));
        assert_eq!(metrics.recoveries_running, BTreeMap::from([("odd \"name\" , } 2".to_owned(), 2)]));
        assert_eq!(metrics.queue_lengths, BTreeMap::from([("docs".to_owned(), 12)]));
        assert!(metrics.recovery_mode);
        assert_eq!(parse("app_status_recovery_mode 0\n"), Metrics::default());
    }
}
