"""The scripts, run whole with stand-ins for every program that they call: what they ask for, what they refuse, and what a second run does after a first that broke off."""
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[2]

PARAMETERS = {
    "VpcId": "vpc-0123456789abcdef0",
    "SubnetId": "subnet-0123456789abcdef0",
    "PrivateIp": "10.0.2.15",
    "RayIndexingSecurityGroupId": "sg-0123456789abcdef0",
    "RayInferenceSecurityGroupId": "sg-0123456789abcdef1",
    "RouteTableIds": "rtb-0123456789abcdef0,rtb-0123456789abcdef1",
}
IMAGE = "qdrant/qdrant:v1.18.3-unprivileged"
ARTIFACTS = "qdrant-prod-artifacts-111122223333-eu-west-1"


def setUpModule():
    """The stand-in is started some thirty times by each test: by this interpreter, and without looking for packages."""
    global STAND_IN
    STAND_IN = pathlib.Path(tempfile.mkdtemp()) / "stand-in"
    text = (HERE / "stand-in").read_text().split("\n", 1)[1]
    STAND_IN.write_text(f"#!{os.path.realpath(sys.executable)} -IS\n{text}")
    STAND_IN.chmod(0o755)
    unittest.addModuleCleanup(shutil.rmtree, STAND_IN.parent)


class Scripts(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)
        self.root, self.home = self.folder / "repository", self.folder / "home"
        shutil.copytree(ROOT / "infra", self.root / "infra", ignore=shutil.ignore_patterns("node_modules", "__pycache__"))
        # Boot files as they are, or ones of this test's own where only the scripts are there.
        (self.root / "infra/host/units").mkdir(parents=True, exist_ok=True)
        (self.root / "infra/host/units/one.service").write_text("[Service]\n")
        (self.root / "infra/host/tests").mkdir(exist_ok=True)
        (self.home / "bin").mkdir(parents=True)
        (self.home / "rust").mkdir()
        (self.home / "rust/libstd-1.rlib").touch()
        for program in ["aws", "docker", "cargo", "rustc", "zig"]:
            (self.home / "bin" / program).symlink_to(STAND_IN)
        (self.home / "make-image").symlink_to(HERE / "make-image")
        self.world = {
            "failures": [], "stacks": {}, "objects": [], "buckets": [], "events": {}, "missing": {}, "machine": "b700", "glibc": "GLIBC_2.30", "saves": 0,
            "subnet": ["vpc-0123456789abcdef0", "eu-west-1b", "10.0.2.0/24"], "interface": "", "not_offered": [], "staging": "", "production": "i-0aaa",
            "deletion": ["DELETE_IN_PROGRESS", "DELETE_COMPLETE"], "change_set": {}, "command": {},
        }
        self.parameters(**PARAMETERS)

    def parameters(self, text="", **values):
        lines = [f"{key}={value}" for key, value in values.items()]
        (self.root / "my.parameters").write_text("# a deployment\n\n" + "\n".join(lines) + "\n" + text)

    def run_script(self, script, *args, stdin="", **environment):
        (self.home / "world.json").write_text(json.dumps(self.world))
        (self.home / "calls").write_text("")
        path = f"{self.home / 'bin'}:{os.environ['PATH']}"
        run = subprocess.run(
            [self.root / "infra/scripts" / script, *args], cwd=self.root, input=stdin, text=True, timeout=60, check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env={"PATH": path, "HOME": str(self.home), "STAND_IN_HOME": str(self.home), "POLL_SECONDS": "0", "STACK": "qdrant-prod", "PARAMS": "my.parameters", **environment},
        )
        self.world = json.loads((self.home / "world.json").read_text())
        self.calls = [json.loads(line) for line in (self.home / "calls").read_text().splitlines()]
        self.output = run.stdout
        return run.returncode

    def right(self, script, *args, **options):
        self.assertEqual(self.run_script(script, *args, **options), 0, self.output)

    def refused(self, message, script, *args, **options):
        self.assertNotEqual(self.run_script(script, *args, **options), 0, self.output)
        self.assertIn(message, self.output)

    def called(self, *words):
        return [call for call in self.calls if all(word in " ".join(call) for word in words)]

    def packaged(self):
        self.right("package")

    def deployed(self):
        self.packaged()
        self.right("deploy")


