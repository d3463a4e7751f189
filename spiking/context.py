"""What a ``with`` block says about modules, for the calls of one thread or task; nothing is written on them.

A module is shared by threads, copied and pickled, so the state of a call must not lie on it. It lies in
`contextvars` instead: another thread does not see it, and neither does a copy, which is another module. A
task of `asyncio` that is started inside a block takes part in it until the block ends.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator, Mapping
    from contextlib import AbstractContextManager, ExitStack

    from torch import nn

V = TypeVar("V")


class Scoped(Generic[V]):
    """Values for objects within ``with`` blocks; the innermost block that names an object has its say.

    Args:
        name: of the context variable.
    """

    def __init__(self, name: str) -> None:
        self._blocks: ContextVar[tuple[dict[Hashable, V], ...]] = ContextVar(name, default=())

    def get(self, key: Hashable) -> V | None:
        """The value for ``key`` here and now, None where no block names it."""
        for block in self._blocks.get():
            if key in block:
                return block[key]
        return None

    @contextmanager
    def given(self, values: Mapping[Any, V]) -> Iterator[None]:
        """Within the block ``values`` hold; behind it, for no task that was started inside, either."""
        block: dict[Hashable, V] = dict(values)
        self._blocks.set((block, *self._blocks.get()))
        try:
            yield
        finally:
            block.clear()
            # by identity, since generators may leave their blocks in another order, or another context
            self._blocks.set(tuple(b for b in self._blocks.get() if b is not block))


_SET_HERE: Scoped[bool] = Scoped("hooks")


def idle(*_: Any, **__: Any) -> None:
    """What a hook is in a copy."""


def _idle() -> Callable[..., None]:
    return idle


class Hook:
    """A forward hook that acts on calls of the block that set it; it travels into no copy and no file.

    Args:
        owner: the block.
        function: the hook itself.
    """

    def __init__(self, owner: object, function: Callable[..., Any]) -> None:
        self.owner, self.function = owner, function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the hook gives, None elsewhere."""
        if torch.compiler.is_compiling() or _SET_HERE.get(self.owner) is None:
            return None
        return self.function(*args, **kwargs)

    def __reduce__(self) -> tuple[Callable[[], Callable[..., None]], tuple[()]]:
        return _idle, ()


class Hooks:
    """Sets hooks that last as long as ``stack`` and act in this thread or task alone."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        stack.enter_context(_SET_HERE.given({self: True}))

    def before(self, module: nn.Module, function: Callable[..., Any], **options: Any) -> None:
        """Call ``function`` before each forward pass of ``module``."""
        handle = module.register_forward_pre_hook(Hook(self, function), **options)
        self._stack.callback(handle.remove)

    def after(self, module: nn.Module, function: Callable[..., Any], **options: Any) -> None:
        """Call ``function`` after each forward pass of ``module``."""
        handle = module.register_forward_hook(Hook(self, function), **options)
        self._stack.callback(handle.remove)


class SharedSwitch:
    """A setting of the whole process that several threads want for a while: the last one puts it back.

    Args:
        switched: makes the context in which the setting holds.
    """

    def __init__(self, switched: Callable[[], AbstractContextManager[Any]]) -> None:
        self._switched = switched
        self._lock = threading.Lock()
        self._users = 0
        self._context: AbstractContextManager[Any] | None = None

    @contextmanager
    def held(self) -> Iterator[None]:
        """Within the block the setting holds."""
        with self._lock:
            if not self._users:
                self._context = self._switched()
                self._context.__enter__()
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if not self._users and self._context is not None:
                    self._context.__exit__(None, None, None)
                    self._context = None
