//! Reading ranges of an object: several at once, in buffers that are counted, each tried more than once.

use std::{ops::Range, sync::Arc};

use tokio::task::JoinSet;

use crate::{
    download::{ArchiveRef, ReadOptions, consistency::layout_of},
    error::Error,
    index::{Frame, FrameIndex, IndexError},
    memory::{Buffer, Gauge, Pool, fit},
    progress::Progress,
    retry::{Attempts, RetryPolicy, retried},
    store::{MultipartStore, ObjectInfo},
    upload::{DEFAULT_CONCURRENCY, thread_count},
    window::Window,
};

/// What decoding takes beside its buffers, in bytes: the context of one thread.
const DECODE_CONTEXT: u64 = 1 << 20;
/// The most raw bytes that one request reads, in frames of the largest size: data that hardly takes any bytes in the object
/// is still shared between threads.
pub(super) const RUN_FRAMES: usize = 8;
/// What the index may take beside the budget; 2 TB of raw data have one of this size.
const INDEX_ALLOWANCE: u64 = 16 << 20;

/// Reads the frame index stored as `key`, and compares it with the root that the manifest names.
pub async fn fetch_index<S: MultipartStore>(
    store: &S,
    key: &str,
    archive: ArchiveRef<'_>,
    options: &ReadOptions,
) -> Result<FrameIndex, Error> {
    let frames = layout_of(archive, options.geometry.frame_raw_max)?.frame_count();
    let invalid = |source| Error::Index { key: key.to_owned(), source };
    let cancel = &options.cancel;
    let found = cancel.run_until_cancelled(Object::find(store, key, None, options)).await;
    let object = found.ok_or(Error::Cancelled)??;
    let limit = FrameIndex::json_zst_limit(frames);
    if object.size > limit {
        return Err(invalid(IndexError::TooLarge { size: object.size, limit, frames }));
    }
    let mut bytes = Vec::new();
    let read = cancel.run_until_cancelled(object.read(store, 0..object.size, &mut bytes)).await;
    read.ok_or(Error::Cancelled)??;
    let index = FrameIndex::from_json_zst(&bytes, frames).map_err(invalid)?;
    let (found, expected) = (index.root_hex(), archive.archive.frames_root.clone());
    if found != expected {
        return Err(invalid(IndexError::Root { expected, found }));
    }
    Ok(index)
}

/// An object that was found, pinned to what it was then.
#[derive(Clone, Debug)]
pub(super) struct Object {
    key: String,
    pub(super) size: u64,
    version_id: Option<String>,
    etag: Option<String>,
    retry: RetryPolicy,
    progress: Arc<Progress>,
    window: Window,
}

impl Object {
    pub(super) async fn find<S: MultipartStore>(
        store: &S,
        key: &str,
        version_id: Option<&str>,
        options: &ReadOptions,
    ) -> Result<Self, Error> {
        let what = format!("look at {key}");
        let found = retried(options.retry, &options.progress, what, || store.head(key, version_id))
            .await
            .map_err(|source| Error::Head { key: key.to_owned(), source })?;
        let ObjectInfo { size, etag, .. } =
            found.ok_or_else(|| Error::ObjectMissing { key: key.to_owned() })?;
        Ok(Self {
            key: key.to_owned(),
            size,
            version_id: version_id.map(str::to_owned),
            etag,
            retry: options.retry,
            progress: Arc::clone(&options.progress),
            window: Window::new(1),
        })
    }

    /// Reads `range` into `into`, which holds nothing else afterwards.
    pub(super) async fn read<S: MultipartStore>(
        &self,
        store: &S,
        range: Range<u64>,
        into: &mut Vec<u8>,
    ) -> Result<(), Error> {
        let Range { start, end } = range;
        let mut attempts =
            Attempts::new(self.retry, &self.progress, format!("read bytes {start}..{end} of {}", self.key));
        loop {
            let got = store.get_range(
                &self.key,
                self.version_id.as_deref(),
                self.etag.as_deref(),
                start..end,
                into,
            );
            match self.window.run(got).await {
                Ok(()) => break,
                Err(error) if attempts.again(&error).await => {}
                Err(source) => {
                    let attempts = attempts.failed();
                    return Err(Error::GetRange { key: self.key.clone(), start, end, attempts, source });
                }
            }
        }
        self.progress.add_object(end - start);
        Ok(())
    }
}

/// How much is done at once, and in which buffers.
#[derive(Debug)]
pub(super) struct Shares {
    /// Threads that decode.
    pub(super) threads: usize,
    /// The most bytes that are read by one request.
    pub(super) range_size: u64,
    /// The most raw bytes in them.
    pub(super) range_raw: u64,
    /// Ranges, from the request until they are decoded.
    pub(super) ranges: Arc<Pool>,
    /// One buffer per thread for the raw bytes of a frame.
    pub(super) raw: Arc<Pool>,
    concurrency: usize,
}

