"""`hope stream`: lines of text and commands, from a file as from a terminal."""

import json
import signal

import pytest

from hope_jax.cli.main import main
from hope_jax.cli.stream import parse_levels
from hope_jax.data import ByteTokenizer, prepare
from hope_jax.data.sources import TextSource

TINY = [
    "model.dim=16",
    "model.depth=2",
    "model.mixer=gated_delta_net",
    "model.mixer.heads=2",
    "model.mixer.chunk=8",
    "model.cms.periods=(1,4)",
    "model.cms.in_context.chunks=(8,0)",
    "model.cms.hidden=32",
    "data.length=32",
    "data.batch=8",
    "steps=2",
    "eval_batches=1",
    "ngrams=False",
    "position_plot=False",
    "sample_tokens=4",
]


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    text, folder = tmp_path_factory.mktemp("text"), tmp_path_factory.mktemp("run")
    (text / "text.txt").write_text("The harbour has a master, and the town has a mayor.\n" * 60)
    prepare(text / "data", TextSource([text / "text.txt"], validation=0.2), ByteTokenizer())
    fields = [*TINY, f"data.path={text / 'data'}"]
    changes = [part for field in fields for part in ("--set", field)]
    quick = "experiments/quickstart.py"
    assert main(["train", "--config", quick, "--workdir", str(folder), *changes]) == 0
    return folder


def turns(tmp_path, text):
    file = tmp_path / "turns.txt"
    file.write_text(text)
    return str(file)


@pytest.mark.slow
def test_a_file_of_turns(run_folder, tmp_path, capsys):
    stream = tmp_path / "mine"
    lines = turns(
        tmp_path,
        "The harbour's new master is Anna Brandt.\n"
        "/ask Who is the harbour's master?\n"
        "/surprise\n/forget\n/diff\n"
        "/sleep steps=2 samples=2 batch=2\n/diff\n/save\n/quit\nnever read\n",
    )
    capsys.readouterr()  # of the training
    common = ["stream", "--workdir", str(run_folder), "--stream", str(stream), "--json"]
    assert main([*common, "--turns", lines, "--tokens", "8"]) == 0
    out = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    commands = [turn["command"] for turn in out]
    assert commands == ["read", "ask", "surprise", "forget", "diff", "sleep", "diff", "save"]
    assert out[0]["tokens"] == 41 and len(out[2]["losses"]) == 41
    assert out[4]["1"]["fast"] > 0 and out[4]["4"]["total"] == 0
    assert out[6]["1"]["total"] == 0 and out[6]["4"]["slow"] > 0
    # and on without the run's folder, which the stream names
    more = turns(tmp_path, "/points\n/back 41\n/help\n/file setup.cfg\n")
    assert main(["stream", "--stream", str(stream), "--turns", more]) == 0
    said = capsys.readouterr().out
    assert said.startswith("41\nback at 41 tokens\n") and "nats per token" in said


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("/asc x", "there is no command /asc"),
        ("/forget soon", "takes a number of tokens, not 'soon'"),
        ("/sleep step=3", "did you mean 'steps'"),
        ("/sleep", "the reservoir is empty"),
        ("/save", "the stream has no folder yet"),
        ("/file nowhere.txt", "No such file"),
    ],
)
def test_a_mistake_names_its_line(run_folder, tmp_path, capsys, line, said):
    file = turns(tmp_path, f"\n{line}\n")
    assert main(["stream", "--workdir", str(run_folder), "--turns", file]) == 2
    error = capsys.readouterr().err
    assert f"line 2, {line!r}" in error and said in error


def test_what_cannot_be_opened(run_folder, tmp_path, capsys):
    def error(*argv):
        assert main(["stream", *argv]) == 2
        return capsys.readouterr().err

    assert "give the --workdir of a run" in error()
    assert "give a period and tokens per update" in error("--levels", "1:8")
    file = turns(tmp_path, "a\n/save\n")
    folder = ["--workdir", str(run_folder), "--stream", str(tmp_path / "s")]
    assert main(["stream", *folder, "--turns", file]) == 0
    for given in (("--lr", "0.1"), ("--reservoir", "0")):
        assert "leave out --levels, --lr, --blocks, --rule and --res" in error(*folder, *given)
    assert "no point at 7 tokens" in error(*folder, "--point", "7")


