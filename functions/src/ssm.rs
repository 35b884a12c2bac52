//! The hosts as AWS Systems Manager knows them.
//!
//! Retries of a single call are those of the client. `SendCommand` has no client token, so that a retry whose first answer was lost sends twice.

use std::time::Duration;

use aws_sdk_ssm::{
    Client,
    error::{ProvideErrorMetadata, SdkError},
    types::{CommandInvocationStatus, InstanceInformationStringFilter, PingStatus},
};

use crate::{
    diagnostic::chain,
    hosts::{Call, Command, CommandId, Host, Hosts, HostsError, InstanceId, Invocation, Refusal, Tag},
};

/// Which version of the document is run: the one that the stack made the default.
const DOCUMENT_VERSION: &str = "$DEFAULT";
/// How soon the agent must have begun, so that a host that comes back later does not run what nobody waits for.
/// Workers wait longer than that for the token of a retry.
pub const DELIVERY_TIMEOUT: Duration = Duration::from_secs(600);
/// Hosts on one page: as many as there may be.
const PAGE: i32 = 50;

impl Hosts for Client {
    async fn tagged(&self, tag: &Tag) -> Result<Vec<Host>, HostsError> {
        let filter = InstanceInformationStringFilter::builder()
            .key(format!("tag:{}", tag.key()))
            .values(tag.value())
            .build()
            .map_err(|error| other(Call::Describe, &error))?;
        let mut pages =
            self.describe_instance_information().filters(filter).max_results(PAGE).into_paginator().send();
        let mut hosts = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| failure(Call::Describe, &error))?;
            for known in page.instance_information_list.unwrap_or_default() {
                let id = known.instance_id.unwrap_or_default();
                let id: InstanceId = id.parse().map_err(|error| other(Call::Describe, &error))?;
                let ping = known.ping_status.as_ref().map_or("unknown", PingStatus::as_str).to_owned();
                hosts.push(Host { id, ping });
            }
        }
        Ok(hosts)
    }

    async fn send(&self, command: &Command) -> Result<CommandId, HostsError> {
        let parameters =
            command.parameters.iter().map(|(name, value)| ((*name).to_owned(), vec![value.clone()]));
        let answer = self
            .send_command()
            .document_name(&command.document)
            .document_version(DOCUMENT_VERSION)
            .instance_ids(command.host.as_str())
            .comment(&command.comment)
            .timeout_seconds(i32::try_from(DELIVERY_TIMEOUT.as_secs()).unwrap_or(i32::MAX))
            .set_parameters(Some(parameters.collect()))
            .send()
            .await
            .map_err(|error| failure(Call::Send, &error))?;
        let id = answer.command.and_then(|command| command.command_id);
        id.map(CommandId::from).ok_or_else(|| HostsError {
            call: Call::Send,
            refusal: Refusal::Other,
            detail: "the answer has no CommandId".to_owned(),
        })
    }

    async fn look(&self, command: &CommandId, host: &InstanceId) -> Result<Option<Invocation>, HostsError> {
        let sent = self
            .get_command_invocation()
            .command_id(command.as_str())
            .instance_id(host.as_str())
            .send()
            .await;
        let answer = match sent {
            Ok(answer) => answer,
            Err(error) if error.code() == Some("InvocationDoesNotExist") => return Ok(None),
            Err(error) => return Err(failure(Call::Look, &error)),
        };
        let status = answer.status.as_ref().map_or("Pending", CommandInvocationStatus::as_str);
        Ok(Some(Invocation {
            status: answer
                .status_details
                .filter(|text| !text.is_empty())
                .unwrap_or_else(|| status.to_owned()),
            // -1 is what stands there as long as the script has not ended.
            exit_code: (answer.response_code >= 0).then_some(answer.response_code),
            stdout: answer.standard_output_content.unwrap_or_default(),
            stderr: answer.standard_error_content.unwrap_or_default(),
        }))
    }
}

fn other(call: Call, error: &dyn std::error::Error) -> HostsError {
    HostsError { call, refusal: Refusal::Other, detail: chain(error) }
}

fn failure<E>(call: Call, error: &SdkError<E>) -> HostsError
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    let status = error.raw_response().map(|response| response.status().as_u16());
    let refusal = if matches!(error, SdkError::ConstructionFailure(_)) {
        // The request never left: the region or the endpoint is wrong, and will be the next time.
        Refusal::Other
    } else {
        classify(error.code(), status)
    };
    let detail = match (error.code(), error.message()) {
        (Some(code), Some(message)) => format!("{code}: {message}"),
        (Some(code), None) => code.to_owned(),
        (None, _) => chain(error),
    };
    HostsError { call, refusal, detail }
}

/// What an answer means. Systems Manager refuses with 400 and a code; no status is no answer.
fn classify(code: Option<&str>, status: Option<u16>) -> Refusal {
    match (code, status) {
        (Some("InvalidInstanceId"), _) => Refusal::Host,
        (Some("AccessDeniedException" | "AccessDenied"), _) => Refusal::Access,
        (Some("InvalidDocument" | "InvalidDocumentVersion" | "UnsupportedPlatformType"), _) => {
            Refusal::Document
        }
        (Some("InvalidParameters"), _) => Refusal::Parameters,
        (Some("ThrottlingException" | "Throttling" | "RequestLimitExceeded" | "InternalServerError"), _)
        | (_, None | Some(429 | 500..)) => Refusal::Transient,
        (_, Some(_)) => Refusal::Other,
    }
}

#[cfg(test)]
mod tests;
