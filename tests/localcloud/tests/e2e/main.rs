//! The product as a user has it: the worker as a child process, a bucket over the wire, a Qdrant over the wire.

mod harness;
mod main_job;
