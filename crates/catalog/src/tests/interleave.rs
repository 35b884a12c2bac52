//! Every interleaving of the store calls of two publishers, with crashes and lost replies among them.
//!
//! A publication begins with four reads (the archive, its side files, the clock) of what no publication writes. All orders of
//! the last two of them are explored once; elsewhere all are made first, which leaves every order that can matter.

use std::{
    pin::Pin,
    task::{Context, Poll, Waker},
};

use protocol::{Manifest, key};

use super::support::{catalog, check_forward, id, named, published_as, upload, with_counts};
use crate::{
    Catalog, Error, Outcome, PublishPolicy, Published,
    store::{Fault, Memory, Operation},
};

/// A publication that makes one call to the store each time that it is stepped.
struct Publisher {
    future: Pin<Box<dyn Future<Output = Result<Published, Error>>>>,
    result: Option<Result<Published, Error>>,
}

impl Publisher {
    fn new(catalog: &Catalog<Memory>, manifest: &Manifest) -> Self {
        let (catalog, manifest) = (catalog.clone(), manifest.clone());
        let future = async move { catalog.publish(&manifest, &PublishPolicy::default()).await };
        let mut publisher = Self { future: Box::pin(future), result: None };
        // Up to the first call, which it then waits to make.
        publisher.step();
        publisher
    }

    fn step(&mut self) {
        assert!(self.result.is_none(), "stepped after the end");
        if let Poll::Ready(result) = self.future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            self.result = Some(result);
        }
    }

    fn is_done(&self) -> bool {
        self.result.is_some()
    }

    fn run(&mut self) {
        for _ in 0..100 {
            if self.is_done() {
                return;
            }
            self.step();
        }
        panic!("a publication does not end");
    }

    fn outcome(mut self) -> Outcome {
        self.result.take().unwrap().unwrap().outcome
    }
}

/// Two publishers on one store, after `schedule` said which of them makes the next call.
struct Race {
    catalog: Catalog<Memory>,
    manifests: [Manifest; 2],
    publishers: [Publisher; 2],
}

impl Race {
    fn new(setup: &Setup, schedule: &[usize]) -> Self {
        let catalog = catalog();
        if setup.pointer_exists {
            at_once(published_as(&catalog, with_counts(1, &[])));
        }
        let store = catalog.store();
        // A duplicate is the same manifest, not another upload.
        let first = upload(store, with_counts(setup.backups[0], &[]));
        let second = if setup.backups[0] == setup.backups[1] {
            first.clone()
        } else {
            upload(store, with_counts(setup.backups[1], &[]))
        };
        let manifests = [first, second];
        if let Some((operation, skip, fault)) = setup.fault {
            store.script(operation, key::POINTER, skip, 1, fault);
        }
        store.set_stepping(true);
        let publishers = [0, 1].map(|n: usize| Publisher::new(&catalog, &manifests[n]));
        let mut race = Self { catalog, manifests, publishers };
        for &who in schedule {
            race.publishers[who].step();
        }
        // The shorter schedules were visited on their own.
        check_forward(race.catalog.store());
        race
    }

    /// Runs a publication again from its beginning, as a retry of its state does.
    fn again(&self, who: usize) -> Outcome {
        let mut publisher = Publisher::new(&self.catalog, &self.manifests[who]);
        publisher.run();
        check_forward(self.catalog.store());
        publisher.outcome()
    }
}

/// The result of a future that never waits.
fn at_once<T>(future: impl Future<Output = T>) -> T {
    match std::pin::pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => result,
        Poll::Pending => panic!("it waits"),
    }
}

#[derive(Clone, Copy)]
struct Setup {
    backups: [i64; 2],
    pointer_exists: bool,
    fault: Option<(Operation, usize, Fault)>,
}

/// Visits every schedule of calls, the unfinished ones too; how many of them ended both publications.
fn explore(setup: &Setup, begun: &[usize], visit: &mut dyn FnMut(&[usize], Race)) -> usize {
    let mut ended = 0;
    let mut stack = vec![begun.to_vec()];
    while let Some(schedule) = stack.pop() {
        let race = Race::new(setup, &schedule);
        let running = [0, 1].into_iter().filter(|who| !race.publishers[*who].is_done());
        let longer: Vec<Vec<usize>> = running.map(|who| [&schedule[..], &[who]].concat()).collect();
        ended += usize::from(longer.is_empty());
        visit(&schedule, race);
        stack.extend(longer);
    }
    ended
}

