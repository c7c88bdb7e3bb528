"""The layer table: what each module or folder of seg/ may import from seg/, besides itself.

BUILD makes its targets from this table, tests/test_layers.py compares the imports with it, and tests/test_build.py
compares it with the table of docs/design.md. A room stands below all that it may import.
"""

# Below the parts: every part and most rooms above may import these.
BASE = ["errors", "files", "structures", "number_checks", "ops", "layers"]

# One folder for each kind of plugin. Two kinds meet through the registry alone.
PARTS = ["augments", "backbones", "datasets", "decoders", "heads", "losses", "metrics", "optimizers", "schedules"]

LAYERS = {
    "errors": [],
    "files": ["errors"],
    "structures": ["errors"],
    "number_checks": ["errors"],
    "masks": ["errors", "structures"],
    "drawing": ["errors", "structures", "masks"],
    "ops": ["errors", "structures"],
    "layers": ["errors", "structures", "number_checks", "ops"],
    "registry": ["errors", "structures"],
    "plugins": ["errors", "files", "structures", "registry"],
    "unused_bindings": ["errors", "structures", "registry"],
    "gin_files": ["errors", "files", "structures", "registry"],
    "config": ["errors", "files", "structures", "registry", "plugins", "unused_bindings", "gin_files"],
    "run": ["errors", "files", "structures", "config"],
    "checks": ["errors", "structures", "registry"],
    "backbones": BASE + ["registry"],
    "decoders": BASE + ["registry"],
    "heads": BASE + ["registry"],
    "losses": BASE + ["registry"],
    "optimizers": BASE + ["registry"],
    "schedules": BASE + ["registry"],
    "datasets": BASE + ["registry", "drawing", "masks"],
    # The form of masks in an example is the data sets'.
    "augments": BASE + ["registry", "masks", "datasets"],
    "metrics": BASE + ["registry", "drawing", "masks"],
    "models": BASE + ["registry", "backbones", "decoders", "heads"],
    "weights": BASE + ["registry", "run"],
    "inputs": BASE + ["registry", "masks", "augments", "datasets"],
    # The engine's step shares the optimizers' rule for which variables decay.
    "engine": BASE + ["optimizers"],
    "executor": BASE + ["run", "engine", "metrics", "weights"],
    "prediction": BASE + ["run", "drawing", "masks", "engine", "executor"],
    "tasks": BASE + ["registry", "drawing", "masks", "inputs", "prediction"] + PARTS,
    "report": ["errors", "files", "structures", "run", "drawing", "datasets"],
}

# Where the parts of a run meet: everything above.
LAYERS["experiment"] = list(LAYERS)
LAYERS["modes"] = list(LAYERS)
LAYERS["seg_main"] = list(LAYERS)
