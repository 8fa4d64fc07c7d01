import pytest

from glsk.training.schedules import annealing, step_lr, tail_decay


@pytest.mark.parametrize(("epoch", "factor"), [(0, 1), (109, 1), (110, 0.4), (129, 0.4), (130, 0.16), (149, 0.16)])
def test_learning_rate_of_the_paper(epoch, factor):
    assert step_lr(3e-4, epoch, (110, 130), 0.4) == pytest.approx(3e-4 * factor)


def test_eps_grows_linearly_and_stays():
    assert [annealing(step, 4) for step in range(6)] == [0.25, 0.5, 0.75, 1, 1, 1]


def test_eps_is_exact_after_annealing_and_without_it():
    assert annealing(3, 4) == 1
    assert annealing(0, 0) == 1


def test_tail_decay_is_flat_then_falls_to_almost_zero():
    rates = [tail_decay(1.0, step, 10) for step in range(10)]
    assert rates[:6] == [1.0] * 6
    assert rates[6:] == pytest.approx([0.8, 0.6, 0.4, 0.2])
    assert tail_decay(1.0, 0, 1) == 1.0
