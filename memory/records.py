"""The record: one block inside a segment file.

    head     magic, crc32 of the rest of the head, its fields, positions, a crc32 per layer, texts
    picture  the thumbnail, whose crc32 is among the fields: damage to it costs the picture and not the block
    payload  from the next multiple of 64 bytes: the layers' bytes (codecs.py)
    footer   magic, block id, the head's crc32, crc32 of these: written last, the mark of a whole record
    zeros    up to a multiple of 4 KiB

Everything is little-endian. The head carries a tag of the store's identity, so that a record is never taken for one
of another store.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from isal.isal_zlib import crc32
from torch import Tensor

from streamvlm.errors import CorruptError
from streamvlm.memory.blocks import About, KVBlock
from streamvlm.memory.codecs import ALIGN, LayerLayout, as_bytes, check_finite, decode, encode
from streamvlm.memory.fingerprint import Identity
from streamvlm.types import Kind

PAGE = 4096
MAGIC, END_MAGIC = b"KVB1", b"KVE1"
_START = struct.Struct("<4sII")  # magic, crc32 of the head from its 12th byte on, the head's length
# tag, id, tokens, layers, extent, start, stop, kind, bytes of stream, text and picture, crc32 of the picture
_FIELDS = struct.Struct("<8sQIIIddBIIII")
_FOOTER = struct.Struct("<4sQII")
FIRST_BYTES = _START.size
FOOTER_BYTES = _FOOTER.size


def align(size: int, to: int) -> int:
    """`size` rounded up to a multiple of `to`."""
    return -(-size // to) * to


@dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    """A block ready to be written."""

    about: About
    payload: Tensor  # uint8 [layers, bytes per layer]

    @classmethod
    def of(cls, block: KVBlock, codec: str) -> Encoded:
        """Encode a block on its device."""
        return cls(block.about, encode(codec, block.keys, block.values))


@dataclass(frozen=True, slots=True, eq=False)
class Head:
    """What a record says of itself."""

    tag: bytes
    id: int
    tokens: int
    extent: int
    start: float  # seconds
    stop: float
    kind: int
    positions: bytes  # int64 [tokens, 3]
    layer_crcs: tuple[int, ...]
    stream: bytes
    text: bytes
    picture: bytes  # empty if it is damaged
    picture_damaged: bool
    crc: int  # of the head
    nbytes: int  # of the head and the picture after it

    @property
    def about(self) -> About:
        """The same as objects, made when they are wanted: loading many blocks does not want them."""
        grid = torch.frombuffer(bytearray(self.positions), dtype=torch.int64).view(self.tokens, 3)
        texts = (self.text.decode(), self.stream.decode(), self.picture)
        return About(grid, self.extent, Kind(self.kind), self.start, self.stop, *texts)


@dataclass(frozen=True, slots=True)
class RecordLayout:
    """Where the parts of one record lie, in bytes from its start."""

    payload: int
    layer: int  # bytes per layer
    layers: int

    @classmethod
    def of(cls, identity: Identity, head: int, tokens: int) -> RecordLayout:
        """The layout of a record whose head and picture take `head` bytes."""
        layer = LayerLayout.of(identity.codec, identity.shape, tokens).nbytes
        return cls(align(head, ALIGN), layer, identity.shape.layers)

    @property
    def footer(self) -> int:
        """Where the payload ends."""
        return self.payload + self.layers * self.layer

    @property
    def length(self) -> int:
        """Bytes of the whole record, padding included."""
        return align(self.footer + _FOOTER.size, PAGE)


def pack(identity: Identity, block_id: int, block: Encoded) -> tuple[RecordLayout, list[memoryview]]:
    """The buffers of a record, to be written one after the other.

    Raises:
        ValueError: the block does not fit the identity, or holds NaN or infinity.
    """
    tokens, payload = len(block.about), block.payload
    layout = LayerLayout.of(identity.codec, identity.shape, tokens)
    wanted = (identity.shape.layers, layout.nbytes)
    if payload.shape != wanted:
        raise ValueError(f"the block's payload is {tuple(payload.shape)}, this store's blocks of its length {wanted}")
    check_finite(layout, payload)
    head = _pack_head(identity.tag, block_id, block.about, [crc32(layer) for layer in payload.numpy()])
    record = RecordLayout.of(identity, len(head), tokens)
    footer = _pack_footer(block_id, _START.unpack_from(head)[1])
    before, after = bytes(record.payload - len(head)), bytes(record.length - record.footer - len(footer))
    return record, [memoryview(head + before), as_bytes(payload), memoryview(footer + after)]


def _pack_head(tag: bytes, block_id: int, about: About, crcs: list[int]) -> bytes:
    stream, text, picture = about.stream.encode(), about.text.encode(), about.thumbnail
    sizes = (len(stream), len(text), len(picture), crc32(picture))
    span = (about.extent, about.start, about.stop, int(about.kind))
    fields = _FIELDS.pack(tag, block_id, len(about), len(crcs), *span, *sizes)
    positions = about.positions.contiguous().numpy().astype("<i8").tobytes()
    rest = b"".join((fields, positions, struct.pack(f"<{len(crcs)}I", *crcs), stream, text))
    return _START.pack(MAGIC, crc32(rest), _START.size + len(rest) + len(picture)) + rest + picture


def _pack_footer(block_id: int, head_crc: int) -> bytes:
    start = _FOOTER.pack(END_MAGIC, block_id, head_crc, 0)[:-4]
    return start + struct.pack("<I", crc32(start))


def head_bytes(first: bytes) -> int | None:
    """Length of head and picture of the record that starts with these bytes, or None if none starts here."""
    if len(first) < _START.size or first[:4] != MAGIC:
        return None
    length = int(_START.unpack_from(first)[2])
    return length if length >= _START.size + _FIELDS.size else None


def unpack_head(data: bytes) -> Head | None:
    """A head from exactly its bytes and its picture's; None if they are damaged, but for the picture."""
    crc = int(_START.unpack_from(data)[1])
    tag, block_id, tokens, layers, *rest = _FIELDS.unpack_from(data, _START.size)
    extent, start, stop, kind, stream_size, text_size, picture_size, picture_crc = rest
    end = len(data) - picture_size
    if end < _START.size or crc32(memoryview(data)[_START.size : end]) != crc:
        return None
    crcs = _START.size + _FIELDS.size + 24 * tokens
    stream = crcs + 4 * layers
    text = stream + stream_size
    picture = data[end:]
    damaged = crc32(picture) != picture_crc
    return Head(
        tag,
        block_id,
        tokens,
        extent,
        start,
        stop,
        kind,
        data[crcs - 24 * tokens : crcs],
        struct.unpack_from(f"<{layers}I", data, crcs),
        data[stream:text],
        data[text : text + text_size],
        b"" if damaged else picture,
        damaged,
        crc,
        len(data),
    )


def is_footer(data: bytes, head: Head) -> bool:
    """Whether these bytes close the record that `head` opens."""
    return data == _pack_footer(head.id, head.crc)


def check_layers(head: Head, layers: Sequence[int], data: Sequence[memoryview], where: str) -> None:
    """Raise CorruptError unless the bytes of each layer have the crc32 that the head gives for it."""
    for layer, row in zip(layers, data, strict=True):
        if crc32(row) != head.layer_crcs[layer]:
            raise CorruptError(where, f"layer {layer} of block {head.id} fails its checksum")


def by_layer(payload: Tensor) -> list[memoryview]:
    """The bytes of each row of a payload, uint8 [layers, bytes per layer]."""
    return [as_bytes(row) for row in payload]


def unpack_block(identity: Identity, head: Head, payload: Tensor) -> KVBlock:
    """The block of a head and the payload uint8 [layers read, bytes per layer]."""
    layout = LayerLayout.of(identity.codec, identity.shape, head.tokens)
    return head.about.block(*decode(layout, payload), head.id)
