//! The doorstep of all functions: the Lambda runtime, the clients of AWS, the clock and the log.

use std::{
    future::poll_fn,
    io::Write,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    process::ExitCode,
    task::Poll,
    time::Duration,
};

use aws_config::timeout::TimeoutConfig;
use catalog::{Catalog, store::S3};
use jiff::Timestamp;
use lambda_runtime::{Diagnostic, LambdaEvent, service_fn};
use protocol::failure::panic_text;
use serde_json::Value;
use tracing_subscriber::{
    filter::{LevelFilter, Targets},
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

use crate::{
    Error, Function, Reply, Settings,
    config::{self, DEFAULT_NAMESPACE},
    diagnostic::chain,
    emf::{self, Metric},
    event::token_of,
    handle,
    redact::redact,
    report,
};

/// Documents are small and commands are short: whatever takes longer has failed. A dispatch makes four calls beside the time that it looks at its command, and a
/// function is given two minutes.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(6);
const CALL_TIMEOUT: Duration = Duration::from_secs(20);

/// Serves the calls of one function, as long as AWS Lambda wants it to.
pub fn run(function: Function) -> ExitCode {
    start_log();
    if !config::is_in_lambda() {
        tracing::error!(
            function = function.name(),
            "this program is started by AWS Lambda, which sets AWS_LAMBDA_RUNTIME_API"
        );
        return ExitCode::from(2);
    }
    let served = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(lambda_runtime::Error::from)
        .and_then(|runtime| runtime.block_on(serve(function)));
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(
                function = function.name(),
                error = chain(error.as_ref()),
                "the Lambda runtime fails"
            );
            ExitCode::FAILURE
        }
    }
}

/// Our own lines as the settings say; of others only what they warn of, for in their finer levels they write down requests with the tokens in them.
fn start_log() {
    let level = config::log_level();
    let targets = Targets::new()
        .with_default(level.min(LevelFilter::WARN))
        .with_target("functions", level)
        .with_target("catalog", level)
        // Only a span, with the id of the request.
        .with_target("lambda_runtime::layers::trace", LevelFilter::INFO)
        // What it says of a failed call is said here already.
        .with_target("lambda_runtime::layers::panic", LevelFilter::OFF);
    let lines = tracing_subscriber::fmt::layer().json().flatten_event(true).with_current_span(false);
    // Where one process runs several functions in turn, as in tests, the first has started it.
    let _started_before = tracing_subscriber::registry().with(targets).with(lines).try_init();
}

async fn serve(function: Function) -> Result<(), lambda_runtime::Error> {
    // Wrong settings are told to whoever calls, by kind: a process that ends instead looks like a fault of AWS, and is retried.
    let ready = Ready::from_env().await;
    let answer = |event: LambdaEvent<Value>| answer(function, &ready, event.payload);
    lambda_runtime::run(service_fn(answer)).await
}

/// What a function needs beside an event.
struct Ready {
    settings: Settings,
    catalog: Catalog<S3>,
    hosts: aws_sdk_ssm::Client,
}

impl Ready {
    /// Builds the clients; calls nobody yet.
    async fn from_env() -> Result<Self, Error> {
        let settings = Settings::from_env()?;
        let limits = TimeoutConfig::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .operation_attempt_timeout(ATTEMPT_TIMEOUT)
            .operation_timeout(CALL_TIMEOUT)
            .build();
        let shared = aws_config::from_env().timeout_config(limits).load().await;
        let s3 = aws_sdk_s3::config::Builder::from(&shared)
            // Stores of one's own seldom answer to bucket names as host names.
            .force_path_style(shared.endpoint_url().is_some())
            .build();
        let store = S3::new(aws_sdk_s3::Client::from_conf(s3), settings.bucket());
        let catalog = Catalog::new(store, settings.bucket(), settings.layout().clone());
        Ok(Self { hosts: aws_sdk_ssm::Client::new(&shared), settings, catalog })
    }
}

async fn answer(function: Function, ready: &Result<Ready, Error>, event: Value) -> Result<Value, Diagnostic> {
    let now = Timestamp::now();
    let Ready { settings, catalog, hosts } = match ready {
        Ok(ready) => ready,
        Err(error) => {
            report(function, error);
            return Err(failed(function, DEFAULT_NAMESPACE, now, error));
        }
    };
    let token = token_of(&event).to_owned();
    // On the heap: the futures of four functions inside each other are deeper than the compiler looks.
    let call = Box::pin(handle(function, settings, catalog, hosts, event, now));
    let outcome = unwinding(call).await.unwrap_or_else(|panic| {
        let error = Error::Panicked { function: function.name(), message: redact(&panic, &token) };
        report(function, &error);
        Err(error)
    });
    match outcome {
        Ok(Reply { body, metrics, properties }) => {
            let properties: Vec<(&'static str, &str)> =
                properties.iter().map(|(name, value)| (*name, value.as_str())).collect();
            write(emf::line(settings.namespace(), function.name(), now, &metrics, &properties));
            Ok(body)
        }
        Err(error) => Err(failed(function, settings.namespace(), now, &error)),
    }
}

/// Counts a failure; what remains is what Step Functions is told.
fn failed(function: Function, namespace: &str, now: Timestamp, error: &Error) -> Diagnostic {
    let kind = error.kind().name();
    let failures = [Metric::count("Failures", 1)];
    write(emf::line(namespace, function.name(), now, &failures, &[("FailureKind", kind)]));
    Diagnostic::from(error)
}

/// Metrics are lines of the log.
fn write(line: Option<String>) {
    if let Some(line) = line {
        // Without a standard output there is nobody to tell.
        let _nobody_reads = writeln!(std::io::stdout(), "{line}");
    }
}

/// The outcome of a future, or what it panicked with: the runtime would call that by the name of a Rust type, which no state machine can match.
async fn unwinding<T>(future: impl Future<Output = T>) -> Result<T, String> {
    let mut future = pin!(future);
    poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
        Ok(poll) => poll.map(Ok),
        Err(panic) => Poll::Ready(Err(panic_text(panic.as_ref()).to_owned())),
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_told_by_kind() {
        assert_eq!(unwinding(async { 1 }).await, Ok(1));
        let panics = async { panic!("at {}", 7) };
        assert_eq!(unwinding::<()>(panics).await, Err("at 7".to_owned()));
    }

    #[tokio::test]
    async fn wrong_settings_are_told_to_whoever_calls() {
        let ready = Err(Error::SettingMissing { name: "QDRANT_BACKUP_BUCKET" });
        for _again in 0..2 {
            let diagnostic = answer(Function::QuiesceCheck, &ready, Value::Null).await.unwrap_err();
            assert_eq!(diagnostic.error_type, "ConfigInvalid");
            assert!(diagnostic.error_message.contains("QDRANT_BACKUP_BUCKET"), "{diagnostic:?}");
        }
    }
}
