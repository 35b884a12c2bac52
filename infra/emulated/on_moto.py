"""The whole deployment on moto: by `infra/scripts/deploy`, read back by the services' own calls, deployed again, and destroyed."""
import logging
import pathlib
import tempfile

from moto.cloudformation import models, parsing
from moto.server import ThreadedMotoServer

import deployment
import filter as visible_filter

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
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    # moto takes the bucket of a nested template from the path of its address only where that says localhost.
    cloud = deployment.Cloud("moto", f"http://localhost:{server.get_host_and_port()[1]}")
    try:
        with tempfile.TemporaryDirectory() as folder:
            run(cloud, pathlib.Path(folder))
    finally:
        server.stop()


def run(cloud, folder):
    print("what moto is not shown (infra/emulated/filter.py):")
    for line in visible_filter.report("moto"):
        print(f"  {line}")
    deployment.tree("moto", folder)
    parameters = deployment.surroundings(cloud)
    deployment.deploy(cloud, folder, parameters)
    counted = deployment.compare_resources(cloud, folder, PASSED_OVER)
    print(counted)


if __name__ == "__main__":
    main()
