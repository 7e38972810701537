"""Export, import and `streamvlm memory`."""

from __future__ import annotations

import json
import stat
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file
from stored import SHAPE, assert_is, block, fill, fingerprint, fresh, present
from typer.testing import CliRunner, Result

from streamvlm import BlockStore, FingerprintError, StoreError, StoreOptions, export_blocks, import_blocks
from streamvlm.cli.app import app
from streamvlm.memory.codecs import CODECS


@pytest.mark.parametrize("codec", CODECS)
def test_an_exported_span_comes_back_bit_by_bit(tmp_path: Path, codec: str) -> None:
    file = tmp_path / "span.safetensors"
    with fresh(tmp_path / "m", codec=codec) as store:
        ids = fill(store, range(20))
        assert export_blocks(store, file, store.spans(5.0, 12.0)) == 7
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert import_blocks(file, tmp_path / "copy") == 7
        with BlockStore.open(tmp_path / "copy", fingerprint(codec), SHAPE) as copy:
            for got, number in zip(copy.read(present(copy)), range(5, 12), strict=True):
                assert_is(got, number, codec)
                original = store.get(ids[number])
                assert got.keys.equal(original.keys)
                assert got.values.equal(original.values)
    assert import_blocks(file, tmp_path / "copy") == 7
    with BlockStore.open(tmp_path / "copy") as twice:
        assert present(twice) == list(range(14))


def test_anyone_can_open_an_export(tmp_path: Path) -> None:
    with fresh(tmp_path / "m") as store:
        fill(store, range(2))
        export_blocks(store, tmp_path / "all.safetensors", store.blocks())
    tensors = load_file(tmp_path / "all.safetensors")
    assert tensors["00000001.keys"].equal(block(1).keys.half())
    assert tensors["00000001.positions"].equal(block(1).positions)


def test_what_cannot_be_imported_is_refused(tmp_path: Path) -> None:
    with fresh(tmp_path / "m") as store:
        fill(store, range(2))
        export_blocks(store, tmp_path / "all.safetensors", store.blocks())
    BlockStore.create(tmp_path / "other", fingerprint(weights="cd34"), SHAPE).close()
    with pytest.raises(FingerprintError, match="weights is 'cd34', wanted 'ab12'"):
        import_blocks(tmp_path / "all.safetensors", tmp_path / "other")
    data = (tmp_path / "all.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(data[:-100])
    (tmp_path / "noise.safetensors").write_bytes(b"noise" * 100)
    for name in ("cut", "noise", "missing"):
        with pytest.raises(StoreError, match=f"{name}.safetensors: cannot be imported"):
            import_blocks(tmp_path / f"{name}.safetensors", tmp_path / "new")
    assert not BlockStore.exists(tmp_path / "new")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["memory", *map(str, arguments)])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Blocks 0..29 in several segments."""
    with fresh(tmp_path / "m", StoreOptions(segment_bytes=64 << 10)) as store:
        fill(store, range(30))
    return tmp_path / "m"


def test_ls_and_info(folder: Path) -> None:
    rows = [json.loads(line) for line in run("ls", folder, "--json", "--from", 3.5, "--to", 6).stdout.splitlines()]
    assert [row["id"] for row in rows] == [3, 4, 5]
    assert rows[2] | {"tokens": 8, "kind": "text", "stream": "door", "start": 5.0} == rows[2]
    assert len(run("ls", folder).stdout.splitlines()) == 30
    told = json.loads(run("info", folder, "--json").stdout)
    assert (told["blocks"], told["stop"], told["fingerprint"]["model"]) == (30, 30.0, "tiny")
    assert told["bytes"] == sum(file.stat().st_size for file in folder.glob("*.kv"))
    assert "blocks             30" in run("info", folder).stdout


def test_the_folder_that_watch_was_given_will_do(folder: Path, tmp_path: Path) -> None:
    given = tmp_path / "given"
    given.mkdir()
    folder.rename(given / "blocks")
    assert run("info", given).stdout == run("info", given / "blocks").stdout != ""


def test_verify_tells_what_is_damaged(folder: Path) -> None:
    assert run("verify", folder).exit_code == 0
    with BlockStore.open(folder, readonly=True) as store:
        entry = store.entries([4])[0]
    with (folder / "seg-000000.kv").open("r+b") as file:
        file.seek(entry.offset + entry.payload + 5)
        file.write(b"!!!!!!")
    damaged = run("verify", folder, "--json")
    assert damaged.exit_code == 1
    assert [problem["block"] for problem in json.loads(damaged.stdout)["problems"]] == [4]
    assert "layer 0 of block 4 fails its checksum" in run("verify", folder).stdout
    assert json.loads(run("rebuild", folder, "--json").stdout)["blocks"] == 29
    assert run("verify", folder).exit_code == 0


def test_export_import_and_gc(folder: Path, tmp_path: Path) -> None:
    assert "8 blocks" in run("export", folder, tmp_path / "s.safetensors", "--from", 2, "--to", 10).stdout
    assert run("import", tmp_path / "n", tmp_path / "s.safetensors").exit_code == 0
    with BlockStore.open(tmp_path / "n") as store:
        assert [round(entry.start) for entry in store.blocks()] == list(range(2, 10))
    assert run("gc", folder, "--quota", "100K").exit_code == 0
    with BlockStore.open(folder) as store:
        assert store.stats().bytes <= 100_000
        assert present(store)[-1] == 29
    assert run("gc", folder, "--before", "1e9").exit_code == 0
    assert run("ls", folder).stdout == ""


def test_pictures_are_written_for_their_owner_alone(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = run("pictures", folder, out, "--from", 3, "--to", 6)
    assert (result.exit_code, result.stdout) == (0, f"{out}: 3 pictures\n")
    written = {path.name: path.read_bytes() for path in out.iterdir()}
    assert written == {f"{number}.00.jpg": bytes([number]) * 9 for number in (3, 4, 5)}
    assert {stat.S_IMODE(path.stat().st_mode) for path in out.iterdir()} == {0o600}
    (tmp_path / "file").write_text("")
    refused = run("pictures", folder, tmp_path / "file")
    assert refused.exit_code == 1 and "cannot be made" in refused.stderr


def test_commands_say_what_is_wrong(folder: Path, tmp_path: Path) -> None:
    for command in ("ls", "info", "verify", "rebuild", "gc"):
        result = run(command, tmp_path / "none")
        assert (result.exit_code, result.stderr) == (1, f"error: {tmp_path / 'none'}: holds no memory\n")
    assert "not a size" in run("gc", folder, "--quota", "12Q").stderr
    with BlockStore.open(folder):
        assert "written by another process" in run("rebuild", folder).stderr


def test_a_span_without_a_store_of_its_kind(tmp_path: Path) -> None:
    """An empty export makes an empty store, and one that is full says so."""
    with fresh(tmp_path / "m") as store:
        assert export_blocks(store, tmp_path / "none.safetensors", []) == 0
        store.put(replace(block(0), thumbnail=bytes(90_000)))
        store.commit()
        export_blocks(store, tmp_path / "one.safetensors", store.blocks())
    assert import_blocks(tmp_path / "none.safetensors", tmp_path / "empty") == 0
    with pytest.raises(StoreError, match="full"):
        import_blocks(tmp_path / "one.safetensors", tmp_path / "empty", StoreOptions(quota=1 << 16))
