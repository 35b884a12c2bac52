//! The ports of functions and worker over the world: every call goes through its numbering.

use std::{collections::BTreeMap, ops::Range};

use bytes::Bytes;
use catalog::store::{Condition, Head, Listed, Object, ObjectStore, Operation, Put, PutError, StoreError};
use functions::hosts::{
    Call as HostCall, Command, CommandId, Host, Hosts, HostsError, InstanceId, Invocation, Refusal, Tag,
};
use host_worker::task::{CallbackError, Callbacks};
use jiff::Timestamp;
use protocol::{Envelope, FailureKind, TaskToken, key};
use tokio::time::sleep;
use transfer::store::{
    Crc64, MultipartStore, ObjectInfo, PendingUpload, StoreError as PartError, StoreErrorKind, StoredPart,
    UploadRef, Whole,
};

use super::{
    invariant,
    world::{Actor, Delivery, LATE, World},
};
use crate::stepfunctions::{ErrorKind, StepFunctions};

/// The bucket of the world.
pub(super) const BUCKET: &str = "backups";

/// Small objects, as the catalogue reads and writes them. It sees archives too, by their heads.
#[derive(Clone, Debug)]
pub(super) struct Documents {
    pub(super) world: World,
    pub(super) actor: Actor,
}

impl Documents {
    fn lost(operation: Operation, key: &str) -> StoreError {
        StoreError::Failed {
            operation,
            bucket: BUCKET.to_owned(),
            key: key.to_owned(),
            code: "no answer".to_owned(),
            source: "as planned".into(),
        }
    }
}

impl ObjectStore for Documents {
    async fn get(&self, key: &str, version: Option<&str>) -> Result<Option<Object>, StoreError> {
        let lost = || Err(Self::lost(Operation::Get, key));
        let perform = || self.world.documents().get(key, version);
        self.world.call(&self.actor, format!("get {key}"), perform, lost).await
    }

    async fn put(&self, key: &str, bytes: Bytes, condition: Condition) -> Result<Put, PutError> {
        let lost = || Err(PutError::Other(Self::lost(Operation::Put, key)));
        let perform = || async {
            let put = self.world.documents().put(key, bytes.clone(), condition.clone()).await;
            if put.is_ok() {
                invariant::written(&self.world, &self.actor, key);
            }
            put
        };
        if self.world.is_late() {
            let (late, key, bytes, condition) =
                (self.clone(), key.to_owned(), bytes.clone(), condition.clone());
            self.world.later(async move {
                sleep(LATE).await;
                if late.world.documents().put(&key, bytes, condition).await.is_ok() {
                    invariant::written(&late.world, &late.actor, &key);
                }
            });
        }
        self.world.call(&self.actor, format!("put {key}"), perform, lost).await
    }

    async fn head(&self, key: &str, version: Option<&str>) -> Result<Option<Head>, StoreError> {
        let lost = || Err(Self::lost(Operation::Head, key));
        let perform = || async {
            if let Ok(Some(info)) = self.world.archives().head(key, version).await {
                return Ok(Some(Head {
                    size: info.size,
                    crc64nvme: info.crc64nvme.map(|crc| crc.to_string()),
                    version_id: info.version_id,
                    etag: info.etag.unwrap_or_default(),
                    sse_kms_key_id: None,
                    metadata: info.metadata.into_iter().collect::<BTreeMap<_, _>>(),
                }));
            }
            self.world.documents().head(key, version).await
        };
        self.world.call(&self.actor, format!("head {key}"), perform, lost).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, StoreError> {
        let lost = || Err(Self::lost(Operation::List, prefix));
        let perform = || self.world.documents().list(prefix);
        self.world.call(&self.actor, format!("list {prefix}"), perform, lost).await
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        let lost = || Err(Self::lost(Operation::Now, key::POINTER));
        self.world.call(&self.actor, "ask the time", || self.world.documents().now(), lost).await
    }
}

/// Archives, as a worker writes them.
#[derive(Clone, Debug)]
pub(super) struct Archives {
    pub(super) world: World,
    pub(super) actor: Actor,
    pub(super) host: usize,
}

fn unanswered(call: &'static str) -> PartError {
    PartError::new(StoreErrorKind::Transient, call, "no answer, as planned")
}

impl MultipartStore for Archives {
    async fn create(&self, key: &str, metadata: &[(String, String)]) -> Result<UploadRef, PartError> {
        let perform = || async {
            self.world.state().begun.push((key.to_owned(), self.host));
            self.world.archives().create(key, metadata).await
        };
        let lost = || Err(unanswered("CreateMultipartUpload"));
        self.world.call(&self.actor, format!("create {key}"), perform, lost).await
    }

    async fn upload_part(
        &self,
        upload: &UploadRef,
        number: u32,
        body: Bytes,
        crc64nvme: Crc64,
    ) -> Result<StoredPart, PartError> {
        let perform = || self.world.archives().upload_part(upload, number, body.clone(), crc64nvme);
        let lost = || Err(unanswered("UploadPart"));
        self.world.call(&self.actor, format!("part {number}"), perform, lost).await
    }

    async fn list_parts(&self, upload: &UploadRef) -> Result<Vec<StoredPart>, PartError> {
        let perform = || self.world.archives().list_parts(upload);
        self.world.call(&self.actor, "list parts", perform, || Err(unanswered("ListParts"))).await
    }

    async fn complete(
        &self,
        upload: &UploadRef,
        parts: &[StoredPart],
        whole: Whole,
    ) -> Result<(), PartError> {
        let perform = || self.world.archives().complete(upload, parts, whole);
        let lost = || Err(unanswered("CompleteMultipartUpload"));
        self.world.call(&self.actor, format!("complete {}", upload.key), perform, lost).await
    }

