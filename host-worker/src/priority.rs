//! Being the last in line for CPU and disk, where the kernel keeps such a line.

use tracing::{debug, warn};

/// Lowers this thread's priority to `nice` (0 leaves it alone, 19 is the lowest), and with it that of every thread that it starts. To be
/// called before there are others, since a priority belongs to a thread.
///
/// That is the I/O priority, too: as long as nobody gave a thread one of its own, Linux derives it from the niceness, `(nice + 20) / 5` of the eight
/// best-effort levels (`ioprio_set(2)`).
///
/// A process that was started with a still lower priority keeps that. What cannot be set is no reason not to do the work.
pub(crate) fn lower(nice: u8) {
    let wanted = i32::from(nice);
    match rustix::process::getpriority_process(None) {
        Ok(now) if now >= wanted => debug!(now, wanted, "the priority stays as it is"),
        Ok(_) => {
            if let Err(error) = rustix::process::setpriority_process(None, wanted) {
                warn!(%error, nice, "the priority cannot be lowered");
            }
        }
        Err(error) => warn!(%error, "the priority cannot be read, and stays as it is"),
    }
}