class Package(Scripts):
    def test_builds_all_for_arm64_and_says_the_hashes(self):
        self.right("package")
        builds = self.called("cargo lambda build")
        self.assertEqual(len(builds), 2)
        for build in builds:
            self.assertIn("--arm64", build)
            self.assertIn("--locked", build)
        sums = (self.root / "target/package/SHA256SUMS").read_text()
        self.assertEqual(len(sums.splitlines()), 6)
        checked = subprocess.run(["sha256sum", "--check", "--quiet", "package/SHA256SUMS"], cwd=self.root / "target", check=False)
        self.assertEqual(checked.returncode, 0)

    def test_boot_files_are_the_same_bytes_whenever_and_by_whomever_they_are_packed(self):
        self.right("package")
        first = (self.root / "target/package/boot.tar.gz").read_bytes()
        unit = self.root / "infra/host/units/one.service"
        os.utime(unit, (1, 1))
        unit.chmod(0o600)
        self.right("package")
        self.assertEqual(first, (self.root / "target/package/boot.tar.gz").read_bytes())
        listed = subprocess.run(["tar", "tzf", self.root / "target/package/boot.tar.gz"], capture_output=True, text=True, check=True).stdout.split()
        self.assertIn("./units/one.service", listed)
        self.assertEqual([name for name in listed if "tests" in name], [])
        unit.write_text("[Service]\nType=oneshot\n")
        self.right("package")
        self.assertNotEqual(first, (self.root / "target/package/boot.tar.gz").read_bytes())

    def test_says_all_that_is_missing_at_once_and_builds_nothing(self):
        self.world["missing"] = {"rustc": str(self.home / "nowhere"), "cargo-lambda": "", "zig": ""}
        # Python's zig must not be found either.
        (self.home / "bin/python3").write_text("#!/bin/sh\nexit 1\n")
        (self.home / "bin/python3").chmod(0o755)
        for program in ["cargo", "rustc", "zig"]:
            (self.home / "bin" / program).unlink()
            (self.home / "bin" / program).write_text("#!/bin/sh\nexit 1\n")
            (self.home / "bin" / program).chmod(0o755)
        self.refused("rustup target add aarch64-unknown-linux-gnu", "package")
        self.assertIn("pip install cargo-lambda", self.output)
        self.assertIn("pip install ziglang", self.output)
        self.assertFalse((self.root / "target").exists())

    def test_refuses_a_worker_for_another_machine_or_a_newer_system(self):
        self.world["machine"] = "3e00"
        self.refused("is not for arm64", "package")
        self.world["machine"], self.world["glibc"] = "b700", "GLIBC_2.4 GLIBC_2.38"
        self.refused("needs glibc 2.38", "package")

    def test_a_build_that_fails_leaves_no_package(self):
        self.world["failures"] = [{"call": "--package host-worker", "says": "error: linking failed", "code": 101}]
        self.refused("linking failed", "package")
        self.assertFalse((self.root / "target/package/SHA256SUMS").exists())


