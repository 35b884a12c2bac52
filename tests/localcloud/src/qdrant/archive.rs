//! What a snapshot file holds: a GNU tar with the names that the real server uses, and points in a format of our own.
//!
//! The points of the moment the snapshot began are in one entry; what changed until its end is in the write-ahead log's
//! entry, as the real server has it. The same data gives the same bytes, whenever it is written.

use super::config::Config;
use super::operation::Points;
use super::reply::ApiError;
use super::shard::{Point, PointId};
use super::vectors::{Sparse, Vector};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use uuid::Uuid;

const MAGIC: &[u8] = b"localcloud points 1\n";
/// The version of the real server's collection crate, unchanged for years: it says nothing about Qdrant's version.
const COLLECTION_VERSION: &str = "0.4.2";
const TAR_BLOCK: usize = 512;

/// A collection as an archive or a storage directory has it.
#[derive(Debug)]
pub(super) struct Contents {
    pub(super) config: Config,
    pub(super) schema: BTreeMap<String, Value>,
    points: Vec<u8>,
    wal: Vec<u8>,
}

impl Contents {
    /// The points, once the log is replayed over them.
    pub(super) fn load(&self) -> io::Result<Points> {
        let mut points = decode_points(&self.points)?;
        for (id, point) in decode_changes(&self.wal)? {
            match point {
                Some(point) => points.insert(id, point),
                None => points.remove(&id),
            };
        }
        Ok(points)
    }
}

/// The entry of the points, made when the snapshot begins.
pub(super) fn points_entry(config: &Config, points: &Points) -> Result<Vec<u8>, ApiError> {
    let segment = Uuid::from_u128(Uuid::parse_str(config.uuid()).map_or(0, |uuid| uuid.as_u128()) ^ 1);
    entry(&format!("0/segments/{segment}.points"), &encode_points(points))
}

/// All other entries and the end mark, made when the snapshot ends.
pub(super) fn closing_entries(
    config: &Config,
    schema: &BTreeMap<String, Value>,
    changed: &BTreeSet<PointId>,
    points: &Points,
    wal_bytes: u64,
) -> Result<Vec<u8>, ApiError> {
    let mut wal = encode_changes(changed, points);
    if let Ok(size) = usize::try_from(wal_bytes) {
        // Preallocated, as the real one's segments are.
        wal.resize(wal.len().max(size), 0);
    }
    let config = serde_json::to_vec(config).map_err(|error| ApiError::service(error.to_string()))?;
    let files: [(&str, Vec<u8>); 8] = [
        ("0/wal/open-1", wal),
        ("0/applied_seq.json", b"{\"op_num\":0}".to_vec()),
        ("0/replica_state.json", b"{\"is_local\":true}".to_vec()),
        ("0/shard_config.json", b"{\"r#type\":{\"ReplicaSet\":{}}}".to_vec()),
        ("version.info", COLLECTION_VERSION.as_bytes().to_vec()),
        ("config.json", config),
        ("shard_key_mapping.json", b"{}".to_vec()),
        ("payload_index.json", json!({ "schema": schema }).to_string().into_bytes()),
    ];
    let mut out = Vec::new();
    for (name, data) in files {
        out.extend(entry(name, &data)?);
    }
    out.extend([0; 2 * TAR_BLOCK]);
    Ok(out)
}

fn entry(name: &str, data: &[u8]) -> Result<Vec<u8>, ApiError> {
    let mut header = tar::Header::new_gnu();
    header.set_path(name)?;
    header.set_size(super::len_u64(data.len()));
    header.set_mode(0o644);
    header.set_mtime(0);
    header.set_cksum();
    let mut out = header.as_bytes().to_vec();
    out.extend_from_slice(data);
    out.resize(out.len().next_multiple_of(TAR_BLOCK), 0);
    Ok(out)
}

