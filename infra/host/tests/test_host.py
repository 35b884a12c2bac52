"""What is on a host, run as it is there, below a directory (ROOT) and with stand-ins for AWS, packages, Docker and systemd.

    python3 -m unittest discover -s infra/host/tests
"""
import gzip
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
import unittest
from pathlib import Path

TESTS = Path(__file__).resolve().parent
HOST = TESTS.parent
INFRA = HOST.parent

PRODUCTION = """NAME=qdrant-prod
ROLE=production
REGION=eu-west-1
PRIVATE_IP=10.0.2.15
ARTIFACT_BUCKET=artifacts
BUCKET=qdrant-prod-backups-111122223333-eu-west-1
PREFIX=qdrant/backups
SUCCESS_MARKER=qdrant/indexing/_SUCCESS.json
QDRANT_IMAGE=qdrant/qdrant:v1.18.3-unprivileged
GRPC=true
MEMORY=24GiB
RPO_SECONDS=93600
RTO_SECONDS=7200
PROTECT_LATENCY=50ms
BANDWIDTH_LIMIT=200MB/s
GROUP=qdrant-prod-host
HOOK=restored
METRICS_NAMESPACE=QdrantBackup/qdrant-prod
API_KEY_SECRET=qdrant-prod/qdrant-api-key
READ_ONLY_API_KEY_SECRET=qdrant-prod/qdrant-read-only-api-key
"""
STAGING = """NAME=qdrant-prod
ROLE=staging
REGION=eu-west-1
ARTIFACT_BUCKET=artifacts
BUCKET=qdrant-prod-backups-111122223333-eu-west-1
PREFIX=qdrant/backups
QDRANT_IMAGE=qdrant/qdrant:v1.18.3-unprivileged
MEMORY=
RPO_SECONDS=93600
RTO_SECONDS=7200
"""
KEY, READ_ONLY_KEY, OTHER_KEY = "ReadWrite0123456789abcdef", "ReadOnly0123456789abcdefg", "TheOtherKey0123456789abcd"
IMAGE = "qdrant/qdrant:v1.18.3-unprivileged"


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def boot_files(note="", changed=None):
    """The archive as `make package` makes it. `note` makes it another one; `changed` has files with other contents, or None for one that is left out."""
    archive = io.BytesIO()
    files = {path.relative_to(HOST).as_posix(): (path.read_bytes(), path.stat().st_mode) for path in HOST.rglob("*") if path.is_file()}
    files = {name: file for name, file in files.items() if not name.startswith("tests/") and name != "user-data.sh"}
    files["note"] = (note.encode(), 0o644)
    for name, content in (changed or {}).items():
        if content is None:
            del files[name]
        else:
            files[name] = (content.encode(), 0o755)
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, (content, mode) in sorted(files.items()):
            entry = tarfile.TarInfo(f"./{name}")
            entry.size, entry.mode = len(content), mode & 0o755
            tar.addfile(entry, io.BytesIO(content))
    return gzip.compress(archive.getvalue(), mtime=0)


def worker(version, runs=True):
    text = f"""#!/bin/sh
case "$1" in
  --version) {f'echo host-worker {version}' if runs else 'echo cannot execute >&2; exit 126'} ;;
  health) echo '[{{"MetricName": "QdrantReady", "Value": 1}}]' ;;
  *) exit 2 ;;
esac
"""
    return text.encode()


