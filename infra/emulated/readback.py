"""What was deployed, read back by the services' own calls. Each check says which emulators keep what it looks at: what neither keeps is in README.md."""
import ast
import base64
import email
import json

import deployment

NAME = deployment.NAME
CHECKS = []


def on(*emulators):
    def take(check):
        CHECKS.append((emulators, check))
        return check
    return take


class Seen:
    """The answers, and what is wrong with them."""

    def __init__(self, cloud):
        self.cloud, self.wrong, self.count = cloud, [], 0
        self.account = cloud.client("sts").get_caller_identity()["Account"]
        self.bucket = f"{NAME}-backups-{self.account}-{deployment.REGION}"

    def call(self, service, operation, **arguments):
        return getattr(self.cloud.client(service), operation)(**arguments)

    def arn(self, service, rest):
        return f"arn:aws:{service}:{deployment.REGION}:{self.account}:{rest}"

    def is_(self, what, found, expected):
        self.count += 1
        if found != expected:
            self.wrong.append(f"{what} is {found!r}, and not {expected!r}")


def read_back(cloud, kept):
    seen, names = Seen(cloud), []
    for emulators, check in CHECKS:
        if cloud.emulator in emulators:
            check(seen, kept)
            names.append(check.__doc__)
    if seen.wrong:
        raise SystemExit(f"what was deployed to {cloud.emulator} is not what was meant:\n  " + "\n  ".join(seen.wrong))
    print(f"{seen.count} values read back from {cloud.emulator}: " + "; ".join(names))


@on("ministack")
def bucket(seen, _kept):
    """the bucket is versioned, private, without ACLs, tells EventBridge, and has its policy"""
    seen.is_("versioning", seen.call("s3", "get_bucket_versioning", Bucket=seen.bucket).get("Status"), "Enabled")
    blocked = seen.call("s3", "get_public_access_block", Bucket=seen.bucket)["PublicAccessBlockConfiguration"]
    seen.is_("public access block", sorted(blocked.values()), [True] * 4)
    owner = seen.call("s3", "get_bucket_ownership_controls", Bucket=seen.bucket)["OwnershipControls"]["Rules"][0]["ObjectOwnership"]
    seen.is_("ownership", owner, "BucketOwnerEnforced")
    seen.is_("events", "EventBridgeConfiguration" in seen.call("s3", "get_bucket_notification_configuration", Bucket=seen.bucket), True)
    policy = json.loads(seen.call("s3", "get_bucket_policy", Bucket=seen.bucket)["Policy"])
    tls = [one for one in policy["Statement"] if one["Effect"] == "Deny" and one.get("Condition") == {"Bool": {"aws:SecureTransport": "false"}}]
    seen.is_("denials without TLS", [one["Principal"] for one in tls], ["*"])


@on("moto")
def encryption(seen, _kept):
    """the bucket is encrypted with its own key, which is rotated"""
    (rule,) = seen.call("s3", "get_bucket_encryption", Bucket=seen.bucket)["ServerSideEncryptionConfiguration"]["Rules"]
    seen.is_("encryption", rule["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"], "aws:kms")
    key = rule["ApplyServerSideEncryptionByDefault"]["KMSMasterKeyID"]
    seen.is_("rotation", seen.call("kms", "get_key_rotation_status", KeyId=key)["KeyRotationEnabled"], True)


@on("moto")
def interface(seen, _kept):
    """one interface has the fixed address, in the subnet's zone"""
    found = seen.call("ec2", "describe_network_interfaces", Filters=[{"Name": "private-ip-address", "Values": ["10.0.2.15"]}])["NetworkInterfaces"]
    seen.is_("interfaces with the address", [one["AvailabilityZone"] for one in found], [f"{deployment.REGION}b"])