/// Reads an archive as the real server unpacks one: entry by entry, until they end. Without a checksum an archive that was
/// cut between two entries is only noticed by what it lacks.
pub(super) fn read_archive(reader: impl Read) -> Result<Contents, ApiError> {
    let mut files = BTreeMap::new();
    let mut archive = tar::Archive::new(reader);
    for found in archive.entries()? {
        let mut found = found.map_err(malformed)?;
        let kind = found.header().entry_type();
        if !kind.is_file() && !kind.is_dir() && !kind.is_gnu_sparse() {
            return Err(ApiError::service(format!("Unexpected entry type in the snapshot: {kind:?}")));
        }
        let name = found.path().map_err(malformed)?.to_string_lossy().into_owned();
        let mut data = Vec::new();
        found.read_to_end(&mut data).map_err(malformed)?;
        files.insert(name, data);
    }
    let missing = |name: &str| {
        ApiError::service(format!(
            "File IO error: failed to open file `{name}`: No such file or directory (os error 2)"
        ))
    };
    let mut take = |name: &str| files.remove(name).ok_or_else(|| missing(name));
    take("version.info")?;
    let config = serde_json::from_slice(&take("config.json")?)
        .map_err(|error| ApiError::service(error.to_string()))?;
    let index: Value = serde_json::from_slice(&take("payload_index.json")?)
        .map_err(|error| ApiError::service(error.to_string()))?;
    let schema: Map<String, Value> =
        index.get("schema").and_then(Value::as_object).cloned().unwrap_or_default();
    let wal = take("0/wal/open-1").unwrap_or_default();
    let points = files
        .into_iter()
        .find(|(name, _)| name.starts_with("0/segments/"))
        .map(|(_, data)| data)
        .unwrap_or_default();
    Ok(Contents { config, schema: schema.into_iter().collect(), points, wal })
}

fn malformed(error: io::Error) -> ApiError {
    ApiError::service(format!("File IO error: Malformed tar archive, reached unknown entry: {error}"))
}

pub(super) fn encode_points(points: &Points) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    out.extend(super::len_u64(points.len()).to_le_bytes());
    for (id, point) in points {
        put_id(&mut out, *id);
        put_point(&mut out, point);
    }
    out
}

fn encode_changes(changed: &BTreeSet<PointId>, points: &Points) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    out.extend(super::len_u64(changed.len()).to_le_bytes());
    for id in changed {
        put_id(&mut out, *id);
        match points.get(id) {
            Some(point) => {
                out.push(1);
                put_point(&mut out, point);
            }
            None => out.push(0),
        }
    }
    out
}

fn put_id(out: &mut Vec<u8>, id: PointId) {
    match id {
        PointId::Num(number) => {
            out.push(0);
            out.extend(number.to_le_bytes());
        }
        PointId::Uuid(uuid) => {
            out.push(1);
            out.extend(uuid.as_bytes());
        }
    }
}

fn put_point(out: &mut Vec<u8>, point: &Point) {
    out.extend(point.version.to_le_bytes());
    put_bytes(out, &serde_json::to_vec(&point.payload).unwrap_or_default());
    put_len(out, point.vectors.len());
    for (name, vector) in &point.vectors {
        put_bytes(out, name.as_bytes());
        match vector {
            Vector::Dense(values) => {
                out.push(0);
                put_floats(out, values);
            }
            Vector::Multi(rows) => {
                out.push(1);
                put_len(out, rows.len());
                rows.iter().for_each(|row| put_floats(out, row));
            }
            Vector::Sparse(sparse) => {
                out.push(2);
                put_len(out, sparse.indices.len());
                sparse.indices.iter().for_each(|index| out.extend(index.to_le_bytes()));
                put_floats(out, &sparse.values);
            }
        }
    }
}

