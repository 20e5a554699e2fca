"""``unremember sweep``: on real Ray, resumable, and what it recommends is a configuration."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from shell import WORLD, Outcome, ran, run_json, shell, weights

from unremember.observe.kinds import generations
from unremember.runs.sweep.run import run_point
from unremember.runs.workers import Workers, workers

SMALL = [WORLD, "batch_size=8", "max_steps=2", "warmup=0", "--floor", "0"]


def words(runs: Path, out: Path, *more: Any) -> list[Any]:
    return ["sweep", f"model={runs / 'original'}", *SMALL, "-o", out, "--oracle", runs / "oracle", *more]


class Here:
    """Runs every job in this process, and counts."""

    slots = 2

    def __init__(self) -> None:
        self.ran = 0

    def run(
        self, title: str, job: Callable[..., dict[str, Any]], shared: Any, points: list[Any]
    ) -> list[dict[str, Any]]:
        self.ran += len(points)
        return [job(shared, point) for point in points]


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Here:
    made = Here()
    monkeypatch.setattr("unremember.runs.sweep.run.workers", lambda address: made)
    monkeypatch.setattr("altair.LayerChart.save", lambda *_, **__: None)
    return made


@pytest.fixture(scope="module")
def on_ray() -> Iterator[Workers]:
    """Real Ray on one core; what is defined in this file is sent to the workers as it stands."""
    import ray

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("joblib.cpu_count", lambda: 1)
        made = workers()
        assert made.slots == 1
        yield made
    ray.shutdown()


def short_answers(shared: Any, point: Any) -> dict[str, Any]:
    """The job of a sweep; a model that knows nothing never ends by itself, in a worker as here."""
    generations.LIMIT = 4
    return run_point(shared, point)


@pytest.fixture(scope="module")
def swept(on_ray: Workers, runs: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    """A sweep on Ray: two rates, and one that destroys the model."""
    out = tmp_path_factory.mktemp("sweep") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "80")
        patch.setattr("unremember.observe.kinds.generations.LIMIT", 4)
        patch.setattr("unremember.runs.sweep.run.workers", lambda address: on_ray)
        patch.setattr("unremember.runs.sweep.run.run_point", short_answers)
        return out, ran(
            *words(runs, out, "method=gradient_ascent", "weight_decay=0", "sweep.lr=[1e-4,1e-3,1e30]")
        )


def test_a_sweep_on_ray_ends_with_a_front(swept: tuple[Path, Outcome], runs: Path) -> None:
    out, outcome = swept
    tree = json.loads((out / "sweep.json").read_text())
    titles = {point["title"]: point for point in tree["points"]}
    assert titles.keys() == {"lr=0.0001", "lr=0.001", "lr=1e+30"}
    assert titles["lr=1e+30"]["note"].startswith("collapsed") and titles["lr=1e+30"]["quality"] is None
    for title in ("lr=0.0001", "lr=0.001"):
        point = titles[title]
        run = run_json(out / "points" / point["name"])
        rows = {
            row["name"]: row
            for row in json.loads((out / "points" / point["name"] / "measurements.json").read_text())
            if row["data"]
        }
        assert run["config"]["settings"]["lr"] == float(title[3:]) and point["steps"] == 2
        assert (
            point["quality"] == rows["forget_quality"]["extra"]["log10_p"]
            and point["utility"] == rows["model_utility"]["value"]
        )
        assert rows["forget_quality"]["artefact"] == run["digests"]["artefact"]
    assert [c["title"] for c in tree["controls"]] == ["original", "oracle"] and tree["recommended"] in tree[
        "front"
    ]
    assert (
        "recommended: lr=" in " ".join(outcome.out.split()) and max(map(len, outcome.out.splitlines())) <= 80
    )
    assert "another seed" in outcome.err and "ray" not in outcome.err.lower()
    assert all((out / name).exists() for name in ("sweep.md", "sweep.png", "sweep.html", "best.yaml"))


def test_a_point_is_what_forget_and_audit_make(
    swept: tuple[Path, Outcome], runs: Path, tmp_path: Path
) -> None:
    out, _ = swept
    best = json.loads((out / "sweep.json").read_text())["recommended"]
    ran("forget", "-c", out / "best.yaml", "-o", tmp_path / "best")
    assert weights(tmp_path / "best") == weights(out / "points" / best), "bit for bit"
    audited = ran(
        "audit",
        "-m",
        tmp_path / "best",
        "--original",
        runs / "original",
        "--oracle",
        runs / "oracle",
        WORLD,
        "--json",
        "--audit",
        "forget_quality",
        "--audit",
        "model_utility",
    ).json
    there = {
        row["name"]: row["value"]
        for row in json.loads((out / "points" / best / "measurements.json").read_text())
    }
    assert [row["value"] for row in audited] == [there[row["name"]] for row in audited]


def test_what_is_finished_is_not_run_again(swept: tuple[Path, Outcome], runs: Path, here: Here) -> None:
    out, outcome = swept
    more = ["method=gradient_ascent", "weight_decay=0"]
    again = ran(*words(runs, out, *more, "sweep.lr=[1e-4,1e-3,1e30]"))
    assert here.ran == 0 and again.out == outcome.out
    ran(*words(runs, out, *more, "sweep.lr=[1e-4,1e-3,1e30,2e-3,2e-3]"))
    assert here.ran == 1, "only the new point, and once"
    point = next((out / "points").glob("lr=0.002-*/point.json"))
    point.unlink()
    before = run_json(point.parent)
    ran(*words(runs, out, *more, "sweep.lr=[2e-3]"))
    assert here.ran == 2 and run_json(point.parent) == before and point.exists(), (
        "the run was finished: it is only measured"
    )
    assert [p["title"] for p in json.loads((out / "sweep.json").read_text())["points"]] == ["lr=0.002"]


def test_matched_points_end_early_and_the_recommended_one_can_be_repeated(
    swept: tuple[Path, Outcome], runs: Path, tmp_path: Path, here: Here
) -> None:
    out, _ = swept
    ran(
        *words(
            runs,
            out,
            "max_steps=40",
            "method=gradient_ascent",
            "--matched",
            "--every",
            2,
            "sweep.lr=[1e-2,3e-3]",
        )
    )
    tree = json.loads((out / "sweep.json").read_text())
    assert len(tree["points"]) == 2
    for point in tree["points"]:
        assert 0 < point["steps"] < 40 and point["steps"] % 2 == 0 and point["level"] <= tree["target"]
    ran("forget", "-c", out / "best.yaml", "-o", tmp_path / "best")
    assert weights(tmp_path / "best") == weights(out / "points" / tree["recommended"])
    more = ["method=gradient_ascent", "--matched", "--every", 4, "sweep.lr=[1e-9]"]
    (slow,) = ran(*words(runs, out, "max_steps=1", *more, "--json")).json["points"]
    assert (slow["steps"], slow["note"]) == (1, "ended before matched forgetting") and slow["level"] > tree[
        "target"
    ]
    assert here.ran == 3


def test_a_search_carries_on(swept: tuple[Path, Outcome], runs: Path, here: Here) -> None:
    out, _ = swept
    more = ["sweep.lr=1e-5..1e-2", "sweep.method=[npo,simnpo]", "sweep.method.beta=0.1..0.5"]
    first = ran(*words(runs, out, "--search", 1, *more, "--json")).json
    assert here.ran == 1
    second = ran(*words(runs, out, "--search", 3, *more, "--json")).json
    assert here.ran == 3 and {p["name"] for p in first["points"]} < {p["name"] for p in second["points"]}
    for point in second["points"]:
        method = point["tree"]["method"]
        assert (
            1e-5 <= point["tree"]["lr"] <= 1e-2
            and method["name"] in ("npo", "simnpo")
            and 0.1 <= method["beta"] <= 0.5
        )
    assert json.loads((out / "sweep.json").read_text()) == second


def test_a_file_with_its_block(swept: tuple[Path, Outcome], runs: Path, tmp_path: Path, here: Here) -> None:
    """The words of the shell win over the file's; the whole part is put before its parameters."""
    file = tmp_path / "run.yaml"
    tree = {
        "model": str(runs / "original"),
        "data": {"name": "people", "count": 20},
        "batch_size": 8,
        "max_steps": 1,
        "sweep": {"method.beta": [0.1, 0.2], "method": ["npo"], "lr": [1, 2, 3]},
    }
    file.write_text(yaml.safe_dump(tree))
    found = ran(
        "sweep", file, "-o", swept[0], "--oracle", runs / "oracle", "--floor", 0, "sweep.lr=[1e-4]", "--json"
    ).json
    assert [p["tree"]["method"] for p in sorted(found["points"], key=lambda p: p["title"])] == [
        {"name": "npo", "beta": b} for b in (0.1, 0.2)
    ]
    assert {p["tree"]["lr"] for p in found["points"]} == {1e-4} and "sweep" not in found["points"][0]["tree"]


