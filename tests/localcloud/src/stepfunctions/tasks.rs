//! The port by which tasks leave the service: one call, one answer.

use async_trait::async_trait;
use serde_json::{Value, json};

use super::asl::Resource;

/// Whoever carries tasks out: a Lambda host, an SSM, or a test.
#[async_trait]
pub trait Tasks: Send + Sync {
    /// Carries a task out and answers as its API would.
    ///
    /// For `lambda:invoke` the answer is what the function returned: the service puts it into AWS's form.
    async fn call(&self, request: TaskRequest) -> Result<Value, TaskError>;
}

/// One call.
#[derive(Clone, PartialEq)]
pub struct TaskRequest {
    /// The execution's ARN.
    pub execution_arn: String,
    /// The state's name.
    pub state: String,
    /// What is called.
    pub resource: Resource,
    /// With which parameters. They may hold a task token.
    pub parameters: Value,
}

/// Without parameters: they may hold a task token.
impl std::fmt::Debug for TaskRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TaskRequest")
            .field("execution_arn", &self.execution_arn)
            .field("state", &self.state)
            .field("resource", &self.resource.arn())
            .finish_non_exhaustive()
    }
}

/// A call that failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{error}: {cause}")]
pub struct TaskError {
    /// What `ErrorEquals` is compared with.
    pub error: String,
    /// What a person should know.
    pub cause: String,
}

impl TaskError {
    /// A failure of this name.
    pub fn new(error: impl Into<String>, cause: impl Into<String>) -> Self {
        Self { error: error.into(), cause: cause.into() }
    }

    /// A function that ended with an error: the error's name is the function's own, the cause is its error object as text.
    #[must_use]
    pub fn of_function(error_type: &str, error_message: &str) -> Self {
        let cause = json!({"errorType": error_type, "errorMessage": error_message});
        Self::new(error_type, cause.to_string())
    }
}

/// The parameters of `lambda:invoke`.
#[derive(Debug, Clone, PartialEq)]
pub struct LambdaCall {
    /// Name or ARN, as the definition gives it.
    pub function: String,
    /// The function's event; an empty object where the definition gives none.
    pub payload: Value,
}

impl LambdaCall {
    /// Reads the parameters of `lambda:invoke`.
    ///
    /// # Errors
    /// When there is no `FunctionName`, or a field that is not understood here.
    pub fn read(parameters: &Value) -> Result<Self, TaskError> {
        let refuse = |problem: String| TaskError::new("States.Runtime", format!("lambda:invoke: {problem}"));
        let fields = parameters.as_object().ok_or_else(|| refuse("parameters must be an object".into()))?;
        if let Some(unknown) =
            fields.keys().find(|field| !["FunctionName", "Payload"].contains(&field.as_str()))
        {
            return Err(refuse(format!("`{unknown}` is not supported")));
        }
        let function = fields
            .get("FunctionName")
            .and_then(Value::as_str)
            .ok_or_else(|| refuse("`FunctionName` is missing".into()))?;
        let payload = fields.get("Payload").cloned().unwrap_or_else(|| json!({}));
        Ok(Self { function: function.to_owned(), payload })
    }
}

/// What a task is answered with: for `lambda:invoke` AWS's envelope, else the answer itself.
pub(super) fn enveloped(resource: &Resource, answer: Value, request_id: &str) -> Value {
    if resource.service() != "lambda" || resource.action() != "invoke" {
        return answer;
    }
    let length = answer.to_string().len().to_string();
    json!({
        "ExecutedVersion": "$LATEST",
        "Payload": answer,
        "SdkHttpMetadata": {
            "AllHttpHeaders": {
                "Content-Length": [length],
                "Content-Type": ["application/json"],
                "X-Amz-Executed-Version": ["$LATEST"],
                "x-amzn-RequestId": [request_id],
            },
            "HttpHeaders": {
                "Content-Length": length,
                "Content-Type": "application/json",
                "X-Amz-Executed-Version": "$LATEST",
                "x-amzn-RequestId": request_id,
            },
            "HttpStatusCode": 200,
        },
        "SdkResponseMetadata": {"RequestId": request_id},
        "StatusCode": 200,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parameters_of_a_function_are_read() {
        let call = LambdaCall::read(&json!({"FunctionName": "f", "Payload": [1]})).unwrap();
        assert_eq!(call, LambdaCall { function: "f".into(), payload: json!([1]) });
        assert_eq!(LambdaCall::read(&json!({"FunctionName": "f"})).unwrap().payload, json!({}));
        for (parameters, why) in [
            (json!([]), "must be an object"),
            (json!({"Payload": 1}), "`FunctionName` is missing"),
            (json!({"FunctionName": "f", "Qualifier": "1"}), "`Qualifier` is not supported"),
        ] {
            let error = LambdaCall::read(&parameters).unwrap_err();
            assert!(error.cause.contains(why), "{error}");
        }
    }

    #[test]
    fn an_error_of_a_function_has_its_own_name() {
        let error = TaskError::of_function("Busy", "somebody else is at it");
        assert_eq!(error.error, "Busy");
        assert_eq!(error.cause, r#"{"errorMessage":"somebody else is at it","errorType":"Busy"}"#);
    }
}
