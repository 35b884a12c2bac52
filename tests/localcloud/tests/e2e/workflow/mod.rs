//! The workflow with its real parts: the shipped state machine and document, the Lambdas and the worker as processes of their own.

mod before_termination;
mod counting;
mod decisions;
mod drill;
mod drill_hosts;
mod drill_left;
mod drill_report;
mod drilling;
mod harness;
mod lambda_faults;
mod outcome;
mod publication;
mod secrets;
mod ssm_faults;
mod tokens;
mod watch;
mod whole;
mod worker_faults;
