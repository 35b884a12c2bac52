"""moto's Step Functions as a process of its own, for `tests/localcloud/tests/cross_check`.

Prints its URL on one line when it serves, and serves until it is killed. What is changed in moto, and why, stands at each patch.
"""

import argparse
import datetime
import json
import logging
import os
import re
import sys
import threading
import time
import urllib.error
import urllib.request
from types import SimpleNamespace

arguments = argparse.ArgumentParser(description=__doc__)
arguments.add_argument("--endpoint", required=True, help="who invokes the functions and carries SDK integrations out")
arguments.add_argument("--divisor", type=float, default=1.0, help="by what waits, time-outs and heartbeats are divided")
options = arguments.parse_args()

# The account in the substitutions of the embedded cloud.
os.environ["MOTO_ACCOUNT_ID"] = "000000000000"

import boto3  # noqa: E402
from botocore.config import Config  # noqa: E402
from moto.core.config import default_user_config  # noqa: E402
from moto.server import ThreadedMotoServer  # noqa: E402
from moto.stepfunctions.parser.asl.component.common.retry import retrier_decl  # noqa: E402
from moto.stepfunctions.parser.asl.component.common.timeouts.heartbeat import HeartbeatSeconds  # noqa: E402
from moto.stepfunctions.parser.asl.component.common.timeouts.timeout import TimeoutSeconds  # noqa: E402
from moto.stepfunctions.parser.asl.component.state.choice.comparison.operator.implementations.is_operator import (  # noqa: E402
    IsTimestamp,
)
from moto.stepfunctions.parser.asl.component.state.exec.state_task import lambda_eval_utils  # noqa: E402
from moto.stepfunctions.parser.asl.component.state.exec.state_task.service import (  # noqa: E402
    state_task_service_aws_sdk,
    state_task_service_callback,
)
from moto.stepfunctions.parser.asl.component.state.exec.state_task.service.resource import (  # noqa: E402
    ResourceCondition,
)
from moto.stepfunctions.parser.asl.component.state.wait.wait_function.wait_function import WaitFunction  # noqa: E402
from moto.stepfunctions.parser.asl.utils import json_path  # noqa: E402
from moto.stepfunctions.parser.backend import execution_worker  # noqa: E402


def divide_time(divisor: float) -> None:
    """Time runs faster by a factor, as in the embedded cloud. The definition is not touched: what it says is divided where it is used."""
    timeout_seconds = TimeoutSeconds._eval_seconds
    heartbeat_seconds = HeartbeatSeconds._eval_seconds
    TimeoutSeconds._eval_seconds = lambda self, env: timeout_seconds(self, env) / divisor
    HeartbeatSeconds._eval_seconds = lambda self, env: heartbeat_seconds(self, env) / divisor
    # The retrier's own `time`, so that nobody else's sleep is shortened.
    retrier_decl.time = SimpleNamespace(sleep=lambda seconds: time.sleep(seconds / divisor))

    def wait_interval(self, env, wait_seconds):
        # moto's own goes by whole seconds.
        until = time.monotonic() + wait_seconds / divisor
        while env.is_running() and (left := until - time.monotonic()) > 0:
            env.program_state_event.wait(left)

    WaitFunction._wait_interval = wait_interval


def give_every_attempt_a_token() -> None:
    """moto makes one token for a state and keeps its outcome, so that a retry fails at once with the failure before it. On AWS every attempt has its own."""
    callback = state_task_service_callback.StateTaskServiceCallback
    eval_execution = callback._eval_execution

    def eval_with_token(self, env):
        if self.resource.condition == ResourceCondition.WaitForTaskToken:
            env.callback_pool_manager.add(env.states.context_object.update_task_token())
        return eval_execution(self, env)

    callback._eval_execution = eval_with_token


def hear_early_answers() -> None:
    """moto listens only once the function has returned, and waits for a heartbeat although the answer is there. A worker may be done before the function that
    handed it the task."""
    callback = state_task_service_callback.StateTaskServiceCallback
    wait = callback._wait_for_task_token_heartbeat

    def heard_or_wait(self, env, callback_endpoint, heartbeat_endpoint):
        return callback_endpoint.get_outcome() or wait(self, env, callback_endpoint, heartbeat_endpoint)

    callback._wait_for_task_token_heartbeat = heard_or_wait


