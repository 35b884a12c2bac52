//! What may be written into the journal, and when: a part's end counts once everything before it is hashed.
//!
//! The object is assembled by one thread and each entry hashed by another, so the two halves of what is known at the end of a
//! part come at different times.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use sha2::Sha256;

use crate::{
    layout::{FrameContent, Layout},
    store::Crc64,
    upload::{
        checkpoint::Boundary,
        journal::{FRAMES_PER_RECORD, Record},
    },
};

/// Ends of parts that wait for the hashes of the entries before them.
#[derive(Debug)]
pub(super) struct Ledger {
    layout: Arc<Layout>,
    waiting: VecDeque<(Boundary, Crc64)>,
    /// SHA-256 of an entry up to the frame with this number, which continues it.
    states: BTreeMap<u64, Sha256>,
    digests: Vec<Option<[u8; 32]>>,
    /// Entries whose digests are written, or that have no data.
    settled: usize,
    /// Frames of the first part that waits which are written.
    listed: usize,
    /// Frames that are in memory at most.
    in_memory: u64,
}

impl Ledger {
    /// A ledger of an upload that goes on behind the entries whose digests are known, and has at most `in_memory` frames in memory.
    pub(super) fn new(layout: &Arc<Layout>, digests: Vec<Option<[u8; 32]>>, in_memory: usize) -> Self {
        let settled = digests.iter().position(Option::is_none).unwrap_or(digests.len());
        Self {
            layout: Arc::clone(layout),
            waiting: VecDeque::new(),
            states: BTreeMap::new(),
            digests,
            settled,
            listed: 0,
            in_memory: in_memory as u64,
        }
    }

    /// Takes the end of a part whose CRC-64/NVME is `part`. Parts come in order.
    pub(super) fn boundary(&mut self, boundary: Boundary, part: Crc64) {
        self.waiting.push_back((boundary, part));
    }

    /// Takes the SHA-256 of an entry up to `frame`.
    ///
    /// A frame gets its buffers when one that long before it has given them back, assembled: the ends of parts up to there are known, and
    /// no other will ask for an earlier state. Data that compress well have very many frames in a part.
    pub(super) fn state(&mut self, frame: u64, state: Sha256) {
        self.states.insert(frame, state);
        let assembled = frame.saturating_sub(self.in_memory);
        let waiting = self.waiting.front().map_or(assembled, |(end, _)| end.checkpoint.frame);
        self.states = self.states.split_off(&assembled.min(waiting));
    }

    /// Takes the digest of an entry.
    pub(super) fn digest(&mut self, entry: usize, digest: [u8; 32]) {
        self.digests[entry] = Some(digest);
    }

    /// The digests of all entries, as far as they are known.
    pub(super) fn into_digests(self) -> Vec<Option<[u8; 32]>> {
        self.digests
    }

    /// The next record that can be written, if any, `elapsed` after the upload's begin.
    pub(super) fn next(&mut self, elapsed: Duration) -> Option<Record> {
        let frame = self.waiting.front()?.0.checkpoint.frame;
        while self.settled < self.layout.entry_count() {
            let location = self.layout.entry_location(self.settled);
            if location.size > 0 {
                if location.first_frame + location.frame_count > frame {
                    break;
                }
                let digest = self.digests[self.settled]?;
                self.settled += 1;
                return Some(Record::entry(self.settled - 1, &digest));
            }
            self.settled += 1;
        }
        let continues = frame < self.layout.frame_count()
            && matches!(self.layout.frame(frame).content, FrameContent::Data { offset: 1.., .. });
        let state = if continues { Some(self.states.get(&frame)?.clone()) } else { None };
        let unlisted = &self.waiting.front()?.0.frames[self.listed..];
        if !unlisted.is_empty() {
            let listed = &unlisted[..unlisted.len().min(FRAMES_PER_RECORD)];
            self.listed += listed.len();
            return Some(Record::frames(listed));
        }
        self.listed = 0;
        self.states = self.states.split_off(&frame);
        let (boundary, part) = self.waiting.pop_front()?;
        Some(Record::part(&boundary.checkpoint, part, state.as_ref(), elapsed))
    }
}

#[cfg(test)]
mod tests {
    use sha2::Digest;

    use super::*;
    use crate::{
        layout::EntrySpec,
        upload::{checkpoint::Checkpoint, journal::Record},
    };

