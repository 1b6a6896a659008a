"""Optimizers around optimizers: which belong together, and where the outermost step ends."""

import functools
import sys
from collections.abc import Callable, Iterable
from types import CodeType, FrameType, MethodType
from typing import Any

# What an optimizer holds apart from other optimizers; states have one entry per parameter.
_OWN = frozenset({"state", "param_groups", "defaults"})
_TRAINERS = frozenset({"accelerate", "lightning", "lightning_fabric", "pytorch_lightning"})
Around = Callable[[Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]


def is_optimizer(value: Any) -> bool:
    """Return whether ``value`` has the two names that every optimizer and wrapper shares."""
    try:
        return hasattr(value, "param_groups") and callable(value.step) and not _is_type(value)
    except Exception:  # an attribute of a foreign object may raise anything
        return False


def optimizers_within(optimizer: Any) -> list[Any]:
    """Return an optimizer, and those that it holds in its attributes, however deep."""
    found: list[Any] = [optimizer]
    for outer in found:
        for value in _held(outer):
            if is_optimizer(value) and not any(value is one for one in found):
                found.append(value)
    return found


def passes_on(outer: Any, optimizer: Any) -> bool:
    """Return whether a trainer's wrapper changes no parameters before the step within."""
    packages = {base.__module__.split(".")[0] for base in type(outer).__mro__}
    return bool(packages & _TRAINERS) and any(one is optimizer for one in _held(outer))


def outermost_step(optimizer: Any, frame: FrameType) -> tuple[Any, FrameType]:
    """Return the outermost optimizer on the stack around one, and the frame of its step.
    ``frame`` runs the step of ``optimizer``; both come back where nothing is around it.
    """
    code = _code_of_instance_step(optimizer)
    caller = frame.f_back
    while caller is not None:
        if caller.f_code is code:  # optimizer.step was replaced on the instance
            frame = caller
        elif "step" in caller.f_code.co_name and caller.f_code.co_argcount:
            owner = caller.f_locals.get(caller.f_code.co_varnames[0])
            if owner is optimizer:
                frame = caller
            elif is_optimizer(owner) and any(one is optimizer for one in _held(owner)):
                optimizer, frame = owner, caller
                code = _code_of_instance_step(owner)
        caller = caller.f_back
    return optimizer, frame


def is_hooked(optimizer: Any) -> bool:
    """Return whether torch calls hooks around ``optimizer.step``."""
    return hasattr(optimizer, "_optimizer_step_pre_hooks") and bool(
        getattr(type(optimizer).step, "hooked", False)
    )


def is_running(frame: FrameType | None) -> bool:
    """Return whether a frame is on the stack; one that an exception ended is not."""
    if frame is None:
        return False
    caller: FrameType | None = sys._getframe(1)
    while caller is not None and caller is not frame:
        caller = caller.f_back
    return caller is not None


def is_lightning_module(module: Any) -> bool:
    """Return whether a module is trained by Lightning, known without importing it."""
    return any(base.__name__ == "LightningModule" for base in type(module).__mro__)


def lightning_module_around(frame: FrameType | None) -> Any:
    """Return the LightningModule whose ``optimizer_step`` is on the stack above ``frame``."""
    while frame is not None:
        if frame.f_code.co_name == "optimizer_step" and frame.f_code.co_argcount:
            owner = frame.f_locals.get(frame.f_code.co_varnames[0])
            if is_lightning_module(owner):
                return owner
        frame = frame.f_back
    return None


class MethodPatch:
    """A method of one object, called through functions ``around(original, args, kwargs)``."""

    def __init__(self, owner: Any, name: str) -> None:
        self._owner, self._name = owner, name
        self._arounds: tuple[Around, ...] = ()
        self._before = getattr(owner, "__dict__", {}).get(name)
        original = getattr(owner, name)
        # Schedulers look at attributes of the function, Lightning at __wrapped__.
        self._function: Any = functools.wraps(getattr(original, "__func__", original))(
            lambda this, *args, **kwargs: self._call(original, this, args, kwargs)
        )
        vars(self._function)["patch"] = self
        # A bound method, because schedulers ask for its __func__.
        setattr(owner, name, MethodType(self._function, owner))

    @classmethod
    def add(cls, owner: Any, name: str, around: Around) -> Callable[[], None]:
        """Call ``around`` for the method from now on, and return what ends it.
        AttributeError where the owner takes no attributes.
        """
        now = getattr(getattr(owner, name), "__func__", None)
        patch = getattr(now, "patch", None)
        if not isinstance(patch, cls) or patch._function is not now or patch._owner is not owner:
            patch = cls(owner, name)
        patch._arounds = (*patch._arounds, around)
        return functools.partial(patch._remove, around)

    def _remove(self, around: Around) -> None:
        self._arounds = tuple(one for one in self._arounds if one is not around)
        now = getattr(self._owner, "__dict__", {}).get(self._name)
        # A patch that somebody has set since stays, with ours below it, which does nothing now.
        if self._arounds or getattr(now, "__func__", None) is not self._function:
            return
        if self._before is None:
            delattr(self._owner, self._name)
        else:
            setattr(self._owner, self._name, self._before)

    def _call(self, original: Any, this: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if this is not self._owner:  # a copy, which has this attribute too
            return getattr(type(this), self._name)(this, *args, **kwargs)
        called = original
        for around in self._arounds:
            called = _around(around, called)
        return called(*args, **kwargs)


def _around(around: Around, called: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *args, **kwargs: around(called, args, kwargs)


class FrameWatch:
    """Call back once when a running frame returns, by the profile function of its thread."""

    def __init__(self, frame: FrameType, on_return: Callable[[], None]) -> None:
        self._frame, self._callbacks = frame, [on_return]

    def start(self) -> None:
        """Watch, unless the thread is profiled by somebody else."""
        profile = sys.getprofile()
        other = getattr(profile, "__self__", None)
        if profile is None:
            sys.setprofile(self._look)
        elif isinstance(other, FrameWatch) and other._frame is self._frame:
            other._callbacks += self._callbacks

    def _look(self, frame: FrameType, event: str, argument: Any) -> None:
        if frame is self._frame and event == "return":
            sys.setprofile(None)
            for callback in self._callbacks:
                callback()


def _held(optimizer: Any) -> Iterable[Any]:
    slots = [slot for kind in type(optimizer).__mro__ for slot in getattr(kind, "__slots__", ())]
    attributes = {slot: getattr(optimizer, slot, None) for slot in slots}
    for name, value in [*attributes.items(), *getattr(optimizer, "__dict__", {}).items()]:
        if name not in _OWN:
            yield value
            if isinstance(value, (list, tuple)):
                yield from value
            elif isinstance(value, dict):
                yield from list(value.values())


def _code_of_instance_step(optimizer: Any) -> CodeType | None:
    """Return the code of a step that was set on the instance, as schedulers and wrappers do."""
    step = getattr(optimizer, "__dict__", {}).get("step")
    while isinstance(step, functools.partial):
        step = step.func
    return getattr(getattr(step, "__func__", step), "__code__", None)


def _is_type(value: Any) -> bool:
    return isinstance(value, type)
