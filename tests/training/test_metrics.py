import pytest
import torch
from helpers import SMALL, seeds
from hypothesis import given, settings
from torch import Tensor
from torchmetrics.classification import MulticlassAccuracy, MulticlassExactMatch

from nextfail.objectives import Predictions
from nextfail.tasks import Batch, PathStar
from nextfail.training.metrics import AnswerMetrics, Shares, flat, proportion

PATHS = torch.tensor([[7, 1, 4], [7, 1, 4], [0, 2, 5], [3, 9, 8]])
GENERATED = torch.tensor([[7, 1, 4], [7, 3, 9], [0, 2, 8], [3, 8, 8]])  # right, wrong from 1, wrong at 2, wrong at 1
FORCED = torch.tensor([[7, 1, 4], [7, 3, 4], [0, 1, 5], [3, 9, 1]])
GIVEN_HOP = torch.tensor([[7, 1, 4], [7, 1, 4], [0, 2, 5], [3, 9, 1]])


def of(paths: Tensor) -> Batch:
    """Problems with these answers; what is asked does not matter."""
    return Batch.full(paths[:, :0], paths)


def predicted(generated: Tensor, forced: Tensor | None = None, given_hop: Tensor | None = None) -> Predictions:
    return Predictions(generated, forced, {} if given_hop is None else {"cheat_accuracy": given_hop})


def measured(*batches: tuple[Predictions, Tensor]) -> AnswerMetrics:
    metrics = AnswerMetrics(SMALL)
    for predictions, paths in batches:
        metrics.update(predictions, of(paths))
    return metrics


def values(items: list[dict[str, float]]) -> list[float]:
    return [item["value"] for item in items]


def test_every_metric_by_hand() -> None:
    result = measured((predicted(GENERATED, FORCED, GIVEN_HOP), PATHS)).compute()
    assert result["exact_match"]["value"] == 1 / 4
    assert values(result["token_accuracy"]) == [1.0, 2 / 4, 2 / 4]
    assert result["hard_token_accuracy"] == result["token_accuracy"][1]
    assert values(result["forced_token_accuracy"]) == [1.0, 2 / 4, 3 / 4]
    assert result["cheat_accuracy"]["value"] == 3 / 4
    assert result["chance"] == 1 / 2
    assert {result[key]["n"] for key in ("exact_match", "hard_token_accuracy", "cheat_accuracy")} == {4}
    for key in ("token_accuracy", "forced_token_accuracy"):
        assert [item["n"] for item in result[key]] == [4, 4, 4]
    assert set(result) == {"exact_match", "hard_token_accuracy", "cheat_accuracy", "token_accuracy",
                           "forced_token_accuracy", "chance"}  # fmt: skip


def test_unasked_questions_are_none() -> None:
    result = measured((predicted(GENERATED), PATHS)).compute()
    assert result["cheat_accuracy"] is None
    assert result["forced_token_accuracy"] is None
    reverse = measured((predicted(GENERATED, FORCED), PATHS)).compute()
    assert reverse["cheat_accuracy"] is None
    assert values(reverse["forced_token_accuracy"]) == [1.0, 0.5, 0.75]


def test_cheat_counts_only_what_comes_after_the_hop() -> None:
    wrong_before = GIVEN_HOP.clone()
    wrong_before[:, :2] = 0
    result = measured((predicted(GENERATED, FORCED, wrong_before), PATHS)).compute()
    assert result["cheat_accuracy"]["value"] == 3 / 4


def test_cheat_asks_for_every_further_token() -> None:
    paths = torch.tensor([[0, 1, 2, 3]] * 4)
    given_hop = torch.tensor([[0, 1, 2, 3], [0, 1, 2, 4], [0, 1, 3, 3], [0, 1, 3, 4]])
    metrics = AnswerMetrics(PathStar(2, 4, 10))
    metrics.update(predicted(given_hop, None, given_hop), of(paths))
    assert metrics.compute()["cheat_accuracy"]["value"] == 1 / 4


@pytest.mark.parametrize("sizes", [[4], [1, 3], [1, 1, 1, 1], [3, 1]])
def test_batches_add_up(sizes: list[int]) -> None:
    parts = zip(*(tensor.split(sizes) for tensor in (GENERATED, FORCED, GIVEN_HOP, PATHS)), strict=True)
    together = measured((predicted(GENERATED, FORCED, GIVEN_HOP), PATHS)).compute()
    apart = measured(*((predicted(*predictions), paths) for *predictions, paths in parts)).compute()
    assert apart == together


