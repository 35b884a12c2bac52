//! What this host's network moves, and how that is known.

use std::{fmt, path::Path};

use serde::{Serialize, Serializer};

use crate::bandwidth::NetworkBandwidth;

/// Where a Nitro instance tells its type: `c8gd.4xlarge`, or `c8gd.metal-24xl`. Elsewhere a machine tells its model.
const PRODUCT_NAME: &str = "sys/devices/virtual/dmi/id/product_name";
const ROUTES: &str = "proc/net/route";

/// What the instance types of the c8gd family sustain, in Mbit/s, as `DescribeInstanceTypes` says (`BaselineBandwidthInGbps`). The "up to" of the
/// smaller ones lasts 5 to 60 minutes, which a backup that matters takes longer than.
const BASELINES: [(&str, u64); 12] = [
    ("c8gd.medium", 520),
    ("c8gd.large", 937),
    ("c8gd.xlarge", 1_875),
    ("c8gd.2xlarge", 3_750),
    ("c8gd.4xlarge", 7_500),
    ("c8gd.8xlarge", 15_000),
    ("c8gd.12xlarge", 22_500),
    ("c8gd.16xlarge", 30_000),
    ("c8gd.24xlarge", 40_000),
    ("c8gd.metal-24xl", 40_000),
    ("c8gd.48xlarge", 50_000),
    ("c8gd.metal-48xl", 50_000),
];

/// What the network moves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Network {
    /// What it sustains; `None` if nobody knows.
    pub(crate) bandwidth: Option<NetworkBandwidth>,
    /// Where that is known from.
    pub(crate) source: Source,
}

/// Where a bandwidth is known from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// A person said so.
    Setting,
    /// This instance type's sustained bandwidth.
    InstanceType(&'static str),
    /// What the interface of the default route says its link does.
    Link(String),
    /// Nowhere.
    Nowhere,
}

impl Network {
    /// What `setting` says; else what this host, whose file system starts at `root`, tells about itself.
    pub(crate) fn find(setting: Option<NetworkBandwidth>, root: &Path) -> Self {
        if setting.is_some() {
            return Self { bandwidth: setting, source: Source::Setting };
        }
        if let Some((name, megabits)) = instance_type(root) {
            let bandwidth = Some(NetworkBandwidth::megabits(megabits));
            return Self { bandwidth, source: Source::InstanceType(name) };
        }
        if let Some((interface, megabits)) = link(root) {
            let bandwidth = Some(NetworkBandwidth::megabits(megabits));
            return Self { bandwidth, source: Source::Link(interface) };
        }
        Self { bandwidth: None, source: Source::Nowhere }
    }
}

fn instance_type(root: &Path) -> Option<(&'static str, u64)> {
    let name = fs_err::read_to_string(root.join(PRODUCT_NAME)).ok()?;
    BASELINES.into_iter().find(|(known, _)| *known == name.trim())
}

/// The interface of the default route, and its link's speed in Mbit/s. Virtual interfaces say -1, or nothing.
fn link(root: &Path) -> Option<(String, u64)> {
    let routes = fs_err::read_to_string(root.join(ROUTES)).ok()?;
    let interface = default_interface(&routes)?;
    let speed = root.join("sys/class/net").join(interface).join("speed");
    let megabits: u64 = fs_err::read_to_string(speed).ok()?.trim().parse().ok()?;
    (megabits > 0).then(|| (interface.to_owned(), megabits))
}

/// The interface of the default route with the least metric, out of the kernel's table of IPv4 routes (`/proc/net/route`).
fn default_interface(routes: &str) -> Option<&str> {
    let default_route = |line: &'_ str| -> Option<(u32, usize)> {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (destination, metric, mask) = (fields.get(1)?, fields.get(6)?, fields.get(7)?);
        let default = *destination == "00000000" && *mask == "00000000";
        default.then(|| Some((metric.parse().ok()?, fields.first()?.len())))?
    };
    let found = routes.lines().skip(1).filter_map(|line| Some((default_route(line)?, line.trim_start())));
    let ((_, length), line) = found.min_by_key(|((metric, _), _)| *metric)?;
    line.get(..length)
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(bandwidth) = self.bandwidth else { return f.write_str("network of unknown bandwidth") };
        match &self.source {
            Source::Setting | Source::Nowhere => write!(f, "network {bandwidth} (as set)"),
            Source::InstanceType(name) => write!(f, "network {bandwidth} (what {name} sustains)"),
            Source::Link(interface) => write!(f, "network {bandwidth} (the link of {interface})"),
        }
    }
}

impl Serialize for Network {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
        docker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n\
        ens6\t00000000\t0101000A\t0003\t0\t0\t1024\t00000000\t0\t0\t0\n\
        ens5\t00000000\t0101000A\t0003\t0\t0\t512\t00000000\t0\t0\t0\n";

    /// A host with these files.
    fn host(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs_err::create_dir_all(path.parent().unwrap()).unwrap();
            fs_err::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn a_setting_wins_over_the_instance_type_over_the_link() {
        let speed = "sys/class/net/ens5/speed";
        let all = host(&[(PRODUCT_NAME, "c8gd.4xlarge\n"), (ROUTES, TABLE), (speed, "25000\n")]);
        let shown = |setting: Option<&str>, host: &tempfile::TempDir| {
            Network::find(setting.map(|text| text.parse().unwrap()), host.path()).to_string()
        };
        assert_eq!(shown(Some("9.375Gbps"), &all), "network 9.375Gbps (as set)");
        assert_eq!(shown(None, &all), "network 7.5Gbps (what c8gd.4xlarge sustains)");
        let other = [(PRODUCT_NAME, "ThinkPad X1\n"), (ROUTES, TABLE), (speed, "25000\n")];
        assert_eq!(shown(None, &host(&other)), "network 25Gbps (the link of ens5)");
        assert_eq!(shown(None, &host(&other[1..])), "network 25Gbps (the link of ens5)");
    }

    #[test]
    fn what_says_nothing_is_unknown() {
        let speed = "sys/class/net/ens5/speed";
        for files in [
            &[][..],
            &[(ROUTES, TABLE)],
            &[(ROUTES, TABLE), (speed, "-1\n")],
            &[(ROUTES, TABLE), (speed, "0\n")],
            &[(ROUTES, TABLE), (speed, "")],
            &[(ROUTES, TABLE), ("sys/class/net/ens6/speed", "1000")],
            &[(ROUTES, TABLE.split_inclusive('\n').next().unwrap()), (speed, "1000")],
            &[(ROUTES, "x\nens5 00000000"), (speed, "1000")],
            &[(PRODUCT_NAME, "c8gd.4xlarge.evil"), (speed, "1000")],
        ] {
            let network = Network::find(None, host(files).path());
            assert_eq!((network.bandwidth, network.source), (None, Source::Nowhere), "{files:?}");
        }
    }

    #[test]
    fn the_table_of_instance_types_has_what_requests_are_counted_by() {
        for (name, in_flight) in [("c8gd.medium", 8), ("c8gd.4xlarge", 11), ("c8gd.metal-48xl", 70)] {
            let network = Network::find(None, host(&[(PRODUCT_NAME, name)]).path());
            let bandwidth = network.bandwidth.map(NetworkBandwidth::bytes_per_second);
            assert_eq!(transfer::concurrency::in_flight(bandwidth), in_flight, "{name}");
        }
    }
}
