//! The order of a run: data, store, rounds of rows, goals.

use std::{io::Write as _, path::Path, time::Instant};

use anyhow::Context as _;

use crate::{
    Settings,
    baseline::{self, Programs, TO_BACK_UP, TO_PACK, TO_RESTORE},
    corpus::Corpus,
    goals,
    measure::Sample,
    report::{Machine, Report},
    resume, rows,
    sink::Sink,
    snapshots::{self, Snapshots},
    tls, whole,
};

/// The input of most rows.
pub(crate) const DATA: &str = "data";
/// The input of the slowest baseline, made in the same way.
const SAMPLE: &str = "sample";
/// Nothing but zeros, which compress 30,000:1.
const ZEROS: &str = "zeros";
const ZEROS_BYTES: u64 = 4 << 30;
/// Zeros for an archive of very many frames: as many as 8 TiB have.
const FRAMES: &str = "frames";
const FRAMES_BYTES: u64 = 1 << 30;

/// The names of rows that goals are about.
pub(crate) mod row {
    pub(crate) const CLIENT: &str = "S3 client";
    pub(crate) const HYPER: &str = "plain hyper";
    pub(crate) const FETCH: &str = "fetch ranges";
    pub(crate) const DECODE_ONE: &str = "decode and verify, 1 thread";
    pub(crate) const DECODE_TWO: &str = "decode and verify, 2 threads";
    pub(crate) const BACKUP: &str = "backup";
    pub(crate) const BACKUP_ONE: &str = "backup --level 1";
    pub(crate) const PIPELINE: &str = "tar|zstd -T0 -3|tee|aws s3 cp";
    pub(crate) const SINGLE: &str = "tar|zstd -3, single frame";
    pub(crate) const RESTORE: &str = "restore";
    pub(crate) const CURL: &str = "curl|tee|zstd -d|tar x";
    pub(crate) const SAMPLE: &str = "backup of the sample";
    pub(crate) const PASSES: &str = "three passes, zstd -T0 -19";
    pub(crate) const BACKUP_SLOW: &str = "backup to a slow store";
    pub(crate) const RESUMED: &str = "backup, killed and run again";
    pub(crate) const BACKUP_ZEROS: &str = "backup of zeros";
    pub(crate) const RESTORE_ZEROS: &str = "restore of zeros";
    pub(crate) const BACKUP_FRAMES: &str = "backup of 2^20 frames";
    pub(crate) const RESTORE_FRAMES: &str = "restore of 2^20 frames";
}

/// What every row found, in the order of their first runs.
#[derive(Debug, Default)]
pub(crate) struct Results(pub(crate) Vec<(String, Vec<Sample>)>);

impl Results {
    pub(crate) fn get(&self, row: &str) -> Option<&[Sample]> {
        self.0.iter().find(|(name, _)| name == row).map(|(_, samples)| samples.as_slice())
    }

    fn add(&mut self, row: &str, sample: Sample) {
        match self.0.iter_mut().find(|(name, _)| name == row) {
            Some((_, samples)) => samples.push(sample),
            None => self.0.push((row.to_owned(), vec![sample])),
        }
    }
}

/// Runs everything and prints what it found. Fails only if something is broken.
pub(crate) fn run(settings: &Settings) -> anyhow::Result<()> {
    let started = Instant::now();
    let machine = Machine::look();
    let programs = Programs::find(settings);
    let folder = tempfile::Builder::new().prefix("data-path-").tempdir()?;
    let work = folder.path();
    let corpus = Corpus::load()?;
    let data = snapshots::generate(&corpus, work, DATA, settings.size_mib << 20, snapshots::SEVERAL)?;
    let sample = snapshots::generate(&corpus, work, SAMPLE, settings.sample_mib << 20, snapshots::ONE)?;
    snapshots::zeros(work, ZEROS, ZEROS_BYTES)?;
    snapshots::zeros(work, FRAMES, FRAMES_BYTES)?;
    drop(corpus);
    tls::make(work)?;
    let sink = Sink::start(work)?;
    note(&format!(
        "{} MiB of snapshots are made ({:.0} s)",
        data.bytes() >> 20,
        started.elapsed().as_secs_f64()
    ))?;

    let mut run = Run { work, programs: &programs, results: Results::default() };
    // What the rows about reading read.
    let kept = run.product(&["backup", DATA, "default", "format", "keep"])?;
    let object_bytes = kept.object_bytes.context("a backup without an object")?;
    for round in 1..=settings.rounds.max(1) {
        run.round(round, &data, object_bytes)?;
        note(&format!(
            "round {round} of {} ({:.0} s)",
            settings.rounds.max(1),
            started.elapsed().as_secs_f64()
        ))?;
    }
    run.once(&data, &sample, settings.rounds.max(1))?;
    let results = run.results;
    drop(sink);

    let goals = goals::all(&results, &programs);
    let report = Report { settings, machine, programs: &programs, results: &results, goals };
    if let Some(out) = &settings.out {
        report.save(out)?;
    }
    write!(std::io::stdout().lock(), "\n{}", report.table())?;
    Ok(())
}

