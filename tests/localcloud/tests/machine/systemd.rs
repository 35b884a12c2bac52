//! Qdrant's container as a unit of systemd, which three small scripts stand in for.

use std::os::unix::fs::PermissionsExt as _;

use localcloud::docker::Effect;
use serde_json::{Value, json};

use crate::host::{Host, IMAGE};

/// Starts what follows `--`, and knows how that has ended.
const RUN: &str = r#"#!/bin/sh
echo "$*" >> "$0.calls"
while [ "$1" != -- ]; do shift; done
shift
echo "ActiveState=active SubState=running" > "$0.state"
( "$@" || echo "ActiveState=activating SubState=auto-restart" > "$0.state" ) > "$0.journal" 2>&1 < /dev/null &
"#;

/// Knows one unit, and none that was stopped.
const CONTROL: &str = r#"#!/bin/sh
run="${0%/*}/systemd-run"
case "$1" in
  show) /bin/cat "$run.state" 2> /dev/null || echo "ActiveState=inactive SubState=dead" ;;
  stop)
    [ -e "$run.state" ] || { echo "Failed to stop qdrant.service: Unit qdrant.service not loaded." >&2; exit 5; }
    docker stop qdrant > /dev/null 2>&1
    /bin/rm "$run.state" ;;
esac
"#;

const JOURNAL: &str = r#"#!/bin/sh
/bin/cat "${0%/*}/systemd-run.journal"
echo "the journal's last line"
"#;

async fn host() -> Host {
    let mut host = Host::without_disks().await;
    host.systemd = true;
    for (name, script) in [("systemd-run", RUN), ("systemctl", CONTROL), ("journalctl", JOURNAL)] {
        let path = host.bin().join(name);
        fs_err::write(&path, script).unwrap();
        fs_err::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    host
}

#[tokio::test(flavor = "multi_thread")]
async fn the_unit_requires_the_mount_and_is_stopped_before_another_is_started() {
    let host = host().await;
    // There is no unit yet.
    host.done("stop").await;
    for address in ["127.0.0.1", "127.0.0.2"] {
        host.done(&format!("start {IMAGE} {address}")).await;
        assert_eq!(host.done("running").await, json!({ "image": IMAGE, "address": address }));
    }
    let calls = fs_err::read_to_string(host.bin().join("systemd-run.calls")).unwrap();
    let mount = format!("--property=RequiresMountsFor={} -- docker run --rm", host.workspace().display());
    assert_eq!(calls.matches(&mount).count(), 2, "{calls}");
    for _ in 0..2 {
        host.done("stop").await;
        assert_eq!(host.done("running").await, Value::Null);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unit_that_fails_is_told_by_its_journal_and_left_to_nobody() {
    let host = host().await;
    host.docker.effects().on(IMAGE).inject(Effect::Exits(101));
    let (error, _) = host.fails(&format!("start {IMAGE} 127.0.0.1")).await;
    assert!(error.contains("did not start: ") && error.ends_with("the journal's last line"), "{error}");
    assert!(!host.bin().join("systemd-run.state").exists(), "systemd would start it again");
    host.done(&format!("start {IMAGE} 127.0.0.1")).await;
    host.done("stop").await;
}
