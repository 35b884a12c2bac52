//! The embedded Lambda behaves as AWS's, and fails as it is told to. Its function is this very program, with the real runtime.

#![expect(clippy::unwrap_used, reason = "the helpers of tests may panic as the tests do")]
#![expect(
    clippy::exit,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a part of this program is a function"
)]

use std::time::Duration;

use lambda_runtime::{Diagnostic, LambdaEvent, service_fn};
use localcloud::lambda::{Channel, Effect, FunctionError, FunctionOptions, Lambda, LambdaOptions};
use localcloud::serve::HttpServer;
use serde_json::{Value, json};

/// Longer than anything here takes on a busy machine.
const BOUND: Duration = Duration::from_secs(30);

/// The function that the other tests run: not a test.
#[test]
#[ignore = "it is the function that the tests run, and needs their Runtime API"]
fn bootstrap() {
    if std::env::var_os("BROKEN").is_some() {
        eprintln!("broken from the start");
        std::process::exit(4);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    if std::env::var_os("UNREADY").is_some() {
        runtime.block_on(tell_that_init_failed());
        std::process::exit(1);
    }
    runtime.block_on(lambda_runtime::run(service_fn(handle))).unwrap();
}

async fn tell_that_init_failed() {
    let api = std::env::var_os("AWS_LAMBDA_RUNTIME_API").unwrap().into_string().unwrap();
    let url = format!("http://{api}/2018-06-01/runtime/init/error");
    let body = json!({ "errorType": "ConfigInvalid", "errorMessage": "no bucket" }).to_string();
    assert_eq!(reqwest::Client::new().post(url).body(body).send().await.unwrap().status(), 202);
}

async fn handle(event: LambdaEvent<Value>) -> Result<Value, Diagnostic> {
    let (payload, context) = event.into_parts();
    let environment = || std::env::vars_os().map(|(name, _)| name.into_string().unwrap());
    match payload["do"].as_str().unwrap_or("echo") {
        "echo" => Ok(json!({ "echo": payload, "pid": std::process::id() })),
        "context" => Ok(json!({
            "arn": context.invoked_function_arn,
            "left_ms": context.deadline().duration_since(std::time::SystemTime::now()).unwrap().as_secs(),
            "memory": context.env_config.memory,
            "version": context.env_config.version,
            "environment": environment().collect::<Vec<_>>(),
        })),
        "fail" => Err(Diagnostic { error_type: "MyError".to_owned(), error_message: "as asked".to_owned() }),
        "say" => {
            println!("said {}", payload["what"]);
            eprintln!("moaned {}", payload["what"]);
            Ok(Value::Null)
        }
        "note" => {
            use std::io::Write as _;
            let path = payload["path"].as_str().unwrap();
            let mut file = fs_err::OpenOptions::new().create(true).append(true).open(path).unwrap();
            writeln!(file, "ran").unwrap();
            Ok(json!("noted"))
        }
        "exit" => {
            println!("last words");
            std::process::exit(i32::try_from(payload["code"].as_i64().unwrap()).unwrap())
        }
        "wait" => {
            let dir = std::path::Path::new(payload["dir"].as_str().unwrap());
            fs_err::File::create(dir.join(std::process::id().to_string())).unwrap();
            while !dir.join("go").exists() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            Ok(json!(std::process::id()))
        }
        other => panic!("`{other}` is unknown"),
    }
}

fn function(name: &str) -> FunctionOptions {
    FunctionOptions {
        args: ["bootstrap", "--exact", "--ignored", "--nocapture", "--quiet"].map(Into::into).to_vec(),
        timeout: 30,
        ..FunctionOptions::new(name, std::env::current_exe().unwrap())
    }
}

fn lambda() -> Lambda {
    let lambda = Lambda::start(LambdaOptions::default()).unwrap();
    lambda.add_function(function("f")).unwrap();
    lambda
}

fn alive(pid: &Value) -> bool {
    let stat = fs_err::read(format!("/proc/{pid}/stat")).unwrap_or_default();
    String::from_utf8_lossy(&stat).rsplit_once(") ").is_some_and(|(_, state)| !state.starts_with(['Z', 'X']))
}

/// Waits until something holds.
async fn until(what: &str, holds: impl Fn() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(BOUND, wait).await.unwrap_or_else(|_| panic!("{what}"));
}

#[tokio::test]
async fn an_instance_starts_once_and_is_used_again() {
    let lambda = lambda();
    let first = lambda.invoke("f", json!({ "n": 1 })).await.unwrap();
    let second = lambda.invoke(&lambda.arn("f"), json!({ "n": 2 })).await.unwrap();
    assert_eq!(first["echo"], json!({ "n": 1 }));
    assert_eq!(first["pid"], second["pid"]);
    lambda.retire("f").unwrap();
    let third = lambda.invoke("f", json!({ "n": 3 })).await.unwrap();
    assert_ne!(second["pid"], third["pid"]);
    let cold: Vec<_> = lambda.invocations("f").unwrap().iter().map(|it| it.cold_start.is_some()).collect();
    assert_eq!(cold, [true, false, true]);
    let pid = third["pid"].clone();
    assert!(alive(&pid));
    drop(lambda);
    until("the instance outlives the stand-in", || !alive(&pid)).await;
}

#[tokio::test]
async fn a_function_knows_what_lambda_tells_and_nothing_of_this_process() {
    let lambda = Lambda::start(LambdaOptions::default()).unwrap();
    let mut options = function("f");
    options.env.insert("OWN".to_owned(), "1".to_owned());
    lambda.add_function(options).unwrap();
    let told = lambda.invoke("f", json!({ "do": "context" })).await.unwrap();
    assert_eq!(told["arn"], lambda.arn("f"));
    assert_eq!((told["memory"].as_i64(), told["version"].as_str()), (Some(128), Some("$LATEST")));
    assert!(told["left_ms"].as_u64().unwrap() > 10, "{told}");
    let names: Vec<_> =
        told["environment"].as_array().unwrap().iter().map(|it| it.as_str().unwrap()).collect();
    for name in ["OWN", "AWS_REGION", "AWS_ACCESS_KEY_ID", "AWS_LAMBDA_FUNCTION_NAME", "_HANDLER"] {
        assert!(names.contains(&name), "{name} is missing: {names:?}");
    }
    assert!(!names.iter().any(|name| name.starts_with("CARGO")), "{names:?}");
}

#[tokio::test]
async fn a_failure_of_the_functions_own_has_its_own_type() {
    let lambda = lambda();
    let failed = lambda.invoke("f", json!({ "do": "fail" })).await.unwrap_err();
    assert_eq!(failed, FunctionError::new("MyError", "as asked"));
    lambda.invoke("f", json!({})).await.unwrap();
    assert_eq!(lambda.invocations("f").unwrap()[1].cold_start, None, "a failed function goes on");
}

#[tokio::test]
async fn a_function_that_ends_has_crashed() {
    let lambda = lambda();
    for (code, words) in
        [(3, "Runtime exited with error: exit status 3"), (0, "Runtime exited without providing a reason")]
    {
        let crashed = lambda.invoke("f", json!({ "do": "exit", "code": code })).await.unwrap_err();
        assert_eq!(crashed.error_type, "Runtime.ExitError");
        let id = lambda.invocations("f").unwrap().pop().unwrap().request_id;
        assert_eq!(crashed.message, format!("RequestId: {id} Error: {words}"));
    }
    assert_eq!(lambda.logs().iter().filter(|line| line.text == "last words").count(), 2);
    lambda.invoke("f", json!({})).await.unwrap();
}

#[tokio::test]
async fn a_function_that_cannot_start_fails_every_invocation() {
    let lambda = Lambda::start(LambdaOptions::default()).unwrap();
    let mut broken = function("broken");
    broken.env.insert("BROKEN".to_owned(), "1".to_owned());
    lambda.add_function(broken).unwrap();
    let mut unready = function("unready");
    unready.env.insert("UNREADY".to_owned(), "1".to_owned());
    lambda.add_function(unready).unwrap();
    let failed = lambda.invoke("unready", json!({})).await.unwrap_err();
    assert_eq!(failed, FunctionError::new("ConfigInvalid", "no bucket"));
    lambda.add_function(FunctionOptions::new("absent", "/nowhere/bootstrap")).unwrap();
    let failed = lambda.invoke("broken", json!({})).await.unwrap_err();
    assert_eq!(failed.error_type, "Runtime.ExitError");
    assert!(failed.message.ends_with("exit status 4"), "{failed}");
    assert!(lambda.logs().iter().any(|line| line.text == "broken from the start"));
    assert_eq!(lambda.invoke("absent", json!({})).await.unwrap_err().error_type, "Runtime.InvalidEntrypoint");
    let unknown = lambda.invoke("none", json!({})).await.unwrap_err();
    assert_eq!(unknown.error_type, "Lambda.ResourceNotFoundException");
}

#[tokio::test]
async fn a_function_that_takes_too_long_is_killed() {
    let options = LambdaOptions { second: Duration::from_millis(50), ..LambdaOptions::default() };
    let lambda = Lambda::start(options).unwrap();
    lambda.add_function(FunctionOptions { timeout: 3, ..function("f") }).unwrap();
    let dir = tempfile::TempDir::new().unwrap();
    let waits = json!({ "do": "wait", "dir": dir.path() });
    let late = lambda.invoke("f", waits).await.unwrap_err();
    let id = lambda.invocations("f").unwrap()[0].request_id.clone();
    let words = format!("RequestId: {id} Error: Task timed out after 3.00 seconds");
    assert_eq!(late, FunctionError::new("Sandbox.Timedout", words));
    let pid =
        fs_err::read_dir(dir.path()).unwrap().next().unwrap().unwrap().file_name().into_string().unwrap();
    assert!(!alive(&json!(pid.parse::<u32>().unwrap())));
    lambda.faults().on("f").inject(Effect::Hang);
    let hung = lambda.invoke("f", json!({})).await.unwrap_err();
    assert_eq!(hung.error_type, "Sandbox.Timedout");
    let invocations = lambda.invocations("f").unwrap();
    assert!(invocations[1].cold_start.is_some(), "the first instance was killed");
    assert!(invocations[1].duration >= Duration::from_millis(150), "{invocations:?}");
}

#[tokio::test]
async fn invocations_at_once_have_an_instance_each_up_to_the_reserved_concurrency() {
    let lambda = lambda();
    lambda.set_reserved_concurrency("f", Some(2)).unwrap();
    let dir = tempfile::TempDir::new().unwrap();
    let waits = json!({ "do": "wait", "dir": dir.path() });
    let third = async {
        until("no two instances", || fs_err::read_dir(dir.path()).unwrap().count() == 2).await;
        let throttled = lambda.invoke("f", json!({})).await.unwrap_err();
        fs_err::File::create(dir.path().join("go")).unwrap();
        throttled
    };
    let (first, second, third) =
        tokio::join!(lambda.invoke("f", waits.clone()), lambda.invoke("f", waits.clone()), third);
    assert_ne!(first.unwrap(), second.unwrap());
    assert_eq!(third.error_type, "Lambda.TooManyRequestsException");
    lambda.set_reserved_concurrency("f", Some(0)).unwrap();
    let none = lambda.invoke("f", json!({})).await.unwrap_err();
    assert_eq!(none.error_type, "Lambda.TooManyRequestsException");
}

#[tokio::test]
async fn every_line_is_kept() {
    let lambda = lambda();
    lambda.invoke("f", json!({ "do": "say", "what": 7 })).await.unwrap();
    let said = |channel, text: &str| {
        lambda.logs().iter().any(|line| line.channel == channel && line.text == text && line.function == "f")
    };
    until("the lines are missing", || said(Channel::Stdout, "said 7") && said(Channel::Stderr, "moaned 7"))
        .await;
}

#[tokio::test]
async fn faults_strike_before_and_after_the_function() {
    let lambda = lambda();
    let dir = tempfile::TempDir::new().unwrap();
    let path = dir.path().join("notes");
    let runs = || fs_err::read(&path).map_or(0, |text| text.iter().filter(|&&byte| byte == b'\n').count());
    let mine = FunctionError::new("HostUnreachable", "as scripted");
    let cases = [
        (Effect::Throttle, Err("Lambda.TooManyRequestsException"), 0),
        (Effect::ServiceError, Err("Lambda.ServiceException"), 0),
        (Effect::Fail(mine.clone()), Err("HostUnreachable"), 0),
        (Effect::FailAfter(mine), Err("HostUnreachable"), 1),
        (Effect::LoseReply, Err("Lambda.SdkClientException"), 1),
        (Effect::RunTwice, Ok(json!("noted")), 2),
    ];
    for (effect, expected, more) in cases {
        let before = runs();
        lambda.faults().on("f").inject(effect.clone());
        let result = lambda.invoke("f", json!({ "do": "note", "path": path })).await;
        let result = result.as_ref().map_err(|error| error.error_type.as_str());
        assert_eq!(result, expected.as_ref().map_err(|&name| name), "{effect:?}");
        assert_eq!(runs() - before, more, "{effect:?}");
    }
    assert_eq!(lambda.faults().unfired(), [""; 0]);
}

#[tokio::test]
async fn the_http_api_answers_as_aws() {
    let lambda = lambda();
    let server = HttpServer::start(lambda.router(), 0).unwrap();
    let client = reqwest::Client::new();
    let invoke = |function: &str, kind: &str, payload: Value| {
        let url = format!("{}/2015-03-31/functions/{function}/invocations", server.endpoint());
        let request = client.post(url).header("x-amz-invocation-type", kind).body(payload.to_string());
        async move {
            let reply = request.send().await.unwrap();
            let header = |name| reply.headers().get(name).map(|it| it.to_str().unwrap().to_owned());
            let (status, failure, code) =
                (reply.status().as_u16(), header("x-amz-function-error"), header("x-amzn-errortype"));
            (status, failure.or(code).unwrap_or_default(), reply.text().await.unwrap())
        }
    };
    let arn = lambda.arn("f").replace(':', "%3A");
    for name in ["f", &arn, "f:$LATEST"] {
        let (status, failure, body) = invoke(name, "RequestResponse", json!({ "n": 1 })).await;
        assert_eq!((status, failure.as_str()), (200, ""), "{name}");
        assert_eq!(serde_json::from_str::<Value>(&body).unwrap()["echo"], json!({ "n": 1 }));
    }
    let (status, failure, body) = invoke("f", "RequestResponse", json!({ "do": "fail" })).await;
    assert_eq!((status, failure.as_str()), (200, "Unhandled"));
    assert_eq!(body, r#"{"errorMessage":"as asked","errorType":"MyError"}"#);
    let (status, code, _) = invoke("none", "RequestResponse", json!({})).await;
    assert_eq!((status, code.as_str()), (404, "ResourceNotFoundException"));
    lambda.faults().on("f").inject(Effect::Throttle);
    let (status, code, _) = invoke("f", "RequestResponse", json!({})).await;
    assert_eq!((status, code.as_str()), (429, "TooManyRequestsException"));
    assert_eq!(invoke("f", "DryRun", json!({})).await.0, 204);

    let before = lambda.invocations("f").unwrap().len();
    assert_eq!(invoke("f", "Event", json!({ "n": 2 })).await.0, 202);
    until("the asynchronous invocation is missing", || lambda.invocations("f").unwrap().len() > before).await;

    lambda.faults().on("f").inject(Effect::LoseReply);
    let url = format!("{}/2015-03-31/functions/f/invocations", server.endpoint());
    assert!(client.post(url).body("{}").send().await.is_err());
}
