"""The layer table: what each module or folder of seg/ may import from seg/, besides itself.

BUILD makes its targets from this table, tests/test_layers.py compares the imports with it, and tests/test_build.py
compares it with the table of docs/design.md. A row comes after the rows of all that it may import.
"""

# Below the parts: every part and most packages above may import these.
BASE = ["errors", "log_level", "cores", "files", "structures", "number_checks", "known_classes", "ops", "layers"]

# One folder for each kind of plugin. Kinds reach each other through the registry only.
PARTS = ["augments", "backbones", "datasets", "decoders", "heads", "losses", "metrics", "optimizers", "schedules"]

LAYERS = {
    "errors": [],
    "log_level": [],
    "cores": [],
    "files": ["errors"],
    "downloads": ["errors", "files"],
    "structures": ["errors"],
    "number_checks": ["errors"],
    "known_classes": [],
    "masks": ["errors", "structures"],
    "drawing": ["errors", "structures", "known_classes", "masks"],
    "ops": ["errors", "structures"],
    "layers": ["errors", "structures", "number_checks", "ops"],
    "registry": ["errors", "structures"],
    "plugins": ["errors", "files", "structures", "registry"],
    "unused_bindings": ["errors", "structures", "registry"],
    "gin_files": ["errors", "files", "structures", "registry"],
    "gin_spelling": ["errors", "structures", "registry"],
    "gin_statements": ["errors", "structures", "gin_files", "gin_spelling"],
    "config": ["errors", "structures", "registry", "plugins", "unused_bindings", "gin_files", "gin_spelling", "gin_statements"],
    "run": ["errors", "files", "structures", "config"],
    "checks": ["errors", "structures", "registry"],
    "backbones": BASE + ["registry"],
    "decoders": BASE + ["registry"],
    "heads": BASE + ["registry"],
    "losses": BASE + ["registry"],
    "optimizers": BASE + ["registry"],
    "schedules": BASE + ["registry"],
    "datasets": BASE + ["downloads", "registry", "drawing", "masks"],
    # Data sets define the form of masks in an example.
    "augments": BASE + ["registry", "masks", "datasets"],
    "metrics": BASE + ["registry", "drawing", "masks"],
    "models": BASE + ["registry", "backbones", "decoders", "heads"],
    "weights": BASE + ["downloads", "registry", "run"],
    "inputs": BASE + ["registry", "masks", "augments", "datasets"],
    # The engine's step uses the optimizers' rule for variables that decay.
    "engine": BASE + ["optimizers"],
    "planner": ["errors", "cores", "files", "run", "engine"],
    "executor": BASE + ["run", "engine", "metrics", "weights"],
    "report": ["errors", "files", "structures", "run", "drawing", "datasets", "planner"],
    "prediction": BASE + ["run", "drawing", "masks", "datasets", "engine", "executor", "report"],
    "tasks": BASE + ["registry", "drawing", "masks", "inputs", "prediction"] + PARTS,
    "export": BASE + ["run", "masks", "metrics", "inputs", "datasets", "engine", "executor", "prediction", "heads", "models", "tasks"],
    "serving": BASE + ["drawing", "masks", "engine", "executor", "prediction", "export", "report"],
    "inspection": BASE + ["run", "checks", "drawing", "masks", "datasets", "executor", "report"],
}

# These build a run, and may import everything above.
LAYERS["experiment"] = list(LAYERS)
LAYERS["modes"] = list(LAYERS)
LAYERS["seg_main"] = list(LAYERS)
