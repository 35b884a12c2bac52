"""What the templates must be and no policy can say. resolve.py asks."""

import re
from pathlib import Path

from moto.cloudformation.models import Stack

INFRA = Path(__file__).resolve().parent.parent
# What a lifecycle rule may have.
HARMLESS = {
    "Id", "Status", "Prefix", "AbortIncompleteMultipartUpload", "ExpiredObjectDeleteMarker", "NoncurrentVersionExpiration", "Transitions", "STANDARD_IA",
}


def staging_template():
    """The drill's role launches by whatever template carries the staging tag, and identity.yaml cannot see which that is."""
    resources = Stack.parse_template((INFRA / "stacks/host.yaml").read_text())["Resources"]

    def is_tagged(resource):
        tags = [tag for spec in resource["Properties"].get("TagSpecifications", []) if spec["ResourceType"] == "launch-template" for tag in spec["Tags"]]
        return {"Key": "qdrant-backup:staging", "Value": {"Ref": "Name"}} in tags

    tagged = [name for name, resource in resources.items() if resource["Type"] == "AWS::EC2::LaunchTemplate" and is_tagged(resource)]
    if tagged == ["StagingLaunchTemplate"]:
        return []
    return [
        "stacks/host.yaml: StagingLaunchTemplate, and no other template, must be tagged qdrant-backup:staging = Name itself, for by that tag the drill's role "
        f"may launch; {', '.join(tagged) or 'none'} is. Add to its Properties: TagSpecifications: [{{ResourceType: launch-template, Tags: "
        "[{Key: 'qdrant-backup:staging', Value: !Ref Name}]}]"
    ]


def what_is_kept():
    """Buckets and keys outlive their stacks, and lifecycle never touches a current version but to move it where it can be read at once."""
    wrong = []
    for file in ("artifacts.yaml", "replica.yaml", "stacks/storage.yaml"):
        for name, resource in Stack.parse_template((INFRA / file).read_text())["Resources"].items():
            kind, where = resource["Type"], f"{file}, {name}"
            # RetainExceptOnCreate: kept, but for a creation that is rolled back, and what is left of it would be in the way of the next.
            kept = resource.get("DeletionPolicy") in ("Retain", "RetainExceptOnCreate") and resource.get("UpdateReplacePolicy") == "Retain"
            if kind in ("AWS::S3::Bucket", "AWS::S3::BucketPolicy", "AWS::KMS::Key") and not kept:
                wrong.append(f"{where}: DeletionPolicy must be Retain or RetainExceptOnCreate, UpdateReplacePolicy Retain")
            if kind != "AWS::S3::Bucket":
                continue
            rules = resource["Properties"]["LifecycleConfiguration"]["Rules"]
            if not any("AbortIncompleteMultipartUpload" in rule for rule in rules):
                wrong.append(f"{where}: no lifecycle rule aborts uploads that nobody finishes")
            for rule in rules:
                strange = (rule.keys() | set(re.findall(r"'StorageClass': '(\w+)'", str(rule)))) - HARMLESS
                if strange:
                    harm = "may remove a current version, or put it where it cannot be read at once"
                    wrong.append(f"{where}, lifecycle rule {rule['Id']}: {', '.join(sorted(strange))} {harm}")
    return wrong
