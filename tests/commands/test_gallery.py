"""The page that shows what a net of many scales sees."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from tests.experiment.test_views import A
from vggbn.commands import gallery
from vggbn.runs import run as runs
from vggbn.training.recipe import Recipe

RECIPE = A.but(steps=5)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    store = runs.Store(tmp_path_factory.mktemp("gallery") / "runs")
    runs.get_run(RECIPE, 0, store)
    return store.folder(RECIPE, 0)


def pictures(text):
    sources = re.findall(r'src="data:image/png;base64,([^"]+)"', text)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(source)))) for source in sources]


def test_the_page_has_three_pictures_an_image_and_the_jittered_crops(run, tmp_path, capsys):
    out = tmp_path / "page.html"
    with pytest.raises(SystemExit) as caught:
        gallery.main([str(run), "--images", "2", "--out", str(out)])
    assert caught.value.code == 0
    assert capsys.readouterr().out.strip() == str(out)
    text = out.read_text()
    shown = pictures(text)
    assert len(shown) == 2 * 3 + gallery.JITTERED and "http" not in text
    q, crop = RECIPE.test_side, RECIPE.image_size
    assert [x.shape[0] % q for x in shown[:6]] == [0] * 6
    assert shown[-1].shape == (crop * (256 // crop), crop * (256 // crop), 3)
    assert not all(np.array_equal(shown[-1], x) for x in shown[-gallery.JITTERED :])
    assert "the 25 crops of 8 pixels" in text and "S = 10 … 14" in text


def test_the_map_lies_over_the_image_cell_by_cell():
    p_hw = np.array([[0.0, 1.0], [1.0, 0.0]])
    found = gallery._overlaid(np.zeros((4, 8, 1), np.uint8), p_hw)
    red, blue = (102, 0, 0), (0, 0, 102)
    assert found[0, 0].tolist() == list(blue) and found[1, 4].tolist() == list(red)
    assert (found[:2, 4:] == red).all() and (found[2:, :4] == red).all()


def test_a_net_of_one_scale_is_refused(tmp_path):
    store = runs.Store(tmp_path / "runs")
    recipe = Recipe(data="digits", image_size=8, model="mlp", hidden=1, fc=8, batch=8, steps=1)
    runs.get_run(recipe, 0, store)
    with pytest.raises(SystemExit) as caught:
        gallery.main([str(store.folder(recipe, 0)), "--out", str(tmp_path / "x.html")])
    assert caught.value.code == 2 and not (tmp_path / "x.html").exists()


def test_a_folder_that_is_no_run_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        gallery.main([str(tmp_path)])
    assert "no run at" in capsys.readouterr().err


def test_a_net_that_ties_takes_an_image_for_no_class(run, monkeypatch):
    trained = runs.load_run(run)
    dataset = runs.load_data(RECIPE, 0, runs.Store(run.parent.parent))
    maps = {"tie": np.full((2, 2, 10), 0.1), "three": np.tile(np.eye(10)[3], (2, 2, 1))}
    for found, name in (("tie", "no class"), ("three", dataset.classes[3])):
        monkeypatch.setattr(gallery, "score_map", lambda *_, found=found: maps[found])
        assert f"taken for {name}</h2>" in gallery._test_image(trained, RECIPE, dataset, 0)
