//! The embedded Auto Scaling, as far as an instance of a group talks to it, and the instance metadata service that tells an instance who it is.
//!
//! A state machine calls the same group by its SDK integration ([`AutoScaling::task`]).
//!
//! Not there: groups, launches and terminations by themselves, signatures, and every other action.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::{
    Form, Router,
    extract::{Path, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post, put},
};

use serde_json::{Value, json};

use crate::{
    script::Script,
    serve::{DropConnection, HttpServer},
    stepfunctions::TaskError,
};

/// The token that the metadata service gives, and wants back.
const TOKEN: &str = "localcloud-imds-token";

/// The services.
#[derive(Debug)]
pub struct AutoScaling {
    shared: Arc<Shared>,
    server: HttpServer,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<Group>,
    effects: Script<String, Effect>,
}

#[derive(Debug, Default)]
struct Group {
    /// The one instance of the group, and how far the group is with it.
    instance: Option<(String, Standing)>,
    calls: Vec<String>,
}

/// How far the group is with its instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// `Pending`: the hook has not begun.
    Pending,
    /// `Pending:Wait`.
    Waiting,
    /// `InService`.
    InService,
    /// `Terminating:Wait`.
    Terminating,
    /// `Terminating:Proceed`: nobody waits for the instance any more.
    Gone,
}

impl Standing {
    /// The name of the state.
    fn name(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Waiting => "Pending:Wait",
            Self::InService => "InService",
            Self::Terminating => "Terminating:Wait",
            Self::Gone => "Terminating:Proceed",
        }
    }

    /// What comes after the hook that is waited for, by the hook's name: none where no hook is.
    fn after(self, hook: &str) -> Option<Self> {
        match (self, hook) {
            (Self::Waiting, AutoScaling::HOOK) => Some(Self::InService),
            (Self::Terminating, AutoScaling::LAST_HOOK) => Some(Self::Gone),
            _ => None,
        }
    }
}

/// What happens to a call, scripted by its action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// `AccessDenied`.
    Denied,
    /// 503, as when the service is not well.
    Unavailable,
    /// It is done, and nobody hears of it.
    LoseReply,
    /// The hook's time-out ended the action before this call.
    Over,
}

impl AutoScaling {
    /// The group's name.
    pub const GROUP: &str = "qdrant";
    /// The launch hook's name.
    pub const HOOK: &str = "restored";
    /// The terminate hook's name.
    pub const LAST_HOOK: &str = "last-backup";

    /// Starts the services.
    pub fn start() -> anyhow::Result<Self> {
        let shared = Arc::<Shared>::default();
        let router = Router::new()
            .route("/", post(act))
            .route(
                "/latest/api/token",
                put(async || ([("x-aws-ec2-metadata-token-ttl-seconds", "21600")], TOKEN)),
            )
            .route("/latest/meta-data/{*path}", get(metadata))
            .with_state(Arc::clone(&shared));
        Ok(Self { shared, server: HttpServer::start(router, 0)? })
    }

    /// Of the API and of the metadata service.
    pub fn endpoint(&self) -> String {
        self.server.endpoint()
    }

    /// Makes this the group's instance.
    pub fn set(&self, instance: &str, standing: Standing) {
        lock(&self.shared.state).instance = Some((instance.to_owned(), standing));
    }

    /// How far the group is with its instance.
    pub fn standing(&self) -> Option<Standing> {
        lock(&self.shared.state).instance.as_ref().map(|(_, standing)| *standing)
    }

    /// The actions that were called, in order.
    pub fn calls(&self) -> Vec<String> {
        lock(&self.shared.state).calls.clone()
    }

    /// Faults, by action.
    pub fn effects(&self) -> &Script<String, Effect> {
        &self.shared.effects
    }

    /// Carries out `aws-sdk:autoscaling:ACTION`. Its model names no error that is raised here, so that the SDK has one exception for all of them.
    pub fn task(&self, action: &str, parameters: &Value) -> Result<Value, TaskError> {
        let runtime =
            |problem: String| TaskError::new("States.Runtime", format!("autoscaling:{action}: {problem}"));
        let (name, known): (_, &[&str]) = match action {
            "recordLifecycleActionHeartbeat" => ("RecordLifecycleActionHeartbeat", &IDENTIFYING),
            "completeLifecycleAction" => ("CompleteLifecycleAction", &COMPLETING),
            _ => return Err(runtime("the embedded cloud does not have it".to_owned())),
        };
        let mut form = BTreeMap::new();
        for (field, value) in
            parameters.as_object().ok_or_else(|| runtime("parameters must be an object".to_owned()))?
        {
            let Some(text) = value.as_str().filter(|_| known.contains(&field.as_str())) else {
                return Err(runtime(format!("`{field}` is not supported, or is no text")));
            };
            form.insert(field.clone(), text.to_owned());
        }
        match call(&self.shared, name, &form) {
            Outcome::Done(_) => Ok(json!({})),
            Outcome::Refused { status, message, .. } => {
                let request = uuid::Uuid::new_v4();
                Err(TaskError::new(
                    "AutoScaling.AutoScalingException",
                    format!(
                        "{message} (Service: AutoScaling, Status Code: {}, Request ID: {request})",
                        status.as_u16()
                    ),
                ))
            }
            Outcome::Unheard => Err(TaskError::new(
                "AutoScaling.SdkClientException",
                "Unable to execute HTTP request: Connection reset",
            )),
        }
    }
}

