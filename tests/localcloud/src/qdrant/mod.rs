//! The Qdrant stand-in, and the way to use a real server instead.
//!
//! [`QdrantStandIn`] is a server of its own: HTTP on the loopback, collections in memory, snapshots as files. It answers
//! like a single-node Qdrant 1.18 for the calls that a backup tool and an indexer make, with the habits of the real one
//! that matter to them: a destructive recover, snapshots that appear in three steps, jobs that outlive their client,
//! approximate counts. What a snapshot file holds is its own business; nothing outside this module reads it.
//!
//! [`Server`] is one handle for either the stand-in or a real server, chosen by stated rules.

mod aliases;
mod archive;
mod collection;
mod collections;
mod config;
mod download;
mod faults;
mod filter;
mod node;
mod operation;
mod persistence;
mod points;
mod query;
mod read;
mod real;
mod recover;
mod reply;
mod request;
mod router;
mod server;
mod service;
mod shard;
mod snapshots;
mod stand_in;
mod tamper;
mod telemetry;
mod vectors;
mod writer;

pub use faults::{Change, Condition, Damage, Fault, Faults, When};
pub use real::{Child, Container};
pub use server::{Chosen, Existing, Server, ServerOptions};
pub use service::Call;
pub use stand_in::{QdrantOptions, QdrantStandIn};
pub use writer::{Trickle, Via, Writer};

use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// A panic in one request must not make every later one fail: the data is replaced whole, never half.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

/// Lengths as they are reported: JSON knows 64 bits.
fn len_u64(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

/// A small, stable hash: the same on every machine and in every version, which `DefaultHasher` does not promise.
fn mix(mut value: u64) -> u64 {
    value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}
