//! How scripts run, and how they end.

use localcloud::ssm::{Presence, State};

use super::*;

#[tokio::test]
async fn the_exit_code_is_the_outcome() {
    let bench = Bench::new();
    bench.document("fails", 60, &["echo out", "echo err >&2", "exit 3"]);
    bench.document("goes on", 60, &["false", "echo after"]);
    bench.document("killed", 60, &["kill -9 $$"]);
    bench.document("bash", 60, &["#!/bin/bash", "[[ $0 == */_script.sh ]] && echo bash"]);
    let ended = bench.ended(&bench.send("fails").await).await;
    assert_eq!((ended.state, ended.response_code), (State::Failed, 3));
    assert_eq!(
        (ended.stdout.as_str(), ended.stderr.as_str()),
        ("out\n", "err\nfailed to run commands: exit status 3")
    );
    let ended = bench.ended(&bench.send("goes on").await).await;
    assert_eq!((ended.state, ended.stdout.as_str()), (State::Success, "after\n"), "there is no `set -e`");
    let ended = bench.ended(&bench.send("killed").await).await;
    assert_eq!((ended.state, ended.response_code), (State::Failed, -1));
    let ended = bench.ended(&bench.send("bash").await).await;
    assert_eq!((ended.state, ended.stdout.as_str()), (State::Success, "bash\n"), "{}", ended.stderr);
}

#[tokio::test]
async fn nothing_has_been_said_before_the_end_and_the_code_is_minus_one() {
    let bench = Bench::new();
    bench.document("waits", 60, &["echo early; touch $OUT/up; while [ ! -e $OUT/go ]; do sleep 0.01; done"]);
    let id = bench.send("waits").await;
    bench.reached(&id, |invocation| invocation.state == State::InProgress).await;
    let client = bench.client();
    let get = || client.get_command_invocation().command_id(&id).instance_id(HOST).send();
    assert_eq!(code(get().await), "InvocationDoesNotExist");
    let running = get().await.unwrap();
    assert_eq!(running.status_details(), Some("InProgress"));
    assert_eq!((running.response_code(), running.standard_output_content()), (-1, Some("")));
    fs_err::write(bench.out(HOST).join("go"), "").unwrap();
    assert_eq!(bench.ended(&id).await.stdout, "early\n");
}

#[tokio::test]
async fn long_output_is_cut_at_the_limits_of_the_agent() {
    let bench = Bench::new();
    let many = "head -c 24000 /dev/zero | tr '\\0' a";
    bench.document("exact", 60, &[many]);
    bench.document("long", 60, &[many, "echo", "head -c 9000 /dev/zero | tr '\\0' b >&2"]);
    let ended = bench.ended(&bench.send("exact").await).await;
    assert_eq!(ended.stdout, "a".repeat(24_000));
    let ended = bench.ended(&bench.send("long").await).await;
    assert_eq!((ended.stdout.len(), ended.stderr.len()), (24_000, 8_000));
    assert!(
        ended.stdout.ends_with("a--output truncated--") && ended.stderr.ends_with("b--output truncated--")
    );
}

/// Starts a child in the script's group and one with a session of its own, says who they are, and goes on for ever.
const FAMILY: &[&str] = &[
    "sleep 1000 & echo $! > $OUT/child",
    "setsid sh -c 'echo $$ > $OUT/detached; exec sleep 1000' &",
    "echo $$ > $OUT/self",
    "while [ ! -s $OUT/detached ]; do sleep 0.01; done",
    "echo > $OUT/up",
    "wait",
];

async fn family(bench: &Bench) -> [String; 3] {
    bench.written("up").await;
    [bench.written("self").await, bench.written("child").await, bench.written("detached").await]
}

#[tokio::test]
async fn a_time_out_kills_the_group_and_not_what_has_detached_itself() {
    // Long enough for the family to be there, and a time-out of the document nevertheless.
    let bench = Bench::with(SsmOptions { second: Duration::from_millis(300), ..SsmOptions::default() });
    bench.document("family", 10, FAMILY);
    let id = bench.send("family").await;
    let [script, child, detached] = family(&bench).await;
    let ended = bench.ended(&id).await;
    assert_eq!((ended.state, ended.response_code), (State::ExecutionTimedOut, 137));
    assert_eq!((ended.state.status(), ended.state.details()), ("TimedOut", "ExecutionTimedOut"));
    died(&script).await;
    died(&child).await;
    assert!(alive(&detached));
    assert_eq!(bench.ssm.kill_all_processes(HOST).unwrap(), 1);
    died(&detached).await;
}

