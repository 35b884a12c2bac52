"""What each emulator is not shown of the templates, and why.

An emulator that rejects a property refuses the stack that has it. So the templates are copied without what is listed here, and with what is listed here put in
another's place. The list is part of what the deployment to an emulator says: what stands in it was not shown. An entry that finds nothing to do any more fails,
so that the list does not outlive its reasons.
"""
import dataclasses
import json
import typing

import templates


@dataclasses.dataclass(frozen=True, eq=False)
class Entry:
    emulator: str
    template: str  # below infra/; "*" is all of them
    path: tuple  # keys from the root of the template; "*" is every key, and a type is every resource of it
    why: str
    instead: typing.Any = None  # what is put there; nothing is put where it is None


def leave_out(emulator, kind, why):
    return Entry(emulator, "*", ("Resources", kind), why)


UNKNOWN = "it does not know the type"

TABLE = [
    # moto
    leave_out("moto", "AWS::S3::BucketPolicy", UNKNOWN),
    leave_out("moto", "AWS::CloudWatch::CompositeAlarm", UNKNOWN),
    # ministack
    leave_out("ministack", "AWS::SSM::Document", UNKNOWN),
    leave_out("ministack", "AWS::CloudWatch::CompositeAlarm", UNKNOWN),
    leave_out("ministack", "AWS::SecretsManager::ResourcePolicy", UNKNOWN),
    *(Entry("ministack", "stacks/observability.yaml", ("Resources", alarm), "it knows no alarm that reckons with metrics")
      for alarm in ["ChecksumMismatch", "UploadFailed", "BackupExecutions", "DrillExecutions", "TerminateStagingExecutions", "FunctionErrors"]),
    leave_out("ministack", "AWS::EC2::NetworkInterface", UNKNOWN),
    leave_out("ministack", "AWS::EC2::SecurityGroupIngress", UNKNOWN),
    Entry("ministack", "stacks/network.yaml", ("Outputs", "NetworkInterfaceId", "Value"), "the interface is left out", "eni-0123456789abcdef0"),
    Entry("ministack", "stacks/network.yaml", ("Outputs", "PrivateIp", "Value"), "the interface is left out", {"Ref": "PrivateIp"}),
    Entry("ministack", "stacks/workflow.yaml", ("Mappings", "Schedules", "daily", "Backup"), "nobody waits for a day", "rate(1 minute)"),
    *(Entry("ministack", "stacks/workflow.yaml", ("Resources", function, "Properties", "Environment", "Variables", "QDRANT_BACKUP_DOCUMENT"),
            "the document is left out", "qdrant-try-host-task") for function in ["QuiesceCheck", "TriggerSnapshot", "VerifyRestore"]),
]


def filtered(emulator, name, template, used):
    """The template as this emulator is shown it. Entries that did something are added to `used`."""
    result = json.loads(json.dumps(template))
    for entry in TABLE:
        if entry.emulator == emulator and entry.template in ("*", name) and _apply(result, list(entry.path), entry):
            used.add(entry)
    return result


def included(node, folder):
    """`AWS::Include` as CloudFormation does it: the file's content stands where the transform did."""
    if isinstance(node, list):
        return [included(one, folder) for one in node]
    if not isinstance(node, dict):
        return node
    transform = node.get("Fn::Transform")
    if transform and transform["Name"] == "AWS::Include":
        return json.loads((folder / transform["Parameters"]["Location"]).read_text(encoding="utf-8"))
    return {key: included(value, folder) for key, value in node.items()}


def unused(emulator, used):
    return [entry for entry in TABLE if entry.emulator == emulator and entry not in used]


def _apply(node, path, entry):
    key, *rest = path
    if isinstance(node, list):
        return any([_apply(item, path, entry) for item in node if isinstance(item, (dict, list))])
    if key == "*":
        keys = list(node)
    elif key.startswith("AWS::"):
        keys = [name for name, one in node.items() if isinstance(one, dict) and one.get("Type") == key]
    else:
        keys = [key] if key in node else []
    done = False
    for one in keys:
        if rest:
            done |= isinstance(node[one], (dict, list)) and _apply(node[one], rest, entry)
        elif entry.instead is None:
            del node[one]
            done = True
        elif node[one] != entry.instead:
            node[one] = entry.instead
            done = True
    return done


def report(emulator):
    """The list for one emulator, as lines."""
    for entry in TABLE:
        if entry.emulator == emulator:
            what = " > ".join(entry.path)
            yield f"{entry.template}: {what} {'is left out' if entry.instead is None else f'is {json.dumps(entry.instead)}'}: {entry.why}"


def copy(emulator, source, target):
    """Copies the templates below `source`/infra to `target`/infra, filtered. Fails if an entry of the list did nothing."""
    used = set()
    for path in sorted([*(source / "infra").glob("*.yaml"), *(source / "infra/stacks").glob("*.yaml")]):
        name = str(path.relative_to(source / "infra"))
        to = target / "infra" / name
        to.parent.mkdir(parents=True, exist_ok=True)
        template = filtered(emulator, name, templates.read(path), used)
        # moto does not know the transform, and ministack is not shown what has it.
        templates.write(to, included(template, path.parent))
    left = unused(emulator, used)
    if left:
        raise SystemExit("these entries of infra/emulated/filter.py remove nothing any more; take them out:\n" + "\n".join(f"  {entry}" for entry in left))
