//! Bad parameters are refused before anything is made, with a text that says what is wrong.

use std::collections::BTreeMap;

use fancy_regex::Regex;
use protocol::key::Prefix;
use serde_json::Value;

use super::template::template;

/// Values that a parameter takes, and values that it does not.
const VALUES: &[(&str, &[&str], &[&str])] = &[
    (
        "PrivateIp",
        &["10.0.2.15", "172.31.255.1", "192.168.0.200"],
        &["", "10.0.2", "10.0.2.256", "10.0.2.15/24", "::1", "10.0.2.15 "],
    ),
    (
        "RouteTableIds",
        &["", "rtb-0123456789abcdef0", "rtb-12345678,rtb-0123456789abcdef0"],
        &["rtb-", "rtb-12345678, rtb-12345678", "vpc-12345678"],
    ),
    (
        "InstanceType",
        &[
            "c8gd.2xlarge",
            "c8gd.xlarge",
            "c8gd.48xlarge",
            "c8gd.metal-24xl",
            "c7gd.large",
            "m8gd.16xlarge",
            "r8gd.4xlarge",
            "i8g.2xlarge",
            "i8ge.6xlarge",
            "im4gn.large",
        ],
        // No local disk; not arm64; both; not a type.
        &[
            "c8g.2xlarge",
            "m7g.large",
            "t4g.small",
            "c6id.2xlarge",
            "c5d.large",
            "i7ie.xlarge",
            "i4i.large",
            "m5.large",
            "c8gd",
            "c8gd.huge",
            "",
        ],
    ),
    ("StagingInstanceType", &["c8gd.2xlarge"], &["c8g.2xlarge", "c6id.2xlarge"]),
    (
        "QdrantImage",
        &["qdrant/qdrant:v1.18.3-unprivileged", "registry/team/qdrant:v1.19.0"],
        &[
            "qdrant/qdrant",
            "qdrant/qdrant:latest",
            "qdrant/qdrant:v1.18",
            "qdrant/qdrant:1.18.3",
            "qdrant/qdrant@sha256:abc",
            "Qdrant:v1.18.3",
            "",
        ],
    ),
    ("QdrantMemory", &["", "24GiB", "512MiB"], &["24", "24GB", "0GiB", "24 GiB", "many"]),
    ("ProtectLatency", &["", "50ms", "2s"], &["50", "0ms", "50 ms", "1m"]),
    ("BandwidthLimit", &["", "200MB/s", "1GiB/s"], &["200", "200MB", "0MB/s", "200Mbps"]),
    (
        "Prefix",
        &["qdrant/backups", "archives", "team-a/qdrant.v1/backups_2", "qdrant/proofs2", "qdrant2"],
        &[
            "",
            "/archives",
            "archives/",
            "a//b",
            "..",
            "../x",
            "a/../b",
            "a/.",
            "a b",
            "ä",
            "qdrant/manifests",
            "qdrant/manifests/x",
            "qdrant/proofs",
            "qdrant/drills/x",
            "qdrant/indexing",
        ],
    ),
    (
        "SuccessMarkerKey",
        &["qdrant/indexing/_SUCCESS.json", "ray/_SUCCESS", "marker.json"],
        &[
            "",
            "/marker",
            "qdrant/manifests/x.json",
            "qdrant/proofs/x",
            "qdrant/drills/x",
            "qdrant/backups/x",
            "latest_qdrant_backup.manifest.json",
            "a//b",
            "a b",
        ],
    ),
    (
        "ReplicaBucketArn",
        &["", "arn:aws:s3:::copy-of-backups"],
        &["copy-of-backups", "arn:aws:s3:::a", "arn:aws:s3:::Upper/x"],
    ),
    (
        "ReplicaKeyArn",
        &["", "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"],
        &["alias/copy", "arn:aws:kms:eu-west-1:111122223333:alias/copy", "1234abcd"],
    ),
    (
        "ScheduleTimezone",
        &["UTC", "Asia/Kolkata", "America/Argentina/Buenos_Aires"],
        &["", "+05:30", "Asia Kolkata"],
    ),
    (
        "AlarmEmail",
        &["", "on-call@example.com"],
        &["on-call", "a@b", "a b@example.com", "a@example.com,b@example.com"],
    ),
    (
        "RayIndexingRoleArn",
        &["", "arn:aws:iam::111122223333:role/ray-indexing"],
        &[
            "ray-indexing",
            "arn:aws:iam::111122223333:user/ray",
            "arn:aws:iam::1111:role/ray",
            "arn:aws:iam::111122223333:role/path/ray",
            "arn:aws:iam::111122223333:role/*",
        ],
    ),
    (
        "RayInferenceRoleArn",
        &["", "arn:aws:iam::111122223333:role/ray-inference"],
        &["*", "arn:aws:iam::111122223333:role/*"],
    ),
    (
        "OperatorPrincipalArn",
        &[
            "",
            "arn:aws:iam::111122223333:root",
            "arn:aws:iam::111122223333:role/on-call",
            "arn:aws:iam::111122223333:user/jo",
        ],
        &["*", "111122223333", "arn:aws:iam::111122223333:role/*", "arn:aws:s3:::x"],
    ),
    ("ArtifactBucket", &["name-artifacts-111122223333-eu-west-1"], &["", "s3://x", "Upper"]),
    (
        "WorkerSha256",
        &["0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"],
        &["", "0123", "latest"],
    ),
    ("BootFilesSha256", &["0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"], &["", "0123"]),
    (
        "QdrantImageSha256",
        &["0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"],
        &["", "sha256:0123"],
    ),
];

