//! Packs files into an archive on disk, with the library's own upload over its memory store.
//!
//! ```sh
//! cargo run -p transfer --example pack -- /tmp/archive snapshots/a=some/file snapshots/b=other/file
//! zstd -t /tmp/archive/archive.tar.zst && tar -I zstd -tvf /tmp/archive/archive.tar.zst
//! ```
//!
//! Writes `archive.tar.zst`, its frame index `archive.frames.json.zst`, and `archive.json` with what a manifest says of it.
//! Continuous integration runs the real programs on the result; the golden archives of the tests were made with it.

use std::{env, path::PathBuf};

use protocol::manifest::Archive;
use serde_json::json;
use transfer::{Content, EntrySpec, Source, UploadOptions, store::Memory, upload};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = env::args_os().skip(1).map(|argument| argument.to_string_lossy().into_owned());
    let folder = PathBuf::from(arguments.next().ok_or("usage: pack FOLDER NAME=FILE…")?);
    let mut sources = Vec::new();
    for argument in arguments {
        let (name, file) = argument.split_once('=').ok_or("usage: pack FOLDER NAME=FILE…")?;
        let size = fs_err::metadata(file)?.len();
        let entry = EntrySpec { name: name.to_owned(), size };
        sources.push(Source { entry, content: Content::File(file.into()), expected_sha256: None });
    }
    let store = Memory::default();
    let uploaded = upload(&store, "archive", sources, UploadOptions::new(512 << 20)).await?;
    let archive = Archive {
        raw_bytes: uploaded.raw_bytes,
        frame_count: u64::try_from(uploaded.index.frames.len())?,
        frames_root: uploaded.index.root_hex(),
        golden_sha256: "0".repeat(64),
        entries: uploaded.entries,
    };
    let description = json!({
        "size_bytes": uploaded.size_bytes,
        "sha256": uploaded.sha256,
        "crc64nvme": uploaded.crc64nvme,
        "archive": archive,
    });
    fs_err::create_dir_all(&folder)?;
    fs_err::write(folder.join("archive.tar.zst"), store.object("archive").unwrap_or_default())?;
    fs_err::write(folder.join("archive.frames.json.zst"), uploaded.index.to_json_zst())?;
    fs_err::write(folder.join("archive.json"), serde_json::to_string_pretty(&description)? + "\n")?;
    Ok(())
}
