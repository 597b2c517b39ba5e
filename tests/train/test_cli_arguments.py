"""From the command line to the arguments of a run; nothing is trained."""

import dataclasses
import os
import re

import pytest

from cpic import cli, train
from cpic.options import Data, Model, MRData, Network, Optimization, Run
from cpic.options._groups import Group
from cpic.options._kinds import kinds_of
from cpic.train import FoldResult

RUNS = "cpic.train.tasks._cross_validation.cross_validate"
PUBLISHED = (
    "--batch_size 21 --use_encoder True --root DIR --num_epochs 100 --use_extra_features False "
    "--ndims 16 --ngpus 1 --rank 10 --num_workers 1"
)


@pytest.fixture
def seen(monkeypatch, tmp_path):
    """What a run would have been called with."""
    calls = []

    def fake(task, model, *groups):
        options = {name: value for group in groups for name, value in vars(group).items()}
        calls.append((task, model, options))
        return [FoldResult(0, {"rmse": 1.0}, 1, 2.0, 0.1, 10, tmp_path, tmp_path)]

    monkeypatch.setattr(RUNS, fake)
    return calls


def run(seen, *words):
    assert cli.main([word for part in words for word in part.split()]) == 0
    return seen[-1]


def test_the_published_command(seen, capsys):
    task, model, options = run(seen, "brats", PUBLISHED)
    assert (task, model) == ("brats", "cpic")
    wanted = {
        "batch_size": 21, "use_encoder": True, "root": "DIR", "num_epochs": 100,
        "use_extra_features": False, "ndims": 16, "ngpus": 1, "rank": 10, "num_workers": 1,
    }  # fmt: skip
    assert {name: options[name] for name in wanted} == wanted
    assert "rmse" in capsys.readouterr().out


def test_old_short_flags(seen):
    _, _, options = run(seen, "brats -b 20 -d DIR -r OUT -e 3 -n NAME --only_fold 2")
    assert [options[k] for k in ("batch_size", "root", "num_epochs")] == [20, "DIR", 3]
    assert [options[k] for k in ("results_folder", "experiment_name", "only_fold")] == [
        *("OUT", "NAME"),
        2,
    ]


@pytest.mark.parametrize(
    "flags",
    [
        "--resolution 8 64 32",
        "--resolution 8 --resolution 64 --resolution 32",
        "--resolution [8,64,32]",
        "--resolution=8,64,32",
    ],
)
def test_three_sizes_in_any_form(seen, flags):
    task, _, options = run(seen, "osic --dataset_location D", flags)
    assert task == "osic"
    assert options["resolution"] == (8, 64, 32)
    assert options["root"] == "D"
    assert "contrasts" not in options


WRITTEN = {
    "experiment_name": ("001", "2024_01", "1.10", "on", "2024-01-02", "1e5", "0x10", "no"),
    "root": ("001", "1.10", "true", "a b", "1:30"),
    "contrasts": ("t1,001", "on"),
}


@pytest.mark.parametrize(("name", "text"), [(n, t) for n, texts in WRITTEN.items() for t in texts])
def test_text_stays_as_it_is_written(name, text, seen, tmp_path):
    file = tmp_path / "a.yml"
    written = f"[{text}]" if name == "contrasts" else text
    file.write_text(f"{name}: {written}\nbrats:\n  {name}: {written}\n")
    assert cli.main(["brats", "--config", str(file)]) == 0
    wanted = tuple(text.split(",")) if name == "contrasts" else text
    assert seen[-1][2][name] == wanted
    assert cli.main(["brats", f"--{name}", written]) == 0
    assert seen[-1][2][name] == wanted
    if name != "contrasts":
        file.write_text(f"{name}: '{text}'\n")
        assert cli.main(["brats", "--config", str(file)]) == 0
        assert seen[-1][2][name] == wanted


VALUES = [
    ("bias", "-1e-3", -1e-3), ("bias", "-.5", -0.5), ("bias", "+2", 2.0), ("bias", ".5", 0.5),
    ("lr", "1e-4", 1e-4), ("lr", "1E-4", 1e-4), ("lr", "1", 1.0), ("rank", "010", 10),
    ("rank", "1e1", 10), ("only_fold", "0", 0), ("clip", "null", None), ("clip", "None", None),
    ("experiment_name", "null", None), ("experiment_name", "None", None), ("root", "None", None),
    *[("resume", word, True) for word in ("true", "True", "TRUE", "yes", "on", "On")],
    *[("resume", word, False) for word in ("false", "no", "off", "False")],
    ("resolution", "(8, 16, 32)", (8, 16, 32)), ("resolution", "8, 16, 32", (8, 16, 32)),
    ("resolution", "8 16 32", (8, 16, 32)), ("flips", "[]", ()), ("flips", "(0,)", (0,)),
    ("flips", "1", (1,)), ("precision", "64", 64), ("more", "{looks: 3}", {"looks": 3}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "text", "wanted"), VALUES)
