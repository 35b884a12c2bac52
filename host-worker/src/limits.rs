//! How much memory moving an archive may take.

use crate::error::Error;

/// What 21 parts of 16 MiB in flight and the frames behind them need: enough for the 15 Gbit/s of a c8gd.4xlarge (`docs/benchmarks`).
const WANTED: u64 = 512 << 20;
/// Qdrant wants the memory: without a word from a person, at most this share of what is available is taken.
const SHARE: u64 = 8;
/// Below this nothing moves at a useful rate; `transfer` refuses what is less than one part and one frame anyway.
const LEAST: u64 = 96 << 20;

/// The budget in bytes: `chosen`, or what the network needs within an eighth of the available memory.
pub(crate) fn memory_budget(chosen: Option<u64>) -> Result<u64, Error> {
    if let Some(chosen) = chosen {
        return Ok(chosen);
    }
    let text = fs_err::read_to_string("/proc/meminfo")
        .map_err(|source| Error::Local { what: "read how much memory is available".to_owned(), source })?;
    let available = available(&text).unwrap_or(WANTED * SHARE);
    Ok((available / SHARE).clamp(LEAST, WANTED))
}

/// `MemAvailable` of `/proc/meminfo` in bytes.
fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_person_says_is_taken_as_it_is() {
        assert_eq!(memory_budget(Some(7)).unwrap(), 7);
    }

    #[test]
    fn the_default_leaves_the_memory_to_qdrant() {
        assert_eq!(available("MemTotal:  1 kB\nMemAvailable:    2048 kB\n"), Some(2 << 20));
        let budget = memory_budget(None).unwrap();
        assert!((LEAST..=WANTED).contains(&budget), "{budget}");
    }
}
