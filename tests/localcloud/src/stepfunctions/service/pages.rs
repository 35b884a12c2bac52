//! The calls that answer in pages.

use super::error::ApiError;
use super::store::{Execution, StateMachine, Status};
use super::{StepFunctions, limits};
use crate::stepfunctions::machine::HistoryEvent;

/// Which page is asked for.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// How many entries at most; `None` and 0 are AWS's default, 100.
    pub max_results: Option<u32>,
    /// What the page before gave.
    pub next_token: Option<String>,
}

/// A page of `GetExecutionHistory`.
#[derive(Debug, Clone)]
pub struct HistoryPage {
    /// The events.
    pub events: Vec<HistoryEvent>,
    /// For the next page, if there is one.
    pub next_token: Option<String>,
}

/// A page of `ListExecutions`.
#[derive(Debug, Clone)]
pub struct ExecutionPage {
    /// The executions, newest first.
    pub executions: Vec<Execution>,
    /// For the next page, if there is one.
    pub next_token: Option<String>,
}

/// A page of `ListStateMachines`.
#[derive(Debug, Clone)]
pub struct StateMachinePage {
    /// The machines, by name.
    pub machines: Vec<StateMachine>,
    /// For the next page, if there is one.
    pub next_token: Option<String>,
}

impl StepFunctions {
    /// `GetExecutionHistory`.
    ///
    /// # Errors
    /// When there is no such execution or no such page.
    pub fn get_execution_history(
        &self,
        arn: &str,
        reverse: bool,
        page: &Page,
    ) -> Result<HistoryPage, ApiError> {
        let mut events = self.history(arn)?;
        if reverse {
            events.reverse();
        }
        let (events, next_token) = cut(events, page)?;
        Ok(HistoryPage { events, next_token })
    }

    /// `ListExecutions`: those of a machine, or only those in one status.
    ///
    /// # Errors
    /// When there is no such machine or no such page.
    pub fn list_executions(
        &self,
        state_machine_arn: &str,
        status: Option<Status>,
        page: &Page,
    ) -> Result<ExecutionPage, ApiError> {
        self.describe_state_machine(state_machine_arn)?;
        let executions = self.driver.with_store(|store| {
            let newest_first = store.started.iter().rev().filter_map(|arn| store.runs.get(arn));
            newest_first
                .map(|run| &run.shown)
                .filter(|shown| shown.state_machine_arn == state_machine_arn)
                .filter(|shown| status.is_none_or(|status| shown.status == status))
                .cloned()
                .collect()
        });
        let (executions, next_token) = cut(executions, page)?;
        Ok(ExecutionPage { executions, next_token })
    }

    /// `ListStateMachines`.
    ///
    /// # Errors
    /// When there is no such page.
    pub fn list_state_machines(&self, page: &Page) -> Result<StateMachinePage, ApiError> {
        let machines = self.driver.with_store(|store| store.machines.values().cloned().collect());
        let (machines, next_token) = cut(machines, page)?;
        Ok(StateMachinePage { machines, next_token })
    }
}

/// Cuts a page out. Its token is where the next one begins.
fn cut<T>(all: Vec<T>, page: &Page) -> Result<(Vec<T>, Option<String>), ApiError> {
    let size = limits::page_size(page.max_results)?;
    let start = match &page.next_token {
        None => 0,
        Some(token) => {
            token.parse().ok().filter(|start| *start < all.len()).ok_or_else(ApiError::invalid_token)?
        }
    };
    let end = start.saturating_add(size);
    let next_token = (end < all.len()).then(|| end.to_string());
    Ok((all.into_iter().skip(start).take(size).collect(), next_token))
}
