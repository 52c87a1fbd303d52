"""What a prompt, a notebook and a type checker see: tables and summaries, never the numbers; names, and no helpers."""

from __future__ import annotations

import base64
import importlib.resources
import importlib.util
import json
import re
import subprocess
import sys
import warnings
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

import npattn
from npattn import ablation, data, dialects, models, progress
from npattn.ablation.report import cells
from npattn.checker.report import Row
from npattn.explain.trace import trace
from npattn.explain.trace_text import text
from npattn.notebook import PNG, html_lines, html_picture, html_table, html_text, is_notebook
from npattn.training.result import FIGURES, TrainResult

ROOT = Path(__file__).parents[2]
X = np.random.default_rng(0).standard_normal((2, 8, 4, 4)).astype(np.float32)
HISTORY = [
    {"epoch": 1, "loss": 0.5, "accuracy": 0.81, "rate": 0.01, "seconds": 3.0},
    {"epoch": 2, "loss": 0.25, "accuracy": 0.9, "rate": 0.01, "seconds": 3.5, "test_loss": 0.2, "test_accuracy": 0.95},
]


class Page(HTMLParser):
    """Tags that are not closed, and the text of the cells."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.cells: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)
        if tag != "img":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("td", "th"):
            self.cells.append(data)


def parsed(html: str) -> Page:
    """The page, after checking that its tags are closed and that it brings no colour of its own."""
    page = Page(html)
    assert not page.open
    assert not re.search(r"(?<!-)color:(?!inherit)|#[0-9a-f]{3}|background:(?!none)|<script", html)
    return page


def trained(folder: Path, finished: bool = True, history: list[dict[str, Any]] = HISTORY) -> TrainResult:
    counts = np.diag([99] * 10)
    counts[3, 5] = 10
    return TrainResult(models.digits("none", rng=0), 0.99, history, counts, folder, finished)


def summary() -> Any:
    """Of an ablation with two rows and two seeds."""
    results = [
        {
            "row": row, "seed": seed, "settings": {"digits": 100}, "digits": "embedded 10,000", "parameters": 1234,
            "accuracy": 0.9 + 0.01 * seed, "test_loss": 0.3, "train_loss": 0.2, "gates": {}, "seconds": 1.0,
            "versions": {},
        }
        for row in ("none", "se")
        for seed in (0, 1)
    ]  # fmt: skip
    return ablation.summarised(results)


def everything(folder: Path) -> dict[str, Any]:
    """What our functions give to whoever calls them at a prompt."""
    layer = npattn.CBAM(8, ratio=2, rng=0)
    layer(X)
    return {
        "gradcheck": npattn.gradcheck(layer, X),
        "a failed one": npattn.gradcheck((lambda x: (x * 2, x), lambda dy, x: dy), X, raise_exception=False),
        "train": trained(folder),
        "digits": data.load(),
        "trace": trace("se"),
        "gates": npattn.explain.gate_statistics(layer.attention),
        "ablation": summary(),
        "parameters": models.digits().parameters(),
    }


@pytest.fixture(scope="module")
def things(tmp_path_factory) -> dict[str, Any]:
    return everything(tmp_path_factory.mktemp("run"))


def test_all_are_short_at_a_prompt(things):
    for name, thing in things.items():
        shown = repr(thing)
        assert shown == str(thing), name
        assert "array(" not in shown, name
        assert len(shown) < 6000, name
        assert max(map(len, shown.splitlines())) <= 120, name
        assert "object at 0x" not in shown, name


def test_all_are_readable_in_a_notebook(things):
    for name, thing in things.items():
        html = thing._repr_html_()
        page = parsed(html)
        assert {"table", "pre"} & set(page.tags), name
        assert len(html) < 30_000, name


def test_what_each_says(things):
    assert things["gradcheck"].target == "CBAM(8, ratio=2, kernel_size=7)"
    assert "CBAM(8, ratio=2, kernel_size=7): passed\nname " in repr(things["gradcheck"])
    assert "ca.fc1.weight" in parsed(things["gradcheck"]._repr_html_()).cells
    assert "FAILED" in repr(things["a failed one"])
    assert "<pre" in things["a failed one"]._repr_html_()
    assert repr(things["digits"]).startswith("MNIST, embedded 10,000\n")
    assert re.search(r"train_images +\(10000, 28, 28\) +uint8", repr(things["digits"]))
    assert repr(things["trace"]) == text(things["trace"])
    assert re.search(r"^gate +mean +spread +over images +saturated +half$", repr(things["gates"]), re.M)
    assert "channel" in parsed(things["gates"]._repr_html_()).cells
    assert re.search(r"^none: no attention +1,234 +90\.50 ", repr(things["ablation"]), re.M)
    assert "stage1.conv.weight (16, 1, 3, 3)" in repr(things["parameters"])


def test_they_are_what_they_were(things):
    """A dict, a list, a tuple with fields: what is shown otherwise is used as before."""
    gates = things["gates"]
    assert json.loads(json.dumps(gates)) == gates == dict(gates)
    assert isinstance(things["ablation"], list)
    assert [row["row"] for row in things["ablation"]] == ["none", "se"]
    assert len(list(cells(things["ablation"]))) == 2
    images, *_, source = things["digits"]
    assert (images.shape, source) == ((10000, 28, 28), things["digits"].source)


def test_the_dicts_of_a_network_show_no_numbers():
    model = models.digits("cbam", rng=0)
    loaded = dialects.build("timm", "CbamModule", channels=16)
    for arrays in (model.params, model.parameters(), model.buffers, loaded.params):
        assert "array(" not in repr(arrays)
        for key, value in arrays.items():
            assert f"{key} {tuple(value.shape)}" in repr(arrays)
    assert repr(npattn.ReLU().parameters()) == "no parameters"


def test_nothing_to_show():
    assert repr(npattn.explain.gate_statistics({})) == "no gates"
    nothing = npattn.GradcheckReport("it", (), no_verdict="no gradient")
    assert parsed(nothing._repr_html_()).tags == ["p"]


def test_a_candidate_is_a_call():
    (found, *_) = dialects.candidates(npattn.CBAM(8, ratio=2).state_dict())
    assert repr(found) == str(found)
    assert repr(found).startswith("article.CBAM(in_planes=8, ratio=2): ")


# A training's result


def test_a_result_in_words(tmp_path):
    shown = repr(trained(tmp_path))
    assert shown.startswith("TrainResult: 99.00% of 1,000 test digits right, after 2 epochs, ")
    assert re.search(r"^ +2 +3\.5 +0\.2500 +90\.00% +95\.00%$", shown, re.M)
    assert re.search(r"^ +1 +3\.0 +0\.5000 +81\.00%$", shown, re.M)
    assert shown.endswith(f"results in {tmp_path}")
    assert "after 1 epoch, " in repr(trained(tmp_path, history=HISTORY[:1]))
    assert f"; interrupted: npattn.train(resume='{tmp_path}') goes on" in repr(trained(tmp_path, finished=False))
    assert "loss" not in repr(trained(tmp_path, history=[]))


def test_many_epochs_are_not_all_shown(tmp_path):
    many = [{**HISTORY[0], "epoch": epoch} for epoch in range(1, 101)]
    assert len(repr(trained(tmp_path, history=many)).splitlines()) == 15


def test_figures_are_inline(tmp_path):
    """Those that are there; what is no picture, or another file by now, is left out."""
    png = PNG + b"rest"
    (tmp_path / "curves.png").write_bytes(png)
    (tmp_path / "gates.png").write_bytes(b"<script>")
    (tmp_path / "confusion.png").mkdir()
    html = trained(tmp_path)._repr_html_()
    assert parsed(html).tags.count("img") == 1
    assert f'src="data:image/png;base64,{base64.b64encode(png).decode()}"' in html
    assert FIGURES["curves.png"] in html


def test_figures_are_those_that_a_run_writes():
    from npattn.training.folder import FILES

    assert set(FIGURES) == {name for name in FILES if name.endswith(".png")}


def test_html_is_escaped():
    attack = '<b onclick="x">&'
    for html in (html_table([attack], [[attack]]), html_lines([attack]), html_text(attack), html_picture(PNG, attack)):
        assert "<b" not in html
        parsed(html)
    assert html_picture(b"GIF89a", "no PNG") == ""
    report = npattn.GradcheckReport(attack, (Row(attack, (1,), "m", "c", 0.0, wrong=attack),), notes=(attack,))
    assert parsed(report._repr_html_()).cells.count(attack) == 1
    assert "<b" not in report._repr_html_()


# A notebook


def notebook(monkeypatch, config: Any) -> None:
    """Make IPython say that it has this config."""
    ipython = ModuleType("IPython")
    ipython.get_ipython = lambda: None if config is None else SimpleNamespace(config=config)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", ipython)


def test_what_is_a_notebook(monkeypatch):
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    assert not is_notebook()
    for config, answer in (
        (None, False),
        ({}, False),
        ({"TerminalIPythonApp": {}}, False),
        ({"IPKernelApp": {}}, True),
    ):
        notebook(monkeypatch, config)
        assert is_notebook() is answer


def test_a_notebook_has_a_bar(monkeypatch, capsys):
    pytest.importorskip("tqdm")
    notebook(monkeypatch, {"IPKernelApp": {}})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bar = progress.for_terminal()
    assert isinstance(bar, progress.NotebookBar)
    for epoch in range(2):
        bar.epoch(epoch, 2, 3, 0)
        for _ in range(3):
            bar.step(0.5, 0.75)
        bar.epoch_done({**HISTORY[1], "epoch": epoch + 1})
    assert (bar.bar.n, bar.bar.total) == (6, 6)
    bar.end(Path("runs/x"), 0.95, 7, True)
    out, err = capsys.readouterr()
    assert "epoch 2/2" in out
    assert "results in runs/x" in out
    assert "loss 0.5000, accuracy 75.00%" in err


def test_a_run_that_goes_on_has_its_bar_where_it_was(monkeypatch):
    pytest.importorskip("tqdm")
    bar = progress.NotebookBar()
    bar.epoch(1, 4, 10, 3)
    assert (bar.bar.n, bar.bar.total) == (13, 40)
    bar.end(Path("x"), 0.9, 1, False)
    silent = progress.NotebookBar()
    silent.end(Path("x"), 0.9, 1, True)  # interrupted before it began


# What there is


def test_dir_holds_what_there_is():
    names = dir(npattn)
    modules = {"ablation", "blocks", "data", "dialects", "explain", "models", "ops", "training", "variants"}
    assert modules <= set(names)
    assert ("torch" in names) == (importlib.util.find_spec("torch") is not None)
    assert set(npattn.__all__) <= set(names)
    helpers = {"importlib", "Any", "TYPE_CHECKING", "annotations", "MODULES", "OF_TRAINING", "arguments"}
    assert not helpers & set(names)
    plain = [name for name in names if not name.startswith("__")]
    assert set(plain) == modules | set(npattn.__all__) | ({"torch"} & set(names))
    assert len(names) == len(set(names))


def test_every_name_of_dir_is_there():
    """In a fresh process, where nothing has imported it before."""
    code = "import npattn; print([n for n in dir(npattn) if n != 'torch' and not hasattr(npattn, n)])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_no_other_name_is_made_up():
    with pytest.raises(AttributeError, match=r"^module 'npattn' has no attribute 'nonsense'$"):
        npattn.nonsense  # noqa: B018


# A type checker

SNIPPET = """
import numpy as np
import npattn
x = np.ones((1, 8, 4, 4), np.float32)
layer = npattn.CBAM(8, ratio=2)
y = layer(x)
reveal_type(y)
reveal_type(layer.forward(x))
reveal_type(layer.backward(y))
reveal_type(npattn.Sequential(layer, npattn.ReLU())(x))
N, C = npattn.GlobalAvgPool()(x).shape
npattn.TrainConfig(epochs="3")
npattn.CBAM(8, reduction=2)
"""


def test_the_package_says_that_it_is_typed():
    assert importlib.resources.files("npattn").joinpath("py.typed").is_file()


@pytest.mark.slow  # only where mypy has not looked at the package before
@pytest.mark.skipif(importlib.util.find_spec("mypy") is None, reason="mypy is not installed")
def test_a_type_checker_knows_that_a_layer_gives_an_array(tmp_path):
    """An array of the dtype that was given, not Any, and with axes of its own; and what `explained` wraps."""
    (tmp_path / "own.py").write_text(SNIPPET)
    asked = [sys.executable, "-m", "mypy", str(tmp_path / "own.py")]
    done = subprocess.run(asked, capture_output=True, text=True, cwd=ROOT, check=False)
    shown = re.findall(r'note: Revealed type is "(.*)"', done.stdout)
    assert len(shown) == 4, done.stdout
    assert all("ndarray" in kind and "floating" in kind and "32Bit" in kind for kind in shown), shown
    assert 'Argument "epochs" to "TrainConfig" has incompatible type "str"' in done.stdout
    assert 'Unexpected keyword argument "reduction" for "CBAM"' in done.stdout
    assert "Found 2 errors" in done.stdout, done.stdout