class Parameters(Scripts):
    def check(self, message, text="", **values):
        self.parameters(text, **{**PARAMETERS, **values})
        self.refused(message, "deploy")
        self.assertEqual(self.called("cloudformation deploy"), [])

    def test_the_file_is_read_strictly(self):
        self.check("line 9 is no Key=Value: InstanceType: c8gd.large", "InstanceType: c8gd.large\n")
        self.check("there is no parameter InstanceTyp", InstanceTyp="c8gd.large")
        self.check("line 9: PrivateIp is given twice, first in line 5", "PrivateIp=10.0.2.16\n")
        self.check("WorkerSha256 is filled in by make deploy", WorkerSha256="0" * 64)
        self.check("a comment has a line of its own", RtoSeconds="7200 # two hours")
        self.parameters(**{key: value for key, value in PARAMETERS.items() if key != "PrivateIp"})
        self.refused("does not say PrivateIp, which has no default", "deploy")
        self.refused("cannot be read", "deploy", PARAMS="nowhere")
        self.refused("PARAMS is missing", "deploy", PARAMS="")

    def test_the_name_is_checked_before_anything(self):
        for name in ["", "Qdrant", "q", "1qdrant", "qdrant_prod", "q" * 25, "qdrant prod"]:
            self.refused("STACK", "deploy", STACK=name)
            self.assertEqual(self.calls, [])

    def test_numbers_and_keys_are_compared(self):
        self.check("ObjectLockDays=60 is longer than NoncurrentDays=30", ObjectLockMode="GOVERNANCE", ObjectLockDays="60")
        self.check("is in the folder of the archives", Prefix="data", SuccessMarkerKey="data/_SUCCESS.json")
        self.check("is below SuccessMarkerKey", Prefix="data/marker/archives", SuccessMarkerKey="data/marker")
        self.check("RpoSeconds=86400 is no longer than the time between two backups", RpoSeconds="86400")
        self.check("NoncurrentDays=7 is too short", BackupSchedule="weekly", NoncurrentDays="7", RpoSeconds="700000")
        self.check("RtoSeconds=two is no whole number", RtoSeconds="two")
        self.check("does not name an exact version", QdrantImage="qdrant/qdrant:latest")

    def test_the_network_is_looked_at(self):
        self.packaged()
        self.check("is a subnet of vpc-0123456789abcdef0, not of VpcId=vpc-0fedcba9876543210", VpcId="vpc-0fedcba9876543210")
        self.check("AvailabilityZone=eu-west-1a is not that of SubnetId", AvailabilityZone="eu-west-1a")
        for address in ["10.0.3.15", "10.0.2.3", "10.0.2.255"]:
            self.check("is not an address that can be given", PrivateIp=address)
        self.world["interface"] = "eni-0aaa\tNone"
        self.check("PrivateIp=10.0.2.15 is taken by eni-0aaa")
        self.world["interface"] = ""
        self.world["not_offered"] = ["c8gd.2xlarge"]
        self.check("the zone eu-west-1b has no c8gd.2xlarge")

    def test_the_example_is_right_as_it_stands(self):
        self.packaged()
        example = (ROOT / "infra/parameters.example").read_text()
        # What is commented out is right as well.
        (self.root / "my.parameters").write_text(re.sub(r"(?m)^#(?=[A-Za-z0-9]+=)", "", example).replace("RouteTableIds=rtb-0123456789abcdef0\n", ""))
        self.right("deploy")
        self.assertEqual(self.world["stacks"]["qdrant-prod"]["parameters"]["Endpoints"], "existing")
        (self.root / "my.parameters").write_text(example)
        self.right("deploy")

    def test_a_lock_that_is_off_is_not_compared(self):
        self.packaged()
        self.parameters(**PARAMETERS, ObjectLockDays="60")
        self.right("deploy")


