//! The workflow hurt at every call: a fixed part of what `localcloud simulate` explores, and worlds that are built wrong, to show that the rules notice.

use localcloud::simulation::{Mutation, Scenario, explore_singles, first_violation};

#[test]
fn one_fault_at_any_call_of_a_backup_breaks_nothing_and_costs_nothing() {
    let exploration = explore_singles(Scenario::Console, 1).unwrap();
    assert!(exploration.runs > 200, "{exploration}");
    assert_eq!(exploration.violations, [""; 0], "{exploration}");
}

#[test]
fn two_executions_at_once_may_be_hurt_too() {
    for scenario in [Scenario::MarkerTwice, Scenario::TwoAtOnce] {
        let exploration = explore_singles(scenario, 5).unwrap();
        assert!(exploration.runs > 50, "{exploration}");
        assert_eq!(exploration.violations, [""; 0], "{exploration}");
    }
}

#[test]
fn the_rules_notice_a_store_that_takes_every_write() {
    let mutation = Mutation { store_ignores_conditions: true, ..Mutation::default() };
    let found = first_violation(Scenario::Console, mutation).unwrap().unwrap();
    assert!(found.contains("was written 2 times"), "{found}");
}

#[test]
fn the_rules_notice_a_key_that_two_hosts_share() {
    let mutation = Mutation { one_key: true, ..Mutation::default() };
    let found = first_violation(Scenario::Console, mutation).unwrap().unwrap();
    assert!(found.contains("was begun on two hosts"), "{found}");
}

#[test]
fn the_rules_notice_a_worker_that_publishes() {
    let mutation = Mutation { worker_publishes: true, ..Mutation::default() };
    let found = first_violation(Scenario::Console, mutation).unwrap().unwrap();
    assert!(found.contains("only the publisher writes"), "{found}");
}
