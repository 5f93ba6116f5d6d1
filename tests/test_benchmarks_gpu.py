import json
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import gpu, gpu_population, gpu_speed
from benchmarks.gpu_population import read_configurations
from cgan_core.population import signature


def call(out: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert gpu.main(["--device", "cpu", "--tiny", "--out", str(out), *arguments]) == 0
    report: dict[str, Any] = json.loads(capsys.readouterr().out)
    return report


def test_it_goes_on_where_the_last_call_ended(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (gpu_population, gpu_speed):
        monkeypatch.setattr(module, "REPEATS", 1)
    lefts = [call(tmp_path, capsys, "--minutes", "0")["left"]]
    while len(lefts[-1]) > 1:
        lefts.append(call(tmp_path, capsys, "--minutes", "0")["left"])
    assert [len(left) for left in lefts] == [7, 6, 5, 4, 3, 2, 1]  # one measurement a call
    interrupted = call(tmp_path, capsys, "--minutes", "0")["results"]["population"]
    assert interrupted["steps"] == 5
    report = call(tmp_path, capsys)
    population = report["results"]["population"]
    assert report["left"] == []
    assert population["steps"] == 20
    assert population["training_seconds"] > interrupted["training_seconds"]
    assert population["streams"] == ["device"]

    unbroken = call(tmp_path / "unbroken", capsys)["results"]["population"]
    assert [row["test_log_likelihood"] for row in population["members"]] == [
        row["test_log_likelihood"] for row in unbroken["members"]
    ]
    assert len({row["test_log_likelihood"] for row in unbroken["members"]}) == 3
    for name, found in report["results"].items():
        if name not in ("parzen", "population"):
            assert found["model_steps_per_second"] > 0
            assert found["roofline_fraction"] > 0
            assert found["execution"] == "eager"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main(["--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "no GPU" in said.err
    assert said.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_its_configurations_are_sixteen_that_can_be_fused() -> None:
    configs = read_configurations(gpu.CONFIGURATIONS)
    assert len({str(config) for config in configs}) == len(configs) == 16
    assert len({signature(config) for config in configs}) == 1
