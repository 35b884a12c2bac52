//! The embedded CloudWatch, as far as state machines publish numbers to it: it keeps them, and a test reads them.
//!
//! Not there: alarms, statistics, and the metrics that other services and logs make by themselves.

use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Deserialize;
use serde_json::{Value, json};

use crate::{script::Script, stepfunctions::TaskError};

/// The one call.
const PUT: &str = "putMetricData";
/// The units that the API knows.
const UNITS: [&str; 27] = [
    "Seconds",
    "Microseconds",
    "Milliseconds",
    "Bytes",
    "Kilobytes",
    "Megabytes",
    "Gigabytes",
    "Terabytes",
    "Bits",
    "Kilobits",
    "Megabits",
    "Gigabits",
    "Terabits",
    "Percent",
    "Count",
    "Bytes/Second",
    "Kilobytes/Second",
    "Megabytes/Second",
    "Gigabytes/Second",
    "Terabytes/Second",
    "Bits/Second",
    "Kilobits/Second",
    "Megabits/Second",
    "Gigabits/Second",
    "Terabits/Second",
    "Count/Second",
    "None",
];

/// CloudWatch.
#[derive(Debug, Default)]
pub struct CloudWatch {
    data: Mutex<Vec<Datum>>,
    effects: Script<String, Effect>,
}

/// One number that was published.
#[derive(Clone, Debug, PartialEq)]
pub struct Datum {
    /// The namespace.
    pub namespace: String,
    /// The metric's name.
    pub metric: String,
    /// Names and values of its dimensions, as they were given.
    pub dimensions: Vec<(String, String)>,
    /// The unit.
    pub unit: String,
    /// The value.
    pub value: f64,
}

