//! Whether an address is one of the machine's.

use std::net::{IpAddr, UdpSocket};

/// A socket can be bound only to an address that one of the interfaces has; nothing is sent.
pub(super) fn has(address: IpAddr) -> bool {
    UdpSocket::bind((address, 0)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_is_there_and_a_documentation_address_is_not() {
        assert!(has([127, 0, 0, 1].into()));
        assert!(!has([192, 0, 2, 15].into()));
    }
}
