"""`cnn-search baseline`: what it says to good and bad input, on CIFAR-10 itself."""

import json
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import Finished
from test_search_cli import assert_refused

from search.baseline.record import read_record

Cli = Callable[..., Finished]
TINY = ("--train-samples", "64", "--precision", "float32", "--threads", "1", "--device", "cpu")


@pytest.fixture
def baseline(cli: Cli) -> Iterator[Cli]:
    """`cnn-search baseline` in this process, whose handlers of signals are put back."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    handlers = [signal.getsignal(number) for number in numbers]
    yield lambda *arguments: cli("baseline", *arguments)
    for number, handler in zip(numbers, handlers, strict=True):
        signal.signal(number, handler)
    signal.set_wakeup_fd(-1)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--epochs", ""], ["--epochs", "'' is not a whole number from 1 to 10000", "such as 100,150,200"]),
        (["--epochs", "0"], ["'0' is not a whole number"]),
        (["--epochs", "10001"], ["'10001' is not a whole number"]),
        (["--epochs", "1,,2"], ["'1,,2': '' is not a whole number"]),
        (["--epochs", "1,x"], ["'1,x': 'x' is not a whole number"]),
        (["--epochs", "1.5"], ["'1.5' is not a whole number"]),
        (["--epochs", "-1"], ["'-1' is not a whole number"]),
        (["--epochs", "1_0"], ["'1_0' is not a whole number"]),
        (["--epochs", "²"], ["'²' is not a whole number"]),
        (["--epochs", "3, 5,3"], ["'3, 5,3' has 3 more than once"]),
        (["--seeds", "0"], ["--seeds", "0 is not in the range x>=1"]),
        (["--seed", "-1"], ["--seed"]),
        (["--seed", "2147483647", "--seeds", "2"], ["--seeds", "2 seeds from 2147483647 on end above"]),
        (["--train-samples", "40001"], ["--train-samples", "1<=x<=40000"]),
        (["--precision", "float16"], ["--precision", "'float32', 'bfloat16'"]),
        (["--threads", "0"], ["--threads"]),
    ],
)
def test_wrong_usage_exits_2(baseline: Cli, arguments: list[str], words: list[str]) -> None:
    """The value is named, and what it could be; nothing is made."""
    assert_refused(baseline(*arguments), 2, *words)
    assert list(Path.cwd().iterdir()) == []


@pytest.mark.usefixtures("tensorflow")
def test_the_summary_is_keras_own(baseline: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each layer of the article's model, and its 257,978 parameters; nothing is trained or made."""
    monkeypatch.setattr("search.runtime.start_tensorflow", lambda **_: None)

    ended = baseline("--summary")

    assert (ended.code, ended.err) == (0, "")
    for words in ("Conv2D", "MaxPooling2D", "Dropout", "Flatten", "Dense", "Total params: 257,978"):
        assert words in ended.out
    assert re.findall(r"(\d+), 32, 32, (\d+)\)", ended.out.replace("None", "0"))[:2] == [
        ("0", "3"),
        ("0", "32"),
    ]
    assert list(Path.cwd().iterdir()) == []


def test_a_folder_that_cannot_be_is_refused_before_the_data_are_read(baseline: Cli) -> None:
    """And so is a damaged record, by its name."""
    Path("taken").write_text("a file")
    Path("damaged").mkdir()
    Path("damaged/baseline.json").write_text("{")

    assert_refused(baseline("--output", "taken", "--data", "no.npz"), 1, "cannot write to taken: ")
    assert_refused(
        baseline("--output", "damaged", "--data", "no.npz"), 1, "damaged/baseline.json: 1 bytes are no record"
    )


def test_data_that_are_none_are_refused(baseline: Cli) -> None:
    """The file is named."""
    Path("data.npz").write_bytes(b"none")

    assert_refused(baseline("--data", "data.npz"), 1, "data.npz")


@pytest.fixture(scope="module")
def ran(cifar10: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str, str]]:
    """A run on 64 images that got SIGTERM after its first score, and was then called again, to its end."""
    from conftest import COMMAND

    folder = tmp_path_factory.mktemp("ran")
    arguments = [COMMAND, "baseline", "--epochs", "1,3", "--output", "out", "--data", str(cifar10), *TINY]
    process = subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder
    )
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("seed 0, 1 epochs: test"):
                process.send_signal(signal.SIGTERM)
                break
        err, out = process.stderr.read(), process.stdout.read()
    assert (process.returncode, out) == (130, ""), err
    assert err.endswith("cnn-search: interrupted; the same command goes on where it stopped\n")
    done = subprocess.run(arguments, capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    yield folder / "out", done.stdout, done.stderr


@pytest.mark.full_data
def test_a_run_that_was_stopped_goes_on_and_prints_the_table(ran: tuple[Path, str, str]) -> None:
    """Results on stdout, progress on stderr; a folder with models, curves and figures."""
    folder, out, err = ran

    assert re.search(r"^seed 0: 3 epochs, goes on at epoch [23]$", err, re.MULTILINE)
    assert "seed 0 epoch 1/3" not in err
    assert "epoch" in err
    assert out.startswith("        article:")
    assert "the first 64 of 40,000 images: not the article's experiment" in out
    files = {one.name for one in folder.iterdir()}
    assert {"baseline.json", "baseline.png", "baseline.csv", "baseline.md", "baseline-seed0-3.h5"} <= files
    for name in re.findall(r"^wrote out/(.+)$", out, re.MULTILINE):
        assert name in files
    record = read_record(folder)
    assert record is not None
    assert [score.epoch for score in record.run_of(0).scores] == [1, 3]
    assert len(record.run_of(0).history) == 3
    assert not [name for name in files if name.endswith(".partial")]


@pytest.mark.full_data
@pytest.mark.usefixtures("tensorflow")
def test_evaluate_agrees_on_the_test_images(
    ran: tuple[Path, str, str], baseline: Cli, cli: Cli, cifar10: Path
) -> None:
    """The same accuracy and loss, from the file; and --json of a run that is done needs no training."""
    folder = ran[0]
    ended = baseline("--epochs", "1,3", "--output", folder, "--data", "not-looked-at.npz", "--json", *TINY)

    assert (ended.code, ended.err) == (0, "")
    scores = json.loads(ended.out)["runs"][0]["scores"]
    assert [score["epoch"] for score in scores] == [1, 3]
    for split in ("test", "validation"):
        model = folder / scores[1]["file"]
        told = json.loads(cli("evaluate", model, "--split", split, "--data", cifar10, "--json").out)
        assert told["accuracy"] == scores[1][split]["accuracy"]
        assert told["loss"] == pytest.approx(scores[1][split]["loss"], rel=1e-6)


@pytest.mark.full_data
def test_other_options_are_refused(ran: tuple[Path, str, str], baseline: Cli) -> None:
    """With what differs, before anything is read or trained."""
    refused = baseline("--epochs", "1,3", "--output", ran[0], "--data", "no.npz", "--seed", "1")

    assert_refused(
        refused,
        1,
        "seed: the run has 0, --seed gives 1",
        "training images: the run has 64, --train-samples gives 40000",
    )


@pytest.mark.full_data
def test_a_model_that_is_gone_is_told(ran: tuple[Path, str, str], baseline: Cli) -> None:
    """The results stand all the same."""
    model = ran[0] / "baseline-seed0-1.h5"
    content = model.read_bytes()
    model.unlink()

    ended = baseline("--epochs", "1,3", "--output", ran[0], *TINY)
    model.write_bytes(content)

    assert ended.code == 0
    assert f"{model} is not the model that was scored, or is missing; its scores stay" in ended.err
