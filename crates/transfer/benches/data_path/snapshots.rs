//! Snapshot files as Qdrant writes them: a tar with a tar per segment in it, nothing compressed but the payloads.
//!
//! The bytes are made from real embeddings and real text, in the shares that were measured in a collection (f32 vectors
//! 48 %, int8 quantised vectors 12 %, payload pages 13 %, graph links 4 %, zeros 22 %), and are the same for the same size.
//! Vectors between two real ones compress as real ones do, where copies would not; text is put together from short pieces,
//! so that it does not repeat itself over long distances.

use std::{
    fmt::Write as _,
    io::{self, Write},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tar::{Builder, Header};

use crate::corpus::{Corpus, DIMENSIONS, SplitMix};

/// Shares of the snapshots of several collections in the whole, in tenths.
pub(crate) const SEVERAL: &[u64] = &[4, 3, 2, 1];
/// The same for one collection.
pub(crate) const ONE: &[u64] = &[10];
/// Points of one segment at most.
const SEGMENT_POINTS: usize = 50_000;
/// About how many bytes a point takes in a snapshot, zeros included.
const POINT_BYTES: u64 = 3_184;
/// Zeros in chunk and page files that are allocated ahead, as a share of the other bytes; as many again are in the WAL.
const ZEROS: f64 = 0.11 / 0.78;
/// The block size of the payload storage in bytes.
const PAYLOAD_BLOCK: usize = 128;
/// Neighbours of a point in the graph.
const LINKS: usize = 32;
/// Points of a neighbourhood, out of which neighbours are taken.
const NEIGHBOURHOOD: usize = 400;
/// How many bits a bit-packed link takes.
const LINK_BITS: u32 = 20;

/// The snapshot files of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Snapshots {
    /// Where they are, with nothing else.
    pub(crate) folder: PathBuf,
    /// The files, in their order.
    pub(crate) files: Vec<Snapshot>,
}

/// One snapshot file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Snapshot {
    pub(crate) name: String,
    pub(crate) size: u64,
    /// What Qdrant would say it is, in hexadecimal.
    pub(crate) sha256: String,
}

impl Snapshots {
    pub(crate) fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
    }

    /// Looks up what was made as `name` in the folder of the run.
    pub(crate) fn load(work: &Path, name: &str) -> anyhow::Result<Self> {
        let text = fs_err::read(work.join(name).with_extension("json"))?;
        serde_json::from_slice(&text).context("read the list of snapshots")
    }

    fn save(&self, work: &Path, name: &str) -> anyhow::Result<()> {
        fs_err::write(work.join(name).with_extension("json"), serde_json::to_vec(self)?)?;
        // For `sha256sum -c` in the baselines.
        let sums = self.files.iter().map(|file| format!("{}  {}\n", file.sha256, file.name));
        fs_err::write(work.join(name).with_extension("sha256"), sums.collect::<String>())?;
        Ok(())
    }
}

/// Makes snapshots of about `size` bytes in all, in the folder `name` of the run.
pub(crate) fn generate(
    corpus: &Corpus,
    work: &Path,
    name: &str,
    size: u64,
    shares: &[u64],
) -> anyhow::Result<Snapshots> {
    let folder = work.join(name);
    fs_err::create_dir(&folder)?;
    let mut files = Vec::new();
    for (seed, share) in (1..).zip(shares) {
        let name = format!("collection-{seed}-2026-11-28-03-00-00.snapshot");
        let points = usize::try_from(size * share / 10 / POINT_BYTES)?.max(NEIGHBOURHOOD);
        let file = io::BufWriter::with_capacity(1 << 20, fs_err::File::create(folder.join(&name))?);
        let mut out = Hashing { file, sha256: Sha256::new(), size: 0 };
        snapshot(corpus, seed, points, &mut out)?;
        out.flush()?;
        files.push(Snapshot { name, size: out.size, sha256: hex::encode(out.sha256.finalize()) });
    }
    let snapshots = Snapshots { folder, files };
    snapshots.save(work, name)?;
    Ok(snapshots)
}

