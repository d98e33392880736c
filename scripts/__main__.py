"""The front door to every tool: .venv/bin/petclf TOOL [options], or python -m scripts TOOL [options].

TOOL --help explains one tool. `make help` lists the make targets, which give the tools their usual options.
"""

import difflib
import runpy
import sys
from pathlib import Path

# by purpose; each tool is a file in scripts/ or, where that has none of this name, in training/
TOOLS = {
    "First steps": {
        "demo": "start the server, ask it about photos, say what to do next",
        "tour": "a model's whole life in five minutes, with drawn photos",
        "predict": "classify photos or folders: table, CSV or JSON, heat maps",
    },
    "Train": {
        "manifest": "read photos, find duplicates and damaged files, split them",
        "doubtful": "list photos whose label is probably wrong",
        "train": "train, or continue a training",
        "fit": "choose temperature and thresholds on validation photos",
        "evaluate": "measure the model on test photos",
        "export": "write build/petclf.pt",
        "register": "log the model and its figures to MLflow, as the candidate",
        "retrain": "all of this with new photos, up to a new live version",
    },
    "Serve and release": {
        "build_archive": "pack a model into model_store/NAME-VERSION.mar",
        "serve": "start TorchServe and supervise it",
        "models": "list, register, verify, promote, roll back, retire versions",
        "shadow": "compare a candidate with the live version on real traffic",
        "make_key": "create an API key for the gateway",
    },
    "Operate": {
        "smoke_test": "check that a running server answers as it should",
        "score_live": "measure a running server's accuracy on labelled photos",
        "late_labels": "measure accuracy from the prediction log and later labels",
        "drift": "detect whether the photos in the prediction log have changed",
    },
    "Many photos": {
        "score_many": "classify a million photos into Parquet, over Ray Data",
    },
}
ROOT = Path(__file__).resolve().parents[1]


def overview() -> str:
    """Return every tool by purpose, a line each."""
    parts = ["usage: petclf TOOL [options]    (TOOL --help explains one)"]
    for purpose, tools in TOOLS.items():
        parts.append("\n".join([f"{purpose}:", *(f"  {name:<14} {line}" for name, line in tools.items())]))
    return "\n\n".join(parts)


def module_of(name: str) -> str:
    package = "scripts" if (ROOT / "scripts" / f"{name}.py").is_file() else "training"
    return f"{package}.{name}"


def unknown(name: str) -> str:
    """Return what to say of a name that no tool has."""
    names = [tool for tools in TOOLS.values() for tool in tools]
    near = difflib.get_close_matches(name, names, n=1) or [tool for tool in names if name and name in tool]
    return f"error: no tool is called {name}; " + (f"did you mean {near[0]}?" if near else "petclf --help lists them all")


def main() -> None:
    sys.path[0] = str(ROOT)  # where `python scripts` has this folder, whose names would hide other packages' modules
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help", "help"):
        print(overview())
        return
    name = sys.argv.pop(1).replace("-", "_")
    if not any(name in tools for tools in TOOLS.values()):
        print(unknown(name), file=sys.stderr)
        sys.exit(2)
    runpy.run_module(module_of(name), run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
