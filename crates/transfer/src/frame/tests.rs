use super::*;

fn noise(seed: u8, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut bytes);
    bytes
}

/// Small numbers in wide fields: what is to be found, level 1 finds.
fn links(len: usize) -> Vec<u8> {
    let picks = noise(1, len);
    let ids = picks.chunks(2).map(|pick| u32::from(pick[0]) * 3 + u32::from(pick[1] & 1));
    ids.flat_map(u32::to_le_bytes).take(len).collect()
}

/// Six bytes out of 512 sets, then two that are in no set: matches that are too short for level 1.
fn phrases(len: usize) -> Vec<u8> {
    let sets = noise(5, 512 * 6);
    let picks = noise(6, len);
    let phrase = |pick: &[u8]| {
        let set = (usize::from(pick[0]) | usize::from(pick[1] & 1) << 8) * 6;
        [&sets[set..set + 6], &pick[2..4]].concat()
    };
    picks.chunks_exact(4).flat_map(phrase).take(len).collect()
}

fn encode(level: Level, raw: &[u8]) -> (Frame, Vec<u8>) {
    let mut out = Vec::new();
    (Encoder::new(level).encode(raw, &mut out).unwrap(), out)
}

#[test]
fn what_is_encoded_is_decoded_at_every_level() {
    for level in [Level::Auto, Level::Fixed(1), Level::Fixed(3), Level::Fixed(12), Level::Fixed(19)] {
        for raw in [vec![], vec![1], noise(1, 100_000), links(300_000), vec![0; 70_000]] {
            let (frame, compressed) = encode(level, &raw);
            assert_eq!(frame.raw_len as usize, raw.len());
            assert_eq!(frame.compressed_len as usize, compressed.len());
            assert_eq!(zstd_safe::get_frame_content_size(&compressed).ok(), Some(Some(raw.len() as u64)));
            assert_ne!(compressed[4] & 4, 0, "the frame has a checksum");
            let mut out = vec![9; 5];
            Decoder::default().decode(&compressed, &frame, &mut out).unwrap();
            assert_eq!(out, raw);
        }
    }
}

#[test]
fn the_result_depends_on_the_bytes_only() {
    // One encoder that has seen other frames before gives what a fresh one gives.
    for level in [Level::Auto, Level::Fixed(9)] {
        let mut used = Encoder::new(level);
        let mut out = Vec::new();
        for raw in [
            links(200_000),
            noise(2, 70_000),
            phrases(100_000),
            vec![0; 65_536],
            links(65_536),
            vec![0; 65_536],
            vec![0; 10],
            noise(3, 9),
        ] {
            let frame = used.encode(&raw, &mut out).unwrap();
            assert_eq!((frame, out.clone()), encode(level, &raw), "{level:?}");
        }
    }
}

#[test]
fn level_three_is_taken_where_it_pays() {
    let raw = phrases(1 << 20);
    let (one, _) = encode(Level::Fixed(1), &raw);
    let (three, _) = encode(Level::Fixed(3), &raw);
    assert!(
        (one.compressed_len - three.compressed_len) as usize * SAMPLE_GAIN > raw.len(),
        "{one:?} {three:?}"
    );
    assert_eq!(encode(Level::Auto, &raw).0, three);
    assert_eq!(encode(Level::Auto, &links(1 << 20)).0, encode(Level::Fixed(1), &links(1 << 20)).0);
    assert_eq!(encode(Level::Auto, &noise(4, 1 << 20)).0, encode(Level::Fixed(1), &noise(4, 1 << 20)).0);
    // A quarter of the frame is enough, wherever it is.
    for quarter in 0..PIECES {
        let mut mixed = noise(4, 1 << 20);
        let len = mixed.len() / PIECES;
        mixed[quarter * len..][..len].copy_from_slice(&phrases(len));
        assert_eq!(encode(Level::Auto, &mixed).0, encode(Level::Fixed(3), &mixed).0, "{quarter}");
    }
}

