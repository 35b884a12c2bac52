//! One fault at a time: what boot does about it, what it says, and that it comes back by itself where it can.

use std::time::Duration;

use protocol::FailureKind;
use tokio::time::Instant;

use super::model::{
    Bucket, CONFIGURED, Data, ENI, Quality::Corrupt, Quality::Deadly, Quality::DeadlyOnce, Quality::Good,
    Quality::HalfFirst, Quality::Wrong, World, id, order, plain,
};
use crate::{
    boot::{
        BootResult, Order, Told,
        record::{Source, Stage, Step},
        sequence::LOOPBACK,
    },
    cli::BootArgs,
    config::HostRole,
    output::Render,
};

const HOUR: Duration = Duration::from_secs(3600);

fn once() -> Order {
    order(CONFIGURED, BootArgs { once: true, ..BootArgs::default() })
}

fn adopt() -> Order {
    order(CONFIGURED, BootArgs { adopt: true, ..BootArgs::default() })
}

fn one_good() -> World {
    World::new(&[(1, "1.18.3", true, Good)])
}

fn old_data(writes: u32) -> Data {
    Data { of: "somebody's".to_owned(), whole: true, writes, touched_by: "1.18.3".parse().unwrap() }
}

/// The kind of failure that `--once` ends with.
async fn ends_with(world: &World, order: &Order) -> FailureKind {
    world.run(order, None).await.unwrap().unwrap_err().kind()
}

#[tokio::test(start_paused = true)]
async fn an_unhurt_boot_tells_its_story() {
    let world = one_good();
    let result = world.run(&plain(), None).await.unwrap().unwrap();
    let text = result.render();
    for part in [
        "serving",
        &id(1).to_string(),
        "p95 80.0 ms before and 20.0 ms after",
        "told that the host is ready",
        "s from the start to serving",
    ] {
        assert!(text.contains(part), "`{part}` in {text}");
    }
    let BootResult::Serving { record, lifecycle: Told::Completed } = result else { panic!("{result:?}") };
    let steps: Vec<&str> = record.steps.iter().map(|step| step.step.name()).collect();
    assert_eq!(
        steps,
        ["disks", "choose", "room", "start", "restore", "warm-up", "mark", "address", "serve", "lifecycle"]
    );
    let seconds = record.serving_after_seconds.unwrap();
    assert!((1230.0..1250.0).contains(&seconds), "{seconds}");
    let restore = record.steps.iter().find(|step| step.step == Step::Restore).unwrap();
    assert!((1199.0..1201.0).contains(&restore.seconds), "{restore:?}");
    let addresses: Vec<_> = world.state().starts.iter().map(|launch| launch.address).collect();
    assert_eq!(addresses, [LOOPBACK, ENI]);
    assert!(world.state().heartbeats >= 40, "all the time: {}", world.state().heartbeats);
}

