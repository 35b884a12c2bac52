//! Where a state machine's tasks go.

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::sfn;
use crate::{
    autoscaling::AutoScaling,
    cloudwatch::CloudWatch,
    ec2::Ec2,
    events::Sns,
    lambda::Lambda,
    ssm::{Answer, Ssm},
    stepfunctions::{Front, LambdaCall, TaskError, TaskRequest, Tasks},
};

/// What SSM's model has names for; all else is its service's exception.
const MODELLED: [&str; 5] = [
    "InternalServerError",
    "InvalidFilterKey",
    "InvalidInstanceId",
    "InvalidInstanceInformationFilterValue",
    "InvalidNextToken",
];

/// The services that the state machines call.
#[derive(Debug)]
pub(super) struct Router {
    pub(super) lambda: Arc<Lambda>,
    pub(super) sns: Arc<Sns>,
    pub(super) ec2: Arc<Ec2>,
    pub(super) ssm: Arc<Ssm>,
    pub(super) cloudwatch: Arc<CloudWatch>,
    pub(super) autoscaling: Arc<AutoScaling>,
    /// What runs the machines, which call it too. It is there only after them.
    pub(super) step_functions: OnceLock<Front>,
}

#[async_trait]
impl Tasks for Router {
    async fn call(&self, request: TaskRequest) -> Result<Value, TaskError> {
        match (request.resource.service(), request.resource.action()) {
            ("lambda", "invoke") => {
                let LambdaCall { function, payload } = LambdaCall::read(&request.parameters)?;
                self.lambda
                    .invoke(&function, payload)
                    .await
                    .map_err(|error| TaskError::of_function(&error.error_type, &error.message))
            }
            ("sns", "publish") => self
                .sns
                .task(&request.parameters)
                .map_err(|error| TaskError::new(error.error_type, error.message)),
            (service, action) => match service.strip_prefix("aws-sdk:") {
                Some(service) => self.sdk(service, action, &request.parameters).await,
                None => Err(absent(service, action)),
            },
        }
    }
}

impl Router {
    /// Carries out `arn:aws:states:::aws-sdk:SERVICE:ACTION`.
    pub(super) async fn sdk(
        &self,
        service: &str,
        action: &str,
        parameters: &Value,
    ) -> Result<Value, TaskError> {
        match (service, action) {
            ("autoscaling", _) => self.autoscaling.task(action, parameters),
            ("cloudwatch", _) => self.cloudwatch.task(action, parameters),
            ("ec2", _) => self.ec2.task(action, parameters).await,
            ("sfn", _) => match self.step_functions.get() {
                Some(front) => sfn::task(front, action, parameters).await,
                None => Err(absent("aws-sdk:sfn", action)),
            },
            ("ssm", "describeInstanceInformation") => {
                let body = parameters.to_string();
                let answer = self.ssm.handle("AmazonSSM.DescribeInstanceInformation", body.as_bytes()).await;
                of_ssm(answer)
            }
            _ => Err(absent(&format!("aws-sdk:{service}"), action)),
        }
    }
}

fn absent(service: &str, action: &str) -> TaskError {
    TaskError::new("States.Runtime", format!("the embedded cloud has no `{service}:{action}`"))
}

/// An answer of SSM's API as the SDK integration passes it on: times as text, without what is null, and with the names of the Java SDK's exceptions.
fn of_ssm(answer: Answer) -> Result<Value, TaskError> {
    let Answer::Reply { status, body } = answer else {
        return Err(TaskError::new(
            "Ssm.SdkClientException",
            "Unable to execute HTTP request: Connection reset",
        ));
    };
    let Value::Object(mut fields) = body else { return Ok(body) };
    if status == 200 {
        fields.retain(|_, value| !value.is_null());
        let hosts = fields.get_mut("InstanceInformationList").and_then(Value::as_array_mut);
        for host in hosts.into_iter().flatten() {
            let time =
                host.get("LastPingDateTime").and_then(Value::as_f64).map(SignedDuration::try_from_secs_f64);
            if let Some(Ok(time)) = time {
                host["LastPingDateTime"] = json!(Timestamp::UNIX_EPOCH.saturating_add(time).ok());
            }
        }
        return Ok(Value::Object(fields));
    }
    let text = |field: &str| fields.get(field).and_then(Value::as_str).unwrap_or_default();
    let (code, message) = (text("__type"), text("Message"));
    let name = if MODELLED.contains(&code) { code.trim_end_matches("Exception") } else { "Ssm" };
    Err(TaskError::new(
        format!("Ssm.{name}Exception"),
        format!("{message} (Service: Ssm, Status Code: {status}, Request ID: {})", uuid::Uuid::new_v4()),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(status: u16, code: &str) -> String {
        let body = json!({ "__type": code, "Message": "why" });
        let error = of_ssm(Answer::Reply { status, body }).unwrap_err();
        assert!(error.cause.starts_with(&format!("why (Service: Ssm, Status Code: {status}, ")), "{error}");
        error.error
    }

    #[test]
    fn errors_of_ssm_are_called_as_the_integration_calls_them() {
        assert_eq!(refused(400, "InvalidFilterKey"), "Ssm.InvalidFilterKeyException");
        assert_eq!(refused(500, "InternalServerError"), "Ssm.InternalServerErrorException");
        assert_eq!(refused(400, "ThrottlingException"), "Ssm.SsmException");
        assert_eq!(refused(400, "AccessDeniedException"), "Ssm.SsmException");
        assert_eq!(of_ssm(Answer::Nothing).unwrap_err().error, "Ssm.SdkClientException");
        let body = json!({ "InstanceInformationList": [{ "LastPingDateTime": 1_795_863_602.5 }], "NextToken": null });
        let passed_on =
            json!({ "InstanceInformationList": [{ "LastPingDateTime": "2026-11-28T11:00:02.5Z" }] });
        assert_eq!(of_ssm(Answer::Reply { status: 200, body }), Ok(passed_on));
    }
}
