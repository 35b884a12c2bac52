"""Deploys the stacks to an emulator by the project's own script, `infra/scripts/deploy`: from a copy of the repository whose templates are filtered, with dummies
in place of what `make package` builds."""
import dataclasses
import os
import pathlib
import shutil
import subprocess
import sys
import zipfile

import boto3

import filter as visible_filter
import templates

ROOT = pathlib.Path(__file__).resolve().parents[2]
REGION = "eu-west-1"
NAME = "qdrant-try"
FUNCTIONS = ["quiesce-check", "trigger-snapshot", "publish-manifest", "verify-restore"]
IMAGE = "qdrant/qdrant:v1.18.3-unprivileged"
# All that is optional is asked for, so that everything that a template can make is made.
OPTIONAL = {
    "Grpc": "true", "QdrantMemory": "8GiB", "ProtectLatency": "50ms", "BandwidthLimit": "200MB/s",
    "InfrequentAccessDays": "30", "ObjectLockMode": "GOVERNANCE", "ObjectLockDays": "14",
    "ReplicaBucketArn": "arn:aws:s3:::replica", "ReplicaKeyArn": "arn:aws:kms:eu-central-1:111122223333:key/0123",
    "Tracing": "true", "LogExecutionData": "true", "AlarmEmail": "platform@example.com",
    "OperatorPrincipalArn": "arn:aws:iam::111122223333:role/platform",
}


@dataclasses.dataclass
class Cloud:
    """An emulator that listens, and how it is spoken to."""

    emulator: str
    endpoint: str
    programs: pathlib.Path | None = None  # a folder with programs that come before the real ones

    def client(self, service):
        return boto3.client(service, endpoint_url=self.endpoint, region_name=REGION, aws_access_key_id="test", aws_secret_access_key="test")

    def environment(self):
        path = f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}"
        if self.programs:
            path = f"{self.programs}:{path}"
        keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_CONFIG_FILE": "/dev/null", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null"}
        return {**os.environ, **keys, "PATH": path, "AWS_ENDPOINT_URL": self.endpoint, "AWS_DEFAULT_REGION": REGION, "AWS_PAGER": "", "POLL_SECONDS": "1"}


def tree(emulator, folder):
    """The copy that is deployed from."""
    visible_filter.copy(emulator, ROOT, folder)
    for part in ["infra/scripts", "infra/ssm", "state-machines"]:
        shutil.copytree(ROOT / part, folder / part)
    for function in FUNCTIONS:
        archive = folder / "target/lambda" / function / "bootstrap.zip"
        archive.parent.mkdir(parents=True)
        with zipfile.ZipFile(archive, "w") as packed:
            packed.writestr("bootstrap", f"#!/bin/sh\n# {function}\n")
    package = folder / "target/package"
    package.mkdir()
    (package / "host-worker").write_text("a worker\n")
    (package / "boot.tar.gz").write_text("boot files\n")
    subprocess.run([sys.executable, ROOT / "infra/scripts/tests/make-image", folder / "image.tar", IMAGE, "arm64"], check=True)


def surroundings(cloud):
    """What a deployment finds: network and roles of the Ray clusters. Gives back the parameters that name them."""
    ec2 = cloud.client("ec2")
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.2.0/24", AvailabilityZone=f"{REGION}b")["Subnet"]["SubnetId"]
    table = ec2.create_route_table(VpcId=vpc)["RouteTable"]["RouteTableId"]
    groups = [ec2.create_security_group(GroupName=name, Description=name, VpcId=vpc)["GroupId"] for name in ["ray-indexing", "ray-inference"]]
    trust = '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"ec2.amazonaws.com"},"Action":"sts:AssumeRole"}]}'
    roles = [cloud.client("iam").create_role(RoleName=name, AssumeRolePolicyDocument=trust)["Role"]["Arn"] for name in ["ray-indexing", "ray-inference"]]
    return {
        **OPTIONAL, "RayIndexingRoleArn": roles[0], "RayInferenceRoleArn": roles[1],
        "VpcId": vpc, "SubnetId": subnet, "PrivateIp": "10.0.2.15", "RouteTableIds": table,
        "RayIndexingSecurityGroupId": groups[0], "RayInferenceSecurityGroupId": groups[1],
    }


