"""Coming from auto_LiRPA: the same questions in glsk, then what a population adds.

auto_LiRPA                                              glsk
BoundedModule(net, x)                                   BoundedModule(net, x)
PerturbationLpNorm(norm=inf, eps=eps), BoundedTensor    compute_bounds(x, eps=eps)
PerturbationLpNorm(x_L=lo, x_U=hi)                      compute_bounds(x_L=lo, x_U=hi)
compute_bounds(x=(x,), C=C, method="CROWN")             compute_bounds(x, eps=eps, C=C, method="CROWN")
"CROWN-Optimized", bound_opts optimize_bound_args       method="alpha-CROWN", iterations=20, lr=0.1
"CROWN-IBP", "IBP"                                      the same
return_A=True, needed_A_dict                            return_linear=True
save_intermediate, intermediate_layer_bounds            intermediate_bounds(...), intermediate=...
one network at a time                                   params=[P, D]: P networks at once
"""

import torch
from torch import nn

import glsk


def main() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 10))
    x, y = torch.rand(4, 1, 8, 8), torch.tensor([3, 1, 4, 1])

    bounded = glsk.BoundedModule(net, x)
    assert torch.equal(bounded(x), net(x))
    C = glsk.margins(y)  # [4, 9, 10]: rows f_y - f_j, as in auto_LiRPA's examples
    found = {}
    for method in ("IBP", "CROWN-IBP", "CROWN", "alpha-CROWN"):
        lower, _ = bounded.compute_bounds(x, eps=0.02, C=C, method=method)
        found[method] = lower
        print(f"{method:<12} mean lower bound of the margins {lower.mean():8.4f}")

    # The linear functions that the bounds come of, as return_A gives them.
    lower, _, linear = bounded.compute_bounds(x, eps=0.02, C=C, method="CROWN", return_linear=True)
    at_x = torch.einsum("bschw,bchw->bs", linear.lower_A, x) + linear.lower_b
    assert bool((at_x >= lower - 1e-5).all())

    # A thousand networks around this one, in one call.
    centre = torch.nn.utils.parameters_to_vector(net.parameters()).detach()
    population = centre + 1e-3 * torch.randn(1000, bounded.num_parameters)
    lower, _ = bounded.compute_bounds(x, eps=0.02, C=C, method="CROWN", params=population)
    print("of a population:", list(lower.shape))
    return found | {"population": lower}


if __name__ == "__main__":
    main()
