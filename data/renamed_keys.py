"""Keys of recipes that have a new name. An old key is an error that names the new key."""

from __future__ import annotations

from collections.abc import Iterable

# Class of the config -> old key -> new key. An old key, such as `rollouts`, may still be a valid
# key of another class.
RENAMED_KEYS: dict[str, dict[str, str]] = {
    "MCTSConfig": {
        "rollouts": "expand_by_rollouts",
        "considered": "considered_actions",
        "commit": "answer_from_root_choice",
        "distinct": "distinct_proposals",
        "maximum": "max_backup",
        "parallel": "parallel_simulations",
    },
    "RevisionConfig": {"seen": "seen_attempts"},
    "MonteCarloConfig": {"hard": "hard_labels"},
    "EveryStepConfig": {"hard": "hard_labels"},
    "BinarySearchConfig": {"hard": "hard_labels", "unsolved": "search_unsolved"},
    "RewardModelConfig": {"pairs": "preference_pairs"},
    "StepPreferenceConfig": {"pairs": "step_preferences"},
    "ImportConfig": {"neutral": "neutral_rating"},
    "HeldOutConfig": {"evaluation_tokens": "max_new_tokens"},
    "GroupRLConfig": {"max_completion_length": "max_new_tokens"},  # TRL's name
    "PPOConfig": {"decay": "learning_rate_decay"},
    "EvaluateConfig": {
        "making_problems": "data_making_problems",
        "making_simulations": "data_making_simulations",
    },
    "CompareConfig": {
        "arms": "strategies",
        "growing": "strategies_tested_for_growth",
        "target": "target_best_of_n",
    },
    "ReportConfig": {"task": "verifier", "num_trees": "judged_problems"},
}


def refuse_renamed_keys(keys: Iterable[str], kinds: Iterable[type]) -> None:
    """Raises ValueError for a key that has a new name. `kinds` are the config classes that may have
    the keys."""
    renamed = {
        old: new for kind in kinds for old, new in RENAMED_KEYS.get(kind.__name__, {}).items()
    }
    for key in keys:
        if key in renamed:
            raise ValueError(f"the key {key!r} is now called {renamed[key]!r}")
