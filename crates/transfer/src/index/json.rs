//! The stored form of a frame index: `{"format_version":1,"frames":[[raw,compressed,"hash"],…]}` in one zstd frame.

use std::{fmt, io};

use serde::{
    Deserializer,
    de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use zstd_safe::{CCtx, CParameter, DCtx, DParameter, InBuffer, OutBuffer, ResetDirective};

use crate::{
    frame::zstd_error,
    index::{Frame, FrameIndex, IndexError},
};

/// The version that this code writes and reads.
const FORMAT_VERSION: u64 = 1;
/// The most bytes that one frame takes in the JSON text: three numbers, 64 digits, punctuation, and room for white space.
const TEXT_PER_FRAME: u64 = 128;
/// The most bytes that everything else takes in the JSON text.
const TEXT_AROUND: u64 = 4096;
/// The largest decoder window: 8 MiB, as in the archive itself.
const WINDOW_LOG_MAX: u32 = 23;

/// The most bytes that the stored form of an index of `frames` frames has.
pub(super) fn stored_limit(frames: u64) -> u64 {
    let text = text_limit(frames);
    text + text / 128 + 4096
}

fn text_limit(frames: u64) -> u64 {
    TEXT_AROUND + frames.saturating_mul(TEXT_PER_FRAME)
}

pub(super) fn encode(index: &FrameIndex) -> Vec<u8> {
    let mut writer = ZstdWriter::new();
    writer.write(format!("{{\"format_version\":{FORMAT_VERSION},\"frames\":[").as_bytes());
    let mut hash = [0; 64];
    for (number, frame) in index.frames.iter().enumerate() {
        let separator = if number == 0 { "" } else { "," };
        // The buffer has two digits for each byte of the hash, so that encoding cannot fail.
        let digits = match hex::encode_to_slice(frame.hash, &mut hash) {
            Ok(()) => str::from_utf8(&hash).unwrap_or_default(),
            Err(_) => "",
        };
        writer.write(
            format!("{separator}[{},{},\"{digits}\"]", frame.raw_len, frame.compressed_len).as_bytes(),
        );
    }
    writer.write(b"]}");
    writer.finish()
}

/// Compresses what is written, holding the compressed bytes only.
struct ZstdWriter {
    context: CCtx<'static>,
    pending: Vec<u8>,
    out: Vec<u8>,
}

impl ZstdWriter {
    fn new() -> Self {
        let mut context = CCtx::create();
        // Setting known parameters of a fresh context to valid values cannot fail.
        let _known = context.set_parameter(CParameter::CompressionLevel(3));
        let _known = context.set_parameter(CParameter::ChecksumFlag(true));
        Self { context, pending: Vec::with_capacity(1 << 16), out: Vec::new() }
    }

    fn write(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
        if self.pending.len() >= 1 << 16 {
            self.drive(false);
        }
    }

    fn finish(mut self) -> Vec<u8> {
        self.drive(true);
        self.out
    }

    /// Compressing into memory that grows as needed cannot fail.
    fn drive(&mut self, end: bool) {
        let directive = if end {
            zstd_safe::zstd_sys::ZSTD_EndDirective::ZSTD_e_end
        } else {
            zstd_safe::zstd_sys::ZSTD_EndDirective::ZSTD_e_continue
        };
        let mut input = InBuffer::around(&self.pending);
        let mut chunk = Vec::with_capacity(CCtx::out_size());
        loop {
            chunk.clear();
            let mut output = OutBuffer::around(&mut chunk);
            let left = self.context.compress_stream2(&mut output, &mut input, directive);
            self.out.extend_from_slice(&chunk);
            let done = match left {
                Ok(left) if end => left == 0,
                Ok(_) => input.pos() == self.pending.len(),
                Err(_) => true,
            };
            if done {
                break;
            }
        }
        self.pending.clear();
    }
}

pub(super) fn decode(bytes: &[u8], frames: u64) -> Result<FrameIndex, IndexError> {
    let limit = stored_limit(frames);
    if bytes.len() as u64 > limit {
        return Err(IndexError::TooLarge { size: bytes.len() as u64, limit, frames });
    }
    let zstd = |reason: &str| IndexError::Zstd { reason: reason.to_owned() };
    match zstd_safe::find_frame_compressed_size(bytes) {
        Ok(size) if size == bytes.len() && !is_skippable(bytes) => {}
        Ok(_) => return Err(zstd("something follows the frame, or it is a skippable one")),
        Err(code) => return Err(IndexError::Zstd { reason: zstd_error(code) }),
    }
    let mut reader =
        ZstdReader::new(bytes, text_limit(frames)).map_err(|reason| IndexError::Zstd { reason })?;
    let parsed = parse(io::BufReader::with_capacity(1 << 16, &mut reader), frames);
    if let Some(reason) = reader.failure {
        return Err(IndexError::Zstd { reason });
    }
    let Parsed { version, index } = parsed.map_err(|source| IndexError::Json { source })?;
    if version != FORMAT_VERSION {
        return Err(IndexError::Version { found: version });
    }
    if index.frames.len() as u64 != frames {
        return Err(IndexError::Count { expected: frames, found: index.frames.len() as u64 });
    }
    Ok(index)
}

fn is_skippable(bytes: &[u8]) -> bool {
    bytes.get(..4).is_some_and(|magic| magic[0] & 0xF0 == 0x50 && magic[1..] == [0x2A, 0x4D, 0x18])
}

/// Decodes one zstd frame as it is read, up to a limit of decoded bytes.
struct ZstdReader<'a> {
    context: DCtx<'static>,
    input: InBuffer<'a>,
    left: u64,
    ended: bool,
    failure: Option<String>,
}