    async fn abort(&self, upload: &UploadRef) -> Result<(), PartError> {
        let perform = || self.world.archives().abort(upload);
        let lost = || Err(unanswered("AbortMultipartUpload"));
        self.world.call(&self.actor, format!("abort {}", upload.key), perform, lost).await
    }

    async fn list_uploads(&self, prefix: &str) -> Result<Vec<PendingUpload>, PartError> {
        let perform = || self.world.archives().list_uploads(prefix);
        self.world
            .call(&self.actor, "list uploads", perform, || Err(unanswered("ListMultipartUploads")))
            .await
    }

    async fn head(&self, key: &str, version_id: Option<&str>) -> Result<Option<ObjectInfo>, PartError> {
        let perform = || self.world.archives().head(key, version_id);
        self.world.call(&self.actor, format!("head {key}"), perform, || Err(unanswered("HeadObject"))).await
    }

    async fn get_range(
        &self,
        key: &str,
        version_id: Option<&str>,
        etag: Option<&str>,
        range: Range<u64>,
        into: &mut Vec<u8>,
    ) -> Result<(), PartError> {
        // Nothing is read back from a store that keeps checksums, so that this is not numbered.
        self.world.archives().get_range(key, version_id, etag, range, into).await
    }
}

/// Systems Manager, as a function sees it.
#[derive(Clone, Debug)]
pub(super) struct Fleet {
    pub(super) world: World,
    pub(super) actor: Actor,
}

impl Fleet {
    fn lost(call: HostCall) -> HostsError {
        HostsError { call, refusal: Refusal::Transient, detail: "no answer, as planned".to_owned() }
    }

    /// The instance id of a host, by its number.
    fn id(host: usize) -> Result<InstanceId, HostsError> {
        let refusal = Refusal::Other;
        format!("i-{host:017x}").parse().map_err(|_e| HostsError {
            call: HostCall::Describe,
            refusal,
            detail: "no id".to_owned(),
        })
    }
}

impl Hosts for Fleet {
    async fn tagged(&self, _tag: &Tag) -> Result<Vec<Host>, HostsError> {
        let perform = || async {
            let id = Self::id(self.world.host())?;
            Ok(vec![Host { id, ping: "Online".to_owned() }])
        };
        let lost = || Err(Self::lost(HostCall::Describe));
        self.world.call(&self.actor, "find the host", perform, lost).await
    }

    async fn send(&self, command: &Command) -> Result<CommandId, HostsError> {
        let perform = || async {
            let host = self.world.host();
            if Self::id(host)? != command.host {
                let (call, refusal) = (HostCall::Send, Refusal::Host);
                return Err(HostsError { call, refusal, detail: "InvalidInstanceId".to_owned() });
            }
            let lookup = |name: &str| command.parameters.get(name).cloned();
            let Ok(envelope) = Envelope::from_parameters(lookup) else {
                let (call, refusal) = (HostCall::Send, Refusal::Parameters);
                return Err(HostsError { call, refusal, detail: "InvalidParameters".to_owned() });
            };
            let number = {
                let mut state = self.world.state();
                state.commands.push(None);
                state.commands.len() - 1
            };
            self.world.deliver(Delivery { host, command: number, envelope });
            Ok(CommandId::from(number.to_string()))
        };
        self.world.call(&self.actor, "send the command", perform, || Err(Self::lost(HostCall::Send))).await
    }

    async fn look(&self, command: &CommandId, _host: &InstanceId) -> Result<Option<Invocation>, HostsError> {
        let perform = || async {
            let number: usize = command.as_str().parse().unwrap_or(usize::MAX);
            let fares = self.world.state().commands.get(number).copied().flatten();
            let (status, exit_code) = match fares {
                None => ("InProgress", None),
                Some(true) => ("Success", Some(0)),
                Some(false) => ("Undeliverable", None),
            };
            let (stdout, stderr) = (String::new(), String::new());
            Ok(Some(Invocation { status: status.to_owned(), exit_code, stdout, stderr }))
        };
        self.world.call(&self.actor, "look at the command", perform, || Err(Self::lost(HostCall::Look))).await
    }
}

/// Step Functions, as a worker sees it.
#[derive(Clone, Debug)]
pub(super) struct Answers {
    pub(super) world: World,
    pub(super) actor: Actor,
    pub(super) service: StepFunctions,
}

impl Answers {
    async fn say(
        &self,
        what: &str,
        perform: impl Fn() -> Result<(), crate::stepfunctions::ApiError>,
    ) -> Result<(), CallbackError> {
        let perform = || async {
            let dead = [ErrorKind::TaskTimedOut, ErrorKind::TaskDoesNotExist, ErrorKind::InvalidToken];
            perform().map_err(|error| {
                if dead.contains(&error.kind) {
                    CallbackError::Dead { code: error.kind.to_string() }
                } else {
                    CallbackError::Unreachable { problem: error.to_string() }
                }
            })
        };
        let lost = || Err(CallbackError::Unreachable { problem: "no answer, as planned".to_owned() });
        self.world.call(&self.actor, what, perform, lost).await
    }
}

impl Callbacks for Answers {
    async fn heartbeat(&self, token: &TaskToken) -> Result<(), CallbackError> {
        self.say("heartbeat", || self.service.send_task_heartbeat(token.expose())).await
    }

    async fn success(&self, token: &TaskToken, output: &str) -> Result<(), CallbackError> {
        self.say("success", || self.service.send_task_success(token.expose(), output)).await
    }

    async fn failure(&self, token: &TaskToken, kind: FailureKind, cause: &str) -> Result<(), CallbackError> {
        let what = format!("failure {kind}");
        self.say(&what, || self.service.send_task_failure(token.expose(), Some(kind.name()), Some(cause)))
            .await
    }
}
