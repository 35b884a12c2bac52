"""The whole deployment on ministack, by `infra/scripts/deploy`; then what starts executions is made to happen, and the executions are looked at."""
import contextlib
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
    parameters = deployment.network(cloud)
    # ministack has no public parameters, and lets nobody make one under their names.
    cloud.client("ssm").put_parameter(Name="/images/al2023-arm64", Type="String", Value="ami-0123456789abcdef0")
    parameters["ImageId"] = "/images/al2023-arm64"
    deployment.deploy(cloud, folder, parameters)
    counted = deployment.compare_resources(cloud, folder, {})
    print(counted)


if __name__ == "__main__":
    main()