    /// Two entries of 250 bytes in frames of 100, an empty one between them: frames 1 to 3 and 5 onwards hold data.
    fn ledger() -> (Arc<Layout>, Ledger) {
        let spec = |name: &str, size| EntrySpec { name: name.to_owned(), size };
        let specs = [spec("a", 250), spec("empty", 0), spec("b", 250)];
        let layout = Arc::new(Layout::with_frame_max(&specs, 100).unwrap());
        let ledger = Ledger::new(&layout, vec![None; 3], 4);
        (layout, ledger)
    }

    fn boundary(parts: u32, frame: u64) -> Boundary {
        Boundary { checkpoint: Checkpoint { parts, frame, ..Checkpoint::start() }, frames: Vec::new() }
    }

    fn written(ledger: &mut Ledger) -> Vec<String> {
        std::iter::from_fn(|| ledger.next(Duration::ZERO))
            .map(|record| match record {
                Record::Entry { entry, .. } => format!("entry {entry}"),
                Record::Frames { frames } => format!("{} frames", frames.len()),
                Record::Part(part) => format!("part {}", part.parts),
                Record::Upload { .. } | Record::Sealed(_) => panic!("not a ledger's record"),
            })
            .collect()
    }

    #[test]
    fn a_part_waits_for_the_hash_of_the_entry_that_it_cuts() {
        let (layout, mut ledger) = ledger();
        let first = layout.entry_location(0).first_frame;
        ledger.boundary(boundary(1, first), Crc64(1));
        assert_eq!(written(&mut ledger), ["part 1"], "the frame starts an entry");
        ledger.boundary(boundary(2, first + 1), Crc64(2));
        ledger.boundary(boundary(3, first + 1), Crc64(3));
        assert!(written(&mut ledger).is_empty());
        ledger.state(first + 2, Sha256::new());
        assert!(written(&mut ledger).is_empty(), "that is another frame's");
        ledger.state(first + 1, Sha256::new());
        assert_eq!(written(&mut ledger), ["part 2", "part 3"]);
    }

    #[test]
    fn a_part_waits_for_the_digests_of_the_entries_before_it() {
        let (layout, mut ledger) = ledger();
        let second = layout.entry_location(2).first_frame;
        ledger.boundary(boundary(1, second), Crc64(1));
        ledger.boundary(boundary(2, layout.frame_count()), Crc64(2));
        assert!(written(&mut ledger).is_empty());
        ledger.digest(2, [2; 32]);
        assert!(written(&mut ledger).is_empty(), "the first entry's is missing");
        ledger.digest(0, [1; 32]);
        assert_eq!(written(&mut ledger), ["entry 0", "part 1", "entry 2", "part 2"]);
    }

    #[test]
    fn the_frames_of_a_part_come_before_it_and_never_too_many_at_once() {
        let (_, mut ledger) = ledger();
        let frame = crate::index::Frame { raw_len: 1, compressed_len: 1, hash: [0; 32] };
        for (parts, frames) in [(1, 2 * FRAMES_PER_RECORD + 3), (2, 1)] {
            ledger.boundary(Boundary { frames: vec![frame; frames], ..boundary(parts, 0) }, Crc64(1));
        }
        let expected = ["1024 frames", "1024 frames", "3 frames", "part 1", "1 frames", "part 2"];
        assert_eq!(written(&mut ledger), expected);
    }

    #[test]
    fn states_that_no_part_can_ask_for_any_more_are_let_go() {
        let spec = EntrySpec { name: "a".to_owned(), size: 1_000_000 };
        let layout = Arc::new(Layout::with_frame_max(&[spec], 100).unwrap());
        let mut ledger = Ledger::new(&layout, vec![None], 4);
        for frame in 2..5_000 {
            ledger.state(frame, Sha256::new());
        }
        assert_eq!(ledger.states.len(), 5);
        // A part whose end waits for its state keeps it.
        ledger.boundary(boundary(1, 4_998), Crc64(1));
        ledger.boundary(boundary(2, 5_001), Crc64(2));
        assert_eq!(written(&mut ledger), ["part 1"]);
        for frame in 5_000..9_000 {
            ledger.state(frame, Sha256::new());
        }
        assert_eq!(written(&mut ledger), ["part 2"]);
    }

    #[test]
    fn what_is_known_from_before_is_not_written_again() {
        let (layout, _) = ledger();
        let mut ledger = Ledger::new(&layout, vec![Some([1; 32]), Some([0; 32]), None], 4);
        ledger.boundary(boundary(7, layout.entry_location(2).first_frame), Crc64(1));
        assert_eq!(written(&mut ledger), ["part 7"]);
    }
}
