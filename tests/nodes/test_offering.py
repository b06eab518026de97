"""What a peer that probes says of itself."""

from __future__ import annotations

from pathlib import Path

from peerd.config import NodesConfig
from peerd.nodes.offering import prober_service

EXAMPLE = Path(__file__).parents[2] / "examples" / "protocols"


def test_a_prober_names_the_protocols_that_its_owner_added() -> None:
    assert prober_service(NodesConfig()) is None
    plain = prober_service(NodesConfig(prober=True, allowed_networks=("10.0.0.0/8",)))
    assert plain is not None
    assert plain["description"] == "discovers and scans nodes of organizations"
    more = prober_service(NodesConfig(prober=True, allowed_networks=("10.0.0.0/8",), protocols_dir=str(EXAMPLE)))
    assert more is not None
    assert more["description"] == f"{plain['description']}; knows besides the built-in protocols: mine"