@on("moto")
def security_groups(seen, _kept):
    """Qdrant is open to the two clusters' groups, by 6333 and 6334, and to no range of addresses; staging hosts to nobody"""
    groups = {one["GroupName"]: one for one in seen.call("ec2", "describe_security_groups")["SecurityGroups"]}
    clusters = {groups[name]["GroupId"] for name in ["ray-indexing", "ray-inference"]}
    host = groups[f"{NAME}-host"]["IpPermissions"]
    for port in [6333, 6334]:
        sources = {pair["GroupId"] for rule in host if (rule["FromPort"], rule["ToPort"]) == (port, port) for pair in rule["UserIdGroupPairs"]}
        seen.is_(f"who reaches {port}", sources, clusters)
    seen.is_("ports", {rule["FromPort"] for rule in host}, {6333, 6334})
    for name in [f"{NAME}-host", f"{NAME}-staging"]:
        ranges = [one for rule in groups[name]["IpPermissions"] for one in rule["IpRanges"] + rule["Ipv6Ranges"]]
        seen.is_(f"ranges that reach {name}", ranges, [])
    seen.is_("who reaches staging hosts", groups[f"{NAME}-staging"]["IpPermissions"], [])


@on("moto", "ministack")
def endpoints(seen, _kept):
    """hosts have endpoints for what they call"""
    found = {(one["ServiceName"].rsplit(".", 1)[1], one["VpcEndpointType"]) for one in seen.call("ec2", "describe_vpc_endpoints")["VpcEndpoints"]}
    for service, kind in [("s3", "Gateway"), *((name, "Interface") for name in ["ssm", "ssmmessages", "states", "secretsmanager", "autoscaling", "monitoring"])]:
        seen.is_(f"an endpoint for {service}", (service, kind) in found, True)


def script_of(user_data):
    """The shell script of user data, which may stand beside other parts in a MIME message."""
    if user_data.startswith("#!"):
        return user_data
    scripts = [part.get_payload() for part in email.message_from_string(user_data).walk() if part.get_content_type() == "text/x-shellscript"]
    if len(scripts) != 1 or not scripts[0].startswith("#!"):
        raise SystemExit(f"user data is neither a script nor a message with one:\n{user_data[:500]}")
    return scripts[0]


@on("moto")
def launch_templates(seen, kept):
    """the host has the interface as its first, keeps it, and starts from user data that fits; staging hosts end when they are turned off"""
    (group,) = seen.call("autoscaling", "describe_auto_scaling_groups", AutoScalingGroupNames=[f"{NAME}-host"])["AutoScalingGroups"]
    of_group, found = group["LaunchTemplate"]["LaunchTemplateId"], seen.call("ec2", "describe_launch_templates")["LaunchTemplates"]
    seen.is_("launch templates", len(found), 2)
    for template in found:
        kind = "production" if template["LaunchTemplateId"] == of_group else "staging"
        (version,) = seen.call("ec2", "describe_launch_template_versions", LaunchTemplateId=template["LaunchTemplateId"])["LaunchTemplateVersions"]
        data = version["LaunchTemplateData"]
        (one,) = data["NetworkInterfaces"]
        if kind == "production":
            place = seen.call("ec2", "describe_network_interfaces", NetworkInterfaceIds=[one["NetworkInterfaceId"]])["NetworkInterfaces"][0]["PrivateIpAddress"]
            seen.is_("the host's interface", (one["DeviceIndex"], one["DeleteOnTermination"], place), (0, False, "10.0.2.15"))
        else:
            seen.is_("what becomes of a staging host that is turned off", data["InstanceInitiatedShutdownBehavior"], "terminate")
        script = base64.b64decode(data["UserData"])
        print(f"user data of {kind} hosts: {len(script)} of 16384 bytes")
        seen.is_(f"whether user data of {kind} hosts fits", len(script) <= 16384, True)
        seen.is_(f"what is left to fill in in user data of {kind} hosts", [one for one in (b"${AWS::", b"${Name}") if one in script], [])
        # .ci/check-infrastructure has shellcheck read it.
        (kept / f"user-data-{kind}.sh").write_text(script_of(script.decode()), encoding="utf-8")


