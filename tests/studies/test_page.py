"""The page of claims: its cells and commands, and how it opens in a browser."""

import csv
import io
import re
from pathlib import Path
from typing import Any

import pytest
from synthetic import make_run

from nextfail.files import Inside
from nextfail.paths import CONF
from nextfail.reports.collect import Collection, collect
from nextfail.studies.pitfalls import claims, page, verdict
from nextfail.studies.pitfalls.claims import CLAIMS


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Collection:
    """Three seeds that fail, of which one was cut, two that are solved in reverse, and one of another name."""
    runs = tmp_path_factory.mktemp("runs")
    for seed, exact in enumerate((0.49, 0.51, None)):
        make_run(runs / f"tf{seed}", seed=seed, exact=exact)
    for seed in range(2):
        make_run(
            runs / f"rev{seed}", seed=seed, objective="reverse", exact=0.99, hard=0.99, cheat=None, outcome="solved"
        )
    make_run(runs / "odd", model="<script>alert(1)</script>", depth=2)
    return collect([runs])


def claim(name: str) -> claims.Claim:
    return next(each for each in CLAIMS if each.name == name)


def test_every_claim_has_its_experiment() -> None:
    assert {each.name for each in CLAIMS} <= {path.stem for path in (CONF / "experiment" / "pitfalls").glob("*.yaml")}
    assert all(each.rule_in_words for each in CLAIMS)


def recipe_of(claim: str) -> str:
    """The recipe that an experiment names, or the one that it is made from."""
    content = (CONF / "experiment" / "pitfalls" / f"{claim}.yaml").read_text()
    named = re.search(r"override /recipe: (\w+)", content)
    return named[1] if named else recipe_of("failure")


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.name)
def test_laptop_graphs_are_those_of_the_recipe(claim: claims.Claim) -> None:
    graphs = re.search(r"task: (\S+)", (CONF / "recipe" / f"{recipe_of(claim.name)}.yaml").read_text())
    assert graphs and graphs[1] == ",".join("g" + graph[2:-1].replace(",", "_") for graph in claim.laptop)


def test_every_published_graph_has_a_cell_with_the_command_that_fills_it(collection: Collection) -> None:
    found = {(cell.graph, cell.model): cell for cell in claims.cells(claim("indecipherable"), collection)}
    assert set(found) == {(graph, model) for graph in claims.GRAPHS for model in claims.MODELS}
    assert {cell.verdict.word for cell in found.values()} == {"not run"}
    beginning = "nextfail-train experiment=pitfalls/indecipherable"
    assert found["G(5,5)", "mamba"].command == f"{beginning} task=g5_5 model=mamba"
    assert found["G(20,5)", "transformer"].command == f"{beginning} recipe=paper task=g20_5 model=transformer"


def test_cell_that_lacks_a_seed_keeps_its_command(collection: Collection) -> None:
    found = {(cell.graph, cell.model): cell for cell in claims.cells(claim("failure"), collection)}
    assert found["G(2,3)", "transformer"].command
    assert not {cell for cell in claims.cells(claim("reverse"), collection) if cell.rows and cell.command}


def test_what_another_experiment_shows_has_its_command(collection: Collection) -> None:
    for name in ("teacherless", "cascade"):
        (cell,) = (each for each in claims.cells(claim(name), collection)
                   if (each.graph, each.model) == ("G(2,5)", "transformer"))  # fmt: skip
        assert cell.command == "nextfail-train experiment=demo seed=0,1,2"


@pytest.mark.parametrize(
    ("sizes", "command"),
    [
        ({"degree": 2}, "task=g2_3 model=transformer"),
        ({"degree": 7}, "task=path_star task.degree=7 task.path_length=3 model=transformer"),
        ({"degree": 2, "num_nodes": 9}, "task=g2_3 task.num_nodes=9 model=transformer"),
    ],
)
def test_one_seed_is_too_few_and_the_command_says_how_to_get_more(
    tmp_path: Path, sizes: dict[str, int], command: str
) -> None:
    make_run(tmp_path / "one", exact=1 / sizes["degree"], hard=1 / sizes["degree"], **sizes)
    (cell,) = (cell for cell in claims.cells(claim("failure"), collect([tmp_path])) if cell.rows)
    assert cell.verdict.word == "too few seeds"
    assert cell.command == f"nextfail-train experiment=pitfalls/failure {command}"


