use super::*;
use crate::layout::EntrySpec;

fn index(frames: u64) -> FrameIndex {
    let frame = |number: u64| Frame {
        raw_len: 8 << 20,
        compressed_len: u32::try_from(number).unwrap() + 40,
        hash: *blake3::hash(&number.to_le_bytes()).as_bytes(),
    };
    FrameIndex { frames: (0..frames).map(frame).collect() }
}

fn zst(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(zstd_safe::compress_bound(text.len()));
    zstd_safe::compress(&mut out, text.as_bytes(), 3).unwrap();
    out
}

#[test]
fn the_stored_form_reads_back() {
    for frames in [0, 1, 2, 1000, 20_000] {
        let index = index(frames);
        let stored = index.to_json_zst();
        assert!(stored.len() as u64 <= FrameIndex::json_zst_limit(frames));
        assert_eq!(FrameIndex::from_json_zst(&stored, frames).unwrap(), index);
        let text = zstd::decode_all(stored.as_slice()).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(json["format_version"], 1);
        assert_eq!(json["frames"].as_array().unwrap().len() as u64, frames);
    }
}

#[test]
fn the_canonical_form_and_root_are_as_documented() {
    // `docs/format.md` shows this example.
    let frame = Frame { raw_len: 512, compressed_len: 27, hash: *blake3::hash(b"").as_bytes() };
    let index = FrameIndex { frames: vec![frame] };
    let canonical = index.to_canonical();
    assert_eq!(canonical.len(), 16 + RECORD_BYTES);
    assert_eq!(&canonical[..24], b"QBFRAME\x01\x01\0\0\0\0\0\0\0\0\x02\0\0\x1b\0\0\0");
    assert_eq!(canonical[24..], frame.hash);
    assert_eq!(index.root(), *blake3::hash(&canonical).as_bytes());
    assert_eq!(index.root_hex(), "21b1b7fdb2e5b9c34c9b47bbdeab67620d7f1e3cb9ca3d315b6f8def77382e3b");
    let stored = r#"{"format_version":1,"frames":[[512,27,"af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"]]}"#;
    assert_eq!(zstd::decode_all(index.to_json_zst().as_slice()).unwrap(), stored.as_bytes());
}

#[test]
fn stored_forms_that_break_the_rules_are_refused() {
    let hash = "0".repeat(64);
    let one = format!("[1,2,\"{hash}\"]");
    let refused = |bytes: &[u8], frames| FrameIndex::from_json_zst(bytes, frames).unwrap_err();
    let text = |text: &str| refused(&zst(text), 1);
    assert!(
        FrameIndex::from_json_zst(
            &zst(&format!(" {{\"x\":[1],\"frames\":[{one}],\"format_version\":1}} ")),
            1
        )
        .is_ok()
    );
    for bad in [
        "",
        "[]",
        "{}",
        "{\"format_version\":1}",
        "null",
        "{\"format_version\":1,\"frames\":[[1,2]]}",
        &format!("{{\"format_version\":1,\"frames\":[[1,2,\"{hash}\",3]]}}"),
        &format!("{{\"format_version\":1,\"frames\":[[1,-2,\"{hash}\"]]}}"),
        &format!("{{\"format_version\":1,\"frames\":[[1,4294967296,\"{hash}\"]]}}"),
        &format!("{{\"format_version\":1,\"frames\":[[1,2,\"{}\"]]}}", "0".repeat(62)),
        &format!("{{\"format_version\":1,\"frames\":[[1,2,\"{}\"]]}}", "A".repeat(64)),
        &format!("{{\"format_version\":1,\"frames\":[{one},{one}]}}"),
        &format!("{{\"format_version\":1,\"frames\":[{one}]}}x"),
    ] {
        assert!(matches!(text(bad), IndexError::Json { .. }), "{bad}");
    }
    let newer = format!("{{\"format_version\":2,\"frames\":[{one}]}}");
    assert!(matches!(text(&newer), IndexError::Version { found: 2 }));
    assert!(matches!(
        text("{\"format_version\":1,\"frames\":[]}"),
        IndexError::Count { expected: 1, found: 0 }
    ));
    // Bytes that are not one zstd frame, or that hold far more than they should.
    let good = index(3).to_json_zst();
    for at in 0..good.len() {
        let mut flipped = good.clone();
        flipped[at] ^= 1;
        // A bit that no decoder looks at may be flipped; what comes out is the index or nothing.
        if let Ok(found) = FrameIndex::from_json_zst(&flipped, 3) {
            assert_eq!(found, index(3), "{at}");
        }
        refused(&good[..at], 3);
    }
    assert!(matches!(refused(&[good.as_slice(), good.as_slice()].concat(), 3), IndexError::Zstd { .. }));
    assert!(matches!(refused(b"\x50\x2A\x4D\x18\0\0\0\0", 3), IndexError::Zstd { .. }));
    assert!(matches!(refused(&vec![0; 100_000], 3), IndexError::TooLarge { .. }));
    let bomb = zst(&" ".repeat(10 << 20));
    assert!(bomb.len() < 2000);
    assert!(matches!(refused(&bomb, 3), IndexError::Zstd { .. }));
}

#[test]
fn an_index_must_be_that_of_the_layout() {
    let layout = Layout::with_frame_max(&[EntrySpec { name: "a".into(), size: 1000 }], 512).unwrap();
    let frames = (0..layout.frame_count()).map(|number| {
        let span = layout.frame(number);
        let bytes = match span.content {
            crate::layout::FrameContent::Glue => layout.glue(number),
            crate::layout::FrameContent::Data { .. } => vec![1; span.raw_len as usize],
        };
        Frame { raw_len: span.raw_len, compressed_len: 30, hash: *blake3::hash(&bytes).as_bytes() }
    });
    let good = FrameIndex { frames: frames.collect() };
    assert_eq!(good.frames.len(), 6);
    good.check_layout(&layout).unwrap();
    let broken = |change: &dyn Fn(&mut Vec<Frame>)| {
        let mut index = good.clone();
        change(&mut index.frames);
        index.check_layout(&layout).unwrap_err()
    };
    broken(&|frames| frames.truncate(5));
    broken(&|frames| frames.push(frames[0]));
    broken(&|frames| frames[2].raw_len += 1);
    broken(&|frames| frames[2].compressed_len = 0);
    broken(&|frames| frames[2].compressed_len = 5_000);
    assert!(broken(&|frames| frames[0].hash[0] ^= 1).contains("tar headers"));
    assert!(broken(&|frames| frames[5].hash[31] ^= 1).contains("frame 5"));
    assert_eq!(seek_table::encode(&good).len() as u64, seek_table::encoded_len(6));
}