@on("moto", "ministack")
def group(seen, _kept):
    """the group is of one host, in one zone, tagged as production's"""
    (found,) = seen.call("autoscaling", "describe_auto_scaling_groups", AutoScalingGroupNames=[f"{NAME}-host"])["AutoScalingGroups"]
    seen.is_("sizes", (found["MinSize"], found["MaxSize"], found["DesiredCapacity"]), (1, 1, 1))
    seen.is_("zones", found["AvailabilityZones"], [f"{deployment.REGION}b"])
    tags = {one["Key"]: (one["Value"], one["PropagateAtLaunch"]) for one in found["Tags"]}
    seen.is_("the tag of production", tags.get("qdrant-backup:production"), (NAME, True))


@on("moto", "ministack")
def address(seen, _kept):
    """the address is in a parameter"""
    seen.is_("QDRANT_PRIVATE_IP", seen.call("ssm", "get_parameter", Name=f"/{NAME}/QDRANT_PRIVATE_IP")["Parameter"]["Value"], "10.0.2.15")


@on("moto", "ministack")
def functions(seen, _kept):
    """four functions have time-outs, logs that end, and settings that name what was deployed"""
    found = {one["FunctionName"]: one for one in seen.call("lambda", "list_functions")["Functions"]}
    seen.is_("functions", sorted(found), sorted(f"{NAME}-{one}" for one in deployment.FUNCTIONS))
    tasks = ["quiesce-check", "trigger-snapshot", "verify-restore"]
    for name in deployment.FUNCTIONS:
        one = found[f"{NAME}-{name}"]
        settings = one["Environment"]["Variables"]
        seen.is_(f"runtime of {name}", one["Runtime"], "provided.al2023")
        seen.is_(f"time-out of {name} is set", 60 <= one["Timeout"] <= 300, True)
        seen.is_(f"bucket of {name}", settings["QDRANT_BACKUP_BUCKET"], seen.bucket)
        seen.is_(f"namespace of {name}", settings["QDRANT_BACKUP_METRICS_NAMESPACE"], f"QdrantBackup/{NAME}")
        if name in tasks:
            seen.is_(f"document of {name}", settings["QDRANT_BACKUP_DOCUMENT"], f"{NAME}-host-task")
            seen.is_(f"hosts of {name}", settings["QDRANT_BACKUP_HOST_TAG"], f"qdrant-backup:production={NAME}")
    retention = {one["logGroupName"]: one.get("retentionInDays") for one in seen.call("logs", "describe_log_groups")["logGroups"] if NAME in one["logGroupName"]}
    seen.is_("log groups", len(retention), 9)
    seen.is_("retention", set(retention.values()), {90})


@on("ministack")
def architecture(seen, _kept):
    """functions are for arm64"""
    seen.is_("architectures", {tuple(one["Architectures"]) for one in seen.call("lambda", "list_functions")["Functions"]}, {("arm64",)})


@on("moto")
def concurrency(seen, _kept):
    """functions have concurrency of their own"""
    for name in deployment.FUNCTIONS:
        reserved = seen.call("lambda", "get_function_concurrency", FunctionName=f"{NAME}-{name}").get("ReservedConcurrentExecutions", 0)
        seen.is_(f"concurrency of {name} is reserved", reserved >= 1, True)


@on("moto", "ministack")
def machines(seen, _kept):
    """five state machines have roles of their own"""
    states = seen.cloud.client("stepfunctions")
    found = {one["name"]: states.describe_state_machine(stateMachineArn=one["stateMachineArn"]) for one in states.list_state_machines()["stateMachines"]}
    roles = {"backup": "backup", "restore-drill": "drill", "terminate-staging": "terminate-staging", "before-termination": "before-termination", "watch": "watch"}
    seen.is_("machines", sorted(found), sorted(f"{NAME}-{one}" for one in roles))
    for machine, role in roles.items():
        one = found[f"{NAME}-{machine}"]
        seen.is_(f"role of {machine}", one["roleArn"].rsplit("/", 1)[1], f"{NAME}-{role}-machine")
        seen.is_(f"what is left to fill in in {machine}", one["definition"].count("${"), 0)


