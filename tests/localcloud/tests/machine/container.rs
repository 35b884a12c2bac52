//! Qdrant's container: where it is published, what it is given, and how it fails to start.

use std::{
    net::{Ipv4Addr, TcpListener},
    os::unix::fs::PermissionsExt as _,
    time::{Duration, Instant},
};

use localcloud::docker::Effect;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::host::{Host, IMAGE, KEY};

impl Host {
    /// What a Qdrant at this address says to somebody with this key, once it answers.
    async fn asked(&self, address: &str, key: Option<&str>) -> StatusCode {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let mut request = client.get(format!("http://{address}:{}/collections", self.port));
            if let Some(key) = key {
                request = request.header("api-key", key);
            }
            match request.send().await {
                Ok(response) => return response.status(),
                Err(error) => assert!(Instant::now() < deadline, "it does not answer: {error}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn listens(&self, address: Ipv4Addr) -> bool {
        std::net::TcpStream::connect((address, self.port)).is_ok()
    }
}

fn launch(image: &str, address: &str) -> Value {
    json!({ "image": image, "address": address })
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_published_where_it_is_asked_for_and_nowhere_else() {
    let host = Host::without_disks().await;
    assert_eq!(host.done("running").await, Value::Null);
    host.done("stop").await;
    host.done(&format!("start {IMAGE} 127.0.0.1")).await;
    // The process that started it has ended.
    assert_eq!(host.done("running").await, launch(IMAGE, "127.0.0.1"));
    assert_eq!(host.asked("127.0.0.1", Some(KEY)).await, StatusCode::OK);
    assert_eq!(host.asked("127.0.0.1", None).await, StatusCode::UNAUTHORIZED);
    assert!(!host.listens(Ipv4Addr::new(127, 0, 0, 2)));

    // Another version at another address takes its place.
    let newer = "qdrant/qdrant:v1.19.0-unprivileged";
    host.done(&format!("start {newer} 127.0.0.2")).await;
    assert_eq!(host.done("running").await, launch(newer, "127.0.0.2"));
    assert_eq!(host.asked("127.0.0.2", Some(KEY)).await, StatusCode::OK);
    assert!(!host.listens(Ipv4Addr::LOCALHOST));

    for _ in 0..2 {
        host.done("stop").await;
        assert_eq!(host.done("running").await, Value::Null);
        assert!(!host.listens(Ipv4Addr::new(127, 0, 0, 2)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn its_keys_are_on_no_command_line_and_in_no_log() {
    let host = Host::without_disks().await;
    host.done(&format!("start {IMAGE} 127.0.0.1")).await;
    let file = host.environment_file().display().to_string();
    let lines: Vec<String> = fs_err::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| fs_err::read(entry.ok()?.path().join("cmdline")).ok())
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .collect();
    assert!(lines.iter().any(|line| line.starts_with("docker run") && line.contains(&file)), "{lines:?}");
    assert!(!lines.iter().any(|line| line.contains(KEY)));
    let log = fs_err::read_to_string(host.workspace().join("backups/qdrant.log")).unwrap();
    assert!(!log.contains(KEY), "{log}");
    host.done("stop").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_is_not_there_is_named_and_what_runs_goes_on() {
    let host = Host::without_disks().await;
    host.done(&format!("start {IMAGE} 127.0.0.1")).await;
    let absent = "qdrant/qdrant:v1.17.0-unprivileged";
    host.docker.remove_image(absent);
    let (error, hint) = host.fails(&format!("start {absent} 127.0.0.1")).await;
    assert_eq!(error, format!("the image `{absent}` is not on this host"));
    assert!(hint.contains("docker load --input") && hint.contains(absent), "{hint}");
    assert_eq!(host.done("running").await, launch(IMAGE, "127.0.0.1"));
    host.done("stop").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_ends_at_once_has_not_started() {
    let host = Host::without_disks().await;
    host.docker.effects().on(IMAGE).inject(Effect::Exits(101));
    let (error, _) = host.fails(&format!("start {IMAGE} 127.0.0.1")).await;
    assert!(error.starts_with(&format!("Qdrant (`{IMAGE}`, on 127.0.0.1) did not start: ")), "{error}");
    assert_eq!(host.done("running").await, Value::Null);
    host.done(&format!("start {IMAGE} 127.0.0.1")).await;
    host.done("stop").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_loads_is_running_before_it_answers() {
    let host = Host::without_disks().await;
    host.docker.effects().on(IMAGE).inject(Effect::NeverReady);
    host.done(&format!("start {IMAGE} 127.0.0.1")).await;
    assert_eq!(host.done("running").await, launch(IMAGE, "127.0.0.1"));
    assert!(!host.listens(Ipv4Addr::LOCALHOST));
    host.done("stop").await;
    assert_eq!(host.done("running").await, Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_is_taken_and_an_address_that_is_not_there_are_told() {
    let host = Host::without_disks().await;
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, host.port)).unwrap();
    let (error, hint) = host.fails(&format!("start {IMAGE} 127.0.0.1")).await;
    assert!(error.contains("driver failed programming external connectivity"), "{error}");
    assert!(hint.contains("ss --listening"), "{hint}");
    drop(taken);
    assert_eq!(host.done("has 192.0.2.15").await, false);
    let (error, hint) = host.fails(&format!("start {IMAGE} 192.0.2.15")).await;
    assert!(error.contains("on 192.0.2.15) did not start"), "{error}");
    assert!(hint.contains("is 192.0.2.15 this machine's"), "{hint}");
    assert_eq!(host.done("has 127.0.0.1").await, true);
    host.done(&format!("start {IMAGE} 127.0.0.1")).await;
    host.done("stop").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_without_protected_keys_is_not_started() {
    let host = Host::without_disks().await;
    let file = host.environment_file();
    fs_err::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    let (error, _) = host.fails(&format!("start {IMAGE} 127.0.0.1")).await;
    assert!(error.contains("mode 0644") && error.contains("chmod 0600"), "{error}");
    fs_err::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    fs_err::write(&file, "QDRANT__SERVICE_API_KEY=typed-wrongly\n").unwrap();
    let (error, _) = host.fails(&format!("start {IMAGE} 127.0.0.1")).await;
    assert!(error.contains("open to everybody") && !error.contains("typed-wrongly"), "{error}");
    assert_eq!(host.docker.started(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_does_not_answer_is_not_taken_for_nothing_runs() {
    let mut host = Host::without_disks().await;
    host.done(&format!("start {IMAGE} 127.0.0.1")).await;
    let engine = std::mem::replace(&mut host.engine, "http://127.0.0.1:1".to_owned());
    for act in ["running", "stop", &format!("start {IMAGE} 127.0.0.1")] {
        let (error, _) = host.fails(act).await;
        assert!(error.starts_with("`docker "), "{act}: {error}");
    }
    host.engine = engine;
    assert_eq!(host.done("running").await, launch(IMAGE, "127.0.0.1"));
    host.done("stop").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_to_start_again_after_a_power_cut() {
    let host = Host::without_disks().await;
    host.done(&format!("start {IMAGE} 127.0.0.1")).await;
    host.docker.power_cut().await;
    assert_eq!(host.done("running").await, Value::Null);
    host.done(&format!("start {IMAGE} 127.0.0.2")).await;
    assert_eq!(host.done("running").await, launch(IMAGE, "127.0.0.2"));
    host.done("stop").await;
}