/// What happens to a call, scripted by the namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// `AccessDenied`.
    Denied,
    /// `Throttling`.
    Throttled,
    /// `InternalServiceError`.
    Internal,
    /// The numbers are kept, and nobody hears of it.
    LoseReply,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Put {
    namespace: String,
    metric_data: Vec<RawDatum>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct RawDatum {
    metric_name: String,
    #[serde(default)]
    dimensions: Vec<Dimension>,
    value: f64,
    #[serde(default = "no_unit")]
    unit: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Dimension {
    name: String,
    value: String,
}

fn no_unit() -> String {
    "None".to_owned()
}

impl CloudWatch {
    /// All numbers that were published, in order.
    pub fn data(&self) -> Vec<Datum> {
        self.lock().clone()
    }

    /// The values of a metric without dimensions, in order.
    pub fn values(&self, metric: &str) -> Vec<f64> {
        let mut data = self.data();
        data.retain(|datum| datum.metric == metric && datum.dimensions.is_empty());
        data.into_iter().map(|datum| datum.value).collect()
    }

    /// Faults, by namespace.
    pub fn effects(&self) -> &Script<String, Effect> {
        &self.effects
    }

    /// Carries out `aws-sdk:cloudwatch:ACTION`.
    pub fn task(&self, action: &str, parameters: &Value) -> Result<Value, TaskError> {
        if action != PUT {
            return Err(TaskError::new(
                "States.Runtime",
                format!("the embedded CloudWatch has no `{action}`"),
            ));
        }
        // A field that the integration does not have is refused as the definition is made; here only as it runs.
        let put: Put = serde_json::from_value(parameters.clone())
            .map_err(|error| TaskError::new("States.Runtime", format!("{PUT}: {error}")))?;
        let effect = self.effects.strike(&put.namespace);
        match effect {
            Some(Effect::Denied) => {
                return Err(refused(
                    "CloudWatch",
                    403,
                    "not authorized to perform: cloudwatch:PutMetricData",
                ));
            }
            Some(Effect::Throttled) => return Err(refused("CloudWatch", 400, "Rate exceeded")),
            Some(Effect::Internal) => return Err(refused("InternalService", 500, "try again")),
            Some(Effect::LoseReply) | None => {}
        }
        let data = checked(put)?;
        self.lock().extend(data);
        if effect == Some(Effect::LoseReply) {
            let cause = "Unable to execute HTTP request: Connection reset";
            return Err(TaskError::new("CloudWatch.SdkClientException", cause));
        }
        Ok(json!({}))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Datum>> {
        self.data.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What CloudWatch refuses, by the names of its model.
fn checked(put: Put) -> Result<Vec<Datum>, TaskError> {
    let invalid = |message: String| refused("InvalidParameterValue", 400, &message);
    let Put { namespace, metric_data } = put;
    let is_namespace = namespace.chars().all(|c| c.is_ascii_alphanumeric() || ".-_/#:".contains(c))
        && namespace.len() <= 255;
    if !is_namespace || namespace.is_empty() || namespace.starts_with("AWS/") {
        return Err(invalid(format!("The value {namespace} for parameter Namespace is invalid.")));
    }
    if metric_data.is_empty() {
        return Err(refused("MissingRequiredParameter", 400, "The parameter MetricData is required."));
    }
    if metric_data.len() > 1000 {
        return Err(invalid("The collection MetricData must not have a size greater than 1000.".to_owned()));
    }
    let datum = |raw: RawDatum| {
        let RawDatum { metric_name: metric, dimensions, value, unit } = raw;
        let wrong = |text: &str, most: usize| text.trim().is_empty() || text.len() > most;
        if wrong(&metric, 255) {
            return Err(invalid(format!("The value {metric} for parameter MetricName is invalid.")));
        }
        if !UNITS.contains(&unit.as_str()) {
            return Err(invalid(format!("The value {unit} for parameter Unit is invalid.")));
        }
        let limit = 2f64.powi(360);
        if !value.is_finite() || value.abs() > limit {
            return Err(invalid(format!("The value {value} for parameter Value is invalid.")));
        }
        if dimensions.len() > 30
            || dimensions.iter().any(|one| wrong(&one.name, 255) || wrong(&one.value, 1024))
        {
            return Err(invalid(format!("The dimensions of metric {metric} are invalid.")));
        }
        let dimensions = dimensions.into_iter().map(|one| (one.name, one.value)).collect();
        Ok(Datum { namespace: namespace.clone(), metric, dimensions, unit, value })
    };
    metric_data.into_iter().map(datum).collect()
}

/// An error as the integration calls it: the Java SDK's exception, the service's own for what the model does not name.
fn refused(name: &str, status: u16, message: &str) -> TaskError {
    let request = uuid::Uuid::new_v4();
    TaskError::new(
        format!("CloudWatch.{name}Exception"),
        format!("{message} (Service: CloudWatch, Status Code: {status}, Request ID: {request})"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(datum: &Value) -> Value {
        json!({"Namespace": "QdrantBackup/x", "MetricData": [datum]})
    }

    #[test]
    fn what_is_published_is_kept_as_it_was_given() {
        let cloudwatch = CloudWatch::default();
        let one = json!({"MetricName": "Failures", "Unit": "Count", "Value": 1, "Dimensions": [{"Name": "Kind", "Value": "Busy"}]});
        assert_eq!(cloudwatch.task(PUT, &put(&one)), Ok(json!({})));
        cloudwatch.task(PUT, &put(&json!({"MetricName": "Age", "Value": 1.5}))).unwrap();
        let datum = |metric: &str, dimensions: &[(&str, &str)], unit: &str, value| Datum {
            namespace: "QdrantBackup/x".to_owned(),
            metric: metric.to_owned(),
            dimensions: dimensions
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            unit: unit.to_owned(),
            value,
        };
        let kept = [datum("Failures", &[("Kind", "Busy")], "Count", 1.0), datum("Age", &[], "None", 1.5)];
        assert_eq!(cloudwatch.data(), kept);
        assert_eq!(cloudwatch.values("Age"), [1.5]);
        assert_eq!(cloudwatch.values("Failures"), [0.0; 0], "it has a dimension");
    }

    #[test]
    fn what_cloudwatch_does_not_take_is_refused_by_name_and_not_kept() {
        let cloudwatch = CloudWatch::default();
        let named = |name: &str| json!({"MetricName": "M", "Value": 1, "Dimensions": [{"Name": "Kind", "Value": name}]});
        for (parameters, error) in [
            (json!({"Namespace": "N", "MetricData": []}), "CloudWatch.MissingRequiredParameterException"),
            (
                json!({"Namespace": "AWS/N", "MetricData": [named("k")]}),
                "CloudWatch.InvalidParameterValueException",
            ),
            (
                json!({"Namespace": "", "MetricData": [named("k")]}),
                "CloudWatch.InvalidParameterValueException",
            ),
            (put(&named(" ")), "CloudWatch.InvalidParameterValueException"),
            (
                put(&json!({"MetricName": "M", "Value": 1, "Unit": "Pieces"})),
                "CloudWatch.InvalidParameterValueException",
            ),
            (put(&json!({"MetricName": "M", "Value": "1"})), "States.Runtime"),
            (put(&json!({"MetricName": "M", "Value": 1, "value": 1})), "States.Runtime"),
            (json!({"MetricData": [named("k")]}), "States.Runtime"),
        ] {
            assert_eq!(cloudwatch.task(PUT, &parameters).unwrap_err().error, error, "{parameters}");
        }
        assert_eq!(cloudwatch.task("getMetricData", &json!({})).unwrap_err().error, "States.Runtime");
        assert_eq!(cloudwatch.data(), []);
    }

    #[test]
    fn faults_have_the_names_of_the_integration_and_a_lost_answer_was_done() {
        let cloudwatch = CloudWatch::default();
        let one = put(&json!({"MetricName": "M", "Value": 1}));
        for (effect, error, kept) in [
            (Effect::Denied, "CloudWatch.CloudWatchException", 0),
            (Effect::Throttled, "CloudWatch.CloudWatchException", 0),
            (Effect::Internal, "CloudWatch.InternalServiceException", 0),
            (Effect::LoseReply, "CloudWatch.SdkClientException", 1),
        ] {
            cloudwatch.effects().on("QdrantBackup/x").inject(effect);
            assert_eq!(cloudwatch.task(PUT, &one).unwrap_err().error, error);
            assert_eq!(cloudwatch.data().len(), kept, "{effect:?}");
        }
    }
}
