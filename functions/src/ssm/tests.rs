use super::*;

#[test]
fn every_answer_of_systems_manager_has_a_meaning() {
    for (code, status, expected) in [
        (Some("InvalidInstanceId"), Some(400), Refusal::Host),
        (Some("AccessDeniedException"), Some(400), Refusal::Access),
        (Some("InvalidDocument"), Some(400), Refusal::Document),
        (Some("InvalidDocumentVersion"), Some(400), Refusal::Document),
        (Some("InvalidParameters"), Some(400), Refusal::Parameters),
        (Some("ThrottlingException"), Some(400), Refusal::Transient),
        (Some("InternalServerError"), Some(500), Refusal::Transient),
        (None, Some(503), Refusal::Transient),
        (None, None, Refusal::Transient),
        (Some("ValidationException"), Some(400), Refusal::Other),
        (None, Some(404), Refusal::Other),
    ] {
        assert_eq!(classify(code, status), expected, "{code:?} {status:?}");
    }
}
