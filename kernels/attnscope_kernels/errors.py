"""The exception tree's root and the kernels' own branch (imports nothing, so that torch-free code can use it)."""

from __future__ import annotations


class AttnscopeError(Exception):
    """Something the user can act on: names the thing, what was found, what was expected and what to do next.

    Every error that attnscope raises on purpose derives from this class; the command line turns it into exit code 2.

    Example:
        >>> str(AttnscopeError("head L9H0", found="9", expected="a layer below 8", fix="Use L0..L7."))
        'head L9H0: found 9; expected a layer below 8. Use L0..L7.'
    """

    def __init__(self, what: str, *, found: object = None, expected: object = None, fix: str | None = None) -> None:
        parts = []
        if found is not None:
            parts.append(f"found {found}")
        if expected is not None:
            parts.append(f"expected {expected}")
        message = f"{what}: {'; '.join(parts)}" if parts else what
        if fix:
            message = f"{message.rstrip('.')}. {fix}"
        super().__init__(message)
        self.what, self.found, self.expected, self.fix = what, found, expected, fix


class KernelError(AttnscopeError):
    """An attention call or a kernel implementation is at fault."""


class ContractError(KernelError):
    """An attention call or a want is malformed: wrong shape, dtype, device or range."""


class ImplementationUnavailableError(KernelError):
    """The requested kernel implementation is unknown, not installed or does not cover the call."""


class KernelMemoryError(KernelError):
    """The GPU's memory ran out inside a kernel; the message names the tensor and the context that would fit."""
