"""The stages of some properties, cheapest first; each hands on what it cannot decide.

A property that plain bounds prove safe needs no attack, so the attack comes after them: most properties of a robust
network are done by then.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from glsk.verify.attack import search
from glsk.verify.bab import Search
from glsk.verify.bounding import Bounder
from glsk.verify.engine import Engine, Networks
from glsk.verify.goals import Goals
from glsk.verify.input_split import BoxSearch
from glsk.verify.planes import fitting
from glsk.verify.property import Property
from glsk.verify.refine import refine
from glsk.verify.verdict import Status, Verdict

if TYPE_CHECKING:
    from glsk.verify.verifier import VerifySettings

Found = Iterator[tuple[int, Verdict]]

FIRST_SEARCH, SEARCH_GROWTH, SEARCHED = 1.5, 6.0, 0.5
"""Seconds of a property after which its search gives way to tighter bounds of hidden units, how these grow, and for
what share of the time that the bounds took a search may go on at least."""


class Window:
    """Some properties of one network, decided together.

    Args:
        networks: the network.
        properties: what is to be decided.
        timeout: seconds of each.
        memory_limit: bytes of scratch memory and open subproblems together.
        generator: of the attack's starts.
        backend: of the bounds.
        settings: how to search.
    """

    def __init__(
        self,
        networks: Networks,
        properties: Sequence[Property],
        timeout: float,
        memory_limit: int,
        generator: torch.Generator,
        backend: str,
        settings: "VerifySettings",
    ) -> None:
        self.networks, self.timeout, self.limit = networks, timeout, memory_limit
        self.generator, self.backend, self.settings = generator, backend, settings
        self.goals = Goals.of(properties)
        self.seconds = dict.fromkeys(range(len(properties)), 0.0)
        self.subproblems = dict.fromkeys(self.seconds, 0)
        self.left = set(self.seconds)

    def run(self) -> Found:
        """(number, verdict) of every property, as each is reached."""
        self._clock = self.settings.clock()
        engine: Engine | None = None
        for stage in (self._natural, self._interval, self._plain, self._attack, self._alpha):
            name, proved, broken, engine = stage(engine)
            yield from self._after(name, proved, broken)
            if name != "natural" and any(self.seconds[p] >= self.timeout for p in self.left):
                late = [p for p in self.left if self.seconds[p] >= self.timeout]
                yield from self._settle(name, "timeout", dict.fromkeys(late))
            if not self.left:
                return
            engine = self._compact(engine)
        if not self.settings.complete:
            yield from self._settle("alpha-CROWN", "unknown", dict.fromkeys(self.left))
        if self.left:
            assert engine is not None
            few = self.goals.x_L[0].numel() <= self.settings.input_dimensions
            if few:
                yield from self._halve()
            else:
                for part, goals, some in self._parts(engine):
                    self.left, self.goals = part, goals
                    yield from self._branch(some)

    def _natural(self, engine: Engine | None) -> tuple[str, Tensor | None, dict[int, Tensor], Engine | None]:
        return "natural", None, self._broken(self.goals.point[self.goals.box]), engine

    def _interval(self, engine: Engine | None) -> tuple[str, Tensor | None, dict[int, Tensor], Engine | None]:
        return "IBP", interval_proves(self.networks, self.goals, self._options()), {}, engine

    def _plain(self, engine: Engine | None) -> tuple[str, Tensor | None, dict[int, Tensor], Engine | None]:
        goals = self.goals
        engine = Engine(self.networks, goals.x_L, goals.x_U, **self._options())
        return "CROWN", engine.proves(goals.A, goals.b, goals.box, None, None), {}, engine

    def _attack(self, engine: Engine | None) -> tuple[str, Tensor | None, dict[int, Tensor], Engine | None]:
        points = search(self.networks.single, self.goals, self.settings.attack, self.generator)
        return "attack", None, self._broken(points), engine

    def _alpha(self, engine: Engine | None) -> tuple[str, Tensor | None, dict[int, Tensor], Engine | None]:
        assert engine is not None
        bounder = Bounder(engine, self.goals, self.settings.branch)
        open_ = bounder.root(self.settings.alpha_iterations)
        proved = torch.ones(self.goals.size, dtype=torch.bool)
        proved[open_.goal] = False
        return "alpha-CROWN", proved, bounder.counterexamples, engine

    def _branch(self, engine: Engine) -> Found:
        """A search, and tighter bounds of hidden units, in turn, each time with more of both."""
        engine.tighten(self.settings.alpha_iterations)
        leaves, search = self.settings.refine.leaves, FIRST_SEARCH
        while True:
            until = max(self.seconds[p] for p in self.left) + search
            if not leaves or until + search > self.timeout:  # no time for more of both
                until = self.timeout
            yield from self._search(engine, until)
            if not self.left:
                return
            engine = self._compact(engine) or engine
            search *= SEARCH_GROWTH
            spent, leaves = self._refine(engine, leaves, search)
            search = max(search, SEARCHED * spent)

    def _parts(self, engine: Engine) -> list[tuple[set[int], Goals, Engine]]:
        """Properties, their goals and their boxes, apart where planes of all goals do not fit the memory."""
        owner, most = self.goals.property, max(1, fitting(engine.exact))
        found, held = [set[int]()], 0
        for p, count in zip(*(t.tolist() for t in owner.unique(return_counts=True)), strict=True):
            if held and held + count > most:
                found.append(set())
                held = 0
            found[-1].add(p)
            held += count
        parts = []
        for part in found:
            goals, boxes = self.goals.take(
                torch.tensor([g for g, p in enumerate(owner.tolist()) if p in part])
            ).compact()
            parts.append((part, goals, engine.take(boxes)))
        return parts

    def _refine(self, engine: Engine, leaves: int, search: float) -> tuple[float, int]:
        """Refine once, and again while it takes less than the search to come, in a share of the seconds that are left.

        Returns seconds of each property, and how many leaves come next; 0: more would not help.
        """
        settings, clock, planes = self.settings.refine, self.settings.clock, self.settings.planes
        hidden = planes.hidden if planes.iterations else 0
        self._charge()
        began, spent, number = clock(), max(self.seconds[p] for p in self.left), len(self.left)
        end = began + settings.share * (self.timeout - spent) * number
        now = began
        while leaves and now < end:
            before = now
            gained = refine(engine, self.goals, replace(settings, leaves=leaves), lambda: clock() > end, hidden)
            now = clock()
            leaves = leaves * settings.growth if gained else 0
            if now + settings.growth * (now - before) > began + search * number:
                break
        return (now - began) / number, leaves

    def _search(self, engine: Engine, until: float) -> Found:
        """Branch and bound till each property has used ``until`` seconds."""
        bounder = Bounder(engine, self.goals, self.settings.branch)
        for raise_ in (False, True):  # without planes, and with them for what is left
            if raise_:
                bounder = replace(bounder, goals=self.goals).raised(self.settings.planes)
            goals, broken = bounder.goals, bounder.counterexamples
            start = bounder.root(self.settings.alpha_iterations)
            self._charge()
            open_ = set(goals.property[start.goal].tolist()) - set(broken)
            yield from self._settle("branch and bound", "sat", broken)
            yield from self._settle("branch and bound", "unsat", dict.fromkeys(self.left - open_))
            keep = torch.tensor([p in open_ for p in goals.property[start.goal].tolist()], dtype=torch.bool)
            self.goals = self.goals.take(start.goal)
            if not self.goals.size:
                return
        tree = Search(
            bounder, start[keep], self.seconds, until, self.limit // 2, self.settings.clock, self.settings.planes
        )
        for outcome in tree.run():
            p = outcome.property
            self.seconds[p], self.subproblems[p] = outcome.seconds, self.subproblems[p] + outcome.subproblems
            if outcome.status != "timeout" or until >= self.timeout:
                yield from self._settle("branch and bound", outcome.status, {p: outcome.counterexample})
        self._clock = self.settings.clock()

    def _halve(self) -> Found:
        """Branch and bound on the input."""
        settings = self.settings
        tree = BoxSearch(
            self.networks, self.goals, self.seconds, self.timeout, settings.branch.batch, self.limit // 2,
            settings.clock, **self._options(),
        )  # fmt: skip
        for p, status, point, seconds, count in tree.run():
            self.left.discard(p)
            yield p, Verdict(status, "branch and bound", seconds, point, count)

    def _options(self) -> dict[str, Any]:
        return {"backend": self.backend, "memory_limit": max(1, self.limit // 2)}

    def _broken(self, points: Tensor) -> dict[int, Tensor]:
        """Properties with an unsafe input among points of the goals [G, *input_shape]."""
        met = self.networks.meets(self.goals, points, torch.arange(self.goals.size))
        owner = self.goals.property
        return {int(owner[g]): points[g] for g in reversed(met.nonzero()[:, 0].tolist())}

    def _after(self, stage: str, proved: Tensor | None, broken: Mapping[int, Tensor]) -> Found:
        """Charge a stage, and settle what it has decided."""
        self._charge()
        yield from self._settle(stage, "sat", broken)
        if proved is not None:
            self.goals = self.goals.take((~proved).nonzero()[:, 0])
            open_ = set(self.goals.property.tolist())
            yield from self._settle(stage, "unsat", dict.fromkeys(self.left - open_))

    def _settle(self, stage: str, status: Status, found: Mapping[int, Tensor | None]) -> Found:
        for p, point in list(found.items()):
            if p in self.left:
                self.left.discard(p)
                yield p, Verdict(status, stage, self.seconds[p], point, self.subproblems[p])

    def _charge(self) -> None:
        """Share the time since the last charge among the properties that are left."""
        now = self.settings.clock()
        for p in self.left:
            self.seconds[p] += (now - self._clock) / len(self.left)
        self._clock = now

    def _compact(self, engine: Engine | None) -> Engine | None:
        """Forget the goals of settled properties, and boxes without goals."""
        owner = self.goals.property.tolist()
        keep = torch.tensor([g for g, p in enumerate(owner) if p in self.left], dtype=torch.int64)
        self.goals, boxes = self.goals.take(keep).compact()
        return None if engine is None or not len(boxes) else engine.take(boxes)


def interval_proves(networks: Networks, goals: Goals, options: Mapping[str, Any]) -> Tensor:
    """Which goals [G] interval arithmetic proves, with rigorous slack."""
    from glsk.verify.rounding import Rounding

    x_L, x_U = goals.x_L[goals.box], goals.x_U[goals.box]
    lower, _ = networks.bounded.compute_bounds(
        x_L=x_L,
        x_U=x_U,
        C=goals.A,
        method="IBP",
        bound_upper=False,
        **options,
    )
    slack = Rounding(networks.bounded, goals.x_L, goals.x_U).rows(goals.A, index=goals.box)
    return (lower - slack > goals.b).any(dim=1)
