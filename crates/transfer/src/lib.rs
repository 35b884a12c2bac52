//! The archive codec (tar in multi-frame zstd, `docs/format.md`) and its transfer to and from an S3 store.
//!
//! * [`layout`] says where every byte of an archive is, from names and sizes alone.
//! * [`frame`] compresses and decodes one frame; [`index`] lists the frames with their hashes.
//! * [`upload()`] packs, hashes and stores an archive in one pass over its sources.
//! * [`restore_entries`] and [`check_object`] read one back and believe nothing that the index does not prove.
//! * [`concurrency`] says how much to do at once, and [`rate`] how fast, for a network that others share.
//! * [`store`] is the port to the object store: S3, and a memory store with scripted faults for tests.
//!
//! Memory is bounded by the budget in the options plus 64 MiB, in both directions and whatever the data.

pub mod concurrency;
pub mod download;
pub mod error;
pub mod frame;
pub mod index;
pub mod layout;
mod memory;
pub mod progress;
pub mod rate;
pub mod retry;
pub mod store;
pub mod upload;
mod window;

pub use download::{
    ArchiveRef, Check, Durability, Finding, Leftovers, ReadOptions, Restored, check_object, fetch_index,
    partial_path, restore_entries,
};
pub use error::Error;
pub use frame::Level;
pub use index::FrameIndex;
pub use layout::{EntrySpec, Layout};
pub use progress::{Phase, Progress};
pub use rate::Rate;
pub use retry::RetryPolicy;
pub use store::MultipartStore;
pub use upload::{Content, Geometry, Source, Threads, UploadOptions, Uploaded, abandon, upload};
