//! Deterministic point ids, so that a batch that is indexed twice overwrites itself (`docs/clients.md`).
//!
//! The id is a UUID: the first 16 bytes of `SHA-256(doc_id ‖ 0x00 ‖ chunk_index)` as they are, where `doc_id` is UTF-8 and
//! `chunk_index` is written in ASCII decimal digits without padding. The zero byte keeps `("a", 11)` and `("a1", 1)` apart; a
//! `doc_id` must therefore hold no zero byte. No version or variant bits are set: all 128 bits are the hash's.

use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::id::PointId;

/// The name of this scheme in a success marker.
pub const SCHEME: &str = "sha256-16(doc_id\\0chunk_index)";

/// A `doc_id` holds a zero byte, which the scheme uses as its separator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the document id {0:?} holds a zero byte, which separates it from the chunk index")]
pub struct InvalidDocId(String);

/// The id of chunk `chunk_index` of document `doc_id`.
pub fn point_id(doc_id: &str, chunk_index: u64) -> Result<PointId, InvalidDocId> {
    if doc_id.as_bytes().contains(&0) {
        return Err(InvalidDocId(doc_id.to_owned()));
    }
    let digest =
        Sha256::new().chain_update(doc_id).chain_update([0]).chain_update(chunk_index.to_string()).finalize();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    Ok(PointId::Uuid(Uuid::from_bytes(bytes)))
}

/// Document, chunk and the id they give: what another implementation must reproduce (also in `docs/clients.md`).
pub const TEST_VECTORS: [(&str, u64, &str); 5] = [
    ("", 0, "db3426e8-7806-8d28-d269-b6c87172322c"),
    ("a", 11, "dd047463-fa68-8597-6b56-c33d8e7d8291"),
    ("a1", 1, "fddf4895-92c7-c7e0-a73a-79685e6e418b"),
    ("handbook/backup.md", 0, "61346229-4735-b9ac-2bd4-5eaae9074de2"),
    ("Zażółć gęślą jaźń", 18_446_744_073_709_551_615, "5bc5bd60-c4d9-d098-e181-c880b6f07e07"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_test_vectors_hold() {
        for (doc_id, chunk_index, expected) in TEST_VECTORS {
            assert_eq!(
                point_id(doc_id, chunk_index).unwrap().to_string(),
                expected,
                "{doc_id:?} {chunk_index}"
            );
        }
    }

    #[test]
    fn a_zero_byte_cannot_forge_another_document() {
        assert!(point_id("a\u{0}1", 1).is_err());
    }
}