def test_what_a_method_lacks_is_recorded_and_tried_again(
    swept: tuple[Path, Outcome], runs: Path, here: Here
) -> None:
    for _ in range(2):
        tree = ran(
            *words(runs, swept[0], "retain_loss=kl", "sweep.method=[gradient_ascent,npo]", "--json")
        ).json
        notes = {p["title"]: p["note"] for p in tree["points"]}
        assert (
            notes["method=gradient_ascent"].startswith("does not run here: retain_loss names the loss")
            and notes["method=npo"] == ""
        )
    assert here.ran == 3, "npo once, what did not run twice"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ([], "nothing is swept: give sweep.lr="),
        (["sweep.lr=1e-4"], "sweep.lr is 0.0001: give a list"),
        (["sweep.lr=1e-5..1e-3"], "sweep.lr is a range: give a list of points, or --search N"),
        (["lr=[1e-4,1e-3]", "sweep.epochs=[1]"], "sweep.lr=[0.0001,0.001]"),
        (["lr=1e-5..1e-3", "sweep.epochs=[1]"], "sweep.lr=1e-5..1e-3"),
        (["sweep.lrr=[1]"], "unknown key 'lrr': did you mean 'lr'"),
        (["sweep.method=[npo,npoo]"], "did you mean 'npo'"),
        (["sweep.method=[npo,rmu]", "sweep.method.beta=[1]"], "rmu has no parameter 'beta'"),
        (["sweep.epochs=0..5", "--search", "3"], "epochs must be above 0"),
        (["sweep.data.count=[20,40]"], "data cannot be swept"),
        (["sweep.model=[a,b]"], "model cannot be swept"),
        (["sweep.settings.lr=[1]"], "settings cannot be swept"),
        (["sweep=3"], "sweep: holds keys"),
        (["a.yaml", "b.yaml", "sweep.lr=[1]"], "not 2"),
        (["sweep.lr=[1]", "--matched", "schedule=linear"], "schedule=constant"),
        (["sweep.schedule=[constant,linear]", "--matched"], "schedule=constant"),
        (["none.yaml", "sweep.lr=[1]"], "cannot read none.yaml"),
        (["sweep.lr=[1"], "cannot read the value of lr"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_swept_is_one_line_before_anything_runs(
    more: list[str], message: str, runs: Path, tmp_path: Path
) -> None:
    assert message in shell(*words(runs, tmp_path / "out", *more)).refused()
    assert not (tmp_path / "out").exists()


def test_controls_are_asked_for(runs: Path, tmp_path: Path) -> None:
    line = shell(
        "sweep", f"model={runs / 'original'}", WORLD, "-o", tmp_path / "out", "sweep.lr=[1e-4]"
    ).refused()
    assert "unremember train --without forget" in line
    assert (
        "a sweep needs model=" in shell("sweep", WORLD, "-o", tmp_path / "out", "sweep.lr=[1e-4]").refused()
    )


def test_without_ray_it_says_what_to_install(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert "unremember[cluster]" in shell(*words(runs, tmp_path / "out", "sweep.lr=[1e-4]")).refused()


def test_without_optuna_a_search_says_what_to_install(
    swept: tuple[Path, Outcome], runs: Path, here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert "unremember[cluster]" in shell(*words(runs, swept[0], "sweep.lr=[1e-4]", "--search", 2)).refused()