#[test]
fn the_memory_of_an_encoder_is_not_understated() {
    for (level, raw_len) in [(1, 1 << 20), (3, 8 << 20), (9, 1 << 20), (12, 1 << 19), (19, 1 << 18)] {
        let mut encoder = Encoder::new(Level::Fixed(level));
        encoder.encode(&links(raw_len), &mut Vec::new()).unwrap();
        let held = encoder.fast.sizeof() + encoder.better.sizeof();
        assert!(held as u64 <= Encoder::memory(Level::Fixed(level), raw_len), "{level} {raw_len}: {held}");
    }
}

#[test]
fn anything_but_the_indexed_frame_is_refused_and_lets_nothing_out() {
    let raw = links(50_000);
    let (frame, good) = encode(Level::Fixed(3), &raw);
    let (other, other_bytes) = encode(Level::Fixed(3), &noise(1, 50_000));
    let refused = |bytes: &[u8], frame: &Frame| {
        let mut out = vec![1; 10];
        let what = Decoder::default().decode(bytes, frame, &mut out).unwrap_err();
        assert!(out.is_empty(), "{what}");
        what
    };
    let with =
        |compressed_len: usize| Frame { compressed_len: u32::try_from(compressed_len).unwrap(), ..frame };
    for at in 0..good.len() {
        let mut flipped = good.clone();
        flipped[at] ^= 4;
        let mut out = Vec::new();
        // A bit that no decoder looks at may be flipped; what comes out is the frame or nothing.
        match Decoder::default().decode(&flipped, &frame, &mut out) {
            Ok(()) => assert_eq!(out, raw, "{at}"),
            Err(_) => assert!(out.is_empty(), "{at}"),
        }
        refused(&good[..at], &with(at));
    }
    refused(&good, &Frame { raw_len: 49_999, ..frame });
    refused(&good, &Frame { raw_len: 50_001, ..frame });
    assert!(refused(&good, &Frame { hash: other.hash, ..frame }).contains("hash"));
    assert!(refused(&other_bytes, &Frame { raw_len: 50_000, ..with(other_bytes.len()) }).contains("hash"));
    // A second frame, or a skippable one, behind or instead of the first.
    let twice = [good.as_slice(), good.as_slice()].concat();
    assert!(refused(&twice, &with(twice.len())).contains("ends after"));
    let skippable = [&0x184D_2A50_u32.to_le_bytes()[..], &4_u32.to_le_bytes(), &[0; 4]].concat();
    refused(&skippable, &with(skippable.len()));
    refused(&[good.as_slice(), &skippable].concat(), &with(good.len() + skippable.len()));
}

#[test]
fn a_frame_that_decodes_to_more_than_it_says_stays_in_its_buffer() {
    // The content size is patched to something smaller, so that the index and the header agree and only the data lies.
    let (_, mut lying) = encode(Level::Fixed(1), &vec![0; 100_000]);
    assert_eq!(zstd_safe::get_frame_content_size(&lying).ok(), Some(Some(100_000)));
    assert_eq!(&lying[5..9], &100_000_u32.to_le_bytes());
    lying[5..9].copy_from_slice(&70_000_u32.to_le_bytes());
    let hash = *blake3::hash(&[0; 70_000]).as_bytes();
    let frame = Frame { raw_len: 70_000, compressed_len: u32::try_from(lying.len()).unwrap(), hash };
    let mut out = Vec::new();
    assert!(Decoder::default().decode(&lying, &frame, &mut out).is_err());
    assert!(out.is_empty());
}

#[test]
fn zeros_are_recognised() {
    for len in [0, 1, 4095, 4096, 4097, 100_000] {
        let mut bytes = vec![0; len];
        assert!(is_zero(&bytes));
        if let Some(last) = bytes.last_mut() {
            *last = 1;
            assert!(!is_zero(&bytes));
        }
    }
}
