"""Tuning strategies side by side: what each makes of models that lose too much when all of them is quantized.

Every line is a search of its own by the command line, so it pays for what a user pays for. Speed-ups are against the
original in the same search; the first lines of each script are what there is without quantization.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from searches import searched

from neural_coder import registry

SCRIPTS = ("outlier_digits.py", "classify_photos.py")
PLAIN = {
    "openvino": {"fp32": "open_vino", "bf16": "bf16_weights,open_vino"},
    "inductor": {"fp32": "compile", "bf16": "bf16_weights,compile"},
    "onnxruntime": {"fp32": "onnx_runtime"},
}
"""What runs a model without quantization."""
EAGER = {"eager bf16": "bf16_weights"}
"""What bf16 comes to where the processor lacks it, so that an engine does not offer it."""
COLUMNS = ("script", "strategy", "trials", "minutes", "kept", "speed-up", "loss/allowed", "answer", "in floating point")
ROW = "{:<18} {:<16} {:>6} {:>7} {:>4} {:<19} {:>12}  {:<25} {}"
NOTHING = "–"


def main() -> None:
    """Run the searches and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scripts", nargs="+", default=SCRIPTS, help="of fixtures/scripts")
    parser.add_argument("--strategies", nargs="+", default=list(registry.strategies()))
    parser.add_argument("--engine", default="openvino", choices=list(PLAIN))
    parser.add_argument("--max-trials", type=int, default=20)
    parser.add_argument("--budget", default="10m", help="for each search")
    parser.add_argument("--json", type=Path, help="write all results there")
    options = parser.parse_args()
    results: dict[str, Any] = {}
    print(ROW.format(*COLUMNS), flush=True)
    for script in options.scripts:
        for precision, features in (PLAIN[options.engine] | EAGER).items():
            found = results[f"{script} {precision}"] = searched(
                script, "--features", features, "--budget", options.budget
            )
            print(line_of_variant(script, f"none: {precision}", found), flush=True)
        for strategy in options.strategies:
            limits = ("--max-trials", str(options.max_trials), "--budget", options.budget)
            found = searched(script, "--features", f"int8_static={options.engine}", "--strategy", strategy, *limits)
            results[f"{script} {strategy}"] = found
            print(line_of_search(script, strategy, found), flush=True)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1), encoding="utf-8")


def line_of_search(script: str, strategy: str, found: dict[str, Any]) -> str:
    """A row of the table for a search that has tuned; where nothing had to be tuned, for its variant."""
    if not found["tuning"]:
        return line_of_variant(script, strategy, found)
    (tuned,) = found["tuning"]
    trials: Sequence[dict[str, Any]] = tuned["trials"]
    minutes = f"{tuned['seconds'] / 60:.1f}"
    kept = sum(trial["kept"] for trial in trials)
    winner = found["chosen"] or tuned["best"]
    best = next((trial for trial in trials if trial["id"] == winner), None)
    if best is None:
        return ROW.format(script, strategy, len(trials), minutes, kept, NOTHING, NOTHING, "nothing holds", NOTHING)
    measured = next(variant for variant in found["variants"] if variant["id"] == best["id"])
    names = ", ".join(best["exclude"][:2]) + (", …" if len(best["exclude"]) > 2 else "")
    settings = " ".join(f"{name}={value}" for name, value in best["settings"].items())
    left = f"{len(best['exclude'])} in {best['fallback']}: {names} {settings}".strip(" :")
    loss = NOTHING if best["loss"] is None else f"{best['loss']:.2f}"
    speed = interval(measured["speedup"])
    return ROW.format(script, strategy, len(trials), minutes, kept, speed, loss, answer(measured, found), left)


def line_of_variant(script: str, name: str, found: dict[str, Any]) -> str:
    """A row of the table for the only variant of a search."""
    variant, *_ = found["variants"]
    speed, accuracy = interval(variant["speedup"]), variant["accuracy"]
    loss = NOTHING if not accuracy or accuracy["loss"] is None else f"{accuracy['loss'] / accuracy['allowed']:.2f}"
    kept = int(bool(accuracy and accuracy["kept"]))
    return ROW.format(script, name, NOTHING, NOTHING, kept, speed, loss, answer(variant, found), "all")


def interval(speedup: dict[str, float] | None) -> str:
    """A ratio with its interval."""
    return f"×{speedup['median']:.2f} [{speedup['low']:.2f}-{speedup['high']:.2f}]" if speedup else NOTHING


def answer(variant: dict[str, Any], found: dict[str, Any]) -> str:
    """What the search says of a variant; of the chosen one, what it came to in fresh runs."""
    if found["chosen"] != variant["id"]:
        return str(variant["status"])
    confirmed = found["confirmed"]
    return f"chosen, ×{confirmed['speedup']['median']:.2f} in fresh runs" if confirmed else "chosen"


if __name__ == "__main__":
    main()
