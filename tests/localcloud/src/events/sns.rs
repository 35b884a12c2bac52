//! The embedded SNS: topics that remember what was published, for a state machine's `sns:publish`.

use std::collections::BTreeSet;
use std::sync::Mutex;

use serde::Deserialize;
use serde_json::{Value, json};

use super::lock;
use crate::script::Script;

/// The largest message, in bytes, and the longest subject, in characters.
const LARGEST_MESSAGE: usize = 256 * 1024;
const LONGEST_SUBJECT: usize = 100;

/// The topics and what was published.
#[derive(Debug, Default)]
pub struct Sns {
    topics: Mutex<BTreeSet<String>>,
    messages: Mutex<Vec<Message>>,
    faults: Script<String, SnsEffect>,
}

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its id.
    pub id: String,
    /// The topic's ARN.
    pub topic: String,
    /// The subject of mails.
    pub subject: Option<String>,
    /// What subscribers read.
    pub text: String,
}

/// What happens to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SnsEffect {
    /// `SNS.InternalErrorException`; nothing is published.
    InternalError,
    /// `SNS.SnsException`, as throttling and whatever has no name of its own; nothing is published.
    Refused,
    /// The message is published, and the caller does not hear of it: `SNS.SdkClientException`.
    LoseReply,
}

/// Why a message was not published, as Step Functions names it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{error_type}: {message}")]
pub struct SnsError {
    /// The name that `ErrorEquals` compares.
    pub error_type: String,
    /// What a person reads.
    pub message: String,
}

impl SnsError {
    fn new(name: &str, message: impl Into<String>) -> Self {
        Self { error_type: format!("SNS.{name}Exception"), message: message.into() }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Publish {
    topic_arn: String,
    subject: Option<String>,
    message: Value,
}

impl Sns {
    /// Makes a topic.
    pub fn add_topic(&self, arn: &str) {
        lock(&self.topics).insert(arn.to_owned());
    }

    /// The script of faults, by the topic's ARN.
    #[must_use]
    pub fn faults(&self) -> &Script<String, SnsEffect> {
        &self.faults
    }

    /// Every message so far.
    #[must_use]
    pub fn messages(&self) -> Vec<Message> {
        lock(&self.messages).clone()
    }

    /// Publishes a message and answers its id.
    ///
    /// # Errors
    /// As a state machine sees them: no such topic, a message that is not allowed, or a scripted fault.
    pub fn publish(&self, topic: &str, subject: Option<&str>, text: &str) -> Result<String, SnsError> {
        let invalid = |why: &str| Err(SnsError::new("InvalidParameter", format!("Invalid parameter: {why}")));
        let effect = self.faults.strike(&topic.to_owned());
        match effect {
            Some(SnsEffect::InternalError) => {
                return Err(SnsError::new("InternalError", "the service failed, as scripted"));
            }
            Some(SnsEffect::Refused) => return Err(SnsError::new("Sns", "Rate exceeded")),
            Some(SnsEffect::LoseReply) | None => {}
        }
        if text.is_empty() {
            return invalid("Empty message");
        }
        if text.len() > LARGEST_MESSAGE {
            return invalid("Message too long");
        }
        if subject.is_some_and(|subject| !is_subject(subject)) {
            return invalid("Subject");
        }
        if !lock(&self.topics).contains(topic) {
            return Err(SnsError::new("NotFound", "Topic does not exist"));
        }
        let id = uuid::Uuid::new_v4().to_string();
        lock(&self.messages).push(Message {
            id: id.clone(),
            topic: topic.to_owned(),
            subject: subject.map(str::to_owned),
            text: text.to_owned(),
        });
        match effect {
            Some(SnsEffect::LoseReply) => Err(SnsError::new("SdkClient", "the connection was dropped")),
            Some(SnsEffect::InternalError | SnsEffect::Refused) | None => Ok(id),
        }
    }

    /// The task `arn:aws:states:::sns:publish` with its `Parameters`. A message that is no text is published as its JSON.
    ///
    /// # Errors
    /// As [`Sns::publish`]; a parameter that is not known here is refused too.
    pub fn task(&self, parameters: &Value) -> Result<Value, SnsError> {
        let publish = Publish::deserialize(parameters)
            .map_err(|error| SnsError::new("InvalidParameter", format!("Invalid parameter: {error}")))?;
        let text = match publish.message {
            Value::String(text) => text,
            other
            @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
                other.to_string()
            }
        };
        let id = self.publish(&publish.topic_arn, publish.subject.as_deref(), &text)?;
        Ok(json!({ "MessageId": id }))
    }
}

/// SNS takes printable ASCII, and not for long.
fn is_subject(subject: &str) -> bool {
    (1..=LONGEST_SUBJECT).contains(&subject.len())
        && subject.chars().all(|c| c == ' ' || c.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOPIC: &str = "arn:aws:sns:us-east-1:000000000000:alerts";

    fn sns() -> Sns {
        let sns = Sns::default();
        sns.add_topic(TOPIC);
        sns
    }

    #[test]
    fn a_task_publishes_texts_and_objects() {
        let sns = sns();
        let told = sns.task(&json!({ "TopicArn": TOPIC, "Subject": "failed", "Message": "why" })).unwrap();
        sns.task(&json!({ "TopicArn": TOPIC, "Message": { "a": 1 } })).unwrap();
        let messages = sns.messages();
        assert_eq!(told["MessageId"], json!(messages[0].id));
        assert_eq!((messages[0].subject.as_deref(), messages[0].text.as_str()), (Some("failed"), "why"));
        assert_eq!((messages[1].subject.as_deref(), messages[1].text.as_str()), (None, r#"{"a":1}"#));
    }

    #[test]
    fn what_sns_does_not_take_is_refused() {
        let sns = sns();
        let cases = [
            (json!({ "TopicArn": "arn:other", "Message": "x" }), "SNS.NotFoundException"),
            (json!({ "TopicArn": TOPIC, "Message": "" }), "SNS.InvalidParameterException"),
            (json!({ "TopicArn": TOPIC, "Message": "x".repeat(262_145) }), "SNS.InvalidParameterException"),
            (
                json!({ "TopicArn": TOPIC, "Message": "x", "Subject": "a\nb" }),
                "SNS.InvalidParameterException",
            ),
            (
                json!({ "TopicArn": TOPIC, "Message": "x", "Subject": "a".repeat(101) }),
                "SNS.InvalidParameterException",
            ),
            (json!({ "TopicArn": TOPIC, "Message": "x", "Topic": "" }), "SNS.InvalidParameterException"),
        ];
        for (parameters, expected) in cases {
            assert_eq!(sns.task(&parameters).unwrap_err().error_type, expected);
        }
        assert_eq!(sns.messages(), []);
    }

    #[test]
    fn faults_strike_as_often_as_said() {
        let sns = sns();
        sns.faults().on(TOPIC).times(2).inject(SnsEffect::InternalError);
        sns.faults().on(TOPIC).nth(3).inject(SnsEffect::Refused);
        sns.faults().on(TOPIC).nth(4).inject(SnsEffect::LoseReply);
        let names: Vec<_> = (0..5)
            .map(|_| {
                sns.publish(TOPIC, None, "x")
                    .map_or_else(|error| error.error_type, |_| "published".to_owned())
            })
            .collect();
        let expected = [
            "SNS.InternalErrorException",
            "SNS.InternalErrorException",
            "SNS.SnsException",
            "SNS.SdkClientException",
            "published",
        ];
        assert_eq!(names, expected);
        assert_eq!(sns.messages().len(), 2, "a lost reply is no lost message");
    }
}