fn parameters() -> BTreeMap<String, Value> {
    serde_json::from_value(template("infra/template.yaml")["Parameters"].take()).unwrap()
}

fn pattern(parameter: &Value) -> Option<Regex> {
    Some(Regex::new(parameter["AllowedPattern"].as_str()?).unwrap())
}

#[test]
fn patterns_take_what_is_right_and_refuse_what_is_wrong() {
    let parameters = parameters();
    for (name, good, bad) in VALUES {
        let pattern = pattern(&parameters[*name]).unwrap_or_else(|| panic!("{name} has no pattern"));
        for value in *good {
            assert!(pattern.is_match(value).unwrap(), "{name} refuses `{value}`");
        }
        for value in *bad {
            assert!(!pattern.is_match(value).unwrap(), "{name} takes `{value}`");
        }
    }
    let tested: Vec<&str> = VALUES.iter().map(|(name, ..)| *name).collect();
    for (name, parameter) in &parameters {
        if parameter["AllowedPattern"].is_string() {
            assert!(tested.contains(&name.as_str()), "{name} has a pattern that nobody tests");
            let says = parameter["ConstraintDescription"]
                .as_str()
                .unwrap_or_else(|| panic!("{name} does not say what is wrong"));
            assert!(says.starts_with(&format!("{name} must")), "{name}: {says}");
            if let Some(default) = parameter["Default"].as_str() {
                assert!(
                    pattern(parameter).unwrap().is_match(default).unwrap(),
                    "{name} refuses its own default `{default}`"
                );
            }
        }
    }
}

/// CloudFormation refuses a prefix that the programs would refuse, and no other.
#[test]
fn a_prefix_is_refused_as_the_programs_refuse_it() {
    let pattern = pattern(&parameters()["Prefix"]).unwrap();
    let (_, good, bad) = VALUES.iter().find(|(name, ..)| *name == "Prefix").unwrap();
    let parts = [
        "qdrant",
        "manifests",
        "proofs",
        "drills",
        "indexing",
        ".",
        "..",
        "a",
        "x.y",
        "",
        "manifestsx",
        "...",
        ".a",
    ];
    let pairs = parts.iter().flat_map(|a| parts.iter().map(move |b| format!("{a}/{b}")));
    let triples = parts.iter().flat_map(|a| parts.iter().map(move |b| format!("qdrant/{a}/{b}")));
    let all: Vec<String> =
        good.iter().chain(bad.iter()).map(|text| (*text).to_owned()).chain(pairs).chain(triples).collect();
    for text in all {
        assert_eq!(pattern.is_match(&text).unwrap(), text.parse::<Prefix>().is_ok(), "`{text}`");
    }
}

