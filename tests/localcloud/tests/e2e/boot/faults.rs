//! Qdrant, the store and the group fail while a host brings itself up.

use std::time::Duration;

use localcloud::{
    autoscaling::{Effect, Standing},
    docker,
    instance::IMAGE,
    qdrant::{Fault, When},
};

use super::harness::Replaced;
use crate::harness::{Fixture, says};

#[tokio::test(flavor = "multi_thread")]
async fn a_qdrant_that_dies_while_it_recovers_is_started_again() {
    let host = Replaced::small().await;
    host.instance.docker.qdrant_faults().inject(When::next_of("notes"), Fault::DieInRecover);
    host.boots().await;
    host.assert_serves_what_was_lost().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collection_that_never_recovers_is_named_and_nobody_is_served() {
    let host = Replaced::small().await;
    for nth in 1..20 {
        host.instance.docker.qdrant_faults().inject(When::nth_of("notes", nth), Fault::RecoverFailsAtLoad);
    }
    let said = host.instance.run(&["boot", "--once"]).await.unwrap();
    assert_eq!(said.code(), Some(1), "{}{}", said.stdout, said.stderr);
    says(&said.json().unwrap(), &["notes"]);
    assert!(!host.serves().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recovery_that_goes_on_after_its_call_was_lost_is_waited_for() {
    let host = Replaced::small().await;
    let pause = Fault::RecoverPauses(Duration::from_millis(1500));
    host.instance.docker.qdrant_faults().inject(When::next_of("docs"), pause);
    host.boots().await;
    host.assert_serves_what_was_lost().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_cannot_be_told_does_not_keep_a_host_from_serving() {
    let host = Replaced::small().await;
    let effects = host.instance.auto_scaling.effects();
    effects.on("CompleteLifecycleAction").times(1000).inject(Effect::Denied);
    let finished = host.instance.run(&["boot"]).await.unwrap();
    assert_eq!(finished.code(), Some(1), "{}{}", finished.stdout, finished.stderr);
    let result = finished.json().unwrap();
    assert_eq!(result["lifecycle"]["state"], "failed", "{result:#}");
    host.assert_serves_what_was_lost().await;
    effects.clear();
    // Told again, it restores nothing and tells the group.
    let result = host.boots().await;
    assert_eq!(result["lifecycle"]["state"], "completed", "{result:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_of_the_group_that_is_lost_is_asked_for_again() {
    for effect in [Effect::LoseReply, Effect::Unavailable, Effect::Over] {
        let host = Replaced::small().await;
        host.instance.auto_scaling.effects().on("CompleteLifecycleAction").inject(effect);
        host.boots().await;
        assert_eq!(host.instance.auto_scaling.standing(), Some(Standing::InService), "{effect:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_qdrant_that_loads_for_long_is_waited_for_and_nothing_is_restored() {
    let fixture = Fixture::small().await;
    fixture.backup().await;
    // One second here is twenty minutes of the worker's patience.
    let host = Replaced::with(fixture, |options| options.divisor = 1200).await;
    host.boots().await;
    host.instance.power_cut().await;
    host.fixture.forget_calls();
    let loads = docker::Effect::Loads(Duration::from_secs(2));
    host.instance.docker.effects().on(IMAGE).inject(loads);
    host.boots().await;
    assert_eq!(host.downloads(), 0);
    host.assert_serves_what_was_lost().await;
}
