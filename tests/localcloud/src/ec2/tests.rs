use serde_json::json;

use super::*;

const BOUND: Duration = Duration::from_secs(20);

/// Notes what it is told.
#[derive(Debug, Default)]
struct Notes(Mutex<Vec<String>>);

#[async_trait::async_trait]
impl Fleet for Notes {
    async fn boot(&self, instance: &Instance) -> anyhow::Result<()> {
        lock(&self.0).push(format!("boot {}", instance.id));
        Ok(())
    }

    async fn halt(&self, instance_id: &str) {
        lock(&self.0).push(format!("halt {instance_id}"));
    }
}

fn quick() -> (Ec2, Arc<Notes>) {
    let notes = Arc::<Notes>::default();
    let options = Ec2Options {
        pending: Duration::from_millis(20),
        boot: Duration::from_millis(20),
        shutting_down: Duration::from_millis(20),
        hidden: Duration::from_millis(200),
    };
    let ec2 = Ec2::start(options, Arc::clone(&notes) as Arc<dyn Fleet>).unwrap();
    ec2.add_template("lt-1", "3");
    (ec2, notes)
}

fn launch(token: &str) -> Value {
    json!({
        "LaunchTemplate": { "LaunchTemplateId": "lt-1", "Version": "3" }, "MinCount": 1, "MaxCount": 1, "ClientToken": token,
        "TagSpecifications": [{ "ResourceType": "instance", "Tags": [{ "Key": "Role", "Value": "staging" }, { "Key": "of", "Value": token }] }],
    })
}

async fn launched(ec2: &Ec2, token: &str) -> String {
    let answer = ec2.task("runInstances", &launch(token)).await.unwrap();
    answer["Instances"][0]["InstanceId"].as_str().unwrap().to_owned()
}

async fn refused(ec2: &Ec2, action: &str, parameters: &Value) -> String {
    let error = ec2.task(action, parameters).await.unwrap_err();
    assert_eq!(error.error, "Ec2.Ec2Exception", "{error}");
    error.cause
}

/// The ids that a filter finds.
async fn found(ec2: &Ec2, name: &str, value: &str) -> Vec<String> {
    let filters = json!({ "Filters": [{ "Name": name, "Values": [value] }] });
    let answer = ec2.task("describeInstances", &filters).await.unwrap();
    let ids = answer["Reservations"].as_array().unwrap().iter();
    ids.map(|one| one["Instances"][0]["InstanceId"].as_str().unwrap().to_owned()).collect()
}

fn states(ec2: &Ec2) -> Vec<State> {
    ec2.instances().iter().map(|instance| instance.state).collect()
}

#[tokio::test]
async fn an_instance_is_launched_once_per_token_and_goes_the_way_of_all() {
    let (ec2, notes) = quick();
    let id = launched(&ec2, "t1").await;
    assert_eq!(launched(&ec2, "t1").await, id);
    let mut other = launch("t1");
    other["TagSpecifications"] = json!([]);
    let cause = refused(&ec2, "runInstances", &other).await;
    assert!(
        cause.contains("different attributes") && cause.contains("(Service: Ec2, Status Code: 400"),
        "{cause}"
    );
    let second = launched(&ec2, "t2").await;
    assert_ne!(second, id);

    assert_eq!(found(&ec2, "client-token", "t1").await, [""; 0], "not shown at once");
    while found(&ec2, "client-token", "t2").await.is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(found(&ec2, "client-token", "t1").await, [id.as_str()]);
    let booted = format!("boot {id}");
    ec2.wait_for(BOUND, |all| all.iter().all(|one| one.state == State::Running)).await.unwrap();
    while !lock(&notes.0).contains(&booted) {
        tokio::task::yield_now().await;
    }
    assert_eq!(found(&ec2, "tag:of", "t1").await, [id.as_str()]);
    assert_eq!(found(&ec2, "instance-id", &second).await, [second.as_str()]);
    assert_eq!(found(&ec2, "tag-key", "Role").await, [id.as_str(), second.as_str()]);

    let ended = ec2.task("terminateInstances", &json!({ "InstanceIds": [id] })).await.unwrap();
    assert_eq!(ended["TerminatingInstances"][0]["PreviousState"]["Name"], "running");
    assert_eq!(ended["TerminatingInstances"][0]["CurrentState"]["Name"], "shutting-down");
    ec2.wait_for(BOUND, |all| all[0].state == State::Terminated).await.unwrap();
    assert_eq!(lock(&notes.0).last(), Some(&format!("halt {id}")));
    let again = ec2.task("terminateInstances", &json!({ "InstanceIds": [id] })).await.unwrap();
    assert_eq!(again["TerminatingInstances"][0]["CurrentState"]["Name"], "terminated");
    assert_eq!(found(&ec2, "instance-state-name", "terminated").await, [id.as_str()]);
    assert_eq!(launched(&ec2, "t1").await, id, "a token is not used up by what became of its instance");
    assert_eq!(states(&ec2), [State::Terminated, State::Running]);
}