/// A row of a round.
#[derive(Clone, Copy)]
enum Step<'a> {
    Row(&'a str, &'a [&'a str]),
    Pipeline,
    Curl,
}

struct Run<'a> {
    work: &'a Path,
    programs: &'a Programs,
    results: Results,
}

impl Run<'_> {
    /// Every row that is run as often as there are rounds.
    fn round(&mut self, number: usize, data: &Snapshots, object_bytes: u64) -> anyhow::Result<()> {
        let bytes = object_bytes.to_string();
        for (name, sample) in self.clean(|work| rows::measure(work, &["stages"]))? {
            self.results.add(&name, sample);
        }
        self.row(row::FETCH, &["fetch"])?;
        // What is compared is run side by side, and the other way round every second time: the state in which a row leaves
        // memory and disk is then as often to the advantage of one as of the other.
        let pairs: [&[Step]; 4] = [
            &[Step::Row(row::CLIENT, &["client", &bytes]), Step::Row(row::HYPER, &["hyper", &bytes])],
            &[
                Step::Row(row::BACKUP, &["backup", DATA, "default", "format", "drop"]),
                Step::Pipeline,
                Step::Row(row::BACKUP_ONE, &["backup", DATA, "one", "format", "drop"]),
            ],
            &[Step::Row(row::DECODE_ONE, &["decode", "1"]), Step::Row(row::DECODE_TWO, &["decode", "2"])],
            &[Step::Row(row::RESTORE, &["restore", DATA, "format"]), Step::Curl],
        ];
        for steps in pairs {
            let mut steps = steps.to_vec();
            if number.is_multiple_of(2) {
                steps.reverse();
            }
            for step in steps {
                self.step(step, data)?;
            }
        }
        Ok(())
    }

    fn step(&mut self, step: Step<'_>, data: &Snapshots) -> anyhow::Result<()> {
        match step {
            Step::Row(name, arguments) => self.row(name, arguments),
            Step::Pipeline if self.programs.have(TO_BACK_UP) => {
                let script = self.programs.pipeline(self.work, DATA)?;
                self.script(row::PIPELINE, &script, data)
            }
            Step::Curl if self.programs.have(TO_RESTORE) => {
                let script = baseline::restore(self.work, DATA)?;
                self.script(row::CURL, &script, data)
            }
            Step::Pipeline | Step::Curl => Ok(()),
        }
    }

    /// What does not vary, or takes too long to be repeated.
    fn once(&mut self, data: &Snapshots, sample: &Snapshots, rounds: usize) -> anyhow::Result<()> {
        self.row(row::BACKUP_SLOW, &["backup", DATA, "default", "format", "slow"])?;
        self.results.add(row::RESUMED, resume::measure(self.work)?);
        for (backup, restore, input, frames) in [
            (row::BACKUP_ZEROS, row::RESTORE_ZEROS, ZEROS, "format"),
            (row::BACKUP_FRAMES, row::RESTORE_FRAMES, FRAMES, "tiny"),
        ] {
            self.row(backup, &["backup", input, "default", frames, "keep"])?;
            self.row(restore, &["restore", input, frames])?;
        }
        for _ in 0..rounds {
            self.row(row::SAMPLE, &["backup", SAMPLE, "default", "format", "drop"])?;
        }
        if self.programs.have(TO_PACK) {
            let script = baseline::single_frame(self.work, DATA)?;
            self.script(row::SINGLE, &script, data)?;
        }
        if self.programs.have(TO_BACK_UP) {
            let script = self.programs.three_passes(self.work, SAMPLE)?;
            self.script(row::PASSES, &script, sample)?;
        }
        Ok(())
    }

    fn row(&mut self, name: &str, arguments: &[&str]) -> anyhow::Result<()> {
        let sample = self.product(arguments)?;
        self.results.add(name, sample);
        Ok(())
    }

    fn script(&mut self, name: &str, script: &str, input: &Snapshots) -> anyhow::Result<()> {
        self.row(name, &["script", script, &input.bytes().to_string()])
    }

    fn product(&self, arguments: &[&str]) -> anyhow::Result<Sample> {
        let samples = self.clean(|work| rows::measure(work, arguments))?;
        samples.into_iter().next().map(|(_, sample)| sample).context("a row without a sample")
    }

    /// Gives a row data in the page cache and an empty folder to restore to, and takes the folder away afterwards.
    fn clean<T>(&self, row: impl FnOnce(&Path) -> anyhow::Result<T>) -> anyhow::Result<T> {
        warm_up(self.work)?;
        let folder = whole::restored(self.work);
        fs_err::create_dir(&folder)?;
        let result = row(self.work)?;
        fs_err::remove_dir_all(&folder)?;
        Ok(result)
    }
}

/// Reads the data into the page cache, which a backup drops it from.
fn warm_up(work: &Path) -> anyhow::Result<()> {
    for input in [DATA, SAMPLE] {
        for file in fs_err::read_dir(work.join(input))? {
            std::io::copy(&mut fs_err::File::open(file?.path())?, &mut std::io::sink())?;
        }
    }
    Ok(())
}

/// Tells whoever waits that something happens.
fn note(what: &str) -> std::io::Result<()> {
    writeln!(std::io::stderr().lock(), "{what}")
}
