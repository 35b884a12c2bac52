//! Writing entries of an archive to files.

mod crew;

use std::{
    collections::HashSet,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::Arc,
    thread,
};

use tokio::{sync::oneshot, time::Instant};
use tokio_util::sync::CancellationToken;

use self::crew::{Crew, Work, Writer};
use crate::{
    download::{
        ArchiveRef, Leftovers, NOBODY_LEFT, ReadOptions, Restored,
        consistency::{check_index, layout_of},
        fetch::{Fetcher, Object, RUN_FRAMES, Shares, runs},
        target::Targets,
    },
    error::Error,
    index::FrameIndex,
    layout::Layout,
    progress::Phase,
    store::MultipartStore,
    upload::Threads,
};

/// Writes entries of an archive to files that are not there yet.
///
/// `wanted` gives the place of an entry in `archive.archive.entries` and the file for it; paths never come from the archive.
/// Each file appears under its name when it is whole, and synced unless [`ReadOptions::durability`] says otherwise; until then it is
/// `<file>.partial`. [`ReadOptions::leftovers`] says what becomes of that one when the restore fails, and whether one that is there already is gone on from.
pub async fn restore_entries<S: MultipartStore>(
    store: &S,
    archive: ArchiveRef<'_>,
    index: &FrameIndex,
    wanted: &[(usize, PathBuf)],
    options: ReadOptions,
) -> Result<Restored, Error> {
    let started = Instant::now();
    let layout = layout_of(archive, options.geometry.frame_raw_max)?;
    check_index(archive, &layout, index)?;
    check_wanted(archive.key, &layout, wanted)?;
    let shares = Shares::new(index, &options)?;
    let raw_bytes = wanted.iter().map(|(entry, _)| layout.entry_location(*entry).size).sum();
    options.progress.begin(raw_bytes);

    let found =
        options.cancel.run_until_cancelled(Object::find(store, archive.key, archive.version_id, &options));
    let object = found.await.ok_or(Error::Cancelled)??;
    if object.size != archive.size_bytes {
        let (key, expected, found) = (archive.key.to_owned(), archive.size_bytes, object.size);
        return Err(Error::ObjectSize { key, expected, found });
    }
    let sizes = wanted.iter().map(|(entry, path)| (path.clone(), layout.entry_location(*entry).size));
    let targets = Arc::new(Targets::open(sizes, options.leftovers)?);
    let mut target_of = vec![None; layout.entry_count()];
    for (target, (entry, _)) in wanted.iter().enumerate() {
        target_of[*entry] = Some(target);
    }
    let writer = Writer {
        key: archive.key.to_owned(),
        layout: Arc::new(layout),
        index: index.frames.clone().into(),
        targets: Arc::clone(&targets),
        target_of: target_of.into(),
        progress: Arc::clone(&options.progress),
        stop: CancellationToken::new(),
    };
    let offsets = index.offsets();
    let moved = {
        let mut crew = Crew::start(&writer, &shares, options.threads)?;
        let mut fetcher = Fetcher::new(object, &shares);
        let moved = async {
            let kept = judge(&writer, wanted, &mut crew, &options.cancel).await?;
            let jobs = jobs(&writer, &offsets, wanted, &kept, &shares);
            let object_bytes = drive(store, jobs, &mut fetcher, &mut crew, &options).await?;
            Ok::<_, Error>((kept.raw_bytes, object_bytes))
        };
        let moved = moved.await;
        fetcher.stop().await;
        // The targets are given up, or committed, after nobody writes to them any more. What has arrived is written before, where it
        // is of use to the next restore and nobody waits for the end of this one.
        let finish = match &moved {
            Ok(_) | Err(Error::Cancelled) => false,
            Err(error) => options.leftovers.stay_after(error.kind()),
        };
        crew.stop(finish).await;
        moved
    };
    drop(writer);
    let targets =
        Arc::into_inner(targets).ok_or(Error::Internal { what: "files are still being written" })?;
    let (kept_bytes, object_bytes) = match moved {
        Ok(moved) => moved,
        Err(error) => {
            targets.fail(error.kind());
            return Err(error);
        }
    };
    commit(targets, &options).await?;
    options.progress.enter(Phase::Done);
    Ok(Restored { raw_bytes, kept_bytes, object_bytes, duration: started.elapsed() })
}

/// Gives the files their names. Syncing what was written may take long: who goes on from leftovers anyway does not wait for it when asked
/// to stop, and finds the files under the one name or the other.
async fn commit(targets: Targets, options: &ReadOptions) -> Result<(), Error> {
    const NAME: &str = "commit";
    let durability = options.durability;
    if options.threads == Threads::Inline {
        return targets.commit(durability);
    }
    let (report, committed) = oneshot::channel();
    let run = move || {
        let result = catch_unwind(AssertUnwindSafe(|| targets.commit(durability)));
        // Nobody listens any more after a request to stop.
        let _unheard = report.send(result.unwrap_or_else(|panic| Err(Error::panicked(NAME, panic))));
    };
    thread::Builder::new().name(NAME.to_owned()).spawn(run).map_err(|source| Error::Thread { source })?;
    let committed = async { committed.await.unwrap_or(Err(NOBODY_LEFT)) };
    match options.leftovers {
        Leftovers::Discard => committed.await,
        Leftovers::Resume => {
            options.cancel.run_until_cancelled(committed).await.unwrap_or(Err(Error::Cancelled))
        }
    }
}

