//! Where every byte of an archive's tar stream is, as a function of the entries' names and sizes and of nothing else.
//!
//! The stream is: for each entry its header blocks, its data, zeros up to a multiple of 512 bytes; then 1024 zeros. It
//! is cut into *frames*: the data of an entry into pieces of at most [`FRAME_RAW_MAX`] bytes counted from its first byte;
//! what lies between the data of two entries (*glue*: padding, headers, the end) likewise, counted from its first byte.
//! Empty entries have no data, so their headers are part of the glue.
//!
//! Since headers are fixed by name and size, a reader computes the glue itself and never interprets a header that it was
//! given. Nothing here grows with the sizes: 48.8 TiB take as much memory as one byte.

mod header;

use std::{collections::HashSet, ops::Range};

use crate::layout::header::header_len;

/// The most bytes of the tar stream in one frame: 8 MiB.
pub const FRAME_RAW_MAX: u32 = 8 << 20;
/// The most entries in one archive.
pub const MAX_ENTRIES: usize = 1 << 17;
/// The longest name in bytes.
pub const MAX_NAME_BYTES: usize = 1024;
/// The most frames in one archive: what the seekable format allows.
pub const MAX_FRAMES: u64 = 0x0800_0000;

/// The size of a tar block in bytes.
const BLOCK: u64 = 512;
/// The zeros that end a tar stream, in bytes.
const END: u64 = 2 * BLOCK;

/// An entry as far as the layout is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntrySpec {
    /// Its name in the tar stream.
    pub name: String,
    /// Its size in bytes.
    pub size: u64,
}

/// The layout of one archive.
#[derive(Clone, Debug)]
pub struct Layout {
    frame_max: u64,
    entries: Vec<Placed>,
    regions: Vec<Region>,
    raw_len: u64,
    frame_count: u64,
}

/// Where an entry's data is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryLocation {
    /// The frame that holds the byte at `raw_offset`. The data starts that frame, unless there is none.
    pub first_frame: u64,
    /// How many frames the data takes; 0 for an empty entry.
    pub frame_count: u64,
    /// Where the data starts in the tar stream, in bytes; where it would, for an empty entry.
    pub raw_offset: u64,
    /// The data's size in bytes.
    pub size: u64,
}

/// One frame's place in the tar stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameSpan {
    /// Where it starts in the tar stream, in bytes.
    pub raw_offset: u64,
    /// How many bytes of the tar stream it holds.
    pub raw_len: u32,
    /// What these bytes are.
    pub content: FrameContent,
}

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameContent {
    /// Data of an entry.
    Data {
        /// The entry's place in the archive, from 0.
        entry: usize,
        /// Where in the entry's data the frame starts, in bytes.
        offset: u64,
    },
    /// Padding, headers, the end: [`Layout::glue`] gives the bytes.
    Glue,
}

/// The entries do not make an archive.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// There is no entry.
    #[error("an archive has at least one entry")]
    Empty,
    /// There are too many entries.
    #[error("{count} entries, but an archive has at most {MAX_ENTRIES}")]
    TooManyEntries {
        /// How many there are.
        count: usize,
    },
    /// A name is not a plain relative path.
    #[error(
        "`{}` is not the name of an entry: 1 to {MAX_NAME_BYTES} bytes, components separated by single slashes, none of \
         them `.` or `..`, no control characters",
        name.escape_debug()
    )]
    Name {
        /// The name.
        name: String,
    },
    /// A name occurs twice.
    #[error("two entries are called `{}`", name.escape_debug())]
    Duplicate {
        /// The name.
        name: String,
    },
    /// The sizes add up to more than can be counted.
    #[error("the sizes of the entries add up to more than 2^63 bytes")]
    TooLarge,
    /// There would be too many frames.
    #[error("{frames} frames, but an archive has at most {MAX_FRAMES}")]
    TooManyFrames {
        /// How many there would be.
        frames: u64,
    },
}