class Deploy(Scripts):
    def test_a_first_deployment(self):
        self.packaged()
        self.right("deploy")
        deployments = self.called("cloudformation deploy")
        self.assertEqual([call[call.index("--stack-name") + 1] for call in deployments], ["qdrant-prod-artifacts", "qdrant-prod"])
        self.assertIn("CAPABILITY_NAMED_IAM", deployments[1])
        self.assertIn("CAPABILITY_AUTO_EXPAND", deployments[1])
        given = self.world["stacks"]["qdrant-prod"]["parameters"]
        self.assertEqual(given["AvailabilityZone"], "eu-west-1b")
        self.assertEqual(given["ArtifactBucket"], ARTIFACTS)
        self.assertEqual(given["RouteTableIds"], PARAMETERS["RouteTableIds"])
        self.assertEqual(given["ReplicaBucketArn"], "")
        worker, boot, image = (given[key] for key in ["WorkerSha256", "BootFilesSha256", "QdrantImageSha256"])
        expected = {f"worker/{worker}/host-worker", f"boot/{boot}/boot.tar.gz", f"images/{image}/qdrant%2Fqdrant:v1.18.3-unprivileged.tar"}
        self.assertEqual(set(self.world["objects"]), expected)
        self.assertIn("QdrantUrl\thttp://10.0.2.15:6333", self.output)
        self.assertIn("take the first backup", self.output)

    def test_every_parameter_of_the_template_is_given_so_that_a_removed_line_is_the_default_again(self):
        import yaml

        class Loader(yaml.SafeLoader):
            pass

        Loader.add_multi_constructor("!", lambda loader, suffix, node: None)
        template = yaml.load((ROOT / "infra/template.yaml").read_text(), Loader)["Parameters"]
        self.parameters(**PARAMETERS, RtoSeconds="600")
        self.deployed()
        given = self.world["stacks"]["qdrant-prod"]["parameters"]
        self.assertEqual(set(given), set(template))
        self.assertEqual(given["RtoSeconds"], "600")
        self.parameters(**PARAMETERS)
        self.right("deploy")
        given = self.world["stacks"]["qdrant-prod"]["parameters"]
        for name, parameter in template.items():
            if "Default" in parameter and name not in PARAMETERS:
                self.assertEqual(given[name], str(parameter["Default"]), name)

    def test_a_second_run_uploads_nothing_and_needs_no_docker(self):
        self.deployed()
        before = self.world["stacks"]["qdrant-prod"]["parameters"]
        shutil.rmtree(self.root / "target/images")
        self.right("deploy")
        self.assertEqual(self.called("s3 cp"), [])
        self.assertEqual(self.called("docker"), [])
        self.assertEqual(self.world["stacks"]["qdrant-prod"]["parameters"], before)
        self.assertIn("The running host has not been touched", self.output)

    def test_a_run_that_broke_off_is_gone_on_with(self):
        self.packaged()
        for call, message in [("s3 cp --only-show-errors target/package/boot", "could not be uploaded"), ("cloudformation package", "could not be packaged")]:
            self.world["failures"] = [{"call": call, "says": "Could not connect to the endpoint URL"}]
            self.refused(message, "deploy")
            self.assertIn("run the same command again", self.output)
            self.assertNotIn("qdrant-prod", self.world["stacks"])
        self.right("deploy")
        # The worker and the boot files went up before, and the image was saved once.
        self.assertEqual(self.called("s3 cp"), [])
        self.assertEqual(self.world["saves"], 1)

    def test_an_image_that_was_not_saved_whole_is_not_taken(self):
        self.packaged()
        self.world["failures"] = [{"call": "docker save", "says": "no space left on device"}]
        self.refused("could not be saved", "deploy")
        self.assertEqual(list((self.root / "target/images").glob("*.tar")), [])
        self.right("deploy")

    def test_what_cannot_be_looked_at_is_not_taken_for_absent(self):
        self.packaged()
        self.world["failures"] = [{"call": "s3api head-object", "says": "An error occurred (403) when calling the HeadObject operation: Forbidden"}]
        self.refused("cannot be looked at", "deploy")
        self.assertEqual(self.called("s3 cp"), [])
        self.world["failures"] = [{"call": "describe-stacks --stack-name qdrant-prod", "says": "An error occurred (AccessDenied)", "times": 9}]
        self.refused("cannot be looked at", "deploy")
        self.assertEqual(self.called("cloudformation deploy"), [])

    def test_a_failed_stack_says_why(self):
        self.packaged()
        self.world["failures"] = [{"call": "--stack-name qdrant-prod --template-file", "then": {"qdrant-prod": {"status": "ROLLBACK_COMPLETE", "parameters": {}}}}]
        self.world["events"] = {"qdrant-prod-Host-Y": [["CREATE_FAILED", "2026-11-28T10:00:00Z\tGroup\tAWS::AutoScaling::AutoScalingGroup\tno capacity"]]}
        self.refused("no capacity", "deploy")
        self.refused("is ROLLBACK_COMPLETE", "deploy")
        self.assertIn("make destroy STACK=qdrant-prod", self.output)
        self.assertEqual(self.called("cloudformation deploy"), [])

    def test_what_is_under_way_is_waited_for(self):
        self.deployed()
        self.world["stacks"]["qdrant-prod"].update(status="UPDATE_IN_PROGRESS", next=["UPDATE_IN_PROGRESS", "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS", "UPDATE_COMPLETE"])
        self.right("deploy")
        self.assertIn("is UPDATE_IN_PROGRESS; waiting", self.output)

    def test_a_bucket_of_a_destroyed_stack_is_not_deployed_over(self):
        self.packaged()
        self.world["buckets"] = ["qdrant-prod-backups-111122223333-eu-west-1"]
        self.refused("left from one that was destroyed", "deploy")
        self.assertEqual(self.called("cloudformation deploy"), [])

    def test_without_packages_it_says_what_to_run(self):
        self.refused("make package", "deploy")

    def test_an_archive_that_a_person_has_is_looked_into(self):
        self.packaged()
        archive = self.root / "qdrant.tar"

        def make(image, architecture):
            subprocess.run([HERE / "make-image", archive, image, architecture], check=True)

        make(IMAGE, "amd64")
        self.refused("is not for arm64", "deploy", QDRANT_IMAGE_ARCHIVE="qdrant.tar")
        make("qdrant/qdrant:v1.17.0", "arm64")
        self.refused(f"does not have the image {IMAGE}", "deploy", QDRANT_IMAGE_ARCHIVE="qdrant.tar")
        archive.write_text("no archive")
        self.refused("is no archive of docker save", "deploy", QDRANT_IMAGE_ARCHIVE="qdrant.tar")
        make("docker.io/" + IMAGE, "arm64")
        self.right("deploy", QDRANT_IMAGE_ARCHIVE="qdrant.tar")
        self.assertEqual(self.called("docker"), [])

    def test_another_image_for_once_is_said_aloud(self):
        self.packaged()
        self.right("deploy", QDRANT_IMAGE="qdrant/qdrant:v1.18.4-unprivileged")
        self.assertIn("write it into my.parameters", self.output)
        self.assertEqual(self.world["stacks"]["qdrant-prod"]["parameters"]["QdrantImage"], "qdrant/qdrant:v1.18.4-unprivileged")

    def test_a_region_that_is_given_is_used_everywhere(self):
        self.packaged()
        self.right("deploy", REGION="eu-central-1")
        for call in self.called("aws"):
            self.assertEqual(call[1:3], ["--region", "eu-central-1"], call)