/// Both have made their reads of what nobody writes.
const READS_MADE: [usize; 8] = [0, 0, 0, 0, 1, 1, 1, 1];
/// Both have made the first two of these reads.
const READS_BEGUN: [usize; 4] = [0, 0, 1, 1];

fn setups(faults: &[Option<(Operation, usize, Fault)>]) -> Vec<Setup> {
    let mut setups = Vec::new();
    for backups in [[2, 3], [3, 2], [2, 2]] {
        for pointer_exists in [false, true] {
            setups.extend(faults.iter().map(|fault| Setup { backups, pointer_exists, fault: *fault }));
        }
    }
    setups
}

fn newest(setup: &Setup) -> i64 {
    setup.backups.into_iter().max().unwrap()
}

#[test]
fn every_interleaving_ends_with_the_newest_and_never_goes_back() {
    let setups = setups(&[None]);
    let every_order = setups[3];
    assert!(every_order.backups == [3, 2] && every_order.pointer_exists);
    // Five calls each are 252 orders and the last three of them 20; a lost race adds calls.
    let ended =
        explore(&every_order, &READS_BEGUN, &mut |schedule, race| check_end(&every_order, schedule, race));
    assert!(ended >= 252);
    for setup in setups {
        let ended = explore(&setup, &READS_MADE, &mut |schedule, race| check_end(&setup, schedule, race));
        assert!(ended >= 20, "only {ended} schedules were explored");
    }
}

fn check_end(setup: &Setup, schedule: &[usize], race: Race) {
    if !race.publishers.iter().all(Publisher::is_done) {
        return;
    }
    let newest = newest(setup);
    assert_eq!(named(race.catalog.store()), Some(id(newest)), "{schedule:?}");
    let outcomes = race.publishers.map(Publisher::outcome);
    for (outcome, backup) in outcomes.into_iter().zip(setup.backups) {
        // Duplicates write the same bytes, so that either may take the write for its own.
        let expected = match outcome {
            Outcome::Published => true,
            Outcome::AlreadyPublished => setup.backups[0] == setup.backups[1],
            Outcome::Superseded { by } => backup < newest && by == id(newest),
            Outcome::Partial => false,
        };
        assert!(expected, "{schedule:?}: backup {backup} ended as {outcome:?}");
    }
}

#[test]
fn a_crash_at_any_point_is_finished_by_a_retry() {
    for setup in setups(&[None]) {
        explore(&setup, &READS_MADE, &mut |schedule, race| {
            // Both are gone here; each is then run again, in both orders.
            drop(race);
            for order in [[0, 1], [1, 0]] {
                let race = Race::new(&setup, schedule);
                for who in order {
                    race.again(who);
                }
                assert_eq!(named(race.catalog.store()), Some(id(newest(&setup))), "{schedule:?} {order:?}");
            }
            // One is gone, the other goes on, then comes the retry.
            for gone in [0, 1] {
                let mut race = Race::new(&setup, schedule);
                if !race.publishers[1 - gone].is_done() {
                    race.publishers[1 - gone].run();
                }
                check_forward(race.catalog.store());
                race.again(gone);
                assert_eq!(named(race.catalog.store()), Some(id(newest(&setup))), "{schedule:?} -{gone}");
            }
        });
    }
}

#[test]
fn lost_replies_of_the_pointer_change_nothing() {
    let faults = [Fault::ReplyLost, Fault::Retried, Fault::Conflict, Fault::Unavailable];
    let faults = faults.map(|fault| Some((Operation::Put, 0, fault)));
    for setup in setups(&faults) {
        let ended = explore(&setup, &READS_MADE, &mut |schedule, race| {
            if !race.publishers.iter().all(Publisher::is_done) {
                return;
            }
            for who in [0, 1] {
                if race.publishers[who].result.as_ref().is_some_and(Result::is_err) {
                    race.again(who);
                }
            }
            assert_eq!(named(race.catalog.store()), Some(id(newest(&setup))), "{schedule:?}");
        });
        assert!(ended >= 10, "only {ended} schedules were explored");
    }
}