#[test]
fn every_parameter_is_described_grouped_and_used() {
    let template = template("infra/template.yaml");
    let mut grouped: Vec<&str> = template["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|group| group["Parameters"].as_array().unwrap())
        .map(|name| name.as_str().unwrap())
        .collect();
    grouped.sort_unstable();
    let parameters = parameters();
    assert_eq!(grouped, parameters.keys().map(String::as_str).collect::<Vec<_>>());
    let used: Vec<&Value> = super::template::calls(&template["Resources"], "Ref");
    for (name, parameter) in &parameters {
        assert!(
            parameter["Description"].as_str().is_some_and(|text| text.ends_with('.')),
            "{name} is not described"
        );
        assert!(used.contains(&&Value::from(name.as_str())), "{name} is used by nothing");
    }
}

/// The parameters of a deployment: the defaults, and what a person gave.
fn given(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let defaults = parameters()
        .into_iter()
        .map(|(name, parameter)| (name, parameter.get("Default").map(text).unwrap_or_default()));
    let mut given: BTreeMap<String, String> = defaults.collect();
    for (name, value) in
        [("RouteTableIds", "rtb-0123456789abcdef0"), ("VpcId", "vpc-1"), ("AvailabilityZone", "zone-1")]
    {
        given.insert(name.to_owned(), value.to_owned());
    }
    for (name, value) in pairs {
        assert!(
            given.insert((*name).to_owned(), (*value).to_owned()).is_some(),
            "there is no parameter {name}"
        );
    }
    given
}

/// What CloudFormation would say to these parameters, in an EC2 where subnet `subnet-1` is in `vpc-1` and zone `zone-1`.
fn refusals(given: &BTreeMap<String, String>) -> Vec<String> {
    let rules = template("infra/template.yaml")["Rules"].take();
    let applies = |rule: &Value| rule.get("RuleCondition").is_none_or(|condition| holds(condition, given));
    let assertions = rules
        .as_object()
        .unwrap()
        .values()
        .filter(|rule| applies(rule))
        .flat_map(|rule| rule["Assertions"].as_array().unwrap());
    assertions
        .filter(|assertion| !holds(&assertion["Assert"], given))
        .map(|assertion| assertion["AssertDescription"].as_str().unwrap().to_owned())
        .collect()
}

fn holds(condition: &Value, given: &BTreeMap<String, String>) -> bool {
    let (function, arguments) = condition.as_object().unwrap().iter().next().unwrap();
    let arguments = arguments.as_array().unwrap();
    let text = |value: &Value| {
        if let Some(attribute) = value["Fn::ValueOf"][1].as_str() {
            return if attribute == "VpcId" { "vpc-1" } else { "zone-1" }.to_owned();
        }
        let parameter = || {
            given[value["Ref"].as_str().unwrap_or_else(|| panic!("{value} is neither text nor a parameter"))]
                .clone()
        };
        value.as_str().map_or_else(parameter, str::to_owned)
    };
    match function.as_str() {
        "Fn::Equals" => text(&arguments[0]) == text(&arguments[1]),
        "Fn::Not" => !holds(&arguments[0], given),
        "Fn::And" => arguments.iter().all(|condition| holds(condition, given)),
        "Fn::Or" => arguments.iter().any(|condition| holds(condition, given)),
        "Fn::Contains" => {
            arguments[0].as_array().unwrap().iter().any(|value| text(value) == text(&arguments[1]))
        }
        other => panic!("the rules use `{other}`, which this test does not know"),
    }
}

#[test]
fn rules_refuse_what_one_parameter_alone_cannot_say() {
    assert_eq!(refusals(&given(&[])), [] as [&str; 0]);
    let role = "arn:aws:iam::111122223333:role/ray";
    let bucket = ("ReplicaBucketArn", "arn:aws:s3:::copy");
    let key = ("ReplicaKeyArn", "arn:aws:kms:eu-west-1:111122223333:key/1");
    let cases: &[(&[(&str, &str)], &str)] = &[
        (&[("VpcId", "vpc-2")], "SubnetId must be a subnet of VpcId"),
        (&[("AvailabilityZone", "zone-2")], "AvailabilityZone must be that of SubnetId"),
        (&[("RouteTableIds", "")], "S3Endpoint=create needs RouteTableIds"),
        (&[("BackupSchedule", "weekly"), ("NoncurrentDays", "7")], "NoncurrentDays must be 14 or more"),
        (&[bucket], "ReplicaBucketArn and ReplicaKeyArn"),
        (&[key], "ReplicaBucketArn and ReplicaKeyArn"),
        (&[("RayIndexingRoleArn", role), ("RayInferenceRoleArn", role)], "must differ"),
    ];
    for (pairs, says) in cases {
        let refused = refusals(&given(pairs));
        assert!(refused.len() == 1 && refused[0].contains(says), "{pairs:?}: {refused:?}");
    }
    let accepted: &[&[(&str, &str)]] = &[
        &[("RouteTableIds", ""), ("S3Endpoint", "existing")],
        &[("BackupSchedule", "weekly"), ("NoncurrentDays", "14")],
        &[bucket, key],
        &[("RayIndexingRoleArn", role)],
        &[("RayInferenceRoleArn", role)],
    ];
    for pairs in accepted {
        assert_eq!(refusals(&given(pairs)), [] as [&str; 0], "{pairs:?}");
    }
}

#[test]
fn a_lock_never_outlives_what_lifecycle_removes() {
    let parameters = parameters();
    let days = |name: &str| -> Vec<u64> {
        parameters[name]["AllowedValues"]
            .as_array()
            .unwrap()
            .iter()
            .map(|value| value.as_u64().unwrap())
            .collect()
    };
    let mut refused = 0;
    for mode in ["NONE", "GOVERNANCE", "COMPLIANCE"] {
        for kept in days("NoncurrentDays") {
            for locked in days("ObjectLockDays") {
                let (kept_text, locked_text) = (kept.to_string(), locked.to_string());
                let pairs = [
                    ("ObjectLockMode", mode),
                    ("NoncurrentDays", kept_text.as_str()),
                    ("ObjectLockDays", locked_text.as_str()),
                ];
                let problems = refusals(&given(&pairs));
                let bad = mode != "NONE" && locked > kept;
                assert_eq!(!problems.is_empty(), bad, "{pairs:?}: {problems:?}");
                refused += usize::from(bad);
            }
        }
    }
    assert!(refused > 10, "only {refused} were refused");
}
