//! The launch hook: told again, told too early, told in vain.

use std::time::{Duration, Instant};

use localcloud::autoscaling::{AutoScaling, Effect, Standing};
use serde_json::{Value, json};

use crate::host::Host;

const INSTANCE: &str = "i-0123456789abcdef0";

/// A host of the group, which waits for it.
fn host() -> Host {
    let host = Host::new(0, &table(""));
    host.auto_scaling.set(INSTANCE, Standing::Waiting);
    host
}

fn table(more: &str) -> String {
    format!(
        "[boot.lifecycle]\ngroup = \"{}\"\nhook = \"{}\"\n{more}\n",
        AutoScaling::GROUP,
        AutoScaling::HOOK
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn the_group_is_told_once_and_may_be_told_again() {
    let host = host();
    assert_eq!(host.done("heartbeat").await, json!(true));
    assert_eq!(host.done("complete").await, Value::Null);
    assert_eq!(host.auto_scaling.standing(), Some(Standing::InService));
    host.done("complete").await;
    assert_eq!(host.done("heartbeat").await, json!(false));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_does_not_wait_yet_is_told_when_it_does() {
    let host = host();
    host.auto_scaling.set(INSTANCE, Standing::Pending);
    assert_eq!(host.done("heartbeat").await, json!(true), "somebody will wait");
    let begins = async {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !host.auto_scaling.calls().iter().any(|call| call == "CompleteLifecycleAction") {
            assert!(Instant::now() < deadline, "{:?}", host.auto_scaling.calls());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        host.auto_scaling.set(INSTANCE, Standing::Waiting);
    };
    let (done, ()) = tokio::join!(host.done("complete"), begins);
    assert_eq!(done, Value::Null);
    assert_eq!(host.auto_scaling.standing(), Some(Standing::InService));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_lost_and_a_service_that_is_unwell_are_asked_again() {
    for effect in [Effect::LoseReply, Effect::Unavailable, Effect::Over] {
        let host = host();
        host.auto_scaling.effects().on("CompleteLifecycleAction").inject(effect);
        host.done("complete").await;
        assert_eq!(host.auto_scaling.standing(), Some(Standing::InService), "{effect:?}");
        assert_eq!(host.auto_scaling.effects().unfired(), [""; 0], "{effect:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_may_not_tell_is_told_what_it_needs() {
    for (act, call) in
        [("heartbeat", "RecordLifecycleActionHeartbeat"), ("complete", "CompleteLifecycleAction")]
    {
        let host = host();
        host.auto_scaling.effects().on(call).times(100).inject(Effect::Denied);
        let (error, hint) = host.fails(act).await;
        assert!(error.starts_with(&format!("{call} for hook `{}`", AutoScaling::HOOK)), "{error}");
        assert!(error.contains("AccessDenied"), "{error}");
        assert!(hint.contains(&format!("autoscaling:{}", "RecordLifecycleActionHeartbeat")), "{hint}");
        assert_eq!(host.auto_scaling.standing(), Some(Standing::Waiting));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_the_instance_is_comes_from_the_settings_or_from_its_metadata() {
    let host = Host::new(0, &table(""));
    let (error, hint) = host.fails("complete").await;
    assert!(error.starts_with("ask the instance metadata service which instance this is"), "{error}");
    assert!(hint.contains("instance-id"), "{hint}");
    assert_eq!(host.auto_scaling.calls(), [""; 0]);

    let host = Host::new(0, &table(&format!("instance-id = \"{INSTANCE}\"")));
    host.auto_scaling.set(INSTANCE, Standing::Waiting);
    host.done("complete").await;
    assert_eq!(host.auto_scaling.standing(), Some(Standing::InService));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_of_no_group_has_nobody_to_tell() {
    let host = Host::with_disks(1);
    assert_eq!(host.done("heartbeat").await, json!(false));
    host.done("complete").await;
    assert_eq!(host.auto_scaling.calls(), [""; 0]);
}
