use std::io::{self, Cursor, Read, Seek, SeekFrom};

use proptest::prelude::*;

use super::*;

fn specs(entries: &[(&str, u64)]) -> Vec<EntrySpec> {
    entries.iter().map(|(name, size)| EntrySpec { name: (*name).to_owned(), size: *size }).collect()
}

/// The byte at `offset` of the data of entry number `entry`.
fn data_byte(entry: usize, offset: u64) -> u8 {
    u8::try_from((offset.wrapping_mul(31) + entry as u64 * 7 + offset / 509) % 255).unwrap()
}

/// The tar stream, put together from its frames.
fn assemble(layout: &Layout) -> Vec<u8> {
    let mut raw = Vec::new();
    for number in 0..layout.frame_count() {
        let span = layout.frame(number);
        assert_eq!(span.raw_offset, raw.len() as u64, "frames follow one another");
        assert!(span.raw_len > 0 && span.raw_len <= layout.frame_max());
        match span.content {
            FrameContent::Data { entry, offset } => {
                raw.extend((offset..offset + u64::from(span.raw_len)).map(|at| data_byte(entry, at)));
            }
            FrameContent::Glue => raw.extend(layout.glue(number)),
        }
    }
    assert_eq!(raw.len() as u64, layout.raw_len());
    raw
}

fn check_against_tar(entries: &[EntrySpec], frame_max: u32) {
    let layout = Layout::with_frame_max(entries, frame_max).unwrap();
    let raw = assemble(&layout);
    assert!(raw.len().is_multiple_of(512));
    let mut archive = tar::Archive::new(Cursor::new(&raw));
    let mut read = archive.entries().unwrap();
    for (number, spec) in entries.iter().enumerate() {
        let mut entry = read.next().unwrap().unwrap();
        assert_eq!(entry.path_bytes().as_ref(), spec.name.as_bytes());
        let location = layout.entry_location(number);
        assert_eq!(entry.raw_file_position(), location.raw_offset);
        assert_eq!(location.size, spec.size);
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        assert!(bytes.iter().zip(0..).all(|(byte, at)| *byte == data_byte(number, at)));
        assert_eq!(bytes.len() as u64, spec.size);
        let frame = layout.frame(location.first_frame);
        if spec.size > 0 {
            assert_eq!(frame.content, FrameContent::Data { entry: number, offset: 0 });
            assert_eq!(location.frame_count, spec.size.div_ceil(u64::from(frame_max)));
        } else {
            assert_eq!(location.frame_count, 0);
            let end = frame.raw_offset + u64::from(frame.raw_len);
            assert!((frame.raw_offset..end).contains(&location.raw_offset));
        }
    }
    assert!(read.next().is_none());
    let glue: Vec<u64> = layout.glue_frames().collect();
    let by_content = (0..layout.frame_count()).filter(|n| layout.frame(*n).content == FrameContent::Glue);
    assert_eq!(glue, by_content.collect::<Vec<_>>());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_tar_crate_reads_every_layout(
        names in prop::collection::hash_set("[a-zA-Z0-9 ü%_-]{1,12}(/[a-z.%=\n]{2,150}x){0,2}", 1..8),
        sizes in prop::collection::vec(prop_oneof![Just(0), Just(1), 500..530_u64, 0..5_000_u64, Just(4096), Just(512)], 8),
        frame_max in prop_oneof![Just(512_u32), Just(1), Just(700), Just(4096), Just(1 << 20)],
    ) {
        let entries: Vec<EntrySpec> = names
            .into_iter()
            .zip(sizes)
            .map(|(name, size)| EntrySpec { name: name.replace('\n', "."), size })
            .collect();
        check_against_tar(&entries, frame_max);
    }
}

#[test]
fn the_sizes_around_a_frame() {
    let frame = u64::from(FRAME_RAW_MAX);
    for size in [frame - 1, frame, frame + 1] {
        let entries = specs(&[("a", size), ("b", 1)]);
        check_against_tar(&entries, FRAME_RAW_MAX);
        let layout = Layout::new(&entries).unwrap();
        let glue_and_b = 4;
        assert_eq!(layout.frame_count(), size.div_ceil(frame) + glue_and_b);
    }
}

#[test]
fn the_cuts_are_as_documented() {
    // `docs/format.md` shows this example.
    let layout = Layout::new(&specs(&[("a", 8_388_609), ("empty", 0), ("b", 10)])).unwrap();
    let frames: Vec<_> =
        (0..layout.frame_count()).map(|n| layout.frame(n)).map(|f| (f.raw_offset, f.raw_len)).collect();
    assert_eq!(
        frames,
        [
            (0, 512),
            (512, 8_388_608),
            (8_389_120, 1),
            (8_389_121, 511 + 512 + 512),
            (8_390_656, 10),
            (8_390_666, 502 + 1024)
        ]
    );
    let empty = layout.entry_location(1);
    assert_eq!((empty.first_frame, empty.raw_offset), (3, 8_389_632 + 512));
    assert_eq!(layout.raw_len(), 8_392_192);
}

