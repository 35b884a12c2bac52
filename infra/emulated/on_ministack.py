"""The whole deployment on ministack, by `infra/scripts/deploy`; then what starts executions is made to happen, and the executions are looked at."""
import contextlib
import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

import deployment
import filter as visible_filter
import readback


# The one call of the script that ministack does not answer: it is told that the zone has what is asked for.
AWS = """#!/bin/sh
case "$*" in
  *describe-instance-type-offerings*) echo "$*" | sed 's/.*Name=instance-type,Values=\\([a-z0-9.]*\\).*/\\1/' ;;
  *) exec "{aws}" "$@" ;;
esac
"""


@contextlib.contextmanager
def started(folder):
    """ministack on a free port of this machine only. Its own default is every address of it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = folder / "ministack.log"
    environment = {**os.environ, "BIND_HOST": "127.0.0.1", "GATEWAY_PORT": str(port), "PERSIST_STATE": "0"}
    with open(log, "w", encoding="utf-8") as output:
        process = subprocess.Popen([sys.executable, "-m", "ministack"], env=environment, stdout=output, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/_ministack/health", timeout=2).close()
                break
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"ministack did not start:\n{log.read_text()[-2000:]}")
            time.sleep(0.2)
        programs = folder / "bin"
        programs.mkdir()
        (programs / "aws").write_text(AWS.format(aws=pathlib.Path(sys.executable).parent / "aws"))
        (programs / "aws").chmod(0o755)
        yield deployment.Cloud("ministack", f"http://127.0.0.1:{port}", programs)
    finally:
        process.terminate()
        process.wait(30)


def main():
    with tempfile.TemporaryDirectory() as folder, started(pathlib.Path(folder)) as cloud:
        run(cloud, pathlib.Path(folder) / "repository")


def run(cloud, folder):
    print("what ministack is not shown (infra/emulated/filter.py):")
    for line in visible_filter.report("ministack"):
        print(f"  {line}")
    deployment.tree("ministack", folder)
    parameters = deployment.surroundings(cloud)
    # ministack has no public parameters, and lets nobody make one under their names.
    cloud.client("ssm").put_parameter(Name="/images/al2023-arm64", Type="String", Value="ami-0123456789abcdef0")
    parameters["ImageId"] = "/images/al2023-arm64"
    deployment.deploy(cloud, folder, parameters)
    began = time.monotonic()
    counted = deployment.compare_resources(cloud, folder, [])
    print(f"{sum(counted.values())} resources of {len(counted)} types are there: " + ", ".join(f"{kind} {count}" for kind, count in sorted(counted.items())))
    readback.read_back(cloud, folder)
    marker_starts_a_backup(cloud)
    failed_drill_starts_the_search_for_its_host(cloud)
    schedule_starts_a_backup(cloud, began)


def machine(cloud, name):
    account = cloud.client("sts").get_caller_identity()["Account"]
    return f"arn:aws:states:{deployment.REGION}:{account}:stateMachine:{deployment.NAME}-{name}"


def executions(cloud, name):
    """The inputs of all executions of a machine, the oldest first."""
    states = cloud.client("stepfunctions")
    listed = sorted(states.list_executions(stateMachineArn=machine(cloud, name))["executions"], key=lambda one: one["startDate"])
    return [json.loads(states.describe_execution(executionArn=one["executionArn"])["input"]) for one in listed]


def wait_for(what, seconds, look):
    """Waits until `look` finds something, and gives it back."""
    deadline = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > deadline:
            raise SystemExit(f"{what} did not come within {seconds} seconds; last seen: {found}")
        time.sleep(0.5)


def same(what, found, expected):
    if found != expected:
        raise SystemExit(f"{what}: {found}, and not {expected}")
    print(f"{what}: {json.dumps(found)}")


def marker_starts_a_backup(cloud):
    s3, bucket = cloud.client("s3"), f"{deployment.NAME}-backups-000000000000-{deployment.REGION}"

    def by_marker():
        # The schedule goes on beside it. Any other input would be the marker's, and wrong.
        return [one for one in executions(cloud, "backup") if one != {"trigger": "schedule"}]

    same("executions by a marker before there is one", by_marker(), [])
    # Another object, and one whose key begins as the marker's.
    for key in ["qdrant/indexing/_PROGRESS.json", "qdrant/indexing/_SUCCESS.json.tmp", "qdrant/manifests/20261128T000000Z.json"]:
        s3.put_object(Bucket=bucket, Key=key, Body=b"{}")
    s3.put_object(Bucket=bucket, Key="qdrant/indexing/_SUCCESS.json", Body=b'{"batch_id":"one"}')
    wait_for("an execution after the marker", 30, by_marker)
    # Events go out in the order of the objects: what the others had started would be there as well.
    same("executions after three other objects and the marker", by_marker(), [{"trigger": "marker"}])
    s3.put_object(Bucket=bucket, Key="qdrant/indexing/_SUCCESS.json", Body=b'{"batch_id":"two"}')
    wait_for("an execution after the second marker", 30, lambda: len(by_marker()) == 2)
    same("executions after the second marker", by_marker(), [{"trigger": "marker"}] * 2)


def failed_drill_starts_the_search_for_its_host(cloud):
    states = cloud.client("stepfunctions")
    execution = states.start_execution(stateMachineArn=machine(cloud, "restore-drill"), name="fails", input="{}")["executionArn"]
    states.stop_execution(executionArn=execution, error="Stopped", cause="by the test")
    wait_for("the end of the drill", 30, lambda: states.describe_execution(executionArn=execution)["status"] == "ABORTED")
    found = wait_for("an execution of terminate-staging", 30, lambda: [one for one in executions(cloud, "terminate-staging") if "detail" in one])
    same("terminate-staging was started for", [one["detail"]["executionArn"] for one in found], [execution])


def schedule_starts_a_backup(cloud, began):
    found = wait_for("an execution by the schedule", 150, lambda: [one for one in executions(cloud, "backup") if one.get("trigger") == "schedule"])
    # On a machine that is busy a second one may have come.
    same(f"executions by the schedule after {time.monotonic() - began:.0f} seconds", found, [{"trigger": "schedule"}] * len(found))


if __name__ == "__main__":
    main()
