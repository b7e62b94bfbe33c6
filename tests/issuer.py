"""An issuer of tokens: real keys, real signatures, a real address where the public ones are fetched."""

from __future__ import annotations

import base64
import hmac
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm

ISSUER, AUDIENCE = "https://id.example.org", "https://tissue.example.org/mcp"


@dataclass
class Issuer:
    """keys: private ones by their id; the newest signs. asked: how often the public ones were fetched. takes_s: for an answer."""

    address: str = ""
    keys: dict[str, ec.EllipticCurvePrivateKey] = field(default_factory=dict)
    asked: int = 0
    takes_s: float = 0.0

    def new_key(self, name: str) -> None:
        self.keys[name] = ec.generate_private_key(ec.SECP256R1())

    def published(self) -> dict[str, Any]:
        public = {name: ECAlgorithm.to_jwk(key.public_key(), as_dict=True) for name, key in self.keys.items()}
        return {"keys": [{**key, "kid": name, "alg": "ES256", "use": "sig"} for name, key in public.items()]}

    def confused(self, tenant: str) -> str:
        """Signed with the public key as if it were a secret, which its owner never did."""
        signed, _, _ = self.token(tenant, alg="ES256").rpartition(".")
        header, _, claims = signed.partition(".")
        plain = json.loads(base64.urlsafe_b64decode(header + "=="))
        signed = f"{_packed(json.dumps({**plain, 'alg': 'HS256'}).encode())}.{claims}"
        public = self.keys[next(reversed(self.keys))].public_key()
        pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        return f"{signed}.{_packed(hmac.digest(pem, signed.encode(), 'sha256'))}"

    def token(self, tenant: Any, scope: str = "segment:write", *, key: Any = None, **other: Any) -> str:
        """other: claims to add or, as None, to leave out; ``kid`` and ``alg`` of the header."""
        name = next(reversed(self.keys))
        header = {"kid": other.pop("kid", name)}
        algorithm = other.pop("alg", "ES256")
        now = int(time.time())
        claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": "somebody", "iat": now, "exp": now + 600}
        claims |= {"tenant": tenant, "scope": scope, **other}
        return jwt.encode(
            {name: value for name, value in claims.items() if value is not None},
            self.keys[name] if key is None else key,
            algorithm=algorithm,
            headers=header,
        )


def _packed(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


@contextmanager
def issuing() -> Iterator[Issuer]:
    issuer = Issuer()
    issuer.new_key("first")

    class Published(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # http.server's name
            issuer.asked += 1
            time.sleep(issuer.takes_s)
            content = json.dumps(issuer.published()).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *given: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Published) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        issuer.address = f"http://127.0.0.1:{server.server_port}/keys"
        try:
            yield issuer
        finally:
            server.shutdown()
            thread.join()
