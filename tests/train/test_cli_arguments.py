"""From the command line to the arguments of a run; nothing is trained."""

import inspect

import pytest

from cpic import cli, train
from cpic.train import FoldResult

PUBLISHED = (
    "--batch_size 21 --use_encoder True --root DIR --num_epochs 100 --use_extra_features False "
    "--ndims 16 --ngpus 1 --rank 10 --num_workers 1"
)


@pytest.fixture
def seen(monkeypatch, tmp_path):
    """What a run would have been called with."""
    calls = []

    def fake(task, model, options):
        calls.append((task, model, options))
        return [FoldResult(0, {"rmse": 1.0}, 1, 2.0, 0.1, 10, tmp_path, tmp_path)]

    for module in ("_brats", "_osic", "_baseline"):
        monkeypatch.setattr(f"cpic.train.{module}.cross_validate", fake)
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
        (["--more.lookss", "2"], "there is no setting 'lookss', did you mean 'looks'?"),
        (["--system_path", "x"], "give the folder of the data by --root"),
    ],
)
def test_what_is_misspelled_is_one_line(arguments, message, tmp_path, capsys):
    texts = {"FILE": "bach_size: 3\n", "LIST": "- 1\n", "BROKEN": "a: [\n"}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    words = [str(tmp_path / word) if word in texts else word for word in arguments]
    results = ["--results_folder", str(tmp_path)]
    assert cli.main(["brats", *words, *results]) == 2
    captured = capsys.readouterr().err
    assert message in captured
    assert captured.startswith("cpic brats: ")
    assert len(captured.splitlines()) == 1


def raising(error):
    def fake(task, model, options):
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
    monkeypatch.setattr("cpic.train._brats.cross_validate", raising(error))
    assert cli.main(["brats"]) == code
    assert capsys.readouterr().err == f"cpic brats: {error}\n"


def test_too_many_faults_are_one_line_and_mistakes_of_the_program_are_not(monkeypatch, capsys):
    error = RuntimeError("training stops after 4 failing steps")
    monkeypatch.setattr("cpic.train._brats.cross_validate", raising(error))
    with pytest.raises(RuntimeError):
        cli.main(["brats"])
    error.__cause__ = FloatingPointError("the loss is not finite")
    assert cli.main(["brats"]) == 2
    assert capsys.readouterr().err == f"cpic brats: {error}\n"


def test_only_the_first_process_speaks(seen, monkeypatch, capsys):
    monkeypatch.setenv("RANK", "1")
    run(seen, "brats --progress true")
    assert capsys.readouterr().out == ""
    assert not seen[-1][2]["progress"]


@pytest.mark.parametrize("flags", [["--rank", "ten"], ["--encoder", "big"], ["--resolution", "3"]])
def test_a_value_of_the_wrong_type_is_refused(flags, seen, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(["brats", *flags])
    assert caught.value.code == 2
    assert flags[0][2:] in capsys.readouterr().err
    assert not seen


@pytest.mark.parametrize("command", ["brats", "osic", "baseline", "predict"])
def test_every_flag_is_explained(command, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main([command, "--help"])
    assert caught.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    for name in inspect.signature(getattr(train, command)).parameters:
        text = shown.split(f" --{name} ")[-1]
        # After the placeholder comes the explanation, in front of the type.
        assert not text.partition("} " if text[0] == "{" else " ")[2].startswith("(type"), name


def test_the_same_options_mean_the_same_everywhere():
    kinds = {
        name: {p.name: p.annotation for p in inspect.signature(f).parameters.values()}
        for name, f in (("brats", train.brats), ("osic", train.osic), ("baseline", train.baseline))
    }
    assert set(kinds["brats"]) - set(kinds["osic"]) == {"contrasts"}
    less = {"use_encoder", "ndims", "encoder", "bias"}
    assert set(kinds["brats"]) - set(kinds["baseline"]) == less
    assert set(kinds["baseline"]) - set(kinds["brats"]) == {"name", "task"}
