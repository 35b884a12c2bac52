//! Alarms and dashboard look at what is published: a misspelt metric would be silent for ever.

use std::collections::BTreeSet;

use functions::Function;
use protocol::FailureKind;
use serde_json::Value;

use super::template::{resources, stack};
use crate::{read, runbook::rows};

const ALARM: &str = "AWS::CloudWatch::Alarm";

/// The metrics that an alarm looks at.
fn metrics(alarm: &Value) -> impl Iterator<Item = &Value> {
    let alone = (!alarm["MetricName"].is_null()).then_some(alarm);
    let several =
        alarm["Metrics"].as_array().into_iter().flatten().map(|metric| &metric["MetricStat"]["Metric"]);
    alone.into_iter().chain(several.filter(|metric| !metric.is_null()))
}

#[test]
fn alarms_look_at_metrics_that_exist() {
    let page = read("docs/operations/metrics.md");
    let named = |row: &Vec<String>| Some(row.first()?.split('`').nth(1)?.to_owned());
    let known: BTreeSet<String> = rows(&page).iter().filter_map(named).collect();
    let stack = stack("observability");
    let (mut ours, mut kinds) = (0, BTreeSet::new());
    for (id, alarm) in resources(&stack, ALARM) {
        for metric in metrics(&alarm["Properties"]) {
            let namespace = metric["Namespace"].to_string();
            if namespace.contains("AWS/") {
                continue;
            }
            ours += 1;
            let name = metric["MetricName"].as_str().unwrap();
            assert!(known.contains(name), "{id}: {name} is not on the page of metrics");
            assert!(namespace.contains("QdrantBackup/${Name}"), "{id}: {namespace}");
            for dimension in metric["Dimensions"].as_array().into_iter().flatten() {
                let value = dimension["Value"].as_str().unwrap();
                let exists = match dimension["Name"].as_str().unwrap() {
                    "FailureKind" => value.parse::<FailureKind>().is_ok_and(|kind| {
                        kinds.insert(kind);
                        true
                    }),
                    "Function" => Function::ALL.iter().any(|function| function.name() == value),
                    other => panic!("{id}: no metric has the dimension {other}"),
                };
                assert!(exists, "{id}: nothing is called {value}");
            }
        }
    }
    assert_eq!(kinds, BTreeSet::from(functions::ADDED_UP), "what is added up has to be published as 0");
    assert!(ours >= 14, "only {ours} metrics of ours are looked at");
}

#[test]
fn every_alarm_says_what_silence_means_what_to_do_and_when_it_is_over() {
    let stack = stack("observability");
    let page = read("docs/operations/metrics.md");
    let dashboard = stack["Resources"]["Dashboard"]["Properties"]["DashboardBody"].to_string();
    let topic = serde_json::json!([{ "Ref": "Topic" }]);
    for (id, alarm) in resources(&stack, ALARM) {
        let properties = &alarm["Properties"];
        for needed in ["TreatMissingData", "AlarmDescription"] {
            assert!(properties[needed].is_string(), "{id} has no {needed}");
        }
        assert_eq!((&properties["AlarmActions"], &properties["OKActions"]), (&topic, &topic), "{id}");
        let name = properties["AlarmName"]["Fn::Sub"].as_str().unwrap().trim_start_matches("${Name}-");
        assert!(page.contains(&format!("`{name}`")), "docs/operations/metrics.md does not name {name}");
        assert!(dashboard.contains(&format!("${{Alarm}}-{name}")), "the dashboard does not show {name}");
    }
}

#[test]
fn what_says_that_data_is_not_safe_is_made_of_alarms_that_there_are() {
    let stack = stack("observability");
    let rule = stack["Resources"]["DataIsNotSafe"]["Properties"]["AlarmRule"].to_string();
    let parts: BTreeSet<&str> =
        rule.split("${").skip(1).filter_map(|after| after.split('}').next()).collect();
    let expected = ["ChecksumMismatch", "DrillFailed", "DrillOverdue", "HostDegraded", "ManifestNotUpdated"];
    assert_eq!(parts, BTreeSet::from(expected));
    let alarms: BTreeSet<&str> = resources(&stack, ALARM).into_iter().map(|(id, _)| id).collect();
    assert!(parts.is_subset(&alarms), "{parts:?}");
}
