"""What to call and what to say: every method of a peer, requests at random, and requests gone bad."""

from __future__ import annotations

import functools
import gzip
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from google.protobuf import descriptor_pool
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message_factory import GetMessageClass

from peerd.daemon.services import all_services  # noqa: F401 - imports the generated code of every service
from peerd.v1 import workflows_pb2  # noqa: F401

_STANDARD = ("grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection")
_FILES = (
    "audit",
    "backup",
    "catalog",
    "daemon",
    "detector",
    "jobs",
    "mesh",
    "profiles",
    "registry",
    "tokens",
    "transfers",
    "workflows",
)


@dataclass(frozen=True, kw_only=True)
class Method:
    """One method of one service."""

    path: bytes
    request: Descriptor
    request_streaming: bool
    response_streaming: bool


def all_methods() -> list[Method]:
    """Every method of every service of a peer."""
    pool = descriptor_pool.Default()
    services = [pool.FindServiceByName(name) for name in _STANDARD]
    for name in _FILES:
        services += pool.FindFileByName(f"peerd/v1/{name}.proto").services_by_name.values()
    return [
        Method(
            path=f"/{service.full_name}/{method.name}".encode(),
            request=method.input_type,
            request_streaming=method.client_streaming,
            response_streaming=method.server_streaming,
        )
        for service in services
        for method in service.methods
    ]


def random_request(rng: random.Random, descriptor: Descriptor, depth: int = 3) -> Any:
    """A message that parses, with odd values in it."""
    message = GetMessageClass(descriptor)()
    for field in descriptor.fields:
        if rng.random() < 0.3:
            continue
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            continue
        values: list[Any] = [
            _value(rng, field, depth) for _ in range(rng.choice((0, 1, 3)) if field.is_repeated else 1)
        ]
        for value in values:
            if value is None:
                continue
            if field.is_repeated:
                getattr(message, field.name).append(value)
            elif field.message_type is not None:
                getattr(message, field.name).CopyFrom(value)
            else:
                setattr(message, field.name, value)
    return message


def _value(rng: random.Random, field: FieldDescriptor, depth: int) -> Any:
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_MESSAGE:
            assert field.message_type is not None
            return random_request(rng, field.message_type, depth - 1) if depth else None
        case FieldDescriptor.CPPTYPE_STRING:
            if field.type == FieldDescriptor.TYPE_BYTES:
                return rng.randbytes(rng.choice((0, 1, 32, 64, 5000)))
            return rng.choice(("", "x", "../../etc/passwd", "\x00\x1b[2J", "界" * 500, "a" * 20_000, "-1", "%s{}"))
        case FieldDescriptor.CPPTYPE_BOOL:
            return rng.random() < 0.5
        case FieldDescriptor.CPPTYPE_DOUBLE | FieldDescriptor.CPPTYPE_FLOAT:
            return rng.choice((0.0, -1.0, float("inf"), float("nan"), 1e30))
        case FieldDescriptor.CPPTYPE_INT32:
            return rng.choice((0, 1, -1, 2**31 - 1, -(2**31)))
        case FieldDescriptor.CPPTYPE_INT64:
            return rng.choice((0, 1, -1, 2**63 - 1, -(2**63)))
        case FieldDescriptor.CPPTYPE_UINT32:
            return rng.choice((0, 1, 2**32 - 1))
        case FieldDescriptor.CPPTYPE_UINT64:
            return rng.choice((0, 1, 2**64 - 1))
        case FieldDescriptor.CPPTYPE_ENUM:
            return rng.choice((0, 1, 999))
    raise AssertionError(field.full_name)


def mutated(rng: random.Random, content: bytes) -> bytes:
    """The same with some of it cut, doubled, flipped or put in."""
    out = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        position = rng.randrange(len(out) + 1)
        match rng.randrange(4):
            case 0:
                out[position : position + rng.randint(1, 8)] = b""
            case 1:
                out[position:position] = rng.randbytes(rng.randint(1, 8))
            case 2:
                out[position:position] = out[position : position + 16]
            case _ if position < len(out):
                out[position] ^= 1 << rng.randrange(8)
    return bytes(out)


def bad_request(rng: random.Random, method: Method) -> bytes:
    """Rubbish, or nearly a request of that method."""
    match rng.randrange(4):
        case 0:
            return rng.randbytes(rng.randint(1, 300))
        case 1:
            return b"\x0a\x01" * rng.randint(1, 2000)  # submessages in submessages
    valid = random_request(rng, method.request).SerializeToString()
    return mutated(rng, valid) if rng.random() < 0.7 else valid


@functools.lru_cache(maxsize=2)
def gzip_bomb(plain_bytes: int) -> bytes:
    """Zeros, a thousand times smaller."""
    return gzip.compress(bytes(plain_bytes), 9, mtime=0)


def swarms(descriptor: Descriptor, total_bytes: int, depth: int = 3) -> Iterator[bytes]:
    """For each repeated field of submessages, deep ones too: as many empty ones as the bytes hold, two bytes each."""
    for field in descriptor.fields:
        inner = field.message_type
        if inner is None or field.number > 15 or inner.GetOptions().map_entry:
            continue
        if field.is_repeated:
            yield bytes((field.number << 3 | 2, 0)) * (total_bytes // 2)
        if depth:
            for content in swarms(inner, total_bytes, depth - 1):
                yield bytes((field.number << 3 | 2,)) + varint(len(content)) + content


def varint(value: int) -> bytes:
    """A number as protobuf writes it."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes((*out, value))
