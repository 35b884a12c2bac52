//! Clocks, and what one run of one row found.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// What one run of one row found. Rows leave out what they do not measure.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Sample {
    /// User and system time of the process and of the children that it waited for, in seconds.
    pub(crate) cpu_s: f64,
    /// Elapsed time in seconds.
    pub(crate) wall_s: f64,
    /// Bytes that went through, before compression: what CPU time is divided by.
    pub(crate) raw_bytes: u64,
    /// The size of the object, in bytes.
    pub(crate) object_bytes: Option<u64>,
    /// The peak of resident memory (VmHWM) of the process, in bytes.
    pub(crate) peak_rss: Option<u64>,
    /// What its options allowed it to hold in buffers, in bytes.
    pub(crate) budget: Option<u64>,
    /// Bytes of parts that the store got more than once.
    pub(crate) repeated_bytes: Option<u64>,
    /// The most bytes of parts that were in flight at once.
    pub(crate) in_flight_bytes: Option<u64>,
}

/// Whose CPU time is counted.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Scope {
    /// The calling thread's.
    Thread,
    /// All threads' of the process.
    Process,
}

/// Adds up the time between `start` and `stop`.
#[derive(Debug)]
pub(crate) struct Stopwatch {
    scope: Scope,
    cpu: Duration,
    wall: Duration,
}

impl Stopwatch {
    pub(crate) fn new(scope: Scope) -> Self {
        Self { scope, cpu: Duration::ZERO, wall: Duration::ZERO }
    }

    /// Runs `work` against the clock.
    pub(crate) fn time<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let (cpu, wall) = (cpu_time(self.scope), Instant::now());
        let result = work();
        self.cpu += cpu_time(self.scope).saturating_sub(cpu);
        self.wall += wall.elapsed();
        result
    }

    pub(crate) fn sample(&self, raw_bytes: u64) -> Sample {
        let (cpu_s, wall_s) = (self.cpu.as_secs_f64(), self.wall.as_secs_f64());
        Sample { cpu_s, wall_s, raw_bytes, ..Sample::default() }
    }
}

fn cpu_time(scope: Scope) -> Duration {
    let clock = match scope {
        Scope::Thread => ClockId::ThreadCPUTime,
        Scope::Process => ClockId::ProcessCPUTime,
    };
    let time = clock_gettime(clock);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or_default(),
        u32::try_from(time.tv_nsec).unwrap_or_default(),
    )
}

/// The CPU time of this process since it started, in seconds.
pub(crate) fn own_cpu() -> f64 {
    cpu_time(Scope::Process).as_secs_f64()
}

/// The CPU time of the children that were waited for, and of theirs, in seconds. It is counted in hundredths.
pub(crate) fn children_cpu() -> anyhow::Result<f64> {
    let stat = fs_err::read_to_string("/proc/self/stat")?;
    // The name in parentheses may hold anything; the fields after it are numbers. These are the 16th and 17th of all.
    let fields: Vec<&str> =
        stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_ascii_whitespace().collect();
    let ticks = |field: usize| fields.get(field - 3).and_then(|text| text.parse::<f64>().ok());
    let ticks = ticks(16).zip(ticks(17)).context("read /proc/self/stat")?;
    Ok((ticks.0 + ticks.1) / rustix::param::clock_ticks_per_second() as f64)
}

/// The peak of this process's resident memory, in bytes.
pub(crate) fn peak_rss() -> anyhow::Result<u64> {
    let status = fs_err::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    Ok(kib.context("read /proc/self/status")? << 10)
}

/// The middle one of `values`; of an even number, the mean of the middle two.
pub(crate) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    let lower = values[(values.len() - 1) / 2];
    Some(f64::midpoint(lower, upper))
}
