//! What a manifest says about an archive, held against the format and against the frame index, before a byte is fetched.

use protocol::manifest::ArchiveEntry;

use crate::{
    download::ArchiveRef,
    error::Error,
    index::{FrameIndex, seek_table},
    layout::{EntrySpec, Layout},
};

/// The least that a frame takes in the object, in bytes: a zstd frame of nothing with a checksum, and its seek table entry.
const FRAME_MIN: u64 = 13 + 8;

/// The layout that the entries' names and sizes demand, once all else that the manifest says agrees with it.
pub(super) fn layout_of(archive: ArchiveRef<'_>, frame_max: u32) -> Result<Layout, Error> {
    let inconsistent = |what: String| Error::Inconsistent { key: archive.key.to_owned(), what };
    let stated = archive.archive;
    let specs: Vec<EntrySpec> =
        stated.entries.iter().map(|entry| EntrySpec { name: entry.name.clone(), size: entry.size }).collect();
    let layout =
        Layout::with_frame_max(&specs, frame_max).map_err(|error| inconsistent(error.to_string()))?;
    if stated.raw_bytes != layout.raw_len() {
        return Err(inconsistent(format!(
            "{} raw bytes, but its entries take {}",
            stated.raw_bytes,
            layout.raw_len()
        )));
    }
    if stated.frame_count != layout.frame_count() {
        return Err(inconsistent(format!(
            "{} frames, but its entries take {}",
            stated.frame_count,
            layout.frame_count()
        )));
    }
    for (number, entry) in stated.entries.iter().enumerate() {
        let ArchiveEntry { name, first_frame, raw_offset, .. } = entry;
        let location = layout.entry_location(number);
        if (*first_frame, *raw_offset) != (location.first_frame, location.raw_offset) {
            return Err(inconsistent(format!(
                "`{name}` in frame {first_frame} at byte {raw_offset}, but it belongs in frame {} at byte {}",
                location.first_frame, location.raw_offset
            )));
        }
    }
    // Keeps an index of absurd size from being asked for.
    if archive.size_bytes < layout.frame_count() * FRAME_MIN {
        return Err(inconsistent(format!("{} frames in {} bytes", layout.frame_count(), archive.size_bytes)));
    }
    Ok(layout)
}

/// Holds the frame index against the layout and the manifest.
pub(super) fn check_index(archive: ArchiveRef<'_>, layout: &Layout, index: &FrameIndex) -> Result<(), Error> {
    let inconsistent = |what: String| Error::Inconsistent { key: archive.key.to_owned(), what };
    let root = index.root_hex();
    if root != archive.archive.frames_root {
        return Err(inconsistent(format!(
            "the frame index has root {root}, not {}",
            archive.archive.frames_root
        )));
    }
    index.check_layout(layout).map_err(inconsistent)?;
    let size = index.compressed_len() + seek_table::encoded_len(layout.frame_count());
    if size != archive.size_bytes {
        return Err(inconsistent(format!(
            "{} bytes, but its frames and seek table take {size}",
            archive.size_bytes
        )));
    }
    Ok(())
}