class DryRun(Scripts):
    def changes_nothing(self):
        for call in self.calls:
            self.assertFalse({"deploy", "cp", "execute-change-set", "update-stack"} & set(call), call)

    def test_without_a_bucket_it_says_so(self):
        self.packaged()
        self.right("deploy", DRY_RUN="1")
        self.assertIn("qdrant-prod-artifacts would be made first", self.output)
        self.changes_nothing()

    def test_nested_changes_are_shown_and_nothing_stays(self):
        self.deployed()
        self.world["change_set"] = {
            "states": ["CREATE_PENDING", "CREATE_COMPLETE"],
            "changes": {"root": ["Modify\tFalse\tAWS::CloudFormation::Stack\tHost\tnested", "Add\tNone\tAWS::SNS::Topic\tTopic\tNone"],
                        "nested": ["Modify\tTrue\tAWS::EC2::LaunchTemplate\tProduction\tNone"]},
        }
        self.parameters(**PARAMETERS, QdrantMemory="24GiB")
        self.right("deploy", DRY_RUN="1")
        self.assertIn("  Modify Host (AWS::CloudFormation::Stack)\n    Modify Production (AWS::EC2::LaunchTemplate), REPLACED\n", self.output)
        self.assertEqual(self.world["change_set_parameters"]["QdrantMemory"], "24GiB")
        self.assertEqual(self.world["change_set_parameters"]["RouteTableIds"], PARAMETERS["RouteTableIds"])
        self.assertEqual(len(self.called("delete-change-set")), 1)
        self.assertEqual(self.called("delete-stack"), [])
        self.changes_nothing()

    def test_no_change_is_no_failure(self):
        self.deployed()
        self.world["change_set"] = {"states": ["FAILED"], "reason": "The submitted information didn't contain changes. Submit different information.", "changes": {}}
        self.right("deploy", DRY_RUN="1")
        self.assertTrue(self.output.rstrip().endswith("nothing"))

    def test_a_change_set_that_cannot_be_made_is_a_failure(self):
        self.deployed()
        self.world["change_set"] = {"states": ["FAILED"], "reason": "LockEndsBefore30Days failed", "changes": {}}
        self.refused("LockEndsBefore30Days failed", "deploy", DRY_RUN="1")

    def test_a_stack_that_is_only_looked_at_is_not_left_under_review(self):
        self.deployed()
        del self.world["stacks"]["qdrant-prod"]
        self.world["change_set"] = {"changes": {"root": ["Add\tNone\tAWS::CloudFormation::Stack\tStorage\tNone"]}}
        self.right("deploy", DRY_RUN="1")
        self.assertEqual(self.called("create-change-set")[0][self.called("create-change-set")[0].index("--change-set-type") + 1], "CREATE")
        self.assertEqual(len(self.called("delete-stack")), 1)


