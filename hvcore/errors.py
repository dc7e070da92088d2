"""Exceptions, and the one table HV_STATUS -> exception class (section 5).

Every HypercallError carries `status` and `call`; its subclass is also the builtin exception that a Python user
would expect for that kind of refusal, so both `except HypercallError` and `except ValueError` work.
"""

from hvcore._native.exits import ExitNotCompleted as ExitNotCompleted
from hvcore.enums import Hypercall, Status


class HypercallError(Exception):
    """A hypercall made through the Python API did not succeed."""

    def __init__(self, status: Status, call: Hypercall, detail: str = "") -> None:
        super().__init__(f"{call.name} ({call:#06x}): {status.name} ({status:#06x}){': ' + detail if detail else ''}")
        self.status = status
        self.call = call


class InvalidParameterError(HypercallError, ValueError):
    """A value in the input is not legal."""


class AccessDeniedError(HypercallError, PermissionError):
    """The privilege or the relation to the target is missing, or the operation is refused."""


class NoMemoryError(HypercallError, MemoryError):
    """A memory pool or another resource is exhausted."""


class UnknownObjectError(HypercallError, LookupError):
    """The partition, virtual processor, port, connection, property or register does not exist."""


class InvalidStateError(HypercallError, RuntimeError):
    """The target exists but is not in the state that the call needs."""


class UnsupportedError(HypercallError, NotImplementedError):
    """The call or the feature does not exist here."""


ERRORS: dict[Status, type[HypercallError]] = {
    Status.INVALID_HYPERCALL_CODE: UnsupportedError,
    Status.INVALID_HYPERCALL_INPUT: InvalidParameterError,
    Status.INVALID_ALIGNMENT: InvalidParameterError,
    Status.INVALID_PARAMETER: InvalidParameterError,
    Status.ACCESS_DENIED: AccessDeniedError,
    Status.INVALID_PARTITION_STATE: InvalidStateError,
    Status.OPERATION_DENIED: AccessDeniedError,
    Status.UNKNOWN_PROPERTY: UnknownObjectError,
    Status.PROPERTY_VALUE_OUT_OF_RANGE: InvalidParameterError,
    Status.INSUFFICIENT_MEMORY: NoMemoryError,
    Status.PARTITION_TOO_DEEP: InvalidStateError,
    Status.INVALID_PARTITION_ID: UnknownObjectError,
    Status.INVALID_VP_INDEX: UnknownObjectError,
    Status.NOT_FOUND: UnknownObjectError,
    Status.INVALID_PORT_ID: UnknownObjectError,
    Status.INVALID_CONNECTION_ID: UnknownObjectError,
    Status.INSUFFICIENT_BUFFERS: NoMemoryError,
    Status.NOT_ACKNOWLEDGED: InvalidStateError,
    Status.INVALID_VP_STATE: InvalidStateError,
    Status.ACKNOWLEDGED: InvalidStateError,
    Status.INVALID_SYNIC_STATE: InvalidStateError,
    Status.OBJECT_IN_USE: InvalidStateError,
    Status.INVALID_PROXIMITY_DOMAIN_INFO: InvalidParameterError,
    Status.NO_RESOURCES: NoMemoryError,
    Status.FEATURE_UNAVAILABLE: UnsupportedError,
    Status.INSUFFICIENT_BUFFER: InvalidParameterError,
    Status.INVALID_LP_INDEX: UnknownObjectError,
    Status.INVALID_REGISTER_VALUE: InvalidParameterError,
    Status.INVALID_VTL_STATE: InvalidStateError,
    Status.INSUFFICIENT_ROOT_MEMORY: NoMemoryError,
    Status.UNKNOWN_REGISTER_NAME: UnknownObjectError,
}


def check(status: Status, call: Hypercall, detail: str = "") -> None:
    """Raise the exception of `status`, unless it is SUCCESS."""
    if status is not Status.SUCCESS:
        raise ERRORS.get(status, HypercallError)(status, call, detail)


class GuestError(Exception):
    """A guest ended in a way that the caller treats as an error; `exit` says how."""

    def __init__(self, exit: object) -> None:
        super().__init__(str(exit))
        self.exit = exit
