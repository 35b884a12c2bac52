//! The operations. A parameter or a filter that is not carried out is refused, not passed over.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::fault::Operation;
use super::instance::{Instance, State, come_up, go_down};
use super::wire::ApiError;
use super::{Service, lock};

/// The longest client token, tag key and tag value.
const TOKEN: usize = 64;
const TAG_KEY: usize = 128;
const TAG_VALUE: usize = 256;

/// A launch that was made, by its client token.
#[derive(Debug)]
pub(super) struct Launch {
    parameters: Value,
    instance: String,
}

/// Carries a call out.
pub(super) fn call(
    service: &Arc<Service>,
    operation: Operation,
    parameters: &Value,
) -> Result<Value, ApiError> {
    match operation {
        Operation::RunInstances => run(service, parameters),
        Operation::DescribeInstances => describe(service, &parse(parameters)?),
        Operation::TerminateInstances => terminate(service, &parse(parameters)?),
    }
}

fn parse<T: DeserializeOwned>(parameters: &Value) -> Result<T, ApiError> {
    T::deserialize(parameters).map_err(|error| {
        ApiError::new("InvalidParameter", format!("the stand-in does not take this: {error}"))
    })
}

fn wrong(message: impl Into<String>) -> ApiError {
    ApiError::new("InvalidParameterValue", message)
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct RunInstances {
    launch_template: LaunchTemplate,
    min_count: u32,
    max_count: u32,
    client_token: String,
    tag_specifications: Vec<TagSpecification>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct LaunchTemplate {
    launch_template_id: String,
    version: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct TagSpecification {
    resource_type: ResourceType,
    tags: Vec<Tag>,
}

#[derive(Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum ResourceType {
    Instance,
    Volume,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Tag {
    key: String,
    value: String,
}

fn run(service: &Arc<Service>, parameters: &Value) -> Result<Value, ApiError> {
    let request: RunInstances = parse(parameters)?;
    if (request.min_count, request.max_count) != (1, 1) {
        return Err(wrong("the stand-in launches one instance at a time"));
    }
    if !(1..=TOKEN).contains(&request.client_token.len()) || !request.client_token.is_ascii() {
        return Err(wrong(format!("ClientToken must be 1 to {TOKEN} ASCII characters")));
    }
    let LaunchTemplate { launch_template_id: id, version } = request.launch_template;
    if !lock(&service.templates).contains(&(id.clone(), version.clone())) {
        let message = format!(
            "The specified launch template, with template ID {id}, does not exist in version {version}."
        );
        return Err(ApiError::new("InvalidLaunchTemplateId.NotFound", message));
    }
    let mut launches = lock(&service.launches);
    if let Some(launch) = launches.get(&request.client_token) {
        if launch.parameters != *parameters {
            let message = "The client token you have provided is associated with a resource that has different attributes.";
            return Err(ApiError::new("IdempotentParameterMismatch", message));
        }
        let instances = service.instances.borrow();
        let launched = instances.iter().filter(|instance| instance.id == launch.instance);
        return Ok(reservation(launched));
    }
    let hex = uuid::Uuid::new_v4().simple().to_string();
    let instance = Instance {
        id: format!("i-{}", &hex[..17]),
        state: State::Pending,
        tags: tags(request.tag_specifications)?,
        client_token: request.client_token.clone(),
        launched_at: Timestamp::now(),
        reservation: format!("r-{}", &hex[15..]),
        visible: Instant::now() + service.options.hidden,
    };
    let launch = Launch { parameters: parameters.clone(), instance: instance.id.clone() };
    launches.insert(request.client_token, launch);
    drop(launches);
    service.instances.send_modify(|instances| instances.push(instance.clone()));
    let fate = service.faults.fates.strike(&id);
    service.spawner.spawn(come_up(Arc::clone(service), instance.clone(), fate));
    Ok(reservation(std::iter::once(&instance)))
}

/// The tags of the instance; those of its volume are only looked at.
fn tags(specifications: Vec<TagSpecification>) -> Result<BTreeMap<String, String>, ApiError> {
    let mut of_instance = BTreeMap::new();
    for TagSpecification { resource_type, tags } in specifications {
        let mut seen = BTreeSet::new();
        for Tag { key, value } in tags {
            let plain = |c: char| c.is_ascii_alphanumeric() || " +-=._:/@".contains(c);
            if !(1..=TAG_KEY).contains(&key.len())
                || value.len() > TAG_VALUE
                || key.starts_with("aws:")
                || !key.chars().chain(value.chars()).all(plain)
            {
                return Err(wrong(format!("tag `{key}`=`{value}` is not allowed")));
            }
            if !seen.insert(key.clone()) {
                return Err(wrong(format!("Duplicate tag key '{key}' specified.")));
            }
            if resource_type == ResourceType::Instance {
                of_instance.insert(key, value);
            }
        }
    }
    Ok(of_instance)
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct DescribeInstances {
    filters: Vec<Filter>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Filter {
    name: String,
    values: Vec<String>,
}

/// The instances that pass every filter, as far as EC2 shows them already.
fn describe(service: &Service, request: &DescribeInstances) -> Result<Value, ApiError> {
    request.filters.iter().try_for_each(Filter::check)?;
    let now = Instant::now();
    let instances = service.instances.borrow();
    let passes = |instance: &&Instance| {
        instance.visible <= now && request.filters.iter().all(|filter| filter.passes(instance))
    };
    let shown = instances.iter().filter(passes).map(|instance| reservation(std::iter::once(instance)));
    Ok(json!({ "Reservations": shown.collect::<Vec<_>>() }))
}

impl Filter {
    fn check(&self) -> Result<(), ApiError> {
        if let Some(wild) = self.values.iter().find(|value| value.contains(['*', '?'])) {
            return Err(wrong(format!("the stand-in knows no wildcards, as in `{wild}`")));
        }
        let known = ["tag-key", "instance-id", "client-token", "instance-state-name"];
        if self.name.starts_with("tag:") || known.contains(&self.name.as_str()) {
            return Ok(());
        }
        Err(wrong(format!("The filter '{}' is invalid", self.name)))
    }

    fn passes(&self, instance: &Instance) -> bool {
        let one_of = |value: &str| self.values.iter().any(|allowed| allowed == value);
        if let Some(key) = self.name.strip_prefix("tag:") {
            return instance.tags.get(key).is_some_and(|value| one_of(value));
        }
        match self.name.as_str() {
            "tag-key" => instance.tags.keys().any(|key| one_of(key)),
            "instance-id" => one_of(&instance.id),
            "client-token" => one_of(&instance.client_token),
            "instance-state-name" => one_of(instance.state.name()),
            _ => false,
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct TerminateInstances {
    instance_ids: Vec<String>,
}

fn terminate(service: &Arc<Service>, request: &TerminateInstances) -> Result<Value, ApiError> {
    let known = service.instances.borrow().clone();
    let mut ended = Vec::new();
    for id in &request.instance_ids {
        let Some(instance) = known.iter().find(|instance| instance.id == *id) else {
            let message = format!("The instance ID '{id}' does not exist");
            return Err(ApiError::new("InvalidInstanceID.NotFound", message));
        };
        let down = if instance.is_alive() { State::ShuttingDown } else { instance.state };
        ended.push(json!({
            "InstanceId": id,
            "PreviousState": instance.state.describe(),
            "CurrentState": down.describe(),
        }));
    }
    for id in &request.instance_ids {
        let mut goes = false;
        service.change(id, |instance| {
            goes = instance.is_alive();
            instance.state = State::ShuttingDown;
        });
        if goes {
            service.spawner.spawn(go_down(Arc::clone(service), id.clone()));
        }
    }
    Ok(json!({ "TerminatingInstances": ended }))
}

/// A reservation with these instances, which were launched together.
fn reservation<'a>(instances: impl Iterator<Item = &'a Instance>) -> Value {
    let instances: Vec<&Instance> = instances.collect();
    json!({
        "ReservationId": instances.first().map(|instance| &instance.reservation),
        "OwnerId": "000000000000",
        "Instances": instances.iter().map(|instance| instance.describe()).collect::<Vec<_>>(),
    })
}