def deploy(cloud, folder, parameters):
    """Runs `infra/scripts/deploy`; what it prints is shown, and given back."""
    (folder / "try.parameters").write_text("".join(f"{key}={value}\n" for key, value in parameters.items()))
    environment = {**cloud.environment(), "STACK": NAME, "PARAMS": "try.parameters", "QDRANT_IMAGE_ARCHIVE": "image.tar"}
    run = subprocess.run(["infra/scripts/deploy"], cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, timeout=240)
    for line in run.stdout.splitlines():
        if not line.strip().startswith("Uploading to "):
            print(f"  | {line}")
    if run.returncode:
        raise SystemExit(f"the deployment to {cloud.emulator} failed")
    return run.stdout


def stacks(cloud):
    """Every stack that was deployed, by its template below infra/: its name, and its resources by logical id."""
    cloudformation = cloud.client("cloudformation")
    found = {}

    def look(name, template):
        pages = cloudformation.get_paginator("list_stack_resources").paginate(StackName=name)
        resources = {one["LogicalResourceId"]: one for page in pages for one in page["StackResourceSummaries"]}
        found[template] = (name, resources)
        for logical, one in resources.items():
            if one["ResourceType"] == "AWS::CloudFormation::Stack":
                look(one["PhysicalResourceId"], f"stacks/{logical.lower()}.yaml")

    look(NAME, "template.yaml")
    return found


def conditions_of(template, parameters):
    """Which conditions of a template hold, by the functions that ours use."""
    def value(node):
        if isinstance(node, dict) and len(node) == 1:
            (function, argument), = node.items()
            if function == "Ref":
                return str(parameters[argument])
            if function == "Condition":
                return holds(argument)
            if function == "Fn::Equals":
                return value(argument[0]) == value(argument[1])
            if function == "Fn::Not":
                return not value(argument[0])
            if function == "Fn::And":
                return all(value(one) for one in argument)
            if function == "Fn::Or":
                return any(value(one) for one in argument)
            raise SystemExit(f"infra/emulated/deployment.py does not know the function {function} in conditions")
        return str(node)

    def holds(name):
        return value(template["Conditions"][name])

    return {name: holds(name) for name in template.get("Conditions", {})}


def compare_resources(cloud, folder, passed_over):
    """Every resource of the filtered templates is there, but those of the types that the emulator passes over in silence. Gives back how many of each type are."""
    cloudformation = cloud.client("cloudformation")
    counted, missing, silent = {}, [], set()
    for template_name, (name, there) in stacks(cloud).items():
        template = templates.read(folder / "infra" / template_name)
        stack = cloudformation.describe_stacks(StackName=name)["Stacks"][0]
        if stack["StackStatus"] not in ("CREATE_COMPLETE", "UPDATE_COMPLETE"):
            missing.append(f"{template_name}: {stack['StackStatus']}")
        holds = conditions_of(template, {one["ParameterKey"]: one["ParameterValue"] for one in stack.get("Parameters", [])})
        for logical, resource in template["Resources"].items():
            if "Condition" in resource and not holds[resource["Condition"]]:
                continue
            if logical in there:
                counted[resource["Type"]] = counted.get(resource["Type"], 0) + 1
            elif resource["Type"] in passed_over:
                silent.add(resource["Type"])
            else:
                missing.append(f"{template_name}: {logical} ({resource['Type']})")
    if missing:
        raise SystemExit(f"{cloud.emulator} says that all is complete, and does not have:\n  " + "\n  ".join(missing))
    stale = set(passed_over) - silent
    if stale:
        raise SystemExit(f"{cloud.emulator} does not pass over {', '.join(sorted(stale))} any more: take them out of the list")
    return counted
