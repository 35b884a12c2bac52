//! The port to the hosts that do the work: which there are, sending one a command, and how the command fares.
//!
//! It has only the calls that a dispatch makes. The client of AWS Systems Manager is one implementation; `Memory` (feature `test-support`) behaves like it in
//! memory.

use std::{collections::BTreeMap, fmt, str::FromStr};

use protocol::Envelope;
use serde::{Deserialize, Serialize};

#[cfg(feature = "test-support")]
mod memory;

#[cfg(feature = "test-support")]
pub use memory::{Memory, Plan, Sent};

/// The hosts of one account and region.
pub trait Hosts: Send + Sync {
    /// The hosts that carry a tag and have ever been known, online or not.
    fn tagged(&self, tag: &Tag) -> impl Future<Output = Result<Vec<Host>, HostsError>> + Send;

    /// Hands a command to a host. Nothing makes two calls one: whoever calls again sends again.
    fn send(&self, command: &Command) -> impl Future<Output = Result<CommandId, HostsError>> + Send;

    /// How a command fares; `None` as long as it is not known yet.
    fn look(
        &self,
        command: &CommandId,
        host: &InstanceId,
    ) -> impl Future<Output = Result<Option<Invocation>, HostsError>> + Send;
}

/// A tag that a host carries, as `key=value`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tag {
    key: String,
    value: String,
}

impl Tag {
    /// Its key.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Its value.
    pub fn value(&self) -> &str {
        &self.value
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.key, self.value)
    }
}

impl FromStr for Tag {
    type Err = InvalidTag;

    fn from_str(text: &str) -> Result<Self, InvalidTag> {
        match text.split_once('=') {
            Some((key, value)) if !key.trim().is_empty() && !value.trim().is_empty() => {
                Ok(Self { key: key.to_owned(), value: value.to_owned() })
            }
            _ => Err(InvalidTag(text.to_owned())),
        }
    }
}

/// The text is not a tag.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a tag as `key=value`")]
pub struct InvalidTag(String);

/// A host as Systems Manager names it: `i-` or `mi-` and 8 to 17 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct InstanceId(String);

impl InstanceId {
    /// The id as AWS spells it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for InstanceId {
    type Err = InvalidInstanceId;

    fn from_str(text: &str) -> Result<Self, InvalidInstanceId> {
        let digits = text.strip_prefix("i-").or_else(|| text.strip_prefix("mi-"));
        let hexadecimal = |digits: &str| {
            (8..=17).contains(&digits.len()) && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        };
        if digits.is_some_and(hexadecimal) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidInstanceId(text.to_owned()))
        }
    }
}

impl TryFrom<String> for InstanceId {
    type Error = InvalidInstanceId;

    fn try_from(text: String) -> Result<Self, InvalidInstanceId> {
        text.parse()
    }
}

impl From<InstanceId> for String {
    fn from(id: InstanceId) -> Self {
        id.0
    }
}

/// The text is not the id of an instance.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not the id of an instance, as i-0123456789abcdef0")]
pub struct InvalidInstanceId(String);

/// A host that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Which.
    pub id: InstanceId,
    /// Whether its agent answers, in the words of Systems Manager: `Online`, `ConnectionLost`, `Inactive`.
    pub ping: String,
}

impl Host {
    /// Whether a command would reach it.
    pub fn is_online(&self) -> bool {
        self.ping == "Online"
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.id, self.ping)
    }
}

/// What is sent to a host. Among the parameters is a token, so they are not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Command {
    /// The document that says what is run.
    pub document: String,
    /// The host.
    pub host: InstanceId,
    /// What a person sees in the list of commands, of at most [`Self::MAX_COMMENT`] bytes.
    pub comment: String,
    /// The document's parameters.
    pub parameters: BTreeMap<&'static str, String>,
}

impl Command {
    /// How long a comment may be.
    pub const MAX_COMMENT: usize = 100;

    /// What people are to see of a task.
    pub fn comment(envelope: &Envelope) -> String {
        let mut comment = format!("{} of {}", envelope.task, envelope.execution);
        // All of it is ASCII, by the rules of both.
        comment.truncate(Self::MAX_COMMENT);
        comment
    }
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Command")
            .field("document", &self.document)
            .field("host", &self.host)
            .field("comment", &self.comment)
            .finish_non_exhaustive()
    }
}

/// A command that was sent.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CommandId(String);

impl From<String> for CommandId {
    fn from(id: String) -> Self {
        Self(id)
    }
}

impl CommandId {
    /// The id as AWS spells it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CommandId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How a command fares on its host. The outputs are empty until it has ended, and may hold anything.
#[derive(Clone, PartialEq, Eq)]
pub struct Invocation {
    /// `StatusDetails`, or `Status` where there are none, as Systems Manager spells it.
    pub status: String,
    /// The exit code of the script, once it has run.
    pub exit_code: Option<i32>,
    /// What the script wrote to its standard output.
    pub stdout: String,
    /// What the script wrote to its standard error.
    pub stderr: String,
}

impl fmt::Debug for Invocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Invocation")
            .field("status", &self.status)
            .field("exit_code", &self.exit_code)
            .finish_non_exhaustive()
    }
}

/// Which call failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Call {
    /// [`Hosts::tagged`].
    Describe,
    /// [`Hosts::send`].
    Send,
    /// [`Hosts::look`].
    Look,
}

impl Call {
    /// The call, in terms of AWS, which is the IAM action too.
    pub fn action(self) -> &'static str {
        match self {
            Self::Describe => "ssm:DescribeInstanceInformation",
            Self::Send => "ssm:SendCommand",
            Self::Look => "ssm:GetCommandInvocation",
        }
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.action())
    }
}

/// What kind of answer a failed call got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// The host cannot be given a command now.
    Host,
    /// The caller has no permission.
    Access,
    /// The document or its version is not there, or does not fit the host.
    Document,
    /// The document does not take these parameters.
    Parameters,
    /// Throttled, a fault of the service, or no answer.
    Transient,
    /// Anything else.
    Other,
}

/// A call gave no usable answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{call} fails: {detail}")]
pub struct HostsError {
    /// The call.
    pub call: Call,
    /// What kind of answer it got.
    pub refusal: Refusal,
    /// The code and the message, or why there is no answer.
    pub detail: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_and_ids_have_one_spelling() {
        for good in ["Role=qdrant", "a:b/c=x=y"] {
            assert_eq!(good.parse::<Tag>().unwrap().to_string(), good);
        }
        for bad in ["", "Role", "=qdrant", "Role=", " = "] {
            assert!(bad.parse::<Tag>().is_err(), "{bad}");
        }
        for good in ["i-0123456789abcdef0", "i-01234567", "mi-0123456789abcdef0"] {
            assert_eq!(good.parse::<InstanceId>().unwrap().to_string(), good);
        }
        for bad in [
            "",
            "i-",
            "i-0123456",
            "i-0123456789abcdef01",
            "i-0123456789ABCDEF0",
            "x-01234567",
            "i-01234567 ",
        ] {
            assert!(bad.parse::<InstanceId>().is_err(), "{bad}");
        }
    }
}