impl<'a> ZstdReader<'a> {
    fn new(bytes: &'a [u8], limit: u64) -> Result<Self, String> {
        let mut context = DCtx::create();
        context.reset(ResetDirective::SessionAndParameters).map_err(zstd_error)?;
        context.set_parameter(DParameter::WindowLogMax(WINDOW_LOG_MAX)).map_err(zstd_error)?;
        Ok(Self { context, input: InBuffer::around(bytes), left: limit, ended: false, failure: None })
    }

    fn fail(&mut self, reason: String) -> io::Error {
        let error = io::Error::new(io::ErrorKind::InvalidData, reason.clone());
        self.failure = Some(reason);
        error
    }
}

impl io::Read for &mut ZstdReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while !self.ended && !buffer.is_empty() {
            let mut output = OutBuffer::around(&mut *buffer);
            let left = self.context.decompress_stream(&mut output, &mut self.input);
            let read = output.pos();
            match left {
                Ok(hint) => self.ended = hint == 0,
                Err(code) => return Err(self.fail(zstd_error(code))),
            }
            let Some(left) = self.left.checked_sub(read as u64) else {
                return Err(self.fail("it decodes to more than the index of such an archive has".to_owned()));
            };
            self.left = left;
            if read > 0 {
                return Ok(read);
            }
        }
        Ok(0)
    }
}

struct Parsed {
    version: u64,
    index: FrameIndex,
}

fn parse(reader: impl io::Read, frames: u64) -> Result<Parsed, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_reader(reader);
    let parsed = deserializer.deserialize_map(DocumentVisitor { frames })?;
    deserializer.end()?;
    Ok(parsed)
}

struct DocumentVisitor {
    frames: u64,
}

impl<'de> Visitor<'de> for DocumentVisitor {
    type Value = Parsed;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with `format_version` and `frames`")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Parsed, A::Error> {
        let mut version = None;
        let mut index = None;
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "format_version" => version = Some(map.next_value()?),
                "frames" => index = Some(map.next_value_seed(Frames { limit: self.frames })?),
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(Parsed {
            version: version.ok_or_else(|| A::Error::missing_field("format_version"))?,
            index: index.ok_or_else(|| A::Error::missing_field("frames"))?,
        })
    }
}

struct Frames {
    limit: u64,
}

impl<'de> DeserializeSeed<'de> for Frames {
    type Value = FrameIndex;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<FrameIndex, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Frames {
    type Value = FrameIndex;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of {} frames", self.limit)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<FrameIndex, A::Error> {
        let mut frames = Vec::new();
        while let Some((raw_len, compressed_len, digits)) = seq.next_element::<(u32, u32, String)>()? {
            if frames.len() as u64 >= self.limit {
                return Err(A::Error::custom(format!("more than {} frames", self.limit)));
            }
            let mut hash = [0; 32];
            let lower = digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
            if !lower || hex::decode_to_slice(&digits, &mut hash).is_err() {
                return Err(A::Error::custom("a hash is not 64 lower-case hexadecimal digits"));
            }
            frames.push(Frame { raw_len, compressed_len, hash });
        }
        Ok(FrameIndex { frames })
    }
}