#[tokio::test(start_paused = true)]
async fn a_refused_or_silent_bucket_holds_and_is_looked_at_again() {
    let world = World::new(&[]);
    world.state().bucket = Bucket::Denied;
    world.run_for(&plain(), HOUR).await.unwrap_err();
    assert_eq!(world.held(), Some((Step::Choose, FailureKind::StoreUnavailable, false)));
    assert!(world.state().starts.is_empty(), "never empty");
    assert!(world.state().heartbeats > 100, "the group is told that somebody is at work");
    assert_eq!(world.state().completed, 0);
    assert_eq!(ends_with(&world, &once()).await, FailureKind::StoreUnavailable);

    world.state().bucket = Bucket::Answers;
    world.state().backups = one_good().state().backups.clone();
    world.run(&plain(), None).await.unwrap().unwrap();
    assert_eq!(world.served().unwrap().0, id(1).to_string());
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_used_is_not_what_was_never_there() {
    let world = one_good();
    world.state().bucket = Bucket::Unusable;
    world.run_for(&plain(), HOUR).await.unwrap_err();
    assert_eq!(world.held(), Some((Step::Choose, FailureKind::ManifestMissing, false)));
    world.state().local_snapshots = true;
    world.run(&plain(), None).await.unwrap().unwrap();
    assert_eq!(world.served().unwrap().0, "local");
    let record = world.state().record.clone().unwrap();
    assert!(record.source.unwrap().degraded());
}

#[tokio::test(start_paused = true)]
async fn a_host_that_starts_empty_is_degraded() {
    let world = World::new(&[]);
    world.run(&plain(), None).await.unwrap().unwrap();
    assert!(world.state().served_empty);
    let source = world.state().record.clone().unwrap().source.unwrap();
    assert!(source == Source::Nothing && source.degraded());
}

#[tokio::test(start_paused = true)]
async fn what_is_wrong_gives_way_to_an_older_one_that_was_proved() {
    for (is, kind) in [
        (Wrong, FailureKind::VerificationFailed),
        (Corrupt, FailureKind::ChecksumMismatch),
        (Deadly, FailureKind::QdrantUnavailable),
    ] {
        let world =
            World::new(&[(1, "1.18.3", true, Good), (2, "1.18.3", false, Good), (3, "1.18.3", false, is)]);
        let result = world.run(&plain(), None).await.unwrap().unwrap();
        assert_eq!(
            world.served().unwrap().0,
            id(1).to_string(),
            "{is:?}: not the one that nobody has proved"
        );
        let record = world.state().record.clone().unwrap();
        assert!(record.source.unwrap().degraded());
        assert_eq!(record.rejected.len(), 1);
        assert_eq!(record.rejected[0].kind, kind);
        assert!(result.render().contains("degraded: backups do not move the pointer"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_qdrant_that_dies_once_is_started_again_and_the_same_backup_restored() {
    let world = World::new(&[(1, "1.18.3", true, Good), (2, "1.18.3", false, DeadlyOnce)]);
    let result = world.run(&plain(), None).await.unwrap().unwrap();
    assert_eq!(world.served().unwrap().0, id(2).to_string());
    let BootResult::Serving { record, .. } = result else { panic!("{result:?}") };
    assert!(record.rejected.is_empty() && !record.source.as_ref().unwrap().degraded());
    let seconds = record.serving_after_seconds.unwrap();
    assert!(seconds < 1300.0, "nobody waits ten minutes for what has ended: {seconds}");
}

#[tokio::test(start_paused = true)]
async fn nothing_that_is_left_waits_for_a_person_and_is_not_tried_for_ever() {
    let world = World::new(&[(1, "1.18.3", true, Corrupt), (2, "1.18.3", false, Wrong)]);
    world.run_for(&plain(), 24 * HOUR).await.unwrap_err();
    assert_eq!(world.held(), Some((Step::Choose, FailureKind::ChecksumMismatch, true)));
    let held = world.state().record.clone().unwrap().held.unwrap();
    assert!(
        held.message.contains(&id(1).to_string()) && held.message.contains(&id(2).to_string()),
        "{}",
        held.message
    );
    assert_eq!(world.state().restores, 1, "once each, and the corrupt one did not come so far");
    // Started again, it begins from the newest: somebody may have mended it.
    world.state().backups.get_mut(&id(2)).unwrap().is = Good;
    world.run(&plain(), None).await.unwrap().unwrap();
    assert_eq!(world.served().unwrap().0, id(2).to_string());
}

#[tokio::test(start_paused = true)]
async fn a_person_may_take_what_failed_verification() {
    let world = World::new(&[(2, "1.18.3", false, Wrong)]);
    world.run_for(&plain(), HOUR).await.unwrap_err();
    assert_eq!(world.served(), None);
    world.run(&adopt(), None).await.unwrap().unwrap();
    assert_eq!(world.served().unwrap().0, id(2).to_string());
    assert_eq!(world.state().record.clone().unwrap().source, Some(Source::Adopted));
    assert_eq!(ends_with(&World::new(&[]), &adopt()).await, FailureKind::ConfigInvalid);
}

#[tokio::test(start_paused = true)]
async fn half_a_restore_of_its_own_is_made_again() {
    let world = World::new(&[(1, "1.18.3", true, HalfFirst)]);
    world.run(&plain(), None).await.unwrap().unwrap();
    assert_eq!(world.served().unwrap().0, id(1).to_string());
    let record = world.state().record.clone().unwrap();
    assert!(record.rejected.is_empty(), "{record:?}");
}

#[tokio::test(start_paused = true)]
async fn old_data_is_neither_served_nor_overwritten() {
    let world = one_good();
    world.state().data = Some(old_data(5));
    for _ in 0..2 {
        world.run_for(&plain(), HOUR).await.unwrap_err();
        assert_eq!(world.held(), Some((Step::Disks, FailureKind::Suspicious, true)));
        let hint = world.state().record.clone().unwrap().held.unwrap().hint.unwrap();
        assert!(hint.contains("--adopt") && hint.contains("--replace"), "{hint}");
    }
    assert_eq!(world.state().data, Some(old_data(5)));
    assert!(world.state().starts.is_empty());
    assert_eq!(ends_with(&world, &once()).await, FailureKind::Suspicious);
    world.run(&adopt(), None).await.unwrap().unwrap();
    assert_eq!(world.served(), Some(("somebody's".to_owned(), 6)));
}

#[tokio::test(start_paused = true)]
async fn data_that_came_up_while_the_boot_was_held_is_somebodys() {
    let world = World::new(&[]);
    world.state().bucket = Bucket::Denied;
    world.run_for(&plain(), HOUR).await.unwrap_err();
    world.state().data = Some(old_data(7));
    world.state().bucket = Bucket::Answers;
    world.state().backups = one_good().state().backups.clone();
    assert_eq!(ends_with(&world, &once()).await, FailureKind::Suspicious);
    assert_eq!(world.state().data, Some(old_data(7)));
}

#[tokio::test(start_paused = true)]
async fn a_qdrant_that_somebody_serves_from_is_not_stopped() {
    let world = one_good();
    let launch = crate::machine::Launch { image: CONFIGURED.to_owned(), address: ENI };
    world.state().container = Some(launch.clone());
    world.run_for(&plain(), HOUR).await.unwrap_err();
    assert_eq!(world.held(), Some((Step::Start, FailureKind::Suspicious, true)));
    assert_eq!(world.state().container, Some(launch));
}

#[tokio::test(start_paused = true)]
async fn replace_needs_something_to_replace_with() {
    for bucket in [Bucket::Answers, Bucket::Denied] {
        let world = one_good();
        world.run(&plain(), None).await.unwrap().unwrap();
        world.state().backups.clear();
        world.state().bucket = bucket;
        let order = order(CONFIGURED, BootArgs { replace: true, ..BootArgs::default() });
        let error = world.run(&order, None).await.unwrap().unwrap_err();
        let kind = if bucket == Bucket::Denied {
            FailureKind::StoreUnavailable
        } else {
            FailureKind::ManifestMissing
        };
        assert_eq!(error.kind(), kind);
        assert!(world.state().record.as_ref().unwrap().marker.is_some());
        assert_eq!(world.served(), Some((id(1).to_string(), 1)));
    }
}

#[tokio::test(start_paused = true)]
async fn twenty_minutes_of_loading_are_waited_for_and_the_group_hears_of_it() {
    let world = one_good();
    world.run(&plain(), None).await.unwrap().unwrap();
    let starts = world.state().starts.len();
    let beats = world.state().heartbeats;
    world.state().container = None;
    world.state().loading = Duration::from_secs(20 * 60);
    let result = world.run(&plain(), None).await.unwrap().unwrap();
    assert_eq!(world.state().starts.len(), starts + 1, "started once");
    assert!(world.state().heartbeats - beats >= 40);
    assert_eq!((world.served(), world.state().restores), (Some((id(1).to_string(), 2)), 1));
    assert!(result.render().contains("nothing was restored"), "{}", result.render());
}

#[tokio::test(start_paused = true)]
async fn one_that_loads_for_hours_is_held_and_not_restarted() {
    let world = one_good();
    world.run(&plain(), None).await.unwrap().unwrap();
    let starts = world.state().starts.len();
    world.state().container = None;
    world.state().loading = 3 * HOUR;
    world.run_for(&plain(), 2 * HOUR).await.unwrap_err();
    assert_eq!(world.held(), Some((Step::Serve, FailureKind::QdrantUnavailable, false)));
    world.run(&plain(), None).await.unwrap().unwrap();
    assert_eq!(world.state().starts.len(), starts + 1);
    assert_eq!(world.held(), None);
}

#[tokio::test(start_paused = true)]
async fn a_qdrant_that_never_gets_ready_is_held_before_and_after_the_marker() {
    for served in [false, true] {
        let world = one_good();
        if served {
            world.run(&plain(), None).await.unwrap().unwrap();
            world.state().container = None;
        }
        world.state().dead_images.insert(CONFIGURED.to_owned());
        let data = world.state().data.clone();
        world.run_for(&plain(), HOUR).await.unwrap_err();
        let step = if served { Step::Serve } else { Step::Start };
        assert_eq!(world.held(), Some((step, FailureKind::QdrantUnavailable, false)));
        let writes = |data: Option<Data>| data.map_or(0, |data| data.writes);
        assert!(writes(world.state().data.clone()) >= writes(data), "what was written stays");
        assert_eq!(world.state().restores, u32::from(served));
        world.state().dead_images.clear();
        world.run(&plain(), None).await.unwrap().unwrap();
        assert_eq!(world.served().unwrap().0, id(1).to_string());
    }
}

#[tokio::test(start_paused = true)]
async fn a_late_address_is_waited_for_with_the_marker_set() {
    let world = one_good();
    world.state().address_at = Some(Instant::now() + 2 * HOUR);
    world.run_for(&plain(), HOUR).await.unwrap_err();
    assert_eq!(world.held(), Some((Step::Address, FailureKind::HostUnreachable, false)));
    assert!(world.state().record.clone().unwrap().marker.is_some());
    world.run(&plain(), None).await.unwrap().unwrap();
    assert_eq!((world.served().unwrap().0, world.state().restores), (id(1).to_string(), 1));
}

#[tokio::test(start_paused = true)]
async fn a_group_that_cannot_be_told_does_not_un_serve() {
    let world = one_good();
    world.state().lifecycle_fails = 3;
    let result = world.run(&plain(), None).await.unwrap().unwrap();
    assert!(result.complete() && world.state().completed == 1, "tried again");

    let world = one_good();
    world.state().lifecycle_fails = u32::MAX;
    let result = world.run(&plain(), None).await.unwrap().unwrap();
    assert!(!result.complete() && result.render().contains("NOT told"), "{}", result.render());
    assert_eq!(world.served(), Some((id(1).to_string(), 1)));
    // Who starts it again tries again, and nothing else.
    let starts = world.state().starts.len();
    let before = world.state().record.clone().unwrap();
    world.state().lifecycle_fails = 0;
    assert!(world.run(&plain(), None).await.unwrap().unwrap().complete());
    let record = world.state().record.clone().unwrap();
    assert_eq!(world.state().starts.len(), starts);
    assert_eq!(world.state().completed, 1);
    assert_eq!((record.boot_id, record.serving_at), (before.boot_id, before.serving_at));
}

#[tokio::test(start_paused = true)]
async fn a_host_that_nobody_waits_for_completes_nothing() {
    let world = one_good();
    world.state().nobody_waits = true;
    let result = world.run(&plain(), None).await.unwrap().unwrap();
    assert!(matches!(result, BootResult::Serving { lifecycle: Told::NobodyWaits, .. }));
    assert_eq!(world.state().completed, 0);
}

#[tokio::test(start_paused = true)]
async fn versions_move_one_minor_at_a_time_and_never_back() {
    let image = |version: &str| format!("qdrant/qdrant:v{version}-unprivileged");
    for (backup, configured, moves) in [
        ("1.18.3", "1.18.4", true),
        ("1.18.3", "1.19.0", true),
        ("1.18.3", "1.20.0", false),
        ("1.18.3", "1.17.4", false),
    ] {
        let world = World::new(&[(1, backup, true, Good)]);
        let wanted = order(&image(configured), BootArgs::default());
        if moves {
            world.run(&wanted, None).await.unwrap().unwrap();
            let images: Vec<String> =
                world.state().starts.iter().map(|launch| launch.image.clone()).collect();
            assert_eq!(images, [image(backup), image(configured), image(configured)]);
            continue;
        }
        world.run_for(&wanted, HOUR).await.unwrap_err();
        assert_eq!(world.held(), Some((Step::Move, FailureKind::QdrantUnsupported, true)), "{configured}");
        assert_eq!(world.state().record.clone().unwrap().stage, Stage::Restored);
        // With a setting that fits, it goes on from what is restored.
        world.run(&order(&image(backup), BootArgs::default()), None).await.unwrap().unwrap();
        assert_eq!((world.served().unwrap().0, world.state().restores), (id(1).to_string(), 1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_setting_that_is_too_far_ahead_does_not_keep_a_reboot_from_serving() {
    let world = one_good();
    world.run(&plain(), None).await.unwrap().unwrap();
    world.state().container = None;
    let result =
        world.run(&order("qdrant/qdrant:v1.20.0", BootArgs::default()), None).await.unwrap().unwrap();
    assert!(result.render().contains("cannot take its data over"), "{}", result.render());
    assert_eq!(world.state().starts.last().unwrap().image, CONFIGURED);
}

#[tokio::test(start_paused = true)]
async fn what_is_wrong_in_the_new_version_alone_holds() {
    let world = World::new(&[(1, "1.17.4", true, Good)]);
    world.state().fails_in.insert("verify".to_owned());
    world.run_for(&plain(), HOUR).await.unwrap_err();
    assert_eq!(world.held(), Some((Step::Move, FailureKind::VerificationFailed, true)));
    assert_eq!(world.served(), None);
}

#[tokio::test(start_paused = true)]
async fn a_small_disk_holds_before_anything_is_started() {
    let world = one_good();
    world.state().free_disk = false;
    world.run_for(&plain(), HOUR).await.unwrap_err();
    assert_eq!(world.held(), Some((Step::Room, FailureKind::LowDisk, false)));
    assert!(world.state().starts.is_empty());
    world.state().free_disk = true;
    world.run(&plain(), None).await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn disks_that_cannot_be_prepared_hold_with_heartbeats() {
    let world = one_good();
    world.state().fails_in.insert("prepare".to_owned());
    assert_eq!(world.run_for(&plain(), HOUR).await.unwrap_err().kind(), FailureKind::Cancelled);
    assert!(world.state().record.is_none() && world.state().heartbeats > 100);
}

#[tokio::test(start_paused = true)]
async fn a_record_of_a_later_release_is_left_alone() {
    let world = one_good();
    world.run(&plain(), None).await.unwrap().unwrap();
    let before = world.state().record.clone();
    world.state().container = None;
    world.state().fails_in.insert("record".to_owned());
    world.run_for(&plain(), HOUR).await.unwrap_err();
    assert!(world.state().container.is_none());
    assert_eq!(world.state().record, before);
}

#[tokio::test(start_paused = true)]
async fn a_marker_that_is_not_on_the_disk_is_none() {
    let world = one_good();
    world.state().save_fails_at = Some(Step::Mark);
    // The model panics where something is served without it.
    world.run(&plain(), None).await.unwrap().unwrap();
    assert_eq!(world.served(), Some((id(1).to_string(), 1)));
}

#[tokio::test(start_paused = true)]
async fn a_failed_warm_up_keeps_nobody_waiting() {
    let world = one_good();
    world.state().fails_in.insert("warm-up".to_owned());
    let result = world.run(&plain(), None).await.unwrap().unwrap();
    assert!(result.render().contains("Qdrant was not warmed up"), "{}", result.render());
}

#[tokio::test(start_paused = true)]
async fn a_second_boot_is_told_of_the_first() {
    let world = one_good();
    world.state().fails_in.insert("lock".to_owned());
    let (first, second) = (plain(), plain());
    let cancel = tokio_util::sync::CancellationToken::new();
    let running = crate::boot::boot(&world, &world, &first, &cancel);
    tokio::pin!(running);
    assert!(tokio::time::timeout(Duration::from_secs(60), &mut running).await.is_err());
    let refused = crate::boot::boot(&world, &world, &second, &cancel).await.unwrap_err();
    assert_eq!(refused.kind(), FailureKind::Busy);
    running.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_staging_host_prepares_its_disks_and_waits_for_a_drill() {
    let world = one_good();
    let order = Order { role: HostRole::Staging, ..plain() };
    let result = world.run(&order, None).await.unwrap().unwrap();
    assert!(matches!(result, BootResult::ReadyForDrill));
    assert!(world.state().starts.is_empty() && world.state().record.is_none());
}
