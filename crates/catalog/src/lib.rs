//! Manifests, pointer, success marker, listing and fallback over S3: the one home of publication.
