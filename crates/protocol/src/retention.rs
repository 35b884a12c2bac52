//! Which backups stay: a pure function of what there is and of the rules that a person gave.
//!
//! A backup stays if any rule or any reason of safety keeps it. Days, weeks (of ISO 8601) and months are those of UTC; each rule over them keeps the newest whole
//! backup of a period, for the newest periods that have one.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp, tz::Offset};
use serde::Serialize;

use crate::{BackupId, ProofLevel};

/// What a person wants kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// The newest so many.
    pub last: usize,
    /// Everything that is not older than this. The one rule that is about partial backups, too.
    pub within: Option<SignedDuration>,
    /// One of each of the newest so many days.
    pub daily: usize,
    /// One of each of the newest so many weeks.
    pub weekly: usize,
    /// One of each of the newest so many months.
    pub monthly: usize,
}

impl Rules {
    /// Whether they keep nothing at all.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What is known of a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The backup.
    pub backup: BackupId,
    /// What its manifest says; `None` where that cannot be used.
    pub content: Option<Content>,
    /// The highest level that was proved.
    pub proved: Option<ProofLevel>,
}

/// What a manifest says of its backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Content {
    /// Only chosen collections are in it.
    pub partial: bool,
    /// It was taken on a host that did not come from the published backup.
    pub degraded: bool,
}

/// Why a backup stays.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// The pointer names it.
    Published,
    /// It is newer than what the pointer names: it may be on its way to be published.
    NewerThanPublished,
    /// It is the newest that was proved at this level or a higher one.
    NewestProved(ProofLevel),
    /// This host's data came from it.
    HostCameFromIt,
    /// Its manifest cannot be read, so that nobody knows what it is.
    Unreadable,
    /// It is partial, and no rule is about age.
    Partial,
    /// It is one of the newest.
    Last,
    /// It is young enough.
    Within,
    /// It is the newest of its day, as `2026-11-28`.
    Daily(String),
    /// It is the newest of its week, as `2026-W48`.
    Weekly(String),
    /// It is the newest of its month, as `2026-11`.
    Monthly(String),
}

/// What becomes of every candidate: why it stays, in order; without a reason it goes.
///
/// `published` is the pointer's backup, `host` the one that this host was restored from.
pub fn decide(
    rules: &Rules,
    candidates: &[Candidate],
    published: BackupId,
    host: Option<BackupId>,
    now: Timestamp,
) -> BTreeMap<BackupId, BTreeSet<Reason>> {
    let mut kept: BTreeMap<BackupId, BTreeSet<Reason>> =
        candidates.iter().map(|candidate| (candidate.backup, BTreeSet::new())).collect();
    let mut keep = |backup: BackupId, reason: Reason| kept.entry(backup).or_default().insert(reason);
    for Candidate { backup, content, .. } in candidates {
        let young = rules.within.is_some_and(|within| now.duration_since(backup.time()) <= within);
        let reasons = [
            (*backup == published, Reason::Published),
            (*backup > published, Reason::NewerThanPublished),
            (Some(*backup) == host, Reason::HostCameFromIt),
            (content.is_none(), Reason::Unreadable),
            (content.is_some_and(|content| content.partial) && rules.within.is_none(), Reason::Partial),
            (young, Reason::Within),
        ];
        for (_, reason) in reasons.into_iter().filter(|(holds, _)| *holds) {
            keep(*backup, reason);
        }
    }

    // Only what could be restored by itself counts for anything else.
    let mut whole: Vec<&Candidate> = candidates
        .iter()
        .filter(|candidate| candidate.content.is_some_and(|content| !content.partial))
        .collect();
    whole.sort_by_key(|candidate| std::cmp::Reverse(candidate.backup));
    let is_trusted = |candidate: &Candidate| candidate.content.is_some_and(|content| !content.degraded);
    // A host whose published backup does not come back takes an older proved one, of a degraded host only where there is no other.
    for level in [ProofLevel::ReRead, ProofLevel::Searched] {
        for (older, trusted) in [(false, false), (false, true), (true, false), (true, true)] {
            let fits = |candidate: &&&Candidate| {
                candidate.proved >= Some(level)
                    && (!older || candidate.backup < published)
                    && (!trusted || is_trusted(candidate))
            };
            if let Some(newest) = whole.iter().find(fits) {
                keep(newest.backup, Reason::NewestProved(level));
            }
        }
    }
    // What a degraded host has backed up does not push out what came before, nor does what is not published yet.
    let trusted: Vec<BackupId> = whole
        .iter()
        .filter(|candidate| is_trusted(candidate) && candidate.backup <= published)
        .map(|candidate| candidate.backup)
        .collect();
    for backup in trusted.iter().take(rules.last) {
        keep(*backup, Reason::Last);
    }
    for (count, period) in
        [(rules.daily, daily as fn(BackupId) -> Reason), (rules.weekly, weekly), (rules.monthly, monthly)]
    {
        let mut periods = BTreeSet::new();
        for backup in &trusted {
            if periods.len() == count {
                break;
            }
            if periods.insert(period(*backup)) {
                keep(*backup, period(*backup));
            }
        }
    }
    kept
}