def test_claim_on_pretrained_models_asks_no_others(tmp_path: Path) -> None:
    make_run(tmp_path / "one")
    make_run(tmp_path / "two", model="gpt2", depth=2)
    found = collect([tmp_path])
    ran = {
        each: [cell.model for cell in claims.cells(claim(each), found) if cell.rows]
        for each in ("failure", "pretrained")
    }
    assert ran == {"failure": ["transformer"], "pretrained": ["gpt2"]}


def test_page_needs_nothing_else_and_escapes_what_it_is_given(collection: Collection) -> None:
    text = page.html(collection, page.sections(collection))
    assert "<script" not in text and "&lt;script&gt;" in text
    links = re.findall(r'(?:src|href)="([^"]*)"', text)
    assert all(
        link.startswith(("data:", "#", "https://arxiv.org/")) or link in ("report.md", "results.csv", "claims.csv")
        for link in links
    )
    for each in CLAIMS:
        assert f'<section id="{each.name}">' in text
    assert "0.490 [0.460, 0.520]" in text and "48 to 50 %" in text
    assert all(word in text for word in verdict.WORDS)


def test_verdicts_are_counted_and_listed(collection: Collection, tmp_path: Path) -> None:
    held = page.sections(collection)
    reverse = next(section for section in held if section.claim.name == "reverse")
    assert reverse.counts == {"reproduced": 1, "not run": 10}
    rows = list(csv.DictReader(io.StringIO(page.table_csv(held))))
    assert len(rows) == sum(max(len(cell.rows), 1) for section in held for cell in section.cells)
    (row,) = (row for row in rows if row["claim"] == "reverse" and row["verdict"] == "reproduced")
    assert (row["graph"], row["seeds"], row["problems"], row["command"]) == ("G(2,3)", "2", "2000", "")
    page.write(collection, held, Inside(tmp_path))
    figures = {path.name for path in (tmp_path / "figures" / "claims").iterdir()}
    assert "reverse_dots.svg" in figures and "forced_vs_free_dots.svg" in figures
    page.write(collection, [], Inside(tmp_path))
    assert not list((tmp_path / "figures" / "claims").iterdir())


def test_terminal_says_nothing_of_claims_that_no_run_answers(tmp_path: Path) -> None:
    make_run(tmp_path / "odd", objective="mine")
    assert page.table(page.sections(collect([tmp_path]))) is None


# in a browser


@pytest.mark.paper
@pytest.mark.parametrize("width", [1280, 390])
def test_page_opens_from_disk_without_a_complaint(
    browser: Any, collection: Collection, tmp_path: Path, width: int
) -> None:
    path, _ = page.write(collection, page.sections(collection), Inside(tmp_path))
    opened = browser.new_page(viewport={"width": width, "height": 900})
    said: list[str] = []
    asked: list[str] = []
    opened.on("console", lambda message: said.append(message.text))
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.on("request", lambda request: asked.append(request.url))
    opened.goto(path.as_uri())
    assert not said
    assert [url for url in asked if not url.startswith("data:")] == [path.as_uri()]
    sizes = opened.eval_on_selector_all(
        "img", "all => all.map(i => [i.complete, i.naturalWidth, i.clientWidth, i.clientHeight])"
    )
    assert len(sizes) == 5  # dots of failure, clever_hans, reverse, forced_vs_free; curves of clever_hans
    assert all(complete and natural > 0 and wide > 100 and high > 50 for complete, natural, wide, high in sizes)
    wider_than_the_window = opened.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    assert wider_than_the_window <= 0
    for link in opened.eval_on_selector_all("a[href^='#']", "all => all.map(a => a.getAttribute('href'))"):
        assert opened.locator(link).count() == 1
    opened.close()
