//! Versions of Qdrant: which are supported, and which backup may go into which server.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::error::Error;

/// A version of Qdrant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Version {
    /// Grows when everything changes.
    pub major: u32,
    /// Grows when the storage format may change: a server reads its own and the one before.
    pub minor: u32,
    /// Grows with fixes.
    pub patch: u32,
}

/// The oldest version that is backed up or restored into: before it, snapshots taken while points are written could lose or corrupt
/// some of them, a reader could see a half-written checksum file, and update queues could not be seen (they appeared in 1.17.0).
pub const MINIMUM: Version = Version { major: 1, minor: 17, patch: 1 };

/// The text is not a version as `1.18.3`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a version as 1.18.3")]
pub struct InvalidVersion(String);

impl Version {
    /// Refuses what is older than [`MINIMUM`] and other major versions. Newer minor versions are welcome.
    pub fn check_supported(self) -> Result<(), Error> {
        if self < MINIMUM || self.major != MINIMUM.major {
            return Err(Error::UnsupportedVersion { found: self });
        }
        Ok(())
    }
}

/// Whether a backup of a `backup` server may be restored into a `server`: the same minor version with any patch, or the next minor
/// version; never backwards. Qdrant itself does not check.
pub fn can_restore(backup: Version, server: Version) -> Result<(), Error> {
    let ahead = server.minor.checked_sub(backup.minor);
    if backup.major != server.major || !matches!(ahead, Some(0 | 1)) {
        return Err(Error::CannotRestore { backup, server });
    }
    Ok(())
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

impl From<Version> for String {
    fn from(version: Version) -> Self {
        version.to_string()
    }
}

impl TryFrom<String> for Version {
    type Error = InvalidVersion;

    fn try_from(text: String) -> Result<Self, InvalidVersion> {
        text.parse()
    }
}

impl FromStr for Version {
    type Err = InvalidVersion;

    /// Reads `1.18.3`, with or without a `v` before it and `-dev` or `+build` behind it.
    fn from_str(text: &str) -> Result<Self, InvalidVersion> {
        let invalid = || InvalidVersion(text.chars().take(40).collect());
        let core = text.strip_prefix('v').unwrap_or(text);
        let core = core.split(['-', '+']).next().unwrap_or(core);
        let mut numbers = core.split('.').map(|part| part.parse::<u32>().map_err(|_e| invalid()));
        let mut next = || numbers.next().ok_or_else(invalid)?;
        let version = Self { major: next()?, minor: next()?, patch: next()? };
        if numbers.next().is_some() { Err(invalid()) } else { Ok(version) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> Version {
        text.parse().unwrap()
    }

    #[test]
    fn versions_are_read_and_compared() {
        assert_eq!(version("1.18.3").to_string(), "1.18.3");
        assert_eq!(version("v1.18.0-dev"), version("1.18.0"));
        assert!(version("1.9.9") < version("1.18.0"));
        for bad in ["", "1.18", "1.18.3.4", "latest", "1.x.0", "-1.0.0"] {
            assert!(bad.parse::<Version>().is_err(), "{bad}");
        }
    }

    #[test]
    fn old_servers_and_other_majors_are_refused() {
        for (text, supported) in [
            ("1.9.0", false),
            ("1.16.3", false),
            ("1.17.0", false),
            ("1.17.1", true),
            ("1.18.3", true),
            ("1.99.0", true),
            ("2.0.0", false),
        ] {
            assert_eq!(version(text).check_supported().is_ok(), supported, "{text}");
        }
    }

    #[test]
    fn a_backup_goes_into_the_same_or_the_next_minor_version() {
        for (backup, server, allowed) in [
            ("1.18.3", "1.18.3", true),
            ("1.18.3", "1.18.0", true),
            ("1.18.3", "1.19.0", true),
            ("1.18.3", "1.20.0", false),
            ("1.18.3", "1.17.1", false),
            ("1.18.3", "2.18.3", false),
        ] {
            assert_eq!(
                can_restore(version(backup), version(server)).is_ok(),
                allowed,
                "{backup} into {server}"
            );
        }
    }
}