@on("moto")
def documents(seen, _kept):
    """both documents are the files"""
    for name in ["host-task", "host-update", "host-operate"]:
        content = seen.call("ssm", "get_document", Name=f"{NAME}-{name}")["Content"]
        expected = json.loads((deployment.ROOT / f"infra/ssm/{name}.json").read_text(encoding="utf-8"))
        # moto writes it down as Python does.
        seen.is_(f"document {name}", ast.literal_eval(content), expected)


@on("moto", "ministack")
def rules(seen, _kept):
    """what starts executions names its machine, its input and where what cannot be delivered goes"""
    events = seen.cloud.client("events")
    found = {one["Name"]: events.list_targets_by_rule(Rule=one["Name"])["Targets"] for one in events.list_rules()["Rules"]}
    for rule, machine, given in [("success-marker", "backup", '{"trigger":"marker"}'), ("before-termination", "before-termination", None), ("terminate-staging", "terminate-staging", None)]:
        (target,) = found[f"{NAME}-{rule}"]
        seen.is_(f"target of {rule}", target["Arn"], seen.arn("states", f"stateMachine:{NAME}-{machine}"))
        seen.is_(f"input of {rule}", target.get("Input"), given)
        seen.is_(f"role of {rule}", target["RoleArn"].rsplit("/", 1)[1], f"{NAME}-scheduler")
    for rule, targets in found.items():
        seen.is_(f"undelivered events of {rule}", [one["DeadLetterConfig"]["Arn"] for one in targets], [seen.arn("sqs", f"{NAME}-undelivered")] * len(targets))


@on("ministack")
def schedules(seen, _kept):
    """schedules start the machines they are named for"""
    scheduler = seen.cloud.client("scheduler")
    for name in [one["Name"] for one in scheduler.list_schedules()["Schedules"]]:
        one = scheduler.get_schedule(Name=name)
        seen.is_(f"target of {name}", one["Target"]["Arn"], seen.arn("states", f"stateMachine:{name}"))
        seen.is_(f"state of {name}", one.get("State", "ENABLED"), "ENABLED")


@on("ministack")
def alarms(seen, _kept):
    """alarms tell the topic, and say what missing data means"""
    found = seen.call("cloudwatch", "describe_alarms")["MetricAlarms"]
    seen.is_("whether there are alarms", len(found) >= 10, True)
    for one in found:
        seen.is_(f"what {one['AlarmName']} tells", one["AlarmActions"], [seen.arn("sns", f"{NAME}-alarms")])
        seen.is_(f"missing data of {one['AlarmName']} is decided", one["TreatMissingData"] in ("breaching", "notBreaching", "ignore"), True)
    freshness = [one for one in found if one["MetricName"] == "UnprotectedSeconds"]
    seen.is_("missing freshness", {one["TreatMissingData"] for one in freshness}, {"breaching"})


@on("moto")
def dashboard(seen, _kept):
    """the dashboard is JSON that CloudWatch could read"""
    body = json.loads(seen.call("cloudwatch", "get_dashboard", DashboardName=NAME)["DashboardBody"])
    seen.is_("widgets are there", len(body["widgets"]) > 3, True)


@on("moto")
def topic(seen, _kept):
    """the topic is encrypted with a key of this account"""
    key = seen.call("sns", "get_topic_attributes", TopicArn=seen.arn("sns", f"{NAME}-alarms"))["Attributes"].get("KmsMasterKeyId", "")
    seen.is_("the topic's key", key.startswith(seen.arn("kms", "key/")), True)


@on("ministack")
def secrets(seen, _kept):
    """two keys were generated and differ"""
    manager = seen.cloud.client("secretsmanager")
    values = [manager.get_secret_value(SecretId=f"{NAME}/{one}")["SecretString"] for one in ["qdrant-api-key", "qdrant-read-only-api-key"]]
    seen.is_("keys of 32 characters or more", [len(one) >= 32 for one in values], [True, True])
    seen.is_("different keys", len(set(values)), 2)
