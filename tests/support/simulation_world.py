"""Time, threads and faults of a simulated history: exactly one actor runs at a time, and one seed decides which.

An actor is a thread that holds a baton. Every effect on the store, sleep and pool call is a step: the baton may go to
another actor there, and a fault may happen. Nothing here knows the protocol. The invariant: the same seed (or script)
gives the same trace, whatever the machine does.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

FOREVER = float("inf")
NOT_DONE = ("refuse", "fail", "late")  # effects of which the caller hears, and which change nothing now
_SLICE_S = 0.05  # what a step takes, at most, on the simulated clock


class Killed(BaseException):
    """The process of this actor is gone: nothing in it may catch this, and nothing it does has an effect any more."""


class Violation(Exception):
    """An invariant does not hold."""


@dataclass
class Fault:
    """effect: kill_, pause_ (each _before or _after), lose, taken, drain, collapse, of NOT_DONE. seconds: a pause."""

    effect: str
    seconds: float = 0.0


class Actor:
    """One process: a driver, or a worker."""

    def __init__(self, world: World, name: str, body: Callable[[], None], daemon: bool) -> None:
        self.world, self.name, self.body, self.daemon = world, name, body, daemon
        self.baton = threading.Lock()
        self.baton.acquire()
        self.wake = world.now  # the earliest moment at which it may run
        self.killed = False
        self.over = False
        self.effects = 0  # that it had so far
        self.steady = False  # spared by faults
        self.fresh_lists = False  # its lists are never stale

    def run(self) -> None:
        self.baton.acquire()
        _here.actor = self
        try:
            if not self.killed:
                self.body()
        except Killed:
            pass
        except BaseException as error:
            self.world.violate(f"{self.name} died of {type(error).__name__}: {error}", error)
        finally:
            self.over = True
            self.world.actors.remove(self)
            self.world.leave()


class _Here(threading.local):
    actor: Actor | None = None


_here = _Here()


def current() -> Actor:
    actor = _here.actor
    assert actor is not None, "only actors have effects in a simulation"
    return actor


def acting() -> Actor | None:
    """The actor of this thread; None in a thread that is no part of a simulation."""
    return _here.actor


FaultSource = Callable[[Actor, str, str, int], Fault | None]


@dataclass
class World:
    """One history. faults: asked at each step with (actor, operation, name, number of the step)."""

    random: Random
    faults: FaultSource = lambda actor, operation, name, number: None
    most_steps: int = 20_000
    now: float = 0.0
    steps: int = 0
    actors: list[Actor] = field(default_factory=list)
    trace: list[tuple[float, str, str]] = field(default_factory=list)
    violation: Violation | None = None
    _main: threading.Lock = field(default_factory=threading.Lock)

    def note(self, what: str) -> None:
        actor = acting()
        self.trace.append((self.now, actor.name if actor else "-", what))

    def violate(self, what: str, cause: BaseException | None = None) -> None:
        """Remember the first violation; the history ends there."""
        if self.violation is None:
            self.note(f"VIOLATION: {what}")
            self.violation = Violation(what)
            self.violation.__cause__ = cause

    def spawn(self, name: str, body: Callable[[], None], daemon: bool = False, delay: float = 0.0) -> Actor:
        """daemon: it does not keep the history going."""
        actor = Actor(self, name, body, daemon)
        actor.wake = self.now + delay
        self.actors.append(actor)
        threading.Thread(target=actor.run, name=name, daemon=True).start()
        return actor

    def run(self) -> None:
        """Until no actor is left but daemons that wait, or something is violated; then end all that remain."""
        self._main.acquire()
        for ending in (False, True):
            self.ending = ending
            actor = self._next()
            if actor is not None:
                actor.baton.release()
                self._main.acquire()
        self._main.release()

    ending: bool = False

    def step(self) -> None:
        """Let others go first, perhaps."""
        self.sleep(self.random.random() * _SLICE_S if not self.ending else 0.0)

    def sleep(self, seconds: float) -> None:
        me = current()
        if me.killed:
            raise Killed
        me.wake = self.now + seconds
        self.steps += 1
        if self.steps > self.most_steps:
            self.violate(f"no end after {self.most_steps} steps")
        chosen = self._next()
        if chosen is not me:
            (chosen.baton if chosen else self._main).release()
            me.baton.acquire()
        if me.killed:
            raise Killed

    def leave(self) -> None:
        chosen = self._next()
        (chosen.baton if chosen else self._main).release()

    def kill(self, actor: Actor) -> None:
        """Takes effect when it would run next; its own actor is to raise Killed."""
        actor.killed = True
        actor.wake = min(actor.wake, self.now)

    def _next(self) -> Actor | None:
        """Who runs now; None: the main thread does."""
        actors = self.actors
        if self.ending or self.violation is not None:
            for actor in actors:
                actor.killed = True
            if not self.ending:
                return None
            return actors[0] if actors else None
        if all(actor.daemon for actor in actors):
            awake = [actor for actor in actors if actor.wake < FOREVER]
            if not awake:
                return None
        soonest = min((actor.wake for actor in actors), default=FOREVER)
        if soonest == FOREVER:
            self.violate("everyone waits for ever")
            return None
        self.now = max(self.now, soonest)
        ready = [actor for actor in actors if actor.wake <= self.now]
        return ready[0] if len(ready) == 1 else self.random.choice(ready)

    # effects

    def effect(self, operation: str, name: str, act: Callable[[], object], answer: Callable[[str], object]) -> object:
        """Do `act` as a step of this actor, with whatever fault comes with it.

        answer: what the caller sees instead of the result of `act`, after an effect of NOT_DONE, `lose` (it was done),
                `taken` (it was done, and is reported as not done), `drain` or `collapse`; may raise.
        """
        self.step()
        me = current()
        me.effects += 1
        fault = None if me.steady else self.faults(me, operation, name, self.steps)
        self.note(f"{operation} {name}" + (f" !{fault.effect} {fault.seconds or ''}".rstrip() if fault else ""))
        if fault is None:
            return act()
        if fault.effect == "kill_before":
            self._die(me)
        if fault.effect == "pause_before":
            self.sleep(fault.seconds)
        if fault.effect in NOT_DONE:
            return answer(fault.effect)
        result = act()
        if fault.effect == "kill_after":
            self._die(me)
        if fault.effect == "pause_after":
            self.sleep(fault.seconds)
        return answer(fault.effect) if fault.effect in ("lose", "taken", "drain", "collapse") else result

    def later(self, name: str, act: Callable[[], object], delay: float | None = None) -> None:
        """Something happens after `delay` seconds, whatever becomes of this actor. None: some time later."""
        after = self.random.choice((1.0, 30.0, 600.0)) if delay is None else delay

        def body() -> None:
            self.note(name)
            act()

        self.spawn(f"~{current().name}", body, daemon=True, delay=after)

    def _die(self, me: Actor) -> None:
        me.killed = True
        raise Killed