class Destroy(Scripts):
    def test_asks_for_the_name(self):
        self.deployed()
        for typed in ["", "y\n", "qdrant\n"]:
            self.refused("nothing was deleted", "destroy", stdin=typed)
            self.assertEqual(self.called("delete-stack"), [])

    def test_deletes_and_says_what_stays(self):
        self.deployed()
        self.world["events"] = {"qdrant-prod-Storage-X": [["DELETE_SKIPPED", "AWS::S3::Bucket\tqdrant-prod-backups-111122223333-eu-west-1"]]}
        self.right("destroy", stdin="qdrant-prod\n")
        self.assertEqual(len(self.called("delete-stack")), 1)
        self.assertIn("  AWS::S3::Bucket\tqdrant-prod-backups-111122223333-eu-west-1", self.output)
        self.assertIn("qdrant-prod-artifacts-111122223333-eu-west-1", self.output)

    def test_a_deletion_that_fails_says_why(self):
        self.deployed()
        self.world["deletion"] = ["DELETE_IN_PROGRESS", "DELETE_FAILED"]
        self.world["events"] = {"qdrant-prod-Host-Y": [["DELETE_FAILED", "2026-11-28T10:00:00Z\tEni\tAWS::EC2::NetworkInterface\tin use"]]}
        self.refused("in use", "destroy", stdin="qdrant-prod\n")

    def test_waits_for_no_drill_and_deletes_nothing_under_it(self):
        self.deployed()
        self.world["staging"] = "i-0drill"
        self.refused("a drill has a host (i-0drill)", "destroy", stdin="qdrant-prod\n")
        self.assertEqual(self.called("delete-stack"), [])

    def test_no_stack(self):
        self.refused("there is no stack qdrant-prod", "destroy", stdin="qdrant-prod\n")


