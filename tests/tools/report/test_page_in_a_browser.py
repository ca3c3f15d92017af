from __future__ import annotations

import json
import re

import pytest
from made_up import HOSTILE, made_up_run

from benchmarks.browser import MISSING, browser, programs
from nrt_lightning.tools.report import write_report

pytestmark = pytest.mark.skipif(programs() is None, reason=MISSING)


@pytest.fixture(scope="module")
def opened():
    with browser() as made:
        yield made


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    for name, hostile in (("plain", ""), ("hostile", HOSTILE)):
        run = made_up_run(folder / name, hostile=hostile)
        if hostile:  # names that objects of JavaScript have
            names = {"__proto__": 1, "constructor": 2, "toString": 3, "</script>": 4, "": 5, "\ud800": 6}
            with (run / "metrics.jsonl").open("a") as file:
                file.write(json.dumps({"step": 61, "prompts": 5, "rollouts": -1e99, **names}) + "\n")
            facts = json.loads((run / "run.json").read_text())
            (run / "run.json").write_text(json.dumps(facts | {"settings": facts["settings"] | names}))
        made_up_run(folder / name, "sft", traces=False)
        write_report([folder / name], folder / f"{name}.html")
    sft, nrt = (folder / "plain" / "tensorboard" / name for name in ("sft", "nrt"))
    write_report([sft, nrt], folder / "two.html")
    write_report([sft], folder / "answers.html")
    return folder


COUNTS = """
const count = (selector) => document.querySelectorAll(selector).length;
return [document.documentElement.dataset.ready, count(".verdict"), count("figure canvas") > 8, count("#heat .token"),
        count(".sample"), count("#words .bar") > 8, count("#settings tr") > 2, count("section")]
"""
TYPE = """
const search = document.querySelector("#search");
search.value = arguments[0];
search.dispatchEvent(new Event("input"));
return [document.querySelectorAll(".sample").length, document.querySelector("#samples [role=status]").textContent]
"""


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [390, 1200])
def test_everything_is_there_and_fits(opened, pages, width, dark):
    opened.show(pages / "plain.html", width, 900, dark=dark)
    assert opened.run(COUNTS) == ["true", 2, True, 24, 12, True, True, 9]
    assert opened.run("return document.documentElement.scrollWidth") == width
    assert opened.messages() == []
    light = opened.run("return getComputedStyle(document.body).backgroundColor.match(/\\d+/g).every((v) => v > 128)")
    assert light is not dark


def test_the_filter_finds_words(opened, pages):
    opened.show(pages / "plain.html")
    assert opened.run(TYPE.replace("arguments[0]", '"MY FRIEND"')) == [8, "8 of 18 samples"]
    assert opened.run(TYPE.replace("arguments[0]", '"no such word"')) == [0, "0 of 18 samples"]
    assert opened.run(TYPE.replace("arguments[0]", '""')) == [12, "18 samples"]
    assert opened.messages() == []


CARDS = """
const run = document.querySelectorAll("#samples select")[0];
const texts = () => [...document.querySelectorAll(".sample")].map((card) => card.innerText);
const both = texts();
run.value = "0";
run.dispatchEvent(new Event("change"));
return [both, texts()]
"""


def test_a_run_without_traces_comes_last_and_shows_its_answers_alone(opened, pages):
    opened.show(pages / "two.html")  # the run without traces is the first of the page
    both, alone = opened.run(CARDS)
    assert (len(both), len(alone)) == (12, 6)
    assert all("trace" in text for text in both), "runs with traces come first"
    assert all(re.search(r"(right|wrong)\s+confidence 0\.\d+\s+own answer\s+e", text) for text in alone)
    assert not [text for text in alone if re.search("trace|marker|cut|gain|reward|token", text)]
    assert opened.messages() == []


def test_a_page_without_any_traces_says_so_and_offers_no_filter_of_traces(opened, pages):
    opened.show(pages / "answers.html")
    said = "return ['heat', 'words'].map((id) => document.getElementById(id).innerText)"
    assert all("write no traces" in text for text in opened.run(said))
    labels = "return [...document.querySelectorAll('#samples label')].filter((node) => node.offsetParent)"
    labels += ".map((node) => node.innerText).join(' ')"
    assert not re.search("trace|marker|training", opened.run(labels), re.IGNORECASE)
    assert opened.messages() == []


def test_a_run_and_an_axis_are_chosen(opened, pages):
    opened.show(pages / "plain.html")
    assert opened.run("return document.querySelector('#curves select').value") == "rollouts"
    opened.run("document.querySelector('#curves input[type=checkbox]').click()")
    legend = opened.run("return document.querySelector('#curves .legend').innerText")
    assert "sft" in legend
    assert "nrt" not in legend
    script = (
        "const s = document.querySelector('#curves select'); s.value = 'seconds'; s.dispatchEvent(new Event('change'))"
    )
    opened.run(script)
    assert opened.messages() == []


def test_texts_are_shown_and_not_run(opened, pages):
    opened.show(pages / "hostile.html")
    assert opened.run(COUNTS)[:2] == ["true", 2]
    cell = "return [...document.querySelectorAll('#settings tr')].find((row) => row.textContent.startsWith('constr'))"
    assert opened.run(cell + ".textContent") == "constructor2–"
    assert opened.run(
        "return [window.hit ?? null, document.querySelectorAll('img, #samples b:not([class]) b').length]"
    ) == [None, 0]
    assert opened.run("return document.querySelector('.sample .said').textContent").endswith(HOSTILE)
    assert opened.messages() == []


def test_what_is_hidden_takes_no_room(opened, pages):
    opened.show(pages / "plain.html")  # with one run that has traces
    labels = "return [...document.querySelectorAll('[hidden]')].map((node) => node.getClientRects().length)"
    assert set(opened.run(labels)) == {0}


def test_the_keyboard_reaches_the_controls(opened, pages):
    opened.show(pages / "plain.html")
    script = (
        "return [...document.querySelectorAll('select, input, button, a, summary')].every((node) => node.tabIndex >= 0)"
    )
    assert opened.run(script)
    names = "return [...document.querySelectorAll('select, input')].every((node) => node.labels.length)"
    assert opened.run(names)
