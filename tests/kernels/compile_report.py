"""Compile the kernels of CNN3 and CNN5 for a compute capability and print what the compiler made of them, as JSON.

A process of its own, because a process that imported the kernels under TRITON_INTERPRET=1 cannot compile them.

    python -m tests.kernels.compile_report 90 cnn3 cnn5
"""

import json
import sys

from glsk.kernels import aot, config

import glsk
from glsk import models

SHAPE = (1, 28, 28)


def report(capability: int, nets: list[str]) -> list[dict[str, object]]:
    """One entry a kernel. With no net named, only the heaviest pass of CNN3."""
    found = []

    def add(what: str, binary: aot.Binary, matrix: bool) -> None:
        found.append(
            {
                "what": what,
                "registers": binary.registers,
                "shared": binary.shared,
                "stack": binary.stack,
                "spills": binary.spills,
                "tensor_core": binary.tensor_core,
                "programs": binary.programs,
                "wanted": config.target(capability).programs,
                "matrix": matrix,
            }
        )

    for net in nets or ["cnn3"]:
        layers = glsk.BoundedModule(models.build(net, SHAPE), SHAPE).chain.geometry
        plans = aot.crown_plans(layers, 9, capability)
        heaviest = plans[-2]
        for plan in plans if nets else [heaviest]:
            rows = not plan.start.from_C
            name = f"{net} CROWN {'pass to layer' if rows else 'specification after layer'} {plan.depth}"
            add(name, aot.compile_pass(plan, 1 + rows, rows, 2, "tf32x3", capability), True)
        if not nets:
            continue
        for plan in aot.crown_plans(layers, 9, capability, lines=4)[1:] if net == "cnn5" else []:
            rows = not plan.start.from_C
            name = f"{net} any lines, {'pass to layer' if rows else 'specification after layer'} {plan.depth}"
            add(name, aot.compile_pass(plan, 1 + rows, rows, 4, "tf32x3", capability), True)
        for plan in dict.fromkeys((plans[0], heaviest)):
            binary = aot.compile_pass(plan, 1, False, 2, "tf32x3", capability)
            add(f"{net} HBox pass to layer {plan.depth}", binary, True)
        for k, layer in enumerate(layers[:-1]):
            add(f"{net} interval step {k}", aot.compile_ibp(layer, k > 0, capability), True)
        add(f"{net} bf16x3", aot.compile_pass(heaviest, 2, True, 2, "bf16x3", capability), True)
        if net == "cnn3":
            for binary in aot.compile_small(heaviest, capability):
                add(binary.name, binary, False)
    return found


if __name__ == "__main__":
    print(json.dumps(report(int(sys.argv[1]), sys.argv[2:])))
