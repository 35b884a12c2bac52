//! How much moving an archive does at once, in how much memory, and what that allows: decided once, and told.

use std::{fmt, path::Path, thread::available_parallelism};

use serde::Serialize;
use transfer::concurrency::{self, REQUEST_RATE};

use crate::{
    bandwidth::{BandwidthLimit, NetworkBandwidth, Rate},
    config::{ByteSize, Config},
    error::Error,
    network::Network,
};

/// Qdrant wants the memory: without a word from a person, at most this share of what is available is taken.
const SHARE: u64 = 8;
/// Below this nothing moves at a useful rate; `transfer` refuses what is less than one part and one frame anyway.
const LEAST: u64 = 96 << 20;

/// What a command asks for.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wish {
    /// About how many raw bytes the archive has; 0 for one of ordinary size. Very large ones have larger parts.
    pub(crate) raw_bytes: u64,
    /// Requests in flight.
    pub(crate) concurrency: Option<u32>,
    /// Bytes per second.
    pub(crate) bandwidth_limit: Option<BandwidthLimit>,
}

/// How much is done at once, and what that allows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Limits {
    network: Network,
    /// Requests in flight that are wanted.
    #[serde(skip)]
    pub(crate) wanted: usize,
    /// Requests in flight that the budget holds.
    in_flight: usize,
    /// Threads that pack.
    #[serde(skip)]
    pub(crate) packers: usize,
    /// Bytes of buffers.
    #[serde(rename = "memory_budget_bytes")]
    pub(crate) budget: u64,
    /// What the lowest of the bounds is.
    binds: Binds,
    /// What it allows, in bytes per second; the disk and the CPU may allow less.
    #[serde(rename = "allowed_bytes_per_second")]
    pub(crate) allowed: u64,
}

/// What keeps a transfer from being faster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Binds {
    /// `--bandwidth-limit`.
    BandwidthLimit,
    /// What the network sustains.
    Network,
    /// `--concurrency`.
    Concurrency,
    /// `--memory-budget`.
    MemoryBudget,
    /// The share of the memory that is taken unasked.
    Memory,
    /// The requests that are made where nobody knows the network.
    UnknownNetwork,
}

/// What is known of the host and its settings.
#[derive(Clone, Debug)]
struct Facts {
    network: Network,
    cores: usize,
    /// Bytes of memory.
    available: Option<u64>,
    budget: Option<u64>,
}

impl Limits {
    /// Decides for this host.
    pub(crate) fn of(config: &Config, wish: Wish) -> Result<Self, Error> {
        let text = fs_err::read_to_string("/proc/meminfo").map_err(|source| Error::Local {
            what: "read how much memory is available".to_owned(),
            source,
        })?;
        let facts = Facts {
            network: Network::find(config.network_bandwidth(), Path::new("/")),
            cores: available_parallelism().map_or(1, std::num::NonZero::get),
            available: available(&text),
            budget: config.memory_budget(),
        };
        Ok(Self::new(facts, wish))
    }

    fn new(facts: Facts, wish: Wish) -> Self {
        let network = facts.network.bandwidth.map(NetworkBandwidth::bytes_per_second);
        let rule = concurrency::in_flight(network);
        let wanted = wish.concurrency.map_or(rule, |chosen| chosen as usize);
        let packers = concurrency::packers(network, facts.cores);
        let needed = concurrency::budget(wish.raw_bytes, wanted, packers);
        let share = facts.available.map_or(u64::MAX, |available| available / SHARE);
        let budget = facts.budget.unwrap_or_else(|| needed.min(share.max(LEAST)));
        let in_flight = concurrency::held(budget, wish.raw_bytes, wanted, packers);
        let requests = in_flight as u64 * REQUEST_RATE;
        let for_requests = match (facts.budget, wish.concurrency) {
            (Some(_), _) if in_flight < wanted => Binds::MemoryBudget,
            (None, _) if in_flight < wanted => Binds::Memory,
            (_, Some(_)) => Binds::Concurrency,
            // More than the rule's greatest number of requests gain nothing, so that they are what such a network allows.
            (_, None) if network.is_some() => Binds::Network,
            (_, None) => Binds::UnknownNetwork,
        };
        let bounds = [
            (wish.bandwidth_limit.map(BandwidthLimit::bytes_per_second), Binds::BandwidthLimit),
            (network, Binds::Network),
            (Some(requests), for_requests),
        ];
        let bounds = bounds.into_iter().filter_map(|(rate, binds)| Some((rate?, binds)));
        let (allowed, binds) = bounds.min_by_key(|(rate, _)| *rate).unwrap_or((requests, for_requests));
        Self { network: facts.network, wanted, in_flight, packers, budget, binds, allowed }
    }

