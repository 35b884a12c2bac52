"""Resolves the policies of the deployment, for evaluate.mjs.

Deploys the stacks that have policies to moto, in this process, with example parameters, and reads back what each role, bucket, key and secret has. What moto's
CloudFormation does not know (policies of buckets and secrets) is resolved from the template by moto's own parser, in the stack that it deployed, so that
references mean the same. Says what breaks a quota of AWS: a policy that is too long is only refused when it is deployed.

    python resolve.py [FILE]     writes FILE, resolved.json beside this file by default
"""

import ast
import json
import os
import sys
import warnings
from pathlib import Path

HERE = Path(__file__).resolve().parent
INFRA = HERE.parent
ACCOUNT, REGION, REPLICA_REGION = "123456789012", "eu-central-1", "eu-west-1"

os.environ.update(AWS_ACCESS_KEY_ID="none", AWS_SECRET_ACCESS_KEY="none", AWS_DEFAULT_REGION=REGION, MOTO_ACCOUNT_ID=ACCOUNT)
os.environ.pop("AWS_PROFILE", None)
warnings.filterwarnings("ignore", message="Tried to parse AWS::")

import boto3  # noqa: E402
import moto.cloudformation.parsing as moto_parsing  # noqa: E402
from checks import staging_template, what_is_kept  # noqa: E402
from moto import mock_aws  # noqa: E402
from moto.cloudformation.models import Stack, cloudformation_backends  # noqa: E402

moto_parsing.logger.disabled = True

NAME = "qdrant"
RAY_INDEXING, RAY_INFERENCE = f"arn:aws:iam::{ACCOUNT}:role/ray-indexing", f"arn:aws:iam::{ACCOUNT}:role/ray-inference"
# Everything that can be asked for, and nothing of it.
FULL = {
    "Name": NAME, "Prefix": "qdrant/backups", "SuccessMarkerKey": "qdrant/indexing/_SUCCESS.json", "ObjectLockMode": "GOVERNANCE", "ObjectLockDays": "7",
    "NoncurrentDays": "30", "InfrequentAccessDays": "30", "AbortUploadsDays": "3", "RayIndexingRoleArn": RAY_INDEXING, "RayInferenceRoleArn": RAY_INFERENCE,
    "OperatorPrincipalArn": f"arn:aws:iam::{ACCOUNT}:role/administrator", "OperatorMfa": "true", "Tracing": "true",
}
BARE = FULL | {
    "ObjectLockMode": "NONE", "InfrequentAccessDays": "0", "RayIndexingRoleArn": "", "RayInferenceRoleArn": "", "OperatorPrincipalArn": "",
    "OperatorMfa": "false", "Tracing": "false", "ReplicaBucketArn": "", "ReplicaKeyArn": "",
}
# In characters without white space for IAM, in bytes for the others.
QUOTAS = {"managed": 6144, "inline of a role": 10240, "trust": 2048, "bucket": 20480, "key": 32768, "secret": 20480}
MANAGED_OF_A_ROLE = 10


class Deployment:
    """The stacks of one set of parameters, in a moto of its own."""

    def __init__(self, parameters):
        self.parameters = dict(parameters)

    def deploy(self, name, file, region=REGION):
        template = (INFRA / file).read_text()
        client = boto3.client("cloudformation", region_name=region)
        wanted = Stack.parse_template(template)["Parameters"]
        given = [{"ParameterKey": key, "ParameterValue": self.parameters[key]} for key in wanted]
        client.create_stack(StackName=name, TemplateBody=template, Parameters=given, Capabilities=["CAPABILITY_NAMED_IAM"])
        stack = client.describe_stacks(StackName=name)["Stacks"][0]
        if stack["StackStatus"] != "CREATE_COMPLETE":
            sys.exit(f"{file}: the stack is {stack['StackStatus']}: {stack.get('StackStatusReason', 'no reason given')}")
        return {output["OutputKey"]: output["OutputValue"] for output in stack.get("Outputs", [])}

    def deployed(self, stack, region=REGION):
        return next(s for s in cloudformation_backends[ACCOUNT][region].stacks.values() if s.name == stack)

    def properties(self, stack, resource, region=REGION):
        """The properties of a resource that moto does not make, as its parser resolves them."""
        deployed = self.deployed(stack, region)
        return without_no_value(moto_parsing.clean_json(deployed.template_dict["Resources"][resource]["Properties"], deployed.resource_map))

    def attach(self, stack):
        """Moto makes roles without the managed policies that they ask for."""
        for logical, resource in self.deployed(stack).template_dict["Resources"].items():
            if resource["Type"] == "AWS::IAM::Role":
                properties = self.properties(stack, logical)
                for arn in properties.get("ManagedPolicyArns", []):
                    boto3.client("iam").attach_role_policy(RoleName=properties["RoleName"], PolicyArn=arn)

    def run(self, with_replica):
        artifacts = self.deploy("artifacts", "artifacts.yaml")
        self.parameters["ArtifactBucket"] = artifacts["BucketName"]
        if with_replica:
            replica = self.deploy("replica", "replica.yaml", REPLICA_REGION)
            self.parameters |= {"ReplicaBucketArn": replica["BucketArn"], "ReplicaKeyArn": replica["KeyArn"]}
        storage = self.deploy("storage", "stacks/storage.yaml")
        self.parameters |= storage
        for arn in filter(None, (self.parameters["RayIndexingRoleArn"], self.parameters["RayInferenceRoleArn"])):
            trust = json.dumps({"Version": "2012-10-17", "Statement": []})
            boto3.client("iam").create_role(RoleName=arn.split("/")[-1], AssumeRolePolicyDocument=trust)
        self.deploy("secrets", "stacks/secrets.yaml")
        self.deploy("identity", "stacks/identity.yaml")
        self.attach("identity")

        names = {
            "account": ACCOUNT, "region": REGION, "name": NAME, "backups": storage["BucketArn"], "artifacts": artifacts["BucketArn"],
            "key:backup": storage["BackupKeyArn"], "key:operations": storage["OperationsKeyArn"],
        }
        resources = {
            "backups": ("bucket", self.properties("storage", "BucketPolicy")["PolicyDocument"]),
            "artifacts": ("bucket", self.properties("artifacts", "BucketPolicy")["PolicyDocument"]),
            "key:backup": ("key", key_policy(storage["BackupKeyArn"])),
            "key:operations": ("key", key_policy(storage["OperationsKeyArn"])),
            "secret:qdrant-api-key": ("secret", self.properties("secrets", "ApiKeyReaders")["ResourcePolicy"]),
            "secret:qdrant-read-only-api-key": ("secret", self.properties("secrets", "ReadOnlyApiKeyReaders")["ResourcePolicy"]),
        }
        if with_replica:
            names |= {"replica": replica["BucketArn"], "key:replica": replica["KeyArn"]}
            resources |= {
                "replica": ("bucket", self.properties("replica", "BucketPolicy", REPLICA_REGION)["PolicyDocument"]),
                "key:replica": ("key", key_policy(replica["KeyArn"], REPLICA_REGION)),
            }
        roles, managed = roles_and_managed()
        return {"names": names, "roles": roles, "managed": managed, "resources": {name: policy for name, (_, policy) in resources.items()}}, resources