#[derive(Clone, Debug)]
struct Placed {
    name: String,
    size: u64,
    header: Range<u64>,
    first_frame: u64,
}

/// A run of bytes that is cut into frames from its start.
#[derive(Clone, Debug)]
struct Region {
    raw_offset: u64,
    len: u64,
    first_frame: u64,
    /// The entry whose data it is; `None` for glue.
    data_of: Option<usize>,
}

impl Layout {
    /// Lays out `entries` in their order.
    pub fn new(entries: &[EntrySpec]) -> Result<Self, LayoutError> {
        Self::with_frame_max(entries, FRAME_RAW_MAX)
    }

    /// As [`Layout::new`], with frames of at most `frame_max` bytes. Only tests use another value than the format's.
    pub fn with_frame_max(entries: &[EntrySpec], frame_max: u32) -> Result<Self, LayoutError> {
        check(entries)?;
        let mut layout = Self {
            frame_max: u64::from(frame_max.max(1)),
            entries: Vec::with_capacity(entries.len()),
            regions: Vec::with_capacity(2 * entries.len() + 1),
            raw_len: 0,
            frame_count: 0,
        };
        let mut position: u64 = 0;
        let mut glue_start: u64 = 0;
        for entry in entries {
            let header_end = add(position, header_len(&entry.name, entry.size))?;
            let mut placed = Placed {
                name: entry.name.clone(),
                size: entry.size,
                header: position..header_end,
                first_frame: 0,
            };
            position = header_end;
            if entry.size > 0 {
                layout.push_region(glue_start..position, None);
                placed.first_frame = layout.frame_count;
                let data_end = add(position, entry.size)?;
                layout.push_region(position..data_end, Some(layout.entries.len()));
                glue_start = data_end;
                position = add(data_end, padding(entry.size))?;
            }
            layout.entries.push(placed);
        }
        layout.raw_len = add(position, END)?;
        layout.push_region(glue_start..layout.raw_len, None);
        if layout.frame_count > MAX_FRAMES {
            return Err(LayoutError::TooManyFrames { frames: layout.frame_count });
        }
        for entry in 0..layout.entries.len() {
            if layout.entries[entry].size == 0 {
                layout.entries[entry].first_frame = layout.frame_at(layout.entries[entry].header.end);
            }
        }
        Ok(layout)
    }

    /// The length of the tar stream in bytes.
    pub fn raw_len(&self) -> u64 {
        self.raw_len
    }

    /// How many frames the tar stream is cut into.
    pub fn frame_count(&self) -> u64 {
        self.frame_count
    }

    /// The most bytes of the tar stream in one frame.
    pub fn frame_max(&self) -> u32 {
        u32::try_from(self.frame_max).unwrap_or(u32::MAX)
    }

    /// The raw length of the largest frame, in bytes.
    pub(crate) fn largest_frame(&self) -> usize {
        let largest = self.regions.iter().map(|region| region.len.min(self.frame_max)).max();
        usize::try_from(largest.unwrap_or(0)).unwrap_or(usize::MAX)
    }

    /// How many entries there are.
    pub fn entry_count(&self) -> usize {
        self.entries.len()
    }

    /// The name of entry number `entry`, from 0.
    pub fn name(&self, entry: usize) -> &str {
        &self.entries[entry].name
    }

    /// Where the data of entry number `entry` is, from 0.
    pub fn entry_location(&self, entry: usize) -> EntryLocation {
        let placed = &self.entries[entry];
        EntryLocation {
            first_frame: placed.first_frame,
            frame_count: placed.size.div_ceil(self.frame_max),
            raw_offset: placed.header.end,
            size: placed.size,
        }
    }

