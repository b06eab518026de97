"""A daemon that answers what a test tells it to, over a real unix socket with real gRPC.

Methods are found by name in the descriptors, so a test gives only the handlers it needs; any other method answers
UNIMPLEMENTED, as an old daemon would.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import grpc
from google.protobuf import any_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from peerd.errors import Reason
from peerd.v1 import (  # noqa: F401  # importing them fills the descriptor pool
    catalog_pb2,
    daemon_pb2,
    jobs_pb2,
    mesh_pb2,
    registry_pb2,
    transfers_pb2,
    workflows_pb2,
)

Handler = Callable[[Any, grpc.ServicerContext], Message | Iterator[Message]]


@dataclass(frozen=True, kw_only=True)
class Call:
    """One call as it came in."""

    method: str
    request: Any
    metadata: dict[str, str]
    seconds_left: float


@dataclass
class FakeDaemon(grpc.GenericRpcHandler):
    """``daemon.on("RegistryService.ListPeers", handler)``; ``daemon.calls`` is what came."""

    socket: Path
    calls: list[Call] = field(default_factory=list)
    _handlers: dict[str, Handler] = field(default_factory=dict)
    _server: grpc.Server | None = None

    def start(self) -> None:
        self._server = grpc.server(ThreadPoolExecutor(max_workers=4))
        self._server.add_generic_rpc_handlers((self,))
        self._server.add_insecure_port(f"unix:{self.socket}")
        self._server.start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.stop(None).wait()
            self._server = None

    def on(self, method: str, handler: Handler | Message) -> None:
        """Answer calls of ``Service.Method`` with a message, or with what a function returns or yields."""
        self._handlers[method] = handler if callable(handler) else lambda request, context: handler

    def requests(self, method: str) -> list[Any]:
        """The requests of one method, in order."""
        return [call.request for call in self.calls if call.method == method]

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
        service, _, name = handler_call_details.method.removeprefix("/peerd.v1.").partition("/")
        method = f"{service}.{name}"
        handler = self._handlers.get(method)
        if handler is None:
            return None
        descriptor = descriptor_pool.Default().FindMethodByName(f"peerd.v1.{method}")
        request_class = message_factory.GetMessageClass(descriptor.input_type)

        def answer(request: Any, context: grpc.ServicerContext) -> Any:
            metadata = {key: value for key, value in context.invocation_metadata() if isinstance(value, str)}
            seconds = context.time_remaining()
            self.calls.append(Call(method=method, request=request, metadata=metadata, seconds_left=seconds))
            return handler(request, context)

        make = grpc.unary_stream_rpc_method_handler if descriptor.server_streaming else None
        return (make or grpc.unary_unary_rpc_method_handler)(
            answer, request_deserializer=request_class.FromString, response_serializer=lambda m: m.SerializeToString()
        )


def refuse(
    context: grpc.ServicerContext,
    reason: Reason,
    message: str,
    *,
    next_action: str | None = None,
    fields: dict[str, str] | None = None,
) -> NoReturn:
    """End the call as the daemon does for a PeerdError."""
    info = error_details_pb2.ErrorInfo(reason=reason.name, domain="peerd")
    info.metadata["next_action"] = next_action or reason.next_action
    bad = error_details_pb2.BadRequest()
    for name, description in (fields or {}).items():
        bad.field_violations.add(field=name, description=description)
    status = status_pb2.Status(code=code_pb2.Code.Value(reason.code), message=message)
    for detail in (info, bad):
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    context.abort_with_status(rpc_status.to_status(status))
    raise AssertionError("abort_with_status returned")


def refusing(reason: Reason, message: str = "no", **details: Any) -> Handler:
    """A handler that refuses."""

    def handler(request: Any, context: grpc.ServicerContext) -> NoReturn:
        refuse(context, reason, message, **details)

    return handler