def test_flags_and_files_read_alike(name, text, wanted, seen, tmp_path):
    file = tmp_path / "a.yml"
    file.write_text(f"{name}: {text}\n")
    for words in (["--config", str(file)], [f"--{name}={text}"], [f"--{name}", text]):
        assert cli.main(["brats", *words]) == 0
        assert repr(seen[-1][2][name]) == repr(wanted)


NUMBERS = (
    "1:30",
    "1_0",
    "0x10",
    "−1",
    "1,000",
    "1 000",
    "ten",
    "nan",
    "'3'",
    "",
    "[3]",
    "yes",
    "&a",
)


@pytest.mark.parametrize("text", NUMBERS)
def test_what_is_no_number_is_refused(text, seen, capsys):
    assert cli.main(["brats", f"--rank={text}"]) == 2
    said = capsys.readouterr().err
    assert "rank" in said
    assert len(said.splitlines()) == 1
    assert not seen


def test_contrasts_and_options_of_the_model(seen):
    words = ["--contrasts t1 t2 --clip null --more.select 3 --more.components.follow 9"]
    _, _, options = run(seen, "brats", *words)
    assert options["contrasts"] == ("t1", "t2")
    assert options["clip"] is None
    assert options["more"] == {"select": 3, "components": {"follow": 9}}


def test_without_encoder_it_is_the_baseline(seen):
    assert run(seen, "brats --use_encoder False")[1] == "tt_mlp"
    task, model, options = run(seen, "baseline resnet34 --task osic")
    assert (task, model) == ("osic", "resnet34")
    assert options["resolution"] == (32, 512, 512)
    assert options["batch_size"] == 2
    assert run(seen, "baseline histogram")[2]["intensity"] == "minmax"


def test_files_are_merged_in_order_and_flags_win(seen, tmp_path):
    a, b = tmp_path / "a.yml", tmp_path / "b.yml"
    a.write_text("ndims: 8\nrank: 12\nlr: 1e-4\nresolution: [32, 32, 32]\nclip: null\n")
    b.write_text("command: brats\nrank: 15\nnum_epochs: 7\nosic:\n  ndims: 99\n")
    _, _, options = run(seen, f"brats --num_epochs 9 --config {a} --config {b}")
    assert [options[k] for k in ("ndims", "rank", "num_epochs", "lr")] == [8, 15, 9, 1e-4]
    assert options["resolution"] == (32, 32, 32)
    assert options["clip"] is None
    assert run(seen, f"brats --config {b} --config {a}")[2]["rank"] == 12


def test_options_in_their_groups_are_those_outside(seen, tmp_path):
    words = "--optimization.lr=1e-4 --data.resolution 8 16 32 --model.more.components.follow 9"
    _, _, flags = run(seen, "brats --run.experiment_name 001 --model.bias -1e-3", words)
    file = tmp_path / "a.yml"
    file.write_text(
        "optimization: {lr: 1e-4}\ndata:\n  resolution: [8, 16, 32]\nbrats:\n  model:\n"
        "    bias: -1e-3\n    more: {components: {follow: 9}}\n  run: {experiment_name: 001}\n"
    )
    assert run(seen, f"brats --config {file}")[2] == flags
    assert flags["more"] == {"components": {"follow": 9}}
    assert [flags[k] for k in ("lr", "resolution", "bias")] == [1e-4, (8, 16, 32), -1e-3]
    assert flags["experiment_name"] == "001"


def test_groups_are_objects(seen):
    data = MRData(root="DIR", contrasts=["t1", "t2"])
    train.brats(data=data, optimization=Optimization(lr=0.1), run={"seed": 3}, rank=5)
    _, _, options = seen[-1]
    assert [options[k] for k in ("root", "lr", "seed", "rank")] == ["DIR", 0.1, 3, 5]
    # What is not said is what the command says.
    assert [options[k] for k in ("batch_size", "resolution", "intensity")] == [
        *(21, (256, 256, 256), "zscore")
    ]
    assert options["clip"] == 1.0
    train.baseline("histogram", task="osic", optimization=Optimization(clip=None, lr=0.1), lr=0.2)
    _, _, options = seen[-1]
    assert [options[k] for k in ("clip", "lr", "batch_size")] == [None, 0.2, 20]
    for wrong, message in (
        ({"data": Data()}, "data needs MRData, got Data"),
        ({"data": {"lr": 1}}, "there is no setting 'lr'"),
        ({"model": 3}, "model needs settings by name or null, got 3"),
        ({"optimization": {"lr": 1}, "lr": 2}, "has 'lr' twice"),
    ):
        with pytest.raises(ValueError, match=message):
            train.brats(**wrong)
    with pytest.raises(TypeError, match="bogus"):
        train.brats(bogus=1)


