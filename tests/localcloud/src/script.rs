//! Faults as a script: what goes wrong is named beforehand, by what it strikes and by count. Nothing here is left to chance.

use std::fmt::Debug;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The faults of one kind of event: `K` is what an event is about, `E` what happens to it.
#[derive(Debug)]
pub struct Script<K, E> {
    rules: Mutex<Vec<Rule<K, E>>>,
}

#[derive(Clone, Debug)]
struct Rule<K, E> {
    about: About<K>,
    first: u64,
    times: u64,
    seen: u64,
    effect: E,
}

/// What a rule is about.
#[derive(Clone, Debug)]
enum About<K> {
    One(K),
    /// Those for which this holds, counted together.
    Each(fn(&K) -> bool),
    Any,
}

impl<K: PartialEq> About<K> {
    fn is(&self, about: &K) -> bool {
        match self {
            Self::One(own) => own == about,
            Self::Each(holds) => holds(about),
            Self::Any => true,
        }
    }
}

impl<K, E> Default for Script<K, E> {
    fn default() -> Self {
        Self { rules: Mutex::default() }
    }
}

impl<K: PartialEq + Debug, E: Clone + Debug> Script<K, E> {
    /// Begins a fault for events about `about`: by default the first such event from now on, once.
    pub fn on(&self, about: impl Into<K>) -> FaultBuilder<'_, K, E> {
        self.begin(About::One(about.into()))
    }

    /// Begins a fault for events about whatever `holds` for, counted together.
    pub fn on_each(&self, holds: fn(&K) -> bool) -> FaultBuilder<'_, K, E> {
        self.begin(About::Each(holds))
    }

    /// Begins a fault for events about whatever.
    pub fn on_any(&self) -> FaultBuilder<'_, K, E> {
        self.begin(About::Any)
    }

    /// Forgets every fault.
    pub fn clear(&self) {
        self.rules().clear();
    }

    /// The faults which have not (or not often enough) struck, in words: a test asserts that there are none.
    #[must_use]
    pub fn unfired(&self) -> Vec<String> {
        let rules = self.rules();
        rules.iter().filter(|rule| rule.seen < rule.last()).map(|rule| format!("{rule:?}")).collect()
    }

    /// Counts the event against every fault, and answers what is to happen to it.
    pub(crate) fn strike(&self, about: &K) -> Option<E> {
        let mut effect = None;
        let mut rules = self.rules();
        for rule in rules.iter_mut().filter(|rule| rule.about.is(about)) {
            rule.seen = rule.seen.saturating_add(1);
            if effect.is_none() && (rule.first..=rule.last()).contains(&rule.seen) {
                effect = Some(rule.effect.clone());
            }
        }
        effect
    }

    fn begin(&self, about: About<K>) -> FaultBuilder<'_, K, E> {
        FaultBuilder { script: self, about, first: 1, times: 1 }
    }

    fn rules(&self) -> MutexGuard<'_, Vec<Rule<K, E>>> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K, E> Rule<K, E> {
    fn last(&self) -> u64 {
        self.first.saturating_add(self.times).saturating_sub(1)
    }
}

/// A fault being written; [`inject`](Self::inject) puts it into force.
#[derive(Debug)]
#[must_use = "a fault is in force only after `inject`"]
pub struct FaultBuilder<'a, K, E> {
    script: &'a Script<K, E>,
    about: About<K>,
    first: u64,
    times: u64,
}

impl<K: PartialEq + Debug, E: Clone + Debug> FaultBuilder<'_, K, E> {
    /// Strikes the `n`-th matching event from now on, counted from 1 (retries count).
    pub fn nth(mut self, n: u64) -> Self {
        self.first = n.max(1);
        self
    }

    /// Strikes this many matching events in a row; `u64::MAX` is for ever.
    pub fn times(mut self, times: u64) -> Self {
        self.times = times;
        self
    }

    /// Puts the fault into force. Where several strike the same event, the one injected first wins.
    pub fn inject(self, effect: E) {
        let rule = Rule { about: self.about, first: self.first, times: self.times, seen: 0, effect };
        self.script.rules().push(rule);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nth_event_is_struck_as_often_as_said() {
        let script: Script<String, u8> = Script::default();
        script.on("a").nth(2).times(2).inject(7);
        let (a, b) = ("a".to_owned(), "b".to_owned());
        assert_eq!(script.strike(&b), None, "another does not count");
        assert_eq!(script.unfired().len(), 1);
        let effects: Vec<_> = (0..4).map(|_| script.strike(&a)).collect();
        assert_eq!(effects, [None, Some(7), Some(7), None]);
        assert_eq!(script.unfired(), [""; 0]);
    }

    #[test]
    fn the_fault_injected_first_wins() {
        let script: Script<String, u8> = Script::default();
        script.on_any().inject(1);
        script.on("a").times(2).inject(2);
        let a = "a".to_owned();
        assert_eq!([script.strike(&a), script.strike(&a), script.strike(&a)], [Some(1), Some(2), None]);
    }
}
