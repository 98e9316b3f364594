"""What all checks of one run share: the cluster, the seed, where things are kept, and what came of it."""

from __future__ import annotations

import contextlib
import os
import random
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.checker import Finding
from tests.faults.cluster import Cluster
from tests.faults.profiles import Profile
from tests.faults.programs import Process
from tests.wire.proxy import Proxy


@dataclass
class Outcome:
    """What one check came to."""

    name: str
    figures: str = ""
    findings: list[Finding] = field(default_factory=list)
    void: str = ""
    """Why it says nothing, if it does."""
    lasting: bool = False
    """Whether it will say nothing the next time either: neither etcd nor a slow machine is to blame."""
    numbers: dict[str, float] = field(default_factory=dict)

    @property
    def verdict(self) -> str:
        if self.findings:
            return "FAILED"
        return "void" if self.void else "passed"

    def need(self, figure: float, least: float, what: str) -> None:
        """Void unless there was enough of something to tell."""
        if figure < least:
            self.void = self.void or f"{figure:.10g} {what}, {least:.10g} are asked for"
            # A slow machine gets less done, but not nothing.
            self.lasting = self.lasting or not figure

    def demand(self, condition: bool, check: str, detail: str) -> None:
        if not condition:
            self.findings.append(Finding(check, detail))


@dataclass
class Run:
    profile: Profile
    seed: int
    cluster: Cluster
    directory: Path
    """Where this run writes down what happens."""
    seconds: float = 0.0
    """How long the history is made, when that is not what the profile says."""
    verbose: bool = False
    began: float = field(default_factory=time.monotonic)

    def say(self, *words: object) -> None:
        print(f"{time.monotonic() - self.began:6.1f} s ", *words, flush=True)

    def note(self, line: str) -> None:
        if self.verbose:
            self.say("  ", line)

    def dice(self, name: str) -> random.Random:
        """A source of chance for one purpose, the same for the same seed."""
        return random.Random(f"{self.seed} {name}")

    @property
    def timeout(self) -> float:
        """Seconds that one operation may take. An etcd that ends when it is broken off has longer."""
        return 3.0 if self.cluster.safe else 60.0

    def program(self, module: str, *arguments: object) -> Process:
        """Start a program of ours."""
        return Process(self.directory / "log", f"tests.faults.{module}", *map(str, arguments))

    @contextlib.contextmanager
    def stderr_in_log(self) -> Iterator[None]:
        """What is said on standard error meanwhile, by programs that are started too, goes to the log."""
        kept = os.dup(2)
        with (self.directory / "log").open("a") as file:
            os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)

    @contextlib.contextmanager
    def proxies(self) -> Iterator[list[Proxy]]:
        """A link to each member that can be disturbed."""
        with ExitStack() as stack:
            yield [stack.enter_context(Proxy(endpoint)) for endpoint in self.cluster.endpoints]