def without_no_value(value):
    """As CloudFormation does with AWS::NoValue; moto's parser leaves it in lists."""
    if isinstance(value, dict):
        return {key: without_no_value(item) for key, item in value.items() if item is not None}
    return [without_no_value(item) for item in value if item is not None] if isinstance(value, list) else value


def key_policy(arn, region=REGION):
    return parsed(boto3.client("kms", region_name=region).get_key_policy(KeyId=arn, PolicyName="default")["Policy"])


def parsed(document):
    """A policy as moto answers: an object, JSON, or, of a role that its CloudFormation has made, the Python that it keeps."""
    if not isinstance(document, str):
        return document
    return ast.literal_eval(document) if document.startswith("{'") else json.loads(document)


def roles_and_managed():
    iam, roles, managed = boto3.client("iam"), {}, {}
    for role in iam.list_roles()["Roles"]:
        name = role["RoleName"]
        inline = {p: parsed(iam.get_role_policy(RoleName=name, PolicyName=p)["PolicyDocument"]) for p in iam.list_role_policies(RoleName=name)["PolicyNames"]}
        attached = []
        for policy in iam.list_attached_role_policies(RoleName=name)["AttachedPolicies"]:
            version = iam.get_policy(PolicyArn=policy["PolicyArn"])["Policy"]["DefaultVersionId"]
            document = iam.get_policy_version(PolicyArn=policy["PolicyArn"], VersionId=version)["PolicyVersion"]["Document"]
            managed[policy["PolicyName"]] = parsed(document)
            attached.append(policy["PolicyName"])
        roles[name.removeprefix(f"{NAME}-")] = {"name": name, "trust": parsed(role["AssumeRolePolicyDocument"]), "inline": inline, "managed": sorted(attached)}
    return roles, managed


def check(policies, resources):
    """What AWS would refuse, and what the parser left unresolved."""
    wrong = []

    def sized(what, which, *documents):
        size = sum(len(json.dumps(document, separators=(",", ":"))) for document in documents)
        if size > QUOTAS[which]:
            wrong.append(f"{what}: {size} characters, and the quota of a policy ({which}) is {QUOTAS[which]}")

    for name, role in policies["roles"].items():
        sized(f"role {name}", "trust", role["trust"])
        sized(f"role {name}", "inline of a role", *role["inline"].values())
        if len(role["managed"]) > MANAGED_OF_A_ROLE:
            wrong.append(f"role {name}: {len(role['managed'])} managed policies, and the quota is {MANAGED_OF_A_ROLE}")
    for name, document in policies["managed"].items():
        sized(f"managed policy {name}", "managed", document)
    for name, (which, document) in resources.items():
        sized(name, which, document)
    for left in ("Fn::", '"Ref"', "AWS::NoValue", "${", "null"):
        if left in json.dumps(policies):
            wrong.append(f"`{left}` is left in the resolved policies: moto's parser did not resolve it")
    return wrong


def main(file):
    wrong = staging_template() + what_is_kept()
    for parameters, with_replica in ((BARE, False), (FULL, True)):
        with mock_aws():
            policies, resources = Deployment(parameters).run(with_replica)
            wrong += check(policies, resources)
    file.write_text(json.dumps(policies, indent=1, sort_keys=True) + "\n")
    roles, managed, resources = (len(policies[kind]) for kind in ("roles", "managed", "resources"))
    print(f"{roles} roles, {managed} managed policies, {resources} policies of buckets, keys and secrets are in {file.name}")
    if wrong:
        sys.exit("\n".join(wrong))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "resolved.json")
