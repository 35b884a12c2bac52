//! Reading a whole object and comparing everything that is known of it.

mod crew;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::crew::{Checker, Crew, WholeHasher};
use crate::{
    download::{
        ArchiveRef, Check, Finding, MAX_FINDINGS, ReadOptions,
        consistency::{check_index, layout_of},
        fetch::{Fetcher, Object, Shares, runs},
    },
    error::Error,
    index::{FrameIndex, seek_table},
    progress::Phase,
    store::MultipartStore,
};

/// Reads a whole object and compares everything that is known of it: every frame, the seek table, SHA-256, CRC-64/NVME.
///
/// Damage to the object is not an error but a list of findings. An error is what keeps from looking: a manifest that
/// contradicts itself or its index, a store that does not answer.
pub async fn check_object<S: MultipartStore>(
    store: &S,
    archive: ArchiveRef<'_>,
    index: &FrameIndex,
    options: ReadOptions,
) -> Result<Check, Error> {
    check_with(store, archive, index, options, WholeHasher::new()).await
}

async fn check_with<S: MultipartStore>(
    store: &S,
    archive: ArchiveRef<'_>,
    index: &FrameIndex,
    options: ReadOptions,
    hasher: WholeHasher,
) -> Result<Check, Error> {
    let started = Instant::now();
    let layout = layout_of(archive, options.geometry.frame_raw_max)?;
    check_index(archive, &layout, index)?;
    let shares = Shares::new(index, &options)?;
    options.progress.begin(layout.raw_len());
    let found =
        options.cancel.run_until_cancelled(Object::find(store, archive.key, archive.version_id, &options));
    let object = found.await.ok_or(Error::Cancelled)??;

    let mut findings = Findings::default();
    let readable = object.size.min(archive.size_bytes);
    if object.size != archive.size_bytes {
        findings.add(0, Finding::Size { expected: archive.size_bytes, found: object.size });
    }
    let offsets: Arc<[u64]> = index.offsets().into();
    let checker = Checker {
        layout: Arc::new(layout),
        frames: index.frames.clone().into(),
        offsets: Arc::clone(&offsets),
        table: seek_table::encode(index).into(),
        progress: Arc::clone(&options.progress),
        stop: CancellationToken::new(),
    };
    // What lies behind the end of a truncated object cannot be read; everything before is still looked at.
    let present = offsets.partition_point(|offset| *offset <= readable) - 1;
    for frame in present..index.frames.len() {
        findings.add(offsets[frame], checker.bad_frame(frame, "the object ends before it does".to_owned()));
    }
    let table_start = offsets[index.frames.len()];
    if readable < archive.size_bytes {
        findings.add(table_start, Finding::SeekTable { what: "the object ends before it does".to_owned() });
    }
    let frames = runs(&index.frames, &offsets, 0..present, shares.range_size, shares.range_raw)
        .map(|(range, frames)| (range, Piece::Frames(frames)));
    // What is left of a truncated object behind its last whole frame tells nothing.
    let table_end = if readable == archive.size_bytes { readable } else { table_start };
    let expected = if readable == archive.size_bytes { readable } else { offsets[present] };
    let table =
        chunks(table_start..table_end, shares.range_size).map(|range| (range.clone(), Piece::Table(range)));
    let jobs = frames.chain(table).enumerate().map(|(place, (range, piece))| (range, (place, piece)));

    let mut fetcher = Fetcher::new(object, &shares);
    let mut crew = Crew::start(&checker, hasher, &shares, options.threads)?;
    let read = drive(store, jobs, &mut fetcher, &mut crew, &mut findings, &options).await;
    fetcher.stop().await;
    let whole = crew.stop().await;
    let object_bytes = read?;
    let whole = whole.ok_or(Error::Internal { what: "the object was read, but not hashed" })?;
    if object_bytes != expected {
        return Err(Error::Internal { what: "not all of the object was read" });
    }
    if readable == archive.size_bytes {
        if whole.sha256 != archive.sha256 {
            findings.add(u64::MAX, Finding::Sha256 { found: whole.sha256 });
        }
        if whole.crc64nvme != archive.crc64nvme {
            findings.add(u64::MAX, Finding::Crc64Nvme { found: whole.crc64nvme });
        }
    }
    options.progress.enter(Phase::Done);
    let frames_total = index.frames.len() as u64;
    let frames_good = frames_total - findings.bad_frames;
    let (findings, more) = findings.into_list();
    Ok(Check { frames_good, frames_total, object_bytes, findings, more, duration: started.elapsed() })
}

/// A part of the object that is read by one request.
#[derive(Clone, Debug)]
enum Piece {
    Frames(Range<usize>),
    Table(Range<u64>),
}

/// Findings by where they are in the object. Only the first so many are kept.
#[derive(Debug, Default)]
struct Findings {
    kept: BTreeMap<(u64, u64), Finding>,
    added: u64,
    bad_frames: u64,
}

impl Findings {
    fn add(&mut self, place: u64, finding: Finding) {
        self.bad_frames += u64::from(matches!(finding, Finding::Frame { .. }));
        self.kept.insert((place, self.added), finding);
        self.added += 1;
        if self.kept.len() > MAX_FINDINGS {
            self.kept.pop_last();
        }
    }

    fn into_list(self) -> (Vec<Finding>, u64) {
        let more = self.added - self.kept.len() as u64;
        (self.kept.into_values().collect(), more)
    }
}

fn chunks(range: Range<u64>, size: u64) -> impl Iterator<Item = Range<u64>> {
    let mut start = range.start;
    std::iter::from_fn(move || {
        let chunk = start..range.end.min(start.saturating_add(size));
        start = chunk.end;
        (!chunk.is_empty()).then_some(chunk)
    })
}

async fn drive<S: MultipartStore>(
    store: &S,
    jobs: impl Iterator<Item = (Range<u64>, (usize, Piece))>,
    fetcher: &mut Fetcher<(usize, Piece)>,
    crew: &mut Crew,
    findings: &mut Findings,
    options: &ReadOptions,
) -> Result<u64, Error> {
    let mut jobs = jobs;
    let mut object_bytes = 0;
    // Reports that are still to come. Whoever reports has given its buffers back before.
    let mut reports: usize = 0;
    loop {
        fetcher.start(store, &mut jobs);
        if reports == 0 && fetcher.is_done()? {
            return Ok(object_bytes);
        }
        tokio::select! {
            biased;
            () = options.cancel.cancelled() => return Err(Error::Cancelled),
            checked = crew.report(), if reports > 0 => {
                reports -= 1;
                for (place, finding) in checked? {
                    findings.add(place, finding);
                }
            }
            Some(fetched) = fetcher.next() => {
                let ((place, piece), bytes) = fetched?;
                object_bytes += bytes.as_ref().len() as u64;
                reports += Crew::REPORTS;
                crew.check(place, piece, bytes).await;
            }
        }
    }
}
