//! Rates as a person writes them: what the network moves, in bits, and what a transfer may move, in bytes.

use std::{fmt, str::FromStr};

use serde::Deserialize;

use crate::config::ByteSize;

const KILOBIT: u64 = 1_000;
const MEGABIT: u64 = 1_000 * KILOBIT;
const GIGABIT: u64 = 1_000 * MEGABIT;

/// What a network moves for as long as one likes, written as `7.5Gbps` or `937Mbps`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct NetworkBandwidth(u64);

impl NetworkBandwidth {
    /// A number of megabits per second.
    pub(crate) const fn megabits(megabits: u64) -> Self {
        Self(megabits * MEGABIT)
    }

    /// Bytes per second.
    pub fn bytes_per_second(self) -> u64 {
        self.0 / 8
    }
}

impl FromStr for NetworkBandwidth {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        /// Thousandths are as fine as instance types are described.
        const DECIMALS: usize = 3;
        const LEAST: u64 = MEGABIT;
        const MOST: u64 = 10_000 * GIGABIT;
        let wrong = || format!("`{text}` is not a bandwidth from 1Mbps to 10000Gbps, as 7.5Gbps or 937Mbps");
        let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic()).trim_end();
        let unit = match text[number.len()..].trim_start() {
            "Gbps" => GIGABIT,
            "Mbps" => MEGABIT,
            _ => return Err(wrong()),
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(whole) || !digits(fraction) || fraction.len() > DECIMALS {
            return Err(wrong());
        }
        let thousandths = format!("{whole}{fraction:0<DECIMALS$}").parse::<u64>().ok();
        let bits = thousandths.and_then(|thousandths| thousandths.checked_mul(unit / 1_000));
        bits.filter(|bits| (LEAST..=MOST).contains(bits)).map(Self).ok_or_else(wrong)
    }
}

impl TryFrom<String> for NetworkBandwidth {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for NetworkBandwidth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, name) = if self.0 >= GIGABIT { (GIGABIT, "Gbps") } else { (MEGABIT, "Mbps") };
        let fraction = format!("{:03}", self.0 % unit / (unit / 1_000));
        match fraction.trim_end_matches('0') {
            "" => write!(f, "{}{name}", self.0 / unit),
            fraction => write!(f, "{}.{fraction}{name}", self.0 / unit),
        }
    }
}

/// What a transfer may move at most, written as `200MB/s`. Bytes, unlike a network's bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BandwidthLimit(u64);

impl BandwidthLimit {
    /// Bytes per second.
    pub fn bytes_per_second(self) -> u64 {
        self.0
    }
}

impl FromStr for BandwidthLimit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not a rate in bytes per second, as 200MB/s or 50MiB/s");
        let size = text.strip_suffix("/s").ok_or_else(wrong)?;
        // A number alone may be meant in any unit.
        let bytes = size.trim_end().ends_with('B').then(|| size.parse::<ByteSize>().ok()).flatten();
        match bytes.ok_or_else(wrong)?.0 {
            bytes if bytes < transfer::rate::LEAST_RATE => Err(format!(
                "`{text}` is too low: at less than {} S3 closes connections that wait for their turn",
                Rate(transfer::rate::LEAST_RATE)
            )),
            bytes => Ok(Self(bytes)),
        }
    }
}

impl fmt::Display for BandwidthLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(&str, u64); 6] = [
            ("GiB", 1 << 30),
            ("GB", 1_000_000_000),
            ("MiB", 1 << 20),
            ("MB", 1_000_000),
            ("KiB", 1 << 10),
            ("kB", 1_000),
        ];
        match UNITS.iter().find(|(_, unit)| self.0.is_multiple_of(*unit)) {
            Some((name, unit)) => write!(f, "{}{name}/s", self.0 / unit),
            None => write!(f, "{}B/s", self.0),
        }
    }
}

/// Bytes per second for people: `938 MB/s`. Decimal units, as networks and stores are measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rate(pub(crate) u64);

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let megabytes = self.0 as f64 / 1e6;
        if megabytes < 10.0 { write!(f, "{megabytes:.1} MB/s") } else { write!(f, "{megabytes:.0} MB/s") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_networks_bandwidth_is_read_and_shown() {
        for (text, bytes, shown) in [
            ("7.5Gbps", 937_500_000, "7.5Gbps"),
            ("15 Gbps", 1_875_000_000, "15Gbps"),
            ("937Mbps", 117_125_000, "937Mbps"),
            ("0.937Gbps", 117_125_000, "937Mbps"),
            ("1.875Gbps", 234_375_000, "1.875Gbps"),
            ("1Mbps", 125_000, "1Mbps"),
            ("10000Gbps", 1_250_000_000_000, "10000Gbps"),
        ] {
            let bandwidth: NetworkBandwidth = text.parse().unwrap();
            assert_eq!((bandwidth.bytes_per_second(), bandwidth.to_string().as_str()), (bytes, shown));
            assert_eq!(shown.parse(), Ok(bandwidth));
        }
        for text in [
            "",
            "Gbps",
            "7.5",
            "7.5GB/s",
            "7,5Gbps",
            "-1Gbps",
            "0Gbps",
            "0.9Mbps",
            "1.2345Gbps",
            "1.Gbps",
            ".5Gbps",
            "10001Gbps",
            "99999999999999999999Gbps",
            "1e3Gbps",
            "7.5Gbps ",
            "７Gbps",
        ] {
            let error = text.parse::<NetworkBandwidth>().unwrap_err();
            assert!(error.contains("as 7.5Gbps"), "{text}: {error}");
        }
    }

    #[test]
    fn a_limit_is_read_and_shown_and_nonsense_is_refused() {
        for (text, bytes, shown) in [
            ("200MB/s", 200_000_000, "200MB/s"),
            ("1GB/s", 1_000_000_000, "1GB/s"),
            ("50MiB/s", 50 << 20, "50MiB/s"),
            ("1000 kB/s", 1_000_000, "1MB/s"),
            ("1234567B/s", 1_234_567, "1234567B/s"),
        ] {
            let limit: BandwidthLimit = text.parse().unwrap();
            assert_eq!((limit.bytes_per_second(), limit.to_string().as_str()), (bytes, shown));
            assert_eq!(shown.parse(), Ok(limit));
        }
        for text in [
            "",
            "/s",
            "MB/s",
            "200Mbps",
            "200MB",
            "200/s",
            "1234567",
            "-1MB/s",
            "1.5GB/s",
            "99999999999GiB/s",
        ] {
            assert!(text.parse::<BandwidthLimit>().unwrap_err().contains("as 200MB/s"), "{text}");
        }
        for text in ["0MB/s", "999kB/s"] {
            assert!(text.parse::<BandwidthLimit>().unwrap_err().contains("less than 1.0 MB/s"), "{text}");
        }
    }
}
