"""Complete verification of a data set, image by image, onto a log."""

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn

import glsk
from glsk.verify.property import margin_property
from glsk.verify.records import VerdictLog
from glsk.verify.verifier import VerifySettings, verify_many


def verify_images(
    net: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    log: VerdictLog | None = None,
    num_classes: int = 10,
    clip: tuple[float, float] | None = (0.0, 1.0),
    timeout: float = 60.0,
    memory_limit: int | None = None,
    seed: int = 0,
    backend: str = "auto",
    settings: VerifySettings | None = None,
) -> Iterator[Mapping[str, Any]]:
    """Decide whether every image's class holds on its eps-ball; images that ``log`` has are skipped.

    Args:
        net: logits [B, num_classes] of images [B, *input_shape].
        x, y: images [N, *input_shape] in data units, labels [N].
        eps: L-infinity radius, in data units.
        log: where verdicts go; None: nowhere.
        num_classes: K.
        clip: the data range.
        The others: as :func:`glsk.verify.verify`.

    Yields:
        every record as it is written: ``index``, ``label``, ``status``, ``stage``, ``seconds``, ``subproblems``.
    """
    bounded = glsk.BoundedModule(net, tuple(x.shape[1:]))
    done = {} if log is None else log.records
    todo = [i for i in range(len(x)) if i not in done]
    properties = (margin_property(x[i], y[i], eps, clip, num_classes) for i in todo)
    for number, verdict in verify_many(
        bounded, properties, timeout=timeout, memory_limit=memory_limit, seed=seed, backend=backend, settings=settings
    ):
        record = {
            "index": todo[number],
            "label": int(y[todo[number]]),
            "status": verdict.status,
            "stage": verdict.stage,
            "seconds": round(verdict.seconds, 6),
            "subproblems": verdict.subproblems,
        }
        if log is not None:
            log.write(record)
        yield record