def test_reset_forgets() -> None:
    metrics = measured((predicted(GENERATED, FORCED, GIVEN_HOP), PATHS))
    metrics.reset()
    metrics.update(predicted(PATHS), of(PATHS))
    result = metrics.compute()
    assert result["exact_match"]["value"] == 1.0
    assert result["exact_match"]["n"] == 4
    assert result["cheat_accuracy"] is None
    assert result["forced_token_accuracy"] is None


@given(seeds)
@settings(max_examples=15)
def test_shares_are_micro_accuracy_by_column(seed: int) -> None:
    source = torch.Generator().manual_seed(seed)
    guessed, paths = torch.randint(4, (2, 30, 5), generator=source)
    metric = Shares(5)
    for i in range(0, 30, 8):
        right = guessed[i : i + 8] == paths[i : i + 8]
        metric.update(right, torch.ones_like(right))
    hits, count = metric.compute().T.double()
    assert count.tolist() == [30] * 5
    for column in range(5):
        theirs = MulticlassAccuracy(4, average="micro")(guessed[:, column], paths[:, column])
        assert float(hits[column] / 30) == pytest.approx(float(theirs))


@given(seeds)
@settings(max_examples=15)
def test_exact_match_is_that_of_torchmetrics(seed: int) -> None:
    source = torch.Generator().manual_seed(seed)
    generated, paths = torch.randint(2, (2, 30, 3), generator=source)
    theirs = MulticlassExactMatch(14)(generated, paths)
    assert measured((predicted(generated), paths)).compute()["exact_match"]["value"] == pytest.approx(float(theirs))


def test_only_what_is_asked_is_counted() -> None:
    metric = Shares(3)
    metric.update(torch.tensor([[1, 0, 0], [1, 1, 0]]), torch.tensor([[1, 1, 0], [1, 1, 0]]))
    metric.update(torch.tensor([[2, 0, 0]]), torch.tensor([[3, 0, 0]]))
    assert metric.compute().tolist() == [[4, 5], [1, 2], [0, 0]]
    assert proportion(0, 0) == {"value": 0.0, "low": 0.0, "high": 1.0, "n": 0}


def test_places_that_do_not_count_are_not_asked() -> None:
    """As of answers that have ended before: the last place of the first two, and the hard one of the second."""
    mask = torch.tensor([[1, 1, 0], [1, 0, 0], [1, 1, 1], [1, 1, 1]], dtype=torch.bool)
    metrics = AnswerMetrics(SMALL)
    metrics.update(predicted(GENERATED, FORCED, GIVEN_HOP), Batch(PATHS[:, :0], PATHS, mask))
    result = metrics.compute()
    assert result["exact_match"] == proportion(2, 4)  # the second is wrong from its hop on, which does not count
    assert result["hard_token_accuracy"] == proportion(2, 3)
    assert result["token_accuracy"] == [proportion(4, 4), proportion(2, 3), proportion(1, 2)]
    assert result["forced_token_accuracy"] == [proportion(4, 4), proportion(2, 3), proportion(1, 2)]
    assert result["cheat_accuracy"] == proportion(1, 2)  # the first two end with the hop that is given


# (p + z^2/2n -+ z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n) with z = 1.959964, worked out by hand
@pytest.mark.parametrize(
    ("hits", "count", "low", "high"),
    [
        (0, 10, 0.0, 0.27753),
        (10, 10, 0.72247, 1.0),
        (5, 10, 0.23659, 0.76341),
        (8, 10, 0.49016, 0.94332),
        (1, 1, 0.20655, 1.0),
        (970, 2000, 0.46314, 0.50691),
    ],
)
def test_wilson_interval_by_hand(hits: int, count: int, low: float, high: float) -> None:
    result = proportion(hits, count)
    assert (result["value"], result["n"]) == (hits / count, count)
    assert result["low"] == pytest.approx(low, abs=1e-5)
    assert result["high"] == pytest.approx(high, abs=1e-5)


def test_large_counts_are_exact() -> None:
    metrics = AnswerMetrics(SMALL)
    for hits in (9_999, 10_000):
        generated = torch.tensor([[1, 2, 3]] * hits + [[1, 2, 4]] * (10_000 - hits))
        metrics.update(predicted(generated), of(torch.tensor([[1, 2, 3]] * 10_000)))
    assert metrics.compute()["exact_match"]["value"] == 19_999 / 20_000


def test_flat_values_for_loggers() -> None:
    result = measured((predicted(GENERATED, FORCED), PATHS)).compute()
    assert flat(result) == {
        "exact_match": 0.25,
        "hard_token_accuracy": 0.5,
        "token_accuracy_0": 1.0,
        "token_accuracy_1": 0.5,
        "token_accuracy_2": 0.5,
        "forced_token_accuracy_0": 1.0,
        "forced_token_accuracy_1": 0.5,
        "forced_token_accuracy_2": 0.75,
    }
