//! The fixture that the data is made of: real embeddings, and the texts that they are of.

use std::path::Path;

use anyhow::{Context as _, ensure};
use half::f16;

/// Components of an embedding (all-MiniLM-L6-v2).
pub(crate) const DIMENSIONS: usize = 384;

/// The fixture, loaded.
#[derive(Debug)]
pub(crate) struct Corpus {
    /// The embeddings, of unit length.
    pub(crate) vectors: Vec<Vec<f32>>,
    /// All texts, one after the other.
    pub(crate) text: String,
}

impl Corpus {
    pub(crate) fn load() -> anyhow::Result<Self> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/corpus");
        let packed = fs_err::read(folder.join("chunks.jsonl.zst"))?;
        let lines = zstd::stream::decode_all(packed.as_slice()).context("unpack chunks.jsonl.zst")?;
        let mut text = String::new();
        for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let chunk: serde_json::Value = serde_json::from_slice(line).context("read chunks.jsonl")?;
            text.push_str(chunk.get("text").and_then(|text| text.as_str()).context("a chunk without text")?);
            text.push(' ');
        }
        let embeddings = fs_err::read(folder.join("embeddings.f16"))?;
        let rows = embeddings.chunks_exact(2 * DIMENSIONS);
        ensure!(rows.remainder().is_empty() && rows.len() > 1, "embeddings.f16 is not a number of rows");
        let component = |bytes: &[u8]| f16::from_le_bytes([bytes[0], bytes[1]]).to_f32();
        let vectors = rows.map(|row| row.chunks_exact(2).map(component).collect()).collect();
        Ok(Self { vectors, text })
    }
}

/// The generator of Steele, Lea and Flood (2014): small, and the same on every machine for ever.
#[derive(Debug)]
pub(crate) struct SplitMix(pub(crate) u64);

impl SplitMix {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `end`, which is not zero.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).unwrap_or_default()
    }

    /// Between 0 and 1.
    pub(crate) fn unit(&mut self) -> f32 {
        // 24 bits are what an f32 holds exactly.
        u32::try_from(self.next() >> 40).unwrap_or_default() as f32 / 16_777_216.0
    }
}
