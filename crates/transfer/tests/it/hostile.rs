//! Archives and manifests made to do harm. The manifest is what a restore trusts; here even that lies.

use protocol::FailureKind;
use transfer::{
    Error, FrameIndex, Layout, check_object,
    frame::{Encoder, Level},
    index::{Frame, seek_table},
    layout::FrameContent,
    store::Memory,
};

use crate::support::{KEY, SMALL, Stored, Tree, listing, noise, read_options};

/// Builds an object out of raw frames, with an index and a manifest that agree with it in everything.
fn forge(entries: Vec<protocol::manifest::ArchiveEntry>, frames: &[Vec<u8>]) -> Stored {
    let mut encoder = Encoder::new(Level::Fixed(1));
    let (mut object, mut index, mut out) = (Vec::new(), FrameIndex::default(), Vec::new());
    for raw in frames {
        index.frames.push(encoder.encode(raw, &mut out).unwrap());
        object.extend_from_slice(&out);
    }
    object.extend(seek_table::encode(&index));
    finish(entries, index, object)
}

fn finish(entries: Vec<protocol::manifest::ArchiveEntry>, index: FrameIndex, object: Vec<u8>) -> Stored {
    let archive = protocol::manifest::Archive {
        raw_bytes: index.raw_len(),
        frame_count: index.frames.len() as u64,
        frames_root: index.root_hex(),
        golden_sha256: "0".repeat(64),
        entries,
    };
    let store = Memory::default();
    let stored = Stored {
        size_bytes: object.len() as u64,
        sha256: "0".repeat(64),
        crc64nvme: String::new(),
        store,
        archive,
        index,
    };
    stored.store.put(KEY, object);
    stored
}

/// The frames of an honest archive of one entry called `name` with `bytes`.
fn honest(name: &str, bytes: &[u8]) -> (Vec<protocol::manifest::ArchiveEntry>, Vec<Vec<u8>>) {
    let spec = transfer::EntrySpec { name: name.into(), size: bytes.len() as u64 };
    let layout = Layout::with_frame_max(&[spec], SMALL).unwrap();
    let frame = |number| {
        let span = layout.frame(number);
        match span.content {
            FrameContent::Glue => layout.glue(number),
            FrameContent::Data { offset, .. } => {
                let start = usize::try_from(offset).unwrap();
                bytes[start..start + span.raw_len as usize].to_vec()
            }
        }
    };
    let location = layout.entry_location(0);
    let entry = protocol::manifest::ArchiveEntry {
        name: name.into(),
        size: bytes.len() as u64,
        sha256: "0".repeat(64),
        first_frame: location.first_frame,
        raw_offset: location.raw_offset,
    };
    (vec![entry], (0..layout.frame_count()).map(frame).collect())
}

async fn refused(stored: &Stored) -> Error {
    let folder = tempfile::tempdir().unwrap();
    let error = stored.restore_all(folder.path()).await.unwrap_err();
    assert_eq!(listing(folder.path()), [""; 0], "{error:?}");
    assert_eq!(error.kind(), FailureKind::ArchiveCorrupt, "{error:?}");
    let check = check_object(&stored.store, stored.reference(), &stored.index, read_options()).await;
    assert!(check.is_err() || !check.unwrap().is_whole());
    error
}

#[tokio::test]
async fn a_forged_archive_that_keeps_every_rule_is_read() {
    // So that the refusals below are for what they change.
    let (entries, frames) = honest("a", &noise(1, 100_000));
    let folder = tempfile::tempdir().unwrap();
    forge(entries, &frames).restore_all(folder.path()).await.unwrap();
    assert_eq!(fs_err::read(folder.path().join("0")).unwrap(), noise(1, 100_000));
}