fn date(backup: BackupId) -> jiff::civil::Date {
    Offset::UTC.to_datetime(backup.time()).date()
}

fn daily(backup: BackupId) -> Reason {
    Reason::Daily(date(backup).to_string())
}

fn weekly(backup: BackupId) -> Reason {
    let week = date(backup).iso_week_date();
    Reason::Weekly(format!("{:04}-W{:02}", week.year(), week.week()))
}

fn monthly(backup: BackupId) -> Reason {
    let date = date(backup);
    Reason::Monthly(format!("{:04}-{:02}", date.year(), date.month()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> BackupId {
        text.parse().unwrap()
    }

    fn at(text: &str) -> Candidate {
        let content = Some(Content { partial: false, degraded: false });
        Candidate { backup: id(text), content, proved: None }
    }

    /// One whole backup at noon of each of the `days` before 28 November 2026, and one at six in the morning.
    fn history(days: i64) -> Vec<Candidate> {
        let noon: Timestamp = "2026-11-28T12:00:00Z".parse().unwrap();
        let hours = (0..days).flat_map(|day| [day * 24, day * 24 + 6]);
        let backup = |hours: i64| noon.checked_sub(SignedDuration::from_hours(hours)).unwrap();
        hours
            .map(|hours| backup(hours).strftime("%Y%m%dT%H%M%SZ").to_string())
            .map(|text| at(&text))
            .collect()
    }

    fn kept(rules: &Rules, candidates: &[Candidate]) -> Vec<String> {
        let published = candidates.iter().map(|candidate| candidate.backup).max().unwrap();
        let now = published.time();
        let decided = decide(rules, candidates, published, None, now);
        let mut kept: Vec<String> =
            decided.iter().filter(|(_, why)| !why.is_empty()).map(|(backup, _)| backup.to_string()).collect();
        kept.reverse();
        kept
    }

    #[test]
    fn each_rule_keeps_what_it_says() {
        let history = history(100);
        let rules = |change: fn(&mut Rules)| {
            let mut rules = Rules::default();
            change(&mut rules);
            rules
        };
        assert_eq!(kept(&Rules::default(), &history), ["20261128T120000Z"], "the published one in any case");
        assert_eq!(
            kept(&rules(|r| r.last = 3), &history),
            ["20261128T120000Z", "20261128T060000Z", "20261127T120000Z"]
        );
        assert_eq!(
            kept(&rules(|r| r.within = Some(SignedDuration::from_hours(30))), &history),
            ["20261128T120000Z", "20261128T060000Z", "20261127T120000Z", "20261127T060000Z"]
        );
        assert_eq!(kept(&rules(|r| r.daily = 2), &history), ["20261128T120000Z", "20261127T120000Z"]);
        // 28 November 2026 is a Saturday, and weeks end on Sunday.
        assert_eq!(
            kept(&rules(|r| r.weekly = 3), &history),
            ["20261128T120000Z", "20261122T120000Z", "20261115T120000Z"]
        );
        assert_eq!(
            kept(&rules(|r| r.monthly = 3), &history),
            ["20261128T120000Z", "20261031T120000Z", "20260930T120000Z"]
        );
        let both = rules(|r| {
            r.daily = 2;
            r.monthly = 2;
        });
        assert_eq!(kept(&both, &history), ["20261128T120000Z", "20261127T120000Z", "20261031T120000Z"]);
    }

    #[test]
    fn an_older_proved_backup_stays_behind_what_is_newer_or_of_a_degraded_host() {
        let proved = |text: &str, degraded| Candidate {
            proved: Some(ProofLevel::Searched),
            content: Some(Content { partial: false, degraded }),
            ..at(text)
        };
        let newer = proved("20261128T120000Z", false);
        let of_degraded = proved("20261126T120000Z", true);
        let candidates = [
            newer,
            at("20261127T120000Z"),
            of_degraded,
            proved("20261125T120000Z", false),
            proved("20261124T120000Z", false),
        ];
        let now = "2026-11-28T13:00:00Z".parse().unwrap();
        let decided =
            decide(&Rules { last: 1, ..Rules::default() }, &candidates, id("20261127T120000Z"), None, now);
        let gone: Vec<String> =
            decided.iter().filter(|(_, why)| why.is_empty()).map(|(backup, _)| backup.to_string()).collect();
        assert_eq!(gone, ["20261124T120000Z"]);
    }

    #[test]
    fn a_gap_is_no_period() {
        let sparse = [at("20261128T120000Z"), at("20260101T120000Z"), at("20250101T120000Z")];
        let rules = Rules { daily: 2, ..Rules::default() };
        assert_eq!(kept(&rules, &sparse), ["20261128T120000Z", "20260101T120000Z"]);
    }

    #[test]
    fn safety_keeps_what_rules_would_not() {
        let proved = |text: &str, level| Candidate { proved: Some(level), ..at(text) };
        let with = |text: &str, partial, degraded| Candidate {
            content: Some(Content { partial, degraded }),
            ..at(text)
        };
        let candidates = [
            at("20261128T120000Z"),
            at("20261127T120000Z"),
            proved("20261126T120000Z", ProofLevel::ReRead),
            proved("20261125T120000Z", ProofLevel::FastEnough),
            proved("20261124T120000Z", ProofLevel::Searched),
            Candidate { content: None, ..at("20261123T120000Z") },
            with("20261122T120000Z", true, false),
            with("20261121T120000Z", false, true),
            at("20261120T120000Z"),
        ];
        let now = "2026-11-28T13:00:00Z".parse().unwrap();
        let host = Some(id("20261120T120000Z"));
        let decided =
            decide(&Rules { last: 1, ..Rules::default() }, &candidates, id("20261127T120000Z"), host, now);
        let why = |text: &str| decided[&id(text)].iter().cloned().collect::<Vec<_>>();
        assert_eq!(why("20261128T120000Z"), [Reason::NewerThanPublished]);
        assert_eq!(why("20261127T120000Z"), [Reason::Published, Reason::Last]);
        assert_eq!(why("20261126T120000Z"), [Reason::NewestProved(ProofLevel::ReRead)]);
        assert_eq!(why("20261125T120000Z"), [Reason::NewestProved(ProofLevel::Searched)]);
        assert_eq!(why("20261124T120000Z"), []);
        assert_eq!(why("20261123T120000Z"), [Reason::Unreadable]);
        assert_eq!(why("20261122T120000Z"), [Reason::Partial]);
        assert_eq!(why("20261121T120000Z"), [], "a degraded host's counts for no rule");
        assert_eq!(why("20261120T120000Z"), [Reason::HostCameFromIt]);

        let by_age = Rules { within: Some(SignedDuration::from_hours(24)), ..Rules::default() };
        let decided = decide(&by_age, &candidates, id("20261127T120000Z"), None, now);
        assert!(decided[&id("20261122T120000Z")].is_empty(), "a partial one goes by age");
    }
}
