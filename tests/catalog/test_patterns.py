"""Patterns of services are matched in linear time as well, and those that an earlier version took are named."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from peerd.catalog.declaration import check_declaration, from_config, to_declaration
from peerd.catalog.model import Service
from peerd.errors import PeerdError, Reason
from peerd.jobs.commands import service_work
from peerd.v1 import catalog_pb2


def declaration(pattern: str) -> catalog_pb2.ServiceDeclaration:
    return from_config(
        {
            "name": "s",
            "kind": "SERVICE_KIND_PROCESS",
            "argv": ["/bin/echo", "${p}"],
            "params": [{"name": "p", "pattern": pattern}],
        }
    )


def service(pattern: str) -> Service:
    return Service(service_id=1, active=True, origin="config", declaration=to_declaration(declaration(pattern)))


def test_a_service_with_such_a_pattern_answers_at_once(tmp_path: Path) -> None:
    check_declaration(declaration("(a+)+b"), data_dir=tmp_path)
    begun = time.thread_time()
    with pytest.raises(PeerdError, match="does not match"):
        service_work(service("(a+)+b"), {"p": "a" * 30_000}, {})
    assert time.thread_time() - begun < 2
    assert service_work(service("(a+)+b"), {"p": "aab"}, {}).argv == ("/bin/echo", "aab")


def test_what_cannot_be_matched_in_linear_time_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PeerdError) as refusal:
        check_declaration(declaration(r"(a)\1"), data_dir=tmp_path)
    assert refusal.value.violations[0].field == "params[0].pattern"
    assert "not an RE2 expression" in refusal.value.message


def test_one_that_was_stored_earlier_refuses_its_jobs_and_says_why() -> None:
    with pytest.raises(PeerdError) as refusal:
        service_work(service("(?=a)b"), {"p": "b"}, {})
    assert refusal.value.reason is Reason.INVALID_ARGUMENT
    assert "its owner must mend the pattern" in refusal.value.message