class Machine:
    """One machine: its root, and the bucket, the secrets and the programs around it."""

    def __init__(self, test, env=PRODUCTION):
        # In memory where there is such a place: what is tested syncs its files.
        self.dir = Path(tempfile.mkdtemp(prefix="qdrant-host-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None))
        test.addCleanup(shutil.rmtree, self.dir, ignore_errors=True)
        self.root, self.state, self.bin = self.dir / "root", self.dir / "state", self.dir / "bin"
        for path in (self.root / "etc/qdrant-backup", self.root / "run", self.state / "bucket", self.state / "secrets", self.bin):
            path.mkdir(parents=True)
        shutil.copy(TESTS / "stand-in", self.bin / "stand-in")
        for name in ("aws", "dnf", "rpm", "systemctl"):
            (self.bin / name).symlink_to("stand-in")
        # Nothing of this machine's own is found: what a script uses beside these is in the list, and on every host.
        for name in (
            "basename bash cat chmod cmp cp cut date df dirname env flock grep gzip head install ln ls mkdir mktemp mv od printf python3 readlink rm sed sh sha256sum"
            " sleep sort stat sync tail tar touch tr".split()
        ):
            (self.bin / name).symlink_to(shutil.which(name))
        self.write("agent", "3.3.3050.0")
        self.write("newest-agent", "3.3.3050.0")
        self.worker, self.boot = self.put_worker(worker("1.0.0")), self.put_boot(boot_files())
        self.image = self.put_image(IMAGE)
        self.put_secret("qdrant-prod/qdrant-api-key", AWSCURRENT=KEY)
        self.put_secret("qdrant-prod/qdrant-read-only-api-key", AWSCURRENT=READ_ONLY_KEY)
        self.settings(env)

    def settings(self, env):
        hashes = f"QDRANT_IMAGE_SHA256={self.image}\nWORKER_SHA256={self.worker}\nBOOT_FILES_SHA256={self.boot}\n"
        (self.root / "etc/qdrant-backup/host.env").write_text(env + hashes)

    # What is around it

    def write(self, name, text):
        (self.state / name).write_text(str(text))

    def put(self, key, content):
        path = self.state / "bucket" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    def put_worker(self, content):
        self.put(f"worker/{sha256(content)}/host-worker", content)
        return sha256(content)

    def put_boot(self, content):
        self.put(f"boot/{sha256(content)}/boot.tar.gz", content)
        return sha256(content)

    def put_image(self, image, note=""):
        content = f"image {image}\n{note}".encode()
        self.put(f"images/{sha256(content)}/{image.replace('/', '%2F')}.tar", content)
        return sha256(content)

    def put_secret(self, name, **stages):
        path = self.state / "secrets" / name.replace("/", "%2F")
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir()
        for stage, key in stages.items():
            (path / stage).write_text(key)

    # What is done on it

    def run(self, *command, stdin=None, **variables):
        environment = {"PATH": str(self.bin), "ROOT": str(self.root), "STAND_IN": str(self.state), "PAUSE": "0", "LC_ALL": "C", **variables}
        return subprocess.run(
            [str(word) for word in command], env=environment, input=stdin, capture_output=True, text=True, start_new_session=True, timeout=60, check=False
        )

    def user_data(self):
        return self.run("bash", HOST / "user-data.sh")

    def first_boot(self, **variables):
        return self.run(self.home / "first-boot", **variables)

    def installed(self):
        """A machine whose first boot is over."""
        for done in (self.user_data(), self.first_boot()):
            assert done.returncode == 0, done
        self.write("calls", "")
        return self

    def release(self, *arguments):
        return self.run(self.home / "current/boot/release", *arguments)

    def document(self, **parameters):
        """Runs the document as the agent does: the parameters as variables, checked against their patterns, and the lines as one script of sh."""
        document = json.loads((INFRA / "ssm/host-update.json").read_text())
        variables = {}
        for name, parameter in document["parameters"].items():
            value = parameters.pop(name, parameter.get("default"))
            assert value is not None and re.fullmatch(parameter["allowedPattern"], value), f"{name}={value}"
            assert parameter["interpolationType"] == "ENV_VAR"
            variables[f"SSM_{name}"] = value
        assert not parameters, parameters
        lines = "\n".join(document["mainSteps"][0]["inputs"]["runCommand"])
        assert "{{" not in lines
        script = self.dir / "_script.sh"
        script.write_text(lines.replace("/opt/qdrant-backup", str(self.home)))
        return self.run("sh", script, **variables)

    # What is seen of it

    @property
    def home(self):
        return self.root / "opt/qdrant-backup"

    @property
    def keys(self):
        return self.root / "run/qdrant-backup"

    def calls(self):
        path = self.state / "calls"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def called(self, *beginning):
        return [call for call in self.calls() if call[: len(beginning)] == list(beginning)]

    def version(self):
        return self.run(self.home / "current/host-worker", "--version").stdout.strip()

    def picture(self):
        """All that lasts, without what differs from run to run."""
        seen = {}
        for path in sorted([*(self.root / "opt").rglob("*"), *(self.root / "etc").rglob("*"), *(self.root / "usr").rglob("*")]):
            name = str(path.relative_to(self.root))
            if path.is_symlink():
                seen[name] = os.readlink(path)
            elif path.is_file():
                seen[name] = (oct(path.stat().st_mode), sha256(path.read_bytes()))
        return seen


class Case(unittest.TestCase):
    maxDiff = None

    def succeeds(self, done):
        self.assertEqual(done.returncode, 0, f"{done.stdout}\n{done.stderr}")
        return done

    def fails(self, done, *words):
        self.assertEqual(done.returncode, 1, f"{done.stdout}\n{done.stderr}")
        for word in words:
            self.assertIn(word, done.stderr)
        return done

    def cut_everywhere(self, prepare, command, check):
        """Kills `command` at every call that it makes, one after the other, and does the same again afterwards. The end is the same as if it had not been killed."""
        whole = prepare()
        self.succeeds(command(whole))
        expected, count = whole.picture(), len(whole.calls())
        self.assertGreater(count, 3)
        for at in range(1, count + 1):
            with self.subTest(cut_at=whole.calls()[at - 1]):
                machine = prepare()
                machine.write("kill-at", at)
                self.assertEqual(command(machine).returncode, -9)
                check(machine)
                (machine.state / "kill-at").unlink()
                self.succeeds(command(machine))
                self.assertEqual(machine.picture(), expected)


class UserData(Case):
    def test_the_template_has_it_word_for_word(self):
        template = (INFRA / "stacks/host.yaml").read_text()
        text = re.search(r"\n      Text: \|\n(.*?)\n\nResources:", template, re.DOTALL).group(1)
        self.assertEqual(re.sub(r"(?m)^        ", "", text), (HOST / "user-data.sh").read_text().rstrip("\n"))

    def test_it_is_small(self):
        # EC2 takes 16 KB; the settings before it are less than one.
        self.assertLess(len((HOST / "user-data.sh").read_bytes()), 4096)

    def test_the_settings_of_the_template_are_those_that_the_scripts_know(self):
        template = (INFRA / "stacks/host.yaml").read_text()
        blocks = re.findall(r"host\.env <<'END'\n(.*?)\n +END\n", template, re.DOTALL)
        names = [sorted(re.findall(r"(?m)^ +([A-Z0-9_]+)=", block)) for block in blocks]
        hashes = "QDRANT_IMAGE_SHA256=\nWORKER_SHA256=\nBOOT_FILES_SHA256=\n"
        expected = [sorted(re.findall(r"(?m)^([A-Z0-9_]+)=", env + hashes)) for env in (PRODUCTION, STAGING)]
        self.assertEqual(names, expected)

    def test_a_first_boot(self):
        machine = Machine(self)
        self.succeeds(machine.user_data())
        self.assertIn(["systemctl", "start", "--no-block", "qdrant-install.service"], machine.calls())
        self.succeeds(machine.first_boot())
        self.assertEqual(machine.version(), "host-worker 1.0.0")
        self.assertEqual(os.readlink(machine.root / "usr/local/bin/host-worker"), "/opt/qdrant-backup/current/host-worker")
        self.assertIn(["dnf", "--assumeyes", "--quiet", "install", "docker", "mdadm", "xfsprogs"], machine.calls())
        self.assertIn(["systemctl", "start", "--no-block", "qdrant-boot.service", "qdrant-other-images.service"], machine.calls())
        self.assertIn(["systemctl", "restart", "qdrant-health.timer"], machine.calls())
        self.assertEqual((machine.root / "etc/qdrant-backup.toml").read_text(), (TESTS / "expected-production.toml").read_text())
        self.assertFalse((machine.home / "first").exists())

    def test_it_has_nothing_to_do_twice(self):
        machine = Machine(self).installed()
        before = machine.picture()
        self.succeeds(machine.first_boot())
        self.assertEqual(machine.calls(), [])
        self.succeeds(machine.user_data())
        self.assertEqual(machine.picture(), before)

    def test_what_is_not_there_yet_is_tried_again(self):
        machine = Machine(self)
        self.succeeds(machine.user_data())
        machine.write("bucket-fails", 1)
        self.assertNotEqual(machine.first_boot().returncode, 0)
        self.assertFalse((machine.home / "installed").exists())
        machine.write("repository-fails", 1)
        self.fails(machine.first_boot(), "these packages were not installed: docker mdadm xfsprogs", "hint: the repository")
        self.assertFalse((machine.home / "installed").exists())
        # Half of it, within one try of the unit.
        machine.write("truncated", 1)
        self.succeeds(machine.first_boot())
        self.assertEqual(machine.version(), "host-worker 1.0.0")

    def test_a_download_that_fails_twice_works_in_the_end(self):
        machine = Machine(self).installed()
        new = machine.put_worker(worker("1.1.0"))
        machine.write("bucket-fails", 2)
        self.succeeds(machine.release("update", new, machine.boot))
        self.assertEqual(machine.version(), "host-worker 1.1.0")
        again = machine.put_worker(worker("1.2.0"))
        machine.write("truncated", 2)
        self.succeeds(machine.release("update", again, machine.boot))
        self.assertEqual(machine.version(), "host-worker 1.2.0")

    def test_boot_files_that_are_not_those_are_not_run(self):
        machine = Machine(self)
        self.succeeds(machine.user_data())
        machine.put(f"boot/{machine.boot}/boot.tar.gz", boot_files("other", {"release": "#!/bin/bash\ntouch $ROOT/run/was-run\n"}))
        self.fails(machine.first_boot(), "has another SHA-256 than its key says")
        self.assertFalse((machine.root / "run/was-run").exists())
        self.assertEqual(machine.called("dnf"), [])

    def test_killed_anywhere(self):
        def prepare():
            machine = Machine(self)
            self.succeeds(machine.user_data())
            machine.write("calls", "")
            return machine

        self.cut_everywhere(prepare, lambda machine: machine.first_boot(), lambda machine: self.assertFalse((machine.home / "installed").exists()))

    def test_an_old_agent_is_updated_or_refused(self):
        machine = Machine(self)
        self.succeeds(machine.user_data())
        machine.write("agent", "3.2.1705.0")
        self.succeeds(machine.first_boot())
        self.assertEqual(len(machine.called("dnf", "--assumeyes", "--quiet", "--releasever=latest", "install", "amazon-ssm-agent")), 1)
        machine = Machine(self)
        self.succeeds(machine.user_data())
        machine.write("agent", "3.3.2745.9")
        machine.write("newest-agent", "3.3.2745.9")
        self.fails(machine.first_boot(), "the agent of Systems Manager is older than 3.3.2746.0")

    def test_a_staging_host_takes_commands_when_it_is_ready_and_not_before(self):
        machine = Machine(self, STAGING)
        self.succeeds(machine.user_data())
        machine.write("calls", "")
        machine.write("start-fails", 1)
        self.fails(machine.first_boot(), "the host is not ready for a drill")
        self.assertFalse((machine.home / "installed").exists())
        self.assertFalse((machine.home / "ready").exists())
        agent = ["systemctl", "enable", "--now", "amazon-ssm-agent.service"]
        self.assertNotIn(agent, machine.calls())
        self.succeeds(machine.first_boot())
        ready = ["systemctl", "start", "qdrant-secrets.service", "qdrant-images.service", "qdrant-other-images.service", "qdrant-boot.service"]
        self.assertEqual(machine.calls()[-2:], [ready, agent])
        self.assertTrue((machine.home / "ready").exists())

    def test_only_the_agent_of_staging_waits_until_the_host_is_ready(self):
        template = (INFRA / "stacks/host.yaml").read_text()
        command = re.findall(r"(?m)^ +- (printf .*ConditionPathExists=.*)$", template)
        self.assertEqual(len(command), 1)
        self.assertGreater(template.index(command[0]), template.index("  StagingLaunchTemplate:"))
        machine = Machine(self, STAGING)
        drop_in = machine.root / "etc/systemd/system/amazon-ssm-agent.service.d/qdrant-backup.conf"
        drop_in.parent.mkdir(parents=True)
        self.succeeds(machine.run("sh", "-c", command[0].replace("/etc/", f"{machine.root}/etc/")))
        self.assertEqual(drop_in.read_text(), "[Unit]\nConditionPathExists=/opt/qdrant-backup/ready\n")

    def test_a_staging_host_ends_by_itself_and_says_nothing_of_its_health(self):
        machine = Machine(self, STAGING).installed()
        self.assertIn("OnBootSec=20h", (machine.root / "etc/systemd/system/qdrant-expiry.timer").read_text())
        self.assertFalse((machine.root / "etc/systemd/system/qdrant-health.timer").exists())
        self.assertEqual((machine.root / "etc/qdrant-backup.toml").read_text(), (TESTS / "expected-staging.toml").read_text())
        production = Machine(self).installed()
        self.assertFalse((production.root / "etc/systemd/system/qdrant-expiry.timer").exists())


class Settings(Case):
    def render(self, env):
        machine = Machine(self, env)
        return machine.run(HOST / "render-config")

    def test_what_is_empty_is_left_out(self):
        env = re.sub(r"(?m)^(PROTECT_LATENCY|BANDWIDTH_LIMIT|MEMORY)=.*$", r"\1=", PRODUCTION).replace("GRPC=true", "GRPC=false")
        text = self.succeeds(self.render(env)).stdout
        for absent in ("[task]", "memory", "grpc", "protect-latency"):
            self.assertNotIn(absent, text)
        self.assertIn("[boot.lifecycle]", text)

    def test_what_is_missing_is_named(self):
        for name in ("BUCKET", "PRIVATE_IP", "GROUP", "QDRANT_IMAGE", "REGION"):
            done = self.render(re.sub(rf"(?m)^{name}=.*\n", "", PRODUCTION))
            self.assertNotEqual(done.returncode, 0)
            self.assertIn(f"{name}: is missing in", done.stderr)
        self.fails(self.render(PRODUCTION.replace("ROLE=production", "ROLE=test")), "ROLE=test", "neither production nor staging")


class Secrets(Case):
    def fetch(self, machine):
        return machine.run(HOST / "fetch-secrets")

    def env(self, machine):
        return (machine.keys / "qdrant.env").read_text().splitlines()

    def nowhere_else(self, machine, done, *keys):
        """No key is in an argument, in the environment of a program, in what was said, or in a file but the two."""
        for key in keys:
            self.assertNotIn(key, (machine.state / "environments").read_text())
            self.assertNotIn(key, done.stdout + done.stderr)
            self.assertNotIn(key, (machine.state / "calls").read_text())
            holders = {path.name for path in machine.root.rglob("*") if path.is_file() and key in path.read_text(errors="replace")}
            self.assertLessEqual(holders, {"qdrant-api-key", "qdrant.env"})

    def test_both_keys_are_for_root_only(self):
        machine = Machine(self)
        done = self.succeeds(self.fetch(machine))
        self.assertEqual((machine.keys / "qdrant-api-key").read_text(), KEY)
        self.assertEqual(self.env(machine), [f"QDRANT__SERVICE__API_KEY={KEY}", f"QDRANT__SERVICE__READ_ONLY_API_KEY={READ_ONLY_KEY}"])
        self.assertEqual(machine.keys.stat().st_mode & 0o777, 0o700)
        for name in ("qdrant-api-key", "qdrant.env"):
            self.assertEqual((machine.keys / name).stat().st_mode & 0o777, 0o600)
        self.assertEqual(sorted(path.name for path in machine.keys.iterdir()), ["qdrant-api-key", "qdrant.env"])
        self.nowhere_else(machine, done, KEY, READ_ONLY_KEY)

    def test_both_keys_count_while_one_is_rotated(self):
        for stage in ("AWSPENDING", "AWSPREVIOUS"):
            machine = Machine(self)
            machine.put_secret("qdrant-prod/qdrant-api-key", AWSCURRENT=KEY, **{stage: OTHER_KEY})
            done = self.succeeds(self.fetch(machine))
            self.assertIn(f"QDRANT__SERVICE__ALT_API_KEY={OTHER_KEY}", self.env(machine))
            self.assertIn(f"second read-write key ({stage})", done.stdout)
            self.assertEqual((machine.keys / "qdrant-api-key").read_text(), KEY)
            self.nowhere_else(machine, done, KEY, OTHER_KEY)
        # A version that is both, as after it was made the current one, is no second key.
        machine.put_secret("qdrant-prod/qdrant-api-key", AWSCURRENT=KEY, AWSPENDING=KEY, AWSPREVIOUS=OTHER_KEY)
        self.succeeds(self.fetch(machine))
        self.assertIn(f"QDRANT__SERVICE__ALT_API_KEY={OTHER_KEY}", self.env(machine))

    def test_a_missing_secret_fails_and_leaves_what_was_there(self):
        machine = Machine(self)
        self.succeeds(self.fetch(machine))
        shutil.rmtree(machine.state / "secrets/qdrant-prod%2Fqdrant-read-only-api-key")
        machine.put_secret("qdrant-prod/qdrant-api-key", AWSCURRENT=OTHER_KEY)
        done = self.fails(self.fetch(machine), "the secret qdrant-prod/qdrant-read-only-api-key was not read", "hint: the role of the host needs")
        self.assertIn(f"QDRANT__SERVICE__API_KEY={KEY}", self.env(machine))
        self.nowhere_else(machine, done, KEY, READ_ONLY_KEY, OTHER_KEY)
        machine = Machine(self)
        machine.write("secrets-fail", 1)
        self.fails(self.fetch(machine), "aws: An error occurred (AccessDeniedException)")
        self.assertFalse((machine.keys / "qdrant.env").exists())

    def test_what_is_no_key_is_refused_and_not_quoted(self):
        for bad in ('{"key": "ReadWrite0123456789abcdef"}', "short", f"{KEY}\nQDRANT__SERVICE__HTTP_PORT=1", "None", f"{KEY} {KEY}"):
            machine = Machine(self)
            machine.put_secret("qdrant-prod/qdrant-api-key", AWSCURRENT=bad)
            done = self.fails(self.fetch(machine), "the secret qdrant-prod/qdrant-api-key is no key")
            self.assertNotIn("ReadWrite", done.stdout + done.stderr)
            self.assertFalse((machine.keys / "qdrant.env").exists())

    def test_a_staging_host_makes_its_own(self):
        machine = Machine(self, STAGING)
        self.succeeds(self.fetch(machine))
        first = (machine.keys / "qdrant-api-key").read_text()
        self.assertRegex(first, r"^[0-9a-f]{64}$")
        self.assertNotEqual(self.env(machine)[1].split("=")[1], first)
        self.assertEqual(machine.calls(), [])
        self.succeeds(self.fetch(machine))
        self.assertNotEqual((machine.keys / "qdrant-api-key").read_text(), first)


class Images(Case):
    def load(self, machine):
        return machine.run(HOST / "load-images")

    def others(self, machine):
        return machine.run(HOST / "load-images", "others")

    def machine(self):
        machine = Machine(self)
        (machine.bin / "docker").symlink_to("stand-in")
        return machine

    def images(self, machine):
        return sorted(json.loads((machine.state / "docker.json").read_text()))

    def test_the_configured_one_waits_for_no_other(self):
        machine = self.machine()
        machine.put_image("qdrant/qdrant:v1.17.1-unprivileged")
        machine.put("images/README", b"no image")
        self.succeeds(self.load(machine))
        self.assertEqual(self.images(machine), [IMAGE])
        self.assertEqual(machine.called("aws", "s3api", "list-objects-v2"), [])
        self.succeeds(self.others(machine))
        self.assertEqual(self.images(machine), ["qdrant/qdrant:v1.17.1-unprivileged", IMAGE])
        self.assertEqual(len(machine.called("docker", "load")), 2)
        self.assertEqual(list((machine.root / "var/cache/qdrant-backup").iterdir()), [])
        units = {path.name: path.read_text() for path in (HOST / "units").iterdir()}
        after = next(line for line in units["qdrant-boot.service"].splitlines() if line.startswith("After="))
        self.assertIn("qdrant-images.service", after)
        self.assertNotIn("qdrant-other-images.service", after)

    def test_a_host_that_has_its_image_needs_no_network_for_it(self):
        machine = self.machine()
        self.succeeds(self.load(machine))
        (machine.bin / "aws").unlink()
        (machine.bin / "aws").symlink_to(shutil.which("false"))
        self.succeeds(self.load(machine))
        self.fails(self.others(machine), "which other images there are was not learnt")

    def test_what_is_loaded_is_not_fetched_again(self):
        machine = self.machine()
        machine.put_image("qdrant/qdrant:v1.17.1-unprivileged")
        for load in (self.load, self.others):
            self.succeeds(load(machine))
        machine.write("calls", "")
        for load in (self.load, self.others):
            self.succeeds(load(machine))
        self.assertEqual(machine.called("aws", "s3api", "get-object") + machine.called("docker", "load"), [])
        # Docker has lost one.
        machine.write("docker.json", json.dumps({IMAGE: json.loads((machine.state / "docker.json").read_text())[IMAGE]}))
        self.succeeds(self.others(machine))
        self.assertEqual(len(machine.called("docker", "load")), 1)
        # The same name, and another archive.
        machine.image = machine.put_image(IMAGE, note="rebuilt")
        machine.settings(PRODUCTION)
        self.succeeds(self.load(machine))
        self.assertEqual(len(machine.called("docker", "load")), 2)

    def test_the_configured_one_must_be_there_and_right(self):
        machine = self.machine()
        key = f"images/{machine.image}/qdrant%2Fqdrant:v1.18.3-unprivileged.tar"
        machine.put(key, f"image {IMAGE}\nforged".encode())
        self.fails(self.load(machine), "has another SHA-256", f"the image {IMAGE} was not loaded", key)
        self.assertEqual(machine.called("docker", "load"), [])
        (machine.state / "bucket" / key).unlink()
        self.fails(self.load(machine), "Not Found", f"the image {IMAGE} was not loaded")

    def test_an_archive_with_another_image_in_it_is_named(self):
        machine = self.machine()
        content = b"image qdrant/qdrant:v1.16.0\n"
        machine.image = sha256(content)
        machine.put(f"images/{machine.image}/qdrant%2Fqdrant:v1.18.3-unprivileged.tar", content)
        machine.settings(PRODUCTION)
        self.fails(self.load(machine), f"the archive {machine.image} has no image {IMAGE}")

    def test_of_the_others_a_failure_only_warns(self):
        machine = self.machine()
        other = machine.put_image("qdrant/qdrant:v1.17.1-unprivileged")
        machine.put(f"images/{other}/qdrant%2Fqdrant:v1.17.1-unprivileged.tar", b"rotten")
        third = "qdrant/qdrant:v1.16.3-unprivileged"
        machine.put_image(third)
        done = self.succeeds(self.others(machine))
        self.assertIn("warning: qdrant/qdrant:v1.17.1-unprivileged was not loaded", done.stderr)
        self.assertEqual(self.images(machine), [third])

    def test_killed_anywhere(self):
        def prepare():
            machine = self.machine()
            machine.put_image("qdrant/qdrant:v1.17.1-unprivileged")
            return machine

        def check(machine):
            for note in (machine.home / "images").glob("[0-9a-f]*"):
                self.assertEqual(len(note.name.split(".")[0]), 64)

        self.cut_everywhere(prepare, self.load, check)
        self.cut_everywhere(prepare, self.others, check)


class Update(Case):
    def newer(self, machine, version="1.1.0", note="newer", changed=None):
        return {"WorkerSha256": machine.put_worker(worker(version)), "BootFilesSha256": machine.put_boot(boot_files(note, changed))}

    def test_there_and_back_and_there(self):
        machine = Machine(self).installed()
        first = machine.picture()
        new = self.newer(machine)
        done = self.succeeds(machine.document(Action="update", **new))
        self.assertRegex(done.stdout, rf"before: host-worker 1\.0\.0, worker {machine.worker}")
        self.assertRegex(done.stdout, rf"after:  host-worker 1\.1\.0, worker {new['WorkerSha256']}, boot files {new['BootFilesSha256']}")
        self.assertEqual((machine.home / "current/boot/note").read_text(), "newer")
        done = self.succeeds(machine.document(Action="rollback"))
        self.assertIn("after:  host-worker 1.0.0", done.stdout)
        now = machine.picture()
        self.assertEqual({name: now[name] for name in first}, first)
        self.succeeds(machine.document(Action="rollback"))
        self.assertEqual(machine.version(), "host-worker 1.1.0")

    def test_nothing_that_runs_is_stopped_or_restarted(self):
        machine = Machine(self).installed()
        self.succeeds(machine.document(Action="update", **self.newer(machine)))
        # A timer of another release may have another time.
        changed = [call for call in machine.called("systemctl") if call[1:] != ["restart", "qdrant-health.timer"]]
        self.assertLessEqual({call[1] for call in changed}, {"daemon-reload", "enable", "start"})

    def test_what_gets_a_name_is_on_the_disk(self):
        machine = Machine(self).installed()
        real, log = shutil.which("sync"), machine.state / "synced"
        (machine.bin / "sync").unlink()
        (machine.bin / "sync").write_text(f'#!/bin/sh\necho "$*" >>{log}\nexec {real} "$@"\n')
        (machine.bin / "sync").chmod(0o755)
        new = self.newer(machine)
        self.succeeds(machine.document(Action="update", **new))
        synced = log.read_text().splitlines()
        release = f"{new['WorkerSha256'][:16]}-{new['BootFilesSha256'][:16]}"
        self.assertIn(f"--file-system {machine.home}/releases/{release}.part", synced)
        written = [machine.root / "etc/qdrant-backup.toml", machine.home / "installed", *(machine.root / "etc/systemd/system" / unit.name for unit in (HOST / "units").iterdir())]
        for file in written:
            self.assertTrue(any(line.startswith(f"{file}.") for line in synced), f"{file} was not synced")

    def test_a_release_that_lost_its_files_is_made_again(self):
        machine = Machine(self).installed()
        (machine.home / "current/boot/install").write_text("")
        self.succeeds(machine.document(Action="update", WorkerSha256=machine.worker, BootFilesSha256=machine.boot))
        self.assertEqual((machine.home / "current/boot/install").read_bytes(), (HOST / "install").read_bytes())

    def test_an_installation_that_installs_nothing_is_no_success(self):
        machine = Machine(self)
        machine.boot = machine.put_boot(boot_files(changed={"install": "#!/bin/sh\n"}))
        machine.settings(PRODUCTION)
        self.succeeds(machine.user_data())
        self.fails(machine.first_boot(), "installed nothing")

    def test_a_unit_of_a_release_that_was_not_installed_goes(self):
        machine = Machine(self).installed()
        more = (HOST / "install").read_text().replace("qdrant-secrets.service qdrant-images.service", "qdrant-more.service qdrant-secrets.service qdrant-images.service", 1)
        self.assertIn("qdrant-more.service", more)
        changed = {"install": more.replace("daemon-reload\n", "daemon-reload\n  exit 1\n", 1), "units/qdrant-more.service": "[Service]\nExecStart=/bin/true\n"}
        self.fails(machine.document(Action="update", **self.newer(machine, changed=changed)), "is again what runs")
        self.assertFalse((machine.root / "etc/systemd/system/qdrant-more.service").exists())
        self.assertIn(["systemctl", "disable", "--now", "qdrant-more.service"], machine.calls())

    def test_the_same_twice_changes_nothing(self):
        machine = Machine(self).installed()
        new = self.newer(machine)
        self.succeeds(machine.document(Action="update", **new))
        before = machine.picture()
        machine.write("calls", "")
        self.succeeds(machine.document(Action="update", **new))
        self.assertEqual(machine.picture(), before)
        self.assertEqual(machine.called("aws"), [])

    def test_only_two_releases_are_kept(self):
        machine = Machine(self).installed()
        for version in ("1.1.0", "1.2.0", "1.3.0"):
            self.succeeds(machine.document(Action="update", **self.newer(machine, version, version)))
        self.assertEqual(len(list((machine.home / "releases").iterdir())), 2)
        self.succeeds(machine.document(Action="rollback"))
        self.assertEqual(machine.version(), "host-worker 1.2.0")

    def test_a_wrong_hash_changes_nothing(self):
        machine = Machine(self).installed()
        before = machine.picture()
        new = self.newer(machine)
        machine.put(f"worker/{new['WorkerSha256']}/host-worker", worker("6.6.6"))
        self.fails(machine.document(Action="update", **new), "has another SHA-256", "was not fetched; nothing was changed")
        self.assertEqual({name: machine.picture()[name] for name in before}, before)
        machine = Machine(self).installed()
        new = self.newer(machine)
        machine.put(f"boot/{new['BootFilesSha256']}/boot.tar.gz", boot_files("forged"))
        self.fails(machine.document(Action="update", **new), "the boot files", "were not fetched; nothing was changed")
        self.assertEqual(machine.version(), "host-worker 1.0.0")
        self.fails(machine.document(Action="update", WorkerSha256="ab" * 32, BootFilesSha256=machine.boot), "Not Found", "was it deployed?")
        self.fails(machine.document(Action="update"), "`none` is no SHA-256")

    def test_a_worker_that_does_not_run_here_is_refused(self):
        machine = Machine(self).installed()
        bad = machine.put_worker(worker("1.1.0", runs=False))
        self.fails(machine.document(Action="update", WorkerSha256=bad, BootFilesSha256=machine.boot), "does not run on this host; nothing was changed")
        self.assertEqual(machine.version(), "host-worker 1.0.0")

    def test_boot_files_that_cannot_be_installed_are_taken_back(self):
        machine = Machine(self).installed()
        self.succeeds(machine.document(Action="update", **self.newer(machine)))
        before = machine.picture()
        new = self.newer(machine, "1.2.0", "bad", {"render-config": "#!/bin/bash\necho 'error: no' >&2; exit 1\n"})
        self.fails(machine.document(Action="update", **new), "was not installed; ", "is again what runs")
        self.assertEqual(machine.version(), "host-worker 1.1.0")
        self.assertEqual({name: machine.picture()[name] for name in before}, before)
        self.succeeds(machine.document(Action="rollback"))
        self.assertEqual(machine.version(), "host-worker 1.0.0")

    def test_a_unit_that_a_release_no_longer_has_goes(self):
        machine = Machine(self).installed()
        install = (HOST / "install").read_text().replace(" qdrant-health.service qdrant-health.timer; fi", "; fi").replace("start qdrant-health.timer", "is-active x || true")
        self.succeeds(machine.document(Action="update", **self.newer(machine, changed={"install": install})))
        self.assertFalse((machine.root / "etc/systemd/system/qdrant-health.timer").exists())
        self.assertIn(["systemctl", "disable", "--now", "qdrant-health.timer"], machine.calls())
        self.succeeds(machine.document(Action="rollback"))
        self.assertTrue((machine.root / "etc/systemd/system/qdrant-health.timer").exists())

    def test_a_damaged_release_is_made_again_and_not_gone_back_to(self):
        machine = Machine(self).installed()
        self.succeeds(machine.document(Action="update", **self.newer(machine)))
        previous = machine.home / os.readlink(machine.home / "previous")
        (previous / "host-worker").write_text("torn")
        self.fails(machine.document(Action="rollback"), "is damaged; nothing was changed")
        self.succeeds(machine.document(Action="update", WorkerSha256=machine.worker, BootFilesSha256=machine.boot))
        self.assertEqual(machine.version(), "host-worker 1.0.0")

    def test_there_is_nothing_to_go_back_to_at_first(self):
        machine = Machine(self).installed()
        self.fails(machine.document(Action="rollback"), "there is nothing to go back to")
        done = self.succeeds(machine.document(Action="show"))
        self.assertIn("current:  host-worker 1.0.0", done.stdout)
        self.assertIn("previous: none", done.stdout)

    def test_a_host_that_is_not_installed_says_so(self):
        self.fails(Machine(self).document(Action="show"), "its first boot has not succeeded yet")

    def test_two_at_once_are_one_too_many(self):
        machine = Machine(self).installed()
        with (machine.home / "lock").open() as lock:
            import fcntl

            fcntl.flock(lock, fcntl.LOCK_EX)
            self.fails(machine.document(Action="rollback"), "another command changes this host")
            # Who looks, changes nothing.
            self.succeeds(machine.document(Action="show"))

    def test_killed_anywhere(self):
        def prepare():
            machine = Machine(self).installed()
            machine.new = self.newer(machine)
            return machine

        def check(machine):
            # The one or the other, and whole.
            self.assertIn(machine.version(), ("host-worker 1.0.0", "host-worker 1.1.0"))
            release = machine.home / os.readlink(machine.home / "current")
            self.assertEqual(sha256((release / "host-worker").read_bytes()), (release / "worker.sha256").read_text().strip())

        self.cut_everywhere(prepare, lambda machine: machine.document(Action="update", **machine.new), check)

    def test_killed_on_the_way_back(self):
        # What is done again after a cut is the update to the former hashes, for a second rollback would go forth again.
        count = 0
        for at in range(1, 40):
            machine = Machine(self).installed()
            self.succeeds(machine.document(Action="update", **self.newer(machine)))
            machine.write("calls", "")
            machine.write("kill-at", at)
            done = machine.document(Action="rollback")
            (machine.state / "kill-at").unlink()
            if done.returncode == 0:
                break
            count += 1
            self.assertEqual(done.returncode, -9)
            self.assertIn(machine.version(), ("host-worker 1.0.0", "host-worker 1.1.0"))
            self.succeeds(machine.document(Action="update", WorkerSha256=machine.worker, BootFilesSha256=machine.boot))
            self.assertEqual(machine.version(), "host-worker 1.0.0")
        self.assertGreater(count, 3)

    def test_a_disk_without_room_changes_nothing(self):
        # 16 MiB stay free: 32 are there, and the worker is of 24.
        machine = Machine(self).installed()
        big = machine.put_worker(worker("1.1.0") + b"# " + os.urandom(24 << 20))
        before = machine.picture()
        (machine.bin / "df").unlink()
        (machine.bin / "df").write_text("#!/bin/sh\necho Avail\necho 33554432\n")
        (machine.bin / "df").chmod(0o755)
        done = machine.document(Action="update", WorkerSha256=big, BootFilesSha256=machine.boot)
        self.fails(done, "has room for", "was not fetched; nothing was changed")
        self.assertEqual(machine.picture(), before)
        self.assertEqual(machine.called("aws", "s3api", "get-object"), [])


class Qdrant(Case):
    NEXT = "qdrant/qdrant:v1.19.0-unprivileged"

    def test_the_image_is_changed_and_qdrant_restarted(self):
        machine = Machine(self).installed()
        self.succeeds(machine.run(machine.home / "current/boot/load-images"))
        archive = machine.put_image(self.NEXT)
        done = self.succeeds(machine.document(Action="image", QdrantImage=self.NEXT, QdrantImageSha256=archive))
        self.assertIn(f"before: {IMAGE}", done.stdout)
        self.assertIn(f"after:  {self.NEXT}", done.stdout)
        self.assertIn(f'\nimage = "{self.NEXT}"\n', (machine.root / "etc/qdrant-backup.toml").read_text())
        self.assertEqual(machine.calls()[-2:], [["systemctl", "stop", "qdrant.service"], ["systemctl", "restart", "--no-block", "qdrant-boot.service"]])
        # And back. Whether data goes back a version is for the worker to say: it does not, and goes on serving with what it has.
        self.succeeds(machine.document(Action="image", QdrantImage=IMAGE, QdrantImageSha256=machine.image))

    def test_an_image_is_changed_to_or_not_wherever_it_is_killed(self):
        def prepare():
            machine = Machine(self).installed()
            self.succeeds(machine.run(machine.home / "current/boot/load-images"))
            machine.write("calls", "")
            machine.archive = machine.put_image(self.NEXT)
            return machine

        def check(machine):
            settings = dict(line.split("=", 1) for line in (machine.root / "etc/qdrant-backup/host.env").read_text().splitlines())
            pair = (settings["QDRANT_IMAGE"], settings["QDRANT_IMAGE_SHA256"])
            self.assertIn(pair, [(IMAGE, machine.image), (self.NEXT, machine.archive)])
            # What is named is there.
            self.assertIn(pair[0], json.loads((machine.state / "docker.json").read_text()))

        self.cut_everywhere(prepare, lambda machine: machine.document(Action="image", QdrantImage=self.NEXT, QdrantImageSha256=machine.archive), check)

    def test_an_image_that_is_not_there_changes_nothing(self):
        machine = Machine(self).installed()
        before = machine.picture()
        self.fails(machine.document(Action="image", QdrantImage=self.NEXT, QdrantImageSha256="ab" * 32), f"{self.NEXT} was not loaded; nothing was changed")
        after = machine.picture()
        settings = "etc/qdrant-backup/host.env"
        lines = sorted((machine.root / settings).read_text().splitlines())
        self.assertIn(f"QDRANT_IMAGE={IMAGE}", lines)
        self.assertIn(f"QDRANT_IMAGE_SHA256={machine.image}", lines)
        self.assertEqual({**after, settings: None}, {**before, settings: None})
        self.assertNotIn(["systemctl", "stop", "qdrant.service"], machine.calls())
        self.fails(machine.document(Action="image"), "`none` is no image with an exact version")

    def test_keys_are_fetched_anew(self):
        machine = Machine(self).installed()
        self.succeeds(machine.run(machine.home / "current/boot/fetch-secrets"))
        machine.put_secret("qdrant-prod/qdrant-api-key", AWSCURRENT=KEY, AWSPENDING=OTHER_KEY)
        done = self.succeeds(machine.document(Action="keys"))
        self.assertIn(f"QDRANT__SERVICE__ALT_API_KEY={OTHER_KEY}", (machine.keys / "qdrant.env").read_text())
        self.assertNotIn(OTHER_KEY, done.stdout + done.stderr + (machine.state / "calls").read_text())
        machine.write("calls", "")
        machine.write("secrets-fail", 1)
        self.fails(machine.document(Action="keys"), "was not read")
        self.assertEqual(machine.called("systemctl", "stop"), [])

    def test_qdrant_is_not_taken_from_under_a_backup(self):
        machine = Machine(self).installed()
        machine.write("busy", "qdrant-backup-backup-0123.service loaded active running qdrant-backup: backup")
        archive = machine.put_image(self.NEXT)
        for parameters in ({"Action": "keys"}, {"Action": "image", "QdrantImage": self.NEXT, "QdrantImageSha256": archive}):
            self.fails(machine.document(**parameters), "a task is at work", "qdrant-backup-backup-0123.service")
        self.assertEqual(machine.called("systemctl", "stop"), [])

    def test_qdrant_is_not_taken_from_under_a_boot_that_restores(self):
        machine = Machine(self).installed()
        machine.write("standing-qdrant-boot.service", "activating")
        self.fails(machine.document(Action="keys"), "still coming up")
        self.assertEqual(machine.called("systemctl", "stop"), [])
        # One that holds may be waiting for just this.
        record = machine.root / "workspace/qdrant/backups/boot.json"
        record.parent.mkdir(parents=True)
        record.write_text('{"step": "serve", "held": {"kind": "ConfigInvalid"}}')
        self.succeeds(machine.document(Action="keys"))
        self.assertEqual(len(machine.called("systemctl", "stop")), 1)

    def test_health_is_told_under_its_namespace(self):
        machine = Machine(self).installed()
        (machine.bin / "host-worker").symlink_to(machine.home / "current/host-worker")
        self.succeeds(machine.run(machine.home / "current/boot/report-health"))
        namespace, metrics = json.loads((machine.state / "metrics").read_text())
        self.assertEqual(namespace, "QdrantBackup/qdrant-prod")
        self.assertEqual(metrics, [{"MetricName": "QdrantReady", "Value": 1}])
        (machine.bin / "host-worker").unlink()
        (machine.bin / "host-worker").symlink_to(shutil.which("false"))
        machine.write("calls", "")
        self.assertNotEqual(machine.run(machine.home / "current/boot/report-health").returncode, 0)
        self.assertEqual(machine.called("aws"), [])


if __name__ == "__main__":
    unittest.main()
