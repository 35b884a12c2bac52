//! What the Auto Scaling group waits for, by its API.

use std::{error::Error as StdError, time::Duration};

use aws_config::{Region, imds};
use aws_sdk_autoscaling::{
    Client,
    config::timeout::TimeoutConfig,
    error::{ProvideErrorMetadata, SdkError},
};
use tokio::sync::OnceCell;

use super::Error;
use crate::config::{Config, LifecycleSettings};

/// How long a call may take, its repetitions included. Boot repeats what failed.
const LIMIT: Duration = Duration::from_secs(30);
/// How often, and how long between, an instance is looked at whose group has not begun to wait: it does so moments after the start.
const LOOKS: u32 = 24;
const BETWEEN_LOOKS: Duration = Duration::from_secs(5);

/// The group and its hook; or nobody.
#[derive(Debug)]
pub(super) struct AutoScaling(Option<Waiting>);

#[derive(Debug)]
struct Waiting {
    settings: LifecycleSettings,
    client: Client,
    metadata: imds::Client,
    instance_id: OnceCell<String>,
    between_looks: Duration,
}

/// What the group says of the instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waits {
    /// It is about to wait.
    NotYet,
    /// It waits.
    Now,
    /// The instance is in service, or on its way out, or in no group.
    No,
}

impl AutoScaling {
    /// As the settings say; calls nobody yet.
    pub(super) async fn of(config: &Config) -> Self {
        let Some(settings) = config.boot().and_then(|boot| boot.lifecycle.clone()) else {
            return Self(None);
        };
        let mut loader = aws_config::from_env();
        if let Some(region) = config.region() {
            loader = loader.region(Region::new(region.to_owned()));
        }
        let shared = loader.load().await;
        let limits = TimeoutConfig::builder()
            .connect_timeout(Duration::from_secs(5))
            .operation_attempt_timeout(Duration::from_secs(10))
            .operation_timeout(LIMIT)
            .build();
        let with_limits = aws_sdk_autoscaling::config::Builder::from(&shared).timeout_config(limits);
        Self(Some(Waiting {
            settings,
            client: Client::from_conf(with_limits.build()),
            metadata: imds::Client::builder().operation_timeout(LIMIT).build(),
            instance_id: OnceCell::new(),
            between_looks: BETWEEN_LOOKS / config.time_divisor(),
        }))
    }

    pub(super) async fn heartbeat(&self) -> Result<bool, Error> {
        match &self.0 {
            Some(waiting) => waiting.heartbeat().await,
            None => Ok(false),
        }
    }

    pub(super) async fn complete(&self) -> Result<(), Error> {
        match &self.0 {
            Some(waiting) => waiting.complete().await,
            None => Ok(()),
        }
    }
}

impl Waiting {
    async fn heartbeat(&self) -> Result<bool, Error> {
        let sent = self
            .client
            .record_lifecycle_action_heartbeat()
            .auto_scaling_group_name(&self.settings.group)
            .lifecycle_hook_name(&self.settings.hook)
            .instance_id(self.instance_id().await?)
            .send()
            .await;
        match sent {
            Ok(_) => Ok(true),
            // That it waits all the same is for another hook.
            Err(error) if nothing_waits(&error) => Ok(self.waits().await? == Waits::NotYet),
            Err(error) => Err(failed("RecordLifecycleActionHeartbeat", &self.settings, error)),
        }
    }

    async fn complete(&self) -> Result<(), Error> {
        let mut waited_for = false;
        let mut looks = 0;
        loop {
            let sent = self
                .client
                .complete_lifecycle_action()
                .auto_scaling_group_name(&self.settings.group)
                .lifecycle_hook_name(&self.settings.hook)
                .instance_id(self.instance_id().await?)
                .lifecycle_action_result("CONTINUE")
                .send()
                .await;
            let error = match sent {
                Ok(_) => return Ok(()),
                Err(error) => error,
            };
            if !nothing_waits(&error) {
                return Err(failed("CompleteLifecycleAction", &self.settings, error));
            }
            match self.waits().await? {
                // It was completed before.
                Waits::No => return Ok(()),
                // The same, and another hook waits; unless ours has begun just now.
                Waits::Now if waited_for => return Ok(()),
                Waits::Now => waited_for = true,
                // The group would wait in vain until the hook's time is over.
                Waits::NotYet => {}
            }
            looks += 1;
            if looks >= LOOKS {
                return Err(failed("CompleteLifecycleAction", &self.settings, error));
            }
            tokio::time::sleep(self.between_looks).await;
        }
    }

    async fn waits(&self) -> Result<Waits, Error> {
        let asked = self
            .client
            .describe_auto_scaling_instances()
            .instance_ids(self.instance_id().await?)
            .send()
            .await;
        let told = asked.map_err(|error| failed("DescribeAutoScalingInstances", &self.settings, error))?;
        let state = told.auto_scaling_instances().first().and_then(|instance| instance.lifecycle_state());
        Ok(waits(state))
    }

    /// As the settings say, or the metadata service.
    async fn instance_id(&self) -> Result<&str, Error> {
        if let Some(configured) = &self.settings.instance_id {
            return Ok(configured);
        }
        let asked = self.instance_id.get_or_try_init(async || {
            let id = self.metadata.get("/latest/meta-data/instance-id").await;
            id.map(|id| String::from(id.as_ref()))
                .map_err(|source| Error::NoInstanceId { source: Box::new(source) })
        });
        asked.await.map(String::as_str)
    }
}

fn waits(state: Option<&str>) -> Waits {
    match state {
        Some("Pending:Wait") => Waits::Now,
        Some("Pending") => Waits::NotYet,
        Some(_) | None => Waits::No,
    }
}

/// The answer when no hook waits for the instance.
fn nothing_waits<E: ProvideErrorMetadata, R>(error: &SdkError<E, R>) -> bool {
    error.code() == Some("ValidationError")
        && error.message().is_some_and(|message| message.contains("No active Lifecycle Action found"))
}

fn failed<E, R>(call: &'static str, settings: &LifecycleSettings, error: SdkError<E, R>) -> Error
where
    E: StdError + Send + Sync + 'static,
    R: std::fmt::Debug + Send + Sync + 'static,
{
    Error::Lifecycle {
        call,
        group: settings.group.clone(),
        hook: settings.hook.clone(),
        source: Box::new(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_instance_that_begins_is_waited_for() {
        for (state, wanted) in [
            (Some("Pending"), Waits::NotYet),
            (Some("Pending:Wait"), Waits::Now),
            (Some("Pending:Proceed"), Waits::No),
            (Some("InService"), Waits::No),
            (Some("Terminating:Wait"), Waits::No),
            (None, Waits::No),
        ] {
            assert_eq!(waits(state), wanted, "{state:?}");
        }
    }
}
