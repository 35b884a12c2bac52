//! The corpus of the demo and the end-to-end tests: chunks of a real manual with real sentence embeddings
//! (`tests/fixtures/corpus`), and a deterministic extension of it to any size.

use std::path::PathBuf;

use anyhow::{Context as _, ensure};
use half::f16;
use protocol::{PointId, point_id};
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// Components of an embedding (all-MiniLM-L6-v2).
pub const DIMENSIONS: usize = 384;

/// The corpus, loaded.
#[derive(Debug)]
pub struct Corpus {
    chunks: Vec<Chunk>,
    /// What an engineer would ask of it.
    pub questions: Vec<Question>,
}

#[derive(Debug)]
struct Chunk {
    doc_id: String,
    chunk_index: u64,
    payload: Map<String, Value>,
    vector: Vec<f32>,
}

/// A question with its embedding.
#[derive(Debug, Deserialize)]
pub struct Question {
    /// The question.
    pub question: String,
    /// Its embedding, of unit length.
    pub embedding: Vec<f32>,
    /// The best three chunks by exact cosine, best first.
    pub expected_doc_ids: Vec<Expected>,
}

/// A chunk that answers a question.
#[derive(Debug, Deserialize)]
pub struct Expected {
    /// The document.
    pub doc_id: String,
    /// The chunk within it.
    pub chunk_index: u64,
}

/// A point to be indexed.
#[derive(Debug)]
pub struct Point {
    /// Its id, which follows from document and chunk.
    pub id: PointId,
    /// The embedding, of unit length.
    pub vector: Vec<f32>,
    /// What a reader gets to see.
    pub payload: Map<String, Value>,
}

impl Corpus {
    /// Reads the fixture.
    pub fn load() -> anyhow::Result<Self> {
        let dir = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures/corpus"));
        let packed = fs_err::read(dir.join("chunks.jsonl.zst"))?;
        let lines = zstd::stream::decode_all(packed.as_slice()).context("unpack chunks.jsonl.zst")?;
        let embeddings = fs_err::read(dir.join("embeddings.f16"))?;
        let questions = fs_err::read(dir.join("questions.json"))?;

        let rows = embeddings.chunks_exact(2 * DIMENSIONS);
        ensure!(rows.remainder().is_empty(), "embeddings.f16 is not a whole number of rows");
        let texts: Vec<&[u8]> = lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect();
        ensure!(texts.len() == rows.len(), "{} chunks and {} embeddings", texts.len(), rows.len());
        let chunks =
            texts.into_iter().zip(rows).map(|(line, row)| chunk(line, row)).collect::<anyhow::Result<_>>()?;
        Ok(Self { chunks, questions: serde_json::from_slice(&questions).context("read questions.json")? })
    }

    /// The chunks as they are.
    pub fn points(&self) -> impl ExactSizeIterator<Item = anyhow::Result<Point>> {
        self.chunks.iter().map(|chunk| {
            let payload = chunk.payload.clone();
            Ok(Point {
                id: point_id::point_id(&chunk.doc_id, chunk.chunk_index)?,
                vector: chunk.vector.clone(),
                payload,
            })
        })
    }

    /// `count` further points, the same each time: each vector lies between those of two chunks and has unit length, which keeps the
    /// statistics of real embeddings (a copy would not); the text is that of the nearer chunk.
    pub fn extension(&self, count: usize) -> impl ExactSizeIterator<Item = anyhow::Result<Point>> {
        (0..count).map(|number| {
            let mut random = SplitMix(number as u64);
            let (near, far) = (self.pick(&mut random), self.pick(&mut random));
            // Between 0.55 and 0.95 of the way to the nearer one.
            let weight = 0.55 + 0.4 * random.unit();
            let mut vector: Vec<f32> =
                near.vector.iter().zip(&far.vector).map(|(a, b)| weight * a + (1.0 - weight) * b).collect();
            let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
            vector.iter_mut().for_each(|x| *x /= length);
            let mut payload = near.payload.clone();
            payload.insert("extension".to_owned(), json!(number));
            let doc_id = format!("extension/{}", near.doc_id);
            Ok(Point { id: point_id::point_id(&doc_id, number as u64)?, vector, payload })
        })
    }

    fn pick(&self, random: &mut SplitMix) -> &Chunk {
        let index = random.next() % self.chunks.len() as u64;
        // The remainder is less than a `usize`.
        &self.chunks[usize::try_from(index).unwrap_or_default()]
    }
}

fn chunk(line: &[u8], row: &[u8]) -> anyhow::Result<Chunk> {
    let payload: Map<String, Value> = serde_json::from_slice(line).context("read a line of chunks.jsonl")?;
    let doc_id =
        payload.get("doc_id").and_then(Value::as_str).context("a chunk without `doc_id`")?.to_owned();
    let chunk_index =
        payload.get("chunk_index").and_then(Value::as_u64).context("a chunk without `chunk_index`")?;
    let vector = row.chunks_exact(2).map(|bytes| f16::from_le_bytes([bytes[0], bytes[1]]).to_f32()).collect();
    Ok(Chunk { doc_id, chunk_index, payload, vector })
}

/// The generator of Steele, Lea and Flood (2014): small, and the same on every machine for ever.
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Between 0 and 1.
    fn unit(&mut self) -> f32 {
        // 24 bits are what an f32 holds exactly.
        let bits = u32::try_from(self.next() >> 40).unwrap_or_default();
        bits as f32 / 16_777_216.0
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_fixture_answers_its_own_questions() {
        let corpus = Corpus::load().unwrap();
        assert_eq!(corpus.questions.len(), 10);
        for question in &corpus.questions {
            let score =
                |chunk: &Chunk| chunk.vector.iter().zip(&question.embedding).map(|(a, b)| a * b).sum::<f32>();
            let best = corpus.chunks.iter().max_by(|a, b| score(a).total_cmp(&score(b))).unwrap();
            let expected = &question.expected_doc_ids[0];
            assert_eq!(
                (&best.doc_id, best.chunk_index),
                (&expected.doc_id, expected.chunk_index),
                "{}",
                question.question
            );
        }
    }

    #[test]
    fn the_extension_is_deterministic_distinct_and_of_unit_length() {
        let corpus = Corpus::load().unwrap();
        let once: Vec<Point> = corpus.extension(500).map(Result::unwrap).collect();
        let again: Vec<Point> = corpus.extension(500).map(Result::unwrap).collect();
        let ids: BTreeSet<PointId> = once
            .iter()
            .chain(&corpus.points().map(Result::unwrap).collect::<Vec<_>>())
            .map(|p| p.id)
            .collect();
        assert_eq!(ids.len(), 500 + corpus.points().len());
        for (a, b) in once.iter().zip(&again) {
            assert_eq!((a.id, &a.vector), (b.id, &b.vector));
            let length = a.vector.iter().map(|x| x * x).sum::<f32>().sqrt();
            assert!((length - 1.0).abs() < 1e-3, "{length}");
        }
    }
}
