"""The assembly of one kernel: loops over blocks, time and lanes around the equations of a rule.

Forward, for each block of neurons: states into the first-level cache, then all steps, then states out.
Backward, for each block: the same steps again, keeping what the rule wants to see in a scratch area, and
then the steps in reverse. Kernels see a tensor as ``[T, R, P]``: T steps any distance apart (also 0: one
still image), R repetitions of P neurons that are dense in memory, in whatever order of axes. R is 1
unless parameters differ between neurons (GLIF).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from spiking.kernels.cpu import codegen
from spiking.kernels.cpu.arguments import POINTERS, SIZES, TEAM, slot
from spiking.kernels.cpu.codegen import LANES, STORED, Code
from spiking.kernels.rules.expressions import Vec

if TYPE_CHECKING:
    from spiking.kernels.rules.base import Back, Params, Rule

BLOCK = 2048  # neurons whose states are held in the first-level cache
UNROLL = 4  # time steps whose rows of memory are read together
UNIT = 64  # threads share work in multiples of this many neurons


class Frame:
    """What all kernels share: their arguments, the mask of the last lanes, indices, the frame of the text."""

    def __init__(self, stored: str, masked: bool, stream: bool) -> None:
        self.c = Code(stored, masked, stream)
        self.stored = stored
        self.arg: dict[str, str] = {}
        c = self.c
        for name in (*POINTERS, *SIZES):
            place = c.at("%a", "i64", str(slot(name)))
            self.arg[name] = c.scalar(f"load {'ptr' if name in POINTERS else 'i64'}, ptr {place}")
        if masked:
            c.lanes = c.masked_lanes(c.scalar("sub i64 %hi, %lo"))
        own = c.scalar(f"mul i64 %worker, {self.arg['scratch_size']}")
        self.scratch = c.at(self.arg["scratch"], "i8", own)
        own = c.scalar(f"mul i64 %worker, {self.arg['sums_size']}")
        self.sums = c.at(self.arg["sums"], "i8", own)

    def _min(self, a: str, b: str) -> str:
        less = self.c.scalar(f"icmp slt i64 {a}, {b}")
        return self.c.scalar(f"select i1 {less}, i64 {a}, i64 {b}")

    def _plus(self, a: str, b: str | int) -> str:
        return self.c.scalar(f"add i64 {a}, {b}") if b else a

    def _row(self, t: str, step: str, at: str) -> str:
        """Index of neuron ``at`` in step t of a tensor whose steps are ``step`` apart."""
        return self._plus(self.c.scalar(f"mul i64 {t}, {self.arg[step]}"), at)

    def _finish(self, name: str) -> str:
        if self.c.stream:
            self.c.raw("fence seq_cst")  # streaming stores are not ordered otherwise
        return self.c.module(name, "ptr noalias %a, i64 %lo, i64 %hi, i64 %worker")


class Writer(Frame):
    """Writes the assembly of the kernels of a rule."""

    def __init__(self, rule: Rule, stored: str, masked: bool, stream: bool) -> None:
        super().__init__(stored, masked, stream)
        self.rule = rule
        c = self.c
        self.params: dict[str, Vec] = {}
        for i, name in enumerate(rule.names):
            place = c.at("%a", "double", str(slot("params") + i))
            double = c.scalar(f"load double, ptr {place}")
            single = c.scalar(f"fptrunc double {double} to float")
            self.params[name] = c.broadcast(single)
        self.states = [self._local() for _ in range(rule.n_states)]

    def _local(self) -> str:
        return self.c.scalar(f"alloca [{BLOCK} x float], align 64")

    def _present(self, name: str) -> str:
        return self.c.scalar(f"icmp ne ptr {self.arg[name]}, null")

    def _load_params(self, j: str, t: str | None) -> Params:
        """The scalars, the per-neuron coefficients at neuron j, and what belongs to step t."""
        c, out = self.c, dict(self.params)
        for k, name in enumerate(self.rule.arrays):
            row = c.scalar(f"mul i64 {self.arg['neurons']}, {k}")
            out[name] = c.load(self.arg["coefficients"], c.scalar(f"add i64 {row}, {j}"))
        if t is not None and self.rule.timed:
            since = c.broadcast(c.scalar(f"sitofp i64 {t} to float"))
            out["t"] = since + out["first"]
        if t is not None and self.rule.conducts:
            row = c.scalar(f"mul i64 {self.arg['neurons']}, {t}")
            out["conduct"] = c.load(self.arg["conductance"], c.scalar(f"add i64 {row}, {j}"))
        return out

    def _start(self, first: str, last: str, base: str) -> None:
        """Fills the states of a block: given ones, or the state of rest."""
        c, rule = self.c, self.rule
        for k in range(rule.n_states):
            given = self._present(f"start{k}")
            with c.loop(first, last, LANES) as j:
                i = c.scalar(f"sub i64 {j}, {first}")
                rest = c.as_vec(rule.rest(self._load_params(j, None))[k])
                self._put(rest, self.states[k], i)
            with c.when(given), c.loop(first, last, LANES) as j:
                i = c.scalar(f"sub i64 {j}, {first}")
                at = c.scalar(f"add i64 {base}, {j}")
                self._put(c.load(self.arg[f"start{k}"], at), self.states[k], i)

    # local areas are always whole vectors, also in a masked kernel
    def _put(self, value: Vec, area: str, i: str) -> None:
        c = self.c
        c.raw(f"store {codegen.F} {value.name}, ptr {c.at(area, 'float', i)}, align 64")

    def _get(self, area: str, i: str) -> Vec:
        c = self.c
        return c.line(f"load {codegen.F}, ptr {c.at(area, 'float', i)}, align 64")

    def _passes(self, down: bool) -> list[tuple[int, str, str]]:
        """Loops over time as ``(steps at a time, start, stop)``.

        Several steps at a time keep the state in registers between them and read that many rows of
        memory in parallel, which hides the latency at the start of a row.
        """
        c, steps = self.c, self.arg["steps"]
        if c.masked:
            return [(1, "0", steps)]
        whole = c.scalar(f"and i64 {steps}, {-UNROLL}")
        passes = [(UNROLL, "0", whole), (1, whole, steps)]
        return passes[::-1] if down else passes

    def _currents(self, t: str, width: int, at: str, then: str) -> list[Vec]:
        """Currents of ``width`` steps; what is read next is prefetched.

        That is the following steps, and after the last ones what ``then`` names: ``"x"``, the first
        currents of the next block, or ``"g"``, the last gradients of this one.
        """
        c, out = self.c, []
        for k in range(width):
            index = self._row(self._plus(t, k), "x_step", at)
            out.append(c.load(self.arg["x"], index, self.stored))
        more = c.scalar(f"icmp slt i64 {self._plus(t, width)}, {self.arg['steps']}")
        for k in range(width):
            after = self._row(self._plus(t, k + width), "x_step", at)
            if then == "x":
                index = self._row(str(k), "x_step", self._plus(at, self.arg["block"]))
                other = c.at(self.arg["x"], STORED[self.stored], index)
            else:
                late = self._plus(self.arg["steps"], k - width)
                other = c.at(self.arg["g"], STORED[self.stored], self._row(late, "g_step", at))
            self._prefetch(more, c.at(self.arg["x"], STORED[self.stored], after), other)
        return out

    def _prefetch(self, choice: str, a: str, b: str) -> None:
        self.c.prefetch(self.c.scalar(f"select i1 {choice}, ptr {a}, ptr {b}"))

    def forward(self, name: str) -> str:
        """Currents to spikes."""
        c = self.c
        with c.loop("0", self.arg["repeats"]) as r, _Blocks(self) as (first, last):
            base = c.scalar(f"mul i64 {r}, {self.arg['neurons']}")
            self._start(first, last, base)
            for width, start, stop in self._passes(down=False):
                with c.loop(start, stop, width) as t, c.loop(first, last, LANES) as j:
                    i = c.scalar(f"sub i64 {j}, {first}")
                    at = self._plus(base, j)
                    states = tuple(self._get(s, i) for s in self.states)
                    for k, x in enumerate(self._currents(t, width, at, then="x")):
                        now = self._plus(t, k)
                        step = self.rule.forward(c, self._load_params(j, now), x, states)
                        states = step.states
                        spikes = self.rule.emitted(c, self.params, step)
                        index = self._row(now, "out_step", at)
                        c.store(spikes, self.arg["out"], index, self.stored, stream=True)
                    for area, value in zip(self.states, states, strict=True):
                        self._put(value, area, i)
            self._copy_out(self.states, "end", first, last, base)
        return self._finish(name)

    def _copy_out(self, areas: list[str], name: str, first: str, last: str, base: str) -> None:
        """Writes local states to ``name0``, ``name1`` where these are wanted."""
        c = self.c
        for k, area in enumerate(areas):
            with c.when(self._present(f"{name}{k}")), c.loop(first, last, LANES) as j:
                i = c.scalar(f"sub i64 {j}, {first}")
                c.store(self._get(area, i), self.arg[f"{name}{k}"], self._plus(base, j))

    def backward(self, name: str) -> str:
        """Currents and gradients of spikes to gradients of currents."""
        c, rule = self.c, self.rule
        carries = [self._local() for _ in range(rule.n_states)]
        with c.loop("0", self.arg["repeats"]) as r, _Blocks(self) as (first, last):
            base = c.scalar(f"mul i64 {r}, {self.arg['neurons']}")
            self._start(first, last, base)
            for width, start, stop in self._passes(down=False):
                with c.loop(start, stop, width) as t, c.loop(first, last, LANES) as j:
                    self._recompute(t, width, first, j, base)
            for k in range(rule.n_states):
                given = self._present(f"gend{k}")
                with c.loop(first, last, LANES) as j:
                    self._put(c.as_vec(0.0), carries[k], c.scalar(f"sub i64 {j}, {first}"))
                with c.when(given), c.loop(first, last, LANES) as j:
                    value = c.load(self.arg[f"gend{k}"], self._plus(base, j))
                    self._put(value, carries[k], c.scalar(f"sub i64 {j}, {first}"))
            for width, start, stop in self._passes(down=True):
                with (
                    c.loop(start, stop, width, down=True) as t,
                    c.loop(first, last, LANES) as j,
                    c.relaxed(),
                ):
                    self._backward_steps(t, width, first, j, base, carries)
            self._copy_out(carries, "gstart", first, last, base)
        return self._finish(name)

    def _recompute(self, t: str, width: int, first: str, j: str, base: str) -> None:
        c = self.c
        i = c.scalar(f"sub i64 {j}, {first}")
        states = tuple(self._get(s, i) for s in self.states)
        for k, x in enumerate(self._currents(t, width, self._plus(base, j), then="g")):
            now = self._plus(t, k)
            step = self.rule.forward(c, self._load_params(j, now), x, states)
            states = step.states
            for n, value in enumerate(step.saved):
                self._put(value, self.scratch, self._scratch_index(now, n, i))
        for area, value in zip(self.states, states, strict=True):
            self._put(value, area, i)

    def _backward_steps(self, t: str, width: int, first: str, j: str, base: str, carries: list[str]) -> None:
        c, rule = self.c, self.rule
        i = c.scalar(f"sub i64 {j}, {first}")
        at = self._plus(base, j)
        e = tuple(self._get(area, i) for area in carries)
        more = c.scalar(f"icmp sge i64 {t}, {width}")
        for k in reversed(range(width)):
            now = self._plus(t, k)
            g = c.load(self.arg["g"], self._row(now, "g_step", at), self.stored)
            before = self._row(self._plus(now, -width), "g_step", at)
            index = self._row(str(k), "x_step", self._plus(at, self.arg["block"]))
            self._prefetch(
                more,
                c.at(self.arg["g"], STORED[self.stored], before),
                c.at(self.arg["x"], STORED[self.stored], index),
            )
            saved = tuple(
                self._get(self.scratch, self._scratch_index(now, n, i)) for n in range(rule.n_saved)
            )
            back = rule.backward(c, self._load_params(j, now), saved, g, e)
            e = back.states
            index = self._row(now, "out_step", at)
            c.store(back.current, self.arg["gx"], index, self.stored, stream=True)
            self._accumulate(back, now, i, j)
        for area, value in zip(carries, e, strict=True):
            self._put(value, area, i)

    def _accumulate(self, back: Back, t: str, i: str, j: str) -> None:
        """Adds gradients of parameters: arrays in place, scalars lane by lane for torch to sum."""
        c = self.c
        if self.rule.per_neuron:
            for k, name in enumerate(self.rule.learnt):
                row = c.scalar(f"mul i64 {self.arg['neurons']}, {k}")
                self._add(back.params[name], "grad_coefficients", self._plus(row, j))
            if back.conductance is not None:
                row = c.scalar(f"mul i64 {self.arg['neurons']}, {t}")
                self._add(back.conductance, "grad_conductance", self._plus(row, j))
            return
        for k, name in enumerate(self.rule.learnt):
            index = self._plus(i, k * BLOCK)
            self._put(self._get(self.sums, index) + c.existing(back.params[name]), self.sums, index)

    def _add(self, value: Vec, name: str, index: str) -> None:
        c = self.c
        c.store(c.load(self.arg[name], index) + value, self.arg[name], index)

    def _scratch_index(self, t: str, k: int, i: str) -> str:
        c = self.c
        row = c.scalar(f"mul i64 {t}, {self.rule.n_saved}")
        row = c.scalar(f"add i64 {row}, {k}")
        row = c.scalar(f"mul i64 {row}, {self.arg['block']}")
        return c.scalar(f"add i64 {row}, {i}")


class _Blocks:
    """The loop over blocks of neurons, whose length is known only when the kernel runs."""

    def __init__(self, writer: Writer) -> None:
        self.w = writer

    def __enter__(self) -> tuple[str, str]:
        c, w = self.w.c, self.w
        size = w.arg["block"]
        span = c.scalar("sub i64 %hi, %lo")
        more = c.scalar(f"add i64 {span}, {size}")
        more = c.scalar(f"sub i64 {more}, 1")
        count = c.scalar(f"sdiv i64 {more}, {size}")
        self.loop = c.loop("0", count)
        b = self.loop.__enter__()
        offset = c.scalar(f"mul i64 {b}, {size}")
        first = c.scalar(f"add i64 %lo, {offset}")
        last = w._min(c.scalar(f"add i64 {first}, {size}"), "%hi")
        return first, last

    def __exit__(self, *error: Any) -> None:
        self.loop.__exit__(*error)


def team(name: str, unit: int = UNIT) -> str:
    """The function that each thread of an OpenMP team runs: its share, a multiple of ``unit`` neurons."""
    c = Code()
    arg = {}
    for part in TEAM:
        kind = "i64" if part == "full" else "ptr"
        arg[part] = c.scalar(f"load {kind}, ptr {c.at('%a', 'i64', str(slot(part)))}")
    me = c.scalar(f"sext i32 {c.scalar('call i32 ' + arg['thread_num'] + '()')} to i64")
    all_ = c.scalar(f"sext i32 {c.scalar('call i32 ' + arg['num_threads'] + '()')} to i64")
    units = c.scalar(f"sdiv i64 {c.scalar('add i64 ' + arg['full'] + f', {unit - 1}')}, {unit}")
    more = c.scalar(f"add i64 {units}, {c.scalar('sub i64 ' + all_ + ', 1')}")
    share = c.scalar(f"mul i64 {c.scalar(f'sdiv i64 {more}, {all_}')}, {unit}")
    lo = c.scalar(f"mul i64 {me}, {share}")
    end = c.scalar(f"add i64 {lo}, {share}")
    less = c.scalar(f"icmp slt i64 {end}, {arg['full']}")
    hi = c.scalar(f"select i1 {less}, i64 {end}, i64 {arg['full']}")
    with c.when(c.scalar(f"icmp slt i64 {lo}, {hi}")):
        c.raw(f"call void {arg['kernel']}(ptr %a, i64 {lo}, i64 {hi}, i64 {me})")
    return c.module(name, "ptr %a")
