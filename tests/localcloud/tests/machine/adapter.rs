//! One call of an adapter, as a process.

use std::net::IpAddr;

use host_worker::{
    config::{Config, Settings},
    machine::{Addresses as _, Container as _, Disks as _, Launch, Lifecycle as _, Machine},
};
use serde_json::{Value, json};

/// The variable that says what to do.
pub(crate) const ACT: &str = "ACT";
/// The variable that names the settings file.
pub(crate) const SETTINGS: &str = "SETTINGS";
/// The variable that is set where systemd is to own the container.
pub(crate) const SYSTEMD: &str = "SYSTEMD";
/// What the line begins with that holds the result.
pub(crate) const RESULT: &str = "result: ";

/// The adapter that the other tests run: not a test.
#[test]
#[ignore = "it is the process that the tests run, and needs their environment"]
fn adapter() {
    let act = std::env::var_os(ACT).unwrap().into_string().unwrap();
    let settings = fs_err::read_to_string(std::env::var_os(SETTINGS).unwrap()).unwrap();
    let config =
        Config::new(Settings { detached: true, ..Settings::default() }, Some(&settings), None).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    println!("{RESULT}{}", runtime.block_on(call(&config, &act)));
}

async fn call(config: &Config, act: &str) -> Value {
    let machine = match Machine::of(config, std::env::var_os(SYSTEMD).is_none()).await {
        Ok(machine) => machine,
        Err(error) => panic!("the settings cannot be used: {error}"),
    };
    let words: Vec<&str> = act.split(' ').collect();
    let done = match words.as_slice() {
        ["prepare"] => machine.prepare().await.map(|prepared| json!(prepared)),
        ["running"] => machine.running().await.map(|running| json!(running)),
        ["start", image, address] => {
            let address = address.parse().unwrap();
            machine.start(&Launch { image: (*image).to_owned(), address }).await.map(|()| Value::Null)
        }
        ["stop"] => machine.stop().await.map(|()| Value::Null),
        ["heartbeat"] => machine.heartbeat().await.map(|waits| json!(waits)),
        ["complete"] => machine.complete().await.map(|()| Value::Null),
        ["has", address] => Ok(json!(machine.has(address.parse::<IpAddr>().unwrap()))),
        other => panic!("{other:?} is nothing that an adapter does"),
    };
    match done {
        Ok(value) => json!({ "done": value }),
        Err(error) => json!({ "hint": error.hint(), "error": format!("{:#}", anyhow::Error::from(error)) }),
    }
}