#[tokio::test]
async fn headers_with_other_names_links_and_devices() {
    let (entries, frames) = honest("a", &noise(1, 100_000));
    let with_header = |change: &dyn Fn(&mut [u8])| {
        let mut frames = frames.clone();
        change(&mut frames[0]);
        // The header's own checksum is right again, as a tar reader would want it.
        frames[0][148..156].fill(b' ');
        let sum: u32 = frames[0].iter().map(|byte| u32::from(*byte)).sum();
        frames[0][148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        forge(entries.clone(), &frames)
    };
    let traversal: &dyn Fn(&mut [u8]) = &|header| header[..16].copy_from_slice(b"../../etc/passwd");
    let absolute: &dyn Fn(&mut [u8]) = &|header| header[..8].copy_from_slice(b"/etc/cro");
    let symlink: &dyn Fn(&mut [u8]) = &|header| {
        header[156] = b'2';
        header[157..168].copy_from_slice(b"/etc/shadow");
    };
    let hard_link: &dyn Fn(&mut [u8]) = &|header| header[156] = b'1';
    let device: &dyn Fn(&mut [u8]) = &|header| header[156] = b'3';
    let directory: &dyn Fn(&mut [u8]) = &|header| header[156] = b'5';
    let setuid: &dyn Fn(&mut [u8]) = &|header| header[100..107].copy_from_slice(b"0004755");
    let size: &dyn Fn(&mut [u8]) = &|header| header[124..135].copy_from_slice(b"77777777777");
    for change in [traversal, absolute, symlink, hard_link, device, directory, setuid, size] {
        let error = refused(&with_header(change)).await;
        assert!(
            error.to_string().contains("frame 0 does not hold the tar headers of the entries"),
            "{error}"
        );
    }
    // A second, unannounced entry behind the first one's data.
    let mut more = frames.clone();
    let (_, other) = honest("b", b"smuggled");
    let last = more.len() - 1;
    let padding = more[last].len() - 1024;
    more[last].truncate(padding);
    more[last].extend(other.concat());
    refused(&forge(entries.clone(), &more)).await;
    // Something in the padding.
    let mut padded = frames.clone();
    padded[last][3] = 1;
    refused(&forge(entries, &padded)).await;
}

#[tokio::test]
async fn manifests_with_names_that_are_no_names() {
    for name in ["../a", "/etc/passwd", "a/../../b", "", "a//b", "a\0b"] {
        let (mut entries, frames) = honest("a", &noise(1, 1000));
        entries[0].name = name.to_owned();
        let error = refused(&forge(entries, &frames)).await;
        assert!(error.to_string().contains("not the name of an entry"), "{error}");
    }
    let (_, mut stored) = Stored::typical().await;
    stored.archive.entries[1].name = stored.archive.entries[0].name.clone();
    assert!(refused(&stored).await.to_string().contains("two entries are called"));
}

#[tokio::test]
async fn manifests_that_contradict_the_format() {
    let (_, stored) = Stored::typical().await;
    type Change = fn(&mut Stored);
    let changes: [(Change, &str); 12] = [
        (|s| s.archive.raw_bytes += 512, "raw bytes, but its entries take"),
        (|s| s.archive.frame_count -= 1, "frames, but its entries take"),
        (|s| s.archive.entries[0].first_frame += 1, "but it belongs in frame"),
        (|s| s.archive.entries[1].raw_offset -= 1, "but it belongs in frame"),
        (|s| s.archive.entries[0].size += 1, ""),
        (|s| s.archive.entries[0].size = u64::MAX, "add up to more than"),
        (|s| s.archive.entries[0].size = 1 << 40, "raw bytes, but its entries take"),
        (|s| drop(s.archive.entries.pop()), ""),
        (|s| s.archive.entries.clear(), "at least one entry"),
        (|s| s.archive.frames_root = "0".repeat(64), "the frame index has root"),
        (|s| s.size_bytes -= 1, "but its frames and seek table take"),
        (|s| s.size_bytes = 10, "frames in 10 bytes"),
    ];
    for (number, (change, what)) in changes.into_iter().enumerate() {
        let mut changed = stored.clone();
        change(&mut changed);
        let error = refused(&changed).await;
        assert!(matches!(&error, Error::Inconsistent { .. }), "{number}: {error:?}");
        assert!(error.to_string().contains(what), "{number}: {error}");
    }
}

#[tokio::test]
async fn a_terabyte_of_zeros_is_claimed() {
    // The manifest agrees with itself, but the object is far too small for as many frames.
    let spec = transfer::EntrySpec { name: "zeros".into(), size: 1 << 40 };
    let layout = Layout::with_frame_max(&[spec], SMALL).unwrap();
    let (mut entries, _) = honest("zeros", b"");
    let location = layout.entry_location(0);
    entries[0].size = 1 << 40;
    (entries[0].first_frame, entries[0].raw_offset) = (location.first_frame, location.raw_offset);
    let mut stored = finish(entries, FrameIndex::default(), vec![0; 100_000]);
    stored.archive.raw_bytes = layout.raw_len();
    stored.archive.frame_count = layout.frame_count();
    let error = refused(&stored).await;
    assert!(error.to_string().contains("frames in 100000 bytes"), "{error}");
}

#[tokio::test]
async fn frames_that_hold_more_or_less_than_the_index_says() {
    let data = noise(1, 100_000);
    let (entries, frames) = honest("a", &data);
    // The second data frame decodes to 8 MiB of zeros instead of 34,464 bytes.
    let bomb = vec![0; 8 << 20];
    let mut encoder = Encoder::new(Level::Fixed(1));
    let (mut object, mut index, mut out) = (Vec::new(), FrameIndex::default(), Vec::new());
    for (number, raw) in frames.iter().enumerate() {
        let mut frame = encoder.encode(raw, &mut out).unwrap();
        if number == 2 {
            frame = Frame { raw_len: frame.raw_len, ..encoder.encode(&bomb, &mut out).unwrap() };
        }
        index.frames.push(frame);
        object.extend_from_slice(&out);
    }
    object.extend(seek_table::encode(&index));
    let error = refused(&finish(entries, index, object)).await;
    let Error::FrameDamaged { frame: 2, what, .. } = &error else { panic!("{error:?}") };
    assert!(what.contains("it says that it holds 8388608 bytes, not 34464"), "{what}");
}

#[tokio::test]
async fn frames_out_of_another_archive() {
    // A frame that is whole, with its own hash, but not of this archive: the root does not cover it.
    let (tree, stored) = Stored::typical().await;
    let mut other = stored.clone();
    other.index.frames[2] = other.index.frames[3];
    let error = refused(&other).await;
    assert!(error.to_string().contains("the frame index has root"), "{error}");
    drop(tree);
    let tree = Tree::new([("a", noise(9, 1000))]);
    let store = Memory::default();
    let uploaded = tree.upload(&store).await;
    assert!(Stored::new(store, uploaded).restore_all(tempfile::tempdir().unwrap().path()).await.is_ok());
}
