"""Export to and import from safetensors: stored blocks as files anyone can open, never pickle.

Block 12 becomes the tensors `00000012.keys`, `00000012.values` (and, for int8, their minima and steps) and
`00000012.positions`; what is not a tensor is JSON in the file's metadata.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from streamvlm.errors import StoreError
from streamvlm.memory.blocks import About
from streamvlm.memory.catalogue import Entry
from streamvlm.memory.codecs import LayerLayout, fill
from streamvlm.memory.fingerprint import Identity
from streamvlm.memory.log import StoreOptions
from streamvlm.memory.records import Encoded
from streamvlm.memory.segment import PRIVATE
from streamvlm.memory.store import BlockStore
from streamvlm.types import Kind

FORMAT = "streamvlm-blocks-1"


def export_blocks(store: BlockStore, path: str | Path, entries: Iterable[Entry]) -> int:
    """Write blocks to a safetensors file that only its owner may read; returns how many. All pass through memory.

    Raises:
        StoreError: a block cannot be read or the file cannot be written.
    """
    tensors: dict[str, Tensor] = {}
    metadata = {"format": FORMAT, "identity": store.identity.to_json()}
    for count, entry in enumerate(entries, start=1):
        block = store.encoded(entry)
        parts = LayerLayout.of(entry.codec, store.identity.shape, entry.tokens).views(block.payload)
        name = f"{entry.id:08d}"
        tensors |= {f"{name}.{part}": tensor.contiguous() for part, tensor in parts.items()}
        tensors[f"{name}.positions"] = block.about.positions
        metadata[name] = json.dumps(_to_fields(block.about))
        metadata["blocks"] = str(count)
    target = Path(path)
    fresh = target.with_name(f"{target.name}.tmp")
    try:
        os.close(os.open(fresh, os.O_WRONLY | os.O_CREAT, PRIVATE))
        save_file(tensors, fresh, metadata)
        fresh.chmod(PRIVATE)
        fresh.rename(target)
    except (OSError, SafetensorError) as error:
        fresh.unlink(missing_ok=True)
        raise StoreError(target, f"cannot be written: {error}") from error
    return int(metadata.get("blocks", 0))


def import_blocks(path: str | Path, folder: str | Path, options: StoreOptions | None = None) -> int:
    """Add the blocks of an exported file, under new ids, to the store at `folder`, made if there is none.

    Raises:
        FingerprintError: the store was made for something else.
        StoreError: the file is not an export or is damaged, or the store cannot take the blocks.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise StoreError(path, f"is not an export: its format is {metadata.get('format')!r}, not {FORMAT!r}")
            identity = Identity.from_json(metadata["identity"])
            with _open_for(identity, folder, options) as store:
                names = sorted(name for name in metadata if name.isdigit())
                for name in names:
                    if store.put(_block(file.get_tensor, name, metadata[name], identity)) is None:
                        raise StoreError(folder, f"is full after {store.stats().blocks} blocks")
                store.commit()
                return len(names)
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise StoreError(path, f"cannot be imported: {error}") from error


def _open_for(identity: Identity, folder: str | Path, options: StoreOptions | None) -> BlockStore:
    if BlockStore.exists(folder):
        return BlockStore.open(folder, identity.fingerprint, identity.shape, options=options)
    return BlockStore.create(folder, identity.fingerprint, identity.shape, options)


def _block(tensor: Callable[[str], Tensor], name: str, fields: str, identity: Identity) -> Encoded:
    positions = tensor(f"{name}.positions")
    layout = LayerLayout.of(identity.codec, identity.shape, len(positions))
    parts = {part.name: tensor(f"{name}.{part.name}") for part in layout.parts}
    return Encoded(_from_fields(positions, json.loads(fields)), fill(layout, parts, identity.shape.layers))


def _to_fields(about: About) -> dict[str, str | int | float]:
    return {
        "extent": about.extent,
        "kind": about.kind.name,
        "start": about.start,
        "stop": about.stop,
        "text": about.text,
        "stream": about.stream,
        "thumbnail": base64.b64encode(about.thumbnail).decode(),
    }


def _from_fields(positions: Tensor, fields: dict[str, Any]) -> About:
    return About(
        positions,
        int(fields["extent"]),
        Kind[fields["kind"]],
        float(fields["start"]),
        float(fields["stop"]),
        str(fields["text"]),
        str(fields["stream"]),
        base64.b64decode(fields["thumbnail"]),
    )
