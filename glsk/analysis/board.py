"""Pictures in TensorBoard, beside the scalars that training writes there."""

from pathlib import Path

from glsk.analysis.curves import plot_curves
from glsk.analysis.runs import read_runs
from glsk.requiring import requiring
from glsk.training.atomic import naming


def add_curves(run: Path) -> None:
    """The curves of a run, as ``glsk plot`` draws them, as the image ``curves`` of its folder ``tensorboard``.

    Raises:
        DataError: if ``run`` holds no run.
        MissingPackageError: without matplotlib or TensorBoard.
        OSError: naming the folder, if it cannot be written.
    """
    found = read_runs([run])
    figure = plot_curves(found)
    with requiring("a picture in TensorBoard"):
        from torch.utils.tensorboard import SummaryWriter
    with naming(run / "tensorboard"):
        writer = SummaryWriter(str(run / "tensorboard"))
        writer.add_figure("curves", figure, found[0].records[-1]["step"])
        writer.close()
