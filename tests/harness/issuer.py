"""An OpenID Connect issuer on loopback: it signs tokens, lists its keys, and can be away."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

AUDIENCE = "http://mcp.example.com/mcp"
SCOPE = "arta:draw"


class Issuer:
    """Use it as `with`; `asked` counts requests by path, `is_away` refuses them with 500."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.is_away = False
        self.keys: dict[str, Any] = {}
        self.document: dict[str, object] = {}
        self.add_key("rsa", rsa.generate_private_key(public_exponent=65537, key_size=2048))
        self.add_key("ec", ec.generate_private_key(ec.SECP256R1()))
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.asked[self.path] += 1
                found = issuer.answer(self.path)
                body = json.dumps(found).encode()
                self.send_response(500 if issuer.is_away else 200 if found else 404)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """Says nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/realms/team"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def add_key(self, kid: str, key: Any) -> None:
        """Lists a key from now on."""
        self.keys[kid] = key

    def answer(self, path: str) -> dict[str, object] | None:
        """The document at a path."""
        match path:
            case "/realms/team/.well-known/openid-configuration":
                return {"issuer": self.url, "jwks_uri": f"{self.url}/keys", **self.document}
            case "/realms/team/keys":
                return {"keys": [{"kty": "oct", "k": "AA", "kid": "x"}, *map(self._jwk, self.keys)]}
            case _:
                return None

    def _jwk(self, kid: str) -> dict[str, object]:
        key = self.keys[kid]
        kind = RSAAlgorithm if is_rsa(key) else ECAlgorithm
        found: dict[str, object] = json.loads(kind.to_jwk(key.public_key()))
        return {**found, "kid": kid, "use": "sig"}

    def sign(self, kid: str | None = "rsa", **changed: Any) -> str:
        """A token that is valid, but for claims that are changed; None leaves one out.

        `exp` and `nbf` are in seconds from now; `key` and `alg` change what signs it.
        """
        key = changed.pop("key", None) or self.keys[kid or "rsa"]
        alg = changed.pop("alg", "RS256" if is_rsa(key) else "ES256")
        now = time.time()
        claims: dict[str, Any] = {
            "iss": self.url,
            "sub": "alice",
            "aud": AUDIENCE,
            "scope": f"openid {SCOPE}",
            "exp": 300,
            **changed,
        }
        claims = {name: value for name, value in claims.items() if value is not None}
        claims |= {name: now + claims[name] for name in ("exp", "nbf") if name in claims}
        return jwt.encode(claims, key, algorithm=alg, headers={"kid": kid} if kid else {})


def is_rsa(key: object) -> bool:
    return isinstance(key, rsa.RSAPrivateKey)