@pytest.mark.parametrize("group", [Data, MRData, Network, Model, Optimization, Run])
def test_every_option_is_documented_once_and_frozen(group):
    bases = [base for base in group.__mro__ if issubclass(base, Group)]
    told = [name for base in bases for name in re.findall(r"(?m)^        (\w+): ", base.__doc__)]
    assert sorted(set(told) - {"ValueError"}) == sorted(kinds_of(group))
    assert len(told) == len(set(told))
    with pytest.raises(dataclasses.FrozenInstanceError):
        group().anything = 3


def test_a_preset_is_a_file(seen):
    _, _, options = run(seen, "brats --preset brats_n8_r12 --lr 0.5")
    assert [options[k] for k in ("ndims", "rank", "encoder", "lr")] == [8, 12, "paper", 0.5]
    assert run(seen, "baseline --preset osic_resnet34")[:2] == ("osic", "resnet34")


def test_all_settings_as_yaml_and_back(seen, tmp_path, capsys):
    arguments = ["osic", "--rank=7", "--resolution=8,32,32", "--more={select: 2}"]
    assert cli.main([*arguments, "--print_config"]) == 0
    assert not seen
    file = tmp_path / "all.yml"
    file.write_text(capsys.readouterr().out)
    _, _, options = run(seen, f"osic --config {file}")
    assert [options[k] for k in ("rank", "resolution", "more")] == [7, (8, 32, 32), {"select": 2}]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--ndim", "4"], "there is no setting 'ndim', did you mean 'ndims'?"),
        (["--config", "FILE"], "there is no setting 'bach_size', did you mean 'batch_size'?"),
        (
            ["--preset", "brats_n16"],
            "there is no preset 'brats_n16', did you mean 'brats_n16_r10'?",
        ),
        (["--preset", "osic_n16_r10"], "has settings of `cpic osic`, got `cpic brats`"),
        (["--config", "nowhere.yml"], "nowhere.yml cannot be read as YAML"),
        (["--config", "LIST"], "needs settings as `name: value`, got a list"),
        (["--config", "BROKEN"], "cannot be read as YAML"),
        (["--model.lr", "1"], "the command line, model: there is no setting 'lr'"),
        (
            ["--optimization.lrr", "1"],
            "optimization: there is no setting 'lrr', did you mean 'lr'?",
        ),
        (["--optimisation.lr", "1"], "there is no setting 'optimisation'"),
        (["--data", "1"], "there is no setting 'data'"),
        (["--optimization.lr", "1", "--lr=2"], "--lr is given twice; leave one out"),
        (["--model.rank.x", "1"], "the setting 'rank' has no settings below it, got --model.rank"),
        (
            ["--optimization.lr", "-1"],
            "lr needs a number above 0, got -1. lr: Learning rate.",
        ),
        (["--config", "GROUP"], "GROUP, run: there is no setting 'lr'"),
        (["--config", "BOTH"], "BOTH has 'lr' twice, once by its group; leave one"),
        (["--config", "FLAT"], "FLAT: run needs settings by name or null, got 3"),
        (["--config", "NESTED"], "NESTED has 'lr' twice, in lines 2 and 3; leave one out"),
        (["--more.n_sweep", "2"], "there is no setting 'n_sweep', did you mean 'n_sweeps'?"),
        (["--batch-size", "3"], "there is no setting 'batch-size', did you mean 'batch_size'?"),
        (["--lr", "1", "--lr=2"], "--lr is given twice; leave one out"),
        (["--lr", "--rank", "3"], "--lr needs a value; write --lr=VALUE"),
        (["--resume"], "--resume needs a value"),
        (["--lr.x", "1"], "the setting 'lr' has no settings below it, got --lr.x"),
        (
            ["--more.a", "1", "--more.a.b", "2"],
            "--more.a.b needs settings by name under 'a', got 1",
        ),
        (["--more.", "1"], "--more. needs a name after every dot"),
        (["--more", "{a: 1, a: 2}"], "the value of --more has 'a' twice, in lines 1 and 1"),
        (["stray"], "'stray' is not expected here; write --NAME=VALUE"),
        (["—rank", "3"], "'—rank' is not expected here"),
        (["--config", ""], "a file is needed"),
        (["--config", "FOLDER"], "is a folder, a file is needed"),
        (["--config", "PIPE"], "is a named pipe, a file is needed"),
        (["--config", "LATIN"], "is not UTF-8 text; save it as UTF-8"),
        (["--config", "UTF16"], "is not UTF-8 text; save it as UTF-8"),
        (["--config", "LARGE"], "has content of more than 65,536 bytes"),
        (["--config", "TWICE"], "has 'lr' twice, in lines 1 and 3; leave one out"),
        (["--config", "SECTION"], "has 'lr' twice, in lines 2 and 3; leave one out"),
        (["--config", "NUMBER"], "needs settings as `name: value`, got a int"),
        (["--system_path", "x"], "give the folder of the data by --root"),
    ],
)
def test_what_is_misspelled_is_one_line(arguments, message, tmp_path, capsys):
    texts = {
        "FILE": b"bach_size: 3\n", "LIST": b"- 1\n", "BROKEN": b"a: [\n", "NUMBER": b"3",
        "LATIN": b"root: \xe9\n", "UTF16": "lr: 1".encode("utf-16"), "LARGE": b"#" * 2**17,
        "TWICE": b"lr: 1\nrank: 5\nlr: 2\n", "SECTION": b"brats:\n  lr: 1\n  lr: 2\n",
        "GROUP": b"run:\n  lr: 1\n", "BOTH": b"lr: 1\noptimization: {lr: 2}\n", "FLAT": b"run: 3\n",
        "NESTED": b"optimization:\n  lr: 1\n  lr: 2\n", "FOLDER": None, "PIPE": None,
    }  # fmt: skip
    for name, text in texts.items():
        if text is not None:
            (tmp_path / name).write_bytes(text)
    (tmp_path / "FOLDER").mkdir()
    os.mkfifo(tmp_path / "PIPE")
    words = [str(tmp_path / word) if word in texts else word for word in arguments]
    results = ["--results_folder", str(tmp_path)]
    assert cli.main(["brats", *words, *results]) == 2
    captured = capsys.readouterr().err
    assert message in captured
    assert captured.startswith("cpic brats: ")
    assert len(captured.splitlines()) == 1


