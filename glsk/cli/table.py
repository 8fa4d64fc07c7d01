"""``glsk table``."""

from glsk.cli.errors import one_line_errors
from glsk.cli.options import Json, Runs
from glsk.cli.output import show_json, show_tables


@one_line_errors()
def table(runs: Runs, as_json: Json = False) -> None:
    """The accuracies that training runs ended with; of several seeds mean and standard deviation."""
    from glsk.analysis.runs import read_runs
    from glsk.analysis.table import accuracy_table, final_accuracies

    rows = final_accuracies(read_runs(runs))
    if as_json:
        show_json(rows)
    else:
        show_tables([accuracy_table(rows)])
