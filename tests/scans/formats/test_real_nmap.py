"""What the nmap of this machine writes of services that are really there."""

from __future__ import annotations

import io
import os
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from peerd.clock import SystemClock, to_datetime
from peerd.inventory.model import Port, PortState, Record
from peerd.scans.formats import Format, Skipped, read_scan

pytestmark = pytest.mark.skipif(
    os.environ.get("PEERD_REQUIRE_ALL") != "1" and shutil.which("nmap") is None, reason="nmap is not installed"
)
BANNER = b"SSH-2.0-OpenSSH_8.9p1 Ubuntu-3ubuntu0.1\r\n"


@contextmanager
def listening(talk: Callable[[socket.socket], None]) -> Iterator[int]:
    """The port of a server on loopback that does this to everyone who calls."""
    server = socket.create_server(("127.0.0.1", 0))
    callers: list[threading.Thread] = []

    def answer(caller: socket.socket) -> None:
        with caller:
            caller.settimeout(45)  # nmap listens for six seconds before it speaks
            try:
                talk(caller)
            except OSError:  # nmap hangs up as it likes
                pass

    def serve() -> None:
        while True:
            try:
                caller, _ = server.accept()
            except OSError:
                return
            callers.append(threading.Thread(target=answer, args=(caller,)))
            callers[-1].start()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield int(server.getsockname()[1])
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        for each in (thread, *callers):
            each.join(10)


def certificate(folder: Path) -> tuple[ssl.SSLContext, bytes]:
    """A server's side of TLS, and its certificate in DER."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "web.example.org")])
    now = to_datetime(SystemClock().now())
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=30))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("Web.example.org")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = folder / "pair.pem"
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + made.public_bytes(serialization.Encoding.PEM)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context, made.public_bytes(serialization.Encoding.DER)


def scan(*arguments: str) -> dict[int, Port]:
    """The ports of loopback as nmap sees them."""
    done = subprocess.run(
        ["nmap", "-n", "-sT", "-oX", "-", *arguments, "127.0.0.1"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        check=True,
    )
    reading = read_scan(io.BytesIO(done.stdout))
    items = list(reading)
    assert reading.format is Format.NMAP_XML
    assert reading.notes.tool == "nmap"
    assert reading.notes.finished_at
    assert not [item for item in items if isinstance(item, Skipped)]
    records = [item for item in items if isinstance(item, Record)]
    assert {record.address for record in records} == {"127.0.0.1"}
    assert all(record.up and record.seen_at for record in records)
    return {record.port.number: record.port for record in records if record.port}


def test_a_real_scan_of_loopback_is_read(tmp_path: Path) -> None:
    context, der = certificate(tmp_path)

    def greet(caller: socket.socket) -> None:
        caller.sendall(BANNER)
        caller.recv(100)

    def speak_tls(caller: socket.socket) -> None:
        if caller.recv(1, socket.MSG_PEEK):
            with context.wrap_socket(caller, server_side=True) as secured:
                secured.recv(100)

    with socket.socket() as held, listening(greet) as first, listening(speak_tls) as second:
        held.bind(("127.0.0.1", 0))  # nobody listens there, and nobody else can
        closed = int(held.getsockname()[1])
        ports = scan("-sV", "--version-intensity", "1", "--script", "banner", "-p", f"{first},{closed}")
        ports |= scan("--script", "+ssl-cert", "-p", str(second))
    assert set(ports) == {first, second, closed}
    assert ports[closed].state is PortState.CLOSED
    ssh = ports[first]
    assert ssh.banner and BANNER.strip().startswith(ssh.banner.strip())
    assert ssh.service and (ssh.service.name, ssh.service.product) == ("ssh", "OpenSSH")
    assert "cpe:/o:linux:linux_kernel" in ssh.service.cpes
    shown = ports[second].certificate
    assert shown and shown.sha256 == sha256(der).hexdigest()
    assert (shown.common_name, shown.subject_alternative_names) == ("web.example.org", ("web.example.org",))
    service = ports[second].service
    assert service and service.tls
