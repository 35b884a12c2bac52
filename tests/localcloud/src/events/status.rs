//! `Step Functions Execution Status Change`: which ends of which executions a rule is about, and the event that its target is given.

use std::time::Duration;

use serde_json::{Value, json};

use crate::stepfunctions::{Execution, Status};

/// Starts an execution when one of another machine has ended. Its input is the event.
#[derive(Debug, Clone)]
pub struct ExecutionRule {
    /// Its name.
    pub name: String,
    /// The ARN of the machine whose executions are looked at.
    pub of: String,
    /// How they ended.
    pub statuses: Vec<Status>,
    /// How long the event takes to come.
    pub delay: Duration,
    /// The ARN of the machine that is started.
    pub state_machine: String,
}

impl ExecutionRule {
    pub(super) fn is_about(&self, execution: &Execution) -> bool {
        self.of == execution.state_machine_arn && self.statuses.contains(&execution.status)
    }
}

/// The event of an execution's end, as EventBridge gives it to targets that ask for all of it.
pub(super) fn event(execution: &Execution) -> Value {
    let Execution { arn, name, state_machine_arn, status, input, started_at, stopped_at, output, failure } =
        execution;
    // arn:aws:states:REGION:ACCOUNT:…
    let part = |index| arn.split(':').nth(index).unwrap_or_default();
    json!({
        "version": "0",
        "id": uuid::Uuid::new_v4(),
        "detail-type": "Step Functions Execution Status Change",
        "source": "aws.states",
        "account": part(4),
        "time": stopped_at.unwrap_or(*started_at).strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        "region": part(3),
        "resources": [arn],
        "detail": {
            "executionArn": arn,
            "stateMachineArn": state_machine_arn,
            "name": name,
            "status": status.to_string(),
            "startDate": started_at.as_millisecond(),
            "stopDate": stopped_at.map(|time| time.as_millisecond()),
            "input": input,
            "inputDetails": { "included": true },
            "output": output.as_ref().map(Value::to_string),
            "outputDetails": output.as_ref().map(|_| json!({ "included": true })),
            "error": failure.error,
            "cause": failure.cause,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stepfunctions::Failure;

    #[test]
    fn a_rule_is_about_one_machine_and_gives_the_whole_event() {
        let execution = |machine: &str, status| Execution {
            arn: format!("arn:aws:states:us-east-1:000000000000:execution:{machine}:x"),
            name: "x".to_owned(),
            state_machine_arn: machine.to_owned(),
            status,
            input: "{}".to_owned(),
            started_at: "2026-11-28T11:00:00Z".parse().unwrap(),
            stopped_at: Some("2026-11-28T11:00:02.5Z".parse().unwrap()),
            output: None,
            failure: Failure { error: Some("Busy".to_owned()), cause: None },
        };
        let rule = ExecutionRule {
            name: "ends".to_owned(),
            of: "drill".to_owned(),
            statuses: vec![Status::Failed, Status::Aborted],
            delay: Duration::ZERO,
            state_machine: "other".to_owned(),
        };
        assert!(rule.is_about(&execution("drill", Status::Aborted)));
        assert!(!rule.is_about(&execution("drill", Status::Succeeded)));
        assert!(!rule.is_about(&execution("backup", Status::Failed)));
        let event = event(&execution("drill", Status::Failed));
        assert_eq!((&event["source"], &event["region"]), (&json!("aws.states"), &json!("us-east-1")));
        assert_eq!(event["detail"]["status"], "FAILED");
        assert_eq!(event["detail"]["executionArn"], event["resources"][0]);
        assert_eq!(
            (&event["detail"]["stopDate"], &event["detail"]["error"]),
            (&json!(1_795_863_602_500_i64), &json!("Busy"))
        );
    }
}
