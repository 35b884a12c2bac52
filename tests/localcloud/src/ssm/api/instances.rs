//! `DescribeInstanceInformation`.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Result, epoch, page, page_size};
use crate::ssm::host::{Host, Presence};
use crate::ssm::service::Service;
use crate::ssm::wire::ApiError;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(super) struct DescribeInstanceInformation {
    #[serde(default)]
    filters: Vec<Filter>,
    max_results: Option<i64>,
    next_token: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Filter {
    key: String,
    values: Vec<String>,
}

/// The hosts of a page which pass every filter. As with many of AWS's lists, a page may be empty although there is a next one.
pub(super) fn describe(service: &Service, request: DescribeInstanceInformation) -> Result {
    let most = page_size(request.max_results, service.page_size, 5..=50)?.min(service.page_size);
    let state = service.state();
    let hosts = state.hosts.values().cloned().collect();
    let (hosts, next) = page(hosts, request.next_token.as_deref(), most)?;
    let mut listed = Vec::new();
    for host in hosts {
        let mut passes = true;
        for filter in &request.filters {
            passes &= filter.passes(&host)?;
        }
        if passes {
            listed.push(information(&host));
        }
    }
    Ok(json!({ "InstanceInformationList": listed, "NextToken": next }))
}

impl Filter {
    fn passes(&self, host: &Host) -> std::result::Result<bool, ApiError> {
        if let Some(tag) = self.key.strip_prefix("tag:") {
            return Ok(host.options.tags.get(tag).is_some_and(|value| self.values.contains(value)));
        }
        let one_of = |value: &str| self.values.iter().any(|allowed| allowed == value);
        match self.key.as_str() {
            "tag-key" => Ok(host.options.tags.keys().any(|key| one_of(key))),
            "InstanceIds" => Ok(one_of(host.id())),
            "PingStatus" => Ok(one_of(host.presence().ping_status())),
            "AgentVersion" => Ok(one_of(&host.options.agent_version)),
            "PlatformTypes" => Ok(one_of("Linux")),
            "ResourceType" => Ok(one_of("EC2Instance")),
            other => Err(ApiError::new("InvalidFilterKey", format!("`{other}` is no key of a filter here"))),
        }
    }
}

fn information(host: &Host) -> Value {
    let last_ping =
        if host.presence() == Presence::Online { jiff::Timestamp::now() } else { host.registered };
    json!({
        "InstanceId": host.id(),
        "PingStatus": host.presence().ping_status(),
        "LastPingDateTime": epoch(last_ping),
        "AgentVersion": host.options.agent_version,
        "IsLatestVersion": host.knows_env_var,
        "PlatformType": "Linux",
        "PlatformName": "Amazon Linux",
        "PlatformVersion": "2023",
        "ResourceType": "EC2Instance",
        "IPAddress": "127.0.0.1",
        "ComputerName": host.id(),
    })
}
