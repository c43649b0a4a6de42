"""The visit counts equal those of mctx, an independent implementation, on the same trees.

Merging, virtual loss and noise are off. mctx uses the value transform of this project: before its
first visit, a child has its own value. mctx evaluates the root outside its simulations, so this
project's search gets one more simulation for the expansion of the root.
"""

from __future__ import annotations

import math
from functools import cache, partial
from typing import Any

import pytest

from data.types import Sample, StopReason
from search.base import SampleRequest, solution_text
from search.batcher import run_searches
from search.settings import SearchSettings
from search.strategies.mcts.config import MCTSConfig
from search.strategies.mcts.loop import search_mcts

jax = pytest.importorskip("jax")
mctx = pytest.importorskip("mctx")
jnp = jax.numpy

pytestmark = pytest.mark.slow
LETTERS = "abcde"
MASK = 2**32 - 1


def child_state(state: int, action: int) -> int:
    """An infinite tree. A node is a 32-bit number, the hash of its path."""
    x = (state * 2654435761 + (action + 1) * 40503) & MASK
    return ((x ^ (x >> 15)) * 2246822519) & MASK


def value_of(state: int) -> float:
    return (state % 1009) / 1009


def probabilities_of(state: int, letters: str) -> dict[str, float]:
    weights = [1 + (state // 1013 + 7919 * i) % 101 for i in range(len(letters))]
    return {letter: w / sum(weights) for letter, w in zip(letters, weights, strict=True)}


def state_of(text: str, seed: int) -> int:
    state = seed
    for letter in text:
        state = child_state(state, LETTERS.index(letter))
    return state


def our_visits(toys: Any, seed: int, actions: int, config: MCTSConfig) -> dict[str, int]:
    letters = LETTERS[:actions]

    class Enumerating(toys.Engine):
        """A policy that proposes all steps in order."""

        def _sample(self, problem: str, request: SampleRequest, index: int) -> Sample:
            options = self.letters(self.decode(request.prefix)[2:])
            letter = list(options)[index % actions]
            return Sample(
                token_ids=(ord(letter),), step_logprobs=(math.log(options[letter]),),
                step_entropies=(0.0,), stop_reason=StopReason.STEP_END,
            )  # fmt: skip

    [result] = run_searches(
        [toys.problem("p", "")],
        partial(search_mcts, config=config),
        engine=Enumerating(lambda text: probabilities_of(state_of(text, seed), letters)),
        scorer=toys.Scorer(lambda text: value_of(state_of(text, seed))),
        verify=toys.verify,
        settings=SearchSettings(max_depth=1000),
    )
    return {
        solution_text(result.nodes, node.id): node.visit_count
        for node in result.nodes
        if node.visit_count and node.id
    }


@cache
def their_search(actions: int, simulations: int, policy: Any, parameter: float) -> Any:
    """A function from the root's state to mctx's tree, compiled once for all seeds."""

    def states_below(state: Any) -> Any:
        moves = (jnp.arange(actions, dtype=jnp.uint32) + 1) * jnp.uint32(40503)
        x = state[..., None] * jnp.uint32(2654435761) + moves
        return (x ^ (x >> 15)) * jnp.uint32(2246822519)

    def values(state: Any) -> Any:
        return (state % jnp.uint32(1009)).astype(jnp.float32) / 1009

    def logits(state: Any) -> Any:
        offsets = jnp.arange(actions, dtype=jnp.uint32) * jnp.uint32(7919)
        weights = 1 + (state[..., None] // jnp.uint32(1013) + offsets) % jnp.uint32(101)
        return jnp.log(weights / weights.sum(-1, keepdims=True))

    def step(params: Any, key: Any, action: Any, state: Any) -> Any:
        below = jnp.take_along_axis(states_below(state), action[:, None], axis=-1)[:, 0]
        zero, one = jnp.zeros(1), jnp.ones(1)
        output = mctx.RecurrentFnOutput(
            reward=zero, discount=one, prior_logits=logits(below), value=values(below)
        )
        return output, below

    def qs(tree: Any, node: Any) -> Any:
        own = values(states_below(tree.embeddings[node]))
        return jnp.where(tree.children_visits[node] > 0, tree.qvalues(node), own)

    def search(root: Any) -> Any:
        output = policy(
            parameter, params=(), rng_key=jax.random.PRNGKey(0),
            root=mctx.RootFnOutput(prior_logits=logits(root), value=values(root), embedding=root),
            recurrent_fn=step, num_simulations=simulations, qs=qs,
        )  # fmt: skip
        return output.search_tree

    return jax.jit(search)


def their_visits(
    seed: int, actions: int, simulations: int, policy: Any, parameter: float
) -> dict[str, int]:
    search = their_search(actions, simulations, policy, parameter)
    tree = jax.device_get(search(jnp.array([seed], dtype=jnp.uint32)))
    paths = {0: ""}
    found: dict[str, int] = {}
    for node in range(1, simulations + 1):
        letter = LETTERS[int(tree.action_from_parent[0, node])]
        paths[node] = paths[int(tree.parents[0, node])] + letter
        found[paths[node]] = int(tree.node_visits[0, node])
    return found


def puct_policy(exploration: float, qs: Any, **arguments: Any) -> Any:
    return mctx.muzero_policy(
        **arguments, qtransform=qs, dirichlet_fraction=0.0, pb_c_init=exploration, pb_c_base=1e9
    )


def gumbel_policy(considered: int, qs: Any, rescale: bool = True, **arguments: Any) -> Any:
    def transform(tree: Any, node: Any) -> Any:
        values = qs(tree, node)
        if rescale:
            values = mctx._src.qtransforms._rescale_qvalues(values, 1e-8)
        return (50.0 + tree.children_visits[node].max()) * 0.1 * values

    return mctx.gumbel_muzero_policy(
        **arguments, qtransform=transform, gumbel_scale=0.0, max_num_considered_actions=considered
    )


plain_gumbel_policy = partial(gumbel_policy, rescale=False)


@pytest.mark.parametrize(("seed", "actions", "exploration"), [(77, 3, 1.25), (4242, 5, 0.4)])
def test_puct_visits_what_mctx_visits(
    toys: Any, seed: int, actions: int, exploration: float
) -> None:
    config = MCTSConfig(
        budgets=(65,), proposals=actions, priors="sequence", exploration=exploration,
        leaf_value="own",
    )  # fmt: skip
    theirs = their_visits(seed, actions, 64, puct_policy, exploration)
    assert our_visits(toys, seed, actions, config) == theirs
    assert max(map(len, theirs)) > 3


@pytest.mark.parametrize(
    ("seed", "actions", "simulations", "rescale"),
    [(77, 5, 64, True), (4242, 4, 16, True), (77, 5, 11, False), (4242, 5, 64, False)],
)
def test_gumbel_visits_what_mctx_visits(
    toys: Any, seed: int, actions: int, simulations: int, rescale: bool
) -> None:
    config = MCTSConfig(
        budgets=(simulations + 1,), proposals=actions, priors="sequence", selection="gumbel",
        considered_actions=actions, gumbel_scale=0.0, c_visit=50.0, c_scale=0.1, leaf_value="own",
        rescale_values=rescale,
    )  # fmt: skip
    policy = gumbel_policy if rescale else plain_gumbel_policy
    theirs = their_visits(seed, actions, simulations, policy, actions)
    assert our_visits(toys, seed, actions, config) == theirs