class Makefile(Scripts):
    def make(self, *args):
        return subprocess.run(["make", "--silent", *args], cwd=ROOT, capture_output=True, text=True, check=False)

    def test_help_has_every_target(self):
        said = self.make().stdout
        targets = re.findall(r"(?m)^([a-z-]+):", (ROOT / "Makefile").read_text())
        self.assertGreaterEqual(len(targets), 9)
        for target in targets:
            self.assertIn(f"  make {target} ", said)

    def test_variables_reach_the_scripts(self):
        run = self.make("deploy", "STACK=Nobody", "PARAMS=nothing")
        self.assertNotEqual(run.returncode, 0)
        self.assertIn("STACK=Nobody cannot be the name of a stack", run.stderr)


class Host(Scripts):
    def setUp(self):
        super().setUp()
        self.deployed()
        self.world["command"] = {"states": ["Pending", "InProgress", "Success"], "out": "installed 1.2.3", "error": ""}

    def test_an_update_hands_over_what_was_deployed(self):
        self.right("host", "update")
        (sent,) = self.called("ssm send-command")
        given = self.world["stacks"]["qdrant-prod"]["parameters"]
        self.assertIn("qdrant-prod-host-update", sent)
        handed = json.loads(sent[sent.index("--parameters") + 1])
        self.assertEqual(handed, {"Action": ["update"], "WorkerSha256": [given["WorkerSha256"]], "BootFilesSha256": [given["BootFilesSha256"]]})
        self.assertIn("installed 1.2.3", self.output)

    def test_an_image_is_that_of_the_deployment(self):
        self.right("host", "image")
        (sent,) = self.called("ssm send-command")
        handed = json.loads(sent[sent.index("--parameters") + 1])
        image = self.world["stacks"]["qdrant-prod"]["parameters"]["QdrantImageSha256"]
        self.assertEqual(handed, {"Action": ["image"], "QdrantImage": [IMAGE], "QdrantImageSha256": [image]})

    def test_the_others_name_no_version(self):
        verbs = {"host-update": ["show", "rollback", "keys"], "host-operate": ["doctor", "health", "log", "boot", "acknowledge"]}
        for document, verb in [(document, verb) for document, of in verbs.items() for verb in of]:
            self.world["command"] = {"states": ["Success"], "out": "", "error": ""}
            self.right("host", verb)
            (sent,) = self.called("ssm send-command")
            self.assertIn(f"qdrant-prod-{document}", sent)
            self.assertEqual(json.loads(sent[sent.index("--parameters") + 1]), {"Action": [verb]})
        self.refused("what is to be done?", "host", "restart")

    def test_a_deployment_by_hand_that_names_no_worker_is_no_update(self):
        del self.world["stacks"]["qdrant-prod"]["parameters"]["WorkerSha256"]
        self.refused("does not say which WorkerSha256 it has", "host", "update")
        self.assertEqual(self.called("ssm send-command"), [])

    def test_a_failure_on_the_host_is_one_here(self):
        for state in ["Failed", "TimedOut", "Cancelled", "Undeliverable"]:
            self.world["command"] = {"states": ["InProgress", state], "out": "", "error": "a backup is running"}
            self.refused("a backup is running", "host", "update")
            self.assertIn(f"ended as {state}", self.output)

    def test_exactly_one_host(self):
        for hosts, count in [("", 0), ("None", 0), ("i-0aaa\ti-0bbb", 2)]:
            self.world["production"] = hosts
            self.refused(f"there are {count} running hosts", "host", "update")
            self.assertEqual(self.called("ssm send-command"), [])

    def test_without_end_it_gives_up(self):
        self.world["command"] = {"states": ["InProgress"] * 3, "out": "", "error": ""}
        self.refused("is still InProgress", "host", "update", LOOKS="3")


if __name__ == "__main__":
    unittest.main()