def test_turns_that_are_not_utf8_name_their_file(tmp_path, capsys):
    file = tmp_path / "turns.txt"
    file.write_bytes("Wär's\n".encode("latin-1"))
    assert main(["stream", "--workdir", str(tmp_path), "--turns", str(file)]) == 2
    assert f"{file} is not UTF-8 text" in capsys.readouterr().err


def test_levels_on_the_command_line():
    assert parse_levels(None) is None
    assert parse_levels("none") == {}
    assert parse_levels("1=8, 4=16") == {1: 8, 4: 16}


def test_the_end_saves_what_was_read(run_folder, tmp_path, capsys):
    """Without a /save, once, and not where nothing changed since."""
    folder = tmp_path / "s"
    common = ["stream", "--workdir", str(run_folder), "--stream", str(folder)]
    assert main([*common, "--turns", turns(tmp_path, "abc\n/quit\n"), "--json"]) == 0
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert said["command"] == "save" and said["path"].endswith("000001-4.npz")
    assert (
        main([*common, "--turns", turns(tmp_path, "/ask a\n/points\n"), "--tokens", "1"]) == 0
    )
    assert main([*common, "--turns", turns(tmp_path, "d\n/save\n")]) == 0
    assert [file.name for file in sorted(folder.iterdir())] == ["000001-4.npz", "000002-6.npz"]


@pytest.mark.parametrize("why", ["asked", "nowhere", "error"])
def test_what_is_not_saved_is_told(run_folder, tmp_path, capsys, why):
    folder = tmp_path / "s"
    options = {"asked": ["--stream", str(folder), "--no-save"], "nowhere": []}
    options = options.get(why, ["--stream", str(folder)])
    lines = turns(tmp_path, "abc\n/back 7\n" if options and why == "error" else "abc\n")
    status = main(["stream", "--workdir", str(run_folder), *options, "--turns", lines])
    assert status == (2 if why == "error" else 0)
    said = capsys.readouterr().err
    assert "4 tokens since the last save are lost" in said and not folder.exists()
    assert ("--stream DIR" in said) == (why == "nowhere")


@pytest.mark.parametrize("line", ["/nonsense", "/sleep abc", "/back x", "/file nowhere.txt"])
def test_a_mistake_is_found_before_anything_is_read(tmp_path, capsys, line):
    """Not even the checkpoint, which is not there."""
    file = turns(tmp_path, f"abc\n{line}\n")
    argv = ["stream", "--workdir", str(tmp_path / "none"), "--stream", str(tmp_path / "s")]
    assert main([*argv, "--turns", file]) == 2
    out, err = capsys.readouterr()
    assert f"line 2, {line!r}" in err and out == "" and "lost" not in err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_what_was_read(
    run_folder, tmp_path, capsys, monkeypatch, request, number
):
    def broken_off(stream, prompt, **how):
        signal.raise_signal(number)

    monkeypatch.setattr("hope_jax.streams.stream.Stream.answer", broken_off)
    if number == signal.SIGINT:  # which a shell's background job ignores
        before = signal.signal(number, signal.default_int_handler)
        request.addfinalizer(lambda: signal.signal(number, before))
    argv = ["stream", "--workdir", str(run_folder), "--stream", str(tmp_path / "s")]
    argv += ["--turns", turns(tmp_path, "abc\n/ask a\nnever read\n")]
    if number == signal.SIGTERM:
        with pytest.raises(SystemExit, match="143"):
            main(argv)
    else:
        assert main(argv) == 130
    assert [file.name for file in (tmp_path / "s").iterdir()] == ["000001-4.npz"]
    assert "000001-4.npz" in capsys.readouterr().out