#[tokio::test]
async fn a_cancel_kills_what_runs_and_keeps_from_running_what_waits() {
    let bench = Bench::new();
    bench.document("family", 60, FAMILY);
    let running = bench.send("family").await;
    let [script, child, detached] = family(&bench).await;
    bench.ssm.set_presence(HOST, Presence::ConnectionLost).unwrap();
    let waiting = bench.send("family").await;
    for id in [&running, &waiting] {
        bench.client().cancel_command().command_id(id).send().await.unwrap();
    }
    assert_eq!(bench.ended(&waiting).await.response_code, -1);
    let ended = bench.ended(&running).await;
    assert_eq!((ended.state, ended.response_code), (State::Cancelled, 137));
    died(&script).await;
    died(&child).await;
    assert!(alive(&detached));
    bench.ssm.set_presence(HOST, Presence::Online).unwrap();
    let last = bench.ended(&waiting).await;
    assert_eq!((last.state, last.runs.len()), (State::Cancelled, 0));
    bench.client().cancel_command().command_id(&running).send().await.unwrap();
    assert_eq!(bench.ended(&running).await.state, State::Cancelled, "what has ended stays as it is");
    bench.ssm.remove_host(HOST).unwrap();
    assert_eq!(bench.ssm.kill_everything(), 1, "also of a host that is not known any more");
    died(&detached).await;
    assert_eq!(code(bench.client().cancel_command().command_id("none").send().await), "InvalidCommandId");
}

#[tokio::test]
async fn nothing_outlives_the_stand_in_but_what_has_detached_itself() {
    let bench = Bench::new();
    bench.document("family", 60, FAMILY);
    bench.document("leaves", 60, &["sleep 1000 >/dev/null 2>&1 & echo $! > $OUT/left"]);
    bench.send("family").await;
    let [script, child, detached] = family(&bench).await;
    assert_eq!(bench.ended(&bench.send("leaves").await).await.state, State::Success);
    let left = bench.written("left").await;
    assert!(alive(&left), "the agent does not look after what an ended script leaves behind");
    let Bench { ssm, server, dir } = bench;
    drop(server);
    drop(ssm);
    for pid in [&script, &child, &left] {
        assert!(!alive(pid), "{pid}");
    }
    assert!(alive(&detached));
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(detached.trim().parse().unwrap()).unwrap(),
        rustix::process::Signal::KILL,
    )
    .unwrap();
    drop(dir);
}

#[tokio::test]
async fn exit_code_194_restarts_the_machine_and_runs_the_script_again() {
    let bench = Bench::new();
    bench.document(
        "reboots",
        60,
        &[
            "[ -e $OUT/once ] && { echo again; exit 0; }",
            "setsid sh -c 'echo $$ > $OUT/detached; exec sleep 1000' &",
            "while [ ! -s $OUT/detached ]; do sleep 0.01; done",
            "echo > $OUT/once",
            "exit 194",
        ],
    );
    let ended = bench.ended(&bench.send("reboots").await).await;
    assert_eq!((ended.state, ended.stdout.as_str()), (State::Success, "again\n"));
    let codes: Vec<_> = ended.runs.iter().map(|run| run.exit_code).collect();
    assert_eq!(codes, [Some(194), Some(0)]);
    assert_eq!(bench.ssm.reboots(HOST).unwrap(), 1);
    assert!(!alive(&bench.written("detached").await), "no process survives a restart");
}

#[tokio::test]
async fn a_host_runs_five_commands_at_once() {
    let bench = Bench::new();
    bench.document("waits", 60, &["while [ ! -e $OUT/go ]; do sleep 0.01; done"]);
    let mut ids = Vec::new();
    for _ in 0..6 {
        ids.push(bench.send("waits").await);
    }
    let states = || {
        let count = |wanted| {
            let commands = bench.ssm.commands();
            commands.iter().filter(|command| command.invocations[0].state == wanted).count()
        };
        (count(State::InProgress), count(State::Pending))
    };
    let five = async {
        while states() != (5, 1) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    assert!(tokio::time::timeout(BOUND, five).await.is_ok(), "{:?}", states());
    fs_err::write(bench.out(HOST).join("go"), "").unwrap();
    for id in &ids {
        assert_eq!(bench.ended(id).await.state, State::Success);
    }
}