/// What names a lifecycle action.
const IDENTIFYING: [&str; 3] = ["AutoScalingGroupName", "LifecycleHookName", "InstanceId"];
/// The same, and how it ends.
const COMPLETING: [&str; 4] =
    ["AutoScalingGroupName", "LifecycleHookName", "InstanceId", "LifecycleActionResult"];

/// What a call comes to.
enum Outcome {
    /// What is in the result.
    Done(String),
    Refused {
        status: StatusCode,
        code: &'static str,
        message: String,
    },
    /// It is done, and nobody hears of it.
    Unheard,
}

async fn metadata(
    State(shared): State<Arc<Shared>>,
    Path(path): Path<String>,
    headers: HeaderMap,
) -> Response {
    if headers.get("x-aws-ec2-metadata-token").is_none_or(|token| token != TOKEN) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let state = lock(&shared.state);
    match (path.as_str(), &state.instance) {
        ("instance-id", Some((instance, _))) => instance.clone().into_response(),
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn act(State(shared): State<Arc<Shared>>, Form(form): Form<BTreeMap<String, String>>) -> Response {
    let action = form.get("Action").cloned().unwrap_or_default();
    match call(&shared, &action, &form) {
        Outcome::Done(result) => xml(
            StatusCode::OK,
            format!(
                "<{action}Response xmlns=\"http://autoscaling.amazonaws.com/doc/2011-01-01/\"><{action}Result>{result}</{action}Result></{action}Response>"
            ),
        ),
        Outcome::Refused { status, code, message } => refused(status, code, &message),
        Outcome::Unheard => DropConnection::response(),
    }
}

fn call(shared: &Shared, action: &str, form: &BTreeMap<String, String>) -> Outcome {
    let field = |name: &str| form.get(name).map_or("", String::as_str);
    let refused =
        |status, code, message: &str| Outcome::Refused { status, code, message: message.to_owned() };
    let effect = shared.effects.strike(&action.to_owned());
    let mut state = lock(&shared.state);
    state.calls.push(action.to_owned());
    match effect {
        Some(Effect::Denied) => {
            return refused(StatusCode::FORBIDDEN, "AccessDenied", "not authorized to perform this");
        }
        Some(Effect::Unavailable) => {
            return refused(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", "try again");
        }
        Some(Effect::Over) => {
            if let Some((_, standing)) = &mut state.instance {
                let terminating = matches!(standing, Standing::Terminating | Standing::Gone);
                *standing = if terminating { Standing::Gone } else { Standing::InService };
            }
        }
        Some(Effect::LoseReply) | None => {}
    }
    let result = match action {
        "DescribeAutoScalingInstances" => described(&state, field("InstanceIds.member.1")),
        "RecordLifecycleActionHeartbeat" | "CompleteLifecycleAction" => {
            let ours = field("AutoScalingGroupName") == AutoScaling::GROUP
                && (action.starts_with('R') || field("LifecycleActionResult") == "CONTINUE");
            let waits =
                state.instance.as_mut().filter(|(instance, _)| ours && instance == field("InstanceId"));
            let next = waits.as_ref().and_then(|(_, standing)| standing.after(field("LifecycleHookName")));
            let (Some((_, standing)), Some(next)) = (waits, next) else {
                let message =
                    format!("No active Lifecycle Action found with instance ID {}", field("InstanceId"));
                return refused(StatusCode::BAD_REQUEST, "ValidationError", &message);
            };
            if action.starts_with('C') {
                *standing = next;
            }
            String::new()
        }
        other => return refused(StatusCode::BAD_REQUEST, "InvalidAction", &format!("no action {other}")),
    };
    if effect == Some(Effect::LoseReply) { Outcome::Unheard } else { Outcome::Done(result) }
}

fn described(state: &Group, asked: &str) -> String {
    let members = match &state.instance {
        Some((instance, standing)) if instance == asked => {
            let standing = standing.name();
            format!(
                "<member><InstanceId>{instance}</InstanceId><AutoScalingGroupName>{}</AutoScalingGroupName><AvailabilityZone>us-east-1a</AvailabilityZone><LifecycleState>{standing}</LifecycleState><HealthStatus>HEALTHY</HealthStatus><ProtectedFromScaleIn>false</ProtectedFromScaleIn></member>",
                AutoScaling::GROUP
            )
        }
        _ => String::new(),
    };
    format!("<AutoScalingInstances>{members}</AutoScalingInstances>")
}

fn refused(status: StatusCode, code: &str, message: &str) -> Response {
    xml(
        status,
        format!(
            "<ErrorResponse xmlns=\"http://autoscaling.amazonaws.com/doc/2011-01-01/\"><Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error><RequestId>localcloud</RequestId></ErrorResponse>"
        ),
    )
}

fn xml(status: StatusCode, body: String) -> Response {
    (status, [(header::CONTENT_TYPE, "text/xml")], body).into_response()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