    /// What would make it faster, where a setting would.
    pub(crate) fn hint(&self) -> Option<&'static str> {
        match self.binds {
            Binds::UnknownNetwork => Some(
                "say what the network sustains with --network-bandwidth, and the number of requests follows from it",
            ),
            Binds::Memory => Some("give more memory with --memory-budget if Qdrant can spare it"),
            Binds::MemoryBudget => Some("raise --memory-budget, or leave it out"),
            Binds::Concurrency => Some("leave --concurrency out, and it follows from the network"),
            Binds::BandwidthLimit | Binds::Network => None,
        }
    }
}

/// `MemAvailable` of `/proc/meminfo` in bytes.
pub(crate) fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes << 10)
}

impl fmt::Display for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let binds = match self.binds {
            Binds::BandwidthLimit => "--bandwidth-limit binds",
            Binds::Network => "the network binds",
            Binds::Concurrency => "--concurrency binds",
            Binds::MemoryBudget => "--memory-budget binds",
            Binds::Memory => "memory binds (an eighth of what is available is taken)",
            Binds::UnknownNetwork => "the number of requests binds",
        };
        let Self { network, in_flight, budget, allowed, .. } = self;
        write!(
            f,
            "{network}, {in_flight} requests in flight in {} of memory: {binds}, at {}",
            ByteSize(*budget),
            Rate(*allowed)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::Source;

    const GIB: u64 = 1 << 30;

    fn facts(network: Option<&str>, cores: usize, available: u64, budget: Option<u64>) -> Facts {
        let bandwidth: Option<NetworkBandwidth> = network.map(|text| text.parse().unwrap());
        let source = if bandwidth.is_some() { Source::Setting } else { Source::Nowhere };
        Facts { network: Network { bandwidth, source }, cores, available: Some(available), budget }
    }

    #[test]
    fn what_binds_is_named_with_what_it_allows() {
        let limit = |text: &str| Wish { bandwidth_limit: Some(text.parse().unwrap()), ..Wish::default() };
        let parts = |count| Wish { concurrency: Some(count), ..Wish::default() };
        let plain = Wish::default();
        let xl4 = || facts(Some("7.5Gbps"), 16, 24 * GIB, None);
        for (facts, wish, in_flight, binds, megabytes) in [
            (xl4(), plain, 11, Binds::Network, 937),
            (xl4(), limit("200MB/s"), 11, Binds::BandwidthLimit, 200),
            (xl4(), limit("2GB/s"), 11, Binds::Network, 937),
            (xl4(), parts(4), 4, Binds::Concurrency, 360),
            (xl4(), parts(32), 32, Binds::Network, 937),
            (facts(Some("7.5Gbps"), 16, 24 * GIB, Some(200 << 20)), plain, 6, Binds::MemoryBudget, 540),
            (facts(Some("7.5Gbps"), 16, GIB, None), plain, 4, Binds::Memory, 360),
            (facts(Some("0.937Gbps"), 2, 2 * GIB, None), plain, 8, Binds::Network, 117),
            (facts(Some("50Gbps"), 192, 300 * GIB, None), plain, 70, Binds::Network, 6_250),
            (facts(Some("200Gbps"), 192, 300 * GIB, None), plain, 72, Binds::Network, 6_480),
            (facts(None, 2, 24 * GIB, None), plain, 16, Binds::UnknownNetwork, 1_440),
        ] {
            let limits = Limits::new(facts, wish);
            assert_eq!(
                (limits.in_flight, limits.binds, limits.allowed / 1_000_000),
                (in_flight, binds, megabytes),
                "{limits}"
            );
        }
        let limits = Limits::new(facts(Some("7.5Gbps"), 16, 24 * GIB, None), plain);
        assert_eq!(
            limits.to_string(),
            "network 7.5Gbps (as set), 11 requests in flight in 336.2 MiB of memory: the network binds, at 938 MB/s"
        );
    }

    #[test]
    fn the_default_budget_is_what_is_needed_within_a_share_of_the_memory() {
        for (available, raw_bytes, budget) in [
            (24 * GIB, 0, None),
            (2 * GIB, 0, Some(2 * GIB / 8)),
            (1 << 20, 0, Some(LEAST)),
            (24 * GIB, 2 << 40, Some(3 * GIB)),
        ] {
            let limits = Limits::new(
                facts(Some("7.5Gbps"), 16, available, None),
                Wish { raw_bytes, ..Wish::default() },
            );
            let needed = concurrency::budget(raw_bytes, limits.wanted, limits.packers);
            assert_eq!(limits.budget, budget.unwrap_or(needed).min(needed), "{available}");
        }
        let chosen = Limits::new(facts(None, 4, GIB, Some(7)), Wish::default());
        assert_eq!((chosen.budget, chosen.in_flight), (7, 0), "what a person says is taken as it is");
        assert_eq!(available("MemTotal:  1 kB\nMemAvailable:    2048 kB\n"), Some(2 << 20));
    }
}
