"""What an operator asks of a host: the script of infra/ssm/host-operate.json as an agent runs it, with stand-ins for the programs that it calls."""
import json
import os
import subprocess
import tempfile
import unittest
from pathlib import Path

DOCUMENT = json.loads((Path(__file__).parents[2] / "ssm/host-operate.json").read_text(encoding="utf-8"))
VERBS = {
    "doctor": ["host-worker doctor"],
    "health": ["host-worker health"],
    "acknowledge": ["host-worker acknowledge"],
    "boot": ["systemctl restart --no-block qdrant-boot.service"],
    "log": [
        f"journalctl --no-pager --output=short-iso --lines=40 --unit={unit}"
        for unit in ["qdrant-install", "qdrant-secrets", "qdrant-images", "qdrant", "qdrant-boot", "qdrant-backup-*"]
    ],
}


class Operate(unittest.TestCase):
    def run_as_agent(self, exit_code=0, **variables):
        with tempfile.TemporaryDirectory() as directory:
            bin_, calls = Path(directory) / "bin", Path(directory) / "calls"
            bin_.mkdir()
            for name in ["host-worker", "systemctl", "journalctl"]:
                program = bin_ / name
                program.write_text(f'#!/bin/sh\necho "{name} $*" >>{calls}\nexit {exit_code}\n', encoding="utf-8")
                program.chmod(0o755)
            script = Path(directory) / "_script.sh"
            script.write_text("\n".join(DOCUMENT["mainSteps"][0]["inputs"]["runCommand"]), encoding="utf-8")
            environment = {"PATH": f"{bin_}:{os.defpath}", **{f"SSM_{name}": value for name, value in variables.items()}}
            ended = subprocess.run(["sh", str(script)], env=environment, capture_output=True, text=True, check=False)
            return ended, calls.read_text(encoding="utf-8").splitlines() if calls.exists() else []

    def test_each_verb_is_one_call(self):
        allowed = DOCUMENT["parameters"]["Action"]["allowedPattern"]
        self.assertEqual(allowed, f"^({'|'.join(['doctor', 'health', 'log', 'boot', 'acknowledge'])})$")
        for verb, expected in VERBS.items():
            ended, calls = self.run_as_agent(Action=verb)
            self.assertEqual((ended.returncode, calls), (0, expected), ended.stderr)

    def test_no_failure_reboots_the_host(self):
        for verb in VERBS.keys() - {"log"}:
            # 194 has the agent reboot the host and run the script again.
            for code in [194, 1, 3]:
                ended, _ = self.run_as_agent(code, Action=verb)
                self.assertEqual(ended.returncode, 1, verb)

    def test_an_old_agent_and_an_unknown_verb_do_nothing(self):
        ended, calls = self.run_as_agent()
        self.assertIn("agent is too old", ended.stderr)
        self.assertEqual((ended.returncode != 0, calls), (True, []))
        ended, calls = self.run_as_agent(Action="rm -rf /; doctor")
        self.assertEqual((ended.returncode, calls), (1, []))


if __name__ == "__main__":
    unittest.main()
