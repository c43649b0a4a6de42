"""The keys of a recipe of several stages, with their meanings. Any other key is an error.
docs/reference/keys.md is generated from them."""

from __future__ import annotations

RECIPE_KEYS = {
    "run_name": "Name of the run, and of the group of its stages in W&B. Required.",
    "output_dir": "Folder of the run. A stage writes the folder of its name in it. Required.",
    "seed": "Seed of every stage; 17 if it is not given.",
    "accelerate_config": "Launch config of every stage, a file like those of recipes/accelerate/.",
    "values": "Variables by name. A stage uses a variable as `$name`; `--set` changes it.",
    "rounds": "How often the stages of `each_round` run; `<i>` in them is the round's number.",
    "stop_after_refusals": "Rounds in a row that keep the incumbent, after which no further round "
    "runs; null: all rounds run.",
    "stages": "List of stages, in the order in which they run. Required.",
}

# The keys that a recipe may have beside RECIPE_KEYS, in place of `values` and `stages`.
EXTENDING_KEYS = {
    "extends": "Recipe whose keys this recipe takes over; it must not extend another recipe.",
    "set": "The values that differ from it, with the names that `--set` uses.",
}

STAGE_KEYS = {
    "name": "Name of the stage and of its folder: letters, digits and _. Required.",
    "script": "Launcher of the stage. Required.",
    "config": "YAML file with keys of the launcher.",
    "args": "Keys of the launcher, which replace those of `config`. `{name}` stands for the folder "
    "of an earlier stage, `policies: all` for every earlier stage that writes a policy, and "
    "`stages: all` for every earlier stage.",
    "accelerate_config": "Launch config of this stage, in place of the recipe's; `--set "
    "accelerate_config=` replaces both.",
    "each_round": "In place of all other keys: the list of stages that run in every round.",
    "when": "Variables and their values for which the stage runs; a list allows several values.",
}
