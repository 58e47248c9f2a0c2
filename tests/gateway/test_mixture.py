import numpy as np
import pytest

from gateway.mixture import keep, mix
from gateway.stages import Facts, Retrieval, Space


def retrieval(priors, *, space=None):
    return Retrieval(
        passages=[f"passage {name}" for name in priors],
        log_priors=np.log(list(priors.values())).tolist(),
        facts=[Facts(name) for name in priors],
        space=space,
    )


@pytest.mark.parametrize("seed", range(20))
def test_rag_token_over_the_mixture_is_rag_turn(seed):
    """sum_t LSE_d( lpi_d + a_dt ) over the mixture = sum_t LSE_j( lomega_j + LSE_i( lpi_ji + a_jit ) )."""
    random = np.random.default_rng(seed)
    names = [f"d{i}" for i in range(6)]
    per_token = {name: np.log(random.uniform(0.01, 1.0, 4)) for name in names}  # a_dt, four tokens
    log_weights = random.normal(size=3).tolist()
    log_omega = log_weights - np.logaddexp.reduce(log_weights)
    turns = []
    for _ in log_weights:
        chosen = random.choice(names, 4, replace=False)
        turns.append(retrieval(dict(zip(chosen, random.dirichlet(np.ones(4)), strict=True))))
    rag_turn = [
        log_weight + np.logaddexp.reduce([p + per_token[f.id] for p, f in zip(t.log_priors, t.facts, strict=True)])
        for log_weight, t in zip(log_omega, turns, strict=True)
    ]
    mixture = mix(turns, log_weights)
    mixed = [p + per_token[f.id] for p, f in zip(mixture.log_priors, mixture.facts, strict=True)]
    assert np.logaddexp.reduce(mixed) == pytest.approx(np.logaddexp.reduce(rag_turn))
    assert np.logaddexp.reduce(mixture.log_priors) == pytest.approx(0.0)
    assert mixture.log_priors == sorted(mixture.log_priors, reverse=True)


def test_priors_too_small_for_a_float_keep_their_order():
    tiny = Retrieval(["a", "b"], [-2000.0, -2001.0], [Facts("a"), Facts("b")])
    assert mix([tiny], [-3000.0]).log_priors == pytest.approx([-0.3133, -1.3133], abs=1e-4)


def test_vectors_stay_with_their_passages():
    def space(*rows):
        return Space(np.array(rows, np.float32), 0.5, True, "digest")

    first, second = (
        retrieval({"a": 0.4, "b": 0.6}, space=space([1, 0], [2, 0])),
        retrieval({"c": 1.0}, space=space([3, 0])),
    )
    mixture = mix([first, second, Retrieval()], [0.0, 0.0, 0.0])
    assert [facts.id for facts in mixture.facts] == ["c", "b", "a"]
    assert mixture.space.vectors[:, 0].tolist() == [3, 2, 1]
    kept = keep(mixture, [0, 2])
    assert (kept.passages, kept.space.vectors[:, 0].tolist()) == (["passage c", "passage a"], [3, 1])
    assert np.exp(kept.log_priors).tolist() == pytest.approx([5 / 7, 2 / 7])


def test_nothing_mixed_is_nothing():
    assert list(mix([Retrieval(), Retrieval()], [0.0, -1.0]).passages) == []
    assert keep(Retrieval(), []) == Retrieval(passages=[], facts=[], log_priors=[])