#[tokio::test]
async fn what_ec2_does_not_take_is_refused() {
    let (ec2, _) = quick();
    let with = |field: &str, value: Value| {
        let mut request = launch("t");
        request[field] = value;
        request
    };
    for (action, parameters, says) in [
        ("runInstances", with("MaxCount", json!(2)), "one instance at a time"),
        ("runInstances", with("ImageId", json!("ami-1")), "unknown field `ImageId`"),
        ("runInstances", with("ClientToken", json!("t".repeat(65))), "1 to 64"),
        (
            "runInstances",
            with("LaunchTemplate", json!({ "LaunchTemplateId": "lt-1", "Version": "4" })),
            "lt-1, does not exist in version 4",
        ),
        (
            "runInstances",
            with(
                "TagSpecifications",
                json!([{ "ResourceType": "instance", "Tags": [{ "Key": "aws:x", "Value": "" }] }]),
            ),
            "tag `aws:x`",
        ),
        (
            "describeInstances",
            json!({ "Filters": [{ "Name": "colour", "Values": ["red"] }] }),
            "'colour' is invalid",
        ),
        ("describeInstances", json!({ "Filters": [{ "Name": "tag:a", "Values": ["b*"] }] }), "no wildcards"),
        ("terminateInstances", json!({ "InstanceIds": ["i-0"] }), "'i-0' does not exist"),
    ] {
        let cause = refused(&ec2, action, &parameters).await;
        assert!(cause.contains(says), "{cause}");
    }
    assert_eq!(ec2.instances(), []);
    assert_eq!(ec2.task("stopInstances", &json!({})).await.unwrap_err().error, "States.Runtime");
}

#[tokio::test]
async fn faults_strike_calls_and_fates_instances() {
    let (ec2, notes) = quick();
    let faults = ec2.faults();
    faults.on(Operation::RunInstances).inject(Effect::NoCapacity);
    let cause = refused(&ec2, "runInstances", &launch("t1")).await;
    assert!(cause.contains("sufficient c8gd.medium capacity"), "{cause}");
    assert_eq!(ec2.instances(), []);

    faults.on(Operation::RunInstances).inject(Effect::LoseReply);
    faults.on_launch().inject(Fate::StaysPending);
    let lost = ec2.task("runInstances", &launch("t1")).await.unwrap_err();
    assert_eq!(lost.error, "Ec2.SdkClientException");
    let stuck = launched(&ec2, "t1").await;
    assert_eq!(ec2.instances().len(), 1, "the launch whose answer was lost was made");

    faults.on_launch().inject(Fate::DiesPending);
    faults.on_launch().nth(2).inject(Fate::NeverOnline);
    let dead = launched(&ec2, "t2").await;
    let silent = launched(&ec2, "t3").await;
    ec2.wait_for(BOUND, |all| all[1].state == State::Terminated && all[2].state == State::Running)
        .await
        .unwrap();
    faults.on(Operation::TerminateInstances).inject(Effect::Protected);
    let all = json!({ "InstanceIds": [stuck, silent] });
    let cause = refused(&ec2, "terminateInstances", &all).await;
    assert!(cause.contains("disableApiTermination"), "{cause}");
    ec2.lose(&stuck).await.unwrap();
    ec2.task("terminateInstances", &all).await.unwrap();
    ec2.wait_for(BOUND, |all| all.iter().all(|one| one.state == State::Terminated)).await.unwrap();
    assert_eq!(*lock(&notes.0), [&dead, &stuck, &silent].map(|id| format!("halt {id}")), "none has booted");
    assert_eq!(faults.unfired(), [""; 0]);
    assert_eq!(ec2.count(Operation::TerminateInstances), 2);
    assert_eq!(ec2.calls()[0].refused.as_deref(), Some("InsufficientInstanceCapacity"));
}
