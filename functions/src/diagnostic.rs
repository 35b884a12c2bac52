//! How Step Functions is told of a failure: the kind as `errorType`, by which it branches; the causes and the hint as `errorMessage`, for a person, on one line.

use lambda_runtime::Diagnostic;
use protocol::failure;

use crate::Error;

/// What is reported to Step Functions has at most this many bytes. It goes into the history and into a notification, for which 256 KiB is the end.
pub const MAX_MESSAGE: usize = 8 << 10;

impl From<&Error> for Diagnostic {
    fn from(error: &Error) -> Self {
        let mut message = chain(error);
        // The hint is what helps most, so that a long message gives way to it.
        let hint = error.hint().map(|hint| format!("; hint: {hint}")).unwrap_or_default();
        truncate(&mut message, MAX_MESSAGE.saturating_sub(hint.len()));
        message.push_str(&hint);
        truncate(&mut message, MAX_MESSAGE);
        Self { error_type: error.kind().name().to_owned(), error_message: message }
    }
}

impl From<Error> for Diagnostic {
    fn from(error: Error) -> Self {
        Self::from(&error)
    }
}

/// An error and its sources on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    failure::chain(error).replace(['\n', '\r'], " ")
}

/// Cuts a text off at `max` bytes, and says so.
pub(crate) fn truncate(text: &mut String, max: usize) {
    if text.len() > max {
        let end = text.floor_char_boundary(max.saturating_sub('…'.len_utf8()));
        text.truncate(end);
        text.push('…');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_diagnostic_has_the_kind_the_causes_and_the_hint_on_one_line() {
        let bucket = "b".to_owned();
        let diagnostic = Diagnostic::from(Error::NoMarker { bucket, key: "k".to_owned() });
        assert_eq!(diagnostic.error_type, "IndexingIncomplete");
        assert_eq!(
            diagnostic.error_message,
            "there is no success marker `s3://b/k`; hint: the indexing job writes it when a batch is done (docs/clients.md); `\"trigger\":\"console\"` backs up without it"
        );
        let source = protocol::SuccessMarker::from_json(b"{").unwrap_err();
        let source = catalog::Error::MarkerInvalid { key: "k".to_owned(), source };
        let diagnostic = Diagnostic::from(Error::Catalog(source));
        assert_eq!(diagnostic.error_type, "IndexingIncomplete");
        assert!(
            diagnostic
                .error_message
                .starts_with("the success marker `k` cannot be used: the success marker is not the JSON")
        );
    }

    #[test]
    fn a_long_message_gives_way_to_its_hint() {
        let failed = vec![format!("{} is wrong", "ü".repeat(9000)), "\n".to_owned()];
        let error = Error::NotProved { backup: "20261123T051400Z".parse().unwrap(), failed };
        let Diagnostic { error_message, .. } = Diagnostic::from(&error);
        assert!(error_message.len() <= MAX_MESSAGE, "{}", error_message.len());
        assert!(error_message.ends_with(&error.hint().unwrap()), "{error_message}");
        assert!(error_message.contains('…') && !error_message.contains('\n'));
    }
}
