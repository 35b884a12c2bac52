"""The whole deployment on moto: by `infra/scripts/deploy`, read back by the services' own calls, deployed again, and destroyed."""
import logging
import pathlib
import sys
import tempfile
import warnings

from moto.cloudformation import models, parsing
from moto.server import ThreadedMotoServer

import deployment
import filter as visible_filter
import readback

# moto creates nothing for these and says nothing.
PASSED_OVER = [
    "AWS::CloudWatch::Alarm",
    "AWS::Scheduler::Schedule",
    "AWS::SNS::Subscription",
    "AWS::SNS::TopicPolicy",
    "AWS::SQS::QueuePolicy",
    "AWS::SecretsManager::ResourcePolicy",
    "AWS::SecretsManager::Secret",
]


def changed():
    """What is changed in moto, which is otherwise run as it is."""
    # It deploys nested stacks, and does not know what they put out.
    models.Stack.get_cfn_attribute = lambda stack, name: stack.output_map[name.removeprefix("Outputs.")].value

    # AWS::NoValue in a list is nothing, and not an element that is null.
    original = parsing.clean_json

    def clean_json(node, resources):
        cleaned = original(node, resources)
        return [one for one in cleaned if one is not None] if isinstance(node, list) else cleaned

    parsing.clean_json = clean_json


def main():
    changed()
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    # PASSED_OVER says it once.
    logging.getLogger("moto").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message="Tried to parse")
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    # moto takes the bucket of a nested template from the path of its address only where that says localhost.
    cloud = deployment.Cloud("moto", f"http://localhost:{server.get_host_and_port()[1]}")
    try:
        with tempfile.TemporaryDirectory() as folder:
            # What is worth a look afterwards stays beside the copy.
            kept = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else pathlib.Path(folder)
            kept.mkdir(parents=True, exist_ok=True)
            run(cloud, pathlib.Path(folder) / "repository", kept)
    finally:
        server.stop()


def run(cloud, folder, kept):
    print("what moto is not shown (infra/emulated/filter.py):")
    for line in visible_filter.report("moto"):
        print(f"  {line}")
    deployment.tree("moto", folder)
    parameters = deployment.surroundings(cloud)
    deployment.deploy(cloud, folder, parameters)
    counted = deployment.compare_resources(cloud, folder, PASSED_OVER)
    print(f"{sum(counted.values())} resources of {len(counted)} types are there: " + ", ".join(f"{kind} {count}" for kind, count in sorted(counted.items())))
    print("passed over in silence: " + ", ".join(PASSED_OVER))
    readback.read_back(cloud, kept)


if __name__ == "__main__":
    main()