#[test]
fn only_plain_names_once_each() {
    for name in ["", "/a", "a/", "a//b", ".", "..", "../a", "a/../b", "a/.", "./a", "a\0b", "a\nb", "\u{7f}"]
    {
        let error = Layout::new(&specs(&[(name, 1)])).unwrap_err();
        assert_eq!(error, LayoutError::Name { name: name.to_owned() });
    }
    assert!(Layout::new(&specs(&[(&"n".repeat(MAX_NAME_BYTES), 1)])).is_ok());
    assert!(Layout::new(&specs(&[(&"n".repeat(MAX_NAME_BYTES + 1), 1)])).is_err());
    assert!(Layout::new(&specs(&[("...", 1), ("..a/b..", 1)])).is_ok());
    assert_eq!(
        Layout::new(&specs(&[("a", 1), ("b", 1), ("a", 2)])).unwrap_err(),
        LayoutError::Duplicate { name: "a".to_owned() }
    );
    assert_eq!(Layout::new(&[]).unwrap_err(), LayoutError::Empty);
}

#[test]
fn sizes_beyond_anything_are_refused_and_not_overflowed() {
    for entries in [&[("a", u64::MAX)][..], &[("a", 1 << 62), ("b", 1 << 62)], &[("a", (1 << 63) - 100)]] {
        assert_eq!(Layout::new(&specs(entries)).unwrap_err(), LayoutError::TooLarge);
    }
    let frames = LayoutError::TooManyFrames { frames: MAX_FRAMES + 2 };
    assert_eq!(Layout::new(&specs(&[("a", MAX_FRAMES << 23)])).unwrap_err(), frames);
    let many: Vec<_> = (0..=MAX_ENTRIES).map(|n| EntrySpec { name: n.to_string(), size: 0 }).collect();
    assert_eq!(Layout::new(&many).unwrap_err(), LayoutError::TooManyEntries { count: MAX_ENTRIES + 1 });
}

/// Reads a tar stream that exists only as its layout, with zeros for data.
struct Virtual<'a> {
    layout: &'a Layout,
    position: u64,
}

impl Read for Virtual<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(left) = self.layout.raw_len().checked_sub(self.position).filter(|left| *left > 0) else {
            return Ok(0);
        };
        let number = self.layout.frame_at(self.position);
        let span = self.layout.frame(number);
        let skip = usize::try_from(self.position - span.raw_offset).unwrap();
        let len = buffer.len().min(span.raw_len as usize - skip).min(usize::try_from(left).unwrap());
        match span.content {
            FrameContent::Data { .. } => buffer[..len].fill(0),
            FrameContent::Glue => buffer[..len].copy_from_slice(&self.layout.glue(number)[skip..skip + len]),
        }
        self.position += len as u64;
        Ok(len)
    }
}

impl Seek for Virtual<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.position = match to {
            SeekFrom::Start(position) => position,
            SeekFrom::Current(by) => self.position.checked_add_signed(by).unwrap(),
            SeekFrom::End(by) => self.layout.raw_len().checked_add_signed(by).unwrap(),
        };
        Ok(self.position)
    }
}

#[test]
fn the_largest_archives_are_arithmetic_and_the_tar_crate_finds_its_way_in_them() {
    // 48.8 TiB is the largest object; 8 GiB is where the size no longer fits the ordinary header.
    let gib: u64 = 1 << 30;
    for sizes in [vec![50_000 * gib], vec![8 * gib - 1, 8 * gib, 8 * gib + 1, 20_000 * gib, 30_000 * gib, 3]]
    {
        let long = "n".repeat(150);
        let names =
            (0..sizes.len()).map(|number| format!("{number}/{}", if number % 2 == 0 { &long } else { "x" }));
        let entries: Vec<_> = names.zip(&sizes).map(|(name, size)| EntrySpec { name, size: *size }).collect();
        let layout = Layout::new(&entries).unwrap();
        assert!(layout.frame_count() < MAX_FRAMES);
        let last = layout.frame(layout.frame_count() - 1);
        assert_eq!(last.raw_offset + u64::from(last.raw_len), layout.raw_len());
        let mut archive = tar::Archive::new(Virtual { layout: &layout, position: 0 });
        let read = archive.entries_with_seek().unwrap().map(|entry| {
            let entry = entry.unwrap();
            (
                String::from_utf8(entry.path_bytes().into_owned()).unwrap(),
                entry.size(),
                entry.raw_file_position(),
            )
        });
        let expected = entries.iter().enumerate().map(|(number, entry)| {
            (entry.name.clone(), entry.size, layout.entry_location(number).raw_offset)
        });
        assert_eq!(read.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
    }
}
