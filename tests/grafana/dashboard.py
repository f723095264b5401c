"""Reads a dashboard with Grafana's own types and prints what they do not know: what is lost if it is written again."""

import json
import sys

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard


def lost(given, made, path=""):
    if isinstance(given, dict) and isinstance(made, dict):
        for key, value in given.items():
            yield from lost(value, made[key], f"{path}.{key}") if key in made else [f"{path}.{key}"]
    elif isinstance(given, list) and isinstance(made, list) and len(given) == len(made):
        for number, (one, other) in enumerate(zip(given, made)):
            yield from lost(one, other, f"{path}[{number}]")
    elif given != made:
        yield path


register_default_plugins()
given = json.load(sys.stdin)
made = json.loads(JSONEncoder().encode(Dashboard.from_json(given)))
print("\n".join(lost(given, made)), end="")
