//! The workflow with its real parts: the shipped state machine and document, the Lambdas and the worker as processes of their own.

mod harness;
mod tokens;
mod whole;
mod worker_faults;