/// A sparse file of `size` zeros in the folder `name` of the run: data that compresses more than 10,000:1.
pub(crate) fn zeros(work: &Path, name: &str, size: u64) -> anyhow::Result<Snapshots> {
    let folder = work.join(name);
    fs_err::create_dir(&folder)?;
    let file = "zeros.snapshot".to_owned();
    fs_err::File::create(folder.join(&file))?.set_len(size)?;
    let mut sha256 = Sha256::new();
    let block = vec![0; 1 << 20];
    let mut left = size;
    while left > 0 {
        let taken = left.min(block.len() as u64);
        sha256.update(&block[..usize::try_from(taken)?]);
        left -= taken;
    }
    let files = vec![Snapshot { name: file, size, sha256: hex::encode(sha256.finalize()) }];
    let snapshots = Snapshots { folder, files };
    snapshots.save(work, name)?;
    Ok(snapshots)
}

fn snapshot(corpus: &Corpus, seed: u64, points: usize, out: &mut impl Write) -> anyhow::Result<()> {
    let mut random = SplitMix(seed << 32);
    let mut tar = Builder::new(out);
    append(&mut tar, "config.json", br#"{"params":{"vectors":{"size":384,"distance":"Cosine"}}}"#)?;
    let mut written: usize = 0;
    let segments = points.div_ceil(SEGMENT_POINTS);
    for number in 0..segments {
        let segment = segment(corpus, &mut random, points / segments, number)?;
        written += segment.len();
        append(&mut tar, &format!("0/segments/{:032x}.tar", random.next()), &segment)?;
    }
    let mut wal = Vec::new();
    for _ in 0..points / 100 {
        wal.extend(payload(corpus, &mut random).into_bytes());
        wal.extend(vector(corpus, &mut random).iter().flat_map(|x| x.to_le_bytes()));
    }
    wal.resize(wal.len() + zeros_for(written) * 78 / 89, 0);
    append(&mut tar, "0/wal/open-1", &wal)?;
    tar.finish()?;
    Ok(())
}

fn zeros_for(bytes: usize) -> usize {
    // Sizes of test data are far below where this could be off by more than a byte.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a positive size of test data"
    )]
    let zeros = (bytes as f64 * ZEROS) as usize;
    zeros
}

