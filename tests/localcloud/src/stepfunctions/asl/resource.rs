//! What a task calls.

use std::fmt;

/// What a task calls: `arn:aws:states:::SERVICE:ACTION`, or `…:::aws-sdk:SERVICE:ACTION`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    arn: String,
    service: String,
    action: String,
    waits_for_token: bool,
}

impl Resource {
    pub(super) fn parse(arn: &str) -> Result<Self, String> {
        let refuse = |why: &str| format!("is `{arn}`, which {why}");
        let unsupported = || refuse("is not a service integration: only `arn:aws:states:::…` is supported");
        let rest = arn
            .strip_prefix("arn:")
            .and_then(|rest| rest.split_once(":states:::"))
            .filter(|(partition, _)| partition.starts_with("aws") && !partition.contains(':'))
            .map(|(_, rest)| rest)
            .ok_or_else(unsupported)?;
        let (target, pattern) = rest.split_once('.').unwrap_or((rest, ""));
        let waits_for_token = match pattern {
            "" => false,
            "waitForTaskToken" => true,
            _ => return Err(refuse("ends in a pattern other than `.waitForTaskToken`")),
        };
        let (service, action) = target.rsplit_once(':').ok_or_else(|| refuse("names no action"))?;
        let plain = service.strip_prefix("aws-sdk:").unwrap_or(service);
        let word = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric());
        if !word(plain) || !word(action) {
            return Err(refuse("names no service and action"));
        }
        Ok(Self {
            arn: arn.to_owned(),
            service: service.to_owned(),
            action: action.to_owned(),
            waits_for_token,
        })
    }

    /// As it stands in the definition.
    #[must_use]
    pub fn arn(&self) -> &str {
        &self.arn
    }

    /// `lambda`, `sns`, `aws-sdk:ec2`: the history's `resourceType`.
    #[must_use]
    pub fn service(&self) -> &str {
        &self.service
    }

    /// `invoke`, `publish`, `runInstances`.
    #[must_use]
    pub fn action(&self) -> &str {
        &self.action
    }

    /// Whether the task ends by its token and not by its answer.
    #[must_use]
    pub fn waits_for_token(&self) -> bool {
        self.waits_for_token
    }

    /// The history's `resource`: the action with its pattern.
    pub(in crate::stepfunctions) fn history_name(&self) -> String {
        let pattern = if self.waits_for_token { ".waitForTaskToken" } else { "" };
        format!("{}{pattern}", self.action)
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.arn)
    }
}
