"""Learning rates against PyTorch's own schedulers."""

import pytest
import torch
from torch.optim import lr_scheduler

from thriftylib.schedules import learning_rate
from thriftylib.spec import Recipe


def recipe(schedule, epochs=12):
    return Recipe(name="test", epochs=epochs, batch_size=1, learning_rate=0.1, schedule=schedule)


def rates_of(scheduler_of, values):
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.1)
    scheduler, rates = scheduler_of(optimizer), []
    for value in values:
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step(*value)
    return rates


def test_steps_are_those_of_multi_step_lr():
    expected = rates_of(lambda optimizer: lr_scheduler.MultiStepLR(optimizer, [3, 7]), [()] * 12)
    given = recipe({"kind": "steps", "milestones": [3, 7]})
    assert [learning_rate(given, epoch, 0, 5, []) for epoch in range(12)] == pytest.approx(expected)


def test_plateau_is_that_of_reduce_lr_on_plateau():
    losses = [1.0, 0.9, 0.95, 0.94, 0.93, 0.92, 0.91, 0.5, 0.6, 0.6, 0.6, 0.6]
    expected = rates_of(
        lambda optimizer: lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=2, min_lr=0.03),
        [(loss,) for loss in losses],
    )
    given = recipe({"kind": "plateau", "patience": 2, "min_learning_rate": 0.03})
    assert [learning_rate(given, epoch, 0, 5, losses[:epoch]) for epoch in range(12)] == expected
    assert len(set(expected)) == 3  # 0.1, 0.05 and the floor: the case tests something


@pytest.mark.parametrize("anneal", ["cosine", "linear"])
def test_one_cycle_rises_to_the_peak_and_falls_to_the_floor(anneal):
    given = recipe({"kind": "one-cycle", "warmup": 0.25, "anneal": anneal, "final_factor": 0.1})
    rates = [learning_rate(given, epoch, step, 10, []) for epoch in range(12) for step in range(10)]
    peak = rates.index(max(rates))
    assert peak == 30
    assert rates[peak] == pytest.approx(0.1)
    assert rates[:peak] == sorted(rates[:peak])
    assert rates[0] > 0
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert rates[-1] == pytest.approx(0.01, abs=0.0011)
    assert rates[-1] > 0.01


def test_one_cycle_cosine_is_cosine_annealing():
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.1)
    scheduler, expected = lr_scheduler.CosineAnnealingLR(optimizer, T_max=40), []
    for _ in range(40):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    given = recipe({"kind": "one-cycle", "warmup": 0.0}, epochs=4)
    assert [learning_rate(given, e, s, 10, []) for e in range(4) for s in range(10)] == pytest.approx(
        expected, abs=1e-12
    )


def test_constant_never_changes():
    given = recipe({"kind": "constant"})
    assert {learning_rate(given, epoch, 3, 10, []) for epoch in range(12)} == {0.1}