/// The tar of one segment.
fn segment(corpus: &Corpus, random: &mut SplitMix, count: usize, number: usize) -> anyhow::Result<Vec<u8>> {
    let vectors: Vec<Vec<f32>> = (0..count).map(|_| vector(corpus, random)).collect();
    let mut chunk: Vec<u8> = vectors.iter().flatten().flat_map(|x| x.to_le_bytes()).collect();
    let mut page = Vec::new();
    for _ in 0..count {
        page.extend(lz4_flex::compress_prepend_size(payload(corpus, random).as_bytes()));
        page.resize(page.len().next_multiple_of(PAYLOAD_BLOCK), 0);
    }
    let quantised = quantised(&vectors);
    let links = links(random, count, number % 2 == 1);
    let ids: Vec<u8> = (0..count)
        .flat_map(|_| {
            let id = [random.next(), random.next()];
            std::iter::once(1).chain(id.into_iter().flat_map(u64::to_le_bytes)).collect::<Vec<u8>>()
        })
        .collect();
    let zeros = zeros_for(chunk.len() + page.len() + quantised.len() + links.len() + ids.len());
    chunk.resize(chunk.len() + zeros / 2, 0);
    page.resize(page.len() + zeros / 2, 0);

    let mut tar = Builder::new(Vec::new());
    append(&mut tar, "snapshot/files/segment.json", br#"{"version":1,"config":{"vector_data":{}}}"#)?;
    append(&mut tar, "snapshot/files/vector_storage/vectors/chunk_0.mmap", &chunk)?;
    append(&mut tar, "snapshot/files/vector_storage/quantized.data", &quantised)?;
    append(&mut tar, "snapshot/files/vector_index/links.bin", &links)?;
    append(&mut tar, "snapshot/files/payload_storage/page_0.dat", &page)?;
    append(&mut tar, "snapshot/files/id_tracker.mappings", &ids)?;
    Ok(tar.into_inner()?)
}

/// A vector of unit length between two real ones.
fn vector(corpus: &Corpus, random: &mut SplitMix) -> Vec<f32> {
    let (near, far) = (random.below(corpus.vectors.len()), random.below(corpus.vectors.len()));
    let weight = 0.55 + 0.4 * random.unit();
    let pairs = corpus.vectors[near].iter().zip(&corpus.vectors[far]);
    let mut mixed: Vec<f32> = pairs.map(|(a, b)| weight * a + (1.0 - weight) * b).collect();
    let length = mixed.iter().map(|x| x * x).sum::<f32>().sqrt();
    mixed.iter_mut().for_each(|x| *x /= length);
    mixed
}

/// A payload as JSON.
fn payload(corpus: &Corpus, random: &mut SplitMix) -> String {
    let mut text = String::new();
    let length = 120 + random.below(200);
    while text.len() < length {
        let piece = 40 + random.below(100);
        let start = corpus.text.floor_char_boundary(random.below(corpus.text.len() - piece));
        let end = corpus.text.floor_char_boundary(start + piece);
        text.push_str(corpus.text[start..end].trim());
        text.push(' ');
    }
    let mut payload = serde_json::json!({ "text": text }).to_string();
    payload.pop();
    // Writing to a string cannot fail.
    let _infallible = write!(
        payload,
        r#","doc_id":"doc-{:06}","chunk_index":{},"kind":"reference","n_words":{},"source":"https://example.com/{:08x}"}}"#,
        random.below(1_000_000),
        random.below(40),
        random.below(300),
        random.next() >> 32
    );
    payload
}

/// Scalar quantisation to 7 bits between the quantiles 0.5 % and 99.5 %, an offset before each vector.
fn quantised(vectors: &[Vec<f32>]) -> Vec<u8> {
    let mut sample: Vec<f32> = vectors.iter().take(1000).flatten().copied().collect();
    sample.sort_unstable_by(f32::total_cmp);
    let (low, high) = (sample[sample.len() / 200], sample[sample.len() - 1 - sample.len() / 200]);
    let mut bytes = Vec::with_capacity(vectors.len() * (DIMENSIONS + 4));
    for vector in vectors {
        bytes.extend(vector.iter().sum::<f32>().to_le_bytes());
        bytes.extend(vector.iter().map(|x| {
            let scaled = ((x - low) / (high - low) * 127.0).clamp(0.0, 127.0);
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is clamped")]
            let quantised = scaled as u8;
            quantised
        }));
    }
    bytes
}

/// The neighbours of each point, as 32-bit numbers or sorted and packed to [`LINK_BITS`].
fn links(random: &mut SplitMix, count: usize, packed: bool) -> Vec<u8> {
    // Neighbours share neighbours, but have no order: the ids of a neighbourhood are spread over a million.
    let ids: Vec<u32> = (0..count).map(|_| u32::try_from(random.next() >> 44).unwrap_or_default()).collect();
    let mut bytes = Vec::with_capacity(count * LINKS * 4);
    let (mut bits, mut held) = (0_u64, 0);
    for point in 0..count {
        let start = (point / NEIGHBOURHOOD * NEIGHBOURHOOD).min(count.saturating_sub(NEIGHBOURHOOD));
        let around = &ids[start..count.min(start + NEIGHBOURHOOD)];
        let mut of_point: Vec<u32> = (0..LINKS).map(|_| around[random.below(around.len())]).collect();
        if !packed {
            bytes.extend(of_point.iter().flat_map(|id| id.to_le_bytes()));
            continue;
        }
        of_point.sort_unstable();
        for id in of_point {
            bits |= u64::from(id) << held;
            held += LINK_BITS;
            while held >= 8 {
                bytes.push(bits.to_le_bytes()[0]);
                bits >>= 8;
                held -= 8;
            }
        }
    }
    bytes
}

fn append<W: Write>(tar: &mut Builder<W>, name: &str, bytes: &[u8]) -> io::Result<()> {
    let mut header = Header::new_gnu();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o644);
    header.set_cksum();
    tar.append_data(&mut header, name, bytes)
}

/// A file whose bytes are hashed on their way.
struct Hashing<W> {
    file: W,
    sha256: Sha256,
    size: u64,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.sha256.update(&bytes[..written]);
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
