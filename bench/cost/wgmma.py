"""What ``wgmma`` would make of CNN5's wide passes, from the counts of today's kernels (cost.md).

python -m bench.cost.wgmma [--code FILE]
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import glsk
from bench.cost import sass
from bench.cost.deep import HALF, KINDS, Code, count, layout
from bench.cost.device import Cost, Device
from glsk import models

FENCES = 6
"""A cell's: arrive, commit and wait, for the products of the level above and again for the image's."""


def by_wgmma(code: Code) -> Code:
    """64 rows x 32 columns of four warps in place of four times 16 x 8 of one: a quarter of the instructions.

    Weights are read from shared memory by the tensor cores, once for four warps; coefficients stay in registers.
    """
    saved = 6 * code.parts
    return replace(
        code,
        last={rows: issued - saved * (rows + 1) + FENCES for rows, issued in code.last.items()},
        middle=code.middle + FENCES,
        middle_products=code.middle_products - saved - (8 if code.parts == 3 else 4),
        taps=code.parts * HALF,
        held=False,
        wgmma=True,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.cost.wgmma", description=__doc__)
    parser.add_argument("--code", type=Path, help="compiled kernels; default: glsk._CUDA")
    options = parser.parse_args(arguments)
    path = options.code or sass.extension()
    if (reason := sass.why_unreadable(path)) is not None:
        raise SystemExit(f"the machine code cannot be counted here: {reason}")
    three, one = (Code.read(sass.Compiled(path), kind) for kind in KINDS)
    device = Device()
    kinds = {"three, `mma.sync`": three, "three, `wgmma`": by_wgmma(three)}
    kinds |= {"one, `mma.sync`": one, "one, `wgmma`": by_wgmma(one)}
    resources = "tensor cores", "instructions", "shared memory", "L2"
    print(f"| pass | products | {' | '.join(resources)} | predicted ns | gain |")
    print("|---|---|---|---|---|---|---|---|")
    layers = glsk.BoundedModule(models.build("cnn5", (1, 28, 28)), (1, 28, 28)).chain.geometry
    for k in (2, 3):
        before = 0.0
        for name, code in kinds.items():
            where = layout(layers[: k + 1], code.parts)
            cost = Cost("", "", count(layers[: k + 1], where, code), where.warps)
            times, seconds = device.times(cost.work), cost.seconds(device)
            before = before if code.wgmma else seconds
            each = " | ".join(f"{1e9 * times[on]:,.0f}" for on in resources)
            print(f"| layer {k} | {name} | {each} | {1e9 * seconds:,.0f} | {before / seconds:.2f} |")


if __name__ == "__main__":
    main()
