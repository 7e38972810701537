"""Fingerprint and Identity: what must be equal for stored keys and values to mean anything to a model."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field

from streamvlm.memory.blocks import BlockShape
from streamvlm.memory.codecs import CODECS


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """Everything that stored keys and values depend on. The hashes are the caller's, of whatever it deems the same."""

    model: str  # id, for people
    weights: str  # hash
    config: str  # hash
    dtype: str  # the model's
    codec: str = "fp16"
    rope: str = ""  # parameters of the rotary embedding
    prompt: str = ""  # hash of the opening text that every row saw

    def __post_init__(self) -> None:
        if self.codec not in CODECS:
            raise ValueError(f"codec must be one of {', '.join(CODECS)}, got {self.codec!r}")

    @property
    def digest(self) -> str:
        """SHA-256 in hex; the same on every machine."""
        return hashlib.sha256(_canonical(asdict(self))).hexdigest()

    def difference(self, wanted: Fingerprint) -> str:
        """What of this is not as `wanted`, in words; empty if nothing."""
        return _difference(asdict(self), asdict(wanted))


@dataclass(frozen=True, slots=True)
class Identity:
    """What a store was made for; every one of its files carries it."""

    fingerprint: Fingerprint
    shape: BlockShape
    tag: bytes = field(init=False, repr=False)  # 8 bytes that mark its records

    def __post_init__(self) -> None:
        object.__setattr__(self, "tag", hashlib.sha256(self.to_json().encode()).digest()[:8])

    @property
    def codec(self) -> str:
        """How payloads are encoded."""
        return self.fingerprint.codec

    def difference(self, wanted: Identity) -> str:
        """What of this is not as `wanted`, in words; empty if nothing."""
        return _difference(_flat(self), _flat(wanted))

    def to_json(self) -> str:
        """Canonical text."""
        return _canonical({"fingerprint": asdict(self.fingerprint), "shape": asdict(self.shape)}).decode()

    @classmethod
    def from_json(cls, text: str) -> Identity:
        """The inverse; ValueError if `text` is not an identity."""
        try:
            fields = json.loads(text)
            return cls(Fingerprint(**fields["fingerprint"]), BlockShape(**fields["shape"]))
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a store's identity: {error!r}") from error


def _canonical(fields: object) -> bytes:
    return json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()


def _flat(identity: Identity) -> dict[str, object]:
    return {**asdict(identity.shape), **asdict(identity.fingerprint)}


def _difference(stored: dict[str, object], wanted: dict[str, object]) -> str:
    parts = [f"{name} is {value!r}, wanted {wanted[name]!r}" for name, value in stored.items() if value != wanted[name]]
    return "; ".join(parts)
