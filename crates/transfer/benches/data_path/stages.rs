//! The stages of a backup and of a restore, each alone: on one thread, over all of the data, with nothing else going on.
//!
//! Input that a stage works on is read beforehand, off the clock, a frame at a time: it comes as warm from the cache as in the
//! product. What the product does not do for a frame of zeros like the one before is left out here too.

use std::{
    os::unix::fs::FileExt as _,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use anyhow::{Context as _, anyhow, ensure};
use crc_fast::{CrcAlgorithm, Digest as Crc};
use sha2::{Digest, Sha256};
use transfer::{
    EntrySpec, Layout, Level,
    frame::{Decoder, Encoder},
    index::Frame,
    layout::FrameContent,
};
use zstd_safe::{CCtx, CParameter, DCtx};

use crate::{
    client::bucket,
    measure::{Sample, Scope, Stopwatch},
    rows::runtime,
    sink::KEEP,
    snapshots::Snapshots,
    suite::DATA,
    whole::{Stored, restored},
};

/// The stages of a backup but for the upload, whose time is that of the client's row.
pub(crate) const BACKUP_STAGES: [&str; 6] = [
    "read",
    "compress",
    "BLAKE3 of frames",
    "SHA-256 of snapshots",
    "SHA-256 of object",
    "CRC-64/NVME of object",
];

/// The block size of a file system: blocks of zeros are not written.
const BLOCK: usize = 4096;

/// The data, cut into frames as the product does it.
struct Frames {
    layout: Layout,
    files: Vec<fs_err::File>,
    raw: Vec<u8>,
}

impl Frames {
    fn open(work: &Path) -> anyhow::Result<Self> {
        let snapshots = Snapshots::load(work, DATA)?;
        let spec = |file: &crate::snapshots::Snapshot| EntrySpec {
            name: format!("snapshots/{}", file.name),
            size: file.size,
        };
        let specs: Vec<EntrySpec> = snapshots.files.iter().map(spec).collect();
        let open = |file: &crate::snapshots::Snapshot| fs_err::File::open(snapshots.folder.join(&file.name));
        let files = snapshots.files.iter().map(open).collect::<Result<_, _>>()?;
        Ok(Self { layout: Layout::new(&specs)?, files, raw: Vec::new() })
    }

    fn count(&self) -> u64 {
        self.layout.frame_count()
    }

    fn read(&mut self, number: u64) -> anyhow::Result<&[u8]> {
        let span = self.layout.frame(number);
        self.raw.resize(span.raw_len as usize, 0);
        match span.content {
            FrameContent::Data { entry, offset } => {
                self.files[entry].file().read_exact_at(&mut self.raw, offset)?;
            }
            FrameContent::Glue => self.raw.copy_from_slice(&self.layout.glue(number)),
        }
        Ok(&self.raw)
    }
}

/// What the product makes of a frame.
struct Packed {
    frame: Frame,
    compressed: Vec<u8>,
    level: i32,
    /// The product has done nothing but to use the frame before once more.
    repeats: bool,
}

/// Runs every stage, in the order of the table.
pub(crate) fn run(work: &Path) -> anyhow::Result<Vec<(String, Sample)>> {
    let mut frames = Frames::open(work)?;
    let raw_bytes = frames.layout.raw_len();
    let mut samples = Vec::new();
    let mut note = |name: &str, watch: &Stopwatch| samples.push((name.to_owned(), watch.sample(raw_bytes)));
    let watch = || Stopwatch::new(Scope::Thread);

    let mut encode = watch();
    let packed = pack(&mut frames, &mut encode)?;

    let mut read = watch();
    for number in 0..frames.count() {
        read.time(|| frames.read(number).map(drop))?;
    }
    note("read", &read);

    let mut compress = watch();
    let (mut fast, mut better, mut out) = (context(1)?, context(3)?, Vec::new());
    for (number, packed) in (0..).zip(&packed).filter(|(_, packed)| !packed.repeats) {
        let raw = frames.read(number)?;
        out.clear();
        out.reserve(zstd_safe::compress_bound(raw.len()));
        let context = if packed.level == 1 { &mut fast } else { &mut better };
        compress.time(|| context.compress2(&mut out, raw)).map_err(zstd_error)?;
        ensure!(out == packed.compressed, "the same frame compresses to other bytes");
    }
    note("compress", &compress);

    let mut hash = watch();
    for (number, packed) in (0..).zip(&packed).filter(|(_, packed)| !packed.repeats) {
        let raw = frames.read(number)?;
        let found = hash.time(|| blake3::hash(raw));
        ensure!(*found.as_bytes() == packed.frame.hash, "the same frame has another hash");
    }
    note("BLAKE3 of frames", &hash);

    let (mut hash, mut sha256) = (watch(), Sha256::new());
    for number in 0..frames.count() {
        let raw = frames.read(number)?;
        hash.time(|| sha256.update(raw));
    }
    std::hint::black_box(sha256.finalize());
    note("SHA-256 of snapshots", &hash);

    let (mut hash, mut sha256) = (watch(), Sha256::new());
    packed.iter().for_each(|packed| hash.time(|| sha256.update(&packed.compressed)));
    std::hint::black_box(sha256.finalize());
    note("SHA-256 of object", &hash);

    let (mut sum, mut crc) = (watch(), Crc::new(CrcAlgorithm::Crc64Nvme));
    packed.iter().for_each(|packed| sum.time(|| crc.update(&packed.compressed)));
    std::hint::black_box(crc.finalize());
    note("CRC-64/NVME of object", &sum);

    note("as the product encodes", &encode);

    let (mut decode, mut context, mut raw) = (watch(), DCtx::create(), Vec::new());
    for packed in &packed {
        raw.resize(packed.frame.raw_len as usize, 0);
        let decoded = decode.time(|| context.decompress(raw.as_mut_slice(), &packed.compressed));
        ensure!(decoded.map_err(zstd_error)? == raw.len(), "a frame decodes to another length");
    }
    note("decompress", &decode);

    let mut hash = watch();
    for number in 0..frames.count() {
        let raw = frames.read(number)?;
        std::hint::black_box(hash.time(|| blake3::hash(raw)));
    }
    note("BLAKE3 of all frames", &hash);

    note("write", &write(work, &mut frames)?);
    Ok(samples)
}

fn pack(frames: &mut Frames, encode: &mut Stopwatch) -> anyhow::Result<Vec<Packed>> {
    let (mut encoder, mut fast) = (Encoder::new(Level::Auto), context(1)?);
    let (mut zeros_before, mut out, mut at_one) = (None, Vec::new(), Vec::new());
    let mut packed = Vec::new();
    for number in 0..frames.count() {
        let raw = frames.read(number)?;
        let encoded = encode.time(|| encoder.encode(raw, &mut out));
        let frame = encoded.map_err(|reason| anyhow!("encode: {reason}"))?;
        let zeros = raw.iter().all(|byte| *byte == 0);
        let repeats = zeros && zeros_before == Some(raw.len());
        if zeros {
            zeros_before = Some(raw.len());
        }
        at_one.clear();
        at_one.reserve(zstd_safe::compress_bound(raw.len()));
        fast.compress2(&mut at_one, raw).map_err(zstd_error)?;
        let level = if at_one == out { 1 } else { 3 };
        packed.push(Packed { frame, compressed: out.clone(), level, repeats });
    }
    Ok(packed)
}

/// Writes the data to new files as it arrives, without blocks of zeros.
fn write(work: &Path, frames: &mut Frames) -> anyhow::Result<Stopwatch> {
    let mut watch = Stopwatch::new(Scope::Thread);
    let folder = restored(work);
    let create = |entry: usize| {
        let file = fs_err::File::create_new(folder.join(entry.to_string()))?;
        file.set_len(frames.layout.entry_location(entry).size)?;
        anyhow::Ok(file)
    };
    let files = (0..frames.layout.entry_count()).map(create).collect::<anyhow::Result<Vec<_>>>()?;
    for number in 0..frames.count() {
        let FrameContent::Data { entry, offset } = frames.layout.frame(number).content else { continue };
        let raw = frames.read(number)?;
        watch.time(|| write_runs(&files[entry], offset, raw)).context("write")?;
    }
    Ok(watch)
}

fn write_runs(file: &fs_err::File, offset: u64, raw: &[u8]) -> std::io::Result<()> {
    let is_zero = |block: &[u8]| block.iter().fold(0, |all, byte| all | byte) == 0;
    let mut start = 0;
    for run in raw.chunks(BLOCK).collect::<Vec<_>>().chunk_by(|a, b| is_zero(a) == is_zero(b)) {
        let len: usize = run.iter().map(|block| block.len()).sum();
        if !is_zero(run[0]) {
            file.file().write_all_at(&raw[start..start + len], offset + start as u64)?;
        }
        start += len;
    }
    Ok(())
}

/// Decodes and verifies every frame of the kept archive, on `threads` threads.
pub(crate) fn decode(work: &Path, threads: usize) -> anyhow::Result<Sample> {
    let stored = Stored::load(work, DATA)?;
    let index = stored.index(work, DATA)?;
    let object = runtime()?.block_on(stored.read(&bucket(work, KEEP)?))?;
    let (offsets, next) = (index.offsets(), AtomicUsize::new(0));
    let decode = || {
        let (mut decoder, mut raw) = (Decoder::default(), Vec::new());
        loop {
            let number = next.fetch_add(1, Relaxed);
            let Some(frame) = index.frames.get(number) else { return anyhow::Ok(()) };
            let start = usize::try_from(offsets[number])?;
            let compressed = &object[start..start + frame.compressed_len as usize];
            decoder.decode(compressed, frame, &mut raw).map_err(|what| anyhow!("decode: {what}"))?;
        }
    };
    let mut watch = Stopwatch::new(Scope::Process);
    watch.time(|| {
        std::thread::scope(|scope| {
            let crew: Vec<_> = (0..threads).map(|_| scope.spawn(decode)).collect();
            crew.into_iter().try_for_each(|thread| {
                thread.join().map_err(|_panic| anyhow!("a thread of the decoding panics"))?
            })
        })
    })?;
    Ok(watch.sample(index.raw_len()))
}

/// A context with the parameters of the format.
fn context(level: i32) -> anyhow::Result<CCtx<'static>> {
    let mut context = CCtx::create();
    for parameter in [
        CParameter::CompressionLevel(level),
        CParameter::ContentSizeFlag(true),
        CParameter::ChecksumFlag(true),
        CParameter::DictIdFlag(false),
    ] {
        context.set_parameter(parameter).map_err(zstd_error)?;
    }
    Ok(context)
}

fn zstd_error(code: usize) -> anyhow::Error {
    anyhow!("zstd: {}", zstd_safe::get_error_name(code))
}