fn check_wanted(key: &str, layout: &Layout, wanted: &[(usize, PathBuf)]) -> Result<(), Error> {
    let refuse = |what: String| Err(Error::Wanted { key: key.to_owned(), what });
    let (mut entries, mut paths) = (HashSet::new(), HashSet::new());
    for (entry, path) in wanted {
        if *entry >= layout.entry_count() {
            return refuse(format!("entry number {entry} of {}", layout.entry_count()));
        }
        if !entries.insert(entry) || !paths.insert(path) {
            return refuse(format!("`{}` to `{}` twice", layout.name(*entry), path.display()));
        }
    }
    Ok(())
}

/// Which frames need not be fetched.
#[derive(Debug)]
struct Kept {
    frames: Vec<bool>,
    raw_bytes: u64,
}

impl Kept {
    /// The stretches of `frames` that have to be fetched.
    fn missing(&self, frames: Range<usize>) -> impl Iterator<Item = Range<usize>> + '_ {
        let mut next = frames.start;
        std::iter::from_fn(move || {
            let is_kept = |frame: usize| self.frames[frame];
            let first = (next..frames.end).find(|frame| !is_kept(*frame))?;
            next = (first..frames.end).find(|frame| is_kept(*frame)).unwrap_or(frames.end);
            Some(first..next)
        })
    }
}

/// The frames of each wanted entry, in the order of the object.
fn entries_of<'a>(
    writer: &'a Writer,
    wanted: &[(usize, PathBuf)],
) -> impl Iterator<Item = (usize, Range<usize>)> + use<'a> {
    let mut entries: Vec<usize> = wanted.iter().map(|(entry, _)| *entry).collect();
    entries.sort_unstable();
    entries.into_iter().map(|entry| {
        let location = writer.layout.entry_location(entry);
        // The index has as many frames as the layout, so these are places in it.
        let first = usize::try_from(location.first_frame).unwrap_or(usize::MAX);
        let count = usize::try_from(location.frame_count).unwrap_or(usize::MAX);
        (entry, first..first + count)
    })
}

/// Reads what an earlier restore has left, and says which of its frames are as they should be.
async fn judge(
    writer: &Writer,
    wanted: &[(usize, PathBuf)],
    crew: &mut Crew,
    cancel: &CancellationToken,
) -> Result<Kept, Error> {
    let mut kept = Kept { frames: vec![false; writer.index.len()], raw_bytes: 0 };
    let mut judging: usize = 0;
    for (entry, frames) in entries_of(writer, wanted) {
        if !writer.target_of[entry].is_some_and(|target| writer.targets.is_leftover(target)) {
            continue;
        }
        for start in frames.clone().step_by(RUN_FRAMES) {
            if cancel.is_cancelled() {
                return Err(Error::Cancelled);
            }
            crew.hand(Work::Judge(start..frames.end.min(start + RUN_FRAMES))).await;
            judging += 1;
        }
    }
    while judging > 0 {
        let judged = cancel.run_until_cancelled(crew.done()).await.ok_or(Error::Cancelled)?;
        for frame in judged? {
            kept.frames[frame] = true;
            kept.raw_bytes += u64::from(writer.index[frame].raw_len);
        }
        judging -= 1;
    }
    Ok(kept)
}

/// The ranges to read, in the order of the object.
fn jobs<'a>(
    writer: &'a Writer,
    offsets: &'a [u64],
    wanted: &[(usize, PathBuf)],
    kept: &'a Kept,
    shares: &Shares,
) -> impl Iterator<Item = (Range<u64>, Range<usize>)> + 'a {
    let (size, raw) = (shares.range_size, shares.range_raw);
    entries_of(writer, wanted)
        .flat_map(|(_, frames)| kept.missing(frames))
        .flat_map(move |frames| runs(&writer.index, offsets, frames, size, raw))
}

/// Fetches and hands over until all is written. Returns how many bytes of the object were read.
async fn drive<S: MultipartStore>(
    store: &S,
    jobs: impl Iterator<Item = (Range<u64>, Range<usize>)>,
    fetcher: &mut Fetcher<Range<usize>>,
    crew: &mut Crew,
    options: &ReadOptions,
) -> Result<u64, Error> {
    let mut jobs = jobs;
    let mut object_bytes = 0;
    let mut writing: usize = 0;
    loop {
        fetcher.start(store, &mut jobs);
        if writing == 0 && fetcher.is_done()? {
            return Ok(object_bytes);
        }
        tokio::select! {
            biased;
            () = options.cancel.cancelled() => return Err(Error::Cancelled),
            written = crew.done(), if writing > 0 => {
                written?;
                writing -= 1;
            }
            Some(fetched) = fetcher.next() => {
                let (frames, bytes) = fetched?;
                object_bytes += bytes.as_ref().len() as u64;
                writing += 1;
                crew.hand(Work::Write(frames, bytes)).await;
            }
        }
    }
}
