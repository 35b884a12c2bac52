"""CloudFormation's YAML as plain data: what is written short (`!Ref X`) is spelled out (`{"Ref": "X"}`), and written back so."""
import yaml


class _Loader(yaml.SafeLoader):
    """Dates stay text: a policy's Version is one."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _spelled_out(loader, suffix, node):
    if isinstance(node, yaml.ScalarNode):
        value = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        value = loader.construct_mapping(node, deep=True)
    if suffix in ("Ref", "Condition"):
        return {suffix: value}
    if suffix == "GetAtt" and isinstance(value, str):
        value = value.split(".", 1)
    return {f"Fn::{suffix}": value}


_Loader.add_multi_constructor("!", _spelled_out)


def read(path):
    return yaml.load(path.read_text(encoding="utf-8"), _Loader)


def write(path, template):
    path.write_text(yaml.safe_dump(template, sort_keys=False, width=1000, allow_unicode=True), encoding="utf-8")
