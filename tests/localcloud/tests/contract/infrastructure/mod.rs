//! The templates agree with each other, and with the programs, state machines and documents that they deploy.

mod host;
mod observability;
mod parameters;
mod stacks;
mod template;
mod workflow;