    /// The place of frame number `frame`, from 0 and below [`Layout::frame_count`].
    pub fn frame(&self, frame: u64) -> FrameSpan {
        let region = &self.regions[self.regions.partition_point(|region| region.first_frame <= frame) - 1];
        let offset = (frame - region.first_frame) * self.frame_max;
        let raw_len = self.frame_max.min(region.len - offset);
        FrameSpan {
            raw_offset: region.raw_offset + offset,
            raw_len: u32::try_from(raw_len).unwrap_or(u32::MAX),
            content: match region.data_of {
                Some(entry) => FrameContent::Data { entry, offset },
                None => FrameContent::Glue,
            },
        }
    }

    /// The frames that hold glue, ascending.
    pub fn glue_frames(&self) -> impl Iterator<Item = u64> + '_ {
        let glue = self.regions.iter().filter(|region| region.data_of.is_none());
        glue.flat_map(|region| region.first_frame..region.first_frame + region.len.div_ceil(self.frame_max))
    }

    /// The bytes of frame number `frame`, which must hold glue.
    pub fn glue(&self, frame: u64) -> Vec<u8> {
        let span = self.frame(frame);
        let start = span.raw_offset;
        let end = start + u64::from(span.raw_len);
        let mut bytes = vec![0; span.raw_len as usize];
        let first = self.entries.partition_point(|entry| entry.header.end <= start);
        for entry in self.entries[first..].iter().take_while(|entry| entry.header.start < end) {
            let header = header::encode(&entry.name, entry.size);
            let from = start.max(entry.header.start);
            let to = end.min(entry.header.end);
            let within = |position: u64, base: u64| usize::try_from(position - base).unwrap_or(usize::MAX);
            bytes[within(from, start)..within(to, start)]
                .copy_from_slice(&header[within(from, entry.header.start)..within(to, entry.header.start)]);
        }
        bytes
    }

    /// Describes the place of a frame for people.
    pub fn describe(&self, frame: u64) -> String {
        match self.frame(frame).content {
            FrameContent::Data { entry, offset } => format!("`{}` at byte {offset}", self.name(entry)),
            FrameContent::Glue => format!("tar headers at byte {}", self.frame(frame).raw_offset),
        }
    }

    fn push_region(&mut self, range: Range<u64>, data_of: Option<usize>) {
        let len = range.end - range.start;
        self.regions.push(Region { raw_offset: range.start, len, first_frame: self.frame_count, data_of });
        self.frame_count += len.div_ceil(self.frame_max);
    }

    /// The frame that holds the byte at `raw_offset`.
    fn frame_at(&self, raw_offset: u64) -> u64 {
        let region =
            &self.regions[self.regions.partition_point(|region| region.raw_offset <= raw_offset) - 1];
        region.first_frame + (raw_offset - region.raw_offset) / self.frame_max
    }
}

fn check(entries: &[EntrySpec]) -> Result<(), LayoutError> {
    if entries.is_empty() {
        return Err(LayoutError::Empty);
    }
    if entries.len() > MAX_ENTRIES {
        return Err(LayoutError::TooManyEntries { count: entries.len() });
    }
    let mut names = HashSet::with_capacity(entries.len());
    for EntrySpec { name, .. } in entries {
        let component = |c: &str| !c.is_empty() && c != "." && c != "..";
        if name.len() > MAX_NAME_BYTES || name.contains(char::is_control) || !name.split('/').all(component) {
            return Err(LayoutError::Name { name: name.clone() });
        }
        if !names.insert(name.as_str()) {
            return Err(LayoutError::Duplicate { name: name.clone() });
        }
    }
    Ok(())
}

/// How many zeros follow data of `size` bytes.
fn padding(size: u64) -> u64 {
    size.wrapping_neg() % BLOCK
}

/// Adds lengths, with room to spare below the limit of 64 bits so that nothing later can overflow.
fn add(a: u64, b: u64) -> Result<u64, LayoutError> {
    a.checked_add(b).filter(|sum| *sum <= 1 << 63).ok_or(LayoutError::TooLarge)
}

#[cfg(test)]
mod tests;
