"""Who may call a method: the ``access`` option of its proto, read once. What has no rule is refused to everybody."""

from __future__ import annotations

from google.protobuf import descriptor_pool

from peerd.errors import PeerdError, Reason
from peerd.rpc.caller import Caller
from peerd.v1.access_pb2 import Access, Grant, access

_STANDARD = {
    "grpc.health.v1.Health": Access(member=True),
    "grpc.reflection.v1.ServerReflection": Access(any_of=[Grant.GRANT_OBSERVE]),
    "grpc.reflection.v1alpha.ServerReflection": Access(any_of=[Grant.GRANT_OBSERVE]),
}


class Rules:
    """Looks rules up by full method name, such as ``/peerd.v1.JobService/CreateJob``."""

    def __init__(self) -> None:
        self._cache: dict[str, Access | None] = {}

    def rule(self, method: str) -> Access | None:
        """The rule of a method, or None when it has none."""
        if method not in self._cache:
            self._cache[method] = _look_up(method)
        return self._cache[method]

    def check(self, method: str, caller: Caller) -> None:
        """Raises the refusal that fits: LOCAL_ONLY, NOT_A_MEMBER or PERMISSION_DENIED."""
        if caller.local:
            return
        rule = self.rule(method)
        if rule is None:
            raise PeerdError(Reason.PERMISSION_DENIED, f"{method} is open to nobody")
        if rule.local:
            raise PeerdError(Reason.LOCAL_ONLY, f"{method} is only answered on the machine itself")
        if rule.invite != caller.invite:
            whom = "the holder of a pending invite" if rule.invite else "members"
            raise PeerdError(Reason.NOT_A_MEMBER, f"{method} is open to {whom} only")
        if rule.any_of and not caller.grants.intersection(rule.any_of):
            names = " or ".join(Grant.Name(grant).removeprefix("GRANT_").lower() for grant in rule.any_of)
            raise PeerdError(
                Reason.PERMISSION_DENIED,
                f"{method} needs the grant {names}, which {caller.peer_id} does not hold here",
                metadata={"grant": names},
            )


def _look_up(method: str) -> Access | None:
    service_name, _, method_name = method.strip("/").rpartition("/")
    if service_name in _STANDARD:
        return _STANDARD[service_name]
    try:
        service = descriptor_pool.Default().FindServiceByName(service_name)
        options = service.methods_by_name[method_name].GetOptions()
    except KeyError:
        return None
    if not options.HasExtension(access):
        return None
    rule: Access = options.Extensions[access]
    return rule
