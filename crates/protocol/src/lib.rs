//! What all parts of the system agree on: ids, keys, manifest, failure kinds, verdicts. No I/O, no async, no AWS.