/// Lengths are 32 bits: no point comes near.
fn put_len(out: &mut Vec<u8>, length: usize) {
    out.extend(u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_len(out, bytes.len());
    out.extend_from_slice(bytes);
}

fn put_floats(out: &mut Vec<u8>, values: &[f32]) {
    put_len(out, values.len());
    values.iter().for_each(|value| out.extend(value.to_le_bytes()));
}

pub(super) fn decode_points(bytes: &[u8]) -> io::Result<Points> {
    let mut cursor = Cursor::open(bytes)?;
    let count = cursor.u64()?;
    let mut points = Points::new();
    for _ in 0..count {
        let id = cursor.id()?;
        points.insert(id, cursor.point()?);
    }
    Ok(points)
}

/// An empty log is one without changes.
fn decode_changes(bytes: &[u8]) -> io::Result<Vec<(PointId, Option<Point>)>> {
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    let mut cursor = Cursor::open(bytes)?;
    let count = cursor.u64()?;
    (0..count)
        .map(|_| {
            let id = cursor.id()?;
            let point = if cursor.u8()? == 1 { Some(cursor.point()?) } else { None };
            Ok((id, point))
        })
        .collect()
}

struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    fn open(bytes: &'a [u8]) -> io::Result<Self> {
        let rest = bytes.strip_prefix(MAGIC).ok_or_else(|| corrupt("not a points file"))?;
        Ok(Self { rest })
    }

    fn take(&mut self, length: usize) -> io::Result<&'a [u8]> {
        let (taken, rest) =
            self.rest.split_at_checked(length).ok_or_else(|| corrupt("the file ends early"))?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn u8(&mut self) -> io::Result<u8> {
        self.array().map(u8::from_le_bytes)
    }

    fn u64(&mut self) -> io::Result<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn len(&mut self) -> io::Result<usize> {
        usize::try_from(u32::from_le_bytes(self.array()?)).map_err(io::Error::other)
    }

    fn bytes(&mut self) -> io::Result<&'a [u8]> {
        let length = self.len()?;
        self.take(length)
    }

    fn words(&mut self) -> io::Result<impl Iterator<Item = [u8; 4]> + 'a> {
        let length = self.len()?.checked_mul(4).ok_or_else(|| corrupt("the file ends early"))?;
        Ok(self.take(length)?.as_chunks::<4>().0.iter().copied())
    }

    fn floats(&mut self) -> io::Result<Vec<f32>> {
        Ok(self.words()?.map(f32::from_le_bytes).collect())
    }

    fn id(&mut self) -> io::Result<PointId> {
        match self.u8()? {
            0 => self.u64().map(PointId::Num),
            1 => self.array().map(|bytes| PointId::Uuid(Uuid::from_bytes(bytes))),
            other => Err(corrupt(&format!("unknown kind of id {other}"))),
        }
    }

    fn point(&mut self) -> io::Result<Point> {
        let version = self.u64()?;
        let payload = serde_json::from_slice(self.bytes()?)?;
        let count = self.len()?;
        let mut vectors = BTreeMap::new();
        for _ in 0..count {
            let name = String::from_utf8(self.bytes()?.to_vec()).map_err(io::Error::other)?;
            let vector = match self.u8()? {
                0 => Vector::Dense(self.floats()?),
                1 => {
                    let rows = self.len()?;
                    Vector::Multi((0..rows).map(|_| self.floats()).collect::<io::Result<_>>()?)
                }
                2 => {
                    let indices = self.words()?.map(u32::from_le_bytes).collect();
                    Vector::Sparse(Sparse { indices, values: self.floats()? })
                }
                other => return Err(corrupt(&format!("unknown kind of vector {other}"))),
            };
            vectors.insert(name, vector);
        }
        Ok(Point { payload, vectors, version })
    }
}

fn corrupt(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Points {
        let payload = json!({ "text": "grüße", "n": 1 }).as_object().cloned().unwrap();
        let sparse = Vector::Sparse(Sparse { indices: vec![3, 9], values: vec![0.5, -1.25] });
        let vectors = BTreeMap::from([
            (String::new(), Vector::Dense(vec![0.1, 2.0])),
            ("multi".to_owned(), Vector::Multi(vec![vec![1.0], vec![2.0]])),
            ("sparse".to_owned(), sparse),
        ]);
        BTreeMap::from([
            (PointId::Num(u64::MAX), Point { payload, vectors, version: 7 }),
            (PointId::Uuid(Uuid::from_u128(5)), Point::default()),
        ])
    }

    #[test]
    fn an_archive_gives_back_what_went_in() {
        let config = Config::create(
            json!({ "vectors": { "size": 2, "distance": "Dot" } }).as_object().unwrap(),
            Uuid::nil().to_string(),
        )
        .unwrap();
        let schema = BTreeMap::from([("text".to_owned(), json!("keyword"))]);
        let before = sample();
        let mut after = before.clone();
        after.remove(&PointId::Num(u64::MAX));
        after.insert(PointId::Num(1), Point { version: 9, ..Point::default() });
        let changed = BTreeSet::from([PointId::Num(u64::MAX), PointId::Num(1)]);
        let mut archive = points_entry(&config, &before).unwrap();
        archive.extend(closing_entries(&config, &schema, &changed, &after, 4096).unwrap());
        let contents = read_archive(archive.as_slice()).unwrap();
        assert_eq!(contents.load().unwrap(), after);
        assert_eq!(contents.schema, schema);
        assert_eq!(contents.config, config);
    }

    #[test]
    fn damaged_points_are_not_loaded() {
        let bytes = encode_points(&sample());
        for length in [0, 10, MAGIC.len() + 3, bytes.len() - 1] {
            assert!(decode_points(&bytes[..length]).is_err(), "{length}");
        }
    }
}
