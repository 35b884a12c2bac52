//! Which runs are made, and what is told of them.

#![expect(clippy::print_stderr, clippy::print_stdout, reason = "a person waits for the result")]

use std::{
    fmt,
    path::{Path, PathBuf},
    time::Instant,
};

use super::{
    fault::{Effect, Plan},
    run::{Mutation, Outcome, Scenario, run},
};
use crate::{
    stepfunctions::{Draws, Status},
    workflow::{self, Machine},
};

/// How much is explored.
#[derive(Clone, Debug)]
pub struct Options {
    /// Seeded pairs of faults, over all scenarios.
    pub pairs: usize,
    /// Where the pairs are drawn from.
    pub seed: u64,
    /// Only this run, told call by call.
    pub only: Option<(Scenario, Plan)>,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exploration {
    /// Runs made.
    pub runs: usize,
    /// Each violation, with what repeats it.
    pub violations: Vec<String>,
}

impl fmt::Display for Exploration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "explored {} runs, {} violations", self.runs, self.violations.len())
    }
}

/// Explores, tells violations as they are found, and ends with one line that counts.
pub fn explore(options: &Options) -> anyhow::Result<Exploration> {
    let explorer = Explorer::new()?;
    if let Some((scenario, plan)) = &options.only {
        let outcome = explorer.run(*scenario, plan.clone())?;
        tell(&outcome);
        let mut exploration = Exploration::default();
        exploration.add(*scenario, plan, &outcome);
        println!("{exploration}");
        return Ok(exploration);
    }
    let begin = Instant::now();
    let mut exploration = Exploration::default();
    for scenario in Scenario::ALL {
        explorer.singles(scenario, 1, &mut exploration)?;
        eprintln!("{}: {exploration} ({:.0} s)", scenario.name(), begin.elapsed().as_secs_f64());
    }
    let mut draws = Draws::seeded(options.seed);
    let lengths: Vec<usize> = Scenario::ALL
        .into_iter()
        .map(|scenario| Ok(explorer.run(scenario, Plan::default())?.calls.len()))
        .collect::<anyhow::Result<_>>()?;
    for number in 0..options.pairs {
        let which = number % Scenario::ALL.len();
        // A second fault may strike a call that only the first one has caused.
        let reach = lengths[which] * 3 / 2;
        let mut fault = || (draws.below(reach) + 1, Effect::ALL[draws.below(Effect::ALL.len())]);
        let mut pair = vec![fault(), fault()];
        pair.sort_unstable();
        pair.dedup_by_key(|(call, _)| *call);
        let plan = Plan(pair);
        let outcome = explorer.run(Scenario::ALL[which], plan.clone())?;
        exploration.add(Scenario::ALL[which], &plan, &outcome);
    }
    eprintln!("pairs of seed {}: {exploration} ({:.0} s)", options.seed, begin.elapsed().as_secs_f64());
    println!("{exploration}");
    Ok(exploration)
}

/// Strikes every `step`-th call of a scenario by every effect.
pub fn explore_singles(scenario: Scenario, step: usize) -> anyhow::Result<Exploration> {
    let mut exploration = Exploration::default();
    Explorer::new()?.singles(scenario, step, &mut exploration)?;
    Ok(exploration)
}

/// Strikes every call of a scenario by every effect, in a world that is built wrong; answers with the first violation.
pub fn first_violation(scenario: Scenario, mutation: Mutation) -> anyhow::Result<Option<String>> {
    let Explorer { definition, folder } = Explorer::new()?;
    let calls = run(scenario, Plan::default(), mutation, &folder, &definition)?.calls.len();
    for call in 1..=calls {
        for effect in Effect::ALL {
            let plan = Plan(vec![(call, effect)]);
            let outcome = run(scenario, plan.clone(), mutation, &folder, &definition)?;
            if let Some(violation) = outcome.violations.first() {
                return Ok(Some(format!("{plan}: {violation}")));
            }
        }
    }
    Ok(None)
}

struct Explorer {
    definition: String,
    folder: PathBuf,
}

impl Explorer {
    fn new() -> anyhow::Result<Self> {
        // Memory, where the system has a disk of it.
        let memory = Path::new("/dev/shm");
        let folder = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        // Here functions go by their names.
        let definition = workflow::definition(Machine::Backup, |function| function.name().to_owned())?;
        Ok(Self { definition, folder })
    }

    fn run(&self, scenario: Scenario, plan: Plan) -> anyhow::Result<Outcome> {
        run(scenario, plan, Mutation::default(), &self.folder, &self.definition)
    }

    fn singles(&self, scenario: Scenario, step: usize, exploration: &mut Exploration) -> anyhow::Result<()> {
        let undisturbed = self.run(scenario, Plan::default())?;
        exploration.add(scenario, &Plan::default(), &undisturbed);
        if undisturbed.ends.iter().any(|(status, _)| *status != Status::Succeeded) {
            let ends = format!("{} none: undisturbed it ends with {:?}", scenario.name(), undisturbed.ends);
            exploration.violated(ends);
        }
        for call in (1..=undisturbed.calls.len()).step_by(step) {
            for effect in Effect::ALL {
                let plan = Plan(vec![(call, effect)]);
                let outcome = self.run(scenario, plan.clone())?;
                // Whatever it is, one fault must not cost the backup, nor make anybody look.
                let good = |(status, _): &(Status, _)| *status == Status::Succeeded;
                if outcome.published == 0 || !outcome.ends.iter().all(good) {
                    let (actor, what) = &undisturbed.calls[call - 1];
                    exploration.violated(format!(
                        "{} {plan}: one fault has cost the backup: {:?} ({actor}: {what})",
                        scenario.name(),
                        outcome.ends
                    ));
                }
                exploration.add(scenario, &plan, &outcome);
            }
        }
        Ok(())
    }
}

impl Exploration {
    fn add(&mut self, scenario: Scenario, plan: &Plan, outcome: &Outcome) {
        self.runs += 1;
        for violation in &outcome.violations {
            self.violated(format!("{} {plan}: {violation}", scenario.name()));
        }
    }

    fn violated(&mut self, line: String) {
        eprintln!("violation: {line}");
        self.violations.push(line);
    }
}

fn tell(outcome: &Outcome) {
    for (number, (actor, what)) in outcome.calls.iter().enumerate() {
        eprintln!("{:4}  {actor:<22} {what}", number + 1);
    }
    for (status, error) in &outcome.ends {
        eprintln!("{status} {}", error.as_deref().unwrap_or_default());
    }
    for violation in &outcome.violations {
        eprintln!("violation: {violation}");
    }
}