def invoke_functions_at(endpoint: str) -> None:
    """moto invokes functions of its own, in Docker. The functions here are the project's, behind the same API."""

    def client(region, service, state_credentials=None):
        del service, state_credentials
        return boto3.client(
            "lambda",
            region_name=region,
            aws_access_key_id="cross",
            aws_secret_access_key="check",
            endpoint_url=endpoint,
            config=Config(parameter_validation=False, retries={"total_max_attempts": 1}, read_timeout=600),
        )

    lambda_eval_utils.boto_client_for = client


class ServiceFailure(Exception):
    """What a service of the embedded cloud refused, by the name that AWS has for it."""

    def __init__(self, error: str, cause: str):
        super().__init__(f"{error}: {cause}")
        self.error = error
        self.cause = cause


def call_services_at(endpoint: str) -> None:
    """moto calls its own services by boto3, whose answers have times that its history cannot write, and names their errors `ec2.ec2Exception`. The services here
    are the embedded cloud's, where a launched instance is a host with a worker."""
    service = state_task_service_aws_sdk.StateTaskServiceAwsSdk
    from_error = service._from_error

    def eval_service_task(self, env, resource_runtime_part, normalised_parameters, state_credentials):
        del resource_runtime_part, state_credentials
        request = urllib.request.Request(
            f"{endpoint}/aws-sdk/{self.resource.api_name}/{self.resource.api_action}",
            data=json.dumps(normalised_parameters).encode(),
            headers={"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=600) as answer:
                env.stack.append(json.load(answer))
        except urllib.error.HTTPError as refusal:
            failure = json.load(refusal)
            raise ServiceFailure(failure["error"], failure["cause"]) from refusal

    def event_of(self, env, ex):
        if isinstance(ex, ServiceFailure):
            return self._get_task_failure_event(env=env, error=ex.error, cause=ex.cause)
        return from_error(self, env=env, ex=ex)

    service._eval_service_task = eval_service_task
    service._from_error = event_of


def find_one_node() -> None:
    """moto makes a list of what a path finds right below an item of an array (`$.a[0].b`). A path without wildcards finds one node, and that is its value."""
    extract_json = json_path.extract_json

    def extract(path, data):
        if re.fullmatch(r"\$(\.[\w-]+|\['[^']*'\]|\[\d+\])*", path) is None:
            return extract_json(path, data)
        matches = json_path.parse(path).find(data)
        if not matches:
            raise json_path.NoSuchJsonPathError(json_path=path, data=data)
        return matches[0].value

    for module in list(sys.modules.values()):
        if getattr(module, "extract_json", None) is extract_json:
            module.extract_json = extract


def write_times_as_text() -> None:
    """`$$.Execution.StartTime` is an object of Python's in moto, which no service takes and no comparison knows; and moto compares times only by whole seconds."""
    execution_data = execution_worker.ExecutionData

    def with_text(**fields):
        started = fields["StartTime"].astimezone(datetime.timezone.utc)
        return execution_data(**{**fields, "StartTime": started.strftime("%Y-%m-%dT%H:%M:%S.%fZ")})

    def string_to_timestamp(string):
        try:
            return datetime.datetime.fromisoformat(string)
        except (TypeError, ValueError):
            return None

    execution_worker.ExecutionData = with_text
    IsTimestamp.string_to_timestamp = staticmethod(string_to_timestamp)


def serve() -> str:
    default_user_config["stepfunctions"] = {"execute_state_machine": True}
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    # Where moto's own tasks (SNS) call back to.
    os.environ["MOTO_PORT"] = str(port)
    endpoint = f"http://{host}:{port}"
    credentials = {"region_name": "us-east-1", "aws_access_key_id": "cross", "aws_secret_access_key": "check"}
    boto3.client("sns", endpoint_url=endpoint, **credentials).create_topic(Name="qdrant-backup-alarms")
    return endpoint


# A line for every call would bury what the tests say.
logging.getLogger("werkzeug").setLevel(logging.ERROR)
divide_time(options.divisor)
give_every_attempt_a_token()
hear_early_answers()
invoke_functions_at(options.endpoint)
call_services_at(options.endpoint)
find_one_node()
write_times_as_text()
print(serve(), flush=True)
threading.Event().wait()
