"""What the command line writes where: results on stdout, all else on stderr, in any encoding, to any reader."""

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from command_line import gradprix

NOISY = """
import ctypes, logging, os, subprocess, sys, warnings
import torch
from torch import nn
import gradprix as gp

def noise(where):
    print(f"noise of {where} β ✓")
    os.write(1, f"raw noise of {where}\\n".encode())
    subprocess.run([sys.executable, "-c", "print('noise of a child')"])
    warnings.warn(f"warned of {where}")
    logging.basicConfig(stream=sys.stdout)
    logging.getLogger(__name__).warning("logged noise")
    ctypes.CDLL(None).puts(b"noise of C")

noise("the file")
import atexit
atexit.register(noise, "the end")
X = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))

def model():
    print("noise of a model")
    return nn.Linear(4, 2)

def loss(outputs, targets):
    sys.stdout.write("noise of a loss\\n")
    return nn.functional.cross_entropy(outputs, targets)

def data():
    noise("the data")
    return gp.Data(X, (X.sum(1) > 0).long())

def accuracy(outputs, targets):
    return (outputs.argmax(-1) == targets).double().mean()

task = gp.Task("mine", model, loss, gp.Metric("accuracy", accuracy, True, 0.01), 0.5, data, batch_size=8, epochs=1)

def train(make_optimizer, seed):
    noise("a loop")
    weight = nn.Parameter(torch.randn(2))
    optimizer = make_optimizer([weight])
    optimizer.zero_grad()
    weight.square().sum().backward()
    optimizer.step()
    yield {"valid": weight.detach().square().sum()}

noisy = gp.rules.adam
"""
SMALL = "--optimizers adam,minibatch --trials 1 --seeds 6 --processes 1".split()
ASCII = {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"}
CP1252 = {"PYTHONIOENCODING": "cp1252", "NO_COLOR": "1", "TERM": "dumb"}


def start(folder: Path, *words: str, **variables: str) -> "subprocess.CompletedProcess[bytes]":
    command = [sys.executable, "-m", "gradprix", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, timeout=300, env={**os.environ, **variables})


@pytest.fixture
def noisy(tmp_path: Path) -> Path:
    (tmp_path / "noisy.py").write_text(NOISY, encoding="utf-8")
    return tmp_path


def test_stdout_has_json_alone_whatever_a_task_prints(noisy: Path) -> None:
    done = start(noisy, "race", "noisy.py", "--plan", *SMALL, "--json", **ASCII)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["task"] == "mine"
    assert b"raw noise of the file" in done.stderr
    assert b"noise of the end" in done.stderr


def test_what_is_shown_of_a_file_of_ones_own_is_not_mixed_with_what_it_prints(noisy: Path) -> None:
    done = start(noisy, "explain", "noisy.py:noisy")
    assert done.returncode == 0, done.stderr
    assert b"adam" in done.stdout
    assert b"noise of" not in done.stdout


@pytest.mark.parametrize(
    "words", ["claims --list --json rules-lower-the-loss", "data list --json", "suite --plan --json --tasks digits"]
)
def test_whatever_takes_json_prints_it(tmp_path: Path, words: str) -> None:
    preset = "--preset small --optimizers adam,momentum --processes 1".split() if "suite" in words else []
    done = gradprix(*words.split(), *preset, folder=tmp_path)
    assert isinstance(json.loads(done.stdout), list)


@pytest.mark.sample(2)
@pytest.mark.parametrize(
    "words", ["--help", "list", pytest.param("claims --list", marks=pytest.mark.slow), "explain adam", "new täsk.py"]
)
def test_a_terminal_that_is_not_utf_8_shows_all(tmp_path: Path, words: str) -> None:
    encoding = {"list": CP1252, "explain adam": ASCII, "--help": CP1252}.get(words, ASCII)
    done = start(tmp_path, *words.split(), **encoding)
    assert done.returncode == 0, done.stderr
    assert b"Traceback" not in done.stderr
    done.stdout.decode(encoding["PYTHONIOENCODING"])


def test_an_error_is_a_line_in_any_encoding_and_a_race_is_told_in_it(noisy: Path) -> None:
    done = start(noisy, "race", "größe.py", **ASCII)
    assert done.returncode == 2
    assert done.stderr.startswith(b"gradprix: gr")
    assert len(done.stderr.splitlines()) == 1
    (noisy / "größe.py").write_text(NOISY, encoding="utf-8")
    done = start(noisy, "race", "größe.py:train", "--direction", "min", *SMALL, **ASCII)
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode("ascii").startswith("grosse: ")
    assert b"noise of" not in done.stdout
    assert b"noise of a loop" in done.stderr
    assert (noisy / "runs" / "größe" / "report.html").read_text(encoding="utf-8")


@pytest.mark.skipif(os.name == "nt", reason="terminals of POSIX")
def test_on_a_terminal_a_print_takes_the_place_of_the_progress_bar(noisy: Path) -> None:
    import pty

    screen, terminal = pty.openpty()
    command = [sys.executable, "-m", "gradprix", "race", "noisy.py", *SMALL, "--json"]
    here = {**os.environ, "TERM": "xterm"}
    race = subprocess.Popen(command, cwd=noisy, stdout=subprocess.PIPE, stderr=terminal, env=here)
    os.close(terminal)
    seen = b""
    with contextlib.suppress(OSError):  # the end of a terminal
        while more := os.read(screen, 4096):
            seen += more
    stdout, _ = race.communicate(timeout=300)
    os.close(screen)
    assert race.returncode == 0, seen
    assert json.loads(stdout)["task"] == "mine", "stdout has JSON alone"
    assert b"\r\x1b[Knoise of a model" in seen
    assert b"raw noise of the file" in seen
    assert b"noise of the end" in seen


@pytest.mark.parametrize("words", [["list"], ["--help"]])
def test_a_reader_that_goes_away_ends_it_quietly(tmp_path: Path, words: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "gradprix", *words]
    done = subprocess.run(command, cwd=tmp_path, stdout=writer, stderr=subprocess.PIPE, timeout=300)
    os.close(writer)
    assert done.stderr == b""
    assert done.returncode == 1


def test_a_disk_that_is_full_is_no_traceback(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    with open("/dev/full", "wb") as full:
        command = [sys.executable, "-m", "gradprix", "new", "task.py"]
        done = subprocess.run(command, cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, timeout=300)
    assert b"Traceback" not in done.stderr
    assert done.returncode == 1
