"""Prints rows with cliff, the library that the OpenStack clients use for their output.

Reads JSON from standard input: `columns`, `rows`, and `runs`, each a list of options such as `-f csv --quote all`. Writes a list with
the output of each run.
"""

import io
import json
import sys
import types

from cliff import lister

given = json.load(sys.stdin)


class Rows(lister.Lister):
    """A command that lists the given rows."""

    def take_action(self, parsed_args):
        return given['columns'], given['rows']


printed = []
for options in given['runs']:
    app = types.SimpleNamespace(stdout=io.StringIO())
    command = Rows(app, None)
    command.run(command.get_parser('rows').parse_args(options))
    printed.append(app.stdout.getvalue())
json.dump(printed, sys.stdout)