impl Shares {
    /// What the budget holds for reading frames that are listed in `index`.
    pub(super) fn new(index: &FrameIndex, options: &ReadOptions) -> Result<Self, Error> {
        let raw = index.frames.iter().map(|frame| frame.raw_len).max().unwrap_or(0);
        let frame = index.frames.iter().map(|frame| frame.compressed_len).max().unwrap_or(0);
        let range_size = options.geometry.range_size.max(u64::from(frame)).min(index.compressed_len().max(1));
        // The frames, where each starts, and the text they come from.
        let fixed = (index.frames.len() as u64 * 64).saturating_sub(INDEX_ALLOWANCE);
        let (budget, thread) = (options.memory_budget_bytes, u64::from(raw) + DECODE_CONTEXT);
        let rule = options.concurrency.unwrap_or(DEFAULT_CONCURRENCY).max(1);
        let wanted = thread_count(options.threads);
        // Ranges wait for a thread as well as for the store.
        let shares =
            fit(budget.saturating_sub(fixed), thread, wanted, range_size, rule.saturating_add(wanted));
        let Some((threads, ranges)) = shares else {
            let needed = fixed + thread + range_size;
            return Err(Error::BudgetTooSmall { budget, needed, part: range_size, frame: thread });
        };
        let gauge = Gauge::new(fixed + threads as u64 * DECODE_CONTEXT, Arc::clone(&options.progress));
        Ok(Self {
            threads,
            range_size,
            range_raw: u64::from(raw) * RUN_FRAMES as u64,
            ranges: Pool::new(ranges, usize::try_from(range_size).unwrap_or(usize::MAX), &gauge),
            raw: Pool::new(threads, raw as usize, &gauge),
            concurrency: ranges.min(rule),
        })
    }
}

/// Requests on their way. They are started in order, so that buffers come to the first ones first.
#[derive(Debug)]
pub(super) struct Fetcher<J> {
    object: Object,
    ranges: Arc<Pool>,
    concurrency: usize,
    underway: JoinSet<Result<(J, Buffer), Error>>,
    exhausted: bool,
}

impl<J: Send + 'static> Fetcher<J> {
    pub(super) fn new(object: Object, shares: &Shares) -> Self {
        let Shares { ranges, concurrency, .. } = shares;
        Self {
            object: Object { window: Window::new(*concurrency), ..object },
            ranges: Arc::clone(ranges),
            concurrency: *concurrency,
            underway: JoinSet::new(),
            exhausted: false,
        }
    }

    /// Starts requests from `jobs` as long as there are buffers and the limit allows it.
    pub(super) fn start<S: MultipartStore>(
        &mut self,
        store: &S,
        jobs: &mut impl Iterator<Item = (Range<u64>, J)>,
    ) {
        while !self.exhausted
            && self.underway.len() < self.concurrency
            && let Some(mut buffer) = self.ranges.try_take()
        {
            let Some((range, job)) = jobs.next() else {
                self.exhausted = true;
                return;
            };
            let (store, object) = (store.clone(), self.object.clone());
            self.underway.spawn(async move {
                object.read(&store, range, buffer.vec()).await?;
                Ok((job, buffer))
            });
        }
    }

    /// Whether every job was started and has arrived, asked after [`Fetcher::start`] while nobody holds a buffer.
    ///
    /// Jobs that are left although there are buffers and nothing is on its way would never be done: that is an error.
    pub(super) fn is_done(&self) -> Result<bool, Error> {
        match (self.underway.is_empty(), self.exhausted) {
            (true, true) => Ok(true),
            (false, _) => Ok(false),
            (true, false) => {
                Err(Error::Internal { what: "ranges are left to be read, but no buffer for them" })
            }
        }
    }

    /// The next range that arrives; `None` if none is on its way. Nothing is lost when the future is dropped.
    pub(super) async fn next(&mut self) -> Option<Result<(J, Buffer), Error>> {
        self.underway
            .join_next()
            .await
            .map(|joined| joined.unwrap_or_else(|error| Err(Error::joined("fetch", error))))
    }

    pub(super) async fn stop(&mut self) {
        self.underway.shutdown().await;
    }
}

/// Cuts `frames` into runs of at most `limit` bytes in the object and `raw_limit` raw bytes, one frame at least: the bytes and
/// the frames of each. `offsets` are those of `index`.
pub(super) fn runs<'a>(
    index: &'a [Frame],
    offsets: &'a [u64],
    frames: Range<usize>,
    limit: u64,
    raw_limit: u64,
) -> impl Iterator<Item = (Range<u64>, Range<usize>)> + 'a {
    let mut next = frames.start;
    std::iter::from_fn(move || {
        let first = next;
        if first == frames.end {
            return None;
        }
        let raw_len = |frame: usize| u64::from(index[frame].raw_len);
        let mut raw = raw_len(first);
        next += 1;
        while next < frames.end
            && offsets[next + 1] - offsets[first] <= limit
            && raw + raw_len(next) <= raw_limit
        {
            raw += raw_len(next);
            next += 1;
        }
        Some((offsets[first]..offsets[next], first..next))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_as_long_as_the_limits_allow_and_cover_everything() {
        let lens = [10, 5, 25, 1, 1, 18];
        let index = lens.map(|compressed_len| Frame { raw_len: 100, compressed_len, hash: [0; 32] });
        let offsets = [0, 10, 15, 40, 41, 42, 60];
        let cut = |limit, raw| {
            runs(&index, &offsets, 1..6, limit, raw).map(|(_, frames)| frames).collect::<Vec<_>>()
        };
        assert_eq!(cut(1, 1000), [1..2, 2..3, 3..4, 4..5, 5..6]);
        assert_eq!(cut(27, 1000), [1..2, 2..5, 5..6]);
        assert_eq!(cut(1000, 500), std::iter::once(1..6).collect::<Vec<_>>());
        assert_eq!(cut(1000, 299), [1..3, 3..5, 5..6]);
        assert_eq!(cut(1000, 1), [1..2, 2..3, 3..4, 4..5, 5..6]);
        assert_eq!(runs(&index, &offsets, 1..6, 1000, 1000).next().unwrap().0, 10..60);
        assert_eq!(runs(&index, &offsets, 2..2, 9, 1000).count(), 0);
    }
}