def raising(error):
    def fake(task, model, *groups):
        raise error

    return fake


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (MemoryError("encode in pieces with chunk=4096"), 2),
        (OSError("no room"), 2),
        (KeyboardInterrupt("the state is saved"), 130),
    ],
)
def test_how_a_run_ends_is_one_line(error, code, monkeypatch, capsys):
    monkeypatch.setattr(RUNS, raising(error))
    assert cli.main(["brats"]) == code
    assert capsys.readouterr().err == f"cpic brats: {error}\n"


def test_too_many_faults_are_one_line_and_mistakes_of_the_program_are_not(monkeypatch, capsys):
    error = RuntimeError("training stops after 4 failing steps")
    monkeypatch.setattr(RUNS, raising(error))
    with pytest.raises(RuntimeError):
        cli.main(["brats"])
    error.__cause__ = FloatingPointError("the loss is not finite")
    assert cli.main(["brats"]) == 2
    assert capsys.readouterr().err == f"cpic brats: {error}\n"


def test_only_the_first_process_speaks(seen, monkeypatch, capsys):
    told = {"RANK": 1, "LOCAL_RANK": 1, "WORLD_SIZE": 2, "MASTER_ADDR": "x", "MASTER_PORT": 1}
    for name, value in told.items():
        monkeypatch.setenv(name, str(value))
    run(seen, "brats --progress true")
    assert capsys.readouterr().out == ""
    assert not seen[-1][2]["progress"]


@pytest.mark.parametrize("command", ["brats", "osic", "baseline", "predict"])
def test_every_flag_is_explained(command, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main([command, "--help"])
    assert caught.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    for name in getattr(train, command).command.options:
        text = shown.split(f" --{name} ")[-1]
        # After the placeholder comes the explanation, in front of the type.
        assert not text.partition("} " if text[0] == "{" else " ")[2].startswith("(type"), name


def test_the_same_options_mean_the_same_everywhere():
    kinds = {
        name: {
            key: (one.kind, one.doc) for key, one in getattr(train, name).command.options.items()
        }
        for name in ("brats", "osic", "baseline")
    }
    for one in kinds.values():
        assert all(one[name] == kinds["brats"][name] for name in set(one) & set(kinds["brats"]))
    assert set(kinds["brats"]) - set(kinds["osic"]) == {"contrasts"}
    assert set(kinds["brats"]) - set(kinds["baseline"]) == set(kinds_of(Model)) - set(
        kinds_of(Network)
    )
    assert set(kinds["baseline"]) - set(kinds["brats"]) == {"name", "task"}
