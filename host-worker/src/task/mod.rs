//! Tasks of the workflow: handed over by SSM, done on this host, answered to Step Functions.
//!
//! ```text
//! SSM agent ─▶ host-worker dispatch ─▶ inbox (on the disk) ─▶ host-worker task ─▶ deliver ─▶ work
//!                                                                                  │  └─ watch: heartbeats, newer tokens, stalls
//!                                                                                  └──▶ Step Functions
//! ```
//!
//! Every way out ends in an acknowledged answer, or in a non-zero exit and heartbeats that stop.

use std::process::ExitCode;

use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::{cli::TaskArgs, config::Config, error::Error};

mod callback;
mod deliver;
mod dispatch;
mod inbox;
mod job;
mod timing;
mod watch;
mod work;

pub use callback::{CallbackError, Callbacks, MAX_OUTPUT, StepFunctions};
pub use deliver::{Delivered, Host, deliver};
pub use dispatch::{Dispatched, dispatch};
pub use inbox::{Inbox, Offer, forget_old, read_envelope};
pub use job::Job;
pub use timing::Timing;
pub use work::{Failure, Work};

/// The process that `dispatch` starts: sees to the envelope in a file. Its exit code is 0 when there is nothing left to do for anybody.
pub async fn run(config: Config, args: &TaskArgs, cancel: CancellationToken) -> Result<ExitCode, Error> {
    let Some(envelope) = read_envelope(&args.envelope)? else {
        info!("the task was answered already");
        return Ok(ExitCode::SUCCESS);
    };
    let host = Host {
        work_dir: config.work_dir(),
        callbacks: StepFunctions::new(&config).await,
        timing: Timing::STANDARD.divided_by(config.time_divisor()),
        work: Job::new(config),
        cancel,
    };
    let delivered = deliver(&host, &envelope).await;
    info!(task = %envelope.task, execution = %envelope.execution, ?delivered, "the envelope is seen to");
    Ok(match delivered {
        Delivered::Done | Delivered::HandedOver | Delivered::Outdated => ExitCode::SUCCESS,
        Delivered::Failed(kind) => ExitCode::from(kind.exit_code()),
        Delivered::Expired => ExitCode::FAILURE,
    })
}
