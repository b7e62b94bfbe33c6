"""The `tissuetalk` command: the tools without a server, and the server itself.

Users' verbs stand at the top, everything else in groups; one file each. Old spellings work, unlisted.
Exit status: 0 done, 2 the request was wrong (one line on stderr), 3 something the operator must fix.
"""

from __future__ import annotations

import sys
from typing import NoReturn

import typer

from tissuetalk.models import logs
from tissuetalk.models.errors import BadRequestError, ResourceError, TissuetalkError
from tissuetalk.server.commands import (
    data,
    evaluate,
    machine,
    model,
    operate,
    results,
    segment,
    serve,
    setup,
    teach,
    train,
    view,
)

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Segment, measure and explain H&E images from words. Research use only.",
)
for _command in (
    serve.serve,
    setup.setup,
    segment.segment,
    teach.teach,
    results.measure,
    results.explain,
    results.export,
    view.view,
    machine.models,
    segment.demo,
    machine.doctor,
    machine.translate,
    evaluate.evaluate,
    train.train,
    train.reproduce,
    operate.backup,
    operate.restore,
    machine.version,
):
    app.command()(_command)
for _group in (data.group, model.group, evaluate.group, train.group, operate.group):
    app.add_typer(_group)
for _name, _old in (("zero-shot", evaluate.sets), ("ablate", train.ablate), ("weights", train.weights)):
    app.command(_name, hidden=True)(_old)


def main() -> NoReturn:
    """Run the command; our own errors become one line and an exit status, anything else stays a crash."""
    logs.configure()
    try:
        status = app(standalone_mode=False)
    except TissuetalkError as error:
        where = f" ({error.place})" if isinstance(error, ResourceError) and error.place else ""
        print(f"tissuetalk: {error.code}: {error}{where}", file=sys.stderr)
        sys.exit(2 if isinstance(error, BadRequestError) else 3)
    except typer.Abort:
        sys.exit(130)
    except Exception as error:
        if (wrong_usage := getattr(error, "format_message", None)) is None:
            raise
        if said := wrong_usage():  # empty when help was shown because nothing was asked
            print(f"tissuetalk: invalid_argument: {said} See --help.", file=sys.stderr)
        sys.exit(2)
    sys.exit(status if isinstance(status, int) else 0)
