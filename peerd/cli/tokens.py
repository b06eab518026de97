"""``peerctl tokens``: tokens for this peer's HTTP surface."""

from __future__ import annotations

import click

from peerd.cli.app import Noun
from peerd.cli.output import enum_word, local_time, print_json, print_table
from peerd.cli.settings import Settings, call, duration, pass_settings

SCOPES = ("read", "register")


@click.group(cls=Noun, default="list")
def tokens() -> None:
    """Tokens for HTTP on this peer; 'peerctl tokens' alone lists them."""


@tokens.command("create")
@click.option("--scope", type=click.Choice(SCOPES), required=True, help="read: look; register: an external machine.")
@click.option("--name", default="", help="For whom, so that you know what to revoke.")
@click.option("--ttl", type=duration, help="How long it holds, such as 30m or 12h. For ever by default.")
@pass_settings
def create_token(settings: Settings, scope: str, name: str, ttl: float | None) -> None:
    """Make a token. It is shown this once and stored nowhere."""
    from peerd.v1 import tokens_pb2

    number = tokens_pb2.TokenScope.Value(f"TOKEN_SCOPE_{scope.upper()}")
    answer = call(settings, lambda peerd: peerd.create_token(number, name=name, ttl_seconds=round(ttl or 0)))
    if settings.as_json:
        print_json(answer)
    else:
        click.echo(answer.token)


@tokens.command("list")
@pass_settings
def list_tokens(settings: Settings) -> None:
    """All tokens ever made here."""
    from peerd.v1 import tokens_pb2

    found = call(settings, lambda peerd: peerd.tokens())
    if settings.as_json:
        print_json({"tokens": found})
        return
    rows = [
        (
            token.token_id,
            enum_word(tokens_pb2.TokenScope, token.scope),
            token.name,
            local_time(token.created_at),
            f"revoked {local_time(token.revoked_at)}" if token.HasField("revoked_at") else local_time(token.expires_at),
            local_time(token.last_used_at),
        )
        for token in found
    ]
    print_table(("ID", "SCOPE", "NAME", "MADE", "ENDS", "LAST USED"), rows, empty="no tokens")


@tokens.command("revoke")
@click.argument("token_id")
@pass_settings
def revoke_token(settings: Settings, token_id: str) -> None:
    """End a token, by its id."""
    token = call(settings, lambda peerd: peerd.revoke_token(token_id))
    if settings.as_json:
        print_json(token)
    else:
        click.echo(f"{token.token_id} is revoked")
