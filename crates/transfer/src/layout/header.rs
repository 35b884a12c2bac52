//! The header blocks of an entry: POSIX ustar, preceded by a pax extended header where ustar has no room.

/// The size of a tar block in bytes.
const BLOCK: usize = 512;
/// The longest name that a ustar header holds, in bytes.
const USTAR_NAME_MAX: usize = 100;
/// The first size that eleven octal digits do not hold, in bytes.
const USTAR_SIZE_LIMIT: u64 = 1 << 33;
/// What the extended header itself is called.
const PAX_NAME: &[u8] = b"././@PaxHeader";

/// The length of the header blocks of an entry, in bytes.
pub(super) fn header_len(name: &str, size: u64) -> u64 {
    match pax_records(name, size).len() {
        0 => BLOCK as u64,
        records => (2 * BLOCK + records.next_multiple_of(BLOCK)) as u64,
    }
}

/// The header blocks of an entry.
pub(super) fn encode(name: &str, size: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    let records = pax_records(name, size);
    if !records.is_empty() {
        bytes.extend(block(PAX_NAME, records.len() as u64, b'x'));
        bytes.extend(&records);
        bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    }
    let ustar_size = if size < USTAR_SIZE_LIMIT { size } else { 0 };
    bytes.extend(block(&name.as_bytes()[..name.floor_char_boundary(USTAR_NAME_MAX)], ustar_size, b'0'));
    bytes
}

/// The records of the extended header: none, `path`, `size`, or both in this order.
fn pax_records(name: &str, size: u64) -> Vec<u8> {
    let mut records = Vec::new();
    if name.len() > USTAR_NAME_MAX {
        records.extend(pax_record("path", name).into_bytes());
    }
    if size >= USTAR_SIZE_LIMIT {
        records.extend(pax_record("size", &size.to_string()).into_bytes());
    }
    records
}

/// `<length> <key>=<value>\n`, where the length counts its own digits.
fn pax_record(key: &str, value: &str) -> String {
    let rest = format!(" {key}={value}\n");
    let mut len = rest.len();
    while len != rest.len() + len.to_string().len() {
        len = rest.len() + len.to_string().len();
    }
    format!("{len}{rest}")
}

/// One ustar block: mode 0600, owner 0:0, time 0, no owner names, no link, no device.
fn block(name: &[u8], size: u64, kind: u8) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    let mut put = |at: usize, field: &[u8]| block[at..at + field.len()].copy_from_slice(field);
    put(0, name);
    put(100, b"0000600\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, format!("{size:011o}\0").as_bytes());
    put(136, b"00000000000\0");
    put(148, b"        ");
    put(156, &[kind]);
    put(257, b"ustar\x0000");
    put(329, b"0000000\0");
    put(337, b"0000000\0");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_extended_header_only_where_ustar_has_no_room() {
        assert_eq!(header_len(&"n".repeat(100), USTAR_SIZE_LIMIT - 1), 512);
        assert_eq!(header_len(&"n".repeat(101), 0), 1536);
        assert_eq!(header_len("n", USTAR_SIZE_LIMIT), 1536);
        assert_eq!(header_len(&"n".repeat(1024), USTAR_SIZE_LIMIT), 512 + 1536 + 512);
        for (name, size) in [("n".repeat(101), 5), ("ü".repeat(60), 1 << 40), ("n".to_owned(), 0)] {
            assert_eq!(encode(&name, size).len() as u64, header_len(&name, size));
        }
    }

    #[test]
    fn a_record_counts_its_own_length() {
        assert_eq!(pax_record("size", "8589934592"), "19 size=8589934592\n");
        assert_eq!(pax_record("path", &"n".repeat(89)).len(), 98);
        assert_eq!(pax_record("path", &"n".repeat(90)).len(), 99);
        assert_eq!(pax_record("path", &"n".repeat(91)).len(), 101);
        assert!(pax_record("path", &"n".repeat(91)).starts_with("101 "));
        // Of 989 bytes, 999 and 1000 would both be true: the smaller one is the format's.
        for (name, len) in [(988, "998 "), (989, "999 "), (990, "1001 ")] {
            let record = pax_record("path", &"n".repeat(name));
            assert!(record.starts_with(len), "{name}: {}", &record[..5]);
            assert_eq!(record.len().to_string(), len.trim());
        }
    }
}
